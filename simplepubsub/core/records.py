"""Records that the engine hands to the application: gaps, errors, and what listeners receive."""

from __future__ import annotations

from typing import NamedTuple, Optional

__all__ = ["AckError", "ConnectedArgs", "DisconnectedArgs", "Gap", "RejoinGroupFailedArgs", "StoppedArgs"]


class Gap(NamedTuple):
    """A session ended without recovery: messages may be missing between its last one and what comes next."""

    old_connection_id: str
    new_connection_id: str
    last_sequence_id: int


class AckError(NamedTuple):
    """The service's own words about a failed send."""

    name: str
    message: str


class ConnectedArgs(NamedTuple):
    """What ``connected`` and ``recovered`` listeners receive."""

    connection_id: str
    user_id: Optional[str] = None


class RejoinGroupFailedArgs(NamedTuple):
    """What a ``rejoin-group-failed`` listener receives."""

    group: str
    error: BaseException


class DisconnectedArgs(NamedTuple):
    """What a ``disconnected`` listener receives: the session is over, and not by stop()."""

    connection_id: str
    message: str
    code: Optional[int]
    reason: str
    will_retry: bool
    error: Optional[BaseException] = None


class StoppedArgs(NamedTuple):
    """What a ``stopped`` listener receives; ``error`` is None after a plain stop()."""

    error: Optional[BaseException] = None
