"""What aiohttp does with requests before a door of ours sees them, done so that no request can harm or leak.

Its own log has whole request lines, and headers with them, of whatever it cannot read, and its own answer to an
``Expect`` that it does not know fails on a byte that is not UTF-8.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Callable, Dict

import aiohttp
from aiohttp import web
from aiohttp.http import HttpProcessingError, HttpVersion11
from aiohttp.http_exceptions import BadHttpMessage

__all__ = ["FirstRequests", "HttpLog", "add_routes", "no_such_address", "protocol_factory"]

log = logging.getLogger("simplepubsub.server")

#: Until 3.13 an address that urllib cannot split is an error of asyncio's, with a traceback, instead of an answer.
_ADDRESSES_FAIL = tuple(map(int, aiohttp.__version__.split(".")[:2])) < (3, 14)


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


class Parser:
    """A request parser of aiohttp that takes every request it cannot read for a bad one."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> Any:
        """Return what `data` completes. Raises HttpProcessingError."""
        try:
            return self._parser.feed_data(data)
        except ValueError:
            raise BadHttpMessage("the address cannot be read") from None


def protocol_factory(server: Any) -> Callable[[], Any]:
    """Return what makes the protocol of one connection."""
    if not _ADDRESSES_FAIL:
        return server  # type: ignore[no-any-return]

    def make() -> Any:
        handler = server()
        handler._request_parser = Parser(handler._request_parser)  # no later version can change these any more
        return handler

    return make


class FirstRequests:
    """Cuts off who connects and does not finish a request in ``limit`` seconds. Belongs to the server's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        self._loop = loop
        self._limit = limit
        self._timers: Dict[int, asyncio.TimerHandle] = {}  # by the id of the transport, which the timer keeps alive

    def expect(self, transport: Any) -> None:
        """Note that a connection is open."""
        self._timers[id(transport)] = self._loop.call_later(self._limit, self._cut, transport)

    def _cut(self, transport: Any) -> None:
        del self._timers[id(transport)]
        try:
            gone = transport.is_closing()
        except AttributeError:
            gone = True  # asyncio before 3.11: what a TLS transport says when its connection is lost
        if not gone:
            log.info("cutting off a connection that made no request within %g s", self._limit)
            transport.abort()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Note that a request has come."""
        timer = self._timers.pop(id(request.transport), None)
        if timer is not None:
            timer.cancel()
        response: web.StreamResponse = await handler(request)
        return response

    def stop(self) -> None:
        """Let go of all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


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
