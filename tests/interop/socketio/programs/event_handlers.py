"""Using the Event-Driven Client: Creating a Client Instance, Defining Event Handlers."""
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
def message(data):
    print("I received a message!", data)
    done.set()


@sio.on("my message")
def on_message(data):
    print("I received my message!", data)
    done.set()


def plain(*args):
    print("plain", args)
    done.set()


sio.on("plain", plain)

sio.connect(sys.argv[2])
for event in (("message", {"a": b"\0"}), ("my message", ["x"]), ("plain", 1, "two", None), ("plain",)):
    done.clear()
    sio.emit("say", event)
    done.wait(30)
sio.disconnect()
