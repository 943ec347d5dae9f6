"""Moves commands from sockets into the hubs, and what comes out to sockets and handlers: one turn per loop iteration.

A turn gives every connection with a backlog a slice, so that a fast publisher cannot keep the loop from reading the
acknowledgements of its receivers; then it writes what gathered for each receiver in one piece, and starts handlers.
Publishers whose receivers are behind wait in ``waiting`` until these have caught up or patience runs out. Everything
here runs on the server's loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from typing import Callable, Deque, Iterable, List, Optional, Set

from .connection import WRITE_HIGH, Connection, Step
from .session import Call, Session
from .work import Work

__all__ = ["Pump"]

log = logging.getLogger("simplepubsub.server")

#: Frames that one connection may execute before it is the next one's turn, and frames of one turn in all. Small enough
#: that acknowledgements are read several times while a receiver's window of 1,000 messages fills.
_SLICE = 64
_TURN = 256

#: Pieces in which `Limits.patience` is counted.
_PATIENCE_TICKS = 20


class Pump:
    """The scheduler of one server. ``dispatch`` starts the handler calls that the hubs ask for."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Work,
        dispatch: Callable[[Call], None],
        *,
        keep_alive_interval: Optional[float] = 20.0,
        close_timeout: float = 2.0,
    ) -> None:
        self.loop = loop
        self.work = work
        self.close_timeout = close_timeout
        #: Every open socket that was upgraded.
        self.connections: Set[Connection] = set()
        #: Faults for tests: while frozen no turn is taken; a delay takes over the writing.
        self.frozen = False
        self.delay_write: Optional[Callable[[Connection, bytes], None]] = None
        self._dispatch = dispatch
        self._keep_alive_interval = keep_alive_interval
        self._runnable: Deque[Connection] = deque()
        self._waiting: List[Connection] = []
        self._waiters: List["asyncio.Future[None]"] = []  # of publishers inside this process
        self._drained: Optional["asyncio.Future[None]"] = None
        self._scheduled = False
        self._stopped = False
        self._patience_tick = work.limits.patience / _PATIENCE_TICKS
        self._patience_timer: Optional[asyncio.TimerHandle] = None
        self._expiry_timer: Optional[asyncio.TimerHandle] = None
        self._idle_timer: Optional[asyncio.TimerHandle] = None  # of streams
        self._idle_due = 0.0
        self._keep_alive_timer: Optional[asyncio.TimerHandle] = None
        if keep_alive_interval is not None:
            self._keep_alive_timer = loop.call_later(keep_alive_interval / 4, self._keep_alive)

    def run(self, connection: Connection) -> None:
        """Give ``connection`` turns until its backlog is done."""
        if not connection.queued:
            connection.queued = True
            self._runnable.append(connection)
        self.wake()

    def wake(self) -> None:
        """Take a turn in the next iteration of the loop."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def remove(self, connection: Connection) -> None:
        """Note that a socket is gone."""
        self.connections.discard(connection)
        if self._drained is not None and not self.connections and not self._drained.done():
            self._drained.set_result(None)

    async def drained(self, timeout: float) -> None:
        """Wait until no socket is left, at most that many seconds."""
        if self.connections:
            self._drained = self.loop.create_future()
            await asyncio.wait([self._drained], timeout=timeout)

    def retry_waiting(self) -> None:
        """Let connections that wait try again."""
        if self._waiting:
            self._runnable.extend(self._waiting)
            self._waiting.clear()
            self.wake()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def uncongested(self, receivers: Callable[[], Iterable[Session]]) -> None:
        """Wait, as a publishing client does, until none of the receivers is congested."""
        work = self.work
        while work.congested and not work.congested.keys().isdisjoint(receivers()):
            waiter = self.loop.create_future()
            self._waiters.append(waiter)
            self.wake()
            await waiter

    def stop(self) -> None:
        """Take no further turn and let go of all timers."""
        self._stopped = True
        for timer in (self._patience_timer, self._expiry_timer, self._idle_timer, self._keep_alive_timer):
            if timer is not None:
                timer.cancel()

    # --- one turn -----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._scheduled = False
        if self.frozen or self._stopped:
            return
        work = self.work
        if work.relieved:
            work.relieved = False
            self.retry_waiting()
        runnable = self._runnable
        if runnable:
            now = self.loop.time()
            share = max(8, min(_SLICE, _TURN // len(runnable)))
            for _ in range(min(len(runnable), _TURN // share)):
                connection = runnable.popleft()
                state = connection.step(share, now)
                if state is Step.MORE:
                    runnable.append(connection)
                elif state is Step.WAIT:
                    self._waiting.append(connection)
                else:
                    connection.queued = False
        streams = work.streams
        if streams.unanswered or streams.orphans:
            streams.settle(self.loop.time())
        if work.dirty:
            self._flush()
        if work.calls:
            calls, work.calls = work.calls, []
            for call in calls:
                self._dispatch(call)
        if work.congested and (self._waiting or self._waiters) and self._patience_timer is None:
            self._patience_timer = self.loop.call_later(self._patience_tick, self._wait)
        if work.retained and self._expiry_timer is None:
            self._expire()
        if streams.active:
            self._watch_streams()
        if runnable or work.relieved or work.dirty or work.calls:
            self.wake()

    def _flush(self) -> None:
        """Write what gathered: one piece, and one system call, per receiver."""
        work = self.work
        limit = work.limits.max_unacked_bytes
        sessions, work.dirty = work.dirty, []
        for session in sessions:
            session.dirty = False
            link = session.link
            frames = session.out
            if session.expiring or session.held:
                if link is not None:
                    self._flush_expiring(session, link, self.loop.time())
                else:
                    session.forget_output()
            elif frames:
                if link is not None:
                    link.write(frames)
                    if session.link_full and not session.ended and link.write_buffer_size() > limit:
                        session.hub.overflow(session)
                frames.clear()
            if session.closing is not None and link is not None:
                session.link = None
                link.close(*session.closing)

    def _flush_expiring(self, session: Session, link: Connection, now: float) -> None:
        """Write frames of which some have a time to live: these only while the socket takes them at once.

        Once they are in the transport's buffer they cannot be taken back. So they, and all that follows them, wait here
        until it is empty.
        """
        held, expiring = session.held, session.expiring
        for index, frame in enumerate(session.out):
            held.append((frame, expiring.get(index)))
            session.held_bytes += len(frame)
        session.out.clear()
        expiring.clear()
        while held:
            frame, due = held[0]
            if due is not None and due > now and session.closing is None and link.holds_back():
                break
            held.popleft()
            session.held_bytes -= len(frame)
            if due is None or due > now:
                link.write([frame])
        if not held:
            return
        limit = self.work.limits.max_unacked_bytes
        if link.write_buffer_size() + session.held_bytes > limit:
            session.held = deque(item for item in held if item[1] is None or item[1] > now)
            session.held_bytes = sum(len(frame) for frame, _ in session.held)
        waiting = link.write_buffer_size() + session.held_bytes
        if waiting > limit:
            session.forget_output()
            session.hub.overflow(session)
        elif waiting > WRITE_HIGH:
            link.pause_writing()

    def _wait(self) -> None:
        """Count a bit of patience. A late tick counts no more than any other: then nobody else could run either."""
        self._patience_timer = None
        self.work.wait(self._patience_tick)
        self.wake()

    def _expire(self) -> None:
        self._expiry_timer = None
        due = self.work.expire(self.loop.time())
        if due is not None:
            self._expiry_timer = self.loop.call_at(due, self._expire)
        if self.work.calls or self.work.dirty:
            self.wake()

    def _watch_streams(self) -> None:
        """Have idle streams ended in time."""
        due = self.work.streams.due
        if due is not None and (self._idle_timer is None or due < self._idle_due):
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            self._idle_due = due
            self._idle_timer = self.loop.call_at(due, self._expire_streams)

    def _expire_streams(self) -> None:
        self._idle_timer = None
        if not self.frozen:
            waiting = itertools.chain(self._runnable, self._waiting)
            busy = {connection.session for connection in waiting if connection.session is not None}
            self.work.streams.expire(self.loop.time(), busy)
            self.wake()

    def _keep_alive(self) -> None:
        """Ping idle peers; drop those that have been silent for two and a half intervals."""
        interval = self._keep_alive_interval
        assert interval is not None
        now = self.loop.time()
        if not self.frozen:
            for connection in list(self.connections):
                if connection.silent:
                    continue
                if now - connection.last_received > 2.5 * interval:
                    log.info("dropping %r: nothing received for %.1f s", connection, now - connection.last_received)
                    connection.abort()
                elif now - connection.last_ping >= interval:
                    connection.ping(now)
        self._keep_alive_timer = self.loop.call_later(interval / 4, self._keep_alive)
