"""A counter that all browsers share. Usage: websocket_counter.py [PORT], then open the address in several windows"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from pathlib import Path

from simplepubsub import websockets

PORT, PAGE = int(sys.argv[1]) if sys.argv[1:] else 8765, Path(__file__).with_suffix(".html").read_text("utf-8")
browsers, value, lock = set(), 0, threading.Lock()  # every browser has a thread here: one after the other


def page(connection, request):
    return None if "Upgrade" in request.headers else connection.respond(200, PAGE, [("Content-Type", "text/html")])


def change(amount=0, come=(), go=()):
    global browsers, value
    with lock:
        browsers, value = browsers.union(come).difference(go), value + amount
        websockets.broadcast(browsers, json.dumps({"value": value, "online": len(browsers)}))  # waits for nobody


def counter(browser):
    change(come=[browser])
    try:
        for message in browser:
            change({"plus": 1, "minus": -1}[message])
    finally:
        change(go=[browser])


with contextlib.suppress(KeyboardInterrupt), websockets.serve(counter, port=PORT, process_request=page) as server:
    print("open http://localhost:%d/ in several browser windows" % server.port)
    server.serve_forever()
