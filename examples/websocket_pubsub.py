"""Groups in a few lines: join some, publish to any. Usage: websocket_pubsub.py [PORT]. Runs its own two clients."""

from __future__ import annotations

import collections
import json
import sys
import threading

from simplepubsub import websockets

groups, lock = collections.defaultdict(set), threading.Lock()


def hub(connection):
    try:
        for message in connection:
            command = json.loads(message)
            with lock:
                if "join" in command:
                    groups[command["join"]].add(connection)
                    websockets.broadcast([connection], message)  # the answer: you are in. Waits for nobody
                else:
                    websockets.broadcast(groups[command["to"]], message)
    finally:
        with lock:
            for members in groups.values():
                members.discard(connection)


with websockets.serve(hub, "localhost", int(sys.argv[1]) if sys.argv[1:] else 0) as server:
    uri = "ws://localhost:%d" % server.port
    with websockets.connect(uri) as ann, websockets.connect(uri) as bob:
        ann.send(json.dumps({"join": "news"}))
        print("ann:", ann.recv(timeout=10))
        for group in ("sports", "news"):
            bob.send(json.dumps({"to": group, "text": "hello from bob"}))
        print("ann:", ann.recv(timeout=10))
