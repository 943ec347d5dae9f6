"""Sequence ids of a reliable session: what is new, what is a repeat, and when to acknowledge.

Owned by the reader thread while a connection lives, by the supervisor between connections.
"""

from __future__ import annotations

__all__ = ["ACK_AT_ONCE", "ACK_AT_ONCE_BYTES", "SequenceTracker"]

#: Acknowledge without waiting for the timer when this many messages behind. The service drops a client at 1,000
#: unacknowledged messages (client specification 3.2.2); the official JavaScript client uses 300.
ACK_AT_ONCE = 300

#: The same for bytes: the service's other limit is 16 MB, and sixteen messages may be that much.
ACK_AT_ONCE_BYTES = 2**20


class SequenceTracker:
    """The largest sequence id received and the largest one acknowledged."""

    __slots__ = ("acknowledged", "duplicates", "largest")

    def __init__(self) -> None:
        self.largest = 0
        self.acknowledged = 0
        self.duplicates = 0

    def accept(self, sequence_id: int) -> bool:
        """Record ``sequence_id`` and return whether it is new.

        After a recovery the service repeats what was not acknowledged; those repeats are not new. 0 means that the
        message carries no number.
        """
        if sequence_id > self.largest:
            self.largest = sequence_id
            return True
        if sequence_id == 0:
            return True
        self.duplicates += 1
        # The repeat shows that the service did not see our acknowledgement: send it again.
        self.acknowledged = min(self.acknowledged, sequence_id - 1)
        return False

    @property
    def behind(self) -> int:
        """How many messages are received but not acknowledged."""
        return self.largest - self.acknowledged

    def reset(self) -> None:
        """Start over: the next session counts from 1."""
        self.largest = self.acknowledged = 0
