"""What `SimpleClient.receive` waits on: the events of one namespace, and whether more can come.

One condition, a leaf lock: nothing else is taken while it is held. It is filled from the dispatcher or, without one,
straight from the reader.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Callable, Deque, List, Optional, Sequence

from ..core.deadline import Deadline, wait
from ..exceptions import InboxOverflow
from .exceptions import DisconnectedError, TimeoutError
from .handlers import FINAL
from .names import Reason
from .seams import Connected, Disconnected, Event, Finished

__all__ = ["Mailbox", "ReceivedEvent"]


class ReceivedEvent(list):  # type: ignore[type-arg]  # list is not subscriptable at run time before Python 3.9
    """An event as a list: its name, then its arguments.

    ``wants_ack`` says whether the server waits for an answer; `ack` sends one, once.
    """

    __slots__ = ("_answer", "_event")

    def __init__(self, event: Event, answer: Callable[[Event, Sequence[Any]], bool]) -> None:
        list.__init__(self, event.args)
        self._event = event
        self._answer = answer

    @property
    def name(self) -> Any:
        """The name of the event."""
        return self._event.args[0]

    @property
    def args(self) -> List[Any]:
        """The arguments."""
        return self._event.args[1:]

    @property
    def wants_ack(self) -> bool:
        """Whether the server waits for an answer that was not sent yet."""
        return self._event.id is not None and not self._event.answered

    def ack(self, *values: Any) -> bool:
        """Answer with ``values``; return False if no answer is wanted (any more) or the connection is another by now.

        Raises InvalidArgument for values that cannot be sent.
        """
        return self._answer(self._event, values)


class Mailbox:
    """The observer of a client's dispatcher for ``namespace``; ``answer`` is that of the manager."""

    def __init__(self, namespace: str, answer: Callable[[Event, Sequence[Any]], bool]) -> None:
        self._namespace = namespace
        self._answer = answer
        self._items: Deque[Event] = deque()
        self._condition = threading.Condition(threading.Lock())  # guards the rest
        self._waiting = 0
        self._ended: Optional[Finished] = None

    @property
    def ended(self) -> bool:
        """Whether the connection has ended for good."""
        return self._ended is not None

    def count(self) -> int:
        """Return how many events wait."""
        return len(self._items)

    def observe(self, records: Sequence[Any]) -> None:
        """Take what is for this namespace."""
        namespace = self._namespace
        with self._condition:
            for record in records:
                kind = type(record)
                if kind is Event:
                    if record.namespace == namespace and record.args[0] != FINAL:
                        self._items.append(record)
                elif kind is Finished:
                    if self._ended is None:
                        self._ended = record
                elif kind is Disconnected:
                    # After an overflow the end of the run follows at once, and knows more.
                    over = record.final and record.reason != Reason.INBOX_OVERFLOW
                    if over and record.namespace == namespace and self._ended is None:
                        self._ended = Finished(record.reason, None)
                elif kind is Connected and record.namespace == namespace:
                    self._ended = None
            if self._waiting:
                self._condition.notify_all()

    def get(self, timeout: Optional[float]) -> ReceivedEvent:
        """Return the next event. Raises TimeoutError; DisconnectedError once nothing is left and nothing can come."""
        try:
            return ReceivedEvent(self._items.popleft(), self._answer)
        except IndexError:
            pass
        deadline = Deadline(timeout)
        with self._condition:
            self._waiting += 1
            try:
                while not self._items:
                    if self._ended is not None:
                        raise self._error(self._ended)
                    if deadline.expired():
                        raise TimeoutError("no event within %s s" % timeout)
                    wait(self._condition, deadline.remaining())
                return ReceivedEvent(self._items.popleft(), self._answer)
            finally:
                self._waiting -= 1

    def close(self, reason: str) -> None:
        """Nothing more will come, for ``reason``."""
        self.observe((Finished(reason, None),))

    def _error(self, ended: Finished) -> DisconnectedError:
        text = "the connection has ended for good" + (" (%s)" % ended.reason if ended.reason else "")
        if isinstance(ended.error, InboxOverflow):
            text += ": %s" % ended.error
        error = DisconnectedError(text, reason=ended.reason)
        error.__cause__ = ended.error
        return error
