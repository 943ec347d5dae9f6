"""What was emitted and may be answered: requests, who waits for them, and when they are late.

Pure but for the `Waiter`; everything else is guarded by the manager's lock.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import Any, Callable, List, Optional, Tuple

from ..core.deadline import Deadline, acquire
from .exceptions import TimeoutError
from .seams import Answer, Message

__all__ = ["OnAnswer", "Request", "Timers", "Waiter", "late"]

#: Called with the error (None if there is none) and the values of the ack.
OnAnswer = Callable[[Optional[BaseException], List[Any]], Any]

# Cancelled timers that are kept before the heap is cleaned.
_STALE = 64


class Waiter:
    """Where one thread waits for one answer, which is set from under the manager's lock.

    A bare lock that the answer releases: a condition costs several times as much, and calls are waited for.
    """

    __slots__ = ("_gate", "done", "error", "values")

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self.done = False
        self.error: Optional[BaseException] = None
        self.values: List[Any] = []

    def set(self, error: Optional[BaseException], values: List[Any]) -> None:
        """Hand over the answer; the first counts."""
        if not self.done:
            self.error, self.values, self.done = error, values, True
            self._gate.release()

    def wait(self, deadline: Deadline) -> bool:
        """Wait for the answer; return whether there is one."""
        while not self.done:
            remaining = deadline.remaining()
            if remaining is not None and remaining <= 0:
                return False
            acquire(self._gate, remaining)
        return True


class Request:
    """One emit: what goes out, and who wants to know what came of it.

    ``group`` is encoded when the emit is called, so that later changes to the data have no effect, and everything that
    is wrong with it is raised there. A request that is tried again keeps its id: an id is never used for another
    request of this client, so the answer to any of its tries is an answer to it.
    """

    __slots__ = (
        "ack_timeout", "group", "id", "namespace", "on_answer", "retries", "sent", "settled", "size", "tries", "waiter",
        "when",
    )

    def __init__(
        self,
        namespace: str,
        group: List[Message],
        id: Optional[int] = None,
        on_answer: Optional[OnAnswer] = None,
        waiter: Optional[Waiter] = None,
        ack_timeout: Optional[float] = None,
        retries: int = 0,
    ) -> None:
        self.namespace = namespace
        self.group = group
        self.size = len(group[0]) if len(group) == 1 else sum(map(len, group))
        self.id = id
        self.on_answer = on_answer
        self.waiter = waiter
        self.ack_timeout = ack_timeout
        self.retries = retries
        self.tries = 0
        self.sent = False
        self.settled = False
        self.when: Optional[float] = None  # of its timer, on the monotonic clock

    def settle(self, error: Optional[BaseException], values: List[Any]) -> List[Answer]:
        """End the request, once: wake its waiter, and return what is to be delivered for its callback."""
        if self.settled:
            return []
        self.settled = True
        self.when = None
        if self.waiter is not None:
            self.waiter.set(error, values)
        return [] if self.on_answer is None else [Answer(self.on_answer, error, values)]


def late(request: Request) -> TimeoutError:
    """Return the error for a request whose time is up."""
    if not request.tries:
        return TimeoutError("not sent in time: the namespace %s is not connected" % request.namespace)
    times = "" if request.tries == 1 else " to any of %d tries" % request.tries
    return TimeoutError("no answer%s from %s in time" % (times, request.namespace))


class Timers:
    """Which request is late next."""

    def __init__(self) -> None:
        self._heap: List[Tuple[float, int, Request]] = []
        self._order = itertools.count()
        self._limit = _STALE

    def add(self, request: Request, when: float) -> bool:
        """Set the timer of ``request``, in place of one it has; return whether it is the next of all."""
        request.when = when
        heapq.heappush(self._heap, (when, next(self._order), request))
        if len(self._heap) > self._limit:  # most are answered long before: do not keep them until then
            self._heap = [entry for entry in self._heap if entry[2].when == entry[0]]
            heapq.heapify(self._heap)
            self._limit = _STALE + 2 * len(self._heap)
        return self._heap[0][2] is request

    def next(self) -> Optional[float]:
        """Return when the next request is late."""
        heap = self._heap
        while heap and heap[0][2].when != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now: float) -> List[Request]:
        """Take the requests that are late now out."""
        found: List[Request] = []
        while True:
            when = self.next()
            if when is None or when > now:
                return found
            request = heapq.heappop(self._heap)[2]
            request.when = None
            found.append(request)

    def __len__(self) -> int:
        return len(self._heap)
