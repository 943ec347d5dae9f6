"""The way in: from decoded messages to listeners and the inbox, flow control, and sequence acknowledgements."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Dict, Iterable, List, Optional, Union

from .connection import Connection
from .conversations import SideDoor
from .inbox import Inbox
from .listeners import Listeners
from .protocol import Inbound
from .records import Gap
from .sequence import SequenceTracker

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Receiver"]


class Receiver:
    """Used by the reader thread; the ``*_locked`` methods need the engine's mutex."""

    def __init__(
        self, engine: Engine, mutex: threading.Lock, events: Iterable[str], max_inbox: int, counters: Dict[str, int]
    ) -> None:
        self._engine = engine
        self._mutex = mutex  # the engine's
        self._counters = counters
        self.inbox = Inbox(max_inbox, self.resume_reader, engine.check_blocking)
        self.listeners = Listeners(events, max_inbox, self.resume_reader, engine.name)
        # Owned by the reader while a connection lives, by the supervisor between connections:
        self.sequence = SequenceTracker()
        self._gap_before_inbox = False  # listeners and receive() are different eyes: each is told once
        self._gap_before_listeners = False
        self._paused = False  # guarded by the mutex: the reader waits in the engine's ``room``
        self.side_door: Optional[SideDoor] = None  # takes messages before anybody else; set and cleared by the face

    def deliver(self, messages: List[Inbound]) -> None:
        """Hand messages to their listeners, or to the inbox (reader thread). Raises InboxOverflow."""
        self._counters["received"] += len(messages)
        if self.side_door is not None:
            messages = self.side_door.take(messages)
            if not messages:
                return
        if not self.listeners.any:
            self._put(messages)
            return
        calls, rest = [], []
        for message in messages:
            event = message.event
            if self.listeners.has(event):
                calls.append((event, message))
            else:
                rest.append(message)
        if calls:
            if self._gap_before_listeners:
                self._gap_before_listeners = False
                calls[0][1].after_gap = True
            self.listeners.emit_many(calls)
        if rest:
            self._put(rest)

    def _put(self, messages: List[Inbound]) -> None:
        if self._gap_before_inbox:
            self._gap_before_inbox = False
            messages[0].after_gap = True
        self.inbox.put(messages)

    def wait_for_room(self, connection: Connection) -> None:
        """Pause the reader while the application is behind, but never while something we sent waits for an answer.

        Both ends would otherwise wait for each other: the service stops reading when it cannot write.
        """
        # Only what is full has to drain: the other one may hold a few messages that nobody ever fetches.
        queues: List[Union[Inbox, SideDoor]]
        queues = [queue for queue in (self.inbox, self.listeners.queue) if queue.full]
        side_door = self.side_door
        if side_door is not None and side_door.full:
            queues.append(side_door)
        if not queues:
            return
        with self._mutex:
            self._paused = connection.timers.paused = True
            try:
                for queue in queues:
                    queue.watch_drain(True)
                while not (all(queue.drained for queue in queues) or connection.ended or connection.closing):
                    if not self._engine.session.idle or self._engine.conversations.waiting_locked():
                        break
                    if self._engine.connection is not connection:
                        break
                    self._engine.room.wait()
            finally:
                for queue in queues:
                    queue.watch_drain(False)
                self._paused = connection.timers.paused = False
                connection.timers.received(time.monotonic(), False)

    @property
    def paused(self) -> bool:
        """Whether the reader waits for the application."""
        return self._paused

    def resume_reader(self) -> None:
        """Let a paused reader look again whether there is room; any thread, no lock held."""
        with self._mutex:
            self._engine.room.notify_all()

    def queue_sequence_ack_locked(self, connection: Connection) -> None:
        """Acknowledge everything received so far."""
        if self.sequence.behind > 0:
            self._engine.session.control(self._engine.protocol.sequence_ack(self.sequence.largest), "sequence ack")
            self.sequence.acknowledged = self.sequence.largest
            connection.writable.notify()
        connection.timers.acknowledged()

    def answers_wanted_locked(self) -> None:
        """Something was sent whose answer must be read: a paused reader goes on."""
        if self._paused:
            self._engine.room.notify_all()

    def gap(self, gap: Gap, as_item: bool) -> None:
        """Mark that messages may be missing before the next one; ``as_item`` puts the gap itself into the inbox too."""
        self._gap_before_inbox = self._gap_before_listeners = True
        if as_item:
            self.inbox.put_always(gap)
        self.listeners.emit("gap", gap)
