"""One run of a client, from start() to STOPPED: dial, watch, recover, replace, stop.

The supervisor thread owns the transport reference and the timers. It reads and writes no frames. Three rules keep it
sound: reader and writer of the old connection are joined before the next dial; after every blocking step the mutex is
taken again and a stop is looked for; the first cause of a failure is the one that is reported.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Optional, Tuple

from ..exceptions import (
    ConnectError,
    InboxOverflow,
    TransportClosed,
    TransportError,
)
from .attempt import Attempt, not_accepted
from .connection import Connection
from .deadline import Deadline, wait
from .records import DisconnectedArgs, StoppedArgs
from .states import Reason, State
from .timers import Timers
from .watch import run_timers_locked

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Supervisor"]

#: A service that refuses a recovery closes at once with 1008; silence for this many seconds means that it agreed. Only
#: services that do not answer a ping need it.
RECOVERY_QUIET = 2.0

#: Recovery is tried at once, then after delays that double from the first to the second value (seconds; the client
#: specification 1.4.3 gives 30 s in total, both official clients try once a second).
RECOVERY_DELAYS = (0.05, 1.0)

#: A connection that lives shorter than this (seconds) counts as a failed attempt, so that a service which accepts and
#: drops us in a loop is not dialled in a loop.
STABLE_AFTER = 1.0

#: How many short-lived connections in a row are replaced without a delay.
QUICK_LOSSES = 3

#: Longest delay before a session is recovered again that was lost right after its last recovery (seconds).
QUICK_LOSS_DELAY = 0.25

#: How often the supervisor looks whether the application still holds the client (seconds).
OWNER_CHECK = 20.0

#: How long stop() waits for another thread that is telling the waiting futures about the end (seconds); only a user's
#: callback can hold it up.
RELEASE_WAIT = 1.0

#: How long the writer may take to answer the peer's close frame (seconds).
CLOSE_REPLY = 1.0


class Supervisor:
    """See the module docstring. Public methods are safe from any thread; ``*_locked`` need the engine's mutex."""

    def __init__(self, engine: Engine, start_deadline: Deadline) -> None:
        self._engine = engine
        self._mutex = engine.mutex
        self._start_deadline = start_deadline
        # Guarded by the engine's mutex:
        self.established = False  # a connection was accepted at least once
        self.stopping = False
        self.finished = False
        self.failure: Optional[BaseException] = None
        self.oldest_left = float("inf")  # serial of the first send that the end of the run failed
        self._stop_deadline = Deadline(None)
        self._over = False  # the thread has nothing left to do
        self._ended = threading.Condition(engine.mutex)
        self._released = threading.Event()  # nobody waits for this run any more
        # Owned by the supervisor thread:
        self._connection: Optional[Connection] = None  # the engine's may be None already, after a stop() in a hurry
        self._base_url = ""
        self._quick_losses, self._fault_at = 0, -1
        self._thread = threading.Thread(target=self._run, name=engine.name + "-supervisor", daemon=True)

    def start(self) -> None:
        """Start the run, unless stop() was faster."""
        with self._mutex:  # so that join() sees a thread that is started, or one that never will be
            if not self.stopping:
                self._thread.start()

    def stop_locked(self, deadline: Deadline) -> None:
        """Ask the run to end by ``deadline``; the first call counts."""
        if not self.stopping:
            self._stop_deadline = deadline
            self.stopping = True
        engine = self._engine
        for condition in (engine.wake, engine.room, engine.changed):
            condition.notify_all()

    def join(self, deadline: Deadline) -> bool:
        """Wait until the run has ended; return whether it has. A stop was asked for already."""
        with self._mutex:
            never_started = self._thread.ident is None
        if never_started:
            self.finish(Reason.STOP_CALLED, None)
            return True
        # Not Thread.join() alone: after Ctrl-C inside it Python (to 3.12) takes a running thread for an ended one.
        self.wait_over(deadline)
        if self._over:
            self._thread.join()  # it has nothing left to do
        return self._over

    def wait_over(self, deadline: Deadline) -> None:
        """Wait until a run that has stopped, or stops, touches nothing any more; at once in its own thread."""
        other = threading.current_thread() is not self._thread
        with self._mutex:
            while other and self.stopping and not (self._over or self._thread.ident is None or deadline.expired()):
                wait(self._ended, deadline.remaining())

    def _asked_to_stop(self) -> bool:
        # A method, so that the type checker does not take two looks at a changing flag for one.
        return self.stopping

    def owns_current_thread(self) -> bool:
        """Return whether the caller is the supervisor, the reader or the writer."""
        mine, connection = threading.current_thread() is self._thread, self._engine.connection
        return mine or (connection is not None and connection.owns_current_thread())

    # --- the run ------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        engine = self._engine
        try:
            try:
                reason, failure = self._live()
            except BaseException as error:  # a bug of ours, or of a log handler: the client must stop, not hang
                self.finish(Reason.STOP_CALLED, error)
                engine.log.exception("supervisor failed")
            else:
                self.finish(reason, failure)
            if engine.owner() is None:
                engine.log.warning("%s: nobody holds the client any more, so it stopped", engine.name)
        finally:
            if self._connection is not None:
                self._connection.finish(0.0)
            with self._mutex:
                self._over = True
                self._ended.notify_all()

    def _live(self) -> Tuple[Reason, Optional[BaseException]]:
        """Connect, stay connected, connect again; return why that ended."""
        engine, options = self._engine, self._engine.options
        failures = 0
        budget = self._start_deadline
        while True:
            error: Optional[BaseException] = self._open(budget, recover=False)
            if error is None:
                since = time.monotonic()
                error = self._stay()
                if self._asked_to_stop():
                    return Reason.STOP_CALLED, None
                if isinstance(error, InboxOverflow):
                    return Reason.INBOX_OVERFLOW, error
                failures = 0 if time.monotonic() - since >= STABLE_AFTER else failures
            elif self._asked_to_stop():
                return Reason.STOP_CALLED, None
            elif not self.established:
                return Reason.START_FAILED, error
            elif getattr(error, "fatal", False):
                engine.log.error("%s: giving up: %s", engine.name, error)
                return Reason.REFUSED, error
            else:
                engine.log.warning("%s: cannot connect (attempt %d): %s", engine.name, failures, error)
                self._move(Reason.ATTEMPT_FAILED)
            if not options.auto_reconnect:
                return Reason.RECONNECT_OFF, error
            failures += 1
            delay = options.reconnect_retry.delay(failures)
            if delay is None:
                return Reason.RETRIES_EXHAUSTED, error
            if not self._sleep(0.0 if failures == 1 else delay):
                return Reason.STOP_CALLED, None
            self._move(Reason.RETRY)
            budget = Deadline(options.start_timeout)

    def _stay(self) -> Optional[BaseException]:
        """Keep the session alive, recovering it as often as it takes; return what ended it."""
        engine = self._engine
        while True:
            connection = self._connection
            assert connection is not None
            since = time.monotonic()
            self._watch(connection)
            if self._asked_to_stop():
                self._goodbye(connection)
                return None
            cause = self._drop(connection)
            if isinstance(cause, InboxOverflow):
                return cause
            self._quick_losses = 0 if time.monotonic() - since >= STABLE_AFTER else self._quick_losses + 1
            if not self._recoverable(cause):
                self._disconnected(Reason.LOST, connection, cause)
                return cause
            engine.log.info("%s: connection lost, recovering: %s", engine.name, cause)
            self._move(Reason.LOST_RECOVERABLE)
            reason = self._recover()
            if self._asked_to_stop():
                return None
            if reason is not None:
                self._disconnected(reason, connection, cause)
                return cause

    def _recoverable(self, cause: BaseException) -> bool:
        """Client specification 1.4: any loss but a close with 1008 can be recovered, given a token."""
        engine = self._engine
        if engine.resume is None or (isinstance(cause, TransportClosed) and cause.code == 1008):
            return False
        if not isinstance(cause, TransportError):  # the protocol is broken, or we are
            # The service repeats what we did not acknowledge; if the same message breaks us twice, recovery is a loop.
            if self._fault_at == engine.sequence.largest:
                return False
            self._fault_at = engine.sequence.largest
        return True

    def _recover(self) -> Optional[Reason]:
        """Try to continue the session; return None when it continues (or a stop came), else why it cannot."""
        budget = Deadline(self._engine.options.recovery_timeout)
        delay, limit = RECOVERY_DELAYS
        if self._quick_losses > QUICK_LOSSES:
            self._sleep(min(QUICK_LOSS_DELAY, delay * (self._quick_losses - QUICK_LOSSES)))
        while not self._asked_to_stop():
            error = self._open(budget, recover=True)
            if error is None or self._asked_to_stop():
                return None
            if isinstance(error.__cause__, TransportClosed) and error.__cause__.code == 1008:
                return Reason.RECOVERY_REFUSED
            if budget.expired():
                return Reason.RECOVERY_EXPIRED
            self._engine.log.info("%s: recovery failed, trying again: %s", self._engine.name, error)
            self._sleep(delay * (0.5 + 0.5 * random.random()), budget)
            delay = min(limit, delay * 2)
        return None

    def _open(self, budget: Deadline, recover: bool) -> Optional[ConnectError]:
        """Dial and wait until the service accepts; return what went wrong, None if nothing."""
        engine = self._engine
        attempt = Attempt(engine, self._base_url if recover else None, engine.resume if recover else None)
        attempt.start(budget.remaining())
        with self._mutex:
            while not (attempt.done or self.stopping or budget.expired()):
                wait(engine.wake, budget.remaining())
            if not attempt.done:
                attempt.abandoned = True
        if attempt.abandoned:
            return attempt.abandon()
        if attempt.transport is None:
            assert attempt.error is not None
            return attempt.error
        self._base_url = attempt.base_url
        options = engine.options
        timers = Timers(time.monotonic(), engine.sequence, options.ping_interval, options.idle_timeout)
        connection = Connection(engine, attempt.transport, timers, engine.name, continues=recover)
        quiet = Deadline(RECOVERY_QUIET)
        with self._mutex:
            stopped = self.stopping
            if not stopped:
                engine.connection = self._connection = connection
            if recover and not stopped:
                # Its answer is the sign that the recovery was accepted.
                engine.session.control(engine.protocol.ping(), "ping")
                timers.pinged(time.monotonic())
        if stopped:
            attempt.transport.abort()
            attempt.transport.release()
            return ConnectError("stopped while connecting", url=attempt.shown_url)
        connection.start()
        with self._mutex:
            while not (connection.opened or connection.ended or self.stopping or budget.expired()):
                if recover and quiet.expired():
                    break
                remaining = quiet.remaining() if recover else None
                left = budget.remaining()
                wait(engine.wake, left if remaining is None else remaining if left is None else min(left, remaining))
            silent = not (connection.opened or connection.ended or self.stopping)
        if recover and silent and quiet.expired():
            engine.connection_recovered(connection)
        with self._mutex:
            if connection.opened:
                return None
            late = not (connection.ended or self.stopping)
            connection.ended = True  # a connected message that arrives from here on is too late
        cause = self._drop(connection)
        return not_accepted(cause, late, attempt.shown_url)

    def _watch(self, connection: Connection) -> None:
        """Run the timers until the connection ends or a stop is asked for."""
        engine = self._engine
        with self._mutex:
            while not (self.stopping or connection.ended):
                deadline = run_timers_locked(engine, connection)
                if engine.owner() is None:
                    self.stop_locked(Deadline(0.0))
                if not (connection.ended or self.stopping):
                    left = OWNER_CHECK if deadline is None else min(OWNER_CHECK, deadline - time.monotonic())
                    wait(engine.wake, max(0.0, left))

    def _drop(self, connection: Connection) -> BaseException:
        """End a connection and its threads; return the first cause."""
        engine = self._engine
        connection.finish(0.0 if connection.closing is None or self.stopping else CLOSE_REPLY)
        self._connection = None
        with self._mutex:
            cut_short = []
            if engine.connection is connection:  # otherwise stop() was faster and the session is no longer ours
                engine.connection = None
                cut_short = engine.sender.uncertain = engine.session.link_lost()
                engine.conversations.link_lost_locked()
            cause = connection.cause
        engine.sender.fail_uncertain(cut_short)
        engine.conversations.settle()
        return cause if cause is not None else TransportError("the connection was given up")

    def _goodbye(self, connection: Connection) -> None:
        """Write what is queued, close politely, and end the threads, all by the deadline of stop()."""
        with self._mutex:
            connection.goodbye_locked(1000, "", when_sent=True)
            self._engine.room.notify_all()
            while not connection.ended and not self._stop_deadline.expired():
                wait(self._engine.wake, self._stop_deadline.remaining())
        self._drop(connection)

    def finish(self, reason: Reason, failure: Optional[BaseException]) -> None:
        """Enter STOPPED: release everyone who waits. The first call counts, others wait until it is done."""
        engine = self._engine
        with self._mutex:
            first = not self.finished
            if first:
                self.finished = self.stopping = True
                self.failure = engine.stopped_by = failure
                connection, engine.connection = engine.connection, None
                engine.connection_id = engine.resume = None
                left = engine.session.abandon()
                self.oldest_left = min((entry.serial for entry in left if entry.restores is None), default=float("inf"))
                engine.supervisor = None
                engine.conversations.stopped_locked()
                if engine.state is not State.STOPPED:  # Ctrl-C may end a start() before its first transition
                    engine.move_locked(reason)
                # After the transition: whoever wakes up here, or listens, finds a stopped client.
                engine.inbox.close(engine.stopped_error)
                engine.listeners.stop(StoppedArgs(failure), announce=self.established)
                engine.wake.notify_all()
        if not first:
            self._released.wait(RELEASE_WAIT)
            return
        if connection is not None:
            connection.abort()
        engine.sender.abandon(left, failure)
        engine.conversations.settle()
        self._released.set()
        engine.log_moves()

    def _disconnected(self, reason: Reason, connection: Connection, cause: BaseException) -> None:
        engine, options = self._engine, self._engine.options
        with self._mutex:
            if self.finished:
                return  # stop() did not wait for us, and the session may be that of the next run
            engine.resume = None
            engine.conversations.session_lost_locked()
            connection_id = engine.connection_id or ""
        engine.conversations.settle()
        self._move(reason)
        will_retry = options.auto_reconnect and options.reconnect_retry.delay(1) is not None
        text = connection.announced or str(cause)
        engine.log.warning("%s: disconnected (%s): %s", engine.name, reason, engine.protocol.shown_text(text))
        code, said = getattr(cause, "code", None), getattr(cause, "reason", "")
        engine.listeners.emit("disconnected", DisconnectedArgs(connection_id, text, code, said, will_retry, cause))

    def _move(self, reason: Reason) -> None:
        with self._mutex:
            if not self.finished:
                self._engine.move_locked(reason)
        self._engine.log_moves()

    def _sleep(self, seconds: float, budget: Optional[Deadline] = None) -> bool:
        """Wait, unless a stop comes; return whether the run goes on."""
        deadline = Deadline(seconds)
        with self._mutex:
            if self._engine.owner() is None:
                self.stop_locked(Deadline(0.0))
            while not (self.stopping or deadline.expired() or (budget is not None and budget.expired())):
                wait(self._engine.wake, deadline.remaining())
            return not self.stopping
