"""What is measured of the Socket.IO clients, and which number is good enough."""
from __future__ import annotations

import os
import shutil

from measures import STARTERS, Context, Measure, Target, kibi, ratio, tenth, whole
from processes import HERE, Missing, ServerProcess, run_json

OURS_SIMPLE, OURS = "ours SimpleClient", "ours Client"
THEIRS_SIMPLE, THEIRS = "python-socketio SimpleClient", "python-socketio Client"
ALL = (OURS_SIMPLE, THEIRS_SIMPLE, OURS, THEIRS)
SERVER = "socket.io, Node"


def node_server() -> ServerProcess:
    """Start the Node server."""
    node = shutil.which("node")
    if node is None:
        raise Missing("node")

    def ready(line: str) -> str:
        return "http://127.0.0.1:%s" % line[6:] if line.startswith("ready ") else ""

    return ServerProcess([node, os.path.join(HERE, "socketio_server.mjs")], ready)


STARTERS[SERVER] = node_server


def client_run(measure: str, ours: int, theirs: int):
    """Return a runner of contender.py against the Node server with a number of events, or clients, for each side."""
    def run(context: Context, name: str) -> dict:
        count = ours if name in (OURS, OURS_SIMPLE) else theirs
        return run_json(
            "contender.py", name, measure, "--url", context.server(SERVER).url,
            "--count", count // 2 if context.quick and measure != "memory" else count, timeout=60)

    return run


def call_run(context: Context, name: str) -> dict:
    """Give a connected contender its turn: a slice of calls."""
    url = context.server(SERVER).url
    return context.worker(name, ("latency_call", "--url", url, "--count", 500, "--seconds", 0.4)).turn()


_RATE = (("rate", "events/s", whole), ("cpu_us", "CPU us/event", tenth))


def _both(text: str, key: str, limit: float, at_least: bool = True) -> list:
    return [Target("%s: %s" % (kind, text), ratio(mine, theirs, key), limit, "x", at_least)
            for kind, mine, theirs in (("SimpleClient", OURS_SIMPLE, THEIRS_SIMPLE), ("Client", OURS, THEIRS))]


MEASURES = [
    Measure(
        "sio-receive", "Socket.IO, events received, 100 bytes", ALL, client_run("receive", 100000, 2500),
        _RATE + (("disorder", "out of order", whole),),
        _both("ours >= 60 x python-socketio", "rate", 60), rounds=5),
    Measure(
        "sio-burst", "the same, but the server emits them one by one", ALL, client_run("burst", 60000, 2500),
        _RATE + (("disorder", "out of order", whole),), _both("ours to python-socketio", "rate", None), rounds=3,
        quick_rounds=1),
    Measure(
        "sio-emit", "Socket.IO, events emitted, 100 bytes", ALL, client_run("emit", 30000, 5000), _RATE,
        _both("ours to python-socketio", "rate", None), rounds=3),
    Measure(
        "sio-call", "Socket.IO, one call at a time, 100 bytes", ALL, call_run,
        (("p50_us", "p50 us", whole), ("p99_us", "p99 us", whole), ("max_us", "max us", whole)),
        _both("ours p50 <= 1/3 of python-socketio's", "p50_us", 1 / 3, False), rounds=9, quick_rounds=5),
    Measure(
        "sio-memory", "Socket.IO, memory and threads per connected client, 30 clients in one process", ALL,
        client_run("memory", 30, 30), (("bytes", "KiB/client", kibi), ("threads", "threads/client", tenth)),
        rounds=2, quick_rounds=1),
]
