"""Receiving streams over a network in memory: who gets what, gaps, ends, bounds, cuts, stops."""

from __future__ import annotations

import gc
import threading
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from simplepubsub.exceptions import (
    ClientStateError,
    ClientStopped,
    InboxOverflow,
    InvalidArgument,
    ReceiveTimeout,
    StreamFailed,
    StreamGap,
    StreamLost,
)
from tests.helpers import MS, Recorder, run_thread, scaled, wait_until
from tests.memory import Link, Network, memory_client

Scene = Tuple[Any, Network]


@pytest.fixture
def scene(request: Any) -> Iterator[Scene]:
    network = Network()
    client = memory_client(network, **getattr(request, "param", {}))
    client.start()
    yield client, network
    client.stop(scaled(5))


def fragment(number: int, data: Any = None, stream_id: str = "s", group: str = "g", end: bool = False,
             error: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    stream: Dict[str, Any] = {"streamId": stream_id, "streamSequenceId": number}
    if end:
        stream["endOfStream"] = True
    if error is not None:
        stream["error"] = error
    return {"type": "message", "from": "group", "group": group, "fromUserId": "mina", "dataType": "json",
            "data": number if data is None else data, "stream": stream}


def end(number: int, stream_id: str = "s", **details: Any) -> Dict[str, Any]:
    return {**fragment(number, "", stream_id, end=True, **details), "dataType": "text"}


def whole(stream_id: str, count: int) -> List[Dict[str, Any]]:
    return [fragment(n, stream_id=stream_id) for n in range(1, count + 1)] + [end(count + 1, stream_id)]


def data(stream: Any) -> List[Any]:
    return [message.data for message in stream]


def test_a_stream_from_its_beginning_to_its_end(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    link = network.links[0]
    link.say(fragment(1, "Once upon"), fragment(2, "a time"))
    stream = incoming.accept(scaled(5))
    assert (stream.stream_id, stream.group, stream.from_user_id, stream.ended) == ("s", "g", "mina", False)
    assert next(stream).data == "Once upon"
    message = stream.receive(scaled(5))
    assert message.data == "a time" and message.stream.sequence_id == 2
    with pytest.raises(ReceiveTimeout):
        stream.receive(0)
    with pytest.raises(ReceiveTimeout):
        stream.receive(5 * MS)
    link.say(end(3))
    assert list(stream) == [] and list(stream) == [] and stream.receive(0) is None and stream.ended
    assert "ended" in repr(stream) and "'g'" in repr(incoming)
    with pytest.raises(ReceiveTimeout):
        incoming.accept(0)
    assert client.stats()["inbox"] == 0


def test_one_stream_after_the_other_by_iteration(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g", timeout=5 * MS)
    # Interleaved on the wire, read one by one.
    network.links[0].say(*[message for pair in zip(whole("a", 3), whole("b", 3)) for message in pair])
    network.links[0].say(end(1, "empty"))
    wait_until(lambda: len(incoming._door.waiting) == 3)
    assert [(stream.stream_id, data(stream)) for stream in incoming] == [
        ("a", [1, 2, 3]), ("b", [1, 2, 3]), ("empty", [])]


def test_only_streams_of_the_group_are_taken_and_everything_else_goes_where_it_always_went(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    link = network.links[0]
    link.say(link.message("plain"), fragment(1, group="other"), fragment(1), link.message("plain too"))
    assert [client.receive(scaled(5)).data for _ in range(3)] == ["plain", 1, "plain too"]
    assert next(incoming.accept(scaled(5))).data == 1
    incoming.close()
    link.say(fragment(1, stream_id="late"))
    message = client.receive(scaled(5))  # as if nobody had ever asked for streams
    assert message.stream.stream_id == "late"


def test_any_group_and_the_first_that_asked(scene: Scene) -> None:
    client, network = scene
    some, every = client.streams("g"), client.streams()
    network.links[0].say(fragment(1, group="g"), fragment(1, group="h"), fragment(1, "same id", group="i"))
    assert some.accept(scaled(5)).group == "g"
    assert [every.accept(scaled(5)).group for _ in range(2)] == ["h", "i"]
    del some
    gc.collect()
    network.links[0].say(fragment(1, group="g", stream_id="next"))
    assert every.accept(scaled(5)).stream_id == "next"


def test_listeners_do_not_see_what_readers_get(scene: Scene) -> None:
    client, network = scene
    heard = Recorder().attach(client, "group-message")
    incoming = client.streams("g")
    link = network.links[0]
    link.say(fragment(1), link.message("plain"))
    heard.wait_for(1)
    assert next(incoming.accept(scaled(5))).data == 1
    assert [payload.data for payload in heard.payloads()] == ["plain"]


def test_a_stream_whose_beginning_was_missed_is_left_out(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    network.links[0].say(fragment(4), fragment(5), end(6), fragment(1, stream_id="t"))
    assert incoming.accept(scaled(5)).stream_id == "t"
    assert incoming.skipped == 3
    with pytest.raises(ReceiveTimeout):
        incoming.accept(0)


def test_unless_it_is_wanted_anyway(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g", from_start=False)
    network.links[0].say(fragment(4), fragment(5), end(6))
    assert data(incoming.accept(scaled(5))) == [4, 5] and incoming.skipped == 0


def test_a_gap_is_told_once_and_reading_goes_on(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    network.links[0].say(fragment(1), fragment(1), fragment(4), fragment(5), end(6))
    stream = incoming.accept(scaled(5))
    got: List[Any] = []
    with pytest.raises(StreamGap) as caught:
        for message in stream:
            got.append(message.data)
    assert (caught.value.expected, caught.value.received, caught.value.stream_id) == (2, 4, "s")
    assert got + data(stream) == [1, 4, 5]


def test_an_error_at_the_end_is_raised_for_ever(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    error = {"name": "UserError", "message": "model stopped", "userErrorCode": "E42"}
    network.links[0].say(fragment(1), end(2, error=error))
    stream = incoming.accept(scaled(5))
    assert next(stream).data == 1
    for _ in range(2):
        with pytest.raises(StreamFailed, match="model stopped") as caught:
            next(stream)
        assert (caught.value.name, caught.value.user_error_code) == ("UserError", "E42")


def test_a_stream_id_can_be_used_again(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    network.links[0].say(*whole("s", 2), *whole("s", 3))
    assert data(incoming.accept(scaled(5))) == [1, 2]
    assert data(incoming.accept(scaled(5))) == [1, 2, 3]


def test_a_quiet_stream_is_given_up(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g", idle_timeout=20 * MS)
    network.links[0].say(fragment(1))
    stream = incoming.accept(scaled(5))
    assert next(stream).data == 1
    with pytest.raises(StreamFailed) as caught:
        next(stream)
    assert caught.value.name == "IdleTimeout"
    network.links[0].say(fragment(2), end(3))
    with pytest.raises(StreamFailed):
        stream.receive(0)


# ---- closing ---------------------------------------------------------------------------------------------------------


def test_a_closed_reader_drops_what_is_left(scene: Scene) -> None:
    client, network = scene
    with client.streams("g") as incoming:
        network.links[0].say(fragment(1), fragment(2))
        with incoming.accept(scaled(5)) as stream:
            assert next(stream).data == 1
        with pytest.raises(ClientStateError, match="closed"):
            next(stream)
        network.links[0].say(fragment(3), end(4), fragment(1, stream_id="t"))
        assert incoming.accept(scaled(5)).stream_id == "t"
    with pytest.raises(ClientStateError, match="closed"):
        incoming.accept()
    assert list(incoming) == []


def test_closing_wakes_whoever_waits(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    network.links[0].say(fragment(1))
    stream = incoming.accept(scaled(5))
    next(stream)
    with run_thread(incoming.accept) as accepting, run_thread(list, incoming) as iterating, \
            run_thread(next, stream) as reading:
        wait_until(lambda: len(client._conversations.inbox._hungry) == 3)
        incoming.close()
        stream.close()
        assert isinstance(accepting.exception(), ClientStateError) and iterating.result() == []
        assert isinstance(reading.exception(), ClientStateError)


def test_what_nobody_holds_any_more_is_dropped(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    link = network.links[0]
    link.say(fragment(1), fragment(1, stream_id="t"))
    first, second = incoming.accept(scaled(5)), incoming.accept(scaled(5))
    inbox = client._conversations.inbox
    del first
    gc.collect()
    link.say(fragment(2), fragment(3))
    wait_until(lambda: client.stats()["received"] == 4)
    assert inbox._count == 1  # of the second
    del incoming
    gc.collect()
    link.say(fragment(2, stream_id="t"), end(3, "t"), end(4), fragment(1, stream_id="u"))
    assert client.receive(scaled(5)).stream.stream_id == "u"
    assert data(second) == [1, 2] and inbox._count == 0
    assert client._engine.receiver.side_door is None


# ---- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", [{"max_inbox": 8}], indirect=True)
def test_reading_pauses_while_too_much_waits(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    link = network.links[0]
    link.say(*whole("s", 8))
    wait_until(lambda: client._engine.receiver.paused)
    link.say(link.message("behind"))
    stream = incoming.accept(scaled(5))
    assert [next(stream).data for _ in range(5)] == [1, 2, 3, 4, 5]
    with pytest.raises(ReceiveTimeout):
        client.receive(0)
    assert next(stream).data == 6
    assert client.receive(scaled(5)).data == "behind"
    assert data(stream) == [7, 8]


@pytest.mark.parametrize("scene", [{"max_inbox": 8}], indirect=True)
def test_closing_makes_room_too(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    link = network.links[0]
    for close in (lambda: incoming.accept(scaled(5)).close(), lambda: incoming.close()):
        link.say(*whole("s", 8))
        wait_until(lambda: client._engine.receiver.paused)
        link.say(link.message("behind"))
        close()
        assert client.receive(scaled(5)).data == "behind"


@pytest.mark.parametrize("scene", [{"max_inbox": 8}], indirect=True)
def test_whoever_waits_for_one_stream_is_not_held_up_by_another(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    link = network.links[0]
    link.say(fragment(1, stream_id="slow"), fragment(1, stream_id="fast"))
    slow, fast = incoming.accept(scaled(5)), incoming.accept(scaled(5))
    assert next(slow).data == 1
    link.say(*[fragment(n, stream_id="fast") for n in range(2, 9)])
    wait_until(lambda: client._engine.receiver.paused)
    link.say(fragment(2, stream_id="slow"), end(3, "slow"))
    assert data(slow) == [2]
    link.say(end(9, "fast"))
    assert data(fast) == list(range(1, 9))


@pytest.mark.parametrize("scene", [{"max_inbox": 8}], indirect=True)
def test_far_beyond_the_limit_the_client_gives_up(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    link = network.links[0]
    link.say(fragment(1, stream_id="slow"))
    slow = incoming.accept(scaled(5))
    assert next(slow).data == 1
    with run_thread(next, slow) as reading:  # it keeps the reader going
        wait_until(lambda: len(client._conversations.inbox._hungry))
        for n in range(20):
            link.say(fragment(1, stream_id="unread-%d" % n))
        error = reading.exception()
    assert isinstance(error, ClientStopped) and isinstance(error.__cause__.__cause__, InboxOverflow)
    stopped = client._engine.stopped_by
    assert isinstance(stopped, InboxOverflow) and "streams" in str(stopped)
    assert incoming.accept(0).stream_id.startswith("unread")  # what came before stays readable


def test_unread_streams_without_fragments_count_too() -> None:
    network = Network()
    with memory_client(network, max_inbox=8) as client:
        incoming = client.streams("g")
        network.links[0].say(*[end(1, "empty-%d" % n) for n in range(8)])
        wait_until(lambda: client._engine.receiver.paused)
        assert [incoming.accept(scaled(5)).ended for _ in range(8)] == [True] * 8
        wait_until(lambda: not client._engine.receiver.paused)


# ---- cuts and stops --------------------------------------------------------------------------------------------------


def test_a_recovered_session_goes_on_without_a_word(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    link = network.links[0]
    link.say({**fragment(1), "sequenceId": 1})
    stream = incoming.accept(scaled(5))
    link.cut()
    again = network.wait_links(2)
    again.say({**fragment(1), "sequenceId": 1}, {**fragment(2), "sequenceId": 2}, {**end(3), "sequenceId": 3})
    assert data(stream) == [1, 2]


@pytest.mark.parametrize("scene", [{}, {"protocol": "json"}], indirect=True, ids=["refused", "plain"])
def test_a_lost_session_ends_the_streams_that_are_open(scene: Scene) -> None:
    client, network = scene
    network.accept_recovery = False
    incoming = client.streams("g")
    network.links[0].say(*whole("done", 1), fragment(1), fragment(1, stream_id="t"))
    done, stream, waiting = [incoming.accept(scaled(5)) for _ in range(3)]
    assert next(waiting).data == 1
    with run_thread(next, waiting) as reading:
        wait_until(lambda: len(client._conversations.inbox._hungry))
        network.links[0].cut()
        assert isinstance(reading.exception(), StreamLost)
    link = network.wait_links(3 if client._protocol.reliable else 2)
    assert next(stream).data == 1  # what arrived before
    with pytest.raises(StreamLost):
        next(stream)
    assert data(done) == [1]
    link.say(fragment(2), fragment(1, stream_id="new"))
    assert incoming.accept(scaled(5)).stream_id == "new" and incoming.skipped == 1


def test_stop_wakes_everybody_and_the_door_stays(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    network.links[0].say(fragment(1))
    stream = incoming.accept(scaled(5))
    assert next(stream).data == 1  # or it would be for whichever of the two is quicker
    with run_thread(incoming.accept) as accepting, run_thread(list, incoming) as iterating, \
            run_thread(list, stream) as reading, run_thread(stream.receive) as receiving:
        wait_until(lambda: len(client._conversations.inbox._hungry) == 4)
        client.stop(scaled(5))
        assert isinstance(accepting.exception(), ClientStopped) and iterating.result() == []
        ends = {type(reading.exception()), type(receiving.exception())}
        assert ends == {ClientStopped}
    with pytest.raises(ClientStopped):
        incoming.accept()
    client.start()
    network.links[-1].say(fragment(1, stream_id="t"))
    assert incoming.accept(scaled(5)).stream_id == "t"
    with pytest.raises(ClientStopped):
        stream.receive(0)


def test_before_start_there_is_nothing_to_accept() -> None:
    client = memory_client(Network())
    incoming = client.streams()
    with pytest.raises(ClientStopped, match="start"):
        incoming.accept()
    assert list(incoming) == []


def test_mistakes_in_the_call(scene: Scene) -> None:
    client, network = scene
    for arguments in ({"group": ""}, {"group": 7}, {"timeout": -1}, {"idle_timeout": "x"}):
        with pytest.raises(InvalidArgument):
            client.streams(**arguments)
    with pytest.raises(InvalidArgument):
        client.streams().accept(-1)


def test_a_callback_must_not_wait_for_fragments(scene: Scene) -> None:
    client, network = scene
    incoming = client.streams("g")
    errors: List[Any] = []
    called = threading.Event()

    def back(future: Any) -> None:
        for timeout in (0, None):
            try:
                incoming.accept(timeout)
            except Exception as error:  # noqa: BLE001  # it is what is being tested
                errors.append(type(error))
        called.set()

    network.on_command = lambda link, command: True  # no answer before the callback is there
    future = client.send_event_nowait("e", "x")
    future.add_done_callback(back)
    network.links[0].ack(future.ack_id)
    assert called.wait(scaled(5)) and errors == [ReceiveTimeout, ClientStateError]


def test_many_readers_while_everything_is_cut(scene: Scene, switch_interval: Any) -> None:
    """Each stream goes to one reader, whole and in order, whatever threads and links do."""
    client, network = scene
    incoming = client.streams("g")
    got: Dict[str, List[Any]] = {}
    numbers = iter(range(1, 10**9))

    def read() -> None:
        while True:
            stream = incoming.accept(scaled(10))
            if stream.stream_id == "over":
                return
            assert stream.stream_id not in got
            got[stream.stream_id] = data(stream)

    def say(link: Link, messages: List[Dict[str, Any]]) -> None:
        link.say(*[{**message, "sequenceId": next(numbers)} for message in messages])

    readers = [run_thread(read, join_timeout=30) for _ in range(4)]
    for reader in readers:
        reader.__enter__()
    for round_ in range(8):
        link = network.wait_links(round_ + 1)
        names = ["%d-%d" % (round_, n) for n in range(5)]
        say(link, [message for row in zip(*[whole(name, 10) for name in names]) for message in row])
        wait_until(lambda round_=round_: client.stats()["received"] == (round_ + 1) * 55)
        link.cut()
    link = network.wait_links(9)
    say(link, [end(1, "over", group="g")])
    for _ in readers[1:]:
        say(link, [end(1, "over", group="g")])
    for reader in readers:
        reader.__exit__(None, None, None)
    assert len(got) == 40 and set(map(tuple, got.values())) == {tuple(range(1, 11))}
