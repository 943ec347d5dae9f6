"""Callbacks instead of a loop; a listener may call the client, blocking methods included. Usage: listeners.py [URL]"""

from __future__ import annotations

import contextlib
import sys
import threading

from simplepubsub import WebPubSubClient
from simplepubsub.server import Server

with contextlib.ExitStack() as stack:
    url = sys.argv[1] if sys.argv[1:] else stack.enter_context(Server()).client_access_url("chat")
    client = WebPubSubClient(url)
    answered = threading.Event()

    @client.on("group-message")
    def answer(message):
        print("%s: %s" % (message.group, message.data))
        if message.group == "questions":
            client.send_to_group("answers", message.data.upper())  # blocks until it is acknowledged
        else:
            answered.set()

    client.on("connected", lambda event: print("connected"))
    client.on("disconnected", lambda event: print("disconnected:", event.message))
    client.on("stopped", lambda: print("stopped"))

    with client:
        client.join_group("questions")
        client.join_group("answers")
        client.send_to_group("questions", "is anybody there?")
        answered.wait(10)
