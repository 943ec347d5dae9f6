"""The listening socket of the server, made before its loop runs, so that whoever starts it learns what is wrong."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import ssl as ssl_module
import sys
from typing import Any, Callable, Optional, Set

from ..exceptions import ServerError

__all__ = ["Acceptor", "listen", "printable_host"]

log = logging.getLogger("simplepubsub.server")

#: Connections that the system accepts ahead of us.
_BACKLOG = 512

#: Connections to accept in one iteration of the loop.
_ACCEPTS = 32

#: Seconds to wait when the process has no file descriptor left for another connection.
_RETRY_DELAY = 0.5


class Acceptor:
    """Accepts connections, each with a protocol from ``factory``, until it is stopped. Belongs to the server's loop.

    ``opened`` is called with the transport of each.

    Not an asyncio server: closing one in the moment of an accept loses that socket (its transport cannot be attached
    any more), and then a stopped server leaves something behind.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        factory: Callable[[], Any],
        ssl: Optional[ssl_module.SSLContext],
        opened: Callable[[Any], None],
    ) -> None:
        self._opened_hook = opened
        self._loop = loop
        self._listener = listener
        self._factory = factory
        self._ssl = ssl
        self._opening: Set["asyncio.Task[None]"] = set()  # TLS handshakes, mostly
        self._timer: Optional[asyncio.TimerHandle] = None
        self._task: Optional["asyncio.Task[None]"] = None
        try:
            loop.add_reader(listener, self._ready)
        except NotImplementedError:  # the default loop of Windows
            self._task = loop.create_task(self._accept())

    async def stop(self) -> None:
        """Accept nothing more and give up what is not open yet."""
        tasks = list(self._opening)
        if self._task is not None:
            tasks.append(self._task)
        else:
            self._loop.remove_reader(self._listener)
        if self._timer is not None:
            self._timer.cancel()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ready(self) -> None:
        """Accept what has come in, not without end: others want the loop too."""
        for _ in range(_ACCEPTS):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors, usually; the listener stays readable, so look away for a while.
                log.error("cannot accept a connection: %s", error)
                self._loop.remove_reader(self._listener)
                self._timer = self._loop.call_later(_RETRY_DELAY, self._loop.add_reader, self._listener, self._ready)
                return
            self._take(sock)

    async def _accept(self) -> None:
        while True:
            try:
                sock, _ = await self._loop.sock_accept(self._listener)
            except OSError as error:
                log.error("cannot accept a connection: %s", error)
                await asyncio.sleep(_RETRY_DELAY)
            else:
                self._take(sock)

    def _take(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        task = self._loop.create_task(self._open(sock))
        self._opening.add(task)
        task.add_done_callback(functools.partial(self._opened, sock))

    def _opened(self, sock: socket.socket, task: "asyncio.Task[None]") -> None:
        self._opening.discard(task)
        if task.cancelled():
            sock.close()  # it may have been cancelled before it began, and then nobody else knows the socket

    async def _open(self, sock: socket.socket) -> None:
        try:
            transport, _ = await self._loop.connect_accepted_socket(self._factory, sock, ssl=self._ssl)
            self._opened_hook(transport)
        except (OSError, asyncio.TimeoutError) as error:  # ssl.SSLError is an OSError
            log.info("a connection failed before it was open: %s", error)


def listen(host: str, port: int, loopback_only: bool) -> socket.socket:
    """Return a listening socket. Raises ServerError with the cause and the next step."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ServerError("cannot find the host %r: %s" % (host, error)) from error
    # One address is enough, and IPv4 is what clients try without being told.
    found.sort(key=lambda item: item[0] != socket.AF_INET)
    family, kind, protocol, _, address = found[0]
    if loopback_only and not _is_loopback(str(address[0])):
        raise ServerError(
            "the development access key is public, so the server binds to loopback only, not to %r: "
            "pass an access_key of your own, or allow_public_development_key=True" % host
        )
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ServerError(
            "cannot listen on %s port %d: %s; choose another port, or 0 for any free one"
            % (host or "*", port, error.strerror)
        ) from error
    return listener


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def printable_host(host: str, listener: socket.socket) -> str:
    """Return the host as clients on this machine write it in a URL."""
    bound = str(listener.getsockname()[0])
    if bound in ("0.0.0.0", "::"):
        return "127.0.0.1" if bound == "0.0.0.0" else "[::1]"
    return "[%s]" % host if ":" in host else host
