"""The names that code written for the official SDK imports from its ``models`` module."""

from __future__ import annotations

import enum

from ..core.records import (
    AckError as AckMessageError,
)
from ..core.records import (
    ConnectedArgs as OnConnectedArgs,
)
from ..core.records import (
    DisconnectedArgs as OnDisconnectedArgs,
)
from ..core.records import (
    RejoinGroupFailedArgs as OnRejoinGroupFailedArgs,
)
from ..exceptions import OpenClientError, SendMessageError
from .messages import DataType as WebPubSubDataType
from .messages import Message

__all__ = [
    "AckMessageError",
    "CallbackType",
    "OnConnectedArgs",
    "OnDisconnectedArgs",
    "OnGroupDataMessageArgs",
    "OnRejoinGroupFailedArgs",
    "OnServerDataMessageArgs",
    "OpenClientError",
    "SendMessageError",
    "WebPubSubDataType",
    "WebPubSubProtocolType",
]

OnGroupDataMessageArgs = Message
OnServerDataMessageArgs = Message


class CallbackType(str, enum.Enum):
    """Event names, as ``on`` takes them."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    STOPPED = "stopped"
    SERVER_MESSAGE = "server-message"
    GROUP_MESSAGE = "group-message"
    REJOIN_GROUP_FAILED = "rejoin-group-failed"


class WebPubSubProtocolType(str, enum.Enum):
    """Subprotocols, as ``protocol_type`` takes them."""

    JSON = "json.webpubsub.azure.v1"
    JSON_RELIABLE = "json.reliable.webpubsub.azure.v1"
