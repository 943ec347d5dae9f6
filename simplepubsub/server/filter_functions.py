"""Names and functions of the filter language, with what they do to null (protocol reference 5.4).

The kinds of values are named as error texts show them: "a string", "an integer", "a condition", "groups".
"""

from __future__ import annotations

import operator
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

__all__ = ["FUNCTIONS", "MAX_INTEGER", "NAMES", "Function"]

#: Integers have 64 bits.
MAX_INTEGER = 2**63 - 1

#: What a filter may ask of a connection: kind and value, by name in lower case.
NAMES: Dict[str, Tuple[str, Callable[[Any], Any]]] = {
    "userid": ("a string", operator.attrgetter("user_id")),
    "connectionid": ("a string", operator.attrgetter("connection_id")),
    "groups": ("groups", operator.attrgetter("groups")),
    "protocol": ("a string", operator.attrgetter("wire.subprotocol")),
}


class Function(NamedTuple):
    """What a function takes and gives: kinds of its arguments, how many must be there, kind of its value."""

    arguments: Tuple[str, ...]
    required: int
    result: str
    apply: Callable[..., Any]


def _mapped(function: Callable[[str], Any]) -> Callable[[Optional[str]], Any]:
    return lambda text: None if text is None else function(text)


def _tested(function: Callable[[str, str], bool]) -> Callable[[Optional[str], Optional[str]], bool]:
    return lambda text, part: text is not None and part is not None and function(text, part)


def _substring(text: Optional[str], start: Optional[int], count: Optional[int] = MAX_INTEGER) -> Optional[str]:
    if text is None or start is None or count is None:
        return None
    start = max(start, 0)
    return text[start : start + max(count, 0)]


def _indexof(text: Optional[str], part: Optional[str]) -> int:
    return -1 if text is None or part is None else text.find(part)


def _concat(a: Optional[str], b: Optional[str]) -> Optional[str]:
    return None if a is None or b is None else a + b


_ONE, _TWO = ("a string",), ("a string", "a string")

#: By name in lower case. A null may stand for any argument.
FUNCTIONS: Dict[str, Function] = {
    "tolower": Function(_ONE, 1, "a string", _mapped(str.lower)),
    "toupper": Function(_ONE, 1, "a string", _mapped(str.upper)),
    "trim": Function(_ONE, 1, "a string", _mapped(str.strip)),
    "substring": Function(("a string", "an integer", "an integer"), 2, "a string", _substring),
    "startswith": Function(_TWO, 2, "a condition", _tested(str.startswith)),
    "endswith": Function(_TWO, 2, "a condition", _tested(str.endswith)),
    "contains": Function(_TWO, 2, "a condition", _tested(str.__contains__)),
    "indexof": Function(_TWO, 2, "an integer", _indexof),
    "concat": Function(_TWO, 2, "a string", _concat),
    "length": Function(("a string or groups",), 1, "an integer", lambda value: None if value is None else len(value)),
}
