"""Both ends of a plain WebSocket for tests: a pair of connections, and a client that speaks bytes."""

from __future__ import annotations

import base64
import contextlib
import queue
import socket
import ssl
import struct
import threading
from typing import Any, Callable, Iterator, List, Optional, Tuple

from simplepubsub import websockets
from tests.helpers import LOOPBACK, scaled
from tests.wire import CLOSE, make_frame

MASK = b"\1\2\3\4"


def connect(url: str, **options: Any) -> websockets.ClientConnection:
    """Connect without a look at the proxies of this machine."""
    options.setdefault("proxy", None)
    options.setdefault("close_timeout", scaled(10))
    return websockets.connect(url, **options)


@contextlib.contextmanager
def serving(handler: Callable[..., Any], **options: Any) -> Iterator[Any]:
    """A server; `server.url(path)` leads to it."""
    options.setdefault("close_timeout", scaled(10))
    server: Any = websockets.serve(handler, **options)
    scheme = "wss" if options.get("ssl") else "ws"
    server.url = lambda path="/": "%s://%s:%d%s" % (scheme, LOOPBACK, server.port, path)
    try:
        yield server
    finally:
        server.shutdown()


@contextlib.contextmanager
def socket_with_kept_port() -> Iterator[socket.socket]:
    """Yield a socket to listen on. Once that is closed connecting is refused: nobody else gets its port meanwhile."""
    with socket.socket() as keeper:
        bound = socket.socket()
        for sock in (keeper, bound):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((LOOPBACK, 0) if sock is keeper else keeper.getsockname())
        with bound:
            yield bound


def echo(connection: Any) -> None:
    for message in connection:
        connection.send(message)


@contextlib.contextmanager
def pair(server_options: Any = None, **options: Any) -> Iterator[Tuple[Any, Any]]:
    """Yield (client's end, server's end) of one connection; both belong to the test and are closed after it."""
    made: "queue.Queue[Any]" = queue.Queue()
    over = threading.Event()

    def park(connection: Any) -> None:
        made.put(connection)
        over.wait(scaled(60))

    with serving(park, **(server_options or {})) as server:
        client = connect(server.url(), **options)
        try:
            yield client, made.get(timeout=scaled(5))
        finally:
            over.set()
            client.close()


def head(path: str = "/", *lines: str, key: Optional[str] = None, version: str = "13") -> bytes:
    """A proper request to open a WebSocket, with more header lines."""
    key = base64.b64encode(b"0123456789abcdef").decode() if key is None else key
    all_lines = ["GET %s HTTP/1.1" % path, "Host: x", "Upgrade: websocket", "Connection: Upgrade",
                 "Sec-WebSocket-Key: " + key, "Sec-WebSocket-Version: " + version, *lines]
    return ("\r\n".join(all_lines) + "\r\n\r\n").encode("latin-1")


class RawClient:
    """A client that sends and reads bytes; `open` does the handshake. A context manager."""

    def __init__(self, server: Any, opened: bool = True, early: bytes = b"", context: Optional[ssl.SSLContext] = None,
                 receive_buffer: int = 0) -> None:
        self.sock: socket.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(scaled(10))
        self.sock.connect((LOOPBACK, server.port))
        if context is not None:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self._buffer = b""
        if opened:
            self.sock.sendall(head() + early)
            self.answer = self.read_until(b"\r\n\r\n")
            assert self.answer.startswith(b"HTTP/1.1 101 "), self.answer

    def read_until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(self._buffer)
        self._buffer += data

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def frame(self) -> Tuple[int, bytes]:
        """Read one frame: (first byte, payload)."""
        first, size = self.read(2)
        if size == 126:
            size = struct.unpack("!H", self.read(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self.read(8))[0]
        return first, self.read(size)

    def send(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        self.sock.sendall(make_frame(opcode, payload, mask=MASK, **options))

    def close_frame(self) -> Tuple[Optional[int], str]:
        """Read up to the close frame and return its code and reason."""
        while True:
            first, payload = self.frame()
            if first & 15 == CLOSE:
                return (struct.unpack("!H", payload[:2])[0] if payload else None), payload[2:].decode()

    def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                self._more()
        data, self._buffer = self._buffer, b""
        return data

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()


def threads() -> List[str]:
    """The names of the package's threads, but for those of the embedded server that other tests share."""
    shared = ("simplepubsub-server", "simplepubsub-handler")
    names = [thread.name for thread in threading.enumerate()]
    return sorted(name for name in names if name.startswith("simplepubsub-") and not name.startswith(shared))
