"""Check and normalise what callers pass: every mistake is named at the call, with its value and what is allowed."""

from __future__ import annotations

import re
from typing import Any, Optional
from urllib.parse import parse_qs, urlsplit

from ..exceptions import InvalidArgument, MessageTooLarge
from ..transports.frames import utf8
from ..transports.redact import redact_url
from .json_fields import EVENT_NAME, MAX_UINT64
from .messages import MAX_GROUP_NAME, MAX_MESSAGE_BYTES
from .protobuf_fields import is_message_object

__all__ = [
    "check_ack_id",
    "check_event",
    "check_group",
    "check_size",
    "check_url",
    "encode_checked",
    "name_data_type",
]

_BLANK = re.compile(r"[\x00-\x20\x7f]")
_QUOTED = re.compile(r"'.*'", re.DOTALL)
_HUB_PATH = re.compile(r"/client/hubs/[^/]+/?\Z", re.IGNORECASE)
#: Longest end of a command in bytes: `,"ackId":`, twenty digits, `}`. In protobuf ack id and length need less.
MAX_ENDING = 30

_DATA_TYPES = ("text", "json", "binary", "protobuf")


def check_url(url: Any) -> str:
    """Return a client access URL. Raises InvalidArgument unless it is ws:// or wss:// and names a hub."""
    if not isinstance(url, str):
        raise InvalidArgument("a client access URL must be a str, not %s" % type(url).__name__)
    text: str = url.strip()
    if _BLANK.search(text):
        raise InvalidArgument("the client access URL contains white space or control characters: quote them as %XX")
    try:
        parts = urlsplit(text)
        host = parts.hostname
        parts.port  # noqa: B018  # raises ValueError when it is not a number
    except ValueError as error:
        # What the error quotes may be a password.
        shown = _QUOTED.sub("***", str(error))
        raise InvalidArgument("the client access URL has an unusable host or port: %s" % shown) from None
    if parts.scheme not in ("ws", "wss") or not host:
        raise InvalidArgument(
            "the client access URL %s must start with ws:// or wss:// and name a host" % redact_url(text)
        )
    if not _HUB_PATH.search(parts.path) and not parse_qs(parts.query).get("hub"):
        raise InvalidArgument(
            "the client access URL %s names no hub: expected .../client/hubs/<hub> or .../client?hub=<hub>"
            % redact_url(text)
        )
    return text


def check_group(group: Any) -> str:
    """Return a group name. Raises InvalidArgument unless it has 1 to 1,024 characters, not all blank."""
    if not isinstance(group, str):
        raise InvalidArgument("group must be a str, not %s" % type(group).__name__)
    if not group.strip() or len(group) > MAX_GROUP_NAME:
        raise InvalidArgument(
            "group must have 1 to %d characters that are not all blank, not %d (%.40r)"
            % (MAX_GROUP_NAME, len(group), group)
        )
    return group


def check_event(event: Any) -> str:
    """Return an event name. Raises InvalidArgument unless it is a letter, then letters, digits, "_", "." or "-"."""
    if not isinstance(event, str) or not EVENT_NAME.match(event):
        raise InvalidArgument(
            "event must be a letter followed by up to 127 letters, digits, '_', '.' or '-', not %.60r" % (event,)
        )
    return event


def check_ack_id(ack_id: Any) -> Optional[int]:
    """Return an ack id or None. Raises InvalidArgument unless it is an unsigned 64-bit integer."""
    if ack_id is None:
        return None
    if isinstance(ack_id, bool) or not isinstance(ack_id, int) or not 0 <= ack_id <= MAX_UINT64:
        raise InvalidArgument("ack_id must be None or an integer from 0 to 2**64-1, not %r" % (ack_id,))
    return ack_id


def name_data_type(data: Any, data_type: Any) -> str:
    """Return the wire name of ``data_type``.

    None infers it: str is text, bytes-like is binary, a protobuf message is protobuf, anything else JSON. Raises
    InvalidArgument for an unknown name.
    """
    if data_type is None:
        if isinstance(data, str):
            return "text"
        if isinstance(data, (bytes, bytearray, memoryview)):
            return "binary"
        return "protobuf" if is_message_object(data) else "json"
    name = str(getattr(data_type, "value", data_type)).lower()
    if name not in _DATA_TYPES:
        raise InvalidArgument("unknown data_type %r: use one of %s, or None" % (data_type, ", ".join(_DATA_TYPES)))
    return name


def encode_checked(body: str) -> bytes:
    """Return an encoded command without its end. Raises MessageTooLarge, InvalidArgument for lone surrogates."""
    return check_size(utf8(body))


def check_size(data: bytes) -> bytes:
    """Return an encoded command without its end. Raises MessageTooLarge.

    The limit is 1 MiB for the whole message; `MAX_ENDING` bytes of it are kept for the ack id.
    """
    if len(data) > MAX_MESSAGE_BYTES - MAX_ENDING:
        raise MessageTooLarge(
            "the encoded message has %d bytes, the service accepts %d: send it in parts"
            % (len(data) + MAX_ENDING, MAX_MESSAGE_BYTES),
            size=len(data) + MAX_ENDING,
            limit=MAX_MESSAGE_BYTES,
        )
    return data
