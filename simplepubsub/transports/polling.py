"""HTTP over requests that another thread can end at any moment.

requests limits each wait for the socket, not an exchange, and knows no way to wake one that waits. So the connections
of a session are guarded: opening one, every read and every write ask a `Wire` how long they may wait, and the wire
can shut down the socket that they use. Nothing else of requests is changed: sessions of the user and their adapters
keep doing what they do, on twins that share their settings.
"""

from __future__ import annotations

import io
import socket
import threading
from typing import Any, Callable, Dict, List, Optional

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.util.retry import Retry

from ..core.deadline import Deadline
from .dial import close_unfinished
from .patient import Aborted, PatientReader, send_all
from .tcp import open_tcp

__all__ = ["Aborted", "Wire", "twin_session"]


class Wire:
    """What limits the exchanges of one session of requests, and what ends them. `abort` may come from any thread.

    ``limit`` returns the seconds that are left for the exchange in progress, None without a limit; it is asked again
    whenever they are over, so it may also give less than the whole. ``connect_timeout`` limits opening a connection.
    ``step`` says in words where an exchange stands or stood.
    """

    def __init__(self, connect_timeout: Optional[float] = None) -> None:
        self.limit: Callable[[], Optional[float]] = _no_limit
        self.connect_timeout = connect_timeout
        self.step = "connecting"
        self._lock = threading.Lock()  # guards the next two; leaf
        self._socks: List[socket.socket] = []  # what abort() shuts down; a redirect may leave more than one
        self._aborted = False

    @property
    def aborted(self) -> bool:
        """Whether `abort` was called."""
        return self._aborted

    def abort(self) -> None:
        """Make the exchange in progress, and every later one, fail at once. Any thread, any number of times."""
        with self._lock:
            self._aborted = True
            socks = list(self._socks)
        for sock in socks:
            try:
                # Not sock.shutdown(): TLS would forget its state, and the reader with it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except (OSError, ValueError):
                pass  # closed, or not connected yet: the shutdown still ends the attempt to

    def release(self) -> None:
        """Close the connections that are kept; no exchange is in progress.

        Session.close() leaves them to the garbage collector (since urllib3 2), which a traceback can hold up.
        """
        with self._lock:
            socks, self._socks = self._socks, []
        for sock in socks:
            sock.close()

    # --- what the guarded connections ask ---

    def hold(self, sock: socket.socket) -> None:
        """Remember a socket. Raises Aborted."""
        with self._lock:
            # Closed ones have no descriptor any more.
            self._socks = [known for known in self._socks if known is not sock and known.fileno() >= 0]
            self._socks.append(sock)
            if self._aborted:
                raise Aborted("the exchange was given up")

    def patience(self) -> Optional[float]:
        """Return the seconds to wait now, None for ever. Raises socket.timeout when none is left, and Aborted."""
        if self._aborted:
            raise Aborted("the exchange was given up")
        left = self.limit()
        if left is not None and left <= 0:
            raise socket.timeout("timed out")
        return None if left is None else max(left, 0.001)

    def connecting(self) -> Deadline:
        """Return the deadline of a connection that is opened now. Raises as `patience` does."""
        given = [value for value in (self.connect_timeout, self.patience()) if value is not None]
        return Deadline(min(given) if given else None)


def _no_limit() -> Optional[float]:
    return None


class _Guard:
    """Stands in for the socket of an HTTP connection; everything that is not here goes to the socket itself."""

    def __init__(self, sock: socket.socket, wire: Wire) -> None:
        self._sock = sock
        self._wire = wire
        self._file: Optional[io.BufferedReader] = None

    def drop(self) -> None:
        """Close the socket, whoever still reads from it."""
        if self._file is not None:
            self._file.close()
        self._sock.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def makefile(self, *_args: Any, **_keywords: Any) -> io.BufferedReader:
        self._wire.step = "waiting for the answer"
        self._file = io.BufferedReader(PatientReader(self._sock, self._wire.patience), 65536)
        return self._file

    def sendall(self, data: Any, flags: int = 0) -> None:
        self._wire.step = "sending the request"
        send_all(self._sock, data, flags, self._wire.patience)


class _Guarded:
    """What is added to a connection class of urllib3, in front of it."""

    wire: Wire
    sock: Any
    _twin: Optional[socket.socket] = None

    def _new_conn(self) -> Any:
        wire = self.wire
        if hasattr(self, "_socks_options"):  # PySocks opens its own, within the timeouts of requests
            wire.step = "connecting through the SOCKS proxy"
            sock = super()._new_conn()  # type: ignore[misc]
        else:
            wire.step = "connecting (TCP)"
            host = self._dns_host  # type: ignore[attr-defined]
            sock = open_tcp(host, self.port, wire.connecting(), wire.hold)  # type: ignore[attr-defined]
        # wrap_socket() takes the descriptor away from this object, and abort() must reach the handshake too.
        try:
            self._twin = sock.dup()
            wire.hold(self._twin)
        except OSError:  # aborted meanwhile
            sock.close()
            raise
        wire.step = "TLS handshake"
        return sock

    def _tunnel(self) -> None:
        self.wire.step = "asking the proxy for a tunnel"
        plain = self.sock
        guard = self.sock = _Guard(plain, self.wire)
        try:
            super()._tunnel()  # type: ignore[misc]
        except Exception:
            guard.drop()  # Python 3.7 leaves the proxy's answer open, and with it the socket
            raise
        self.sock = plain
        plain.settimeout(self.wire.connecting().remaining())
        self.wire.step = "TLS handshake"

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
            self.wire.hold(self.sock)
            self.sock = _Guard(self.sock, self.wire)
        except Exception as error:
            close_unfinished(error)
            raise
        finally:
            if self._twin is not None:
                self._twin.close()
                self._twin = None


def _guard_pools(manager: Any, wire: Wire) -> None:
    """Make the pools of a manager of urllib3 open guarded connections."""
    guarded: Dict[str, type] = {}
    for scheme, pool in manager.pool_classes_by_scheme.items():
        made = pool.ConnectionCls
        connection = type(made.__name__, (_Guarded, made), {"wire": wire})
        guarded[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": connection})
    manager.pool_classes_by_scheme = guarded


def _twin_adapter(adapter: BaseAdapter, wire: Wire) -> BaseAdapter:
    """Return an adapter with the settings of ``adapter`` and guarded connections of its own.

    One that does not open connections through urllib3 (a mock, say) is used as it is: a wait in there cannot be ended.
    """
    if not isinstance(adapter, HTTPAdapter):
        return adapter
    # Not copy(): that keeps only what HTTPAdapter itself knows, and subclasses need what they were made with.
    twin: Any = object.__new__(type(adapter))
    twin.__dict__.update(adapter.__dict__)
    twin.proxy_manager = {}
    twin.max_retries = Retry(0, read=False)  # a second GET or POST would end the session; reconnection tries again
    given: Any = adapter
    twin.init_poolmanager(given._pool_connections, given._pool_maxsize, block=given._pool_block)
    _guard_pools(twin.poolmanager, wire)
    make = twin.proxy_manager_for

    def proxy_manager_for(proxy: Any, **keywords: Any) -> Any:
        known = proxy in twin.proxy_manager
        manager = make(proxy, **keywords)
        if not known:
            _guard_pools(manager, wire)
        return manager

    twin.proxy_manager_for = proxy_manager_for
    return twin  # type: ignore[no-any-return]


def twin_session(session: requests.Session, wire: Wire) -> requests.Session:
    """Return a session that behaves like ``session``, has cookies and connections of its own, and obeys ``wire``.

    ``session`` may be of any subclass and is not changed; its hooks and its auth object are shared.
    """
    twin: Any = object.__new__(type(session))
    twin.__dict__.update(session.__dict__)
    twin.headers = type(session.headers)(session.headers)  # type: ignore[call-arg]
    twin.cookies = session.cookies.copy()
    twin.proxies = dict(session.proxies)
    twin.hooks = {name: list(found) for name, found in session.hooks.items()}
    adapters = type(session.adapters)()
    for prefix, adapter in session.adapters.items():  # their order is the order of the search
        adapters[prefix] = _twin_adapter(adapter, wire)
    twin.adapters = adapters
    return twin  # type: ignore[no-any-return]
