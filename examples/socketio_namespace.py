"""A class for a namespace, joined while the connection is up. URL: the first argument."""

from __future__ import annotations

import sys

from simplepubsub import socketio

url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:5000"


class Chat(socketio.ClientNamespace):
    def on_connect(self):
        print("in the chat")
        self.emit("say", "hello")

    def on_said(self, text):
        print("somebody said", text)
        self.client.start_background_task(self.disconnect)

    def on_disconnect(self, reason):
        print("left the chat:", reason)


with socketio.Client() as sio:
    chat = Chat("/chat")
    sio.register_namespace(chat)
    sio.connect(url, namespaces="/")
    sio.connect_namespace("/chat", auth={"name": "ann"})
    sio.sleep(1)
    print("still connected:", sio.connected)
