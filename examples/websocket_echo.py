"""An echo server and a client that talks to it. Usage: websocket_echo.py [URI OF ANOTHER ECHO SERVER]"""

from __future__ import annotations

import contextlib
import sys

from simplepubsub import websockets


def echo(connection):
    for message in connection:  # ends when the client leaves
        connection.send(message)


with contextlib.ExitStack() as stack:
    if sys.argv[1:]:
        uri = sys.argv[1]
    else:
        server = stack.enter_context(websockets.serve(echo, "localhost", 0))  # 0: any port that is free
        uri = "ws://localhost:%d" % server.port

    with websockets.connect(uri) as connection:
        for message in ("Hello world!", b"\x00\xff"):  # str travels as text, bytes as binary
            connection.send(message)
            print("sent %r, received %r" % (message, connection.recv(timeout=10)))
