"""P2 for streams, on real sockets: cuts at random bytes, and every fragment arrives once and in order."""

from __future__ import annotations

import random
import threading
from typing import Any, Dict, List

import pytest

from simplepubsub.exceptions import InvocationError, InvocationLost, StreamFailed, StreamLost
from simplepubsub.webpubsub import WebPubSubClient
from tests import peers
from tests.helpers import MS, run_thread, scaled, wait_until
from tests.test_streams_end_to_end import open_and_forget, wait_for_signs_of_life

PROTOCOLS = ["json.reliable", "protobuf.reliable"]


@pytest.fixture(params=PROTOCOLS)
def protocol(request: Any) -> str:
    if request.param.startswith("protobuf"):
        peers.require("google.protobuf", "the protobuf subprotocols")
    return str(request.param)


def publish_through_cuts(
    server: Any, make_proxy: Any, protocol: str, seed: int, cuts: int, streams: int, fragments: int
) -> Dict[str, int]:
    """Publish streams while both ends are cut off again and again; return what the clients counted.

    Fewer than 1,000 messages in all: so many may wait for a receiver that is away before the service gives it up.
    """
    rng = random.Random(seed)
    proxies = [make_proxy(server), make_proxy(server)]
    urls = [proxy.url(server.client_access_url("hub")) for proxy in proxies]
    publisher = WebPubSubClient(urls[0], protocol=protocol)
    receiver = WebPubSubClient(urls[1], protocol=protocol)
    got: Dict[str, List[Any]] = {}
    begun, over = threading.Event(), threading.Event()

    def cut() -> None:
        for n in range(cuts):
            proxy = rng.choice(proxies)
            if n and rng.random() < 0.5:
                proxy.cut_after(rng.randrange(1, 3000), rng.choice(["up", "down"]))
            else:
                proxy.cut()
            begun.set()
            if over.wait(rng.random() * 20 * MS):
                return

    def publish(name: str, delay: float) -> None:
        size = rng.choice([1, 100, 5000])
        assert begun.wait(scaled(30))
        with publisher.open_stream("g", stream_id=name, timeout=scaled(30)) as stream:
            for n in range(fragments):
                stream.write([n, "x" * size], timeout=scaled(30))
                if n % 10 == 0:
                    over.wait(delay)
            stream.end(scaled(30))

    with publisher, receiver:
        receiver.join_group("g")
        incoming = receiver.streams("g")

        def receive() -> None:
            readers = []
            for _ in range(streams):
                stream = incoming.accept(scaled(30))
                got[stream.stream_id] = [message.data[0] for message in stream]
                readers.append(stream)

        with run_thread(receive, join_timeout=60) as receiving:
            with run_thread(cut, join_timeout=60):
                threads = [run_thread(publish, "s%d" % n, rng.random() * 5 * MS, join_timeout=60)
                           for n in range(streams)]
                for thread in threads:
                    thread.__enter__()
                for thread in threads:
                    thread.__exit__(None, None, None)
                over.set()
            for proxy in proxies:
                proxy.cut_after(-1)
            receiving.result(scaled(60))
        recoveries = publisher.stats()["recoveries"] + receiver.stats()["recoveries"]
        counted = {"recoveries": recoveries, "gaps": publisher.stats()["gaps"] + receiver.stats()["gaps"]}
    assert got == {"s%d" % n: list(range(fragments)) for n in range(streams)}
    assert counted["gaps"] == 0
    return counted


def test_every_fragment_once_and_in_order_through_cuts(server: Any, make_proxy: Any, protocol: str, seed: int) -> None:
    counted = publish_through_cuts(server, make_proxy, protocol, seed, cuts=30, streams=3, fragments=300)
    assert counted["recoveries"] > 0


@pytest.mark.stress
def test_every_fragment_once_and_in_order_through_many_cuts(
    server: Any, make_proxy: Any, protocol: str, seed: int
) -> None:
    recoveries = 0
    for round_ in range(15):
        counted = publish_through_cuts(server, make_proxy, protocol, seed + round_, cuts=100, streams=6, fragments=160)
        recoveries += counted["recoveries"]
    assert recoveries > 30


def test_refused_fragments_and_lost_acknowledgements(server: Any, url_for: Any, protocol: str) -> None:
    with WebPubSubClient(url_for(proxy=None), protocol=protocol) as client:
        client.join_group("g")
        incoming = client.streams("g")
        server.faults.refuse_fragments(3)
        with client.open_stream("g") as stream:
            for n in range(50):
                if n == 20:
                    stream.flush()
                    server.faults.refuse_fragments(2)
                stream.write(n)
        assert [message.data for message in incoming.accept(scaled(5))] == list(range(50))


def test_a_session_that_is_not_recovered_fails_both_ends(
    server: Any, proxy: Any, url_for: Any, protocol: str
) -> None:
    with WebPubSubClient(url_for(), protocol=protocol) as client:
        client.join_group("g")
        incoming = client.streams("g")
        stream = client.open_stream("g")
        stream.write("x")
        reader = incoming.accept(scaled(5))
        assert next(reader).data == "x"
        server.faults.refuse_recovery(times=1)
        proxy.cut()
        with pytest.raises(StreamLost):
            next(reader)
        wait_until(lambda: stream.state == "failed")
        with pytest.raises(StreamLost):
            stream.write("y")
        wait_until(client.is_connected)
        with client.open_stream("g", stream_id=stream.stream_id) as again:
            again.write("z")
        assert [message.data for message in incoming.accept(scaled(5))] == ["z"]


def test_what_the_publisher_says_at_the_end_reaches_the_reader(server: Any, url_for: Any, protocol: str) -> None:
    with WebPubSubClient(url_for(proxy=None), protocol=protocol) as client:
        client.join_group("g")
        incoming = client.streams("g")
        stream = client.open_stream("g")
        stream.write("x")
        stream.abort("model stopped", "E42")
        with pytest.raises(StreamFailed, match="model stopped") as caught:
            list(incoming.accept(scaled(5)))
        assert (caught.value.name, caught.value.user_error_code) == ("UserError", "E42")


def test_an_idle_stream_lives_as_long_as_its_writer(server: Any, url_for: Any, protocol: str) -> None:
    with WebPubSubClient(url_for(proxy=None), protocol=protocol) as client:
        client.join_group("g")
        incoming = client.streams("g")
        stream = client.open_stream("g", idle_timeout=scaled(30))
        wait_for_signs_of_life(server, client, stream)
        expired = server.stats()["streams_expired"]
        open_and_forget(client, "g", 200 * MS)
        wait_until(lambda: server.stats()["streams_expired"] > expired)
        stream.write("still there")
        stream.end()
        with pytest.raises(StreamFailed) as caught:
            list(incoming.accept(scaled(5)))
        assert caught.value.name == "IdleTimeout"
        assert [message.data for message in incoming.accept(scaled(5))] == ["still there"]


def test_invocations_meet_the_event_handlers_of_the_server(server: Any, proxy: Any, url_for: Any) -> None:
    entered, release = threading.Event(), threading.Event()

    def wait(call: Any) -> str:
        entered.set()
        return str(release.wait(scaled(10)))

    server.on("sum", "hub")(lambda call: sum(call.data))
    server.on("wait", "hub")(wait)
    with WebPubSubClient(url_for()) as client:
        assert client.invoke_event("sum", [1, 2, 3]).data == 6
        futures = [client.invoke_event_nowait("sum", [n, n]) for n in range(500)]
        assert [future.result(scaled(20)).data for future in futures] == [2 * n for n in range(500)]
        with pytest.raises(InvocationError) as caught:
            client.invoke_event("nobody")
        assert caught.value.name and caught.value.message
        with run_thread(client.invoke_event, "wait", timeout=scaled(20)) as waiting:
            assert entered.wait(scaled(5))
            proxy.cut()
            assert isinstance(waiting.exception(), InvocationLost)
        release.set()
        assert client.invoke_event("sum", [4], timeout=scaled(10)).data == 4
