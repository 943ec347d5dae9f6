"""Greet everybody who says a name. Usage: websocket_hello_server.py [PORT], Ctrl-C ends it"""

from __future__ import annotations

import contextlib
import sys

from simplepubsub import websockets

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765


def hello(connection):
    name = connection.recv()
    print("<", name)
    greeting = "Hello %s!" % name
    connection.send(greeting)
    print(">", greeting)
    # The connection is closed when this function returns.


with contextlib.suppress(KeyboardInterrupt), websockets.serve(hello, "localhost", PORT) as server:
    print("listening on ws://localhost:%d" % server.port)
    server.serve_forever()
