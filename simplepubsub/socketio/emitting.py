"""Events out, with and without an answer: the half of the `Manager` that is not about connections."""

from __future__ import annotations

import itertools
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set

from ..core.deadline import Deadline, check_timeout, wait
from ..core.forks import Birthplace
from ..exceptions import ForkedError, InvalidArgument
from .acks import OnAnswer, Request, Waiter, late
from .exceptions import BadNamespaceError, DisconnectedError, TimeoutError
from .life import Run
from .packet import RESERVED_EVENTS, Packet, PacketType, check_event_name, check_namespace
from .seams import Event
from .settings import Options

__all__ = ["Emitter"]

_POLICIES = ("raise", "buffer", "wait")
_NEVER = Deadline(None)

# So many namespaces that were checked once are remembered.
_REMEMBERED = 1000


class Emitter:
    """See the module docstring."""

    def __init__(self, options: Options, serializer: Any) -> None:
        self.options = options
        self._serializer = serializer
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._run: Optional[Run] = None  # guarded by the lock
        self._ids: Dict[str, Iterator[int]] = {}
        self._checked: Set[str] = set()
        self._birthplace: Optional[Birthplace] = None

    def emit(
        self,
        namespace: str,
        event: Any,
        args: Sequence[Any] = (),
        *,
        offline: str = "raise",
        volatile: bool = False,
        timeout: Optional[float] = None,
        on_answer: Optional[OnAnswer] = None,
        ack_timeout: Optional[float] = None,
        retries: int = 0,
    ) -> bool:
        """Send an event; return whether it was queued, which only a ``volatile`` one may not be.

        Without a connection: ``offline`` "raise" raises BadNamespaceError, "buffer" keeps the event until there is one,
        "wait" waits. Where more than ``max_unsent_bytes`` wait to be written it waits, too; ``timeout`` limits both.

        ``on_answer(error, values)`` is called by the delegate, once: with the values of the ack, or an error: a
        TimeoutError after ``ack_timeout`` seconds, which run from now, AckLost, DisconnectedError, BufferFull. With
        ``retries`` the event is sent again after each ``ack_timeout`` and after a reconnection, at most 1 + ``retries``
        times; such events go one after the other.

        Raises BadNamespaceError, DisconnectedError ("wait" only), TimeoutError, BufferFull, MessageTooLarge,
        InvalidArgument; nothing was sent then.
        """
        self._check_process()
        if timeout is not None or ack_timeout is not None:
            check_timeout(timeout)
            check_timeout(ack_timeout, "ack_timeout")
        if offline not in _POLICIES:
            raise InvalidArgument("offline must be one of %s, not %r" % (", ".join(_POLICIES), offline))
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InvalidArgument("retries must be an integer >= 0, not %r" % (retries,))
        if volatile and retries:
            raise InvalidArgument("a volatile event has no retries")
        request = self._request(namespace, event, args, on_answer, None, ack_timeout, retries)
        return self._submit(request, offline, volatile, _NEVER if timeout is None else Deadline(timeout)) is not None

    def call(
        self,
        namespace: str,
        event: Any,
        args: Sequence[Any] = (),
        *,
        timeout: Optional[float] = 60.0,
        offline: str = "raise",
        ack_timeout: Optional[float] = None,
        retries: int = 0,
        on_sent: Optional[Callable[[], Any]] = None,
    ) -> List[Any]:
        """Send an event and return the values of its ack. ``timeout`` is for all of it; ``on_sent`` comes in between.

        Raises what `emit` raises; TimeoutError without an answer in time, AckLost (also a TimeoutError and a
        DisconnectedError) at once when the connection is lost.
        """
        self._check_process()
        deadline = Deadline(timeout)
        waiter = Waiter()
        request = self._request(namespace, event, args, None, waiter, ack_timeout if retries else None, retries)
        run = self._submit(request, offline, False, deadline)
        assert run is not None
        try:
            if on_sent is not None:
                on_sent()
            in_time = waiter.wait(deadline)
        except BaseException:
            self._cancel(run, request)
            raise
        if not in_time and self._cancel(run, request):
            raise late(request)
        error = waiter.error
        if error is not None:
            raise error
        return waiter.values

    def _request(
        self,
        namespace: str,
        event: Any,
        args: Sequence[Any],
        on_answer: Optional[OnAnswer],
        waiter: Optional[Waiter],
        ack_timeout: Optional[float],
        retries: int,
    ) -> Request:
        if namespace not in self._checked:
            namespace = check_namespace(namespace)
            if len(self._checked) >= _REMEMBERED:
                self._checked.clear()
            self._checked.add(namespace)
        if type(event) is not str or event in RESERVED_EVENTS:
            check_event_name(event)
        number = None
        if on_answer is not None or waiter is not None or retries:
            number = next(self._ids.setdefault(namespace, itertools.count(1)))
            if retries and ack_timeout is None:
                ack_timeout = self.options.ack_timeout
        else:
            ack_timeout = None
        group = self._serializer.encode(Packet(PacketType.EVENT, namespace, [event] + list(args), number))
        return Request(namespace, group, number, on_answer, waiter, ack_timeout, retries)

    def _submit(self, request: Request, offline: str, volatile: bool, deadline: Deadline) -> Optional[Run]:
        """Send or keep a request; return the run that has it, None for a volatile one that is dropped."""
        limit = self.options.max_unsent_bytes
        namespace = request.namespace
        while True:
            with self._lock:
                run = self._run
                link = None if run is None else run.traffic.link
                space = None if link is None else link.joined(namespace)
                if run is not None and link is not None and space is not None:
                    session = link.session
                    if volatile and not session.writable:
                        return None
                    if session.queued_bytes <= limit:
                        run.traffic.submit_locked(link, space, request)
                        return run
                elif volatile:
                    return None
                elif not self._keep_locked(run, request, offline):
                    if deadline.expired():
                        raise late(request)
                    wait(self._changed, deadline.remaining())
                    continue
                else:
                    return run
            if not session.wait_room(deadline):
                raise TimeoutError("not sent in time: %d bytes wait to be written" % session.queued_bytes)

    def _keep_locked(self, run: Optional[Run], request: Request, offline: str) -> bool:
        """Keep a request for the next connection; False means that the caller is to wait for it."""
        wanted = run is not None and not run.ended and request.namespace in run.traffic.wanted
        if run is not None and wanted:
            if offline == "wait":
                return False
            if offline == "buffer" or request.retries:
                run.traffic.park_locked(request)
                return True
        if offline == "wait":
            raise self._ended_error_locked()
        raise BadNamespaceError("%s is not a connected namespace." % request.namespace)

    def _cancel(self, run: Run, request: Request) -> bool:
        """Forget a request; return False if its answer came first."""
        with self._lock:
            if request.settled:
                return False
            run.traffic.cancel_locked(request)
            return True

    def answer(self, event: Event, values: Sequence[Any]) -> bool:
        """Send the ack of ``event``; return False if there is none to send: unwanted, sent already, connection gone.

        Raises InvalidArgument and MessageTooLarge for values that cannot be sent.
        """
        self._check_process()
        if event.id is None or event.answered:
            return False
        group = self._serializer.encode(Packet(PacketType.ACK, event.namespace, list(values), event.id))
        with self._lock:
            run = self._run
            return run is not None and run.traffic.answer_locked(event, group)

    def _check_process(self) -> None:
        if self._birthplace is not None and self._birthplace.left:
            raise ForkedError("this client was connected in the parent process: make a new one in the child")

    def _ended_error_locked(self) -> DisconnectedError:
        run = self._run
        if run is None:
            return DisconnectedError("not connected: call connect() first")
        if not run.ended:
            return DisconnectedError("this namespace is not connected, and the client does not try it")
        error = DisconnectedError("the connection has ended for good (%s)" % run.reason, reason=run.reason)
        error.__cause__ = run.error
        return error
