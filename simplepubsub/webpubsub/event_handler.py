"""An event handler ("upstream") for Python web apps: the service posts events to it, functions answer them.

One core without a framework, `EventHandler.handle`, and thin mounts on top of it: WSGI, ASGI, views for Flask and
Django, and the embedded server without HTTP (``server.add_event_handler(handler)``). Protocol reference section 6.
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple, TypeVar, Union, overload

from ..exceptions import InvalidArgument, RefuseEvent
from .arguments import check_event
from .cloud_events import signature_matches
from .connection_string import parse_connection_string
from .event_answers import Answer, answer_connect, answer_text, answer_user_event
from .event_reading import (
    Attributes,
    Headers,
    allowed_origin,
    clean_origin,
    lower_headers,
    read_attributes,
    read_request,
)
from .event_requests import ConnectRequest, EventRequest, UserEventRequest
from .event_views import django_view, flask_view
from .event_wsgi import WsgiApp, answer_wsgi, wsgi_middleware
from .json_fields import one_line

__all__ = ["EventHandler"]

log = logging.getLogger("simplepubsub.event_handler")

Function = TypeVar("Function", bound=Callable[[Any], Any])

#: Twice and more what the largest event (1 MiB) needs when its JSON is written with escapes.
_MAX_BODY_BYTES = 4 * 2**20

_METHODS = "OPTIONS, POST"


class EventHandler:
    """Answers the events of one ``hub``, or of every hub (None).

    Each request must carry a signature made with one of the access keys: ``connection_string``, ``access_key`` and
    ``access_keys`` add up, so that both keys of a resource can be given while they are rotated.
    ``check_signature=False`` is the explicit way to do without; then anybody who reaches the URL can post events. The
    signature covers the connection id only: serve over TLS.

    ``allowed_origins`` are the hosts of the services that may use this handler: "demo.example.test", "*.example.test",
    or "*" for any. None means the host of ``connection_string``, any host without one.

    ``path`` is where the two middlewares look for events, ``/api/webpubsub/hubs/{hub}/`` unless given; the other mounts
    leave paths to the framework. Bodies larger than ``max_body_bytes`` are refused with 413.

    Functions are ordinary blocking ones; they may run in many threads at once, as the web server likes. Register before
    serving or at any time: a registration replaces an earlier one at once, requests under way keep theirs. Every method
    is safe from any thread. Raises InvalidArgument.
    """

    def __init__(
        self,
        hub: Optional[str] = None,
        *,
        connection_string: Optional[str] = None,
        access_key: Optional[str] = None,
        access_keys: Iterable[str] = (),
        check_signature: bool = True,
        allowed_origins: Union[None, str, Iterable[str]] = None,
        path: Optional[str] = None,
        max_body_bytes: int = _MAX_BODY_BYTES,
    ) -> None:
        if hub is not None and (not isinstance(hub, str) or not hub):
            raise InvalidArgument("hub must be the name of a hub, or None for every hub, not %r" % (hub,))
        if isinstance(max_body_bytes, bool) or not isinstance(max_body_bytes, int) or max_body_bytes <= 0:
            raise InvalidArgument("max_body_bytes must be a positive integer, not %r" % (max_body_bytes,))
        self.hub = hub
        self.max_body_bytes = max_body_bytes
        self.path = _clean_path(path, hub)
        keys = _clean_keys(access_key, access_keys)
        if connection_string is not None:
            service = parse_connection_string(connection_string)
            keys.insert(0, service.access_key)
            if allowed_origins is None:
                allowed_origins = service.endpoint
        if check_signature and not keys:
            raise InvalidArgument(
                "no key to check signatures with: pass connection_string, access_key or access_keys "
                "(or check_signature=False, which accepts events from anybody)"
            )
        self._keys = tuple(dict.fromkeys(keys)) if check_signature else ()
        self._origins = _clean_origins(allowed_origins)
        # Read and written by single dict operations only, which are atomic: no lock.
        self._functions: Dict[Tuple[str, str], Callable[[Any], Any]] = {}

    def __repr__(self) -> str:
        signed = "signed" if self._keys else "unsigned"
        return "<EventHandler hub=%r %s, %d functions>" % (self.hub, signed, len(self._functions))

    # --- registration -------------------------------------------------------------------------------------------------

    def on_connect(self, function: Function) -> Function:
        """Let ``function(ConnectRequest)`` decide about every client that wants to connect; usable as a decorator.

        It returns None (the token decides), a `ConnectResponse` or a dict with its keys, or raises `RefuseConnection`.
        Raises InvalidArgument: not callable, or a coroutine function.
        """
        return self._register("system", "connect", function)

    def on_connected(self, function: Function) -> Function:
        """Call ``function(ConnectedRequest)`` after each connect; the result is ignored. See `on_connect`."""
        return self._register("system", "connected", function)

    def on_disconnected(self, function: Function) -> Function:
        """Call ``function(DisconnectedRequest)`` once a client is gone for good; the result is ignored."""
        return self._register("system", "disconnected", function)

    def on_joined(self, function: Function) -> Function:
        """Call ``function(GroupEventRequest)`` when a connection has joined a group; the result is ignored."""
        return self._register("group", "joined", function)

    def on_left(self, function: Function) -> Function:
        """Call ``function(GroupEventRequest)`` when a connection has left a group; the result is ignored."""
        return self._register("group", "left", function)

    @overload
    def on_event(self, event: Function) -> Function: ...

    @overload
    def on_event(self, event: str = "*") -> Callable[[Function], Function]: ...

    @overload
    def on_event(self, event: str, function: Function) -> Function: ...

    def on_event(self, event: Any = "*", function: Any = None) -> Any:
        """Let ``function(UserEventRequest)`` answer a user event, by name without case; usable as a decorator.

        "*", or no name at all, stands for every event without a function of its own; plain WebSocket clients send
        "message". It returns None (nothing is sent back), str, bytes, any JSON value, or a `UserEventResponse`, or
        raises `RefuseEvent`. An event that no function answers fails with 404. Raises InvalidArgument.
        """
        if callable(event) and function is None:
            return self._register("user", "*", event)
        name = event if event == "*" else check_event(event).lower()
        if function is not None:
            return self._register("user", name, function)
        return lambda decorated: self._register("user", name, decorated)

    def _register(self, kind: str, event: str, function: Function) -> Function:
        if not callable(function):
            raise InvalidArgument("an event function must be callable, not %r" % (function,))
        import inspect  # here: an import of milliseconds, which clients need not pay for

        called = getattr(function, "func", function)  # of a functools.partial
        for candidate in (called, getattr(called, "__call__", None)):  # noqa: B004  # the attribute is what we look at
            if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
                raise InvalidArgument(
                    "%r is asynchronous: event functions are ordinary blocking functions, "
                    "which every mount runs in a thread (def instead of async def)" % (function,)
                )
        self._functions[kind, event] = function
        return function

    # --- the core -----------------------------------------------------------------------------------------------------

    def is_mine(self, path: str) -> bool:
        """Return whether a request path, percent-decoded, lies below ``path``; case does not count, as in hub names."""
        return (path.rstrip("/") + "/").lower().startswith(self.path.lower())

    def handle(self, method: str, headers: Headers, body: bytes = b"") -> Answer:
        """Answer one HTTP request with (status, headers, body); blocks as long as the function for its event does.

        ``headers`` is a mapping or (name, value) pairs, in any case. Nothing that a request holds makes this raise:

        - OPTIONS (abuse protection): 200 with ``WebHook-Allowed-Origin``, 400 without an origin, 403 for another one;
        - 405 other methods, 413 a body that is too large, 403 an origin that is not allowed, 401 a bad signature,
          404 another hub, 400 attributes or a body that cannot be read, 415 an unknown content type;
        - 404 a user event that no function answers; 204 any other event without a function;
        - the status of RefuseEvent; 500 when a function fails in any other way, with its traceback in the log only.
        """
        try:
            return self._handle(str(method).upper(), lower_headers(headers), bytes(body or b""))
        except RefuseEvent as refusal:
            log.warning("refused a request: %d, %s", refusal.status, one_line(refusal.reason))
            return answer_text(refusal.status, refusal.reason)

    def _handle(self, method: str, headers: Dict[str, str], body: bytes) -> Answer:
        if method not in ("OPTIONS", "POST"):
            return answer_text(405, "events are posted", Allow=_METHODS)
        origin = allowed_origin(headers.get("webhook-request-origin"), self._origins)
        if origin is None:
            raise RefuseEvent(403, "the origin is not allowed")
        if method == "OPTIONS":
            log.info("the service asked whether it may send events here, and may")
            return 200, {"WebHook-Allowed-Origin": origin, "Allow": _METHODS}, b""
        if len(body) > self.max_body_bytes:
            raise RefuseEvent(413, "the body has more than %d bytes" % self.max_body_bytes)
        attributes = read_attributes(headers)
        if self._keys and not signature_matches(headers.get("ce-signature"), attributes.connection_id, self._keys):
            raise RefuseEvent(401, "the signature is missing or made with another key")
        if self.hub is not None and attributes.hub.lower() != self.hub.lower():
            raise RefuseEvent(404, "events of this hub are not handled here")
        request = read_request(attributes, headers, body)
        function = self._find(attributes)
        if function is None:
            if attributes.kind == "user":
                raise RefuseEvent(404, "no function for the event %s: register one with on_event" % attributes.event)
            return 204, {}, b""
        return self._run(function, request)

    def _find(self, attributes: Attributes) -> Optional[Callable[[Any], Any]]:
        found = self._functions.get((attributes.kind, attributes.event.lower()))
        # Not "or": a callable object may be false, an empty collection for example.
        return self._functions.get((attributes.kind, "*")) if found is None else found

    def _run(self, function: Callable[[Any], Any], request: EventRequest) -> Answer:
        try:
            result = function(request)
            if hasattr(result, "__await__"):
                close = getattr(result, "close", None)
                if close is not None:
                    close()
                raise InvalidArgument("an event function returned %r, which nobody awaits" % (type(result),))
            if isinstance(request, ConnectRequest):
                return answer_connect(result, request)
            return answer_user_event(result, request) if isinstance(request, UserEventRequest) else (204, {}, b"")
        except RefuseEvent as refusal:
            why = one_line(refusal.reason)
            log.info("%s of %r refused: %d, %s", request.event, request.connection_id, refusal.status, why)
            return answer_text(refusal.status, refusal.reason)
        except Exception:  # whatever the application's function raises: the request must be answered
            log.exception("the function for %s of %r failed", request.event, request.connection_id)
            return answer_text(500, "the event handler failed")


    # --- mounts -------------------------------------------------------------------------------------------------------

    def wsgi(self, environ: Dict[str, Any], start_response: Callable[..., Any]) -> List[bytes]:
        """Answer events as a WSGI application, whatever path it is mounted at."""
        return answer_wsgi(self, environ, start_response)

    def wsgi_middleware(self, app: WsgiApp) -> WsgiApp:
        """Return a WSGI application that answers events below ``path`` and passes everything else on to ``app``.

        For Flask: ``app.wsgi_app = handler.wsgi_middleware(app.wsgi_app)``.
        """
        return wsgi_middleware(self, app)

    @property
    def asgi(self) -> Callable[..., Any]:
        """An ASGI application that answers events, whatever path it is mounted at, in threads of its event loop.

        For FastAPI and Starlette: ``app.mount("/events", handler.asgi)``. Needs an asyncio event loop.
        """
        from .event_asgi import asgi_app  # here: nobody else pays for the import of asyncio

        return asgi_app(self)

    def asgi_middleware(self, app: Callable[..., Any]) -> Callable[..., Any]:
        """Return an ASGI application that answers events below ``path`` and passes everything else on to ``app``."""
        from .event_asgi import asgi_middleware

        return asgi_middleware(self, app)

    @property
    def flask_view(self) -> Callable[..., Any]:
        """A view function for ``app.add_url_rule("/events/<event>", view_func=handler.flask_view)``."""
        return flask_view(self)

    @property
    def django_view(self) -> Callable[..., Any]:
        """A view function, exempt from CSRF protection, for ``path("events/<event>", handler.django_view)``."""
        return django_view(self)


def _clean_keys(access_key: Optional[str], access_keys: Iterable[str]) -> List[str]:
    if isinstance(access_keys, str):
        raise InvalidArgument("access_keys must be a sequence of keys: pass a single one as access_key")
    keys = ([] if access_key is None else [access_key]) + list(access_keys)
    if not all(isinstance(key, str) and key for key in keys):
        raise InvalidArgument("an access key must be a str that is not empty")  # without its value: it may be a key
    return keys


def _clean_origins(origins: Union[None, str, Iterable[str]]) -> Tuple[str, ...]:
    values = ["*"] if origins is None else [origins] if isinstance(origins, str) else list(origins)
    if not values or not all(isinstance(value, str) and value.strip() for value in values):
        raise InvalidArgument("allowed_origins must be a host, or several, or '*' for any, not %r" % (origins,))
    return tuple(clean_origin(value) for value in values)


def _clean_path(path: Optional[str], hub: Optional[str]) -> str:
    if path is None:
        return "/api/webpubsub/hubs/%s/" % hub if hub is not None else "/api/webpubsub/hubs/"
    if not isinstance(path, str) or not path.startswith("/"):
        raise InvalidArgument("path must be a str that starts with '/', not %r" % (path,))
    return path.rstrip("/") + "/"
