"""A chat: who comes is registered, what one says goes to all. The first line is the name. Usage: ... [PORT]"""

from __future__ import annotations

import contextlib
import sys
import threading

from simplepubsub import websockets

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765
members, lock = set(), threading.Lock()


def tell(text):
    with lock:
        websockets.broadcast(members, text)  # waits for nobody, so it may be called with the lock held
    print(text)


def chat(connection):
    name = connection.recv()
    with lock:
        members.add(connection)
    tell("%s comes" % name)
    try:
        for message in connection:
            tell("%s: %s" % (name, message))
    finally:
        with lock:
            members.discard(connection)
        tell("%s goes" % name)


with contextlib.suppress(KeyboardInterrupt), websockets.serve(chat, "localhost", PORT) as server:
    print("listening on ws://localhost:%d" % server.port)
    server.serve_forever()
