"""P3: what waits for `receive` or for handlers is bounded; a server cannot fill the memory."""

from __future__ import annotations

import threading
from typing import Any, List

import pytest

from simplepubsub import socketio
from simplepubsub.exceptions import InboxOverflow
from simplepubsub.socketio import link as link_module
from simplepubsub.socketio.packet import PacketType
from tests.helpers import scaled, wait_until
from tests.socketio.faces import URL, client_on, simple_on
from tests.socketio.fake import FakeServer

Disconnected = socketio.exceptions.DisconnectedError


@pytest.fixture()
def peer() -> FakeServer:
    return FakeServer()


def test_nobody_receives(peer: FakeServer) -> None:
    with simple_on(peer, max_inbox=10) as sio:
        sio.connect(URL)
        session = peer.session(0)
        for number in range(100):
            session.emit("n", number)
        wait_until(lambda: not sio.connected, scaled(5))
        # Everything up to the limit can still be had, in order; then the end says why.
        for number in range(21):
            assert sio.receive(0) == ["n", number]
        text = r"inbox overflow\): 20 events wait.*raise max_inbox \(now 10\)"
        with pytest.raises(Disconnected, match=text) as caught:
            sio.receive()
        assert caught.value.reason == socketio.Reason.INBOX_OVERFLOW
        assert isinstance(caught.value.__cause__, InboxOverflow)
        with pytest.raises(Disconnected):
            next(iter(sio))  # no quiet end of a loop
        with pytest.raises(Disconnected):
            sio.emit("e")
        wait_until(lambda: session.polite, scaled(5))
        assert [packet.type for packet in session.packets][-1] == PacketType.DISCONNECT
        assert len(peer.sessions) == 1  # it does not come back by itself ...
        sio.connect(URL)  # ... but when it is told to
        assert sio.call("echo", 1) == 1


def test_a_handler_that_is_stuck(peer: FakeServer) -> None:
    go, seen, reasons = threading.Event(), [], []  # type: ignore[var-annotated]
    with client_on(peer, max_inbox=10) as sio:

        @sio.event
        def n(number: int) -> None:
            go.wait(scaled(5))
            seen.append(number)

        sio.on("disconnect", reasons.append)
        sio.connect(URL)
        for number in range(100):
            peer.session(0).emit("n", number)
        wait_until(lambda: not sio.active, scaled(5))
        go.set()
        assert sio.wait(scaled(5))
        assert reasons == ["inbox overflow"]
        assert seen == list(range(len(seen))) and 21 <= len(seen) <= 22  # the first may have been under way


def test_calls_end_with_the_connection(peer: FakeServer) -> None:
    with simple_on(peer, max_inbox=2) as sio:
        sio.connect(URL)
        peer.on_event = lambda session, packet: [session.emit("n") for _ in range(9)]  # type: ignore[assignment]
        with pytest.raises(Disconnected, match="inbox overflow"):
            sio.call("flood")


def test_what_is_received_in_time_has_no_limit(peer: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "REST_STEP", 0.001)
    with simple_on(peer, max_inbox=10) as sio:
        sio.connect(URL)
        for burst in range(50):
            for number in range(15):  # above the limit, so that the reader rests
                peer.session(0).emit("n", burst, number)
            assert [sio.receive(scaled(5)) for _ in range(15)] == [["n", burst, number] for number in range(15)]


def test_answers_do_not_count(peer: FakeServer) -> None:
    """It is the program that decides how many there are."""
    go, answers = threading.Event(), []  # type: ignore[var-annotated]
    with client_on(peer, max_inbox=2) as sio:
        sio.connect(URL)

        def answered(number: int) -> None:
            go.wait(scaled(5))
            answers.append(number)

        for number in range(50):
            sio.emit("echo", number, callback=answered)
        assert sio.call("echo", "last") == "last"
        go.set()
        wait_until(lambda: len(answers) == 50, scaled(5))


def test_the_reader_rests_and_an_end_wakes_it(peer: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "REST_STEP", 60.0)
    with simple_on(peer, max_inbox=5) as sio:
        sio.connect(URL)
        link = sio.client._manager._run.traffic.link  # type: ignore[union-attr]
        resting, wait = threading.Event(), link._over.wait  # type: ignore[union-attr]
        monkeypatch.setattr(link._over, "wait", lambda limit: resting.set() or wait(limit))  # type: ignore[union-attr]
        for number in range(8):
            peer.session(0).emit("n", number)
        assert resting.wait(scaled(5))
        got: List[Any] = [sio.receive(scaled(5)) for _ in range(5)]
        assert [event[1] for event in got] == list(range(5))
        with pytest.raises(TimeoutError):
            sio.receive(0)  # the others are still with the reader, which rests
        sio.disconnect()


def test_one_large_batch_is_no_overflow(peer: FakeServer) -> None:
    """A poll, or one read of a WebSocket, may hold any number of events."""
    with simple_on(peer, max_inbox=10) as sio:
        sio.connect(URL)
        session = peer.session(0)
        for _ in range(3):
            session._on_messages(['2["n",%d]' % number for number in range(1000)])
            assert [sio.receive(scaled(5))[1] for _ in range(1000)] == list(range(1000))
        assert sio.call("echo", 1) == 1


@pytest.mark.parametrize("value", [0, -1, True, 1.5, None, "1"])
def test_the_limit_is_a_positive_integer(value: Any) -> None:
    with pytest.raises(ValueError, match="max_inbox"):
        socketio.Client(max_inbox=value)
