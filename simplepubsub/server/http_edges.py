"""What aiohttp does with requests before a door of ours sees them, done so that no request can harm or leak.

Its own log has whole request lines, and headers with them, of whatever it cannot read, and its own answer to an
``Expect`` that it does not know fails on a byte that is not UTF-8.
"""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError, HttpVersion11

__all__ = ["HttpLog", "add_routes"]

log = logging.getLogger("simplepubsub.server")


class HttpLog:
    """The logger of aiohttp's HTTP server: no line of a request, which may hold a token, gets into the log."""

    def debug(self, message: str, *args: Any, **options: Any) -> None:
        """Drop what only aiohttp's developers want to know."""

    def exception(self, message: str, *args: Any, **options: Any) -> None:
        """Note a request that is no HTTP in one line; what is our own fault keeps its traceback."""
        error = options.get("exc_info")
        if isinstance(error, HttpProcessingError):
            log.info("a request that is not HTTP was answered with %d (%s)", error.code, type(error).__name__)
        else:
            log.error("a request could not be answered", exc_info=error or True)

    error = exception


def add_routes(app: web.Application, path: str, handler: Any) -> None:
    """Let ``handler`` answer every method at ``path``."""
    app.router.add_route("*", path, handler, expect_handler=_expect)


async def no_such_address(request: web.Request) -> web.StreamResponse:
    """Answer 404: what is left when nobody else answers."""
    raise web.HTTPNotFound


async def _expect(request: web.Request) -> None:
    """Ask for the body when the client waits for that (RFC 9110 section 10.1.1); refuse any other expectation."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
    if request.version >= HttpVersion11:
        writer: Any = request.writer
        await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.output_size = 0  # it is no part of the answer
