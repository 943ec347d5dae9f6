"""Event handlers outside the server's own functions: objects with ``handle`` in this process, and URLs.

Both get the same CloudEvents and their answers are read the same way. A call to a URL is retried and bounded in time;
an object is called once, in a worker's thread, for as long as it takes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Callable, Sequence, Set

from ..exceptions import InvalidArgument, RefuseConnection
from .event_routes import EventRoute
from .handlers import ConnectReply, ConnectRequest, Outcome
from .session import Call
from .upstream_events import (
    MAX_CONNECT_ANSWER,
    Answer,
    Correspondence,
    Request,
    connect_request,
    event_request,
    read_connect_answer,
    read_event_answer,
)
from .upstream_http import HttpClient, UpstreamFailure
from .upstream_validation import Timing
from .workers import Workers

__all__ = ["Upstream"]

log = logging.getLogger("simplepubsub.server")

#: Bytes of an answer that nobody reads: enough to keep the connection for the next request.
_IGNORED = 64 * 1024


class Upstream:
    """Turns calls into requests, and their answers into outcomes. Belongs to the server's loop.

    ``origin`` is this server's host as handlers know it, ``keys`` sign.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        workers: Workers,
        origin: str,
        keys: Sequence[str],
        max_message_bytes: int,
        timing: Timing = Timing(),
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._origin = origin
        self._keys = keys
        self._limit = max_message_bytes
        self._http = HttpClient(loop, origin, timing)
        self._tasks: Set["asyncio.Task[None]"] = set()

    def start(self, route: EventRoute, call: Call, done: Callable[[Outcome], None]) -> None:
        """Carry out a call; ``done`` gets its outcome, on the loop and later, unless `reset` comes first."""
        task = self._loop.create_task(self._run(route, call, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, route: EventRoute, call: Call, done: Callable[[Outcome], None]) -> None:
        session = call.session
        if session.upstream is None:
            session.upstream = Correspondence()
        letters: Correspondence = session.upstream
        limit = self._limit if call.event is not None else _IGNORED
        begin = time.monotonic()
        outcome = Outcome()
        text = ""
        try:
            request = event_request(call, letters, self._origin, self._keys)
            answer = await self._exchange(route, request, letters, limit, call.event is not None)
            if call.event is not None:
                outcome = read_event_answer(answer, self._limit)
                text = outcome.error or ""
            elif not answer.ok:
                text = "it answered %d" % answer.status
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%s: %d after %.3f s", _shown(route, call), answer.status, time.monotonic() - begin)
        except UpstreamFailure as error:
            text = str(error)
            outcome = Outcome(error=error.told)
        except InvalidArgument as error:
            text = "the event cannot be sent: %s" % error
            outcome = Outcome(error=text)
        except asyncio.CancelledError:  # an Exception until Python 3.8
            raise
        except Exception:  # a fault of ours: the connection's other events must not wait for this one for ever
            log.exception("%s failed", _shown(route, call))
            outcome = Outcome(error="the event handler could not be called")
        if text:
            log.warning("%s failed after %.3f s: %s", _shown(route, call), time.monotonic() - begin, text)
        done(outcome)

    async def connect(self, route: EventRoute, request: ConnectRequest, letters: Correspondence) -> ConnectReply:
        """Ask a handler whether a client may connect. Raises RefuseConnection: its 4xx, 500 for any failure."""
        try:
            event = connect_request(request, letters, self._origin, self._keys)
            answer = await self._exchange(route, event, letters, MAX_CONNECT_ANSWER, True)
        except (UpstreamFailure, InvalidArgument) as error:
            log.error("connect at %s failed: %s", route.name, error)
            told = error.told if isinstance(error, UpstreamFailure) else "the event cannot be sent"
            raise RefuseConnection(500, told) from None
        return read_connect_answer(answer, request)

    async def _exchange(
        self, route: EventRoute, request: Request, letters: Correspondence, limit: int, needs_body: bool
    ) -> Answer:
        """Return the answer of a handler. Raises UpstreamFailure."""
        if route.template is not None:
            return await self._http.post(route, request, letters, limit, needs_body)
        handler = route.handler
        try:
            result = await self._workers.run(lambda: handler.handle("POST", dict(request.headers), request.body))
        except Exception as error:
            log.error("%s.handle raised at %s", route.name, request.name, exc_info=error)
            raise UpstreamFailure("%s.handle raised %s" % (route.name, type(error).__name__)) from None
        return _answer(route, result)

    async def drained(self, timeout: float) -> None:
        """Wait until no call is left, at most that many seconds."""
        end = self._loop.time() + timeout
        while self._tasks and self._loop.time() < end:
            await asyncio.wait(list(self._tasks), timeout=end - self._loop.time())
            await asyncio.sleep(0)  # the next call of a connection begins where the one before it is done

    async def reset(self) -> None:
        """Cut off every call, and leave no connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._http.reset()


def _answer(route: EventRoute, result: Any) -> Answer:
    """Return what ``handle`` returned as an answer. Raises UpstreamFailure when it is not one."""
    try:
        status, headers, body = result
        return Answer(int(status), {str(key).lower(): str(value) for key, value in dict(headers).items()}, bytes(body))
    except (TypeError, ValueError):
        text = "%s.handle must return (status, headers, body), not %s" % (route.name, ascii(result)[:100])
        raise UpstreamFailure(text) from None


def _shown(route: EventRoute, call: Call) -> str:
    name = call.kind if call.event is None else call.event.event
    return "%s of %s at %s" % (name, call.session.connection_id, route.name)
