"""Class-based namespaces: one object handles what arrives on one namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional

from .handlers import call_fitting
from .packet import check_namespace

if TYPE_CHECKING:
    from .client import Client

__all__ = ["ClientNamespace"]


class ClientNamespace:
    """Base of class-based namespaces: event ``name`` is handled by the method ``on_name``; others are ignored.

    ``namespace`` None is "/", "*" is any that has no handlers of its own; methods then get the namespace as their first
    argument. Register an instance with `Client.register_namespace`, which sets ``client``. Methods run in the client's
    dispatcher thread, in order; what they return acknowledges the event.
    """

    def __init__(self, namespace: Optional[str] = None) -> None:
        self.namespace = "*" if namespace == "*" else check_namespace(namespace)
        self.client: Any = None
        #: Set by `trigger_event` when there is no method; the dispatcher then sends no acknowledgement.
        self.missed = False

    def is_asyncio_based(self) -> bool:
        """Return False."""
        return False

    def trigger_event(self, event: str, *args: Any) -> Any:
        """Call the method for ``event`` and return its result; may be overridden for another way of dispatching."""
        handler = getattr(self, "on_%s" % (event or ""), None)
        if handler is None:
            self.missed = True
            return None
        if event == "disconnect":
            return call_fitting(handler, [args, args[:-1]])  # methods of the time before reasons
        return handler(*args)

    def emit(
        self,
        event: Any,
        data: Any = None,
        namespace: Optional[str] = None,
        callback: Optional[Callable[..., Any]] = None,
        **options: Any,
    ) -> bool:
        """Emit an event, on the own namespace unless another is given; see `Client.emit`."""
        return bool(self._client.emit(event, data, namespace or self._own(), callback, **options))

    def send(
        self,
        data: Any,
        room: Any = None,
        namespace: Optional[str] = None,
        callback: Optional[Callable[..., Any]] = None,
        **options: Any,
    ) -> bool:
        """Emit the event "message"; ``room`` is ignored, clients have none. See `Client.send`."""
        return bool(self._client.send(data, namespace or self._own(), callback, **options))

    def call(
        self,
        event: Any,
        data: Any = None,
        namespace: Optional[str] = None,
        timeout: Optional[float] = 60,
        **options: Any,
    ) -> Any:
        """Emit an event and return its answer; see `Client.call`. ``timeout`` is in seconds, None for no limit."""
        return self._client.call(event, data, namespace or self._own(), timeout, **options)

    def disconnect(self) -> None:
        """Leave this namespace; the connection stays while others are connected. The object for "*" leaves them all."""
        if self.namespace == "*":
            self._client.disconnect()
        else:
            self._client.disconnect(namespace=self.namespace)

    @property
    def sid(self) -> Optional[str]:
        """The session id of this namespace, None while it is not connected."""
        return None if self.client is None else self._client.get_sid(self._own())

    @property
    def recovered(self) -> bool:
        """Whether the present connection goes on with the session of the one before."""
        return self.client is not None and self._client.is_recovered(self._own())

    def _own(self) -> Optional[str]:
        return None if self.namespace == "*" else self.namespace

    @property
    def _client(self) -> "Client":
        if self.client is None:
            raise RuntimeError("this namespace is not registered: call client.register_namespace() with it first")
        client: "Client" = self.client
        return client

    def _set_client(self, client: Any) -> None:
        self.client = client
