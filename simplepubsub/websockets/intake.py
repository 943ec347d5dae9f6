"""The way in of a connection: parsed messages on their way to ``recv``, and when to stop reading.

A full inbox pauses the reading, but not while a send waits for the peer: when both sides only send, each would wait for
the other. What arrives meanwhile is held, up to `HELD_BYTES`; beyond that the connection cannot go on.
"""

from __future__ import annotations

from collections import deque
from typing import Callable, Deque, List

from ..core.inbox import Inbox
from .messages import Data

__all__ = ["Intake"]

#: Received bytes that may wait in the inbox, about; ``max_queue`` bounds the number of messages.
QUEUE_BYTES = 16 * 2**20

#: Bytes that may be held besides while a send waits, about; each message counts for some more than its length.
HELD_BYTES = 16 * 2**20
_OVERHEAD = 100


class Intake:
    """See the module docstring. `inbox` is for consumers in any thread, everything else for the poller's thread.

    ``drained`` is called by a consumer when `refill` should look again.
    """

    def __init__(self, limit: int, drained: Callable[[], None], about_to_wait: Callable[[], None]) -> None:
        self.inbox = Inbox(limit, drained, about_to_wait)
        #: Whether reading should stop.
        self.paused = False
        self._limit = limit  # messages that may wait, given how long they are
        self._held: Deque[Data] = deque()
        self._held_bytes = 0
        self._full = False  # consumers tell when they have made room
        self._dropping = False

    @property
    def overflowing(self) -> bool:
        """Whether more is held than memory should be spent on."""
        return self._held_bytes > HELD_BYTES

    def add(self, messages: List[Data]) -> None:
        """Take messages in their order. Ask `refill` afterwards when `full`."""
        if self._dropping:
            return
        # Few long messages count as much as many short ones. A guess by the longest will do: memory is what matters.
        self._limit = max(1, min(self.inbox.limit, QUEUE_BYTES // (max(map(len, messages)) + 1)))
        if not self._held and len(messages) <= self._limit - len(self.inbox):
            self.inbox.put(messages)
            if len(self.inbox) < self._limit:
                return
        else:
            self._held.extend(messages)
            self._held_bytes += sum(map(len, messages)) + _OVERHEAD * len(messages)
        if not self._full:
            self._full = True
            self.inbox.watch_drain(True)

    @property
    def full(self) -> bool:
        """Whether `refill` has something to decide."""
        return self._full

    def refill(self, read_on: bool) -> None:
        """Move what is held into the inbox, as much as it takes; ``read_on`` says not to pause for the rest."""
        if not self._full:
            return
        inbox, held = self.inbox, self._held
        room = min(len(held), self._limit - len(inbox))
        if room > 0:
            batch = [held.popleft() for _ in range(room)]
            self._held_bytes -= sum(map(len, batch)) + _OVERHEAD * room
            inbox.put(batch)
        if not held and len(inbox) <= self._limit // 4:
            self._full = False
            inbox.watch_drain(False)
        self.paused = self._full and not read_on

    def drop(self) -> None:
        """Take nothing more, and forget what is held: the program has closed and wants no more than the inbox has."""
        self._dropping = True
        self._held.clear()
        self._held_bytes = 0
        self.paused = False

    def close(self, error: Callable[[], BaseException]) -> None:
        """End: what is held can still be received, and then consumers get ``error()``."""
        self._full = self.paused = False
        self.inbox.watch_drain(False)
        while self._held:
            self.inbox.put_always(self._held.popleft())
        self._held_bytes = 0
        self.inbox.close(error)
