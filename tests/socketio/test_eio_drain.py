"""`EngineIO.drain`: the server has handled what was sent."""

from __future__ import annotations

import pytest

from simplepubsub.core.deadline import Deadline
from tests.helpers import MS, run_thread, scaled

from .engine import running
from .rawserver import RawServer

LEGS = pytest.mark.parametrize("leg", ["polling", "websocket"])


@LEGS
def test_drain_returns_when_the_server_has_read_everything(leg: str) -> None:
    with RawServer() as server, running(server.url(), leg) as found:
        for number in range(20):
            found.session.send(["2[%d]" % number])
        assert found.session.drain(Deadline(scaled(5)))
        assert len(server.session.received) >= 20
        assert found.session.drain(Deadline(scaled(5)))


@LEGS
def test_p1_drain_has_a_limit_and_ends_with_the_session(leg: str) -> None:
    with RawServer(max_payload=None) as server, running(server.url(), leg) as found:
        session = server.session
        session.hold_posts = True
        if session.websocket is not None:
            session.websocket.reading.clear()
        found.session.send(["x" * 1000])
        assert not found.session.drain(Deadline(50 * MS))
        with run_thread(found.session.drain, Deadline(None)) as draining:
            found.session.abort()
            assert not draining.result(scaled(5))
        with server.changed:
            session.hold_posts = False
            server.changed.notify_all()
        if session.websocket is not None:
            session.websocket.reading.set()
