"""The lifetime of one transport: its reader thread and its writer thread.

========  =======================================================  ============================================
thread    owns                                                     never
========  =======================================================  ============================================
reader    ``transport.receive``, decoding, filling the inbox,      writes, dials
          completing futures
writer    ``transport.send`` and ``transport.close``               decodes, dials
========  =======================================================  ============================================

Both end when the transport dies, whoever killed it; the supervisor joins both before the next dial, so nothing of an
old
connection can touch a new one. The first cause of the end is kept in ``cause``.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Tuple

from ..exceptions import InboxOverflow, RemoteProtocolError, TransportClosed, TransportError
from .protocol import Ack, Connected, Disconnected, Frame, Inbound, Pong, Transport
from .timers import Received, Timers

if TYPE_CHECKING:
    from .engine import Engine
    from .session import Entry

__all__ = ["Connection"]

# Control opcodes of RFC 6455 section 5.2; every transport uses them.
PING, PONG = 0x9, 0xA

# A batch of the transport may hold thousands of messages; acknowledging after each slice keeps the service's window of
# 1,000 unacknowledged messages open while a long batch is being decoded.
SLICE = 256

# How long a dead connection's threads are waited for (seconds); after abort() only a user's callback can hold them.
JOIN_LIMIT = 5.0


class Connection:
    """Reader and writer over one open transport.

    ``continues`` says that this connection tries to recover a session: it then counts as open with the first frame
    that arrives, since a refused recovery closes without one.
    """

    def __init__(self, engine: Engine, transport: Transport, timers: Timers, name: str, continues: bool) -> None:
        self.engine = engine
        self.transport = transport
        self.timers = timers
        self.continues = continues
        self.name = name
        self._mutex = engine.mutex
        # Never more at once than the inbox may hold, so that one batch cannot overflow it before the reader pauses.
        self._slice = min(SLICE, engine.options.max_inbox)
        # Guarded by the engine's mutex:
        self.opened = False
        self.ended = False  # the reader or the writer is done
        self.cause: Optional[BaseException] = None
        self.announced = ""  # the service's reason, from its "disconnected" message
        self.closing: Optional[Tuple[int, str]] = None  # (code, reason) once the writer should say goodbye
        self.close_when_sent = False  # goodbye only after everything queued is written
        self.writable = threading.Condition(engine.mutex)
        self._writer_idle = False
        self._claimant: Optional[Entry] = None  # the application thread that writes this one holds the writer's role
        self._claim_taken = False  # it has begun
        self._rest = b""  # what it could not write without blocking
        self._reader = threading.Thread(target=self._read, name=name + "-reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name=name + "-writer", daemon=True)

    def start(self) -> None:
        """Start both threads."""
        self._reader.start()
        self._writer.start()

    def owns_current_thread(self) -> bool:
        """Return whether the caller is the reader or the writer."""
        return threading.current_thread() in (self._reader, self._writer)

    def abort(self) -> None:
        """End the transport now and wake both threads. Safe from any thread."""
        self.transport.abort()
        with self._mutex:
            self.writable.notify_all()
            self.engine.room.notify_all()

    def join(self, timeout: Optional[float]) -> bool:
        """Wait until both threads have ended and free the transport; return whether they have."""
        end = None if timeout is None else time.monotonic() + timeout
        for thread in (self._reader, self._writer):
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        if self._reader.is_alive() or self._writer.is_alive():
            return False
        with self._mutex:
            while self._claimant is not None:  # it never blocks; freeing the descriptor under it could hit a stranger's
                self.writable.wait()
        self.transport.release()
        return True

    def finish(self, grace: float) -> None:
        """Let the writer say goodbye for up to ``grace`` seconds, then end everything and join (bounded)."""
        self._writer.join(grace)
        self.abort()
        if not self.join(JOIN_LIMIT):
            self.engine.log.warning(
                "a thread of connection %s does not end (a blocking callback on a future?); it is abandoned", self.name
            )

    def _end(self, cause: BaseException) -> None:
        with self._mutex:
            if self.cause is None:
                self.cause = cause
            if self.closing is None:
                if isinstance(cause, TransportClosed):
                    # RFC 6455 section 5.5.1: a close frame is answered with one, echoing its code.
                    self.closing = (1000 if cause.code == 1005 else cause.code, "")
                elif isinstance(cause, RemoteProtocolError):
                    self.closing = (cause.code, str(cause))
            self.ended = True
            self.writable.notify_all()
            self.engine.wake.notify_all()

    # --- reader -------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while True:
                frames = self.transport.receive()
                now = time.monotonic()
                for start in range(0, len(frames), self._slice):
                    if self.engine.connection is not self:
                        # A callback held this thread so long that it was abandoned: the rest has been replayed.
                        raise TransportError("a newer connection has taken over")
                    self._handle(frames[start : start + self._slice], now)
                    self.engine.receiver.wait_for_room(self)
        except (TransportError, RemoteProtocolError, InboxOverflow) as error:
            self._end(error)
        except BaseException as error:  # a bug of ours, or of a log handler: end this connection, do not hang
            self._end(error)
            self.engine.log.exception("reader failed")

    def _handle(self, frames: Sequence[Frame], now: float) -> None:
        decode = self.engine.protocol.decode
        accept = self.engine.sequence.accept
        size = 0
        messages: List[Inbound] = []
        acks: List[Ack] = []
        replies: List[Any] = []  # for conversations
        pings: List[Frame] = []
        pong = False
        fault: Optional[RemoteProtocolError] = None
        if self.engine.connection is not self:
            raise TransportError("the client has stopped")  # and its sequence numbers may be those of the next run
        if self.continues and not self.opened:
            self.engine.connection_recovered(self)
        for frame in frames:
            if frame[0] >= 8:
                if frame[0] == PING:
                    pings.append((PONG, frame[1]))
                continue
            try:
                event = decode(frame)
            except RemoteProtocolError as error:
                fault = error  # what came before it is intact and is delivered
                break
            if type(event) is Ack:
                acks.append(event)
            elif isinstance(event, Inbound):
                size += len(frame[1])
                if accept(event.sequence_id):
                    messages.append(event)
            elif event is None:
                continue
            elif type(event) is Pong:
                pong = True
            elif isinstance(event, Connected):
                if messages:
                    self.engine.receiver.deliver(messages)
                    messages = []
                self.engine.connection_announced(self, event)
            elif isinstance(event, Disconnected):
                self.announced = event.message
            else:
                replies.append(event)
        if self.engine.trace is not None:
            self.engine.trace("received", frames)
        if messages:
            self.engine.receiver.deliver(messages)
        settled = None
        with self._mutex:
            due = self.timers.received(now, pong, size)
            if acks:
                settled = self.engine.session.acknowledge(acks)
                self.engine.sender.answered_locked(settled)
                self.engine.freed_locked()
            if replies and self.engine.connection is self:
                self.engine.conversations.received_locked(replies, now)
            if pings:
                # Only the newest needs an answer (RFC 6455 section 5.5.3).
                self.engine.session.control(pings[-1], "pong")
            if due is Received.ACK_NOW:
                self.engine.receiver.queue_sequence_ack_locked(self)
            elif due is Received.TIMER_SET:
                self.engine.wake.notify_all()
            if pings or ((acks or replies) and self.engine.session.writable):
                self.writable.notify()
        if settled:
            self.engine.sender.complete(settled)
        if replies:
            self.engine.conversations.settle()
        if fault is not None:
            raise fault

    # --- writer -------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        session = self.engine.session
        try:
            while True:
                with self._mutex:
                    self._writer_idle = True
                    while not self._has_work_locked():
                        self.writable.wait()
                    self._writer_idle = False
                    if self.ended and self.closing is None:
                        return
                    rest, self._rest = self._rest, b""
                    goodbye = self.closing if self.ended or self._may_close_locked() else None
                    # After a stop() that did not wait for us the session belongs to the next run.
                    mine = self.engine.connection is self
                    frames = [] if rest or goodbye or not mine else session.take()
                if rest:
                    self.transport.send_rest(rest)
                elif goodbye is not None:
                    self.transport.close(*goodbye)
                    return
                else:
                    self.transport.send(frames)
                    self._wrote(frames)
        except TransportError as error:
            self._end(error)
        except BaseException as error:  # as above
            self._end(error)
            self.engine.log.exception("writer failed")

    def _has_work_locked(self) -> bool:
        if self._claimant is not None:
            return False
        if self.ended or self._rest or self._may_close_locked():
            return True
        return self.engine.connection is self and self.engine.session.writable

    def _wrote(self, frames: Sequence[Frame]) -> None:
        engine = self.engine
        if engine.trace is not None:
            engine.trace("sent", frames)
        with self._mutex:
            done = engine.session.wrote()
            if done:
                engine.sender.written = done
                engine.freed_locked()
        if done:
            engine.sender.complete_written(done)

    def kick_locked(self) -> None:
        """Tell the writer that there is something to write; while it writes it looks by itself before it waits."""
        if self._writer_idle:
            self.writable.notify_all()

    def claim_locked(self, entry: Entry) -> bool:
        """Let the calling application thread write ``entry`` itself if the writer is idle; `write_claimed` must follow.

        A blocking send saves a thread switch that way. It is a try: the thread writes what the carrier takes without
        blocking and leaves the rest to the writer, so a peer that does not read holds nobody.
        """
        if not (self._writer_idle and self._claimant is None and self.transport.can_try_send):
            return False
        if self.closing is not None or self.ended or self._rest or self.engine.session.queued > 1:
            return False  # with sends of others in front, Ctrl-C would concern them too
        self._claimant = entry
        return True

    def write_claimed(self, entry: Entry) -> None:
        """Write what `claim_locked` claimed; nothing for any other entry. If it raises, `drop_claim` must follow."""
        if self._claimant is not entry:
            return
        with self._mutex:
            self._claim_taken = True
            # After a stop() that did not wait for us the session belongs to the next run.
            frames = self.engine.session.take() if self.engine.connection is self else []
        rest = b""
        try:
            rest = self.transport.try_send(frames) if frames else b""
            self._wrote(frames)
        except TransportError as error:
            self._end(error)
        with self._mutex:
            self._rest = rest
            self._release_claim_locked()

    def drop_claim(self, entry: Entry) -> None:
        """Give up a claim after Ctrl-C; nothing for any other entry."""
        with self._mutex:
            if self._claimant is not entry:
                return
            taken = self._claim_taken
            self._release_claim_locked()
        if taken:
            self.transport.abort()  # how much went out is unknown, so only a new connection is sound

    def _release_claim_locked(self) -> None:
        self._claimant = None
        self._claim_taken = False
        self.writable.notify_all()  # the writer, and whoever joins this connection

    def _may_close_locked(self) -> bool:
        if self.closing is None:
            return False
        session = self.engine.session
        return not (self.close_when_sent and session.open and session.queued and self.engine.connection is self)

    def goodbye_locked(self, code: int, reason: str, when_sent: bool) -> None:
        """Ask the writer for the close handshake, after everything queued when ``when_sent``."""
        if self.closing is None:
            self.closing = (code, reason)
            self.close_when_sent = when_sent
        self.writable.notify_all()
