"""Publish fast: many sends under way, every answer looked at. Usage: publish_with_futures.py [URL]"""

from __future__ import annotations

import contextlib
import sys

from simplepubsub import OutboxFull, WebPubSubClient
from simplepubsub.server import Server

COUNT = 20000

with contextlib.ExitStack() as stack:
    url = sys.argv[1] if sys.argv[1:] else stack.enter_context(Server()).client_access_url("metrics")
    client = stack.enter_context(WebPubSubClient(url))

    futures = []
    for number in range(COUNT):
        while True:
            try:
                futures.append(client.send_to_group_nowait("cpu", {"sample": number}))
                break
            except OutboxFull:  # 8 MiB wait: let them go first
                client.flush(timeout=30)
    client.flush(timeout=60)

    failed = [future for future in futures if future.exception() is not None]
    print("%d sent, %d failed" % (len(futures), len(failed)))
    print("acknowledged:", client.stats()["acked"])
