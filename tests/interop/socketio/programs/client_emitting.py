"""Using the Event-Driven Client: Emitting Events."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

import threading

sio = socketio.Client()
done = threading.Event()


@sio.event
def world(data):
    print("world", data)
    if data < 3:
        sio.emit("hello", data + 1)
    else:
        done.set()


@sio.event
def connect():
    sio.emit("hello", 0)


def background():
    sio.emit("put", ("background", {"foo": "bar"}))
    sio.send("a message")


sio.connect(sys.argv[2])
done.wait(30)
sio.start_background_task(background).join()
for data in ({"foo": "bar"}, "text", b"bytes", ["list", b"\0"], ("several", 2), None):
    print(sio.call("echo", data))
sio.disconnect()
