"""What the hubs want done, and the state that they share: the meeting point of the pure core and the sockets.

Sessions with output (``dirty``), handlers to call (``calls``), receivers that publishers should wait for
(``congested``), sessions that wait for their clients (``retained``). Whoever owns the sockets acts on it each turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, AbstractSet, Dict, List, Optional

from .limits import Limits
from .session import Call, Session
from .streams import Streams

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["Work"]

_COUNTERS = (
    "connected recovered refused_recoveries expired overflowed published delivered events "
    "invocations invocations_cancelled streams_started streams_expired fragments fragments_refused"
).split()


class Work:
    """What the hubs want done, and the state that they share. Belongs to the server's loop.

    Congestion: a receiver whose window or socket is more than about half full is in ``congested``, and publishers to it
    pause, so that a burst does not overflow a healthy receiver. When they have waited for `Limits.patience` it is taken
    out and ``hopeless``: nobody waits for it until it has caught up.
    """

    def __init__(self, limits: Limits = Limits(), recovery_window: float = 30.0) -> None:
        self.limits = limits
        self.recovery_window = recovery_window
        self.hubs: Dict[str, Hub] = {}
        self.dirty: List[Session] = []
        self.calls: List[Call] = []
        #: Receivers that publishers wait for, with the reading of ``waited`` when that began, so oldest first.
        self.congested: Dict[Session, float] = {}
        #: Seconds that publishers have been waiting for anybody at all.
        self.waited = 0.0
        #: Set when somebody left ``congested``: publishers that wait may try again.
        self.relieved = False
        #: Sessions without a socket, with the time when they expire, soonest first.
        self.retained: Dict[Session, float] = {}
        #: Which of "joined" and "left" somebody handles: events about groups cost nothing where this is empty.
        self.presence: AbstractSet[str] = frozenset()
        self.streams = Streams(limits.max_streams)
        #: Successful commands whose acknowledgement is not to be sent (a fault for tests).
        self.lose_acks = 0
        self.counters = dict.fromkeys(_COUNTERS, 0)
        # A receiver may hold back its acknowledgement until it is 300 behind; "caught up" must stay above that.
        self.high_messages = max(1, limits.max_unacked_messages * 6 // 10)
        self.low_messages = max(0, limits.max_unacked_messages * 4 // 10)
        self.high_bytes = limits.max_unacked_bytes * 6 // 10
        self.low_bytes = limits.max_unacked_bytes * 4 // 10

    def clear(self) -> None:
        """Forget every connection, without a word to anybody, and start counting again."""
        for hub in self.hubs.values():
            for session in hub.sessions.values():
                session.ended = True
        self.hubs.clear()
        self.dirty.clear()
        self.calls.clear()
        self.congested.clear()
        self.retained.clear()
        self.streams.clear()
        self.relieved = True
        self.counters = dict.fromkeys(self.counters, 0)

    def touch(self, session: Session) -> None:
        """Note that ``session`` has something for its socket."""
        if not session.dirty:
            session.dirty = True
            self.dirty.append(session)

    def is_congested(self, receivers: Dict[Session, None]) -> bool:
        """Return whether a publish to ``receivers`` has to wait."""
        return bool(self.congested) and not self.congested.keys().isdisjoint(receivers.keys())

    def strain(self, session: Session, now: float) -> None:
        """Make publishers wait for ``session``, unless they did and it did not help."""
        if session.hopeless or session.ended or session in self.congested:
            return
        due = self.retained.get(session)
        if due is not None and now - (due - self.recovery_window) > self.limits.patience:
            session.hopeless = True  # a client that comes back at once is waited for, one that is away is not
        else:
            self.congested[session] = self.waited

    def relieve(self, session: Session) -> None:
        """Look whether ``session`` has caught up, and let publishers go on if so."""
        if (
            not session.link_full
            and len(session.unacked) <= self.low_messages
            and session.unacked_bytes <= self.low_bytes
        ):
            session.hopeless = False
            if self.congested.pop(session, None) is not None:
                self.relieved = True

    def wait(self, seconds: float) -> None:
        """Note that publishers have waited so much longer, and give up the receivers that had their chance."""
        self.waited += seconds
        while self.congested:
            session, since = next(iter(self.congested.items()))
            if self.waited - since < self.limits.patience:
                return
            del self.congested[session]
            session.hopeless = self.relieved = True
            self._give_up_silent(session, since)

    def _give_up_silent(self, late: Session, since: float) -> None:
        """Wait for none of those who, like ``late`` and beside it, took nothing while their publishers waited.

        Otherwise many dead receivers, each behind by another number of messages, would cost their group one wait each.
        """
        hub = late.hub
        for session in {member for group in late.groups for member in hub.groups[group]}.difference(self.congested):
            if session.wire.reliable:
                # So far behind a client acknowledges at once, and it had time to.
                silent = session.progress <= since and len(session.unacked) > self.low_messages * 3 // 4
            else:
                silent = session.link is not None and session.link.write_buffer_size() > 0
            session.hopeless = session.hopeless or silent

    def expire(self, now: float) -> Optional[float]:
        """End retained sessions whose time is over; return when the next one is due, None if there is none."""
        while self.retained:
            session, due = next(iter(self.retained.items()))
            if due > now:
                return due
            self.counters["expired"] += 1
            session.hub.end(session, None, "the client did not come back in time")
        return None
