"""P4 for streams: opening, writing, ending, aborting and reading from many threads while links break and runs end."""

from __future__ import annotations

import itertools
import random
import threading
from typing import Any, Callable, Dict, List

from simplepubsub.exceptions import (
    ClientStateError,
    ClientStopped,
    ConnectError,
    ReceiveTimeout,
    StreamFailed,
    StreamTimeout,
)
from simplepubsub.webpubsub import RetryPolicy, outgoing_stream
from tests.helpers import run_thread, scaled, wait_until
from tests.memory import Network, memory_client
from tests.streamdesk import Desk, has_live_link
from tests.test_streams_receiving import fragment

#: What a call may end with while other threads stop, start, cut, end and abort.
EXPECTED = (ClientStopped, ClientStateError, StreamFailed, StreamTimeout, ReceiveTimeout, ConnectError)


def test_every_call_of_a_stream_from_many_threads(
    switch_interval: Any, seed: int, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(outgoing_stream, "WINDOW_FRAGMENTS", 4)
    network = Network()
    desk = Desk(network)
    client = memory_client(network, reconnect_retry=RetryPolicy(base=0.001, maximum=0.01))
    client.start()
    incoming = client.streams()
    over = threading.Event()
    writers: List[Any] = []
    readers: List[Any] = []
    ids = itertools.count()
    limit = scaled(5)

    def open_stream(rng: random.Random) -> None:
        writers.append(client.open_stream("g", stream_id=str(next(ids)), timeout=limit))
        del writers[:-5]

    def one(calls: Dict[str, Callable[[random.Random], Any]], number: int) -> None:
        rng = random.Random(seed + number)
        while not over.is_set():
            call = calls[rng.choice(list(calls))]
            try:
                call(rng)
            except (IndexError,) + EXPECTED:
                pass

    counters = [itertools.count() for _ in range(4)]

    def publish(number: int) -> Dict[str, Callable[[random.Random], Any]]:
        return {
            "open": open_stream,
            "write": lambda rng: rng.choice(writers).write([number, next(counters[number])], timeout=limit),
            "write again": lambda rng: rng.choice(writers).write([number, next(counters[number])], timeout=limit),
            "try to write": lambda rng: rng.choice(writers).write([number, next(counters[number])], timeout=0),
            "flush": lambda rng: rng.choice(writers).flush(limit),
            "end": lambda rng: rng.choice(writers).end(limit),
            "abort": lambda rng: rng.choice(writers).abort("no"),
            "keep alive": lambda rng: rng.choice(writers).keep_alive(),
            "look": lambda rng: [repr(writer) for writer in writers],
        }

    def receive(number: int) -> Dict[str, Callable[[random.Random], Any]]:
        return {
            "accept": lambda rng: readers.append(incoming.accept(0.001)),
            "read": lambda rng: rng.choice(readers).receive(0.001),
            "close": lambda rng: readers.pop(0).close(),
            "forget": lambda rng: readers.clear(),
            "doors": lambda rng: client.streams("other").close(),
            "look": lambda rng: [repr(reader) for reader in readers],
        }

    def disturb() -> None:
        rng = random.Random(seed)
        for n in itertools.count():
            if over.wait(0.002):
                return
            link = network.links[-1]
            choice = rng.random()
            if choice < 0.6:
                link.say(fragment(1, stream_id="in-%d" % n), fragment(2, stream_id="in-%d" % n))
            elif choice < 0.85:
                link.cut()
            elif choice < 0.95:
                link.close(1008)
            else:
                client.stop(rng.choice([0, limit]))
                client.start(scaled(10))

    threads = [run_thread(one, publish(n), n, join_timeout=30) for n in range(4)]
    threads += [run_thread(one, receive(n), 10 + n, join_timeout=30) for n in range(2)]
    threads.append(run_thread(disturb, join_timeout=30))
    for thread in threads:
        thread.__enter__()
    over.wait(scaled(1.2))
    desk.wait(lambda: len(desk.accepted) > 5, 20)
    over.set()
    for thread in threads:
        thread.__exit__(None, None, None)
    incoming.close()
    del readers[:], writers[:]
    wait_until(lambda: has_live_link(client), 10)  # a session that is about to be lost takes its streams with it
    with client.open_stream("g", stream_id="last", timeout=scaled(10)) as stream:
        for n in range(10):
            stream.write(n, timeout=scaled(10))
    assert desk.accepted["last"] == list(range(10))
    for accepted in desk.accepted.values():  # each thread's writes in the order of its calls, none of them twice
        for number in range(4):
            mine = [pair[1] for pair in accepted if isinstance(pair, list) and pair[0] == number]
            assert mine == sorted(set(mine))
    assert not desk.violations
    client.stop(limit)
    publisher, inbox = client._conversations.publisher, client._conversations.inbox
    assert not publisher._channels and not inbox._feeds and not inbox._hungry
    assert client.stats()["outbox_bytes"] == client.stats()["outbox"] == 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    wait_until(lambda: all(link.released == 1 for link in network.links))
