"""Ask a Socket.IO server something, then print what it sends for a while. URL: the first argument."""

from __future__ import annotations

import sys

from simplepubsub import socketio

url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:5000"

with socketio.SimpleClient() as sio:
    sio.connect(url)
    print("connected over", sio.transport)
    print("the server answers", sio.call("echo", "hello", timeout=5))
    sio.emit("count", 3)
    try:
        while True:
            name, *args = sio.receive(timeout=2)
            print("received", name, args)
    except socketio.exceptions.TimeoutError:
        print("nothing more")
