"""The part of `Server` that says who handles which events."""

from __future__ import annotations

import ssl as ssl_module
from typing import Any, Iterable, Optional, Sequence, Union

from .endpoint import check_hub_name
from .event_routes import DEFAULT_SYSTEM, RETRY_DELAYS, TIMEOUT, EventRoute
from .handlers import Handler, Handlers

__all__ = ["Registration"]


class Registration:
    """Registers event handlers, before or while the server runs. Safe from any thread."""

    def __init__(self) -> None:
        self._handlers = Handlers()

    def on(self, event: str, hub: Optional[str] = None, handler: Optional[Handler] = None) -> Any:
        """Register a function as the handler of an event, for one hub or for all; use it as a call or as a decorator.

        Events: "connect" (gets a `ConnectRequest`; may return a `ConnectReply` or raise `RefuseConnection`),
        "connected", "disconnected", "joined" and "left" (a group), "message" (all frames of simple clients), any other
        user event, and "*" for user events without a function of their own. They get a `ClientEvent`. What a user
        event's handler returns (str, bytes or any JSON value) is sent to the client before the ack; an exception makes
        the ack fail with InternalServerError, and `RefuseEvent` also says why. The handler registered last wins.
        Handlers may block, and run in threads of the server. Functions come before what `add_event_handler` adds.
        """
        if handler is None:
            return lambda function: self.on(event, hub, function)
        if hub is not None:
            check_hub_name(hub)
        self._handlers.on(event, hub, handler)
        return handler

    def add_event_handler(
        self,
        target: Any,
        hub: Optional[str] = None,
        *,
        events: Union[str, Iterable[str], None] = "*",
        system: Union[str, Iterable[str], None] = DEFAULT_SYSTEM,
        timeout: float = TIMEOUT,
        retry_delays: Sequence[float] = RETRY_DELAYS,
        ssl: Optional[ssl_module.SSLContext] = None,
    ) -> EventRoute:
        """Send events as CloudEvents to a URL, or to an object in this process; return what removes it again.

        ``target`` is an http or https URL, in whose path and query ``{hub}`` and ``{event}`` stand for the names, or an
        object with ``handle(method, headers, body) -> (status, headers, body)``, such as an `EventHandler`. Without a
        ``hub`` it is for all hubs. ``events`` are user events: "*", or names as a sequence or with commas, case
        ignored; ``system`` any of connect, connected, disconnected, joined, left. Handlers are tried in the order in
        which they were added, and the first that takes an event gets it.

        A server at a URL is asked first whether it wants events from here (abuse protection). An attempt that fails
        with 408, 5xx or without an answer is repeated after each of ``retry_delays`` seconds, with the same ``ce-id``;
        all attempts together may take ``timeout`` seconds. ``ssl`` replaces the default verification of certificates.
        An object is called once, in a thread of the server. What headers cannot carry, in user ids above all, is
        percent-encoded. Raises InvalidArgument.
        """
        route = EventRoute(
            target,
            None if hub is None else check_hub_name(hub),
            events=events,
            system=system,
            timeout=timeout,
            retry_delays=retry_delays,
            ssl=ssl,
        )
        self._handlers.add(route)
        return route

    def remove_event_handler(self, handler: EventRoute) -> bool:
        """Send no further event to what `add_event_handler` returned; return whether it was still there."""
        return self._handlers.remove(handler)
