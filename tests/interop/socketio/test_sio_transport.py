"""Transports (cases 1-19 of the protocol reference, section 6.2), against the real servers.

Proved by what they do to a raw server, which no real one can be made to do, in ``tests/socketio``:

==== ===============================================================================================================
case test
==== ===============================================================================================================
4    test_eio_upgrade.py::test_a_wrong_answer_to_the_probe (the other half is here)
11   test_eio_session.py::test_messages_both_ways_in_order
13   test_eio_session.py::test_ping_timeout (the clock; the stalled link is here)
15   test_eio_session.py::test_oddities_on_the_websocket
15   test_eio_session.py::test_oddities_while_polling
16   test_eio_http.py::test_headers_are_on_every_request (a gzip answer of Node is here)
19   test_eio_http.py::test_redirects_without_end
19   test_eio_errors.py::test_answers_that_open_no_session
==== ===============================================================================================================
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from simplepubsub.socketio import exceptions
from tests.faultproxy import FaultProxy
from tests.helpers import scaled, wait_until
from tests.interop.socketio.play import EVERY_LEG, join, listen, lose, reason

pytestmark = pytest.mark.interop

RECORDED = {"requests": True}


def test_case_01_handshake_by_polling(serve: Any, kind: str, client: Any) -> None:
    peer = serve(kind, **RECORDED)
    sio = join(client(), peer, "polling")
    first = peer.requests()[0]
    assert (first.method, first.path, first.query["EIO"], first.query["transport"]) == (
        "GET", "/socket.io/", "4", "polling")
    assert "sid" not in first.query
    assert (sio.transport, sio.connected) == ("polling", True)
    sio.disconnect()
    assert not any(request.websocket for request in peer.requests())


def test_case_02_handshake_by_websocket(serve: Any, kind: str, client: Any) -> None:
    peer = serve(kind, **RECORDED)
    sio = join(client(), peer, "websocket")
    assert sio.call("echo", 1) == 1
    (only,) = peer.requests()
    assert (only.path, only.query["EIO"], only.query["transport"]) == ("/socket.io/", "4", "websocket")
    assert (sio.transport, "sid" in only.query) == ("websocket", False)


def test_case_03_upgrade(serve: Any, kind: str, client: Any) -> None:
    peer = serve(kind, **RECORDED)
    sio = client()
    recorder = listen(sio)
    sio.on("connect", lambda: sio.emit("burst", 1000))
    join(sio, peer, "upgrade")
    assert [args[0] for args in recorder.wait_for(1000, 30, name="n")] == list(range(1000))
    wait_until(lambda: sio.transport == "websocket", 15, "the upgrade")
    before = len(peer.requests())
    for i in range(100):
        sio.emit("put", ("case03", i))
    assert sio.call("echo", 1) == 1
    assert peer.get("case03")[-100:] == list(range(100))
    sio.disconnect()
    assert len(peer.requests()) == before  # no HTTP request after the upgrade
    assert sum(request.websocket for request in peer.requests()) == 1


def test_case_03_no_event_of_ours_is_lost_or_reordered_by_the_upgrade(peer: Any, client: Any) -> None:
    key = "upgrade " + peer.kind
    for round_ in range(5):
        sio = join(client(), peer, "upgrade")
        for i in range(200):
            sio.emit("put", (key, [round_, i]))
        sio.disconnect()
    assert peer.wait_store(key, 1000)[-1000:] == [[r, i] for r in range(5) for i in range(200)]


def test_case_04_upgrade_refused(serve: Any, client: Any) -> None:
    peer = serve("node", opts={"transports": ["polling"]}, **RECORDED)
    sio = join(client(), peer, "upgrade")
    assert sio.call("echo", "still here") == "still here"
    assert sio.transport == "polling"


@pytest.mark.parametrize("kind", ["threading", "asgi"])
def test_case_04_upgrade_refused_by_python_servers(serve: Any, kind: str, client: Any) -> None:
    peer = serve(kind, opts={"transports": ["polling"]})
    sio = join(client(), peer, "upgrade")
    assert sio.call("echo", "still here") == "still here"
    assert sio.transport == "polling"


@pytest.mark.parametrize("kind, opts", [
    ("node", {"allowUpgrades": False}), ("threading", {"allow_upgrades": False}), ("asgi", {"allow_upgrades": False})])
def test_case_05_no_probe_where_no_upgrade_is_offered(serve: Any, kind: str, opts: Any, client: Any) -> None:
    peer = serve(kind, opts=opts, **RECORDED)
    sio = join(client(), peer, "upgrade")
    assert sio.call("echo", 1) == 1
    sio.disconnect()
    assert sio.transport == "" and not any(request.websocket for request in peer.requests())


@pytest.mark.parametrize("first, second", [("websocket", "polling"), ("polling", "websocket")])
def test_case_06_try_all_transports(serve: Any, kind: str, client: Any, first: str, second: str) -> None:
    peer = serve(kind, opts={"transports": [second]})
    sio = client(try_all_transports=True)
    sio.connect(peer.url, transports=[first, second], wait_timeout=scaled(20))
    assert sio.transport == second
    assert sio.call("echo", 1) == 1
    with pytest.raises(exceptions.ConnectionError):
        client().connect(peer.url, transports=[first, second])


#: Status and payload. uvicorn sends no body with a refused WebSocket, and Werkzeug's in chunks, which are not read.
REFUSALS = {
    ("node", "polling"): (403, {"code": 4, "message": "not today"}),
    ("node", "websocket"): (400, None),
    ("threading", "polling"): (401, "not today"),
    ("threading", "websocket"): (401, None),
    ("asgi", "polling"): (401, "not today"),
    ("asgi", "websocket"): (403, None),
}


def test_case_07_refusals_end_up_in_the_error(serve: Any, kind: str, leg: str, client: Any) -> None:
    peer = serve(kind, refuse="not today")
    sio = client()
    recorder = listen(sio)
    with pytest.raises(exceptions.ConnectionError) as caught:
        join(sio, peer, leg)
    status, payload = REFUSALS[kind, leg]
    error: Any = caught.value
    assert (error.__cause__.status, error.__cause__.payload) == (status, payload)
    assert str(status) in str(error)
    if leg == "polling" or kind == "node":
        assert "not today" in str(error)
    assert error.payload == (payload or str(error))
    assert recorder.payloads("connect_error") == [[error.payload]]


def test_case_07_a_transport_that_the_server_does_not_have(serve: Any, kind: str, client: Any) -> None:
    peer = serve(kind, opts={"transports": ["websocket"]})
    with pytest.raises(exceptions.ConnectionError) as caught:
        join(client(), peer, "polling")
    expected: Any = {"code": 0, "message": "Transport unknown"} if kind == "node" else "Invalid transport"
    assert caught.value.payload == expected
    assert "400" in str(caught.value)


def test_case_08_a_burst_over_polling(peer: Any, client: Any) -> None:
    sio = client()
    recorder = listen(sio)
    join(sio, peer, "polling")
    sio.emit("burst", 400)
    assert [args[0] for args in recorder.wait_for(400, 20, name="n")] == list(range(400))
    assert recorder.payloads("disconnect") == []


@pytest.mark.parametrize("kind, leg", EVERY_LEG)
def test_case_09_a_hundred_emits_over_polling(peer: Any, leg: str, client: Any) -> None:
    key = "case09 " + leg
    sio = join(client(), peer, leg)
    for i in range(100):
        sio.emit("put", (key, i))
    assert peer.wait_store(key, 100)[-100:] == list(range(100))


LIMITED = {
    "node": {"pingInterval": int(scaled(300)), "pingTimeout": int(scaled(5000)), "maxHttpBufferSize": 20000},
    "threading": {"max_http_buffer_size": 20000},
    "asgi": {"max_http_buffer_size": 20000},
}


@pytest.mark.parametrize("kind, leg", EVERY_LEG)
def test_case_10_the_payload_limit(serve: Any, kind: str, leg: str, client: Any) -> None:
    peer = serve(kind, opts=LIMITED[kind])
    sio = client()
    recorder = listen(sio)
    join(sio, peer, leg)
    key = "case10 " + leg
    for i in range(10):
        sio.emit("put", (key, "%d " % i + 5000 * "x"))
    with pytest.raises(exceptions.PayloadTooLarge):
        sio.emit("put", (key, 30000 * "x"))
    with pytest.raises(exceptions.PayloadTooLarge):
        sio.emit("put", (key, b"x" * 30000))
    assert sio.call("echo", "sound") == "sound"
    assert [value[:2] for value in peer.get(key)] == ["%d " % i for i in range(10)]
    assert recorder.payloads("disconnect") == []


def test_case_12_heartbeat_with_a_slow_handler(serve: Any, leg: str, client: Any) -> None:
    peer = serve("node", opts={"pingInterval": 100, "pingTimeout": 2000})
    sio = client()
    recorder = listen(sio)
    woken = threading.Event()
    sio.on("world", lambda: woken.wait(2.8))  # longer than pingInterval + pingTimeout
    join(sio, peer, leg)
    sio.emit("hello")
    assert not sio.wait(3.2)  # thirty pings
    assert sio.call("echo", 1) == 1
    assert recorder.payloads("disconnect") == []
    woken.set()


@pytest.mark.parametrize("kind, opts", [
    ("node", {"pingInterval": int(scaled(300)), "pingTimeout": int(scaled(800))}),
    ("threading", {"ping_interval": 1, "ping_timeout": 1})])
def test_case_13_ping_timeout_and_back(serve: Any, kind: str, opts: Any, leg: str, client: Any) -> None:
    peer = serve(kind, opts=opts)
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio)
        join(sio, proxy.url(peer.url), leg)
        began = time.monotonic()
        proxy.stall()
        assert reason(recorder) == "ping timeout"
        limit = sum(opts.values()) / (1000 if kind == "node" else 1)
        assert time.monotonic() - began <= limit + scaled(5)
        proxy.cut()
        proxy.heal()
        recorder.wait_event("connect", 20, count=2)
        assert sio.call("echo", 1) == 1
        sio.disconnect()


@pytest.mark.timeout(400)
def test_case_14_pongs_overtake_a_large_upload(serve: Any, leg: str, client: Any) -> None:
    peer = serve("node", opts={
        "pingInterval": int(scaled(200)), "pingTimeout": int(scaled(2500)), "maxHttpBufferSize": 10**7})
    count = 70 if leg == "websocket" else 45  # base64 is longer
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio)
        join(sio, proxy.url(peer.url), leg)
        proxy.throttle(120000, interval=0.01 * scaled(1), direction="up")
        began = time.monotonic()
        for i in range(count):
            sio.emit("measure", ("case14 " + leg, i, bytes(250000)), timeout=scaled(60))
        found = peer.wait_store("case14 " + leg, count, 60)
        assert time.monotonic() - began > scaled(2.7)  # or it has shown nothing
        assert found[-count:] == [[i, 250000] for i in range(count)]
        assert recorder.payloads("disconnect") == []


def test_case_16_compressed_polls(serve: Any, kind: str, client: Any) -> None:
    options = {"httpCompression": {"threshold": 100}} if kind == "node" else {"compression_threshold": 100}
    peer = serve(kind, opts=options, **RECORDED)
    sio = join(client(), peer, "polling")
    assert sio.call("echo", 5000 * "x") == 5000 * "x"
    assert "gzip" in peer.requests()[0].headers["accept-encoding"]


@pytest.mark.parametrize("way", ["polling", "websocket", "upgrade"])
def test_case_17_headers_and_cookies_are_on_every_request(serve: Any, kind: str, way: str, client: Any) -> None:
    import requests

    extra = {"cookie": "sticky=backend1; Path=/"} if kind == "node" else {}
    opts = {} if kind == "node" else {"cookie": "sticky"}
    peer = serve(kind, fresh=True, opts=opts, **RECORDED, **extra)
    session = requests.Session()
    session.headers["X-Session"] = "seven"
    session.cookies.set("mine", "nine")
    headers = {"X-Test": "five"}
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client(http_session=session)
        recorder = listen(sio)
        join(sio, proxy.url(peer.url), way, headers=headers)
        assert sio.call("echo", 1) == 1
        if way == "upgrade":
            wait_until(lambda: sio.transport == "websocket", 15)
        lose(proxy, recorder)
        recorder.wait_event("connect", 15, count=2)
        assert sio.call("echo", 2) == 2
        sio.disconnect()
    assert headers == {"X-Test": "five"} and session.headers["X-Session"] == "seven"
    assert session.cookies.get_dict() == {"mine": "nine"}
    requests_seen = peer.requests()
    assert len(requests_seen) >= 2
    for request in requests_seen:
        assert (request.headers["x-test"], request.headers["x-session"]) == ("five", "seven"), request
        assert "mine=nine" in request.headers["cookie"], request
        if "sid" in request.query:
            assert "sticky=" in request.headers["cookie"], request


def test_case_18_query_and_callables(serve: Any, kind: str, leg: str, client: Any) -> None:
    peer = serve(kind, **RECORDED)
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        asked = []

        def url() -> str:
            asked.append("url")
            return proxy.url(peer.url) + "?room=7&attempt=%d" % asked.count("url")

        def headers() -> Any:
            asked.append("headers")
            return {"X-Attempt": str(asked.count("headers"))}

        def auth() -> Any:
            asked.append("auth")
            return {"attempt": asked.count("auth")}

        sio = client()
        recorder = listen(sio)
        join(sio, url, leg, headers=headers, auth=auth)
        lose(proxy, recorder)
        recorder.wait_event("connect", 15, count=2)
        # An attempt may fail before it asks for all of them.
        assert sorted(set(asked)) == ["auth", "headers", "url"] and asked.count("url") >= asked.count("auth") >= 2
    connections = peer.wait_log("connection", 2)
    assert connections[0]["auth"] == {"attempt": 1} and connections[-1]["auth"]["attempt"] >= 2
    for request in peer.requests():
        assert request.query["room"] == "7" and request.headers["x-attempt"] == request.query["attempt"]


def test_case_19_wrong_paths_are_clear_errors(peer: Any, leg: str, client: Any) -> None:
    with pytest.raises(exceptions.ConnectionError) as caught:
        join(client(), peer, leg, socketio_path="elsewhere")
    if leg == "polling":
        assert "404" in str(caught.value)
    else:  # Node just hangs up on a WebSocket that it does not know, and uvicorn says 500
        assert "/elsewhere/" in str(caught.value)
