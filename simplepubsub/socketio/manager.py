"""The core of the clients: connections that come back, namespaces, events with and without an answer.

One lock guards all state; it is held across no I/O and no user code. What happens is reported to a `Delegate`, in one
order. Every method may be called from any thread, handlers included; every blocking one has one deadline, and ends with
a typed error when the client is disconnected.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Sequence, Union

from ..core.deadline import Deadline, check_timeout, wait
from ..core.forks import Birthplace
from ..exceptions import ConnectError, InvalidArgument, fresh
from .connecting import evaluate_auth, split_auth
from .emitting import Emitter
from .exceptions import BadNamespaceError, ConnectionError
from .life import CLEANUP, Run, State
from .link import Link
from .packet import check_namespace, get_serializer
from .seams import Delegate, Opener
from .settings import Options, Plan

__all__ = ["Manager", "State"]

#: How long the supervisor has to obey (seconds) before whoever wants it to stop helps itself.
PATIENCE = 0.1

Headers = Union[None, Mapping[str, str], Callable[[], Mapping[str, str]]]


class Manager(Emitter):
    """See the module docstring. ``opener`` is called for each attempt; ``serializer`` is that of `packet`."""

    def __init__(
        self,
        opener: Callable[[], Opener],
        delegate: Delegate,
        options: Optional[Options] = None,
        serializer: Any = "default",
    ) -> None:
        super().__init__(Options() if options is None else options, get_serializer(serializer))
        self.options.check()
        self._opener = opener
        self._delegate = delegate

    # --- life ---------------------------------------------------------------------------------------------------------

    def connect(
        self,
        url: Union[str, Callable[[], str]],
        headers: Headers = None,
        auth: Any = None,
        namespaces: Iterable[str] = ("/",),
        *,
        transports: Optional[Sequence[str]] = None,
        path: str = "socket.io",
        wait: bool = True,
        wait_timeout: float = 1.0,
        retry: bool = False,
        timeout: Optional[float] = None,
    ) -> None:
        """Connect, and return when all namespaces are connected and their connect handlers have run.

        ``url``, ``headers`` and ``auth`` may be callables, which are asked again for every attempt. ``auth`` may be a
        dict from namespaces to values or callables; a callable with a parameter gets the namespace. An attempt may
        take ``open_timeout`` for the connection and ``wait_timeout`` for the namespaces (seconds). With ``retry`` a
        failure is followed by more attempts, as after a loss; ``timeout`` limits them all. ``wait=False`` returns when
        the connection is open.

        Raises ConnectionError (``refused`` holds what the server said about namespaces), ValueError for a bad argument.
        """
        self._check_process()
        check_timeout(timeout)
        check_timeout(wait_timeout, "wait_timeout")
        if isinstance(namespaces, str):
            namespaces = [namespaces]
        names = [check_namespace(name) for name in namespaces]
        if not names:
            raise InvalidArgument("connect() needs at least one namespace")
        plan = Plan(
            url, headers if callable(headers) else dict(headers or {}), split_auth(auth, names),
            None if transports is None else tuple(transports), path, wait, wait_timeout, retry,
        )
        deadline = Deadline(timeout)
        run = Run(self._lock, self._changed, self._opener, self._delegate, self._serializer, self.options, plan)
        try:
            self._begin(run)
            self._await_up(run, wait, deadline)
        except BaseException:
            if self._run is not run:
                raise  # it never began
            self._stop(run, Deadline(0))
            run.join(Deadline(self.options.close_timeout))
            raise
        if run.opened and not run.ended or run.up:
            left = deadline.remaining()
            self._delegate.settle(Deadline(wait_timeout if left is None else min(left, wait_timeout)))
            return
        run.join(Deadline(self.options.close_timeout))
        self._delegate.settle(Deadline(self.options.close_timeout))
        raise _connect_error(run.error)

    def _begin(self, run: Run) -> None:
        with self._lock:
            if self._run is not None and not self._run.ended:
                raise ConnectionError("Already connected")
            self._run = run
            self._birthplace = Birthplace()
            self._delegate.started()
            run.start_locked()

    def _await_up(self, run: Run, until_up: bool, deadline: Deadline) -> None:
        with self._lock:
            while not (run.ended or run.up or (run.opened and not until_up)):
                if deadline.expired():
                    raise ConnectionError("no connection in time")
                wait(self._changed, deadline.remaining())

    def disconnect(self, timeout: Optional[float] = None) -> None:
        """Write what was emitted, leave, and stop for good; from any thread, in any state, any number of times.

        Waits up to ``timeout`` seconds (None: ``close_timeout``) for the server, and for the disconnect handlers.
        """
        self._check_process()
        check_timeout(timeout)
        limit = self.options.close_timeout if timeout is None else timeout
        deadline = Deadline(limit)
        with self._lock:
            run = self._run
        if run is None:
            return
        self._stop(run, deadline)
        run.join(Deadline(limit + CLEANUP))  # at the deadline the threads are told to end; that takes a moment
        self._delegate.settle(deadline)

    def _stop(self, run: Run, deadline: Deadline) -> None:
        with self._lock:
            patience = Deadline(PATIENCE)
            while not (run.ended or patience.expired()):
                run.ask_to_stop_locked(deadline)
                wait(self._changed, patience.remaining())
            run.stop_locked(deadline)

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait until the connection has ended for good; return whether it has.

        A program may connect again in a disconnect handler: then that connection is waited for.
        """
        self._check_process()
        deadline = Deadline(timeout)
        while True:
            with self._lock:
                run = self._run
                while run is not None and not run.ended:
                    if deadline.expired():
                        return False
                    wait(self._changed, deadline.remaining())
            if run is None:
                return True
            if not (run.join(deadline) and self._delegate.settle(deadline)):
                return False
            with self._lock:
                if self._run is run:
                    return True

    # --- namespaces ---------------------------------------------------------------------------------------------------

    def join(self, namespace: str, auth: Any = None, timeout: Optional[float] = 5.0) -> None:
        """Connect one more namespace, and return when it is; it is connected again after a loss like the others.

        Raises ConnectionError when it is refused or not answered in time, DisconnectedError without a connection.
        """
        self._check_process()
        namespace = check_namespace(namespace)
        deadline = Deadline(timeout)
        values = evaluate_auth({namespace: auth})
        with self._lock:
            run = self._run
            if run is None or run.ended:
                raise self._ended_error_locked()
            traffic = run.traffic
            try:
                traffic.join_locked(namespace, auth, values[namespace])
                self._await_joined_locked(run, namespace, deadline)
            except BaseException:
                link = traffic.link
                if namespace in traffic.wanted and (link is None or link.joined(namespace) is None):
                    run.leave_locked(namespace, Deadline(self.options.close_timeout))
                raise
        self._delegate.settle(deadline)

    def _await_joined_locked(self, run: Run, namespace: str, deadline: Deadline) -> None:
        traffic = run.traffic
        asked = traffic.link
        while True:
            if run.ended:
                raise self._ended_error_locked()
            link = traffic.link
            if link is not None:
                if link.joined(namespace) is not None:
                    return
                if namespace in link.refused and namespace not in link.spaces:
                    data = link.refused.pop(namespace) if link is asked else link.refused[namespace]
                    text = "the namespace %s was refused: %s" % (namespace, data)
                    raise ConnectionError(text, refused={namespace: data}, payload=data)
            if namespace not in traffic.wanted:
                raise BadNamespaceError("%s was left while it was being connected" % namespace)
            if deadline.expired():
                raise ConnectionError("the namespace %s was not connected in time" % namespace)
            wait(self._changed, deadline.remaining())

    def leave(self, namespace: str) -> None:
        """Disconnect one namespace; with the last one the connection ends. Raises BadNamespaceError."""
        self._check_process()
        namespace = check_namespace(namespace)
        deadline = Deadline(self.options.close_timeout)
        with self._lock:
            run = self._run
            if run is None or run.ended or namespace not in run.traffic.wanted:
                raise BadNamespaceError("%s is not a connected namespace" % namespace)
            link = run.traffic.link
            joined = link is not None and link.joined(namespace) is not None
        if link is not None and joined:
            link.settle(deadline)
        with self._lock:
            if run.ended or namespace not in run.traffic.wanted:
                return  # another thread was faster
            ended = run.leave_locked(namespace, deadline)
        if ended:
            run.join(deadline)
        self._delegate.settle(deadline)

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the client is doing."""
        self._check_process()
        with self._lock:
            return State.IDLE if self._run is None else self._run.state

    @property
    def active(self) -> bool:
        """Whether there is a connection, or the client tries to make one."""
        self._check_process()
        with self._lock:
            return self._run is not None and not self._run.ended

    @property
    def connected(self) -> bool:
        """Whether any namespace is connected now."""
        return bool(self.namespaces)

    @property
    def namespaces(self) -> Dict[str, str]:
        """The namespaces that are connected, with their session ids."""
        self._check_process()
        with self._lock:
            link = None if self._run is None else self._run.traffic.link
            return {} if link is None else {name: link.spaces[name].sid for name in link.joined_names()}

    def sid(self, namespace: str = "/") -> Optional[str]:
        """Return the session id of a namespace, None if it is not connected."""
        return self.namespaces.get(namespace)

    def recovered(self, namespace: str = "/") -> bool:
        """Return whether the present connection of a namespace went on with the session of the one before."""
        self._check_process()
        with self._lock:
            link = None if self._run is None else self._run.traffic.link
            space = None if link is None else link.joined(namespace)
            return space is not None and space.recovered

    @property
    def transport(self) -> str:
        """ "polling", "websocket", or "" without a connection."""
        link = self._link()
        return "" if link is None else link.session.transport

    @property
    def engine_sid(self) -> Optional[str]:
        """The id of the Engine.IO session, which is a secret; None without a connection."""
        link = self._link()
        return None if link is None else link.session.sid

    def _link(self) -> Optional[Link]:
        self._check_process()
        with self._lock:
            return None if self._run is None else self._run.traffic.link


def _connect_error(error: Optional[BaseException]) -> BaseException:
    if error is None:
        return ConnectionError("the client was disconnected while it was connecting")
    if isinstance(error, (ConnectionError, ValueError)):
        return fresh(error)
    url = error.url if isinstance(error, ConnectError) else ""
    made = ConnectionError(str(error), payload=getattr(error, "payload", None), url=url)
    made.__cause__ = error
    return made

