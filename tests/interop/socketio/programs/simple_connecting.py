"""Using the Simple Client: Connecting to a Server."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

sio = socketio.SimpleClient()
sio.connect(sys.argv[2])
print("a sid:", isinstance(sio.sid, str) and len(sio.sid) > 10)
sio.disconnect()

sio.connect(sys.argv[2], transports=["websocket"])
print("my transport is", sio.transport if isinstance(sio.transport, str) else sio.transport())
print("the server says", sio.call("info")["transport"], sio.call("info")["sid"] == sio.sid)
sio.disconnect()

sio.connect(sys.argv[2], transports="polling", namespace="/chat", auth={"token": "t"})
print("my transport is", sio.transport if isinstance(sio.transport, str) else sio.transport())
sio.disconnect()
