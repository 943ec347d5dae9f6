"""Listeners, and the one thread that calls them.

Events are called in order, one at a time, by the dispatcher thread, which lives from the first listener to the stop
of the
client. A listener may call any method of the client, blocking ones included; what it raises is logged with its
traceback, counted, handed to the ``error`` listeners, and stops nothing.
"""

from __future__ import annotations

import inspect
import logging
import threading
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from ..exceptions import InvalidArgument
from .deadline import Deadline, wait
from .inbox import Inbox

__all__ = ["Listeners"]

log = logging.getLogger("simplepubsub.listeners")

Listener = Callable[..., Any]


class ListenerError(NamedTuple):
    """What an ``error`` listener receives: the exception, and the event and listener it came from."""

    error: BaseException
    event: str
    listener: Listener


class _Stop(NamedTuple):
    """The last item of a run; ``argument`` goes to the ``stopped`` listeners if the run ever reached a connection."""

    argument: Any
    announce: bool


def _takes_argument(listener: Listener) -> bool:
    """Return whether ``listener`` wants the event, or nothing. Raises InvalidArgument if it fits neither."""
    if not callable(listener):
        raise InvalidArgument("listener must be callable, not %r" % (listener,))
    if inspect.iscoroutinefunction(listener):
        raise InvalidArgument("listener %r is a coroutine function, which nothing would await" % (listener,))
    try:
        signature = inspect.signature(listener)
    except (TypeError, ValueError):
        return True  # some builtins do not tell
    for count in (1, 0):
        try:
            signature.bind(*[None] * count)
            return count == 1
        except TypeError:
            continue
    raise InvalidArgument("listener %r must take one parameter (the event) or none" % (listener,))


class Listeners:
    """Registry and dispatcher. Every public method is safe from any thread, listeners included."""

    def __init__(self, events: Iterable[str], limit: int, drained: Callable[[], None], name: str) -> None:
        self._events = tuple(events)
        self._name = name
        self._mutex = threading.Lock()  # guards the next seven; never held while a listener runs
        self._table: Dict[str, Tuple[Tuple[Listener, bool], ...]] = {}
        self._thread: Optional[threading.Thread] = None
        self._latest: Optional[threading.Thread] = None  # the same, or the one that may still be ending
        self._running = False
        self._discard = False  # until the next _Stop
        self._stops = 0  # _Stop items queued so far
        self._stops_done = 0  # and handled
        self._changed = threading.Condition(self._mutex)
        self.queue = Inbox(limit, drained)
        self.errors = 0

    def check_event(self, event: str) -> None:
        """Raise InvalidArgument for an unknown event."""
        if event not in self._events:
            raise InvalidArgument("unknown event %r: use one of %s" % (event, ", ".join(self._events)))

    def add(self, event: str, listener: Listener) -> None:
        """Call ``listener`` for every ``event``. Raises InvalidArgument for an unknown event or a bad listener."""
        self.check_event(event)
        entry = (listener, _takes_argument(listener))
        with self._mutex:
            table = dict(self._table)
            table[event] = table.get(event, ()) + (entry,)
            self._table = table  # replaced, not changed: readers need no lock
            self._start_locked()

    def remove(self, event: str, listener: Listener) -> None:
        """Stop calling ``listener``; one registration at a time. Raises InvalidArgument if there is none."""
        self.check_event(event)
        with self._mutex:
            entries = list(self._table.get(event, ()))
            for index, (known, _) in enumerate(entries):
                if known == listener:
                    del entries[index]
                    break
            else:
                raise InvalidArgument("no such listener for %r: %r" % (event, listener))
            table = dict(self._table)
            table[event] = tuple(entries)
            self._table = table

    def has(self, event: str) -> bool:
        """Return whether anyone listens to ``event``."""
        return bool(self._table.get(event))

    @property
    def any(self) -> bool:
        """Return whether anyone listens to anything."""
        return any(self._table.values())

    def emit(self, event: str, argument: Any) -> None:
        """Queue one event, if anyone listens. Never blocks."""
        if self._table.get(event):
            self.queue.put_always((event, argument))

    def emit_many(self, calls: List[Tuple[str, Any]]) -> None:
        """Queue a batch of messages. Raises InboxOverflow as the inbox does."""
        self.queue.put(calls)

    # --- the dispatcher -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The client runs: start the dispatcher if anyone listens, now or as soon as someone does."""
        with self._mutex:
            self._running = True
            self._start_locked()

    def _start_locked(self) -> None:
        if self._running and self._thread is None and self._table:
            thread = threading.Thread(target=self._dispatch, name=self._name + "-dispatcher", daemon=True)
            thread.start()
            self._thread = self._latest = thread

    def stop(self, argument: Any, announce: bool) -> None:
        """The client has stopped: queue ``stopped``, after which the dispatcher ends."""
        with self._mutex:
            self._running = False
            if self._thread is not None:
                self._stops += 1
                self.queue.put_always(_Stop(argument, announce))

    def discard(self) -> Optional[int]:
        """Throw away what is queued for runs that have ended; return about how much, None when there is no such."""
        with self._mutex:
            left = self._stops - self._stops_done
            if not left:
                return None
            self._discard = True  # until the last of them is handled
            return max(0, len(self.queue) - left)

    def join(self, timeout: Optional[float]) -> bool:
        """Wait for the end of every run that was stopped; return whether it came. True at once in a listener.

        The thread has ended then, too, unless the client was started again.
        """
        deadline = Deadline(timeout)
        with self._mutex:
            thread, stops = self._latest, self._stops
            if thread is None or thread is threading.current_thread():
                return True
            while self._stops_done < stops:
                if deadline.expired():
                    return False
                wait(self._changed, deadline.remaining())
            if self._thread is thread:
                return True  # it serves the next run
        thread.join(deadline.remaining())
        return not thread.is_alive()

    def owns_current_thread(self) -> bool:
        """Return whether the caller is a listener."""
        return threading.current_thread() is self._thread

    def _dispatch(self) -> None:
        while True:
            item = self.queue.get()
            if isinstance(item, _Stop):
                if item.announce:
                    self._call("stopped", item.argument)
                with self._mutex:
                    self._stops_done += 1
                    self._changed.notify_all()
                    if self._stops_done == self._stops:
                        self._discard = False
                        if not self._running:
                            self._thread = None
                            return
                continue  # the client was started again
            event, argument = item
            if not self._discard:
                self._call(event, argument)

    def _call(self, event: str, argument: Any) -> None:
        for listener, takes_argument in self._table.get(event, ()):
            try:
                if takes_argument:
                    listener(argument)
                else:
                    listener()
            except BaseException as error:  # user code: whatever it raises must not end the dispatcher
                self.errors += 1
                log.exception("listener %r for %r failed", listener, event)
                if event != "error":
                    self._call("error", ListenerError(error, event, listener))
