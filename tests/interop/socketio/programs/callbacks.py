"""Using the Event-Driven Client: Event Callbacks."""
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
def my_event(data):
    done.set()
    return "OK", 123, data


@sio.event
def nothing(data):
    done.set()
    return None


@sio.event
def one(data):
    done.set()
    return {"binary": b"\0\1"}


def callback(*args):
    print("callback", args)
    done.set()


sio.connect(sys.argv[2])
for data in (None, 1, ("a", b"b"), [1, 2]):
    done.clear()
    sio.emit("echo", data, callback=callback)
    done.wait(30)
    print(sio.call("echo", data, timeout=30))
sio.send("x")
for event in ("my_event", "nothing", "one"):
    done.clear()
    sio.emit("want", (event, event))
    done.wait(30)
    done.clear()  # what a handler returns is sent after it, and the next callback comes after that
    sio.emit("echo", callback=lambda *args: done.set())
    done.wait(30)
try:
    sio.call("silent", timeout=0.2)
except socketio.exceptions.TimeoutError:
    print("no answer")
sio.disconnect()
