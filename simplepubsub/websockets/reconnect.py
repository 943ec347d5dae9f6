"""`reconnect`: a connection that comes back.

One thread, the *supervisor*, owns the dialling: it opens a connection, runs the user's hook on it, hands it over, waits
for its end, and starts again. Application threads take messages from the connections in their order, the rest of a
lost one first, and send on the newest. State is guarded by one condition, held across no I/O and no user code.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Iterator, NamedTuple, Optional, Union

from ..core.backoff import RetryPolicy
from ..core.deadline import Deadline, check_timeout, wait
from ..core.forks import Birthplace
from ..exceptions import ConnectError, ForkedError, InvalidArgument, MessagesLost, ReceiveTimeout, fresh
from ..transports.dial import WebSocketDial
from .client import ClientConnection, Plan
from .exceptions import ConnectionClosed, ConnectionClosedOK, SendTimeout
from .messages import Data, State, check_close, until_closed

__all__ = ["Gap", "ReconnectingConnection", "reconnect"]

log = logging.getLogger("simplepubsub.websockets")

#: A connection that has lasted so many seconds was a good one: the next attempt comes at once.
STABLE = 5.0

#: Lost connections whose messages wait to be received; of older ones they are dropped.
KEPT = 16

#: Seconds to wait for the supervisor after the connection is closed.
_CLEANUP = 1.0


class Gap(NamedTuple):
    """What may be missing: everything between the end of ``number - 1`` connections and this one."""

    number: int
    cause: Optional[BaseException]


class ReconnectingConnection:
    """Made by `reconnect`. Every method is safe from any thread."""

    def __init__(
        self,
        uri: Union[str, Callable[[], str]],
        on_connect: Optional[Callable[[ClientConnection], Any]],
        on_gap: Optional[Callable[[Gap], Any]],
        gaps: str,
        retry: RetryPolicy,
        options: Any,
    ) -> None:
        if gaps not in ("flag", "raise"):
            raise InvalidArgument("gaps must be 'flag' or 'raise', not %r" % (gaps,))
        for name, value in (("on_connect", on_connect), ("on_gap", on_gap)):
            if value is not None and not callable(value):
                raise InvalidArgument("%s must be callable, not %r" % (name, value))
        if not isinstance(retry, RetryPolicy):
            raise InvalidArgument("retry must be a RetryPolicy, not %r" % (retry,))
        self._uri = uri
        self._on_connect = on_connect
        self._on_gap = on_gap
        self._raise_gaps = gaps == "raise"
        self._retry = retry
        self._options = options
        self._birthplace = Birthplace()
        self._changed = threading.Condition(threading.Lock())
        # Guarded by ``_changed``:
        self._arrived: Deque[ClientConnection] = deque()  # whose messages are still to be read, oldest first
        self._current: Optional[ClientConnection] = None  # what is sent on
        self._dialling: Optional[WebSocketDial] = None
        self._opening: Optional[ClientConnection] = None  # the hook runs on it
        self._stopped = False
        self._failure: Optional[BaseException] = None
        self._connections = 0
        self._passed = 0  # connections that recv() has left behind
        self._gap: Optional[Gap] = None  # what recv() has to tell before the next message
        self._first_plan: Optional[Plan] = self._plan()
        self.close_timeout = self._first_plan.settings.close_timeout
        self._thread = threading.Thread(target=self._run, name="simplepubsub-reconnect", daemon=True)

    def _plan(self) -> Plan:
        return Plan(self._uri if isinstance(self._uri, str) else self._uri(), **self._options)

    def start(self) -> "ReconnectingConnection":
        """Make the first connection. Raises what `connect` raises, and what ``on_connect`` raises."""
        try:
            self._open()
        except BaseException:
            with self._changed:
                self._stopped = True
                opening = self._opening
            if opening is not None:
                opening.close(timeout=_CLEANUP)
            raise
        self._thread.start()
        return self

    # --- the supervisor -----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Dial, run the hook, and hand the connection over."""
        plan, self._first_plan = self._first_plan or self._plan(), None
        dial = plan.dial()
        with self._changed:
            if self._stopped:
                return
            self._dialling = dial
        try:
            opened = dial.open(plan.url, plan.open_timeout)
        finally:
            with self._changed:
                self._dialling = None
        connection = plan.take(opened, self._tell)
        with self._changed:
            self._opening = connection
        if self._on_connect is not None and not self._is_stopped():
            self._on_connect(connection)
        if not self._hand_over(connection):
            connection.close(timeout=_CLEANUP)

    def _hand_over(self, connection: ClientConnection) -> bool:
        with self._changed:
            self._opening = None
            if self._stopped:
                return False
            self._connections += 1
            self._current = connection
            # A program that only sends reads none of them empty.
            while self._arrived and (not self._arrived[0].unread or len(self._arrived) >= KEPT):
                self._pass_locked(self._arrived[0].error())
            self._arrived.append(connection)
            self._changed.notify_all()
            return True

    def _pass_locked(self, cause: BaseException) -> None:
        """Leave the oldest connection behind: nothing more comes from it."""
        self._arrived.popleft()
        self._passed += 1
        self._gap = Gap(self._passed + 1, cause)

    def _is_stopped(self) -> bool:
        with self._changed:
            return self._stopped

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        attempt = 0  # tries since the last good connection
        since = time.monotonic()
        while True:
            with self._changed:
                while not self._stopped and self._current is not None and self._current.state is State.OPEN:
                    self._changed.wait()
                lost, self._current = self._current, None
                if self._stopped:
                    return
            if lost is not None:
                error = lost.error()
                log.info("%r is lost: %s", self, error)
                self._say_gap(Gap(self._connections + 1, error))
                if time.monotonic() - since >= STABLE:
                    attempt = 0
                # A server that accepts and hangs up is as good as one that refuses.
                if attempt and not self._pause(attempt, error):
                    return
                attempt += 1
            try:
                self._open()
                since = time.monotonic()
            except Exception as failure:
                self._abandon_opening()
                if not isinstance(failure, (ConnectError, ConnectionClosed, OSError)):
                    log.exception("the on_connect hook, or the function that returns the address, failed")
                if getattr(failure, "fatal", False):
                    return self._give_up(failure)
                if not self._pause(attempt, failure):
                    return
                attempt += 1

    def _pause(self, attempt: int, error: BaseException) -> bool:
        """Wait before an attempt; return False when there is none left."""
        delay = self._retry.delay(attempt)
        if delay is None:
            self._give_up(error)
            return False
        log.info("%r: the next attempt in %.1f s: %s", self, delay, error)
        deadline = Deadline(delay)
        with self._changed:
            while not self._stopped and not deadline.expired():
                self._changed.wait(deadline.remaining())
        return True

    def _abandon_opening(self) -> None:
        with self._changed:
            connection, self._opening = self._opening, None
        if connection is not None:
            connection.close(1011, timeout=_CLEANUP)

    def _give_up(self, error: BaseException) -> None:
        log.warning("%r gives up: %s", self, error)
        with self._changed:
            self._failure = error
            self._stopped = True
            self._changed.notify_all()

    def _say_gap(self, gap: Gap) -> None:
        if self._on_gap is not None:
            try:
                self._on_gap(gap)
            except Exception:
                log.exception("the on_gap hook failed")

    # --- application threads ------------------------------------------------------------------------------------------

    def recv(self, timeout: Optional[float] = None, decode: Optional[bool] = None) -> Data:
        """Return the next message, waiting up to ``timeout`` seconds (None: no limit), through reconnects too.

        With ``gaps="raise"`` MessagesLost is raised once between the last message of a lost connection and the first
        of the next one. Raises: ReceiveTimeout, MessagesLost, ConnectionClosedOK after `close`, and what ended the
        attempts to connect.
        """
        deadline = Deadline(timeout)
        while True:
            connection = self._next_source(deadline, timeout)
            try:
                return connection.recv(deadline.remaining(), decode)
            except ReceiveTimeout:
                raise ReceiveTimeout("no message within %s s" % timeout) from None
            except ConnectionClosed as error:
                with self._changed:
                    if self._arrived and self._arrived[0] is connection:  # no other thread was faster
                        self._pass_locked(error)

    def _next_source(self, deadline: Deadline, timeout: Optional[float]) -> ClientConnection:
        self._check()
        with self._changed:
            while True:
                gap, self._gap = self._gap, None
                if gap is not None and self._raise_gaps and not self._stopped:
                    raise MessagesLost("the connection was lost: messages may be missing", gap=gap) from gap.cause
                if self._arrived:
                    return self._arrived[0]
                if self._stopped:
                    raise self._stopped_error_locked()
                remaining = deadline.remaining()
                if remaining is not None and remaining <= 0:
                    raise ReceiveTimeout("no message within %s s: there is no connection now" % timeout)
                wait(self._changed, remaining)

    def _stopped_error_locked(self) -> BaseException:
        if self._failure is not None:
            return fresh(self._failure)
        return ConnectionClosedOK("the connection was closed by close()", code=1000, by="client")

    def __iter__(self) -> Iterator[Data]:
        return until_closed(self.recv)

    def send(self, message: Any, text: Optional[bool] = None, *, timeout: Optional[float] = None) -> None:
        """Send on the present connection; without one, wait up to ``timeout`` seconds (None: no limit) for the next.

        A message that was on its way when the connection was lost is not repeated. Raises as `Connection.send`.
        """
        deadline = Deadline(timeout)
        if not isinstance(message, (str, bytes, bytearray, memoryview)):
            raise InvalidArgument("a message must be str or bytes-like here, not %s" % type(message).__name__)
        while True:
            connection = self._wait_connected(deadline)
            try:
                return connection.send(message, text, timeout=deadline.remaining())
            except ConnectionClosed:
                self._tell()  # nothing of it was sent: it goes to the next connection

    def _wait_connected(self, deadline: Deadline) -> ClientConnection:
        self._check()
        with self._changed:
            while self._current is None or self._current.state is not State.OPEN:
                if self._stopped:
                    raise self._stopped_error_locked()
                remaining = deadline.remaining()
                if remaining is not None and remaining <= 0:
                    raise SendTimeout("nothing was sent: there is no connection now")
                wait(self._changed, remaining)
            return self._current

    @property
    def connection(self) -> Optional[ClientConnection]:
        """The present connection, None while there is none."""
        current = self._current
        return current if current is not None and current.state is State.OPEN else None

    @property
    def gaps(self) -> int:
        """How often a connection was lost and another one made."""
        return max(0, self._connections - 1)

    def close(self, code: int = 1000, reason: str = "", *, timeout: Optional[float] = None) -> None:
        """Close for good, within ``timeout`` seconds (None: ``close_timeout``); what has arrived can still be read."""
        check_close(code, reason)
        check_timeout(timeout)
        self._check()
        deadline = Deadline(self.close_timeout if timeout is None else timeout)
        with self._changed:
            self._stopped = True
            connections = [item for item in (self._current, self._opening) if item is not None]
            dial = self._dialling
            self._changed.notify_all()
        if dial is not None:
            dial.abort()
        for connection in connections:
            connection.close(code, reason, timeout=deadline.remaining())
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            remaining = deadline.remaining()
            self._thread.join(_CLEANUP if remaining is None else max(remaining, _CLEANUP))

    def __enter__(self) -> "ReconnectingConnection":
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if not self._birthplace.left:
            self.close(1000 if kind is None else 1011)

    def _check(self) -> None:
        if self._birthplace.left:
            raise ForkedError("the connection belongs to the parent process: make a new one in this process")

    def __repr__(self) -> str:
        state = "closed" if self._stopped else "connected" if self.connection is not None else "connecting"
        return "<ReconnectingConnection %s, %d gaps>" % (state, self.gaps)


def reconnect(
    uri: Union[str, Callable[[], str]],
    *,
    on_connect: Optional[Callable[[ClientConnection], Any]] = None,
    on_gap: Optional[Callable[[Gap], Any]] = None,
    gaps: str = "flag",
    retry: RetryPolicy = RetryPolicy(total=None),
    **options: Any,
) -> ReconnectingConnection:
    """Open a WebSocket that comes back when it is lost, and return it once the first connection stands.

    Args:
        uri: an address, or a callable that returns one (with a fresh token, say), asked for every connection.
        on_connect: called with every new connection before anybody else uses it: authenticate, subscribe. When it
            raises, the attempt has failed. It runs in the thread that connects and may block.
        on_gap: called with a `Gap` whenever a connection was lost.
        gaps: "raise" makes ``recv`` raise MessagesLost once per gap; "flag" only counts them (``gaps``).
        retry: when to try again; by default for ever, with growing delays. A refusal that time cannot cure (401, 404,
            ...) ends it.
        options: as for `connect`.

    Raises: what `connect` raises for the first connection.
    """
    return ReconnectingConnection(uri, on_connect, on_gap, gaps, retry, options).start()
