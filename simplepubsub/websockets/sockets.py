"""Non-blocking bytes over TCP, Unix sockets and TLS: what the poller reads from and everybody writes to."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any, List, Optional

__all__ = ["PlainSocket", "TlsSocket", "wrap"]


class PlainSocket:
    """A connected socket whose calls never wait."""

    #: Whether bytes may be left that the system does not report, so that reading goes on until nothing comes.
    buffers = False

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        #: Whether a write was interrupted in a way that leaves open how much went out.
        self.torn = False

    def receive(self, view: memoryview) -> Optional[int]:
        """Fill ``view`` and return the number of bytes, 0 at the end of the stream, None when nothing is there yet.

        Raises OSError.
        """
        try:
            return self.sock.recv_into(view)
        except (BlockingIOError, InterruptedError):
            return None

    def send(self, data: bytes, done: List[int]) -> None:
        """Write what fits and append to ``done`` how many bytes that was. Raises OSError."""
        try:
            # The system call and the note of what it did are one step for the interpreter, with no place for Ctrl-C
            # between them: what has been sent is known whenever an exception comes.
            done.extend(map(self.sock.send, (data,)))
        except (BlockingIOError, InterruptedError):
            pass  # nothing fits

    def half_close(self) -> None:
        """Tell the peer that nothing more will be written."""
        self._shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection and free the descriptor; a forked child that has a copy of it does not keep it open."""
        self._shutdown(socket.SHUT_RDWR)
        try:
            self.sock.close()
        except OSError:
            pass  # a reset that surfaces here; the descriptor is free all the same

    def _shutdown(self, how: int) -> None:
        try:
            # The method of the base class: on TLS SSLSocket.shutdown() would drop the TLS state, and what still
            # arrives with it.
            socket.socket.shutdown(self.sock, how)
        except OSError:
            pass  # the peer was faster


class TlsSocket(PlainSocket):
    """The same over TLS.

    OpenSSL allows one thread at a time in one connection object, so each call runs under a leaf lock and returns at
    once.
    """

    buffers = True

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        self._tls: Any = sock
        self._lock = threading.Lock()  # guards the TLS state; never held while waiting

    def receive(self, view: memoryview) -> Optional[int]:
        with self._lock:
            try:
                return int(self._tls.recv_into(view))
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            except ssl.SSLEOFError:
                return 0

    def send(self, data: bytes, done: List[int]) -> None:
        # After "want write" OpenSSL insists on the same data again, so whoever writes next must not skip any.
        with self._lock:
            try:
                done.append(self._tls.send(data))
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except Exception:
                raise
            except BaseException:
                self.torn = True
                raise


def wrap(sock: socket.socket) -> PlainSocket:
    """Return the adapter for a connected socket, of either kind."""
    return TlsSocket(sock) if isinstance(sock, ssl.SSLSocket) else PlainSocket(sock)
