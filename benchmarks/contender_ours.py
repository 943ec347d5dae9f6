"""simplepubsub as its users write it: nowait sends with a window, a receive loop, blocking sends."""
from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import os
import threading
import time

from contender import Timer, largest_gap, latencies
from processes import rss, thread_count
from wire import TEXT

from simplepubsub.webpubsub import WebPubSubClient

STEP = 128  # how often the publisher looks at a future
LIMIT = 20.0  # seconds for any one wait
CUTS = 3  # for each client of the recovery measure


def pipeline(client, options, each=None, count: int = 0) -> int:
    """Publish with at most `options.window` unacknowledged, for `seconds` or `count`, and wait for every ack.

    One future in STEP is waited for; acks come in order, so it stands for those before it, and flush covers the rest.
    """
    try:
        return publish_window(client, options, each, count)
    except (TimeoutError, concurrent.futures.TimeoutError) as error:
        raise RuntimeError("no answer for %.0f s (%s); %r" % (LIMIT, error, client.stats())) from error


def publish_window(client, options, each, count: int) -> int:
    """Do what pipeline says; raises TimeoutError when an ack takes longer than LIMIT."""
    marks = collections.deque()
    keep = max(options.window // STEP, 1)
    sent = 0
    begin = time.perf_counter()
    while (sent < count) if count else (time.perf_counter() - begin < options.seconds):
        for _ in range(STEP):
            future = client.send_to_group_nowait("bench", TEXT, "text")
            if each is not None:
                future.add_done_callback(each)
        sent += STEP
        marks.append(future)
        if len(marks) >= keep:
            marks.popleft().result(LIMIT)
    client.flush(LIMIT)
    future.result(0)
    return sent


def publish_acked(options) -> dict:
    """Publish as fast as the client takes it."""
    with WebPubSubClient(options.url) as client:
        pipeline(client, options, count=STEP * 16)
        timer = Timer().start()
        return timer.result(pipeline(client, options))


def receive(options) -> dict:
    """Take a flood with receive()."""
    count = options.count or 200000
    with WebPubSubClient(options.url) as client:
        client.send_event("flood", {"count": count, "size": 100, "type": "text"}, "json")
        client.receive(timeout=10)
        timer = Timer().start()
        for _ in range(count - 1):
            message = client.receive(timeout=10)
        if message.sequence_id != count or message.data != TEXT:
            raise ConnectionError("the last of %d messages came as number %s" % (count, message.sequence_id))
        return timer.result(count - 1)


@contextlib.contextmanager
def latency_call(options):
    """Give a call that publishes once and waits for the ack."""
    with WebPubSubClient(options.url) as client:
        yield lambda: client.send_to_group("bench", TEXT, "text")


def stall(options) -> dict:
    """Pipeline acknowledged sends and return the largest gap between completions."""
    times = []
    clock, add = time.perf_counter, times.append
    with WebPubSubClient(options.url) as client:
        pipeline(client, options, lambda _: add(clock()), options.count or 200000)
    return largest_gap(times)


def memory(options) -> dict:
    """Open clients in this process and return memory and threads for each."""
    clients = [WebPubSubClient(options.url)]
    clients[0].start()
    before, threads = rss(os.getpid()), thread_count(os.getpid())
    try:
        for _ in range(options.count or 50):
            clients.append(WebPubSubClient(options.url))
            clients[-1].start()
        after, threads_after = rss(os.getpid()), thread_count(os.getpid())
    finally:
        for client in clients:
            client.stop()
    many = len(clients) - 1
    return {"bytes": (after - before) / many, "threads": (threads_after - threads) / many, "count": many}


def recovery(options) -> dict:
    """Cut our client off our server again and again; time it until `recovered` and until the next acked send.

    A client that keeps losing connections younger than a second waits before it dials again. A cut now and then is what
    is measured here, so each client is cut only a few times.
    """
    from simplepubsub.server import Server

    back, sends = [], []
    with Server(port=0) as server:
        url = server.client_access_url("bench", user_id="bench")
        while len(back) < (options.count or 21):
            with WebPubSubClient(url) as client:
                client.join_group("bench")
                for _ in range(CUTS):
                    cut_once(client, server, back, sends)
    result = latencies(back)
    result.update(send_p50_us=latencies(sends)["p50_us"])
    return result


def cut_once(client, server, back: list, sends: list) -> None:
    """Cut once and note both times; raises TimeoutError when nothing comes back."""
    recovered = threading.Event()

    def note(*_) -> None:
        recovered.set()

    client.on("recovered", note)
    client.send_to_group("bench", TEXT, "text", no_echo=True, timeout=10)
    cut = time.perf_counter()
    server.faults.drop_connections()
    if not recovered.wait(10):
        raise TimeoutError("not recovered 10 s after cut %d" % (len(back) + 1))
    back.append(time.perf_counter() - cut)
    client.send_to_group("bench", TEXT, "text", no_echo=True, timeout=10)
    sends.append(time.perf_counter() - cut)
    client.off("recovered", note)
