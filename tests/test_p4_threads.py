"""P4: every public method, from any thread, at any time, from listeners too."""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack
from typing import Any, Callable, Dict, List

import pytest

from simplepubsub.core.states import TRANSITIONS
from simplepubsub.exceptions import (
    ClientStateError,
    ClientStopped,
    ConnectError,
    DeliveryUncertain,
    InvalidArgument,
    OutboxFull,
    ReceiveTimeout,
    SimplePubSubError,
)
from simplepubsub.webpubsub import RetryPolicy, WebPubSubClient
from tests.helpers import MS, Recorder, run_thread, scaled, wait_until
from tests.memory import Link, Network, memory_client

SOON = RetryPolicy(total=None, base=0.001, maximum=0.01)


def calls(client: Any) -> Dict[str, Callable[[], Any]]:
    """Every public method, in a form that ends soon whatever the client is doing."""
    limit = scaled(30)  # for ever, to a thread that hangs
    table: Dict[str, Callable[[], Any]] = {
        "receive": lambda: client.receive(0.001),
        "messages": lambda: list(client.messages(timeout=0.001, max_messages=3)),
        "join_group": lambda: client.join_group("g", timeout=limit),
        "leave_group": lambda: client.leave_group("g", timeout=limit),
        "send_to_group": lambda: client.send_to_group("g", "x", timeout=limit),
        "send_to_group without ack": lambda: client.send_to_group("g", "x", ack=False, timeout=limit),
        "send_event": lambda: client.send_event("e", {"a": 1}, timeout=limit),
        "join_group_nowait": lambda: client.join_group_nowait("h"),
        "leave_group_nowait": lambda: client.leave_group_nowait("h"),
        "send_to_group_nowait": lambda: client.send_to_group_nowait("g", b"x"),
        "send_event_nowait": lambda: client.send_event_nowait("e", "x").result(limit),
        "flush": lambda: client.flush(limit),
        "stats": lambda: client.stats(),
        "repr": lambda: (repr(client), client._repr_html_()),
        "properties": lambda: (client.state, client.groups, client.latency, client.connection_id, client.user_id,
                               client.is_connected()),
        "on and off": lambda: client.off("gap", client.on("gap", lambda: None)),
    }
    return table


#: What a call may end with while other threads stop, start and cut.
EXPECTED = (ClientStopped, ReceiveTimeout, OutboxFull, DeliveryUncertain, ClientStateError, ConnectError)


def hammer(client: Any, seconds: float, threads: int, more: Dict[str, Callable[[], Any]], seed: int,
           enough: Callable[[Dict[str, int]], bool] = bool) -> Dict[str, int]:
    """Call random methods from many threads for a while; return how often each succeeded.

    It takes longer on a machine so slow that those numbers are not ``enough`` by then.
    """
    table = {**calls(client), **more}
    succeeded = dict.fromkeys(table, 0)
    over = threading.Event()

    def one(number: int) -> None:
        rng = random.Random(seed + number)
        names = list(table)
        while not over.is_set():
            name = rng.choice(names)
            try:
                table[name]()
                succeeded[name] += 1
            except EXPECTED:
                pass

    with ExitStack() as stack:
        for number in range(threads):
            stack.enter_context(run_thread(one, number, join_timeout=60))
        over.wait(scaled(seconds))
        try:
            wait_until(lambda: enough(succeeded), timeout=30, message="enough of %r" % succeeded)
        finally:
            over.set()
    return succeeded


def test_every_method_from_many_threads(switch_interval: Any, seed: int) -> None:
    network = Network()
    client = memory_client(network, reconnect_retry=SOON)
    with client:
        hammer(client, 1.0, 8, {}, seed, lambda counts: all(counts[name] for name in counts if name != "receive"))
        client.flush(scaled(10))
        assert client.stats()["unacked"] == 0
        assert client.stats()["outbox_bytes"] == 0
    commands = network.links[0].commands
    ids = [command["ackId"] for command in commands if "ackId" in command]
    assert len(ids) == len(set(ids))


def test_every_method_while_the_network_breaks(switch_interval: Any, seed: int) -> None:
    network = Network()
    client = memory_client(network, reconnect_retry=SOON)
    moves: List[Any] = []
    move = client._engine.move_locked

    def noted(reason: Any) -> None:
        before = client._engine.state
        move(reason)
        moves.append((before, reason, client._engine.state))

    client._engine.move_locked = noted

    def cut() -> None:
        network.links[-1].cut()

    def refuse() -> None:
        network.links[-1].close(1008)

    def say() -> None:
        link = network.links[-1]
        link.say(link.message("x"))

    with client:
        hammer(client, 1.0, 8, {"cut": cut, "refuse": refuse, "say": say}, seed)
        network.greet = network.accept
        wait_until(client.is_connected, timeout=10)
        client.send_to_group("g", "goes on", timeout=scaled(10))
        client.flush(scaled(10))
        assert client.stats()["outbox_bytes"] == 0
    assert all(TRANSITIONS[before, reason] is after for before, reason, after in moves)
    wait_until(lambda: all(link.released == 1 for link in network.links))


def start_and_stop(client: Any, network: Network) -> Dict[str, Callable[[], Any]]:
    return {"start": lambda: client.start(scaled(5)), "stop": lambda: client.stop(scaled(5)),
            "hurry": lambda: client.stop(0), "cut": lambda: network.links and network.links[-1].cut()}


def test_every_method_while_others_start_and_stop(switch_interval: Any, seed: int, caplog: Any) -> None:
    network = Network()
    client = memory_client(network, reconnect_retry=SOON)
    client.on("stopped", lambda: None)
    hammer(client, 1.5, 8, start_and_stop(client, network), seed, lambda counts: counts["start"] > 3)
    client.stop(scaled(5))
    assert client.state == "stopped"
    client.start(scaled(20))
    client.send_to_group("g", "goes on", timeout=scaled(10))
    client.stop(scaled(5))
    assert "failed" not in [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    wait_until(lambda: all(link.released == 1 for link in network.links))


@pytest.mark.stress
def test_every_method_for_long(switch_interval: Any, seed: int, caplog: Any) -> None:
    network = Network()
    client = memory_client(network, reconnect_retry=SOON)
    hammer(client, 20.0, 12, start_and_stop(client, network), seed)
    client.stop(scaled(5))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    wait_until(lambda: all(link.released == 1 for link in network.links))


def race(client: Any, times: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(times):
        go = threading.Barrier(4)

        def start(go: Any = go) -> None:
            go.wait(scaled(10))
            try:
                client.start(scaled(10))
            except (ClientStopped, ClientStateError):
                pass

        def stop(go: Any = go, limit: Any = rng.choice([None, 0, 0.01])) -> None:
            go.wait(scaled(10))
            client.stop(limit)

        def send(go: Any = go) -> None:
            go.wait(scaled(10))
            try:
                client.send_to_group("g", "x", timeout=scaled(10))
            except ClientStopped:
                pass

        with run_thread(start), run_thread(stop), run_thread(send):
            go.wait(scaled(10))
        client.stop()
        assert client.state == "stopped"
        assert client._engine.supervisor is None


def test_start_races_with_stop(switch_interval: Any, seed: int, caplog: Any) -> None:
    network = Network()
    race(memory_client(network, close_timeout=scaled(5)), 200, seed)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    wait_until(lambda: all(link.released == 1 for link in network.links))


@pytest.mark.stress
def test_start_races_with_stop_on_sockets(server: Any, url_for: Any, switch_interval: Any, seed: int) -> None:
    client = WebPubSubClient(url_for(), close_timeout=scaled(5))
    race(client, 200, seed)
    with client:
        client.send_to_group("g", "x", timeout=scaled(10))


def test_many_receivers_share_the_messages(switch_interval: Any) -> None:
    network = Network()
    total = 2000
    with memory_client(network, protocol="json", max_inbox=100) as client:
        taken: List[List[int]] = [[] for _ in range(6)]

        def consume(mine: List[int]) -> None:
            for message in client:
                mine.append(message.data)

        with ExitStack() as stack:
            for mine in taken:
                stack.enter_context(run_thread(consume, mine))
            link = network.links[0]
            for n in range(0, total, 10):
                link.say(*[link.message(n + k) for k in range(10)])
            wait_until(lambda: sum(map(len, taken)) == total, timeout=20)
            client.stop()
        assert sorted(n for mine in taken for n in mine) == list(range(total))
        assert all(mine == sorted(mine) for mine in taken)


def test_many_senders_are_each_kept_in_order(switch_interval: Any) -> None:
    network = Network()
    with memory_client(network, protocol="json") as client:

        def produce(name: str) -> None:
            for n in range(150):
                if n % 3:
                    client.send_to_group_nowait(name, n)
                else:
                    client.send_to_group(name, n, timeout=scaled(20))

        with ExitStack() as stack:
            for number in range(6):
                stack.enter_context(run_thread(produce, "s%d" % number, join_timeout=40))
        client.flush(scaled(20))
        sent = network.links[0].of("sendToGroup")
        for number in range(6):
            assert [c["data"] for c in sent if c["group"] == "s%d" % number] == list(range(150))


# --- listeners --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in calls(None) if name not in ("receive", "flush")])
def test_every_method_in_a_listener(name: str) -> None:
    network = Network()
    done = Recorder()
    with memory_client(network, protocol="json") as client:

        @client.on("group-message")
        def listener() -> None:
            calls(client)[name]()
            done.record("returned")

        link = network.links[0]
        link.say(link.message("x"))
        done.wait_event("returned")


def test_receiving_and_flushing_in_a_listener() -> None:
    network = Network()
    done = Recorder()
    with memory_client(network, protocol="json") as client:

        @client.on("gap")
        def listener() -> None:
            client.send_to_group_nowait("g", "x")
            client.flush(scaled(5))
            done.record("received", client.receive(scaled(5)).data)

        network.links[0].close(1008)
        link = network.wait_links(2)
        link.say(link.message("hello"))
        assert done.wait_event("received") == "hello"


@pytest.mark.parametrize("event", ["connected", "group-message", "disconnected", "recovered"])
def test_stop_in_a_listener(event: str) -> None:
    network = Network()
    client = memory_client(network, reconnect_retry=SOON)
    client.on(event, lambda: client.stop())
    try:
        client.start(scaled(5))
    except ClientStopped:
        assert event == "connected"
    for link in network.links[:1]:
        if event == "group-message":
            link.say(link.message("x", 1))
        elif event == "disconnected":
            link.close(1008)
        elif event == "recovered":
            link.cut()
    wait_until(lambda: client.state == "stopped")
    client.stop()
    prefix = client._engine.name + "-"
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith(prefix)])


def test_listeners_come_and_go_while_messages_arrive(switch_interval: Any) -> None:
    network = Network()
    with memory_client(network, protocol="json", max_inbox=20000) as client:
        heard: List[int] = []
        over = threading.Event()

        def listener(message: Any) -> None:
            heard.append(message.data)

        def churn() -> None:
            while not over.is_set():
                client.on("group-message", listener)
                client.off("group-message", listener)

        with run_thread(churn), run_thread(churn):
            link = network.links[0]
            for n in range(1000):
                link.say(link.message(n))
            wait_until(lambda: client.stats()["received"] == 1000, timeout=20)
            over.set()
        # A message goes to the listeners that are there when it is called, or to the inbox, but not to both.
        wait_until(lambda: not client.stats()["listener_queue"])
        left = [message.data for message in client.messages(timeout=0)]
        assert not set(left) & set(heard)
        with pytest.raises(InvalidArgument):
            client.off("group-message", listener)


def test_an_exception_in_a_listener_stops_nothing(caplog: Any) -> None:
    network = Network()
    told = Recorder()
    with memory_client(network, protocol="json") as client:

        @client.on("group-message")
        def broken(message: Any) -> None:
            if message.data == 1:
                raise ZeroDivisionError("in the listener")
            if message.data == 2:
                raise SystemExit(3)

        told.attach(client, "error")
        client.on("group-message", told.named("second"))
        link = network.links[0]
        link.say(*[link.message(n) for n in (1, 2, 3)])
        assert [message.data for message in told.wait_for(3, name="second")] == [1, 2, 3]
        errors = told.wait_for(2, name="error")
        assert [type(error.error) for error in errors] == [ZeroDivisionError, SystemExit]
        assert [error.event for error in errors] == ["group-message"] * 2
        assert client.stats()["listener_errors"] == 2
        assert "in the listener" in caplog.text
        client.send_to_group("g", "x", timeout=scaled(5))


def test_a_slow_listener_holds_nobody_but_itself() -> None:
    network = Network()
    inside, release = threading.Event(), threading.Event()

    with memory_client(network, protocol="json", close_timeout=200 * MS) as client:

        @client.on("server-message")
        def slow() -> None:
            inside.set()
            release.wait(scaled(20))

        link = network.links[0]
        link.say({"type": "message", "from": "server", "dataType": "text", "data": "x"})
        assert inside.wait(scaled(5))
        for n in range(50):
            link.say(link.message(n))
            assert client.receive(scaled(5)).data == n
            client.send_to_group("g", n, timeout=scaled(5))
        threading.Timer(0.5, release.set).start()


def dead_link(link: Link) -> None:
    link.silent = True


def test_calls_of_all_kinds_end_when_one_thread_stops_the_client(switch_interval: Any) -> None:
    network = Network()
    client = memory_client(network, max_outbox_bytes=1000, close_timeout=100 * MS, ack_timeout=None)
    client.start()
    dead_link(network.links[0])
    client.send_to_group_nowait("g", "x" * 900)
    blocked = [lambda: client.receive(), lambda: client.flush(), lambda: client.send_to_group("g", "x" * 900),
               lambda: list(client), lambda: client.join_group("g" * 500)]
    threads = [run_thread(call) for call in blocked]
    for thread in threads:
        thread.__enter__()
    wait_until(lambda: client._engine._waiters == 3 and client._engine.inbox._waiting == 2)
    client.stop()
    ends = [thread.exception() for thread in threads]
    assert [isinstance(end, ClientStopped) for end in ends] == [True, True, True, False, True]
    assert not [end for end in ends if end is not None and not isinstance(end, SimplePubSubError)]
    for thread in threads:
        thread.__exit__(None, None, None)
