"""Connections of requests that ask before every wait how long it may be, and that another thread can end.

requests and urllib3 limit each wait for a socket, not an exchange, and know no way to wake one that waits. So the
connections of a pool are guarded: opening one, every read and every write ask a `Guardian`. Nothing else of urllib3 is
changed.
"""

from __future__ import annotations

import errno
import functools
import io
import socket
import threading
from typing import Any, List, Optional

import urllib3

from .dial import close_unfinished

__all__ = ["Aborted", "Guardian", "guard_pool"]

#: urllib3 takes these for a server that has answered and closed before it had the whole request. It would go on to read
#: the answer, from a connection that was never made.
_OVERLOOKED = (errno.EPIPE, errno.ECONNRESET, errno.ESHUTDOWN, errno.EPROTOTYPE)

#: Before 2.0.
_OLD_URLLIB3 = not hasattr(urllib3, "BaseHTTPResponse")


class Aborted(OSError):
    """Another thread has ended the exchange."""


class Guardian:
    """What limits the exchanges over guarded connections, and what ends them. `abort` may come from any thread.

    ``step`` says in words where an exchange stands or stood.
    """

    def __init__(self) -> None:
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
        """Close the descriptors of the connections that are kept, and nothing else; no exchange is in progress.

        Session.close() leaves them to the garbage collector (since urllib3 2), which a traceback can hold up. No lock:
        in a forked child another thread of the parent may have held it.
        """
        socks, self._socks = self._socks, []
        for sock in socks:
            sock.close()

    # --- what guarded connections ask ---

    def hold(self, sock: socket.socket) -> None:
        """Remember a socket. Raises Aborted."""
        with self._lock:
            # Closed ones have no descriptor any more.
            self._socks = [known for known in self._socks if known is not sock and known.fileno() >= 0]
            self._socks.append(sock)
        self.check()

    def check(self) -> None:
        """Raise Aborted after `abort`."""
        if self._aborted:
            raise Aborted("the exchange was given up")

    def open(self, host: str, port: int) -> socket.socket:
        """Return a socket that is connected over TCP, and held."""
        raise AssertionError("a guardian must implement open()")

    def opening_timeout(self) -> Optional[float]:
        """Return the seconds left for opening a connection, None without a limit. Raises as `patience` does."""
        raise AssertionError("a guardian must implement opening_timeout()")

    def patience(self, opening: bool) -> Optional[float]:
        """Return the seconds to wait now, None for ever; ``opening`` says that the other end is still a proxy.

        Raises socket.timeout when none is left, and Aborted.
        """
        raise AssertionError("a guardian must implement patience()")

    def moved(self) -> None:
        """Note that bytes have moved, or are about to."""

    def written(self) -> None:
        """Note that the request begins to leave."""


class _GuardedReader(io.RawIOBase):
    """Reads from a socket for as long as the guardian's patience lasts."""

    def __init__(self, sock: socket.socket, guardian: Guardian, opening: bool) -> None:
        self._sock = sock
        self._guardian = guardian
        self._opening = opening
        self._keeper = sock.makefile("rb", buffering=0)  # an open file keeps a closed socket's descriptor

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            self._sock.settimeout(self._guardian.patience(self._opening))
            try:
                count = self._sock.recv_into(buffer)
            except socket.timeout:
                continue  # patience() decides whether that was all
            self._guardian.moved()
            return count

    def close(self) -> None:
        self._keeper.close()
        super().close()


class _GuardedSocket:
    """Stands in for the socket of an HTTP connection; everything that is not here goes to the socket itself."""

    def __init__(self, sock: socket.socket, guardian: Guardian, opening: bool = False) -> None:
        self._sock = sock
        self._guardian = guardian
        self._opening = opening
        self.file: Optional[io.BufferedReader] = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def makefile(self, *_args: Any, **_keywords: Any) -> io.BufferedReader:
        if not self._opening:
            self._guardian.step = "waiting for the answer"
        self._guardian.moved()
        self.file = io.BufferedReader(_GuardedReader(self._sock, self._guardian, self._opening), 65536)
        return self.file

    def sendall(self, data: Any, flags: int = 0) -> None:
        guardian = self._guardian
        if not self._opening:
            guardian.step = "sending the request"
            guardian.written()
        guardian.moved()
        left = memoryview(data).cast("B")
        while left:
            self._sock.settimeout(guardian.patience(self._opening))
            try:
                left = left[self._sock.send(left[:65536], flags) :]
            except socket.timeout:
                continue
            guardian.moved()


class _NamedContext:
    """An SSL context that knows the host: urllib3 1.26 does not tell it those that are addresses, and so they fail."""

    def __init__(self, context: Any, host: str) -> None:
        self._context = context
        self._host = host
        self.verify_mode = context.verify_mode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def wrap_socket(self, sock: socket.socket, **keywords: Any) -> Any:
        keywords.setdefault("server_hostname", self._host)
        return self._context.wrap_socket(sock, **keywords)


class _GuardedConnection:
    """What is added to a connection class of urllib3, in front of it."""

    guardian: Guardian
    sock: Any
    _twin: Optional[socket.socket] = None

    def _new_conn(self) -> Any:
        guardian = self.guardian
        if hasattr(self, "_socks_options"):  # PySocks opens its own, within the timeouts of requests
            guardian.step = "connecting through the SOCKS proxy"
            sock = super()._new_conn()  # type: ignore[misc]
        else:
            guardian.step = "connecting (TCP)"
            sock = guardian.open(self._dns_host, self.port)  # type: ignore[attr-defined]
        # wrap_socket() takes the descriptor away from this object, and abort() must reach the handshake too.
        try:
            self._twin = sock.dup()
            guardian.hold(self._twin)
        except OSError:  # aborted meanwhile
            sock.close()
            raise
        guardian.step = "TLS handshake"
        return sock

    def _tunnel(self) -> None:
        self.guardian.step = "asking the proxy for a tunnel"
        plain = self.sock
        guard = self.sock = _GuardedSocket(plain, self.guardian, opening=True)
        try:
            super()._tunnel()  # type: ignore[misc]
        finally:
            if guard.file is not None:
                guard.file.close()  # Python 3.7 leaves the proxy's answer open, and with it the socket
        self.sock = plain
        plain.settimeout(self.guardian.opening_timeout())
        self.guardian.step = "TLS handshake"

    def connect(self) -> None:
        context = getattr(self, "ssl_context", None)
        if _OLD_URLLIB3 and context is not None and context.check_hostname:
            host = getattr(self, "_tunnel_host", None) or self.host  # type: ignore[attr-defined]
            self.ssl_context = _NamedContext(context, str(host).strip("[]"))
        try:
            super().connect()  # type: ignore[misc]
            self.guardian.hold(self.sock)
            self.sock = _GuardedSocket(self.sock, self.guardian)
        except Exception as error:
            close_unfinished(error)
            if getattr(error, "errno", None) in _OVERLOOKED:
                raise ConnectionAbortedError(str(error)) from error
            raise
        finally:
            if self._twin is not None:
                self._twin.close()
                self._twin = None


@functools.lru_cache(maxsize=64)
def _guarded(connection_class: type) -> type:
    return type(connection_class.__name__, (_GuardedConnection, connection_class), {})


def guard_pool(pool: Any, guardian: Guardian) -> None:
    """Make a pool of urllib3 open guarded connections from now on."""
    guarded = _guarded(type(pool).ConnectionCls)

    def make(*args: Any, **keywords: Any) -> Any:
        connection: Any = guarded(*args, **keywords)
        connection.guardian = guardian
        return connection

    pool.ConnectionCls = make
