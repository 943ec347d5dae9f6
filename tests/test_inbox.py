"""The queue behind `receive()`: many consumers, flow control, closing; no wait without an end (P1, P3, P4, P5)."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

from simplepubsub.core import inbox as module
from simplepubsub.core.inbox import Inbox
from simplepubsub.exceptions import ClientStopped, InboxOverflow, InvalidArgument, ReceiveTimeout
from tests.helpers import MS, Recorder, run_thread, scaled, wait_until


def nothing() -> None:
    """Nobody waits for room."""


def make(limit: int = 100, drained: Callable[[], None] = nothing) -> Inbox:
    return Inbox(limit, drained)


@contextlib.contextmanager
def consumers(inbox: Inbox, count: int, get: Callable[[], Any]) -> Iterator[List[run_thread]]:
    """Run `count` threads that call `get`, all of them waiting when the body begins."""
    with contextlib.ExitStack() as stack:
        threads = [stack.enter_context(run_thread(get, name="consumer-%d" % n)) for n in range(count)]
        wait_until(lambda: inbox._waiting == count)
        yield threads


# ---- order and bounds -----------------------------------------------------------------------------------------------


def test_items_come_out_in_the_order_in_which_they_went_in() -> None:
    inbox = make()
    inbox.put([1, 2])
    inbox.put_always(3)
    inbox.put(iter([4]))
    inbox.put([])
    assert len(inbox) == 4
    assert [inbox.get(0) for _ in range(4)] == [1, 2, 3, 4]
    assert len(inbox) == 0


def test_it_is_full_at_the_limit_and_drained_at_a_quarter_of_it() -> None:
    inbox = make(8)
    assert inbox.drained and not inbox.full
    inbox.put(range(2))
    assert inbox.drained
    inbox.put(range(1))
    assert not inbox.drained and not inbox.full
    inbox.put(range(4))
    assert not inbox.full
    inbox.put(range(1))
    assert inbox.full
    for left in range(7, -1, -1):
        inbox.get(0)
        assert (inbox.full, inbox.drained) == (False, left <= 2)


def test_twice_the_limit_is_an_overflow_and_loses_nothing() -> None:
    inbox = make(5)
    inbox.put(range(9))
    with pytest.raises(InboxOverflow, match=r"10 messages wait and nobody receives them: .*raise max_inbox \(now 5\)"):
        inbox.put([9])
    assert [inbox.get(0) for _ in range(10)] == list(range(10))
    inbox.put(range(9))  # and it goes on


def test_what_the_peer_does_not_decide_about_never_overflows() -> None:
    inbox = make(1)
    for n in range(10):
        inbox.put_always(n)
    assert len(inbox) == 10


# ---- timeouts -------------------------------------------------------------------------------------------------------


def test_a_timeout_of_zero_does_not_wait() -> None:
    inbox = make()
    began = time.monotonic()
    for timeout in (0, 0.0):
        with pytest.raises(ReceiveTimeout, match=r"no message within 0(\.0)? s"):
            inbox.get(timeout)
    assert time.monotonic() - began < scaled(5)
    inbox.put(["there"])
    assert inbox.get(0) == "there"


def test_a_timeout_is_waited_for_and_is_a_builtin_one_too() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        make().get(30 * MS)
    assert 29 * MS <= time.monotonic() - began < scaled(5)


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan"), True, False, "1", b"1", []], ids=repr)
@pytest.mark.parametrize("filled", [True, False])
def test_a_bad_timeout_is_refused_and_takes_nothing(timeout: Any, filled: bool) -> None:
    inbox = make()
    inbox.put(["message"] if filled else [])
    with pytest.raises(InvalidArgument, match="timeout must be None or a number of seconds >= 0, not"):
        inbox.get(timeout)
    assert len(inbox) == filled


def test_an_item_ends_the_wait_whatever_its_limit() -> None:
    for timeout in (None, 1000, float("inf")):
        inbox = make()
        with consumers(inbox, 1, lambda inbox=inbox, timeout=timeout: inbox.get(timeout)) as (consumer,):
            inbox.put(["message"])
            assert consumer.result() == "message"


def test_none_and_other_false_values_are_items() -> None:
    inbox = make()
    inbox.put([None, 0, ""])
    assert [inbox.get(0), inbox.get(0), inbox.get(0)] == [None, 0, ""]


# ---- many consumers -------------------------------------------------------------------------------------------------


def test_a_batch_wakes_as_many_consumers_as_it_has_items() -> None:
    inbox = make()
    with consumers(inbox, 5, inbox.get) as threads:
        inbox.put(range(3))
        wait_until(lambda: sum(thread.done.is_set() for thread in threads) == 3)
        inbox.put_always(3)
        wait_until(lambda: sum(thread.done.is_set() for thread in threads) == 4)
        inbox.put([4])
        assert sorted(thread.result() for thread in threads) == [0, 1, 2, 3, 4]


def test_many_consumers_get_everything_once_and_each_of_them_in_order(switch_interval: Any) -> None:
    inbox = make(10**6)
    total, workers = 20_000, 6
    taken: List[List[int]] = [[] for _ in range(workers)]

    def consume(mine: List[int]) -> None:
        with pytest.raises(ClientStopped):
            while True:
                mine.append(inbox.get(None if len(mine) % 2 else scaled(30)))

    with contextlib.ExitStack() as stack:
        for mine in taken:
            stack.enter_context(run_thread(consume, mine, join_timeout=60))
        position = 0
        while position < total:
            size = position % 7 + 1
            inbox.put(range(position, min(position + size, total)))
            position += size
        inbox.close(lambda: ClientStopped("stopped"))
    assert sorted(item for mine in taken for item in mine) == list(range(total))
    assert all(mine == sorted(mine) for mine in taken)


class Interrupted(BaseException):
    """Stands for the KeyboardInterrupt that only the main thread gets."""


def test_ctrl_c_in_the_consumer_that_was_woken_wakes_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # The wake-up used to be lost with the interrupted consumer: the others slept on although there was a message.
    inbox = make()
    real_wait = module.wait

    def wait(condition: threading.Condition, timeout: Any) -> None:
        real_wait(condition, timeout)
        if threading.current_thread().name == "victim":
            raise Interrupted

    monkeypatch.setattr(module, "wait", wait)
    with run_thread(inbox.get, name="victim") as victim:
        wait_until(lambda: inbox._waiting == 1)  # the first in the queue of waiters
        with run_thread(inbox.get, name="other") as other:
            wait_until(lambda: inbox._waiting == 2)
            inbox.put(["message"])
            assert isinstance(victim.exception(), Interrupted)
            assert other.result() == "message"


# ---- closing --------------------------------------------------------------------------------------------------------


def test_closing_wakes_every_consumer_with_an_error_of_its_own() -> None:
    inbox = make()
    with consumers(inbox, 4, lambda: inbox.get(1000)) as threads:
        inbox.close(lambda: ClientStopped("stopped"))
        errors = [thread.exception() for thread in threads]
    assert all(type(error) is ClientStopped for error in errors) and len({id(error) for error in errors}) == 4


def test_what_was_received_before_the_close_is_readable_and_then_the_error_comes_every_time() -> None:
    inbox = make()
    inbox.put([1, 2])
    inbox.close(lambda: ClientStopped("stopped"))
    assert [inbox.get(), inbox.get(5)] == [1, 2]
    for timeout in (None, 0, 5):
        with pytest.raises(ClientStopped):
            inbox.get(timeout)
    inbox.put_always(3)  # as a gap that was found at the last moment
    assert inbox.get() == 3


def test_an_opened_inbox_waits_again() -> None:
    inbox = make()
    inbox.close(lambda: ClientStopped("stopped"))
    inbox.open()
    with pytest.raises(ReceiveTimeout):
        inbox.get(0)
    with consumers(inbox, 1, inbox.get) as (consumer,):
        inbox.put([1])
        assert consumer.result() == 1


# ---- flow control ---------------------------------------------------------------------------------------------------


def test_the_reader_is_told_when_a_quarter_is_left_while_it_watches_and_only_then() -> None:
    calls = Recorder()
    inbox = make(8, calls)
    inbox.put(range(8))
    inbox.get()
    assert len(calls) == 0  # nobody watches
    inbox.watch_drain(True)
    for _ in range(4):
        inbox.get()
    assert len(inbox) == 3 and len(calls) == 0
    inbox.get()
    assert len(inbox) == 2 and len(calls) == 1
    inbox.watch_drain(False)
    inbox.get()
    assert len(calls) == 1


def test_a_limit_of_one_drains_when_it_is_empty() -> None:
    calls = Recorder()
    inbox = make(1, calls)
    inbox.watch_drain(True)
    inbox.put([1])
    assert inbox.full and not inbox.drained
    inbox.get()
    assert inbox.drained and len(calls) == 1


def test_a_consumer_that_had_to_wait_tells_the_reader_too_and_holds_no_lock() -> None:
    told = Recorder()

    def drained() -> None:
        inbox.put_always("from the callback")  # takes the inbox's lock
        inbox.watch_drain(False)
        told()

    inbox = make(8, drained)
    inbox.watch_drain(True)
    with consumers(inbox, 1, inbox.get) as (consumer,):
        inbox.put(["message"])
        assert consumer.result() == "message"
    assert len(told) == 1 and inbox.get(0) == "from the callback"


@pytest.mark.parametrize("limit", [1, 3, 16])
def test_a_reader_that_pauses_when_full_always_goes_on(limit: int, switch_interval: Any) -> None:
    room = threading.Condition()

    def drained() -> None:
        with room:
            room.notify_all()

    inbox = make(limit, drained)
    total = 3000

    def read() -> None:
        position = 0
        while position < total:
            batch = range(position, min(position + limit, total))
            position += len(batch)
            inbox.put(batch)  # never an overflow: it pauses in between
            if inbox.full:
                with room:
                    inbox.watch_drain(True)
                    assert room.wait_for(lambda: inbox.drained, scaled(30)), "nobody told the reader"
                    inbox.watch_drain(False)

    half = [scaled(30)] * (total // 2)
    with run_thread(read, join_timeout=60), run_thread(lambda: [inbox.get(limit) for limit in half]) as other:
        mine = [inbox.get(scaled(30)) for _ in range(total - total // 2)]
        assert sorted(mine + other.result(60)) == list(range(total))
