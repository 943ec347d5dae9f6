"""`SimpleClient` (cases 67-70 of the protocol reference, section 6.2), against the real servers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from simplepubsub.socketio import exceptions
from tests.faultproxy import FaultProxy
from tests.helpers import run_thread, scaled, wait_until
from tests.interop.socketio.play import LEGS

pytestmark = pytest.mark.interop


def open_simple(sio: Any, url: str, leg: str, **options: Any) -> Any:
    sio.connect(url, transports=LEGS[leg], wait_timeout=scaled(20), **options)
    return sio


def test_case_67_receive(peer: Any, leg: str, simple: Any) -> None:
    sio = open_simple(simple(), peer.url, leg)
    sio.emit("burst", 200)
    assert [sio.receive(timeout=scaled(20)) for _ in range(200)] == [["n", i] for i in range(200)]
    began = time.monotonic()
    with pytest.raises(exceptions.TimeoutError):
        sio.receive(timeout=scaled(0.2))
    assert time.monotonic() - began < scaled(5)
    sio.emit("burst", 3)
    assert sio.call("echo", 1) == 1
    with run_thread(sio.emit, "kick"):
        pass
    wait_until(lambda: not sio.connected, 15)
    assert [sio.receive() for _ in range(3)] == [["n", 0], ["n", 1], ["n", 2]]
    for _ in range(2):
        with pytest.raises(exceptions.DisconnectedError) as caught:
            sio.receive()
        assert caught.value.reason == "server disconnect"


def test_case_67_w13_a_receive_that_waits_when_it_ends(peer: Any, leg: str, simple: Any) -> None:
    sio = open_simple(simple(), peer.url, leg)
    with run_thread(sio.receive) as receiving:
        sio.emit("kick")
        assert isinstance(receiving.exception(20), exceptions.DisconnectedError)
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = open_simple(simple(reconnection_attempts=1), proxy.url(peer.url), leg)
        with run_thread(sio.receive) as receiving:
            proxy.refuse(True)
            wait_until(lambda: (proxy.cut(), not sio.connected)[1], 15)
            assert isinstance(receiving.exception(20), exceptions.DisconnectedError)


def test_case_68_w12_calls_without_a_connection(peer: Any, leg: str, simple: Any) -> None:
    sio = simple()
    for method in (sio.emit, sio.call):
        with pytest.raises(exceptions.DisconnectedError):
            method("echo", 1)
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        open_simple(sio, proxy.url(peer.url), leg)
        proxy.refuse(True)
        wait_until(lambda: (proxy.cut(), sio.sid is None)[1], 15)
        for method in (sio.emit, sio.call):
            began = time.monotonic()
            with pytest.raises(exceptions.TimeoutError):
                method("echo", 1, timeout=scaled(0.3))
            assert scaled(0.2) < time.monotonic() - began < scaled(5)
        with run_thread(sio.call, "echo", "back") as calling:
            proxy.refuse(False)
            assert calling.result(20) == "back"
        sio.disconnect()


def test_case_69_state(peer: Any, leg: str, simple: Any) -> None:
    sio = simple()
    assert (sio.sid, sio.transport, sio.connected) == (None, "", False)
    open_simple(sio, peer.url, leg)
    first = sio.sid
    assert first and sio.transport == leg and sio.connected
    assert sio.call("info")["sid"] == first
    with pytest.raises(RuntimeError):
        open_simple(sio, peer.url, leg)
    sio.disconnect()
    assert (sio.sid, sio.transport, sio.connected) == (None, "", False)
    with pytest.raises(exceptions.DisconnectedError):
        sio.emit("echo", 1)
    open_simple(sio, peer.url, leg, namespace="/chat")
    assert sio.sid and sio.sid != first and sio.call("echo", 1) == 1
    assert peer.wait_log("connection", sid=sio.sid)[0]["namespace"] == "/chat"


def test_case_70_w26_manual_acknowledgement(peer: Any, leg: str, simple: Any) -> None:
    sio = open_simple(simple(), peer.url, leg)
    sio.emit("want", ("question", 1))
    sio.emit("want", ("question", 2))
    event = sio.receive(timeout=scaled(20), ack=False)
    assert event == ["question", 1] and event.wants_ack
    assert sio.call("echo", 1) == 1
    assert peer.log_now("answer", to="question") == []
    assert event.ack("yes", b"\0") and not event.ack("again")
    assert list(peer.wait_log("answer", to="question")[0]["values"]) == ["yes", b"\0"]
    assert sio.receive(timeout=scaled(20)) == ["question", 2]
    assert list(peer.wait_log("answer", 2, to="question")[1]["values"]) == []
