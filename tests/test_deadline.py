"""P1: one budget per call, on the monotonic clock."""

from __future__ import annotations

import threading
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.core import deadline as module
from simplepubsub.core.deadline import LONGEST, Deadline, check_timeout, wait
from simplepubsub.exceptions import InvalidArgument
from tests.helpers import MS, run_thread, scaled


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 5000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_the_time_left_shrinks_to_zero_and_not_below(clock: Clock) -> None:
    deadline = Deadline(3)
    assert deadline.remaining() == 3 and not deadline.expired()
    clock.now += 2
    assert deadline.remaining() == 1 and not deadline.expired()
    clock.now += 1
    assert deadline.remaining() == 0 and deadline.expired()
    clock.now += 100
    assert deadline.remaining() == 0 and deadline.expired()


def test_no_timeout_never_expires(clock: Clock) -> None:
    deadline = Deadline(None)
    clock.now += 10**12
    assert deadline.remaining() is None and not deadline.expired()


def test_a_timeout_of_zero_is_expired_at_once(clock: Clock) -> None:
    assert Deadline(0).expired() and Deadline(0).remaining() == 0
    assert Deadline(-0.0).expired()


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, LONGEST * 1.01, 10**400, threading.TIMEOUT_MAX * 2], ids=str)
def test_a_limit_beyond_what_the_system_can_wait_for_is_none(timeout: Any) -> None:
    # join() and wait() used to raise OverflowError for such a number in the middle of a stop.
    deadline = Deadline(timeout)
    assert deadline.remaining() is None and not deadline.expired()


@given(st.floats(0, LONGEST))
def test_every_other_time_left_can_be_waited_for(timeout: float) -> None:
    remaining = Deadline(timeout).remaining()
    assert remaining is not None and 0 <= remaining <= timeout + 1e-3
    assert remaining <= threading.TIMEOUT_MAX


BAD = [-1, -0.001, float("nan"), float("-inf"), True, False, "1", b"1", [], object, Fraction(1, 2), 1j]


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_a_bad_timeout_is_named_and_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="^timeout must be None or a number of seconds >= 0, not "):
        Deadline(value)
    with pytest.raises(InvalidArgument, match="^ping_interval must be None or ") as caught:
        check_timeout(value, "ping_interval")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [None, 0, 0.0, 1, 2.5, float("inf"), 10**30], ids=repr)
def test_a_good_timeout_is_accepted(value: Any) -> None:
    check_timeout(value)


def test_wait_returns_at_its_timeout_or_when_notified() -> None:
    condition = threading.Condition()
    began = time.monotonic()
    with condition:
        wait(condition, 20 * MS)
    assert time.monotonic() - began >= 19 * MS
    woken = []

    def sleeper() -> None:
        with condition:
            while not woken:
                wait(condition, None)

    with run_thread(sleeper):
        with condition:
            woken.append(True)
            condition.notify_all()


def test_wait_takes_any_number_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    condition = threading.Condition()
    asked = []
    monkeypatch.setattr(condition, "wait", asked.append)
    for timeout in (None, 1e12, float("inf"), scaled(0.01), 0):
        wait(condition, timeout)
    assert asked == [module._SLICE] * 3 + [min(scaled(0.01), module._SLICE), 0]
    assert all(seconds <= threading.TIMEOUT_MAX for seconds in asked)
