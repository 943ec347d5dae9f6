"""The engine behind every client: one mutex, the state it guards, and what application threads may call.

Data flow::

    send*()  -> encode (caller) -> [mutex: Session] -> writer thread -> transport -> service
    service -> transport -> reader thread -> decode -> [mutex: Session] -> futures, Inbox -> receive()
                                                                       -> Listeners -> dispatcher thread

The mutex guards the session, the timers, the state and the references below; it is never held across I/O, user code,
the completion of a future, or a join. Conditions on it: ``wake`` (supervisor), ``writable`` (writer, on the
connection), ``room`` (a paused reader), ``changed`` (application threads in start, flush and a full outbox).
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
import time
import weakref
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ..exceptions import (
    AckTimeout,
    ClientStateError,
    ClientStopped,
    DeliveryUncertain,
    FlushTimeout,
    ForkedError,
    OutboxFull,
    SendMessageError,
    fresh,
)
from .backoff import RetryPolicy
from .connection import Connection
from .deadline import Deadline, wait
from .inbox import Inbox
from .listeners import Listeners
from .protocol import Ack, Connected, Dialer, Frame, Inbound, Protocol
from .records import AckError, ConnectedArgs, Gap, RejoinGroupFailedArgs
from .sequence import SequenceTracker
from .session import Entry, Session
from .states import Reason, State, next_state
from .supervisor import Supervisor

__all__ = ["Engine", "Options"]


class Options(NamedTuple):
    """Everything that tunes the engine; durations in seconds, None = no limit."""

    auto_reconnect: bool = True
    auto_restore: bool = True
    replay_unacked: bool = True
    reconnect_retry: RetryPolicy = RetryPolicy()
    start_timeout: Optional[float] = 30.0
    recovery_timeout: float = 30.0
    ping_interval: Optional[float] = 20.0
    idle_timeout: Optional[float] = 60.0
    max_inbox: int = 10_000
    max_outbox_bytes: int = 8 * 2**20
    raise_gaps: bool = False


_numbers = itertools.count(1)
_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()


def _forked() -> None:
    for engine in list(_engines):
        engine.forked = True


def _report_at_exit() -> None:
    for engine in list(_engines):
        unacked = len(engine.session.pending)
        if engine.supervisor is not None and unacked and not engine.forked:
            engine.log.warning(
                "the interpreter exits with %d sends unacknowledged: call stop(), or use the client in a with block",
                unacked,
            )


atexit.register(_report_at_exit)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Engine:
    """See the module docstring. Public methods are safe from any thread unless they say otherwise."""

    def __init__(
        self,
        protocol: Protocol,
        dialer: Dialer,
        url: Callable[[], str],
        events: Iterable[str],
        options: Options,
        owner: object,
    ) -> None:
        self.protocol = protocol
        self.dialer = dialer
        self.url = url
        self.options = options
        self.name = name = "simplepubsub-%d" % next(_numbers)
        # The threads must not keep a forgotten client alive: the supervisor looks whether it still exists.
        self.owner = weakref.ref(owner)
        self.log = logging.getLogger("simplepubsub.engine")
        self.trace: Optional[Callable[[str, Sequence[Frame]], None]] = None
        self.forked = False
        self.mutex = threading.Lock()
        self.wake = threading.Condition(self.mutex)
        self.room = threading.Condition(self.mutex)
        self.changed = threading.Condition(self.mutex)
        # Guarded by the mutex:
        self.state = State.STOPPED
        self.session = Session(options.max_outbox_bytes)
        self.supervisor: Optional[Supervisor] = None  # the present run
        self.connection: Optional[Connection] = None
        self.connection_id: Optional[str] = None
        self.user_id: Optional[str] = None
        self.resume: Any = None  # what recovery needs, None when there is nothing to recover
        self.stopped_by: Optional[BaseException] = None  # why the last run ended, None after a plain stop()
        self.latency: Optional[float] = None
        self.counters: Dict[str, int] = dict.fromkeys(
            (
                "sent",
                "acked",
                "failed",
                "retried",
                "replayed",
                "dropped",
                "received",
                "gaps",
                "reconnects",
                "recoveries",
            ),
            0,
        )
        self._waiters = 0  # application threads in `changed`
        self._paused = False  # the reader waits in `room`
        # Owned by the reader while a connection lives, by the supervisor between connections:
        self.sequence = SequenceTracker()
        self._gap_before_next = False
        self.inbox = Inbox(options.max_inbox, self._resume_reader)
        self.listeners = Listeners(events, options.max_inbox, self._resume_reader, name)
        self.inbox.close(self.stopped_error)
        _engines.add(self)

    # --- start and stop -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise ForkedError in a child process: the threads of the client live in its parent."""
        if self.forked:
            raise ForkedError("this client was made before os.fork(): make a new client in the child process")

    def _check_blocking(self) -> None:
        self.check()
        supervisor = self.supervisor
        if supervisor is not None and supervisor.owns_current_thread():
            raise ClientStateError(
                "a blocking call in a future's callback would wait for the thread it runs in: "
                "use the *_nowait methods there, or a listener"
            )

    def start(self, timeout: Optional[float]) -> None:
        """Connect and wait until the service has accepted. Raises ConnectError, ClientStopped, ClientStateError."""
        deadline = Deadline(timeout)
        self._check_blocking()
        with self.mutex:
            if self.state is not State.STOPPED or self.supervisor is not None:
                raise ClientStateError("start() needs a stopped client, this one is %s: call stop() first" % self.state)
            self.stopped_by = None
            self.supervisor = supervisor = Supervisor(self, deadline)
            self.move_locked(Reason.START_CALLED)
            self.inbox.open()
            self.listeners.start()
        supervisor.start()
        try:
            with self.mutex:
                while not (supervisor.established or supervisor.finished):
                    # The supervisor keeps the deadline and says what was slow; the margin is for it to do so.
                    self._wait_changed_locked(None)
        except BaseException:  # Ctrl-C: leave no half-started client behind
            self.stop(0.0)
            raise
        if not supervisor.established:
            self.listeners.join(1.0)
            if supervisor.failure is None:
                raise self.stopped_error()
            raise fresh(supervisor.failure)

    def stop(self, timeout: Optional[float]) -> None:
        """Say goodbye and end every thread; nothing is left after ``timeout`` seconds. Never raises for a stopped one."""
        deadline = Deadline(timeout)
        self.check()
        with self.mutex:
            supervisor = self.supervisor
            if supervisor is not None:
                supervisor.stop_locked(deadline)
        if supervisor is None:
            self.listeners.join(deadline.remaining())
            return
        if supervisor.owns_current_thread():
            return  # a callback on a future: the thread cannot wait for itself
        if not supervisor.join(deadline):
            self.log.warning("the network did not let go in time, the client is stopped without it")
            supervisor.finish(Reason.STOP_CALLED, None)
        if not self.listeners.join(deadline.remaining()):
            left = self.listeners.discard()
            self.log.warning("a listener still runs; %d events for listeners are discarded", left)

    def move_locked(self, reason: Reason) -> None:
        """The one place where the state changes."""
        old = self.state
        self.state = next_state(old, reason)
        self.log.info("%s: %s -> %s: %s", self.name, old, self.state, reason)
        self.changed.notify_all()

    def stopped_error(self) -> ClientStopped:
        """Return a new error for a caller that needs a running client."""
        cause = self.stopped_by
        if cause is None:
            return ClientStopped("the client is stopped: call start() first", by="client")
        error = ClientStopped(
            "the client has stopped: %s" % cause,
            code=getattr(cause, "code", None),
            reason=getattr(cause, "reason", ""),
            by=getattr(cause, "by", "network"),
        )
        error.__cause__ = cause
        return error

    def _wait_changed_locked(self, timeout: Optional[float]) -> None:
        self._waiters += 1
        try:
            wait(self.changed, timeout)
        finally:
            self._waiters -= 1

    def freed_locked(self) -> None:
        """Tell application threads that the outbox has shrunk."""
        if self._waiters:
            self.changed.notify_all()

    # --- sending ------------------------------------------------------------------------------------------------------

    def submit(
        self, make: Callable[[Optional[int]], Entry], ack_id: Optional[int], ack: bool, block: Optional[Deadline]
    ) -> Entry:
        """Queue the entry that ``make(ack_id)`` encodes; with ``block`` wait for room that long.

        Raises ClientStopped, OutboxFull, AckTimeout, and what ``make`` raises (then nothing is queued).
        """
        if block is not None:
            self._check_blocking()
        else:
            self.check()
        if self.supervisor is None:
            raise self.stopped_error()
        if ack and ack_id is None:
            with self.mutex:
                ack_id = self.session.next_ack_id()
            chosen = False
        else:
            chosen = ack_id is not None
        entry = make(ack_id if ack else None)
        connection = None
        try:
            with self.mutex:
                session = self.session
                while True:
                    if self.supervisor is None or self.supervisor.stopping:
                        raise self.stopped_error()
                    if session.has_room(entry.size):
                        break
                    self._wait_for_room_locked(entry, block)
                if chosen:
                    if ack_id in session.pending:
                        raise SendMessageError("a send with ack_id %d is already in progress" % ack_id, ack_id=ack_id)
                    session.reserve_ack_id(ack_id)  # type: ignore[arg-type]
                if block is not None and ack:
                    connection = self.connection
                session.submit(entry)
                self.counters["sent"] += 1
                if self._paused:
                    self.room.notify_all()
                if session.open and self.connection is not None:
                    if connection is None or not connection.claim_locked(entry):
                        self.connection.writable.notify()
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
        self._wait_changed_locked(remaining)

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
        with self.mutex:
            written = self.session.withdraw(entry)
            self.freed_locked()
        if future.done() and future.exception() is None:
            return  # the answer came between the two
        raise AckTimeout(
            "no acknowledgement in time: %s; send again with ack_id=%s to let the service drop a repeat"
            % ("the message was sent, its fate is unknown" if written else "the message was not sent", entry.ack_id),
            ack_id=entry.ack_id,
            written=written,
        )

    def flush(self, timeout: Optional[float]) -> None:
        """Wait until everything sent before this call is answered. Raises FlushTimeout, ClientStopped."""
        deadline = Deadline(timeout)
        self._check_blocking()
        with self.mutex:
            mark = self.session.mark()
            while not self.session.settled_up_to(mark):
                if self.supervisor is None:
                    raise self.stopped_error()
                remaining = deadline.remaining()
                if remaining is not None and remaining <= 0:
                    count = self.session.unanswered
                    raise FlushTimeout("%d sends are unacknowledged after %s s" % (count, timeout), unacked=count)
                self._wait_changed_locked(remaining)

    def pause_before_retry(self, seconds: float) -> None:
        """Wait between two attempts of one send; a stop ends it. Raises ClientStopped."""
        deadline = Deadline(seconds)
        with self.mutex:
            self.counters["retried"] += 1
            while not deadline.expired():
                if self.supervisor is None or self.supervisor.stopping:
                    raise self.stopped_error()
                self._wait_changed_locked(deadline.remaining())

    def stats(self) -> Dict[str, int]:
        """Return the counters and the present depths."""
        with self.mutex:
            counters = dict(self.counters)
            counters["unacked"] = len(self.session.pending)
            counters["outbox"] = self.session.queued
            counters["outbox_bytes"] = self.session.size
        counters["duplicates_dropped"] = self.sequence.duplicates
        counters["inbox"] = len(self.inbox)
        counters["listener_queue"] = len(self.listeners.queue)
        counters["listener_errors"] = self.listeners.errors
        return counters

    # --- called by the connection's threads ---------------------------------------------------------------------------

    def complete(self, settled: List[Tuple[Entry, Ack]]) -> None:
        """Complete the futures of answered entries (reader thread, no lock held)."""
        failed = 0
        for entry, ack in settled:
            if ack.ok:
                entry.future.set_result(None)
                continue
            failed += 1
            error = SendMessageError(
                "the service refused %s: %s" % (ack.name or "the message", ack.message),
                ack_id=ack.ack_id,
                name=ack.name,
                message=ack.message,
                error_detail=AckError(ack.name, ack.message),
            )
            entry.future.set_exception(error)
            if entry.restores is not None:
                self.listeners.emit("rejoin-group-failed", RejoinGroupFailedArgs(entry.restores, error))
        self.counters["acked"] += len(settled) - failed
        self.counters["failed"] += failed

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
        self.counters["dropped"] += len(entries)
        self.fail(
            entries,
            lambda entry: DeliveryUncertain(
                "the connection was lost after the message was sent: it may or may not have been delivered",
                ack_id=entry.ack_id,
            ),
        )

    def deliver(self, messages: List[Inbound]) -> None:
        """Hand messages to their listeners, or to the inbox (reader thread). Raises InboxOverflow."""
        self.counters["received"] += len(messages)
        if self._gap_before_next:
            self._gap_before_next = False
            messages[0].after_gap = True
        if not self.listeners.any:
            self.inbox.put(messages)
            return
        calls, rest = [], []
        for message in messages:
            event = message.event
            if self.listeners.has(event):
                calls.append((event, message))
            else:
                rest.append(message)
        if calls:
            self.listeners.emit_many(calls)
        if rest:
            self.inbox.put(rest)

    def wait_for_room(self, connection: Connection) -> None:
        """Pause the reader while the application is behind, but never while something we sent waits for an answer.

        Both ends would otherwise wait for each other: the service stops reading when it cannot write.
        """
        queues = (self.inbox, self.listeners.queue)
        if not any(queue.full for queue in queues):
            return
        with self.mutex:
            self._paused = connection.timers.paused = True
            try:
                for queue in queues:
                    queue.watch_drain()
                while not (all(queue.drained for queue in queues) or connection.ended or connection.closing):
                    if not self.session.idle or self.connection is not connection:
                        break
                    self.room.wait()
            finally:
                self._paused = connection.timers.paused = False
                connection.timers.received(time.monotonic(), False)

    def _resume_reader(self) -> None:
        with self.mutex:
            self.room.notify_all()

    def queue_sequence_ack_locked(self, connection: Connection) -> None:
        """Acknowledge everything received so far."""
        if self.sequence.behind > 0:
            self.session.control(self.protocol.sequence_ack(self.sequence.largest))
            self.sequence.acknowledged = self.sequence.largest
            connection.writable.notify()
        connection.timers.acknowledged()

    def connection_announced(self, connection: Connection, event: Connected, now: float) -> None:
        """The service's connected message arrived (reader thread)."""
        with self.mutex:
            if self.connection is not connection or connection.ended:
                return
            self.resume = event.resume if self.protocol.reliable else None
            if connection.opened:
                return  # repeated after a recovery: it only refreshes the token (client specification 1.2.4)
            old_id, last = self.connection_id, self.sequence.largest
            self.connection_id, self.user_id = event.connection_id, event.user_id
            connection.opened = True
            self.sequence.reset()
            supervisor = self.supervisor
            assert supervisor is not None
            replayed, uncertain = self.session.begin(self._rejoins_locked(), self.options.replay_unacked)
            self.counters["replayed"] += replayed
            gap = Gap(old_id or "", event.connection_id, last) if supervisor.established else None
            if gap is not None:
                self.counters["gaps"] += 1
                self.counters["reconnects"] += 1
            supervisor.established = True
            self.move_locked(Reason.ESTABLISHED)
            self.wake.notify_all()
            connection.writable.notify()
        self.fail_uncertain(uncertain)
        self.listeners.emit("connected", ConnectedArgs(event.connection_id, event.user_id))
        if gap is not None:
            self._gap_before_next = True
            if self.options.raise_gaps:
                self.inbox.put_always(gap)
            self.listeners.emit("gap", gap)

    def connection_recovered(self, connection: Connection, now: float) -> None:
        """The first frame of a recovering connection arrived, so the service did not refuse it (reader thread)."""
        with self.mutex:
            if self.connection is not connection or connection.ended or connection.opened:
                return
            connection.opened = True
            self.counters["replayed"] += self.session.resume()
            self.counters["recoveries"] += 1
            self.move_locked(Reason.RECOVERED)
            self.wake.notify_all()
            connection.writable.notify()
            args = ConnectedArgs(self.connection_id or "", self.user_id)
        self.listeners.emit("recovered", args)

    def _rejoins_locked(self) -> List[Entry]:
        if not self.options.auto_restore:
            return []
        entries = []
        for key in self.session.restore:
            ack_id = self.session.next_ack_id()
            entries.append(Entry(self.protocol.restore(key, ack_id), ack_id, restores=key))
        return entries
