"""One HTTP exchange within one deadline, over requests, that another thread can end at any moment.

A peer that sends a byte now and then must not hold a call for ever: the connections are guarded, and a `Line` says how
much time is left.
"""

from __future__ import annotations

import socket
import ssl as ssl_module
import sys
import threading
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy

from ..core.deadline import Deadline
from ..transports.guarded import Aborted, Guardian, guard_pool
from ..transports.tcp import open_tcp

__all__ = ["Answer", "Line"]

#: Longest single wait in seconds, after which signals are looked at: Ctrl-C cannot interrupt a wait on Windows.
_SLICE = 0.1 if sys.platform == "win32" else 1.0

#: Longest answer that is read, in bytes; a page of 200 connections has some 50,000.
MAX_ANSWER_BYTES = 16 * 2**20


class Answer(NamedTuple):
    """What came back; ``headers`` ignores case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class Line(Guardian):
    """An adapter of requests with at most one connection, for one exchange at a time.

    ``step`` and ``has_begun`` tell where an exchange stands or stood. Only `abort` may be called from another thread.
    """

    def __init__(self, context: Optional[ssl_module.SSLContext]) -> None:
        super().__init__()
        self.has_begun = False  # the request has begun to leave
        self._adapter = _Adapter(self, context)
        self._whole = Deadline(None)  # the call
        self._opening = Deadline(None)  # this connection
        self._silence = Deadline(None)  # the peer
        self._read_timeout: Optional[float] = None
        self._resolved = threading.Event()  # guarded by ``_lock``

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
        self.step, self.has_begun = "connecting", False
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
        self.release()  # urllib3 1.26 forgets one whose answer broke off

    def abort(self) -> None:
        with self._lock:
            resolved = self._resolved
            self._aborted = True
        resolved.set()
        super().abort()

    # --- what guarded connections ask ---

    def patience(self, opening: bool = False) -> float:
        self.check()
        seconds = _SLICE
        for limit in (self._whole, self._silence) + ((self._opening,) if opening else ()):
            left = limit.remaining()
            if left is not None:
                if left <= 0:
                    raise socket.timeout("timed out")
                seconds = min(seconds, left)
        return max(seconds, 0.001)

    def moved(self) -> None:
        self._silence = Deadline(self._read_timeout)

    def written(self) -> None:
        self.has_begun = True

    def opening_timeout(self) -> Optional[float]:
        left = self._opening.remaining()
        return None if left is None else max(left, 0.001)

    def open(self, host: str, port: int) -> socket.socket:
        """Do so; every address of ``host`` is tried within one deadline."""
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


class _Adapter(HTTPAdapter):
    """An adapter that guards its connections and knows nothing of cookies, .netrc, redirects and retries."""

    def __init__(self, line: Line, context: Optional[ssl_module.SSLContext]) -> None:
        self._line = line
        self._context = context
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
        guard_pool(pool, self._line)
        return pool
