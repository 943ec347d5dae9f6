"""Using the Simple Client: Emitting Events."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

with socketio.SimpleClient() as sio:
    sio.connect(sys.argv[2])
    values = [
        {"foo": "bar"}, "text", b"bytes", ["a", "list", 1, None, {"deep": b"\0"}],
        ("several", {"arguments": True}, b"x"), None, 5, 1.5, True,
    ]
    for value in values:
        sio.emit("put", ("key of " + sys.argv[1], value) if not isinstance(value, tuple) else ("t", *value))
        print(sio.call("echo", value))
