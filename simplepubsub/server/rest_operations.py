"""The operations of the data plane, by path and method: what a request asks for, put into calls of `operations`.

Every operation takes a `RestCall` and returns a `Reply`; wrong arguments raise RestError or InvalidArgument (400).
Protocol reference 5.2 and 5.3.
"""

from __future__ import annotations

from typing import Any, Awaitable, Callable, Dict, List, NamedTuple, Optional, Tuple, Union
from urllib.parse import urlencode

from aiohttp import web

from ..exceptions import InvalidArgument
from ..webpubsub.access_tokens import client_path
from ..webpubsub.json_fields import shown
from . import operations
from .operations import PERMISSIONS, Selection, check_group
from .paging import DEFAULT_PAGE, Cursors, page_of
from .permissions import Permissions
from .pump import Pump
from .rest_requests import Query, RestError, bad_request, check_names, read_json, read_message, target_of
from .tokens import Tokens

__all__ = ["Backend", "Reply", "RestCall", "ROUTES"]

#: What clients are told when whoever closes them gives no reason (the emulator's words).
DEFAULT_REASON = "Closed by REST API."

MAX_TTL = 300
MAX_INT32 = 2**31 - 1


class Backend(NamedTuple):
    """What the operations work on."""

    pump: Pump
    tokens: Tokens
    cursors: Cursors
    endpoint: str  # the server's own address


class RestCall(NamedTuple):
    """One request. ``path`` holds the parameters in its path, decoded and checked, by their one-letter names."""

    backend: Backend
    request: web.Request
    query: Query
    path: Dict[str, str]

    def selection(self, *, excluded: bool = False, filter: bool = False) -> Selection:
        """Return the connections that the path names, narrowed by the query as far as the operation allows it."""
        path = self.path
        kind = next((kind for kind in ("connection", "group", "user") if kind in path), "hub")
        return Selection(
            path["hub"],
            kind,
            path.get(kind, ""),
            excluded=self.query.many("excluded") if excluded else (),
            filter=self.query.one("filter") if filter else None,
        )


class Reply(NamedTuple):
    """An answer without a body, or with a JSON one."""

    status: int
    body: Optional[Dict[str, Any]] = None


Operation = Callable[[RestCall], Union[Reply, Awaitable[Reply]]]


def _not_found(what: str) -> RestError:
    return RestError(404, "Error.NotFound", "there is no such %s" % what)


# --- sending and closing ----------------------------------------------------------------------------------------------


def _sender(*, excluded: bool = False, filter: bool = False) -> Operation:
    async def send(call: RestCall) -> Reply:
        selection = call.selection(excluded=excluded, filter=filter)
        ttl = call.query.integer("messageTtlSeconds", 0, MAX_TTL) or 0
        pump = call.backend.pump
        limit = pump.work.limits.max_message_bytes
        message = await read_message(call.request, limit, call.path.get("group"), ttl)
        await operations.publish(pump, selection, message)
        return Reply(202)

    return send


def _close(call: RestCall) -> Reply:
    selection = call.selection(excluded="connection" not in call.path)
    reason = call.query.one("reason")
    operations.close(call.backend.pump, selection, DEFAULT_REASON if reason is None else reason)
    return Reply(204)


# --- groups -----------------------------------------------------------------------------------------------------------


def _bulk(change: Callable[[Pump, Selection, List[str]], int]) -> Operation:
    async def change_groups(call: RestCall) -> Reply:
        pump = call.backend.pump
        body = await read_json(call.request, pump.work.limits.max_message_bytes)
        groups = [check_group(group) for group in check_names(body.get("groups"), "groups")]
        change(pump, Selection(call.path["hub"], filter=body.get("filter")), groups)
        return Reply(200)

    return change_groups


def _member(call: RestCall) -> Selection:
    """Return the connection or the user that an operation adds to, or removes from, the group in the path."""
    kind = "connection" if "connection" in call.path else "user"
    return Selection(call.path["hub"], kind, call.path[kind])


def _add(call: RestCall) -> Reply:
    if not operations.join(call.backend.pump, _member(call), [call.path["group"]]):
        raise _not_found("connection" if "connection" in call.path else "user: a user is there while connected")
    return Reply(200)


def _remove(call: RestCall) -> Reply:
    operations.leave(call.backend.pump, _member(call), [call.path["group"]])
    return Reply(204)


def _remove_from_all(call: RestCall) -> Reply:
    operations.leave(call.backend.pump, _member(call))
    return Reply(204)


# --- questions --------------------------------------------------------------------------------------------------------


def _exists(call: RestCall) -> Reply:
    if not call.selection().sessions(call.backend.pump.work):
        raise _not_found(next(kind for kind in ("connection", "group", "user") if kind in call.path))
    return Reply(200)


def _list(call: RestCall) -> Reply:
    query, request = call.query, call.request
    hub, group = call.path["hub"].lower(), call.path["group"]
    size = query.integer("maxpagesize", 1, DEFAULT_PAGE)
    top = query.integer("top", 1, MAX_INT32)
    token = query.one("continuationToken")
    cursors = call.backend.cursors
    after = "" if token is None else cursors.read(token, hub, group)
    wanted = size or DEFAULT_PAGE
    if top is not None:
        wanted = min(wanted, top)
    page, more = page_of(call.selection().sessions(call.backend.pump.work), after, wanted)
    entries: List[Dict[str, str]] = []
    for session in page:
        entry = {"connectionId": session.connection_id}
        if session.user_id is not None:
            entry["userId"] = session.user_id
        entries.append(entry)
    body: Dict[str, Any] = {"value": entries}
    if more and (top is None or top > wanted):
        version = query.one("api-version")
        values: List[Tuple[str, Any]] = [] if version is None else [("api-version", version)]
        if size is not None:
            values.append(("maxpagesize", size))
        if top is not None:
            values.append(("top", top - wanted))
        values.append(("continuationToken", cursors.make(hub, group, page[-1].connection_id)))
        where = (request.scheme, request.host, target_of(request)[0], urlencode(values))
        body["nextLink"] = "%s://%s%s?%s" % where
    return Reply(200, body)


# --- rights and tokens ------------------------------------------------------------------------------------------------


def _permission(action: str, success: int) -> Operation:
    def permit(call: RestCall) -> Reply:
        names = {name.lower(): name for name in PERMISSIONS}
        permission = names.get(call.path["permission"].lower())
        if permission is None:
            given = shown(call.path["permission"])
            raise bad_request("permission must be %s, not %s" % (" or ".join(PERMISSIONS), given))
        group = call.query.one("targetName")
        if group is None:
            raise bad_request("targetName is missing: the group that the permission is for")
        hub, connection = call.path["hub"], call.path["connection"]
        answer = operations.permit(call.backend.pump, hub, connection, action, permission, check_group(group))
        if answer is None and action != "revoke":
            raise _not_found("connection")
        if answer is False and action == "check":
            raise RestError(404, "Error.NotFound", "the connection does not have this permission")
        if answer is False:
            raise RestError(409, "Error.Conflict", "the connection has as many permissions as it can have")
        return Reply(success)

    return permit


def _generate_token(call: RestCall) -> Reply:
    query = call.query
    minutes = query.integer("minutesToExpire", 1, MAX_INT32)
    groups = [check_group(group) for group in query.many("group")]
    roles = query.many("role")
    user_id = query.one("userId")
    try:
        Permissions(roles)  # a client whose roles cannot be is refused, and whoever asked for them is not there then
    except ValueError as error:
        raise bad_request("role: %s" % error) from None
    try:
        path = client_path(call.path["hub"], query.one("clientType") or "Default")
    except InvalidArgument:
        raise bad_request("clientType must be Default or MQTT, in any case") from None
    token = call.backend.tokens.make(
        call.backend.endpoint + path,
        user_id=user_id,
        roles=roles,
        groups=groups,
        minutes_to_expire=60 if minutes is None else minutes,
    )
    return Reply(200, {"token": token})


def _health(call: RestCall) -> Reply:
    return Reply(200)


#: Operations by path, below ``/api``, and method. "{x}" stands for any one segment.
ROUTES: Dict[str, Dict[str, Operation]] = {
    "health": {"HEAD": _health, "GET": _health},
    "hubs/{hub}/:generateToken": {"POST": _generate_token},
    "hubs/{hub}/:send": {"POST": _sender(excluded=True, filter=True)},
    "hubs/{hub}/:closeConnections": {"POST": _close},
    "hubs/{hub}/:addToGroups": {"POST": _bulk(operations.join)},
    "hubs/{hub}/:removeFromGroups": {"POST": _bulk(operations.leave)},
    "hubs/{hub}/connections/{connection}": {"HEAD": _exists, "DELETE": _close},
    "hubs/{hub}/connections/{connection}/:send": {"POST": _sender()},
    "hubs/{hub}/connections/{connection}/groups": {"DELETE": _remove_from_all},
    "hubs/{hub}/groups/{group}": {"HEAD": _exists},
    "hubs/{hub}/groups/{group}/:send": {"POST": _sender(excluded=True, filter=True)},
    "hubs/{hub}/groups/{group}/:closeConnections": {"POST": _close},
    "hubs/{hub}/groups/{group}/connections": {"GET": _list},
    "hubs/{hub}/groups/{group}/connections/{connection}": {"PUT": _add, "DELETE": _remove},
    "hubs/{hub}/users/{user}": {"HEAD": _exists},
    "hubs/{hub}/users/{user}/:send": {"POST": _sender(filter=True)},
    "hubs/{hub}/users/{user}/:closeConnections": {"POST": _close},
    "hubs/{hub}/users/{user}/groups": {"DELETE": _remove_from_all},
    "hubs/{hub}/users/{user}/groups/{group}": {"PUT": _add, "DELETE": _remove},
    "hubs/{hub}/permissions/{permission}/connections/{connection}": {
        "PUT": _permission("grant", 200),
        "DELETE": _permission("revoke", 204),
        "HEAD": _permission("check", 200),
    },
}
