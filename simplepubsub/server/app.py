"""The embedded Web PubSub service: one object that listens, in a thread of its own.

The thread runs a new event loop, so it works beside any other loop or none (notebooks). Everything that the service
knows belongs to that loop; the public methods hand their work over and wait for it, with a bound.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import socket
import ssl as ssl_module
import threading
from typing import Any, Dict, Iterable, List, Optional, Type
from urllib.parse import quote

try:
    from aiohttp import web
except ImportError as error:
    raise ImportError("the embedded server needs aiohttp: pip install 'simplepubsub[server]'") from error

from ..exceptions import InvalidArgument, ServerError
from .connection import Connection
from .control import ConnectionInfo, HubControl, connection_info
from .dispatcher import Dispatcher
from .endpoint import ClientEndpoint, check_hub_name
from .faults import Faults
from .http_edges import FirstRequests, HttpLog, add_routes, no_such_address, protocol_factory
from .limits import Limits
from .listener import Acceptor, listen, printable_host
from .loop import LoopThread, breathe
from .paging import Cursors
from .permissions import ALL_ROLES
from .pump import Pump
from .registration import Registration
from .rest import RestEndpoint
from .rest_operations import Backend
from .tokens import DEVELOPMENT_ACCESS_KEY, Tokens
from .upstream import Upstream
from .upstream_validation import Timing
from .work import Work
from .workers import Workers

__all__ = ["Server"]

log = logging.getLogger("simplepubsub.server")

#: Seconds that clients have to answer the close frame when the server stops.
_GOODBYE = 0.25

#: Threads for event handlers.
_HANDLER_THREADS = 16


class Server(Registration):
    """An embedded Web PubSub service; ``with Server() as server:`` listens on a free port of this machine.

    ``port`` 0 picks a free one. ``access_key`` (at least 32 bytes) signs and checks tokens; ``secondary_key`` only
    checks them. ``ssl`` is a server-side ``ssl.SSLContext``. ``keep_alive_interval`` is the time between pings in
    seconds (None: no pings), ``recovery_window`` how long a reliable connection that lost its socket is kept, in
    seconds, ``allow_anonymous`` whether clients need no token (they have no rights then). With the public development
    key only loopback addresses are allowed, unless ``allow_public_development_key``.

    Safe from any thread. Raises ServerError: a bad key, host or certificate, a port that is taken.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        access_key: str = DEVELOPMENT_ACCESS_KEY,
        secondary_key: Optional[str] = None,
        ssl: Optional[ssl_module.SSLContext] = None,
        limits: Limits = Limits(),
        keep_alive_interval: Optional[float] = 20.0,
        recovery_window: float = 30.0,
        allow_anonymous: bool = False,
        allow_public_development_key: bool = False,
    ) -> None:
        self._tokens = Tokens(access_key, secondary_key)
        if not isinstance(host, str):
            raise ServerError("host must be a str, not %r" % (host,))
        if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
            raise ServerError("port must be an integer from 0 to 65535, not %r" % (port,))
        if keep_alive_interval is not None and not (_is_number(keep_alive_interval) and keep_alive_interval > 0):
            raise ServerError("keep_alive_interval must be positive seconds or None, not %r" % (keep_alive_interval,))
        if not (_is_number(recovery_window) and recovery_window >= 0):
            raise ServerError("recovery_window must be seconds from 0, not %r" % (recovery_window,))
        self.limits = limits
        self._access_key = access_key
        self._host = host
        self._port = port
        self._ssl = ssl
        self._keep_alive_interval = keep_alive_interval
        self._recovery_window = recovery_window
        self._allow_anonymous = allow_anonymous
        self._development = DEVELOPMENT_ACCESS_KEY in (access_key, secondary_key) and not allow_public_development_key
        super().__init__()
        #: Misbehaviour on demand, see `Faults`.
        self.faults = Faults(self)
        self._lock = threading.Lock()  # start() and stop(), one at a time
        self._thread = LoopThread("simplepubsub-server")
        # What `HubControl` and `Faults` act through, from any thread:
        self._call = self._thread.call
        self._wait = self._thread.wait
        self._address = ""
        self._bound_port = 0
        self._stopping: "asyncio.Event"
        self._workers: Workers
        self._pump: Pump
        self._endpoint: ClientEndpoint
        self._dispatcher: Dispatcher
        self._upstream_timing = Timing()
        self._request_timeout = 30.0  # seconds in which a new connection has to finish its first request

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> "Server":
        """Listen, and return when clients can connect; a server that runs already keeps running. Raises ServerError."""
        with self._lock:
            if self._thread.running:
                return self
            listener = listen(self._host, self._port, self._development)
            self._bound_port = listener.getsockname()[1]
            self._address = printable_host(self._host, listener)
            try:
                self._thread.start(functools.partial(self._serve, listener))
            except BaseException:
                listener.close()
                raise
        log.info("listening on %s", self.endpoint)
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """Close every connection and leave nothing behind; a server that does not run stays so.

        A handler that is still running after ``timeout`` seconds is left to itself, with a warning in the log.
        """
        with self._lock:
            ended = self._thread.stop(lambda: self._stopping.set(), timeout)
            if ended is None:
                return
            busy = self._workers.stop(timeout)
            if busy or not ended:
                log.warning("stopped, but %d handlers%s still run", busy, "" if ended else " and the loop")

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, kind: Optional[Type[BaseException]], value: Any, traceback: Any) -> None:
        self.stop()

    def reset(self, *, handlers: bool = False) -> None:
        """Go back to the state after `start`: no connection, no retained session, no fault, counters at zero.

        Open sockets are aborted. Address and tokens stay valid; registered handlers stay, unless ``handlers`` is True.
        """
        if handlers:
            self._handlers.clear()
        self._wait(self._reset())

    async def _reset(self) -> None:
        self.faults.clear_now()
        for connection in list(self._pump.connections):
            connection.session = None
            connection.abort()
        self._endpoint.stop()
        self._pump.work.clear()
        await self._dispatcher.reset()

    # --- addresses ----------------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """The address for connection strings, ``http://host:port``; raises ServerError before the first `start`."""
        if not self._address:
            raise ServerError("the server has no address yet: call start() first")
        return "%s://%s:%d" % ("http" if self._ssl is None else "https", self._address, self._bound_port)

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self.endpoint.rpartition(":")[2])

    @property
    def connection_string(self) -> str:
        """What service clients are configured with; it contains the access key."""
        return "Endpoint=%s;AccessKey=%s;Version=1.0;" % (self.endpoint, self._access_key)

    def client_access_url(
        self,
        hub: str,
        *,
        user_id: Optional[str] = None,
        roles: Iterable[str] = ALL_ROLES,
        groups: Iterable[str] = (),
        minutes_to_expire: float = 60,
    ) -> str:
        """Return a URL that a client can connect with, token included; by default it may join and publish everywhere.

        ``groups`` are joined on connecting. Raises InvalidArgument for a bad hub name.
        """
        check_hub_name(hub)
        path = "/client/hubs/" + quote(hub, safe="")
        if isinstance(roles, str) or isinstance(groups, str):
            raise InvalidArgument("roles and groups must be sequences of str, not a str")
        token = self._tokens.make(
            self.endpoint + path, user_id=user_id, roles=roles, groups=groups, minutes_to_expire=minutes_to_expire
        )
        return "ws%s%s?access_token=%s" % (self.endpoint[len("http") :], path, token)

    def hub(self, name: str) -> HubControl:
        """Return the means to send to, and to manage, the connections of a hub from this process."""
        return HubControl(self, check_hub_name(name))

    # --- looking in ---------------------------------------------------------------------------------------------------

    def connections(self, hub: Optional[str] = None) -> List[ConnectionInfo]:
        """Return all connections (of one hub), ordered by hub and id; those that wait to recover included."""
        if hub is not None:
            return self.hub(hub).connections()

        def look() -> List[ConnectionInfo]:
            hubs = self._pump.work.hubs.values()
            found = [connection_info(session) for item in hubs for session in item.sessions.values()]
            return sorted(found, key=lambda info: (info.hub, info.connection_id))

        result: List[ConnectionInfo] = self._call(look)
        return result

    def stats(self) -> Dict[str, int]:
        """Return counters since `start` or `reset`, and present numbers: connections, sockets, streams, groups."""

        def look() -> Dict[str, int]:
            work = self._pump.work
            numbers = dict(work.counters)
            numbers["connections"] = sum(len(item.sessions) for item in work.hubs.values())
            numbers["retained"] = len(work.retained)
            numbers["sockets"] = len(self._pump.connections)
            numbers["streams"] = work.streams.active
            numbers["groups"] = sum(len(item.groups) for item in work.hubs.values())
            return numbers

        result: Dict[str, int] = self._call(look)
        return result

    def __repr__(self) -> str:
        if not self._thread.running:
            return "<Server stopped>"
        return "<Server %s>" % self.endpoint

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def _serve(
        self, listener: socket.socket, loop: asyncio.AbstractEventLoop, ready: "concurrent.futures.Future[None]"
    ) -> None:
        """Serve until `stop`: what the loop's thread runs."""
        self._stopping = asyncio.Event()
        self._workers = Workers(_HANDLER_THREADS, "simplepubsub-handler")
        work = Work(self.limits, self._recovery_window)
        work.presence = self._handlers.presence
        origin = self.endpoint.partition("://")[2]
        keys = self._tokens.keys
        upstream = Upstream(loop, self._workers, origin, keys, self.limits.max_message_bytes, self._upstream_timing)
        dispatcher = self._dispatcher = Dispatcher(loop, self._handlers, self._workers, work, self._progress, upstream)
        self._pump = Pump(loop, work, dispatcher.dispatch, keep_alive_interval=self._keep_alive_interval)
        endpoint = self._endpoint = ClientEndpoint(
            self._pump, self._tokens, dispatcher, self.faults, self._audiences, self._allow_anonymous
        )
        first_requests = FirstRequests(loop, self._request_timeout)
        app = web.Application(middlewares=[first_requests.middleware])
        for path in ("/client/hubs/{hub}", "/client", "/client/"):
            add_routes(app, path, endpoint.handle)
        backend = Backend(self._pump, self._tokens, Cursors(self._access_key), self.endpoint)
        rest = RestEndpoint(backend, self.faults.thawed)
        add_routes(app, r"/api/{path:[\s\S]*}", rest.handle)
        add_routes(app, r"/{path:[\s\S]*}", no_such_address)
        # Bodies that come compressed are refused, so nobody need unpack them.
        runner = web.AppRunner(app, access_log=None, handle_signals=False, auto_decompress=False, logger=HttpLog())
        await runner.setup()
        http: Any = runner.server
        acceptor = Acceptor(loop, listener, protocol_factory(http), self._ssl, first_requests.expect)
        try:
            ready.set_result(None)
            await self._stopping.wait()
        finally:
            await acceptor.stop()
            first_requests.stop()
            endpoint.stop()
            rest.stop()
            await self._close_all()
            await upstream.drained(_GOODBYE)
            self._pump.stop()
            await dispatcher.reset()
            await http.shutdown(_GOODBYE)
            await runner.cleanup()
            await breathe()
            listener.close()

    def _progress(self) -> None:
        self._pump.retry_waiting()
        self._pump.wake()

    async def _close_all(self) -> None:
        """Say goodbye to every client, give them a moment to answer, then cut what is left."""
        pump = self._pump
        self.faults.clear_now()
        closing: List[Connection] = list(pump.connections)
        for hub in list(pump.work.hubs.values()):
            for session in list(hub.sessions.values()):
                hub.end(session, 1001, "the server stops", announce="the server stops")
        pump.wake()
        await pump.drained(_GOODBYE)
        for connection in closing:
            connection.abort()
        await pump.drained(_GOODBYE)

    def _audiences(self, host: str, hub: str) -> List[str]:
        """Return what a client token may be made out to: this server by its own name, or by the one the client used."""
        hosts = dict.fromkeys((self.endpoint.partition("://")[2], host))
        return ["%s://%s/client/hubs/%s" % (scheme, item, hub) for item in hosts for scheme in ("http", "https")]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
