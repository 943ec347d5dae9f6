"""Broadcast from a server, to groups and to users, over REST. Usage: service_broadcast.py [CONNECTION-STRING]"""

from __future__ import annotations

import contextlib
import sys

from simplepubsub import WebPubSubClient, WebPubSubServiceClient
from simplepubsub.server import Server
from simplepubsub.webpubsub import odata

with contextlib.ExitStack() as stack:
    text = sys.argv[1] if sys.argv[1:] else stack.enter_context(Server()).connection_string
    service = stack.enter_context(WebPubSubServiceClient.from_connection_string(text, hub="chat"))

    def join(user):
        url = service.get_client_access_token(user_id=user, groups=["lobby"])["url"]
        return stack.enter_context(WebPubSubClient(url))

    clients = {user: join(user) for user in ("ann", "bob", "eve")}
    service.send_to_all({"news": "hello"})
    service.send_to_user("bob", "for bob", content_type="text/plain")
    service.send_to_group("lobby", "not for eve", filter=odata("userId ne {}", "eve"), content_type="text/plain")
    service.send_to_all(b"\x00\x01")
    for user, client in clients.items():
        received = []
        while not isinstance(client.receive(timeout=10).data, bytes):  # the last message is the binary one
            received.append(1)
        print(user, "received", len(received), "messages")
    print("in the lobby:", ", ".join(sorted(member.user_id for member in service.list_connections("lobby"))))
