"""The filter language of the data plane: an OData subset, compiled to a predicate over connections.

Grammar (protocol reference 5.4), loosest binding first; words and names in any case:

    or;  and;  eq ne;  gt ge lt le in;  not;  ( ), functions, names, literals

so ``not length(userId) gt 5`` negates a number, which is an error, and ``not (length(userId) gt 5)`` is what was meant.
Everything has a type that is known beforehand, so a filter that compiles cannot fail on a connection. A null (an
anonymous ``userId``, the ``protocol`` of a simple client) goes through string functions; predicates and ``gt ge lt le``
are false on it, ``indexof`` is -1. Pure functions, safe from any thread.
"""

from __future__ import annotations

import operator
import re
from typing import Any, Callable, Dict, List, NamedTuple, NoReturn, Tuple

from ..exceptions import InvalidArgument
from .filter_functions import FUNCTIONS, MAX_INTEGER, NAMES

__all__ = ["FilterError", "MAX_LENGTH", "MAX_NESTING", "compile_filter"]

#: Deepest nesting of parentheses, functions, ``not`` and chained comparisons.
MAX_NESTING = 100

#: Longest filter in characters: it is evaluated for every connection of a hub.
MAX_LENGTH = 64 * 1024

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)|(?P<string>'(?:[^']|'')*')|(?P<integer>-?[0-9]+)|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign>[(),])"
)

_BINDING = {"or": 1, "and": 2, "eq": 3, "ne": 3, "gt": 4, "ge": 4, "lt": 4, "le": 4, "in": 4}
_ORDER: Dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
_KEYWORDS = frozenset(_BINDING) | {"not"}
_CONSTANTS: Dict[str, Tuple[str, Any]] = {
    "true": ("a condition", True),
    "false": ("a condition", False),
    "null": ("null", None),
}

Run = Callable[[Any], Any]


class FilterError(InvalidArgument):
    """A filter that cannot be understood; ``position`` is the index of the offending character, from 0."""

    def __init__(self, text: str, position: int) -> None:
        super().__init__("filter, character %d: %s" % (position + 1, text))
        self.position = position


class _Node(NamedTuple):
    """A part of a filter: its kind ("a string", "an integer", "a condition", "null", "groups") and its value."""

    kind: str
    run: Run
    position: int
    depth: int = 1


class _Token(NamedTuple):
    kind: str  # "string", "integer", "word", "sign" or "end"
    text: str
    position: int


def compile_filter(text: str) -> Callable[[Any], bool]:
    """Return the predicate that ``text`` stands for.

    It takes a connection: an object with ``user_id``, ``connection_id``, ``groups`` and ``wire.subprotocol``. Raises
    FilterError, and nothing else, whatever the text.
    """
    if len(text) > MAX_LENGTH:
        raise FilterError("the filter has %d characters, at most %d are allowed" % (len(text), MAX_LENGTH), MAX_LENGTH)
    parser = _Parser(_tokens(text))
    node = parser.expression(0)
    if parser.next.kind != "end":
        parser.fail("an operator (and, or, eq, ne, gt, ge, lt, le, in) or the end")
    if node.kind != "a condition":
        raise FilterError("expected a condition, found %s" % node.kind, node.position)
    return node.run


def _tokens(text: str) -> List[_Token]:
    found: List[_Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            if text[position] == "'":
                raise FilterError("expected a quote (') that ends this string, found the end", position)
            raise FilterError("unexpected character %s" % ascii(text[position]), position)
        if match.lastgroup != "space":
            found.append(_Token(str(match.lastgroup), match.group(), position))
        position = match.end()
    found.append(_Token("end", "", len(text)))
    return found


class _Parser:
    """Precedence climbing over the tokens of one filter."""

    def __init__(self, tokens: List[_Token]) -> None:
        self._tokens = tokens
        self._index = 0
        self._nesting = 0
        self.next = tokens[0]

    def fail(self, expected: str) -> NoReturn:
        """Raise the error about the next token."""
        token = self.next
        found = "the end" if token.kind == "end" else ascii(token.text[:40])
        raise FilterError("expected %s, found %s" % (expected, found), token.position)

    def _advance(self) -> _Token:
        token = self.next
        self._index += 1
        self.next = self._tokens[min(self._index, len(self._tokens) - 1)]
        return token

    def _is_sign(self, sign: str) -> bool:
        return self.next.kind == "sign" and self.next.text == sign

    def _take_sign(self, sign: str, expected: str) -> None:
        if not self._is_sign(sign):
            self.fail(expected)
        self._advance()

    def _operator(self) -> str:
        return self.next.text.lower() if self.next.kind == "word" else ""

    def expression(self, floor: int) -> _Node:
        """Parse operators that bind at least as tightly as ``floor``."""
        left = self._operand()
        while True:
            word = self._operator()
            binding = _BINDING.get(word, -1)
            if binding < max(floor, 1):
                return left
            if word in ("and", "or"):
                parts = [_condition(left, word)]
                while self._operator() == word:
                    self._advance()
                    parts.append(_condition(self.expression(binding + 1), word))
                left = _all_of(parts) if word == "and" else _any_of(parts)
            else:
                at = self._advance().position
                if word == "in":
                    left = self._membership(left)
                else:
                    left = _comparison(left, word, self.expression(binding + 1), at)
            _check_depth(left)

    def _operand(self) -> _Node:
        token = self.next
        if token.kind == "string":
            self._advance()
            return _constant("a string", token.text[1:-1].replace("''", "'"), token.position)
        if token.kind == "integer":
            self._advance()
            return _constant("an integer", _integer(token), token.position)
        if token.kind == "sign" and token.text == "(":
            self._enter()
            self._advance()
            node = self.expression(0)
            self._take_sign(")", "an operator or ')'")
            self._nesting -= 1
            return node
        if token.kind != "word":
            self.fail("a name, a value, a function, 'not' or '('")
        word = token.text.lower()
        if word == "not":
            self._enter()
            self._advance()
            node = self._operand()
            self._nesting -= 1
            if node.kind != "a condition":
                text = "'not' needs a condition, found %s; it binds tighter than comparisons: not (...)" % node.kind
                raise FilterError(text, node.position)
            inner = node.run
            return _check_depth(_Node("a condition", lambda item: not inner(item), token.position, node.depth + 1))
        if word in _KEYWORDS:
            self.fail("a name, a value, a function, 'not' or '('")
        self._advance()
        if self._is_sign("("):
            return self._call(word, token)
        if word in _CONSTANTS:
            kind, value = _CONSTANTS[word]
            return _constant(kind, value, token.position)
        if word in NAMES:
            kind, run = NAMES[word]
            return _Node(kind, run, token.position)
        text = "unknown name %s; there are userId, connectionId, groups and protocol" % ascii(token.text[:40])
        raise FilterError(text, token.position)

    def _enter(self) -> None:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise FilterError("nested more than %d deep" % MAX_NESTING, self.next.position)

    def _call(self, name: str, token: _Token) -> _Node:
        """Parse the arguments of a function, from the parenthesis on."""
        function = FUNCTIONS.get(name)
        if function is None:
            text = "unknown function %s; there are %s" % (ascii(token.text[:40]), ", ".join(FUNCTIONS))
            raise FilterError(text, token.position)
        self._enter()
        self._advance()
        arguments: List[_Node] = []
        for index, wanted in enumerate(function.arguments):
            if index >= function.required and self._is_sign(")"):
                break
            if index > 0:
                self._take_sign(",", "',' and %s" % wanted if index < function.required else "',' or ')'")
            node = self.expression(0)
            if node.kind != "null" and node.kind not in wanted:
                raise FilterError("%s needs %s here, found %s" % (name, wanted, node.kind), node.position)
            arguments.append(node)
        self._take_sign(")", "')'")
        self._nesting -= 1
        depth = 1 + max(node.depth for node in arguments)
        return _check_depth(_Node(function.result, _applied(function.apply, arguments), token.position, depth))

    def _membership(self, left: _Node) -> _Node:
        """Parse what stands after ``in``: a list of values, or the collection."""
        test = left.run
        if self._operator() == "groups":
            if left.kind not in ("a string", "null"):
                raise FilterError("only a string can be in groups, found %s" % left.kind, left.position)
            self._advance()
            return _Node("a condition", lambda item: test(item) in item.groups, left.position, left.depth + 1)
        if left.kind == "groups":
            raise FilterError("a collection is in no list: length(groups), or 'name' in groups", left.position)
        self._take_sign("(", "groups or '('")
        values = [self._listed(left)]
        while self._is_sign(","):
            self._advance()
            values.append(self._listed(left))
        self._take_sign(")", "',' or ')'")
        chosen = frozenset(values)
        return _Node("a condition", lambda item: test(item) in chosen, left.position, left.depth + 1)

    def _listed(self, left: _Node) -> Any:
        token = self._advance()
        kind = ""
        value: Any = None
        if token.kind == "string":
            kind, value = "a string", token.text[1:-1].replace("''", "'")
        elif token.kind == "integer":
            kind, value = "an integer", _integer(token)
        elif token.kind == "word":
            kind, value = _CONSTANTS.get(token.text.lower(), ("", None))
        if not kind or left.kind not in (kind, "null") and kind != "null":
            wanted = "a value" if left.kind == "null" else left.kind
            found = "the end" if token.kind == "end" else ascii(token.text[:40])
            raise FilterError("expected %s in the list, found %s" % (wanted, found), token.position)
        return value


def _check_depth(node: _Node) -> _Node:
    if node.depth > MAX_NESTING + 1:
        raise FilterError("nested more than %d deep" % MAX_NESTING, node.position)
    return node


def _integer(token: _Token) -> int:
    digits = token.text.lstrip("-").lstrip("0") or "0"
    # Not int() first: that refuses very long ones, of zeros even, with an error of its own.
    if len(digits) > 19 or int(digits) > MAX_INTEGER:
        raise FilterError("an integer has at most 64 bits", token.position)
    return -int(digits) if token.text.startswith("-") else int(digits)


def _constant(kind: str, value: Any, position: int) -> _Node:
    return _Node(kind, lambda item: value, position)


def _condition(node: _Node, word: str) -> _Node:
    if node.kind != "a condition":
        raise FilterError("%r needs conditions on both sides, found %s" % (word, node.kind), node.position)
    return node


def _all_of(parts: List[_Node]) -> _Node:
    tests = [part.run for part in parts]

    def run(item: Any) -> bool:
        for test in tests:
            if not test(item):
                return False
        return True

    return _Node("a condition", run, parts[0].position, 1 + max(part.depth for part in parts))


def _any_of(parts: List[_Node]) -> _Node:
    tests = [part.run for part in parts]

    def run(item: Any) -> bool:
        for test in tests:
            if test(item):
                return True
        return False

    return _Node("a condition", run, parts[0].position, 1 + max(part.depth for part in parts))


def _comparison(left: _Node, word: str, right: _Node, at: int) -> _Node:
    a, b = left.run, right.run
    kinds = {left.kind, right.kind} - {"null"}
    run: Run
    if word in ("eq", "ne"):
        if len(kinds) > 1 or "groups" in kinds:
            raise FilterError("%r cannot compare %s and %s" % (word, left.kind, right.kind), at)
        if word == "eq":
            run = lambda item: a(item) == b(item)  # noqa: E731 - one of many small closures
        else:
            run = lambda item: a(item) != b(item)  # noqa: E731
    else:
        if kinds - {"an integer"}:
            text = "%r compares integers only, found %s and %s" % (word, left.kind, right.kind)
            raise FilterError(text, at)
        compare = _ORDER[word]

        def run(item: Any) -> bool:
            x, y = a(item), b(item)
            return x is not None and y is not None and compare(x, y)

    return _Node("a condition", run, left.position, 1 + max(left.depth, right.depth))


def _applied(function: Callable[..., Any], arguments: List[_Node]) -> Run:
    if len(arguments) == 1:
        only = arguments[0].run
        return lambda item: function(only(item))
    runs = [node.run for node in arguments]
    return lambda item: function(*[run(item) for run in runs])
