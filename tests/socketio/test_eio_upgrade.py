"""The upgrade from polling to WebSocket (protocol reference 1.8; cases 3, 4, 5), and the choice of transports (6)."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from simplepubsub.core.deadline import Deadline
from simplepubsub.exceptions import ConnectError, HandshakeRejected
from simplepubsub.socketio import eio_threads
from simplepubsub.socketio.upgrade import Probe
from tests.helpers import scaled, wait_until
from tests.socketio.engine import patient_goodbye, running
from tests.socketio.rawserver import RawServer, Request, Response

__all__ = ["patient_goodbye"]

pytestmark = pytest.mark.usefixtures("patient_goodbye")


def test_the_order_of_an_upgrade() -> None:
    with RawServer(greeting=("4early",)) as server, running(server.url()) as found:
        found.session.send(["0"])
        session = server.session
        session.wait(lambda: session.upgraded)
        wait_until(lambda: found.session.transport == "websocket")
        found.session.send(["after"])
        assert session.wait_messages(2) == ["0", "after"]
        assert session.received[-1] == ("websocket", "4after")
        session.send("4late")
        assert found.wait_messages(2) == ["early", "late"]
        events = session.events
        switch = events.index("ws:5")
        assert events.index("ws:2probe") < switch
        before = events[:switch]
        # No request is in flight at the switch, and none comes after it.
        for method in ("GET", "POST"):
            assert before.count(method) == before.count(method + ".")
        assert not [event for event in events[switch:] if event[0] in "GP"]
        request = next(request for request in server.requests if request.upgrade)
        assert request.query["sid"] == session.sid and request.query["transport"] == "websocket"


@pytest.mark.parametrize("run", range(5))
def test_nothing_is_lost_or_reordered(run: int) -> None:
    with RawServer() as server, running(server.url()) as found:
        session = server.session
        stop = threading.Event()
        sent = [0, 0]

        def down() -> None:
            while not stop.is_set() or sent[0] < 1000:
                session.send("4%d" % sent[0])
                sent[0] += 1
                stop.wait(0.0005)

        thread = threading.Thread(target=down)
        thread.start()
        try:
            while not (session.upgraded and sent[1] > 500):
                found.session.send([str(sent[1]), b"%d" % sent[1]])
                sent[1] += 1
                stop.wait(0.0005)
                assert sent[1] < 50000
        finally:
            stop.set()
            thread.join()
        assert found.wait_messages(sent[0]) == [str(index) for index in range(sent[0])]
        expected = [item for index in range(sent[1]) for item in (str(index), b"%d" % index)]
        assert session.wait_messages(len(expected)) == expected
        assert {leg for leg, _ in session.received} == {"polling", "websocket"} or session.received[0][0] == "websocket"


def test_packets_after_the_probe_and_of_the_last_poll_keep_their_order() -> None:
    """The whole body of the last poll comes before anything of the WebSocket, however early that was there."""
    with RawServer(release_polls=False) as server, running(server.url()) as found:
        session = server.session
        session.wait(lambda: session.probing)
        assert session.websocket is not None
        session.websocket.send("4third")  # after 3probe, and before the client said 5: it must wait
        wait_until(lambda: found.session.candidate is not None)
        session.poll_with(b"4first\x1e4second")
        assert found.wait_messages(3) == ["first", "second", "third"]
        assert found.session.transport == "websocket"


def test_packets_are_held_and_the_application_is_not() -> None:
    with RawServer(release_polls=False) as server, running(server.url()) as found:
        session = server.session
        wait_until(lambda: found.session.candidate is not None)
        begin = time.monotonic()
        for index in range(100):
            found.session.send([str(index)])
        assert time.monotonic() - begin < scaled(5)
        assert session.messages == [] and not found.session.writable
        session.poll_with(b"6")
        assert session.wait_messages(100) == [str(index) for index in range(100)]
        assert session.posts == []


def test_a_ping_in_the_last_poll_is_answered_on_the_websocket() -> None:
    with RawServer(release_polls=False) as server, running(server.url()) as found:
        wait_until(lambda: found.session.candidate is not None)
        server.session.poll_with(b"2")
        server.session.wait(lambda: ("websocket", "3") in server.session.received)


@pytest.mark.parametrize("answer", ["3", "3probe2", "6", b"3probe"])
def test_a_wrong_answer_to_the_probe(answer: Any) -> None:
    """W41: the socket is closed, and everything goes on."""
    with RawServer(probe_answer=answer) as server, running(server.url()) as found:
        session = server.session
        session.wait(lambda: "ws." in session.events)
        found.session.send(["a"])
        session.send("4b")
        assert session.wait_messages(1) == ["a"] and found.wait_messages(1) == ["b"]
        assert found.session.transport == "polling" and session.received == [("polling", "4a")]


def test_a_session_that_ends_while_the_probe_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread has an id before it counts as started, and cannot be joined in between."""
    class Slow(threading.Event):
        def set(self) -> None:
            threading.Event().wait(0.2)
            super().set()

    class SlowProbe(Probe):
        def start(self) -> None:
            self.thread._started = Slow()  # type: ignore[attr-defined]
            super().start()

    monkeypatch.setattr("simplepubsub.socketio.engineio.Probe", SlowProbe)
    with RawServer(greeting=("1",)) as server, running(server.url()) as found:
        assert found.wait_closed()[0] == "transport close"


def test_an_upgrade_that_is_refused() -> None:
    def answer(request: Request) -> Any:
        return Response(400, b"no") if request.upgrade else None

    with RawServer(answer=answer) as server, running(server.url()) as found:
        server.wait_requests(lambda requests: any(request.upgrade for request in requests))
        found.session.send(["a"])
        assert server.session.wait_messages(1) == ["a"]
        assert found.session.transport == "polling" and not found.closed


def test_traffic_flows_while_the_probe_waits() -> None:
    """W41: python-socketio holds everything until the WebSocket is there, or is not."""
    with RawServer(probe_answer=None) as server, running(server.url()) as found:
        session = server.session
        session.wait(lambda: "ws:2probe" in session.events)
        found.session.send(["a"])
        session.send("4b")
        assert session.wait_messages(1) == ["a"] and found.wait_messages(1) == ["b"]
        begin = time.monotonic()
        found.session.close(Deadline(scaled(10)))
        assert time.monotonic() - begin < scaled(5)  # the probe would wait for longer
        assert found.closed == [("client disconnect", None)] and session.received[-1] == ("polling", "1")


def test_a_server_that_does_not_let_go_of_the_poll() -> None:
    with RawServer(release_polls=False) as server, running(server.url()) as found:
        session = server.session
        wait_until(lambda: found.session.candidate is not None)
        found.session.send(["a"])
        with found.session.changed:
            assert 0 < (found.session.hold.remaining() or 0) <= eio_threads.HOLD_LIMIT
            found.session.hold = Deadline(0.1)  # not from the beginning: nobody might see it
            found.session.changed.notify_all()
        assert session.wait_messages(1) == ["a"]
        assert session.received == [("polling", "4a")] and found.session.transport == "polling"
        session.send("4b")
        assert found.wait_messages(1) == ["b"]


def test_closing_in_the_middle_of_the_switch() -> None:
    with RawServer(release_polls=False) as server, running(server.url()) as found:
        wait_until(lambda: found.session.candidate is not None)
        found.session.send(["a"])
        found.session.close(Deadline(scaled(5)))
        assert found.closed == [("client disconnect", None)]
        assert server.session.received == [("polling", "4a"), ("polling", "1")]


@pytest.mark.parametrize("upgrades, transports", [((), None), (("websocket",), "polling"), (("other",), None)])
def test_no_probe_where_none_is_wanted(upgrades: Any, transports: Any) -> None:
    with RawServer(upgrades=upgrades) as server, running(server.url(), transports) as found:
        found.session.send(["a"])
        assert server.session.wait_messages(1) == ["a"]
        assert found.session.probe is None and not any(request.upgrade for request in server.requests)


def test_the_websocket_lost_after_the_upgrade_is_the_end() -> None:
    with RawServer() as server, running(server.url()) as found:
        wait_until(lambda: found.session.transport == "websocket")
        assert server.session.websocket is not None
        server.session.websocket.sock.shutdown(2)
        assert found.wait_closed()[0] == "transport error"


# ---- which transport (6) --------------------------------------------------------------------------------------------


def blocked(transport: str) -> Any:
    return lambda request: Response(503, b"<html>") if request.query.get("transport") == transport else None


@pytest.mark.parametrize("first, second", [("websocket", "polling"), ("polling", "websocket")])
def test_try_all_transports(first: str, second: str) -> None:
    """W22."""
    with RawServer(answer=blocked(first), upgrades=()) as server:
        with running(server.url(), (first, second), try_all=True) as found:
            found.session.send(["a"])
            assert server.session.wait_messages(1) == ["a"]
            assert found.session.transport == second
        with pytest.raises(HandshakeRejected) as caught, running(server.url(), (first, second)):
            pass
        assert caught.value.status == 503


def test_all_transports_fail() -> None:
    with RawServer(answer=lambda request: Response(403, b'{"code":4,"message":"Forbidden"}')) as server:
        with pytest.raises(ConnectError), running(server.url(), ("websocket", "polling"), try_all=True):
            pass
        assert [request.query["transport"] for request in server.requests] == ["websocket", "polling"]


@pytest.mark.parametrize("transports", [("carrier pigeon",), (), "x"])
def test_unknown_transports(transports: Any) -> None:
    with pytest.raises(ValueError, match="transports"), running("http://127.0.0.1:1", transports):
        pass
