"""The official Web PubSub client, unchanged: blocking acknowledged sends from some threads, callbacks to receive."""
from __future__ import annotations

import contextlib
import logging
import os
import threading
import time

from azure.messaging.webpubsubclient import WebPubSubClient
from azure.messaging.webpubsubclient.models import CallbackType, WebPubSubDataType
from contender import Timer
from processes import rss, thread_count
from wire import TEXT

# Its wait for an ack has no predicate: an ack that comes before the wait begins is slept over for the whole ack
# timeout, thirty seconds by default. A quarter of a second (a documented option, and far more than the thin server
# ever needs) keeps such sends from freezing the run, so that the client shows its best; they are counted as `slept`.
ACK_TIMEOUT = 0.25


def make(options) -> WebPubSubClient:
    """Return an opened client."""
    logging.disable(logging.CRITICAL)
    client = WebPubSubClient(options.url, ack_timeout=ACK_TIMEOUT)
    client.open()
    return client


def publish_acked(options) -> dict:
    """Send from each number of threads in turn and return the best rate, with all of them."""
    rates = {}
    best = None
    slept = 0
    for number in [int(item) for item in options.threads.split(",")]:
        result = publish_from(options, number)
        slept += result.pop("slept")
        rates[str(number)] = result["rate"]
        if best is None or result["rate"] > best["rate"]:
            best = dict(result, threads=number)
    best.update(rates=rates, slept=slept)
    return best


def publish_from(options, number: int) -> dict:
    """Send from `number` threads for `seconds` and count the sends that came back."""
    client = make(options)
    counts = [0] * number
    slept = [0] * number
    go, stop = threading.Event(), threading.Event()

    def work(mine: int) -> None:
        go.wait(10)
        before = time.perf_counter()
        while not stop.is_set():
            client.send_to_group("bench", TEXT, WebPubSubDataType.TEXT)
            after = time.perf_counter()
            slept[mine] += after - before > ACK_TIMEOUT * 0.9
            before = after
            counts[mine] += 1

    workers = [threading.Thread(target=work, args=(mine,), daemon=True) for mine in range(number)]
    for worker in workers:
        worker.start()
    timer = Timer().start()
    go.set()
    time.sleep(options.seconds)
    result = timer.result(sum(counts))
    stop.set()
    for worker in workers:
        worker.join(ACK_TIMEOUT + 1)
    client.close()
    return dict(result, slept=sum(slept))


def receive(options) -> dict:
    """Take a flood with a callback, which the client runs in a new thread for each message."""
    count = options.count or 6000
    client = make(options)
    seen = []
    timer = Timer()
    first, last = threading.Event(), threading.Event()

    def on_message(event) -> None:
        if not first.is_set():
            first.set()
            timer.start()
        seen.append(event.data)
        if len(seen) >= count:
            last.set()

    client.subscribe(CallbackType.GROUP_MESSAGE, on_message)
    client.send_event("flood", {"count": count, "size": 100, "type": "text"}, WebPubSubDataType.JSON, ack=False)
    last.wait(30)
    result = timer.result(len(seen) - 1)
    client.close()
    return result


@contextlib.contextmanager
def latency_call(options):
    """Give a call that publishes once and waits for the ack."""
    client = make(options)
    yield lambda: client.send_to_group("bench", TEXT, WebPubSubDataType.TEXT)
    client.close()


def memory(options) -> dict:
    """Open clients in this process and return memory and threads for each."""
    clients = [make(options)]
    before, threads = rss(os.getpid()), thread_count(os.getpid())
    clients += [make(options) for _ in range(options.count or 50)]
    after, threads_after = rss(os.getpid()), thread_count(os.getpid())
    many = len(clients) - 1
    for client in clients:
        client.close()
    return {"bytes": (after - before) / many, "threads": (threads_after - threads) / many, "count": many}
