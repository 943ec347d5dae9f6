"""Names that programs compare with: reasons of disconnection, transports."""

from __future__ import annotations

__all__ = ["Reason", "TransportName"]


class Reason:
    """Why a namespace is disconnected. After the first three the client does not come back by itself."""

    CLIENT_DISCONNECT = "client disconnect"
    SERVER_DISCONNECT = "server disconnect"
    INBOX_OVERFLOW = "inbox overflow"
    TRANSPORT_ERROR = "transport error"
    TRANSPORT_CLOSE = "transport close"
    PING_TIMEOUT = "ping timeout"
    PARSE_ERROR = "parse error"


class TransportName(str):
    """The name of a transport. It may be called, too: ``client.transport()`` is how python-socketio's is asked."""

    def __call__(self) -> str:
        return str(self)
