"""An HTTP server on loopback that answers as a test says, for clients of REST interfaces.

`with ScriptedHttp([503, 200]) as peer:` answers the first request 503 and all later ones 200. An item is a status, a
`Reply`, or a callable that gets the `Exchange` and returns either of them, or None when it has written to the socket
itself. Everything is bounded: leaving the `with` block closes every socket and joins every thread.
"""

from __future__ import annotations

import http.server
import socket
import socketserver
import ssl
import struct
import threading
import time
import urllib.parse
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import pytest

from simplepubsub.exceptions import ServiceTimeout
from tests.helpers import LOOPBACK, scaled, wait_until

__all__ = ["Exchange", "HttpRequest", "Reply", "ScriptedHttp", "time_out"]


class HttpRequest(NamedTuple):
    """What arrived; `headers` have names in lower case, `connection` counts from 0."""

    method: str
    target: str
    headers: Dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> List[Tuple[str, str]]:
        return urllib.parse.parse_qsl(self.target.partition("?")[2], keep_blank_values=True)


class Reply(NamedTuple):
    """An answer; its length is announced unless the headers do so."""

    status: int
    body: bytes = b""
    headers: Sequence[Tuple[str, str]] = ()


class Exchange(NamedTuple):
    """One request and the socket on which it came."""

    request: HttpRequest
    sock: socket.socket
    closing: threading.Event

    def hang(self) -> None:
        """Say nothing until the test is over."""
        self.closing.wait(scaled(60))

    def drip(self, data: bytes, pause: float) -> None:
        """Send a byte each `pause` seconds until the data, the peer or the test is at its end."""
        for index in range(len(data)):
            try:
                self.sock.sendall(data[index:index + 1])
            except OSError:
                return
            if self.closing.wait(pause):
                return

    def reset(self) -> None:
        """End the connection by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Item = Union[int, Reply, Callable[[Exchange], Any]]


class ScriptedHttp:
    """The server; `requests` holds what has arrived so far."""

    def __init__(self, script: Union[Item, Sequence[Item]] = 200, *, tls: Optional[ssl.SSLContext] = None) -> None:
        self.script: List[Item] = list(script) if isinstance(script, (list, tuple)) and not isinstance(
            script, Reply) else [script]  # type: ignore[list-item]
        self.requests: List[HttpRequest] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._connections: List[socket.socket] = []
        self._tls = tls
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                with outer._lock:
                    self.number = len(outer._connections)
                    outer._connections.append(self.request)
                    late = outer.closing.is_set()
                super().setup()
                if late:  # nobody else will: the others have been dropped
                    outer._drop([self.request])

            def handle(self) -> None:
                try:
                    super().handle()
                except (OSError, ValueError):
                    pass  # the client has gone, or the test is over

            def finish(self) -> None:
                try:
                    super().finish()
                except (OSError, ValueError):
                    pass

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self.serve
                raise AttributeError(name)

            def serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = HttpRequest(self.command, self.path, headers, body, self.number)
                with outer._lock:
                    item = outer.script[min(len(outer.requests), len(outer.script) - 1)]
                    outer.requests.append(request)
                if callable(item):
                    item = item(Exchange(request, self.connection, outer.closing))
                if item is None:
                    self.close_connection = True
                    return
                reply = Reply(item) if isinstance(item, int) else item
                self.send_response(reply.status)
                names = [name.lower() for name, _ in reply.headers]
                for name, value in reply.headers:
                    self.send_header(name, value)
                if "content-length" not in names and "transfer-encoding" not in names:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.body)
                if reply.status >= 400 and "connection" in names:
                    self.close_connection = True

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = False
            block_on_close = True
            request_queue_size = 128  # a connection that finds the queue full is tried again after a second

            def server_bind(self) -> None:
                socketserver.TCPServer.server_bind(self)  # HTTPServer asks DNS for its own name
                self.server_name, self.server_port = self.server_address[0], self.server_address[1]

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

            def get_request(self) -> Any:
                sock, address = super().get_request()
                if outer._tls is not None:
                    # The handshake is made by the first read, in the thread of the connection.
                    sock = outer._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                return sock, address

        self._server = Server((LOOPBACK, 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.003})

    @property
    def endpoint(self) -> str:
        return "%s://%s:%d" % ("https" if self._tls else "http", LOOPBACK, self.port)

    @property
    def connections(self) -> int:
        """How many connections have been accepted."""
        with self._lock:
            return len(self._connections)

    def wait_requests(self, count: int) -> List[HttpRequest]:
        wait_until(lambda: len(self.requests) >= count)
        return self.requests

    def drop_connections(self) -> None:
        """Close every connection of this moment."""
        with self._lock:
            found = list(self._connections)
        self._drop(found)

    @staticmethod
    def _drop(sockets: Sequence[socket.socket]) -> None:
        for sock in sockets:
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except (OSError, ValueError):
                pass

    def __enter__(self) -> ScriptedHttp:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join(scaled(10))
        self.drop_connections()
        self._server.server_close()


def time_out(call: Callable[[float], Any], far_enough: Callable[[ServiceTimeout], bool]) -> ServiceTimeout:
    """Make a call, given its timeout in seconds, that must end by it and not much later; return its ServiceTimeout.

    A busy machine may spend a short time before the call has come to what the test is about, so one that is not
    ``far_enough`` is made again with more time.
    """
    for timeout in (scaled(0.2), scaled(2), scaled(10)):
        start = time.monotonic()
        with pytest.raises(ServiceTimeout) as caught:
            call(timeout)
        assert 0.8 * timeout < time.monotonic() - start < timeout + scaled(8)
        if far_enough(caught.value):
            return caught.value
    raise AssertionError("it never gets that far: %s" % caught.value)
