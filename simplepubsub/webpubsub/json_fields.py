"""The pieces that JSON messages of Web PubSub are made of: payloads, numbers, group names, errors.

Shared by the modules that read and write whole messages, so that every kind of message has the same rules. Pure
functions, safe from any thread.

Two measured choices (CPython 3.11, 227-byte message): frames are read by the C scanner of the standard library called
directly (1.0 us, ``json.loads`` 2.0 us), and written by joining pieces around the C string encoder. ``orjson`` reads in
0.5 us but turns integers beyond 64 bits into floats and NaN into null without a word, so it is not used.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from json.encoder import encode_basestring as quote
from typing import Any, Dict, NoReturn, Optional, Tuple, Union

from ..exceptions import InvalidArgument, RemoteProtocolError
from .messages import MAX_GROUP_NAME
from .protobuf_fields import is_message_object, pack_any

__all__ = [
    "EVENT_NAME",
    "MAX_UINT64",
    "check_bytes",
    "check_event_name",
    "check_group_name",
    "check_text",
    "decode_data",
    "encode_data",
    "encode_json",
    "load",
    "one_line",
    "quote",
    "read_event",
    "read_group",
    "read_object",
    "read_payload",
    "read_uint64",
    "shown",
]

#: Ack ids and sequence ids are unsigned 64-bit integers (client specification 3.1, 3.2).
MAX_UINT64 = 2**64 - 1

#: A user event: a letter, then letters, digits, "_", ".", "-"; at most 128 characters.
EVENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,127}\Z")

#: Controls, line ends, marks that turn text round, and halves of characters.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _reject_constant(name: str) -> NoReturn:
    raise ValueError("%s is not JSON" % name)


_raw_decode = json.JSONDecoder(parse_constant=_reject_constant).raw_decode
_dump = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def load(text: str) -> Any:
    """Return the JSON value of a text. Raises ValueError or RecursionError."""
    value, end = _raw_decode(text, 0) if text[:1] == "{" else (None, -1)
    if end != len(text):
        # White space around the object, or not an object at all: the slow way says which.
        value = json.loads(text, parse_constant=_reject_constant)
    return value


# --- payloads ---------------------------------------------------------------------------------------------------------


def encode_data(data: Any, data_type: str) -> str:
    """Return the JSON text of a payload.

    Raises InvalidArgument when ``data`` does not fit ``data_type``: "text" takes str, "binary" takes bytes-like
    objects, "protobuf" a serialised ``google.protobuf.Any`` or a message object of the protobuf library, "json" takes
    what JSON can carry (no NaN, no cycles, no lone surrogates).
    """
    if data_type == "text":
        return quote(check_text(data))
    if data_type == "json":
        return encode_json(data)
    return '"%s"' % base64.b64encode(check_bytes(data, data_type)).decode("ascii")


def check_text(data: Any) -> str:
    """Return a payload of the type "text". Raises InvalidArgument."""
    if not isinstance(data, str):
        raise InvalidArgument(
            "data of type %s cannot be sent as text: pass a str, or data_type='json'" % type(data).__name__
        )
    return data


def encode_json(data: Any) -> str:
    """Return the JSON text of a payload of the type "json". Raises InvalidArgument."""
    if data is None:
        raise InvalidArgument("data None cannot be sent as JSON: the service refuses a bare null")
    try:
        return _dump(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            "data of type %s cannot be sent as JSON (%s): pass dict, list, str, int, finite float, bool or None"
            % (type(data).__name__, error)
        ) from error


def check_bytes(data: Any, data_type: str) -> Union[bytes, bytearray]:
    """Return a payload of the type "binary" or "protobuf". Raises InvalidArgument."""
    if isinstance(data, (bytes, bytearray)):
        return data
    if isinstance(data, memoryview):
        return data.tobytes()  # a view may skip elements, which base64 cannot read
    if data_type == "protobuf" and is_message_object(data):
        return pack_any(data)
    raise InvalidArgument(
        "data of type %s cannot be sent as %s: pass bytes, bytearray or memoryview%s"
        % (type(data).__name__, data_type, ", or a protobuf message" if data_type == "protobuf" else "")
    )


def decode_data(data: Any, data_type: str) -> Any:
    """Return the payload that ``data`` of a message stands for. Raises RemoteProtocolError (1007)."""
    if data_type == "json":
        return data
    if not isinstance(data, str):
        raise RemoteProtocolError("data of type %s must be a JSON string" % data_type, code=1007)
    if data_type == "text":
        return data
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise RemoteProtocolError("data of type %s is not base64" % data_type, code=1007) from None


# --- fields of a message ----------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """Return a value from the wire for an error text: quoted, ASCII, short enough for a close reason."""
    try:
        return ascii(value)[:40]
    except RecursionError:  # it could just be read, and this goes a little deeper
        return "a %s nested too deeply" % type(value).__name__


def one_line(text: str) -> str:
    """Return a text for one line of a log: what would break or colour the line becomes backslash escapes."""
    return _CONTROLS.sub(lambda match: ascii(match.group())[1:-1], text)


def read_uint64(frame: Dict[str, Any], name: str) -> Optional[int]:
    """Return an unsigned 64-bit integer field, None if it is absent. Raises RemoteProtocolError (1007)."""
    value = frame.get(name)
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= 20 and value.isdigit() and value.isascii():
        value = int(value)  # an older page of the documentation shows sequence ids quoted
    if type(value) is not int or not 0 <= value <= MAX_UINT64:
        raise RemoteProtocolError("%s must be an unsigned 64-bit integer" % name, code=1007)
    return value


def read_group(frame: Dict[str, Any]) -> str:
    """Return the group name. Raises RemoteProtocolError (1007)."""
    return check_group_name(frame.get("group"))


def check_group_name(group: Any) -> str:
    """Return the group name that a client sent. Raises RemoteProtocolError (1007)."""
    if not isinstance(group, str) or not group.strip() or len(group) > MAX_GROUP_NAME:
        raise RemoteProtocolError("group must be a name of 1 to %d characters" % MAX_GROUP_NAME, code=1007)
    return group


def read_payload(frame: Dict[str, Any]) -> Tuple[Any, str]:
    """Return (data, data type) of a message that must have data. Raises RemoteProtocolError (1007)."""
    data_type = frame.get("dataType", "json")
    if not isinstance(data_type, str) or data_type.lower() not in ("json", "text", "binary", "protobuf"):
        raise RemoteProtocolError("unknown dataType %s" % shown(data_type), code=1007)
    data_type = data_type.lower()
    if frame.get("data") is None:
        raise RemoteProtocolError("data is missing", code=1007)
    return decode_data(frame["data"], data_type), data_type


def read_event(frame: Dict[str, Any]) -> str:
    """Return the name of a user event. Raises RemoteProtocolError (1007)."""
    return check_event_name(frame.get("event"))


def check_event_name(event: Any) -> str:
    """Return the name of a user event that a client sent. Raises RemoteProtocolError (1007)."""
    if not isinstance(event, str) or not EVENT_NAME.match(event):
        raise RemoteProtocolError("bad event name %s" % shown(event), code=1007)
    return event


def read_object(text: str) -> Dict[str, Any]:
    """Return the object that a frame must be. Raises RemoteProtocolError (1007)."""
    try:
        frame = load(text)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("not JSON: %s" % error, code=1007) from None
    if not isinstance(frame, dict):
        raise RemoteProtocolError("a message must be a JSON object", code=1007)
    return frame
