"""Using the Event-Driven Client: Namespaces."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

import threading

sio = socketio.Client()
done = threading.Event()


@sio.event(namespace="/chat")
def my_custom_event(data):
    print("custom", data)
    done.set()


@sio.on("connect", namespace="/chat")
def on_connect():
    print("I'm connected to the /chat namespace!")


sio.connect(sys.argv[2])  # the namespaces that have handlers
print(list(sio.namespaces))
sio.emit("say", ("my_custom_event", 1), namespace="/chat")
done.wait(30)
print(sio.call("echo", "chat", namespace="/chat"))
try:
    sio.emit("hello", 1)
except socketio.exceptions.BadNamespaceError:
    print("/ is not connected")
sio.disconnect()

sio.connect(sys.argv[2], namespaces=["/chat", "/"])
print(sorted(sio.namespaces), sio.get_sid("/") != sio.get_sid("/chat"))
print(sio.call("echo", "root"))
sio.disconnect()
