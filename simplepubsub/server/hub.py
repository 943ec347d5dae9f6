"""The pure core of the embedded service: who is connected, in which groups, and what everyone is to be sent.

No socket, no clock (callers pass ``now``, seconds of any monotonic clock), no asyncio, no handler code. A `Hub` holds
the connections of one hub name; what its methods want done is collected in the `Work` that all hubs share.

What clients ask for is in `commands`. Rules, protocol reference 3: sequence ids start at 1 and number data messages
only. A reliable session that loses its socket is retained for `Work.recovery_window` seconds and keeps collecting,
within its limits.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from typing import Any, Dict, Iterable, List, Optional, Tuple

from ..exceptions import SimplePubSubError
from ..webpubsub.messages import ClientMessage
from .commands import EXECUTE, POLICY, finish_event
from .permissions import Permissions
from .session import Call, Session, UserEvent
from .wire import Outgoing, Wire
from .work import Work

__all__ = ["NORMAL", "POLICY", "Hub", "RecoveryRefused", "hub_of"]

log = logging.getLogger("simplepubsub.server")

#: The code of an ordinary close (protocol reference 1.6).
NORMAL = 1000

#: Group events of one connection that may wait, in multiples of `Limits.max_waiting_events`. What the connection does
#: itself waits in its socket; what others do to it has nowhere to wait.
_MAX_CHANGES = 16


class RecoveryRefused(SimplePubSubError):
    """The session cannot be continued; the retained one, if there is any, is not harmed. The close code is 1008."""


class Hub:
    """The connections, users and groups of one hub name."""

    def __init__(self, name: str, work: Work) -> None:
        self.name = name
        self.work = work
        self.sessions: Dict[str, Session] = {}
        # Dictionaries as ordered sets: deliveries go out in the order of joining.
        self.groups: Dict[str, Dict[Session, None]] = {}
        self.users: Dict[str, Dict[Session, None]] = {}

    # --- connections --------------------------------------------------------------------------------------------------

    def connect(
        self,
        wire: Wire,
        link: Any,
        *,
        user_id: Optional[str] = None,
        permissions: Optional[Permissions] = None,
        groups: Iterable[str] = (),
        connection_id: Optional[str] = None,
    ) -> Session:
        """Add a connection, a member of ``groups`` from the start, whose first frame is the connected message."""
        connection_id = connection_id or secrets.token_urlsafe(16)
        session = Session(self, connection_id, user_id, wire, permissions or Permissions(), link)
        self.sessions[connection_id] = session
        if user_id is not None:
            self.users.setdefault(user_id, {})[session] = None
        self.work.calls.append(Call("connected", session))
        for group in groups:
            self.join(session, group)
        self._greet(session)
        self.work.counters["connected"] += 1
        return session

    def recover(self, connection_id: str, token: str, link: Any, now: float) -> Tuple[Session, Any]:
        """Continue a session on a new ``link``: the connected message, then everything unacknowledged, in order.

        Return it with the previous link, None if that had died; the caller aborts it. Raises RecoveryRefused.
        """
        session = self.sessions.get(connection_id)
        if session is None:
            raise RecoveryRefused("no connection %s in hub %s" % (ascii(connection_id)[:60], self.name))
        expected = session.reconnection_token or ""
        if not expected or not hmac.compare_digest(expected.encode(), token.encode("utf-8", "replace")):
            raise RecoveryRefused("wrong reconnection token for %s" % connection_id)
        self.work.retained.pop(session, None)
        previous, session.link = session.link, link
        session.link_full = False
        session.forget_output()
        self._greet(session)
        session.replay(now)
        # The time without a socket does not count against the patience of publishers.
        if self.work.congested.pop(session, None) is not None:
            self.work.relieved = True
        session.hopeless = False
        session.recoveries += 1
        if session.streams:
            self.work.streams.recovered(session, now)
        if len(session.unacked) > self.work.high_messages or session.unacked_bytes > self.work.high_bytes:
            self.work.strain(session, now)
        self.work.counters["recovered"] += 1
        return session, previous

    def _greet(self, session: Session) -> None:
        frame = session.wire.connected(session.connection_id, session.user_id, session.reconnection_token)
        if frame:
            self.push(session, frame)

    def lost(self, session: Session, now: float, reason: str = "connection lost") -> None:
        """Note that the socket of ``session`` died without goodbye: a reliable one is retained, any other one ends."""
        if session.ended:
            return
        if not session.wire.reliable or self.work.recovery_window <= 0:
            self.end(session, None, reason)
            return
        session.link = None
        session.link_full = False
        session.forget_output()
        self.work.retained[session] = now + self.work.recovery_window

    def end(self, session: Session, code: Optional[int], reason: str = "", announce: Optional[str] = None) -> None:
        """Remove a connection for good; with a ``code`` its socket is closed with it, after what is already queued.

        ``announce`` is the text of the disconnected message that goes before. Doing it twice changes nothing.
        """
        if session.ended:
            return
        session.ended = True
        self.sessions.pop(session.connection_id, None)
        for group in list(session.groups):
            self.leave(session, group)
        if session.user_id is not None:
            _discard(self.users, session.user_id, session)
        work = self.work
        work.retained.pop(session, None)
        if work.congested.pop(session, None) is not None:
            work.relieved = True
        session.unacked = []
        session.unacked_bytes = 0
        if session.streams:
            work.streams.cancel(session)
        if code is not None and session.link is not None:
            if announce is not None:
                frame = session.wire.disconnected(announce)
                if frame:
                    session.out.append(frame)
            session.closing = (code, reason)
            work.touch(session)
        work.calls.append(Call("disconnected", session, reason=reason))

    # --- groups -------------------------------------------------------------------------------------------------------

    def join(self, session: Session, group: str) -> None:
        """Make the session a member; a member already stays one."""
        if self.work.presence:
            self._tell("joined", session, group, group not in session.groups)
        self.groups.setdefault(group, {})[session] = None
        session.groups.add(group)

    def leave(self, session: Session, group: str) -> None:
        """End the membership, if there is one; an empty group is forgotten."""
        if self.work.presence:
            self._tell("left", session, group, group in session.groups)
        session.groups.discard(group)
        _discard(self.groups, group, session)

    def _tell(self, kind: str, session: Session, group: str, news: bool) -> None:
        """Let a handler know of a change of membership, unless very many changes made by others wait already."""
        if not news or kind not in self.work.presence:
            return
        if len(session.calls) >= _MAX_CHANGES * self.work.limits.max_waiting_events and not session.ended:
            log.warning("a %r event of %s is dropped: too many wait for their handler", kind, session.connection_id)
            return
        self.work.calls.append(Call(kind, session, group=group))

    # --- commands of a client -----------------------------------------------------------------------------------------

    def execute(self, session: Session, command: ClientMessage, now: float) -> bool:
        """Carry out one command of a client, or return False: the caller keeps it and tries again later.

        It waits while a receiver is congested, or while too many of its events wait for handlers. Raises
        RemoteProtocolError for data that cannot be delivered.
        """
        return EXECUTE[type(command)](self, session, command, now)

    def finish_event(
        self,
        session: Session,
        event: UserEvent,
        reply: Optional[Outgoing],
        error: Optional[str],
        now: float,
        refused: bool = False,
    ) -> None:
        """Answer a user event: the reply of its handler, if any, then the ack; an ``error`` is told to the client.

        The answer to an invocation is one message with the reply in it. Its errors are InvocationFailed, or BadRequest
        when the handler ``refused``; those of events are InternalServerError. A simple client, which has no acks, is
        closed 1011 on an error (protocol reference 1.6). Raises RemoteProtocolError for a reply that cannot be
        delivered; then it is to be called again, with an error.
        """
        finish_event(self, session, event, reply, error, now, refused)

    # --- deliveries ---------------------------------------------------------------------------------------------------

    def push(self, session: Session, frame: bytes) -> None:
        """Queue a frame that has no sequence id; it is lost with the socket."""
        if session.link is not None:
            session.out.append(frame)
            self.work.touch(session)

    def deliver(
        self, receivers: Iterable[Session], message: Outgoing, now: float, excluded: Optional[Session] = None
    ) -> None:
        """Queue ``message`` for every receiver, encoded once per wire format.

        A receiver over its limits is closed 1008; the others do not notice. A message with a time to live is dropped
        when that is over, unless the socket has it by then. Raises RemoteProtocolError, before anything is queued in a
        form that cannot carry the data.
        """
        work = self.work
        dirty = work.dirty
        due = now + message.ttl if message.ttl else None
        high_messages, high_bytes = work.high_messages, work.high_bytes
        overflowed: List[Session] = []
        count = 0
        for session in receivers:
            if session is excluded:
                continue
            count += 1
            wire = session.wire
            packed = message.packed(wire)
            if wire.reliable:
                number = session.next_sequence
                frame = packed.numbered.get(number) or packed.number(number)
                session.next_sequence = number + 1
                unacked = session.unacked
                unacked.append(frame)
                session.unacked_bytes += len(frame)
                if session.numbers is not None:
                    session.numbers.append(number)
                if due is not None:
                    session.limit(number, due)
                if len(unacked) > high_messages or session.unacked_bytes > high_bytes:
                    if self._overfull(session, now):
                        overflowed.append(session)
                        continue
                if session.link is None:
                    continue
            else:
                frame = packed.plain()
            if due is not None:
                session.expiring[len(session.out)] = due
            session.out.append(frame)
            if not session.dirty:
                session.dirty = True
                dirty.append(session)
        work.counters["delivered"] += count
        for session in overflowed:
            self.overflow(session)

    def _overfull(self, session: Session, now: float) -> bool:
        """Return whether too much is unacknowledged; let publishers wait when it is merely much."""
        session.expire(now)
        work, messages, size = self.work, len(session.unacked), session.unacked_bytes
        if messages > work.limits.max_unacked_messages or size > work.limits.max_unacked_bytes:
            return True
        if messages > work.high_messages or size > work.high_bytes:
            work.strain(session, now)
        return False

    def overflow(self, session: Session) -> None:
        """Close a receiver that does not keep up; it cannot be recovered (client spec 3.2.2)."""
        self.work.counters["overflowed"] += 1
        self.end(session, POLICY, "too slow: too much sent and not acknowledged")


def _discard(table: Dict[str, Dict[Session, None]], key: str, session: Session) -> None:
    """Remove ``session`` from the set at ``key``, and the set when that empties it."""
    members = table.get(key)
    if members is not None:
        members.pop(session, None)
        if not members:
            del table[key]


def hub_of(work: Work, name: str) -> Hub:
    """Return the hub of that name, compared without case; it is made on first use."""
    name = name.lower()
    hub = work.hubs.get(name)
    if hub is None:
        hub = work.hubs[name] = Hub(name, work)
    return hub
