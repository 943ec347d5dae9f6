"""WebSocket peers on loopback that do as a test tells them: the stranger at the other end.

`ScriptedPeer` upgrades a connection by hand and runs a script on it. `SilentPeer` accepts and says nothing. `DeafPort`
does not even complete the TCP handshake. Nothing here uses the package.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import selectors
import socket
import ssl
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from tests.timing import LOOPBACK, scaled
from tests.wire import PeerConnection, PeerGone, Request, check

#: The fixed text that goes into Sec-WebSocket-Accept (RFC 6455 section 1.3).
ACCEPT_SALT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: As `subprotocol=`: answer with the first one that the client offers.
ECHO = "<echo>"


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
            connection.sock.do_handshake()
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
        check(method == "GET" and version == "HTTP/1.1", f"opening request {lines[0]!r}")
        check("host" in headers, "no Host header")
        check(headers.get("upgrade", "").lower() == "websocket", "no Upgrade: websocket")
        check("upgrade" in headers.get("connection", "").lower().replace(" ", "").split(","), "no Connection: Upgrade")
        check(headers.get("sec-websocket-version") == "13", "no Sec-WebSocket-Version: 13")
        key = headers.get("sec-websocket-key", "")
        try:
            check(len(base64.b64decode(key, validate=True)) == 16, f"Sec-WebSocket-Key {key!r} is not 16 bytes")
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
