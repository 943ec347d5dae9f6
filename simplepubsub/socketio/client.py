"""`Client`: python-socketio's event-driven client, blocking and thread-safe."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, TypeVar, Union

from ..core.deadline import Deadline, check_timeout, wait
from ..exceptions import InvalidArgument
from .acks import OnAnswer
from .dispatcher import Dispatcher
from .handlers import Handlers
from .http_options import HttpOptions
from .interrupt import disconnect_on_sigint
from .logs import client_logger, engine_logger
from .mailbox import Mailbox
from .manager import Manager
from .names import Reason, TransportName
from .opening import EngineOpener, check_transports
from .packet import MAX_ATTACHMENTS, ack_value, check_namespace, get_serializer, pack_args
from .registering import Registering
from .seams import Opener
from .settings import Options

__all__ = ["Client"]

C = TypeVar("C", bound="Client")

_OFFLINE = ("raise", "buffer", "wait")


class Client(Registering):
    """A Socket.IO client whose handlers are called in order by one thread. Every method may be called from any thread.

    The parameters up to ``engineio_logger`` are python-socketio's; ``handle_sigint`` leaves politely on Ctrl-C. The
    rest (times in seconds): ``close_timeout`` limits what leaving may take; ``max_attachments`` is what the server's
    parser accepts; ``strip_offset`` takes the recovery offset off the arguments of events ("auto": what looks like
    one); ``try_all_transports`` goes on to the next transport when the first does not open; ``offline`` says what an
    emit does without a connection ("raise", "buffer", "wait"); ``max_buffer`` (events), ``max_buffer_bytes`` and
    ``overflow`` ("raise", "drop_oldest", "drop_newest") bound what waits for one; ``max_inbox``
    is how many events may wait for their handlers (or for `SimpleClient.receive`) before reading slows down, and at
    twice that the connection ends for good, with InboxOverflow as the cause; ``retries`` is the default of that
    of `emit` and `call`, ``ack_timeout`` is for events with retries that give none; ``require_all_namespaces`` False
    accepts a connection that lacks a refused namespace; ``retry_refused`` False gives up a namespace that is refused
    during a reconnection.
    """

    reason = Reason

    def __init__(
        self,
        reconnection: bool = True,
        reconnection_attempts: int = 0,
        reconnection_delay: float = 1,
        reconnection_delay_max: float = 5,
        randomization_factor: float = 0.5,
        logger: Any = False,
        serializer: Any = "default",
        json: Any = None,
        handle_sigint: bool = False,
        *,
        request_timeout: float = 5,
        http_session: Any = None,
        ssl_verify: bool = True,
        websocket_extra_options: Optional[Mapping[str, Any]] = None,
        timestamp_requests: bool = True,
        engineio_logger: Any = None,
        close_timeout: float = 5,
        max_attachments: int = MAX_ATTACHMENTS,
        strip_offset: Union[str, bool] = "auto",
        try_all_transports: bool = False,
        offline: str = "raise",
        max_buffer: int = 1000,
        max_buffer_bytes: int = 8 * 2**20,
        overflow: str = "raise",
        max_inbox: int = 10_000,
        retries: int = 0,
        ack_timeout: float = 10,
        require_all_namespaces: bool = True,
        retry_refused: bool = True,
    ) -> None:
        super().__init__(Handlers())
        self.logger = client_logger(logger)
        engine_logger(engineio_logger)
        self.handle_sigint = handle_sigint
        check_emit_options(offline, retries)
        self._offline, self._retries = offline, retries
        self._try_all = bool(try_all_transports)
        self._http_options: Dict[str, Any] = {
            "request_timeout": request_timeout,
            "http_session": http_session,
            "ssl_verify": ssl_verify,
            "websocket_extra_options": websocket_extra_options,
            "timestamp_requests": timestamp_requests,
        }
        self._dispatcher = Dispatcher(self._handlers, self.logger)
        self._manager = Manager(
            self._make_opener(),
            self._dispatcher,
            Options(
                reconnection=bool(reconnection),
                attempts=reconnection_attempts,
                delay=reconnection_delay,
                delay_max=reconnection_delay_max,
                randomization=randomization_factor,
                open_timeout=request_timeout,
                close_timeout=close_timeout,
                require_all=require_all_namespaces,
                retry_refused=retry_refused,
                strip_offset=strip_offset,
                max_buffer=max_buffer,
                max_buffer_bytes=max_buffer_bytes,
                overflow=overflow,
                max_inbox=max_inbox,
                ack_timeout=ack_timeout,
            ),
            get_serializer(serializer, json, max_attachments),
        )
        self._dispatcher.answer = self._manager.answer
        if handle_sigint:
            disconnect_on_sigint(self)

    def _make_opener(self) -> Callable[[], Opener]:
        """Return what opens sessions; tests put a server in its place."""
        options = HttpOptions(**self._http_options)
        return lambda: EngineOpener(options, self._try_all)

    # --- connection ---------------------------------------------------------------------------------------------------

    def connect(
        self,
        url: Union[str, Callable[[], str]],
        headers: Union[None, Mapping[str, str], Callable[[], Mapping[str, str]]] = None,
        auth: Any = None,
        transports: Union[None, str, Sequence[str]] = None,
        namespaces: Union[None, str, Iterable[str]] = None,
        socketio_path: str = "socket.io",
        wait: bool = True,
        wait_timeout: float = 1,
        retry: bool = False,
        *,
        timeout: Optional[float] = None,
    ) -> None:
        """Connect, and return when every namespace is connected and its ``connect`` handler has run.

        ``url``, ``headers`` and ``auth`` may be callables: they are asked again for each attempt, reconnections
        included. ``auth`` is a dict, or a dict of them by namespace. ``transports`` is "polling", "websocket" or a
        list, the first of which opens the connection. Without ``namespaces`` those with handlers are connected, "/" if
        there are none. ``wait_timeout`` is how long the server may take for the namespaces. ``retry`` goes on after a
        failure as after a loss, for ``timeout`` seconds in all (None: no limit). ``wait=False`` does not wait for the
        namespaces.

        Raises ConnectionError (its ``refused`` holds what the server said about each namespace), ValueError for a bad
        argument.
        """
        if namespaces is None:
            namespaces = self._handlers.namespaces()
        self._manager.connect(
            url,
            headers,
            auth,
            [namespaces] if isinstance(namespaces, str) else list(namespaces),
            transports=None if transports is None else check_transports(transports),
            path=socketio_path,
            wait=wait,
            wait_timeout=wait_timeout,
            retry=retry,
            timeout=timeout,
        )

    def disconnect(self, namespace: Optional[str] = None, timeout: Optional[float] = None) -> None:
        """Write what was emitted, then leave: everything, or one namespace. Stops a reconnection, too.

        From any thread and in any state. Waits for the ``disconnect`` handlers, except in one; ``timeout`` None is
        ``close_timeout``. Raises BadNamespaceError for a ``namespace`` that is not connected.
        """
        if namespace is None:
            self._manager.disconnect(timeout)
        else:
            self._manager.leave(check_namespace(namespace))

    def shutdown(self) -> None:
        """Disconnect, or stop trying to; does nothing on a client that does neither."""
        self._manager.disconnect()

    def connect_namespace(self, namespace: str, auth: Any = None, timeout: Optional[float] = 5) -> None:
        """Connect one more namespace on the live connection; it comes back after a loss like the others.

        Raises ConnectionError when it is refused or not answered in time, DisconnectedError without a connection.
        """
        self._manager.join(namespace, auth, timeout)

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait until the connection has ended for good; return whether it has (False: ``timeout`` seconds went by)."""
        return self._manager.wait(timeout)

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.shutdown()

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether a namespace is connected now."""
        return self._manager.connected

    @property
    def active(self) -> bool:
        """Whether there is a connection, or the client tries to make one."""
        return self._manager.active

    @property
    def namespaces(self) -> Dict[str, str]:
        """The connected namespaces with their session ids; a copy."""
        return self._manager.namespaces

    @property
    def sid(self) -> Optional[str]:
        """The session id of "/", or else of the first namespace that is connected; None without a connection."""
        namespaces = self._manager.namespaces
        return namespaces.get("/") or next(iter(namespaces.values()), None)

    def get_sid(self, namespace: Optional[str] = None) -> Optional[str]:
        """Return the session id of a namespace ("/" if none is given), None while it is not connected."""
        return self._manager.sid(check_namespace(namespace))

    @property
    def recovered(self) -> bool:
        """Whether the present connection of "/" goes on with the session of the one before: nothing was missed."""
        return self.is_recovered()

    def is_recovered(self, namespace: Optional[str] = None) -> bool:
        """Return whether the present connection of a namespace goes on with the session of the one before."""
        return self._manager.recovered(check_namespace(namespace))

    @property
    def transport(self) -> TransportName:
        """ "polling", "websocket", or "" without a connection. Works as a method, too."""
        return TransportName(self._manager.transport)

    # --- events -------------------------------------------------------------------------------------------------------

    def emit(
        self,
        event: Any,
        data: Any = None,
        namespace: Optional[str] = None,
        callback: Optional[Callable[..., Any]] = None,
        *,
        on_error: Optional[Callable[[BaseException], Any]] = None,
        ack_timeout: Optional[float] = None,
        retries: Optional[int] = None,
        volatile: bool = False,
        offline: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> bool:
        """Send an event; return whether it was queued, which only a ``volatile`` one may not be.

        ``data`` None is no argument, a tuple several, anything else one. ``callback(*values)`` gets the server's
        answer, ``on_error(error)`` hears that none will come: TimeoutError after ``ack_timeout`` seconds, AckLost,
        DisconnectedError, BufferFull. Both run in the handlers' thread. With ``retries`` the event is sent until it is
        answered, at most 1 + ``retries`` times, one such event after the other, across reconnections: at least once.
        ``volatile`` drops the event when it cannot leave at once. ``offline`` overrides the client's. ``timeout``
        limits the wait for a connection ("wait") and for room while too much is unsent.

        Raises BadNamespaceError, PayloadTooLarge, BufferFull, TimeoutError, InvalidArgument (also a ValueError);
        nothing was sent then.
        """
        namespace = check_namespace(namespace)
        args = pack_args(data)
        tries = 0 if volatile and retries is None else self._retries if retries is None else retries
        sent = self._manager.emit(
            namespace,
            event,
            args,
            offline=self._offline if offline is None else offline,
            volatile=volatile,
            timeout=timeout,
            on_answer=self._on_answer(event, namespace, callback, on_error),
            ack_timeout=ack_timeout,
            retries=tries,
        )
        if sent:
            self._sent(event, namespace, args)
        return sent

    def send(
        self,
        data: Any,
        namespace: Optional[str] = None,
        callback: Optional[Callable[..., Any]] = None,
        **options: Any,
    ) -> bool:
        """Emit the event "message"; see `emit`."""
        return self.emit("message", data, namespace, callback, **options)

    def call(
        self,
        event: Any,
        data: Any = None,
        namespace: Optional[str] = None,
        timeout: Optional[float] = 60,
        *,
        retries: Optional[int] = None,
        ack_timeout: Optional[float] = None,
        offline: Optional[str] = None,
    ) -> Any:
        """Send an event and return the server's answer: None, one value, or a tuple of several. Works in handlers.

        ``timeout`` seconds are for all of it, the wait for a connection (``offline``) included; None is no limit.
        Raises TimeoutError; AckLost, which is one too, as soon as the connection is lost (with ``retries`` the event is
        sent again instead); BadNamespaceError, DisconnectedError, and what `emit` raises.
        """
        namespace = check_namespace(namespace)
        args = pack_args(data)
        values: List[Any] = self._manager.call(
            namespace,
            event,
            args,
            timeout=timeout,
            offline=self._offline if offline is None else offline,
            ack_timeout=ack_timeout,
            retries=self._retries if retries is None else retries,
            on_sent=lambda: self._sent(event, namespace, args),
        )
        return ack_value(values)

    def _on_answer(
        self,
        event: Any,
        namespace: str,
        callback: Optional[Callable[..., Any]],
        on_error: Optional[Callable[[BaseException], Any]],
    ) -> Optional[OnAnswer]:
        for function in (callback, on_error):
            if function is not None and not callable(function):
                raise InvalidArgument("a callback must be callable, not %r" % (function,))
        if callback is None and on_error is None:
            return None

        def on_answer(error: Optional[BaseException], values: List[Any]) -> None:
            if error is None:
                if callback is not None:
                    callback(*values)
            elif on_error is not None:
                on_error(error)
            else:
                self.logger.info('No answer to event "%s" [%s]: %s', event, namespace, error)

        return on_answer

    def _attach_mailbox(self, namespace: str) -> Mailbox:
        """Collect what no handler takes of ``namespace``; for `SimpleClient`."""
        mailbox = Mailbox(namespace, self._manager.answer)
        self._dispatcher.observer, self._dispatcher.kept = mailbox.observe, mailbox.count
        return mailbox

    # --- helpers ------------------------------------------------------------------------------------------------------

    def start_background_task(
        self, target: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> threading.Thread:
        """Run ``target(*args, **kwargs)`` in a daemon thread, and return the thread."""
        thread = threading.Thread(target=target, args=args, kwargs=kwargs, daemon=True)
        thread.start()
        return thread

    def sleep(self, seconds: float = 0) -> None:
        """Wait for ``seconds``; Ctrl-C interrupts it."""
        check_timeout(seconds, "seconds")
        deadline = Deadline(seconds)
        condition = threading.Condition(threading.Lock())
        with condition:
            while not deadline.expired():
                wait(condition, deadline.remaining())


def check_emit_options(offline: str, retries: int) -> None:
    """Raise InvalidArgument for a default that every emit would refuse."""
    if offline not in _OFFLINE:
        raise InvalidArgument("offline must be one of %s, not %r" % (", ".join(_OFFLINE), offline))
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise InvalidArgument("retries must be an integer >= 0, not %r" % (retries,))
