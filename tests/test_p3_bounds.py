"""P3: bounded. Threads are counted, queues have ends, and after stop() nothing is left."""

from __future__ import annotations

import gc
import threading
from typing import Any, List

import pytest

from simplepubsub.exceptions import ClientStopped, ConnectError, InboxOverflow
from simplepubsub.webpubsub import RetryPolicy, WebPubSubClient
from tests.helpers import MS, DeafPort, Recorder, run_thread, scaled, wait_until
from tests.memory import Network, memory_client


def names(client: Any) -> List[str]:
    """The client's threads by their roles."""
    prefix = client._engine.name + "-"
    return sorted(t.name[len(prefix) :] for t in threading.enumerate() if t.name.startswith(prefix))


RUNNING = ["reader", "supervisor", "writer"]


def test_three_threads_and_a_fourth_for_listeners(server: Any, url_for: Any) -> None:
    client = WebPubSubClient(url_for())
    assert names(client) == []
    client.start()
    wait_until(lambda: names(client) == RUNNING)
    client.join_group("g")
    client.on("group-message", lambda: None)
    assert names(client) == ["dispatcher", *RUNNING]
    client.on("connected", lambda: None)
    assert names(client) == ["dispatcher", *RUNNING]
    client.stop()
    assert names(client) == []


def test_never_a_thread_per_message(server: Any, url_for: Any) -> None:
    heard = Recorder()
    with WebPubSubClient(url_for()) as client:
        client.on("group-message", heard.named("message"))
        client.join_group("g")
        wait_until(lambda: names(client) == ["dispatcher", *RUNNING])
        before = threading.active_count()
        most = before
        for n in range(2000):
            client.send_to_group_nowait("g", n)
            if n % 50 == 0:
                most = max(most, threading.active_count())
        client.flush(scaled(30))
        heard.wait_for(2000, timeout=30)
        assert most <= before
        assert names(client) == ["dispatcher", *RUNNING]


def test_the_same_three_threads_through_many_cuts(server: Any, proxy: Any, url_for: Any) -> None:
    with WebPubSubClient(url_for()) as client:
        recovered = Recorder().attach(client, "recovered")
        for n in range(1, 21):
            proxy.wait_connections(1)
            proxy.cut()
            recovered.wait_for(n)
            assert set(names(client)) <= {"dialer", "dispatcher", *RUNNING}
        wait_until(lambda: names(client) == ["dispatcher", *RUNNING])


@pytest.mark.parametrize("state", ["connected", "recovering", "disconnected", "connecting"])
def test_nothing_is_left_after_stop(server: Any, proxy: Any, url_for: Any, state: str) -> None:
    client = WebPubSubClient(url_for(), reconnect_retry=RetryPolicy(base=30.0, maximum=30.0))
    events = Recorder().attach(client, "stopped")
    client.start()
    proxy.wait_connections(1)
    starting = None
    if state == "connecting":
        client.stop()
        proxy.stall()
        starting = run_thread(client.start)
        starting.__enter__()
        wait_until(lambda: client.state == "connecting")
    elif state != "connected":
        proxy.refuse(True)
        if state == "disconnected":
            server.faults.close_connections(1008)
        else:
            proxy.cut()
        wait_until(lambda: client.state == state)
    futures = [] if state == "connecting" else [client.send_to_group_nowait("g", n, ack=bool(n % 2)) for n in range(20)]
    client.stop()
    wait_until(lambda: names(client) == [])  # a dial that was given up may be on its last lines
    assert all(future.done() for future in futures)
    if starting is not None:
        assert isinstance(starting.exception(), ClientStopped)
        starting.__exit__(None, None, None)
    assert len(events.payloads("stopped")) == 1
    proxy.heal()
    wait_until(lambda: proxy.connections == 0)  # the sockets are gone


def test_nothing_is_left_after_a_failed_start() -> None:
    with DeafPort() as port:
        client = WebPubSubClient(port.url("/client/hubs/hub"))
        with pytest.raises(ConnectError):
            client.start(timeout=50 * MS)
        wait_until(lambda: names(client) == [])


def test_many_clients_and_not_one_thread_too_many(server: Any, url_for: Any) -> None:
    before = threading.active_count()
    clients = [WebPubSubClient(url_for(proxy=None)) for _ in range(30)]
    try:
        for client in clients:
            client.start()
        wait_until(lambda: all(names(client) == RUNNING for client in clients))
        assert threading.active_count() <= before + 3 * len(clients)
    finally:
        for client in clients:
            client.stop()
    assert [name for client in clients for name in names(client)] == []


def test_nothing_keeps_a_stopped_client_alive(server: Any, url_for: Any) -> None:
    import weakref

    client = WebPubSubClient(url_for())
    client.on("group-message", lambda: None)
    with client:
        client.join_group("g")
        client.send_to_group("g", "x")
    gone = weakref.ref(client), weakref.ref(client._engine), weakref.ref(client._engine.session)
    del client

    def collected() -> bool:  # the thread of the dial may be on its last lines, and hold the engine
        gc.collect()
        return not any(reference() for reference in gone)

    wait_until(collected)


def test_the_inbox_ends_at_twice_its_limit() -> None:
    network = Network()
    client = memory_client(network, max_inbox=50, protocol="json")
    client.start()
    link = network.links[0]
    network.on_command = lambda link, command: True  # an answer is wanted, so reading may not pause
    client.send_to_group_nowait("g", "x")
    link.wait_for("sendToGroup")
    link.say(*[link.message(n) for n in range(10000)])
    wait_until(lambda: client.state == "stopped")
    received = []
    with pytest.raises(ClientStopped) as caught:
        while True:
            received.append(client.receive(0).data)
    assert isinstance(caught.value.__cause__, InboxOverflow)
    assert received == list(range(len(received)))
    assert 100 <= len(received) < 150


def test_the_queue_of_a_slow_listener_is_bounded_too() -> None:
    network = Network()
    client = memory_client(network, max_inbox=50, protocol="json")
    inside, release = threading.Event(), threading.Event()
    heard = Recorder()

    def slow(message: Any) -> None:
        inside.set()
        release.wait(scaled(20))
        heard.record("message", message.data)

    client.on("group-message", slow)
    client.start()
    link = network.links[0]
    for n in range(1000):
        link.say(link.message(n))
    assert inside.wait(scaled(5))
    wait_until(lambda: client._engine.receiver._paused)
    assert client.stats()["listener_queue"] <= 100
    assert client.stats()["inbox"] == 0
    release.set()
    assert heard.wait_for(1000, timeout=20) == list(range(1000))
    client.stop()


def test_the_outbox_is_bounded_while_there_is_no_connection() -> None:
    network = Network()
    client = memory_client(network, max_outbox_bytes=10_000)
    client.start()
    network.hold = True
    network.links[0].cut()
    wait_until(lambda: client.state == "recovering")
    sent = 0
    with pytest.raises(Exception, match="outbox is full"):
        while True:
            client.send_to_group_nowait("g", "x" * 100, ack=sent % 2 == 0)
            sent += 1
    assert sent < 100
    assert client.stats()["outbox_bytes"] <= 10_000
    client.stop()
    assert client.stats()["outbox_bytes"] == 0
    assert client.stats()["outbox"] == 0
