"""Using the Simple Client: TLS/SSL Support."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

import requests

http_session = requests.Session()
http_session.verify = sys.argv[3]

for transports in (["polling"], ["websocket"]):
    with socketio.SimpleClient(http_session=http_session) as sio:
        sio.connect(sys.argv[2], transports=transports)
        print(sio.call("echo", "over TLS"))

try:
    with socketio.SimpleClient() as sio:
        sio.connect(sys.argv[2], transports=["polling"])
except socketio.exceptions.ConnectionError:
    print("not trusted")
