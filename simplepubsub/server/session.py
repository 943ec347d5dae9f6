"""One connection as the service knows it: identity, rights, groups, what it was sent and has not acknowledged.

A session outlives its socket when its subprotocol is reliable. Pure: no socket, no clock.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Any, Deque, Dict, List, NamedTuple, Optional, Set, Tuple, Union

from ..webpubsub.messages import Event, Invoke, StreamError
from .permissions import Permissions
from .wire import Wire

if TYPE_CHECKING:
    from .hub import Hub
    from .streams import Stream

__all__ = ["Call", "Session", "UserEvent"]

#: What a handler of user events is called for.
UserEvent = Union[Event, Invoke]


class Session:
    """State of one connection id. Belongs to the server's loop; `Hub` and its `Work` are its only writers.

    ``link`` is whatever carries the frames, opaque here; None while a reliable session waits for its client to come
    back. ``out`` holds frames for the socket, ``closing`` the (code, reason) to close it with after them. Frames with a
    time to live are not given to a socket that is full, nor is what follows them: they wait in ``held``.
    """

    __slots__ = (
        "ack_ids",
        "ack_order",
        "calls",
        "closing",
        "connection_id",
        "deadlines",
        "dirty",
        "earliest",
        "ended",
        "expiring",
        "first_unacked",
        "groups",
        "held",
        "held_bytes",
        "hub",
        "hopeless",
        "in_call",
        "invocations",
        "link",
        "link_full",
        "next_sequence",
        "numbers",
        "out",
        "permissions",
        "progress",
        "reconnection_token",
        "recoveries",
        "running",
        "state",
        "stream_endings",
        "streams",
        "unacked",
        "unacked_bytes",
        "upstream",
        "user_id",
        "wire",
    )

    def __init__(
        self, hub: "Hub", connection_id: str, user_id: Optional[str], wire: Wire, permissions: Permissions, link: Any
    ) -> None:
        self.hub = hub
        self.connection_id = connection_id
        self.user_id = user_id
        self.wire = wire
        self.permissions = permissions
        self.groups: Set[str] = set()
        self.reconnection_token = secrets.token_urlsafe(24) if wire.reliable else None
        self.ended = False
        # --- to the socket
        self.link: Any = link
        self.out: List[bytes] = []
        self.expiring: Dict[int, float] = {}  # index in out -> when that frame is too old to be sent
        self.held: Deque[Tuple[bytes, Optional[float]]] = deque()  # before out; with the same times
        self.held_bytes = 0
        self.dirty = False  # listed in Work.dirty
        self.closing: Optional[Tuple[int, str]] = None
        # --- reliable delivery: unacked[0] is the frame with the sequence id first_unacked; the others follow, unless
        # messages have expired in between: then ``numbers`` has their ids
        self.next_sequence = 1
        self.first_unacked = 1
        self.unacked: List[bytes] = []
        self.unacked_bytes = 0
        self.numbers: Optional[List[int]] = None
        self.deadlines: Dict[int, float] = {}  # sequence id -> when it is too old to be sent, or sent again
        self.earliest = 0.0  # none of these is due before
        # --- commands executed, and events being executed
        self.ack_ids: Set[int] = set()
        self.ack_order: Deque[int] = deque()
        self.running: Set[int] = set()
        self.invocations: Dict[str, Invoke] = {}  # not answered yet
        # --- streams that it publishes, by id; how earlier ones ended, with the number of recoveries before that
        self.recoveries = 0
        self.streams: Dict[str, Stream] = {}
        self.stream_endings: Dict[str, Tuple[int, Optional[StreamError]]] = {}
        # --- handlers: what waits for one, and the state they keep here
        self.calls: Deque[Call] = deque()
        self.in_call = False
        self.state: Dict[str, Any] = {}
        self.upstream: Any = None  # a Correspondence, once something has been said upstream
        # --- congestion (see Work)
        self.link_full = False
        self.hopeless = False
        self.progress = -1.0  # the reading of Work.waited at the last acknowledgement

    def acknowledge(self, sequence_id: int) -> None:
        """Forget what was sent up to ``sequence_id``; ids that are old or not yet used change nothing more."""
        if self.numbers is None:
            count = min(sequence_id, self.next_sequence - 1) - self.first_unacked + 1
        else:
            count = bisect_right(self.numbers, sequence_id)
        if count <= 0:
            return
        self.unacked_bytes -= sum(map(len, self.unacked[:count]))
        del self.unacked[:count]
        if self.numbers is None:
            self.first_unacked += count
        else:
            self._renumber(self.numbers[count:])
        if self.deadlines:
            self.deadlines = {key: due for key, due in self.deadlines.items() if key >= self.first_unacked}

    def limit(self, number: int, due: float) -> None:
        """Note that the message with the sequence id ``number`` is worthless from ``due`` on."""
        if not self.deadlines or due < self.earliest:
            self.earliest = due
        self.deadlines[number] = due

    def expire(self, now: float) -> None:
        """Forget messages past their time to live; their sequence ids are not used again, so ids may be missing."""
        if not self.deadlines or now < self.earliest:
            return
        late = {number for number, due in self.deadlines.items() if due <= now}
        if late:
            numbers = self.numbers or range(self.first_unacked, self.next_sequence)
            kept = [(number, frame) for number, frame in zip(numbers, self.unacked) if number not in late]
            self.unacked = [frame for _, frame in kept]
            self.unacked_bytes = sum(map(len, self.unacked))
            self.deadlines = {number: due for number, due in self.deadlines.items() if due > now}
            self._renumber([number for number, _ in kept])
        self.earliest = min(self.deadlines.values()) if self.deadlines else 0.0

    def _renumber(self, numbers: List[int]) -> None:
        self.first_unacked = numbers[0] if numbers else self.next_sequence
        self.numbers = None if self.first_unacked + len(numbers) == self.next_sequence else numbers

    def replay(self, now: float) -> None:
        """Queue what was not acknowledged once more, oldest first, without what is past its time to live."""
        self.expire(now)
        if not self.deadlines:
            self.out.extend(self.unacked)
            return
        numbers = self.numbers or range(self.first_unacked, self.next_sequence)
        for number, frame in zip(numbers, self.unacked):
            if number in self.deadlines:
                self.expiring[len(self.out)] = self.deadlines[number]
            self.out.append(frame)

    def forget_output(self) -> None:
        """Drop what is queued for a socket that is gone."""
        self.out.clear()
        self.expiring.clear()
        self.held.clear()
        self.held_bytes = 0

    def remember(self, ack_id: int, limit: int) -> None:
        """Note that the command with ``ack_id`` has been executed; the last ``limit`` such ids are kept."""
        self.ack_ids.add(ack_id)
        self.ack_order.append(ack_id)
        if len(self.ack_order) > limit:
            self.ack_ids.discard(self.ack_order.popleft())

    def __repr__(self) -> str:
        if self.ended:
            state = "ended"
        elif self.link is None:
            state = "retained"
        else:
            state = "connected"
        return "<Session %s user=%r %s %s groups=%d unacked=%d>" % (
            self.connection_id,
            self.user_id,
            self.wire.subprotocol or "simple client",
            state,
            len(self.groups),
            len(self.unacked),
        )


class Call(NamedTuple):
    """One call of a handler: ``kind`` is "event" (then ``event`` is the command) or the name of a system event.

    ``reason`` belongs to "disconnected", ``group`` to "joined" and "left".
    """

    kind: str
    session: Session
    event: Optional[UserEvent] = None
    reason: str = ""
    group: Optional[str] = None
