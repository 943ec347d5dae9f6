"""Turn a message and its content type into the body of a request.

Pure functions, safe from any thread; protocol reference 5.3.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from ..exceptions import InvalidArgument, MessageTooLarge
from .cloud_events import encode_payload
from .messages import MAX_MESSAGE_BYTES

__all__ = ["Payload", "encode_message"]

_JSON = "application/json"
_TEXT = "text/plain"
_BINARY = "application/octet-stream"
_BYTES = (bytes, bytearray, memoryview)


class Payload(NamedTuple):
    """A body and its content type."""

    body: bytes
    content_type: str


def encode_message(message: Any, content_type: Optional[str] = None) -> Payload:
    """Return the body that carries ``message``.

    Without a content type bytes and files are sent as application/octet-stream, all else as application/json. Text and
    octets may be given as str (sent as UTF-8), bytes-like, or a file in text or binary mode, which is read from where
    it stands. Raises InvalidArgument for a content type that the service does not know and for a message that does not
    fit it, MessageTooLarge above 1 MiB.
    """
    readable = callable(getattr(message, "read", None))
    if content_type is None:
        content_type = _BINARY if readable or isinstance(message, _BYTES) else _JSON
    if not isinstance(content_type, str):
        raise InvalidArgument("content_type must be a str, not %s" % type(content_type).__name__)
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (_JSON, _TEXT, _BINARY) or "\r" in content_type or "\n" in content_type:
        raise InvalidArgument(
            "content_type must be %r, %r or %r, not %.80r" % (_JSON, _TEXT, _BINARY, content_type)
        )
    if kind == _JSON:
        if readable or isinstance(message, _BYTES):
            raise InvalidArgument(
                "a message of type %s cannot be sent as JSON: pass content_type='application/octet-stream' or "
                "'text/plain', or decode it first" % type(message).__name__
            )
        body = encode_payload(message, "json")
    else:
        body = _octets(_read(message) if readable else message, kind)
    if len(body) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(
            "the message has more than the %d bytes that the service accepts: send it in parts" % MAX_MESSAGE_BYTES,
            size=len(body),
            limit=MAX_MESSAGE_BYTES,
        )
    return Payload(body, content_type)


def _octets(message: Any, kind: str) -> bytes:
    if isinstance(message, _BYTES):
        return bytes(message)
    if isinstance(message, str):
        try:
            return message.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                "text with the lone surrogate %r cannot be sent: it has no UTF-8 form" % error.object[error.start]
            ) from None
    raise InvalidArgument(
        "a message of type %s cannot be sent as %s: pass str, bytes or a file, or content_type='application/json'"
        % (type(message).__name__, kind)
    )


def _read(file: Any) -> Any:
    """Return what a file holds, at most a little more than the service accepts: a device may never end."""
    pieces: Any = []
    left = MAX_MESSAGE_BYTES + 1
    while left > 0:
        piece = file.read(left)
        if not isinstance(piece, (str, bytes)):
            raise InvalidArgument(
                "read() of the message must return str or bytes, not %s" % type(piece).__name__
            )
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    if not pieces:
        return b""
    return "".join(pieces) if isinstance(pieces[0], str) else b"".join(pieces)
