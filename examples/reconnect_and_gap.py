"""What a subscriber sees of a broken network. It breaks its own server, so it takes no URL."""

from __future__ import annotations

import contextlib
import logging

from simplepubsub import ReceiveTimeout, WebPubSubClient
from simplepubsub.server import Server

logging.getLogger("simplepubsub").addHandler(logging.NullHandler())  # warnings about lost connections: not now

with Server() as server:
    url = server.client_access_url("news")
    with WebPubSubClient(url) as reader, WebPubSubClient(url) as writer:
        reader.join_group("ticker")

        writer.send_to_group("ticker", "one")
        server.faults.drop_connections()  # TCP resets; the server keeps the sessions
        writer.send_to_group("ticker", "two")
        server.faults.close_connections(1001)  # "going away": the same
        writer.send_to_group("ticker", "three")
        for message in reader.messages(timeout=10, max_messages=3):
            print(message.data, "after a gap" if message.after_gap else "in sequence")
        print("recovered:", reader.stats()["recoveries"] > 0)

        server.faults.close_connections(1008)  # this ends the sessions: both clients make new ones
        message = None
        while message is None:
            writer.send_to_group("ticker", "more")  # lost for the reader until it has joined again
            with contextlib.suppress(ReceiveTimeout):
                message = reader.receive(timeout=0.05)
        print(message.data, "after a gap" if message.after_gap else "in sequence")
