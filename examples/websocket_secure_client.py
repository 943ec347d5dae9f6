"""Say a name over TLS, to websocket_secure_server.py. Usage: websocket_secure_client.py [URI [CA-FILE]]"""

from __future__ import annotations

import contextlib
import ssl
import sys

from simplepubsub import websockets

URI = sys.argv[1] if sys.argv[1:] else "wss://localhost:8765"
CA_FILE = sys.argv[2] if sys.argv[2:] else "localhost-ca.pem"

# For a server whose certificate your system trusts, leave `ssl` away.
try:
    context = ssl.create_default_context(cafile=CA_FILE)
except FileNotFoundError:
    sys.exit("there is no %s: start websocket_secure_server.py in this directory first" % CA_FILE)

with contextlib.suppress(KeyboardInterrupt), websockets.connect(URI, ssl=context) as connection:
    name = input("Who is there? ")
    connection.send(name)
    print(">", name)
    print("<", connection.recv(timeout=10))
