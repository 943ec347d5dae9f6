"""The future of one send, made cheap.

``concurrent.futures.Future`` makes a condition for every instance, which is most of what it costs (1.6 us with its
result, of about 11 us for a whole acknowledged send). Most sends are never waited for one by one, so here the condition
is made when somebody first asks for it: to wait, to add a callback, or to hand the future to ``wait`` or
``as_completed``. Until then a result is two assignments.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Callable, List, Optional

__all__ = ["SendFuture"]

# The states of a Future are these strings in every version of Python.
_PENDING, _FINISHED = "PENDING", "FINISHED"

# Guards, for all futures, the step from "nobody waits" to "somebody may": whoever makes the condition sees a result
# that came before, and a result that comes later sees the condition. Leaf lock, held for a few instructions.
_first_interest = threading.Lock()


class SendFuture(Future):  # type: ignore[type-arg]  # Future is not subscriptable at run time before Python 3.9
    """The result of one send: None, or a SendMessageError. ``ack_id`` identifies it (None for fire and forget).

    A callback added with ``add_done_callback`` runs in the reader thread: it must be quick, and may call ``*_nowait``
    methods but nothing that blocks. A send cannot be cancelled: ``cancel()`` returns False.
    """

    def __init__(self, ack_id: Optional[int] = None) -> None:
        # In place of Future.__init__, which would make the condition.
        self.ack_id = ack_id
        self._made: Optional[threading.Condition] = None
        self._state = _PENDING
        self._result: Any = None
        self._exception: Optional[BaseException] = None
        self._waiters: List[Any] = []
        self._done_callbacks: List[Callable[[Any], Any]] = []

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # an attribute in the base class
        made = self._made
        if made is None:
            with _first_interest:
                made = self._made
                if made is None:
                    made = self._made = threading.Condition()
        return made

    def _finished_unseen(self, result: Any, exception: Optional[BaseException]) -> bool:
        """Finish at once if nobody has shown interest; return whether that was so."""
        with _first_interest:
            if self._made is not None:
                return False
            self._result, self._exception = result, exception
            self._state = _FINISHED
            return True

    def set_result(self, result: Any) -> None:
        if not self._finished_unseen(result, None):
            super().set_result(result)

    def set_exception(self, exception: Optional[BaseException]) -> None:
        if not self._finished_unseen(None, exception):
            super().set_exception(exception)

    def done(self) -> bool:
        return self._state == _FINISHED

    def cancel(self) -> bool:
        return False
