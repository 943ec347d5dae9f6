"""When to try again: delays, bounds, jitter, and what is refused."""

from __future__ import annotations

import copy
import enum
import math
import pickle
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.core.backoff import RetryPolicy
from simplepubsub.exceptions import InvalidArgument


def test_exponential_delays_double_up_to_the_maximum() -> None:
    policy = RetryPolicy(base=0.5, maximum=5, jitter=False)
    assert [policy.delay(n) for n in range(1, 7)] == [0.5, 1, 2, 4, 5, 5]


def test_fixed_delays_stay_but_within_the_maximum() -> None:
    policy = RetryPolicy(base=2, mode="fixed", jitter=False)
    assert [policy.delay(n) for n in (1, 2, 50)] == [2, 2, 2]
    assert RetryPolicy(base=9, maximum=3, mode="fixed", jitter=False).delay(1) == 3
    assert RetryPolicy(base=9, maximum=3, jitter=False).delay(1) == 3


def test_a_total_is_the_number_of_retries_and_none_is_without_end() -> None:
    policy = RetryPolicy(total=2, jitter=False)
    assert [policy.delay(n) is None for n in (1, 2, 3, 4)] == [False, False, True, True]
    assert RetryPolicy(total=0).delay(1) is None
    assert RetryPolicy().delay(10**9) is not None


def test_jitter_takes_a_random_half_off() -> None:
    policy = RetryPolicy(base=4, maximum=100)
    assert policy.delay(1, lambda: 0.0) == 2 and policy.delay(1, lambda: 1.0) == 4
    assert policy.delay(2, lambda: 0.5) == 6
    drawn = {policy.delay(1) for _ in range(50)}
    assert len(drawn) > 40 and all(delay is not None and 2 <= delay <= 4 for delay in drawn)


seconds = st.floats(0, 1e6)


@given(seconds, seconds, st.sampled_from(["exponential", "fixed"]), st.booleans(), st.integers(1, 10**6))
def test_no_delay_is_ever_above_the_maximum_or_not_finite(
    base: float, maximum: float, mode: str, jitter: bool, attempt: int
) -> None:
    policy = RetryPolicy(None, base, maximum, mode, jitter)
    delay, later = policy.delay(attempt, lambda: 0.25), policy.delay(attempt + 1, lambda: 0.25)
    assert delay is not None and later is not None
    assert 0 <= delay <= later <= maximum and math.isfinite(later)


class Mode(enum.Enum):
    """As the retry modes of other libraries come."""

    EXPONENTIAL = "Exponential"
    FIXED = "fixed"


def test_modes_of_other_libraries_are_understood() -> None:
    assert RetryPolicy(mode=Mode.EXPONENTIAL).mode == "exponential"  # type: ignore[arg-type]
    assert RetryPolicy(mode=Mode.FIXED).mode == "fixed"  # type: ignore[arg-type]
    assert RetryPolicy(mode="FIXED").mode == "fixed"


REFUSED = [
    {"total": -1}, {"total": 1.5}, {"total": True}, {"total": "3"}, {"total": float("nan")},
    {"base": -0.1}, {"base": float("nan")}, {"base": float("inf")}, {"base": True}, {"base": "1"}, {"base": None},
    {"maximum": -1}, {"maximum": float("inf")}, {"maximum": float("nan")}, {"maximum": None},
    {"mode": "linear"}, {"mode": None}, {"mode": 2},
]


@pytest.mark.parametrize("keywords", REFUSED, ids=str)
def test_a_bad_value_is_named(keywords: Dict[str, Any]) -> None:
    ((name, value),) = keywords.items()
    with pytest.raises(InvalidArgument, match="^%s must be " % name) as caught:
        RetryPolicy(**keywords)
    assert ("%r" % value).lower() in str(caught.value).lower()


def test_a_policy_is_a_value() -> None:
    policy = RetryPolicy(total=3, base=1, jitter=False)
    assert policy == RetryPolicy(3, 1.0, 30, "exponential", False) != RetryPolicy(total=3)
    assert hash(policy) == hash(RetryPolicy(3, 1, jitter=False))
    assert copy.deepcopy(policy) == pickle.loads(pickle.dumps(policy)) == policy
    assert type(pickle.loads(pickle.dumps(policy))) is RetryPolicy
    with pytest.raises(AttributeError):
        policy.total = 4  # type: ignore[misc]
    with pytest.raises(AttributeError):
        policy.anything = 4  # type: ignore[attr-defined]
    assert repr(policy) == "RetryPolicy(total=3, base=1.0, maximum=30.0, mode='exponential', jitter=False)"
