"""Listeners: one dispatcher thread, in order, whatever the listeners do (P3, P4)."""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import threading
from typing import Any, Callable, Dict, Iterator, List, Tuple
from unittest import mock

import pytest

from simplepubsub.core.listeners import ListenerError, Listeners
from simplepubsub.exceptions import InboxOverflow, InvalidArgument
from tests.helpers import Recorder, run_thread, scaled, wait_until

EVENTS = ("message", "gap", "stopped", "error")


def nothing() -> None:
    """Nobody waits for room."""


def make(limit: int = 1000, drained: Callable[[], None] = nothing) -> Listeners:
    return Listeners(EVENTS, limit, drained, "client")


@contextlib.contextmanager
def running(listeners: Listeners) -> Iterator[Listeners]:
    """Start it, and at the end stop it and wait for the dispatcher."""
    listeners.start()
    try:
        yield listeners
    finally:
        listeners.stop(None, announce=False)
        assert listeners.join(scaled(10))


def dispatcher() -> List[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "client-dispatcher"]


class Gate:
    """A listener that stays in its call until it is let through."""

    def __init__(self) -> None:
        self.entered, self.let = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.let.wait(scaled(10))


# ---- calling --------------------------------------------------------------------------------------------------------


def test_events_are_called_in_order_one_at_a_time_by_one_thread() -> None:
    listeners, seen = make(), Recorder()
    inside = []

    def listener(number: int) -> None:
        inside.append(number)
        assert len(inside) == 1
        seen.record(threading.current_thread().name, number)
        inside.pop()

    for event in ("message", "gap"):
        listeners.add(event, listener)
    with running(listeners):
        for n in range(100):
            listeners.emit("gap" if n % 3 else "message", n)
        listeners.emit_many([("message", n) for n in range(100, 200)])
        assert seen.wait_for(200) == list(range(200))
        assert set(seen.names) == {"client-dispatcher"} and len(dispatcher()) == 1
    assert listeners.errors == 0


def test_listeners_of_one_event_are_called_in_the_order_of_their_registration() -> None:
    listeners, seen = make(), Recorder()
    for name in "cab":
        listeners.add("message", seen.named(name))
    with running(listeners):
        listeners.emit("message", 1)
        seen.wait_for(3)
        assert seen.names == ["c", "a", "b"]


class Holder:
    def __init__(self, seen: Recorder) -> None:
        self.seen = seen

    def with_event(self, event: Any) -> None:
        self.seen(event)

    def without(self) -> None:
        self.seen()

    def __call__(self, event: Any) -> None:
        self.seen(event)


SHAPES: Dict[str, Tuple[Callable[[Recorder], Any], Any]] = {
    "one parameter": (lambda seen: lambda event: seen(event), "e"),
    "no parameter": (lambda seen: lambda: seen(), None),
    "an optional parameter": (lambda seen: lambda event=None: seen(event), "e"),
    "any parameters": (lambda seen: lambda *args, **keywords: seen(*args), "e"),
    "one and an optional one": (lambda seen: lambda event, more=1: seen(event), "e"),
    "a keyword with a default": (lambda seen: lambda event, *, more=1: seen(event), "e"),
    "a method": (lambda seen: Holder(seen).with_event, "e"),
    "a method without parameter": (lambda seen: Holder(seen).without, None),
    "an object that is callable": (lambda seen: Holder(seen), "e"),
    "a partial that leaves one": (lambda seen: functools.partial(seen.record, "name"), "e"),
    "a partial that leaves none": (lambda seen: functools.partial(Holder(seen).with_event, "given"), "given"),
    "a method of a builtin": (lambda seen: seen.__call__, "e"),
    "a mock": (lambda seen: mock.Mock(side_effect=seen), "e"),
}


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_listener_takes_the_event_or_nothing(shape: str) -> None:
    listeners, seen = make(), Recorder()
    build, payload = SHAPES[shape]
    listeners.add("message", build(seen))
    with running(listeners):
        listeners.emit("message", "e")
        assert seen.wait_for(1) == [payload]
    assert listeners.errors == 0


def test_functions_of_the_standard_library_are_listeners_too() -> None:
    listeners, taken, done = make(), [], threading.Event()  # type: ignore[var-annotated]
    listeners.add("message", taken.append)
    listeners.add("message", print)
    listeners.add("message", done.set)
    with running(listeners):
        listeners.emit("message", "e")
        assert done.wait(scaled(5))
    assert taken == ["e"]


async def coroutine(event: Any) -> None:
    """Would never run."""


BAD_LISTENERS = [
    (None, "listener must be callable, not None"),
    ("print", "listener must be callable, not 'print'"),
    (lambda a, b: None, "must take one parameter (the event) or none"),
    (lambda *, key: None, "must take one parameter"),
    # It used to be accepted, and then never ran: nothing awaits its coroutine.
    (coroutine, "is a coroutine function, which nothing would await"),
]


@pytest.mark.parametrize("listener, words", BAD_LISTENERS, ids=[row[1] for row in BAD_LISTENERS])
def test_what_cannot_be_called_so_is_refused_at_once(listener: Any, words: str) -> None:
    listeners = make()
    with pytest.raises(InvalidArgument) as caught:
        listeners.add("message", listener)
    assert words in str(caught.value)
    assert not listeners.any


def test_an_unknown_event_is_refused_with_the_known_ones() -> None:
    for event in ("messages", "", None, ["message"]):
        for method in (make().add, make().remove):
            with pytest.raises(InvalidArgument) as caught:
                method(event, nothing)  # type: ignore[arg-type]
            assert str(caught.value) == "unknown event %r: use one of message, gap, stopped, error" % (event,)


# ---- registering ----------------------------------------------------------------------------------------------------


def test_what_nobody_listens_to_is_not_even_queued() -> None:
    listeners = make()
    assert not listeners.any and not listeners.has("message")
    listeners.emit("message", 1)
    listeners.add("gap", nothing)
    assert listeners.any and listeners.has("gap") and not listeners.has("message")
    listeners.emit("message", 1)
    assert len(listeners.queue) == 0
    listeners.remove("gap", nothing)
    assert not listeners.any and not listeners.has("gap")


def test_a_listener_registered_twice_is_called_twice_and_removed_once_at_a_time() -> None:
    listeners, seen = make(), Recorder()
    first, second = seen.named("first"), seen.named("second")
    for listener in (first, second, first):
        listeners.add("message", listener)
    with running(listeners):
        listeners.emit("message", 1)
        seen.wait_for(3)
        listeners.remove("message", first)
        listeners.emit("message", 2)
        seen.wait_for(5)
        assert seen.names == ["first", "second", "first", "second", "first"]
        listeners.remove("message", first)
        for event, listener in (("message", first), ("gap", second)):
            with pytest.raises(InvalidArgument, match="no such listener for %r" % event):
                listeners.remove(event, listener)


def test_a_bound_method_can_be_removed_although_it_is_a_new_object_each_time() -> None:
    listeners, holder = make(), Holder(Recorder())
    listeners.add("message", holder.without)
    listeners.remove("message", holder.without)
    assert not listeners.any


def test_a_change_made_by_a_listener_counts_from_the_next_event() -> None:
    listeners, seen = make(), Recorder()

    def once(event: int) -> None:
        seen.record("once", event)
        listeners.remove("message", once)
        listeners.remove("message", removed)
        listeners.add("message", seen.named("added"))

    removed = seen.named("removed")
    listeners.add("message", once)
    listeners.add("message", removed)
    for n in range(3):  # before the first is handled: between the removals and the addition nobody would want it
        listeners.emit("message", n)
    with running(listeners):
        seen.wait_event("added", count=2)
        assert seen.events == [("once", 0), ("removed", 0), ("added", 1), ("added", 2)]


def test_listeners_come_and_go_from_many_threads_while_events_flow(switch_interval: Any, seed: int) -> None:
    listeners, seen = make(10**6), Recorder()
    listeners.add("message", seen)
    rounds = 300

    def churn(number: int) -> None:
        rng = random.Random(seed + number)
        mine: List[Any] = []
        for _ in range(rounds):
            if mine and rng.random() < 0.5:
                listeners.remove(*mine.pop())
            else:
                mine.append((rng.choice(["message", "gap"]), Recorder()))
                listeners.add(*mine[-1])
        for event, listener in mine:
            listeners.remove(event, listener)

    with running(listeners):
        with contextlib.ExitStack() as stack:
            for number in range(4):
                stack.enter_context(run_thread(churn, number))
            for n in range(rounds):
                listeners.emit("message", n)
        assert seen.wait_for(rounds) == list(range(rounds))
        listeners.remove("message", seen)
        assert not listeners.any and listeners.errors == 0


def test_emitting_threads_keep_their_order(switch_interval: Any) -> None:
    listeners, seen = make(10**6), Recorder()
    listeners.add("message", seen)

    def emit(name: str) -> None:
        for n in range(200):
            listeners.emit("message", (name, n))

    with running(listeners):
        with contextlib.ExitStack() as stack:
            for name in "abc":
                stack.enter_context(run_thread(emit, name))
        seen.wait_for(600)
    for name in "abc":
        assert [n for got, n in seen.payloads() if got == name] == list(range(200))


# ---- failing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_failing_listener_stops_nothing_and_is_told(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    listeners, seen = make(), Recorder()

    def failing(event: Any) -> None:
        raise kind("my mistake")

    listeners.add("message", failing)
    listeners.add("message", seen.named("next"))
    listeners.add("error", seen.named("error"))
    with caplog.at_level(logging.ERROR, "simplepubsub.listeners"), running(listeners):
        listeners.emit("message", 1)
        listeners.emit("message", 2)
        seen.wait_event("next", count=2)
        assert seen.names == ["error", "next", "error", "next"]
    told = seen.payloads("error")[0]
    assert isinstance(told, ListenerError) and type(told.error) is kind
    assert (told.event, told.listener) == ("message", failing)
    assert listeners.errors == 2
    record = next(record for record in caplog.records if record.name == "simplepubsub.listeners")
    assert "failing" in record.getMessage() and "'message'" in record.getMessage()
    assert record.exc_info is not None and record.exc_info[1] is told.error


def test_a_failing_error_listener_is_counted_and_not_told_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    listeners, seen = make(), Recorder()

    def failing(event: Any) -> None:
        raise ValueError("again")

    listeners.add("message", failing)
    listeners.add("error", failing)
    listeners.add("error", seen)
    with running(listeners):
        listeners.emit("message", 1)
        listeners.emit("message", 2)
        assert [told.event for told in seen.wait_for(2)] == ["message", "message"]
        wait_until(lambda: listeners.errors == 4)
    assert len([record for record in caplog.records if record.name == "simplepubsub.listeners"]) == 4


# ---- the life of the dispatcher -------------------------------------------------------------------------------------


def test_the_dispatcher_lives_from_the_first_listener_to_the_stop() -> None:
    listeners = make()
    with running(listeners):
        assert dispatcher() == []
        listeners.add("message", nothing)
        assert len(dispatcher()) == 1
        listeners.add("gap", nothing)
        listeners.remove("gap", nothing)
        assert len(dispatcher()) == 1
    assert dispatcher() == []
    with running(listeners):
        assert len(dispatcher()) == 1
    assert dispatcher() == []


def test_a_listener_added_to_a_stopped_client_waits_for_its_start() -> None:
    listeners, seen = make(), Recorder()
    listeners.add("message", seen)
    assert dispatcher() == [] and listeners.join(0)
    with running(listeners):
        listeners.emit("message", 1)
        assert seen.wait_for(1) == [1]


@pytest.mark.parametrize("announce", [True, False])
def test_stop_comes_after_everything_queued_and_is_announced_if_there_was_a_connection(announce: bool) -> None:
    listeners, seen, gate = make(), Recorder(), Gate()
    listeners.add("message", gate)
    listeners.add("message", seen.named("message"))
    listeners.add("stopped", seen.named("stopped"))
    listeners.start()
    for n in range(3):
        listeners.emit("message", n)
    listeners.stop("why", announce)
    assert gate.entered.wait(scaled(5)) and not listeners.join(0)
    gate.let.set()
    assert listeners.join(scaled(10)) and dispatcher() == []
    assert seen.events == [("message", n) for n in range(3)] + ([("stopped", "why")] if announce else [])


def test_a_stop_without_listeners_leaves_nothing_behind() -> None:
    listeners = make()
    listeners.start()
    listeners.stop("why", True)
    assert listeners.join(0) and len(listeners.queue) == 0 and listeners.discard() is None


def test_a_listener_knows_itself_and_does_not_wait_for_itself() -> None:
    listeners, seen = make(), Recorder()

    def stop_from_inside() -> None:
        listeners.stop(None, announce=False)
        seen((listeners.owns_current_thread(), listeners.join(scaled(5))))

    listeners.add("message", stop_from_inside)
    assert not listeners.owns_current_thread()
    listeners.start()
    listeners.emit("message", 1)
    assert seen.wait_for(1, 4) == [(True, True)]
    assert listeners.join(scaled(10))


def test_a_client_started_again_inside_stopped_keeps_its_dispatcher() -> None:
    listeners, seen = make(), Recorder()

    def stopped(argument: Any) -> None:
        seen.record("stopped", argument)
        if argument == "first":
            listeners.start()
            listeners.emit("message", "in the second run")

    listeners.add("stopped", stopped)
    listeners.add("message", lambda event: seen.record(threading.current_thread().ident, event))
    listeners.start()
    listeners.emit("message", "in the first run")
    listeners.stop("first", True)
    seen.wait_for(3)
    assert len(dispatcher()) == 1
    listeners.stop("second", True)
    assert listeners.join(scaled(10)) and dispatcher() == []
    assert seen.payloads() == ["in the first run", "first", "in the second run", "second"]
    assert seen.names[0] == seen.names[2]


def test_a_run_that_starts_and_stops_while_stopped_is_being_announced_is_announced_too() -> None:
    # The dispatcher used to end after the first announcement: the second came with the next start, or never.
    listeners, seen = make(), Recorder()

    def stopped(argument: Any) -> None:
        seen.record("stopped", argument)
        if argument < 3:
            listeners.start()
            listeners.emit("message", argument)
            listeners.stop(argument + 1, True)

    listeners.add("stopped", stopped)
    listeners.add("message", seen.named("message"))
    listeners.start()
    listeners.stop(1, True)
    assert listeners.join(scaled(10))
    wait_until(lambda: dispatcher() == [])
    assert seen.events == [("stopped", 1), ("message", 1), ("stopped", 2), ("message", 2), ("stopped", 3)]
    assert len(listeners.queue) == 0


def test_join_ends_with_the_run_that_was_stopped_even_when_another_has_begun() -> None:
    listeners, seen, gate = make(), Recorder(), Gate()
    listeners.add("message", gate)
    listeners.add("stopped", seen)
    listeners.start()
    listeners.emit("message", 1)
    assert gate.entered.wait(scaled(5))
    listeners.stop("first", True)
    listeners.start()
    with run_thread(listeners.join, None) as joining:
        gate.let.set()
        assert joining.result() is True
    assert seen.payloads() == ["first"] and len(dispatcher()) == 1
    listeners.stop("second", True)
    assert listeners.join(scaled(10)) and dispatcher() == []


# ---- giving up on a listener ----------------------------------------------------------------------------------------


def test_what_waits_behind_a_stuck_listener_can_be_discarded() -> None:
    listeners, seen, gate = make(), Recorder(), Gate()
    listeners.add("message", gate)
    listeners.add("gap", seen.named("gap"))
    listeners.add("stopped", seen.named("stopped"))
    listeners.start()
    listeners.emit("message", 1)
    assert gate.entered.wait(scaled(5))
    for n in range(3):
        listeners.emit("gap", n)
    assert listeners.discard() is None  # it runs: nothing is thrown away
    listeners.stop("why", True)
    assert not listeners.join(0.0)
    assert listeners.discard() == 3
    gate.let.set()
    assert listeners.join(scaled(10))
    assert seen.events == [("stopped", "why")]


def test_what_a_new_run_queues_behind_a_stuck_listener_is_not_discarded() -> None:
    # It used to be the other way round: a new start brought back what the stop had thrown away.
    listeners, seen, gate = make(), Recorder(), Gate()
    listeners.add("message", gate)
    listeners.add("gap", seen.named("gap"))
    listeners.start()
    listeners.emit("message", 1)
    assert gate.entered.wait(scaled(5))
    listeners.emit("gap", "old")
    listeners.stop("why", True)
    listeners.discard()
    listeners.start()
    listeners.emit("gap", "new")
    gate.let.set()
    assert seen.wait_for(1) == ["new"]
    listeners.stop("why", True)
    assert listeners.join(scaled(10)) and seen.payloads() == ["new"]


# ---- flow control ---------------------------------------------------------------------------------------------------


def test_a_slow_listener_fills_the_queue_and_its_end_frees_the_reader() -> None:
    told = threading.Event()
    listeners, gate = make(8, told.set), Gate()
    listeners.add("message", gate)
    with running(listeners):
        listeners.emit("message", 0)
        assert gate.entered.wait(scaled(5))
        listeners.emit_many([("message", n) for n in range(8)])
        assert listeners.queue.full
        listeners.queue.watch_drain(True)
        assert not told.is_set()
        gate.let.set()
        assert told.wait(scaled(5))
        listeners.queue.watch_drain(False)


def test_messages_at_twice_the_limit_overflow_but_events_of_our_own_do_not() -> None:
    listeners = make(4)
    listeners.add("message", nothing)
    for n in range(7):
        listeners.emit("message", n)
    with pytest.raises(InboxOverflow):
        listeners.emit_many([("message", 7)])
    listeners.emit("message", 8)
    assert len(listeners.queue) == 9
