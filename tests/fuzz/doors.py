"""The server's doors: REST requests and handshakes, as bytes through aiohttp's parser and over real sockets.

The pure doors are the server's own objects on an event loop without a socket, so a million requests need minutes; the
same bytes go to a whole server over loopback in smaller numbers. Any request gets 2xx, 4xx or an upgrade, never 5xx;
nothing it holds ends up as an error, a traceback or a broken line in the log; no guess recovers a session.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import logging
import random
import re
import socket
import urllib.parse
from types import SimpleNamespace
from typing import Any, Dict, List, Optional, Tuple

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser

from simplepubsub.server import Limits, Server
from simplepubsub.server.dispatcher import Dispatcher
from simplepubsub.server.endpoint import ClientEndpoint
from simplepubsub.server.handlers import Handlers
from simplepubsub.server.http_edges import Parser, add_routes, no_such_address
from simplepubsub.server.hub import hub_of
from simplepubsub.server.paging import Cursors
from simplepubsub.server.permissions import ALL_ROLES, Permissions
from simplepubsub.server.pump import Pump
from simplepubsub.server.rest import RestEndpoint
from simplepubsub.server.rest_operations import ROUTES, Backend
from simplepubsub.server.tokens import Tokens
from simplepubsub.server.wire import JSON, JSON_RELIABLE, RawWire
from simplepubsub.server.work import Work
from simplepubsub.transports.frames import CLOSE, FrameParser, encode_frame, parse_close
from simplepubsub.webpubsub.access_tokens import sign_client_token, sign_rest_token
from tests.fuzz import nasty
from tests.fuzz.codecs import client_frame, json_text
from tests.fuzz.hub import PROTOBUF
from tests.fuzz.runner import ErrorLog, Target
from tests.fuzz.texts import KEY, OTHER, Filters
from tests.timing import scaled

ENDPOINT = "http://127.0.0.1:8080"
LIMITS = Limits(max_message_bytes=50_000)
SUBPROTOCOLS: Tuple[str, ...] = (
    "json.webpubsub.azure.v1",
    "json.reliable.webpubsub.azure.v1",
    "JSON.webpubsub.azure.v1",
)
SUBPROTOCOLS += ("mqtt", "\u00fc", "a b", "")
if PROTOBUF is not None:  # without the library the server answers 501, and says so in its log
    SUBPROTOCOLS += ("protobuf.webpubsub.azure.v1", "protobuf.reliable.webpubsub.azure.v1")
_JWT = re.compile(r"eyJ[\w\-]{20,}\.[\w\-]{20,}\.[\w\-]{20,}")
CLOSE_CODES = (1000, 1002, 1003, 1007, 1008, 1009, 1011)


def quoted(rng: random.Random, text: str) -> str:
    """Return a text as a part of an address: encoded, or as it stands."""
    if rng.random() < 0.97:
        return urllib.parse.quote(text.encode("utf-8", "surrogatepass"), safe=rng.choice(("", ":", "!'()*")))
    return text


def request_bytes(method: str, target: str, headers: List[Tuple[str, str]], body: bytes) -> bytes:
    """Return a request, whatever is in it."""
    lines = ["%s %s HTTP/1.1" % (method, target)] + ["%s: %s" % item for item in headers]
    return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


def rest_request(rng: random.Random, host: str, connection_ids: List[str]) -> Tuple[str, bytes]:
    """Return (method, request) for the data plane."""
    pattern = rng.choice(list(ROUTES))
    names = {
        "{hub}": ("plaza",) * 40 + ("", "a/b", "1", "a" * 129, "pl\u00e4za"),
        "{connection}": tuple(connection_ids) * 2 + ("c",),
        "{group}": ("lobby",) * 4 + ("news",),
        "{user}": ("mina",) * 4,
        "{permission}": ("sendToGroup", "JOINLEAVEGROUP"),
    }
    parts = []
    for part in pattern.split("/"):
        if part.startswith("{"):
            value = rng.choice(names[part]) if rng.random() < 0.9 else nasty.text(rng)
            parts.append(quoted(rng, value))
        else:
            parts.append(
                part if rng.random() < 0.99 else rng.choice((part.upper(), quoted(rng, part), nasty.text(rng)))
            )
    path = rng.choice(
        ("/api/",) * 60 + ("/api//", "/API/", "/api/%2e%2e/api/", "/", "", "http://%s/api/" % host)
    ) + "/".join(parts)
    query = []
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 4))):
        name = rng.choice(
            (
                "excluded",
                "filter",
                "messageTtlSeconds",
                "reason",
                "top",
                "maxpagesize",
                "continuationToken",
                "targetName",
                "role",
                "group",
                "userId",
                "minutesToExpire",
                "clientType",
                "api-version",
                "MaxPageSize",
            )
        )
        value = rng.choice(
            (
                "1",
                "0",
                "300",
                "200",
                "2024-12-01",
                "lobby",
                "default",
                "webpubsub.sendToGroups.*",
                nasty.text(rng),
                "9" * 30,
                Filters().condition(rng, 2) if name == "filter" else "x",
            )
        )
        query.append("%s=%s" % (quoted(rng, name), quoted(rng, value)))
    methods = list(ROUTES[pattern])
    method = rng.choice(methods * 25 + ["GET", "POST", "OPTIONS", "TRACE", "get"])
    target = path + ("?" + "&".join(query) if query else "")
    audience = rng.choice(("http://" + host + path,) * 12 + (target, "https://" + host + path.upper(), nasty.text(rng)))
    token = sign_rest_token(audience, rng.choice((KEY,) * 30 + (OTHER,)))
    body = rng.choice(
        (
            b"",
            b"{}",
            b'{"groups":["a"]}',
            json.dumps({"groups": [nasty.text(rng)], "filter": Filters().condition(rng, 1)}).encode(),
            nasty.dump(rng, nasty.value(rng)).encode("utf-8", "surrogatepass"),
            nasty.text(rng).encode("utf-8", "surrogatepass"),
            b"x" * rng.choice((49_999, 50_000, 50_001)) if rng.random() < 0.02 else b"null",
            b"1e999",
            ('{"filter":%s}' % nasty.nested(rng)).encode() if rng.random() < 0.1 else b"[]",
        )
    )
    headers = [
        ("Host", host if rng.random() < 0.97 else nasty.text(rng)),
        ("Authorization", "Bearer " + token),
        (
            "Content-Type",
            rng.choice(
                ("application/json",) * 4
                + (
                    "text/plain",
                    "application/octet-stream",
                    "text/html",
                    'text/plain; charset="utf-8"',
                    "application/json;charset=x",
                    nasty.text(rng),
                )
            ),
        ),
        ("Content-Length", str(len(body))),
    ]
    if rng.random() < 0.1:
        headers.append(
            (
                rng.choice(
                    ("x-ms-client-request-id", "Content-Encoding", "Expect", "X-Y", "Content-Type", "Authorization")
                ),
                rng.choice(("gzip", "identity", "100-continue", nasty.text(rng))),
            )
        )
    if rng.random() < 0.05:
        headers.pop(rng.randrange(len(headers) - 1))
    return method, request_bytes(method, target, headers, body)


def handshake_request(rng: random.Random, host: str, sessions: List[Any]) -> bytes:
    """Return an upgrade request."""
    hub = rng.choice(("plaza",) * 6 + ("Plaza", "", "a/b", "9", nasty.text(rng)))
    path = (
        "/client/hubs/" + quoted(rng, hub)
        if rng.random() < 0.8
        else rng.choice(("/client", "/client/", "/clients/hubs/x"))
    )
    audience = "http://%s/client/hubs/%s" % (host, hub)
    token = sign_client_token(
        rng.choice((audience,) * 8 + (nasty.text(rng),)),
        rng.choice((KEY,) * 12 + (OTHER,)),
        user_id=rng.choice((None, "mina", nasty.text(rng))),
        roles=nasty.some(
            rng, ALL_ROLES + ("webpubsub.sendToGroups.*", "webpubsub.joinLeaveGroups." + nasty.text(rng)), 3
        ),
        groups=nasty.some(rng, ("lobby", "news", nasty.text(rng)), 2),
    )
    query = []
    if rng.random() < 0.9:
        query.append("access_token=" + token)
    for _ in range(rng.choice((0, 0, 0, 1, 2, 3))):
        name = rng.choice(
            ("hub", "webpubsub_mode", "group", "noEcho", "awps_connection_id", "awps_reconnection_token", "x", "id")
        )
        value = rng.choice((nasty.text(rng), "plaza", "sendToGroup", "lobby", "true", sessions[0].connection_id))
        query.append("%s=%s" % (name, quoted(rng, value)))
    if "hubs" not in path:
        query.append("hub=" + quoted(rng, hub))
    headers = [
        ("Host", host if rng.random() < 0.95 else nasty.text(rng)),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    if rng.random() < 0.8:
        headers.append(("Sec-WebSocket-Protocol", ", ".join(nasty.some(rng, SUBPROTOCOLS + (nasty.text(rng),), 3))))
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        index = rng.randrange(len(headers))
        headers[index] = (headers[index][0], rng.choice((nasty.text(rng), nasty.break_text(rng, headers[index][1]))))
    if rng.random() < 0.1:
        headers.append((rng.choice(("Authorization", "Origin", "Cookie", "X-Y")), nasty.text(rng)))
    method = "GET" if rng.random() < 0.97 else rng.choice(("POST", "OPTIONS", "get"))
    target = path + "?" + "&".join(query)
    if rng.random() < 0.02:
        target = rng.choice(("http://%s" % host, "http://[::1", "//", "*")) + target
    data = request_bytes(method, target, headers, b"")
    return nasty.break_bytes(rng, data) if rng.random() < 0.1 else data


def client_bytes(rng: random.Random) -> bytes:
    """Return what a client sends after the handshake: mostly frames."""
    parts = []
    for _ in range(rng.randrange(4)):
        payload = json_text(rng, client_frame(rng)).encode("utf-8", "replace")[:60_000]
        opcode = rng.choice((1,) * 8 + (2, 9, 10, 8, 0, 3))
        if opcode in (8, 9, 10):
            payload = payload[:125] if opcode != 8 else b"\x03\xe8" + payload[:100]
        parts.append(encode_frame(opcode, payload, b"abcd", rng.random() < 0.97))
    data = b"".join(parts)
    return nasty.break_bytes(rng, data) if rng.random() < 0.15 else data


class FakeTransport:
    """Takes what is written, and is gone when it is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.written: List[bytes] = []
        self.protocol: Any = None
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if self.protocol is not None:
                self.loop.call_soon(self.protocol.connection_lost, None)

    abort = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None:
        """There is no buffer."""

    write_eof = pause_reading = resume_reading = set_write_buffer_limits


class Faults:
    """No fault is on."""

    async def admit(self) -> None:
        """Let everybody pass."""

    thawed = admit

    def take_refused_recovery(self) -> bool:
        return False


class House:
    """The server's doors and what is behind them, on a loop of its own and without a socket."""

    def __init__(self) -> None:
        self.errors = ErrorLog()
        self.loop = asyncio.new_event_loop()
        self.tokens = Tokens(KEY)
        self.loop.run_until_complete(self._build())

    async def _build(self) -> None:
        loop = self.loop
        self.work = Work(LIMITS, 30.0)
        dispatcher: Any = Dispatcher(loop, Handlers(), None, self.work, lambda: None, None)  # type: ignore[arg-type]
        self.pump = Pump(loop, self.work, dispatcher.dispatch, keep_alive_interval=None)
        faults: Any = Faults()
        client = ClientEndpoint(self.pump, self.tokens, dispatcher, faults, self.audiences, False)
        rest = RestEndpoint(Backend(self.pump, self.tokens, Cursors(KEY), ENDPOINT), faults.thawed)
        self.app = web.Application()
        for path in ("/client/hubs/{hub}", "/client", "/client/"):
            add_routes(self.app, path, client.handle)
        add_routes(self.app, r"/api/{path:[\s\S]*}", rest.handle)
        add_routes(self.app, r"/{path:[\s\S]*}", no_such_address)
        self.app.freeze()
        self.members()

    @staticmethod
    def audiences(host: str, hub: str) -> List[str]:
        return ["%s/client/hubs/%s" % (ENDPOINT, hub), "http://%s/client/hubs/%s" % (host, hub)]

    def members(self) -> List[Any]:
        """Return connections that are always there."""
        hub = hub_of(self.work, "plaza")
        wires = (("one", JSON), ("two", JSON_RELIABLE), ("three", RawWire()))
        for name, wire in wires:
            if name not in hub.sessions:
                hub.connect(
                    wire, None, user_id="mina", permissions=Permissions(), groups=["lobby", "news"], connection_id=name
                )
        return list(hub.sessions.values())

    def ask(self, data: bytes, tail: bytes) -> Tuple[int, Optional[web.StreamResponse], Optional[FakeTransport]]:
        """Return the answer to a request: its status, 0 when aiohttp takes it for no request."""
        return self.loop.run_until_complete(self._ask(data, tail))

    async def _ask(self, data: bytes, tail: bytes) -> Tuple[int, Optional[web.StreamResponse], Optional[FakeTransport]]:
        base = BaseProtocol(self.loop)
        parser = Parser(HttpRequestParser(
            base, self.loop, 2**16, max_line_size=8190, max_field_size=8190, auto_decompress=False
        ))
        try:
            messages, _, _ = parser.feed_data(data)
            if not messages:
                return 0, None, None
            message, payload = messages[0]
        except HttpProcessingError:
            return 0, None, None
        try:
            parser.feed_eof()
        except HttpProcessingError:
            pass  # the payload has been told
        if not payload.is_eof() and payload.exception() is None:
            payload.set_exception(web.RequestPayloadError("cut off"))
        transport = FakeTransport(self.loop)
        protocol: Any = SimpleNamespace(
            transport=transport,
            ssl_context=None,
            peername=None,
            sockname=None,
            _message_tail=tail,
            connection_lost=lambda error: None,
        )
        task: Any = asyncio.current_task()
        writer: Any = SimpleNamespace(write=self._continue, drain=self._drain, output_size=0)
        request = web.Request(message, payload, protocol, writer, task, self.loop)
        try:
            response = await self.app._handle(request)
        except web.HTTPException as error:
            return error.status, None, None
        finally:
            for _ in range(4):
                await asyncio.sleep(0)
        upgraded = transport if transport.protocol is not None else None
        return (101 if upgraded else response.status), response, upgraded

    @staticmethod
    async def _continue(data: bytes) -> None:
        assert data == b"HTTP/1.1 100 Continue\r\n\r\n"

    @staticmethod
    async def _drain() -> None:
        """Nothing waits."""

    async def _leave(self, transport: FakeTransport) -> None:
        transport.close()
        for _ in range(4):
            await asyncio.sleep(0)
        for hub in list(self.work.hubs.values()):
            for session in list(hub.sessions.values()):
                if session.connection_id not in ("one", "two", "three"):
                    hub.end(session, None, "over")
                else:
                    session.forget_output()
        self.pump.wake()
        await asyncio.sleep(0)

    def leave(self, transport: FakeTransport) -> None:
        """End a connection."""
        self.loop.run_until_complete(self._leave(transport))

    def tidy(self) -> None:
        """Let nothing grow from input to input."""
        for session in self.members():
            session.forget_output()
            session.unacked, session.unacked_bytes, session.numbers = [], 0, None
            session.first_unacked = session.next_sequence
            session.deadlines.clear()
            session.permissions = Permissions()
            for group in list(session.groups):
                if group not in ("lobby", "news"):
                    session.hub.leave(session, group)
            for group in ("lobby", "news"):
                session.hub.join(session, group)

    def close(self) -> None:
        self.pump.stop()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


class Door(Target):
    """A target with a `House`, which listens to the log."""

    def open(self) -> None:
        self.house = House()
        self.errors = ErrorLog()
        self.log = logging.getLogger("simplepubsub")
        self.level = self.log.level
        self.log.setLevel(logging.DEBUG)
        self.log.addHandler(self.errors)
        self.lost: List[Dict[str, Any]] = []
        self.house.loop.set_exception_handler(lambda loop, context: self.lost.append(context))

    def close(self) -> None:
        self.house.close()
        self.log.removeHandler(self.errors)
        self.log.setLevel(self.level)

    def watch(self) -> None:
        """Check that nothing was logged that must not be, and that nothing was lost in the loop."""
        self.errors.check()
        lost, self.lost = self.lost, []
        assert not lost, lost


def check_reply(method: str, status: int, headers: Any, body: bytes) -> None:
    """Check an answer of the data plane."""
    assert 200 <= status < 300 or 400 <= status < 500, status
    for name, value in headers.items():
        assert not any(char in value for char in "\r\n\0"), (name, value)
    if body:
        found = json.loads(body.decode("ascii"))
        assert isinstance(found, dict)
        if status >= 400:
            assert set(found) == {"code", "message"} and found["code"] == headers["x-ms-error-code"], found
            assert KEY not in found["message"] and not _JWT.search(found["message"]), found


class RestDoor(Door):
    """Requests of the data plane."""

    name = "rest"
    share = 9.0

    def make(self, rng: random.Random) -> Any:
        method, data = rest_request(rng, "127.0.0.1:8080", ["one", "two", "three"])
        return method, nasty.break_bytes(rng, data) if rng.random() < 0.15 else data

    def check(self, item: Any) -> str:
        method, data = item
        status, response, _ = self.house.ask(data, b"")
        if response is not None:
            check_reply(method, status, response.headers, response.body or b"")  # type: ignore[attr-defined]
        self.house.tidy()
        self.watch()
        assert status < 500, status
        return "%d" % status


class HandshakeDoor(Door):
    """Upgrade requests, and what clients send then."""

    name = "handshake"
    share = 5.0

    def make(self, rng: random.Random) -> Any:
        return handshake_request(rng, "127.0.0.1:8080", [SimpleNamespace(connection_id="two")]), client_bytes(rng)

    def check(self, item: Any) -> str:
        data, tail = item
        before = self.house.work.counters["recovered"]
        status, response, transport = self.house.ask(data, tail)
        assert self.house.work.counters["recovered"] == before, "a guess recovered a session"
        word = "%d" % status
        if transport is not None:
            self.house.leave(transport)
            word = check_upgrade(b"".join(transport.written))
        elif response is not None:
            assert 400 <= status < 500, status
            assert not _JWT.search(response.text or ""), "a token"  # type: ignore[attr-defined]
        self.house.tidy()
        self.watch()
        return word


def check_upgrade(data: bytes) -> str:
    """Check an answer 101 and the frames behind it."""
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 101 Switching Protocols" and len(lines) in (4, 5), head
    assert all(line.isascii() if hasattr(line, "isascii") else True for line in lines)
    parser = FrameParser(masked=False)
    word = "101"
    for opcode, payload in parser.feed(rest):
        assert word == "101", "a frame after the close frame"
        if opcode == CLOSE:
            code = parse_close(payload)[0]  # type: ignore[arg-type]
            assert code in CLOSE_CODES or 3000 <= code <= 4999 or code in (1001, 1010, 1012, 1013, 1014), code
            word = "closed with %d" % code
    assert parser.violation is None, parser.violation
    return word


class SocketDoor(Target):
    """A whole server on loopback. It must answer, or close; a well-behaved client sees nothing of it all."""

    def open(self) -> None:
        gc.collect()  # what others have left behind has its say in the log before we listen
        self.errors = ErrorLog()
        self.logs = [logging.getLogger(name) for name in ("simplepubsub", "aiohttp", "asyncio")]
        self.levels = [log.level for log in self.logs]
        for log in self.logs:
            log.setLevel(logging.INFO)
            log.addHandler(self.errors)
        self.server = Server(access_key=KEY, limits=LIMITS)
        self.server.start()
        self.host = "127.0.0.1:%d" % self.server.port

    def close(self) -> None:
        self.server.stop()
        for log, level in zip(self.logs, self.levels):
            log.removeHandler(self.errors)
            log.setLevel(level)


class RestSocket(SocketDoor):
    """Requests of the data plane over sockets."""

    name = "rest-socket"
    share = 1.0

    def make(self, rng: random.Random) -> Any:
        return rest_request(rng, "HOST", ["one"])[0], rng.randrange(2**60)

    def check(self, item: Any) -> str:
        rng = random.Random(item[1])
        method, data = rest_request(rng, self.host, ["one"])
        data = data.replace(b"\r\nHost:", b"\r\nConnection: close\r\nHost:", 1)
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=scaled(20)) as sock:
            try:
                sock.sendall(data)
                response = http.client.HTTPResponse(sock, method=method)
                try:
                    response.begin()
                    body = response.read()
                except (http.client.HTTPException, ConnectionError):
                    return "closed"
                finally:
                    response.close()
            except ConnectionError:
                return "closed"
        self.errors.check()
        assert response.status < 500, response.status
        if response.headers.get("x-ms-request-id"):
            check_reply(method, response.status, response.headers, body)
        return "%d" % response.status


class HandshakeSocket(SocketDoor):
    """Upgrade requests, and what clients send then, over sockets."""

    name = "handshake-socket"
    share = 1.0

    def make(self, rng: random.Random) -> Any:
        return rng.randrange(2**60), client_bytes(rng)

    def check(self, item: Any) -> str:
        rng = random.Random(item[0])
        data = handshake_request(rng, self.host, [SimpleNamespace(connection_id="x")])
        data = data.replace(b"\r\nHost:", b"\r\nX-A: close\r\nHost:", 1)
        goodbye = encode_frame(CLOSE, b"\x03\xe8", b"abcd")
        found = b""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=scaled(20)) as sock:
            try:
                sock.sendall(data)
                if b"\r\n\r\n" not in data:
                    sock.shutdown(socket.SHUT_WR)  # the server would wait for the rest
                while b"\r\n\r\n" not in found:
                    piece = sock.recv(65536)
                    if not piece:
                        break
                    found += piece
                    if not found.startswith(b"HTTP/1.1 101"):
                        break
                else:
                    sock.sendall(item[1] + goodbye)
                    sock.shutdown(socket.SHUT_WR)
                    while True:
                        piece = sock.recv(65536)
                        if not piece:
                            break
                        found += piece
            except ConnectionError:
                pass
        self.errors.check()
        if found.startswith(b"HTTP/1.1 101"):
            return "101"
        status = int(found[9:12]) if found else 0
        assert status < 500, found[:500]
        return "%d" % status


TARGETS: List[type] = [RestDoor, HandshakeDoor, RestSocket, HandshakeSocket]
