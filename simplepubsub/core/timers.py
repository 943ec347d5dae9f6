"""The timers of one connection, as data: pure, ``now`` is passed in.

``due(now)`` says what to do, ``next_deadline()`` when to ask again. Any inbound byte counts as life, so a busy service
is never taken for a dead one.
"""

from __future__ import annotations

import enum
from typing import List, Optional

from .sequence import ACK_AT_ONCE, ACK_AT_ONCE_BYTES, SequenceTracker

__all__ = ["Due", "Received", "Timers"]

#: Longest time between receiving a message and acknowledging its sequence id (client specification 3.2.5).
SEQUENCE_ACK_INTERVAL = 1.0

#: After the idle limit one more ping is sent and this many seconds are given for its answer: a process that was
#: suspended, or starved of its interpreter lock, then finds the bytes that already wait in the socket.
LAST_CHANCE = 2.0


class Due(enum.Enum):
    PING = 1
    SEQUENCE_ACK = 2
    ABORT_IDLE = 3


class Received(enum.Enum):
    """What inbound traffic asks for."""

    NOTHING = 0
    ACK_NOW = 1
    TIMER_SET = 2  # `next_deadline` moved closer


class Timers:
    """Ping, idle detection and sequence acknowledgement of one connection. Needs the engine's mutex."""

    def __init__(
        self, now: float, sequence: SequenceTracker, ping_interval: Optional[float], idle_timeout: Optional[float]
    ) -> None:
        self._sequence = sequence
        self._ping_interval = ping_interval
        self._idle_timeout = idle_timeout
        self.last_received = now
        self.paused = False  # the reader waits for the application: silence is our own doing
        self.latency: Optional[float] = None
        self._next_ping = now + ping_interval if ping_interval else None
        self._ping_sent: Optional[float] = None
        self._last_chance: Optional[float] = None
        self._ack_at: Optional[float] = None
        self._bytes_behind = 0  # size of the messages received since the last sequence acknowledgement

    def received(self, now: float, pong: bool, size: int = 0) -> Received:
        """Record inbound traffic with messages of ``size`` bytes; return what their sequence ids ask for."""
        self.last_received = now
        self._last_chance = None
        if pong and self._ping_sent is not None:
            self.latency = now - self._ping_sent
            self._ping_sent = None
        behind = self._sequence.behind
        self._bytes_behind += size
        if behind >= ACK_AT_ONCE or (behind and self._bytes_behind >= ACK_AT_ONCE_BYTES):
            return Received.ACK_NOW
        if behind and self._ack_at is None:
            self._ack_at = now + SEQUENCE_ACK_INTERVAL
            return Received.TIMER_SET
        return Received.NOTHING

    def acknowledged(self) -> None:
        """Record that the sequence acknowledgement was queued."""
        self._ack_at = None
        self._bytes_behind = 0

    def pinged(self, now: float) -> None:
        """Record that a ping was queued."""
        if self._ping_sent is None:  # answers come in order: the next one belongs to the oldest ping
            self._ping_sent = now
        if self._ping_interval:
            self._next_ping = now + self._ping_interval

    def due(self, now: float) -> List[Due]:
        """Return what is due; call `acknowledged` and `pinged` when it is done."""
        actions = []
        if self._ack_at is not None and now >= self._ack_at:
            actions.append(Due.SEQUENCE_ACK)
        ping = self._next_ping is not None and now >= self._next_ping
        if self._idle_timeout is not None and not self.paused and now >= self.last_received + self._idle_timeout:
            if self._last_chance is None:
                self._last_chance = now + LAST_CHANCE
                ping = True
            elif now >= self._last_chance:
                actions.append(Due.ABORT_IDLE)
        if ping:
            actions.append(Due.PING)
        return actions

    def next_deadline(self) -> Optional[float]:
        """Return when `due` should be asked again, None for never."""
        idle = None
        if self._idle_timeout is not None and not self.paused:
            idle = self.last_received + self._idle_timeout if self._last_chance is None else self._last_chance
        return min((time for time in (self._ack_at, self._next_ping, idle) if time is not None), default=None)
