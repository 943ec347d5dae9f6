"""Open a TCP connection that another thread can give up at any moment."""

from __future__ import annotations

import socket
from typing import Callable, Optional

from ..core.deadline import Deadline

__all__ = ["open_tcp"]


def open_tcp(host: str, port: int, deadline: Deadline, show: Callable[[socket.socket], None]) -> socket.socket:
    """Return a connected socket, trying every address of ``host`` within one deadline.

    ``show`` is given each socket before it connects: shutting it down makes the attempt fail at once. Raises OSError
    (its kinds say whether the name, the port or the time was the problem).
    """
    failure: Optional[OSError] = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        remaining = deadline.remaining()
        if remaining is not None and remaining <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(remaining)
            show(sock)
            sock.connect(address)
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
