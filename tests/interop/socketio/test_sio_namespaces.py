"""Namespaces (cases 29-37 of the protocol reference, section 6.2), against the real servers.

The whole of the lookup order of case 37 is in ``tests/socketio/test_handlers.py::test_lookup_order``; the Node server
sends no DISCONNECT with a payload (case 36), so
``tests/socketio/test_manager_life.py::test_case_36_what_a_disconnect_packet_carries_is_surfaced`` stands beside P.
"""

from __future__ import annotations

from typing import Any

import pytest

from simplepubsub import socketio
from simplepubsub.socketio import exceptions
from tests.faultproxy import FaultProxy
from tests.helpers import scaled, wait_until
from tests.interop.socketio.play import join, listen, lose, reason

pytestmark = pytest.mark.interop


def denied(peer: Any) -> Any:
    return {"message": "not allowed", "data": {"code": 42}} if peer.node else {"message": "nope", "data": {"code": 7}}


def test_case_29_two_namespaces_on_one_connection(serve: Any, kind: str, leg: str, client: Any) -> None:
    peer = serve(kind, **{"requests": True})
    sio = client()
    recorder = listen(sio, ["/", "/chat"])
    join(sio, peer, leg)
    sids = sio.namespaces
    assert list(sids) == ["/", "/chat"] and sids["/"] != sids["/chat"]
    assert (sio.get_sid(), sio.get_sid("/chat")) == (sids["/"], sids["/chat"])
    sio.emit("hello", "root")
    sio.emit("hello", "chat", namespace="/chat")
    assert recorder.wait_event("world") == ["root"] and recorder.wait_event("/chat world") == ["chat"]
    assert sio.call("info", namespace="/chat")["sid"] == sids["/chat"]
    assert recorder.names.count("world") == recorder.names.count("/chat world") == 1
    assert len([1 for request in peer.requests() if "sid" not in request.query]) == 1


def test_case_30_a_refused_namespace(peer: Any, leg: str, client: Any) -> None:
    sio = client()
    recorder = listen(sio, ["/", "/deny"])
    with pytest.raises(exceptions.ConnectionError) as caught:
        join(sio, peer, leg)
    assert caught.value.refused == {"/deny": denied(peer)}
    assert recorder.payloads("/deny connect_error") == [[denied(peer)]]
    assert not sio.connected

    other = client(require_all_namespaces=False)
    recorder = listen(other, ["/", "/deny"])
    join(other, peer, leg)
    assert recorder.wait_event("/deny connect_error") == [denied(peer)]
    assert other.call("echo", "usable") == "usable"
    assert list(other.namespaces) == ["/"]
    with pytest.raises(exceptions.BadNamespaceError):
        other.emit("echo", 1, namespace="/deny")


def test_case_31_an_unknown_namespace(peer: Any, leg: str, client: Any) -> None:
    sio = client()
    recorder = listen(sio, ["/nope"])
    with pytest.raises(exceptions.ConnectionError) as caught:
        join(sio, peer, leg)
    expected: Any = {"message": "Invalid namespace"} if peer.node else "Unable to connect"
    assert caught.value.refused == {"/nope": expected}
    assert recorder.payloads("/nope connect_error") == [[expected]]


def test_case_32_auth_reaches_the_server(peer: Any, leg: str, client: Any) -> None:
    def told(auth: Any) -> Any:
        sio = join(client(), peer, leg, auth=auth, namespaces=["/", "/chat"])
        sids = sio.namespaces
        sio.disconnect()
        return {name: peer.wait_log("connection", sid=sid)[0]["auth"] for name, sid in sids.items()}

    assert told({"token": "t"}) == {"/": {"token": "t"}, "/chat": {"token": "t"}}
    assert told(lambda: {"token": "u"}) == {"/": {"token": "u"}, "/chat": {"token": "u"}}
    each = {"/": {"token": "a"}, "/chat": lambda: {"token": "b"}}
    assert told(each) == {"/": {"token": "a"}, "/chat": {"token": "b"}}


def test_case_33_namespaces_come_and_go(peer: Any, leg: str, client: Any) -> None:
    sio = client()
    recorder = listen(sio, ["/", "/chat"])
    join(sio, peer, leg, namespaces=["/"])
    sio.connect_namespace("/chat", auth={"late": True}, timeout=scaled(20))
    assert sio.call("echo", 1, namespace="/chat") == 1
    (entry,) = peer.wait_log("connection", sid=sio.get_sid("/chat"))
    assert entry["auth"] == {"late": True}
    sio.disconnect(namespace="/chat")
    assert reason(recorder, namespace="/chat ") == "client disconnect"
    (left,) = peer.wait_log("disconnect", namespace="/chat", sid=entry["sid"])
    assert left["reason"] == ("client namespace disconnect" if peer.node else "client disconnect")
    for method in (sio.emit, sio.call):
        with pytest.raises(exceptions.BadNamespaceError):
            method("echo", 1, namespace="/chat")
    assert sio.call("echo", 2) == 2
    with pytest.raises(exceptions.ConnectionError) as caught:
        sio.connect_namespace("/deny", timeout=scaled(20))
    assert caught.value.refused == {"/deny": denied(peer)}
    assert sio.call("echo", 3) == 3
    assert recorder.payloads("disconnect") == []


def test_case_34_a_kick_from_one_namespace(peer: Any, leg: str, client: Any) -> None:
    sio = client()
    recorder = listen(sio, ["/", "/chat"])
    join(sio, peer, leg)
    sio.emit("kick", namespace="/chat")
    assert reason(recorder, namespace="/chat ") == "server disconnect"
    assert sio.call("echo", 1) == 1 and list(sio.namespaces) == ["/"]
    sio.emit("kick")
    assert reason(recorder) == "server disconnect"
    assert sio.wait(scaled(20)) and not sio.active
    assert recorder.names.count("connect") == 1


def test_case_34_a_namespace_that_was_left_does_not_come_back(peer: Any, leg: str, client: Any) -> None:
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client()
        recorder = listen(sio, ["/", "/chat", "/room"])
        join(sio, proxy.url(peer.url), leg)
        sio.emit("kick", namespace="/chat")
        recorder.wait_event("/chat disconnect", 15)
        sio.disconnect(namespace="/room")
        lose(proxy, recorder)
        recorder.wait_event("connect", 15, count=2)
        assert list(sio.namespaces) == ["/"]
        sio.disconnect()


@pytest.mark.parametrize("always", [False, True])
def test_case_35_events_of_the_connect_handler(serve: Any, kind: str, leg: str, client: Any, always: bool) -> None:
    options = {} if kind == "node" else {"always": always}
    peer = serve(kind, early=True, **options)
    sio = client()
    recorder = listen(sio)
    join(sio, peer, leg)
    assert recorder.wait_event("early") == ["x"]
    sio.disconnect()
    assert sorted(recorder.names) == ["connect", "disconnect", "early"]


@pytest.mark.parametrize("kind", ["threading", "asgi"])
def test_case_36_a_refusal_after_the_fact(serve: Any, kind: str, leg: str, client: Any) -> None:
    peer = serve(kind, always=True)
    sio = client()
    told = []
    sio.on("disconnect", lambda why, data: told.append((why, data)), namespace="/deny")
    recorder = listen(sio)
    join(sio, peer, leg, namespaces=["/"])
    try:
        sio.connect_namespace("/deny", timeout=scaled(20))
    except exceptions.SocketIOError:
        pass  # it was over before we could see that it was connected
    wait_until(lambda: told, 15)
    assert told == [("server disconnect", denied(peer))]
    assert recorder.payloads("connect") == [[]] and sio.call("echo", 1) == 1


class Chat(socketio.ClientNamespace):
    def __init__(self, namespace: str) -> None:
        super().__init__(namespace)
        self.calls: Any = []

    def on_connect(self, *args: Any) -> None:
        self.calls.append(("connect", *args))

    def on_world(self, *args: Any) -> None:
        self.calls.append(("world", *args))

    def on_question(self, *args: Any) -> Any:
        self.calls.append(("question", *args))
        return "method", 2


def test_case_37_handlers_and_class_namespaces(peer: Any, leg: str, client: Any) -> None:
    sio = client()
    root, star = Chat("/"), Chat("*")
    calls: Any = []
    sio.register_namespace(root)
    sio.register_namespace(star)
    sio.on("question", lambda *args: calls.append(args) or "function", namespace="/chat")
    sio.on("*", lambda event, *args: calls.append((event, *args)), namespace="/chat")
    join(sio, peer, leg, namespaces=["/", "/chat", "/room"])
    for namespace in ("/", "/chat", "/room"):
        sio.emit("hello", 1, namespace=namespace)
        sio.emit("say", ("unknown", 2), namespace=namespace)
        sio.emit("want", ("question", 3), namespace=namespace)
    answers = peer.wait_log("answer", 3)
    assert [entry["values"] for entry in answers] == [["method", 2], ["function"], ["method", 2]]
    assert root.calls == [("connect",), ("world", 1), ("question", 3)]
    assert star.calls == [("connect", "/chat"), ("connect", "/room"), ("world", "/room", 1), ("question", "/room", 3)]
    assert calls == [("world", 1), ("unknown", 2), (3,)]
