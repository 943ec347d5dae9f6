"""Using the Event-Driven Client: Catch-All Event and Namespace Handlers."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

import threading

sio = socketio.Client()
done = threading.Event()


@sio.on("*")
def any_event(event, *args):
    print("any event", event, args)
    done.set()


@sio.on("known")
def known(*args):
    print("known", args)
    done.set()


@sio.on("my_event", namespace="*")
def my_event_any_namespace(namespace, *args):
    print("my_event on any namespace", namespace, args)
    done.set()


@sio.on("*", namespace="*")
def any_event_any_namespace(event, namespace, *args):
    print("any event on any namespace", event, namespace, args)
    done.set()


sio.connect(sys.argv[2], namespaces=["/", "/chat"])
for namespace in ("/", "/chat"):
    for event in (("known", 1), ("unknown", 2), ("my_event", 3)):
        done.clear()
        sio.emit("say", event, namespace=namespace)
        done.wait(30)
sio.disconnect()
