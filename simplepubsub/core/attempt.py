"""One attempt to open a transport, in a thread of its own so that nothing can hold the supervisor.

DNS and a user's token provider cannot be interrupted. The supervisor therefore waits for the attempt and, when a stop
or a deadline comes first, abandons it: the attempt finds that out when it returns, and throws its transport away. It
runs only while there is no reader and no writer, so a client never has more than its three threads.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Optional

from ..exceptions import ConnectError, ConnectTimeout, TransportClosed
from .protocol import Resume, Transport

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Attempt", "not_accepted"]

# How long an abandoned attempt is waited for (seconds): abort() usually ends it at once.
ABANDON_WAIT = 0.5


def not_accepted(cause: BaseException, late: bool, shown_url: str) -> ConnectError:
    """Return the error for a connection that opened and ended by ``cause`` before the service had accepted it.

    ``late`` says that we ended it, for want of an answer.
    """
    hint = "check that the URL names a Web PubSub client endpoint"
    if late:
        return ConnectTimeout("no connected message from the service in time", url=shown_url, hint=hint)
    if isinstance(cause, TransportClosed):
        text = "the service closed the connection before accepting it: %s" % cause
    else:
        text = "the connection was lost before the service accepted it: %s" % cause
    error = ConnectError(text, url=shown_url, hint=hint)
    error.__cause__ = cause
    return error


class Attempt:
    """Dial ``base_url`` (None = ask the provider for a fresh one), continuing ``resume`` if there is one."""

    def __init__(self, engine: Engine, base_url: Optional[str], resume: Resume) -> None:
        self._engine = engine
        self._resume = resume
        self._dial = engine.dialer()
        self.base_url = base_url or ""
        self.shown_url = ""
        self.transport: Optional[Transport] = None
        self.error: Optional[ConnectError] = None
        self.done = False  # guarded by the engine's mutex, like the next one
        self.abandoned = False
        self._thread: Optional[threading.Thread] = None

    def start(self, timeout: Optional[float]) -> None:
        """Begin; ``done`` and the engine's ``wake`` tell the end."""
        self._thread = threading.Thread(
            target=self._run, args=(timeout,), name=self._engine.name + "-dialer", daemon=True
        )
        self._thread.start()

    @property
    def step(self) -> str:
        """What is taking so long."""
        return self._dial.step if self.shown_url else "asking the provider for a client access URL"

    def abandon(self) -> ConnectTimeout:
        """Make the attempt end soon and return its error; ``abandoned`` is set already."""
        error = ConnectTimeout(
            "no connection to %s in time: %s took too long" % (self.shown_url or "the service", self.step),
            url=self.shown_url,
            hint="check the host, the port, firewalls and proxies, or raise start_timeout",
        )
        self._dial.abort()
        if self._thread is not None:
            self._thread.join(ABANDON_WAIT)
        return error

    def _run(self, timeout: Optional[float]) -> None:
        engine = self._engine
        transport, error = None, None
        try:
            if not self.base_url:
                self.base_url = engine.url()
            self.shown_url = engine.protocol.shown_url(self.base_url)
            transport = self._dial.connect(engine.protocol.url(self.base_url, self._resume), timeout)
        except ConnectError as failure:
            error = failure
        except BaseException as failure:  # noqa: BLE001  # the provider is user code and may raise anything
            error = ConnectError(
                "no client access URL: the provider raised %s: %s"
                % (type(failure).__name__, engine.protocol.shown_text(str(failure))),
                hint="the callable must return a ws:// or wss:// URL",
            )
            error.__cause__ = failure
        with engine.mutex:
            if not self.abandoned:
                self.transport, self.error, self.done = transport, error, True
                engine.wake.notify_all()
                return
        if transport is not None:
            transport.abort()
            transport.release()
