"""Using the Event-Driven Client: TLS/SSL Support."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

import warnings

import requests

warnings.simplefilter("ignore")

http_session = requests.Session()
http_session.verify = False
sio = socketio.Client(http_session=http_session)
sio.connect(sys.argv[2])
print(sio.call("echo", "not verified"))
sio.disconnect()

http_session = requests.Session()
http_session.verify = sys.argv[3]
sio = socketio.Client(http_session=http_session)
sio.connect(sys.argv[2], transports=["websocket"])
print(sio.call("echo", "an authority of my own"))
sio.disconnect()

http_session = requests.Session()
http_session.verify = sys.argv[3]
http_session.cert = (sys.argv[4], sys.argv[5])
sio = socketio.Client(http_session=http_session)
sio.connect(sys.argv[2])
print(sio.call("echo", "a client certificate"))
sio.disconnect()

sio = socketio.Client(ssl_verify=False)
sio.connect(sys.argv[2], transports=["websocket"])
print(sio.call("echo", "not verified"))
sio.disconnect()

try:
    socketio.Client().connect(sys.argv[2])
except socketio.exceptions.ConnectionError:
    print("not trusted")
