"""Sending and managing from inside the process: what REST offers to other processes, as plain blocking calls.

``server.hub("chat").send_to_all("hello")``. Any thread may call, handlers included. A call returns when the hub has
carried it out; the bytes leave right after. What the calls do is in `operations`, which REST uses as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ..exceptions import InvalidArgument
from . import operations
from .handlers import outgoing
from .operations import PERMISSIONS, Selection, check_group
from .session import Session

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
    ``excluded`` are connection ids; ``filter`` is a condition that a connection must meet, in the language of the data
    plane (``"'quiet' in groups and not (userId eq null)"``); a message that could not be handed to a receiver's socket
    within ``ttl_seconds`` (0: no limit) is dropped for it. Sending to somebody who is not there is no error. Every call
    raises ServerError when the server does not run, and InvalidArgument for arguments that cannot be (MessageTooLarge,
    FilterError).
    """

    def __init__(self, server: "Server", name: str) -> None:
        self._server = server
        self.name = name

    # --- sending ------------------------------------------------------------------------------------------------------

    def send_to_all(
        self,
        data: Any,
        data_type: Optional[str] = None,
        *,
        excluded: Iterable[str] = (),
        filter: Optional[str] = None,
        ttl_seconds: float = 0,
    ) -> None:
        """Send to every connection of the hub, as a message from the server."""
        self._send(self._select("hub", "", excluded, filter), None, data, data_type, ttl_seconds)

    def send_to_group(
        self,
        group: str,
        data: Any,
        data_type: Optional[str] = None,
        *,
        excluded: Iterable[str] = (),
        filter: Optional[str] = None,
        ttl_seconds: float = 0,
    ) -> None:
        """Send to every member of a group, as a message from that group without a user id."""
        check_group(group)
        self._send(self._select("group", group, excluded, filter), group, data, data_type, ttl_seconds)

    def send_to_user(
        self,
        user_id: str,
        data: Any,
        data_type: Optional[str] = None,
        *,
        excluded: Iterable[str] = (),
        filter: Optional[str] = None,
        ttl_seconds: float = 0,
    ) -> None:
        """Send to every connection of a user, as a message from the server."""
        self._send(self._select("user", user_id, excluded, filter), None, data, data_type, ttl_seconds)

    def send_to_connection(
        self, connection_id: str, data: Any, data_type: Optional[str] = None, *, ttl_seconds: float = 0
    ) -> None:
        """Send to one connection, as a message from the server."""
        self._send(self._select("connection", connection_id), None, data, data_type, ttl_seconds)

    def _send(
        self, selection: Selection, group: Optional[str], data: Any, data_type: Optional[str], ttl: float
    ) -> None:
        server = self._server
        message = outgoing(group, None, data, data_type, server.limits.max_message_bytes, ttl)

        async def publish() -> int:
            return await operations.publish(server._pump, selection, message)

        server._wait(publish())

    # --- groups -------------------------------------------------------------------------------------------------------

    def add_connection_to_group(self, group: str, connection_id: str) -> bool:
        """Make a connection a member of a group; return False if there is no such connection."""
        return self._do(operations.join, self._select("connection", connection_id), [check_group(group)]) > 0

    def remove_connection_from_group(self, group: str, connection_id: str) -> None:
        """End the membership of a connection, if there is one."""
        self._do(operations.leave, self._select("connection", connection_id), [group])

    def remove_connection_from_all_groups(self, connection_id: str) -> None:
        """End every membership of a connection."""
        self._do(operations.leave, self._select("connection", connection_id))

    def add_user_to_group(self, group: str, user_id: str) -> bool:
        """Make the present connections of a user members of a group; return False if there are none."""
        return self._do(operations.join, self._select("user", user_id), [check_group(group)]) > 0

    def remove_user_from_group(self, group: str, user_id: str) -> None:
        """End the memberships of a user's connections in a group."""
        self._do(operations.leave, self._select("user", user_id), [group])

    def remove_user_from_all_groups(self, user_id: str) -> None:
        """End every membership of a user's connections."""
        self._do(operations.leave, self._select("user", user_id))

    def add_connections_to_groups(self, groups: Sequence[str], filter: Optional[str] = None) -> int:
        """Make all connections, or those that meet ``filter``, members of all ``groups``; return how many they are."""
        return self._do(operations.join, self._select("hub", "", (), filter), _checked(groups))

    def remove_connections_from_groups(self, groups: Sequence[str], filter: Optional[str] = None) -> int:
        """End the memberships of all connections, or those that meet ``filter``; return how many connections."""
        return self._do(operations.leave, self._select("hub", "", (), filter), _checked(groups))

    # --- closing ------------------------------------------------------------------------------------------------------

    def close_connection(self, connection_id: str, reason: str = "") -> None:
        """Close a connection with 1000; a PubSub client first gets a disconnected message with the reason."""
        self._do(operations.close, self._select("connection", connection_id), reason)

    def close_all_connections(
        self, reason: str = "", *, excluded: Iterable[str] = (), filter: Optional[str] = None
    ) -> None:
        """Close every connection of the hub as `close_connection` does."""
        self._do(operations.close, self._select("hub", "", excluded, filter), reason)

    def close_group_connections(
        self, group: str, reason: str = "", *, excluded: Iterable[str] = (), filter: Optional[str] = None
    ) -> None:
        """Close every connection of a group as `close_connection` does."""
        self._do(operations.close, self._select("group", group, excluded, filter), reason)

    def close_user_connections(
        self, user_id: str, reason: str = "", *, excluded: Iterable[str] = (), filter: Optional[str] = None
    ) -> None:
        """Close every connection of a user as `close_connection` does."""
        self._do(operations.close, self._select("user", user_id, excluded, filter), reason)

    # --- questions and rights -----------------------------------------------------------------------------------------

    def connections(
        self, *, group: Optional[str] = None, user_id: Optional[str] = None, filter: Optional[str] = None
    ) -> List[ConnectionInfo]:
        """Return the connections of the hub, a group or a user, ordered by id, those that wait to recover included."""
        selection = self._select("hub" if group is None else "group", group or "", (), filter)

        def look() -> List[ConnectionInfo]:
            found = selection.sessions(self._server._pump.work)
            return sorted(connection_info(item) for item in found if user_id is None or item.user_id == user_id)

        result: List[ConnectionInfo] = self._server._call(look)
        return result

    def connection_exists(self, connection_id: str) -> bool:
        """Return whether there is such a connection."""
        return self._exists("connection", connection_id)

    def group_exists(self, group: str) -> bool:
        """Return whether the group has a member."""
        return self._exists("group", group)

    def user_exists(self, user_id: str) -> bool:
        """Return whether the user has a connection."""
        return self._exists("user", user_id)

    def _exists(self, kind: str, name: str) -> bool:
        selection = self._select(kind, name)
        return bool(self._server._call(lambda: selection.sessions(self._server._pump.work)))

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
        if permission not in PERMISSIONS:
            raise InvalidArgument("permission must be %s, not %r" % (" or ".join(map(repr, PERMISSIONS)), permission))
        check_group(group)
        server = self._server
        answer: Optional[bool] = server._call(
            lambda: operations.permit(server._pump, self.name, connection_id, action, permission, group)
        )
        if answer is False and action != "check":
            raise InvalidArgument("the connection has as many permissions as it can have")
        return bool(answer)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _select(
        self, kind: str, name: str, excluded: Iterable[str] = (), filter: Optional[str] = None
    ) -> Selection:
        return Selection(self.name, kind, name, excluded=excluded, filter=filter)

    def _do(self, operation: Callable[..., int], selection: Selection, *args: Any) -> int:
        """Carry out one of `operations` on the server's loop, and return how many connections it found."""
        count: int = self._server._call(lambda: operation(self._server._pump, selection, *args))
        return count

    def __repr__(self) -> str:
        return "<HubControl %s of %r>" % (self.name, self._server)


def _checked(groups: Sequence[str]) -> List[str]:
    if isinstance(groups, str):
        raise InvalidArgument("groups must be a sequence of str, not a str")
    return [check_group(group) for group in groups]
