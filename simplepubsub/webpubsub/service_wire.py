"""One HTTP exchange within one deadline, over requests, that another thread can end at any moment.

requests and urllib3 limit each wait for the socket, not the whole exchange: a peer that sends a byte now and then holds
a call for ever. So the connections of an adapter are guarded here: opening one, every read and every write ask the
`Line` how much time is left. Nothing else of requests is changed.
"""

from __future__ import annotations

import io
import socket
import ssl as ssl_module
import sys
import threading
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

import urllib3
from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy

from ..core.deadline import Deadline
from ..transports.dial import close_unfinished
from ..transports.patient import Aborted, PatientReader, send_all
from ..transports.tcp import open_tcp

__all__ = ["Aborted", "Answer", "Line"]

#: Longest single wait in seconds, after which signals are looked at: Ctrl-C cannot interrupt a wait on Windows.
_SLICE = 0.1 if sys.platform == "win32" else 1.0

#: Before 2.0.
_OLD_URLLIB3 = not hasattr(urllib3, "BaseHTTPResponse")

#: Longest answer that is read, in bytes; a page of 200 connections has some 50,000.
MAX_ANSWER_BYTES = 16 * 2**20


class Answer(NamedTuple):
    """What came back; ``headers`` ignores case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class Line:
    """An adapter of requests with at most one connection, for one exchange at a time.

    ``step`` and ``written`` tell where an exchange stands or stood. Only `abort` may be called from another thread.
    """

    def __init__(self, context: Optional[ssl_module.SSLContext]) -> None:
        self.step = ""
        self.written = False
        self._adapter = _Adapter(self, context)
        self._whole = Deadline(None)  # the call
        self._opening = Deadline(None)  # this connection
        self._silence = Deadline(None)  # the peer
        self._read_timeout: Optional[float] = None
        self._lock = threading.Lock()  # guards the next three; leaf
        self._sock: Optional[socket.socket] = None  # what abort() shuts down
        self._resolved = threading.Event()
        self._aborted = False

    def exchange(
        self,
        request: PreparedRequest,
        deadline: Deadline,
        connect_timeout: Optional[float],
        read_timeout: Optional[float],
        proxies: Dict[str, str],
    ) -> Answer:
        """Send a request and return its answer, whole.

        Raises what requests raises, socket.timeout, ValueError for an answer of over 16 MiB, and Aborted.
        """
        self.step, self.written = "connecting", False
        self._whole, self._read_timeout = deadline, read_timeout
        self._silence = Deadline(None)
        self._opening = Deadline(_shorter(connect_timeout, deadline.remaining()))
        limits = (self._opening.remaining(), _shorter(read_timeout, deadline.remaining()))
        response = self._adapter.send(request, stream=True, timeout=limits, proxies=proxies)  # type: ignore[arg-type]
        try:
            self.step = "reading the answer"
            body: List[bytes] = []
            size = 0
            for chunk in response.iter_content(65536):
                body.append(chunk)
                size += len(chunk)
                if size > MAX_ANSWER_BYTES:
                    raise ValueError("the answer has more than %d bytes" % MAX_ANSWER_BYTES)
            promised = response.headers.get("Content-Length", "")
            if request.method != "HEAD" and promised.isdigit() and size < int(promised) and response.status_code != 304:
                # urllib3 1.26 is content with it.
                raise ConnectionError("the answer ended after %d of %s bytes" % (size, promised))
            return Answer(response.status_code, response.reason or "", response.headers, b"".join(body))
        finally:
            response.close()

    def close(self) -> None:
        """Close the connection."""
        self._adapter.close()

    def abort(self) -> None:
        """Make the exchange in progress, and every later one, fail at once. Any thread, any number of times."""
        with self._lock:
            self._aborted = True
            sock = self._sock
            self._resolved.set()
        if sock is not None:
            try:
                # Not sock.shutdown(): TLS would forget its state, and the reader with it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except (OSError, ValueError):
                pass  # not connected yet: the shutdown still ends the attempt to

    def forget(self) -> None:
        """Close the descriptor and nothing else: in a forked child, to which the connection does not belong."""
        sock = self._sock
        if sock is not None:
            sock.close()

    # --- what the guarded connections ask ---

    def hold(self, sock: Optional[socket.socket]) -> None:
        """Remember what `abort` shuts down. Raises Aborted."""
        with self._lock:
            self._sock = sock
            if self._aborted:
                raise Aborted("the exchange was given up")

    def patience(self, opening: bool = False) -> float:
        """Return the seconds to wait now. Raises socket.timeout when none is left, and Aborted."""
        if self._aborted:
            raise Aborted("the exchange was given up")
        seconds = _SLICE
        for limit in (self._whole, self._silence) + ((self._opening,) if opening else ()):
            left = limit.remaining()
            if left is not None:
                if left <= 0:
                    raise socket.timeout("timed out")
                seconds = min(seconds, left)
        return max(seconds, 0.001)

    def expect(self) -> None:
        """Begin to wait for the peer's next bytes."""
        self._silence = Deadline(self._read_timeout)

    def limit(self) -> Optional[float]:
        """Return the seconds left for opening the connection, None without a limit."""
        left = self._opening.remaining()
        return None if left is None else max(left, 0.001)

    def open(self, host: str, port: int) -> socket.socket:
        """Return a connected socket; every address of ``host`` is tried within one deadline."""
        failure: Optional[OSError] = None
        for address in self._resolve(host, port):
            self.step = "connecting (TCP)"
            try:
                return open_tcp(address, port, self._opening, self.hold)
            except Aborted:
                raise
            except OSError as error:
                failure = error
            if self._opening.expired():
                break
        raise failure if failure is not None else socket.timeout("timed out")

    def _resolve(self, host: str, port: int) -> List[str]:
        """Return the addresses of a host, asking in a thread, since a resolver cannot be interrupted.

        A thread whose answer came too late ends when the resolver gives up.
        """
        self.step = "resolving the host name (DNS)"
        found: List[Any] = []
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            failed: List[Exception] = []
            done = threading.Event()

            def ask() -> None:
                try:
                    found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
                except (OSError, UnicodeError) as error:
                    failed.append(error)
                done.set()

            with self._lock:
                self._resolved = done
            threading.Thread(target=ask, name="simplepubsub-resolver", daemon=True).start()
            while not done.wait(self.patience(opening=True)):
                pass
            self.patience(opening=True)  # woken by abort()?
            if failed:
                raise failed[0]  # noqa: B904  # that the name is no address is nobody's concern
        return [str(entry[4][0]) for entry in found]


def _shorter(first: Optional[float], second: Optional[float]) -> Optional[float]:
    given = [value for value in (first, second) if value is not None]
    return max(min(given), 0.001) if given else None


class _Guard:
    """Stands in for the socket of an HTTP connection; everything that is not here goes to the socket itself.

    ``opening`` means that the other end is still a proxy.
    """

    def __init__(self, sock: socket.socket, line: Line, opening: bool = False) -> None:
        self._sock = sock
        self._line = line
        self._opening = opening
        self.file: Optional[io.BufferedReader] = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def makefile(self, *_args: Any, **_keywords: Any) -> io.BufferedReader:
        if not self._opening:
            self._line.step = "waiting for the answer"
        self._line.expect()
        self.file = io.BufferedReader(PatientReader(self._sock, self._patience, self._line.expect), 65536)
        return self.file

    def sendall(self, data: Any, flags: int = 0) -> None:
        if not self._opening:
            self._line.written = True
            self._line.step = "sending the request"
        self._line.expect()
        send_all(self._sock, data, flags, self._patience, self._line.expect)

    def _patience(self) -> Optional[float]:
        return self._line.patience(self._opening)


class _NamedContext:
    """An SSL context that knows the host: urllib3 1.26 does not tell it those that are addresses, and so they fail."""

    def __init__(self, context: ssl_module.SSLContext, host: str) -> None:
        self._context = context
        self._host = host
        self.verify_mode = context.verify_mode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def wrap_socket(self, sock: socket.socket, **keywords: Any) -> ssl_module.SSLSocket:
        keywords.setdefault("server_hostname", self._host)
        return self._context.wrap_socket(sock, **keywords)


class _Guarded:
    """What is added to a connection class of urllib3, in front of it."""

    line: Line
    sock: Any
    _twin: Optional[socket.socket] = None

    def _new_conn(self) -> Any:
        if hasattr(self, "_socks_options"):  # PySocks opens its own, within the timeouts of requests
            self.line.step = "connecting through the SOCKS proxy"
            sock = super()._new_conn()  # type: ignore[misc]
        else:
            sock = self.line.open(self._dns_host, self.port)  # type: ignore[attr-defined]
        # wrap_socket() takes the descriptor away from this object, and abort() must reach the handshake too.
        try:
            self._twin = sock.dup()
            self.line.hold(self._twin)
        except OSError:
            sock.close()
            raise
        self.line.step = "TLS handshake"
        return sock

    def _tunnel(self) -> None:
        self.line.step = "asking the proxy for a tunnel"
        plain = self.sock
        guard = self.sock = _Guard(plain, self.line, opening=True)
        try:
            super()._tunnel()  # type: ignore[misc]
        finally:
            if guard.file is not None:
                guard.file.close()  # older versions of http.client forget it
        self.sock = plain
        plain.settimeout(self.line.limit())
        self.line.step = "TLS handshake"

    def connect(self) -> None:
        context = getattr(self, "ssl_context", None)
        if context is not None and _OLD_URLLIB3:
            host = getattr(self, "_tunnel_host", None) or self.host  # type: ignore[attr-defined]
            self.ssl_context = _NamedContext(context, str(host).strip("[]"))
        try:
            super().connect()  # type: ignore[misc]
            self.sock = _Guard(self.sock, self.line)
            self.line.hold(self.sock._sock)
        except OSError as error:
            close_unfinished(error)
            raise
        finally:
            if self._twin is not None:
                self._twin.close()
                self._twin = None


class _Adapter(HTTPAdapter):
    """An adapter that guards its connections and knows nothing of cookies, .netrc, redirects and retries."""

    def __init__(self, line: Line, context: Optional[ssl_module.SSLContext]) -> None:
        self._line = line
        self._context = context
        self._guarded_classes: Dict[type, type] = {}
        super().__init__(pool_connections=2, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **keywords: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **keywords)

    def proxy_manager_for(self, proxy: Any, **keywords: Any) -> Any:
        if str(proxy).lower().startswith("https"):
            keywords["proxy_ssl_context"] = self._context
        return super().proxy_manager_for(proxy, ssl_context=self._context, **keywords)

    def cert_verify(self, *_args: Any, **_keywords: Any) -> None:
        """Do nothing: the SSL context says what is trusted."""

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        return self.get_connection(request.url, proxies)

    def get_connection(self, url: Any, proxies: Any = None) -> Any:
        proxy = select_proxy(url, proxies)
        manager: Any = self.poolmanager
        if proxy:
            manager = self.proxy_manager_for(proxy if "://" in proxy else "http://" + proxy)
        pool = manager.connection_from_url(url)
        made = type(pool).ConnectionCls
        if made not in self._guarded_classes:
            self._guarded_classes[made] = type(made.__name__, (_Guarded, made), {"line": self._line})
        pool.ConnectionCls = self._guarded_classes[made]
        return pool
