"""Our Socket.IO clients and python-socketio's, which have the same interface: the code below is the same for both."""
from __future__ import annotations

import contextlib
import importlib
import os
import threading

from contender import Timer
from processes import rss, thread_count

MODULE = {"ours": "simplepubsub.socketio", "python-socketio": "socketio"}
DATA = "x" * 100


def make(options):
    """Return a client of the chosen package that is not connected yet."""
    package, _, kind = options.name.partition(" ")
    return getattr(importlib.import_module(MODULE[package]), kind)()


def connect(options, client=None):
    """Return a connected client, on a WebSocket from the start."""
    client = client or make(options)
    client.connect(options.url, transports=["websocket"], wait_timeout=10)
    return client


def burst(options) -> dict:
    """Take what the server emits."""
    return receive(options, "burst")


def receive(options, source: str = "flood") -> dict:
    """Take many events, in receive() or in a handler, and see whether all came and in order."""
    count = options.count
    timer, numbers = Timer(), []
    if options.name.endswith("SimpleClient"):
        client = connect(options)
        client.emit(source, count)
        client.receive(timeout=20)
        timer.start()
        for _ in range(count - 1):
            numbers.append(client.receive(timeout=20)[1])
    else:
        client, done = make(options), threading.Event()

        def n(number, text):
            if not numbers:
                timer.start()
            numbers.append(number)
            if len(numbers) == count:
                done.set()

        client.on("n", n)
        connect(options, client)
        client.emit(source, count)
        if not done.wait(60):
            raise TimeoutError("%d of %d events" % (len(numbers), count))
        del numbers[0]
    result = timer.result(count - 1)
    result["disorder"] = sum(later < earlier for earlier, later in zip(numbers, numbers[1:]))
    client.disconnect()
    return result


def emit(options) -> dict:
    """Emit as fast as it goes, until the server has counted every event."""
    client = connect(options)
    client.call("echo", 0)
    timer = Timer().start()
    for _ in range(options.count):
        client.emit("e", DATA)
    seen = client.call("count")
    result = timer.result(options.count)
    client.disconnect()
    if seen != options.count:
        raise ValueError("the server saw %d of %d events" % (seen, options.count))
    return result


@contextlib.contextmanager
def latency_call(options):
    """Give a call that asks the server and waits for the answer."""
    client = connect(options)

    def call() -> None:
        if client.call("echo", DATA) != DATA:
            raise ValueError("another answer")

    yield call
    client.disconnect()


def memory(options) -> dict:
    """Connect clients in this process and return memory and threads for each."""
    clients = [connect(options)]
    before, threads = rss(os.getpid()), thread_count(os.getpid())
    clients += [connect(options) for _ in range(options.count)]
    after, threads_after = rss(os.getpid()), thread_count(os.getpid())
    for client in clients:
        client.disconnect()
    return {"bytes": (after - before) / options.count, "threads": (threads_after - threads) / options.count}
