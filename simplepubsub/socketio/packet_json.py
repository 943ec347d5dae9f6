"""Values to JSON text and attachments, and JSON text to values, by the standard library or a module of the user's."""

from __future__ import annotations

import json as stdlib_json
import re
from typing import Any, Callable, List, NamedTuple, Tuple

from .binary import PLACEHOLDER, NotSerializable, deconstruct

__all__ = ["STDLIB", "JsonCodec", "json_codec"]

class _Binary(Exception):
    """The data holds bytes: leave the fast path."""


def _give_up(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise _Binary
    raise TypeError("%s is not JSON" % type(value).__name__)


_FAST = stdlib_json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_give_up).encode
_SURROGATE = re.compile("[\ud800-\udfff]")


def _dump(data: Any) -> Tuple[str, List[bytes]]:
    """Return the JSON text of ``data`` and its attachments, in document order."""
    try:
        attachments: List[bytes] = []
        try:
            text = _FAST(data)
        except _Binary:
            text = _dump_binary(data, attachments, False)
        if not text.isascii() and _SURROGATE.search(text):
            # Half of a pair is no Unicode and cannot be sent as it is; as an escape it can, and JavaScript does it too.
            del attachments[:]
            text = _dump_binary(data, attachments, True)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSerializable("the data cannot be sent: %s" % error) from error
    return text, attachments


def _dump_binary(data: Any, attachments: List[bytes], ascii_only: bool) -> str:
    def place(value: Any) -> Any:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError("%s is not JSON" % type(value).__name__)
        attachments.append(bytes(value))
        return {PLACEHOLDER: True, "num": len(attachments) - 1}

    # The encoder asks for what it does not know in document order, which is the order of attachments.
    return stdlib_json.JSONEncoder(
        separators=(",", ":"), ensure_ascii=ascii_only, allow_nan=False, default=place
    ).encode(data)


def _no_constant(name: str) -> Any:
    raise ValueError("%s is not JSON" % name)


_DECODER = stdlib_json.JSONDecoder(parse_constant=_no_constant)
_scan = _DECODER.scan_once  # type: ignore[attr-defined]  # what raw_decode() calls, without its wrapper


def _load(text: str, start: int) -> Any:
    try:
        value, end = _scan(text, start)
    except (ValueError, StopIteration):
        end = -1
    if end != len(text):
        value = _DECODER.decode(text[start:])  # for white space around the value, and for the full error
    return value


class _Json:
    """A JSON module that the user chose, with the methods ``dumps`` and ``loads``."""

    def __init__(self, module: Any) -> None:
        self._dumps: Callable[..., Any] = module.dumps
        self._loads: Callable[[str], Any] = module.loads
        self._options = {"separators": (",", ":")}
        try:
            self._dumps([], **self._options)
        except TypeError:
            self._options = {}

    def dump(self, data: Any) -> Tuple[str, List[bytes]]:
        attachments: List[bytes] = []
        try:
            text = self._dumps(deconstruct(data, attachments), **self._options)
        except (TypeError, ValueError, RecursionError) as error:
            raise NotSerializable("the data cannot be sent: %s" % error) from error
        return (text if isinstance(text, str) else bytes(text).decode("utf-8")), attachments

    def load(self, text: str, start: int) -> Any:
        return self._loads(text[start:])


class JsonCodec(NamedTuple):
    """How one serializer writes and reads JSON.

    ``dump`` returns text and attachments, or raises NotSerializable;
    ``load`` reads from an index on, or raises ValueError.
    """

    dump: Callable[[Any], Tuple[str, List[bytes]]]
    load: Callable[[str, int], Any]


STDLIB = JsonCodec(_dump, _load)


def json_codec(module: Any = None) -> JsonCodec:
    """Return the codec for a module or object with ``dumps`` and ``loads``; None is the standard library."""
    if module is None or module is stdlib_json:
        return STDLIB
    chosen = _Json(module)
    return JsonCodec(chosen.dump, chosen.load)
