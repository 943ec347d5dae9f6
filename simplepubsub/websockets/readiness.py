"""Which sockets can be read or written: the system's epoll where there is one, what `selectors` finds elsewhere.

``selectors`` would do everywhere, and takes twice the time of the system call itself, time in which a message waits.
"""

from __future__ import annotations

import select
import selectors
from typing import Any, List, Optional, Tuple

__all__ = ["READ", "WRITE", "PortableReadiness", "new_readiness"]

#: The system's EPOLLIN and EPOLLOUT.
READ, WRITE = 0x001, 0x004

_TO_SELECTORS = {
    READ: selectors.EVENT_READ,
    WRITE: selectors.EVENT_WRITE,
    READ | WRITE: selectors.EVENT_READ | selectors.EVENT_WRITE,
}
_FROM_SELECTORS = {theirs: ours for ours, theirs in _TO_SELECTORS.items()}


class PortableReadiness:
    """What the poller uses of ``select.epoll``, on any system. Belongs to one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.unregister = self._selector.unregister
        self.close = self._selector.close

    def register(self, descriptor: int, events: int) -> None:
        """Ask for any of ``events`` of a new descriptor. Raises OSError."""
        self._selector.register(descriptor, _TO_SELECTORS[events])

    def modify(self, descriptor: int, events: int) -> None:
        """Ask for other events. Raises OSError."""
        self._selector.modify(descriptor, _TO_SELECTORS[events])

    def poll(self, timeout: Optional[float], most: int) -> List[Tuple[int, int]]:
        """Return (descriptor, events) of what is ready, waiting up to ``timeout`` seconds (None: no limit)."""
        return [(key.fd, _FROM_SELECTORS[events]) for key, events in self._selector.select(timeout)]


def new_readiness() -> Any:
    """Return an empty ``select.epoll`` or `PortableReadiness`. Raises OSError."""
    return select.epoll() if hasattr(select, "epoll") else PortableReadiness()
