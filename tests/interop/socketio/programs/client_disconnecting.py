"""Using the Event-Driven Client: Disconnecting from the Server."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

sio = socketio.Client()


@sio.event
def disconnect(reason):
    print("disconnect", reason)


sio.connect(sys.argv[2])
sio.disconnect()
print(sio.connected)
sio.wait()
sio.disconnect()
try:
    sio.emit("hello", 1)
except socketio.exceptions.BadNamespaceError:
    print("not connected")
