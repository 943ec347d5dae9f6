"""What inputs are made of: pieces that have broken programs before, and ways to break what is whole."""

from __future__ import annotations

import json
import random
from typing import Any, List, Sequence, Tuple, TypeVar

Item = TypeVar("Item")

#: Texts for names, ids and values.
TEXTS = (
    "",
    " ",
    "a",
    "lobby",
    "a.b",
    "..",
    "../..",
    "%2e%2e",
    "%2F",
    "%25",
    "//",
    ";",
    "?",
    "#",
    "\0",
    "a\0b",
    "\r\n",
    "a\r\nX-Injected: 1",
    "\x1b[31m",
    "\x7f",
    "\u0085",
    "\u2028",
    "\u00e9",
    "jos\u00e9",
    "\u4f60\u597d",
    "\U0001f600",
    "\ud800",
    "\udfff",
    "a\udc80b",
    "\ufeff",
    "\u202e",
    "\u212a",
    "\u0130",
    "\u00df",
    "\u00b2",
    "\u0663",
    "e\u0301",
    "'",
    "''",
    '"',
    "\\",
    "\\u0000",
    "{}",
    "{0}",
    "%s",
    "%n",
    "%(a)s",
    "null",
    "None",
    "true",
    "0",
    "-1",
    "1e999",
    "NaN",
    "Infinity",
    "constructor",
    "__proto__",
    "<script>",
    "${jndi}",
    "a" * 127,
    "b" * 1024,
    "c" * 1025,
    " " * 300,
)

NUMBERS: Tuple[Any, ...] = (
    0,
    1,
    2,
    -1,
    127,
    128,
    255,
    256,
    299,
    300,
    301,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**53,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    10**40,
    1.5,
    -0.0,
    1e308,
    True,
    False,
    None,
)

_INTERESTING = (
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\r\n",
    b"\n",
    b'"',
    b"\\",
    b"%00",
    b"%",
    b"{",
    b"[",
    b"}",
    b",",
    b":",
    b"'",
    b";",
    b"=",
    b" ",
    b"\t",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
)


def text(rng: random.Random) -> str:
    """Return a text: nasty, random, or long."""
    kind = rng.randrange(8)
    if kind < 4:
        return rng.choice(TEXTS)
    if kind < 6:
        return "".join(rng.choice(TEXTS)[:40] for _ in range(rng.randrange(4)))
    if kind == 6:
        return "".join(
            chr(rng.choice((rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x110000))))
            for _ in range(rng.randrange(30))
        )
    return rng.choice(TEXTS)[:20] * rng.choice((1, 10, 100))


def value(rng: random.Random, depth: int = 3) -> Any:
    """Return a JSON value."""
    kind = rng.randrange(6 if depth > 0 else 4)
    if kind < 2:
        return text(rng)
    if kind == 2:
        return rng.choice(NUMBERS)
    if kind == 3:
        return rng.choice((True, False, None))
    if kind == 4:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {text(rng): value(rng, depth - 1) for _ in range(rng.randrange(4))}


def nested(rng: random.Random, near: int = 1000) -> str:
    """Return the text of a JSON value that is nested about as deeply as an interpreter can read."""
    depth = rng.choice((10, near // 2, near - rng.randrange(120), near + rng.randrange(50), 20 * near))
    if rng.random() < 0.5:
        return "[" * depth + rng.choice(("", "1", '"a"')) + "]" * rng.choice((depth, depth, depth, depth - 1))
    return '{"a":' * depth + "1" + "}" * depth


def dump(rng: random.Random, data: Any) -> str:
    """Return JSON text, in one of the ways to write it."""
    return json.dumps(data, ensure_ascii=rng.random() < 0.5, separators=rng.choice(((",", ":"), (", ", ": "))))


def break_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return damaged data."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        place = rng.randrange(len(found) + 1)
        kind = rng.randrange(8)
        if kind == 0:
            found[place:place] = rng.choice(_INTERESTING)
        elif kind == 1 and found:
            found[place % len(found)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del found[place : place + rng.choice((1, 1, 2, 8, 1000))]
        elif kind == 3:
            found[place:place] = found[place : place + rng.randrange(1, 30)] * rng.choice((1, 2, 20))
        elif kind == 4 and found:
            found[place % len(found)] = rng.randrange(256)
        elif kind == 5:
            del found[place:]
        elif kind == 6:
            found[place:place] = bytes((rng.randrange(256) for _ in range(rng.randrange(8))))
        else:
            other = rng.randrange(len(found) + 1)
            found[place:place] = found[other : other + rng.randrange(1, 40)]
    return bytes(found)


def break_text(rng: random.Random, data: str) -> str:
    """Return damaged text, which need not have a UTF-8 form."""
    if rng.random() < 0.6:
        return break_bytes(rng, data.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    place = rng.randrange(len(data) + 1)
    return data[:place] + text(rng) + data[place + rng.choice((0, 0, 1, 2, 10)) :]


def pump(rng: random.Random, size: int) -> str:
    """Return a long text that repeats something, for whatever takes time by the square of a length."""
    unit = rng.choice(
        (
            " ",
            "a",
            "%",
            "%41",
            "'",
            "''",
            '"',
            "\\",
            ";",
            "; ",
            "=",
            ",",
            "(",
            "not ",
            "-",
            "0",
            "eyJ",
            "://",
            "\u00e9",
            "\t ",
            "a ",
            "access_token",
            "bearer ",
            "{}",
            "[",
            "&a=",
            "/",
            "..",
            "a.",
        )
    )
    head, tail = rng.choice(("", "a", "%41", "'", '"', "{")), rng.choice(("", "b", "'", "@", ")", "}", "\n"))
    return head + unit * (size // len(unit)) + tail


def some(rng: random.Random, items: Sequence[Item], most: int) -> List[Item]:
    """Return up to ``most`` of the items, repetitions possible."""
    return [rng.choice(items) for _ in range(rng.randrange(most + 1))]
