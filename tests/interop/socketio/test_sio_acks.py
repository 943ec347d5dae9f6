"""Acknowledgements (38-43), order and threads (44-47) of the protocol reference, section 6.2, against the real servers.

Proved without them in ``tests/socketio``:

==== ===============================================================================================================
case test
==== ===============================================================================================================
39   test_manager_events.py::test_case_39_an_event_is_answered_once_and_only_on_its_connection (no second answer)
42   test_manager_events.py::test_case_42_late_and_unknown_acks_are_ignored (an unknown id)
==== ===============================================================================================================

Case 44 in full length is in `test_sio_stress`.
"""

from __future__ import annotations

import builtins
import threading
import time
from typing import Any

import pytest

from simplepubsub.socketio import exceptions
from tests.faultproxy import FaultProxy
from tests.helpers import run_thread, scaled, wait_until
from tests.interop.socketio.play import join, listen, lose

pytestmark = pytest.mark.interop

SHAPES = [
    (None, (), None), (1, (1,), 1), (("a", 2), ("a", 2), ("a", 2)), (b"\0", (b"\0",), b"\0"),
    ((b"x", {"y": b"z"}), (b"x", {"y": b"z"}), (b"x", {"y": b"z"})), ([], ([],), []), ((None,), (None,), None),
]


def test_case_38_case_40_callbacks_and_calls(peer: Any, leg: str, client: Any) -> None:
    sio = join(client(), peer, leg)
    got: Any = []
    for data, _, value in SHAPES:
        sio.emit("echo", data, callback=lambda *answer: got.append(answer))
        assert sio.call("echo", data) == value
    wait_until(lambda: len(got) == len(SHAPES), 15)
    assert got == [values for _, values, _ in SHAPES]


HANDLERS = [
    (lambda *args: None, []), (lambda *args: 0, [0]), (lambda *args: ("OK", 123), ["OK", 123]), (lambda *args: (), []),
    (lambda *args: [1, 2], [[1, 2]]), (lambda *args: b"\0\1", [b"\0\1"]), (lambda *args: (None,), [None]),
    (lambda *args: {"x": [b"", "é"]}, [{"x": [b"", "é"]}]),
]


def test_case_39_what_handlers_return(peer: Any, leg: str, client: Any) -> None:
    sio = client()
    for number, (handler, _) in enumerate(HANDLERS):
        sio.on("q%d" % number, handler)
    join(sio, peer, leg)
    for number in range(len(HANDLERS)):  # the first has the ack id 0 of Node
        sio.emit("want", "q%d" % number)
    sio.emit("want", "nobody handles this")
    sio.emit("want", "q0")
    answers = peer.wait_log("answer", len(HANDLERS) + 1)
    expected = [("q%d" % number, values) for number, (_, values) in enumerate(HANDLERS)] + [("q0", [])]
    assert [(entry["to"], list(entry["values"])) for entry in answers] == expected


def test_case_40_a_timeout(peer: Any, leg: str, client: Any) -> None:
    sio = join(client(), peer, leg)
    began = time.monotonic()
    with pytest.raises(exceptions.TimeoutError) as caught:
        sio.call("silent", 1, timeout=scaled(0.3))
    assert scaled(0.25) < time.monotonic() - began < scaled(5)
    assert isinstance(caught.value, builtins.TimeoutError)
    assert sio.call("echo", 1) == 1


def test_case_41_a_call_during_a_drop(peer: Any, leg: str, client: Any) -> None:
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio)
        join(sio, proxy.url(peer.url), leg)
        with run_thread(sio.call, "silent", "lost", timeout=scaled(30)) as calling:
            peer.wait_store("silent", 1)
            began = time.monotonic()
            lose(proxy, recorder)
            assert isinstance(calling.exception(15), exceptions.AckLost)
            assert time.monotonic() - began < scaled(15)
        recorder.wait_event("connect", 15, count=2)
        key = "resent %s %s" % (peer.kind, leg)
        with run_thread(sio.call, "third", key, timeout=scaled(30), retries=9, ack_timeout=scaled(30)) as calling:
            for loss in (1, 2):  # the server answers the third copy only
                peer.wait_store("third", loss)
                wait_until(lambda loss=loss: peer.get("third").count(key) >= loss, 10)
                lose(proxy, recorder, loss + 1)
            assert calling.result(20) == "done"
        sio.disconnect()


def test_case_42_a_late_ack(peer: Any, leg: str, client: Any) -> None:
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio)
        join(sio, proxy.url(peer.url), leg)
        sio.call("echo", 0)
        proxy.stall("down")
        with pytest.raises(exceptions.TimeoutError):
            sio.call("echo", "late", timeout=scaled(0.2))
        proxy.heal()
        assert sio.call("echo", "next") == "next"
        assert recorder.payloads("disconnect") == []
        sio.disconnect()


def test_case_43_a_call_inside_a_handler(peer: Any, leg: str, client: Any) -> None:
    sio = client()
    got: Any = []
    sio.on("connect", lambda: got.append(sio.call("echo", "connect")))
    sio.on("world", lambda value: got.append(sio.call("echo", value)))
    join(sio, peer, leg)
    for i in range(5):
        sio.emit("hello", i)
    wait_until(lambda: len(got) == 6, 15)
    assert got == ["connect", 0, 1, 2, 3, 4]


def test_case_44_order_and_w1_whole_binaries(peer: Any, leg: str, client: Any, switch_interval: Any) -> None:
    sio = client()
    recorder = listen(sio)
    join(sio, peer, leg)
    sio.emit("burst", 1000)
    sio.emit("burstbin", 500)
    recorder.wait_for(1500 + 1, 40)
    assert [args[0] for args in recorder.payloads("n")] == list(range(1000))
    assert recorder.payloads("b") == [[i, bytes([i % 256]) * 8, {"x": [b"%d" % i, b""]}] for i in range(500)]


@pytest.mark.timeout(400)
def test_case_45_w25_binary_emits_of_eight_threads(peer: Any, leg: str, client: Any) -> None:
    sio = join(client(), peer, leg)
    key = "case45 " + leg

    def sender(number: int) -> None:
        for i in range(200):
            sio.emit("put", (key, [number, i, bytes([number]) * 20, {"deep": [b"%d" % i, b""]}]))

    threads = [threading.Thread(target=sender, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = peer.wait_store(key, 1600, 60)[-1600:]
    for number in range(8):
        mine = [value for value in found if value[0] == number]
        assert mine == [[number, i, bytes([number]) * 20, {"deep": [b"%d" % i, b""]}] for i in range(200)]


def test_case_46_w2_a_slow_handler_makes_no_threads(peer: Any, leg: str, client: Any) -> None:
    before = threading.active_count()
    go, handled = threading.Event(), []
    sio = client()

    def slow(i: int) -> None:
        go.wait(scaled(40))
        handled.append(i)

    sio.on("n", slow)
    join(sio, peer, leg)
    sio.emit("burst", 1000)
    assert sio.call("echo", 1) == 1  # all of them are here
    assert threading.active_count() - before <= 6
    go.set()
    wait_until(lambda: len(handled) == 1000, 10)
    assert handled == list(range(1000))


def test_case_47_a_failing_handler(peer: Any, leg: str, client: Any) -> None:
    sio = client(logger=_quiet())
    failures: Any = []
    sio.hook("error", lambda error, event, namespace: failures.append((str(error), event, namespace)))
    handled: Any = []

    def handler(value: int) -> None:
        handled.append(value)
        if value % 2:
            raise RuntimeError("bad %d" % value)

    sio.on("world", handler)
    join(sio, peer, leg)
    for i in range(4):
        sio.emit("hello", i)
    wait_until(lambda: len(handled) == 4, 15)
    assert sio.call("echo", 1) == 1
    wait_until(lambda: len(failures) == 2, 15)
    assert failures == [("bad 1", "world", "/"), ("bad 3", "world", "/")]


def _quiet() -> Any:
    import logging

    logger = logging.Logger("quiet")
    logger.addHandler(logging.NullHandler())
    return logger
