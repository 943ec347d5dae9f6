"""Greet over TLS, with a certificate made on the spot. Usage: websocket_secure_server.py [PORT [FILE]]

Needs trustme. FILE (localhost-ca.pem) is written: what the client needs to trust this server. The keys stay in memory.
"""

from __future__ import annotations

import contextlib
import ssl
import sys

from simplepubsub import websockets

try:
    import trustme
except ImportError:
    sys.exit(print("this example needs trustme: pip install trustme"))

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765
CA_FILE = sys.argv[2] if sys.argv[2:] else "localhost-ca.pem"

authority = trustme.CA()
authority.cert_pem.write_to_path(CA_FILE)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # with files: context.load_cert_chain("cert.pem", "key.pem")
authority.issue_cert("localhost").configure_cert(context)


def hello(connection):
    name = connection.recv()
    print("<", name)
    connection.send("Hello %s!" % name)


with contextlib.suppress(KeyboardInterrupt), websockets.serve(hello, "localhost", PORT, ssl=context) as server:
    print("listening on wss://localhost:%d" % server.port)
    server.serve_forever()
