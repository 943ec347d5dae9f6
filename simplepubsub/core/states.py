"""Connection states: everything that decides a transition stands in this one table.

::

    STOPPED --start()--> CONNECTING --established--> CONNECTED --stop()--> STOPPED
                          ^      |                    |     |
                 next try |      | failed             |     | lost, session can be recovered
                          |      v                    v     v
                         DISCONNECTED <--refused-- RECOVERING --recovered--> CONNECTED

Every state but STOPPED also ends in STOPPED: by stop(), by a refusal that trying again cannot cure, or when the retries
are used up. A pair that is not listed is a bug of ours and raises AssertionError.
"""

from __future__ import annotations

import enum
from typing import Dict, Tuple

__all__ = ["Reason", "State", "TRANSITIONS", "next_state"]


class State(str, enum.Enum):
    """Where the client stands; each member equals its name in lower case."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECOVERING = "recovering"
    DISCONNECTED = "disconnected"

    def __str__(self) -> str:
        return self.value


class Reason(str, enum.Enum):
    """Why a transition happened."""

    START_CALLED = "start() was called"
    ESTABLISHED = "the service accepted the connection"
    RECOVERED = "the session was recovered"
    LOST_RECOVERABLE = "the connection was lost, its session can be recovered"
    LOST = "the connection was lost"
    ATTEMPT_FAILED = "the attempt to connect failed"
    RECOVERY_REFUSED = "the service refused to recover the session"
    RECOVERY_EXPIRED = "the session could not be recovered in time"
    RETRY = "the next attempt is due"
    REFUSED = "the service refused the client for good"
    START_FAILED = "the first attempt to connect failed"
    RETRIES_EXHAUSTED = "no attempts are left"
    RECONNECT_OFF = "auto_reconnect is off"
    INBOX_OVERFLOW = "nobody received the messages that arrived"
    STOP_CALLED = "stop() was called"

    def __str__(self) -> str:
        return self.value


TRANSITIONS: Dict[Tuple[State, Reason], State] = {
    (State.STOPPED, Reason.START_CALLED): State.CONNECTING,
    (State.CONNECTING, Reason.ESTABLISHED): State.CONNECTED,
    (State.CONNECTING, Reason.ATTEMPT_FAILED): State.DISCONNECTED,
    (State.CONNECTING, Reason.START_FAILED): State.STOPPED,
    (State.CONNECTING, Reason.REFUSED): State.STOPPED,
    (State.CONNECTING, Reason.STOP_CALLED): State.STOPPED,
    (State.CONNECTED, Reason.LOST_RECOVERABLE): State.RECOVERING,
    (State.CONNECTED, Reason.LOST): State.DISCONNECTED,
    (State.CONNECTED, Reason.INBOX_OVERFLOW): State.STOPPED,
    (State.CONNECTED, Reason.STOP_CALLED): State.STOPPED,
    (State.RECOVERING, Reason.RECOVERED): State.CONNECTED,
    (State.RECOVERING, Reason.RECOVERY_REFUSED): State.DISCONNECTED,
    (State.RECOVERING, Reason.RECOVERY_EXPIRED): State.DISCONNECTED,
    (State.RECOVERING, Reason.STOP_CALLED): State.STOPPED,
    (State.DISCONNECTED, Reason.RETRY): State.CONNECTING,
    (State.DISCONNECTED, Reason.RETRIES_EXHAUSTED): State.STOPPED,
    (State.DISCONNECTED, Reason.RECONNECT_OFF): State.STOPPED,
    (State.DISCONNECTED, Reason.STOP_CALLED): State.STOPPED,
}


def next_state(state: State, reason: Reason) -> State:
    """Return where ``reason`` leads from ``state``; AssertionError when the table does not list the pair."""
    target = TRANSITIONS.get((state, reason))
    if target is None:
        raise AssertionError("no transition from %s because %s" % (state, reason))
    return target
