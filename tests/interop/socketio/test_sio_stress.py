"""Long runs of the Socket.IO client against the Node server: order, integrity, and recovery over many cuts.

The full length of cases 44 and 59 of the protocol reference, section 6.2.
"""

from __future__ import annotations

import logging
import random
import threading
from typing import Any, List

import pytest

from tests.faultproxy import FaultProxy
from tests.helpers import run_thread, scaled, wait_until
from tests.interop.socketio.play import join, listen, lose

#: Thousands of turns: a busy machine needs its time for them.
pytestmark = [pytest.mark.interop, pytest.mark.stress, pytest.mark.timeout(400)]


def test_case_44_twenty_thousand_events_with_slow_and_failing_handlers(
    serve: Any, leg: str, client: Any, switch_interval: Any, seed: int
) -> None:
    logger = logging.Logger("quiet")
    logger.addHandler(logging.NullHandler())
    rng = random.Random(seed)
    sio = client(logger=logger)
    failures: List[Any] = []
    sio.hook("error", lambda *args: failures.append(args))
    handled: List[int] = []
    threads: List[int] = []
    done = threading.Event()
    pause = threading.Event()

    def handler(i: int) -> None:
        handled.append(i)
        if i % 500 == 0:
            threads.append(threading.active_count())
            pause.wait(rng.random() * 0.02)
        if i == 19999:
            done.set()
        if i % 97 == 0:
            raise RuntimeError("at %d" % i)

    sio.on("n", handler)
    join(sio, serve("node"), leg)
    before = threading.active_count()
    sio.emit("burst", 20000)
    assert done.wait(scaled(60))
    assert handled == list(range(20000))
    wait_until(lambda: len(failures) == len(range(0, 20000, 97)), 20)
    assert max(threads) <= before + 2  # none for each event


def test_case_44_many_binary_events(serve: Any, leg: str, client: Any, switch_interval: Any) -> None:
    sio = client()
    recorder = listen(sio)
    join(sio, serve("node"), leg)
    sio.emit("burstbin", 5000)
    with run_thread(recorder.wait_for, 5001, 60, join_timeout=90):
        for i in range(500):  # both directions at once
            assert sio.call("echo", [i, b"%d" % i, {"x": b""}], timeout=scaled(30)) == [i, b"%d" % i, {"x": b""}]
    assert recorder.payloads("b") == [[i, bytes([i % 256]) * 8, {"x": [b"%d" % i, b""]}] for i in range(5000)]


@pytest.mark.parametrize("leg", ["polling", "websocket", "upgrade"])
def test_case_59_thirty_cuts(serve: Any, leg: str, client: Any, seed: int) -> None:
    rng = random.Random(seed)
    peer = serve("node", fresh=True, opts={"connectionStateRecovery": {}})
    total, stop = [0], threading.Event()
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client(reconnection_delay=scaled(0.02), reconnection_delay_max=scaled(0.1))
        recorder = listen(sio)
        join(sio, proxy.url(peer.url), leg)
        peer.emit("tick", 0, b"0")
        total[0] = 1
        recorder.wait_event("tick")

        def ticker() -> None:
            while not stop.wait(0.002):
                for _ in range(rng.randrange(1, 4)):
                    peer.emit("tick", total[0], b"%d" % total[0])
                    total[0] += 1

        with run_thread(ticker, join_timeout=20):
            try:
                for cut in range(1, 31):
                    # The server must see the end of the old connection before the new one asks to go on with it.
                    sid = sio.sid
                    proxy.refuse(True)
                    lose(proxy, recorder, cut)
                    peer.miss(sid)
                    proxy.refuse(False)
                    recorder.wait_event("connect", 20, count=cut + 1)
                    assert sio.recovered, "cut %d" % cut
                    seen = len(recorder.payloads("tick"))
                    recorder.wait_for(seen + rng.randrange(1, 10), 20, name="tick")
            finally:
                stop.set()
        peer.emit("tick", total[0], b"%d" % total[0])
        recorder.wait_for(total[0] + 1, 20, name="tick")
        assert recorder.payloads("tick") == [[i, b"%d" % i] for i in range(total[0] + 1)]
        assert len(recorder.payloads("disconnect")) == 30
        sio.disconnect()


def test_case_66_nothing_of_ours_is_lost_over_many_cuts(serve: Any, leg: str, client: Any, seed: int) -> None:
    rng = random.Random(seed)
    peer = serve("node")
    key = "stress %s" % leg
    with FaultProxy("127.0.0.1", peer.port) as proxy:
        sio = client(reconnection_delay=scaled(0.02), reconnection_delay_max=scaled(0.1))
        listen(sio)
        join(sio, proxy.url(peer.url), leg)
        acked: List[int] = []
        for i in range(600):
            sio.emit("put", (key, [i, b"%d" % i]), offline="buffer", retries=100, ack_timeout=scaled(5),
                     callback=lambda i=i: acked.append(i))
        for cut in range(1, 16):
            goal = 40 * cut - rng.randrange(20)
            wait_until(lambda goal=goal: len(acked) >= goal, 40)
            proxy.cut()
        wait_until(lambda: len(acked) == 600, 40)
        assert acked == list(range(600))
        numbers = [value[0] for value in peer.get(key)]
        assert sorted(numbers) == numbers and set(numbers) == set(range(600))  # in order, some perhaps twice
        sio.disconnect()
