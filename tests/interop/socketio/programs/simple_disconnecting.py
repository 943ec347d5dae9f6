"""Using the Simple Client: Disconnecting from the Server."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

sio = socketio.SimpleClient()
sio.connect(sys.argv[2])
sio.disconnect()
print(sio.connected, sio.sid)
for method in (sio.emit, sio.call):
    try:
        method("echo", 1)
    except socketio.exceptions.DisconnectedError:
        print("disconnected")
try:
    sio.receive()
except socketio.exceptions.DisconnectedError:
    print("disconnected")
