"""Invocations: answers, errors, limits, cancels, lost links; over a network in memory."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import CancelledError, as_completed, wait
from typing import Any, Dict, Iterator, List

import pytest

from simplepubsub.exceptions import (
    ClientStateError,
    ClientStopped,
    InvalidArgument,
    InvocationError,
    InvocationLost,
    InvocationTimeout,
    MessageTooLarge,
    OutboxFull,
)
from simplepubsub.webpubsub import InvokeResult
from tests import peers
from tests.helpers import MS, run_thread, scaled, wait_until
from tests.memory import Network, memory_client
from tests.streamdesk import Desk, Scene, has_live_link, started_scene


@pytest.fixture
def scene(request: Any) -> Iterator[Scene]:
    with started_scene(**getattr(request, "param", {})) as scene:
        yield scene


def success(data: Any, data_type: str = "json") -> Dict[str, Any]:
    return {"success": True, "dataType": data_type, "data": data}


def doubled(command: Dict[str, Any]) -> Dict[str, Any]:
    return success(command["data"] * 2)


def failure(name: str, message: str) -> Dict[str, Any]:
    return {"success": False, "error": {"name": name, "message": message}}


def test_the_answer_of_the_event_handler(scene: Scene) -> None:
    client, network, desk = scene
    desk.answer = doubled
    assert client.invoke_event("double", 21) == InvokeResult(42, "json", "1")
    assert client.invoke_event("double", "ab", timeout=scaled(5)) == ("abab", "json", "2")
    desk.answer = lambda command: success("AQID", "binary")
    assert client.invoke_event("bytes", b"\x00").data == b"\x01\x02\x03"
    desk.answer = lambda command: {"success": True}
    assert client.invoke_event("nothing") == (None, None, "4")
    assert desk.invocations == [
        {"type": "invoke", "invocationId": "1", "target": "event", "event": "double", "dataType": "json", "data": 21},
        {"type": "invoke", "invocationId": "2", "target": "event", "event": "double", "dataType": "text", "data": "ab"},
        {"type": "invoke", "invocationId": "3", "target": "event", "event": "bytes", "dataType": "binary",
         "data": "AA=="},
        {"type": "invoke", "invocationId": "4", "target": "event", "event": "nothing"},
    ]
    assert desk.cancelled == []


def test_an_error_of_the_service(scene: Scene) -> None:
    client, network, desk = scene
    desk.answer = lambda command: failure("BadRequest", "two numbers please")
    with pytest.raises(InvocationError, match="two numbers please") as caught:
        client.invoke_event("sum", [1])
    assert type(caught.value) is InvocationError
    assert (caught.value.name, caught.value.message, caught.value.invocation_id) == (
        "BadRequest", "two numbers please", "1")
    desk.answer = lambda command: {"success": False}
    with pytest.raises(InvocationError):
        client.invoke_event("sum", [1])


def test_no_answer_in_time_cancels(scene: Scene) -> None:
    client, network, desk = scene
    for limit in (0.02, 0.5, 5):  # a slow machine may be too late to write it, too
        with pytest.raises(InvocationTimeout) as caught:
            client.invoke_event("slow", timeout=scaled(limit))
        error = caught.value
        if error.written:
            break
    assert isinstance(error, TimeoutError) and error.written and "may have been handled" in str(error)
    desk.wait(lambda: desk.cancelled == [error.invocation_id] == [desk.invocations[-1]["invocationId"]])
    link = network.links[0]
    link.say({"type": "invokeResponse", "invocationId": error.invocation_id, "success": True})  # too late: ignored
    desk.answer = doubled
    assert client.invoke_event("double", 1).data == 2


@pytest.mark.parametrize("scene", [{"ack_timeout": 20 * MS}], indirect=True)
def test_no_limit_of_its_own_means_that_of_sends(scene: Scene) -> None:
    with pytest.raises(InvocationTimeout):
        scene[0].invoke_event("slow")


def test_what_nobody_waits_for_is_ignored(scene: Scene) -> None:
    client, network, desk = scene
    link = network.links[0]
    link.say({"type": "invokeResponse", "invocationId": "77", "success": True})
    desk.answer = doubled
    future = client.invoke_event_nowait("double", 4)
    assert future.result(scaled(5)).data == 8
    link.say({"type": "invokeResponse", "invocationId": future.invocation_id, "success": True})
    assert client.invoke_event("double", 5).data == 10


def test_thousands_at_once_answered_in_any_order(scene: Scene) -> None:
    client, network, desk = scene
    futures = [client.invoke_event_nowait("double", n) for n in range(3000)]
    desk.wait(lambda: len(desk.invocations) == 3000)
    assert [future.invocation_id for future in futures] == [str(n + 1) for n in range(3000)]
    answers = [{"type": "invokeResponse", "invocationId": command["invocationId"], **doubled(command)}
               for command in desk.invocations]
    network.links[0].say(*answers[::-1])
    assert [future.result(scaled(5)).data for future in futures] == [2 * n for n in range(3000)]
    assert client._conversations.invocations._bytes == 0


# ---- cancel ----------------------------------------------------------------------------------------------------------


def test_a_future_can_be_cancelled(scene: Scene) -> None:
    client, network, desk = scene
    future = client.invoke_event_nowait("slow")
    called: List[Any] = []
    future.add_done_callback(called.append)
    desk.wait(lambda: desk.invocations)
    assert future.cancel() and future.cancelled() and future.done() and called == [future]
    assert future.cancel()  # as the standard library has it
    desk.wait(lambda: desk.cancelled == ["1"])
    with pytest.raises(CancelledError):
        future.result(0)
    assert wait([future], scaled(5)).done == {future} and list(as_completed([future], scaled(5))) == [future]
    network.links[0].say({"type": "invokeResponse", "invocationId": "1", "success": True})
    desk.answer = doubled
    done = client.invoke_event_nowait("double", 1)
    assert done.result(scaled(5)).data == 2
    assert not done.cancel() and not done.cancelled()
    assert desk.cancelled == ["1"]


def test_another_thread_cancels_a_blocking_call(scene: Scene) -> None:
    client, network, desk = scene
    assert not client.cancel_invocation("1")
    with run_thread(client.invoke_event, "slow", timeout=scaled(10)) as calling:
        desk.wait(lambda: desk.invocations)
        assert client.cancel_invocation("1")
        error = calling.exception()
    assert isinstance(error, InvocationError) and error.name == "Cancelled"
    assert not client.cancel_invocation("1")


def test_what_is_not_written_is_cancelled_without_a_word(scene: Scene) -> None:
    client, network, desk = scene
    link = network.links[0]
    link.clog(0)
    client.send_event_nowait("fill", "the writer is busy with this")
    wait_until(lambda: client.stats()["outbox"] == 0)
    with pytest.raises(InvocationTimeout, match="not sent") as caught:
        client.invoke_event("late", timeout=20 * MS)
    assert not caught.value.written
    future = client.invoke_event_nowait("late")
    assert future.cancel()
    link.unclog()
    desk.answer = doubled
    assert client.invoke_event("double", 1).data == 2
    assert [command["event"] for command in desk.invocations] == ["double"] and desk.cancelled == []


# ---- the link --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", [{}, {"protocol": "json"}], indirect=True, ids=["recovered", "new session"])
def test_a_lost_link_fails_what_was_written_at_once_and_nothing_is_sent_again(scene: Scene) -> None:
    client, network, desk = scene
    future = client.invoke_event_nowait("slow")
    with run_thread(client.invoke_event, "slow", timeout=scaled(20)) as calling:
        desk.wait(lambda: len(desk.invocations) == 2)
        network.hold = True  # it does not take a new connection to tell
        network.links[0].cut()
        error = calling.exception()
        assert isinstance(error, InvocationLost) and "may or may not" in str(error)
    assert isinstance(future.exception(scaled(5)), InvocationLost)
    waiting = client.invoke_event_nowait("double", 3)  # for a connection
    desk.answer = doubled
    network.hold = False
    with network.changed:
        network.changed.notify_all()
    assert waiting.result(scaled(5)).data == 6
    assert [command["event"] for command in desk.invocations] == ["slow", "slow", "double"]
    assert desk.cancelled == []


def test_what_was_not_written_goes_out_on_the_next_link(scene: Scene) -> None:
    client, network, desk = scene
    network.links[0].clog(0)
    client.send_event_nowait("fill", "the writer is busy with this")
    wait_until(lambda: client.stats()["outbox"] == 0)
    desk.answer = doubled
    futures = [client.invoke_event_nowait("double", n) for n in range(3)]
    network.links[0].cut()
    assert [future.result(scaled(5)).data for future in futures] == [0, 2, 4]
    assert [command["data"] for command in desk.invocations] == [0, 1, 2]


def test_without_a_connection_a_call_waits_for_one_as_long_as_it_may(scene: Scene) -> None:
    client, network, desk = scene
    network.hold = True
    network.links[0].cut()
    wait_until(lambda: not client.is_connected())
    with pytest.raises(InvocationTimeout, match="not sent"):
        client.invoke_event("late", timeout=20 * MS)
    desk.answer = doubled
    with run_thread(client.invoke_event, "double", 3, timeout=scaled(10)) as calling:
        wait_until(client._conversations.invocations.waiting_locked)
        network.hold = False
        with network.changed:
            network.changed.notify_all()
        assert calling.result().data == 6


def test_stop_ends_every_wait(scene: Scene) -> None:
    client, network, desk = scene
    future = client.invoke_event_nowait("slow")
    with run_thread(client.invoke_event, "slow", timeout=None) as calling:
        desk.wait(lambda: len(desk.invocations) == 2)
        client.stop(scaled(5))
        assert isinstance(calling.exception(), ClientStopped)
    assert isinstance(future.exception(0), ClientStopped)
    with pytest.raises(ClientStopped):
        client.invoke_event("late")
    with pytest.raises(ClientStopped):
        client.invoke_event_nowait("late")
    client.start()
    desk.answer = doubled
    assert client.invoke_event("double", 1) == (2, "json", "5")  # ids go on


def test_before_start_there_is_nobody_to_ask() -> None:
    with pytest.raises(ClientStopped, match="start"):
        memory_client(Network()).invoke_event("e")


# ---- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", [{"max_outbox_bytes": 1000}], indirect=True)
def test_what_is_unanswered_is_bounded(scene: Scene) -> None:
    client, network, desk = scene
    first = client.invoke_event_nowait("slow", "x" * 2000)  # a larger one than the limit fits an empty table
    with pytest.raises(OutboxFull, match="max_outbox_bytes"):
        client.invoke_event_nowait("slow")
    with pytest.raises(InvocationTimeout, match="nothing was sent"):
        client.invoke_event("slow", timeout=20 * MS)
    desk.wait(lambda: desk.invocations)
    desk.answer = doubled
    with run_thread(client.invoke_event, "double", 7, timeout=scaled(10)) as calling:
        wait_until(lambda: client._engine._waiters)
        first.cancel()
        assert calling.result().data == 14


def test_a_full_inbox_does_not_keep_an_answer_away() -> None:
    network = Network()
    desk = Desk(network)
    with memory_client(network, max_inbox=4) as client:
        link = network.links[0]
        link.say(*[link.message(n) for n in range(4)])
        wait_until(lambda: client._engine.receiver.paused)
        desk.answer = doubled
        assert client.invoke_event("double", 1, timeout=scaled(5)).data == 2


def test_mistakes_in_the_call(scene: Scene) -> None:
    client, network, desk = scene
    for arguments in (("1st",), ("",), (None,), ("e", {1}), ("e", "x", "yaml"), ("e", 1, "text")):
        with pytest.raises(InvalidArgument):
            client.invoke_event(*arguments)
        with pytest.raises(InvalidArgument):
            client.invoke_event_nowait(*arguments)
    with pytest.raises(InvalidArgument):
        client.invoke_event("e", timeout=-1)
    with pytest.raises(MessageTooLarge):
        client.invoke_event("e", "x" * 2**20)
    assert desk.invocations == [] and not client._conversations.invocations.waiting_locked()


def test_a_callback_must_not_wait(scene: Scene) -> None:
    client, network, desk = scene
    desk.answer = doubled
    errors: List[BaseException] = []
    called = threading.Event()

    def back(future: Any) -> None:
        try:
            client.invoke_event("double", 1)
        except BaseException as error:  # noqa: BLE001  # it is what is being tested
            errors.append(error)
        client.invoke_event_nowait("double", 2).add_done_callback(lambda future: called.set())

    desk.answer = lambda command: None
    future = client.invoke_event_nowait("double", 1)
    future.add_done_callback(back)
    desk.answer = doubled
    network.links[0].say({"type": "invokeResponse", "invocationId": "1", "success": True})
    assert called.wait(scaled(5)) and isinstance(errors[0], ClientStateError)


def test_protobuf_has_no_invocations() -> None:
    peers.require("google.protobuf", "the protobuf subprotocols")
    client = memory_client(Network(), protocol="protobuf.reliable")
    with pytest.raises(InvalidArgument, match="invo"):
        client.invoke_event("e", "x")


# ---- races -----------------------------------------------------------------------------------------------------------


def test_every_call_has_one_outcome_whatever_happens_around_it(switch_interval: Any, seed: int) -> None:
    """Answers, cancels, limits, cuts and stops all race for the same invocations."""
    import random

    network = Network()
    desk = Desk(network)
    desk.answer = doubled
    client = memory_client(network)
    client.start()
    over = threading.Event()
    outcomes: List[Any] = []

    def call(number: int) -> None:
        rng = random.Random(seed + number)
        for n in itertools.count():
            if over.is_set():
                return
            try:
                if rng.random() < 0.3:
                    future = client.invoke_event_nowait("double", n)
                    if rng.random() < 0.5:
                        cancelled = future.cancel()
                        assert cancelled is future.cancelled()
                    if not future.cancelled():
                        future.exception(scaled(10))
                        outcomes.append(future)
                else:
                    assert client.invoke_event("double", n, timeout=rng.choice([0, 0.001, 5.0])).data == 2 * n
            except (InvocationError, ClientStopped):
                pass

    def disturb() -> None:
        rng = random.Random(seed)
        while not over.wait(5 * MS):
            if rng.random() < 0.8:
                network.links[-1].cut()
            else:
                client.stop(scaled(5))
                client.start(scaled(10))

    threads = [run_thread(call, number, join_timeout=30) for number in range(6)] + [run_thread(disturb)]
    for thread in threads:
        thread.__enter__()
    over.wait(scaled(0.7))
    wait_until(lambda: any(future.exception(0) is None for future in list(outcomes)), 20)
    over.set()
    for thread in threads:
        thread.__exit__(None, None, None)
    wait_until(lambda: has_live_link(client), 10)  # or it may be written to one that is lost
    assert client.invoke_event("double", 21, timeout=scaled(10)).data == 42
    invocations = client._conversations.invocations
    wait_until(lambda: not invocations._pending)
    assert invocations._bytes == 0 and not invocations._decided
    client.stop(scaled(5))
