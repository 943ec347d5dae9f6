"""Real-time pub/sub for Python code that does not speak asyncio.

One blocking core (``receive(timeout=)``, acknowledged sends, reconnect that resumes) under several faces:
`simplepubsub.webpubsub` is a client of Azure Web PubSub, `simplepubsub.server` a compatible server in your own process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import exceptions
from .exceptions import *  # noqa: F403  # every error of the package, as its __all__ lists them
from .lazy import lazy_names
from .version import __version__

if TYPE_CHECKING:
    from .webpubsub import (
        InvokeResult,
        Message,
        RetryPolicy,
        StreamReader,
        StreamWriter,
        WebPubSubClient,
        WebPubSubClientCredential,
        WebPubSubServiceClient,
    )

__all__ = [
    "InvokeResult",
    "Message",
    "RetryPolicy",
    "StreamReader",
    "StreamWriter",
    "WebPubSubClient",
    "WebPubSubClientCredential",
    "WebPubSubServiceClient",
    "__version__",
]

# Whoever imports one face of the package need not load the others.
__getattr__, __dir__ = lazy_names(__name__, {".webpubsub": [name for name in __all__ if name != "__version__"]})

__all__ += exceptions.__all__
