"""The third seam: what a face knows about traffic that is neither a command with an ack nor a message for everybody.

The engine knows acks and messages. A protocol may have more: calls with answers of their own, streams with numbers of
their own. Their records are opaque here; the engine hands them to a `Conversations` object, tells it what becomes of
the connection, and asks it for its timers. The frames of a conversation are *bound* entries of the session: they go
out in order with everything else, and what is not written when the link is lost is forgotten, because a conversation
knows better than a queue what a new connection needs.

State and locks: a conversation's state is guarded by the engine's mutex. The ``*_locked`` methods are called with it,
in the same critical section as the engine's own transition, so nobody can slip a frame between "the session was
recovered" and what has to be sent again. They complete no future and run no user code; what they leave to be completed
is done by `Conversations.settle`, which the engine calls right after, with no lock held.

========================  =======================  ==============================================================
hook                      called by                when
========================  =======================  ==============================================================
``received_locked``       reader                   records arrived on the present connection
``link_lost_locked``      supervisor               reader and writer are gone, bound entries forgotten
``session_lost_locked``   supervisor               it will not be recovered
``recovered_locked``      reader (or supervisor)   the session continues on a new link, which is open for writing
``begun_locked``          reader                   a new session begins, open for writing
``stopped_locked``        whoever ends the run     the client has stopped (``engine.stopped_by`` says why)
``due_locked``            supervisor               a timer may be due; only while there is a connection
========================  =======================  ==============================================================

`SideDoor` is the same for messages: while one is set, it takes the messages it has a use for before listeners and
inbox see them, and it takes part in the flow control of the reader.
"""

from __future__ import annotations

from typing import Any, List, Optional

from .protocol import Inbound

__all__ = ["Conversations", "SideDoor"]


class Conversations:
    """A face without conversations; see the module docstring for when each method is called."""

    def received_locked(self, replies: List[Any], now: float) -> None:
        """Take the records that `Protocol.decode` returned and the engine does not know, in order."""

    def link_lost_locked(self) -> None:
        """The link is gone; the session may yet be recovered. May be called several times in a row."""

    def session_lost_locked(self) -> None:
        """The session will not be recovered; a new one may follow."""

    def recovered_locked(self) -> None:
        """The session goes on: submit what has to be sent again."""

    def begun_locked(self) -> None:
        """A new session has begun."""

    def stopped_locked(self) -> None:
        """The client has stopped: nothing may be left that waits."""

    def due_locked(self, now: float) -> None:
        """Do what is due at ``now`` (monotonic seconds)."""

    def next_deadline_locked(self) -> Optional[float]:
        """Return when `due_locked` should be called again, None for never."""
        return None

    def waiting_locked(self) -> bool:
        """Return whether an answer is wanted: then the reader must go on reading, whatever is full."""
        return False

    def settle(self) -> None:
        """Complete the futures that the methods above have decided about; any thread, no lock held."""


class SideDoor:
    """Takes some of the messages; the flow control is that of `Inbox`. All methods are for the reader thread."""

    def take(self, messages: List[Inbound]) -> List[Inbound]:
        """Keep the messages that are wanted here and return the others, in order. Never fails, never blocks."""
        raise AssertionError("a side door must implement take()")

    @property
    def full(self) -> bool:
        """Whether the reader should stop reading until `drained`. Raises InboxOverflow far beyond the limit."""
        raise AssertionError("a side door must implement full")

    @property
    def drained(self) -> bool:
        """Whether a paused reader may go on."""
        raise AssertionError("a side door must implement drained")

    def watch_drain(self, on: bool) -> None:
        """Ask that the reader be woken once `drained` becomes true."""
        raise AssertionError("a side door must implement watch_drain()")
