"""Using the Simple Client: Creating a Client Instance."""
from __future__ import annotations

import sys

if sys.argv[1] == "socketio":
    import socketio
else:
    from simplepubsub import socketio

with socketio.SimpleClient() as sio:
    print("made, connected:", sio.connected)
    sio.connect(sys.argv[2])
    print("connected:", sio.connected)
print("after the block:", sio.connected)

sio = socketio.SimpleClient()
sio.connect(sys.argv[2])
print("by hand:", sio.connected)
sio.disconnect()
