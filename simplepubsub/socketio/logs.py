"""The ``logger`` and ``engineio_logger`` arguments: as python-socketio takes them, without its side effects."""

from __future__ import annotations

import copy
import logging
import threading
from typing import Any

from ..transports.redact import redact_text

__all__ = ["client_logger", "engine_logger"]

_CLIENT = "simplepubsub.socketio"
_ENGINE = "simplepubsub.socketio.engine"

_lock = threading.Lock()


class _Masked(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact_text(super().format(record))


class _StandardError(logging.StreamHandler):  # type: ignore[type-arg]  # not subscriptable at run time
    """What ``True`` adds to a logger, once."""


class _Forward(logging.Handler):
    """Hands the records of one logger to an object of the application's, secrets masked."""

    def __init__(self, target: Any) -> None:
        super().__init__()
        self.target = target

    def emit(self, record: logging.LogRecord) -> None:
        masked = copy.copy(record)
        masked.msg, masked.args = redact_text(record.getMessage()), None
        handle = getattr(self.target, "handle", None)
        if handle is not None:
            handle(masked)
        else:
            self.target.log(masked.levelno, masked.msg)


def client_logger(chosen: Any) -> Any:
    """Return the logger of one client.

    True is the package's own logger at level INFO, with a handler for standard error that masks secrets; False or None
    the same logger as the application has configured it; anything else is used as it is.
    """
    if chosen is not None and not isinstance(chosen, bool):
        return chosen
    logger = logging.getLogger(_CLIENT)
    if chosen:
        with _lock:
            engine = logging.getLogger(_ENGINE)
            if engine.level == logging.NOTSET:
                engine.setLevel(logging.WARNING)  # it would inherit what is meant for this one
            _show(logger)
    return logger


def engine_logger(chosen: Any) -> None:
    """Send what the transports log, of all clients, to standard error (True) or to an object like a logger."""
    if chosen is None or chosen is False:
        return
    logger = logging.getLogger(_ENGINE)
    with _lock:
        if chosen is True:
            return _show(logger)
        effective = getattr(chosen, "getEffectiveLevel", None)
        logger.setLevel(logging.INFO if effective is None else effective())
        if not any(isinstance(handler, _Forward) and handler.target is chosen for handler in logger.handlers):
            logger.addHandler(_Forward(chosen))
            logger.propagate = False


def _show(logger: logging.Logger) -> None:
    if logger.level == logging.NOTSET or logger.level > logging.INFO:
        logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _StandardError) for handler in logger.handlers):
        handler = _StandardError()
        handler.setFormatter(_Masked("%(asctime)s %(levelname)-7s %(name)s [%(threadName)s] %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
