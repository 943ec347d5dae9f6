"""What others than the clients do to a hub: send, close, change groups and rights, ask.

`HubControl` and REST both end here, so that they cannot differ. Everything runs on the server's loop and is done when
it returns; only `publish` may wait.
"""

from __future__ import annotations

from typing import Any, Callable, FrozenSet, Iterable, List, Optional, Sequence

from ..exceptions import InvalidArgument, RemoteProtocolError
from ..webpubsub.messages import MAX_GROUP_NAME
from .filters import compile_filter
from .hub import NORMAL, Hub
from .permissions import JOIN_LEAVE, SEND
from .pump import Pump
from .session import Session
from .wire import Outgoing
from .work import Work

__all__ = ["PERMISSIONS", "Selection", "check_group", "close", "join", "leave", "permit", "publish"]

#: The rights that can be granted and revoked.
PERMISSIONS = (JOIN_LEAVE, SEND)


class Selection:
    """Some connections of a hub, looked up when they are wanted.

    ``kind`` is "hub" (all of them), "group", "user" or "connection", with its ``name``. Left out are the connection ids
    in ``excluded`` and whatever the ``filter`` (protocol reference 5.4) is false for. A hub, group, user or connection
    that does not exist selects nobody. Raises FilterError.
    """

    __slots__ = ("_excluded", "_hub", "_kind", "_matches", "_name")

    def __init__(
        self, hub: str, kind: str = "hub", name: str = "", *, excluded: Iterable[str] = (), filter: Optional[str] = None
    ) -> None:
        if isinstance(excluded, str):
            raise InvalidArgument("excluded must be a sequence of connection ids, not a str")
        if filter is not None and not isinstance(filter, str):
            raise InvalidArgument("filter must be a str, not %s" % type(filter).__name__)
        self._hub = hub.lower()
        self._kind = kind
        self._name = name
        self._excluded: FrozenSet[str] = frozenset(excluded)
        self._matches: Optional[Callable[[Any], bool]] = None
        if filter is not None and filter.strip():
            self._matches = compile_filter(filter)

    def hub(self, work: Work) -> Optional[Hub]:
        """Return the hub, None when nobody has ever connected to it."""
        return work.hubs.get(self._hub)

    def sessions(self, work: Work) -> List[Session]:
        """Return the connections, those that wait to recover included."""
        found = self._candidates(self.hub(work))
        if self._excluded:
            found = [session for session in found if session.connection_id not in self._excluded]
        if self._matches is not None:
            return list(filter(self._matches, found))
        return list(found)

    def congested(self, work: Work) -> List[Session]:
        """Return those that a publisher should wait for."""
        return [session for session in work.congested if self._includes(session)]

    def _candidates(self, hub: Optional[Hub]) -> Iterable[Session]:
        if hub is None:
            return ()
        if self._kind == "group":
            return hub.groups.get(self._name, ())
        if self._kind == "user":
            return hub.users.get(self._name, ())
        if self._kind == "connection":
            session = hub.sessions.get(self._name)
            return () if session is None else (session,)
        return hub.sessions.values()

    def _includes(self, session: Session) -> bool:
        if session.hub.name != self._hub or session.connection_id in self._excluded:
            return False
        if self._kind == "group":
            chosen = self._name in session.groups
        elif self._kind == "user":
            chosen = self._name == session.user_id
        else:
            chosen = self._kind == "hub" or self._name == session.connection_id
        return chosen and (self._matches is None or self._matches(session))


def check_group(group: Any) -> str:
    """Return the group name. Raises InvalidArgument: not 1 to 1,024 characters, or nothing but white space."""
    if not isinstance(group, str) or not group.strip() or len(group) > MAX_GROUP_NAME:
        raise InvalidArgument("group must have 1 to %d characters, not be %s" % (MAX_GROUP_NAME, ascii(group)[:60]))
    return group


async def publish(pump: Pump, selection: Selection, message: Outgoing) -> int:
    """Send ``message``, after waiting like any publisher for receivers that are behind; return how many there are.

    Raises InvalidArgument for data that a receiver's wire format cannot carry.
    """
    work = pump.work
    await pump.uncongested(lambda: selection.congested(work))
    receivers = selection.sessions(work)
    hub = selection.hub(work)
    if hub is None or not receivers:
        return 0
    try:
        hub.deliver(receivers, message, pump.loop.time())
    except RemoteProtocolError as error:
        raise InvalidArgument(str(error)) from error
    finally:
        pump.wake()
    return len(receivers)


def close(pump: Pump, selection: Selection, reason: str) -> int:
    """End the connections with 1000; PubSub clients are told the reason before. They cannot be recovered."""
    sessions = selection.sessions(pump.work)
    for session in sessions:
        session.hub.end(session, NORMAL, reason, announce=reason)
    pump.wake()
    return len(sessions)


def join(pump: Pump, selection: Selection, groups: Sequence[str]) -> int:
    """Make the connections members of the groups; return how many connections there are."""
    sessions = selection.sessions(pump.work)
    for session in sessions:
        for group in groups:
            session.hub.join(session, group)
    pump.wake()
    return len(sessions)


def leave(pump: Pump, selection: Selection, groups: Optional[Sequence[str]] = None) -> int:
    """End the memberships in the groups, None: in all of them; return how many connections there are."""
    sessions = selection.sessions(pump.work)
    for session in sessions:
        for group in list(session.groups) if groups is None else groups:
            session.hub.leave(session, group)
    pump.wake()
    return len(sessions)


def permit(pump: Pump, hub: str, connection_id: str, action: str, permission: str, group: str) -> Optional[bool]:
    """Carry out ``action`` ("grant", "revoke" or "check") on a right for exactly ``group``.

    Return what the connection's `Permissions` say; None when there is no such connection.
    """
    for session in Selection(hub, "connection", connection_id).sessions(pump.work):
        answer: bool = getattr(session.permissions, action)(permission, group)
        return answer
    return None
