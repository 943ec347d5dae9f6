"""Whether this process is still the one in which an object was made."""

from __future__ import annotations

import os

__all__ = ["Birthplace"]

_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):  # elsewhere there is no fork
    os.register_at_fork(after_in_child=_forked)


class Birthplace:
    """Remembers the process that makes it. Safe from any thread.

    Costs no system call, unlike ``os.getpid()``, so that every call of a connection can afford to ask.
    """

    __slots__ = ("_forks",)

    def __init__(self) -> None:
        self._forks = _forks

    @property
    def left(self) -> bool:
        """Whether this is a child that was forked since."""
        return self._forks != _forks
