"""Sending and managing from inside the process: what REST offers to other processes, as plain blocking calls.

``server.hub("chat").send_to_all("hello")``. Any thread may call, handlers included. A call returns when the hub has
carried it out; the bytes leave right after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from ..exceptions import InvalidArgument, RemoteProtocolError
from ..webpubsub.messages import MAX_GROUP_NAME
from .handlers import outgoing
from .hub import NORMAL, Hub, hub_of
from .permissions import JOIN_LEAVE, SEND
from .session import Session
from .wire import Outgoing

if TYPE_CHECKING:
    from .app import Server

__all__ = ["ConnectionInfo", "HubControl"]


class ConnectionInfo(NamedTuple):
    """One connection at one moment. ``connected`` is False while a reliable one waits for its client to come back."""

    connection_id: str
    hub: str
    user_id: Optional[str]
    groups: Tuple[str, ...]
    subprotocol: Optional[str]
    connected: bool
    unacked: int


def connection_info(session: Session) -> ConnectionInfo:
    """Return a snapshot of a session."""
    return ConnectionInfo(
        session.connection_id,
        session.hub.name,
        session.user_id,
        tuple(sorted(session.groups)),
        session.wire.subprotocol,
        session.link is not None,
        len(session.unacked),
    )


class HubControl:
    """One hub of an embedded server, for the process that runs it. Safe from any thread.

    ``data_type`` is "text", "json", "binary" or None, which infers it from str, bytes-like or anything else;
    ``excluded`` are connection ids; a message older than ``ttl_seconds`` (0: no limit) is not replayed to a client that
    comes back. Sending to somebody who is not there is no error. Every call raises ServerError when the server does not
    run, and InvalidArgument (MessageTooLarge) for data that cannot be sent.
    """

    def __init__(self, server: "Server", name: str) -> None:
        self._server = server
        self.name = name

    # --- sending ------------------------------------------------------------------------------------------------------

    def send_to_all(
        self, data: Any, data_type: Optional[str] = None, *, excluded: Iterable[str] = (), ttl_seconds: float = 0
    ) -> None:
        """Send to every connection of the hub, as a message from the server."""
        self._send(lambda hub: hub.sessions.values(), None, data, data_type, excluded, ttl_seconds)

    def send_to_group(
        self,
        group: str,
        data: Any,
        data_type: Optional[str] = None,
        *,
        excluded: Iterable[str] = (),
        ttl_seconds: float = 0,
    ) -> None:
        """Send to every member of a group, as a message from that group without a user id."""
        _check_group(group)
        self._send(lambda hub: hub.groups.get(group, ()), group, data, data_type, excluded, ttl_seconds)

    def send_to_user(
        self,
        user_id: str,
        data: Any,
        data_type: Optional[str] = None,
        *,
        excluded: Iterable[str] = (),
        ttl_seconds: float = 0,
    ) -> None:
        """Send to every connection of a user, as a message from the server."""
        self._send(lambda hub: hub.users.get(user_id, ()), None, data, data_type, excluded, ttl_seconds)

    def send_to_connection(
        self, connection_id: str, data: Any, data_type: Optional[str] = None, *, ttl_seconds: float = 0
    ) -> None:
        """Send to one connection, as a message from the server."""
        self._send(lambda hub: _one(hub, connection_id), None, data, data_type, (), ttl_seconds)

    def _send(
        self,
        receivers: Callable[[Hub], Iterable[Session]],
        group: Optional[str],
        data: Any,
        data_type: Optional[str],
        excluded: Iterable[str],
        ttl: float,
    ) -> None:
        server = self._server
        message = outgoing(group, None, data, data_type, server.limits.max_message_bytes, ttl)
        left_out = frozenset(excluded)
        server._wait(self._deliver(receivers, message, left_out))

    async def _deliver(
        self, receivers: Callable[[Hub], Iterable[Session]], message: Outgoing, left_out: "frozenset[str]"
    ) -> None:
        pump = self._server._pump
        hub = hub_of(pump.work, self.name)
        await pump.uncongested(lambda: receivers(hub))
        chosen = [session for session in receivers(hub) if session.connection_id not in left_out]
        try:
            hub.deliver(chosen, message, pump.loop.time())
        except RemoteProtocolError as error:
            raise InvalidArgument(str(error)) from error
        pump.wake()

    # --- groups -------------------------------------------------------------------------------------------------------

    def add_connection_to_group(self, group: str, connection_id: str) -> bool:
        """Make a connection a member of a group; return False if there is no such connection."""
        _check_group(group)
        return self._each(lambda hub: _one(hub, connection_id), lambda hub, session: hub.join(session, group)) > 0

    def remove_connection_from_group(self, group: str, connection_id: str) -> None:
        """End the membership of a connection, if there is one."""
        self._each(lambda hub: _one(hub, connection_id), lambda hub, session: hub.leave(session, group))

    def remove_connection_from_all_groups(self, connection_id: str) -> None:
        """End every membership of a connection."""
        self._each(lambda hub: _one(hub, connection_id), _leave_all)

    def add_user_to_group(self, group: str, user_id: str) -> bool:
        """Make the present connections of a user members of a group; return False if there are none."""
        _check_group(group)
        return self._each(lambda hub: hub.users.get(user_id, ()), lambda hub, session: hub.join(session, group)) > 0

    def remove_user_from_group(self, group: str, user_id: str) -> None:
        """End the memberships of a user's connections in a group."""
        self._each(lambda hub: hub.users.get(user_id, ()), lambda hub, session: hub.leave(session, group))

    def remove_user_from_all_groups(self, user_id: str) -> None:
        """End every membership of a user's connections."""
        self._each(lambda hub: hub.users.get(user_id, ()), _leave_all)

    # --- closing ------------------------------------------------------------------------------------------------------

    def close_connection(self, connection_id: str, reason: str = "") -> None:
        """Close a connection with 1000; a PubSub client first gets a disconnected message with the reason."""
        self._close(lambda hub: _one(hub, connection_id), reason, ())

    def close_all_connections(self, reason: str = "", *, excluded: Iterable[str] = ()) -> None:
        """Close every connection of the hub as `close_connection` does."""
        self._close(lambda hub: hub.sessions.values(), reason, excluded)

    def close_group_connections(self, group: str, reason: str = "", *, excluded: Iterable[str] = ()) -> None:
        """Close every connection of a group as `close_connection` does."""
        self._close(lambda hub: hub.groups.get(group, ()), reason, excluded)

    def close_user_connections(self, user_id: str, reason: str = "", *, excluded: Iterable[str] = ()) -> None:
        """Close every connection of a user as `close_connection` does."""
        self._close(lambda hub: hub.users.get(user_id, ()), reason, excluded)

    def _close(self, chosen: Callable[[Hub], Iterable[Session]], reason: str, excluded: Iterable[str]) -> None:
        left_out = frozenset(excluded)

        def close(hub: Hub, session: Session) -> None:
            if session.connection_id not in left_out:
                hub.end(session, NORMAL, reason, announce=reason)

        self._each(chosen, close)

    # --- questions and rights -----------------------------------------------------------------------------------------

    def connections(self, *, group: Optional[str] = None, user_id: Optional[str] = None) -> List[ConnectionInfo]:
        """Return the connections of the hub, a group or a user, ordered by id, those that wait to recover included."""

        def look() -> List[ConnectionInfo]:
            hub = hub_of(self._server._pump.work, self.name)
            found: Iterable[Session] = hub.sessions.values()
            if group is not None:
                found = hub.groups.get(group, ())
            if user_id is not None:
                found = [session for session in found if session.user_id == user_id]
            return sorted(connection_info(session) for session in found)

        result: List[ConnectionInfo] = self._server._call(look)
        return result

    def connection_exists(self, connection_id: str) -> bool:
        """Return whether there is such a connection."""
        return self._each(lambda hub: _one(hub, connection_id), _nothing) > 0

    def group_exists(self, group: str) -> bool:
        """Return whether the group has a member."""
        return self._each(lambda hub: hub.groups.get(group, ()), _nothing) > 0

    def user_exists(self, user_id: str) -> bool:
        """Return whether the user has a connection."""
        return self._each(lambda hub: hub.users.get(user_id, ()), _nothing) > 0

    def grant_permission(self, permission: str, connection_id: str, group: str) -> bool:
        """Allow "joinLeaveGroup" or "sendToGroup" for exactly ``group``; return False without such a connection.

        Raises InvalidArgument at the limit of 1,000 names.
        """
        return self._permit(permission, connection_id, group, "grant")

    def revoke_permission(self, permission: str, connection_id: str, group: str) -> bool:
        """Forbid it for exactly ``group``, whatever the roles say; return False without such a connection."""
        return self._permit(permission, connection_id, group, "revoke")

    def check_permission(self, permission: str, connection_id: str, group: str) -> bool:
        """Return whether the connection is there and has the right."""
        return self._permit(permission, connection_id, group, "check")

    def _permit(self, permission: str, connection_id: str, group: str, action: str) -> bool:
        if permission not in (JOIN_LEAVE, SEND):
            raise InvalidArgument("permission must be %r or %r, not %r" % (JOIN_LEAVE, SEND, permission))
        _check_group(group)
        answers: Dict[str, bool] = {}

        def act(hub: Hub, session: Session) -> None:
            answers["done"] = getattr(session.permissions, action)(permission, group)

        found = self._each(lambda hub: _one(hub, connection_id), act) > 0
        if action != "check" and found and not answers["done"]:
            raise InvalidArgument("the connection has as many permissions as it can have")
        return found and answers["done"]

    def _each(self, chosen: Callable[[Hub], Iterable[Session]], act: Callable[[Hub, Session], None]) -> int:
        """Act on the chosen sessions, on the server's loop, and return how many there were."""

        def run() -> int:
            pump = self._server._pump
            hub = hub_of(pump.work, self.name)
            sessions = list(chosen(hub))
            for session in sessions:
                act(hub, session)
            pump.wake()
            return len(sessions)

        return int(self._server._call(run))

    def __repr__(self) -> str:
        return "<HubControl %s of %r>" % (self.name, self._server)


def _one(hub: Hub, connection_id: str) -> Tuple[Session, ...]:
    session = hub.sessions.get(connection_id)
    return () if session is None else (session,)


def _leave_all(hub: Hub, session: Session) -> None:
    for group in list(session.groups):
        hub.leave(session, group)


def _nothing(hub: Hub, session: Session) -> None:
    """Do nothing: the caller only counts."""


def _check_group(group: str) -> None:
    if not isinstance(group, str) or not group.strip() or len(group) > MAX_GROUP_NAME:
        raise InvalidArgument("group must have 1 to %d characters, not be %s" % (MAX_GROUP_NAME, ascii(group)[:60]))
