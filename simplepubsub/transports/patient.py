"""Reading and writing a socket for as long as somebody else allows it, asked anew before every wait.

requests limits each wait for a socket, not an exchange, and cannot be woken. What stands in front of its sockets
(`polling`, the service client) uses these: ``patience()`` returns the seconds to wait now, None for ever, or raises,
and ``moved()`` is told whenever bytes have moved.
"""

from __future__ import annotations

import io
import socket
from typing import Any, Callable, Optional

__all__ = ["Aborted", "PatientReader", "send_all"]

Patience = Callable[[], Optional[float]]


class Aborted(OSError):
    """Another thread has ended the exchange."""


def _nothing() -> None:
    """Nobody wants to know."""


class PatientReader(io.RawIOBase):
    """Reads from a socket for as long as ``patience`` lasts."""

    def __init__(self, sock: socket.socket, patience: Patience, moved: Callable[[], None] = _nothing) -> None:
        self._sock = sock
        self._patience = patience
        self._moved = moved
        self._keeper = sock.makefile("rb", buffering=0)  # an open file keeps a closed socket's descriptor

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            self._sock.settimeout(self._patience())
            try:
                count = self._sock.recv_into(buffer)
            except socket.timeout:
                continue  # patience() decides whether that was all
            self._moved()
            return count

    def close(self) -> None:
        self._keeper.close()
        super().close()


def send_all(
    sock: socket.socket, data: Any, flags: int, patience: Patience, moved: Callable[[], None] = _nothing
) -> None:
    """Write everything, for as long as ``patience`` lasts."""
    left = memoryview(data).cast("B")
    while left:
        sock.settimeout(patience())
        try:
            left = left[sock.send(left[:65536], flags) :]
        except socket.timeout:
            continue
        moved()
