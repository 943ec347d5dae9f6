"""python-socketio's server in a thread of the tests, over polling, for programs that run in processes of their own."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from typing import Any, Callable, Iterator
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from tests import peers
from tests.helpers import LOOPBACK

__all__ = ["make_peer", "serve"]


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class ThreadedServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: programs end, and proxies cut."""


def make_peer() -> Any:
    """Return a new server of python-socketio that handles events in order."""
    module = peers.require("socketio", "it serves programs for Socket.IO", python=(3, 8))
    if not hasattr(module, "WSGIApp"):
        pytest.skip("the module socketio is not python-socketio")
    return module.Server(async_mode="threading", allow_upgrades=False, monitor_clients=False, async_handlers=False)


def refusal() -> Callable[..., Exception]:
    """Return the class of the error by which a server refuses."""
    module: Any = peers.require("socketio", "it serves programs for Socket.IO", python=(3, 8))
    found: Callable[..., Exception] = module.exceptions.ConnectionRefusedError
    return found


@contextlib.contextmanager
def serve(server: Any) -> Iterator[Any]:
    """Run ``server``; yield (host, port)."""
    module: Any = peers.require("socketio", "it serves programs for Socket.IO", python=(3, 8))
    httpd = make_server(LOOPBACK, 0, module.WSGIApp(server), ThreadedServer, QuietHandler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield LOOPBACK, httpd.server_port
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
