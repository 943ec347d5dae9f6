"""Invocations: user events whose answer the caller waits for (protocol reference 2.6).

Data flow::

    invoke_event() -> encode -> [engine mutex: table, Session] -> writer thread -> service
    service -> reader thread -> [engine mutex: table] -> settle() -> future -> caller

Ownership: the table of pending invocations is guarded by the engine's mutex, and whoever takes an entry out of it, and
nobody else, decides how its future ends: the answer, a cancel, a timeout, the loss of the link, the stop. Futures are
completed by `settle`, with no lock held, since their callbacks are user code.

An invocation has no id that the service would recognise after a recovery. So one that was written fails at once with
its link, and is never sent again; one that was not written yet waits for the next link, since that is no repeat.
"""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import CancelledError, Future
from typing import Any, Deque, Dict, NamedTuple, Optional, Tuple

from ..core.deadline import Deadline, wait_done
from ..core.engine import Engine
from ..core.protocol import Frame
from ..core.session import Entry
from ..exceptions import ClientStopped, InvocationError, InvocationLost, InvocationTimeout, OutboxFull, fresh
from .messages import InvokeResponse
from .protocol import WebPubSubProtocol

__all__ = ["Invocations", "InvokeFuture", "InvokeResult"]


class InvokeResult(NamedTuple):
    """The answer to an invocation; ``data`` and ``data_type`` are None for one without payload."""

    data: Any
    data_type: Optional[str]
    invocation_id: str


class InvokeFuture(Future):  # type: ignore[type-arg]  # Future is not subscriptable at run time before Python 3.9
    """The `InvokeResult` to come, or an InvocationError. ``invocation_id`` identifies it.

    ``cancel()`` gives the invocation up and tells the service so; it returns False once there is an answer. A callback
    added with ``add_done_callback`` runs in the reader thread and must not block.
    """

    def __init__(self, invocation_id: str, invocations: Invocations) -> None:
        super().__init__()
        self.invocation_id = invocation_id
        self._invocations = invocations

    def cancel(self) -> bool:
        if not self._invocations.forget(self.invocation_id):
            return self.cancelled()
        # Nobody else can complete it now.
        super().cancel()
        self.set_running_or_notify_cancel()
        return True


class _Invocation:
    __slots__ = ("entry", "frame", "future")

    def __init__(self, frame: Frame, future: InvokeFuture) -> None:
        self.frame = frame
        self.future = future
        self.entry: Optional[Entry] = None  # on the present link; None while it waits for one

    @property
    def written(self) -> bool:
        return self.entry is not None and self.entry.written


class Invocations:
    """All invocations of a client. Public methods are safe from any thread, ``*_locked`` need the mutex.

    At most ``max_bytes`` of encoded invocations are pending, as with the outbox.
    """

    def __init__(self, engine: Engine, protocol: WebPubSubProtocol, max_bytes: int) -> None:
        self._engine = engine
        self._protocol = protocol
        self._mutex = engine.mutex
        self._max_bytes = max_bytes
        self._numbers = itertools.count(1)  # for the life of the client
        # Guarded by the mutex:
        self._pending: Dict[str, _Invocation] = {}  # in the order of the calls
        self._bytes = 0
        self._decided: Deque[Tuple[InvokeFuture, Any]] = deque()  # results and exceptions for `settle`

    # --- for application threads --------------------------------------------------------------------------------------

    def next_id(self) -> str:
        """Return the id of the next invocation."""
        return str(next(self._numbers))

    def submit(
        self, invocation_id: str, event: str, data: Any, data_type: Optional[str], block: Optional[Deadline]
    ) -> InvokeFuture:
        """Queue an invocation; with ``block`` wait for room that long.

        Raises ClientStopped, OutboxFull, InvocationTimeout, InvalidArgument, MessageTooLarge; nothing is queued then.
        """
        engine = self._engine
        if block is not None:
            engine.check_blocking()
        else:
            engine.check()
        frame = self._protocol.finish(self._protocol.invoke_body(invocation_id, event, data, data_type), None)
        invocation = _Invocation(frame, InvokeFuture(invocation_id, self))
        try:
            with self._mutex:
                while True:
                    if engine.supervisor is None or engine.supervisor.stopping:
                        raise engine.stopped_error()
                    if not self._pending or self._bytes + len(frame[1]) <= self._max_bytes:
                        break
                    self._wait_for_room_locked(invocation_id, block)
                self._pending[invocation_id] = invocation
                self._bytes += len(frame[1])
                self._send_locked(invocation)
        except BaseException:
            self.forget(invocation_id)
            raise
        return invocation.future

    def _wait_for_room_locked(self, invocation_id: str, block: Optional[Deadline]) -> None:
        full = "%d of %d bytes of invocations are unanswered" % (self._bytes, self._max_bytes)
        if block is None:
            raise OutboxFull(full + "; use the blocking method, or raise max_outbox_bytes")
        remaining = block.remaining()
        if remaining is not None and remaining <= 0:
            raise InvocationTimeout(
                full + " and stayed so; nothing was sent", invocation_id=invocation_id, written=False
            )
        self._engine.wait_changed_locked(remaining)

    def result(self, future: InvokeFuture, deadline: Deadline) -> InvokeResult:
        """Wait for the answer. Raises InvocationError and its kinds, ClientStopped; at the deadline it is cancelled."""
        if not wait_done(future, deadline):
            given_up = self.forget(future.invocation_id)
            if given_up is not None:
                fate = "it is cancelled, but the event may have been handled" if given_up.written else "it was not sent"
                raise InvocationTimeout(
                    "no answer to the invocation %s in time: %s" % (future.invocation_id, fate),
                    invocation_id=future.invocation_id,
                    written=given_up.written,
                )
            # The answer came at the last moment; the thread that took it is about to complete the future.
        try:
            error = future.exception()
        except CancelledError:
            raise InvocationError(
                "the invocation %s was cancelled by another thread" % future.invocation_id,
                invocation_id=future.invocation_id,
                name="Cancelled",
            ) from None
        if error is not None:
            raise fresh(error)
        result: InvokeResult = future.result()
        return result

    def forget(self, invocation_id: str) -> Optional[_Invocation]:
        """Give up a pending invocation, tell the service, and return it; None for one that is decided already.

        Its future is left to the caller.
        """
        self._engine.check()
        with self._mutex:
            invocation = self._pending.pop(invocation_id, None)
            if invocation is None:
                return None
            self._freed_locked(invocation)
            if invocation.written:
                frame = self._protocol.finish(self._protocol.cancel_body(invocation_id), None)
                self._engine.sender.submit_bound_locked(frame, self)
            else:
                self._engine.session.forget_bound(invocation)
        return invocation

    def cancel(self, invocation_id: str) -> bool:
        """Cancel the future of a pending invocation; return whether there was one."""
        self._engine.check()
        with self._mutex:
            invocation = self._pending.get(invocation_id)
        return invocation is not None and invocation.future.cancel()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _send_locked(self, invocation: _Invocation) -> None:
        engine = self._engine
        if engine.session.open and engine.connection is not None:
            invocation.entry = engine.sender.submit_bound_locked(invocation.frame, invocation)

    def _freed_locked(self, invocation: _Invocation) -> None:
        # Ctrl-C may have come between the table and the count; an empty table sets it right.
        self._bytes = max(0, self._bytes - len(invocation.frame[1])) if self._pending else 0
        self._engine.freed_locked()

    def _decide_locked(self, invocation_id: str, outcome: Any) -> None:
        invocation = self._pending.pop(invocation_id)
        self._decided.append((invocation.future, outcome))
        self._freed_locked(invocation)

    # --- hooks of `Conversations` -------------------------------------------------------------------------------------

    def received_locked(self, response: InvokeResponse) -> None:
        """Take an answer; one that nobody waits for is ignored."""
        invocation_id = response.invocation_id
        if invocation_id not in self._pending:
            return
        if response.success:
            self._decide_locked(invocation_id, InvokeResult(response.data, response.data_type, invocation_id))
            return
        error = InvocationError(
            "the invocation %s failed: %s: %s" % (invocation_id, response.name or "no name", response.message),
            invocation_id=invocation_id,
            name=response.name,
            message=response.message,
        )
        self._decide_locked(invocation_id, error)

    def link_lost_locked(self) -> None:
        if self._engine.supervisor is None or self._engine.supervisor.stopping:
            return  # by our own doing; `stopped_locked` is next
        for invocation_id, invocation in list(self._pending.items()):
            if invocation.written:
                text = "the connection was lost before the answer to the invocation %s: the event may or may not have "
                error = InvocationLost((text + "been handled") % invocation_id, invocation_id=invocation_id)
                self._decide_locked(invocation_id, error)
            else:
                invocation.entry = None

    def resumed_locked(self) -> None:
        """There is a new link: send what waited for one, in the order of the calls."""
        for invocation in self._pending.values():
            if invocation.entry is None:
                self._send_locked(invocation)

    def stopped_locked(self) -> None:
        for invocation_id, invocation in list(self._pending.items()):
            done = "answered" if invocation.written else "sent"
            error = ClientStopped("the client stopped before the invocation %s was %s" % (invocation_id, done),
                                  by="client")
            error.__cause__ = self._engine.stopped_by
            self._decide_locked(invocation_id, error)

    def waiting_locked(self) -> bool:
        return bool(self._pending)

    def settle(self) -> None:
        """Complete the futures that are decided; any thread, no lock held."""
        while self._decided:
            try:
                future, outcome = self._decided.popleft()
            except IndexError:
                return  # another thread was faster
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
