"""P2 under load: many publishers, many subscribers, many cuts. Every publisher's messages arrive once and in order.

The tests marked `stress` are long and run in one environment; the same code with fewer cuts runs everywhere.
"""

from __future__ import annotations

import contextlib
import random
import ssl
import sys
import threading
import time

import pytest

from simplepubsub.core import supervisor as supervisor_module
from simplepubsub.exceptions import OutboxFull
from simplepubsub.server import Limits
from simplepubsub.webpubsub import WebPubSubClient
from tests.helpers import Recorder, run_thread, scaled, self_signed, wait_until

#: No client of these tests is given up by the service for being slow while it is cut off.
PATIENT = Limits(patience=30.0)

QUICK = {"cuts": 10, "publishers": 2, "threads": 2, "messages": 500, "subscribers": 3}
LONG = {"cuts": 100, "publishers": 3, "threads": 3, "messages": 2000, "subscribers": 4}


class Ledger:
    """What one subscriber got: checks order and repetition as it goes, remembers no payload."""

    def __init__(self, senders, messages):
        self._next = dict.fromkeys(senders, 0)
        self._lock = threading.Lock()
        self.left = len(senders) * messages
        self.complete = threading.Event()
        self.faults = []

    def __call__(self, message):
        sender, number = message.data["from"], message.data["number"]
        with self._lock:
            expected = self._next[sender]
            if number != expected or message.after_gap:
                self.faults.append((sender, expected, number, message.after_gap))
            self._next[sender] = max(expected, number + 1)
            self.left -= 1
            if self.left == 0:
                self.complete.set()

    def check(self, timeout):
        if not self.complete.wait(scaled(timeout)):
            raise AssertionError("still missing %d: got up to %r; %r" % (self.left, self._next, self.faults[:10]))
        assert self.faults == [] and self.left == 0


def payload(rng, sender, number, sizes):
    return {"from": sender, "number": number, "pad": "x" * rng.choice(sizes)}


def publish(client, sender, messages, rng, sizes):
    """Send in every way there is, from one thread; return the futures."""
    futures = []
    number = 0
    while number < messages:
        data = payload(rng, sender, number, sizes)
        if rng.random() < 0.02:
            client.send_to_group("room", data, timeout=scaled(120))
        else:
            try:
                futures.append(client.send_to_group_nowait("room", data))
            except OutboxFull:
                client.flush(scaled(120))
                continue
        number += 1
    return futures


class Field:
    """Publishers and subscribers behind one proxy, which is cut again and again while they work."""

    def __init__(self, server, proxy, rng, options):
        self.server, self.proxy, self.rng = server, proxy, rng
        self.options = options
        self.clients = []

    def client(self, **options):
        url = self.proxy.url(self.server.client_access_url("hub"))
        client = WebPubSubClient(url, **{"max_inbox": 10**6, "ack_timeout": None, **self.options, **options})
        self.clients.append(client)
        client.start()
        return client

    def run(self, *, cuts, publishers, threads, messages, subscribers, sizes=(0, 10, 200), limit=100.0):
        senders = ["%d.%d" % (number, thread) for number in range(publishers) for thread in range(threads)]
        ledgers = []
        with contextlib.ExitStack() as stack:
            for number in range(subscribers):
                ledger = Ledger(senders, messages)
                ledgers.append(ledger)
                client = self.client()
                if number % 2:
                    client.on("group-message", ledger)
                else:
                    stack.enter_context(run_thread(self._read, client, ledger, join_timeout=limit))
                client.join_group("room")
            working = []
            for number in range(publishers):
                client = self.client()
                for thread in range(threads):
                    rng = random.Random(self.rng.random())
                    work = run_thread(
                        publish, client, "%d.%d" % (number, thread), messages, rng, sizes, join_timeout=limit
                    )
                    working.append(stack.enter_context(work))
            self._cut(cuts, limit, ledgers, len(senders) * messages)
            futures = [future for work in working for future in work.result(limit)]
            for future in futures:
                assert future.result(scaled(limit)) is None
            for ledger in ledgers:
                ledger.check(limit)
            self._check_counters(len(senders) * messages, subscribers, publishers)
            for client in self.clients:
                client.stop()
        return ledgers

    @staticmethod
    def _read(client, ledger):
        for message in client:
            ledger(message)

    def _cut(self, cuts, limit, ledgers, total):
        """Cut at random moments, spread over the traffic as the slowest subscriber sees it."""
        for number in range(cuts):
            share = total * (cuts - number) / (cuts + 1)
            wait_until(
                lambda share=share: max(ledger.left for ledger in ledgers) <= share, timeout=limit, message="progress"
            )
            before = self.proxy.cuts
            kind = self.rng.random()
            if kind < 0.5:
                # Anywhere in a frame, or in a handshake if somebody is still on the way back.
                direction = self.rng.choice(["up", "down"])
                self.proxy.cut_after(self.rng.randrange(20_000), direction)
                try:
                    self.proxy.wait_cuts(before + 1, timeout=0.5)
                except AssertionError:  # the traffic is over before, or slow
                    self.proxy.cut()
                self.proxy.cut_after(-1, direction)
            elif kind < 0.8:
                self.proxy.cut()
            else:
                self.proxy.close_politely()
        assert self.proxy.cuts >= cuts / 2, "hardly anything was cut"

    def _check_counters(self, sent, subscribers, publishers):
        for client in self.clients:
            wait_until(lambda client=client: client.stats()["unacked"] == 0)
        stats = [client.stats() for client in self.clients]
        assert sum(item["sent"] for item in stats) == sum(item["acked"] for item in stats) == sent + subscribers
        assert sum(item["received"] for item in stats) == sent * subscribers
        for item in stats:
            for name in ("failed", "dropped", "gaps", "reconnects", "unacked", "outbox", "outbox_bytes", "inbox"):
                assert item[name] == 0, (name, item)
        wait_until(lambda: sum(client.stats()["recoveries"] for client in self.clients) > 0)
        assert self.server.stats()["published"] == sent, "executed once each"


@pytest.fixture
def field(fresh_server, make_proxy, seed, monkeypatch):
    """`field(salt, server=, **client_options)`; without the breather that a link which is lost at once is given."""
    monkeypatch.setattr(supervisor_module, "QUICK_LOSSES", 10**6)
    fields = []

    def make(salt=0, server=None, **options):
        server = server or fresh_server(limits=PATIENT, recovery_window=120.0)
        rng = random.Random("%s/%s" % (seed, salt))
        fields.append(Field(server, make_proxy(server), rng, options))
        return fields[-1]

    yield make
    for made in fields:
        for client in made.clients:
            client.stop(timeout=0)


def test_p2_ten_cuts(field, seed):
    field().run(**QUICK)


def test_p2_ten_cuts_with_threads_that_change_places_all_the_time(field, switch_interval, seed):
    field().run(**QUICK)


def test_p2_ten_cuts_over_tls(field, fresh_server, tmp_path, seed):
    certificate = self_signed(tmp_path)
    server = fresh_server(limits=PATIENT, recovery_window=120.0, ssl=certificate.server_context)
    field(server=server, ssl=certificate.client_context).run(**QUICK)


def test_p2_slow_listener_that_publishes(field, seed):
    slow_listener(field(max_inbox=20), 300)


def test_p2_throttled(field, seed):
    made = field()
    made.proxy.throttle(700, seed=seed)
    made.run(cuts=5, publishers=1, threads=2, messages=150, subscribers=2)


def test_p2_huge_messages_among_small_ones(field, seed):
    field().run(cuts=4, publishers=1, threads=2, messages=40, subscribers=2, sizes=[0, 10, 100, 300_000, 1_040_000])


def test_p2_no_stall(field, seed):
    no_stall(field(), 20_000)


def slow_listener(made, messages):
    """A listener whose queue is full all the time, and which publishes from inside, while the link is cut."""
    client = made.client()
    publisher = made.client()
    echoes = Recorder()
    pause = threading.Event()
    client.join_group("room")
    made_echo = made.client()
    made_echo.join_group("echo")
    made_echo.on("group-message", lambda message: echoes(message.data))

    @client.on("group-message")
    def slow(message):
        pause.wait(0.001)  # as one that works
        if message.data % 3 == 0:
            client.send_to_group("echo", message.data)
        else:
            client.send_to_group_nowait("echo", message.data)

    def work():
        for number in range(messages):
            # As fast as the listener: nobody can be faster for long, whatever the buffers in between are.
            publisher.send_to_group("room", number)
            wait_until(lambda number=number: number - len(echoes) < 15, timeout=60)

    with run_thread(work, join_timeout=100) as worker:
        for _ in range(8):
            made.proxy.cut()
            enough = made.proxy.bytes_up + 2000
            wait_until(lambda enough=enough: worker.done.is_set() or made.proxy.bytes_up >= enough, timeout=60)
            if worker.done.is_set():
                break
        worker.result(100)
    assert echoes.wait_for(messages, timeout=60) == list(range(messages))
    assert client.stats()["listener_errors"] == 0


def no_stall(made, messages):
    """Acknowledged pipelined sends never stop for long.

    A busy machine may hold up one thread alone, and once: then another look is taken. A stall of ours comes again.
    """
    client = made.client()
    for left in (2, 1, 0):
        slowest, longest = pauses(client, messages)
        print("longest pause %.0f ms, of the machine %.0f ms" % (slowest * 1000, longest * 1000))
        if slowest < scaled(0.5) + 3 * longest:
            break
        assert left, "a stall of %.3f s" % slowest


def pauses(client, messages):
    """Send pipelined messages; return the longest time between two answers, and the longest the process did not run."""
    before = client.stats()["acked"]
    slowest, last = 0.0, time.perf_counter()
    answers = 0  # counted, not kept: collecting a heap of 200,000 futures takes longer than the stalls looked for

    def answered(future):
        nonlocal slowest, last, answers
        now = time.perf_counter()
        slowest, last = max(slowest, now - last), now
        answers += future.exception(0) is None

    with Clockwork() as clockwork:
        for _ in range(messages):
            while True:
                try:
                    client.send_to_group_nowait("empty", "x" * 100).add_done_callback(answered)
                    break
                except OutboxFull:
                    client.flush(scaled(60))
        client.flush(scaled(60))
        wait_until(lambda: answers == messages)
    assert client.stats()["acked"] - before == messages
    return slowest, clockwork.longest


class Clockwork:
    """A thread that only looks at the clock: how long this process did not get to run, or all of its threads waited."""

    def __enter__(self):
        self.longest = 0.0
        self._end = threading.Event()
        self._thread = run_thread(self._tick)
        self._thread.__enter__()
        return self

    def __exit__(self, *exc_info):
        self._end.set()
        self._thread.__exit__(*exc_info)

    def _tick(self):
        last = time.perf_counter()
        while not self._end.wait(0.002):
            now = time.perf_counter()
            self.longest, last = max(self.longest, now - last), now


# ---- the long ones ---------------------------------------------------------------------------------------------------


@pytest.mark.stress
@pytest.mark.timeout(400)
@pytest.mark.parametrize("salt", range(4))
def test_p2_hundred_cuts(field, seed, salt):
    field(salt).run(**LONG, limit=300)


@pytest.mark.stress
@pytest.mark.timeout(400)
@pytest.mark.parametrize("interval", [1e-6, 1e-5, 1e-4])
def test_p2_hundred_cuts_with_threads_that_change_places_all_the_time(field, switch_interval, seed, interval):
    switch_interval(interval)
    field(interval).run(**{**LONG, "messages": 500}, limit=300)


@pytest.mark.stress
@pytest.mark.timeout(400)
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_p2_hundred_cuts_over_tls(field, fresh_server, tmp_path, seed, version):
    if sys.version_info < (3, 7) or not getattr(ssl, "HAS_" + version, False):
        pytest.skip("this OpenSSL does not speak " + version)
    certificate = self_signed(tmp_path)
    context = certificate.client_context
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    server = fresh_server(limits=PATIENT, recovery_window=120.0, ssl=certificate.server_context)
    field(version, server=server, ssl=context).run(**{**LONG, "messages": 1000}, limit=300)


@pytest.mark.stress
@pytest.mark.timeout(400)
def test_p2_hundred_cuts_on_a_thin_line(field, seed):
    made = field("thin")
    made.proxy.throttle(5000, seed=seed)
    made.run(**{**LONG, "messages": 200, "publishers": 2}, limit=300)


@pytest.mark.stress
@pytest.mark.timeout(400)
def test_p2_many_huge_messages(field, seed):
    sizes = [0, 10, 100, 1000, 300_000, 1_040_000]
    field("huge").run(cuts=30, publishers=2, threads=2, messages=150, subscribers=3, sizes=sizes, limit=300)


@pytest.mark.stress
@pytest.mark.timeout(400)
def test_p2_slow_listener_that_publishes_for_long(field, seed):
    slow_listener(field("slow", max_inbox=20), 5000)


@pytest.mark.stress
@pytest.mark.timeout(400)
def test_p2_two_hundred_thousand_sends_without_a_stall(field, seed):
    no_stall(field("stall"), 200_000)
