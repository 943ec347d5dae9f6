"""The inner half of a connection: framed I/O that never waits, shared by application threads and the poller.

Who does what::

    application threads   encode, queue, and write what the socket takes at once (`Writer`)
    the poller's thread   reads, answers pings, finishes writes, keeps alive, notices the end

State is guarded by one lock per connection (`Writer`). A message is queued whole or not at all.

Flow control: what the socket does not take waits, and a `send` waits while more than ``write_limit`` bytes do. What
arrives is bounded by `Intake`; when that is not possible, the connection ends with `InboxOverflow`.

The end has two steps: *settled*, when everybody is told, and *gone*, when the descriptor and the timers are. After a
failure the application is told at once, and the peer gets the time of the close handshake to read our words. A failed
write is another matter: the peer may have said a lot before it went, and its close frame, so reading goes on.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from ..core.forks import Birthplace
from ..exceptions import ForkedError, InboxOverflow, InvalidArgument, RemoteProtocolError, TransportError
from ..transports.frames import CLOSE, PING, PONG, FrameParser, close_payload, encode_frames, parse_close
from .exceptions import closed_error
from .intake import Intake
from .keepalive import KeepAlive
from .messages import Data, State
from .poller import READ, WRITE, Poller, Timer
from .writer import Writer

__all__ = ["Channel", "Settings"]

log = logging.getLogger("simplepubsub.websockets")

#: Most reads of one connection in a row, so that a busy one does not starve the others.
READS = 4


class Settings(NamedTuple):
    """What a connection is told by `connect` or `serve`; times in seconds, None = never; sizes in bytes."""

    ping_interval: Optional[float] = 20.0
    ping_timeout: Optional[float] = 20.0
    close_timeout: float = 10.0
    max_size: Optional[int] = 2**20
    max_queue: int = 1000
    write_limit: int = 64 * 1024


class Channel(Writer):
    """See the module docstring. ``settled`` is called once, in the poller's thread, when the connection is closed."""

    def __init__(
        self,
        sock: Any,
        poller: Poller,
        settings: Settings,
        *,
        client: bool,
        settled: Optional[Callable[[], None]] = None,
        early: bytes = b"",
        first: bytes = b"",
    ) -> None:
        super().__init__(sock, poller, client, first)
        self._early = early  # arrived with the handshake
        self._settings = settings
        self._settled = settled
        self._birthplace = Birthplace()
        self._intake = Intake(settings.max_queue, self._room_made, self._check_wait)
        self._inbox = self._intake.inbox
        # Guarded by ``_changed``:
        self._gone = False  # nothing is left: no descriptor, no timer
        self._sent: Optional[Tuple[int, str]] = None
        self._rcvd: Optional[Tuple[int, str]] = None
        self._first = "network"  # who began the end
        self._cause: Optional[BaseException] = None
        self._pings: Dict[bytes, Tuple["Future[float]", float]] = {}
        self._ping_serial = 0
        # Owned by the poller's thread:
        self._latency: Optional[float] = None
        self._parser = FrameParser(masked=not client, max_size=settings.max_size)
        self._events = 0
        self._deaf = False  # what still arrives is dropped: the peer broke the protocol, or has closed
        self._pong_due: Optional[bytes] = None  # the answer to a ping, while too much waits to be written
        self._close_timer: Optional[Timer] = None
        self._keep_alive = KeepAlive(settings.ping_interval, settings.ping_timeout, time.monotonic())
        self._ping_timer: Optional[Timer] = None
        poller.call(self._begin)

    @property
    def is_client(self) -> bool:
        """Whether this is the client's end."""
        return self._client

    # --- the end, as others see it ------------------------------------------------------------------------------------

    def error(self) -> BaseException:
        """Return a new error that tells how the connection ended."""
        with self._changed:
            return self.error_locked()

    def error_locked(self) -> BaseException:
        """Do the same under the lock."""
        return closed_error(self._rcvd, self._sent, self._cause, self._first, self._state is State.CLOSING)

    def check(self) -> None:
        """Raise ForkedError in a forked child."""
        if self._birthplace.left:
            raise ForkedError("the connection belongs to the parent process: make a new one in this process")

    def _check_wait(self) -> None:
        self.check()
        if self._poller.is_current_thread:
            raise InvalidArgument("a callback of a future must not wait for messages: use a thread of your own")
        if self._intake.full:
            self._room_made()  # once more: Ctrl-C may have hit the consumer that was to say so

    def _room_made(self) -> None:
        self._poller.call(self._refill)

    # --- closing: any thread ------------------------------------------------------------------------------------------

    def begin_close(self, code: int, reason: str, cause: Optional[BaseException] = None) -> None:
        """Start the close handshake, because of ``cause`` or by wish; only the first one counts."""
        try:
            with self._changed:
                self._begin_close_locked(code, reason, "client" if self._client else "server", cause)
        finally:
            if not self._gone:
                self.flush()
                self._poller.call(self._closing)

    def _begin_close_locked(self, code: int, reason: str, first: str, cause: Optional[BaseException] = None) -> None:
        if self._state is not State.OPEN:
            return
        frame = encode_frames([(CLOSE, b"" if code == 1005 else close_payload(code, reason))], masked=self._client)
        self._sent, self._first, self._cause = (code, reason), first, cause
        self._out.append(frame)
        self._state = State.CLOSING
        self._out_bytes += len(frame)
        self._changed.notify_all()

    # --- the poller's thread ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._poller.add(self)
        self.flush()  # what is to go out first, before anything that arrives can lead to an answer or to the end
        early, self._early = self._early, b""
        if early:
            self._take(early)
        self.update()
        self._tick()

    def update(self) -> None:
        """Watch the socket for what is wanted now, and notice that the close handshake is complete."""
        if self._gone:
            return
        with self._changed:
            wants_write = self._blocked and not self._dead
            idle = self.idle_locked
            said = self._sent is not None and self._rcvd is not None
        if said and idle:
            self._settle()
            if not self._client:
                # The server ends the TCP connection first (RFC 6455 section 7.1.1); after the peer's close frame there
                # is nothing unread that could turn this into a reset.
                return self.end(None)
        if self._deaf and idle and not said:
            self._sock.half_close()
        if self._pong_due is not None and not wants_write:
            payload, self._pong_due = self._pong_due, None
            self.push((PONG, payload))
        events = (0 if self._intake.paused else READ) | (WRITE if wants_write else 0)
        if events != self._events:
            self._events = events
            self._poller.watch(self._sock.sock, events, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            with self._changed:
                self._blocked = False
            self.flush()
        if events & READ:
            self._read()
        if self._intake.paused or self._events != READ or self._state is not State.OPEN:
            self.update()

    def _read(self) -> None:
        """Take what has arrived."""
        view = self._poller.view
        for _ in range(READS):
            try:
                size = self._sock.receive(view)
            except (OSError, ValueError) as error:
                text = "the connection broke while reading: %s" % (str(error) or type(error).__name__)
                return self._lost(TransportError(text))
            if size is None:
                return
            if not size:
                return self._lost(TransportError("the peer ended the connection without a close frame"))
            if not self._deaf:
                self._take(bytes(view[:size]))
            if self._gone or self._intake.paused or (size < len(view) and not self._sock.buffers):
                return
        if self._sock.buffers:
            self._poller.call(self._read_more)

    def _read_more(self) -> None:
        if not (self._gone or self._intake.paused):
            self._read()

    def _take(self, data: bytes) -> None:
        self._keep_alive.received(time.monotonic())
        messages: List[Data] = []
        pings: List[bytes] = []
        close: Optional[bytes] = None
        for opcode, payload in self._parser.feed(data):
            if opcode < CLOSE:
                messages.append(payload)
            elif opcode == PING:
                pings.append(payload)  # type: ignore[arg-type]  # control payloads are bytes
            elif opcode == PONG:
                self._pong(payload)  # type: ignore[arg-type]
            else:
                close = payload  # type: ignore[assignment]
                break  # nothing after a close frame counts (RFC 6455 section 5.5.1)
        if messages:
            self._intake.add(messages)
            self._refill()
        if pings:
            self._answer(pings)
        if close is not None:
            self._peer_closes(close)
        elif self._parser.violation is not None:
            self._violation(self._parser.violation)

    def _answer(self, pings: List[bytes]) -> None:
        """Answer pings; of those of a peer that does not read only the newest (RFC 6455 section 5.5.3)."""
        if self._out_bytes > self._settings.write_limit:
            self._pong_due = pings[-1]
        else:
            self._pong_due = None
            self.push(*[(PONG, payload) for payload in pings])

    def _violation(self, error: RemoteProtocolError) -> None:
        self._deaf = True
        if self._state is State.OPEN:
            self.begin_close(error.code, str(error), error)
        else:
            self.end(error)  # there is nothing more to say

    def _peer_closes(self, payload: bytes) -> None:
        self._deaf = True
        try:
            code, reason = parse_close(payload)
        except RemoteProtocolError as error:
            return self._violation(error)
        with self._changed:
            self._rcvd = (code, reason)
            self._begin_close_locked(code, reason, "peer")
            if self._dead and self._sent is None:
                # It has closed properly, and only our answer could not be written.
                self._sent, self._first, self._cause = self._rcvd, "peer", None
        self.flush()
        self._closing()

    def _refill(self) -> None:
        """Move what is held into the inbox, and read on when there is room."""
        if self._gone or not self._intake.full:
            return
        with self._changed:
            sends_wait = bool(self._waiting_sends) and not self._dead
            leaving = self._sent is not None and self._rcvd is None
        paused = self._intake.paused
        if leaving and self._cause is None:
            self._intake.drop()
        else:
            self._intake.refill(read_on=sends_wait or self._deaf)
        if self._intake.overflowing:
            self._intake.drop()
            self._deaf = True
            text = "too many messages wait: this side sends without receiving; call recv() more often"
            self.begin_close(1008, "too many messages wait", InboxOverflow(text))
        if paused and not self._intake.paused:
            self._keep_alive.resumed(time.monotonic())
            if self._dead:
                self._closing()
            self.update()
            if self._sock.buffers:
                self._poller.call(self._read_more)

    def _pong(self, payload: bytes) -> None:
        now = time.monotonic()
        answered = []
        with self._changed:
            if payload in self._pings:
                for key in list(self._pings):  # an answer counts for the pings before it, too
                    answered.append(self._pings.pop(key))
                    if key == payload:
                        break
        if answered:
            self._latency = now - answered[-1][1]
        for future, sent in answered:
            future.set_result(now - sent)
        latency = self._keep_alive.answered(payload, now)
        if latency is not None:
            self._latency = latency

    def _tick(self) -> None:
        """Do what the keep-alive wants, and set its next time."""
        if self._gone or self._state is not State.OPEN:
            return
        now = time.monotonic()
        ping = self._keep_alive.due(now, self._intake.paused)
        if self._keep_alive.failed:
            text = "no answer to a keep-alive ping within %s s" % self._settings.ping_timeout
            self.begin_close(1011, "keepalive ping timeout", TransportError(text))
            return
        if ping is not None:
            self.push((PING, ping))
        when = self._keep_alive.next_deadline()
        if when is not None and not self._gone:
            self._ping_timer = self._poller.at(when, self._tick)

    def _closing(self) -> None:
        """Give the close handshake its time."""
        if self._gone:
            return
        if self._cause is not None and not self._dead:
            self._settle()
        self._refill()
        # After a failed write no more comes than what is there; a program that is slow to take it has its time.
        if self._close_timer is None and not (self._dead and self._intake.paused):
            late = TransportError("the peer did not complete the close handshake in time")
            self._close_timer = self._poller.after(self._settings.close_timeout, lambda: self.end(late))
        self.update()

    def broken(self, cause: TransportError) -> None:
        """A write failed: send no more, and read what the peer sent before it went."""
        with self._changed:
            if self._dead or self._gone:
                return
            self._dead = True
            if self._state is State.OPEN:
                self._cause = cause
                self._state = State.CLOSING
            self._changed.notify_all()
        self._read_more()
        self._closing()

    def fail(self, error: BaseException) -> None:
        """End because of a bug in here, for which no other connection should suffer."""
        self.end(TransportError("an internal error ended the connection: %r" % error))

    def _lost(self, cause: BaseException) -> None:
        with self._changed:
            complete = self._sent is not None and self._rcvd is not None
        self.end(None if complete else cause)

    def end(self, cause: Optional[BaseException]) -> None:
        """Free everything, whatever the peer does (the poller's thread)."""
        if self._gone:
            return
        with self._changed:
            if self._cause is None and self._state is not State.CLOSED and self._rcvd is None:
                self._cause = cause
        if self._events:
            self._events = 0
            self._poller.watch(self._sock.sock, 0, self._ready)
        for timer in (self._close_timer, self._ping_timer):
            if timer is not None:
                timer.cancel()
        self._settle()
        with self._changed:
            self._gone = True
            free = self._writer is None
            self._close_when_free = not free
            self._out, self._batch, self._done = [], b"", []
            if free:
                self._sock.close()
            self._changed.notify_all()
        self._poller.remove(self)

    def _settle(self) -> None:
        """Tell everybody that the connection is closed: what is held can still be received."""
        with self._changed:
            if self._state is State.CLOSED:
                return
            self._state = State.CLOSED
            pings, self._pings = self._pings, {}
            self._changed.notify_all()
        self._intake.close(self.error)
        for future, _ in pings.values():
            future.set_exception(self.error())
        if self._settled is not None:
            self._settled()
