"""Using the Simple Client: Receiving Events."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

if sys.argv[1] == "socketio":
    from socketio.exceptions import TimeoutError
else:
    from simplepubsub.socketio.exceptions import TimeoutError

with socketio.SimpleClient() as sio:
    sio.connect(sys.argv[2])
    sio.emit("hello", ("one", 2, b"three"))
    event = sio.receive()
    print(f'received event: "{event[0]}" with arguments {event[1:]}')
    for i in range(3):
        sio.emit("hello", i)
        event = sio.receive(timeout=30)
        print("received event:", event)
    try:
        event = sio.receive(timeout=0.2)
    except TimeoutError:
        print("timed out waiting for event")
    else:
        print("received event:", event)
    try:
        sio.call("silent", timeout=0.2)
    except TimeoutError:
        print("timed out waiting for an answer")
