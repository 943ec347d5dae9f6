"""P2, inbound: which messages of a reliable session are new, and what is left to acknowledge."""

from __future__ import annotations

from typing import List

from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.core.sequence import SequenceTracker


def test_rising_numbers_are_new_and_count_as_behind_until_acknowledged() -> None:
    tracker = SequenceTracker()
    assert tracker.behind == 0
    assert [tracker.accept(n) for n in (1, 2, 3)] == [True] * 3
    assert (tracker.largest, tracker.behind, tracker.duplicates) == (3, 3, 0)
    tracker.acknowledged = 2
    assert tracker.behind == 1


def test_repeats_after_a_recovery_are_dropped_and_counted() -> None:
    tracker = SequenceTracker()
    for n in (1, 2, 3):
        tracker.accept(n)
    assert [tracker.accept(n) for n in (2, 3, 4)] == [False, False, True]
    assert tracker.duplicates == 2 and tracker.largest == 4


def test_a_repeat_of_what_was_acknowledged_is_acknowledged_again() -> None:
    tracker = SequenceTracker()
    for n in range(1, 6):
        tracker.accept(n)
    tracker.acknowledged = 5
    assert not tracker.accept(3)
    assert tracker.acknowledged == 2 and tracker.behind == 3
    assert not tracker.accept(4)
    assert tracker.acknowledged == 2  # the smaller one decides


def test_a_repeat_of_what_was_not_acknowledged_changes_nothing_but_the_count() -> None:
    tracker = SequenceTracker()
    for n in range(1, 6):
        tracker.accept(n)
    tracker.acknowledged = 2
    assert not tracker.accept(5)
    assert tracker.acknowledged == 2 and tracker.behind == 3


def test_messages_without_a_number_are_always_new() -> None:
    tracker = SequenceTracker()
    assert tracker.accept(0) and tracker.accept(0)
    tracker.accept(5)
    assert tracker.accept(0) and tracker.largest == 5 and tracker.duplicates == 0


def test_a_new_session_counts_from_the_start_and_keeps_the_statistics() -> None:
    tracker = SequenceTracker()
    tracker.accept(7)
    tracker.accept(7)
    tracker.acknowledged = 6
    tracker.reset()
    assert (tracker.largest, tracker.acknowledged, tracker.behind, tracker.duplicates) == (0, 0, 0, 1)
    assert tracker.accept(1)


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8), st.booleans()), max_size=30))
def test_every_message_comes_exactly_once_through_any_repeats(links: List[List[int]]) -> None:
    """The service repeats from what it knows to be acknowledged; our acknowledgements may get lost."""
    tracker = SequenceTracker()
    sent = known = 0  # by the service
    accepted: List[int] = []
    for fresh, received, ack_arrives in links:
        sent += fresh
        for n in list(range(known + 1, sent + 1))[:received]:
            if tracker.accept(n):
                accepted.append(n)
        assert tracker.largest == len(accepted) and 0 <= tracker.behind <= tracker.largest
        if tracker.behind:
            tracker.acknowledged = tracker.largest
            if ack_arrives:
                known = tracker.largest
        assert tracker.behind == 0
    assert accepted == list(range(1, len(accepted) + 1))
