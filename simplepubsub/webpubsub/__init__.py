"""Azure Web PubSub for code that does not speak asyncio."""

from __future__ import annotations

from ..core.backoff import RetryPolicy
from ..core.records import Gap
from ..core.states import State
from ..exceptions import OpenClientError, RefuseConnection, RefuseEvent, SendMessageError
from .client import WebPubSubClient
from .credentials import WebPubSubClientCredential
from .event_handler import EventHandler
from .event_requests import (
    ClientCertificate,
    ConnectedRequest,
    ConnectRequest,
    ConnectResponse,
    DisconnectedRequest,
    GroupEventRequest,
    UserEventRequest,
    UserEventResponse,
)
from .messages import Message
from .models import CallbackType, WebPubSubDataType, WebPubSubProtocolType

__all__ = [
    "CallbackType",
    "ClientCertificate",
    "ConnectRequest",
    "ConnectResponse",
    "ConnectedRequest",
    "DisconnectedRequest",
    "EventHandler",
    "Gap",
    "GroupEventRequest",
    "Message",
    "OpenClientError",
    "RefuseConnection",
    "RefuseEvent",
    "RetryPolicy",
    "SendMessageError",
    "State",
    "UserEventRequest",
    "UserEventResponse",
    "WebPubSubClient",
    "WebPubSubClientCredential",
    "WebPubSubDataType",
    "WebPubSubProtocolType",
]
