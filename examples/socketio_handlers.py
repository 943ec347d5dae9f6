"""Handlers, an acknowledgement both ways, and a reconnection that loses nothing. URL: the first argument."""

from __future__ import annotations

import sys

from simplepubsub import socketio

url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:5000"
sio = socketio.Client(offline="buffer")


@sio.event
def connect():
    print("connected, recovered:", sio.recovered)


@sio.event
def disconnect(reason):
    print("disconnected:", reason)


@sio.event
def question(text):
    return text.upper()  # what a handler returns is the answer


@sio.on("*")
def anything(event, *args):
    print("received", event, args)


@sio.hook("reconnect_attempt")
def attempt(number):
    print("attempt", number)


sio.connect(url)
sio.emit("ask me", "is anybody there?", callback=lambda answer: print("it heard", answer))
sio.emit("count", 2, retries=3, ack_timeout=5)  # sent until it is acknowledged, across reconnections
sio.sleep(1)
sio.disconnect()
