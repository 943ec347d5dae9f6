"""One run of a client, from ``connect()`` to the end for good: dial, join the namespaces, watch, come back.

The supervisor thread does that. It reads and writes no packets, and calls nothing of the user: the user's callables run
in the thread of an `Attempt`. After every blocking step it takes the lock again and looks whether the run has ended
meanwhile. A run that has ended touches nothing any more, and the next one may begin before its threads are gone.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from ..core.deadline import Deadline, wait
from ..exceptions import SimplePubSubError
from .connecting import Attempt, evaluate_auth
from .exceptions import ConnectionError
from .link import Link, Stage
from .seams import Delegate, Finished, Lifecycle, Opener, Refused
from .settings import Options, Plan, backoff
from .traffic import CLIENT, SERVER, Traffic

__all__ = ["Run", "State"]

log = logging.getLogger("simplepubsub.socketio")

#: How much longer than its deadline an attempt may take to say itself what went wrong (seconds).
GRACE = 0.25

#: How long threads that were told to end are waited for (seconds).
CLEANUP = 0.5

#: How long a connection that is not wanted any more may take to end politely (seconds).
CLOSE_UNWANTED = 1.0


class State(enum.Enum):
    """What a client is doing."""

    IDLE = "idle"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


class Run:
    """See the module docstring. ``*_locked`` need the manager's lock, which guards all public attributes."""

    def __init__(
        self,
        lock: threading.Lock,
        changed: threading.Condition,
        opener: Callable[[], Opener],
        delegate: Delegate,
        serializer: Any,
        options: Options,
        plan: Plan,
    ) -> None:
        self._lock = lock
        self._changed = changed
        self._wake = threading.Condition(lock)
        self._opener = opener
        self._delegate = delegate
        self._serializer = serializer
        self._options = options
        self._plan = plan
        self.traffic = Traffic(
            lock, delegate, serializer, options, plan.auth, self._notify_locked, self._up_locked, self._finish_locked
        )
        self.traffic.returns = plan.retry
        self.opened = False  # a session was opened
        self.up = False  # and all namespaces were connected at least once
        self.ended = False
        self.done = False  # the supervisor's thread has nothing left to do
        self.reason = ""
        self.error: Optional[BaseException] = None
        self.attempt: Optional[Attempt] = None
        self._asked: Optional[Deadline] = None
        self._stop_deadline = Deadline(None)
        self._thread = threading.Thread(target=self._run, name="simplepubsub-socketio-supervisor", daemon=True)

    # --- for the manager ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the run is doing."""
        if self.ended:
            return State.CLOSED
        if not self.up:
            return State.CONNECTING
        link = self.traffic.link
        return State.CONNECTED if link is not None and link.complete else State.RECONNECTING

    def start_locked(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop_locked(self, deadline: Deadline) -> None:
        """Have the supervisor call `stop_locked`, at once unless it is busy: Ctrl-C cannot cut that in half there."""
        if self._asked is None:
            self._asked = deadline
        self._wake.notify_all()

    def stop_locked(self, deadline: Deadline) -> None:
        """End the run: leave politely until ``deadline``. The first end counts."""
        if self.ended:
            return
        self._stop_deadline = deadline
        self.traffic.returns = False
        self.traffic.goodbye_locked()
        self._finish_locked(CLIENT, None)

    def leave_locked(self, namespace: str, deadline: Deadline) -> bool:
        """Leave one namespace, and end the run with the last; return whether it has ended."""
        if set(self.traffic.wanted) == {namespace}:
            self.stop_locked(deadline)
        else:
            self.traffic.leave_locked(namespace)
        return self.ended

    def join(self, deadline: Deadline) -> bool:
        """Wait until an ended run is done with; return whether it is. Called without the lock.

        The thread of an attempt that was given up is waited for too, but only for a moment and whatever comes of it: a
        callable of the user's, or DNS, may hold it for any time.
        """
        with self._lock:
            while not self.done:
                if self._thread.ident is None:
                    return True  # it could not be started
                if deadline.expired():
                    return False
                wait(self._changed, deadline.remaining())
            attempt = self.attempt
        # Not Thread.join() alone: after Ctrl-C inside it Python (to 3.12) takes a running thread for an ended one.
        me = threading.current_thread()
        if self._thread is not me:
            self._thread.join()  # it has nothing left to do
        if attempt is not None and attempt.thread is not me:
            remaining = deadline.remaining()
            attempt.thread.join(CLEANUP if remaining is None else min(CLEANUP, remaining))
        return True

    def _notify_locked(self) -> None:
        self._wake.notify_all()
        self._changed.notify_all()

    def _up_locked(self, link: Link) -> None:
        """``link`` is good enough."""
        self.up = True
        link.complete = True
        self.traffic.returns = self._options.reconnection
        self._notify_locked()

    def _finish_locked(self, reason: str, error: Optional[BaseException]) -> None:
        """Nothing happens in this run any more."""
        if self.ended:
            return
        self.ended = True
        self.reason, self.error = reason, error
        records = self.traffic.finish_locked(reason)
        records.append(Finished(reason, error))
        self._delegate.deliver(records)
        self._notify_locked()

    # --- the supervisor -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._live()
        except BaseException as error:  # a bug of ours, or of a log handler: the client must end, not hang
            with self._lock:
                link = self.traffic.link
                self.traffic.returns = False
                if link is not None:
                    self.traffic.drop_locked(link, "transport error", error)
                self._finish_locked("transport error", error)
            if link is not None:
                link.session.abort()
            log.exception("the supervisor failed")
        finally:
            with self._lock:
                self.done = True
                self._notify_locked()

    def _live(self) -> None:
        failures = 0
        reason = "transport error"
        while True:
            first = not self.up
            error: Optional[ConnectionError] = None
            link = self._connect()
            if isinstance(link, Link):
                if failures or not first:
                    self._tell("reconnect", failures)
                failures = 0
                self._watch(link)
                self._close(link)
                ended = link.ended
                assert ended is not None
                reason, cause = ended
                log.info("the connection is lost (%s)", reason)
            else:
                error = cause = link
            with self._lock:
                if self.ended:
                    return
                if first and error is not None:
                    again = self._plan.retry or (self.opened and self.traffic.returns)
                    if isinstance(error, ValueError) or getattr(error, "refused", None) or not again:
                        return self._finish_locked(reason, error)
                elif not self._options.reconnection:
                    return self._finish_locked(reason, cause)
            if error is not None and (failures or not first):
                self._tell("reconnect_error", error)
            failures += 1
            delay = backoff(self._options, failures)
            if delay is None:
                log.warning("giving up after %d attempts to reconnect: %s", failures - 1, cause)
                self._tell("reconnect_failed")
                with self._lock:
                    return self._finish_locked(reason, cause)
            log.info("attempt %d to reconnect begins in %.1f s", failures, delay)
            self._sleep(Deadline(delay))
            self._tell("reconnect_attempt", failures)

    def _tell(self, name: str, *args: Any) -> None:
        with self._lock:
            if not self.ended:
                self._delegate.deliver([Lifecycle(name, args)])

    def _sleep(self, deadline: Deadline) -> None:
        with self._lock:
            while not (self.ended or deadline.expired()):
                self._wait_locked(deadline)

    def _wait_locked(self, deadline: Deadline) -> None:
        """Wait for a change, handling what is late and what is asked for; may return early."""
        if self._asked is not None and not self.ended:
            return self.stop_locked(self._asked)
        now = time.monotonic()
        late = self.traffic.run_timers_locked(now)
        left = deadline.remaining()
        if late is not None:
            left = max(0.0, late - now) if left is None else min(left, max(0.0, late - now))
        self._wake.wait(threading.TIMEOUT_MAX if left is None else left)

    # --- one attempt --------------------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        """Return a link with the namespaces that are wanted, or the error."""
        opener = self._opener()
        with self._lock:
            if self.ended:
                return ConnectionError("the client was disconnected")
            attempt = self.attempt = Attempt(self._plan, dict(self.traffic.wanted), opener, self._lock)
        attempt.start(self._options.open_timeout, self._notify_locked)
        deadline = Deadline(self._options.open_timeout + GRACE)
        with self._lock:
            while not (attempt.done or self.ended or deadline.expired()):
                self._wait_locked(deadline)
            attempt.abandoned = not attempt.done
        error = attempt.error
        if attempt.abandoned:
            error = attempt.abandon()
        else:
            attempt.thread.join()  # it has nothing left to do
        if attempt.session is None:
            return self._not_opened(error)
        link = Link(attempt.session, self._serializer.Decoder(), self.traffic)
        attempt.session.start(link.on_messages, link.on_closed)
        try:
            self._begin(link, attempt.values)
        except Exception as failure:  # noqa: BLE001  # a callable of the user's may raise anything
            with self._lock:
                self.traffic.drop_locked(link, "transport error", failure)
            self._close(link)
            return self._not_opened(failure)
        failed = self._await_namespaces(link)
        if failed is None:
            return link
        self._close(link)
        return failed

    def _not_opened(self, error: Optional[BaseException]) -> BaseException:
        assert error is not None
        payload = getattr(error, "payload", None)
        if payload is None:
            payload = str(error)
        with self._lock:
            if not self.ended:
                self._delegate.deliver([Refused(namespace, payload) for namespace in self.traffic.wanted])
        log.info("cannot connect: %s", error)
        return error

    def _begin(self, link: Link, values: Dict[str, Any]) -> None:
        """Ask for the namespaces, those that were added during the attempt too."""
        while True:
            with self._lock:
                added = {name: auth for name, auth in self.traffic.wanted.items() if name not in values}
                if self.ended or not added:
                    if not self.ended and link.ended is None:
                        self.traffic.begin_locked(link, values)
                    self.opened = True
                    if not self._plan.wait:  # connect() has done its part
                        self.traffic.returns = self._options.reconnection or self._plan.retry
                    self._notify_locked()
                    return
            values.update(evaluate_auth(added))

    def _await_namespaces(self, link: Link) -> Optional[BaseException]:
        """Wait for the answers; return what went wrong, None if the connection is good enough."""
        lenient = not (self.up or self._plan.wait)  # connect() is not waiting: whatever comes is good enough
        deadline = Deadline(None if lenient else self._plan.wait_timeout)
        with self._lock:
            while not (self.ended or link.ended or not link.asked() or deadline.expired()):
                self._wait_locked(deadline)
            if link.complete:
                return None
            if self.ended:
                return ConnectionError("the client was disconnected")
            unanswered = link.asked()
            if link.ended is not None:
                reason, cause = link.ended
                text = "the connection was lost (%s) before the server had accepted it" % reason
                error = ConnectionError(text + (": %s" % cause if cause is not None else ""))
                error.__cause__ = cause
                self._delegate.deliver([Refused(namespace, str(error)) for namespace in unanswered])
                return error
            for namespace in unanswered:
                link.refused[namespace] = "no answer from the server within %s s" % self._plan.wait_timeout
                link.spaces[namespace].stage = Stage.ABANDONED
            self._delegate.deliver([Refused(namespace, link.refused[namespace]) for namespace in unanswered])
            if self._good_enough_locked(link, lenient):
                self._up_locked(link)
                return None
            refused = {name: link.refused[name] for name in sorted(link.phase) if name in link.refused}
            self.traffic.goodbye_locked()
            if not self.traffic.wanted:  # the server wants none of them
                self._finish_locked(SERVER, _refusal(refused))
        return _refusal(refused)

    def _good_enough_locked(self, link: Link, lenient: bool) -> bool:
        refused: List[str] = [name for name in link.phase if name in link.refused]
        if self.up and not self._options.retry_refused:
            for namespace in refused:
                self.traffic.leave_locked(namespace, SERVER)
        elif refused and self._options.require_all and not lenient:
            return False
        return not refused or bool(link.joined_names())

    def _watch(self, link: Link) -> None:
        """Wait until the connection ends."""
        with self._lock:
            while not (self.ended or link.ended):
                self._wait_locked(Deadline(None))
    def _close(self, link: Link) -> None:
        """End the session and its threads."""
        with self._lock:
            if link.ended is None:
                self.traffic.drop_locked(link, CLIENT, None)
            deadline = self._stop_deadline if self.ended and self.reason == CLIENT else Deadline(CLOSE_UNWANTED)
        try:
            self.traffic.farewell(link, deadline)
            link.session.close(deadline)
        except SimplePubSubError as error:
            log.debug("the connection could not be closed politely: %s", error)
        link.session.abort()


def _refusal(refused: Dict[str, Any]) -> ConnectionError:
    parts = []
    for namespace, data in refused.items():
        message = data.get("message") if isinstance(data, dict) else data
        parts.append("%s (%s)" % (namespace, message) if message else namespace)
    return ConnectionError("One or more namespaces failed to connect: " + ", ".join(parts), refused=refused)
