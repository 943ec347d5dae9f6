"""Texts with line ends, controls and path tricks, on every way that a text takes through server and event handlers."""

from __future__ import annotations

import asyncio
import hmac
import io
import json
import urllib.parse
from typing import Any, Dict, List, Tuple

import pytest

from simplepubsub.exceptions import InvalidArgument
from simplepubsub.webpubsub import EventHandler, WebPubSubServiceClient
from simplepubsub.webpubsub.cloud_events import signature
from tests.helpers import Recorder
from tests.rawclient import PLAIN, RELIABLE, Clients
from tests.restclient import TEXT, Rest
from tests.test_event_handler import CONNECTION, KEY, headers_for
from tests.upstreams import Posted

EVIL = [
    "a\r\nX-Evil: 1",
    "a\nb",
    "a\rb",
    "a\0b",
    "\x1b[31mred",
    "\x7f",
    "a\u0085\u2028b",
    "jos\u00e9 \u4f60\U0001f600",
    "%0d%0aX-Evil: 1",
    '","admin":true,"x":"',
    "</script>",
    " blanks ",
    "a%",
    "%41",
    "\\u0000",
    "${jndi:ldap://h/a}",
    "a,b;c=d",
    "=?utf-8?b?YQ==?=",
]


@pytest.fixture
def connect(server: Any, upstream: Any) -> Any:
    server.add_event_handler(
        upstream.url(), system=("connect", "connected", "disconnected", "joined", "left"), retry_delays=()
    )
    with Clients(server) as clients:
        yield clients.connect


def check_headers(request: Posted) -> None:
    assert "x-evil" not in request.headers
    for name, value in request.headers.items():
        assert all(" " <= char <= "~" for char in value), (name, value)


def replayed(server: Any, request: Posted) -> List[Any]:
    """Return what an event handler makes of a request in the core, under WSGI and under ASGI."""
    key = server.connection_string.split("AccessKey=")[1].split(";")[0]
    handler, seen = EventHandler("plaza", access_key=key), Recorder()
    for register in (
        handler.on_connect,
        handler.on_connected,
        handler.on_disconnected,
        handler.on_joined,
        handler.on_left,
        handler.on_event,
    ):
        register(seen)  # type: ignore[operator]
    statuses = [handler.handle("POST", request.headers, request.body)[0]]
    environ: Dict[str, Any] = {
        "HTTP_" + name.upper().replace("-", "_"): value
        for name, value in request.headers.items()
        if name != "content-type"
    }
    environ.update(
        {
            "CONTENT_TYPE": request.headers["content-type"],
            "CONTENT_LENGTH": str(len(request.body)),
            "REQUEST_METHOD": "POST",
            "wsgi.input": io.BytesIO(request.body),
        }
    )
    handler.wsgi(environ, lambda status, headers: statuses.append(int(status[:3])))
    sent: List[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": request.body}

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in request.headers.items()]
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(handler.asgi({"type": "http", "method": "POST", "headers": pairs}, receive, send))
        executor = getattr(loop, "_default_executor", None)
        executor.shutdown()
    finally:
        loop.close()
    assert statuses + [sent[0]["status"]] == [204] * 3
    return [item[-1] for item in seen.events]


@pytest.mark.parametrize("text", EVIL, ids=ascii)
def test_a_reason_reaches_client_and_event_handler_as_it_is(
    server: Any, upstream: Any, connect: Any, text: str
) -> None:
    client, simple = connect(RELIABLE), connect()
    upstream.wait(2, "connected")
    Rest(server).ok("POST", "/:closeConnections", query=[("reason", text)])
    assert client.receive() == {"type": "system", "event": "disconnected", "message": text}
    assert client.expect_close() == (1000, text) and simple.expect_close() == (1000, text)
    for request in upstream.wait(2, "disconnected"):
        check_headers(request)
        assert json.loads(request.body.decode()) == {"reason": text}
        assert [event.reason for event in replayed(server, request)] == [text] * 3


@pytest.mark.parametrize("text", EVIL, ids=ascii)
def test_a_user_id_and_a_group_reach_the_event_handler_as_they_are(
    server: Any, upstream: Any, connect: Any, text: str
) -> None:
    client = connect(PLAIN, user_id=text, groups=[text])
    client.send({"type": "event", "event": "echo", "dataType": "text", "data": text, "ackId": 1})
    assert client.receive()["success"]
    assert client.first["userId"] == text
    for name in ("connect", "connected", "joined", "echo"):
        (request,) = upstream.wait(1, name)
        check_headers(request)
        for event in replayed(server, request):
            assert event.user_id == text and event.hub == "plaza"
            assert getattr(event, "group", text) == text and getattr(event, "data", text) == text
    rest = Rest(server)
    quoted = urllib.parse.quote(text, safe="")
    for path in ("/users/" + quoted, "/groups/" + quoted):
        rest.ok("HEAD", path)
        rest.ok("POST", path + "/:send", b"x", TEXT)
        assert client.receive()["data"] == "x"
    (entry,) = rest.ok("GET", "/groups/%s/connections" % quoted).json["value"]
    assert entry["userId"] == text
    rest.ok("POST", "/:send", b"y", TEXT, query=[("filter", "userId eq '%s'" % text.replace("'", "''"))])
    assert client.receive()["data"] == "y"


@pytest.mark.parametrize(
    "name", ["a\r\nX: 1", "a b", "a\0", "", "1a", "\u00e9", "a/../b", "a?b", "a#b", "x" * 129, "a%0d"], ids=ascii
)
def test_names_of_events_are_names(upstream: Any, connect: Any, name: str) -> None:
    client = connect(PLAIN)
    client.send({"type": "event", "event": name, "dataType": "text", "data": ""})
    assert client.expect_close()[0] == 1007
    assert upstream.wait(1, "disconnected") and not [
        request for request in upstream.posts if ".user." in request.headers["ce-type"]
    ]


@pytest.mark.parametrize(
    "header",
    [
        "text/plain; charset=\u00fc",
        "text/plain;x=" + "y" * 8000,
        "text//plain",
        "\u00e9",
        "text/plain, application/json",
        "text/plain\t;",
        ";",
        "text/plain;;;charset",
    ],
)
def test_odd_content_types_are_refused_or_harmless(server: Any, header: str) -> None:
    assert Rest(server)("POST", "/:send", b"x", {"Content-Type": header}).status in (202, 415)


def test_cookies_and_headers_of_answers_do_not_reach_other_connections(
    server: Any, upstream: Any, connect: Any
) -> None:
    upstream.script = lambda request: (200, [("Set-Cookie", "who=%s" % request.connection_id)], b"")
    one, two = connect(PLAIN), connect(PLAIN)
    for client in (one, two):
        client.send({"type": "event", "event": "echo", "dataType": "text", "data": "", "ackId": 1})
        client.receive()
    for request in upstream.wait(2, "echo"):
        assert request.headers["cookie"] == "who=" + request.connection_id


# --- path tricks ------------------------------------------------------------------------------------------------------

TRICKS = [
    "%2e%2e",
    "%2E%2E/plaza",
    "../news",
    "a/../news",
    "/",
    "//",
    "lobby/",
    "/lobby",
    "lobby;x=1",
    "lobby?x=1",
    "lobby#x",
    "lobby%00",
    "lobby\0",
    "%2F",
    "%252F",
    "lobby/:send",
    "lobby/connections/c",
    ":send",
    "..\\news",
    "...",
    ".. ",
    "LOBBY",
    "lobby%20",
    "\u2024\u2024",
    "lobby\u200b",
    "%",
    "+",
    "a+b",
    "a b",
    "&",
    "=",
    "'",
    "*",
    "{}",
    "~",
    "\u00e9",
    "e\u0301",
]


@pytest.fixture
def service(server: Any) -> Any:
    with WebPubSubServiceClient.from_connection_string(server.connection_string, "plaza") as client:
        yield client


def test_a_group_is_that_group_whatever_its_name(server: Any, service: Any) -> None:
    with Clients(server) as clients:
        lobby, nobody = clients.connect(PLAIN, groups=["lobby", "news"]), clients.connect(PLAIN)
        for group in TRICKS:
            member = clients.connect(PLAIN, user_id="mina")
            service.add_connection_to_group(group, member.connection_id)
            assert [set(info.groups) for info in server.connections() if info.user_id == "mina"] == [{group}]
            assert service.group_exists(group)
            service.send_to_group(group, "hi", content_type="text/plain")
            message = member.receive()
            assert (message["data"], message["group"]) == ("hi", group)
            assert [entry.connection_id for entry in service.list_connections(group)] == [member.connection_id]
            service.grant_permission("sendToGroup", member.connection_id, target_name=group)
            assert service.has_permission("sendToGroup", member.connection_id, target_name=group)
            service.close_group_connections(group, reason="over")
            assert member.receive()["message"] == "over"
            member.close()
        for other in (lobby, nobody):
            other.assert_quiet()


@pytest.mark.parametrize("name", [".", ".."])
def test_names_that_no_url_can_hold_are_refused_before_they_are_sent(server: Any, service: Any, name: str) -> None:
    with Clients(server) as clients:
        client = clients.connect(PLAIN, groups=[name], user_id=name)
        for call in (
            lambda: service.send_to_group(name, "x"),
            lambda: service.send_to_user(name, "x"),
            lambda: service.close_user_connections(name),
            lambda: service.close_connection(name),
            lambda: service.send_request("POST /api/hubs/plaza/groups/%s/:send" % name),
        ):
            with pytest.raises((InvalidArgument, TypeError)):
                call()
        # Somebody who sends it all the same, and encodes nothing, means that group and no other place.
        Rest(server).ok("POST", "/groups/%s/:send" % name, b"hi", TEXT)
        assert client.receive()["group"] == name
        client.assert_quiet()


@pytest.mark.parametrize(
    "path",
    [
        "/groups/../:send",
        "/groups/%2e%2e/:send",
        "/groups/lobby/../../:send",
        "/groups//:send",
        "//:send",
        "/./:send",
        "/;a/:send",
        "/groups/lobby%2F:send",
        "/../plaza/:send",
        "/groups/lobby/:send/",
        "/groups/lobby/%3Asend/x",
        "/users/../:send",
    ],
)
def test_no_path_leads_to_another_operation(server: Any, path: str) -> None:
    with Clients(server) as clients:
        client = clients.connect(PLAIN, groups=["lobby"], user_id="mina")
        assert Rest(server)("POST", path, b"x", TEXT).status in (202, 400, 404, 405)
        client.assert_quiet()


def test_a_connection_id_names_one_connection_or_none(server: Any, service: Any) -> None:
    with Clients(server) as clients:
        client = clients.connect(PLAIN, groups=["lobby"])
        for connection_id in TRICKS:
            assert not service.connection_exists(connection_id)
            service.close_connection(connection_id)
            service.send_to_connection(connection_id, "x", content_type="text/plain")
            service.close_all_connections(excluded=[client.connection_id, connection_id])
        client.assert_quiet()


# --- event handlers ---------------------------------------------------------------------------------------------------

GOOD = signature(CONNECTION, [KEY])
DIGEST = GOOD[len("sha256=") :]
OTHER = "another-key-0123456789abcdef"
SIGNATURES: List[Tuple[str, Any, bool]] = [
    ("right", GOOD, True),
    ("of two keys, first", GOOD + "," + signature(CONNECTION, [OTHER]), True),
    ("of two keys, second", signature(CONNECTION, [OTHER]) + ", " + GOOD, True),
    ("in upper case", GOOD.upper(), True),
    ("with blanks", "  %s  " % GOOD, True),
    ("missing", None, False),
    ("empty", "", False),
    ("commas", ",,,", False),
    ("of another key", signature(CONNECTION, [OTHER]), False),
    ("of another connection", signature("other", [KEY]), False),
    ("of nobody", signature("", [KEY]), False),
    ("truncated", GOOD[:-1], False),
    ("half", GOOD[:40], False),
    ("only the scheme", "sha256=", False),
    ("without the scheme", DIGEST, False),
    ("sha1", "sha1=" + DIGEST, False),
    ("longer", GOOD + "0", False),
    ("quoted", '"%s"' % GOOD, False),
    ("in parts", GOOD[:40] + "," + GOOD[40:], False),
    ("not ASCII", GOOD[:-1] + "\uff11", False),
    ("digits of another script", GOOD.replace("1", "\u0661"), False),
    ("true", "true", False),
    ("*", "*", False),
    ("with an empty key", "sha256=" + hmac.new(b"", CONNECTION.encode(), "sha256").hexdigest(), False),
]


@pytest.mark.parametrize("value, good", [item[1:] for item in SIGNATURES], ids=[item[0] for item in SIGNATURES])
def test_signatures(value: Any, good: bool, monkeypatch: Any) -> None:
    compared: List[Any] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(1) or real(a, b))
    handler, seen = EventHandler("plaza", access_keys=[KEY, "a-second-key-of-the-handler"]), Recorder()
    handler.on_event(seen)
    status, _, body = handler.handle("POST", headers_for("echo", ce_signature=value), b"x")
    assert (status == 204) is good and len(seen.events) == good and compared
    assert good or status == 401 and DIGEST.encode() not in body and KEY.encode() not in body


def test_a_signature_is_asked_for_before_anything_is_done() -> None:
    handler, seen = EventHandler(access_key=KEY), Recorder()
    for register in (
        handler.on_connect,
        handler.on_connected,
        handler.on_disconnected,
        handler.on_joined,
        handler.on_left,
    ):
        register(seen)  # type: ignore[operator]
    for event, kind in (
        ("connect", "sys"),
        ("connected", "sys"),
        ("disconnected", "sys"),
        ("joined", "gp"),
        ("left", "gp"),
    ):
        for body in (b"{}", b'{"group":"g"}', b"\xff"):
            assert handler.handle("POST", headers_for(event, kind, ce_signature="sha256=" + "0" * 64), body)[0] == 401
    assert not seen.events


ORIGINS = [
    ("demo.example.test", True),
    ("DEMO.example.test", True),
    ("https://demo.example.test", True),
    ("demo.example.test:443", True),
    ("a.wild.test", True),
    ("a.b.wild.test", True),
    ("", False),
    ("*", False),
    ("example.test", False),
    ("wild.test", False),
    ("evilwild.test", False),
    ("demo.example.test.evil.test", False),
    ("evil-demo.example.test", False),
    ("demo.example.test@evil.test", False),
    ("evil.test/demo.example.test", False),
    ("https://evil.test/demo.example.test", False),
    ("evil.test#demo.example.test", False),
    ("demo.example.test\0.evil.test", False),
    ("demo.example.test evil.test", False),
    ("a.wild.test.evil.test", False),
    ("null", False),
    ("demo\u3002example.test", False),
]


@pytest.mark.parametrize("origin, good", ORIGINS, ids=ascii)
@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_origins(origin: str, good: bool, method: str) -> None:
    handler = EventHandler("plaza", access_key=KEY, allowed_origins=["demo.example.test", "*.wild.test"])
    handler.on_event(lambda request: None)
    status, headers, _ = handler.handle(method, dict(headers_for("echo"), **{"WebHook-Request-Origin": origin}), b"x")
    assert (status in (200, 204)) is good and (good or status in (400, 403))
    assert method != "OPTIONS" or not good or headers["WebHook-Allowed-Origin"] == origin


@pytest.mark.parametrize("origin", ["a\r\nX-Evil: 1", "a\nb", "a\0", "h\u00e9", "a\x7f"])
def test_an_origin_cannot_break_the_answer(origin: str) -> None:
    status, headers, _ = EventHandler(access_key=KEY).handle("OPTIONS", {"WebHook-Request-Origin": origin})
    assert status == 400 and all(" " <= char <= "~" for value in headers.values() for char in value)


def test_a_body_that_is_too_large_is_refused_before_the_signature_is_looked_at() -> None:
    handler = EventHandler(access_key=KEY, max_body_bytes=1000)
    for kind in ("user", "sys"):
        assert handler.handle("POST", headers_for("connect", kind), b"x" * 1001)[0] == 413


def test_connect_answers_that_are_too_large_let_nobody_in(server: Any, upstream: Any) -> None:
    from tests.rawclient import refused

    big = json.dumps({"userId": "x" * (16 * 2**20)}).encode()
    upstream.script = lambda request: (200, {"Content-Type": "application/json"}, big)
    server.add_event_handler(upstream.url(), system="connect", retry_delays=())
    status, text = refused(server.client_access_url("plaza"))
    assert status == 500 and len(text) < 200
