"""A received stream, message by message: order, repeats, gaps, ends."""

from __future__ import annotations

from typing import Any, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.exceptions import StreamFailed, StreamGap
from simplepubsub.webpubsub.incoming_stream import End, StreamAssembler
from simplepubsub.webpubsub.messages import Message, StreamError, StreamInfo


def message(number: int, data: Any = "x", end: bool = False, error: Optional[StreamError] = None) -> Message:
    return Message("group", "g", data, "text", stream=StreamInfo("s", number, end, error))


def shown(items: List[Any]) -> List[Any]:
    """Fragments as their numbers, gaps as pairs, ends as words."""
    out: List[Any] = []
    for item in items:
        if isinstance(item, Message):
            assert item.stream is not None
            out.append(item.stream.sequence_id)
        elif isinstance(item, StreamGap):
            out.append((item.expected, item.received))
        else:
            out.append("end" if item.error is None else item.error.name)
    return out


FAILED = StreamError("UserError", "model stopped", "E42")

TABLE = [
    ("in order", 1, [(1,), (2,), (3, "", True)], [1, 2, "end"]),
    ("empty", 1, [(1, "", True)], ["end"]),
    ("repeats", 1, [(1,), (1,), (2,), (1,), (2,), (3,)], [1, 2, 3]),
    ("gap", 1, [(1,), (4,), (5,)], [1, (2, 4), 4, 5]),
    ("gap at the beginning", 1, [(3,)], [(1, 3), 3]),
    ("from the middle", 7, [(7,), (8,)], [7, 8]),
    ("gap before the end", 1, [(1,), (4, "", True)], [1, (2, 4), "end"]),
    ("end with data", 1, [(1,), (2, "last", True)], [1, 2, "end"]),
    ("end with binary nothing", 1, [(1, b"", True)], ["end"]),
    ("end with falsy data", 1, [(1, 0, True)], [1, "end"]),
    ("error", 1, [(1,), (2, "", True, FAILED)], [1, "UserError"]),
    ("end with a number seen before", 1, [(1,), (1, "again", True)], [1, "end"]),
    ("after the end", 1, [(1, "", True), (2,), (2, "", True)], ["end"]),
]


@pytest.mark.parametrize("name, first, messages, items", TABLE, ids=[row[0] for row in TABLE])
def test_what_messages_mean(name: str, first: int, messages: Any, items: Any) -> None:
    assembler = StreamAssembler(first)
    got: List[Any] = []
    for arguments in messages:
        got += shown(assembler.accept(message(*arguments)))
    assert got == items
    assert assembler.ended is (items[-1] in ("end", "UserError"))


def test_repeats_are_counted() -> None:
    assembler = StreamAssembler()
    for number in (1, 1, 2, 1):
        assembler.accept(message(number))
    assert assembler.duplicates == 2


def test_an_error_has_everything_that_the_publisher_said() -> None:
    items = StreamAssembler().accept(message(1, "", True, FAILED))
    assert isinstance(items[0], End)
    error = items[0].error
    assert isinstance(error, StreamFailed) and not isinstance(error, StreamGap)
    assert (error.stream_id, error.name, error.message, error.user_error_code) == (
        "s", "UserError", "model stopped", "E42")
    assert "model stopped" in str(error)


@given(st.lists(st.integers(1, 12), max_size=30))
def test_fragments_rise_and_every_hole_is_told(numbers: List[int]) -> None:
    assembler = StreamAssembler()
    seen = 0
    for number in numbers:
        for item in assembler.accept(message(number)):
            if isinstance(item, StreamGap):
                assert item.expected == seen + 1 < item.received == number
                seen = item.received - 1
            else:
                assert isinstance(item, Message) and number == seen + 1
                seen = number
    assert seen == max(numbers, default=0)
