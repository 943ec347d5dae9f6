"""The part of `Client` that registers: handlers, class namespaces, listeners for everything, hooks."""

from __future__ import annotations

from typing import Any, Callable, Optional

from ..exceptions import InvalidArgument
from .handlers import Function, Handlers, check_handler
from .namespace import ClientNamespace

__all__ = ["Registering"]


class Registering:
    """Every method may be called at any time from any thread; what is on its way may still be handled as before."""

    logger: Any

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def is_asyncio_based(self) -> bool:
        """Return False."""
        return False

    def on(
        self, event: Any, handler: Optional[Function] = None, namespace: Optional[str] = None, *, add: bool = False
    ) -> Any:
        """Make ``handler`` the handler of an event, in place of the one before, or with ``add`` beside it.

        ``handler(*args)`` gets what the server sent; what it returns is the acknowledgement, if the server wants one:
        nothing for None, several values for a tuple (with several handlers, the first that is not None). "connect" has
        no arguments, "connect_error" the reason, "disconnect" the reason, and with a second parameter what the server
        sent along. "*" as event is any without handler of its own: ``handler(event, *args)``; "*" as namespace any
        without function handlers: ``handler(namespace, *args)``; both: ``handler(event, namespace, *args)``.

        Without ``handler`` it is a decorator. Returns the handler. Raises InvalidArgument.
        """
        if handler is None:
            return lambda function: self._handlers.on(event, function, namespace, add=add)
        return self._handlers.on(event, handler, namespace, add=add)

    def once(self, event: Any, handler: Optional[Function] = None, namespace: Optional[str] = None) -> Any:
        """Call ``handler`` for the next such event only, beside the handlers that are there. Also a decorator."""
        if handler is None:
            return lambda function: self._handlers.on(event, function, namespace, once=True)
        return self._handlers.on(event, handler, namespace, once=True)

    def off(
        self, event: Any = None, handler: Optional[Function] = None, namespace: Optional[str] = None
    ) -> int:
        """Remove a handler, all handlers of an event, or with no event all of the namespace; return how many."""
        return self._handlers.off(event, handler, namespace)

    def event(self, *args: Any, **kwargs: Any) -> Any:
        """Decorate a handler whose name is the event's; ``@client.event(namespace="/chat")`` has options of `on`."""
        if len(args) == 1 and not kwargs and callable(args[0]):
            return self.on(args[0].__name__, args[0])

        def register(function: Function) -> Any:
            check_handler(function)
            return self.on(function.__name__, function, *args, **kwargs)

        return register

    def register_namespace(self, namespace_handler: ClientNamespace) -> None:
        """Make an instance of a `ClientNamespace` subclass the handler of its namespace. Raises ValueError for another.

        Function handlers for the same event come first.
        """
        if not isinstance(namespace_handler, ClientNamespace):
            raise InvalidArgument("not an instance of a ClientNamespace subclass: %r" % (namespace_handler,))
        namespace_handler._set_client(self)
        self._handlers.register(namespace_handler.namespace, namespace_handler)

    def on_any(self, handler: Optional[Function] = None, namespace: Optional[str] = None) -> Any:
        """Call ``handler(event, *args)`` for every event of a namespace, before its handlers. Also a decorator.

        "*" is every namespace: ``handler(event, namespace, *args)``.
        """
        if handler is None:
            return lambda function: self.on_any(function, namespace)
        return self._handlers.incoming.add(self._handlers.key(namespace), handler)

    def off_any(self, handler: Optional[Function] = None, namespace: Optional[str] = None) -> int:
        """Remove one listener of `on_any`, or all of the namespace; return how many."""
        return self._handlers.incoming.remove(self._handlers.key(namespace), handler)

    def on_any_outgoing(self, handler: Optional[Function] = None, namespace: Optional[str] = None) -> Any:
        """Call ``handler`` as `on_any` does, for every event that is emitted and accepted, in the emitting thread."""
        if handler is None:
            return lambda function: self.on_any_outgoing(function, namespace)
        return self._handlers.outgoing.add(self._handlers.key(namespace), handler)

    def off_any_outgoing(self, handler: Optional[Function] = None, namespace: Optional[str] = None) -> int:
        """Remove one listener of `on_any_outgoing`, or all of the namespace; return how many."""
        return self._handlers.outgoing.remove(self._handlers.key(namespace), handler)

    def hook(self, name: str, handler: Optional[Function] = None) -> Any:
        """Call ``handler`` when something happens that is no event of a server. Also a decorator.

        "reconnect_attempt" (number), "reconnect_error" (error), "reconnect" (number of attempts), "reconnect_failed"
        (), and "error" (error, event, namespace) when a handler or callback raised.
        """
        self._handlers.check_hook(name)
        if handler is None:
            return lambda function: self._handlers.hook(name, function)
        return self._handlers.hook(name, handler)

    def unhook(self, name: str, handler: Optional[Function] = None) -> int:
        """Remove one handler of a hook, or all; return how many."""
        return self._handlers.unhook(name, handler)

    def _sent(self, event: Any, namespace: str, args: Any) -> None:
        """Log an emit and tell the listeners for outgoing events."""
        self.logger.info('Emitting event "%s" [%s]', event, namespace)
        outgoing = self._handlers.outgoing
        if not outgoing:
            return
        calls = [(listener, (event, *args)) for listener in outgoing.get(namespace)]
        calls += [(listener, (event, namespace, *args)) for listener in outgoing.get("*")]
        for listener, arguments in calls:
            self._tell(listener, arguments, event, namespace)

    def _tell(self, listener: Callable[..., Any], arguments: Any, event: Any, namespace: str) -> None:
        try:
            listener(*arguments)
        except Exception as error:  # the event is on its way: its sender must not think otherwise
            self.logger.exception("a listener for outgoing events failed: %r", listener)
            for hook in self._handlers.hooks("error"):
                hook(error, event, namespace)
