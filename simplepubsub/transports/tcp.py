"""Open a TCP connection, or one to a Unix socket, that another thread can give up at any moment."""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import Callable, Optional

from ..core.deadline import Deadline

__all__ = ["open_tcp", "open_unix"]

_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


def open_tcp(host: str, port: int, deadline: Deadline, show: Callable[[socket.socket], None]) -> socket.socket:
    """Return a connected socket, trying every address of ``host`` within one deadline.

    ``show`` is given each socket once it is connecting: shutting it down makes the attempt fail at once. Raises OSError
    (its kinds say whether the name, the port or the time was the problem), and what ``show`` raises.
    """
    failure: Optional[OSError] = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if deadline.expired():
            break
        sock = socket.socket(family, kind, protocol)
        try:
            _connect(sock, address, deadline, show)
            # A send must not wait for the acknowledgement of the one before (Nagle): messages are small and latency
            # counts.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure if failure is not None else socket.timeout("timed out")


def open_unix(path: str, deadline: Deadline, show: Callable[[socket.socket], None]) -> socket.socket:
    """Return a socket connected to the Unix socket at ``path``; as `open_tcp`. Raises OSError where there are none."""
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this system has no Unix sockets")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _connect(sock, path, deadline, show)
        return sock
    except BaseException:
        sock.close()
        raise


def _connect(sock: socket.socket, address: object, deadline: Deadline, show: Callable[[socket.socket], None]) -> None:
    # Not a blocking connect(): whoever gives up between show() and connect() would shut down a socket that does not
    # connect yet, which has no effect, and the attempt would take all its time.
    sock.setblocking(False)
    code = sock.connect_ex(address)  # type: ignore[arg-type]
    if code not in _IN_PROGRESS:
        raise OSError(code, os.strerror(code))
    show(sock)
    if not _writable(sock, deadline.remaining()):
        raise socket.timeout("timed out")
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    sock.getpeername()  # OSError when it was shut down instead
    sock.settimeout(deadline.remaining())


def _writable(sock: socket.socket, timeout: Optional[float]) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        return bool(poll.poll(None if timeout is None else timeout * 1000))
    # Windows, where a failed attempt shows in the third set only.
    return any(select.select([], [sock], [sock], timeout))
