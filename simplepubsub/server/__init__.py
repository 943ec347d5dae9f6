"""The Web PubSub service, embedded: for tests, notebooks and small deployments.

Needs aiohttp: ``pip install 'simplepubsub[server]'``.
"""

from __future__ import annotations

from .app import Server
from .control import ConnectionInfo, HubControl
from .faults import Faults
from .handlers import ClientEvent, ConnectReply, ConnectRequest, RefuseConnection
from .limits import Limits
from .permissions import ALL_ROLES
from .tokens import DEVELOPMENT_ACCESS_KEY

__all__ = [
    "ALL_ROLES",
    "DEVELOPMENT_ACCESS_KEY",
    "ClientEvent",
    "ConnectReply",
    "ConnectRequest",
    "ConnectionInfo",
    "Faults",
    "HubControl",
    "Limits",
    "RefuseConnection",
    "Server",
]
