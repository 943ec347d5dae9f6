"""What the functions of an event handler get and return: immutable records, one per kind of event.

They know no HTTP. The names are those of the embedded server's ``server.on`` where both have them, so that a function
can move from one to the other. Protocol reference 6.5 to 6.9.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

__all__ = [
    "ClientCertificate",
    "ConnectRequest",
    "ConnectResponse",
    "ConnectedRequest",
    "DisconnectedRequest",
    "EventRequest",
    "GroupEventRequest",
    "UserEventRequest",
    "UserEventResponse",
]


class ClientCertificate(NamedTuple):
    """A certificate that the client showed: SHA-1 ``thumbprint`` in hexadecimal, ``content`` in PEM."""

    thumbprint: str
    content: str


class ConnectRequest(NamedTuple):
    """A client that asks to be let in.

    ``user_id`` is what its token says, None without one; ``claims`` the whole token, ``query`` and ``headers`` the
    client's request, all three as lists of str by name; ``subprotocols`` what the client offers. ``mqtt`` is the
    service's object for MQTT clients, None for others. ``http_headers`` are those of the service's own request, with
    names in lower case. Mappings are read-only.
    """

    hub: str
    connection_id: str
    event: str
    user_id: Optional[str]
    state: Mapping[str, Any]
    claims: Mapping[str, List[str]]
    query: Mapping[str, List[str]]
    headers: Mapping[str, List[str]]
    subprotocols: Tuple[str, ...]
    client_certificates: Tuple[ClientCertificate, ...]
    mqtt: Optional[Mapping[str, Any]]
    http_headers: Mapping[str, str]

    @property
    def queries(self) -> Mapping[str, List[str]]:
        """``query``, under the name of the official JavaScript handler."""
        return self.query

    @property
    def roles(self) -> Tuple[str, ...]:
        """The roles in the token."""
        return tuple(self.claims.get("role", ()))

    @property
    def groups(self) -> Tuple[str, ...]:
        """The groups that the token joins."""
        return tuple(self.claims.get("webpubsub.group", ()))


class ConnectedRequest(NamedTuple):
    """A client is connected; its first user events may be handled before this one."""

    hub: str
    connection_id: str
    event: str
    user_id: Optional[str]
    state: Mapping[str, Any]
    subprotocol: Optional[str]
    http_headers: Mapping[str, str]


class UserEventRequest(NamedTuple):
    """An event that a client sent.

    ``data`` is str ("text"), bytes ("binary", "protobuf": a serialised ``Any``) or any JSON value ("json") as
    ``data_type`` says; both are None when the client sent no data. ``event`` is its name as the client wrote it;
    "message" for what a plain WebSocket client sends. ``state`` is read-only, see `UserEventResponse`.
    """

    hub: str
    connection_id: str
    event: str
    user_id: Optional[str]
    state: Mapping[str, Any]
    subprotocol: Optional[str]
    data: Any
    data_type: Optional[str]
    http_headers: Mapping[str, str]


class DisconnectedRequest(NamedTuple):
    """A client that was connected is gone for good: it can no longer recover. ``reason`` is "" when none is known."""

    hub: str
    connection_id: str
    event: str
    user_id: Optional[str]
    state: Mapping[str, Any]
    subprotocol: Optional[str]
    reason: str
    http_headers: Mapping[str, str]


class GroupEventRequest(NamedTuple):
    """A connection joined or left ``group``; ``event`` is "joined" or "left"."""

    hub: str
    connection_id: str
    event: str
    user_id: Optional[str]
    state: Mapping[str, Any]
    subprotocol: Optional[str]
    group: str
    http_headers: Mapping[str, str]


EventRequest = Union[ConnectRequest, ConnectedRequest, UserEventRequest, DisconnectedRequest, GroupEventRequest]


class ConnectResponse(NamedTuple):
    """What a "connect" function may return (a dict with these keys does as well); None keeps what the token says.

    ``roles`` replaces the token's, ``groups`` too unless empty; ``subprotocol`` must be one that the client offers;
    ``state`` becomes ``request.state`` of all later events.
    """

    user_id: Optional[str] = None
    groups: Optional[Sequence[str]] = None
    roles: Optional[Sequence[str]] = None
    subprotocol: Optional[str] = None
    state: Optional[Mapping[str, Any]] = None


class UserEventResponse(NamedTuple):
    """What the function of a user event may return when data alone says too little.

    ``data`` goes to the client that sent the event, None sends nothing; ``data_type`` is "text", "json" or "binary",
    None infers it (str is text, bytes-like is binary, anything else JSON). ``state`` replaces the connection's state
    for all later events, None keeps it: ``UserEventResponse(state=dict(request.state, turns=3))``.
    """

    data: Any = None
    data_type: Optional[str] = None
    state: Optional[Dict[str, Any]] = None
