"""Events that the embedded server sends to URLs: requests, answers, state, order of life."""

from __future__ import annotations

import base64
import gzip
import json
import re

import pytest

from simplepubsub.server import Limits
from simplepubsub.server.upstream import Upstream
from simplepubsub.webpubsub import cloud_events
from tests.helpers import scaled, wait_until
from tests.rawclient import PLAIN, RELIABLE, Clients, ok


@pytest.fixture
def connect(server, upstream):
    """`connect(*subprotocols, hub=, url=, query=, headers=, **options of client_access_url)`; has the handler added."""
    server.add_event_handler(upstream.url(), retry_delays=())
    with Clients(server) as clients:
        yield clients.connect


def state_of(request):
    return cloud_events.decode_state(request.headers.get("ce-connectionstate"))


# --- requests ---------------------------------------------------------------------------------------------------------


def test_every_header_of_every_kind_of_event(fresh_server, upstream):
    keys = ["primary-0123456789-0123456789-0123456789", "secondary-0123456789-0123456789-0123456789"]
    server = fresh_server(access_key=keys[0], secondary_key=keys[1])
    server.add_event_handler(upstream.url("/{hub}/on/{event}?code=1&e={EVENT}"), "Plaza")
    with Clients(server) as clients:
        client = clients.connect(PLAIN, user_id="mina", hub="Plaza")
        client.send({"type": "event", "event": "Greet", "dataType": "text", "data": "hi", "ackId": 1})
        assert client.receive() == ok(1)
        client.close()
        requests = upstream.wait(4)
    types = ["sys.connect", "sys.connected", "user.Greet", "sys.disconnected"]
    host = server.endpoint.partition("://")[2]
    for number, (request, kind) in enumerate(zip(requests, types)):
        headers = request.headers
        event = kind.partition(".")[2]
        assert request.path == "/plaza/on/%s?code=1&e=%s" % (event, event)
        assert headers["webhook-request-origin"] == host
        assert (headers["ce-specversion"], headers["ce-awpsversion"]) == ("1.0", "1.0")
        assert headers["ce-type"] == "azure.webpubsub." + kind
        assert headers["ce-source"] == "/hubs/plaza/client/" + client.connection_id
        assert headers["ce-id"] == str(number)
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z\Z", headers["ce-time"])
        assert (headers["ce-hub"], headers["ce-eventname"]) == ("plaza", event)
        assert (headers["ce-connectionid"], headers["ce-userid"]) == (client.connection_id, "mina")
        assert headers["ce-signature"] == cloud_events.signature(client.connection_id, keys)
        assert headers["ce-signature"].count("sha256=") == 2
        assert headers.get("ce-subprotocol") == (PLAIN if number else None)
        assert "ce-connectionstate" not in headers
    assert [request.headers["content-type"] for request in requests] == [
        "application/json", "application/json", "text/plain", "application/json",
    ]  # fmt: skip
    assert requests[1].body == b"{}" and requests[2].body == b"hi"
    assert list(json.loads(requests[3].body)) == ["reason"]


@pytest.mark.parametrize(
    "data_type, data, content_type, body",
    [
        ("text", "h\u00e9", "text/plain", "h\u00e9".encode()),
        ("json", {"a": [1, "\u00e9"]}, "application/json", '{"a":[1,"\u00e9"]}'.encode()),
        ("binary", "AQL/", "application/octet-stream", b"\1\2\xff"),
    ],
)
def test_each_data_type_goes_up_and_comes_back(connect, upstream, data_type, data, content_type, body):
    parameters = "" if data_type == "binary" else "; charset=utf-8"
    upstream.script = lambda request: (
        200, {"Content-Type": request.headers["content-type"] + parameters}, request.body,
    )  # fmt: skip
    client = connect(RELIABLE)
    client.send({"type": "event", "event": "echo", "dataType": data_type, "data": data, "ackId": 1})
    reply = client.receive()
    assert (reply["from"], reply["dataType"], reply["data"]) == ("server", data_type, data)
    assert client.receive() == ok(1)
    request = upstream.events("echo")[0]
    assert (request.headers["content-type"], request.body) == (content_type, body)


def test_frames_of_simple_clients_are_the_event_message(connect, upstream):
    answer = (200, {"Content-Type": "application/json"}, b"[1, 2]")
    upstream.script = lambda request: answer if request.event == "message" else 204
    client = connect()
    client.send("hi")
    assert client.frame() == (1, "[1,2]")
    assert upstream.events("message")[0].headers["ce-type"] == "azure.webpubsub.user.message"
    assert "ce-subprotocol" not in upstream.events("message")[0].headers


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [204, 200, (202, {}, b""), (200, {"Content-Type": "text/plain"}, b"")], ids=str)
def test_an_empty_answer_is_only_acknowledged(connect, upstream, answer):
    upstream.script = lambda request: answer
    client = connect(PLAIN)
    client.send({"type": "event", "event": "e", "data": 1, "ackId": 1})
    assert client.receive() == ok(1)


@pytest.mark.parametrize(
    "headers, body, data_type, data",
    [
        ({}, b"\1", "binary", "AQ=="),
        ({"Content-Type": "APPLICATION/JSON ; charset=utf-8"}, b"3", "json", 3),
        ({"Content-Type": "text/plain;charset=iso-8859-1"}, b"\xe9", "text", "\u00e9"),
        ({"Content-Type": "application/octet-stream"}, b"\1", "binary", "AQ=="),
    ],
)
def test_types_of_answers(connect, upstream, headers, body, data_type, data):
    upstream.script = lambda request: (200, headers, body) if request.event == "e" else 204
    client = connect(PLAIN)
    client.send({"type": "event", "event": "e", "data": 1})
    assert client.receive() == {"type": "message", "from": "server", "dataType": data_type, "data": data}


UNUSABLE = [
    400, 403, 429, 500, 503,
    (302, {"Location": "/elsewhere"}, b""),
    (200, {"Content-Type": "text/html"}, b"<p>"),
    (200, {"Content-Type": "application/json"}, b"{"),
    (200, {"Content-Type": "application/json"}, b"NaN"),
    (200, {"Content-Type": "application/json"}, b"[" * 100000),
    (200, {"Content-Type": "text/plain"}, b"\xff"),
    (200, {"Content-Type": "text/plain; charset=base64"}, b"AAAA"),
    (200, {"Content-Type": "text/plain"}, b"x" * (2**20 + 1)),
    (200, {"Content-Type": "text/plain", "Content-Encoding": "gzip"}, gzip.compress(b"x" * 2**22)),
]  # fmt: skip


@pytest.mark.parametrize("answer", UNUSABLE, ids=lambda answer: str(answer)[:60])
def test_a_failure_and_an_unusable_answer_fail_the_ack_or_close_a_simple_client(connect, upstream, answer):
    upstream.script = lambda request: answer if "user" in request.headers["ce-type"] else 204
    client, simple = connect(PLAIN), connect()
    client.send({"type": "event", "event": "e", "data": 1, "ackId": 1})
    found = client.receive()
    assert (found["success"], found["error"]["name"]) == (False, "InternalServerError")
    client.send({"type": "event", "event": "e", "data": 1})
    client.assert_quiet()
    simple.send("x")
    assert simple.expect_close()[0] == 1011
    assert not [request for request in upstream.requests if "elsewhere" in request.path]


def test_an_invocation_gets_the_answer_as_its_result(connect, upstream):
    answers = {"sum": (200, {"Content-Type": "application/json"}, b"3"), "bad": 400}
    upstream.script = lambda request: answers.get(request.event, 204)
    client = connect(PLAIN)
    invoke = {"type": "invoke", "target": "event"}
    client.send(dict(invoke, invocationId="1", event="sum", dataType="json", data=[1]))
    assert client.receive() == {
        "type": "invokeResponse", "invocationId": "1", "success": True, "dataType": "json", "data": 3,
    }  # fmt: skip
    client.send(dict(invoke, invocationId="2", event="bad"))
    assert client.receive()["success"] is False
    assert (upstream.events("bad")[0].body, upstream.events("bad")[0].headers["content-type"]) == (b"", "text/plain")


# --- state and cookies ------------------------------------------------------------------------------------------------


def header(state):
    return {"ce-connectionState": cloud_events.encode_state(state)}


def test_state_is_kept_replaced_and_sent_and_shared_with_functions(server, connect, upstream, caplog):
    answers = {
        "connect": (204, header({"room": 3}), b""),
        "first": (200, header({"room": "\u00e9"}), b""),
        "broken": (200, {"ce-connectionState": "?!"}, b""),
        "list": (200, {"ce-connectionState": base64.b64encode(b"[1]").decode()}, b""),
        "nan": (200, {"ce-connectionState": base64.b64encode(b'{"a":NaN}').decode()}, b""),
        "failed": (400, header({"room": 5}), b""),
        "connected": (200, header({"room": 6}), b""),
        "cleared": (200, header({}), b""),
    }
    upstream.script = lambda request: answers.get(request.event, 204)
    server.on("look", handler=lambda event: dict(event.state))

    @server.on("change")
    def change(event):
        event.state["by"] = "function"

    client = connect(PLAIN)
    events = ["first", "broken", "list", "nan", "failed", "look", "change", "again", "cleared", "empty"]
    for number, event in enumerate(events):
        client.send({"type": "event", "event": event, "data": 1, "ackId": number})
        reply = client.receive()
        if event == "look":
            assert reply["data"] == {"room": "\u00e9"}
            reply = client.receive()
        assert reply["success"] is (event != "failed")
    states = {request.event: state_of(request) for request in upstream.posts}
    assert states["connect"] == {} and states["connected"] == states["first"] == {"room": 3}
    assert all(states[event] == {"room": "\u00e9"} for event in ("broken", "list", "nan", "failed"))
    assert states["again"] == states["cleared"] == {"room": "\u00e9", "by": "function"}
    assert states["empty"] == {} and "ce-connectionstate" not in upstream.events("empty")[0].headers
    assert caplog.text.count("ignored a connection state") == 3


def test_a_long_state(connect, upstream):
    state = {"text": "x" * 5500}
    upstream.script = lambda request: (204, header(state), b"") if request.event == "connect" else 204
    connect(PLAIN)
    assert state_of(upstream.wait(1, "connected")[0]) == state


def test_a_state_that_is_no_json_is_not_sent(server, connect, upstream, caplog):
    @server.on("spoil")
    def spoil(event):
        event.state["lock"] = object()

    client = connect(PLAIN)
    for number, event in enumerate(("spoil", "e")):
        client.send({"type": "event", "event": event, "data": 1, "ackId": number})
        assert client.receive() == ok(number)
    assert "ce-connectionstate" not in upstream.events("e")[0].headers
    assert "cannot be sent to its event handler" in caplog.text


def test_cookies_belong_to_one_connection(connect, upstream):
    def script(request):
        if request.event == "connect":
            return (204, [("Set-Cookie", "a=%s; Path=/" % request.connection_id), ("Set-Cookie", "b=2; HttpOnly")], b"")
        return (204, {"Set-Cookie": "a=; Max-Age=0; Path=/"}, b"") if request.event == "drop" else 204

    upstream.script = script
    clients = [connect(PLAIN), connect(PLAIN)]
    for client in clients:
        for number, event in enumerate(("one", "drop", "two")):
            client.send({"type": "event", "event": event, "data": 1, "ackId": number})
            assert client.receive() == ok(number)
    for name, client in zip(upstream.events("one"), clients):
        assert "a=" + client.connection_id in name.headers["cookie"]
    assert "a=" not in upstream.events("two")[0].headers.get("cookie", "")


# --- life -------------------------------------------------------------------------------------------------------------


def test_connected_and_disconnected_come_once_also_with_a_recovery_between(connect, upstream):
    client = connect(RELIABLE)
    upstream.wait(1, "connected")
    client.abort()
    again = client.recover()
    again.send({"type": "event", "event": "e", "data": 1, "ackId": 1})
    assert again.receive() == ok(1)
    again.close()
    upstream.wait(1, "disconnected")
    assert [request.event for request in upstream.posts] == ["connect", "connected", "e", "disconnected"]


def test_the_reason_of_a_close_is_told(server, connect, upstream):
    client = connect(PLAIN)
    server.hub("plaza").close_connection(client.connection_id, "too \u00e9 late")
    client.expect_close()
    (request,) = upstream.wait(1, "disconnected")
    assert json.loads(request.body) == {"reason": "too \u00e9 late"}


def test_a_stop_still_tells_of_the_disconnected(fresh_server, upstream, monkeypatch):
    drained = Upstream.drained  # stop() waits for a moment only, which a busy machine may be away for
    monkeypatch.setattr(Upstream, "drained", lambda self, timeout: drained(self, scaled(20)))
    server = fresh_server()
    server.add_event_handler(upstream.url())
    with Clients(server) as clients:
        for _ in range(5):
            clients.connect(PLAIN)
        upstream.wait(5, "connected")
        server.stop()
    upstream.wait(5, "disconnected")


def test_failing_notifications_do_not_touch_the_client(connect, upstream, caplog):
    upstream.script = lambda request: 500 if request.event in ("connected", "disconnected") else 204
    client = connect(PLAIN)
    client.send({"type": "event", "event": "e", "data": 1, "ackId": 1})
    assert client.receive() == ok(1)
    client.close()
    upstream.wait(1, "disconnected")
    wait_until(lambda: "disconnected of" in caplog.text)
    assert "it answered 500" in caplog.text


# --- what must not get into a header, or into a log -------------------------------------------------------------------


@pytest.mark.parametrize(
    "user_id, value",
    [
        ("mina\r\nce-hub: evil", "mina%0D%0Ace-hub: evil"),
        ("jos\u00e9", "jos%C3%A9"),
        (" 100% \u2028", "%20100%25 %E2%80%A8"),
        ("a\0b\x7f", "a%00b%7F"),
        ("x" * 4000, "x" * 4000),
    ],
)
def test_user_ids_are_safe_in_headers(connect, upstream, user_id, value):
    client = connect(PLAIN, user_id=user_id)
    client.send({"type": "event", "event": "e", "data": 1, "ackId": 1})
    assert client.receive() == ok(1)
    for request in upstream.posts:
        assert request.headers["ce-userid"] == value
        assert request.headers["ce-hub"] == "plaza"
    assert cloud_events.decode_header_value(value) == user_id


def test_a_user_id_from_the_connect_answer_is_safe_too(connect, upstream):
    answer = (200, {}, b'{"userId":"a\\r\\nb\\ud800"}')
    upstream.script = lambda request: answer if request.event == "connect" else 204
    connect(PLAIN, user_id="mina")
    (request,) = upstream.wait(1, "connected")
    assert request.headers["ce-userid"].startswith("a%0D%0Ab%")


def test_secrets_stay_out_of_the_log(server, upstream, caplog):
    caplog.set_level("DEBUG")
    upstream.script = lambda request: 500 if request.event in ("connected", "e") else 204
    server.add_event_handler(upstream.url("/{event}?code=s3cret").replace("//", "//me:passw0rd@"), retry_delays=(0.0,))
    with Clients(server) as clients:
        client = clients.connect(PLAIN)
        client.send({"type": "event", "event": "e", "data": 1, "ackId": 1})
        assert client.receive()["success"] is False
        signature = upstream.posts[0].headers["ce-signature"]
        assert upstream.posts[0].headers["authorization"].startswith("Basic ")
    assert "?***" in caplog.text
    for secret in ("s3cret", "passw0rd", signature):
        assert secret not in caplog.text


def test_too_many_events_of_one_connection_wait_in_its_socket(fresh_server, upstream):
    server = fresh_server(limits=Limits(max_waiting_events=4))
    server.add_event_handler(upstream.url())
    with Clients(server) as clients:
        client = clients.connect(PLAIN)
        for number in range(100):
            client.send({"type": "event", "event": "e", "data": number, "ackId": number})
        assert client.receive_many(100) == [ok(number) for number in range(100)]
    assert [json.loads(request.body) for request in upstream.events("e")] == list(range(100))


def test_order_is_kept_for_each_of_fifty_connections(fresh_server, upstream):
    server = fresh_server(keep_alive_interval=None)  # on a busy machine a client may be silent for that long
    server.add_event_handler(upstream.url(), retry_delays=())
    with Clients(server) as made:
        made.connect(PLAIN).close()
        clients = [made.connect(PLAIN, timeout=30) for _ in range(50)]
        for number in range(6):
            for client in clients:
                client.send({"type": "event", "event": "e", "data": number, "ackId": number})
        for client in clients:
            assert client.receive_many(6) == [ok(number) for number in range(6)]
            mine = [request for request in upstream.posts if request.connection_id == client.connection_id]
            assert [request.event for request in mine] == ["connect", "connected"] + ["e"] * 6
            assert [json.loads(request.body) for request in mine[2:]] == list(range(6))
            assert [request.headers["ce-id"] for request in mine] == [str(number) for number in range(8)]
