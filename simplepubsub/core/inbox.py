"""The queue between the reader thread and whoever waits for messages.

The fast path takes no lock: ``deque.append`` and ``deque.popleft`` are atomic. Waiting and closing use one condition,
a leaf lock: nothing else is ever taken while it is held.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Callable, Deque, Iterable, Optional

from ..exceptions import InboxOverflow, ReceiveTimeout
from .deadline import Deadline, check_timeout, wait

__all__ = ["Inbox"]


class Inbox:
    """A bounded queue with many consumers.

    ``limit`` is the number of items at which the reader should pause (`full`); `put` fails at twice that. ``drained``
    is called by a consumer that finds a quarter of the limit or less while `watch_drain` is on, ``about_to_wait`` by
    one that finds nothing; it may raise.
    """

    def __init__(
        self, limit: int, drained: Callable[[], None], about_to_wait: Optional[Callable[[], None]] = None
    ) -> None:
        self.limit = limit
        self._low = limit // 4
        self._drained = drained
        self._about_to_wait = about_to_wait
        self._items: Deque[Any] = deque()
        self._condition = threading.Condition(threading.Lock())  # guards the next three
        self._waiting = 0
        self._closed: Optional[Callable[[], BaseException]] = None
        self._watching = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether the reader should stop reading until a quarter of the limit is left."""
        return len(self._items) >= self.limit

    @property
    def drained(self) -> bool:
        """Whether a paused reader may go on."""
        return len(self._items) <= self._low

    def put(self, items: Iterable[Any]) -> None:
        """Append a batch in one go. Raises InboxOverflow at twice the limit; the batch is kept even then."""
        with self._condition:
            self._items.extend(items)
            if self._waiting:
                self._condition.notify(len(self._items))
        if len(self._items) >= 2 * self.limit:
            raise InboxOverflow(
                "%d messages wait and nobody receives them: call receive() more often, register a listener, "
                "or raise max_inbox (now %d)" % (len(self._items), self.limit)
            )

    def put_always(self, item: Any) -> None:
        """Append one item whatever the limit says: it is not the peer who decides how many of these there are."""
        with self._condition:
            self._items.append(item)
            if self._waiting:
                self._condition.notify()

    def get(self, timeout: Optional[float] = None) -> Any:
        """Return the next item, waiting up to ``timeout`` seconds (None = no limit). Safe from any thread.

        Raises ReceiveTimeout, or the closing error once a closed inbox is empty, or InvalidArgument for a bad timeout.
        """
        if timeout is not None:
            check_timeout(timeout)
        try:
            item = self._items.popleft()
        except IndexError:
            item = self._wait(timeout)
        if self._watching and len(self._items) <= self._low:
            self._drained()
        return item

    def _wait(self, timeout: Optional[float]) -> Any:
        if self._about_to_wait is not None and timeout != 0:
            self._about_to_wait()
        deadline = Deadline(timeout)
        with self._condition:
            self._waiting += 1
            try:
                while True:
                    try:
                        return self._items.popleft()
                    except IndexError:
                        pass
                    if self._closed is not None:
                        raise self._closed()
                    remaining = deadline.remaining()
                    if remaining is not None and remaining <= 0:
                        raise ReceiveTimeout("no message within %s s" % timeout)
                    wait(self._condition, remaining)
            finally:
                self._waiting -= 1
                if self._items and self._waiting:
                    self._condition.notify()  # Ctrl-C may have hit the one consumer that was told

    def watch_drain(self, on: bool) -> None:
        """Ask for calls of ``drained`` while a quarter of the limit or less is left; there may be several.

        Only the reader switches this off: a consumer that is slow to do so could switch off the reader's next watch.
        """
        self._watching = on

    def open(self) -> None:
        """Accept consumers again."""
        with self._condition:
            self._closed = None

    def close(self, error: Callable[[], BaseException]) -> None:
        """Wake every consumer: what is queued stays readable, after it each gets a new ``error()``."""
        with self._condition:
            self._closed = error
            self._condition.notify_all()
