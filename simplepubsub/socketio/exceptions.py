"""The errors of `simplepubsub.socketio`, under the names that users of python-socketio know.

::

    SocketIOError (SimplePubSubError)
    +-- ConnectionError        also a ConnectError and a builtin ConnectionError   .refused .payload .url .hint
    |   +-- ConnectionRefusedError
    +-- TimeoutError           also a builtin TimeoutError
    |   +-- AckLost            the connection ended before the answer: none will come   .final
    +-- BadNamespaceError      the namespace is not connected
    +-- DisconnectedError      the connection has ended for good                   .reason
    |   +-- AckLost            (also)
    +-- BufferFull             nothing was queued: too much waits for the connection (also an OutboxFull)

Three of the names are those of builtins; unlike python-socketio's these are kinds of them, so either name catches.
"""

from __future__ import annotations

import builtins
from typing import Any, Dict, Optional

from ..exceptions import ClientStopped, ConnectError, MessageTooLarge, OutboxFull, SimplePubSubError

__all__ = [
    "AckLost",
    "BadNamespaceError",
    "BufferFull",
    "ConnectionError",
    "ConnectionRefusedError",
    "DisconnectedError",
    "PayloadTooLarge",
    "SocketIOError",
    "TimeoutError",
]

#: One encoded packet is larger than the server accepts; nothing of it was sent.
PayloadTooLarge = MessageTooLarge


class SocketIOError(SimplePubSubError):
    """Base of the errors that only Socket.IO knows."""


class ConnectionError(SocketIOError, ConnectError, builtins.ConnectionError):
    """A connection could not be made, or a namespace was refused.

    ``refused`` maps each refused namespace to what the server said about it. ``payload`` is what a ``connect_error``
    handler gets: the decoded body of an HTTP error, or the text. The cause is chained.
    """

    def __init__(
        self, message: str = "", *, refused: Optional[Dict[str, Any]] = None, payload: Any = None, **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.refused = dict(refused or {})
        self.payload = message if payload is None else payload


class ConnectionRefusedError(ConnectionError):
    """Raised by connect handlers of servers in python-socketio; here for programs that name it."""


class TimeoutError(SocketIOError, builtins.TimeoutError):
    """No answer, event or connection in time; the client is fine and may be asked again."""


class BadNamespaceError(SocketIOError):
    """The namespace is not connected. Nothing was sent."""


class DisconnectedError(SocketIOError, ClientStopped):
    """The connection has ended for good, or was never made; ``reason`` is that of the ``disconnect`` event."""

    def __init__(self, message: str = "not connected", *, reason: str = "", **details: Any) -> None:
        super().__init__(message, reason=reason, **details)


class AckLost(TimeoutError, DisconnectedError):
    """The connection ended before the answer came: the server may or may not have handled the event.

    ``final`` says whether the client gave up, or comes back by itself. A TimeoutError, because that is what a program
    for python-socketio gets for a lost answer, after the full timeout.
    """

    def __init__(self, message: str, *, final: bool = False, **details: Any) -> None:
        super().__init__(message, **details)
        self.final = final


class BufferFull(SocketIOError, OutboxFull):
    """What waits for the connection has reached its bound; nothing was queued."""
