"""What crosses the API of `simplepubsub.websockets`: messages, handshakes, states."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

from ..exceptions import InvalidArgument
from ..transports.frames import BINARY, CONT, MAX_CONTROL_PAYLOAD, TEXT, Frame, utf8
from .exceptions import ConnectionClosedOK

__all__ = ["Data", "Headers", "Request", "Response", "State", "check_close", "control_payload", "frames_of"]
__all__ += ["until_closed"]

#: A message: str for text, bytes for binary.
Data = Any

Fragment = Tuple[int, Union[str, bytes], bool]


class State(enum.Enum):
    """Where a connection is in its life."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Headers(MutableMapping):  # type: ignore[type-arg]  # a subscript here is not possible on Python 3.7
    """HTTP headers: a dict whose names ignore case; a name that is added again keeps all values, in one line."""

    def __init__(self, headers: Any = ()) -> None:
        self._items: Dict[str, Tuple[str, str]] = {}
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            self.add(name, value)

    def add(self, name: str, value: str) -> None:
        """Append a value; values of one name are joined by commas (RFC 9110 section 5.3)."""
        known = self._items.get(name.lower())
        self._items[name.lower()] = (name, value if known is None else "%s, %s" % (known[1], value))

    def __getitem__(self, name: str) -> str:
        return self._items[name.lower()][1]

    def __setitem__(self, name: str, value: str) -> None:
        self._items[name.lower()] = (name, value)

    def __delitem__(self, name: str) -> None:
        del self._items[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._items.values()])

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return "Headers(%r)" % dict(self._items.values())


class Request(NamedTuple):
    """What the client asked for: ``path`` with its query, and the headers."""

    path: str
    headers: Headers


class Response(NamedTuple):
    """What the server answered, or what ``process_request`` wants it to answer."""

    status: int
    headers: Headers
    body: bytes = b""
    reason: str = ""


def _payload(part: Any, text: Optional[bool]) -> Frame:
    if isinstance(part, str):
        if text is False:
            return BINARY, utf8(part)
        return TEXT, utf8(part)
    if isinstance(part, (bytes, bytearray, memoryview)):
        return (TEXT if text else BINARY), part if type(part) is bytes else bytes(part)
    raise InvalidArgument("a message must be str, bytes-like or an iterable of these, not %s" % type(part).__name__)


def frames_of(message: Any, text: Optional[bool]) -> Union[List[Frame], Iterator[Fragment]]:
    """Return the frame of a message, or an iterator of (opcode, payload, last) for an iterable of parts.

    Raises InvalidArgument, from the iterator too: the parts must be of one kind.
    """
    if isinstance(message, (str, bytes, bytearray, memoryview)):
        return [_payload(message, text)]
    if isinstance(message, Mapping) or not isinstance(message, Iterable):
        raise InvalidArgument(
            "a message must be str, bytes-like or an iterable of these, not %s: to send JSON, pass json.dumps(message)"
            % type(message).__name__
        )
    return _fragments(iter(message), text)


def _fragments(parts: Iterator[Any], text: Optional[bool]) -> Iterator[Fragment]:
    """Yield each part when the next one, or the end, is known; no part at all sends nothing."""
    try:
        first = next(parts)
    except StopIteration:
        return
    opcode, waiting = _payload(first, text)
    kind: type = str if isinstance(first, str) else bytes
    begun = False
    for part in parts:
        if isinstance(part, str) is not (kind is str):
            raise InvalidArgument("the parts of one message must all be str or all be bytes-like")
        yield CONT if begun else opcode, waiting, False
        begun = True
        waiting = _payload(part, text)[1]
    yield CONT if begun else opcode, waiting, True


def until_closed(recv: Callable[[], Data]) -> Iterator[Data]:
    """Yield what ``recv`` returns until the connection has ended normally. Raises what else it raises."""
    while True:
        try:
            message = recv()
        except ConnectionClosedOK:
            return
        yield message


def control_payload(data: Any) -> bytes:
    """Return the payload of a ping or pong. Raises InvalidArgument over 125 bytes."""
    payload = bytes(_payload(data, False)[1])  # type: ignore[arg-type]  # False makes bytes of everything
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise InvalidArgument("a ping carries at most %d bytes, not %d" % (MAX_CONTROL_PAYLOAD, len(payload)))
    return payload


def check_close(code: Any, reason: Any) -> None:
    """Raise InvalidArgument unless a close frame may carry ``code`` and ``reason`` (RFC 6455 sections 5.5, 7.4)."""
    valid = isinstance(code, int) and not isinstance(code, bool)
    if not (valid and (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999)):
        raise InvalidArgument(
            "a close code must be 1000 to 1003, 1007 to 1014 or 3000 to 4999, not %r: for your own use 4000 to 4999"
            % (code,)
        )
    if not isinstance(reason, str):
        raise InvalidArgument("a close reason must be a str, not %s" % type(reason).__name__)
    size = len(utf8(reason))
    if size > MAX_CONTROL_PAYLOAD - 2:
        raise InvalidArgument("a close reason has at most 123 bytes, not %d" % size)
