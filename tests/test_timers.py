"""The timers of a connection as data: pings, idle detection and sequence acknowledgements without a clock."""

from __future__ import annotations

from typing import List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.core.sequence import ACK_AT_ONCE, ACK_AT_ONCE_BYTES, SequenceTracker
from simplepubsub.core.timers import LAST_CHANCE, SEQUENCE_ACK_INTERVAL, Due, Received, Timers

T = 1000.0  # any moment


def timers(ping: Optional[float] = None, idle: Optional[float] = None) -> Tuple[Timers, SequenceTracker]:
    sequence = SequenceTracker()
    return Timers(T, sequence, ping, idle), sequence


# ---- pings ----------------------------------------------------------------------------------------------------------


def test_without_ping_idle_and_messages_nothing_is_ever_due() -> None:
    made, _ = timers()
    assert made.next_deadline() is None and made.due(T + 10**9) == []


def test_a_ping_is_due_at_its_interval_after_the_last_one() -> None:
    made, _ = timers(ping=20)
    assert made.next_deadline() == T + 20
    assert made.due(T + 19.9) == [] and made.due(T + 20) == [Due.PING]
    assert made.due(T + 21) == [Due.PING]  # until it is done
    made.pinged(T + 21)
    assert made.due(T + 40.9) == [] and made.next_deadline() == T + 41


def test_traffic_does_not_put_off_a_ping() -> None:
    made, _ = timers(ping=20)
    made.received(T + 19, False)
    assert made.due(T + 20) == [Due.PING]


def test_latency_is_the_time_from_a_ping_to_its_pong() -> None:
    made, _ = timers(ping=20)
    assert made.latency is None
    made.received(T + 1, True)  # an answer to nothing
    made.received(T + 2, False)
    assert made.latency is None
    made.pinged(T + 20)
    made.received(T + 20.5, False)
    assert made.latency is None
    made.received(T + 20.75, True)
    assert made.latency == 0.75
    made.received(T + 29, True)
    assert made.latency == 0.75


def test_an_answer_belongs_to_the_oldest_ping_that_waits_for_one() -> None:
    made, _ = timers(ping=1)
    made.pinged(T)
    made.pinged(T + 1)
    made.received(T + 1.5, True)
    assert made.latency == 1.5


# ---- idle -----------------------------------------------------------------------------------------------------------


def test_silence_brings_one_more_ping_and_then_the_end() -> None:
    made, _ = timers(idle=60)
    assert made.next_deadline() == T + 60 and made.due(T + 59.9) == []
    assert made.due(T + 60) == [Due.PING]
    made.pinged(T + 60)
    assert made.next_deadline() == T + 60 + LAST_CHANCE
    assert made.due(T + 60 + LAST_CHANCE - 0.1) == []
    assert made.due(T + 60 + LAST_CHANCE) == [Due.ABORT_IDLE]


@pytest.mark.parametrize("pong", [True, False])
def test_any_sign_of_life_starts_the_idle_time_anew_even_at_the_last_moment(pong: bool) -> None:
    made, _ = timers(idle=60)
    made.received(T + 30, pong)
    assert made.due(T + 89.9) == [] and made.due(T + 90) == [Due.PING]
    made.received(T + 91.9, pong)
    assert made.due(T + 92) == [] and made.next_deadline() == T + 91.9 + 60
    assert made.due(T + 151.9) == [Due.PING]


def test_a_process_that_was_suspended_gets_its_last_chance_and_is_not_cut_at_once() -> None:
    made, _ = timers(ping=20, idle=60)
    assert made.due(T + 5000) == [Due.PING]
    made.pinged(T + 5000)
    made.received(T + 5000.1, True)  # what waited in the socket
    assert made.due(T + 5010) == []


def test_silence_does_not_count_while_we_ourselves_do_not_read() -> None:
    made, _ = timers(idle=60)
    made.paused = True
    assert made.next_deadline() is None and made.due(T + 1000) == []
    made.paused = False
    made.received(T + 1000, False)  # as the reader does when it goes on
    assert made.due(T + 1059) == [] and made.due(T + 1060) == [Due.PING]


def test_a_pause_during_the_last_chance_leaves_nothing_to_wait_for() -> None:
    # The deadline used to stay in the past with nothing due: the supervisor would have asked again without a rest.
    made, _ = timers(idle=60)
    made.due(T + 60)
    made.paused = True
    assert made.next_deadline() is None and made.due(T + 100) == []


# ---- sequence acknowledgements --------------------------------------------------------------------------------------


def test_a_message_is_acknowledged_within_a_second_of_its_receipt() -> None:
    made, sequence = timers()
    assert made.received(T + 1, False) is Received.NOTHING
    sequence.accept(1)
    assert made.received(T + 5, False) is Received.TIMER_SET
    sequence.accept(2)
    assert made.received(T + 5.9, False) is Received.NOTHING  # the second belongs to the first message
    assert made.next_deadline() == T + 5 + SEQUENCE_ACK_INTERVAL
    assert made.due(T + 5.9) == [] and made.due(T + 6) == [Due.SEQUENCE_ACK]
    sequence.acknowledged = sequence.largest
    made.acknowledged()
    assert made.next_deadline() is None and made.due(T + 7) == []
    assert made.received(T + 8, False) is Received.NOTHING
    sequence.accept(3)
    assert made.received(T + 9, False) is Received.TIMER_SET


def test_many_messages_are_acknowledged_at_once() -> None:
    made, sequence = timers()
    sequence.accept(ACK_AT_ONCE - 1)
    assert made.received(T, False) is Received.TIMER_SET
    sequence.accept(ACK_AT_ONCE)
    assert made.received(T, False) is Received.ACK_NOW
    assert made.received(T, False) is Received.ACK_NOW  # until it is done
    sequence.acknowledged = sequence.largest
    made.acknowledged()
    assert made.received(T, False) is Received.NOTHING


def test_large_messages_are_acknowledged_at_once() -> None:
    made, sequence = timers()
    sequence.accept(1)
    assert made.received(T, False, ACK_AT_ONCE_BYTES - 1) is Received.TIMER_SET
    sequence.accept(2)
    assert made.received(T, False, 1) is Received.ACK_NOW
    sequence.acknowledged = 2
    made.acknowledged()
    sequence.accept(3)
    assert made.received(T, False, ACK_AT_ONCE_BYTES - 1) is Received.TIMER_SET  # counted from the acknowledgement


def test_messages_without_numbers_are_never_acknowledged() -> None:
    made, sequence = timers()
    for _ in range(3):
        sequence.accept(0)
        assert made.received(T, False, ACK_AT_ONCE_BYTES) is Received.NOTHING
    assert made.next_deadline() is None


def test_a_repeated_message_is_acknowledged_again() -> None:
    made, sequence = timers()
    sequence.accept(1)
    sequence.acknowledged = 1
    assert not sequence.accept(1)
    assert made.received(T, False) is Received.TIMER_SET


# ---- everything together --------------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(st.floats(0.01, 30), st.sampled_from(["nothing", "message", "pong", "pause", "resume"])), max_size=40
)


@given(steps, st.none() | st.floats(0.5, 20), st.none() | st.floats(0.5, 20))
def test_doing_what_is_due_always_leads_to_a_later_deadline_and_nothing_is_forgotten(
    steps: List[Tuple[float, str]], ping: Optional[float], idle: Optional[float]
) -> None:
    made, sequence = timers(ping, idle)
    now = last_life = last_ping = T
    message_at: Optional[float] = None

    def run(until: float) -> bool:
        """Do as the supervisor does up to a moment; return whether the connection still lives."""
        nonlocal now, message_at, last_ping
        asked = None
        while True:
            deadline = made.next_deadline()
            assert asked is None or deadline is None or deadline > asked, "the supervisor would spin"
            if deadline is None or deadline > until:
                now = until
                return True
            now = asked = max(now, deadline)
            due = made.due(now)
            assert due, "woken for nothing"
            if Due.ABORT_IDLE in due:
                assert idle is not None and not made.paused
                assert now - last_life >= idle + LAST_CHANCE - 1e-6
                return False
            if Due.SEQUENCE_ACK in due:
                assert message_at is not None and now - message_at <= SEQUENCE_ACK_INTERVAL + 1e-6
                message_at = None
                sequence.acknowledged = sequence.largest
                made.acknowledged()
            if Due.PING in due:
                assert ping is not None or idle is not None
                last_ping = now
                made.pinged(now)

    for pause, what in steps:
        if not run(now + pause):
            return
        if what == "message" and not made.paused:
            last_life = now
            sequence.accept(sequence.largest + 1)
            message_at = now if message_at is None else message_at
            made.received(now, False, 100)
        elif what == "pong" and not made.paused:
            last_life = now
            made.received(now, True)
        elif what == "pause":
            made.paused = True
        elif what == "resume" and made.paused:
            made.paused = False
            last_life = now
            made.received(now, False)
        assert message_at is None or now - message_at <= SEQUENCE_ACK_INTERVAL + 1e-6, "acknowledged too late"
        assert ping is None or now - last_ping <= ping + 1e-6, "pinged too late"
        if idle is not None and not made.paused:
            assert now - last_life <= idle + LAST_CHANCE + 1e-6, "a dead connection goes on"
