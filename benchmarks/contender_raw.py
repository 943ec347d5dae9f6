"""The thin server's own ceiling: a raw socket with frames built beforehand, which only counts what comes back."""
from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time

from contender import Timer, largest_gap
from wire import RELIABLE, client_frame, flood_request, open_client, publish

BATCH = 64


def publish_acked(options) -> dict:
    """Send prebuilt publishes with a window and count the acks."""
    sock = open_client(options.url, RELIABLE)
    count = 60000
    batches = [
        b"".join(client_frame(publish(number).encode()) for number in range(first, first + BATCH))
        for first in range(2, count + 2, BATCH)
    ]
    sent = acked = 0
    tail = b""
    timer = Timer().start()
    done = None
    while True:
        if done is None and timer.elapsed() > options.seconds:
            done = sent
        if done is not None and acked >= done:
            break
        while done is None and sent - acked <= 1024:
            sock.sendall(batches[(sent // BATCH) % len(batches)])
            sent += BATCH
        data = tail + sock.recv(262144)
        if len(data) == len(tail):
            raise ConnectionError("the server closed the socket")
        acked += data.count(b'"success"')
        cut = data.rfind(b'"success"')
        tail = data[max(len(data) - 8, cut + 9 if cut >= 0 else 0):]
    result = timer.result(acked)
    sock.close()
    return result


def receive(options) -> dict:
    """Take a flood in large reads and count the messages."""
    count = options.count or 300000
    sock = open_client(options.url, RELIABLE)
    sock.sendall(client_frame(flood_request(count, 100, 2).encode()))
    seen, ahead, tail = 0, 0, b""
    timer = None
    while seen < count:
        data = tail + sock.recv(262144)
        if len(data) == len(tail):
            raise ConnectionError("the server closed the socket")
        seen += data.count(b'"sequenceId"')
        if timer is None:  # what the first read brought was there before the clock ran
            timer, ahead = Timer().start(), seen
        cut = data.rfind(b'"sequenceId"')
        tail = data[max(len(data) - 11, cut + 12 if cut >= 0 else 0):]
    result = timer.result(seen - ahead)
    sock.close()
    return result


@contextlib.contextmanager
def latency_call(options):
    """Give a call that publishes once and waits for the ack, in one thread or with a thread that reads.

    The difference of the two is what any client with a reader thread pays for waking the thread that waits.
    """
    sock = open_client(options.url, RELIABLE)
    frame = client_frame(publish(2).encode())
    if options.name == "raw socket":
        def call() -> None:
            sock.sendall(frame)
            sock.recv(65536)

        yield call
    else:
        sock.settimeout(None)
        answered = threading.Semaphore(0)
        reader = threading.Thread(target=read_all, args=(sock, answered), daemon=True)
        reader.start()

        def call() -> None:
            sock.sendall(frame)
            if not answered.acquire(timeout=10):
                raise TimeoutError("no ack within 10 s")

        yield call
        sock.shutdown(socket.SHUT_RDWR)
        reader.join(5)
    sock.close()


def read_all(sock: socket.socket, answered: threading.Semaphore) -> None:
    """Tell of everything that arrives until the socket is shut down."""
    while sock.recv(65536):
        answered.release()


def stall(options) -> dict:
    """Pipeline acknowledged publishes and return the largest gap between acks: what machine and server add."""
    sock = open_client(options.url, RELIABLE)
    sock.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(sock, selectors.EVENT_READ)
    total, sent, acked, tail, times = options.count or 200000, 0, 0, b"", []
    limit = time.monotonic() + 60
    waiting = b""
    while acked < total:
        if time.monotonic() > limit:
            raise TimeoutError("%d of %d acks after 60 s" % (acked, total))
        if not waiting and sent < total and sent - acked <= 1024:
            size = min(BATCH, total - sent)
            waiting = b"".join(client_frame(publish(number).encode()) for number in range(sent + 2, sent + 2 + size))
            sent += size
        if waiting:
            try:
                waiting = waiting[sock.send(waiting):]
            except BlockingIOError:
                pass
        if selector.select(0 if waiting or (sent < total and sent - acked <= 1024) else 1):
            data = tail + sock.recv(262144)
            if len(data) == len(tail):
                raise ConnectionError("the server closed the socket")
            found = data.count(b'"success"')
            acked += found
            cut = data.rfind(b'"success"')
            tail = data[max(len(data) - 8, cut + 9 if cut >= 0 else 0):]
            times += [time.perf_counter()] * found
    sock.close()
    return largest_gap(times)
