"""Offsets of recovering servers: recognised by form and time, and nothing else taken for one (W8, section 2.12)."""

from __future__ import annotations

import pytest

from simplepubsub.socketio.offsets import looks_like_offset, split_offset

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"
NOW = 1_795_000_000.0
DAY = 86400


def yeast(seconds: float) -> str:
    number, text = int(seconds * 1000), ""
    while number:
        number, digit = divmod(number, 64)
        text = DIGITS[digit] + text
    return text


def mongo(seconds: float) -> str:
    return "%08x" % int(seconds) + "ab" * 8


@pytest.mark.parametrize("text", [
    yeast(NOW), yeast(NOW) + ".0", yeast(NOW) + ".1Z", yeast(NOW - DAY + 1), yeast(NOW + DAY - 1),
    "%d-0" % (NOW * 1000), "%d-17" % (NOW * 1000), mongo(NOW), mongo(NOW - 100),
])
def test_offsets(text: str) -> None:
    assert looks_like_offset(text, NOW)


@pytest.mark.parametrize("value", [
    None, 5, b"Q7ztcvp", "", "a", "message", "Welcome", "goodbye.", yeast(NOW)[:6], yeast(NOW) + "x", yeast(NOW) + ".",
    yeast(NOW) + ".0 ", yeast(NOW) + "\n", yeast(NOW - DAY - 1), yeast(NOW + DAY + 1), "%d-0" % (NOW * 500), "1-0",
    mongo(NOW - 2 * DAY), mongo(NOW).upper(), "507f1f77bcf86cd799439011", "x" * 1000,
])
def test_no_offsets(value: object) -> None:
    assert not looks_like_offset(value, NOW)


def test_the_example_of_the_reference_is_of_its_month() -> None:
    november_2026 = 1_794_000_000.0
    assert any(looks_like_offset("Q7ztcvp.1", november_2026 + day * DAY) for day in range(-60, 60))


def test_w8_the_offset_is_taken_from_the_arguments() -> None:
    offset = yeast(NOW)
    args = [{"a": 1}, offset]
    assert split_offset(args, NOW) == ([{"a": 1}], offset)
    assert split_offset([offset], NOW) == ([], offset)
    assert args == [{"a": 1}, offset]


def test_a_volatile_events_own_string_stays_and_is_no_offset() -> None:
    assert split_offset(["v", "a string"], NOW) == (["v", "a string"], None)
    assert split_offset([], NOW) == ([], None)
    assert split_offset([5], NOW) == ([5], None)


def test_strip_by_choice() -> None:
    offset = yeast(NOW)
    assert split_offset([1, offset], NOW, False) == ([1, offset], offset)
    assert split_offset([1, "other"], NOW, True) == ([1], "other")
    assert split_offset([1, "other"], NOW, False) == ([1, "other"], None)
    assert split_offset([1, 2], NOW, True) == ([1, 2], None)
