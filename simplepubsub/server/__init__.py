"""The Web PubSub service, embedded: for tests, notebooks and small deployments.

Needs aiohttp: ``pip install 'simplepubsub[server]'``.
"""

from __future__ import annotations

from ..exceptions import RefuseEvent
from .app import Server
from .control import ConnectionInfo, HubControl
from .event_routes import EventRoute
from .faults import Faults
from .handlers import ClientCertificate, ClientEvent, ConnectReply, ConnectRequest, RefuseConnection
from .limits import Limits
from .permissions import ALL_ROLES
from .tokens import DEVELOPMENT_ACCESS_KEY

__all__ = [
    "ALL_ROLES",
    "DEVELOPMENT_ACCESS_KEY",
    "ClientCertificate",
    "ClientEvent",
    "ConnectReply",
    "ConnectRequest",
    "ConnectionInfo",
    "EventRoute",
    "Faults",
    "HubControl",
    "Limits",
    "RefuseConnection",
    "RefuseEvent",
    "Server",
]
