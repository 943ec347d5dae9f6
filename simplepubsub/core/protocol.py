"""The two seams of the engine, and the records that cross them (`conversations` has a third, for faces).

A `Transport` is one live duplex carrier of frames. A `Protocol` is pure: it turns commands into frames and frames into
events. Between them and the engine nothing else is agreed; a new protocol or carrier needs no change in this package.
"""

from __future__ import annotations

from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple, Union

__all__ = ["Ack", "Connected", "Dial", "Disconnected", "Frame", "Inbound", "Pong", "Protocol", "Resume", "Transport"]

#: (opcode, payload): one whole message or one control frame; opcodes as in RFC 6455 section 5.2.
Frame = Tuple[int, Union[str, bytes]]

#: What a protocol needs to continue a lost session; opaque to the engine.
Resume = Any


class Transport:
    """One live carrier. It dies once and is never reused.

    Reading and writing have one owner each; nothing here takes a lock that is held across I/O.
    """

    def receive(self) -> List[Frame]:
        """Block until frames arrive and return them all, control frames included; reader thread only.

        Raises TransportClosed after the peer's close frame, TransportError when the carrier broke or was aborted,
        RemoteProtocolError when the peer broke the framing rules.
        """
        raise AssertionError("a transport must implement receive()")

    def send(self, frames: Sequence[Frame]) -> None:
        """Write all frames in one system call where possible, blocking while the peer is slow; writer only.

        Raises TransportError.
        """
        raise AssertionError("a transport must implement send()")

    #: Whether `try_send` is offered.
    can_try_send = False

    def try_send(self, frames: Sequence[Frame]) -> bytes:
        """Write what the carrier takes without blocking and return the rest for `send_rest`; writer role only.

        Raises TransportError.
        """
        raise AssertionError("this transport does not offer try_send()")

    def send_rest(self, rest: bytes) -> None:
        """Write what `try_send` left, blocking like `send`; nothing else may be written in between."""
        raise AssertionError("this transport does not offer try_send()")

    def close(self, code: int, reason: str) -> None:
        """Start the close handshake by writing a close frame; writer only. Raises TransportError."""
        raise AssertionError("a transport must implement close()")

    def abort(self) -> None:
        """End the carrier at once and wake a blocked receive() and send(); any thread, any number of times."""
        raise AssertionError("a transport must implement abort()")

    def release(self) -> None:
        """Free the file descriptor; called once, after reader and writer have ended."""
        raise AssertionError("a transport must implement release()")


class Dial:
    """One attempt to open a transport; ``connect`` runs in a thread of its own, ``abort`` comes from another."""

    #: What ``connect`` is doing, in words.
    step = "connecting"

    def connect(self, url: str, timeout: Optional[float]) -> Transport:
        """Return an open transport within ``timeout`` seconds. Raises ConnectError."""
        raise AssertionError("a dial must implement connect()")

    def abort(self) -> None:
        """Make a running ``connect`` fail soon; any thread, any number of times."""
        raise AssertionError("a dial must implement abort()")


class Inbound:
    """Base of every message that goes to the application; the engine knows just this of it."""

    __slots__ = ("after_gap", "sequence_id")

    sequence_id: int
    after_gap: bool

    @property
    def event(self) -> str:
        """The name of the listener event that the message belongs to."""
        raise AssertionError("a message must name its event")


class Connected(NamedTuple):
    """The service accepted the connection. ``resume`` is None where the protocol cannot continue a session."""

    connection_id: str
    user_id: Optional[str] = None
    resume: Resume = None


class Disconnected(NamedTuple):
    """The service announces that it is about to close; ``message`` is its reason."""

    message: str = ""


class Ack(NamedTuple):
    """The answer to one command. ``ok`` includes "executed before"."""

    ack_id: int
    ok: bool
    name: str = ""
    message: str = ""


class Pong(NamedTuple):
    """The answer to a protocol-level ping."""


#: What `Protocol.decode` returns: one of the records above, an application message, None for nothing of interest, or
#: anything else, which is for the `Conversations` of the face.
Decoded = Any


class Protocol:
    """The rules of one wire protocol: pure functions and constants, safe from any thread."""

    #: What to offer in the handshake; empty when the protocol has no subprotocol.
    subprotocols: Sequence[str] = ()
    #: Whether the service numbers its messages, wants the numbers acknowledged, and can continue a lost session.
    reliable = False
    #: How many commands may be written and unanswered: no more than the service recognises when a recovered session
    #: repeats them. None = any number.
    max_in_flight: Optional[int] = None

    def url(self, base: str, resume: Resume) -> str:
        """Return the URL to dial: ``base`` for a new session, or the one that continues ``resume``."""
        raise AssertionError("a protocol must implement url()")

    def shown_url(self, url: str) -> str:
        """Return ``url`` without its secrets, for messages and logs."""
        raise AssertionError("a protocol must implement shown_url()")

    def shown_text(self, text: str) -> str:
        """Return a text from elsewhere, such as a user's exception, without what looks like a secret."""
        return text

    def decode(self, frame: Frame) -> Decoded:
        """Return what a data frame means. Raises RemoteProtocolError when it breaks the protocol."""
        raise AssertionError("a protocol must implement decode()")

    def ping(self) -> Frame:
        """Return the frame that asks the peer for a sign of life."""
        raise AssertionError("a protocol must implement ping()")

    def sequence_ack(self, sequence_id: int) -> Frame:
        """Return the frame that acknowledges every message up to ``sequence_id``; reliable protocols only."""
        raise AssertionError("a protocol must implement sequence_ack()")

    def finish(self, body: bytes, ack_id: Optional[int]) -> Frame:
        """Return the frame of an encoded command, now that its ack id is known (None = no answer is wanted).

        Called under the engine's mutex: it joins bytes and does nothing that takes long or fails.
        """
        raise AssertionError("a protocol must implement finish()")

    def restore(self, key: str, ack_id: int) -> Frame:
        """Return the frame that restores one entry of the restore list (a group) on a new session."""
        raise AssertionError("a protocol must implement restore()")


#: Makes one dial attempt object per try.
Dialer = Callable[[], Dial]
