"""The connections that a service client keeps, and who may use which.

A call borrows a `Line` for itself, so that nothing of requests is ever shared by two threads; lines that are given back
keep their connection for the next call. A forked child starts with none: an inherited connection is the parent's.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Callable, Dict, Generic, Iterator, List, Optional, Set, TypeVar

from ..core.deadline import Deadline
from ..exceptions import ClientStateError
from .service_wire import Line

__all__ = ["Lines", "PerProcess"]

#: Unused lines that are kept; those of a burst of threads are closed when it is over.
MAX_IDLE = 8

#: Longest single wait in seconds, for the sake of Ctrl-C on Windows.
_SLICE = 0.1

_Kind = TypeVar("_Kind")


class PerProcess(Generic[_Kind]):
    """One object for each process that uses it, made when first asked for. Safe from any thread and after a fork.

    No lock guards it: a fork may happen while another thread holds one, and the child would wait for ever. ``drop`` is
    called in the child with what it inherited.
    """

    def __init__(self, make: Callable[[], _Kind], drop: Callable[[_Kind], None]) -> None:
        self._make = make
        self._drop = drop
        self._made: Dict[int, _Kind] = {}

    def get(self) -> _Kind:
        """Return the object of this process."""
        pid = os.getpid()
        found = self._made.get(pid)
        if found is None:
            for other in [key for key in self._made if key != pid]:
                inherited = self._made.pop(other, None)
                if inherited is not None:
                    self._drop(inherited)
            # setdefault() is one step: of two threads that made one, both get the first.
            found = self._made.setdefault(pid, self._make())
        return found


class Lines:
    """The lines of one process. Every method is safe from any thread."""

    def __init__(self, make: Callable[[], Line]) -> None:
        self._make = make
        self._lock = threading.Lock()  # guards the next two; leaf
        self._idle: List[Line] = []
        self._busy: Set[Line] = set()
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Line]:
        """Lend a line for one exchange; one that ends with an exception is not used again.

        Raises ClientStateError when the client is closed.
        """
        with self._lock:
            line: Optional[Line] = None
            if not self._closed.is_set():
                line = self._idle.pop() if self._idle else self._make()
                self._busy.add(line)
        if line is None:
            raise ClientStateError("the service client is closed: make a new one")
        fit = False
        try:
            yield line
            fit = True
        finally:
            with self._lock:
                self._busy.discard(line)
                kept = fit and not self._closed.is_set() and len(self._idle) < MAX_IDLE
                if kept:
                    self._idle.append(line)
            if not kept:
                line.close()

    def pause(self, seconds: float) -> bool:
        """Wait that long, or until the client is closed; return whether it is closed."""
        deadline = Deadline(seconds)
        while not deadline.expired():
            if self._closed.wait(min(_SLICE, deadline.remaining() or 0.0)):
                return True
        return self._closed.is_set()

    def forget(self) -> None:
        """Close the descriptors of all lines, without any lock: in a forked child, of which they are not."""
        for line in self._idle + list(self._busy):
            line.release()

    def close(self) -> None:
        """Close every line; exchanges in progress fail at once."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for line in idle:
            line.close()
        for line in busy:
            line.abort()
