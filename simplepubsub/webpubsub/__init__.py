"""Azure Web PubSub for code that does not speak asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.backoff import RetryPolicy
from ..core.records import Gap
from ..core.states import State
from ..exceptions import OpenClientError, RefuseConnection, RefuseEvent, SendMessageError
from ..exceptions import ServiceAuthenticationError as ClientAuthenticationError
from ..exceptions import ServiceConflict as ResourceExistsError
from ..exceptions import ServiceConnectionError as ServiceRequestError
from ..exceptions import ServiceNotFound as ResourceNotFoundError
from ..exceptions import ServiceResponseError as HttpResponseError
from ..lazy import lazy_names
from .client import WebPubSubClient
from .credentials import WebPubSubClientCredential
from .filters import odata
from .invocations import InvokeFuture, InvokeResult
from .messages import Message
from .models import CallbackType, WebPubSubDataType, WebPubSubProtocolType
from .stream_reader import IncomingStreams, StreamReader
from .stream_writer import StreamWriter

if TYPE_CHECKING:
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
    from .service import WebPubSubServiceClient
    from .service_credentials import AzureKeyCredential
    from .service_paging import GroupMember
    from .service_request import HttpRequest, HttpResponse

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

# A client of the service and event handlers need requests and more, which a script that only sends and receives should
# not have to load.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".event_handler": ["EventHandler"],
        ".event_requests": [
            "ClientCertificate",
            "ConnectRequest",
            "ConnectResponse",
            "ConnectedRequest",
            "DisconnectedRequest",
            "GroupEventRequest",
            "UserEventRequest",
            "UserEventResponse",
        ],
        ".service": ["WebPubSubServiceClient"],
        ".service_credentials": ["AzureKeyCredential"],
        ".service_paging": ["GroupMember"],
        ".service_request": ["HttpRequest", "HttpResponse"],
    },
)
