"""Event handlers: what ``server.on`` and ``server.add_event_handler`` register, and what handlers get and give.

Python functions come first, then the routes to other handlers in the order of their registration.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple, Union

from ..exceptions import InvalidArgument, MessageTooLarge, RefuseConnection
from ..webpubsub.json_fields import EVENT_NAME, encode_data
from ..webpubsub.protobuf_fields import is_message_object, pack_any
from .event_routes import PRESENCE_EVENTS, SYSTEM_EVENTS, EventRoute
from .session import Call
from .wire import Outgoing

__all__ = ["ClientCertificate", "ClientEvent", "ConnectReply", "ConnectRequest", "Handlers", "Outcome"]
__all__ += ["RefuseConnection", "check_reply", "outgoing"]

Handler = Callable[..., Any]


class ClientCertificate(NamedTuple):
    """What a client showed in its TLS handshake: the SHA-1 ``thumbprint`` in hex, the certificate in PEM."""

    thumbprint: str
    content: str


class ConnectRequest(NamedTuple):
    """A client that asks to be let in, as a "connect" handler sees it.

    ``user_id``, ``roles`` and ``groups`` are what its token says; ``claims`` the whole token, ``query`` and ``headers``
    the request without its token, as lists of strings; ``subprotocols`` what the client offers, ``client_certificates``
    what it showed to a server that asks for one.
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
    client_certificates: Tuple[ClientCertificate, ...] = ()


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
    """What a handler of a user event, or of any system event but "connect", gets.

    ``event`` is its name; ``data`` (str, bytes or any JSON value) and ``data_type`` belong to user events, ``reason``
    to "disconnected", ``group`` to "joined" and "left". ``state`` is a dict that the handlers of this connection share;
    ``hub`` is a name, and ``server.hub(event.hub)`` sends from a handler.
    """

    __slots__ = ("connection_id", "data", "data_type", "event", "group", "hub", "reason", "state", "user_id")

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
        self.group = call.group

    def __repr__(self) -> str:
        return "<ClientEvent %s hub=%s from %s user=%r>" % (self.event, self.hub, self.connection_id, self.user_id)


class Outcome(NamedTuple):
    """What became of a call, whoever handled it.

    ``reply`` goes to the client before the ack, ``error`` is the text of a failure, ``state`` the connection's new one.
    ``refused`` says that the client is to blame for the failure.
    """

    reply: Optional[Outgoing] = None
    error: Optional[str] = None
    state: Optional[Dict[str, Any]] = None
    refused: bool = False


class _Table(NamedTuple):
    functions: Dict[Tuple[str, Optional[str]], Handler] = {}
    routes: Tuple[EventRoute, ...] = ()


class Handlers:
    """The registered handlers, by event and hub. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table = _Table()  # replaced, never changed, under _lock
        #: Which of "joined" and "left" anybody asks for; `Work` has the same set, for hubs to look at.
        self.presence: Set[str] = set()

    def on(self, event: str, hub: Optional[str], handler: Handler) -> None:
        """Register the handler of an event, in place of an earlier one. Raises InvalidArgument."""
        if not isinstance(event, str) or not (EVENT_NAME.match(event) or event == "*"):
            raise InvalidArgument(
                "event must be %s, '*' or the name of a user event (a letter, then letters, digits, '_', '.' or '-'; "
                "at most 128), not %r" % (", ".join(map(repr, SYSTEM_EVENTS)), event)
            )
        if not callable(handler):
            raise InvalidArgument("a handler must be callable, not %r" % (handler,))
        with self._lock:
            functions = dict(self._table.functions)
            functions[event.lower(), None if hub is None else hub.lower()] = handler
            self._replace(self._table._replace(functions=functions))

    def add(self, route: EventRoute) -> None:
        """Add a route, behind those that are there."""
        with self._lock:
            self._replace(self._table._replace(routes=self._table.routes + (route,)))

    def remove(self, route: EventRoute) -> bool:
        """Remove a route; return whether it was there."""
        with self._lock:
            routes = self._table.routes
            self._replace(self._table._replace(routes=tuple(item for item in routes if item is not route)))
            return len(self._table.routes) < len(routes)

    def clear(self) -> None:
        """Forget every handler."""
        self.restore(_Table())

    def restore(self, table: _Table) -> None:
        """Go back to the handlers of an earlier moment, as read from ``_table``."""
        with self._lock:
            self._replace(table)

    def _replace(self, table: _Table) -> None:
        self._table = table
        asked = {name for name, _ in table.functions}.union(*(route.system for route in table.routes))
        for event in PRESENCE_EVENTS:
            if event in asked:
                self.presence.add(event)
            else:
                self.presence.discard(event)

    def find(self, kind: str, event: str, hub: str) -> Union[Handler, EventRoute, None]:
        """Return the handler of an event in a hub, None when nobody asked for it.

        ``kind`` is "event" for user events, any other is a system event. Functions before routes; this hub's function
        before any hub's, by name before "*". A user event with the name of a system event is not that event: among the
        functions only "*" gets it.
        """
        functions, routes = self._table
        event = event.lower()
        if functions:
            keys: List[Tuple[str, Optional[str]]] = []
            if (kind == "event") != (event in SYSTEM_EVENTS):
                keys += [(event, hub), (event, None)]
            if kind == "event":
                keys += [("*", hub), ("*", None)]
            for key in keys:
                if key in functions:  # not by its truth: a callable object may be false
                    return functions[key]
        for route in routes:
            if route.takes(kind, event, hub):
                return route
        return None


def outgoing(
    group: Optional[str], user_id: Optional[str], data: Any, data_type: Optional[str], limit: int, ttl: float = 0
) -> Outgoing:
    """Return a message to deliver, checked: its data type (None infers it), that the data fits, and its size.

    A message object of the protobuf library is packed. Raises InvalidArgument or MessageTooLarge.
    """
    if data_type in (None, "protobuf") and is_message_object(data):
        data, data_type = pack_any(data), "protobuf"
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


def check_reply(reply: ConnectReply, request: ConnectRequest) -> ConnectReply:
    """Return the reply of a connect handler. Raises InvalidArgument for one that cannot be granted."""
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
