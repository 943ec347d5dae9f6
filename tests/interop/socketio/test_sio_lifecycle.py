"""Life of a connection (cases 48-57 of the protocol reference, section 6.2), against the real servers.

Proved without them in ``tests/socketio``:

==== ===============================================================================================================
case test
==== ===============================================================================================================
49   test_manager_life.py::test_case_49_disconnect_during_connect_ends_that
49   test_manager_life.py::test_case_49_disconnect_inside_a_callable
52   test_manager_life.py::test_w17_case_52_backoff_is_proportional_and_bounded
52   test_client_api.py::test_giving_up
==== ===============================================================================================================

Case 56 (nothing is left) is also checked after every test, by the fixture `leak_check`.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from simplepubsub.socketio import exceptions
from tests.faultproxy import FaultProxy
from tests.helpers import ClosedPort, run_thread, scaled, subprocess_python, wait_until
from tests.interop.socketio.play import LEGS, join, listen, lose, reason

pytestmark = pytest.mark.interop

LEFT = {"node": "client namespace disconnect", "threading": "client disconnect", "asgi": "client disconnect"}


@pytest.mark.parametrize("way", list(LEGS))
def test_case_48_w6_what_was_emitted_arrives_before_the_goodbye(peer: Any, way: str, client: Any) -> None:
    for round_ in range(3):
        sio = join(client(), peer, way)
        sid, key = sio.sid, "case48 %s %d" % (way, round_)
        for i in range(50):
            sio.emit("put", (key, i))
        sio.disconnect()
        (left,) = peer.wait_log("disconnect", sid=sid)
        assert left["reason"] == LEFT[peer.kind]
        assert peer.get(key) == list(range(50))


def test_case_48_binary_events_before_the_goodbye(peer: Any, leg: str, client: Any) -> None:
    sio = join(client(), peer, leg)
    key = "case48 binary " + leg
    for i in range(50):
        sio.emit("put", (key, [i, b"%d" % i, b""]))
    sio.disconnect()
    assert peer.wait_store(key, 50) == [[i, b"%d" % i, b""] for i in range(50)]


def test_case_49_disconnect_in_handlers_and_twice(peer: Any, leg: str, client: Any) -> None:
    sio = client()
    recorder = listen(sio)
    sio.on("world", lambda *args: sio.disconnect())
    join(sio, peer, leg)
    sio.emit("hello", 1)
    assert reason(recorder) == "client disconnect"
    assert sio.wait(scaled(20))
    began = time.monotonic()
    sio.disconnect()
    sio.disconnect()
    assert time.monotonic() - began < scaled(5) and not sio.active

    early = client()
    early.on("connect", early.disconnect)
    try:
        join(early, peer, leg)
    except exceptions.ConnectionError:
        pass  # it may have ended before connect() saw it
    assert early.wait(scaled(20)) and not early.active


def test_case_49_w14_disconnect_during_a_reconnection(peer: Any, leg: str, client: Any) -> None:
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio)
        join(sio, proxy.url(peer.url), leg)
        proxy.refuse(True)
        lose(proxy, recorder)
        began = time.monotonic()
        sio.disconnect()
        assert time.monotonic() - began < scaled(5)
        proxy.refuse(False)
        accepted = proxy.accepted
        threading.Event().wait(scaled(0.5))  # several delays of the reconnection
        assert proxy.accepted == accepted and not sio.active
        assert recorder.names.count("connect") == 1


def test_case_50_a_block_that_fails(peer: Any, leg: str, client: Any, simple: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        with client() as sio:
            join(sio, peer, leg)
            sid = sio.sid
            raise ZeroDivisionError
    assert peer.wait_log("disconnect", sid=sid)[0]["reason"] == LEFT[peer.kind]
    with pytest.raises(ZeroDivisionError):
        with simple() as sio:
            sio.connect(peer.url, transports=LEGS[leg], wait_timeout=scaled(20))
            sid = sio.sid
            raise ZeroDivisionError
    assert peer.wait_log("disconnect", sid=sid)[0]["reason"] == LEFT[peer.kind]


def test_case_51_a_loss_and_the_way_back(peer: Any, leg: str, client: Any) -> None:
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio, ["/", "/chat"])
        join(sio, proxy.url(peer.url), leg, auth={"token": "t"})
        before = sio.namespaces
        lose(proxy, recorder)
        assert reason(recorder) in ("transport error", "transport close")
        recorder.wait_event("/chat connect", 15, count=2)
        recorder.wait_event("connect", 15, count=2)
        after = sio.namespaces
        assert set(after) == {"/", "/chat"} and not set(after.values()) & set(before.values())
        assert sio.call("echo", 1, namespace="/chat") == 1
        for sid in (*before.values(), *after.values()):
            (entry,) = peer.wait_log("connection", sid=sid)
            assert entry["auth"] == {"token": "t"}
        sio.disconnect()


def test_case_52_w15_giving_up_and_starting_again(peer: Any, leg: str, client: Any) -> None:
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client(reconnection_attempts=2)
        recorder = listen(sio)
        attempts: Any = []
        sio.hook("reconnect_attempt", attempts.append)
        sio.hook("reconnect_failed", lambda: attempts.append("failed"))
        for round_ in (1, 2):
            proxy.refuse(False)
            join(sio, proxy.url(peer.url), leg)
            proxy.refuse(True)
            lose(proxy, recorder, round_)
            assert sio.wait(scaled(20)) and not sio.active
            wait_until(lambda expected=3 * round_: len(attempts) == expected, 10)
        assert attempts == [1, 2, "failed"] * 2


@pytest.mark.parametrize("kind", ["node", "threading"])
def test_case_53_w16_a_slow_server(serve: Any, kind: str, client: Any) -> None:
    peer = serve(kind, delay=1500)
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio)
        join(sio, proxy.url(peer.url), "websocket", wait_timeout=5 + scaled(5))
        lose(proxy, recorder)
        recorder.wait_event("connect", 20, count=2)
        assert sio.call("echo", 1) == 1
        sio.disconnect()
    slowest = serve(kind, delay=60000)
    with pytest.raises(exceptions.ConnectionError):
        join(sio, slowest, "websocket", wait_timeout=0.5)


def test_case_54_w18_the_engine_closes(peer: Any, leg: str, client: Any) -> None:
    sio = client()
    recorder = listen(sio)
    join(sio, peer, leg)
    sio.emit("eioclose")
    # The Python servers may refuse the next poll before they have told that the session is closed.
    assert reason(recorder) in ("transport close",) + (() if peer.node else ("transport error",))
    recorder.wait_event("connect", 15, count=2)
    assert sio.call("echo", 1) == 1


def test_case_54_the_server_shuts_down(serve: Any, leg: str, client: Any) -> None:
    peer = serve("node", fresh=True)
    sio = client()
    recorder = listen(sio)
    join(sio, peer, leg)
    wait_until(peer.polled, 15)  # otherwise it has no way to tell
    assert sio.connected
    peer.close()
    assert reason(recorder) == "transport close"
    assert sio.active
    wait_until(lambda: "connect_error" in recorder.names, 15)  # it tries


@pytest.mark.parametrize("how", ["kick", "kicktrue"])
def test_case_54_kicked(serve: Any, leg: str, client: Any, how: str) -> None:
    peer = serve("node")
    sio = client()
    recorder = listen(sio)
    join(sio, peer, leg)
    sio.emit(how)
    assert reason(recorder) == "server disconnect"
    assert sio.wait(scaled(20)) and not sio.active and recorder.names.count("connect") == 1


def test_case_55_wait(peer: Any, leg: str, client: Any) -> None:
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio)
        join(sio, proxy.url(peer.url), leg)
        with run_thread(sio.wait) as waiting:
            lose(proxy, recorder)
            recorder.wait_event("connect", 15, count=2)
            assert waiting.running
            sio.emit("kick")
            assert waiting.result(20) is True
        assert recorder.names.count("disconnect") == 2


INTERRUPTED = """
    import sys
    from simplepubsub import socketio
    sio = socketio.Client()
    sio.connect(sys.argv[1], transports=[sys.argv[2]], wait_timeout=60)
    try:
        print("waiting", sio.sid)
        sio.wait()
    except KeyboardInterrupt:
        print("interrupted", sio.connected)
        sio.disconnect()
"""


def test_case_55_ctrl_c(serve: Any, leg: str) -> None:
    peer = serve("node")
    with subprocess_python(INTERRUPTED, peer.url, leg, timeout=60) as child:
        sid = child.wait_line("waiting", 30).split()[1]
        child.interrupt()
        ended = child.wait()
    assert (ended.returncode, ended.stderr) == (0, "") and "interrupted True" in ended.stdout
    assert peer.wait_log("disconnect", sid=sid)[0]["reason"] == LEFT["node"]


def test_case_56_nothing_is_left(serve: Any, kind: str, leg: str, client: Any) -> None:
    peer = serve(kind, fresh=True)
    before = threading.active_count()
    for end in ("disconnect", "kick"):
        sio = join(client(), peer, leg)
        sio.call("echo", 1)
        if end == "disconnect":
            sio.disconnect()
        else:
            sio.emit("kick")
            assert sio.wait(scaled(20))
        wait_until(lambda: threading.active_count() <= before, 15)
    if peer.node:  # the Python servers tidy up now and then
        wait_until(lambda: peer.clients() == 0, 15)


def test_case_57_the_first_connection_fails(peer: Any, leg: str, client: Any) -> None:
    with ClosedPort() as closed:
        began = time.monotonic()
        with pytest.raises(exceptions.ConnectionError):
            join(client(), closed.url("").replace("ws:", "http:"), leg)
        assert time.monotonic() - began < scaled(5)
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        proxy.refuse(True)
        url = proxy.url(peer.url)
        began = time.monotonic()
        with pytest.raises(exceptions.ConnectionError):
            join(client(), url, leg, retry=True, timeout=scaled(0.5))
        assert scaled(0.4) < time.monotonic() - began < scaled(5)
        sio = client()
        errors: Any = []
        sio.hook("reconnect_error", errors.append)
        with run_thread(join, sio, url, leg, retry=True) as joining:
            wait_until(lambda: len(errors) >= 2, 15)
            proxy.refuse(False)
            joining.result(20)
            assert sio.call("echo", 1) == 1
        sio.disconnect()
        proxy.refuse(True)
        sio = client()
        sio.hook("reconnect_error", errors.append)
        del errors[:]
        with run_thread(join, sio, url, leg, retry=True) as joining:
            wait_until(lambda: errors, 15)
            sio.disconnect()
            assert isinstance(joining.exception(20), exceptions.ConnectionError)
