"""Socket.IO clients that block, for programs without asyncio.

A program for python-socketio's synchronous clients runs with ``from simplepubsub import socketio``.
"""

from __future__ import annotations

from . import exceptions
from .client import Client
from .mailbox import ReceivedEvent
from .names import Reason
from .namespace import ClientNamespace
from .simple_client import SimpleClient

__all__ = ["Client", "ClientNamespace", "Reason", "ReceivedEvent", "SimpleClient", "exceptions"]
