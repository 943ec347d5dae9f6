"""Publishing streams: the table of a client's streams, and the `StreamWriter` in the hands of the application.

Data flow::

    write() -> turn -> encode -> [engine mutex: OutgoingStream, Session] -> writer thread -> service
    service -> reader thread -> [engine mutex: OutgoingStream] -> blocked write(), flush(), end()

Ownership: everything here is guarded by the engine's mutex; `OutgoingStream` holds the state of one stream, `Channel`
adds who waits for it. Fragments stay in the `OutgoingStream` until they are accepted; what is in the session's queue is
a copy for the present link, which dies with it. The frames of a stream enter the queue in one place, `pump_locked`,
always in order and always under the mutex, so a fragment written by the application cannot overtake those that a
recovery or a refusal sends again.

Turns: calls that add to a stream queue up in `Channel.line` and are served in the order of their calls. The number of a
fragment is known to the call whose turn it is, which encodes it without a lock. The line holds weak references: a turn
whose call has ended, however it was interrupted, is none.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, Optional

from ..core.deadline import Deadline, wait
from ..core.engine import Engine
from ..core.protocol import Frame
from ..exceptions import ClientStateError, InvalidArgument, StreamTimeout, fresh
from .messages import StreamAck, StreamClosed, StreamError, StreamNack
from .outgoing_stream import Action, OutgoingStream, StreamState
from .protocol import WebPubSubProtocol

if TYPE_CHECKING:
    from .stream_writer import StreamWriter

__all__ = ["Channel", "Publisher"]


class _Turn:
    """The place of one call in the line of a stream."""

    __slots__ = ("__weakref__",)


class Channel:
    """One stream and who waits for it."""

    def __init__(self, stream: OutgoingStream, keep_alive: Frame, mutex: threading.Lock) -> None:
        self.stream = stream
        self.keep_alive = keep_alive
        self.changed = threading.Condition(mutex)
        self.line: Deque["weakref.ref[_Turn]"] = deque()
        self.handle: Callable[[], Optional["StreamWriter"]] = lambda: None  # weak, once there is one

    def first_locked(self) -> Optional[_Turn]:
        """Return whose turn it is."""
        while self.line:
            turn = self.line[0]()
            if turn is not None:
                return turn
            self.line.popleft()
        return None

    def leave_locked(self, turn: _Turn) -> None:
        """End a turn, or a wait for it."""
        others = (ref for ref in self.line if ref() not in (None, turn))
        self.line = deque(others)
        self.changed.notify_all()


class Publisher:
    """All streams that a client publishes. Public methods are safe from any thread, ``*_locked`` need the mutex."""

    def __init__(self, engine: Engine, protocol: WebPubSubProtocol) -> None:
        self._engine = engine
        self._protocol = protocol
        self._mutex = engine.mutex
        self._channels: Dict[str, Channel] = {}  # not over; guarded by the mutex

    @property
    def forked(self) -> bool:
        """Whether this is the child of the process that the client lives in."""
        return self._engine.forked

    # --- for application threads --------------------------------------------------------------------------------------

    def open(self, stream_id: str, start: Frame, idle_timeout: float, deadline: Deadline) -> Channel:
        """Start a stream and wait until the service has accepted it.

        Raises StreamRefused, StreamTimeout, ClientStopped, InvalidArgument for an id in use.
        """
        engine = self._engine
        engine.check_blocking()
        keep_alive = self._protocol.finish(self._protocol.stream_data_body(stream_id), None)
        channel = Channel(OutgoingStream(stream_id, start, idle_timeout), keep_alive, self._mutex)
        stream = channel.stream
        try:
            with self._mutex:
                if engine.supervisor is None or engine.supervisor.stopping:
                    raise engine.stopped_error()
                if stream_id in self._channels:
                    raise InvalidArgument("a stream with the id %.60r is being published already" % stream_id)
                self._channels[stream_id] = channel
                self.pump_locked(channel)
                while stream.state is StreamState.STARTING:
                    self._wait_locked(channel, deadline, "the service did not open the stream %s in time")
                if stream.failure is not None:
                    raise fresh(stream.failure)
        except BaseException:  # Ctrl-C too: a stream that nobody holds must not stay open
            frame = self.end_frame(stream_id, StreamError("", "given up before it began"))
            with self._mutex:
                if self._channels.get(stream_id) is channel:
                    del self._channels[stream_id]
                    engine.session.forget_bound(stream)
                    self._send_locked(frame, None)
            raise
        return channel

    def adopt(self, channel: Channel, handle: Callable[[], Optional["StreamWriter"]]) -> None:
        """Keep a stream alive for as long as ``handle`` returns something."""
        with self._mutex:
            channel.handle = handle
            self._engine.wake.notify_all()  # there is a new deadline

    def write(self, channel: Channel, data: Any, data_type: str, deadline: Deadline) -> None:
        """Add a fragment, after waiting for room. Raises what `StreamWriter.write` says."""
        stream = channel.stream
        self._engine.check()
        turn = _Turn()
        try:
            with self._mutex:
                channel.line.append(weakref.ref(turn))
                while True:
                    stream.check_open()
                    if channel.first_locked() is turn and stream.has_room:
                        break
                    self._wait_locked(channel, deadline, "the stream %s took no more in time; nothing was written")
                number = stream.next
            # It stays the next one: only the call whose turn it is adds a fragment.
            body = self._protocol.stream_data_body(stream.stream_id, number, data, data_type)
            frame = self._protocol.finish(body, None)
            with self._mutex:
                stream.check_open()
                stream.append(frame)
        finally:
            with self._mutex:
                channel.leave_locked(turn)
                self.pump_locked(channel)  # here, so that Ctrl-C leaves nothing behind that is not sent

    def flush(self, channel: Channel, deadline: Deadline) -> None:
        """Wait until what was written before this call is accepted."""
        stream = channel.stream
        self._engine.check()
        with self._mutex:
            if stream.failure is not None:
                raise fresh(stream.failure)
            mark = stream.next
            self.pump_locked(channel)
            while stream.expected < mark or stream.cut_short:
                if stream.failure is not None:
                    raise fresh(stream.failure)
                if stream.over:
                    raise ClientStateError("the stream %s was aborted" % stream.stream_id)
                self._wait_locked(channel, deadline, "the fragments of the stream %s were not all accepted in time")

    def end(self, channel: Channel, deadline: Deadline) -> None:
        """End the stream behind everything written, and wait until the service has confirmed it."""
        stream = channel.stream
        self._engine.check()
        frame = self.end_frame(stream.stream_id, None)
        turn = _Turn()
        try:
            with self._mutex:
                channel.line.append(weakref.ref(turn))
                while stream.state is StreamState.OPEN and channel.first_locked() is not turn:
                    self._wait_locked(channel, deadline, "the stream %s took no more in time; it was not ended")
                stream.end(frame, time.monotonic())
                channel.leave_locked(turn)
                self.pump_locked(channel)
                self._engine.wake.notify_all()
                while not stream.over:
                    self._wait_locked(channel, deadline, "the end of the stream %s was not confirmed in time")
                if stream.failure is not None:
                    raise fresh(stream.failure)
        finally:
            with self._mutex:
                channel.leave_locked(turn)

    def abort(self, channel: Channel, error: StreamError) -> None:
        """End the stream with an error, at once and without waiting; does nothing on one that is over."""
        self._engine.check()
        frame = self.end_frame(channel.stream.stream_id, error)
        with self._mutex:
            channel.stream.abort(frame)
            self.pump_locked(channel)
            channel.changed.notify_all()

    def keep_alive(self, channel: Channel) -> None:
        """Start the idle time anew. Raises what the stream failed with, ClientStateError after its end."""
        self._engine.check()
        with self._mutex:
            channel.stream.check_open()
            self._keep_alive_locked(channel)

    def end_frame(self, stream_id: str, error: Optional[StreamError]) -> Frame:
        """Return the end of a stream."""
        return self._protocol.finish(self._protocol.stream_end_body(stream_id, error), None)

    def _wait_locked(self, channel: Channel, deadline: Deadline, text: str) -> None:
        self._engine.check_blocking()
        remaining = deadline.remaining()
        if remaining is not None and remaining <= 0:
            stream_id = channel.stream.stream_id
            raise StreamTimeout(text % stream_id, stream_id=stream_id)
        wait(channel.changed, remaining)

    # --- the one way out ----------------------------------------------------------------------------------------------

    def pump_locked(self, channel: Channel) -> None:
        """Queue everything that the stream has for the present link, in order."""
        stream = channel.stream
        while self._can_send and self._channels.get(stream.stream_id) is channel:
            frame = stream.peek()
            if frame is None:
                return
            self._engine.sender.submit_bound_locked(frame, stream)
            stream.advance(time.monotonic())

    @property
    def _can_send(self) -> bool:
        return self._engine.session.open and self._engine.connection is not None

    def _send_locked(self, frame: Frame, bound: object) -> None:
        if self._can_send:
            self._engine.sender.submit_bound_locked(frame, bound or self)

    def _keep_alive_locked(self, channel: Channel) -> None:
        # Ahead of the queue, and one per stream: a peer that does not read cannot make us collect them.
        connection = self._engine.connection
        if self._can_send and connection is not None:
            self._engine.session.control(channel.keep_alive, ("keep-alive", channel.stream.stream_id))
            connection.writable.notify()

    def _settle_locked(self, channel: Channel, action: Action) -> None:
        """Do what an event has asked for, and wake who waits for the stream."""
        stream = channel.stream
        if action is Action.REWIND:
            self._engine.session.forget_bound(stream)
        elif action is Action.KEEP_ALIVE:
            self._keep_alive_locked(channel)
        elif action is Action.VIOLATION:
            self._engine.session.forget_bound(stream)
            error = StreamError("", "acknowledgement out of range", "ProtocolViolation")
            self._send_locked(self.end_frame(stream.stream_id, error), None)
        self.pump_locked(channel)
        if stream.over and self._channels.get(stream.stream_id) is channel:
            del self._channels[stream.stream_id]
        channel.changed.notify_all()

    # --- hooks of `Conversations` -------------------------------------------------------------------------------------

    def received_locked(self, record: Any, now: float) -> None:
        """Take a StreamAck, StreamNack or StreamClosed; unknown streams are ignored (client specification 3.6.4.8)."""
        channel = self._channels.get(record.stream_id)
        if channel is None:
            return
        stream, action = channel.stream, Action.NOTHING
        if type(record) is StreamAck:
            action = stream.ack(record.expected, now)
        elif type(record) is StreamNack:
            action = stream.nack(record.expected, StreamError(record.name, record.message), now)
        elif type(record) is StreamClosed:
            stream.closed(record.error)
        self._settle_locked(channel, action)
        if type(record) is StreamNack:
            self._engine.wake.notify_all()  # as above

    def link_lost_locked(self) -> None:
        for channel in self._channels.values():
            channel.stream.link_lost()

    def session_lost_locked(self) -> None:
        for channel in list(self._channels.values()):
            channel.stream.session_lost()
            self._settle_locked(channel, Action.NOTHING)

    def resumed_locked(self) -> None:
        """There is a new link, for the old session or for a new one."""
        for channel in self._channels.values():
            if channel.stream.state is StreamState.OPEN and channel.stream.peek() is None:
                self._keep_alive_locked(channel)  # if it has ended meanwhile, the answer tells
            self.pump_locked(channel)

    def stopped_locked(self) -> None:
        for channel in list(self._channels.values()):
            channel.stream.fail(self._engine.stopped_error())
            self._settle_locked(channel, Action.NOTHING)

    def due_locked(self, now: float) -> None:
        for channel in list(self._channels.values()):
            action = channel.stream.due(now, channel.handle() is not None)
            if action is not Action.NOTHING or channel.stream.peek() is not None:
                self._settle_locked(channel, action)

    def next_deadline_locked(self) -> Optional[float]:
        times = [c.stream.next_deadline(c.handle() is not None) for c in self._channels.values()]
        return min((time for time in times if time is not None), default=None)

    def waiting_locked(self) -> bool:
        return any(channel.stream.waiting for channel in self._channels.values())
