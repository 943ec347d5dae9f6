"""SendFuture: a Future in every respect, whoever looks at it first."""

from __future__ import annotations

import concurrent.futures
import threading

import pytest

from simplepubsub.core.future import SendFuture
from tests.helpers import run_thread, scaled, wait_until


def test_result_before_anyone_looks():
    future = SendFuture(7)
    assert not future.done() and not future.running() and not future.cancelled()
    future.set_result(None)
    assert future.done() and future.result(0) is None and future.exception(0) is None and future.ack_id == 7


def test_exception_before_anyone_looks():
    future = SendFuture()
    future.set_exception(ValueError("no"))
    assert isinstance(future.exception(0), ValueError)
    with pytest.raises(ValueError, match="no"):
        future.result(0)


def test_result_after_a_wait_began():
    future = SendFuture()
    waiting = threading.Event()

    def wait():
        with future._condition:
            waiting.set()
        return future.result(scaled(10))

    with run_thread(wait) as thread:
        assert waiting.wait(scaled(5))
        future.set_result("here")
        assert thread.result(5) == "here"


def test_timeout_while_pending():
    with pytest.raises(concurrent.futures.TimeoutError):
        SendFuture().result(0)


def test_a_send_cannot_be_cancelled():
    future = SendFuture()
    assert future.cancel() is False and not future.cancelled()
    future.set_result(None)
    assert future.cancel() is False and future.result(0) is None


def test_callbacks_before_and_after_the_result():
    future, calls = SendFuture(), []
    future.add_done_callback(lambda done: calls.append(("before", done.result(0))))
    future.set_result(1)
    future.add_done_callback(lambda done: calls.append(("after", done.result(0))))
    assert calls == [("before", 1), ("after", 1)]


def test_a_callback_on_a_result_that_nobody_saw():
    future, calls = SendFuture(), []
    future.set_result(1)
    future.add_done_callback(lambda done: calls.append(done.result(0)))
    assert calls == [1]


def test_wait_and_as_completed_mix_finished_and_pending_futures():
    early, late = SendFuture(), SendFuture()
    early.set_result("early")
    done, pending = concurrent.futures.wait([early, late], timeout=0)
    assert done == {early} and pending == {late}

    def collect():
        return [future.result(0) for future in concurrent.futures.as_completed([early, late], scaled(5))]

    with run_thread(collect) as thread:
        wait_until(lambda: late._waiters)  # finished ones come in any order
        late.set_result("late")
        assert thread.result(5) == ["early", "late"]


def test_no_wake_up_is_lost_when_result_and_interest_race(switch_interval):
    """The condition is made by whoever comes first; a waiter that comes in between must see the result."""
    for _ in range(2000):
        future = SendFuture()
        barrier = threading.Barrier(2)

        def settle(future=future, barrier=barrier):
            barrier.wait(scaled(10))
            future.set_result(True)

        thread = threading.Thread(target=settle)
        thread.start()
        barrier.wait(scaled(10))
        assert future.result(scaled(10)) is True
        thread.join(scaled(10))
