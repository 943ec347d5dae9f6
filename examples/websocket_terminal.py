"""What you type goes out, what arrives is printed: try the servers with it. Usage: websocket_terminal.py [URI]"""

from __future__ import annotations

import contextlib
import sys
import threading

from simplepubsub import websockets

URI = sys.argv[1] if sys.argv[1:] else "ws://localhost:8765"


def show(connection):
    try:
        for message in connection:
            print("<", message)
    except websockets.ConnectionClosedError as error:
        print(error)
    print("closed with %s %s" % (connection.close_code, connection.close_reason))


with contextlib.suppress(KeyboardInterrupt, websockets.ConnectionClosed), websockets.connect(URI) as connection:
    print("connected, the end of the input (Ctrl-D) or Ctrl-C closes")
    threading.Thread(target=show, args=(connection,)).start()
    for line in sys.stdin:
        connection.send(line.rstrip("\n"))
