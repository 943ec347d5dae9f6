"""Using the Event-Driven Client: Managing Background Tasks."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

import time

sio = socketio.Client()
results = []


def my_background_task(my_argument, *, factor=1):
    sio.sleep(0.1)
    results.append(sio.call("echo", my_argument * factor))


sio.connect(sys.argv[2])
task = sio.start_background_task(my_background_task, 123)
other = sio.start_background_task(my_background_task, 123, factor=2)
task.join()
other.join()
print(sorted(results))
began = time.monotonic()
sio.sleep(0.2)
print("slept:", 0.15 < time.monotonic() - began < 10)


def leave():
    sio.sleep(0.2)
    print("leaving")
    sio.emit("kick")


sio.start_background_task(leave)
sio.wait()
print("the connection has ended:", sio.connected)
