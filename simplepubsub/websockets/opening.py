"""Before a server's connection is one: the listening socket, and the moments around the handshake."""

from __future__ import annotations

import errno
import inspect
import os
import socket
import stat
from typing import Any, Callable, Optional, Sequence, Tuple

from ..core.deadline import Deadline
from ..exceptions import ServerError
from .connection import address_of
from .handshake import text_response
from .messages import Request, Response

__all__ = ["Opening", "leave", "listen", "remove_unix_path", "takes_path"]

Handler = Callable[..., Any]

#: Connections that the system accepts ahead of us.
_BACKLOG = 512

#: Seconds that a client has to read an HTTP answer.
_LEAVE = 1.0


class Opening:
    """A connection before its handshake, as ``process_request`` and ``select_subprotocol`` get it."""

    def __init__(self, sock: socket.socket, request: Request) -> None:
        self.request = request
        self.local_address = address_of(sock.getsockname)
        self.remote_address = address_of(sock.getpeername)

    @staticmethod
    def respond(status: int, text: str, headers: Sequence[Tuple[str, str]] = ()) -> Response:
        """Return an answer in plain text, or of the Content-Type in ``headers``."""
        return text_response(int(status), text, headers)


def leave(sock: socket.socket) -> None:
    """Close after an HTTP answer without a reset that could destroy it on the way."""
    try:
        deadline = Deadline(_LEAVE)
        socket.socket.shutdown(sock, socket.SHUT_WR)
        while not deadline.expired():
            sock.settimeout(deadline.remaining() or _LEAVE)
            if not sock.recv(8192):
                break
    except OSError:
        pass  # the client was faster, or says nothing
    sock.close()


def takes_path(handler: Handler) -> bool:
    """Return whether the handler wants the path too, as those of early versions of websockets do."""
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(needed) == 2


def listen(host: str, port: int, unix: Optional[str], sock: Optional[socket.socket]) -> socket.socket:
    """Return a non-blocking listening socket: ``sock``, or a new one. Raises ServerError."""
    listener = sock
    if type(port) is int and not 0 <= port < 65536:  # some systems take the lower 16 bits of it
        raise ServerError("a port is 0 to 65535, not %d" % port)
    try:
        if listener is None:
            listener = _bind_unix(unix) if unix is not None else _bind(host, port)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        return listener
    except (OSError, OverflowError, UnicodeError, TypeError, AttributeError) as error:
        if listener is not None and sock is None:
            listener.close()
        where = "the given socket" if sock is not None else unix if unix is not None else "%s port %s" % (host, port)
        text = "cannot listen on %s: %s; choose another one, or port 0 for any free one" % (where, error)
        raise ServerError(text) from error


def _bind(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # One address is enough, and IPv4 is what clients try without being told.
    found.sort(key=lambda item: item[0] != socket.AF_INET)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def _bind_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or _is_alive(path):
                raise
            os.unlink(path)  # a server that was killed left it
            listener.bind(path)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_alive(path: str) -> bool:
    """Return whether ``path`` is anything but a Unix socket that nobody listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return not stat.S_ISSOCK(os.stat(path).st_mode) or probe.connect_ex(path) != errno.ECONNREFUSED


def remove_unix_path(listener: socket.socket) -> None:
    """Remove the file of a Unix socket before it is closed."""
    path = address_of(listener.getsockname)
    if isinstance(path, str) and path:
        try:
            os.unlink(path)
        except OSError:
            pass  # somebody has removed it already
