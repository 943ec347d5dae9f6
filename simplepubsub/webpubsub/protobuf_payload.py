"""Payloads of the protobuf subprotocols, and what all their readers share. Pure functions, safe from any thread."""

from __future__ import annotations

from typing import Any, Optional, Tuple

from google.protobuf.message import DecodeError

from ..exceptions import InvalidArgument, RemoteProtocolError
from ..transports.frames import utf8
from .json_fields import check_bytes, check_text, encode_json, load
from .protobuf_fields import chunk
from .protobuf_schema import AnyMessage

__all__ = ["MALFORMED", "encode_data", "read_ack_id", "read_data", "read_payload"]

#: What reading a bad message raises, depending on the implementation of the library: text that is not UTF-8 is a
#: ValueError, endless nesting in unknown fields a RecursionError. The C++ one of 3.20 only warns of a stray end of a
#: group; where warnings are errors that becomes a SystemError.
MALFORMED = (DecodeError, ValueError, RecursionError, SystemError)


def encode_data(data: Any, data_type: str) -> bytes:
    """Return a payload as a MessageData. Raises InvalidArgument when ``data`` does not fit ``data_type``."""
    if data_type == "text":
        return chunk(b"\x0a", utf8(check_text(data)))
    if data_type == "json":
        return chunk(b"\x22", utf8(encode_json(data)))
    raw = bytes(check_bytes(data, data_type))
    if data_type != "protobuf":
        return chunk(b"\x12", raw)
    # The next receiver's library would refuse the whole message for it.
    if not _is_any(raw):
        raise InvalidArgument("data of type protobuf must be a serialised google.protobuf.Any, or a protobuf message")
    return chunk(b"\x1a", raw)


def _is_any(data: bytes) -> bool:
    try:
        AnyMessage.FromString(data)
    except MALFORMED:
        return False
    return True


def read_data(data: Any) -> Tuple[Any, str]:
    """Return (data, data type) of a MessageData; the type is "" for a kind that this version does not know."""
    kind = data.WhichOneof("kind")
    if kind == "text_data":
        return data.text_data, "text"
    if kind == "json_data":
        return load(data.json_data), "json"
    if kind == "binary_data":
        return data.binary_data, "binary"
    if kind == "protobuf_data":
        return data.protobuf_data, "protobuf"
    return "", ""


def read_payload(command: Any) -> Tuple[Any, str]:
    """Return (data, data type) of a command that must have a payload."""
    data, data_type = read_data(command.data)
    if not data_type or data is None:
        raise RemoteProtocolError("data is missing", code=1007)
    if data_type == "protobuf" and not _is_any(data):
        raise RemoteProtocolError("protobuf_data is not a google.protobuf.Any", code=1007)
    return data, data_type


def read_ack_id(command: Any) -> Optional[int]:
    """Return the ack id of a command, None if no acknowledgement is wanted."""
    return command.ack_id if command.HasField("ack_id") else None
