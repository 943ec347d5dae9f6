"""Streams as the service keeps them: numbered fragments from one connection to a group (client specification 3.6).

Pure, as `Hub` is: no socket, no clock. What the specification leaves open is decided here:

* Answers gather until `Streams.settle`, which the pump calls every turn: one streamAck, or one streamNack if a fragment
  was dropped that is still wanted, per stream and turn. The number in them never falls.
* Every frame of a stream counts as activity. The idle time stands still while the publisher has no socket, and starts
  anew when it is back. It also stands still while something that the publisher has sent waits for its turn.
* An end that comes after a nack is held until the fragments that were dropped have been sent again, so that no receiver
  takes a stream with a hole for a complete one. An end with an error is not held. Without a nack an end is taken at
  its word, because it carries no number.
* After a recovery a client cannot know what arrived before. A start of an active stream, the same group, is then
  answered with the number wanted; a frame for a stream that ended before the recovery with that ending. At any other
  time the first is a BadRequest, which does the active stream no harm, and the second a StreamNotFound.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Container, List, Optional, Tuple

from ..webpubsub.messages import StreamData, StreamEnd, StreamError, StreamInfo, StreamStart
from .wire import Outgoing

if TYPE_CHECKING:
    from .session import Session

__all__ = ["MAX_IDLE_MS", "MAX_STREAM_ID", "Stream", "Streams"]

#: The longest idle time (the field has 32 bits in the protobuf form), and the longest stream id in characters.
MAX_IDLE_MS = 2**32 - 1
MAX_STREAM_ID = 1024

#: Endings that a connection remembers, for frames that follow a recovery.
_MAX_ENDINGS = 100


class Stream:
    """One active stream. Belongs to the server's loop; `Streams` is its only writer."""

    __slots__ = (
        "closed",
        "due",
        "ending",
        "entry",
        "expected",
        "gap",
        "group",
        "idle",
        "no_echo",
        "publisher",
        "recoveries",
        "refusal",
        "stream_id",
        "unanswered",
    )

    def __init__(self, publisher: "Session", start: StreamStart, now: float) -> None:
        self.publisher = publisher
        self.stream_id = start.stream_id
        self.group = start.group
        self.no_echo = start.no_echo
        self.idle = start.idle_timeout_ms / 1000.0
        self.due = now + self.idle  # when it has been idle for too long
        self.entry = 0  # the number of its valid entry in the heap of idle times
        self.recoveries = publisher.recoveries  # those before it was started, or its start was repeated
        self.expected = 1
        self.gap = 0  # the highest number that was dropped because one before it is missing
        self.refusal: Optional[Tuple[str, str]] = None  # name and message of the nack to send
        self.unanswered = False  # listed in Streams.unanswered
        self.ending = False  # its end has come, but has to wait for what was dropped
        self.closed = False


class Streams:
    """The streams of all hubs of a server. Belongs to the server's loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._numbers = itertools.count(1)
        self._idle: List[Tuple[float, int, Stream]] = []  # heap; times may be too early, never too late
        #: How many are active.
        self.active = 0
        #: Streams whose publishers are to get an answer, and streams whose publishers are gone: for `settle`.
        self.unanswered: List[Stream] = []
        self.orphans: List[Stream] = []
        #: Faults for tests: stream acks not to be sent, fragments to be refused.
        self.lose_acks = 0
        self.refuse_fragments = 0

    # --- what publishers send -----------------------------------------------------------------------------------------

    def start(self, session: "Session", start: StreamStart, now: float) -> Optional[StreamError]:
        """Open a stream and acknowledge it; return None, or why it was refused, which the publisher is told."""
        hub, stream = session.hub, session.streams.get(start.stream_id)
        error = self._objection(session, start, stream)
        if error is not None:
            hub.push(session, session.wire.stream_closed(start.stream_id, error))
            return error
        if stream is None:
            stream = session.streams[start.stream_id] = Stream(session, start, now)
            self.active += 1
            hub.work.counters["streams_started"] += 1
            self._watch(stream)
        stream.recoveries = session.recoveries
        self.remind(session, start.stream_id)
        return None

    def _objection(self, session: "Session", start: StreamStart, stream: Optional[Stream]) -> Optional[StreamError]:
        if not session.permissions.can_send(start.group):
            return _forbidden(start.group)
        if start.has_data:
            return StreamError("BadRequest", "the start of a stream carries no data")
        if not 1 <= start.idle_timeout_ms <= MAX_IDLE_MS:
            return StreamError("BadRequest", "idleTimeoutMs must be from 1 to %d" % MAX_IDLE_MS)
        if not start.stream_id.strip() or len(start.stream_id) > MAX_STREAM_ID:
            return StreamError("BadRequest", "a stream id has 1 to %d characters, and not only space" % MAX_STREAM_ID)
        if stream is not None:
            if stream.recoveries == session.recoveries or stream.group != start.group:
                return StreamError("BadRequest", "the stream is active already")
        elif len(session.streams) >= self._limit:
            return StreamError("BadRequest", "at most %d streams can be active at once" % self._limit)
        return None

    def remind(self, session: "Session", stream_id: str) -> None:
        """Tell the publisher which fragment of a stream is wanted, or how it ended."""
        stream = session.streams.get(stream_id)
        if stream is None:
            self._unknown(session, stream_id)
        else:
            self._acknowledge(stream)

    def data(self, session: "Session", data: StreamData, now: float) -> bool:
        """Publish a fragment, or note a keep-alive; return False to be called again: a receiver is congested.

        Raises RemoteProtocolError for data that cannot be delivered.
        """
        stream = self._active(session, data.stream_id, now)
        if stream is None or data.sequence_id is None:
            return True
        if data.sequence_id == stream.expected and self.refuse_fragments <= 0:
            if not self._publish(stream, data, now):
                return False
        elif data.sequence_id >= stream.expected:
            self._refuse(stream, data.sequence_id)
        if not stream.closed and not stream.unanswered:
            stream.unanswered = True
            self.unanswered.append(stream)
        return True

    def _publish(self, stream: Stream, data: StreamData, now: float) -> bool:
        session = stream.publisher
        hub = session.hub
        members = hub.groups.get(stream.group)
        if members is not None:
            if session.hub.work.is_congested(members):
                return False
            info = StreamInfo(stream.stream_id, stream.expected)
            message = Outgoing(stream.group, session.user_id, data.data, data.data_type, 0, info)
            hub.deliver(members, message, now, session if stream.no_echo else None)
        stream.expected += 1
        hub.work.counters["fragments"] += 1
        if stream.ending and stream.gap < stream.expected and not stream.closed:
            stream.unanswered = True
            self._close(stream, None, None, now)
        return True

    def _refuse(self, stream: Stream, number: int) -> None:
        if self.refuse_fragments > 0:
            self.refuse_fragments -= 1
            stream.refusal = ("TransientError", "fragment %d is refused by server.faults" % number)
        else:
            text = "fragment %d came, %d is expected" % (number, stream.expected)
            stream.refusal = ("InvalidSequenceId", text)
        if not stream.ending:  # what follows an end is not of the stream, and cannot be waited for
            stream.gap = max(stream.gap, number)
        stream.publisher.hub.work.counters["fragments_refused"] += 1

    def end(self, session: "Session", end: StreamEnd, now: float) -> bool:
        """End a stream; return False to be called again: a receiver is congested."""
        stream = self._active(session, end.stream_id, now)
        if stream is None:
            return True
        if end.error is None and stream.gap >= stream.expected:
            stream.ending = True
            return True
        members = session.hub.groups.get(stream.group)
        if members is not None and session.hub.work.is_congested(members):
            return False
        seen = None if end.error is None else end.error._replace(name="UserError")
        self._close(stream, None, seen, now)
        return True

    def _active(self, session: "Session", stream_id: str, now: float) -> Optional[Stream]:
        """Return the stream that a frame is for, which is not idle now; None if there is none (any more)."""
        stream = session.streams.get(stream_id)
        if stream is None:
            self._unknown(session, stream_id)
            return None
        if not session.permissions.can_send(stream.group):
            error = _forbidden(stream.group)
            self._close(stream, error, error, now)
            return None
        stream.due = now + stream.idle
        return stream

    def _unknown(self, session: "Session", stream_id: str) -> None:
        recoveries, error = session.stream_endings.get(stream_id, (session.recoveries, None))
        if recoveries == session.recoveries:
            error = StreamError("StreamNotFound", "there is no such stream")
        session.hub.push(session, session.wire.stream_closed(stream_id, error))

    # --- answers and endings ------------------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Send the answers that have gathered, and tell the receivers of streams whose publishers are gone."""
        unanswered, self.unanswered = self.unanswered, []
        for stream in unanswered:
            self._answer(stream)
        while self.orphans:  # telling may overflow a receiver that publishes itself
            orphans, self.orphans = self.orphans, []
            for stream in orphans:
                self._tell(stream, StreamError("Cancelled", "the publisher's connection has ended"), now)

    def _answer(self, stream: Stream) -> None:
        if not stream.unanswered:
            return
        stream.unanswered = False
        session, refusal = stream.publisher, stream.refusal
        stream.refusal = None
        if refusal is not None and stream.gap >= stream.expected:
            session.hub.push(session, session.wire.stream_nack(stream.stream_id, stream.expected, *refusal))
        else:
            self._acknowledge(stream)

    def _acknowledge(self, stream: Stream) -> None:
        session = stream.publisher
        if self.lose_acks > 0 and session.link is not None:
            self.lose_acks -= 1
            return
        session.hub.push(session, session.wire.stream_ack(stream.stream_id, stream.expected))

    def _close(self, stream: Stream, error: Optional[StreamError], seen: Optional[StreamError], now: float) -> None:
        """Forget a stream: its receivers see the end, with the error ``seen``; its publisher is told ``error``."""
        self._answer(stream)
        session = stream.publisher
        self._forget(stream)
        del session.streams[stream.stream_id]
        if session.wire.reliable:
            endings = session.stream_endings
            endings.pop(stream.stream_id, None)
            endings[stream.stream_id] = (session.recoveries, error)
            if len(endings) > _MAX_ENDINGS:
                del endings[next(iter(endings))]
        self._tell(stream, seen, now)
        session.hub.push(session, session.wire.stream_closed(stream.stream_id, error))

    def _forget(self, stream: Stream) -> None:
        stream.closed = True
        stream.entry = 0
        stream.unanswered = False
        self.active -= 1

    def _tell(self, stream: Stream, error: Optional[StreamError], now: float) -> None:
        """Send the terminal message, which has no data, to the receivers."""
        session = stream.publisher
        members = session.hub.groups.get(stream.group)
        if members is not None:
            info = StreamInfo(stream.stream_id, stream.expected, True, error)
            message = Outgoing(stream.group, session.user_id, "", "text", 0, info)
            session.hub.deliver(members, message, now, session if stream.no_echo else None)

    def cancel(self, session: "Session") -> None:
        """Note that a session with streams has ended; `settle` tells the receivers."""
        for stream in session.streams.values():
            self._forget(stream)
            self.orphans.append(stream)
        session.streams = {}

    def fail(self, session: "Session", error: StreamError, now: float) -> int:
        """End all streams of a session with an error of the service, and return how many (a fault for tests)."""
        streams = list(session.streams.values())
        for stream in streams:
            if not stream.closed:
                self._close(stream, error, error, now)
        return len(streams)

    # --- idle times ---------------------------------------------------------------------------------------------------

    @property
    def due(self) -> Optional[float]:
        """When `expire` is to be called, at the latest."""
        return self._idle[0][0] if self._idle else None

    def expire(self, now: float, busy: Container["Session"] = ()) -> Optional[float]:
        """End the streams that have been idle for too long; return when to look again, None without any stream.

        ``busy`` are sessions with commands that have arrived and not been executed yet.
        """
        idle = self._idle
        while idle:
            due, number, stream = idle[0]
            if number != stream.entry:
                heapq.heappop(idle)
            elif due > now:
                return due
            elif stream.due > now:
                heapq.heapreplace(idle, (stream.due, number, stream))
            elif stream.publisher.link is None or stream.publisher in busy:
                away = stream.publisher.hub.work.retained.get(stream.publisher, now)
                stream.due = max(now + stream.idle, away)
            else:
                stream.publisher.hub.work.counters["streams_expired"] += 1
                error = StreamError("IdleTimeout", "nothing came for %g seconds" % stream.idle)
                self._close(stream, error, error, now)
        return None

    def recovered(self, session: "Session", now: float) -> None:
        """Let the idle times of a session start anew."""
        for stream in session.streams.values():
            stream.due = now + stream.idle
            self._watch(stream)

    def restart(self, now: float) -> None:
        """Let all idle times start anew: the server did not listen for a while."""
        for _, number, stream in self._idle:
            if number == stream.entry:
                stream.due = now + stream.idle

    def _watch(self, stream: Stream) -> None:
        if len(self._idle) > 2 * self.active + 64:
            self._idle = [entry for entry in self._idle if entry[2].entry == entry[1]]
            heapq.heapify(self._idle)
        stream.entry = next(self._numbers)
        heapq.heappush(self._idle, (stream.due, stream.entry, stream))

    def clear(self) -> None:
        """Forget every stream, without a word to anybody."""
        self._idle.clear()
        self.unanswered.clear()
        self.orphans.clear()
        self.active = 0


def _forbidden(group: str) -> StreamError:
    return StreamError("Forbidden", "no permission to publish to the group %s" % ascii(group)[:60])
