"""Azure Web PubSub for code that does not speak asyncio."""

from __future__ import annotations

from ..core.backoff import RetryPolicy
from ..core.records import Gap
from ..core.states import State
from ..exceptions import OpenClientError, RefuseConnection, RefuseEvent, SendMessageError
from ..exceptions import ServiceAuthenticationError as ClientAuthenticationError
from ..exceptions import ServiceConflict as ResourceExistsError
from ..exceptions import ServiceConnectionError as ServiceRequestError
from ..exceptions import ServiceNotFound as ResourceNotFoundError
from ..exceptions import ServiceResponseError as HttpResponseError
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
from .filters import odata
from .invocations import InvokeFuture, InvokeResult
from .messages import Message
from .models import CallbackType, WebPubSubDataType, WebPubSubProtocolType
from .service import WebPubSubServiceClient
from .service_credentials import AzureKeyCredential
from .service_paging import GroupMember
from .service_request import HttpRequest, HttpResponse
from .stream_reader import IncomingStreams, StreamReader
from .stream_writer import StreamWriter

__all__ = [
    "AzureKeyCredential",
    "CallbackType",
    "ClientAuthenticationError",
    "ClientCertificate",
    "ConnectRequest",
    "ConnectResponse",
    "ConnectedRequest",
    "DisconnectedRequest",
    "EventHandler",
    "Gap",
    "GroupEventRequest",
    "GroupMember",
    "HttpRequest",
    "HttpResponse",
    "HttpResponseError",
    "IncomingStreams",
    "InvokeFuture",
    "InvokeResult",
    "Message",
    "OpenClientError",
    "RefuseConnection",
    "RefuseEvent",
    "ResourceExistsError",
    "ResourceNotFoundError",
    "RetryPolicy",
    "SendMessageError",
    "ServiceRequestError",
    "State",
    "StreamReader",
    "StreamWriter",
    "UserEventRequest",
    "UserEventResponse",
    "WebPubSubClient",
    "WebPubSubClientCredential",
    "WebPubSubDataType",
    "WebPubSubProtocolType",
    "WebPubSubServiceClient",
    "odata",
]
