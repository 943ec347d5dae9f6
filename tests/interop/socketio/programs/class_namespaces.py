"""Using the Event-Driven Client: Class-Based Namespaces."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

import threading

done = threading.Event()


class MyCustomNamespace(socketio.ClientNamespace):
    def on_connect(self, *args):
        print("connect", args)

    def on_disconnect(self, *args):
        print("disconnect", args)
        done.set()

    def on_my_event(self, *args):
        print("my_event", args)
        if self.namespace != "*":
            self.emit("hello", "from the method")
        else:
            done.set()

    def on_world(self, *args):
        print("world", args)
        done.set()

    def on_both(self, *args):
        print("never")


sio = socketio.Client()
sio.register_namespace(MyCustomNamespace("/chat"))
sio.register_namespace(MyCustomNamespace("*"))


@sio.on("both", namespace="/chat")
def both(*args):
    print("the function", args)
    done.set()


def step(*event, namespace="/chat"):
    done.clear()
    sio.emit("say", event, namespace=namespace)
    done.wait(30)


sio.connect(sys.argv[2], namespaces=["/chat"])
step("my_event", 1)
step("both", 2)
sio.emit("say", ("unknown", 3), namespace="/chat")
print(sio.namespace_handlers["/chat"].call("echo", "by the object", timeout=30)
      if hasattr(sio, "namespace_handlers") else sio.call("echo", "by the object", namespace="/chat"))
done.clear()
sio.disconnect()
done.wait(30)

done.clear()
sio.connect(sys.argv[2], namespaces=["/room"])
step("my_event", 4, namespace="/room")
done.clear()
sio.disconnect()
done.wait(30)
