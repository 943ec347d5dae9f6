"""Python event handlers: what users register with ``server.on``, and how it is called.

Handlers are ordinary blocking functions. They run in a few threads of their own; calls for one connection never overlap
and keep their order: connected, its events, disconnected. Different connections run side by side.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..exceptions import InvalidArgument, MessageTooLarge, RefuseConnection, RemoteProtocolError, ServerError
from ..webpubsub.json_fields import EVENT_NAME, encode_data
from .session import Call, Session
from .wire import Outgoing
from .work import Work
from .workers import Workers

__all__ = ["ClientEvent", "ConnectReply", "ConnectRequest", "Dispatcher", "Handlers", "RefuseConnection", "outgoing"]

log = logging.getLogger("simplepubsub.server")

Handler = Callable[..., Any]

_SYSTEM_EVENTS = ("connect", "connected", "disconnected")


class ConnectRequest(NamedTuple):
    """A client that asks to be let in, as a "connect" handler sees it.

    ``user_id``, ``roles`` and ``groups`` are what its token says; ``claims`` the whole token, ``query`` and ``headers``
    the request without its token, as lists of strings; ``subprotocols`` what the client offers.
    """

    hub: str
    connection_id: str
    user_id: Optional[str]
    roles: Tuple[str, ...]
    groups: Tuple[str, ...]
    claims: Mapping[str, Any]
    query: Mapping[str, List[str]]
    headers: Mapping[str, List[str]]
    subprotocols: Sequence[str]


class ConnectReply(NamedTuple):
    """What a "connect" handler may return (a dict with these keys does as well); None keeps what the token says.

    ``roles`` replaces the token's, ``groups`` too unless empty; ``subprotocol`` must be one that the client offers;
    ``state`` becomes ``event.state`` of all later events.
    """

    user_id: Optional[str] = None
    groups: Optional[Sequence[str]] = None
    roles: Optional[Sequence[str]] = None
    subprotocol: Optional[str] = None
    state: Optional[Dict[str, Any]] = None


class ClientEvent:
    """What a handler of "connected", "disconnected" or a user event gets.

    ``event`` is its name; ``data`` (str, bytes or any JSON value) and ``data_type`` belong to user events, ``reason``
    to "disconnected". ``state`` is a dict that the handlers of this connection share; ``hub`` is a name, and
    ``server.hub(event.hub)`` sends from a handler.
    """

    __slots__ = ("connection_id", "data", "data_type", "event", "hub", "reason", "state", "user_id")

    def __init__(self, call: Call) -> None:
        session, command = call.session, call.event
        self.hub = session.hub.name
        self.connection_id = session.connection_id
        self.user_id = session.user_id
        self.state = session.state
        self.event = call.kind if command is None else command.event
        self.data = None if command is None else command.data
        self.data_type = None if command is None else command.data_type
        self.reason = call.reason

    def __repr__(self) -> str:
        return "<ClientEvent %s hub=%s from %s user=%r>" % (self.event, self.hub, self.connection_id, self.user_id)


class Handlers:
    """The registered handlers, by event and hub. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table: Dict[Tuple[str, Optional[str]], Handler] = {}  # replaced, never changed, under _lock

    def on(self, event: str, hub: Optional[str], handler: Handler) -> None:
        """Register the handler of an event, in place of an earlier one. Raises InvalidArgument."""
        if not isinstance(event, str) or not (EVENT_NAME.match(event) or event == "*"):
            raise InvalidArgument(
                "event must be 'connect', 'connected', 'disconnected', '*' or the name of a user event (a letter, then "
                "letters, digits, '_', '.' or '-'; at most 128), not %r" % (event,)
            )
        if not callable(handler):
            raise InvalidArgument("a handler must be callable, not %r" % (handler,))
        with self._lock:
            table = dict(self._table)
            table[event.lower(), None if hub is None else hub.lower()] = handler
            self._table = table

    def clear(self) -> None:
        """Forget every handler."""
        with self._lock:
            self._table = {}

    def find(self, event: str, hub: str) -> Optional[Handler]:
        """Return the handler of an event in a hub: this hub's before any hub's, by name before "*" (user events)."""
        table = self._table
        if not table:
            return None
        name = event.lower()
        found = table.get((name, hub)) or table.get((name, None))
        if found is None and name not in _SYSTEM_EVENTS:
            found = table.get(("*", hub)) or table.get(("*", None))
        return found


def outgoing(
    group: Optional[str], user_id: Optional[str], data: Any, data_type: Optional[str], limit: int, ttl: float = 0
) -> Outgoing:
    """Return a message to deliver, checked: its data type (None infers it), that the data fits, and its size.

    Raises InvalidArgument or MessageTooLarge.
    """
    if data_type is None:
        if isinstance(data, str):
            data_type = "text"
        else:
            data_type = "binary" if isinstance(data, (bytes, bytearray, memoryview)) else "json"
    elif data_type not in ("text", "json", "binary", "protobuf"):
        raise InvalidArgument("data_type must be 'text', 'json', 'binary', 'protobuf' or None, not %r" % (data_type,))
    data_type = str(data_type)
    encoded = encode_data(data, data_type)
    size = len(data) if data_type in ("binary", "protobuf") else len(encoded.encode("utf-8", "backslashreplace"))
    if size > limit:
        text = "the message has %d bytes, at most %d are allowed" % (size, limit)
        raise MessageTooLarge(text, size=size, limit=limit)
    if isinstance(data, (bytearray, memoryview)):
        data = bytes(data)
    return Outgoing(group, user_id, data, data_type, ttl)


class Dispatcher:
    """Calls handlers for the pump: one call per session at a time, in order. Belongs to the server's loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handlers: Handlers,
        workers: Workers,
        work: Work,
        finished: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._handlers = handlers
        self._workers = workers
        self._work = work
        self._finished = finished  # something has been queued, and waiting events may fit now

    def dispatch(self, call: Call) -> None:
        """Start the call, or queue it behind earlier ones of its session."""
        session = call.session
        session.calls.append(call)
        if not session.in_call:
            self._next(session)

    def _next(self, session: Session) -> None:
        session.in_call = False
        while session.calls:
            call = session.calls[0]
            event = call.kind if call.event is None else call.event.event
            handler = self._handlers.find(event, session.hub.name)
            if handler is not None:
                session.in_call = True
                self._workers.submit(functools.partial(handler, ClientEvent(call)), functools.partial(self._done, call))
                return
            session.calls.popleft()
            if call.event is not None:
                text = "no handler for the event %s in hub %s" % (event, session.hub.name)
                log.warning("%s: register one with server.on(%r)", text, event)
                session.hub.finish_event(session, call.event, None, text, self._loop.time())
        self._finished()

    def _done(self, call: Call, result: Any, error: Optional[BaseException]) -> None:
        """Take over a result in the worker's thread."""
        reply: Optional[Outgoing] = None
        if error is None and result is not None and call.event is not None:
            try:
                reply = outgoing(None, None, result, None, self._work.limits.max_message_bytes)
            except InvalidArgument as problem:
                error = problem
        if error is not None:
            log.error("the handler of %s failed", call.kind if call.event is None else call.event.event, exc_info=error)
        try:
            self._loop.call_soon_threadsafe(self._finish, call, reply, error)
        except RuntimeError:
            log.debug("the server stopped while a handler ran")

    def _finish(self, call: Call, reply: Optional[Outgoing], error: Optional[BaseException]) -> None:
        session = call.session
        session.calls.popleft()
        if call.event is not None:
            text = None if error is None else "the event handler failed: %s" % type(error).__name__
            now = self._loop.time()
            try:
                session.hub.finish_event(session, call.event, reply, text, now)
            except RemoteProtocolError as problem:
                session.hub.finish_event(session, call.event, None, str(problem), now)
        self._next(session)

    async def connect(self, request: ConnectRequest) -> Optional[ConnectReply]:
        """Ask the "connect" handler, if there is one. Raises RefuseConnection: its own, or with 500 if it failed."""
        handler = self._handlers.find("connect", request.hub)
        if handler is None:
            return None
        loop = self._loop
        future: "asyncio.Future[Any]" = loop.create_future()

        def settle(result: Any, error: Optional[BaseException]) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            elif isinstance(error, Exception):
                future.set_exception(error)
            else:
                future.set_exception(ServerError("the connect handler raised %s" % type(error).__name__))

        def done(result: Any, error: Optional[BaseException]) -> None:
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                log.debug("the server stopped while the connect handler ran")

        self._workers.submit(functools.partial(handler, request), done)
        try:
            return _connect_reply(await future, request)
        except RefuseConnection:
            raise
        except Exception as problem:
            log.error("the connect handler failed", exc_info=problem)
            raise RefuseConnection(500, "the connect handler failed: %s" % type(problem).__name__) from problem


def _connect_reply(result: Any, request: ConnectRequest) -> Optional[ConnectReply]:
    if result is None:
        return None
    reply = ConnectReply(**result) if isinstance(result, dict) else result
    if not isinstance(reply, ConnectReply):
        raise InvalidArgument("a connect handler returns None, a ConnectReply or a dict, not %r" % (result,))
    if reply.user_id is not None and not isinstance(reply.user_id, str):
        raise InvalidArgument("user_id must be a str, not %r" % (reply.user_id,))
    if reply.subprotocol is not None and reply.subprotocol not in request.subprotocols:
        raise InvalidArgument("the client does not offer the subprotocol %r" % (reply.subprotocol,))
    for name, values in (("groups", reply.groups), ("roles", reply.roles)):
        if isinstance(values, str) or values is not None and not all(isinstance(value, str) for value in values):
            raise InvalidArgument("%s must be a sequence of str, not %r" % (name, values))
    if reply.state is not None and not isinstance(reply.state, dict):
        raise InvalidArgument("state must be a dict, not %r" % (reply.state,))
    return reply
