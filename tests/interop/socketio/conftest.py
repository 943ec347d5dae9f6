"""Fixtures of the Socket.IO conformance tests."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List

import pytest

from simplepubsub import socketio
from tests.helpers import scaled
from tests.interop.socketio.play import EVERY_LEG
from tests.interop.socketio.servers import Peer, Serve, Servers


@pytest.fixture(scope="session", autouse=True)
def socketio_servers() -> Iterator[Servers]:
    """The processes. Started for all tests at once, so that their pipes are nobody's leak."""
    servers = Servers()
    for kind in ("node", "threading", "asgi"):
        try:
            servers.process(kind)
        except (pytest.skip.Exception, pytest.fail.Exception):
            pass  # the tests that want it skip, or fail
    yield servers
    servers.stop()


@pytest.fixture
def serve(socketio_servers: Servers) -> Serve:
    """`serve("node" | "threading" | "asgi", fresh=False, **options)` -> Peer."""
    return socketio_servers.peer


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that takes them each kind of server and each transport, unless it names its own.

    Both together leave out the polling leg of the ASGI server, whose polls end slowly.
    """
    given = [name.strip() for mark in metafunc.definition.iter_markers("parametrize")
             for name in (mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0])]
    wanted = [name for name in ("kind", "leg") if name in metafunc.fixturenames and name not in given]
    if wanted == ["kind", "leg"]:
        metafunc.parametrize("kind, leg", [pair for pair in EVERY_LEG if pair != ("asgi", "polling")])
    elif wanted == ["kind"]:
        metafunc.parametrize("kind", ["node", "threading", "asgi"])
    elif wanted == ["leg"]:
        metafunc.parametrize("leg", ["polling", "websocket"])


@pytest.fixture
def peer(kind: str, serve: Serve) -> Peer:
    """A plain server of the kind."""
    return serve(kind)


def quick(options: Dict[str, Any]) -> Dict[str, Any]:
    """Return options with short delays before reconnections."""
    return {"reconnection_delay": scaled(0.05), "reconnection_delay_max": scaled(0.2),
            "request_timeout": scaled(10), "close_timeout": scaled(10), **options}


@pytest.fixture
def client() -> Iterator[Callable[..., socketio.Client]]:
    """`client(**options)` makes a Client, which is disconnected after the test."""
    made: List[socketio.Client] = []

    def make(**options: Any) -> socketio.Client:
        made.append(socketio.Client(**quick(options)))
        return made[-1]

    yield make
    for sio in reversed(made):
        sio.shutdown()


@pytest.fixture
def simple() -> Iterator[Callable[..., socketio.SimpleClient]]:
    """`simple(**options)` makes a SimpleClient, which is disconnected after the test."""
    made: List[socketio.SimpleClient] = []

    def make(**options: Any) -> socketio.SimpleClient:
        made.append(socketio.SimpleClient(**quick(options)))
        return made[-1]

    yield make
    for sio in reversed(made):
        sio.disconnect()
