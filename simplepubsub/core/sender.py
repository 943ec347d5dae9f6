"""The way out: what application threads do to send, and how their futures end.

Data flow: encode (caller) -> `Session` (mutex) -> writer thread, or the caller itself when the writer is idle -> answer
(reader thread) -> future. Nothing here blocks on the network.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Callable, Dict, Iterable, List, Optional, Tuple

from ..exceptions import AckTimeout, DeliveryUncertain, FlushTimeout, OutboxFull, SendMessageError, fresh
from .deadline import Deadline, wait
from .protocol import Ack
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

    def submit(
        self, make: Callable[[Optional[int]], Entry], ack_id: Optional[int], ack: bool, block: Optional[Deadline]
    ) -> Entry:
        """Queue the entry that ``make(ack_id)`` encodes; with ``block`` wait for room that long.

        Raises ClientStopped, OutboxFull, AckTimeout, and what ``make`` raises (then nothing is queued).
        """
        if block is not None:
            self._engine.check_blocking()
        else:
            self._engine.check()
        if self._engine.supervisor is None:
            raise self._engine.stopped_error()
        if ack and ack_id is None:
            with self._mutex:
                ack_id = self.session.next_ack_id()
            chosen = False
        else:
            chosen = ack and ack_id is not None
        connection = None
        try:
            entry = make(ack_id if ack else None)
            with self._mutex:
                session = self.session
                while True:
                    if self._engine.supervisor is None or self._engine.supervisor.stopping:
                        raise self._engine.stopped_error()
                    if session.has_room(entry.size):
                        break
                    self._wait_for_room_locked(entry, block)
                if chosen:
                    assert ack_id is not None
                    if session.in_progress(ack_id):
                        raise SendMessageError("a send with ack_id %d is already in progress" % ack_id, ack_id=ack_id)
                    session.reserve_ack_id(ack_id)
                if block is not None and ack:
                    connection = self._engine.connection
                session.submit(entry)
                self._counters["sent"] += 1
                self._engine.receiver.answers_wanted_locked()
                if session.open and self._engine.connection is not None:
                    if connection is None or not connection.claim_locked(entry):
                        self._engine.connection.writable.notify()
        except BaseException:
            if ack_id is not None and not chosen:
                with self._mutex:
                    self.session.release_ack_id(ack_id)
            raise
        finally:
            if connection is not None:
                connection.write_claimed(entry)  # in a finally: Ctrl-C must not leave the claim behind
        return entry

    def _wait_for_room_locked(self, entry: Entry, block: Optional[Deadline]) -> None:
        full = "the outbox is full: %d of %d bytes are unsent or unacknowledged" % (
            self.session.size,
            self.session.max_bytes,
        )
        if block is None:
            raise OutboxFull(
                full + "; call flush(), use the blocking method, or raise max_outbox_bytes", ack_id=entry.ack_id
            )
        remaining = block.remaining()
        if remaining is not None and remaining <= 0:
            raise AckTimeout(full + " and stayed so; nothing was sent", ack_id=entry.ack_id, written=False)
        self._engine.wait_changed_locked(remaining)

    def result(self, entry: Entry, deadline: Deadline) -> None:
        """Wait for the answer to ``entry``. Raises SendMessageError and its kinds, ClientStopped."""
        future = entry.future
        condition = future._condition  # the documented result() cannot be interrupted on Windows
        with condition:
            while not future.done():
                remaining = deadline.remaining()
                if remaining is not None and remaining <= 0:
                    break
                wait(condition, remaining)
        if future.done():
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
            while not self.session.settled_up_to(mark):
                if self._engine.supervisor is None:
                    raise self._engine.stopped_error()
                remaining = deadline.remaining()
                if remaining is not None and remaining <= 0:
                    count = self.session.unanswered
                    raise FlushTimeout("%d sends are unacknowledged after %s s" % (count, timeout), unacked=count)
                self._engine.wait_changed_locked(remaining)

    def pause_before_retry(self, seconds: float) -> None:
        """Wait between two attempts of one send; a stop ends it. Raises ClientStopped."""
        deadline = Deadline(seconds)
        with self._mutex:
            self._counters["retried"] += 1
            while not deadline.expired():
                if self._engine.supervisor is None or self._engine.supervisor.stopping:
                    raise self._engine.stopped_error()
                self._engine.wait_changed_locked(deadline.remaining())

    def complete(self, settled: List[Tuple[Entry, Ack]]) -> None:
        """Complete the futures of answered entries (reader thread, no lock held)."""
        acked = failed = 0
        for entry, ack in settled:
            sent = entry.restores is None  # rejoins are not counted as sent either
            if ack.ok:
                acked += sent
                entry.future.set_result(None)
                continue
            failed += sent
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
        self._counters["acked"] += acked
        self._counters["failed"] += failed

    def complete_written(self, entries: List[Entry]) -> None:
        """Complete fire-and-forget futures whose bytes were written (writer thread, no lock held)."""
        for entry in entries:
            entry.future.set_result(None)

    def fail(self, entries: Iterable[Entry], error: Callable[[Entry], BaseException]) -> None:
        """Fail entries, each with an exception of its own (no lock held)."""
        for entry in entries:
            entry.future.set_exception(error(entry))

    def fail_uncertain(self, entries: List[Entry]) -> None:
        """Fail entries that were written and whose answer will never come."""
        self._counters["dropped"] += len(entries)
        self.fail(
            entries,
            lambda entry: DeliveryUncertain(
                "the connection was lost after the message was sent: it may or may not have been delivered",
                ack_id=entry.ack_id,
            ),
        )
