"""Plain WebSocket for code that blocks: `connect`, `serve` and `broadcast`, as the ``websockets`` library has them.

::

    from simplepubsub import websockets

    with websockets.connect("ws://localhost:8765") as ws:
        ws.send("hello")
        print(ws.recv(timeout=5))
"""

from __future__ import annotations

from .client import ClientConnection, connect
from .connection import broadcast
from .exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ConnectTimeout,
    InboxOverflow,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
    ProtocolError,
    ReceiveTimeout,
    SendTimeout,
)
from .messages import Headers, Request, Response, State
from .reconnect import Gap, ReconnectingConnection, reconnect
from .server import Server, ServerConnection, serve

__all__ = [
    "ClientConnection",
    "ConnectTimeout",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Gap",
    "Headers",
    "InboxOverflow",
    "InvalidHandshake",
    "InvalidStatus",
    "InvalidURI",
    "NegotiationError",
    "ProtocolError",
    "ReceiveTimeout",
    "ReconnectingConnection",
    "Request",
    "Response",
    "SendTimeout",
    "Server",
    "ServerConnection",
    "State",
    "broadcast",
    "connect",
    "reconnect",
    "serve",
]
