"""`SimpleClient`: one namespace, ``emit`` and ``receive``, and reconnections that go unnoticed."""

from __future__ import annotations

import threading
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence, Type, TypeVar, Union

from ..core.deadline import check_timeout
from .client import Client
from .exceptions import DisconnectedError
from .mailbox import Mailbox, ReceivedEvent
from .names import Reason, TransportName
from .packet import check_namespace

__all__ = ["SimpleClient"]

S = TypeVar("S", bound="SimpleClient")


class SimpleClient:
    """A Socket.IO client without handlers. Every method may be called from any thread.

    The arguments are those of `Client`. Events wait in memory until they are received, up to a bound: ``max_inbox``.
    An event that the server wants answered is acknowledged, without values, when it is received; with ``auto_ack``
    False (or ``receive(ack=False)``) it is up to `ReceivedEvent.ack`.
    """

    client_class: Type[Client] = Client

    #: Whether `receive` acknowledges what it returns.
    auto_ack = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.client_args = args
        self.client_kwargs = kwargs
        self.client: Optional[Client] = None
        self.namespace = "/"
        self._mailbox: Optional[Mailbox] = None
        self._lock = threading.Lock()  # one connect() at a time

    def connect(
        self,
        url: Union[str, Callable[[], str]],
        headers: Union[None, Mapping[str, str], Callable[[], Mapping[str, str]]] = None,
        auth: Any = None,
        transports: Union[None, str, Sequence[str]] = None,
        namespace: str = "/",
        socketio_path: str = "socket.io",
        wait_timeout: float = 5,
    ) -> None:
        """Connect to one namespace; see `Client.connect`. Events of an earlier connection that wait are forgotten.

        Raises ConnectionError, and RuntimeError on a client that is connected or reconnecting.
        """
        namespace = check_namespace(namespace)
        client = self.client_class(*self.client_args, **self.client_kwargs)
        mailbox = client._attach_mailbox(namespace)
        with self._lock:
            if self.connected:
                raise RuntimeError("Already connected")
            self.client, self._mailbox, self.namespace = client, mailbox, namespace
        try:
            client.connect(
                url, headers=headers, auth=auth, transports=transports, namespaces=[namespace],
                socketio_path=socketio_path, wait_timeout=wait_timeout,
            )
        except BaseException:
            mailbox.close("")
            raise

    @property
    def connected(self) -> bool:
        """Whether the client is connected, or on its way back to it; False once the connection has ended for good."""
        return self.client is not None and self._mailbox is not None and not self._mailbox.ended

    @property
    def sid(self) -> Optional[str]:
        """The session id, which a reconnection may change; None without a connection."""
        return None if self.client is None else self.client.get_sid(self.namespace)

    @property
    def transport(self) -> TransportName:
        """ "polling", "websocket", or "" without a connection."""
        return TransportName("") if self.client is None else self.client.transport

    @property
    def recovered(self) -> bool:
        """Whether the present connection goes on with the session of the one before: nothing was missed."""
        return self.client is not None and self.client.is_recovered(self.namespace)

    def emit(self, event: Any, data: Any = None, *, timeout: Optional[float] = None, ack: bool = False) -> Any:
        """Send an event, after a reconnection if there is none; ``data`` as for `Client.emit`.

        ``ack`` waits until the server has acknowledged it, and returns the answer as `call` does; lost on the way, it
        is sent again, so it arrives at least once. ``timeout`` seconds are for all of it (None: no limit).

        Raises TimeoutError, DisconnectedError at once when the client was never connected or the connection has ended
        for good, and what `Client.emit` raises for bad data.
        """
        client = self._ready(timeout)
        if ack:
            return client.call(
                event, data, self.namespace, timeout, offline="wait", retries=_MANY, ack_timeout=_NEVER
            )
        client.emit(event, data, self.namespace, offline="wait", timeout=timeout)
        return None

    def call(self, event: Any, data: Any = None, timeout: Optional[float] = 60) -> Any:
        """Send an event and return the server's answer: None, one value, or a tuple of several.

        ``timeout`` seconds are for all of it, a reconnection included. Raises TimeoutError; AckLost, which is one too,
        as soon as the connection is lost after the event was sent; DisconnectedError as `emit` does.
        """
        return self._ready(timeout).call(event, data, self.namespace, timeout, offline="wait")

    def receive(self, timeout: Optional[float] = None, *, ack: Optional[bool] = None) -> ReceivedEvent:
        """Return the next event as a list, its name and its arguments, in the order of the server.

        ``ack`` says whether to acknowledge it, None is ``auto_ack``. Raises TimeoutError, and DisconnectedError when
        nothing is left and the connection has ended for good, also while it waits.
        """
        check_timeout(timeout)
        mailbox = self._mailbox
        if mailbox is None:
            raise DisconnectedError("not connected: call connect() first")
        event = mailbox.get(timeout)
        if (self.auto_ack if ack is None else ack) and event.wants_ack:
            event.ack()
        return event

    def __iter__(self) -> Iterator[ReceivedEvent]:
        """Yield events until `disconnect`. Raises DisconnectedError when the connection ends for another reason."""
        while True:
            try:
                event = self.receive()
            except DisconnectedError as error:
                if error.reason == Reason.CLIENT_DISCONNECT:
                    return
                raise
            yield event

    def disconnect(self) -> None:
        """Write what was emitted and leave; stops a reconnection, too. In any state, any number of times.

        What was received before can still be had; after it `receive` raises DisconnectedError.
        """
        client, mailbox = self.client, self._mailbox
        if client is not None and mailbox is not None:
            client.shutdown()
            mailbox.close(Reason.CLIENT_DISCONNECT)

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.disconnect()

    def _ready(self, timeout: Optional[float]) -> Client:
        check_timeout(timeout)
        client = self.client
        if client is None:
            raise DisconnectedError("not connected: call connect() first")
        return client


#: Enough tries to outlast any timeout, and a time for one try that never runs out: only a loss makes another.
_MANY, _NEVER = 2**31, 2.0**31
