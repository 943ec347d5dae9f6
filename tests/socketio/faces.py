"""The public clients in front of the fake server."""

from __future__ import annotations

from typing import Any, Dict, Type

from simplepubsub import socketio
from tests.socketio.fake import FakeServer
from tests.timing import scaled

__all__ = ["URL", "client_on", "quickly", "simple_on"]

URL = "http://fake"


def quickly(options: Dict[str, Any]) -> Dict[str, Any]:
    """Return ``options`` with short delays, and limits for a slow machine, where they say nothing."""
    return {"reconnection_delay": scaled(0.005), "reconnection_delay_max": scaled(0.02),
            "request_timeout": scaled(5), "close_timeout": scaled(5), **options}


def class_on(server: FakeServer) -> Type[socketio.Client]:
    class FakedClient(socketio.Client):
        def _make_opener(self) -> Any:
            return server

        def connect(self, *args: Any, **options: Any) -> None:
            # The default is a second, for which a busy machine may stop a thread.
            super().connect(*args, **{"wait_timeout": scaled(5), **options})

    return FakedClient


def client_on(server: FakeServer, **options: Any) -> socketio.Client:
    """Return a `Client` whose connections all go to ``server``."""
    return class_on(server)(**quickly(options))


def simple_on(server: FakeServer, **options: Any) -> socketio.SimpleClient:
    """Return a `SimpleClient` whose connections all go to ``server``."""
    class FakedSimple(socketio.SimpleClient):
        client_class = class_on(server)

    return FakedSimple(**quickly(options))
