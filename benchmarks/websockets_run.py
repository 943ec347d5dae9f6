"""Compare both ends of simplepubsub.websockets with the websockets library in one run.

Usage: `python benchmarks/websockets_run.py [--quick] [--only NAME] [--rounds N] [--json FILE]`.
Clients meet one raw server, servers meet one raw client, in interleaved rounds; see README.md beside this file.
Ends within two minutes, and leaves no process behind.
"""
from __future__ import annotations

import os
import sys
import time

import comparison
import report
from measures import OURS, Measure, Target, ratio, tenth, whole
from processes import HERE, ServerProcess, Worker, run_json

SYNC, ASYNCIO = "websockets.sync", "websockets.asyncio"
BOTH, ALL = (OURS, SYNC), (OURS, SYNC, ASYNCIO)
CLIENT = "websockets_client.py"


class Turns(Worker):
    """A connection that takes turns."""

    script = CLIENT


class Context:
    """The servers and the connections of one run."""

    def __init__(self, quick: bool, rounds: int) -> None:
        self.quick, self.rounds = quick, rounds
        self._servers = {}
        self._workers = {}

    def server(self, name: str) -> ServerProcess:
        """Return the server of that name, "raw" for the raw one."""
        server = self._servers.get(name)
        if server is None or server.process.poll() is not None:
            script = ["websockets_raw.py"] if name == "raw" else ["websockets_server.py", name]
            server = self._servers[name] = ServerProcess(
                [sys.executable, os.path.join(HERE, script[0])] + script[1:],
                lambda line: "ws://127.0.0.1:%s" % line[6:] if line.startswith("ready ") else "")
        return server

    def turn(self, client: str, server: str, count: int) -> dict:
        """Return a slice of round trips between the two."""
        if (client, server) not in self._workers:
            url = self.server(server).url
            self._workers[client, server] = Turns(
                client, "latency_call", "--url", url, "--count", count, "--seconds", 0.4)
        return self._workers[client, server].turn()

    def measure(self, client: str, server: str, measure: str, count: int) -> dict:
        """Return the result of a client of its own."""
        running = self.server(server)
        return run_json(
            CLIENT, client, measure, "--url", running.url, "--server-pid", running.pid,
            "--count", count // 2 if self.quick else count, timeout=60)

    def end_turns(self) -> None:
        """Close the connections that take turns."""
        while self._workers:
            self._workers.popitem()[1].stop()

    def stop(self) -> None:
        """Stop all servers."""
        while self._servers:
            self._servers.popitem()[1].stop()


def client_run(measure: str, counts: dict):
    """Return a runner of a client against the raw server."""
    return lambda context, name: context.measure(name, "raw", measure, counts[name])


def server_run(measure: str, counts: dict):
    """Return a runner of the raw client against a server."""
    return lambda context, name: context.measure("raw", name, measure, counts[name])


def ours_to(other: str, key: str, text: str, limit=None, at_least: bool = True) -> Target:
    """Return a target for our result divided by that of another."""
    return Target("ours %s %s" % (text, other), ratio(OURS, other, key), limit, "x", at_least)


_RATE = (("rate", "msgs/s", whole), ("cpu_us", "CPU us/msg", tenth))
_TRIP = (("p50_us", "p50 us", whole), ("p99_us", "p99 us", whole), ("max_us", "max us", whole))
_FASTER = [ours_to(SYNC, "rate", ">= 2 x", 2)]


def best_trips(rounds: dict):
    """Return our best round divided by theirs: what is left when the other programs of the machine are quiet."""
    best = [min((result["p50_us"] for result in rounds.get(name, ()) if result), default=None) for name in BOTH]
    return best[0] / best[1] if all(best) else None


#: Round trips on two shared cores differ by a tenth from run to run.
_TRIP_TARGETS = [
    ours_to(SYNC, "p50_us", "p50 not slower (<= 1.1 x) than", 1.1, False),
    Target("best round of ours to the best of " + SYNC, best_trips, None, "x"),
]

MEASURES = [
    Measure(
        "client-trip", "client, one echo at a time", BOTH + ("raw",),
        lambda context, name: context.turn(name, "raw", 1500), _TRIP, _TRIP_TARGETS, rounds=9, quick_rounds=4),
    Measure(
        "client-receive", "client receives a flood", BOTH,
        client_run("receive", {OURS: 200000, SYNC: 80000}), _RATE, _FASTER),
    Measure(
        "client-send", "client sends a flood", BOTH,
        client_run("send", {OURS: 200000, SYNC: 60000}), _RATE, _FASTER),
    Measure(
        "server-trip", "server, one echo at a time", ALL,
        lambda context, name: context.turn("raw", name, 1500), _TRIP,
        [*_TRIP_TARGETS, ours_to(ASYNCIO, "p50_us", "p50 to", None, False)], rounds=9, quick_rounds=4),
    Measure(
        "server-receive", "server receives a flood", ALL,
        server_run("receive", {OURS: 200000, SYNC: 80000, ASYNCIO: 80000}), _RATE,
        [*_FASTER, ours_to(ASYNCIO, "rate", "to")]),
    Measure(
        "server-send", "server sends a flood", ALL,
        server_run("send", {OURS: 200000, SYNC: 60000, ASYNCIO: 60000}), _RATE,
        [*_FASTER, ours_to(ASYNCIO, "rate", "to")]),
    Measure(
        "server-broadcast", "server broadcasts to 500 connections", ALL,
        server_run("broadcast", {OURS: 100, SYNC: 40, ASYNCIO: 60}),
        (("rate", "deliveries/s", whole), ("cpu_us", "CPU us/delivery", tenth)),
        [ours_to(SYNC, "rate", "to a loop of send with"), ours_to(ASYNCIO, "rate", "to broadcast of")],
        rounds=3, quick_rounds=1),
]


def main() -> int:
    """Run what was asked for and print it; return 1 if one of our own rows has no result, 130 after Ctrl-C."""
    begin = time.monotonic()
    parser = comparison.options_parser(__doc__, "half a minute")
    options = parser.parse_args()
    chosen = comparison.choose(parser, options, MEASURES)
    facts = report.machine()
    # Each measure gets servers of its own.
    summaries = comparison.compare(chosen, Context(options.quick, options.rounds), facts, stop_each=True)
    if summaries is None:
        return 130
    print("\n%.0f s, load after %s" % (time.monotonic() - begin, report.load()))
    if options.json:
        report.write_json(options.json, facts, summaries)
    return 0 if all(any(summary["contenders"][OURS]["rounds"]) for summary in summaries.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
