"""WSGI applications on servers of this machine."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Iterator
from wsgiref.simple_server import WSGIRequestHandler, make_server

__all__ = ["serve_wsgi", "serving_forever"]


class _Quiet(WSGIRequestHandler):
    """A request handler without a log."""

    timeout = 30

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def serving_forever(httpd: Any) -> Iterator[None]:
    """Run a server of the kind of `socketserver` in a thread while the block runs."""
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        httpd.shutdown()
        thread.join()


@contextlib.contextmanager
def serve_wsgi(app: Any) -> Iterator[str]:
    """Serve a WSGI application by the standard library's server while the block runs; yields its URL."""
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as httpd:
        with serving_forever(httpd):
            yield "http://127.0.0.1:%d" % httpd.server_port
