"""What the supervisor does while a connection lives: whatever timer is due, its own and those of conversations."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Optional

from ..exceptions import TransportError
from .timers import Due

if TYPE_CHECKING:
    from .connection import Connection
    from .engine import Engine

__all__ = ["run_timers_locked"]


def run_timers_locked(engine: Engine, connection: Connection) -> Optional[float]:
    """Do what is due on ``connection`` and return when to look again (monotonic seconds), None for never.

    A connection that was silent for too long is ended.
    """
    timers, now = connection.timers, time.monotonic()
    for due in timers.due(now):
        if due is Due.SEQUENCE_ACK:
            engine.receiver.queue_sequence_ack_locked(connection)
        elif due is Due.PING:
            engine.session.control(engine.protocol.ping(), "ping")
            timers.pinged(now)
            connection.writable.notify()
        else:
            connection.cause = TransportError(
                "nothing received for %.0f s, the connection is taken for dead" % (now - timers.last_received)
            )
            connection.ended = True
    engine.conversations.due_locked(now)
    deadlines = timers.next_deadline(), engine.conversations.next_deadline_locked()
    return min((time for time in deadlines if time is not None), default=None)
