"""One hierarchy for everything that simplepubsub raises.

::

    SimplePubSubError
    +-- ConnectError                      a connection could not be made       .url .hint .will_retry
    |   |                                 (the official SDK's name for it, OpenClientError, is the same class)
    |   +-- HandshakeRejected             an HTTP answer instead of an upgrade  .status .body
    |   |   +-- AuthenticationError       401 or 403
    |   +-- SubprotocolRefused            the peer does not speak our subprotocol
    |   +-- ConnectTimeout                (also a builtin TimeoutError)
    +-- ConnectionClosed                  the connection ended                  .code .reason .by .will_retry
    |   +-- ClientStopped                 stop() was called, or the client gave up
    +-- SendMessageError                  one send failed                       .ack_id .name .message .error_detail
    |   +-- AckTimeout                    no answer in time (also a builtin TimeoutError)
    |   +-- DeliveryUncertain             sent, but the session that would have answered is gone
    |   +-- OutboxFull                    nothing was queued: the outbox is full
    +-- InvocationError                   one invocation failed                 .invocation_id .name .message
    |   +-- InvocationTimeout             no answer in time (also a builtin TimeoutError)     .written
    |   +-- InvocationLost                sent, but the connection that would have answered is gone
    +-- StreamFailed                      a stream ended in an error       .stream_id .name .message .user_error_code
    |   +-- StreamRefused                 the service did not open it
    |   +-- StreamLost                    the session that it belonged to is gone
    |   +-- StreamGap                     fragments are missing                 .expected .received
    +-- StreamTimeout                     a stream did not get on in time (also a builtin TimeoutError)     .stream_id
    +-- ReceiveTimeout                    nothing arrived in time (also a builtin TimeoutError)
    +-- FlushTimeout                      sends still unanswered (also a builtin TimeoutError)   .unacked
    +-- InboxOverflow                     nobody reads what arrives
    +-- MessagesLost                      a gap in the stream                   .gap
    +-- InvalidArgument                   the caller's mistake (also a builtin ValueError)
    |   +-- MessageTooLarge               over 1 MiB                            .size .limit
    +-- ClientStateError                  the call does not fit the client's state (also a builtin RuntimeError)
    |   +-- ForkedError                   the client belongs to the parent process
    +-- TransportError                    a carrier died without a close handshake
    |   +-- TransportClosed               it ended with a WebSocket close code  .code .reason
    +-- RemoteProtocolError               the peer broke the protocol           .code
    +-- RefuseEvent                       an event handler says no              .status .reason
    |   +-- RefuseConnection              its "connect" handler does
    +-- ServerError                       the embedded server cannot do what was asked
    +-- ServiceError                      a REST call failed                    .method .url .hint
        +-- ServiceConnectionError        no answer                             .written
        |   +-- ServiceTimeout            (also a builtin TimeoutError)
        +-- ServiceResponseError          an error status                       .status .code .request_id .retry_after
            +-- ServiceAuthenticationError    401
            +-- ServiceForbidden              403
            +-- ServiceNotFound               404
            +-- ServiceConflict               409
            +-- ServicePayloadTooLarge        413
            +-- ServiceThrottled              429
            +-- ServiceUnavailable            5xx

Where a builtin says the same thing the class inherits it too, so ``except TimeoutError`` works. Every raise makes a
new instance; the recorded first cause is its ``__cause__``. No message contains a token or a key.
"""

from __future__ import annotations

from typing import Any, Optional

from .base import SimplePubSubError
from .base import fresh as fresh
from .conversations import (
    InvocationError,
    InvocationLost,
    InvocationTimeout,
    StreamFailed,
    StreamGap,
    StreamLost,
    StreamRefused,
    StreamTimeout,
)

__all__ = [
    "AckTimeout", "AuthenticationError", "ClientStateError", "ClientStopped", "ConnectError", "ConnectTimeout",
    "ConnectionClosed", "DeliveryUncertain", "FlushTimeout", "ForkedError", "HandshakeRejected", "InboxOverflow",
    "InvalidArgument", "InvocationError", "InvocationLost", "InvocationTimeout", "MessageTooLarge", "MessagesLost",
    "OpenClientError", "OutboxFull", "ReceiveTimeout", "RefuseConnection", "RefuseEvent", "RemoteProtocolError",
    "SendMessageError", "ServerError", "ServiceAuthenticationError", "ServiceConflict", "ServiceConnectionError",
    "ServiceError", "ServiceForbidden", "ServiceNotFound", "ServicePayloadTooLarge", "ServiceResponseError",
    "ServiceThrottled", "ServiceTimeout", "ServiceUnavailable", "SimplePubSubError", "StreamFailed", "StreamGap",
    "StreamLost", "StreamRefused", "StreamTimeout", "SubprotocolRefused", "TransportClosed", "TransportError",
]

class ConnectError(SimplePubSubError):
    """A connection could not be made; ``str()`` names the step that failed, the value, and what to do next.

    ``url`` has its secrets masked. ``will_retry`` says whether the client tries again by itself. ``fatal`` marks a
    refusal that trying again cannot cure (a wrong token, hub or subprotocol).
    """

    fatal = False

    def __init__(self, message: str, *, url: str = "", hint: str = "", will_retry: bool = False) -> None:
        super().__init__(message + ("; " + hint if hint else ""))
        self.url = url
        self.hint = hint
        self.will_retry = will_retry


#: The official SDK's name for a failed ``start()``.
OpenClientError = ConnectError


class HandshakeRejected(ConnectError):
    """The peer answered the upgrade request with an HTTP status instead of 101."""

    def __init__(self, message: str, *, status: int, body: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.status = status
        self.body = body
        # 408, 425, 429 and 5xx describe a moment, the other 4xx describe the request.
        self.fatal = 400 <= status < 500 and status not in (408, 425, 429)


class AuthenticationError(HandshakeRejected):
    """The peer answered 401 or 403: the token or the key is not accepted."""


class SubprotocolRefused(ConnectError):
    """The peer accepted the upgrade without the subprotocol that was asked for."""

    fatal = True


class ConnectTimeout(ConnectError, TimeoutError):
    """DNS, TCP, TLS, proxy and handshake together took longer than the limit."""


class ConnectionClosed(SimplePubSubError):
    """The connection ended.

    ``code`` and ``reason`` are those of the WebSocket close (None without one), ``by`` is "peer", "client" or
    "network", ``will_retry`` says whether the client goes on by itself.
    """

    def __init__(
        self,
        message: str,
        *,
        code: Optional[int] = None,
        reason: str = "",
        by: str = "network",
        will_retry: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.by = by
        self.will_retry = will_retry


class ClientStopped(ConnectionClosed):
    """The client is stopped: by ``stop()``, or because it gave up (``__cause__`` says why)."""


class SendMessageError(SimplePubSubError):
    """A send failed.

    ``ack_id`` identifies the send: sending again with it is deduplicated by the service. ``name`` and ``message`` are
    the service's (``name`` is empty when the failure is local), ``error_detail`` holds both or is None.
    """

    def __init__(
        self,
        text: str,
        *,
        ack_id: Optional[int] = None,
        name: str = "",
        message: str = "",
        error_detail: Any = None,
    ) -> None:
        super().__init__(text)
        self.ack_id = ack_id
        self.name = name
        self.message = message
        self.error_detail = error_detail


class AckTimeout(SendMessageError, TimeoutError):
    """No acknowledgement in time; ``written`` tells whether the message had left this process."""

    def __init__(self, text: str, *, written: bool = True, **details: Any) -> None:
        super().__init__(text, **details)
        self.written = written


class DeliveryUncertain(SendMessageError):
    """The message was written, but its session could not be recovered: it may or may not have been delivered."""


class OutboxFull(SendMessageError):
    """The outbox holds ``max_outbox_bytes`` of unsent or unacknowledged data; nothing was queued."""


class ReceiveTimeout(SimplePubSubError, TimeoutError):
    """No message arrived within the timeout; the client is fine and may be asked again."""


class FlushTimeout(SimplePubSubError, TimeoutError):
    """``flush()`` ran out of time with ``unacked`` sends still unanswered; they stay in progress."""

    def __init__(self, text: str, *, unacked: int) -> None:
        super().__init__(text)
        self.unacked = unacked


class InboxOverflow(SimplePubSubError):
    """Twice ``max_inbox`` messages arrived that nobody received; the client stopped itself."""


class MessagesLost(SimplePubSubError):
    """A session could not be recovered, so messages may be missing before the next one; ``gap`` has the details."""

    def __init__(self, text: str, *, gap: Any) -> None:
        super().__init__(text)
        self.gap = gap


class InvalidArgument(SimplePubSubError, ValueError):
    """An argument is not acceptable; the message names it, its value, and what is allowed. Nothing was sent."""


class MessageTooLarge(InvalidArgument):
    """One encoded message is larger than the service accepts (1 MiB)."""

    def __init__(self, text: str, *, size: int, limit: int) -> None:
        super().__init__(text)
        self.size = size
        self.limit = limit


class ClientStateError(SimplePubSubError, RuntimeError):
    """The call does not fit the state of the client (a send before ``start()``, ``start()`` twice, ...)."""


class ForkedError(ClientStateError):
    """The client was started in the parent process; make a new client in the child."""


class TransportError(SimplePubSubError):
    """The carrier died without a close handshake (reset, timeout, TLS failure, abort)."""


class TransportClosed(TransportError):
    """The carrier ended with a close handshake; ``code`` is the WebSocket close code, 1005 if it carried none."""

    def __init__(self, text: str, *, code: int, reason: str = "", by: str = "peer") -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason
        self.by = by


class RemoteProtocolError(SimplePubSubError):
    """The peer sent something that breaks the protocol; ``code`` is the WebSocket close code to answer with."""

    def __init__(self, text: str, *, code: int = 1002) -> None:
        super().__init__(text)
        self.code = code


class RefuseEvent(SimplePubSubError):
    """Raised by an event handler to fail the event with an HTTP ``status`` (400 to 599) and a ``reason``.

    The service sees both; whether the client does is the service's choice, so ``reason`` is no place for secrets.
    """

    def __init__(self, status: int = 400, reason: str = "refused by the event handler") -> None:
        super().__init__(reason)
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
            raise InvalidArgument("status must be an HTTP status from 400 to 599, not %r" % (status,))
        self.status = status
        self.reason = reason


class RefuseConnection(RefuseEvent):
    """Raised by a "connect" handler: the client gets this HTTP ``status`` (400 to 599) instead of a connection."""

    def __init__(self, status: int = 401, reason: str = "refused by the connect handler") -> None:
        super().__init__(status, reason)


class ServerError(SimplePubSubError):
    """The embedded server cannot be started or cannot do what was asked."""


class ServiceError(SimplePubSubError):
    """A call of the service client failed.

    ``method`` and ``url`` (without its query) are those of the request, ``hint`` is the next step, ``message`` the text
    without the hint.
    """

    def __init__(self, message: str, *, method: str = "", url: str = "", hint: str = "") -> None:
        super().__init__(message + ("; " + hint if hint else ""))
        self.message = message
        self.method = method
        self.url = url
        self.hint = hint


class ServiceConnectionError(ServiceError):
    """The service gave no answer: it was not reached, or the connection was lost.

    ``written`` tells whether the request had begun to leave this process: then it may have been carried out.
    """

    def __init__(self, message: str, *, written: bool = False, **details: Any) -> None:
        super().__init__(message, **details)
        self.written = written


class ServiceTimeout(ServiceConnectionError, TimeoutError):
    """The service gave no answer within the time of the call."""


class ServiceResponseError(ServiceError):
    """The service answered with an error.

    ``status`` (also ``status_code``) is the HTTP status; ``code``, ``text``, ``target`` and ``details`` are what the
    service says about it; ``request_id`` is what its support asks for; ``retry_after`` is in seconds, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        text: str = "",
        target: str = "",
        details: Any = None,
        request_id: str = "",
        retry_after: Optional[float] = None,
        **place: Any,
    ) -> None:
        super().__init__(message, **place)
        self.status = self.status_code = status
        self.code = code
        self.text = text
        self.target = target
        self.details = details
        self.request_id = request_id
        self.retry_after = retry_after


class ServiceAuthenticationError(ServiceResponseError):
    """401: the key or the token is not accepted."""


class ServiceForbidden(ServiceResponseError):
    """403: the identity is known and not allowed to do this."""


class ServiceNotFound(ServiceResponseError):
    """404: what the call names does not exist."""


class ServiceConflict(ServiceResponseError):
    """409: the call conflicts with the present state, a limit for example."""


class ServicePayloadTooLarge(ServiceResponseError):
    """413: the service does not accept a body of that size."""


class ServiceThrottled(ServiceResponseError):
    """429: too many requests, or a quota is used up; ``retry_after`` says how long to wait."""


class ServiceUnavailable(ServiceResponseError):
    """5xx: the service, or something on the way to it, has a problem of its own."""
