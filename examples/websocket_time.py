"""Tell browsers the time, now and then. Usage: websocket_time.py [PORT], then open the address that it prints"""

from __future__ import annotations

import contextlib
import datetime
import random
import sys
from pathlib import Path

from simplepubsub import websockets

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765
PAGE = Path(__file__).with_suffix(".html").read_text("utf-8")


def page(connection, request):
    """Answer plain HTTP requests with the page; None lets a WebSocket through."""
    if "Upgrade" in request.headers:
        return None
    return connection.respond(200, PAGE, [("Content-Type", "text/html")])


def tell_time(browser):
    while True:
        browser.send(datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"))
        with contextlib.suppress(websockets.ReceiveTimeout):
            browser.recv(timeout=3 * random.random())  # a pause that is over at once when the browser leaves


with contextlib.suppress(KeyboardInterrupt):
    with websockets.serve(tell_time, "localhost", PORT, process_request=page) as server:
        print("open http://localhost:%d/ in a browser" % server.port)
        server.serve_forever()
