"""Python event handlers of the embedded server."""

from __future__ import annotations

import re
import threading
import time

import pytest
import websocket

from simplepubsub.exceptions import InvalidArgument
from simplepubsub.server import ConnectReply, RefuseConnection
from simplepubsub.server.handlers import Handlers
from tests.helpers import Recorder, run_thread, scaled
from tests.rawclient import PLAIN, RELIABLE, RawClient, ok, refused

# --- events and handlers ----------------------------------------------------------------------------------------------


def test_event_handlers_answer_before_the_ack(server, connect):
    seen = []

    @server.on("greet")
    def greet(event):
        seen.append((event.hub, event.event, event.connection_id, event.user_id, event.data, event.data_type))
        return event.data

    client = connect(RELIABLE, user_id="mina")
    for number, (data, data_type) in enumerate([("hi", "text"), ({"a": 1}, "json"), ("AQI=", "binary")]):
        client.send({"type": "event", "event": "Greet", "dataType": data_type, "data": data, "ackId": number})
        reply = client.receive()
        assert (reply["from"], reply["data"], reply["dataType"]) == ("server", data, data_type)
        assert client.receive() == ok(number)
    assert seen[0] == ("plaza", "Greet", client.connection_id, "mina", "hi", "text")
    assert [item[4] for item in seen] == ["hi", {"a": 1}, b"\1\2"]


def test_an_event_without_an_answer_is_only_acknowledged(server, connect):
    server.on("quiet", handler=lambda event: None)
    client = connect(PLAIN)
    client.send({"type": "event", "event": "quiet", "data": 1, "ackId": 1})
    assert client.receive() == ok(1)


def test_failing_and_missing_handlers_fail_the_ack_and_nothing_else(server, connect, caplog):
    @server.on("broken")
    def broken(event):
        raise KeyError("secret detail")

    server.on("odd", handler=lambda event: object())
    server.on("huge", handler=lambda event: "x" * (2**20 + 1))
    client = connect(PLAIN)
    for event in ("broken", "unheard", "odd", "huge"):
        client.send({"type": "event", "event": event, "data": 1, "ackId": 1})
        error = client.receive()["error"]
        assert error["name"] == "InternalServerError" and error["message"]
        assert "secret" not in error["message"]
    client.send({"type": "event", "event": "unheard", "data": 1})
    client.assert_quiet()
    assert "secret detail" in caplog.text  # the log has the traceback


def test_handlers_of_a_hub_before_those_of_all_and_by_name_before_the_rest(server, connect):
    server.on("*", handler=lambda event: "rest")
    server.on("*", "plaza", handler=lambda event: "rest of plaza")
    server.on("named", handler=lambda event: "named")
    server.on("named", hub="Plaza", handler=lambda event: "named in plaza")
    server.on("named", hub="plaza", handler=lambda event: "the last one")
    answers = {}
    for hub in ("plaza", "other"):
        client = connect(PLAIN, hub=hub)
        for event in ("named", "else"):
            client.send({"type": "event", "event": event, "data": 1})
            answers[hub, event] = client.receive()["data"]
    assert answers == {
        ("plaza", "named"): "the last one", ("plaza", "else"): "rest of plaza",
        ("other", "named"): "named", ("other", "else"): "rest",
    }  # fmt: skip


@pytest.mark.parametrize("event, handler", [("", print), ("1st", print), (5, print), ("x", "no function")])
def test_bad_handlers_are_refused(server, event, handler):
    with pytest.raises(InvalidArgument):
        server.on(event, handler=handler)


def test_connected_events_disconnected_come_in_order_and_share_state(server, connect):
    recorder = Recorder()
    record = recorder.named("call")

    def note(event):
        event.state["count"] = event.state.get("count", 0) + 1
        record((event.event, event.data, event.reason, event.state["count"]))

    for name in ("connected", "disconnected", "work"):
        server.on(name, handler=note)
    client = connect(PLAIN)
    for number in range(50):
        client.send({"type": "event", "event": "work", "data": number})
    client.close()
    calls = recorder.wait_for(52)
    assert calls[0] == ("connected", None, "", 1)
    assert calls[1:51] == [("work", number, "", number + 2) for number in range(50)]
    assert calls[51][0] == "disconnected" and calls[51][3] == 52


def test_a_blocked_handler_holds_up_neither_other_clients_nor_other_commands(server, connect):
    started, release = threading.Event(), threading.Event()

    @server.on("slow")
    def slow(event):
        started.set()
        release.wait(scaled(10))

    server.on("fast", handler=lambda event: "done")
    one, two = connect(PLAIN), connect(PLAIN)
    one.send({"type": "event", "event": "slow", "data": 1, "ackId": 1})
    assert started.wait(scaled(5))
    one.join("lobby")
    one.assert_quiet()
    two.send({"type": "event", "event": "fast", "data": 1})
    assert two.receive()["data"] == "done"
    release.set()
    assert one.receive() == ok(1)


def test_a_handler_may_send_and_close(server, connect):
    @server.on("announce")
    def announce(event):
        server.hub(event.hub).send_to_all(event.data, excluded=[event.connection_id])
        server.hub(event.hub).close_connection(event.connection_id, "done")

    one, two = connect(PLAIN), connect(PLAIN)
    one.send({"type": "event", "event": "announce", "data": "news", "ackId": 1})
    assert two.receive()["data"] == "news"
    assert one.receive() == {"type": "system", "event": "disconnected", "message": "done"}
    assert one.expect_close() == (1000, "done")


def test_a_handler_that_never_ends_does_not_keep_the_server_from_stopping(fresh_server, caplog):
    server = fresh_server()
    started, release = threading.Event(), threading.Event()

    @server.on("connected")
    def stuck(event):
        started.set()
        release.wait(scaled(20))

    with RawClient(server.client_access_url("h"), PLAIN):
        assert started.wait(scaled(5))
        begin = time.monotonic()
        server.stop(timeout=scaled(0.3))
        assert time.monotonic() - begin < scaled(5)
    assert re.search("1 handlers( and the loop)? still run", caplog.text)  # the loop had no more time than the handler
    release.set()


def test_the_connect_handler_sees_the_request(server, connect):
    seen = []
    server.on("connect", handler=seen.append)
    url = server.client_access_url("plaza", user_id="mina", roles=["r"], groups=["g"])
    connect(RELIABLE, url=url + "&room=3&room=4", headers=["X-Test: yes"])
    (request,) = seen
    assert (request.hub, request.user_id, request.roles, request.groups) == ("plaza", "mina", ("r",), ("g",))
    assert request.claims["sub"] == "mina"
    assert request.query == {"room": ["3", "4"]}
    assert request.headers["X-Test"] == ["yes"]
    assert tuple(request.subprotocols) == (RELIABLE,)
    assert request.connection_id == server.connections()[0].connection_id


def test_the_connect_handler_may_change_everything(server, connect):
    server.on(
        "connect",
        handler=lambda request: ConnectReply(
            "real-mina", ["lobby"], ["webpubsub.sendToGroup.lobby"], PLAIN, {"room": 3}
        ),
    )
    server.on("state", handler=lambda event: event.state)
    client = connect(RELIABLE, PLAIN, user_id="mina")
    assert client.subprotocol == PLAIN
    assert client.first["userId"] == "real-mina"
    client.publish("lobby", "hi", ackId=1)
    assert [client.receive()["type"], client.receive()["type"]] == ["message", "ack"]
    client.send({"type": "joinGroup", "group": "lobby", "ackId": 2})
    assert client.receive()["error"]["name"] == "Forbidden"
    client.send({"type": "event", "event": "state", "data": 1})
    assert client.receive()["data"] == {"room": 3}


def test_the_connect_handler_may_choose_a_subprotocol_of_its_own(server, connect):
    server.on("connect", handler=lambda request: {"subprotocol": "graphql-ws"})
    server.on("message", handler=lambda event: event.data)
    client = connect(PLAIN, "graphql-ws")
    assert client.subprotocol == "graphql-ws"
    client.send("raw")
    assert client.frame() == (1, "raw")


def test_the_connect_handler_may_refuse(server):
    @server.on("connect")
    def refuse(request):
        raise RefuseConnection(403, "not you")

    assert refused(server.client_access_url("plaza"), PLAIN) == (403, "not you")


@pytest.mark.parametrize(
    "answer",
    [
        5,
        {"colour": "red"},
        {"user_id": 5},
        {"groups": "lobby"},
        {"groups": [""]},
        {"roles": ["webpubsub.sendToGroups.******"]},
        {"subprotocol": "x"},
        {"state": 1},
    ],
    ids=str,
)
def test_an_unusable_answer_of_the_connect_handler_is_500(server, answer):
    server.on("connect", handler=lambda request: answer)
    assert refused(server.client_access_url("plaza"), PLAIN)[0] == 500


def test_a_broken_connect_handler_is_500(server, caplog):
    @server.on("connect")
    def broken(request):
        raise KeyError("detail")

    status, body = refused(server.client_access_url("plaza"), PLAIN)
    assert (status, "detail" in body) == (500, False)
    assert "detail" in caplog.text


def test_a_handshake_that_waits_for_its_handler_does_not_keep_the_server_from_stopping(fresh_server):
    server = fresh_server()
    started, release = threading.Event(), threading.Event()

    @server.on("connect")
    def stuck(request):
        started.set()
        release.wait(scaled(20))

    def lost():
        with pytest.raises((OSError, websocket.WebSocketException)):
            RawClient(server.client_access_url("h"), PLAIN)

    with run_thread(lost):
        assert started.wait(scaled(5))
        begin = time.monotonic()
        server.stop(timeout=scaled(1))
        assert time.monotonic() - begin < scaled(6)
    release.set()


def test_a_callable_object_that_is_false_is_found():
    class Empty(list):
        def __call__(self, event):
            self.append(event)

    handlers, empty = Handlers(), Empty()
    for event in ("greet", "*", "connected"):
        handlers.on(event, None, empty)
    for kind, event in (("event", "greet"), ("event", "other"), ("connected", "connected")):
        assert handlers.find(kind, event, "plaza") is empty
