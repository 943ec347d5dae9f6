"""The door for service clients: the data plane of Web PubSub over HTTP (protocol reference 5).

Finds the operation, checks token and arguments, answers; whatever goes wrong becomes an answer and never an exception
of the loop. The paths are taken apart here and not by aiohttp, which decodes them.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
import secrets
from typing import Any, Awaitable, Callable, Dict, List, Optional, Set, Tuple

from aiohttp import web

from ..exceptions import InvalidArgument
from .endpoint import check_hub_name
from .operations import check_group
from .rest_auth import authorize
from .rest_operations import ROUTES, Backend, Operation, Reply, RestCall
from .rest_requests import Query, RestError, bad_request, segments_of, target_of

__all__ = ["RestEndpoint"]

log = logging.getLogger("simplepubsub.server")

#: The request id of a client, which is returned to it when it is one.
_CLIENT_REQUEST_ID = re.compile(r"[A-Za-z0-9_.\-]{1,128}\Z")

#: Path parameters that may be anything but empty.
_IDS = {"connection": "connection id", "user": "user id"}

_Route = Tuple[List[str], Dict[str, Operation]]


class RestEndpoint:
    """Answers ``/api/...``. ``admit`` delays requests while the server plays dead. Belongs to the server's loop."""

    def __init__(self, backend: Backend, admit: Callable[[], Awaitable[None]]) -> None:
        self._backend = backend
        self._admit = admit
        self._requests: Set[Optional["asyncio.Task[Any]"]] = set()
        self._routes: Dict[int, List[_Route]] = {}
        for pattern, methods in ROUTES.items():
            parts = pattern.split("/")
            self._routes.setdefault(len(parts), []).append((parts, methods))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        task = asyncio.current_task()
        self._requests.add(task)
        headers = {"x-ms-request-id": secrets.token_hex(16)}
        client_id = request.headers.get("x-ms-client-request-id", "")
        if _CLIENT_REQUEST_ID.match(client_id):
            headers["x-ms-client-request-id"] = client_id
        try:
            await self._admit()
            reply = await self._answer(request)
        except InvalidArgument as error:
            reply = _failed(bad_request(str(error)), headers)
        except RestError as error:
            reply = _failed(error, headers)
        except Exception:  # a bug in one operation must not cost the others their server
            log.exception("REST request %s failed", headers["x-ms-request-id"])
            text = "the server failed; its log has the cause under %s" % headers["x-ms-request-id"]
            reply = _failed(RestError(500, "Error.InternalServerError", text), headers)
        finally:
            self._requests.discard(task)
        if reply.status >= 400:
            level = logging.WARNING if reply.status in (401, 500) else logging.INFO
            message = "" if reply.body is None else reply.body["message"]
            log.log(level, "REST %s %s: %d %s", request.method, ascii(request.path)[:200], reply.status, message)
        if reply.body is None or request.method == "HEAD":
            return web.Response(status=reply.status, headers=headers)
        text = json.dumps(reply.body)
        return web.Response(status=reply.status, headers=headers, text=text, content_type="application/json")

    def stop(self) -> None:
        """Give up requests that wait: for receivers that are behind, for a body, or for the end of a fault."""
        for task in self._requests:
            if task is not None:
                task.cancel()

    async def _answer(self, request: web.Request) -> Reply:
        path, query = target_of(request)
        segments = segments_of(path)
        found = self._find(segments[1:])
        if segments[:1] != ("api",) or found is None:
            raise RestError(404, "Error.NotFound", "there is no such address; the operations are below /api/hubs/{hub}")
        methods, parameters = found
        operation = methods.get(request.method)
        if operation is None:
            allowed = ", ".join(sorted(methods))
            text = "%s is not allowed here, but %s" % (ascii(request.method)[1:-1][:40], allowed)
            raise RestError(405, "Error.MethodNotAllowed", text, {"Allow": allowed})
        if parameters:  # all but the question whether the server is there
            authorize(request, self._backend.tokens, self._backend.endpoint)
        _check(parameters)
        reply = operation(RestCall(self._backend, request, Query(query), parameters))
        if inspect.isawaitable(reply):
            reply = await reply
        assert isinstance(reply, Reply)
        return reply

    def _find(self, segments: Tuple[str, ...]) -> Optional[Tuple[Dict[str, Operation], Dict[str, str]]]:
        """Return the operations at a path, by method, and the parameters in it."""
        for parts, methods in self._routes.get(len(segments), ()):
            parameters: Dict[str, str] = {}
            for part, segment in zip(parts, segments):
                if part.startswith("{"):
                    parameters[part[1:-1]] = segment
                elif part != segment:
                    break
            else:
                return methods, parameters
        return None


def _check(parameters: Dict[str, str]) -> None:
    """Raise InvalidArgument or RestError for a parameter of the path that cannot be."""
    for name, value in parameters.items():
        if name == "hub":
            check_hub_name(value)
        elif name == "group":
            check_group(value)
        elif name in _IDS and not value:
            raise bad_request("the %s must not be empty" % _IDS[name])


def _failed(error: RestError, headers: Dict[str, str]) -> Reply:
    headers.update(error.headers)
    headers["x-ms-error-code"] = error.code
    return Reply(error.status, {"code": error.code, "message": str(error)})
