"""The server's side of the opening handshake (RFC 6455 section 4.2), on a blocking socket with a deadline."""

from __future__ import annotations

import http
import io
import socket
from email.utils import formatdate
from http.client import HTTPException, parse_headers
from typing import Any, List, Optional, Sequence, Tuple

from .. import version
from ..core.deadline import Deadline
from ..transports.handshake import accept_value
from .messages import Headers, Request, Response

__all__ = ["BadRequest", "accept", "read_request", "response_bytes", "text_response"]

#: Largest request head in bytes.
MAX_HEAD = 64 * 1024


class BadRequest(Exception):
    """The request is answered with this HTTP status and text."""

    def __init__(self, status: int, text: str, headers: Sequence[Tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = list(headers)


def read_request(sock: socket.socket, deadline: Deadline) -> Tuple[Request, bytes]:
    """Return the request and what came after it. Raises BadRequest, OSError (a timeout too), EOFError."""
    data = bytearray()
    end = -1
    while end < 0:
        if len(data) > MAX_HEAD:
            raise BadRequest(431, "the request has more than %d bytes of headers" % MAX_HEAD)
        remaining = deadline.remaining()
        if remaining is not None and remaining <= 0:
            raise socket.timeout("timed out")
        sock.settimeout(remaining)
        more = sock.recv(8192)
        if not more:
            raise EOFError("the client left before its request was complete")
        seen = max(0, len(data) - 3)
        data += more
        end = data.find(b"\r\n\r\n", seen)
    if end + 4 > MAX_HEAD:
        raise BadRequest(431, "the request has more than %d bytes of headers" % MAX_HEAD)
    line, _, rest = bytes(data[: end + 4]).partition(b"\r\n")
    words = line.split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/"):
        raise BadRequest(400, "this is no HTTP request")
    if words[2] != b"HTTP/1.1":
        raise BadRequest(505, "only HTTP/1.1 is spoken here")
    if words[0] != b"GET":
        raise BadRequest(405, "only GET is possible here", [("Allow", "GET")])
    try:
        path = words[1].decode("ascii")
        parsed: Any = parse_headers(io.BytesIO(rest))
        headers = Headers([(str(name), str(value).strip()) for name, value in parsed.items()])
    except HTTPException as error:  # too many of them
        raise BadRequest(431, str(error)) from None
    except ValueError as error:  # UnicodeDecodeError too
        raise BadRequest(400, "the request cannot be understood: %s" % error) from None
    if not path.startswith("/"):
        raise BadRequest(400, "the request target must be a path")
    if any("\r" in value or "\n" in value for value in headers.values()):
        raise BadRequest(400, "a header goes on in the next line (RFC 9112 section 5.2)")
    return Request(path, headers), bytes(data[end + 4 :])


def _words(headers: Headers, name: str) -> List[str]:
    return [word.strip() for word in headers.get(name, "").split(",") if word.strip()]


def offered_subprotocols(request: Request) -> List[str]:
    """Return what the client offers, in its order."""
    return _words(request.headers, "Sec-WebSocket-Protocol")


def accept(request: Request, origins: Optional[Sequence[Optional[str]]]) -> Headers:
    """Return the headers of the answer to an upgrade request. Raises BadRequest when it is none."""
    headers = request.headers
    upgrade = [word.lower() for word in _words(headers, "Upgrade")]
    if "upgrade" not in [word.lower() for word in _words(headers, "Connection")] or "websocket" not in upgrade:
        raise BadRequest(426, "this address is for WebSocket clients", [("Upgrade", "websocket")])
    if headers.get("Sec-WebSocket-Version", "") != "13":
        raise BadRequest(426, "the WebSocket version must be 13", [("Sec-WebSocket-Version", "13")])
    try:
        accepted = accept_value(headers.get("Sec-WebSocket-Key", ""))
    except ValueError as error:
        raise BadRequest(400, str(error)) from None
    if "Host" not in headers:
        raise BadRequest(400, "the Host header is missing")
    if origins is not None and headers.get("Origin") not in origins:
        raise BadRequest(403, "this origin is not allowed")
    return Headers([("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accepted)])


def text_response(status: int, text: str, headers: Sequence[Tuple[str, str]] = ()) -> Response:
    """Return an answer in plain text."""
    content = Headers([("Content-Type", "text/plain; charset=utf-8")])
    for name, value in headers:
        content[name] = value
    return Response(status, content, (text + "\n").encode("utf-8", "replace"))


def response_bytes(response: Response) -> bytes:
    """Return an answer as it goes over the wire; missing headers are added."""
    headers = Headers(response.headers)
    headers.setdefault("Date", formatdate(usegmt=True))
    headers.setdefault("Server", "simplepubsub/" + version.__version__)
    if response.status != 101:
        headers["Content-Length"] = str(len(response.body))
        headers["Connection"] = "close"
    reason = response.reason
    if not reason:
        known = {int(status): status.phrase for status in http.HTTPStatus}
        reason = known.get(response.status, "Unknown")
    lines = ["HTTP/1.1 %d %s" % (response.status, reason)]
    lines += ["%s: %s" % item for item in headers.items()]
    for line in lines:
        if "\r" in line or "\n" in line:
            raise ValueError("a header of the answer contains a line break")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + response.body
