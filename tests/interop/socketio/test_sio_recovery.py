"""Recovery and delivery (cases 58-66 of the protocol reference, section 6.2): NC is the Node server with recovery.

Proved without a server in ``tests/socketio``:

==== ===============================================================================================================
case test
==== ===============================================================================================================
64   test_manager_events.py::test_case_64_the_buffer_is_bounded
64   test_manager_events.py::test_case_64_the_buffer_may_drop
==== ===============================================================================================================
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Iterator

import pytest

from simplepubsub.socketio import exceptions
from tests.faultproxy import FaultProxy
from tests.helpers import Recorder, run_thread, scaled, wait_until
from tests.interop.socketio.play import LEGS, join, listen, lose

pytestmark = pytest.mark.interop


@pytest.fixture
def nc(serve: Any) -> Any:
    return serve("node", opts={"connectionStateRecovery": {}})


@pytest.fixture
def proxy(nc: Any) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", nc.port) as proxy:
        yield proxy


@contextlib.contextmanager
def away(proxy: FaultProxy, peer: Any, recorder: Recorder, sid: Any) -> Iterator[None]:
    """Run a block while the client is away, and a server with recovery knows it."""
    losses = recorder.names.count("disconnect")
    proxy.refuse(True)
    lose(proxy, recorder, losses + 1)
    if "connectionStateRecovery" in peer.options.get("opts", {}):
        peer.miss(sid)
    yield
    connections = recorder.names.count("connect")
    proxy.refuse(False)
    recorder.wait_event("connect", 20, count=connections + 1)


@pytest.mark.parametrize("strip", ["auto", True, False])
def test_case_58_w8_offsets_are_stripped(nc: Any, leg: str, client: Any, strip: Any) -> None:
    sio = client(strip_offset=strip)
    recorder = listen(sio)
    join(sio, nc, leg)
    sio.emit("say", ("said", "a string"))
    sio.emit("say", ("said", b"\0", {"x": b"y"}))
    recorder.wait_event("said", count=2)
    said, binary = recorder.payloads("said")
    # The server drops it while there is no poll to answer.
    wait_until(lambda: sio.emit("whisper", ("whispered", "a string")) and recorder.payloads("whispered"), 15)
    whispered = recorder.payloads("whispered")[0]
    assert said[:1] == ["a string"] and binary[:2] == [b"\0", {"x": b"y"}]
    extra = 1 if strip is False else 0
    assert (len(said), len(binary)) == (1 + extra, 2 + extra)
    assert whispered == ([] if strip is True else ["a string"])  # volatile events have none


def test_case_58_receive_has_no_offsets(nc: Any, leg: str, simple: Any) -> None:
    sio = simple()
    sio.connect(nc.url, transports=LEGS[leg], wait_timeout=scaled(20))
    sio.emit("say", ("said", 1, "two"))
    assert sio.receive(timeout=scaled(20)) == ["said", 1, "two"]
    sio.emit("want", ("asked", "x"))
    assert sio.receive(timeout=scaled(20)) == ["asked", "x"]


def test_case_59_w7_nothing_is_missed(nc: Any, leg: str, client: Any, proxy: FaultProxy) -> None:
    sio = client()
    recorder = listen(sio)
    join(sio, proxy.url(nc.url), leg)
    assert not sio.recovered
    sid = sio.sid
    sio.call("join", "the room")
    sio.emit("hello", "before")
    recorder.wait_event("world")
    with away(proxy, nc, recorder, sid):
        for i in range(5):
            nc.emit("late", i, b"%d" % i)
    nc.emit("greeting", "to the room", room="the room")
    assert recorder.wait_event("greeting") == ["to the room"]
    assert recorder.names == ["connect", "world", "disconnect"] + (
        ["connect_error"] * recorder.names.count("connect_error")) + 5 * ["late"] + ["connect", "greeting"]
    assert recorder.payloads("late") == [[i, b"%d" % i] for i in range(5)]
    assert (sio.sid, sio.recovered) == (sid, True)
    (first, second) = nc.wait_log("connection", 2, sid=sid)
    assert (first["recovered"], second["recovered"], second["sid"]) == (False, True, sid)


def test_case_60_without_an_event_there_is_no_recovery(nc: Any, leg: str, client: Any, proxy: FaultProxy) -> None:
    sio = client()
    recorder = listen(sio)
    join(sio, proxy.url(nc.url), leg)
    sid = sio.sid
    with away(proxy, nc, recorder, sid):
        nc.emit("late", 1)
    assert not sio.recovered and sio.sid != sid
    assert sio.call("echo", 1) == 1 and "late" not in recorder.names


def test_case_60_an_expired_session(serve: Any, leg: str, client: Any) -> None:
    duration = int(scaled(500))
    peer = serve("node", opts={"connectionStateRecovery": {"maxDisconnectionDuration": duration}})
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio)
        join(sio, proxy.url(peer.url), leg)
        sid = sio.sid
        sio.emit("hello", 1)
        recorder.wait_event("world")
        with away(proxy, peer, recorder, sid):
            threading.Event().wait(1.2 * duration / 1000)
        assert not sio.recovered and sio.sid != sid
        for number in range(5):
            sid = sio.sid
            sio.emit("hello", 2)
            recorder.wait_event("world", 10, count=2 + number)
            began = time.monotonic()
            with away(proxy, peer, recorder, sid):
                peer.emit("late", number)
            if sio.recovered:
                break
            assert time.monotonic() - began >= duration / 1000  # it was away too long, on a machine that stood still
        assert sio.recovered and sio.sid == sid
        assert recorder.payloads("late") == [[number]]
        sio.disconnect()


@pytest.mark.parametrize("skip", [True, False])
def test_case_60_middlewares_on_recovery(serve: Any, client: Any, skip: bool) -> None:
    peer = serve("node", guard=True, opts={"connectionStateRecovery": {"skipMiddlewares": skip}})
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio)
        join(sio, proxy.url(peer.url))
        sio.emit("hello", 1)
        recorder.wait_event("world")
        with away(proxy, peer, recorder, sio.sid):
            pass
        assert sio.recovered and len(peer.log_now("guard")) == (1 if skip else 2)
        sio.disconnect()


def test_case_61_after_a_clean_disconnect(nc: Any, leg: str, client: Any) -> None:
    sio = client()
    recorder = listen(sio)
    join(sio, nc, leg)
    sid = sio.sid
    sio.emit("hello", 1)
    recorder.wait_event("world")
    sio.disconnect()
    assert nc.wait_log("disconnect", sid=sid)[0]["reason"] == "client namespace disconnect"
    join(sio, nc, leg)
    assert not sio.recovered and sio.sid != sid
    for name in (sid, sio.sid):
        assert [entry["recovered"] for entry in nc.wait_log("connection", sid=name)] == [False]


def test_case_62_two_namespaces(nc: Any, leg: str, client: Any, proxy: FaultProxy) -> None:
    sio = client()
    recorder = listen(sio, ["/", "/chat", "/room"])
    join(sio, proxy.url(nc.url), leg)
    before = sio.namespaces
    sio.emit("hello", 1)
    sio.emit("hello", 2, namespace="/chat")
    recorder.wait_event("world")
    recorder.wait_event("/chat world")
    with away(proxy, nc, recorder, before["/"]):
        nc.wait_log("disconnect", sid=before["/chat"])
        for i in range(3):
            nc.emit("late", i)
            nc.emit("late", 10 + i, namespace="/chat")
            nc.emit("late", 20 + i, namespace="/room")
    recorder.wait_event("/chat connect", 15, count=2)
    recorder.wait_event("/room connect", 15, count=2)
    after = sio.namespaces
    assert (after["/"], after["/chat"]) == (before["/"], before["/chat"]) and after["/room"] != before["/room"]
    assert [sio.is_recovered(name) for name in ("/", "/chat", "/room")] == [True, True, False]
    assert recorder.payloads("late") == [[0], [1], [2]]
    assert recorder.payloads("/chat late") == [[10], [11], [12]] and recorder.payloads("/room late") == []


def test_case_63_nothing_of_it_without_recovery(peer: Any, leg: str, client: Any) -> None:
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio)
        join(sio, proxy.url(peer.url), leg)
        sio.emit("say", ("said", "0123456"))
        assert recorder.wait_event("said") == ["0123456"]
        sid = sio.sid
        lose(proxy, recorder)
        recorder.wait_event("connect", 15, count=2)
        for name in (sid, sio.sid):
            assert [entry["auth"] or {} for entry in peer.wait_log("connection", sid=name)] == [{}]
        assert not sio.recovered
        sio.disconnect()


def test_case_64_w9_the_offline_buffer(peer: Any, leg: str, client: Any) -> None:
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client(offline="buffer")
        recorder = listen(sio)
        key = "case64 " + leg
        join(sio, proxy.url(peer.url), leg)
        sio.on("connect", lambda: (sio.emit("put", (key, "from connect")), recorder.record("connect")))
        errors: Any = []
        with away(proxy, peer, recorder, sio.sid):
            for i in range(10):
                sio.emit("put", (key, [i, b"%d" % i]))
            sio.emit("put", (key, "too late"), on_error=errors.append, ack_timeout=scaled(0.1))
            wait_until(lambda: errors, 15)
        assert sio.call("echo", 1) == 1
        assert peer.get(key) == [[i, b"%d" % i] for i in range(10)] + ["from connect"]
        assert isinstance(errors[0], exceptions.TimeoutError) and len(errors) == 1
        sio.disconnect()


def test_case_65_volatile_events(peer: Any, leg: str, client: Any) -> None:
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio)
        key = "case65 " + leg
        join(sio, proxy.url(peer.url), leg)
        sio.call("echo", 1)
        sent: Any = {True: [], False: []}  # by what emit says

        def whisper() -> bool:
            number = len(sent[True]) + len(sent[False])
            said = sio.emit("put", (key, number), volatile=True)
            sent[said].append(number)
            return said

        wait_until(whisper, 10)
        proxy.stall("up")
        big = bytes(600000) if leg == "polling" else bytes(900000)
        # Something may still fit into a buffer of the kernel, later.
        wait_until(lambda: not sio.emit("measure", ("case65 filling", 0, big), volatile=True) and not whisper(), 10)
        proxy.resume("up")
        assert sio.call("echo", 2) == 2
        with away(proxy, peer, recorder, sio.sid):
            assert not whisper()
        assert sio.call("echo", 3) == 3
        assert peer.get(key) == sent[True] and len(sent[False]) >= 2
        sio.disconnect()


def test_case_66_w10_retries(peer: Any, leg: str, client: Any) -> None:
    sio = join(client(), peer, leg)
    tag, done = "%s %s" % (peer.kind, leg), []
    for name in ("silent", "echo", "third", "put"):
        data: Any = (tag + "put", 1) if name == "put" else tag + name
        # The answer to the third copy may take its time: more copies follow meanwhile.
        sio.emit(name, data, retries=100 if name == "third" else 3,
                 ack_timeout=scaled(0.2) if name in ("silent", "third") else scaled(20),
                 callback=lambda *values, name=name: done.append((name, values)),
                 on_error=lambda error, name=name: done.append((name, type(error))))
    wait_until(lambda: len(done) == 4, 40)
    assert done == [("silent", exceptions.TimeoutError), ("echo", (tag + "echo",)), ("third", ("done",)), ("put", ())]
    assert peer.get("silent").count(tag + "silent") == 4
    assert peer.get("third").count(tag + "third") >= 3
    assert peer.get(tag + "put") == [1]  # an empty ack is one


def test_case_66_in_flight_when_the_link_drops(peer: Any, leg: str, client: Any) -> None:
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio)
        join(sio, proxy.url(peer.url), leg)
        key, acked = "case66 " + leg, []
        proxy.stall("down")
        for i in range(3):
            sio.emit("put", (key, i), retries=5, ack_timeout=scaled(20), callback=lambda i=i: acked.append(i))
        peer.wait_store(key, 1)
        with run_thread(lose, proxy, recorder):
            pass
        proxy.heal()
        wait_until(lambda: len(acked) == 3, 30)
        assert acked == [0, 1, 2]
        found = peer.get(key)
        assert sorted(found) == found and set(found) == {0, 1, 2} and found.count(0) >= 2
        sio.disconnect()
