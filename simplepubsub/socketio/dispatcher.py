"""The one thread that calls handlers and callbacks, in the order in which things happened.

It lives from the first record that anybody is registered for to the end of the run. What a handler raises is logged
with its traceback, handed to the "error" hook, and stops nothing.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..core.deadline import Deadline, wait
from .handlers import FINAL, Handlers, call_fitting
from .packet import pack_args
from .seams import Answer, Connected, Delegate, Disconnected, Event, Finished, Lifecycle, Refused

__all__ = ["Dispatcher"]

Observer = Callable[[Sequence[Any]], None]


class Dispatcher(Delegate):
    """The delegate of a client's manager.

    ``answer`` is set to `Manager.answer` by the client. ``observer``, if set, gets every record after its handlers, but
    for events that have one; it is quick, calls nothing and takes no lock but a leaf, because while nothing is
    registered, and so no thread runs, it is called from inside `deliver`. It is where a `Mailbox` listens.
    """

    def __init__(self, handlers: Handlers, logger: Any, name: str = "simplepubsub-socketio") -> None:
        self._handlers = handlers
        self._logger = logger
        self._name = name
        self.answer: Callable[[Event, Sequence[Any]], Any] = lambda event, values: None
        self.observer: Optional[Observer] = None
        self.kept: Callable[[], int] = int  # how many events the observer keeps
        self._condition = threading.Condition(threading.Lock())  # a leaf; guards what follows
        self._queue: List[Any] = []
        self._thread: Optional[threading.Thread] = None
        self._latest: Optional[threading.Thread] = None  # the same, or the one that may still be ending
        self._idle = False
        self._waiting = 0
        self._delivered = 0
        self._events = 0
        self._runs = 0
        self._runs_done = 0
        self._handled = self._events_handled = 0  # written by the dispatcher only
        # The dispatcher's own:
        self._lost: Dict[str, None] = {}  # namespaces that are away and may come back
        self._talks = False

    # --- for the manager ----------------------------------------------------------------------------------------------

    def started(self) -> None:
        with self._condition:
            self._runs += 1

    def deliver(self, records: Sequence[Any]) -> None:
        with self._condition:
            if self._thread is None and self._handlers.empty and not self._talkative():
                # Nobody is to be called for these: no thread is needed, and none is made.
                if self.observer is not None:
                    self.observer(records)
                ends = sum(isinstance(record, Finished) for record in records)
                records = [record for record in records if type(record) is Answer]
                if not records:
                    self._runs_done += ends
                    return
                if ends:
                    records.append(_QUIET_END)
            self._queue += records
            self._delivered += len(records)
            self._events += sum([type(record) is Event for record in records])
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name + "-dispatcher", daemon=True)
                thread.start()
                self._thread = self._latest = thread
            elif self._idle:
                self._condition.notify_all()

    def settle(self, deadline: Deadline) -> bool:
        with self._condition:
            target = self._delivered
            if threading.current_thread() in (self._thread, self._latest):
                return True
            self._waiting += 1
            try:
                while self._handled < target:
                    if deadline.expired():
                        return False
                    wait(self._condition, deadline.remaining())
            finally:
                self._waiting -= 1
            thread = self._latest
            if thread is None or self._runs_done < self._runs:
                return True
        thread.join(deadline.remaining())
        return not thread.is_alive()

    def owns_current_thread(self) -> bool:
        """Return whether the caller is a handler or a callback."""
        return threading.current_thread() is self._thread

    @property
    def pending(self) -> int:
        """The number of records that wait for their handlers."""
        return len(self._queue)

    @property
    def backlog(self) -> int:
        return self._events - self._events_handled + self.kept()

    def _talkative(self) -> bool:
        enabled = getattr(self._logger, "isEnabledFor", None)
        return True if enabled is None else bool(enabled(logging.INFO))

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        condition = self._condition
        while True:
            with condition:
                while not self._queue:
                    if self._runs_done >= self._runs:
                        self._thread = None
                        return
                    self._idle = True
                    condition.wait()
                self._idle = False
                batch, self._queue = self._queue, []
            self._talks = self._talkative()
            for record in batch:
                self._handle(record)
                self._handled += 1
                if self._waiting:
                    with condition:
                        condition.notify_all()

    def _handle(self, record: Any) -> None:
        kind = type(record)
        if kind is Event:
            self._events_handled += 1
            if self._event(record):
                return
        elif kind is Answer:
            self._guard("a callback", "", record.callback, [(record.error, record.values)])
        elif kind is Connected:
            self._lost.pop(record.namespace, None)
            self._logger.info("Namespace %s is connected", record.namespace)
            self._trigger("connect", record.namespace, [()])
        elif kind is Refused:
            self._logger.info("Connection to namespace %s was rejected", record.namespace)
            self._trigger("connect_error", record.namespace, _refusals(record.data))
        elif kind is Disconnected:
            self._disconnected(record)
        elif kind is Lifecycle:
            for hook in self._handlers.hooks(record.name):
                self._guard("the hook %r" % record.name, "", hook, [record.args])
        elif kind is Finished:
            for namespace in list(self._lost):
                self._trigger(FINAL, namespace, [()])
            self._lost.clear()
        if self.observer is not None and record is not _QUIET_END:
            self.observer((record,))
        if kind is Finished:
            with self._condition:
                self._runs_done += 1

    def _disconnected(self, record: Disconnected) -> None:
        self._logger.info("Namespace %s is disconnected: %s", record.namespace, record.reason)
        # A handler without parameter is of the time before reasons; one with two asks for what the server sent along.
        reason = record.reason
        self._trigger("disconnect", record.namespace, [(reason,), (reason, record.data), ()])
        if record.final:
            self._lost.pop(record.namespace, None)
            self._trigger(FINAL, record.namespace, [()])
        else:
            self._lost[record.namespace] = None

    def _event(self, record: Event) -> bool:
        """Call the handlers of an event; return whether there was one, even if it failed."""
        name, args, namespace = record.args[0], record.args[1:], record.namespace
        if name == FINAL:
            return True  # a server cannot end anything by that
        if self._talks:
            self._logger.info('Received event "%s" [%s]', name, namespace)
        handlers = self._handlers
        if handlers.incoming:
            for listener in handlers.incoming.get(namespace):
                self._guard(name, namespace, listener, [(name, *args)])
            for listener in handlers.incoming.get("*"):
                self._guard(name, namespace, listener, [(name, namespace, *args)])
        entries, first, _ = handlers.find(name, namespace)
        if len(entries) == 1 and not first and not entries[0].once:  # nearly always
            found = True
            handled, value = self._guard(name, namespace, entries[0].function, (args,))
        else:
            found, handled, value = self._trigger(name, namespace, [args])
        if handled and record.id is not None:
            self._guard(name, namespace, self.answer, [(record, pack_args(value))])
        return found

    def _trigger(self, event: Any, namespace: str, choices: Sequence[Sequence[Any]]) -> Tuple[bool, bool, Any]:
        """Call the handlers of an event; return whether there is one, one that did not fail, and the first value."""
        entries, first, where = self._handlers.find(event, namespace)
        handled, value = False, None
        if entries:
            for entry in entries:
                if entry.once and not self._handlers.claim(entry, where[1], where[0]):
                    continue
                with_first = [(*first, *args) for args in choices] if first else choices
                done, result = self._guard(event, namespace, entry.function, with_first)
                handled = handled or done
                value = result if value is None else value
            return True, handled, value
        target, first = self._handlers.object_for(namespace)
        if target is None:
            return False, False, None
        target.missed = False
        arguments = [event, *first, *choices[0]]
        done, value = self._guard(event, namespace, target.trigger_event, [arguments])
        return True, done and not target.missed, value

    def _guard(self, event: Any, namespace: str, function: Any, choices: Sequence[Sequence[Any]]) -> Tuple[bool, Any]:
        """Call user code; return whether it returned, and what."""
        try:
            return True, function(*choices[0]) if len(choices) == 1 else call_fitting(function, choices)
        except BaseException as error:  # user code: whatever it raises must not end the dispatcher
            place = " [%s]" % namespace if namespace else ""
            self._logger.exception("the handler of %s%s failed: %r", event, place, function)
            for hook in self._handlers.hooks("error"):
                try:
                    hook(error, event, namespace)
                except BaseException:  # the same
                    self._logger.exception("the hook for errors failed: %r", hook)
            return False, None


def _refusals(data: Any) -> List[Tuple[Any, ...]]:
    """Return the argument lists for a ``connect_error`` handler: as python-socketio passes them, or what else fits."""
    if data is None:
        return [(), (None,)]
    if isinstance(data, (list, tuple)):
        return [tuple(data), (data,), ()]
    return [(data,), ()]


_QUIET_END = Finished("", None)
