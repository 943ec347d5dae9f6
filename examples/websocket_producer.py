"""A server that sends to every client as long as it listens. Usage: websocket_producer.py [PORT]"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time

from simplepubsub import websockets

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765


def produce():
    for number in itertools.count(1):
        yield "message %d" % number
        time.sleep(0.2)


def producer(connection):
    print("a client has come")
    try:
        for message in produce():
            connection.send(message)  # raises ConnectionClosed when the client has left; waits for a slow one
    except websockets.ConnectionClosed:
        print("the client has left")


with contextlib.suppress(KeyboardInterrupt), websockets.serve(producer, "localhost", PORT) as server:
    print("listening on ws://localhost:%d" % server.port)
    server.serve_forever()
