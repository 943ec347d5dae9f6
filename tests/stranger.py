"""WebSocket peers written by hand from RFC 6455, on purpose without a line of the package: the stranger out there.

`ScriptedPeer` upgrades a connection and runs a script on it, well-behaved or not, and holds the client to what the RFC
asks of clients. `SilentPeer` accepts and says nothing. `DeafPort` does not even complete the TCP handshake.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import selectors
import socket
import ssl
import struct
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, NoReturn, Optional, Sequence, Tuple, Union

from tests.timing import LOOPBACK, scaled

#: Opcodes (RFC 6455 section 5.2).
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

#: The fixed text that goes into Sec-WebSocket-Accept (RFC 6455 section 1.3).
ACCEPT_SALT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: As `subprotocol=`: answer with the first one that the client offers.
ECHO = "<echo>"

LINGER_RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class PeerGone(ConnectionError):
    """The client has ended the connection, or the test has closed the peer. Ends a script without being an error.

    `code` and `reason` come from its close frame: None and "" when it sent none, 1005 for an empty one.
    """

    def __init__(self, code: Optional[int] = None, reason: str = "") -> None:
        super().__init__(f"the client has gone (close code {code}, reason {reason!r})")
        self.code = code
        self.reason = reason


class PeerFrame(NamedTuple):
    """A frame as it came, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def text(self) -> str:
        return self.payload.decode("utf-8")


class Request(NamedTuple):
    """The client's opening request. Header names are lower case; repeated ones are joined by ", "."""

    method: str
    target: str
    version: str
    headers: Dict[str, str]

    @property
    def subprotocols(self) -> List[str]:
        """What the client offers, in its order."""
        return [p.strip() for p in self.headers.get("sec-websocket-protocol", "").split(",") if p.strip()]


class PeerConnection:
    """One upgraded connection, as a script sees it. Only the script's own thread may use it.

    Reading methods wait `timeout` seconds (default: the peer's), scaled, and then raise AssertionError; they raise
    PeerGone when the client has gone. What the client must not do by the RFC is an AssertionError too. Both come out
    when the peer is closed.
    """

    def __init__(self, sock: socket.socket, index: int, closing: threading.Event, timeout: float) -> None:
        self.sock = sock
        self.index = index  # 0 for the first connection of the peer, 1 for the next
        self.request = Request("", "", "", {})
        self.subprotocol: Optional[str] = None
        self.close_code: Optional[int] = None  # from the client's close frame
        self.close_reason = ""
        self._closing = closing
        self._timeout = timeout
        self._buffer = bytearray()
        self._fin_sent = False

    # ---- writing

    def send_raw(self, data: bytes) -> None:
        """Write bytes as they are. AssertionError when the client takes none of them for the peer's timeout."""
        try:
            self.sock.settimeout(scaled(self._timeout))
            self.sock.sendall(data)
        except socket.timeout:
            raise AssertionError(f"the client took no bytes for {scaled(self._timeout):g} s") from None
        except OSError as error:
            raise PeerGone(self.close_code, self.close_reason) from error

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0,
                   mask: Optional[bytes] = None, length: Optional[int] = None) -> None:
        """Write one frame; a `mask` (4 bytes), `rsv` (0 to 7) or a false `length` make it malformed."""
        self.send_raw(make_frame(opcode, payload, fin=fin, rsv=rsv, mask=mask, length=length))

    def send_text(self, text: str, *, fin: bool = True) -> None:
        """Write a text frame."""
        self.send_frame(TEXT, text.encode("utf-8"), fin=fin)

    def send_bytes(self, data: bytes, *, fin: bool = True) -> None:
        """Write a binary frame."""
        self.send_frame(BINARY, data, fin=fin)

    def send_json(self, value: Any) -> None:
        """Write `value` as JSON in a text frame."""
        self.send_text(json.dumps(value))

    # ---- reading

    def recv_frame(self, timeout: Optional[float] = None) -> PeerFrame:
        """Read one frame of any kind, control frames included; nothing is answered."""
        return self._recv_frame(self._deadline(timeout))

    def _recv_frame(self, deadline: float) -> PeerFrame:
        first, second = self._read(2, deadline)
        fin, rsv, opcode, masked, size = first >> 7, first >> 4 & 7, first & 15, second >> 7, second & 127
        # RFC 6455 section 5.2: reserved bits and opcodes, shortest form of a length; 5.1: a client masks every frame.
        _check(rsv == 0, f"reserved bits {rsv:03b} set without an extension")
        _check(opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG), f"reserved opcode {opcode:#x}")
        _check(masked == 1, "an unmasked frame from a client")
        if opcode >= CLOSE:
            _check(fin == 1 and size <= 125, "a control frame that is fragmented or longer than 125 bytes")
        if size == 126:
            size, = struct.unpack("!H", self._read(2, deadline))
            _check(size > 125, f"length {size} in the 16-bit form")
        elif size == 127:
            size, = struct.unpack("!Q", self._read(8, deadline))
            _check(0xFFFF < size < 1 << 63, f"length {size} in the 64-bit form")
        mask = self._read(4, deadline)
        frame = PeerFrame(opcode, _xor(self._read(size, deadline), mask), bool(fin), rsv)
        if opcode == CLOSE:
            self._note_close(frame.payload)
        return frame

    def recv_message(self, timeout: Optional[float] = None) -> Union[str, bytes]:
        """Read one whole message: str or bytes. Pings are answered, pongs skipped; a close frame raises PeerGone."""
        deadline = self._deadline(timeout)
        kind, parts = None, []
        while True:
            frame = self._recv_frame(deadline)
            if frame.opcode == PING:
                self.send_frame(PONG, frame.payload)
            elif frame.opcode == CLOSE:
                raise PeerGone(self.close_code, self.close_reason)
            elif frame.opcode != PONG:
                _check((frame.opcode == CONTINUATION) == (kind is not None), "a fragment out of order (section 5.4)")
                kind = frame.opcode if kind is None else kind
                parts.append(frame.payload)
                if frame.fin:
                    whole = b"".join(parts)
                    return whole.decode("utf-8") if kind == TEXT else whole

    def recv_text(self, timeout: Optional[float] = None) -> str:
        """Read one message that must be text."""
        message = self.recv_message(timeout)
        _check(isinstance(message, str), f"a binary message where text was expected: {message!r}")
        return str(message)

    def recv_json(self, timeout: Optional[float] = None) -> Any:
        """Read one text message and parse it."""
        return json.loads(self.recv_text(timeout))

    def recv_close(self, timeout: Optional[float] = None) -> Tuple[Optional[int], str]:
        """Read past everything to the client's close frame; return (code, reason), or (None, "") if none comes."""
        deadline = self._deadline(timeout)
        try:
            while self._recv_frame(deadline).opcode != CLOSE:
                pass
        except PeerGone:
            pass
        return self.close_code, self.close_reason

    # ---- ending, or not

    def close(self, code: Optional[int] = 1000, reason: str = "", *, wait: bool = True,
              timeout: Optional[float] = None) -> Tuple[Optional[int], str]:
        """Send a close frame (`code` None: an empty one) and, unless told otherwise, read on to the client's.

        Return the client's (code, reason). When the client closed first, this is the answer to it. The TCP connection
        ends when the script returns.
        """
        self.send_frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode("utf-8"))
        if wait and self.close_code is None:
            self.recv_close(timeout)
        return self.close_code, self.close_reason

    def finish(self) -> None:
        """End the stream by FIN without a close frame, and read until the client ends its own. Done on return, too."""
        if self._fin_sent:
            return
        self._fin_sent = True
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
            self.drain(5.0)
        except (OSError, AssertionError):
            pass  # the client has gone, or does not close: it is closed under it now

    def reset(self) -> NoReturn:
        """End the connection by RST and end the script."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        # A descriptor that a TLS wrapper or another thread holds must not outlive this: close() is what sends the RST.
        self.sock.close()
        raise PeerGone(self.close_code, self.close_reason)

    def hang(self) -> None:
        """Do nothing, not even read, until the test closes the peer."""
        self._closing.wait()

    def drain(self, timeout: Optional[float] = None) -> int:
        """Read and discard bytes until the client ends the connection; return how many. `timeout` None: no limit."""
        count = len(self._buffer)
        self._buffer.clear()
        deadline = None if timeout is None else self._deadline(timeout)
        try:
            while True:
                count += len(self._receive(deadline))
        except PeerGone:
            return count

    # ---- below the frames

    def _deadline(self, timeout: Optional[float]) -> float:
        return time.monotonic() + scaled(self._timeout if timeout is None else timeout)

    def _receive(self, deadline: Optional[float]) -> bytes:
        left = None if deadline is None else deadline - time.monotonic()
        try:
            if left is not None and left <= 0:
                raise socket.timeout
            self.sock.settimeout(left)
            data = self.sock.recv(65536)
        except socket.timeout:
            raise AssertionError(f"connection {self.index}: nothing more came from the client in time; "
                                 f"unfinished: {bytes(self._buffer[:80])!r}") from None
        except OSError as error:
            raise PeerGone(self.close_code, self.close_reason) from error
        if not data:
            raise PeerGone(self.close_code, self.close_reason)
        return data

    def _read(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            self._buffer += self._receive(deadline)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _read_head(self) -> str:
        deadline = self._deadline(None)
        while b"\r\n\r\n" not in self._buffer:
            _check(len(self._buffer) < 65536, "an endless request head")
            self._buffer += self._receive(deadline)
        return self._read(self._buffer.index(b"\r\n\r\n") + 4, deadline).decode("latin-1")

    def _note_close(self, payload: bytes) -> None:
        # RFC 6455 section 5.5.1: empty, or a code in two bytes and a reason in UTF-8; 7.4.1: codes never sent.
        _check(len(payload) != 1, "a close frame with one byte")
        self.close_code = struct.unpack("!H", payload[:2])[0] if payload else 1005
        self.close_reason = payload[2:].decode("utf-8")
        _check(not payload or self.close_code in range(1000, 5000) and self.close_code not in (1004, 1005, 1006, 1015),
               f"close code {self.close_code} in a frame")


def make_frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: Optional[bytes] = None,
               length: Optional[int] = None) -> bytes:
    """Return the bytes of one frame (RFC 6455 section 5.2), right or wrong as told."""
    size = len(payload) if length is None else length
    masked = 0x80 if mask else 0
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([masked | size])
    elif size < 1 << 16:
        head += bytes([masked | 126]) + struct.pack("!H", size)
    else:
        head += bytes([masked | 127]) + struct.pack("!Q", size)
    return head + (mask + _xor(payload, mask) if mask else payload)


def _xor(data: bytes, mask: bytes) -> bytes:
    key = (mask * (len(data) // 4 + 1))[:len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


def _check(right: bool, complaint: str) -> None:
    if not right:
        raise AssertionError(f"RFC 6455: {complaint}")


class _Acceptor:
    """Accept on a loopback port in one thread, hand over (socket, number from 0), and leave nothing behind."""

    def __init__(self, serve: Callable[[socket.socket, int], None]) -> None:
        self._serve = serve
        self._changed = threading.Condition()
        self._accepted = 0
        self._thread: Optional[threading.Thread] = None
        self.closing = threading.Event()
        self.port = 0

    @property
    def accepted(self) -> int:
        """Connections accepted so far."""
        return self._accepted

    def wait_accepted(self, n: int, timeout: float = 5.0) -> None:
        """Wait until at least `n` connections have been accepted; AssertionError after `timeout`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._accepted >= n, scaled(timeout)):
                raise AssertionError(f"waited {scaled(timeout):g} s for {n} connections, got {self._accepted}")

    def start(self) -> Any:
        """Bind a port and accept."""
        self._listener = socket.socket()
        self._listener.bind((LOOPBACK, 0))
        self._listener.listen(128)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._wake_in, self._wake_out = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name=f"{type(self).__name__}-{self.port}", daemon=True)
        self._thread.start()
        return self

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake_out, selectors.EVENT_READ)
            while True:
                selector.select()
                if self.closing.is_set():
                    return
                try:
                    sock, _ = self._listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    continue  # the client was gone before it was accepted
                sock.setblocking(True)
                self._serve(sock, self._accepted)
                with self._changed:
                    self._accepted += 1
                    self._changed.notify_all()

    def _stop(self) -> None:
        if self._thread is None:
            return
        self.closing.set()
        self._wake_in.send(b"\0")
        self._thread.join(scaled(5))
        self._thread = None
        for sock in (self._listener, self._wake_in, self._wake_out):
            sock.close()


class SilentPeer(_Acceptor):
    """Accept TCP connections and never say or read anything on them. A context manager."""

    def __init__(self) -> None:
        self._held: List[socket.socket] = []
        super().__init__(lambda sock, index: self._held.append(sock))

    def url(self, path: str = "/", scheme: str = "ws") -> str:
        """Its URL."""
        return f"{scheme}://{LOOPBACK}:{self.port}{path}"

    def close(self) -> None:
        """Close the port and every connection. May be called again."""
        self._stop()
        while self._held:
            self._held.pop().close()

    def __enter__(self) -> SilentPeer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class DeafPort:
    """A port whose connects neither succeed nor fail, as behind a firewall that drops: its queue is full (Linux)."""

    def __enter__(self) -> DeafPort:
        self._listener = socket.socket()
        self._listener.bind((LOOPBACK, 0))
        self._listener.listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._fillers: List[socket.socket] = []
        for _ in range(8):  # Linux queues one more than the backlog; a connect that does not complete shows it is full
            filler = socket.socket()
            filler.settimeout(scaled(0.1))
            self._fillers.append(filler)
            try:
                filler.connect((LOOPBACK, self.port))
            except socket.timeout:
                return self
        self.__exit__()
        raise AssertionError("this system queues connections beyond the backlog; DeafPort works on Linux only")

    def url(self, path: str = "/", scheme: str = "ws") -> str:
        """Its URL."""
        return f"{scheme}://{LOOPBACK}:{self.port}{path}"

    def __exit__(self, *exc_info: object) -> None:
        for sock in [*self._fillers, self._listener]:
            sock.close()


Script = Callable[[PeerConnection], Any]


class ScriptedPeer(_Acceptor):
    """A WebSocket server that upgrades by hand and then runs a script, in a thread per connection. A context manager.

    `scripts` is one callable for every connection, or a list: the n-th connection gets the n-th, later ones the last.
    When a script returns, its connection ends by FIN without a close frame: `conn.close()`, `conn.hang()` or
    `conn.drain()` first if that is not meant. An error in a script, a failed assertion included, is raised by `close()`
    or on leaving the `with`; PeerGone is not an error.

    subprotocol: ECHO answers the first offer, a str is answered as it is, None answers none.
    status:      when given, no upgrade: answer this HTTP status with `body` and `headers`, and close.
    handshake:   a function of (request, answer bytes) to the bytes to send instead, for a malformed answer.
    ssl_context: serve TLS; `url()` is then wss.
    timeout:     how long each wait of a script may last.
    """

    def __init__(self, scripts: Union[Script, Sequence[Script]] = PeerConnection.drain, *,
                 subprotocol: Optional[str] = ECHO, status: Optional[int] = None, body: bytes = b"",
                 headers: Sequence[Tuple[str, str]] = (), handshake: Optional[Callable[[Request, bytes], bytes]] = None,
                 ssl_context: Optional[ssl.SSLContext] = None, timeout: float = 10.0) -> None:
        super().__init__(self._begin)
        self._scripts: List[Script] = [scripts] if callable(scripts) else list(scripts)
        self._subprotocol = subprotocol
        self._status = status
        self._body = body
        self._headers = list(headers)
        self._handshake = handshake
        self._ssl_context = ssl_context
        self._timeout = timeout
        self._threads: List[threading.Thread] = []
        self._lock = threading.Lock()  # guards the three below
        self._sockets: Dict[int, socket.socket] = {}  # by the index of the connection
        self.requests: List[Request] = []
        self.errors: List[BaseException] = []

    def url(self, path: str = "/", scheme: str = "") -> str:
        """Its URL: ws, or wss with TLS, unless another scheme is named."""
        return f"{scheme or ('wss' if self._ssl_context else 'ws')}://{LOOPBACK}:{self.port}{path}"

    def wait_requests(self, n: int, timeout: float = 5.0) -> List[Request]:
        """Wait until `n` opening requests have been read and return all so far."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= n, scaled(timeout)):
                raise AssertionError(f"waited {scaled(timeout):g} s for {n} requests, got {len(self.requests)}")
            return list(self.requests)

    def close(self, *, check: bool = True) -> None:
        """End every connection and thread; raise the first error of a script unless `check` is False."""
        self._stop()
        with self._lock:
            for sock in self._sockets.values():
                try:
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)  # wakes the script; SSLSocket's own would not
                except OSError:
                    pass  # the client was faster
        for thread in self._threads:
            thread.join(scaled(5))
            if thread.is_alive():
                self.errors.append(AssertionError(f"{thread.name}: the script does not end"))
        if check and self.errors:
            raise self.errors[0]

    def __enter__(self) -> ScriptedPeer:
        self.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close(check=kind is None)

    def _begin(self, sock: socket.socket, index: int) -> None:
        with self._lock:
            self._sockets[index] = sock
        thread = threading.Thread(target=self._converse, args=(sock, index), daemon=True,
                                  name=f"script-{self.port}-{index}")
        self._threads.append(thread)
        thread.start()

    def _converse(self, sock: socket.socket, index: int) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = PeerConnection(sock, index, self.closing, self._timeout)
        try:
            if self._ssl_context is not None:
                self._start_tls(connection)
            if self._upgrade(connection):
                self._scripts[min(index, len(self._scripts) - 1)](connection)
            connection.finish()
        except PeerGone:
            pass
        except BaseException as error:  # noqa: BLE001  close() raises it where the test sees it
            self.errors.append(error)
        finally:
            with self._lock:
                del self._sockets[index]
            connection.sock.close()

    def _start_tls(self, connection: PeerConnection) -> None:
        assert self._ssl_context is not None
        with self._lock:  # close() must always find the socket that owns the descriptor
            connection.sock.settimeout(scaled(self._timeout))
            connection.sock = self._ssl_context.wrap_socket(connection.sock, server_side=True,
                                                            do_handshake_on_connect=False)
            self._sockets[connection.index] = connection.sock
        try:
            connection.sock.do_handshake()  # type: ignore[attr-defined]
        except OSError as error:  # such as a client that does not trust the certificate
            raise PeerGone() from error

    def _upgrade(self, connection: PeerConnection) -> bool:
        """Read the request (RFC 6455 section 4.2.1) and answer it; return whether the connection is a WebSocket now."""
        lines = connection._read_head().split("\r\n")
        method, target, version = lines[0].split(" ")
        headers: Dict[str, str] = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        request = connection.request = Request(method, target, version, headers)
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        if self._status is not None:
            head = f"HTTP/1.1 {self._status} Scripted\r\nContent-Length: {len(self._body)}\r\nConnection: close\r\n"
            connection.send_raw((head + self._extra_headers() + "\r\n").encode("latin-1") + self._body)
            return False
        _check(method == "GET" and version == "HTTP/1.1", f"opening request {lines[0]!r}")
        _check("host" in headers, "no Host header")
        _check(headers.get("upgrade", "").lower() == "websocket", "no Upgrade: websocket")
        _check("upgrade" in headers.get("connection", "").lower().replace(" ", "").split(","), "no Connection: Upgrade")
        _check(headers.get("sec-websocket-version") == "13", "no Sec-WebSocket-Version: 13")
        key = headers.get("sec-websocket-key", "")
        try:
            _check(len(base64.b64decode(key, validate=True)) == 16, f"Sec-WebSocket-Key {key!r} is not 16 bytes")
        except binascii.Error:
            raise AssertionError(f"RFC 6455: Sec-WebSocket-Key {key!r} is not base64") from None
        accept = base64.b64encode(hashlib.sha1((key + ACCEPT_SALT).encode("ascii")).digest()).decode("ascii")
        answer = ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  f"Sec-WebSocket-Accept: {accept}\r\n")
        first_offer = next(iter(request.subprotocols), None)
        connection.subprotocol = first_offer if self._subprotocol == ECHO else self._subprotocol
        if connection.subprotocol is not None:
            answer += f"Sec-WebSocket-Protocol: {connection.subprotocol}\r\n"
        raw = (answer + self._extra_headers() + "\r\n").encode("latin-1")
        if self._handshake is not None:
            raw = self._handshake(request, raw)
        connection.send_raw(raw)
        return raw.startswith(b"HTTP/1.1 101")

    def _extra_headers(self) -> str:
        return "".join(f"{name}: {value}\r\n" for name, value in self._headers)
