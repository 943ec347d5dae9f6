"""Mount an event handler as a WSGI application or middleware (PEP 3333): Flask, Django, any WSGI server."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Optional

from .event_answers import Answer, answer_text
from .event_reading import Headers

if TYPE_CHECKING:
    from .event_handler import EventHandler

__all__ = ["TO_ITS_END", "WsgiApp", "answer_stream", "answer_wsgi", "body_length", "wsgi_middleware"]

#: The length of a body whose end the web server marks.
TO_ITS_END = "chunked"

WsgiApp = Callable[[Dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def answer_wsgi(handler: "EventHandler", environ: Dict[str, Any], start_response: Callable[..., Any]) -> List[bytes]:
    """Answer one request."""
    headers = {key[5:].replace("_", "-"): value for key, value in environ.items() if key.startswith("HTTP_")}
    if environ.get("CONTENT_TYPE"):
        headers["Content-Type"] = environ["CONTENT_TYPE"]
    method = environ["REQUEST_METHOD"]
    read = environ["wsgi.input"].read
    status, answered, content = answer_stream(handler, method, headers, read, body_length(environ))
    if method == "HEAD":
        content = b""
    pairs = list(answered.items())
    if status != 204:
        pairs.append(("Content-Length", str(len(content))))
    start_response("%d %s" % (status, reason_phrase(status)), pairs)
    return [content] if content else []


def body_length(environ: Dict[str, Any]) -> Optional[str]:
    """Return how much of the body to read, as `answer_stream` takes it."""
    length = environ.get("CONTENT_LENGTH") or ""
    if not length:
        # Without a length reading may block for ever, unless the server says that it marks the end.
        if environ.get("wsgi.input_terminated"):
            return TO_ITS_END
        if environ.get("HTTP_TRANSFER_ENCODING"):
            return None
    return str(length)


def answer_stream(
    handler: "EventHandler", method: str, headers: Headers, read: Callable[[int], bytes], length: Optional[str]
) -> Answer:
    """Return the answer to a request whose body is still to be read, of which no more is read than is needed.

    ``length`` is the header Content-Length: "" is a request without a body, `TO_ITS_END` (or anything else that is no
    number) one that is read until there is no more, None one with a body that the web server cannot take apart.
    """
    if length is None:
        return answer_text(411, "this web server needs a Content-Length")
    known = length.isdigit() and length.isascii()
    limit = handler.max_body_bytes + 1  # one more than allowed, which the handler refuses
    size = int(length[-19:]) if known and not length[:-19].strip("0") else limit  # beyond, int() may refuse
    missing = min(size, limit) if length else 0
    pieces: List[bytes] = []
    while missing > 0:
        piece = read(missing)
        if not piece:
            break
        pieces.append(piece)
        missing -= len(piece)
    if known and missing:
        return answer_text(400, "the body ended early")
    return handler.handle(method, headers, b"".join(pieces))


def reason_phrase(status: int) -> str:
    """Return the words of a status line; a status that has none of its own keeps its class's."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Error" if status < 500 else "Server Error"


def wsgi_middleware(handler: "EventHandler", app: WsgiApp) -> WsgiApp:
    """Return an application that answers requests below ``handler.path`` and passes the others on to ``app``."""

    def route(environ: Dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if handler.is_mine(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")):
            return answer_wsgi(handler, environ, start_response)
        return app(environ, start_response)

    return route
