"""The listening socket of the server, made before its loop runs, so that whoever starts it learns what is wrong."""

from __future__ import annotations

import socket
import sys

from ..exceptions import ServerError

__all__ = ["BACKLOG", "listen", "printable_host"]

#: Connections that the system accepts ahead of us.
BACKLOG = 512


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
        listener.listen(BACKLOG)
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
