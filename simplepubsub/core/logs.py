"""Switch on readable logs without touching the logging of the application.

The package logs to ``simplepubsub.*`` and configures nothing by itself. Two ways switch a handler on: ``logger=True``
on a client, or the environment variable ``SIMPLEPUBSUB_LOG_LEVEL`` (``AZURE_LOG_LEVEL`` is honoured too) with error,
warning, info, debug, or verbose, which adds every frame to ``simplepubsub.wire`` with secrets masked.
"""

from __future__ import annotations

import logging
import os
from typing import Optional

__all__ = ["VERBOSE_LOGGER", "configure", "configure_from_environment"]

#: Receives one line per frame.
VERBOSE_LOGGER = "simplepubsub.wire"

_LEVELS = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "informational": logging.INFO,
    "debug": logging.DEBUG,
    "verbose": logging.DEBUG,
}

_handler: Optional[logging.Handler] = None


def configure(level: str) -> None:
    """Send the package's log to standard error from ``level`` on; calling again changes the level."""
    global _handler
    root = logging.getLogger("simplepubsub")
    if _handler is None:
        _handler = logging.StreamHandler()
        _handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s [%(threadName)s] %(message)s"))
        root.addHandler(_handler)
        root.propagate = False
    root.setLevel(_LEVELS[level])
    logging.getLogger(VERBOSE_LOGGER).setLevel(logging.DEBUG if level == "verbose" else logging.INFO)


def configure_from_environment() -> None:
    """Apply the environment variables; unknown values are reported once and ignored."""
    for name in ("SIMPLEPUBSUB_LOG_LEVEL", "AZURE_LOG_LEVEL"):
        value = os.environ.get(name, "").strip().lower()
        if value in _LEVELS:
            configure(value)
            return
        if value and name.startswith("SIMPLEPUBSUB"):
            logging.getLogger("simplepubsub").warning("%s=%r is none of %s", name, value, ", ".join(sorted(_LEVELS)))
