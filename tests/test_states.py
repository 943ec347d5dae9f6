"""The connection states: one table, drawn in its docstring, and nothing that is not in it."""

from __future__ import annotations

from typing import Dict, Set

import pytest

from simplepubsub.core import states
from simplepubsub.core.states import TRANSITIONS, Reason, State, next_state


def test_the_whole_table() -> None:
    S, R = State, Reason
    assert TRANSITIONS == {
        (S.STOPPED, R.START_CALLED): S.CONNECTING,
        (S.CONNECTING, R.ESTABLISHED): S.CONNECTED,
        (S.CONNECTING, R.ATTEMPT_FAILED): S.DISCONNECTED,
        (S.CONNECTING, R.START_FAILED): S.STOPPED,
        (S.CONNECTING, R.REFUSED): S.STOPPED,
        (S.CONNECTING, R.STOP_CALLED): S.STOPPED,
        (S.CONNECTED, R.LOST_RECOVERABLE): S.RECOVERING,
        (S.CONNECTED, R.LOST): S.DISCONNECTED,
        (S.CONNECTED, R.INBOX_OVERFLOW): S.STOPPED,
        (S.CONNECTED, R.STOP_CALLED): S.STOPPED,
        (S.RECOVERING, R.RECOVERED): S.CONNECTED,
        (S.RECOVERING, R.RECOVERY_REFUSED): S.DISCONNECTED,
        (S.RECOVERING, R.RECOVERY_EXPIRED): S.DISCONNECTED,
        (S.RECOVERING, R.STOP_CALLED): S.STOPPED,
        (S.DISCONNECTED, R.RETRY): S.CONNECTING,
        (S.DISCONNECTED, R.RETRIES_EXHAUSTED): S.STOPPED,
        (S.DISCONNECTED, R.RECONNECT_OFF): S.STOPPED,
        (S.DISCONNECTED, R.STOP_CALLED): S.STOPPED,
    }


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("reason", Reason)
def test_a_listed_pair_leads_on_and_any_other_is_a_bug_of_ours(state: State, reason: Reason) -> None:
    target = TRANSITIONS.get((state, reason))
    if target is not None:
        assert next_state(state, reason) is target
    else:
        with pytest.raises(AssertionError, match="no transition from %s because " % state.value):
            next_state(state, reason)


def test_stop_works_in_every_state_but_stopped() -> None:
    assert {state for state, reason in TRANSITIONS if reason is Reason.STOP_CALLED} == set(State) - {State.STOPPED}


def test_every_state_can_be_reached_and_left_and_every_reason_is_used() -> None:
    reachable: Dict[State, Set[State]] = {}
    for start in State:
        seen, todo = set(), [start]
        while todo:
            state = todo.pop()
            for (source, _), target in TRANSITIONS.items():
                if source is state and target not in seen:
                    seen.add(target)
                    todo.append(target)
        reachable[start] = seen
    assert all(seen == set(State) for seen in reachable.values())
    assert {reason for _, reason in TRANSITIONS} == set(Reason)


def test_states_and_reasons_read_and_compare_as_their_words() -> None:
    for state in State:
        assert state == state.name.lower() == str(state) == "%s" % state == "{}".format(state)
    assert all(str(reason) == reason.value == "{}".format(reason) for reason in Reason)
    assert len({str(reason) for reason in Reason}) == len(Reason)


def test_the_drawing_names_every_state() -> None:
    drawing = states.__doc__ or ""
    assert [state.name for state in State if state.name not in drawing] == []
