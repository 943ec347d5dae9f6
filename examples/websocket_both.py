"""A server that sends and receives at once: a metronome. A client sends the pause it wants, in seconds.

Usage: websocket_both.py [PORT]
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading

from simplepubsub import websockets

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765


def produce(connection, pace, changed):
    with contextlib.suppress(websockets.ConnectionClosed):  # the client has left
        for number in itertools.count(1):
            connection.send("tick %d" % number)
            changed.wait(pace["seconds"])
            changed.clear()


def metronome(connection):
    pace, changed = {"seconds": 1.0}, threading.Event()
    threading.Thread(target=produce, args=(connection, pace, changed)).start()
    for message in connection:  # two threads use the connection at once, and any number may
        pace["seconds"] = max(0.01, float(message))
        changed.set()


with contextlib.suppress(KeyboardInterrupt), websockets.serve(metronome, "localhost", PORT) as server:
    print("listening on ws://localhost:%d" % server.port)
    server.serve_forever()
