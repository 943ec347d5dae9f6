"""A threaded program of the old kind: producers and consumers share one client. Usage: legacy_thread.py [URL]"""

from __future__ import annotations

import contextlib
import sys
import threading

from simplepubsub import WebPubSubClient
from simplepubsub.server import Server

received = []
complete = threading.Event()


def produce(client, name):
    for number in range(50):
        client.send_to_group("room", "%s %d" % (name, number))


def consume(client):
    for message in client:  # ends when the client is stopped
        received.append(message.data)
        if len(received) >= 200:
            complete.set()


with contextlib.ExitStack() as stack:
    url = sys.argv[1] if sys.argv[1:] else stack.enter_context(Server()).client_access_url("chat")
    with WebPubSubClient(url) as client:
        client.join_group("room")
        workers = [threading.Thread(target=produce, args=(client, name)) for name in "abcd"]
        workers += [threading.Thread(target=consume, args=(client,)) for _ in range(2)]
        for worker in workers:
            worker.start()
        complete.wait(30)
    for worker in workers:
        worker.join()
    print("received %d, each once: %s" % (len(received), len(set(received)) == 200))
