"""Ask for a new URL with a new token for each connection, as from an application server. Usage: fresh_url.py [URL]"""

from __future__ import annotations

import contextlib
import queue
import sys

from simplepubsub import WebPubSubClient
from simplepubsub.server import Server

with contextlib.ExitStack() as stack:
    server = None if sys.argv[1:] else stack.enter_context(Server())
    asked = []

    def negotiate():
        # In a real program: return requests.get("https://example.com/negotiate", timeout=5).json()["url"]
        asked.append(len(asked) + 1)
        return sys.argv[1] if server is None else server.client_access_url("chat", minutes_to_expire=1)

    connections = queue.Queue()
    client = WebPubSubClient(negotiate)
    client.on("connected", connections.put)
    with client:
        connections.get(timeout=10)
        print("URLs so far:", len(asked))
        if server is not None:
            server.hub("chat").close_all_connections("maintenance")  # ends the session: a new connection follows
            connections.get(timeout=10)
            print("URLs so far:", len(asked))
