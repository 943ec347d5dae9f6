"""HTTP to event handlers: one client session, attempts and their delays, bounds on time, size and number.

Protocol reference 6.10. Redirects are not followed: an event goes where it was meant to go, or nowhere.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
import weakref
from typing import Any, Dict, List, MutableMapping, Optional, Sequence, Tuple

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from ..exceptions import SimplePubSubError
from ..version import __version__
from .event_routes import EventRoute
from .upstream_events import Answer, Correspondence, Request
from .upstream_validation import AbuseProtection, Timing, Unreachable
from .workers import Workers

__all__ = ["HttpClient", "UpstreamFailure"]

log = logging.getLogger("simplepubsub.server")

#: Requests to one handler at a time; further ones wait, within their timeouts.
_MAX_REQUESTS = 128

#: Seconds that an idle connection is kept: less than common servers keep theirs (Node: 5), so that a request does not
#: meet a connection that is just being closed.
_KEEP_ALIVE = 3.0

#: Threads that resolve host names.
_RESOLVERS = 4

#: Longest header of an answer, as a connection state may be; aiohttp before 3.9 has a limit of its own, 8,190.
_HEADER_LIMITS: Dict[str, Any] = {
    name: 64 * 1024
    for name in ("max_line_size", "max_field_size")
    if name in inspect.signature(aiohttp.ClientSession.__init__).parameters
}

_NETWORK_ERRORS = (aiohttp.ClientError, OSError, EOFError)


class UpstreamFailure(SimplePubSubError):
    """A handler could not be asked, or gave no answer that counts as one.

    The text is for logs and contains no secret; ``told`` is what the client may know.
    """

    def __init__(self, text: str, told: str = "the event handler failed") -> None:
        super().__init__(text)
        self.told = told


class HttpClient:
    """Posts events to URLs. Belongs to the server's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: str, timing: Timing) -> None:
        self._loop = loop
        self._protection = AbuseProtection(loop, origin, timing)
        self._origin = origin
        self._session: Optional[aiohttp.ClientSession] = None
        self._connector: Optional[_Connector] = None
        self._resolvers: Optional[Workers] = None
        self._rooms: MutableMapping[EventRoute, asyncio.Semaphore] = weakref.WeakKeyDictionary()

    async def post(
        self, route: EventRoute, request: Request, letters: Correspondence, limit: int, needs_body: bool
    ) -> Answer:
        """Return a handler's answer to an event, after retries: its last one, whatever its status.

        Raises UpstreamFailure: no answer within ``route.timeout`` seconds, nobody reached, events not wanted there, or
        an answer of more than ``limit`` bytes that ``needs_body``.
        """
        try:
            return await asyncio.wait_for(self._attempts(route, request, letters, limit, needs_body), route.timeout)
        except asyncio.TimeoutError:
            raise UpstreamFailure("no answer within %g s" % route.timeout, "the event handler is too slow") from None

    async def _attempts(
        self, route: EventRoute, request: Request, letters: Correspondence, limit: int, needs_body: bool
    ) -> Answer:
        assert route.template is not None
        url = route.template.url(request.hub, request.name)
        room = self._rooms.get(route)
        if room is None:
            room = self._rooms[route] = asyncio.Semaphore(_MAX_REQUESTS)
        for delay in route.retry_delays + (None,):
            try:
                await self._validate(route, request.hub)
                async with room:
                    answer = await self._post(route, url, request, letters, limit, needs_body)
                if answer.status != 408 and answer.status < 500 or delay is None:
                    return answer
                text = "it answered %d" % answer.status
            except (Unreachable,) + _NETWORK_ERRORS as error:
                text = str(error) if isinstance(error, Unreachable) else _cause(error)
                if delay is None or isinstance(error, aiohttp.ClientConnectorCertificateError):
                    raise UpstreamFailure(text, "the event handler cannot be reached") from None
            log.info("%s: %s; trying again in %g s", route.name, text, delay)
            await asyncio.sleep(delay)
        raise AssertionError("unreachable")

    async def _post(
        self, route: EventRoute, url: str, request: Request, letters: Correspondence, limit: int, needs_body: bool
    ) -> Answer:
        headers = dict(request.headers)
        target = URL(url, encoded=True)
        if letters.cookies is not None:
            found = letters.cookies.filter_cookies(target)
            if found:
                headers["Cookie"] = "; ".join("%s=%s" % (key, item.value) for key, item in found.items())
        response = await self._request("POST", target, headers, request.body, route)
        try:
            body = await _read(response, limit, needs_body)
            if response.cookies and 200 <= response.status <= 299:
                if letters.cookies is None:
                    letters.cookies = aiohttp.CookieJar(unsafe=True)
                letters.cookies.update_cookies(response.cookies, target)
            return Answer(response.status, {key.lower(): value for key, value in response.headers.items()}, body)
        finally:
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    async def _validate(self, route: EventRoute, hub: str) -> None:
        """Make sure that events are wanted at a handler's address. Raises UpstreamFailure or Unreachable."""
        assert route.template is not None
        url = route.template.url(hub, "validate")

        async def ask(method: str) -> Tuple[int, Sequence[str]]:
            headers = {"WebHook-Request-Origin": self._origin, "ce-awpsversion": "1.0"}
            try:
                response = await self._request(method, URL(url, encoded=True), headers, None, route)
            except _NETWORK_ERRORS as error:
                final = isinstance(error, aiohttp.ClientConnectorCertificateError)
                raise Unreachable(_cause(error), final) from None
            try:
                return response.status, response.headers.getall("WebHook-Allowed-Origin", [])
            finally:
                response.close()

        verdict = await self._protection.check(url, route.name, ask)
        if not verdict.allowed:
            if verdict.final:
                raise UpstreamFailure("no event is sent there: %s" % verdict.text)
            raise Unreachable(verdict.text)

    async def _request(
        self, method: str, url: URL, headers: Dict[str, str], body: Optional[bytes], route: EventRoute
    ) -> aiohttp.ClientResponse:
        options: Dict[str, Any] = {} if route.ssl is None else {"ssl": route.ssl}
        return await self._client().request(method, url, headers=headers, data=body, allow_redirects=False, **options)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            if self._resolvers is None:
                self._resolvers = Workers(_RESOLVERS, "simplepubsub-resolver")
            self._connector = _Connector(
                limit=0, keepalive_timeout=_KEEP_ALIVE, resolver=_Resolver(self._resolvers), ttl_dns_cache=10
            )
            self._session = aiohttp.ClientSession(
                connector=self._connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                # No compression is asked for: a small answer must not become a huge one.
                headers={"User-Agent": "simplepubsub/" + __version__, "Accept-Encoding": "identity"},
                auto_decompress=False,
                **_HEADER_LIMITS,
            )
        return self._session

    async def reset(self) -> None:
        """Close every connection and forget what was learnt; the next request begins anew."""
        await self._protection.reset()
        session, self._session = self._session, None
        connector, self._connector = self._connector, None
        self._rooms.clear()
        if session is not None and connector is not None:
            connector.abort()
            await session.close()
            for _ in range(3):  # transports tell about their end in the iterations that follow
                await asyncio.sleep(0)
        resolvers, self._resolvers = self._resolvers, None
        if resolvers is not None and resolvers.stop(0.2):
            log.warning("a host name is still being looked up")


class _Connector(aiohttp.TCPConnector):
    """A connector that can cut what it made: closing a TLS connection would wait for a peer that may be silent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._made: Any = weakref.WeakSet()

    async def connect(self, *args: Any, **options: Any) -> Any:
        """Return a connection, as the base class does, and remember its transport."""
        connection = await super().connect(*args, **options)
        if connection.transport is not None:
            self._made.add(connection.transport)
        return connection

    def abort(self) -> None:
        """Cut every connection."""
        for transport in list(self._made):
            transport.abort()


class _Resolver(AbstractResolver):
    """Looks host names up in daemon threads: those of an executor keep a process from ending while DNS is silent."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> List[Any]:
        """Return the addresses of a host."""
        try:
            found = await self._workers.run(
                lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
            )
        except UnicodeError as error:  # what IDNA says of a name that cannot be one
            raise OSError("bad host name: %s" % error) from None
        return [
            {
                "hostname": host,
                "host": address[0],
                "port": address[1],
                "family": kind,
                "proto": protocol,
                "flags": socket.AI_NUMERICHOST,
            }
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Do nothing: the threads belong to the client."""


async def _read(response: aiohttp.ClientResponse, limit: int, needs_body: bool) -> bytes:
    """Return the body of an answer. Raises UpstreamFailure when it is needed and too long or compressed."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > limit:
            if needs_body and 200 <= response.status <= 299:
                raise UpstreamFailure("its answer has more than %d bytes" % limit)
            return b""
    coding = response.headers.get("Content-Encoding", "identity")
    if body and needs_body and coding.strip().lower() != "identity":
        raise UpstreamFailure("its answer is compressed, which was not asked for")
    return bytes(body)


def _cause(error: BaseException) -> str:
    """Return what went wrong, without the URL, whose query may hold a code."""
    if isinstance(error, aiohttp.ClientResponseError):
        return "%s: %s" % (type(error).__name__, error.message)
    if isinstance(error, aiohttp.InvalidURL):
        return "the URL cannot be used"
    return "%s: %s" % (type(error).__name__, error) if str(error) else type(error).__name__
