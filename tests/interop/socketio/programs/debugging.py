"""Debugging and Troubleshooting."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

import logging

sio = socketio.Client(logger=True, engineio_logger=True)
sio.connect(sys.argv[2])
sio.emit("put", ("log", 1))
print(sio.call("echo", 1))
sio.disconnect()
print("logged", file=sys.stderr)


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.count = 0

    def emit(self, record):
        self.count += 1


lines = Lines()
logger = logging.Logger("mine", logging.DEBUG)
logger.addHandler(lines)
sio = socketio.Client(logger=logger, engineio_logger=logger)
sio.connect(sys.argv[2])
sio.disconnect()
print("lines:", lines.count > 0)
