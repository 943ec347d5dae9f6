"""Time: one budget per public call, on the monotonic clock, spent over all its inner waits."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import Future
from typing import Any, Optional

from ..exceptions import InvalidArgument

__all__ = ["Deadline", "acquire", "check_timeout", "wait", "wait_done"]

# Waits of the main thread are cut into slices (seconds), for Ctrl-C. On Windows it cannot interrupt a wait at all.
# Elsewhere it can, but for one moment: a signal between the interpreter's last look and the system call is noticed only
# when the call returns.
_SLICE = 0.1 if sys.platform == "win32" else 1.0

#: A limit longer than this (seconds) is none: the system's calls refuse numbers that large, infinity among them.
LONGEST = 1e6


def check_timeout(timeout: Optional[float], name: str = "timeout") -> None:
    """Raise InvalidArgument unless ``timeout`` is None or a number of seconds of at least zero."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise InvalidArgument("%s must be None or a number of seconds >= 0, not %r" % (name, timeout))


class Deadline:
    """A point in time that all waits of one call share; ``timeout`` None means never."""

    __slots__ = ("_end",)

    def __init__(self, timeout: Optional[float]) -> None:
        check_timeout(timeout)
        self._end = None if timeout is None or timeout > LONGEST else time.monotonic() + timeout

    def remaining(self) -> Optional[float]:
        """Return the seconds left, at least 0, or None without a limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def expired(self) -> bool:
        """Return whether the time is used up."""
        return self._end is not None and time.monotonic() >= self._end


def wait(condition: threading.Condition, timeout: Optional[float]) -> None:
    """Wait on ``condition`` for at most ``timeout`` seconds, interruptibly; it may return early, so loop."""
    limit = _SLICE if threading.current_thread() is threading.main_thread() else threading.TIMEOUT_MAX
    condition.wait(limit if timeout is None else min(timeout, limit))


def wait_done(future: Future[Any], deadline: Deadline) -> bool:
    """Wait until ``future`` is done or the deadline has come, interruptibly; return whether it is done.

    The documented ``result(timeout)`` cannot be interrupted on Windows.
    """
    condition = future._condition
    with condition:
        while not future.done():
            remaining = deadline.remaining()
            if remaining is not None and remaining <= 0:
                return False
            wait(condition, remaining)
    return True


def acquire(lock: threading.Lock, timeout: Optional[float]) -> None:
    """Take ``lock``, waiting as `wait` does; it may return early without it, so the caller looks for itself."""
    limit = _SLICE if threading.current_thread() is threading.main_thread() else threading.TIMEOUT_MAX
    lock.acquire(timeout=limit if timeout is None else min(timeout, limit))
