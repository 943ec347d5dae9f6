"""Using the Event-Driven Client: Connecting to a Server."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

sio = socketio.Client()
sio.connect(sys.argv[2])
print("a sid:", isinstance(sio.sid, str), isinstance(sio.get_sid(), str), sio.get_sid("/chat"))
print("connected:", sio.connected, list(sio.namespaces))
sio.disconnect()
for transports in (["polling"], ["websocket"]):
    sio.connect(sys.argv[2], transports=transports, headers={"X-Test": "1"}, auth={"token": "t"}, wait_timeout=30)
    print("my transport is", sio.transport())
    sio.disconnect()
sio.connect(lambda: sys.argv[2], headers=lambda: {}, auth=lambda: {"token": "u"}, namespaces="/chat", wait=True)
print(list(sio.namespaces))
try:
    sio.connect(sys.argv[2])
except (socketio.exceptions.ConnectionError, ValueError):
    print("once is enough")
sio.disconnect()
print("connected:", sio.connected, list(sio.namespaces))
