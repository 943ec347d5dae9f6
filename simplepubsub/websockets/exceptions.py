"""The errors of `simplepubsub.websockets`, under the names that users of the ``websockets`` library know.

They are part of the one hierarchy of the package (`simplepubsub.exceptions`): the names below that need no more than
what is there are the same classes.
"""

from __future__ import annotations

from typing import Any, Optional, Tuple

from ..exceptions import (
    ConnectError,
    ConnectionClosed,
    ConnectTimeout,
    HandshakeRejected,
    InboxOverflow,
    InvalidArgument,
    MessageTooLarge,
    ReceiveTimeout,
    RemoteProtocolError,
    SimplePubSubError,
    SubprotocolRefused,
)

__all__ = [
    "ConnectTimeout",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "InboxOverflow",
    "InvalidHandshake",
    "InvalidStatus",
    "InvalidURI",
    "MessageTooLarge",
    "NegotiationError",
    "ProtocolError",
    "ReceiveTimeout",
    "SendTimeout",
]

#: No connection could be made; its kinds and ``hint`` say why.
InvalidHandshake = ConnectError
#: The server answered with an HTTP status; ``status`` and ``body`` hold it.
InvalidStatus = HandshakeRejected
#: The server does not speak any of the subprotocols.
NegotiationError = SubprotocolRefused
#: The peer broke the protocol; the cause of a `ConnectionClosedError`.
ProtocolError = RemoteProtocolError

#: Codes of an ordinary end: normal, going away, and a close frame without code (RFC 6455 section 7.4.1).
OK_CODES = (1000, 1001, 1005)

Close = Optional[Tuple[int, str]]


class InvalidURI(InvalidArgument):
    """The address is no WebSocket URI; the message says what is wrong with it."""


class SendTimeout(SimplePubSubError, TimeoutError):
    """The peer does not read: the message was not queued in time. Nothing of it was sent; the connection goes on."""


class _Closed(ConnectionClosed):
    """Adds what each side said: ``rcvd`` and ``sent`` are (code, reason), None where there was no close frame."""

    def __init__(self, message: str, *, rcvd: Close = None, sent: Close = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.rcvd = rcvd
        self.sent = sent


class ConnectionClosedOK(_Closed):
    """The connection ended normally: with 1000, 1001 or without a code, from both sides."""


class ConnectionClosedError(_Closed):
    """The connection ended with an error code, or without a close handshake (``code`` is 1006 then)."""


def closed_error(
    rcvd: Close, sent: Close, cause: Optional[BaseException], first: str, closing: bool = False
) -> ConnectionClosed:
    """Return a new error that tells how a connection ended; ``first`` is who began: "peer", "client" or "network".

    ``closing``: the close handshake goes on, so what the peer will say is open.
    """
    if closing and rcvd is None and cause is None and sent is not None:
        kind = ConnectionClosedOK if sent[0] in OK_CODES else ConnectionClosedError
        text = "this side is closing the connection with %d" % sent[0]
        return kind(text, rcvd=rcvd, sent=sent, code=sent[0], reason=sent[1], by=first)
    code, reason = rcvd if rcvd is not None else (1006, "")
    if rcvd is not None and sent is not None and rcvd[0] in OK_CODES and sent[0] in OK_CODES:
        text = "the connection was closed with %d%s" % (code, " (%s)" % reason if reason else "")
        return ConnectionClosedOK(text, rcvd=rcvd, sent=sent, code=code, reason=reason, by=first)
    parts = []
    if rcvd is not None:
        parts.append("the peer closed the connection with %d%s" % (code, " (%s)" % reason if reason else ""))
    elif cause is None:
        parts.append("the connection ended without a close frame from the peer")
    if cause is not None:
        parts.append(str(cause))
    if sent is not None and (rcvd is None or sent[0] not in OK_CODES):
        parts.append("this side closed with %d%s" % (sent[0], " (%s)" % sent[1] if sent[1] else ""))
    error = ConnectionClosedError("; ".join(parts), rcvd=rcvd, sent=sent, code=code, reason=reason, by=first)
    error.__cause__ = cause
    return error
