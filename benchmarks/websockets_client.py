"""Measure one client library, or one server with raw clients, and print one JSON object.

Usage: `websockets_client.py NAME MEASURE --url ws://HOST:PORT`; websockets_run.py starts it for each round.
NAME `raw` is a client of bare sockets, for the servers. Everything is bounded by a count and by timeouts.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import sys
import time

from contender import Timer, run, say
from processes import cpu_seconds
from websockets_raw import DONE, DOWN, TIMEOUT, UP, dial, leave, read_exactly, send_many
from wire import TEXT

SUBSCRIBERS = 500


class Library:
    """A client that has `connect`, `send` and `recv`."""

    def __init__(self, name: str) -> None:
        if name == "ours":
            from simplepubsub import websockets

            self.connect = lambda url: websockets.connect(url, proxy=None, ping_interval=None)
        else:
            from websockets.sync.client import connect

            self.connect = lambda url: connect(url, proxy=None, compression=None, ping_interval=None)

    @contextlib.contextmanager
    def latency_call(self, options):
        """Yield a function that sends a message and waits for its echo."""
        with self.connect(options.url + "/echo") as connection:
            def call() -> None:
                connection.send(TEXT)
                connection.recv()

            yield call

    def receive(self, options) -> dict:
        """Receive a flood."""
        with self.connect("%s/source/%d" % (options.url, options.count)) as connection:
            connection.send(TEXT)
            recv, timer = connection.recv, Timer().start()
            for _ in range(options.count):
                recv()
            return timer.result(options.count)

    def send(self, options) -> dict:
        """Send a flood, until the other end has got it all."""
        with self.connect("%s/sink/%d" % (options.url, options.count)) as connection:
            send, timer = connection.send, Timer().start()
            for _ in range(options.count):
                send(TEXT)
            connection.recv()
            return timer.result(options.count)


class Raw:
    """Bare sockets: what is measured is the server. CPU is the server's."""

    @contextlib.contextmanager
    def latency_call(self, options):
        """Yield a function that sends a frame and waits for its echo."""
        sock = dial(options.url, "/echo")

        def call() -> None:
            sock.sendall(UP)
            read_exactly(sock, len(DOWN))

        try:
            yield call
        finally:
            leave(sock)

    def receive(self, options) -> dict:
        """Let the server receive a flood, until it says that it has got it all."""
        sock = dial(options.url, "/sink/%d" % options.count)
        timer = ServerTimer(options.server_pid)
        send_many(sock, UP, options.count)
        read_exactly(sock, len(DONE))
        result = timer.result(options.count)
        leave(sock)
        return result

    def send(self, options) -> dict:
        """Let the server send a flood."""
        sock = dial(options.url, "/source/%d" % options.count)
        timer = ServerTimer(options.server_pid)
        sock.sendall(UP)
        read_exactly(sock, len(DOWN) * options.count)
        result = timer.result(options.count)
        leave(sock)
        return result

    def broadcast(self, options) -> dict:
        """Have messages broadcast to many subscribers, with a few on their way at a time."""
        subscribers = [dial(options.url, "/subscribe/%d" % os.getpid()) for _ in range(SUBSCRIBERS)]
        control = dial(options.url, "/publish/%d" % os.getpid())
        selector = selectors.DefaultSelector()
        for sock in subscribers:
            read_exactly(sock, len(DONE))
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ, sock)
        warm, window = options.count // 5, 4
        total, sent, got, size = options.count + warm, 0, 0, len(DOWN) * SUBSCRIBERS
        view = memoryview(bytearray(1 << 16))
        timer = None
        while got < total * size:
            while sent < total and sent - got // size < window:
                control.sendall(UP)
                sent += 1
            ready = selector.select(TIMEOUT)
            if not ready:
                raise ConnectionError("%d of %d bytes arrived" % (got, total * size))
            for key, _ in ready:
                more = key.data.recv_into(view)
                if not more:
                    raise ConnectionError("the server closed a subscriber")
                got += more
            if timer is None and got >= warm * size:
                timer, begun = ServerTimer(options.server_pid), got
        result = timer.result((got - begun) // len(DOWN))
        leave(control)
        for sock in subscribers:
            sock.close()
        return result


class ServerTimer:
    """As Timer, with the CPU of another process."""

    def __init__(self, pid: int) -> None:
        self.pid, self.cpu, self.wall = pid, cpu_seconds(pid) or 0.0, time.perf_counter()

    def result(self, count: int) -> dict:
        """Return rate per second and CPU microseconds for each of `count` messages."""
        took = time.perf_counter() - self.wall
        return {
            "rate": count / took, "cpu_us": ((cpu_seconds(self.pid) or 0.0) - self.cpu) / count * 1e6, "count": count}


def main() -> int:
    """Run the measurement and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["ours", "websockets.sync", "raw"])
    parser.add_argument("measure", choices=["latency_call", "receive", "send", "broadcast"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--server-pid", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--count", type=int, default=100000)
    options = parser.parse_args()
    try:
        contender = Raw() if options.name == "raw" else Library(options.name)
    except ImportError as error:
        say({"missing": str(error).split(" (")[0]})
        return 0
    run(getattr(contender, options.measure), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
