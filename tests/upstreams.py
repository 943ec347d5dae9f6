"""A web server as an event handler: it records what it is sent and answers as a test says, over real sockets."""

from __future__ import annotations

import http.server
import socket
import struct
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

from tests.helpers import LOOPBACK, wait_until
from tests.timing import scaled

#: What a script may return: a status, (status, headers, body), or one of the two below.
Reply = Union[int, Tuple[int, Any, bytes], str]

#: Say nothing until the server is closed; cut the connection.
SILENCE = "silence"
RESET = "reset"


class Posted(NamedTuple):
    """One request; header names are in lower case, repeated ones joined as they came."""

    method: str
    path: str
    headers: Dict[str, str]
    body: bytes

    @property
    def event(self) -> str:
        """The name of the event."""
        return self.headers.get("ce-eventname", "")

    @property
    def connection_id(self) -> str:
        """Whose event it is."""
        return self.headers["ce-connectionid"]


def default(request: Posted) -> Reply:
    """Accept everything, answer nothing."""
    return (200, {"WebHook-Allowed-Origin": "*"}, b"") if request.method == "OPTIONS" else 204


class ScriptedUpstream:
    """Answers with ``script(request)``, each connection in a thread of its own. A context manager.

    ``script`` may be changed at any time; OPTIONS goes to ``script`` only with ``options=True``, else it is allowed.
    """

    def __init__(
        self, script: Callable[[Posted], Reply] = default, *, options: bool = False, context: Any = None
    ) -> None:
        self.script = script
        self.options = options
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._requests: List[Posted] = []
        self._sockets: List[socket.socket] = []
        upstream = self

        class Handler(_Handler):
            owner = upstream

        class Web(http.server.ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = False

            def get_request(self) -> Any:
                sock, address = super().get_request()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                upstream._sockets.append(sock)
                return sock, address

            def handle_error(self, request: Any, address: Any) -> None:
                """The client left, or a TLS handshake failed: what the test is about, and not ours to print."""

        self._web = Web((LOOPBACK, 0), Handler)
        self.scheme = "http" if context is None else "https"
        if context is not None:
            self._web.socket = context.wrap_socket(self._web.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._web.server_port
        self._thread = threading.Thread(target=self._web.serve_forever, args=(0.02,), name="upstream", daemon=True)

    def url(self, path: str = "/{hub}/{event}") -> str:
        """An address, by default a template."""
        return "%s://%s:%d%s" % (self.scheme, LOOPBACK, self.port, path)

    def take(self, request: Posted) -> Reply:
        """Record a request and return what to answer."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
        return (self.script if self.options or request.method != "OPTIONS" else default)(request)

    @property
    def requests(self) -> List[Posted]:
        """All requests."""
        with self._changed:
            return list(self._requests)

    @property
    def posts(self) -> List[Posted]:
        """The events."""
        return [request for request in self.requests if request.method == "POST"]

    def events(self, name: Optional[str] = None) -> List[Posted]:
        """The events of that name."""
        return [request for request in self.posts if name in (None, request.event)]

    def wait(self, count: int, name: Optional[str] = None, timeout: float = 10.0) -> List[Posted]:
        """Wait for so many events (of that name) and return them."""
        wait_until(lambda: len(self.events(name)) >= count, timeout, "%d events %s" % (count, name or ""))
        return self.events(name)

    def __enter__(self) -> ScriptedUpstream:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.closing.set()
        self._web.shutdown()
        self._thread.join(scaled(5))
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed already
        self._web.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: ScriptedUpstream

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.lower(): ", ".join(self.headers.get_all(key)) for key in self.headers}
        reply = self.owner.take(Posted(self.command, self.path, headers, body))
        if reply == SILENCE:
            self.owner.closing.wait(scaled(60))
            self.close_connection = True
        elif reply == RESET:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        else:
            status, fields, content = (reply, {}, b"") if isinstance(reply, int) else reply
            self.send_response(status)
            for key, value in fields.items() if isinstance(fields, dict) else fields:
                self.send_header(key, value)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    do_POST = do_OPTIONS = do_GET = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
