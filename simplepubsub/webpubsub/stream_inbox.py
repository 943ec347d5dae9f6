"""Received streams: which messages belong to whom, and how much of them may wait.

Data flow::

    reader thread -> Receiver.deliver -> StreamInbox.take -> Feed (one per stream) -> StreamReader in the application
                                                          -> Door (one per `streams()` call): feeds nobody reads yet

Ownership: one leaf lock guards everything here: the doors, the feeds and who waits. It is taken under the engine's
mutex (by the hooks), never the other way round, and nothing else is taken while it is held. The engine holds feeds and
doors, never the application's handles: those are referenced weakly, so a reader that is thrown away frees its feed.

Flow control is that of the inbox: ``limit`` waiting fragments, of all streams together, pause the connection's reader,
at twice that the client fails with `InboxOverflow`. One thing is different. Fragments of several streams arrive
interleaved, and an application may read one stream to its end before the next: while somebody waits at an empty feed
the reader goes on, since what is wanted may stand behind what is not.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

from ..core.conversations import SideDoor
from ..core.deadline import Deadline, check_timeout, wait
from ..core.engine import Engine
from ..core.protocol import Inbound
from ..exceptions import ClientStateError, InboxOverflow, ReceiveTimeout, StreamFailed, StreamLost, fresh
from .incoming_stream import End, StreamAssembler
from .messages import Message

__all__ = ["Door", "Feed", "StreamInbox"]

_Key = Tuple[str, str]  # group, stream id


class _Hungry:
    """Stands for one call that waits at an empty feed."""

    __slots__ = ("__weakref__",)


class Feed:
    """One stream on its way to a reader."""

    def __init__(self, message: Message, first: int, door: "Door", lock: threading.Lock) -> None:
        assert message.stream is not None and message.group is not None
        self.stream_id = message.stream.stream_id
        self.group = message.group
        self.from_user_id = message.from_user_id
        self.idle_timeout = door.idle_timeout
        self.assembler = StreamAssembler(first)
        self.items: Deque[Any] = deque()  # messages, and exceptions in place of what is missing
        self.end: Optional[End] = None  # after the items
        self.last = 0.0  # when something came
        self.changed = threading.Condition(lock)
        #: The door until it is accepted, then the reader.
        self.owner: Callable[[], Any] = door.handle
        self.unwanted = False  # nobody will read it: what comes is dropped

    def finish_locked(self, error: Optional[BaseException]) -> None:
        """End it, unless it has an end already."""
        if self.end is None:
            self.end = End(error)
            self.changed.notify_all()


class Door:
    """Where new streams of ``group`` (None = of any) wait for a reader."""

    def __init__(self, group: Optional[str], from_start: bool, idle_timeout: Optional[float], inbox: "StreamInbox",
                 handle: Callable[[], Any]) -> None:
        self.group = group
        self.from_start = from_start
        self.idle_timeout = idle_timeout
        self.handle = handle  # weak
        self.waiting: Deque[Feed] = deque()
        self.changed = inbox.condition()
        self.closed = False
        self.skipped = 0


class StreamInbox(SideDoor):
    """All received streams of a client. Methods are safe from any thread unless `SideDoor` says otherwise."""

    def __init__(self, engine: Engine, limit: int) -> None:
        self._engine = engine
        self._limit = limit
        self._lock = threading.Lock()  # guards everything below, doors and feeds included
        self._doors: List[Door] = []
        self._feeds: Dict[_Key, Feed] = {}  # not ended
        self._unread: "weakref.WeakSet[Feed]" = weakref.WeakSet()  # all that somebody may still read
        self._hungry: "weakref.WeakSet[_Hungry]" = weakref.WeakSet()
        self._watching = False

    @property
    def forked(self) -> bool:
        """Whether this is the child of the process that the client lives in."""
        return self._engine.forked

    def condition(self) -> threading.Condition:
        """Return a new condition on the lock."""
        return threading.Condition(self._lock)

    # --- the reader thread --------------------------------------------------------------------------------------------

    def take(self, messages: List[Inbound]) -> List[Inbound]:
        now = time.monotonic()
        with self._lock:
            return [message for message in messages if not self._keep_locked(message, now)]

    def _keep_locked(self, message: Any, now: float) -> bool:
        info = message.stream
        if info is None:
            return False
        key = (message.group, info.stream_id)
        feed = self._feeds.get(key)
        if feed is None:
            door = self._door_locked(message.group)
            if door is None:
                return False
            if info.sequence_id > 1 and door.from_start:
                door.skipped += 1
                return True
            feed = Feed(message, info.sequence_id, door, self._lock)
            self._feeds[key] = feed
            self._unread.add(feed)
            door.waiting.append(feed)
            door.changed.notify_all()
        feed.last = now
        for item in feed.assembler.accept(message):
            if isinstance(item, End):
                del self._feeds[key]
                feed.finish_locked(item.error)
            elif not feed.unwanted:
                feed.items.append(item)
                feed.changed.notify_all()
        return True

    def _door_locked(self, group: str) -> Optional[Door]:
        for door in self._doors:
            if (door.group is None or door.group == group) and door.handle() is not None:
                return door
        return None

    @property
    def _count(self) -> int:
        with self._lock:
            self._sweep_locked()
            # A stream that nobody has accepted counts even when it is empty: how many there are is up to the peer.
            return sum(len(feed.items) for feed in self._unread) + sum(len(door.waiting) for door in self._doors)

    def _sweep_locked(self) -> None:
        """Forget what no handle leads to any more."""
        # No comprehension under the lock: since they are compiled in place, Ctrl-C in one may skip the release (3.13).
        self._doors = list(filter(lambda door: door.handle() is not None, self._doors))
        for feed in self._feeds.values():
            if not feed.unwanted and feed.owner() is None:
                self._drop_locked(feed)
        if not self._doors and not self._feeds:
            self._engine.receiver.side_door = None

    def _drop_locked(self, feed: Feed) -> None:
        feed.unwanted = True
        feed.items.clear()

    @property
    def full(self) -> bool:
        count = self._count
        if count >= 2 * self._limit:
            raise InboxOverflow(
                "%d fragments of streams wait and nobody reads them: read or close every stream that you accept, or "
                "raise max_inbox (now %d)" % (count, self._limit)
            )
        return count >= self._limit and not self._hungry

    @property
    def drained(self) -> bool:
        return bool(self._hungry) or self._count <= self._limit // 4

    def watch_drain(self, on: bool) -> None:
        self._watching = on

    # --- application threads ------------------------------------------------------------------------------------------

    def add_door(self, door: Door) -> None:
        """Let streams in."""
        with self._lock:
            self._doors.append(door)
            self._engine.receiver.side_door = self

    def close_door(self, door: Door) -> None:
        """Let no more streams in; those that nobody has accepted are dropped. Raises ForkedError."""
        self._engine.check()
        with self._lock:
            door.closed = True
            if door in self._doors:
                self._doors.remove(door)
            for feed in door.waiting:
                self._drop_locked(feed)
            door.waiting.clear()
            door.changed.notify_all()
        self._tell_drained()

    def close_feed(self, feed: Feed) -> None:
        """Drop what is left of a stream, and what is still to come. Raises ForkedError."""
        self._engine.check()
        with self._lock:
            self._drop_locked(feed)
            feed.finish_locked(ClientStateError("the reader of the stream %s is closed" % feed.stream_id))
        self._tell_drained()

    def next_stream(self, door: Door, timeout: Optional[float], accept: Callable[[Feed], Any]) -> Any:
        """Return what ``accept`` makes of the next new stream, which becomes its owner.

        Raises ReceiveTimeout, ClientStopped, ClientStateError for a closed door.
        """

        def look() -> Any:
            if door.waiting:
                reader = accept(door.waiting[0])  # before it leaves the line: Ctrl-C must not lose it
                door.waiting.popleft()
                return reader
            if door.closed:
                raise ClientStateError("this receiver of streams is closed")
            if self._engine.supervisor is None:
                raise self._engine.stopped_error()
            return None

        return self._get(look, door.changed, timeout, lambda: None, "no new stream within %s s")

    def next_item(self, feed: Feed, timeout: Optional[float]) -> Optional[Message]:
        """Return the next fragment, None at a good end.

        Raises ReceiveTimeout, StreamGap in place of missing fragments, and for ever what the stream ended with.
        """

        def look() -> Optional[Any]:
            if feed.items:
                return feed.items.popleft()
            if feed.end is None and feed.idle_timeout is not None:
                if self._engine.receiver.paused:
                    feed.last = time.monotonic()  # the silence is our own doing
                elif time.monotonic() >= feed.last + feed.idle_timeout:
                    self._drop_locked(feed)
                    text = "nothing came on the stream %s for %g s" % (feed.stream_id, feed.idle_timeout)
                    feed.finish_locked(StreamFailed(text, stream_id=feed.stream_id, name="IdleTimeout", message=text))
            return feed.end

        def limit() -> Optional[float]:
            return None if feed.idle_timeout is None else feed.last + feed.idle_timeout - time.monotonic()

        item = self._get(look, feed.changed, timeout, limit, "no fragment within %s s")
        if isinstance(item, End):
            if item.error is not None:
                raise fresh(item.error)
            return None
        if isinstance(item, BaseException):
            raise item
        message: Message = item
        return message

    def _get(
        self,
        look: Callable[[], Any],
        changed: threading.Condition,
        timeout: Optional[float],
        limit: Callable[[], Optional[float]],
        late: str,
    ) -> Any:
        """Return what ``look`` finds, as soon as it finds something; both callables are called with the lock."""
        engine = self._engine
        engine.check()
        check_timeout(timeout)
        with self._lock:
            item = look()
        if item is None:
            if timeout != 0:
                engine.check_blocking()
            deadline = Deadline(timeout)
            hungry, known = _Hungry(), False  # its death, however this call ends, ends the hunger
            while item is None:
                with self._lock:
                    item = look()
                    if item is None:
                        remaining = deadline.remaining()
                        if remaining is not None and remaining <= 0:
                            raise ReceiveTimeout(late % timeout)
                        known = hungry in self._hungry
                        if known:
                            bound = limit()
                            if bound is None or (remaining is not None and remaining < bound):
                                bound = remaining
                            wait(changed, None if bound is None else max(0.0, bound))
                        else:
                            self._hungry.add(hungry)
                if item is None and not known and self._watching:
                    engine.receiver.resume_reader()  # not under the lock: it takes the engine's mutex
            self._hungry.discard(hungry)
        self._tell_drained()
        return item

    def _tell_drained(self) -> None:
        if self._watching and self.drained:
            self._engine.receiver.resume_reader()

    # --- hooks of `Conversations` (under the engine's mutex) ----------------------------------------------------------

    def session_lost_locked(self) -> None:
        self._end_all("the session was lost, the rest of the stream %s with it", StreamLost)

    def stopped_locked(self) -> None:
        with self._lock:
            for feed in self._feeds.values():
                feed.finish_locked(self._engine.stopped_error())
            self._feeds.clear()
            for door in self._doors:
                door.changed.notify_all()

    def _end_all(self, text: str, kind: Any) -> None:
        with self._lock:
            for feed in self._feeds.values():
                feed.finish_locked(kind(text % feed.stream_id, stream_id=feed.stream_id))
            self._feeds.clear()
