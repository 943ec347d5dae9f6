"""Calls event handlers: Python functions, objects and URLs alike, one call per connection at a time, in order.

Handlers are ordinary blocking code, or an HTTP server elsewhere; neither ever runs on the server's loop. Calls for one
connection never overlap and keep their order: connected, its events, disconnected. Different connections run side by
side. Whoever handles a call turns it into an `Outcome`; what follows from that is the same for all of them.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any, Callable, Optional, Set

from ..exceptions import InvalidArgument, RefuseConnection, RefuseEvent, RemoteProtocolError
from ..webpubsub.json_fields import one_line
from .event_routes import EventRoute
from .handlers import ClientEvent, ConnectReply, ConnectRequest, Handlers, Outcome, check_reply, outgoing
from .session import Call, Session
from .upstream import Upstream
from .upstream_events import Correspondence
from .work import Work
from .workers import Workers

__all__ = ["Dispatcher"]

log = logging.getLogger("simplepubsub.server")


class Dispatcher:
    """Calls handlers for the pump and for the endpoint. Belongs to the server's loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handlers: Handlers,
        workers: Workers,
        work: Work,
        finished: Callable[[], None],
        upstream: Upstream,
    ) -> None:
        self._loop = loop
        self._handlers = handlers
        self._workers = workers
        self._work = work
        self._finished = finished  # something has been queued, and waiting events may fit now
        self._upstream = upstream
        self._busy: Set[Session] = set()

    def dispatch(self, call: Call) -> None:
        """Start the call, or queue it behind earlier ones of its session."""
        session = call.session
        session.calls.append(call)
        if not session.in_call:
            self._next(session)

    def _next(self, session: Session) -> None:
        session.in_call = False
        while session.calls:
            call = session.calls[0]
            name = call.kind if call.event is None else call.event.event
            handler = self._handlers.find(call.kind, name, session.hub.name)
            if handler is not None:
                session.in_call = True
                self._busy.add(session)
                if isinstance(handler, EventRoute):
                    self._upstream.start(handler, call, functools.partial(self._finish, call))
                else:
                    function = functools.partial(handler, ClientEvent(call))
                    self._workers.submit(function, functools.partial(self._done, call))
                return
            session.calls.popleft()
            if call.event is not None:
                text = "no handler for the event %s in hub %s" % (name, session.hub.name)
                log.warning("%s: register one with server.on(%r) or server.add_event_handler", text, name)
                session.hub.finish_event(session, call.event, None, text, self._loop.time())
        self._busy.discard(session)
        self._finished()

    def _done(self, call: Call, result: Any, error: Optional[BaseException]) -> None:
        """Take over what a function returned, in the worker's thread."""
        outcome = self._outcome(call, result, error)
        try:
            self._loop.call_soon_threadsafe(self._finish, call, outcome)
        except RuntimeError:
            log.debug("the server stopped while a handler ran")

    def _outcome(self, call: Call, result: Any, error: Optional[BaseException]) -> Outcome:
        name = call.kind if call.event is None else call.event.event
        if error is None and result is not None and call.event is not None:
            try:
                return Outcome(outgoing(None, None, result, None, self._work.limits.max_message_bytes))
            except InvalidArgument as problem:
                error = problem
        if error is None:
            return Outcome()
        if isinstance(error, RefuseEvent):
            log.info("the handler of %s refused: %s", name, one_line(error.reason))
            return Outcome(error=error.reason, refused=error.status < 500)
        log.error("the handler of %s failed", name, exc_info=error)
        return Outcome(error="the event handler failed: %s" % type(error).__name__)

    def _finish(self, call: Call, outcome: Outcome) -> None:
        """Let the outcome of a call take effect, then go on with the next one of its session."""
        session = call.session
        if not session.calls or session.calls[0] is not call:
            return  # the server was reset meanwhile
        session.calls.popleft()
        if outcome.state is not None:
            session.state = outcome.state
        if call.event is not None:
            now = self._loop.time()
            try:
                session.hub.finish_event(session, call.event, outcome.reply, outcome.error, now, outcome.refused)
            except RemoteProtocolError as problem:
                session.hub.finish_event(session, call.event, None, str(problem), now)
        self._next(session)

    # --- connect ------------------------------------------------------------------------------------------------------

    async def connect(self, request: ConnectRequest, letters: Correspondence) -> Optional[ConnectReply]:
        """Ask the handler of "connect", if there is one. Raises RefuseConnection: its own, or with 500 if it failed."""
        handler = self._handlers.find("connect", "connect", request.hub)
        if handler is None:
            return None
        if isinstance(handler, EventRoute):
            return await self._upstream.connect(handler, request, letters)
        try:
            return _reply(await self._workers.run(functools.partial(handler, request)), request)
        except RefuseEvent as refusal:
            raise RefuseConnection(refusal.status, refusal.reason) from None
        except asyncio.CancelledError:  # an Exception until Python 3.8
            raise
        except Exception as problem:
            log.error("the connect handler failed", exc_info=problem)
            raise RefuseConnection(500, "the connect handler failed: %s" % type(problem).__name__) from problem

    # --- the end ------------------------------------------------------------------------------------------------------

    async def reset(self) -> None:
        """Forget every call; those over HTTP are cut off, what runs in this process ends by itself, unheard."""
        for session in self._busy:
            session.calls.clear()
            session.in_call = False
        self._busy.clear()
        await self._upstream.reset()


def _reply(result: Any, request: ConnectRequest) -> Optional[ConnectReply]:
    if result is None:
        return None
    reply = ConnectReply(**result) if isinstance(result, dict) else result
    if not isinstance(reply, ConnectReply):
        raise InvalidArgument("a connect handler returns None, a ConnectReply or a dict, not %r" % (result,))
    return check_reply(reply, request)
