"""A worker that takes messages as they come, and does something else when none come. Usage: receive_loop.py [URL]"""

from __future__ import annotations

import contextlib
import sys

from simplepubsub import ReceiveTimeout, WebPubSubClient
from simplepubsub.server import Server

with contextlib.ExitStack() as stack:
    url = sys.argv[1] if sys.argv[1:] else stack.enter_context(Server()).client_access_url("work")
    worker = stack.enter_context(WebPubSubClient(url))
    sender = stack.enter_context(WebPubSubClient(url))
    worker.join_group("jobs")
    for job in ("sweep", "wash", "cook", "stop"):
        sender.send_to_group("jobs", {"do": job})

    idle = 0
    while idle < 100:
        try:
            message = worker.receive(timeout=1)
        except ReceiveTimeout:
            idle += 1  # the place for housekeeping
            continue
        if message.data["do"] == "stop":
            break
        print("job:", message.data["do"])
    print("done")
