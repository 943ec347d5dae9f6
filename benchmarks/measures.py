"""What is measured, against whom, how often, and which number is good enough."""
from __future__ import annotations

import statistics

from processes import Worker, our_server, run_json, script_server
from wire import PLAIN, RELIABLE

OURS, OFFICIAL, WEBSOCKET, SYNC, RAW = "ours", "official", "websocket-client", "websockets.sync", "raw socket"
RAW_THREAD = "raw, reader thread"
OUR_SERVER, PICOWS = "simplepubsub serve", "picows + uvloop"
STARTERS = {
    "thin": lambda: script_server("thin_server.py"),
    PICOWS: lambda: script_server("picows_server.py"),
    OUR_SERVER: our_server,
}


class Context:
    """The servers of one run: each starts when first asked for and stops at the end. `quick` shortens everything."""

    def __init__(self, quick: bool, rounds: int = 0) -> None:
        self.quick = quick
        self.rounds = rounds
        self._running = {}
        self._workers = {}

    def server(self, kind: str):
        """Return the running server of that kind, started anew if it has died."""
        server = self._running.get(kind)
        if server is None or server.process.poll() is not None:
            server = self._running[kind] = STARTERS[kind]()
        return server

    def worker(self, name: str, arguments: tuple) -> Worker:
        """Return the contender that takes turns under that name, started when first asked for."""
        if name not in self._workers:
            self._workers[name] = Worker(name, *arguments)
        return self._workers[name]

    def end_turns(self) -> None:
        """Stop all contenders that take turns."""
        while self._workers:
            self._workers.popitem()[1].stop()

    def stop(self, kind: str = "") -> None:
        """Stop one server, or all."""
        for name in [kind] if kind else list(self._running):
            server = self._running.pop(name, None)
            if server is not None:
                server.stop()


class Target:
    """One promise: `limit` against the result of `find(rounds)`, which returns None if there is nothing to compare."""

    def __init__(self, text: str, find, limit: "float | None", unit: str, at_least: bool = True) -> None:
        self.text, self.find, self.limit, self.unit, self.at_least = text, find, limit, unit, at_least

    def judge(self, rounds: dict) -> dict:
        """Return text, value (or None), limit and `pass` (or None, also where there is no limit)."""
        value = self.find(rounds)
        good = None
        if value is not None and self.limit is not None:
            good = value >= self.limit if self.at_least else value <= self.limit
        return {"text": self.text, "value": value, "limit": self.limit, "unit": self.unit, "pass": good}


class Measure:
    """A row group of the table: contenders, how one of them is run once, columns (key, heading, format), targets."""

    def __init__(self, name, title, contenders, run, columns, targets=(), rounds=5, quick_rounds=2) -> None:
        self.name, self.title, self.contenders, self.run = name, title, contenders, run
        self.columns, self.targets = columns, targets
        self._rounds, self._quick_rounds = rounds, quick_rounds

    def rounds(self, context: Context) -> int:
        """Return how often each contender runs."""
        return context.rounds or (self._quick_rounds if context.quick else self._rounds)


def ratio(mine: str, theirs: str, key: str):
    """Return a finder for the median of mine/theirs over the rounds in which both have a result."""
    def find(rounds: dict):
        pairs = [
            a[key] / b[key]
            for a, b in zip(rounds.get(mine, ()), rounds.get(theirs, ()))
            if a and b and a.get(key) and b.get(key)
        ]
        return statistics.median(pairs) if pairs else None

    return find


def against_best(mine: str, theirs: str, key: str):
    """Return a finder for our median divided by the best that the other ever reached."""
    def find(rounds: dict):
        values = [[result[key] for result in rounds.get(name, ()) if result] for name in (mine, theirs)]
        return statistics.median(values[0]) / max(values[1]) if all(values) else None

    return find


def over_rounds(name: str, key: str, combine):
    """Return a finder that combines one contender's values."""
    def find(rounds: dict):
        values = [result[key] for result in rounds.get(name, ()) if result and key in result]
        return combine(values) if values else None

    return find


def client_run(measure: str, seconds: float = 1.5, quick_seconds: float = 0.7, counts=None, quick_share: float = 0.5):
    """Return a runner of contender.py against the thin server; `counts` gives each contender its number of messages."""
    def run(context: Context, name: str) -> dict:
        length = quick_seconds if context.quick else seconds
        if name == OFFICIAL and measure == "publish_acked":
            length /= 2  # it runs once for each number of threads
        arguments = [name, measure, "--url", context.server("thin").url, "--seconds", length]
        if counts:
            arguments += ["--count", int(counts[name] * (quick_share if context.quick else 1))]
        return run_json("contender.py", *arguments, timeout=90)

    return run


def latency_run(context: Context, name: str) -> dict:
    """Give a connected contender its turn: a slice of blocking sends."""
    url = context.server("thin").url
    return context.worker(name, ("latency_call", "--url", url, "--count", 900, "--seconds", 0.5)).turn()


def fan_out_run(protocol: str, window: int = 128):
    """Return a runner of the fan-out load, with `window` publishes in flight, against one of the servers."""
    def run(context: Context, name: str) -> dict:
        server = context.server(name)
        return run_json(
            "load.py", "fanout", "--url", server.url, "--server-pid", server.pid, "--protocol", protocol,
            "--window", window, "--seconds", 1.0 if context.quick else 2.0, timeout=40)

    return run


def idle_run(context: Context, name: str) -> dict:
    """Measure idle connections on a server of their own, which no earlier load has grown."""
    context.stop(name)
    server = context.server(name)
    try:
        return run_json(
            "load.py", "idle", "--url", server.url, "--server-pid", server.pid, "--protocol", RELIABLE, timeout=60)
    finally:
        context.stop(name)


def recovery_run(context: Context, name: str) -> dict:
    """Run our client and our server in one process and cut them apart."""
    return run_json("contender.py", name, "recovery", "--count", 21, timeout=90)


def whole(value: float) -> str:
    """Format with thousands separators."""
    return "{:,.0f}".format(value)


def tenth(value: float) -> str:
    """Format with one decimal."""
    return "{:,.1f}".format(value)


def milli(value: float) -> str:
    """Format microseconds as milliseconds."""
    return "{:,.1f}".format(value / 1e3)


def kibi(value: float) -> str:
    """Format bytes as KiB."""
    return "{:,.1f}".format(value / 1024)


def percent(value: float) -> str:
    """Format a share."""
    return "{:.0f} %".format(value * 100)


_RATE = (("rate", "msgs/s", whole), ("cpu_us", "CPU us/msg", tenth))
_FAN = (
    ("rate", "deliveries/s", whole), ("cpu_us", "server CPU us/delivery", tenth),
    ("server_busy", "server busy", percent), ("generator_busy", "generator busy", percent))
_FAN_CPU = Target("deliveries per second of server CPU, ours to picows", ratio(PICOWS, OUR_SERVER, "cpu_us"), None, "x")

MEASURES = [
    Measure(
        "publish", "acknowledged pipelined publish, 100-byte text", (OURS, OFFICIAL, WEBSOCKET, SYNC, RAW),
        client_run("publish_acked"), _RATE,
        [Target("ours >= 25 x official client with its best number of threads", ratio(OURS, OFFICIAL, "rate"), 25, "x"),
         Target("ours to the best round of the official client", against_best(OURS, OFFICIAL, "rate"), None, "x")]),
    Measure(
        "receive", "receive, 100-byte text", (OURS, OFFICIAL, SYNC, WEBSOCKET, RAW),
        client_run("receive", counts={OURS: 200000, OFFICIAL: 6000, SYNC: 100000, WEBSOCKET: 20000, RAW: 400000}),
        _RATE,
        [Target("ours >= 25 x official client", ratio(OURS, OFFICIAL, "rate"), 25, "x"),
         Target("ours >= 2 x websockets.sync recv + json.loads", ratio(OURS, SYNC, "rate"), 2, "x")]),
    Measure(
        "latency", "one blocking acknowledged send at a time, 100-byte text",
        (OURS, WEBSOCKET, SYNC, OFFICIAL, RAW, RAW_THREAD),
        latency_run,
        (("p50_us", "p50 us", whole), ("p99_us", "p99 us", whole), ("max_us", "max us", whole)),
        [Target("ours p50 <= 1.3 x websocket-client send + recv + json.loads",
                ratio(OURS, WEBSOCKET, "p50_us"), 1.3, "x", False),
         Target("a raw socket with a reader thread to one without", ratio(RAW_THREAD, RAW, "p50_us"), None, "x")],
        rounds=15, quick_rounds=5),
    Measure(
        "fanout-json", "server fan-out to 100 subscribers, json, 100-byte text", (OUR_SERVER, PICOWS),
        fan_out_run(PLAIN), _FAN,
        [Target("ours >= 80 % of bare picows + uvloop", ratio(OUR_SERVER, PICOWS, "rate"), 0.8, "x"), _FAN_CPU]),
    Measure(
        "fanout-reliable", "server fan-out to 100 subscribers, json.reliable, 100-byte text", (OUR_SERVER, PICOWS),
        fan_out_run(RELIABLE), _FAN,
        [Target("ours >= 100 % of bare picows + uvloop", ratio(OUR_SERVER, PICOWS, "rate"), 1.0, "x"), _FAN_CPU]),
    Measure(
        "fanout-single", "the same with one publish in flight, so that no server can gather writes",
        (OUR_SERVER, PICOWS),
        fan_out_run(RELIABLE, 1), _FAN, [_FAN_CPU], rounds=3, quick_rounds=1),
    Measure(
        "recovery", "recovery after a cut, our client and our server", (OURS,), recovery_run,
        (("p50_us", "p50 ms", milli), ("max_us", "worst ms", milli), ("send_p50_us", "next acked send p50 ms", milli)),
        [Target("p50 <= 50 ms", over_rounds(OURS, "p50_us", lambda v: statistics.median(v) / 1e3), 50, "ms", False)],
        rounds=3, quick_rounds=1),
    Measure(
        "stall", "200,000 acknowledged sends, largest gap between completions", (OURS, RAW),
        client_run("stall", counts={OURS: 200000, RAW: 200000}, quick_share=1.0),
        (("gap_ms", "gap ms", tenth), ("rate", "msgs/s", whole)),
        [Target("no gap above 100 ms, in any round", over_rounds(OURS, "gap_ms", max), 100, "ms", False)],
        rounds=3, quick_rounds=1),
    Measure(
        "memory-server", "memory of a server per idle connection, 500 connections", (OUR_SERVER, PICOWS), idle_run,
        (("bytes", "KiB/connection", kibi), ("base", "KiB before", kibi)), rounds=2, quick_rounds=1),
    Measure(
        "memory-client", "memory and threads per connected client, 50 clients in one process",
        (OURS, OFFICIAL, WEBSOCKET, SYNC),
        client_run("memory", counts={OURS: 50, OFFICIAL: 50, WEBSOCKET: 50, SYNC: 50}, quick_share=1.0),
        (("bytes", "KiB/client", kibi), ("threads", "threads/client", tenth)), rounds=2, quick_rounds=1),
]
