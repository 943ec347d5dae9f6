"""The limits of the embedded service, all in one place; the defaults are those of the cloud."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..exceptions import InvalidArgument
from ..webpubsub.messages import MAX_MESSAGE_BYTES

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What one connection may use. Beyond most limits that connection is closed; nobody else notices.

    A test that wants to see an overflow makes the limits small; one that must not see any makes them large. Raises
    InvalidArgument for a limit that is no positive number.
    """

    #: Largest message in bytes, either direction; a larger one closes its sender with 1009.
    max_message_bytes: int = MAX_MESSAGE_BYTES
    #: Messages sent to a reliable connection and not acknowledged by it; beyond it is closed 1008 (client spec 3.2.2).
    max_unacked_messages: int = 1000
    #: The same in bytes. For connections that are not reliable: bytes that wait for the socket.
    max_unacked_bytes: int = 16 * 2**20
    #: Executed ack ids that a connection remembers, to answer "Duplicate" (the emulator remembers 1,000).
    max_ack_ids: int = 1000
    #: User events and invocations of one connection that wait for their handler; beyond, further ones wait in the
    #: socket.
    max_waiting_events: int = 256
    #: Streams that one connection may have active; beyond, the start of another one is refused.
    max_streams: int = 100
    #: Seconds that publishers wait for a receiver that is behind, so that a burst does not overflow a healthy one. A
    #: receiver that has not caught up by then is not waited for again until it has: it overflows and is closed. Time in
    #: which the server itself did not get to run (a busy machine, the interpreter lock) hardly counts.
    patience: float = 0.5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            kinds = (int, float) if name == "patience" else (int,)
            if not isinstance(value, kinds) or isinstance(value, bool) or not 0 < value < float("inf"):
                raise InvalidArgument("%s must be a positive number, not %r" % (name, value))
