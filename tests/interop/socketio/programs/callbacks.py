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
    return "OK", 123, data


@sio.event
def nothing(data):
    return None


@sio.event
def one(data):
    return {"binary": b"\0\1"}


def callback(*args):
    print("callback", args)
    done.set()


sio.connect(sys.argv[2])
for data in (None, 1, ("a", b"b"), [1, 2]):
    done.clear()
    sio.emit("echo", data, callback=callback)
    done.wait(5)
    print(sio.call("echo", data, timeout=5))
done.clear()
sio.send("x")
for event in ("my_event", "nothing", "one"):
    sio.emit("want", (event, event))
    sio.sleep(0.2)
try:
    sio.call("silent", timeout=0.2)
except socketio.exceptions.TimeoutError:
    print("no answer")
sio.disconnect()
