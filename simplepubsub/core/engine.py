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
import weakref
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ..exceptions import ClientStateError, ClientStopped, ForkedError, RemoteProtocolError, fresh
from .backoff import RetryPolicy
from .connection import Connection
from .conversations import Conversations
from .deadline import Deadline, wait
from .protocol import Connected, Dialer, Frame, Protocol
from .receiver import Receiver
from .records import ConnectedArgs, Gap
from .sender import Sender
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
        self.name = "simplepubsub-%d" % next(_numbers)
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
        self.session = Session(options.max_outbox_bytes, protocol.max_in_flight)
        self.supervisor: Optional[Supervisor] = None  # the present run
        self._previous: Optional[Supervisor] = None  # the same, and after its end the last one
        self.connection: Optional[Connection] = None
        self.connection_id: Optional[str] = None
        self.user_id: Optional[str] = None
        self.resume: Any = None  # what recovery needs, None when there is nothing to recover
        self.stopped_by: Optional[BaseException] = None  # why the last run ended, None after a plain stop()
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
        self.conversations = Conversations()  # a face with conversations puts its own here, before the first start()
        self._moves: Deque[Tuple[State, State, Reason]] = deque()  # not logged yet
        self._waiters = 0  # application threads in `changed`
        self.sender = Sender(self, self.mutex, self.session, self.counters)
        self.receiver = Receiver(self, self.mutex, events, options.max_inbox, self.counters)
        self.inbox = self.receiver.inbox
        self.listeners = self.receiver.listeners
        self.sequence = self.receiver.sequence
        self.inbox.close(self.stopped_error)
        _engines.add(self)

    # --- start and stop -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise ForkedError in a child process: the threads of the client live in its parent."""
        if self.forked:
            raise ForkedError("this client was made before os.fork(): make a new client in the child process")

    def check_blocking(self) -> None:
        """Raise ClientStateError in a thread that a blocking call would wait for, ForkedError in a child process."""
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
        self.check_blocking()
        if self._previous is not None:
            # A stop() in a hurry returns before the threads have ended; nothing of them may touch the new run.
            self._previous.wait_over(deadline)
        supervisor = Supervisor(self, deadline)
        try:
            with self.mutex:
                if self.state is not State.STOPPED or self.supervisor is not None:
                    raise ClientStateError(
                        "start() needs a stopped client, this one is %s: call stop() first" % self.state
                    )
                self.stopped_by = None
                self.supervisor = self._previous = supervisor
                self.move_locked(Reason.START_CALLED)
                self.inbox.open()
                self.listeners.start()
            self.log_moves()
            supervisor.start()
            with self.mutex:
                while not (supervisor.established or supervisor.finished):
                    # The supervisor keeps the deadline and says what was slow; the margin is for it to do so.
                    self.wait_changed_locked(None)
        except BaseException:  # Ctrl-C at any line: leave no half-started client behind
            if self.supervisor is supervisor:
                self.stop(0.0)
            raise
        if not supervisor.established:
            self.listeners.join(1.0)
            if supervisor.failure is None:
                raise self.stopped_error()
            raise fresh(supervisor.failure)

    def stop(self, timeout: Optional[float]) -> None:
        """Say goodbye and end every thread within ``timeout`` seconds; does nothing on a stopped client."""
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
            if left is not None:
                self.log.warning("a listener still runs; %d events for listeners are discarded", left)

    def move_locked(self, reason: Reason) -> None:
        """The one place where the state changes; `log_moves` must follow when the mutex is free."""
        old = self.state
        self.state = next_state(old, reason)
        self._moves.append((old, self.state, reason))
        self.changed.notify_all()

    def log_moves(self) -> None:
        """Log the transitions so far. A log handler is user code: it may use this very client, so no lock is held."""
        while self._moves:
            try:
                move = self._moves.popleft()
            except IndexError:
                return  # another thread was faster
            self.log.info("%s: %s -> %s: %s", self.name, *move)

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

    def wait_changed_locked(self, timeout: Optional[float]) -> None:
        """Wait, in an application thread, until something in the session or the state changes."""
        self._waiters += 1
        try:
            wait(self.changed, timeout)
        finally:
            self._waiters -= 1

    def freed_locked(self) -> None:
        """Tell application threads that the outbox has shrunk."""
        if self._waiters:
            self.changed.notify_all()

    def stats(self) -> Dict[str, int]:
        """Return the counters and the present depths. Raises ForkedError."""
        self.check()  # a child's copy of the mutex may be held for ever
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

    def connection_announced(self, connection: Connection, event: Connected) -> None:
        """The service's connected message arrived (reader thread)."""
        with self.mutex:
            if self.connection is not connection or connection.ended:
                return
            self.resume = event.resume if self.protocol.reliable else None
            if connection.opened and event.connection_id != self.connection_id:
                # Another session than the one that we continue: its groups and its messages are not ours. Start over,
                # so that the gap is told.
                self.resume = None
                raise RemoteProtocolError("the service answered for another session, %r" % event.connection_id)
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
            self.sender.uncertain = uncertain
            gap = Gap(old_id or "", event.connection_id, last) if supervisor.established else None
            if gap is not None:
                self.counters["gaps"] += 1
                self.counters["reconnects"] += 1
            supervisor.established = True
            self.conversations.begun_locked()
            self.move_locked(Reason.ESTABLISHED)
            self.wake.notify_all()
            connection.writable.notify()
        self.log_moves()
        self.sender.fail_uncertain(uncertain)
        self.conversations.settle()
        self.listeners.emit("connected", ConnectedArgs(event.connection_id, event.user_id))
        if gap is not None:
            self.receiver.gap(gap, self.options.raise_gaps)

    def connection_recovered(self, connection: Connection) -> None:
        """The first frame of a recovering connection arrived, so the service did not refuse it (reader thread)."""
        with self.mutex:
            if self.connection is not connection or connection.ended or connection.opened:
                return
            connection.opened = True
            self.counters["replayed"] += self.session.resume()
            self.counters["recoveries"] += 1
            self.conversations.recovered_locked()
            self.move_locked(Reason.RECOVERED)
            self.wake.notify_all()
            connection.writable.notify()
            args = ConnectedArgs(self.connection_id or "", self.user_id)
        self.log_moves()
        self.conversations.settle()
        self.listeners.emit("recovered", args)

    def _rejoins_locked(self) -> List[Entry]:
        if not self.options.auto_restore:
            return []
        entries = []
        for key in self.session.restore:
            ack_id = self.session.next_ack_id()
            entries.append(Entry(self.protocol.restore(key, ack_id), ack_id, restores=key))
        return entries
