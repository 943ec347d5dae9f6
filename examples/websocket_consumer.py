"""A server that takes what clients send. Usage: websocket_consumer.py [PORT], then send numbers to it"""

from __future__ import annotations

import contextlib
import sys

from simplepubsub import websockets

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765


def consumer(connection):
    total = 0.0
    for message in connection:  # ends when the client leaves
        total += float(message)  # an exception here would close the connection with 1011
        print("received %s, the sum is %g" % (message, total))
    print("the client has left")


with contextlib.suppress(KeyboardInterrupt), websockets.serve(consumer, "localhost", PORT) as server:
    print("listening on ws://localhost:%d" % server.port)
    server.serve_forever()
