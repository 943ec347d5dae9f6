"""Binary values inside JSON: taken out for sending, put back on arrival (section 2.5 of the protocol)."""

from __future__ import annotations

import math
from typing import Any, List

from ..exceptions import InvalidArgument

__all__ = ["PLACEHOLDER", "PLACEHOLDER_TEXT", "NotSerializable", "deconstruct", "reconstruct"]

#: The key that marks an object standing for an attachment.
PLACEHOLDER = "_placeholder"

#: The mark in compact JSON. It cannot be part of a string there: inside one the quotes are escaped.
PLACEHOLDER_TEXT = '"_placeholder":true'


class NotSerializable(InvalidArgument, TypeError):
    """The data of a packet holds something that the serializer cannot express (also a ValueError)."""


def deconstruct(data: Any, attachments: List[bytes]) -> Any:
    """Return a copy of ``data`` with placeholders for its bytes, which are appended to ``attachments``.

    Depth first in document order; tuples become lists. Raises ValueError for NaN and the infinities, RecursionError for
    a value that contains itself.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        attachments.append(bytes(data))
        return {PLACEHOLDER: True, "num": len(attachments) - 1}
    if isinstance(data, dict):
        return {key: deconstruct(value, attachments) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [deconstruct(value, attachments) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        raise ValueError("%r is not JSON" % data)
    return data


def reconstruct(data: Any, attachments: List[bytes]) -> Any:
    """Return ``data`` with the attachments in the place of their placeholders, by index; changes it in place.

    An index may appear twice. Raises ValueError for one that is no number or out of range.
    """
    if isinstance(data, dict):
        if data.get(PLACEHOLDER) is True:
            index = data.get("num")
            if isinstance(index, float) and index.is_integer():
                index = int(index)
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(attachments):
                raise ValueError("illegal attachments: placeholder %r of %d" % (index, len(attachments)))
            return attachments[index]
        for key, value in data.items():
            if isinstance(value, (dict, list)):
                data[key] = reconstruct(value, attachments)
    elif isinstance(data, list):
        for position, value in enumerate(data):
            if isinstance(value, (dict, list)):
                data[position] = reconstruct(value, attachments)
    return data
