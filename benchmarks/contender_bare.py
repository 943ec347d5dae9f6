"""websocket-client and websockets.sync without anything on top: JSON envelope, send, recv, json.loads."""
from __future__ import annotations

import contextlib
import itertools
import json
import os

from contender import Timer
from processes import rss, thread_count
from wire import RELIABLE, TEXT, flood_request

WINDOW = 256  # acks in flight; few enough to fit the socket buffers, so that one thread suffices


def connect(options):
    """Open a connection with the chosen library and read the connected message; both have send, recv and close."""
    if options.name == "websocket-client":
        import websocket

        connection = websocket.WebSocket()
        connection.connect(options.url, subprotocols=[RELIABLE], timeout=10)
    else:
        from websockets.sync.client import connect as dial

        connection = dial(options.url, subprotocols=[RELIABLE], open_timeout=10)
    hello = json.loads(connection.recv())
    if hello["event"] != "connected":
        raise ConnectionError("no connected message: %r" % hello)
    return connection


def envelope(ack_id: int) -> str:
    """Return one publish as its user would write it."""
    return json.dumps({"type": "sendToGroup", "group": "bench", "ackId": ack_id, "dataType": "text", "data": TEXT})


def publish_acked(options) -> dict:
    """Send a window of publishes, then read its acks, from one thread: no locks and no waiting threads."""
    connection = connect(options)
    count, ack_id = 0, 0
    timer = Timer().start()
    while timer.elapsed() < options.seconds:
        for _ in range(WINDOW):
            ack_id += 1
            connection.send(envelope(ack_id))
        for _ in range(WINDOW):
            if not json.loads(connection.recv())["success"]:
                raise ConnectionError("refused")
        count += WINDOW
    result = timer.result(count)
    connection.close()
    return result


def receive(options) -> dict:
    """Take a flood with recv and json.loads."""
    count = options.count or 40000
    connection = connect(options)
    connection.send(flood_request(count, 100, 1))
    seen = 0
    timer = Timer()
    while seen < count:
        message = json.loads(connection.recv())
        if message["type"] != "message":
            continue
        if not seen:
            timer.start()
        seen += 1
        if message["sequenceId"] != seen:
            raise ConnectionError("message %d came as number %d" % (message["sequenceId"], seen))
    result = timer.result(seen - 1)
    connection.close()
    return result


@contextlib.contextmanager
def latency_call(options):
    """Give a call that publishes once and waits for the ack."""
    connection = connect(options)
    numbers = itertools.count(1)

    def call() -> None:
        connection.send(envelope(next(numbers)))
        if not json.loads(connection.recv())["success"]:
            raise ConnectionError("refused")

    yield call
    connection.close()


def memory(options) -> dict:
    """Open connections in this process and return memory and threads for each."""
    connections = [connect(options)]
    before, threads = rss(os.getpid()), thread_count(os.getpid())
    connections += [connect(options) for _ in range(options.count or 50)]
    after, threads_after = rss(os.getpid()), thread_count(os.getpid())
    many = len(connections) - 1
    for connection in connections:
        connection.close()
    return {"bytes": (after - before) / many, "threads": (threads_after - threads) / many, "count": many}
