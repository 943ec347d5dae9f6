"""A raw Engine.IO v4 server for byte assertions and misbehaviour (fixture R): threads and sockets, no library.

By itself it is a correct server: long polling, upgrade with noops, WebSocket, gzip on request. It records every request
with its headers, what each session received on which leg, and how many requests of one kind were in flight at once.
Each misbehaviour is an argument or a hook:

- ``open_fields``: changes to the open packet; a value of None removes the field; ``open_body``: the whole body instead
- ``answer``: fn(Request) -> Response | None (None = as usual), for any HTTP request, upgrades included
- ``probe_answer``: what to say instead of ``3probe`` (None = nothing); ``release_polls``: False = no noop for the GET
  that waits during an upgrade
- ``silent_websocket``: no open packet after the upgrade of a new session
- `RawSession.poll_with`: bodies, byte by byte, of the next polls; `RawSession.frames`: raw frames on the WebSocket
- ``ssl_context``: TLS
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import select
import socket
import ssl
import threading
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Tuple, Union
from urllib.parse import parse_qs, urlsplit

from simplepubsub.transports.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameParser, encode_frame
from tests.helpers import scaled

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
Packet = Union[str, bytes]


class Request(NamedTuple):
    """One HTTP request; header names are lower-case."""

    method: str
    target: str
    headers: Dict[str, str]
    body: bytes
    peer: Tuple[str, int]

    @property
    def query(self) -> Dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query, True).items()}

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def upgrade(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"


class Response(NamedTuple):
    """An HTTP answer. ``chunks`` pauses between the two halves of the body until the server is closed."""

    status: int = 200
    body: bytes = b""
    headers: Dict[str, str] = {}


class RawSession:
    """One session at the server. Everything may be called from the test's thread."""

    def __init__(self, server: RawServer, sid: str) -> None:
        self.server = server
        self.sid = sid
        self.changed = server.changed
        self.outgoing: Deque[Packet] = deque()
        self.bodies: Deque[bytes] = deque()
        self.received: List[Tuple[str, Packet]] = []  # (leg, packet)
        self.posts: List[bytes] = []
        self.events: List[str] = []  # "GET", "GET.", "POST", "POST.", "ws", "ws:2probe", "ws:5", ...
        self.busy: Dict[str, int] = {"GET": 0, "POST": 0}
        self.most: Dict[str, int] = {"GET": 0, "POST": 0}
        self.websocket: Optional[RawWebSocket] = None
        self.upgraded = False
        self.pumping = threading.Lock()  # one thread at a time takes packets and sends them
        self.probing = False
        self.closed = False
        self.hold_posts = False

    @property
    def messages(self) -> List[Packet]:
        """What was received, without pongs and the packets of the protocol: message packets without their type."""
        return [packet[1:] if isinstance(packet, str) else packet for _, packet in list(self.received)
                if isinstance(packet, bytes) or packet[:1] == "4"]

    def send(self, *packets: Packet) -> None:
        """Send packets (text with its type, or bytes) on the leg in use."""
        with self.changed:
            self.outgoing.extend(packets)
            self.changed.notify_all()
        self.pump()

    def poll_with(self, *bodies: bytes) -> None:
        """Answer the next polls with these bodies."""
        with self.changed:
            self.bodies.extend(bodies)
            self.changed.notify_all()

    def pump(self) -> None:
        with self.pumping:
            with self.changed:
                if not self.upgraded or self.websocket is None:
                    return
                packets = list(self.outgoing)
                self.outgoing.clear()
                websocket = self.websocket
            for packet in packets:
                websocket.send(packet)

    def wait(self, predicate: Callable[[], Any], timeout: float = 5.0) -> Any:
        with self.changed:
            found = self.changed.wait_for(predicate, scaled(timeout))
            assert found, "not in time; received %r" % (self.received[-5:],)
            return found

    def wait_messages(self, count: int, timeout: float = 5.0) -> List[Packet]:
        self.wait(lambda: len(self.messages) >= count, timeout)
        return self.messages

    def take(self, leg: str, packet: Packet) -> None:
        with self.changed:
            self.received.append((leg, packet))
            if packet == "1":
                self.closed = True
            self.changed.notify_all()


class RawWebSocket:
    """The server's end of a WebSocket."""

    def __init__(self, sock: socket.socket, request: Request) -> None:
        self.sock = sock
        self.request = request
        self.parser = FrameParser(masked=True)
        self.pending: Deque[Any] = deque()
        self.lock = threading.Lock()
        self.reading = threading.Event()  # cleared: what arrives from then on is not read
        self.reading.set()
        self._tls: Optional[threading.Lock] = None
        if isinstance(sock, ssl.SSLSocket):
            self._tls = threading.Lock()
            sock.setblocking(False)

    def _call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call a method of the socket; over TLS one thread at a time, which never waits in there."""
        if self._tls is None:
            return function(argument)
        while True:
            with self._tls:
                try:
                    return function(argument)
                except ssl.SSLWantReadError:
                    writing = False
                except ssl.SSLWantWriteError:
                    writing = True
            select.select([] if writing else [self.sock], [self.sock] if writing else [], [])

    def send(self, packet: Packet) -> None:
        self.frame(TEXT if isinstance(packet, str) else BINARY, packet)

    def frame(self, opcode: int, payload: Packet = b"", fin: bool = True) -> None:
        self.raw(encode_frame(opcode, payload, fin=fin))

    def raw(self, data: bytes) -> None:
        with self.lock:
            view = memoryview(data)
            try:
                while view:
                    view = view[self._call(self.sock.send, view):]
            except (OSError, ValueError):
                pass  # the client is gone, or the socket is closed

    def receive(self) -> Optional[Tuple[int, Packet]]:
        """Return the next frame, None at the end."""
        while not self.pending:
            self.reading.wait()
            try:
                data = self._call(self.sock.recv, 65536)
            except (OSError, ValueError):
                return None
            self.reading.wait()  # it may have been cleared during recv()
            if not data:
                return None
            self.pending.extend(self.parser.feed(data))
        return self.pending.popleft()


class RawServer:
    """See the module. A context manager; leaving it closes everything and joins every thread."""

    def __init__(
        self,
        *,
        open_fields: Optional[Dict[str, Any]] = None,
        open_body: Optional[bytes] = None,
        ping_interval: float = 25.0,
        ping_timeout: float = 20.0,
        max_payload: Optional[int] = 1000000,
        upgrades: Tuple[str, ...] = ("websocket",),
        answer: Optional[Callable[[Request], Optional[Response]]] = None,
        probe_answer: Optional[Packet] = "3probe",
        release_polls: bool = True,
        silent_websocket: bool = False,
        greeting: Tuple[Packet, ...] = (),
        gzip: bool = False,
        set_cookie: str = "",
        ssl_context: Optional[ssl.SSLContext] = None,
    ) -> None:
        self.changed = threading.Condition()
        self.requests: List[Request] = []
        self.sessions: List[RawSession] = []
        self.fields: Dict[str, Any] = {"upgrades": list(upgrades), "pingInterval": int(ping_interval * 1000),
                                       "pingTimeout": int(ping_timeout * 1000), "maxPayload": max_payload}
        self.fields.update(open_fields or {})
        self._open_body = open_body
        self.answer = answer
        self.probe_answer = probe_answer
        self.release_polls = release_polls
        self.silent_websocket = silent_websocket
        self.greeting = greeting
        self.gzip = gzip
        self.set_cookie = set_cookie
        self._ssl = ssl_context
        self.errors: List[BaseException] = []
        self._stopped = False
        self._socks: List[socket.socket] = []
        self._threads: List[threading.Thread] = []
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(50)
        self.port: int = self._listener.getsockname()[1]
        self._spawn(self._accept)

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, path: str = "", scheme: str = "") -> str:
        return "%s://127.0.0.1:%d%s" % (scheme or ("https" if self._ssl else "http"), self.port, path)

    @property
    def session(self) -> RawSession:
        """The newest session."""
        return self.wait_session(1) if not self.sessions else self.sessions[-1]

    def wait_session(self, count: int, timeout: float = 5.0) -> RawSession:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.sessions) >= count, scaled(timeout)), "no session"
            return self.sessions[count - 1]

    def wait_requests(self, predicate: Callable[[List[Request]], Any], timeout: float = 5.0) -> List[Request]:
        with self.changed:
            assert self.changed.wait_for(lambda: predicate(self.requests), scaled(timeout)), self.requests
            return list(self.requests)

    def close(self) -> None:
        with self.changed:
            self._stopped = True
            self.changed.notify_all()
            socks = [self._listener] + self._socks
            for session in self.sessions:
                if session.websocket is not None:
                    session.websocket.reading.set()
        for sock in socks:
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
        for sock in socks:
            sock.close()
        assert not self.errors, self.errors

    # --- connections ---

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, name="rawserver", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                return
            with self.changed:
                if self._stopped:
                    sock.close()
                    return
                self._socks.append(sock)
            self._spawn(self._serve, sock, peer)

    def _serve(self, sock: socket.socket, peer: Tuple[str, int]) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._ssl is not None:
                sock = self._ssl.wrap_socket(sock, server_side=True)
                with self.changed:
                    self._socks.append(sock)
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = sock.recv(65536)
                    if not more:
                        return
                    data += more
                    if data[:1] == b"\x16" and self._ssl is None:
                        return  # TLS
                head, _, data = data.partition(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ")
                headers = {}
                for line in lines[1:]:
                    name, _, value = line.partition(":")
                    assert name.lower() not in headers, "header twice: " + name
                    headers[name.lower()] = value.strip()
                size = int(headers.get("content-length", 0))
                while len(data) < size:
                    more = sock.recv(65536)
                    if not more:
                        return
                    data += more
                body, data = data[:size], data[size:]
                request = Request(method, target, headers, body, peer)
                with self.changed:
                    self.requests.append(request)
                    self.changed.notify_all()
                answer = self.answer(request) if self.answer else None
                if answer is None and request.upgrade:
                    self._upgrade(sock, request, data)
                    return
                self._respond(sock, request, answer if answer is not None else self._http(request))
        except (OSError, ssl.SSLError):
            pass  # the client is gone, or the server closes
        except Exception as error:  # noqa: BLE001  # shown when the server is closed
            self.errors.append(error)
        finally:
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def _respond(self, sock: socket.socket, request: Request, answer: Response) -> None:
        headers = {"Content-Type": "text/plain; charset=UTF-8"}
        body = answer.body
        if self.gzip and "gzip" in request.headers.get("accept-encoding", "") and len(body) > 100:
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        headers["Content-Length"] = str(len(body))
        headers.update(answer.headers)
        lines = ["HTTP/1.1 %d x" % answer.status] + ["%s: %s" % pair for pair in headers.items()]
        sock.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    # --- Engine.IO ---

    def _new(self) -> RawSession:
        with self.changed:
            session = RawSession(self, "secret-sid-%08d-of-test" % (len(self.sessions) + 1))
            session.outgoing.extend(self.greeting)
            self.sessions.append(session)
            self.changed.notify_all()
            return session

    def find(self, request: Request) -> Optional[RawSession]:
        sid = request.query.get("sid")
        return next((session for session in self.sessions if session.sid == sid), None)

    def _open(self, session: RawSession, upgrades: bool = True) -> str:
        fields = {"sid": session.sid, **self.fields}
        if not upgrades:
            fields["upgrades"] = []
        return "0" + json.dumps({name: value for name, value in fields.items() if value is not None})

    def _http(self, request: Request) -> Response:
        assert request.query.get("EIO") == "4" and request.path.endswith("/"), request.target
        if "sid" not in request.query:
            if self._open_body is not None:
                return Response(200, self._open_body)
            headers = {"Set-Cookie": self.set_cookie} if self.set_cookie else {}
            return Response(200, self._open(self._new()).encode(), headers)
        session = self.find(request)
        if session is None or session.closed:
            return Response(400, b'{"code":1,"message":"Session ID unknown"}')
        if session.upgraded:
            return Response(400, b'{"code":3,"message":"Bad request"}')
        method = request.method
        with self.changed:
            session.events.append(method)
            session.busy[method] += 1
            session.most[method] = max(session.most[method], session.busy[method])
            self.changed.notify_all()
        try:
            return self._post(session, request) if method == "POST" else self._poll(session)
        finally:
            with self.changed:
                session.busy[method] -= 1
                session.events.append(method + ".")
                self.changed.notify_all()

    def _post(self, session: RawSession, request: Request) -> Response:
        assert request.headers["content-type"].lower().replace(" ", "") == "text/plain;charset=utf-8"
        limit = self.fields.get("maxPayload")
        if limit and len(request.body) > limit:
            return Response(413)
        with self.changed:
            session.posts.append(request.body)
            self.changed.wait_for(lambda: self._stopped or not session.hold_posts)
        for part in request.body.decode("utf-8").split("\x1e"):
            session.take("polling", base64.b64decode(part[1:], validate=True) if part[:1] == "b" else part)
        return Response(200, b"ok", {"Content-Type": "text/html"})

    def _poll(self, session: RawSession) -> Response:
        def ready() -> bool:
            released = session.probing and self.release_polls
            return bool(self._stopped or session.bodies or session.outgoing or session.closed or released)

        with self.changed:
            self.changed.wait_for(ready)
            if session.bodies:
                return Response(200, session.bodies.popleft())
            if session.outgoing:
                packets = list(session.outgoing)
                session.outgoing.clear()
                parts = [p if isinstance(p, str) else "b" + base64.b64encode(p).decode() for p in packets]
                return Response(200, "\x1e".join(parts).encode())
            return Response(200, b"6")

    def _upgrade(self, sock: socket.socket, request: Request, data: bytes) -> None:
        accept = base64.b64encode(hashlib.sha1(request.headers["sec-websocket-key"].encode() + GUID).digest())
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        websocket = RawWebSocket(sock, request)
        websocket.pending.extend(websocket.parser.feed(data))
        session = self.find(request)
        if session is None:
            session = self._new()
            with self.changed:  # before the client knows of the session, and then the test
                session.websocket, session.upgraded = websocket, True
                self.changed.notify_all()
            if not self.silent_websocket:
                body = self._open_body
                websocket.send(self._open(session, upgrades=False) if body is None else body.decode())
            session.pump()
        else:
            with self.changed:
                session.events.append("ws")
                session.websocket = websocket
                self.changed.notify_all()
        self._read(session, websocket)

    def _read(self, session: RawSession, websocket: RawWebSocket) -> None:
        while True:
            frame = websocket.receive()
            if frame is None:
                break
            opcode, payload = frame
            if opcode == PING:
                websocket.frame(PONG, payload)
                continue
            if opcode >= CLOSE:
                with self.changed:
                    session.events.append("ws.close" if opcode == CLOSE else "ws.pong")
                    self.changed.notify_all()
                if opcode == CLOSE:
                    websocket.frame(CLOSE, payload)
                    break
                continue
            with self.changed:
                session.events.append("ws:%s" % payload if isinstance(payload, str) else "ws:bytes")
            if not session.upgraded:
                if payload == "2probe":
                    if not self.release_polls:
                        with self.changed:  # the poll that is kept: the probe may have been quicker
                            self.changed.wait_for(lambda: self._stopped or session.busy["GET"])
                    if self.probe_answer is not None:
                        websocket.send(self.probe_answer)
                    with self.changed:  # after the answer: whoever waits for this may send on the WebSocket at once
                        session.probing = self.probe_answer == "3probe"
                        self.changed.notify_all()
                elif payload == "5":
                    with self.changed:
                        session.upgraded, session.probing = True, False
                        self.changed.notify_all()
                    session.pump()
                else:
                    self.errors.append(AssertionError("%r on the WebSocket before the upgrade" % (payload,)))
                continue
            session.take("websocket", payload)
        with self.changed:
            session.events.append("ws.")
            session.probing = False
            self.changed.notify_all()
