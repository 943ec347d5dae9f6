"""Azure Web PubSub for code that does not speak asyncio."""

from __future__ import annotations

from ..core.backoff import RetryPolicy
from ..core.records import Gap
from ..core.states import State
from ..exceptions import OpenClientError, SendMessageError
from .client import WebPubSubClient
from .credentials import WebPubSubClientCredential
from .messages import Message
from .models import CallbackType, WebPubSubDataType, WebPubSubProtocolType

__all__ = [
    "CallbackType",
    "Gap",
    "Message",
    "OpenClientError",
    "RetryPolicy",
    "SendMessageError",
    "State",
    "WebPubSubClient",
    "WebPubSubClientCredential",
    "WebPubSubDataType",
    "WebPubSubProtocolType",
]
