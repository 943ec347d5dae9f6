"""One connection as the service knows it: identity, rights, groups, what it was sent and has not acknowledged.

A session outlives its socket when its subprotocol is reliable. Pure: no socket, no clock.
"""

from __future__ import annotations

import secrets
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
    back. ``out`` holds frames for the socket, ``closing`` the (code, reason) to close it with after them.
    """

    __slots__ = (
        "ack_ids",
        "ack_order",
        "calls",
        "closing",
        "connection_id",
        "deadlines",
        "dirty",
        "ended",
        "first_unacked",
        "groups",
        "hub",
        "hopeless",
        "in_call",
        "invocations",
        "link",
        "link_full",
        "next_sequence",
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
        self.dirty = False  # listed in Work.dirty
        self.closing: Optional[Tuple[int, str]] = None
        # --- reliable delivery: unacked[0] is the frame with the sequence id first_unacked
        self.next_sequence = 1
        self.first_unacked = 1
        self.unacked: List[bytes] = []
        self.unacked_bytes = 0
        self.deadlines: Dict[int, float] = {}  # sequence id -> when it is too old to be replayed
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
        count = min(sequence_id, self.next_sequence - 1) - self.first_unacked + 1
        if count <= 0:
            return
        self.unacked_bytes -= sum(map(len, self.unacked[:count]))
        del self.unacked[:count]
        self.first_unacked += count
        if self.deadlines:
            self.deadlines = {key: due for key, due in self.deadlines.items() if key >= self.first_unacked}

    def replay(self, now: float) -> List[bytes]:
        """Return the frames to send again after a recovery, oldest first, without those past their time to live."""
        if not self.deadlines:
            return list(self.unacked)
        late = {key for key, due in self.deadlines.items() if due <= now}
        return [frame for number, frame in enumerate(self.unacked, self.first_unacked) if number not in late]

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
