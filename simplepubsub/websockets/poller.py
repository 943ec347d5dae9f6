"""One thread that reads, and finishes writes, for any number of connections.

The thread starts with the first member and ends with the last one, so a program that has closed its
connections has no thread of ours left. Client connections share one poller, each server has its own.

What a callback gets done there must not wait: application code runs in application threads.
"""

from __future__ import annotations

import atexit
import heapq
import itertools
import logging
import os
import socket
import threading
import time
import weakref
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from .readiness import READ, WRITE, new_readiness

__all__ = ["READ", "WRITE", "Poller", "Timer"]

log = logging.getLogger("simplepubsub.websockets")

_pollers: "weakref.WeakSet[Poller]" = weakref.WeakSet()

#: Bytes taken from a socket at once; the buffer is shared, so an idle connection holds none of it.
RECEIVE_BYTES = 256 * 1024

#: Longest single wait in seconds: the system refuses very long ones.
LONGEST_WAIT = 3600.0

#: Seconds that the exit of the interpreter may take for what is still to be written.
EXIT_WAIT = 1.0


class Timer:
    """Something to call at a time; `cancel` makes it nothing."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Optional[Callable[[], None]] = callback

    def cancel(self) -> None:
        """Do not call it any more."""
        self.callback = None


class Poller:
    """See the module docstring. `call` is safe from any thread; everything else belongs to the poller's own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._reset()
        _pollers.add(self)

    def _reset(self) -> None:
        """Start from nothing; in a forked child too, which has neither the thread nor a right to its sockets."""
        self._lock = threading.Lock()  # guards the next four; a leaf, held for a few instructions
        self._calls: List[Callable[[], None]] = []
        self._thread: Optional[threading.Thread] = None
        self._woken = False
        self._alarm: Optional[socket.socket] = None
        # Owned by the thread:
        self._readiness: Any = None
        self._members: Set[Any] = set()
        self._watched: Dict[int, Tuple[int, Callable[[int], None]]] = {}
        self._timers: List[Tuple[float, int, Timer]] = []
        self._serial = itertools.count()
        self.view = memoryview(b"")

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller runs in this poller's thread."""
        return self._thread is threading.current_thread()

    def call(self, function: Callable[[], None]) -> None:
        """Run ``function`` in the poller's thread, soon; starts the thread if there is none.

        Raises OSError or RuntimeError when the system has no descriptor or no thread left for that.
        """
        with self._lock:
            if self._thread is None:
                self._start_locked(function)
            else:
                if not self._woken and self._alarm is not None:
                    self._alarm.send(b"x")  # one byte into an empty pair: it cannot block
                    self._woken = True
                self._calls.append(function)

    def _start_locked(self, *functions: Callable[[], None]) -> None:
        readiness = new_readiness()
        try:
            alarm, ear = socket.socketpair()
        except BaseException:
            readiness.close()
            raise
        alarm.setblocking(False)
        ear.setblocking(False)
        readiness.register(ear.fileno(), READ)
        thread = threading.Thread(target=self._run, args=(readiness, alarm, ear), name=self._name, daemon=True)
        self._calls, self._woken = list(functions), False
        self._thread, self._alarm, self._readiness = thread, alarm, readiness
        try:
            thread.start()
        except BaseException as error:
            # After Ctrl-C there may be a thread; it will see that it is not wanted.
            self._thread = self._alarm = self._readiness = None
            if isinstance(error, RuntimeError):
                for thing in (readiness, alarm, ear):
                    thing.close()
            raise

    def add(self, member: Any) -> None:
        """Keep the thread alive for ``member``, which has a method ``fail(error)``."""
        self._members.add(member)

    def remove(self, member: Any) -> None:
        """Let the thread end when nobody else needs it."""
        self._members.discard(member)

    def watch(self, sock: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(events)`` while any of ``events`` is possible; 0 stops that and forgets the socket."""
        descriptor = sock.fileno()
        known = descriptor in self._watched
        if events:
            (self._readiness.modify if known else self._readiness.register)(descriptor, events)
            self._watched[descriptor] = events, callback
        elif known:
            del self._watched[descriptor]
            self._readiness.unregister(descriptor)

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` at a time of the monotonic clock, if there is still a member then."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (when, next(self._serial), timer))
        return timer

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` in that many seconds."""
        return self.at(time.monotonic() + seconds, callback)

    def _run(self, readiness: Any, alarm: socket.socket, ear: socket.socket) -> None:
        me = threading.current_thread()
        with self._lock:
            if self._thread is me:
                self.view = memoryview(bytearray(RECEIVE_BYTES))
        try:
            while self._thread is me and self._turn(ear):
                pass
        except Exception as error:
            log.exception("%s failed, and every connection with it", self._name)
            for member in list(self._members):
                self._guard(member.fail, error)
            with self._lock:
                calls = self._calls
                self._clear_locked()
                if calls:  # of a connection that was made meanwhile, by somebody who has been told
                    self._start_locked(*calls)
        finally:
            # Nothing of this object from here on: it may have a new thread already.
            readiness.close()
            alarm.close()
            ear.close()

    def _clear_locked(self) -> None:
        self._timers = []
        self._watched = {}
        self._members = set()
        self._thread = self._alarm = self._readiness = None
        self.view = memoryview(b"")

    def _turn(self, ear: socket.socket) -> bool:
        """Do what is due and wait for more; return False when there is nothing left to wait for."""
        # No lock for this look: who adds a call later also wakes the select.
        if self._calls or not self._members:
            with self._lock:
                calls, self._calls = self._calls, []
                if not calls and not self._members:
                    self._clear_locked()
                    return False
            for call in calls:
                self._guard(call)
            return True
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        wait = min(LONGEST_WAIT, max(0.0, timers[0][0] - time.monotonic())) if timers else None
        watched = self._watched
        for descriptor, events in self._readiness.poll(wait, len(watched) + 1):
            found = watched.get(descriptor)
            if found is not None:
                # A broken connection may be ready for nothing but that: for its callback it is all that it asked for.
                self._guard(found[1], events & found[0] or found[0])
            elif descriptor == ear.fileno():
                # In this order: whoever calls in between has its call in the list before the lock is ours, and is seen
                # in the next turn. The other way round this could take a byte of somebody who is not seen.
                ear.recv(64)
                with self._lock:
                    self._woken = False
            # Else an earlier callback of this turn has ended it.
        if timers:
            self._fire(time.monotonic())
        return True

    def _fire(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            callback = heapq.heappop(timers)[2].callback
            if callback is not None:
                self._guard(callback)

    def _guard(self, function: Callable[..., None], *args: Any) -> None:
        """Call it; a bug in one connection must not end the others."""
        try:
            function(*args)
        except BaseException as error:  # SystemExit in a callback of a future, for example
            log.exception("a callback of %s failed", self._name)
            owner: Any = getattr(function, "__self__", None)
            if owner in self._members and function != owner.fail:
                self._guard(owner.fail, error)

    def settle(self, timeout: float) -> None:
        """Wait until everything that has been asked for so far is done."""
        done = threading.Event()
        with self._lock:
            running = self._thread is not None
        if running and not self.is_current_thread:
            self.call(done.set)
            done.wait(timeout)


@atexit.register
def _settle_at_exit() -> None:
    """Write what gathered for the poller, which the interpreter does not wait for when it exits."""
    for poller in list(_pollers):
        poller.settle(EXIT_WAIT)


def _reset_after_fork() -> None:
    for poller in list(_pollers):
        poller._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
