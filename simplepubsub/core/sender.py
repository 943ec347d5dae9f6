"""The way out: what application threads do to send, and how their futures end.

Data flow: encode (caller) -> `Session` (mutex) -> writer thread, or the caller itself when the writer is idle -> answer
(reader thread) -> future. Nothing here blocks on the network.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from ..exceptions import AckTimeout, ClientStopped, DeliveryUncertain, FlushTimeout, OutboxFull, SendMessageError, fresh
from .deadline import Deadline, wait_done
from .protocol import Ack, Frame
from .records import AckError, RejoinGroupFailedArgs
from .session import Entry, Session

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Sender"]


class Sender:
    """Submits entries and completes them. Public methods are safe from any thread."""

    def __init__(self, engine: Engine, mutex: threading.Lock, session: Session, counters: Dict[str, int]) -> None:
        self._engine = engine
        self._mutex = mutex  # the engine's
        self.session = session  # guarded by it
        self._counters = counters
        # What the session has let go and whose futures are being completed, so that `flush` can wait for them. Set
        # under the mutex by the thread that completes them, and cleared by it when it has.
        self.answered: Sequence[Tuple[Entry, Ack]] = ()  # the reader
        self.written: Sequence[Entry] = ()  # the writer
        self.uncertain: Sequence[Entry] = ()  # the supervisor, or the reader of the next connection

    def submit(
        self,
        body: bytes,
        ack_id: Optional[int],
        ack: bool,
        block: Optional[Deadline],
        join: Optional[Tuple[str, bool]] = None,
    ) -> Entry:
        """Queue the command ``body``; with ``block`` wait for room that long.

        The ack id is drawn and queued in one step, so no two sends can ever share one. Raises ClientStopped,
        OutboxFull, AckTimeout, and SendMessageError when ``ack_id`` is in progress; nothing is queued then.
        """
        engine = self._engine
        if block is not None:
            engine.check_blocking()
        elif engine.forked:
            engine.check()
        connection = None
        entry = None
        try:
            with self._mutex:
                session = self.session
                while True:
                    if engine.supervisor is None or engine.supervisor.stopping:
                        raise engine.stopped_error()
                    if session.has_room(len(body)):
                        break
                    self._wait_for_room_locked(ack_id, block)
                if not ack:
                    ack_id = None
                elif ack_id is None:
                    ack_id = session.next_ack_id()
                elif ack_id in session.pending:
                    raise SendMessageError("a send with ack_id %d is already in progress" % ack_id, ack_id=ack_id)
                else:
                    session.reserve_ack_id(ack_id)
                entry = Entry(engine.protocol.finish(body, ack_id), ack_id, join=join)
                if block is not None and ack:
                    connection = engine.connection
                session.submit(entry)
                self._counters["sent"] += 1
                engine.receiver.answers_wanted_locked()
                if session.open and engine.connection is not None:
                    if connection is None or not connection.claim_locked(entry):
                        engine.connection.kick_locked()
            if connection is not None:
                connection.write_claimed(entry)
        except BaseException:  # Ctrl-C at any line must leave no claim behind, and nothing queued that nobody writes
            with self._mutex:
                if entry is not None:
                    self.session.retract(entry)
                if engine.connection is not None:
                    engine.connection.writable.notify_all()
            if connection is not None and entry is not None:
                connection.drop_claim(entry)
            raise
        return entry

    def submit_bound_locked(self, frame: Frame, bound: object) -> Entry:
        """Queue a frame of the conversation ``bound``; the link must be open for writing."""
        engine = self._engine
        entry = Entry(frame, None, bound=bound)
        self.session.submit_bound(entry)
        engine.receiver.answers_wanted_locked()
        if engine.connection is not None:
            engine.connection.kick_locked()
        return entry

    def _wait_for_room_locked(self, ack_id: Optional[int], block: Optional[Deadline]) -> None:
        full = "the outbox is full: %d of %d bytes are unsent or unacknowledged" % (
            self.session.size,
            self.session.max_bytes,
        )
        if block is None:
            raise OutboxFull(full + "; call flush(), use the blocking method, or raise max_outbox_bytes", ack_id=ack_id)
        remaining = block.remaining()
        if remaining is not None and remaining <= 0:
            raise AckTimeout(full + " and stayed so; nothing was sent", ack_id=ack_id, written=False)
        self._engine.wait_changed_locked(remaining)

    def result(self, entry: Entry, deadline: Deadline) -> None:
        """Wait for the answer to ``entry``. Raises SendMessageError and its kinds, ClientStopped."""
        future = entry.future
        if wait_done(future, deadline):
            error = future.exception()
            if error is not None:
                raise fresh(error)
            return
        with self._mutex:
            withdrawn = self.session.withdraw(entry)
            written = entry.written
            self._engine.freed_locked()
        if not withdrawn:
            # The answer came at the last moment; the thread that took it is about to complete the future.
            error = future.exception()
            if error is not None:
                raise fresh(error)
            return
        raise AckTimeout(
            "no acknowledgement in time: %s; send again with ack_id=%s to let the service drop a repeat"
            % ("the message was sent, its fate is unknown" if written else "the message was not sent", entry.ack_id),
            ack_id=entry.ack_id,
            written=written,
        )

    def flush(self, timeout: Optional[float]) -> None:
        """Wait until everything sent before this call is answered. Raises FlushTimeout, ClientStopped."""
        deadline = Deadline(timeout)
        self._engine.check_blocking()
        with self._mutex:
            mark = self.session.mark()
            run = self._engine.supervisor
            while not self.session.settled_up_to(mark):
                if self._engine.supervisor is None:
                    raise self._engine.stopped_error()
                remaining = deadline.remaining()
                if remaining is not None and remaining <= 0:
                    count = self.session.unanswered
                    raise FlushTimeout("%d sends are unacknowledged after %s s" % (count, timeout), unacked=count)
                self._engine.wait_changed_locked(remaining)
            if run is not None and run.oldest_left <= mark:
                raise self._engine.stopped_error()  # they are settled because stop() failed them
            leaving = [entry for entry, _ in self.answered] + [*self.written, *self.uncertain]
        for entry in leaving:
            if entry.serial <= mark and not entry.future.done() and not wait_done(entry.future, deadline):
                raise FlushTimeout("a callback of a send has taken longer than %s s" % timeout, unacked=0)

    def pause_before_retry(self, seconds: float) -> None:
        """Wait between two attempts of one send; a stop ends it. Raises ClientStopped."""
        deadline = Deadline(seconds)
        with self._mutex:
            self._counters["retried"] += 1
            while not deadline.expired():
                if self._engine.supervisor is None or self._engine.supervisor.stopping:
                    raise self._engine.stopped_error()
                self._engine.wait_changed_locked(deadline.remaining())

    def answered_locked(self, settled: List[Tuple[Entry, Ack]]) -> None:
        """Count answered entries, before anybody can know of the answers; `complete` must follow."""
        self.answered = settled
        acked = failed = 0
        for entry, ack in settled:
            if entry.restores is None:  # rejoins are not counted as sent either
                if ack.ok:
                    acked += 1
                else:
                    failed += 1
        self._counters["acked"] += acked
        self._counters["failed"] += failed

    def complete(self, settled: List[Tuple[Entry, Ack]]) -> None:
        """Complete the futures of answered entries (reader thread, no lock held)."""
        try:
            for entry, ack in settled:
                if ack.ok:
                    entry.future.set_result(None)
                    continue
                error = SendMessageError(
                    "the service refused %s: %s" % (ack.name or "the message", ack.message),
                    ack_id=ack.ack_id,
                    name=ack.name,
                    message=ack.message,
                    error_detail=AckError(ack.name, ack.message),
                )
                entry.future.set_exception(error)
                if entry.restores is not None:
                    self._engine.listeners.emit("rejoin-group-failed", RejoinGroupFailedArgs(entry.restores, error))
        finally:
            self.answered = ()

    def complete_written(self, entries: List[Entry]) -> None:
        """Complete fire-and-forget futures whose bytes were written (writer thread, no lock held)."""
        try:
            for entry in entries:
                entry.future.set_result(None)
        finally:
            self.written = ()

    def fail(self, entries: Iterable[Entry], error: Callable[[Entry], BaseException]) -> None:
        """Fail entries, each with an exception of its own (no lock held)."""
        for entry in entries:
            entry.future.set_exception(error(entry))

    def abandon(self, entries: List[Entry], cause: Optional[BaseException]) -> None:
        """Fail what the end of a run left behind (no lock held)."""

        def stopped(entry: Entry) -> ClientStopped:
            done = "acknowledged" if entry.written else "sent"
            error = ClientStopped("the client stopped before the message was " + done, by="client")
            error.__cause__ = cause
            return error

        self.fail(entries, stopped)
        unacked = [entry for entry in entries if entry.restores is None]
        if unacked:
            self._engine.log.warning("%s: stopped with %d sends unacknowledged", self._engine.name, len(unacked))

    def fail_uncertain(self, entries: List[Entry]) -> None:
        """Fail entries that were written and whose answer will never come."""
        self._counters["dropped"] += len(entries)
        text = "the connection was lost after the message was sent: it may or may not have been delivered"
        try:
            self.fail(entries, lambda entry: DeliveryUncertain(text, ack_id=entry.ack_id))
        finally:
            self.uncertain = ()
