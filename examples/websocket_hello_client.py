"""Say a name, get a greeting, from websocket_hello_server.py. Usage: websocket_hello_client.py [URI]"""

from __future__ import annotations

import contextlib
import sys

from simplepubsub import websockets

URI = sys.argv[1] if sys.argv[1:] else "ws://localhost:8765"

with contextlib.suppress(KeyboardInterrupt), websockets.connect(URI) as connection:
    name = input("Who is there? ")  # take your time: pings are answered meanwhile
    connection.send(name)
    print(">", name)
    print("<", connection.recv(timeout=10))
