"""What waits for a connection: events emitted while there is none, and events that are sent until they are answered.

Both are pure, and guarded by the manager's lock.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, List, Optional

from .acks import Request
from .exceptions import BufferFull

__all__ = ["OfflineBuffer", "RetryQueue"]


class OfflineBuffer:
    """Events in the order of their emits, of all namespaces, bounded in number and in bytes.

    ``overflow`` says what happens to the one too many: "raise" refuses it, "drop_newest" forgets it, "drop_oldest"
    makes room for it.
    """

    def __init__(self, limit: int, limit_bytes: int, overflow: str) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._overflow = overflow
        self._waiting: Deque[Request] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, request: Request) -> List[Request]:
        """Append ``request``; return the requests that were dropped, itself perhaps. Raises BufferFull."""
        dropped: List[Request] = []
        if request.size > self._limit_bytes or self._full_with(request):
            if self._overflow == "drop_newest":
                return [request]
            if self._overflow == "raise" or request.size > self._limit_bytes or not self._limit:
                raise BufferFull(
                    "%d events (%d bytes) wait for the connection: nothing was queued" % (len(self), self.bytes)
                )
        while self._full_with(request):
            oldest = self._waiting.popleft()
            self.bytes -= oldest.size
            dropped.append(oldest)
        self._waiting.append(request)
        self.bytes += request.size
        return dropped

    def _full_with(self, request: Request) -> bool:
        return len(self._waiting) >= self._limit or self.bytes + request.size > self._limit_bytes

    def take(self, namespace: Optional[str] = None) -> List[Request]:
        """Take out what waits for ``namespace``, or everything."""
        taken = [request for request in self._waiting if namespace is None or request.namespace == namespace]
        if taken:
            self._waiting = deque(r for r in self._waiting if namespace is not None and r.namespace != namespace)
            self.bytes -= sum(request.size for request in taken)
        return taken

    def remove(self, request: Request) -> None:
        """Forget ``request`` if it is here."""
        try:
            self._waiting.remove(request)
        except ValueError:
            return
        self.bytes -= request.size


class RetryQueue:
    """The events of one namespace that are repeated until they are answered; only the first is on its way."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: Deque[Request] = deque()
        self.in_flight = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, request: Request) -> None:
        """Append ``request``. Raises BufferFull."""
        if len(self._waiting) >= self._limit:
            raise BufferFull("%d events wait for the answers of those before: nothing was queued" % len(self))
        self._waiting.append(request)

    def next(self) -> Optional[Request]:
        """Return the request to send now, if it is time for one; it counts as sent."""
        if self.in_flight or not self._waiting:
            return None
        self.in_flight = True
        head = self._waiting[0]
        head.tries += 1
        return head

    def ended(self, request: Request) -> None:
        """Take ``request`` out: answered, given up, or not wanted any more."""
        if self._waiting and self._waiting[0] is request:
            self._waiting.popleft()
            self.in_flight = False
        else:
            try:
                self._waiting.remove(request)
            except ValueError:
                pass

    def missed(self) -> Optional[Request]:
        """The try on its way is lost; return the request if that was its last, taken out."""
        if not self.in_flight:
            return None
        self.in_flight = False
        head = self._waiting[0]
        if head.tries <= head.retries:
            return None
        return self._waiting.popleft()

    def take(self) -> List[Request]:
        """Take everything out."""
        taken, self._waiting = list(self._waiting), deque()
        self.in_flight = False
        return taken
