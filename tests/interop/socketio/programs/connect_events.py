"""Using the Event-Driven Client: Connect, Connect Error and Disconnect Event Handlers."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

import threading

sio = socketio.Client(reconnection_delay=0.1, randomization_factor=0)
connected = threading.Event()
disconnected = threading.Event()


@sio.event
def connect():
    print("I'm connected!")
    connected.set()


@sio.event
def connect_error(data):
    print("The connection failed!", bool(data))


@sio.event(namespace="/deny")
def connect_error(data):  # noqa: F811
    print("The connection to /deny failed!", data)


@sio.event
def disconnect(reason):
    if reason == sio.reason.CLIENT_DISCONNECT:
        print("the client disconnected")
    elif reason == sio.reason.SERVER_DISCONNECT:
        print("the server disconnected the client")
    else:
        print("disconnected by accident")
    disconnected.set()


sio.connect(sys.argv[2], namespaces=["/"])
sio.disconnect()
disconnected.wait(30)

disconnected.clear()
sio.connect(sys.argv[2], namespaces=["/"])
sio.emit("kick")
disconnected.wait(30)
sio.wait()

connected.clear()
disconnected.clear()
sio.connect(sys.argv[2], namespaces=["/"], transports=["websocket"])
connected.clear()
sio.emit("eioclose")
disconnected.wait(30)
connected.wait(30)
while not sio.connected:
    sio.sleep(0.05)
print(sio.call("echo", "back again"))
sio.disconnect()

try:
    sio.connect(sys.argv[2], namespaces=["/deny"])
except socketio.exceptions.ConnectionError:
    print("refused")
try:
    sio.connect("http://127.0.0.1:9", namespaces=["/"])
except socketio.exceptions.ConnectionError:
    print("nobody there")
