"""Who is called for an event: functions, catch-alls, class namespaces, listeners for everything, hooks.

Lookups take no lock: tables are replaced, not changed. Every method may be called from any thread.
"""

from __future__ import annotations

import inspect
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..exceptions import InvalidArgument
from .packet import check_namespace

__all__ = ["FINAL", "HOOKS", "RESERVED", "Handler", "Handlers", "Listeners", "call_fitting"]

Function = Callable[..., Any]
EventName = Union[str, int, float]

#: python-socketio's name for "this namespace will not come back".
FINAL = "__disconnect_final"

#: What a catch-all event handler is not called for, and a server cannot trigger.
RESERVED = frozenset(["connect", "connect_error", "disconnect", FINAL])

#: What `Handlers.hook` accepts.
HOOKS = ("reconnect_attempt", "reconnect_error", "reconnect", "reconnect_failed", "error")


class Handler(NamedTuple):
    """A function and whether it is for one event only."""

    function: Function
    once: bool = False


Entries = Tuple[Handler, ...]
Table = Dict[str, Dict[EventName, Entries]]


def check_handler(function: Any) -> None:
    """Raise InvalidArgument for what cannot be called, or whose result nothing would await."""
    if not callable(function):
        raise InvalidArgument("a handler must be callable, not %r" % (function,))
    if inspect.iscoroutinefunction(function):
        raise InvalidArgument("the handler %r is a coroutine function, which nothing would await" % (function,))


def call_fitting(function: Function, choices: Sequence[Sequence[Any]]) -> Any:
    """Call ``function`` with the first of several argument lists that fits its signature, or with the first of all.

    Looks instead of trying: a TypeError from inside the function must not call it again.
    """
    if len(choices) > 1:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            return function(*choices[0])  # some builtins do not tell
        for args in choices:
            try:
                signature.bind(*args)
            except TypeError:
                continue
            return function(*args)
    return function(*choices[0])


class Listeners:
    """Functions by a key, several for each; those for "*" hear of every key, after those of the key itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table: Dict[str, Tuple[Function, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._table)

    def keys(self) -> List[str]:
        """Return the keys with a listener, in the order of the first."""
        return list(self._table)

    def add(self, key: str, function: Function) -> Function:
        """Add ``function`` and return it."""
        check_handler(function)
        with self._lock:
            table = dict(self._table)
            table[key] = table.get(key, ()) + (function,)
            self._table = table
        return function

    def remove(self, key: str, function: Optional[Function]) -> int:
        """Remove one registration of ``function``, or all of ``key``; return how many."""
        with self._lock:
            before = self._table.get(key, ())
            left: Tuple[Function, ...] = ()
            if function is not None:
                left = before
                if function in before:
                    index = before.index(function)
                    left = before[:index] + before[index + 1:]
            table = {name: entry for name, entry in self._table.items() if name != key}
            if left:
                table[key] = left
            self._table = table
        return len(before) - len(left)

    def get(self, key: str) -> Tuple[Function, ...]:
        """Return the functions for exactly ``key``."""
        return self._table.get(key, ())


class Handlers:
    """All of them for one client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table: Table = {}
        self._objects: Dict[str, Any] = {}
        self.incoming = Listeners()
        self.outgoing = Listeners()
        self._hooks = Listeners()

    @property
    def empty(self) -> bool:
        """Whether nothing that arrives would call anything."""
        return not (self._table or self._objects or self.incoming or self._hooks)

    @staticmethod
    def key(namespace: Optional[str]) -> str:
        """Return the name under which a namespace is kept. Raises InvalidArgument."""
        return "*" if namespace == "*" else check_namespace(namespace)

    # --- registration -------------------------------------------------------------------------------------------------

    def on(
        self,
        event: EventName,
        function: Function,
        namespace: Optional[str] = None,
        *,
        once: bool = False,
        add: bool = False,
    ) -> Function:
        """Make ``function`` the handler of ``event``, or with ``add`` one more of them; return it.

        "*" stands for any event, and as a namespace for any that has no function handler of its own. Raises
        InvalidArgument.
        """
        check_handler(function)
        if isinstance(event, bool) or not isinstance(event, (str, int, float)):
            raise InvalidArgument("an event name must be a string, not %r" % (event,))
        key = self.key(namespace)
        with self._lock:
            events = dict(self._table.get(key, {}))
            before = events.get(event, ()) if add or once else ()
            events[event] = before + (Handler(function, once),)
            self._table = dict(self._table, **{key: events})
        return function

    def off(
        self, event: Optional[EventName] = None, function: Optional[Function] = None, namespace: Optional[str] = None
    ) -> int:
        """Remove handlers: one function, all of an event, or all of a namespace; return how many there were."""
        key = self.key(namespace)
        with self._lock:
            events = self._table.get(key, {})
            left: Dict[EventName, Entries] = {}
            for name, entries in events.items():
                if event is not None and name != event:
                    left[name] = entries
                elif function is not None:
                    kept = tuple(entry for entry in entries if entry.function != function)
                    if kept:
                        left[name] = kept
            self._replace_locked(key, left)
            return _count(events) - _count(left)

    def claim(self, handler: Handler, event: EventName, namespace: str) -> bool:
        """Take a handler for one event only out; return False if it is gone already."""
        with self._lock:
            events = dict(self._table.get(namespace, {}))
            entries = events.pop(event, ())
            if not any(entry is handler for entry in entries):
                return False
            kept = tuple(entry for entry in entries if entry is not handler)
            if kept:
                events[event] = kept
            self._replace_locked(namespace, events)
            return True

    def _replace_locked(self, key: str, events: Dict[EventName, Entries]) -> None:
        table = {name: entries for name, entries in self._table.items() if name != key or events}
        if events:
            table[key] = events
        self._table = table

    def register(self, namespace: str, handler: Any) -> None:
        """Make an object the class-based handler of a namespace."""
        with self._lock:
            self._objects = dict(self._objects, **{self.key(namespace): handler})

    def hook(self, name: str, function: Function) -> Function:
        """Call ``function`` for one of `HOOKS`. Raises InvalidArgument."""
        self.check_hook(name)
        return self._hooks.add(name, function)

    def unhook(self, name: str, function: Optional[Function]) -> int:
        """Remove one function, or all; return how many."""
        self.check_hook(name)
        return self._hooks.remove(name, function)

    def check_hook(self, name: str) -> None:
        """Raise InvalidArgument for an unknown hook."""
        if name not in HOOKS:
            raise InvalidArgument("unknown hook %r: use one of %s" % (name, ", ".join(HOOKS)))

    # --- lookup -------------------------------------------------------------------------------------------------------

    def namespaces(self) -> List[str]:
        """Return the namespaces that anything is registered for, in order, without "*"; "/" if there is none."""
        names: List[str] = []
        for table in (self._table, self._objects, self.incoming.keys()):
            names += [name for name in table if name != "*" and name not in names]
        return names or ["/"]

    def find(self, event: EventName, namespace: str) -> Tuple[Entries, Tuple[Any, ...], Tuple[str, EventName]]:
        """Return the function handlers of an event, the arguments to put before its own, and where they are registered.

        In order: the namespace's own, its catch-all; only where the namespace has no function at all, those of the
        namespace "*". Catch-alls do not get the reserved events.
        """
        events = self._table.get(namespace)
        if events is not None:
            where, first = namespace, _NOTHING
        else:
            events = self._table.get("*")
            if events is None:
                return _NOBODY
            where, first = "*", (namespace,)
        if event != "*":  # a server may call an event that
            entries = events.get(event)
            if entries:
                return entries, first, (where, event)
        if event not in RESERVED:
            entries = events.get("*")
            if entries:
                return entries, (event,) + first, (where, "*")
        return _NOBODY

    def object_for(self, namespace: str) -> Tuple[Any, Tuple[Any, ...]]:
        """Return the class-based handler of a namespace, or None, and the arguments to put before an event's own."""
        found = self._objects.get(namespace)
        if found is not None:
            return found, ()
        return self._objects.get("*"), (namespace,)

    def hooks(self, name: str) -> Tuple[Function, ...]:
        """Return the functions of a hook."""
        return self._hooks.get(name)


_NOTHING: Tuple[Any, ...] = ()
_NOBODY: Tuple[Entries, Tuple[Any, ...], Tuple[str, EventName]] = ((), (), ("", ""))


def _count(events: Dict[EventName, Entries]) -> int:
    return sum(len(entries) for entries in events.values())
