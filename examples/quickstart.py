"""Connect, join a group, send, receive. Usage: quickstart.py [CLIENT_ACCESS_URL]"""

from __future__ import annotations

import contextlib
import sys

from simplepubsub import WebPubSubClient
from simplepubsub.server import Server

with contextlib.ExitStack() as stack:
    if sys.argv[1:]:
        url = sys.argv[1]
    else:
        url = stack.enter_context(Server()).client_access_url("chat", user_id="ann")

    with WebPubSubClient(url) as client:
        client.join_group("lobby")
        client.send_to_group("lobby", "hello")
        message = client.receive(timeout=10)
        print("received %r from %s in %s" % (message.data, message.from_user_id or "somebody", message.group))
