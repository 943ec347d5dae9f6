"""The pieces that protobuf messages are written with: numbers, chunks, and ``google.protobuf.Any``.

Written by hand, because frames are finished by putting a number into bytes that exist already: the ack id under the
engine's mutex, the sequence id once per receiver. Fields go out in the order of their numbers, and without those that
have their default, as other implementations write them. Pure functions, safe from any thread.
"""

from __future__ import annotations

from typing import Any, Optional

from ..exceptions import InvalidArgument

__all__ = ["chunk", "is_message_object", "number", "pack_any", "text", "varint"]

_SMALL = [bytes((value,)) for value in range(128)]


def varint(value: int) -> bytes:
    """Return an unsigned integer in groups of seven bits, the lowest first."""
    if value < 128:
        return _SMALL[value]
    if value < 16384:
        return bytes((value & 127 | 128, value >> 7))
    parts = bytearray()
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def chunk(tag: bytes, data: bytes) -> bytes:
    """Return a field that holds bytes, text or a message; ``tag`` is number * 8 + 2, as one byte."""
    return tag + varint(len(data)) + data


def text(tag: bytes, value: Optional[str]) -> bytes:
    """Return a text field of the service, nothing for empty text.

    A lone surrogate becomes "?": it has no UTF-8 form, and only a JSON peer or the server's own process can send one.
    """
    return chunk(tag, value.encode("utf-8", "replace")) if value else b""


def number(tag: bytes, value: int) -> bytes:
    """Return a number field, nothing for 0; ``tag`` is number * 8, as one byte."""
    return tag + varint(value) if value else b""


def is_message_object(data: Any) -> bool:
    """Return whether ``data`` is a message of the protobuf library, which need not be imported to know it."""
    return hasattr(data, "SerializeToString") and hasattr(data, "DESCRIPTOR") and not isinstance(data, type)


def pack_any(message: Any) -> bytes:
    """Return a message object inside a serialised ``google.protobuf.Any``; one that is an ``Any`` is not packed again.

    Raises InvalidArgument when a required field is missing.
    """
    from google.protobuf.message import EncodeError

    name = message.DESCRIPTOR.full_name
    try:
        value: bytes = message.SerializeToString()
    except EncodeError as error:
        raise InvalidArgument("the %s cannot be serialised: %s" % (name, error)) from error
    if name == "google.protobuf.Any":
        return value
    return chunk(b"\n", b"type.googleapis.com/" + name.encode("ascii")) + (chunk(b"\x12", value) if value else b"")
