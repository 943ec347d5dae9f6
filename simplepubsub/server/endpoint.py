"""The door for clients: checks an upgrade request, then takes the transport away from aiohttp.

aiohttp parses the HTTP request and serves what is not a WebSocket. After the upgrade it is not needed any more: the
101 answer is written, the transport gets our own protocol (`Connection`), and aiohttp is told that its connection is
over. All in one synchronous step, so that no byte can arrive in between. Protocol reference 1.1 to 1.6.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import ssl
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from aiohttp import web

from ..exceptions import InvalidArgument
from ..transports.handshake import accept_value
from ..webpubsub.json_fields import one_line
from ..webpubsub.messages import MAX_GROUP_NAME
from .connection import WRITE_HIGH, WRITE_LOW, Connection
from .dispatcher import Dispatcher
from .faults import Faults
from .handlers import ClientCertificate, ConnectRequest, RefuseConnection
from .hub import POLICY, RecoveryRefused, hub_of
from .permissions import Permissions
from .pump import Pump
from .tokens import Claims, TokenRejected, Tokens
from .upstream_events import Correspondence
from .wire import RawMode, RawWire, Wire
from .wires import WireUnavailable, choose, find_wire

__all__ = ["ClientEndpoint", "Refused", "check_hub_name"]

log = logging.getLogger("simplepubsub.server")

#: Hub names, protocol reference 7.1.
_HUB_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_`,.\[\]]{0,127}\Z")

#: A name of a subprotocol, RFC 9110 section 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")

#: Query values and headers that a connect handler does not see: they are secrets or belong to the handshake.
_HIDDEN_QUERY = ("access_token", "awps_reconnection_token")
_HIDDEN_HEADERS = ("authorization",)


class Refused(Exception):
    """The handshake is answered with this HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Upgraded(web.StreamResponse):
    """What the handler returns once the transport is ours: there is nothing left to write."""

    async def prepare(self, request: Any) -> Any:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _Identity(NamedTuple):
    user_id: Optional[str]
    permissions: Permissions
    groups: Sequence[str]
    subprotocol: Optional[str]
    state: Optional[Dict[str, Any]]


def check_hub_name(name: str) -> str:
    """Return the hub name in lower case. Raises InvalidArgument when it is not one."""
    if not isinstance(name, str) or not _HUB_NAME.match(name):
        raise InvalidArgument(
            "hub must be a letter followed by letters, digits or any of _ ` , . [ ] (at most 128 characters), not %s"
            % ascii(name)[:150]
        )
    return name.lower()


class ClientEndpoint:
    """Answers ``/client/hubs/{hub}`` and ``/client?hub=``. Belongs to the server's loop."""

    def __init__(
        self,
        pump: Pump,
        tokens: Tokens,
        dispatcher: Dispatcher,
        faults: Faults,
        audiences: Callable[[str, str], List[str]],
        allow_anonymous: bool,
    ) -> None:
        self._pump = pump
        self._tokens = tokens
        self._dispatcher = dispatcher
        self._faults = faults
        self._audiences = audiences  # (host header, hub name as requested) -> what a token may be made out to
        self._allow_anonymous = allow_anonymous
        self._handshakes: Set[Optional["asyncio.Task[Any]"]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Upgrade the request, or answer it with 4xx and the reason as text."""
        task = asyncio.current_task()
        self._handshakes.add(task)
        try:
            await self._faults.admit()
            accept = _accept_key(request)
            name = request.match_info.get("hub") or request.query.get("hub", "")
            try:
                hub = check_hub_name(name)
            except InvalidArgument as error:
                raise Refused(400, str(error)) from None
            offered = _offered(request)
            if "awps_connection_id" in request.query and "awps_reconnection_token" in request.query:
                return self._recover(request, accept, hub, offered)
            return await self._connect(request, accept, name, offered)
        except WireUnavailable as error:
            log.error("refused a client: %s", error)
            return _refusal(501, str(error))
        except Refused as error:
            log.warning("refused a client with %d: %s", error.status, one_line(str(error)))
            return _refusal(error.status, str(error))
        finally:
            self._handshakes.discard(task)

    def stop(self) -> None:
        """Give up handshakes that wait: for a connect handler, or for the end of a fault."""
        for task in self._handshakes:
            if task is not None:
                task.cancel()

    # --- a new connection ---------------------------------------------------------------------------------------------

    async def _connect(self, request: web.Request, accept: bytes, name: str, offered: List[str]) -> web.StreamResponse:
        claims = self._claims(request, name)
        mode = _raw_mode(request)
        connection_id = secrets.token_urlsafe(16)
        letters = Correspondence()
        identity = await self._identify(request, claims, name.lower(), connection_id, offered, letters)
        chosen = identity.subprotocol
        if chosen is None:
            chosen = choose(offered)
        wire: Wire = find_wire(chosen) or RawWire(mode, chosen)
        connection = self._upgrade(request, accept, chosen)
        hub = hub_of(self._pump.work, name)
        session = hub.connect(
            wire,
            connection,
            user_id=identity.user_id,
            permissions=identity.permissions,
            groups=identity.groups,
            connection_id=connection_id,
        )
        session.upstream = letters
        if identity.state:
            session.state.update(identity.state)
        return self._started(request, connection, session)

    def _claims(self, request: web.Request, name: str) -> Claims:
        token = request.query.get("access_token")
        if token is None:
            scheme, _, value = request.headers.get("Authorization", "").partition(" ")
            token = value.strip() if scheme.lower() == "bearer" else None
        if not token:
            if self._allow_anonymous:
                return Claims(None, (), (), {})
            raise Refused(401, "no access token: pass it as the query parameter access_token or as a bearer token")
        try:
            return self._tokens.check(token, self._audiences(request.host, name))
        except TokenRejected as error:
            raise Refused(401, str(error)) from None

    async def _identify(
        self,
        request: web.Request,
        claims: Claims,
        hub: str,
        connection_id: str,
        offered: List[str],
        letters: Correspondence,
    ) -> _Identity:
        """Let the connect handler have its say about what the token grants."""
        _check_groups(claims.groups, 400)
        hidden = {key.lower() for key in _HIDDEN_HEADERS}
        try:
            reply = await self._dispatcher.connect(
                ConnectRequest(
                    hub,
                    connection_id,
                    claims.user_id,
                    claims.roles,
                    claims.groups,
                    claims.raw,
                    {key: request.query.getall(key) for key in request.query if key not in _HIDDEN_QUERY},
                    {key: request.headers.getall(key) for key in request.headers if key.lower() not in hidden},
                    tuple(offered),
                    _client_certificates(request),
                ),
                letters,
            )
        except RefuseConnection as error:
            raise Refused(error.status, error.reason) from None
        user_id, roles, groups = claims.user_id, claims.roles, claims.groups
        subprotocol = state = None
        if reply is not None:
            user_id = user_id if reply.user_id is None else reply.user_id
            roles = roles if reply.roles is None else tuple(reply.roles)
            if reply.groups:
                groups = tuple(reply.groups)
                _check_groups(groups, 500)
            subprotocol, state = reply.subprotocol, reply.state
        try:
            permissions = Permissions(roles)
        except ValueError as error:
            raise Refused(400 if reply is None or reply.roles is None else 500, str(error)) from None
        return _Identity(user_id, permissions, groups, subprotocol, state)

    # --- a lost connection that comes back ----------------------------------------------------------------------------

    def _recover(self, request: web.Request, accept: bytes, hub: str, offered: List[str]) -> web.StreamResponse:
        """Continue a session; a refusal is an accepted WebSocket that is closed 1008 (protocol reference 1.6)."""
        pump = self._pump
        query = request.query
        connection_id, token = query["awps_connection_id"], query["awps_reconnection_token"]
        # Not `hub_of`: whoever asks has proved nothing yet, and must not be able to make hubs.
        found = pump.work.hubs.get(hub)
        retained = None if found is None else found.sessions.get(connection_id)
        chosen = choose(offered)
        if retained is not None and retained.wire.subprotocol in offered:
            chosen = retained.wire.subprotocol  # the original one is kept, whatever else is offered
        connection = self._upgrade(request, accept, chosen)
        try:
            if self._faults.take_refused_recovery():
                raise RecoveryRefused("recovery is refused by server.faults")
            if found is None:
                raise RecoveryRefused("no connection in hub %s" % hub)
            session, previous = found.recover(connection_id, token, connection, pump.loop.time())
        except RecoveryRefused as error:
            log.info("refused a recovery: %s", error)
            pump.work.counters["refused_recoveries"] += 1
            connection.close(POLICY, str(error))
            return _Upgraded()
        if previous is not None:
            previous.abort()
        log.info("recovered %s", session)
        return self._started(request, connection, session)

    # --- the upgrade --------------------------------------------------------------------------------------------------

    def _upgrade(self, request: web.Request, accept: bytes, subprotocol: Optional[str]) -> Connection:
        """Answer 101 and take the transport; from here on aiohttp has nothing to do with it."""
        transport: Any = request.transport
        try:
            gone = transport is None or transport.is_closing()
            if not gone:
                transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_LOW)
        except AttributeError:
            gone = True  # asyncio before 3.11: what a TLS transport says when its connection is lost
        if gone:
            raise Refused(499, "the client has gone")
        answer = [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"]
        answer.append(b"Sec-WebSocket-Accept: " + accept + b"\r\n")
        if subprotocol is not None:
            answer.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode("ascii") + b"\r\n")
        answer.append(b"\r\n")
        transport.write(b"".join(answer))
        connection = Connection(self._pump)
        transport.set_protocol(connection)
        protocol: Any = request.protocol
        protocol.transport = None  # or the next call would close it
        protocol.connection_lost(None)
        connection.connection_made(transport)
        return connection

    def _started(self, request: web.Request, connection: Connection, session: Any) -> web.StreamResponse:
        connection.session = session
        # Frames that came in the same piece as the request, before the client could know the answer.
        early = getattr(request.protocol, "_message_tail", b"")
        if early:
            connection.data_received(bytes(early))
        self._pump.wake()
        return _Upgraded()


def _refusal(status: int, text: str) -> web.Response:
    """Return an answer; what the text repeats of a request need not have a UTF-8 form."""
    body = text.encode("utf-8", "backslashreplace")
    return web.Response(status=status, body=body, content_type="text/plain", charset="utf-8")


def _accept_key(request: web.Request) -> bytes:
    """Return the value of Sec-WebSocket-Accept. Raises Refused unless this is an upgrade (RFC 6455 section 4.2.1)."""
    headers = request.headers
    tokens = {item.strip().lower() for value in headers.getall("Connection", []) for item in value.split(",")}
    if request.method != "GET" or "upgrade" not in tokens or headers.get("Upgrade", "").strip().lower() != "websocket":
        raise Refused(400, "this address is for WebSocket clients: GET with Connection: Upgrade and Upgrade: websocket")
    if headers.get("Sec-WebSocket-Version", "").strip() != "13":
        raise Refused(400, "Sec-WebSocket-Version must be 13")
    try:
        return accept_value(headers.get("Sec-WebSocket-Key", "").strip()).encode("ascii")
    except ValueError as error:
        raise Refused(400, str(error)) from None


def _offered(request: web.Request) -> List[str]:
    values = request.headers.getall("Sec-WebSocket-Protocol", [])
    names = [item.strip() for value in values for item in value.split(",")]
    return [name for name in names if _TOKEN.match(name)]  # anything else is no name, and could not be answered


def _client_certificates(request: web.Request) -> Tuple[ClientCertificate, ...]:
    """Return the certificate that the client showed; only a server whose TLS context asks for one gets any."""
    connection: Any = request.get_extra_info("ssl_object")
    found = None if connection is None else connection.getpeercert(binary_form=True)
    if not found:
        return ()
    return (ClientCertificate(hashlib.sha1(found).hexdigest(), ssl.DER_cert_to_PEM_cert(found)),)


def _raw_mode(request: web.Request) -> RawMode:
    """Return what the query says about the frames of a simple client; the last of repeated values wins."""
    query = request.query
    mode = query.getall("webpubsub_mode", ["sendEvent"])[-1]
    echo = query.getall("noEcho", ["false"])[-1].lower()
    if echo not in ("true", "false"):
        raise Refused(400, "noEcho must be true or false")
    if mode.lower() == "sendevent":
        return RawMode()
    if mode.lower() != "sendtogroup":
        raise Refused(400, "webpubsub_mode must be sendEvent or sendToGroup")
    group = query.getall("group", [""])[-1]
    _check_groups((group,), 400)
    return RawMode(group, echo == "true")


def _check_groups(groups: Tuple[str, ...], status: int) -> None:
    for group in groups:
        if not group.strip() or len(group) > MAX_GROUP_NAME:
            raise Refused(status, "a group name has 1 to %d characters, not %d" % (MAX_GROUP_NAME, len(group)))
