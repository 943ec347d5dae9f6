"""When an Engine.IO session counts as dead (protocol reference 1.9): a deadline as data, no thread and no timer."""

from __future__ import annotations

import sys
import time
from typing import Callable, Optional

__all__ = ["Heartbeat", "awake_clock"]


def _boot_time() -> Optional[Callable[[], float]]:
    """Return a clock that goes on while the machine sleeps, if `time.monotonic` does not and the system has one."""
    name = "CLOCK_BOOTTIME" if sys.platform.startswith("linux") else "CLOCK_MONOTONIC"
    number = getattr(time, name, None)
    if number is None or not hasattr(time, "clock_gettime"):
        return None  # Windows, where time.monotonic() goes on
    try:
        time.clock_gettime(number)
    except OSError:
        return None
    return lambda: time.clock_gettime(number)


#: Seconds that never run backwards and go on while the machine sleeps: `time.monotonic` stands still then on Linux and
#: macOS. Not the time of day, which an administrator or a time server may move.
awake_clock: Callable[[], float] = _boot_time() or time.monotonic


class Heartbeat:
    """The server sends pings; silence for ``interval + timeout`` seconds means that it, or the way to it, is gone.

    Everything that arrives counts as a sign of life: behind one long message no ping can come through. Safe from any
    thread: one attribute is replaced.
    """

    __slots__ = ("_clock", "_end", "limit")

    def __init__(self, interval: float, timeout: float, clock: Callable[[], float] = awake_clock) -> None:
        self.limit = interval + timeout
        self._clock = clock
        self._end = clock() + self.limit

    def heard(self) -> None:
        """Note a sign of life."""
        self._end = self._clock() + self.limit

    def remaining(self) -> float:
        """Return the seconds left, 0 when the session is dead."""
        return max(0.0, self._end - self._clock())

    def expired(self) -> bool:
        """Return whether nothing was heard for too long, the time that this machine slept included."""
        return self._clock() >= self._end
