"""Which handler gets an event: order, patterns, objects beside URLs and functions, removal."""

from __future__ import annotations

import json
import threading

import pytest

from simplepubsub.exceptions import RefuseEvent
from simplepubsub.server import ConnectReply
from simplepubsub.webpubsub import cloud_events
from tests.helpers import Recorder, scaled, wait_until
from tests.rawclient import PLAIN, Clients, ok, refused
from tests.upstreams import ScriptedUpstream


class Target:
    """An object with ``handle``: answers with ``answer``, or calls it; records what it is called with."""

    def __init__(self, answer=(204, {}, b"")):
        self.answer = answer
        self.calls = []

    def handle(self, method, headers, body):
        self.calls.append((method, headers, body))
        return self.answer(headers, body) if callable(self.answer) else self.answer

    @property
    def events(self):
        return [headers["ce-eventName"] for _, headers, _ in self.calls]


def text(value):
    return (200, {"Content-Type": "text/plain; charset=utf-8"}, value.encode())


def ask(client, event, ack_id=1):
    """Send an event; return the answer, None when there was none."""
    client.send({"type": "event", "event": event, "data": "x", "dataType": "text", "ackId": ack_id})
    reply = client.receive()
    if reply["type"] == "ack":
        return None if reply["success"] else reply["error"]["name"]
    assert client.receive() == ok(ack_id)
    return reply["data"]


# --- objects ----------------------------------------------------------------------------------------------------------


def test_an_object_gets_what_a_url_gets_without_http(server, connect):
    def answer(headers, body):
        if headers["ce-eventName"] == "connect":
            found = {"ce-connectionState": cloud_events.encode_state({"n": 1})}
            return (200, found, json.dumps({"userId": "real"}).encode())
        if headers["ce-eventName"] != "e":
            return (204, {}, b"")
        return text(body.decode() + headers[cloud_events.STATE_HEADER])

    target = Target(answer)
    server.add_event_handler(target)
    client = connect(PLAIN, user_id="mina")
    assert client.first["userId"] == "real"
    assert ask(client, "e") == "x" + cloud_events.encode_state({"n": 1})
    client.close()
    wait_until(lambda: target.events == ["connect", "connected", "e", "disconnected"])
    assert {method for method, _, _ in target.calls} == {"POST"}
    assert [headers["ce-id"] for _, headers, _ in target.calls] == ["0", "1", "2", "3"]
    signatures = {headers["ce-signature"] for _, headers, _ in target.calls}
    assert signatures == {cloud_events.signature(client.connection_id, [server._access_key])}


@pytest.mark.parametrize("answer", [None, 5, (200, {}), ("a", {}, b""), (200, None, b""), (200, {}, None)], ids=str)
def test_what_is_no_answer_of_an_object_is_a_failure(server, connect, answer, caplog):
    server.add_event_handler(Target(answer), system=())
    assert ask(connect(PLAIN), "e") == "InternalServerError"
    server.add_event_handler(Target(answer))
    assert refused(server.client_access_url("plaza"), PLAIN)[0] == 500
    assert "must return (status, headers, body)" in caplog.text


def test_an_object_that_raises_fails_the_event_and_nothing_else(server, connect, caplog):
    def broken(headers, body):
        raise KeyError("inner detail")

    server.add_event_handler(Target(broken), system="connected")
    client = connect(PLAIN)
    client.send({"type": "event", "event": "e", "data": 1, "ackId": 1})
    error = client.receive()["error"]
    assert error["name"] == "InternalServerError" and "detail" not in error["message"]
    assert "inner detail" in caplog.text


def test_an_object_is_not_asked_twice(server, connect):
    target = Target((500, {}, b""))
    server.add_event_handler(target, system=())
    assert ask(connect(PLAIN), "e") == "InternalServerError"
    assert len(target.calls) == 1


def test_an_object_may_block_without_holding_up_others(server, connect):
    release = threading.Event()
    slow = Target(lambda headers, body: text(str(release.wait(scaled(10)))))
    server.add_event_handler(slow, events="slow", system=())
    server.add_event_handler(Target(text("fast")), system=())
    one, two = connect(PLAIN), connect(PLAIN)
    one.send({"type": "event", "event": "slow", "data": 1})
    assert ask(two, "e") == "fast"
    release.set()
    assert one.receive()["data"] == "True"


# --- who gets it ------------------------------------------------------------------------------------------------------


def test_functions_first_then_handlers_in_order_and_the_first_match_wins(server, connect):
    server.add_event_handler(Target(text("named")), "Plaza", events="One, TWO", system=())
    server.add_event_handler(Target(text("many")), events=["two", "three"], system=())
    server.add_event_handler(Target(text("rest of plaza")), "plaza", system=())
    server.add_event_handler(Target(text("rest")), system=())
    server.on("four", handler=lambda event: "function")
    plaza, other = connect(PLAIN), connect(PLAIN, hub="other")
    names = ("one", "two", "Three", "four", "five")
    assert [ask(plaza, name, index) for index, name in enumerate(names)] == [
        "named", "named", "many", "function", "rest of plaza",
    ]  # fmt: skip
    assert [ask(other, name, index) for index, name in enumerate(names)] == [
        "rest", "many", "many", "function", "rest",
    ]  # fmt: skip
    server.on("*", handler=lambda event: "all")
    assert ask(plaza, "one", 9) == "all"


def test_system_events_go_to_the_first_that_wants_them(server, connect):
    one, two = Target(), Target()
    server.add_event_handler(one, events="", system="connected")
    server.add_event_handler(two, events="", system=["connected", "Disconnected"])
    connect(PLAIN).close()
    wait_until(lambda: two.events)
    assert (one.events, two.events) == (["connected"], ["disconnected"])


def test_a_connect_function_comes_before_a_connect_handler(server, connect):
    target = Target((403, {}, b""))
    server.add_event_handler(target, system="connect")
    server.on("connect", handler=lambda request: ConnectReply(user_id="from the function"))
    assert connect(PLAIN).first["userId"] == "from the function"
    assert target.calls == []


def test_an_event_that_nobody_takes_fails(server, connect):
    server.add_event_handler(Target(), events="other", system=())
    server.add_event_handler(Target(), "elsewhere")
    assert ask(connect(PLAIN), "e") == "InternalServerError"


def test_a_user_event_with_the_name_of_a_system_event_is_another_event(server, connect):
    recorder = Recorder()
    for name in ("connect", "connected", "disconnected", "joined", "left"):
        server.on(name, handler=recorder.named(name))
    target = Target(text("user"))
    client = connect(PLAIN)
    recorder.wait_event("connected")
    recorder.clear()
    assert ask(client, "Connected") == "InternalServerError"
    server.add_event_handler(target, system=())
    assert [ask(client, name, index) for index, name in enumerate(("connect", "joined", "left"), 5)] == ["user"] * 3
    assert len(recorder) == 0
    assert [headers["ce-type"] for _, headers, _ in target.calls] == [
        "azure.webpubsub.user.connect", "azure.webpubsub.user.joined", "azure.webpubsub.user.left",
    ]  # fmt: skip


def test_a_handler_may_come_and_go_while_clients_are_connected(server, connect):
    client = connect(PLAIN)
    assert ask(client, "e") == "InternalServerError"
    handler = server.add_event_handler(Target(text("here")))
    assert ask(client, "e") == "here"
    assert server.remove_event_handler(handler) is True
    assert server.remove_event_handler(handler) is False
    assert ask(client, "e", 2) == "InternalServerError"


def test_reset_forgets_handlers_only_when_told_to(fresh_server):
    server = fresh_server()
    server.add_event_handler(Target(text("here")), system="joined")
    for forget, answer in ((False, "here"), (True, "InternalServerError")):
        server.reset(handlers=forget)
        with Clients(server) as clients:
            assert ask(clients.connect(PLAIN), "e") == answer
    assert server._handlers.presence == set()


def test_a_url_and_an_object_side_by_side(server, connect):
    with ScriptedUpstream(lambda request: text("url")) as upstream:
        server.add_event_handler(upstream.url(), events="url", system=())
        server.add_event_handler(Target(text("object")), system=())
        client = connect(PLAIN)
        answers = [ask(client, name, index) for index, name in enumerate(("url", "e", "url", "e"))]
    assert answers == ["url", "object"] * 2


def test_a_function_may_refuse_an_event_and_say_why(server, connect):
    @server.on("e")
    def refuse(event):
        raise RefuseEvent(409, "not now")

    client = connect(PLAIN)
    client.send({"type": "event", "event": "e", "data": 1, "ackId": 1})
    assert client.receive()["error"] == {"name": "InternalServerError", "message": "not now"}
    server.on("connect", handler=refuse)
    assert refused(server.client_access_url("plaza"), PLAIN) == (409, "not now")
