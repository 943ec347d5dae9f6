"""Mount an event handler as an ASGI application or middleware: FastAPI, Starlette, any ASGI server.

The one module outside the server that knows asyncio: it runs in the event loop of somebody else's web server, and hands
the blocking work to threads of that loop. Nothing here blocks, and nothing else of the package imports it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Dict, List, Optional

if TYPE_CHECKING:
    from .event_handler import EventHandler

__all__ = ["asgi_app", "asgi_middleware"]

Scope = Dict[str, Any]
Receive = Callable[[], Awaitable[Dict[str, Any]]]
Send = Callable[[Dict[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def asgi_app(handler: "EventHandler") -> AsgiApp:
    """Return an application that answers requests at any path.

    A plain coroutine function: servers look at what they get to tell the versions of ASGI apart, and uvicorn takes a
    bound method for an application of version 2.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(handler, scope, receive, send)

    return app


async def _answer(handler: "EventHandler", scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request; WebSockets are refused, the lifespan protocol is followed.

    ``handle`` runs in the loop's default executor, with the context variables of this task.
    """
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
    elif scope["type"] == "http":
        body = await _read(receive, handler.max_body_bytes)
        if body is None:
            return
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        call = functools.partial(contextvars.copy_context().run, handler.handle, scope["method"], headers, body)
        status, answered, content = await asyncio.get_running_loop().run_in_executor(None, call)
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answered.items()]
        if status != 204:
            pairs.append((b"content-length", str(len(content)).encode("ascii")))
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})


async def _read(receive: Receive, limit: int) -> Optional[bytes]:
    """Return the body, what is more than ``limit`` of one that is too long, None when the peer is gone."""
    pieces: List[bytes] = []
    size, more = 0, True
    while more and size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        piece = message.get("body", b"")
        pieces.append(piece)
        size += len(piece)
        more = message.get("more_body", False)
    return b"".join(pieces)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def asgi_middleware(handler: "EventHandler", app: AsgiApp) -> AsgiApp:
    """Return an application that answers requests below ``handler.path`` and passes the others on to ``app``."""

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and handler.is_mine(scope["path"]):
            await _answer(handler, scope, receive, send)
        else:
            await app(scope, receive, send)

    return route
