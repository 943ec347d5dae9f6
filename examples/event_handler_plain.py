"""An event handler in this process: who may connect, what is answered, who is gone. No web server is needed."""

from __future__ import annotations

import threading

from simplepubsub.exceptions import AuthenticationError
from simplepubsub.server import Server
from simplepubsub.webpubsub import EventHandler, RefuseConnection, UserEventResponse, WebPubSubClient

with Server() as server:
    handler, gone = EventHandler("chat", connection_string=server.connection_string), threading.Event()

    @handler.on_connect
    def connect(request):
        if request.user_id is None:
            raise RefuseConnection(401, "tell us who you are")
        return {"groups": ["lobby"], "state": {"count": 0}}

    @handler.on_event("count")
    def count(request):
        n = request.state["count"] + 1
        return UserEventResponse("event %d: %s" % (n, request.data), state={"count": n})

    @handler.on_disconnected
    def disconnected(request):
        print(request.user_id, "is gone")
        gone.set()

    server.add_event_handler(handler)  # the cloud would get a URL instead: see event_handler_flask.py
    try:
        WebPubSubClient(server.client_access_url("chat")).start()
    except AuthenticationError as error:
        print("refused with", error.status)
    with WebPubSubClient(server.client_access_url("chat", user_id="ann")) as client:
        client.send_event("count", "one")
        client.send_event("count", "two")
        print(client.receive(10).data, client.receive(10).data, sep="; ")
    gone.wait(10)
