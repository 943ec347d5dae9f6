"""Publishing streams over a network in memory: order, back-pressure, refusals, cuts, ends, stops."""

from __future__ import annotations

import gc
import random
import threading
from typing import Any, Iterator, List

import pytest

from simplepubsub.exceptions import (
    ClientStateError,
    ClientStopped,
    InvalidArgument,
    MessageTooLarge,
    StreamFailed,
    StreamLost,
    StreamRefused,
    StreamTimeout,
)
from simplepubsub.webpubsub import outgoing_stream
from tests.helpers import MS, run_thread, scaled, wait_until
from tests.memory import Network, memory_client
from tests.streamdesk import Desk, Scene, started_scene


@pytest.fixture
def scene(request: Any) -> Iterator[Scene]:
    with started_scene(**getattr(request, "param", {})) as scene:
        yield scene


def let_go(network: Network) -> None:
    network.hold = False
    with network.changed:
        network.changed.notify_all()


def not_opened_in_time(client: Any, desk: Desk) -> str:
    """Open a stream that the service has and does not acknowledge, in vain; return its id."""
    for limit in (0.02, 0.5, 5):  # a slow machine may be too late to write the start, too
        stream_id = "s-%g" % limit
        with pytest.raises(StreamTimeout) as caught:
            client.open_stream("g", stream_id=stream_id, timeout=scaled(limit))
        assert isinstance(caught.value, TimeoutError) and caught.value.stream_id == stream_id
        if stream_id in desk.accepted:
            return stream_id
    raise AssertionError("no start was written")


def nothing_is_left(client: Any) -> None:
    assert not client._conversations.publisher._channels
    assert client.stats()["outbox"] == client.stats()["outbox_bytes"] == 0


def test_what_goes_over_the_wire(scene: Scene) -> None:
    client, network, desk = scene
    with client.open_stream("lobby", stream_id="s-01", no_echo=True, idle_timeout=60) as stream:
        assert (stream.stream_id, stream.group, stream.state) == ("s-01", "lobby", "open")
        stream.write("Once upon")
        stream.write({"a": 1})
        stream.write(b"\x01\x02\x03")
        stream.keep_alive()
        stream.flush()
        assert stream.acknowledged == 3 and stream.unacknowledged == 0
        assert "s-01" in repr(stream) and "open" in repr(stream)
    assert stream.state == "closed"
    sent = [command for command in network.links[0].commands if command["type"] != "ping"]
    keep_alive = {"type": "streamData", "streamId": "s-01"}
    assert keep_alive in sent  # ahead of what waits
    sent.remove(keep_alive)
    assert sent == [
        {"type": "sendToGroup", "group": "lobby", "noEcho": True,
         "stream": {"streamId": "s-01", "idleTimeoutMs": 60000}},
        {"type": "streamData", "streamId": "s-01", "streamSequenceId": 1, "dataType": "text", "data": "Once upon"},
        {"type": "streamData", "streamId": "s-01", "streamSequenceId": 2, "dataType": "json", "data": {"a": 1}},
        {"type": "streamData", "streamId": "s-01", "streamSequenceId": 3, "dataType": "binary", "data": "AQID"},
        {"type": "streamEnd", "streamId": "s-01"},
    ]
    nothing_is_left(client)


def test_ids_are_made_up_and_different(scene: Scene) -> None:
    client, network, desk = scene
    ids = {client.open_stream("g").stream_id for _ in range(3)}
    assert len(ids) == 3 and all(len(stream_id) == 36 for stream_id in ids)


def test_a_refused_start(scene: Scene) -> None:
    client, network, desk = scene
    refusal = {"type": "streamClosed", "streamId": "s", "error": {"name": "Forbidden", "message": "not you"}}
    network.on_command = lambda link, command: "stream" in command and (link.say(refusal) or True)
    with pytest.raises(StreamRefused, match="not you") as caught:
        client.open_stream("g", stream_id="s")
    assert (caught.value.name, caught.value.message, caught.value.stream_id) == ("Forbidden", "not you", "s")
    nothing_is_left(client)
    network.on_command = desk.on_command
    client.open_stream("g", stream_id="s").end()


def test_a_start_without_an_answer_is_given_up(scene: Scene) -> None:
    client, network, desk = scene
    desk.mute = True
    stream_id = not_opened_in_time(client, desk)
    desk.wait(lambda: stream_id in desk.ended)
    assert desk.ended[stream_id]["error"]["message"]
    nothing_is_left(client)
    desk.mute = False
    desk.ack(network.links[0], stream_id, 1)  # too late: nobody knows it
    client.open_stream("g", stream_id=stream_id).end()


def test_mistakes_in_the_call(scene: Scene) -> None:
    client, network, desk = scene
    for arguments in ({"group": ""}, {"stream_id": " "}, {"stream_id": 7}, {"idle_timeout": 0}, {"idle_timeout": -1},
                      {"idle_timeout": None}, {"idle_timeout": float("inf")}, {"idle_timeout": "1"}, {"timeout": -1}):
        with pytest.raises(InvalidArgument):
            client.open_stream(**{"group": "g", **arguments})
    stream = client.open_stream("g", stream_id="s")
    with pytest.raises(InvalidArgument, match="already"):
        client.open_stream("other", stream_id="s")
    for data, data_type in (({1}, None), (1, "text"), ("x", "yaml"), ("\ud800", None)):
        with pytest.raises(InvalidArgument):
            stream.write(data, data_type)
    with pytest.raises(MessageTooLarge):
        stream.write("x" * 2**20)
    with pytest.raises(InvalidArgument):
        stream.write("x", timeout=-1)
    stream.write("good")  # none of them has used up a number
    stream.end()
    assert desk.accepted["s"] == ["good"]


def test_before_start_and_after_stop_there_is_nobody_to_write_to(scene: Scene) -> None:
    client, network, desk = scene
    with pytest.raises(ClientStopped, match="start"):
        memory_client(Network()).open_stream("g")
    stream = client.open_stream("g")
    client.stop(scaled(5))
    for call in (lambda: stream.write("x"), stream.flush, stream.end, stream.keep_alive,
                 lambda: client.open_stream("g")):
        with pytest.raises(ClientStopped):
            call()
    stream.abort()
    assert stream.state == "failed"
    client.start()
    with pytest.raises(ClientStopped):
        stream.write("x")  # that was another run
    client.open_stream("g", stream_id=stream.stream_id).end()


# ---- back-pressure ---------------------------------------------------------------------------------------------------


def test_a_write_waits_while_too_much_is_unacknowledged(scene: Scene, monkeypatch: Any) -> None:
    monkeypatch.setattr(outgoing_stream, "WINDOW_FRAGMENTS", 5)
    client, network, desk = scene
    stream = client.open_stream("g", stream_id="s")
    desk.mute = True
    for n in range(5):
        stream.write(n)
    with pytest.raises(StreamTimeout, match="nothing was written"):
        stream.write("never", timeout=20 * MS)
    with run_thread(stream.write, 5, timeout=scaled(10)) as writing:
        wait_until(lambda: len(client._conversations.publisher._channels["s"].line))
        assert writing.running
        desk.ack(network.links[0], "s", 2)
        writing.result()
    desk.mute = False
    desk.ack(network.links[0], "s")
    stream.end()
    assert desk.accepted["s"] == list(range(6))


def test_waiting_writes_are_served_in_the_order_of_the_calls(scene: Scene, monkeypatch: Any) -> None:
    monkeypatch.setattr(outgoing_stream, "WINDOW_FRAGMENTS", 1)
    client, network, desk = scene
    stream = client.open_stream("g", stream_id="s")
    desk.mute = True
    stream.write(0)
    channel = client._conversations.publisher._channels["s"]
    threads: List[Any] = []
    for n in range(1, 6):
        thread = run_thread(stream.write, n, timeout=0 if n == 3 else scaled(10))
        thread.__enter__()
        threads.append(thread)
        if n == 3:
            assert isinstance(thread.exception(), StreamTimeout)
        else:
            wait_until(lambda n=n: len(channel.line) == n - (n > 3))
    ending = run_thread(stream.end, scaled(10))
    ending.__enter__()
    wait_until(lambda: len(channel.line) == 5)
    desk.mute = False
    desk.ack(network.links[0], "s")
    for thread in threads + [ending]:
        thread.__exit__(None, None, None)
    assert desk.accepted["s"] == [0, 1, 2, 4, 5] and "s" in desk.ended


def test_a_full_inbox_does_not_keep_acknowledgements_away(scene: Scene) -> None:
    network = Network()
    desk = Desk(network)
    with memory_client(network, max_inbox=4) as client:
        stream = client.open_stream("g", stream_id="s")
        link = network.links[0]
        link.say(*[link.message(n) for n in range(4)])
        wait_until(lambda: client._engine.receiver.paused)
        stream.write("x")
        stream.flush(scaled(5))
        stream.end(scaled(5))
    assert desk.accepted["s"] == ["x"]


def test_several_threads_write_whole_fragments(scene: Scene, switch_interval: Any) -> None:
    client, network, desk = scene
    with client.open_stream("g", stream_id="s") as stream:

        def write(name: int) -> None:
            for n in range(200):
                stream.write([name, n])

        threads = [run_thread(write, name, join_timeout=30) for name in range(5)]
        for thread in threads:
            thread.__enter__()
        for thread in threads:
            thread.__exit__(None, None, None)
    accepted = desk.accepted["s"]
    assert len(accepted) == 1000
    for name in range(5):
        assert [n for writer, n in accepted if writer == name] == list(range(200))
    nothing_is_left(client)


# ---- refusals and ends -----------------------------------------------------------------------------------------------


def test_fragments_that_were_refused_are_sent_again(scene: Scene, seed: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(outgoing_stream, "REWIND_PAUSE", 5 * MS)
    client, network, desk = scene
    rng = random.Random(seed)
    desk.refuse = lambda command: "TransientError" if rng.random() < 0.05 else None
    with client.open_stream("g", stream_id="s") as stream:
        for n in range(500):
            stream.write(n)
        stream.end(scaled(30))
    assert desk.accepted["s"] == list(range(500))


def test_an_answer_out_of_range_fails_the_stream_and_tells_the_service(scene: Scene) -> None:
    client, network, desk = scene
    stream = client.open_stream("g", stream_id="s")
    with run_thread(stream.end, scaled(10)) as ending:
        pass
    assert ending.result() is None
    stream = client.open_stream("g", stream_id="s")
    desk.ack(network.links[0], "s", 7)
    desk.wait(lambda: desk.violations)
    with pytest.raises(StreamFailed) as caught:
        stream.write("x")
    assert caught.value.name == "ProtocolViolation"
    for call in (stream.flush, stream.end, stream.keep_alive):
        with pytest.raises(StreamFailed):
            call()
    nothing_is_left(client)


def test_a_stream_that_the_service_closes_fails_whoever_waits(scene: Scene) -> None:
    client, network, desk = scene
    stream = client.open_stream("g", stream_id="s")
    desk.mute = True
    stream.write("x")
    with run_thread(stream.flush, scaled(10)) as flushing, run_thread(stream.end, scaled(10)) as ending:
        wait_until(lambda: stream.state == "ending")
        desk.close(network.links[0], "s", "IdleTimeout")
        for thread in (flushing, ending):
            error = thread.exception()
            assert isinstance(error, StreamFailed) and error.name == "IdleTimeout"
    with pytest.raises(StreamFailed):
        stream.write("y")


def test_an_end_that_is_not_confirmed_in_time_can_be_waited_for_again(scene: Scene) -> None:
    client, network, desk = scene
    stream = client.open_stream("g", stream_id="s")
    desk.mute = True
    stream.write("x")
    with pytest.raises(StreamTimeout):
        stream.end(20 * MS)
    assert stream.state == "ending"
    with pytest.raises(ClientStateError):
        stream.write("y")
    with run_thread(stream.end, scaled(10)), run_thread(stream.end, scaled(10)):
        desk.mute = False
        desk.ack(network.links[0], "s")
    assert stream.state == "closed"
    stream.end()
    stream.abort()
    with pytest.raises(ClientStateError):
        stream.write("y")
    with pytest.raises(ClientStateError):
        stream.keep_alive()


def test_an_exception_in_the_block_aborts_with_nothing_but_its_name(scene: Scene) -> None:
    client, network, desk = scene
    with pytest.raises(KeyError):
        with client.open_stream("g", stream_id="s") as stream:
            stream.write("x")
            raise KeyError("secret")
    desk.wait(lambda: "s" in desk.ended)
    assert desk.ended["s"] == {"type": "streamEnd", "streamId": "s", "error": {"message": "KeyError"}}
    assert desk.accepted["s"] == ["x"]
    wait_until(lambda: stream.state == "closed")
    with pytest.raises(ClientStateError):
        stream.write("y")
    stream.end()
    nothing_is_left(client)


def test_an_abort_says_what_the_publisher_says(scene: Scene) -> None:
    client, network, desk = scene
    stream = client.open_stream("g", stream_id="s")
    desk.mute = True
    stream.write("x")
    with run_thread(stream.flush, scaled(10)) as flushing:
        stream.abort("model stopped", "E42")
        desk.wait(lambda: "s" in desk.ended)
        desk.close(network.links[0], "s")
        assert isinstance(flushing.exception(), ClientStateError)
    with pytest.raises(ClientStateError):
        stream.flush()  # nor is anything accepted that was not
    assert desk.ended["s"]["error"] == {"message": "model stopped", "userErrorCode": "E42"}


def test_a_closed_stream_inside_a_block_raises_at_its_end(scene: Scene) -> None:
    client, network, desk = scene
    with pytest.raises(StreamFailed):
        with client.open_stream("g", stream_id="s"):
            desk.close(network.links[0], "s", "Forbidden")


# ---- cuts ------------------------------------------------------------------------------------------------------------


def test_a_recovered_session_continues_its_streams(scene: Scene) -> None:
    client, network, desk = scene
    stream = client.open_stream("g", stream_id="s")
    quiet = client.open_stream("g", stream_id="quiet")
    stream.write(0)
    stream.flush()
    desk.mute = True
    stream.write(1)
    stream.write(2)
    desk.wait(lambda: desk.streams["s"] == 4)
    network.hold = True
    network.links[0].cut()
    wait_until(lambda: not client.is_connected())
    stream.write(3)  # meanwhile
    desk.mute = False
    let_go(network)
    stream.end()
    assert desk.accepted["s"] == [0, 1, 2, 3]
    link = network.links[1]
    assert [c["streamSequenceId"] for c in link.of("streamData") if c["streamId"] == "s"] == [2, 3, 4]
    assert desk.keep_alives == ["quiet"]  # to learn whether it still exists
    quiet.end()


def test_a_stream_that_ended_during_a_cut_is_noticed(scene: Scene) -> None:
    client, network, desk = scene
    stream = client.open_stream("g", stream_id="s")
    network.hold = True
    network.links[0].cut()
    wait_until(lambda: not client.is_connected())
    del desk.streams["s"]
    let_go(network)
    wait_until(lambda: stream.state == "failed")
    with pytest.raises(StreamFailed) as caught:
        stream.write("x")
    assert caught.value.name == "StreamNotFound"


@pytest.mark.parametrize("scene", [{}, {"protocol": "json"}], indirect=True, ids=["refused", "plain"])
def test_a_new_session_fails_every_stream_at_once(scene: Scene, monkeypatch: Any) -> None:
    monkeypatch.setattr(outgoing_stream, "WINDOW_FRAGMENTS", 2)
    client, network, desk = scene
    streams = [client.open_stream("g", stream_id=name) for name in "abc"]
    desk.mute = True
    network.accept_recovery = False
    streams[0].write(0)
    streams[0].write(1)
    with run_thread(streams[0].write, 2, timeout=scaled(10)) as writing, \
            run_thread(streams[1].end, scaled(10)) as ending:
        wait_until(lambda: streams[1].state == "ending")
        desk.wait(lambda: len(desk.accepted["a"]) == 2)
        network.links[0].cut()
        for thread in (writing, ending):
            assert isinstance(thread.exception(), StreamLost)
    for stream in streams:
        with pytest.raises(StreamLost):
            stream.keep_alive()
    assert len(desk.accepted["a"]) == 2
    desk.mute = False
    wait_until(client.is_connected)
    client.open_stream("g", stream_id="d").end()
    last = network.links[-1]
    assert {c.get("streamId", "d") for c in last.commands if c["type"] != "ping"} == {"d"}  # nothing of the old ones
    nothing_is_left(client)


@pytest.mark.parametrize("scene", [{}, {"protocol": "json"}], indirect=True, ids=["recovered", "new session"])
def test_a_start_without_answer_is_repeated_after_a_cut(scene: Scene) -> None:
    client, network, desk = scene
    desk.mute = True
    with run_thread(client.open_stream, "g", stream_id="s", timeout=scaled(10)) as opening:
        desk.wait(lambda: "s" in desk.streams)
        if client._protocol.name.startswith("json.webpubsub"):
            desk.streams.clear()
        desk.mute = False
        network.links[0].cut()
        stream = opening.result()
    stream.write("x")
    stream.end()
    assert desk.accepted["s"] == ["x"]


def test_an_end_without_answer_is_repeated_after_a_cut(scene: Scene) -> None:
    client, network, desk = scene
    stream = client.open_stream("g", stream_id="s")
    stream.write("x")
    desk.mute = True
    with run_thread(stream.end, scaled(10)) as ending:
        desk.ack(network.links[0], "s", 2)
        desk.wait(lambda: "s" in desk.ended)
        desk.mute = False
        network.links[0].cut()
        ending.result()
    assert stream.state == "closed" and stream.acknowledged == 1


def test_nothing_stale_is_written_to_another_connection(scene: Scene) -> None:
    client, network, desk = scene
    stream = client.open_stream("g", stream_id="s")
    link = network.links[0]
    link.clog(0)
    client.send_event_nowait("fill", "the writer is busy with this")
    wait_until(lambda: client.stats()["outbox"] == 0)
    network.accept_recovery = False
    for n in range(5):
        stream.write(n)
    assert client.stats()["outbox"] == 5
    future = client.send_to_group_nowait("g", "an ordinary message")
    link.cut()
    future.result(scaled(5))
    assert network.links[-1].of("streamData") == []
    assert stream.state == "failed"


def test_many_cuts_lose_nothing_and_double_nothing(scene: Scene, switch_interval: Any, seed: int) -> None:
    client, network, desk = scene
    rng = random.Random(seed)
    begun, over = threading.Event(), threading.Event()

    def cut() -> None:
        for _ in range(25):
            network.links[-1].cut()
            begun.set()
            if over.wait(rng.random() * 0.01):
                return

    with run_thread(cut, join_timeout=30):
        try:
            assert begun.wait(scaled(5))
            writers = []
            for name in ("a", "b"):
                def publish(name: str = name) -> None:
                    with client.open_stream("g", stream_id=name, timeout=scaled(20)) as stream:
                        for n in range(150):
                            stream.write(n, timeout=scaled(20))
                        stream.flush(scaled(20))
                writers.append(run_thread(publish, join_timeout=30))
            for writer in writers:
                writer.__enter__()
            for writer in writers:
                writer.__exit__(None, None, None)
        finally:
            over.set()
    assert desk.accepted == {"a": list(range(150)), "b": list(range(150))}
    assert set(desk.ended) == {"a", "b"} and not desk.violations
    assert client.stats()["recoveries"] >= 1
    nothing_is_left(client)


# ---- stop and keep-alive ---------------------------------------------------------------------------------------------


def test_stop_wakes_everybody(scene: Scene, monkeypatch: Any) -> None:
    monkeypatch.setattr(outgoing_stream, "WINDOW_FRAGMENTS", 1)
    client, network, desk = scene
    streams = [client.open_stream("g") for _ in range(3)]
    desk.mute = True
    for stream in streams:
        stream.write("x")
    calls = [lambda: streams[0].write("y", timeout=10**9), lambda: streams[1].flush(10**9),
             lambda: streams[2].end(10**9), lambda: client.open_stream("g", timeout=10**9)]
    threads = [run_thread(call) for call in calls]
    for thread in threads:
        thread.__enter__()
    desk.wait(lambda: len(desk.streams) == 4)
    wait_until(lambda: streams[2].state == "ending")
    client.stop(scaled(5))
    assert [type(thread.exception()) for thread in threads] == [ClientStopped] * 4
    nothing_is_left(client)


def test_a_quiet_writer_keeps_its_stream_alive_and_a_forgotten_one_does_not(scene: Scene) -> None:
    client, network, desk = scene
    stream = client.open_stream("g", stream_id="s", idle_timeout=40 * MS)
    desk.wait(lambda: desk.keep_alives.count("s") >= 3)
    stream.write("x")
    stream.flush()
    del stream
    gc.collect()
    client.send_event("e", "behind the last sign of life")
    done = len(desk.keep_alives)
    with desk.changed:
        assert not desk.changed.wait_for(lambda: len(desk.keep_alives) > done, 100 * MS)


def test_a_callback_must_not_wait_for_a_stream(scene: Scene) -> None:
    client, network, desk = scene
    errors: List[BaseException] = []
    called = threading.Event()

    def back(future: Any) -> None:
        try:
            client.open_stream("g")
        except BaseException as error:  # noqa: BLE001  # it is what is being tested
            errors.append(error)
        called.set()

    network.on_command = lambda link, command: True  # no answer before the callback is there
    future = client.send_event_nowait("e", "x")
    future.add_done_callback(back)
    network.links[0].ack(future.ack_id)
    assert called.wait(scaled(5)) and isinstance(errors[0], ClientStateError)


def test_a_writer_that_was_slow_to_appear_is_kept_alive_in_time(scene: Scene, monkeypatch: Any) -> None:
    # The supervisor used to look for deadlines when the start was acknowledged, and again at the next ping.
    client, network, desk = scene
    publisher = client._conversations.publisher
    adopt = publisher.adopt

    def late(channel: Any, handle: Any) -> None:
        with run_thread(client.stats):  # something happens in between
            pass
        adopt(channel, handle)

    monkeypatch.setattr(publisher, "adopt", late)
    stream = client.open_stream("g", stream_id="s", idle_timeout=40 * MS)
    desk.wait(lambda: desk.keep_alives.count("s") >= 3)
    stream.end()
