"""The event handler for web applications: CloudEvents requests, through the core and through WSGI and ASGI."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import random
from typing import Any, Dict, List, Tuple

from simplepubsub.exceptions import RefuseEvent
from simplepubsub.server.handlers import ConnectRequest
from simplepubsub.server.upstream_events import Answer, read_connect_answer, read_event_answer
from simplepubsub.webpubsub import EventHandler, UserEventResponse
from simplepubsub.webpubsub.cloud_events import encode_header_value, signature
from tests.fuzz import nasty
from tests.fuzz.runner import ErrorLog, Target
from tests.fuzz.texts import KEY

STATUSES = (200, 204, 400, 401, 403, 404, 405, 411, 413, 415)
TYPES = (
    "application/json",
    "text/plain",
    "application/octet-stream",
    "application/x-protobuf",
    "APPLICATION/JSON; charset=utf-8",
    "text/plain; charset=utf-16",
    "text/plain; charset=nothing",
    "text/html",
    "",
)


def request_headers(rng: random.Random) -> Dict[str, str]:
    """Return the headers of an event, mostly right ones."""
    connection = rng.choice(("c1",) * 12 + (nasty.text(rng),))
    kind = rng.choice(
        (
            "sys.connect",
            "sys.connected",
            "sys.disconnected",
            "gp.joined",
            "gp.left",
            "user.echo",
            "user.echo",
            "user.refuse",
            "user.none",
            "user." + nasty.text(rng),
            nasty.text(rng),
        )
    )
    headers = {
        "WebHook-Request-Origin": rng.choice(("demo.example.test",) * 20 + ("127.0.0.1:80", nasty.text(rng))),
        "ce-specversion": "1.0",
        "ce-awpsversion": "1.0",
        "ce-id": "1",
        "ce-type": "azure.webpubsub." + kind,
        "ce-source": "/hubs/plaza/client/c1",
        "ce-time": "2024-01-01T00:00:00Z",
        "ce-signature": signature(connection, [KEY]),
        "ce-hub": rng.choice(("plaza", "PLAZA") * 8 + (nasty.text(rng),)),
        "ce-connectionId": connection,
        "ce-eventName": kind.partition(".")[2],
        "Content-Type": rng.choice(TYPES),
    }
    if rng.random() < 0.6:
        headers["ce-userId"] = rng.choice((encode_header_value(nasty.text(rng)), nasty.text(rng)))
    if rng.random() < 0.4:
        state = nasty.dump(rng, {"a": nasty.value(rng)}).encode("utf-8", "surrogatepass")
        headers["ce-connectionState"] = rng.choice((base64.b64encode(state).decode(), nasty.text(rng)))
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        name = rng.choice(list(headers))
        if rng.random() < 0.4:
            del headers[name]
        else:
            headers[name] = rng.choice((nasty.text(rng), nasty.break_text(rng, headers[name])))
        if not headers:
            break
    if rng.random() < 0.01:
        headers[rng.choice(("ce-userId", "ce-connectionState", "ce-signature", "Content-Type"))] = nasty.pump(
            rng, 60000
        )
    return headers


def request_body(rng: random.Random) -> bytes:
    """Return the body of some event."""
    kind = rng.randrange(6)
    if kind == 0:
        body = {
            "claims": {"sub": ["mina"], nasty.text(rng): [nasty.value(rng, 1)]},
            "query": {"a": ["b"]},
            "headers": {},
            "subprotocols": rng.choice((["json.webpubsub.azure.v1"], None, nasty.value(rng))),
            "clientCertificates": rng.choice(([], [{"thumbprint": 1}], nasty.value(rng))),
        }
        text = nasty.dump(rng, body)
    elif kind == 1:
        text = nasty.dump(rng, {rng.choice(("reason", "group", "mqtt")): nasty.value(rng, 1)})
    elif kind == 2:
        text = nasty.nested(rng) if rng.random() < 0.1 else nasty.dump(rng, nasty.value(rng))
    elif kind == 3:
        text = '{"%s":%s}' % (
            rng.choice(("clientCertificates", "claims", "reason", "subprotocols", "group", "state")),
            nasty.nested(rng) if rng.random() < 0.2 else nasty.dump(rng, nasty.value(rng)),
        )
    else:
        text = nasty.text(rng)
    data = text.encode("utf-8", "surrogatepass")
    return nasty.break_bytes(rng, data) if rng.random() < 0.25 else data


class Events(Target):
    """Requests into `EventHandler.handle`; every fourth through WSGI or ASGI."""

    name = "events"
    share = 8.0

    def open(self) -> None:
        self.errors = ErrorLog()
        self.log = logging.getLogger("simplepubsub")
        self.level = self.log.level
        self.log.setLevel(logging.DEBUG)
        self.log.addHandler(self.errors)
        self.loop = asyncio.new_event_loop()
        handler = self.handler = EventHandler(
            "plaza", access_key=KEY, allowed_origins="*.example.test", max_body_bytes=200_000
        )

        @handler.on_connect
        def connect(request: Any) -> Any:
            repr(request)
            return {
                "user_id": request.user_id or "nobody",
                "state": dict(request.state),
                "groups": list(request.groups)[:0],
            }

        @handler.on_event("echo")
        def echo(request: Any) -> Any:
            data_type = "binary" if request.data_type == "protobuf" else request.data_type
            try:
                return UserEventResponse(request.data, data_type, state=dict(request.state))
            finally:
                repr(request)

        @handler.on_event("refuse")
        def refuse(request: Any) -> Any:
            raise RefuseEvent(403, "not %s" % request.user_id)

        handler.on_event("none")(lambda request: None)
        for register in (handler.on_connected, handler.on_disconnected, handler.on_joined, handler.on_left):
            register(lambda request: repr(request))  # type: ignore[arg-type,return-value]

    def close(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        executor = getattr(self.loop, "_default_executor", None)
        if executor is not None:
            executor.shutdown()
        self.loop.close()
        self.log.removeHandler(self.errors)
        self.log.setLevel(self.level)

    def make(self, rng: random.Random) -> Any:
        door = rng.choice(("core",) * 12 + ("wsgi", "wsgi", "wsgi", "asgi"))
        method = rng.choice(("POST",) * 60 + ("OPTIONS", "GET", "HEAD", nasty.text(rng)))
        length = rng.choice((None, None, None, None, "\u00b2", "9" * 5000, "-1", "x", "1", "", " 3"))
        return door, method, request_headers(rng), request_body(rng), length

    def check(self, item: Any) -> str:
        door, method, headers, body, length = item
        if door == "core":
            status, answered, content = self.handler.handle(method, headers, body)
        elif door == "wsgi":
            status, answered, content = self.wsgi(method, headers, body, length)
        else:
            status, answered, content = self.asgi(method, headers, body)
        assert isinstance(content, bytes)
        for name, value in answered.items():
            (name + value).encode("ascii")
            assert not any(char < " " or char == "\x7f" for char in name + value), (name, value)
        bad, self.errors.bad = self.errors.bad, []
        if status == 500:  # data that an echo cannot send back (1e999, a bare null) is a mistake of the application
            assert len(bad) == 1 and "InvalidArgument" in bad[0], bad
            return "500"
        assert not bad, bad[0]
        assert status in STATUSES, status
        return "%s %d" % (door, status)

    def wsgi(self, method: str, headers: Dict[str, str], body: bytes, length: Any) -> Tuple[int, Dict[str, str], bytes]:
        environ: Dict[str, Any] = {
            "REQUEST_METHOD": method,
            "wsgi.input": io.BytesIO(body),
            "PATH_INFO": "/",
            "CONTENT_LENGTH": str(len(body)) if length is None else length,
        }
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else "HTTP_" + key] = value.encode("utf-8", "replace").decode(
                "latin-1"
            )
        started: List[Tuple[str, Any]] = []
        content = b"".join(self.handler.wsgi(environ, lambda status, pairs: started.append((status, pairs))))
        assert len(started) == 1
        return int(started[0][0][:3]), dict(started[0][1]), content

    def asgi(self, method: str, headers: Dict[str, str], body: bytes) -> Tuple[int, Dict[str, str], bytes]:
        pairs = [(name.lower().encode(), value.encode("utf-8", "replace")) for name, value in headers.items()]
        sent: List[Dict[str, Any]] = []
        pieces = [body[:7], body[7:]]

        async def receive() -> Dict[str, Any]:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "headers": pairs, "path": "/"}
        self.loop.run_until_complete(self.handler.asgi(scope, receive, send))
        answered = {name.decode("latin-1"): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent[1:])


class Answers(Target):
    """What event handlers elsewhere may answer the server, to "connect" and to user events."""

    name = "answers"
    share = 4.0

    REQUEST = ConnectRequest(
        "plaza", "c1", "mina", ("webpubsub.sendToGroup.a",), (), {}, {}, {}, ("json.webpubsub.azure.v1",)
    )

    def make(self, rng: random.Random) -> Any:
        headers = {"content-type": rng.choice(TYPES)}
        if rng.random() < 0.3:
            headers["ce-connectionstate"] = rng.choice(
                (
                    base64.b64encode(nasty.dump(rng, nasty.value(rng)).encode("utf-8", "surrogatepass")).decode(),
                    nasty.text(rng),
                )
            )
        fields = {
            name: nasty.value(rng, 1) for name in nasty.some(rng, ("userId", "groups", "roles", "subprotocol", "x"), 4)
        }
        if rng.random() < 0.5:
            fields.update(rng.choice(({"roles": ["webpubsub.sendToGroup"]}, {"groups": ["a"]}, {"userId": "b"})))
        body = nasty.dump(rng, fields).encode("utf-8", "surrogatepass") if rng.random() < 0.6 else request_body(rng)
        status = rng.choice((200,) * 6 + (204, 302, 400, 401, 500, 599, 0, 999, -1))
        return status, headers, nasty.break_bytes(rng, body) if rng.random() < 0.2 else body

    def check(self, item: Any) -> str:
        answer = Answer(*item)
        logging.getLogger("simplepubsub.server").disabled = True
        try:
            outcome = read_event_answer(answer, 2**20)
            assert outcome.error is None or outcome.reply is None
            assert outcome.state is None or json.dumps(outcome.state)
            try:
                reply = read_connect_answer(answer, self.REQUEST)
            except RefuseEvent as error:
                assert 400 <= error.status <= 599 and "\n" not in error.reason
                return "refused %d" % error.status
            assert reply.user_id is None or isinstance(reply.user_id, str)
            for names in (reply.groups, reply.roles):
                assert names is None or all(isinstance(name, str) for name in names)
            assert reply.subprotocol in (None, "json.webpubsub.azure.v1")
        finally:
            logging.getLogger("simplepubsub.server").disabled = False
        return "let in"


TARGETS: List[type] = [Events, Answers]
