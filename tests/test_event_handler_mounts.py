"""The event handler under WSGI (wsgiref.validate looks on) and ASGI (driven by hand): no framework, no socket."""

from __future__ import annotations

import asyncio
import contextvars
import io
import subprocess
import sys
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from simplepubsub.webpubsub import EventHandler, RefuseEvent, UserEventResponse
from tests.helpers import scaled
from tests.test_event_handler import KEY, TEXT, headers_for

Answer = Tuple[int, Dict[str, str], bytes]


@pytest.fixture
def handler() -> EventHandler:
    """An event handler of the hub "plaza" that says in capitals what it was told."""
    made = EventHandler("plaza", access_key=KEY, max_body_bytes=1000)

    @made.on_event("shout")
    def shout(request: Any) -> Any:
        return UserEventResponse(request.data.upper(), state={"n": 1}) if request.data else None

    @made.on_event("odd")
    def odd(request: Any) -> Any:
        raise RefuseEvent(499, "odd")

    @made.on_connect
    def connect(request: Any) -> Any:
        return {"user_id": request.user_id + "!"}

    return made


# ---- WSGI -----------------------------------------------------------------------------------------------------------


class Input(io.BytesIO):
    """A body that arrives in small pieces, and complains when more than the request holds is asked for."""

    def __init__(self, body: bytes, piece: int = 7) -> None:
        super().__init__(body)
        self.piece = piece

    def read(self, size: Optional[int] = -1) -> bytes:
        assert size is not None and size > 0, "an unbounded read may block for ever"
        return super().read(min(size, self.piece))


def call_wsgi(app: Any, method: str, headers: Dict[str, str], body: bytes = b"", *, length: Optional[str] = "",
              check: bool = True, **environ: Any) -> Answer:
    """Return the answer of a WSGI application; `length` "" is the body's own, None sends none."""
    environ = dict({"REQUEST_METHOD": method, "PATH_INFO": "/", "SCRIPT_NAME": "", "QUERY_STRING": ""}, **environ)
    setup_testing_defaults(environ)
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else "HTTP_" + key] = value
    if length is not None:
        environ["CONTENT_LENGTH"] = length or str(len(body))
    environ["wsgi.input"] = Input(body)
    started: List[Any] = []

    def start_response(status: str, pairs: List[Tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        started.append((int(status[:3]), dict(pairs)))
        assert len(status) > 4 and len(dict(pairs)) == len(pairs)
        return lambda data: None

    parts = (validator(app) if check else app)(environ, start_response)
    try:
        content = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    [(status, answered)] = started
    return status, answered, content


def test_wsgi_answers_events(handler: EventHandler) -> None:
    status, headers, body = call_wsgi(handler.wsgi, "POST", headers_for("shout"), "é?".encode())
    assert (status, body) == (200, "É?".encode())
    assert headers == {"Content-Type": TEXT, "Content-Length": "3", "ce-connectionState": "eyJuIjoxfQ=="}
    assert call_wsgi(handler.wsgi, "POST", headers_for("shout")) == (204, {}, b"")
    assert call_wsgi(handler.wsgi, "POST", headers_for("connect", "sys"), b"{}")[2] == b'{"userId": "mina!"}'
    assert call_wsgi(handler.wsgi, "POST", headers_for("odd")) == (
        499, {"Content-Type": TEXT, "Content-Length": "3"}, b"odd")


def test_wsgi_answers_the_other_methods(handler: EventHandler) -> None:
    origin = {"WebHook-Request-Origin": "demo.example.test"}
    # The validator wants a content type with every 200; an empty body has none.
    status, headers, body = call_wsgi(handler.wsgi, "OPTIONS", origin, check=False)
    assert (status, headers["WebHook-Allowed-Origin"], headers["Content-Length"], body) == (200, "*", "0", b"")
    assert call_wsgi(handler.wsgi, "GET", {})[0] == 405
    assert call_wsgi(handler.wsgi, "HEAD", {}, check=False)[2] == b""


def test_wsgi_reads_no_more_than_it_may(handler: EventHandler) -> None:
    def shout(body: bytes, **options: Any) -> Answer:
        return call_wsgi(handler.wsgi, "POST", headers_for("shout"), body, **options)

    assert shout(b"x" * 1000)[0] == 200
    assert shout(b"x" * 1001)[0] == 413
    assert shout(b"x" * 50, length="9999999999999")[0] == 400  # what was announced did not come
    assert shout(b"x" * 50, length="60")[:1] == (400,)
    assert shout(b"x" * 50, length="5")[2] == b"XXXXX"
    assert shout(b"hello", length=None)[0] == 204  # no length: no body
    assert shout(b"hello", length=None, HTTP_TRANSFER_ENCODING="chunked")[0] == 411
    terminated = {"wsgi.input_terminated": True}
    assert shout(b"hello", length=None, **terminated)[2] == b"HELLO"
    assert shout(b"x" * 2000, length=None, **terminated)[0] == 413


@pytest.mark.parametrize("path, script, mine", [
    ("/api/webpubsub/hubs/plaza/", "", True),
    ("/api/webpubsub/hubs/plaza", "", True),
    ("/api/webpubsub/hubs/PLAZA/shout", "", True),
    ("/hubs/plaza/", "/api/webpubsub", True),
    ("/api/webpubsub/hubs/plazaX/", "", False),
    ("/api/webpubsub/hubs/", "", False),
    ("/", "", False),
])
def test_wsgi_middleware_takes_its_path_only(handler: EventHandler, path: str, script: str, mine: bool) -> None:
    def app(environ: Dict[str, Any], start_response: Any) -> List[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"the site"]

    wrapped = handler.wsgi_middleware(app)
    answer = call_wsgi(wrapped, "POST", headers_for("shout"), b"hello", PATH_INFO=path, SCRIPT_NAME=script)
    assert answer[2] == (b"HELLO" if mine else b"the site")


def test_the_path_of_a_handler_can_be_chosen() -> None:
    assert EventHandler("plaza", access_key=KEY, path="/events").is_mine("/events/talk")
    assert EventHandler(access_key=KEY).is_mine("/api/webpubsub/hubs/any/talk")
    assert not EventHandler("plaza", access_key=KEY, path="/events").is_mine("/eventsX")


# ---- ASGI -----------------------------------------------------------------------------------------------------------


async def drive(app: Any, scope: Dict[str, Any], messages: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Run an ASGI application on a list of messages; return what it sent."""
    waiting, sent = list(messages), []  # type: Tuple[List[Any], List[Any]]

    async def receive() -> Dict[str, Any]:
        return waiting.pop(0)

    async def send(message: Dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def run(coroutine: Any) -> Any:
    """Run a coroutine in a loop of its own that leaves no thread (`asyncio.run` of 3.7 and 3.8 does)."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(coroutine, scaled(20)))
    finally:
        executor = getattr(loop, "_default_executor", None)
        if executor is not None:
            executor.shutdown(wait=True)
        loop.close()


def http_scope(method: str, headers: Dict[str, str], path: str = "/") -> Dict[str, Any]:
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "asgi": {"version": "3.0"}, "method": method, "path": path, "headers": pairs}


def pieces(body: bytes, size: int = 7) -> List[Dict[str, Any]]:
    cut = [body[at:at + size] for at in range(0, len(body), size)] or [b""]
    return [{"type": "http.request", "body": piece, "more_body": True} for piece in cut] + [{"type": "http.request"}]


def call_asgi(app: Any, method: str, headers: Dict[str, str], body: bytes = b"", path: str = "/") -> Answer:
    start, end = run(drive(app, http_scope(method, headers, path), pieces(body)))
    assert (start["type"], end["type"]) == ("http.response.start", "http.response.body")
    assert not end.get("more_body") and all(name == name.lower() for name, _ in start["headers"])
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, end["body"]


def test_asgi_answers_events(handler: EventHandler) -> None:
    status, headers, body = call_asgi(handler.asgi, "POST", headers_for("shout"), "é? and more".encode())
    assert (status, body) == (200, "É? AND MORE".encode())
    assert headers == {"content-type": TEXT, "content-length": "12", "ce-connectionstate": "eyJuIjoxfQ=="}
    assert call_asgi(handler.asgi, "POST", headers_for("shout")) == (204, {}, b"")
    assert call_asgi(handler.asgi, "POST", headers_for("connect", "sys"), b"{}")[2] == b'{"userId": "mina!"}'
    assert call_asgi(handler.asgi, "POST", headers_for("shout", ce_signature="sha256=no"), b"x")[0] == 401
    assert call_asgi(handler.asgi, "POST", headers_for("shout"), b"x" * 1001)[0] == 413
    status, headers, body = call_asgi(handler.asgi, "OPTIONS", {"WebHook-Request-Origin": "demo.example.test"})
    assert (status, headers["webhook-allowed-origin"], body) == (200, "*", b"")
    assert call_asgi(handler.asgi, "HEAD", {})[2] == b""


def test_asgi_stops_reading_at_the_limit(handler: EventHandler) -> None:
    endless = [{"type": "http.request", "body": b"x" * 600, "more_body": True}] * 2
    start, _ = run(drive(handler.asgi, http_scope("POST", headers_for("shout")), endless))
    assert start["status"] == 413


def test_asgi_answers_nobody_who_is_gone(handler: EventHandler) -> None:
    called: List[Any] = []
    handler.on_event("shout", called.append)
    messages = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
    assert run(drive(handler.asgi, http_scope("POST", headers_for("shout")), messages)) == []
    assert called == []


def test_asgi_keeps_its_loop_free_while_a_function_blocks(handler: EventHandler) -> None:
    both, variable = threading.Barrier(2), contextvars.ContextVar("variable", default="")
    threads: List[Any] = []

    @handler.on_event("shout")
    def meet(request: Any) -> str:
        threads.append(threading.current_thread())
        both.wait(scaled(10))  # each needs the other to be running
        return variable.get()

    async def two() -> Any:
        variable.set("of the task")
        scope = http_scope("POST", headers_for("shout"))
        return await asyncio.gather(*(drive(handler.asgi, scope, pieces(b"x")) for _ in range(2)))

    assert [sent[1]["body"] for sent in run(two())] == [b"of the task"] * 2
    assert threading.current_thread() not in threads and len(set(threads)) == 2


def test_asgi_follows_the_lifespan_and_takes_no_websockets(handler: EventHandler) -> None:
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    assert run(drive(handler.asgi, {"type": "lifespan"}, messages)) == [
        {"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]
    sent = run(drive(handler.asgi, {"type": "websocket"}, [{"type": "websocket.connect"}]))
    assert sent == [{"type": "websocket.close", "code": 1000}]


def test_asgi_middleware_takes_its_path_only(handler: EventHandler) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the site"})

    wrapped = handler.asgi_middleware(app)
    for path, expected in (("/api/webpubsub/hubs/Plaza/shout", b"HELLO"), ("/", b"the site"),
                           ("/api/webpubsub/hubs/plaza2/", b"the site")):
        assert call_asgi(wrapped, "POST", headers_for("shout"), b"hello", path)[2] == expected


def test_no_event_loop_is_imported_until_asgi_is_used() -> None:
    code = ("import sys; from simplepubsub.webpubsub import EventHandler; handler = EventHandler(access_key='k'); "
            "handler.wsgi; handler.flask_view; assert 'asyncio' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=scaled(60))
