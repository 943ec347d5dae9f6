"""Run one measurement of one contender in this process and print one JSON object.

Usage: `contender.py NAME MEASURE --url URL`; run.py starts it in a process of its own for each round.
Every loop is bounded by `--seconds`, by a count, and by a timeout on each wait, so it always stops by itself.
"""
from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback

MODULES = {
    "ours": "contender_ours",
    "official": "contender_official",
    "websocket-client": "contender_bare",
    "websockets.sync": "contender_bare",
    "raw socket": "contender_raw",
    "raw, reader thread": "contender_raw",
    "ours SimpleClient": "contender_socketio",
    "ours Client": "contender_socketio",
    "python-socketio SimpleClient": "contender_socketio",
    "python-socketio Client": "contender_socketio",
}
NEEDS = {
    "ours": "simplepubsub.webpubsub",
    "official": "azure.messaging.webpubsubclient",
    "websocket-client": "websocket",
    "websockets.sync": "websockets.sync.client",
    "python-socketio SimpleClient": "socketio",
    "python-socketio Client": "socketio",
}


class Timer:
    """Take wall clock and CPU of this process between `start` and `result`."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def start(self) -> "Timer":
        """Begin now, or begin again."""
        self.cpu = time.process_time()
        self.wall = time.perf_counter()
        return self

    def elapsed(self) -> float:
        """Return the seconds since start."""
        return time.perf_counter() - self.wall

    def result(self, count: int) -> dict:
        """Return rate per second and CPU microseconds for each of `count` messages."""
        took, cpu = self.elapsed(), time.process_time() - self.cpu
        return {"rate": count / took, "cpu_us": cpu / max(count, 1) * 1e6, "count": count}


def percentile(ordered: list, share: float) -> float:
    """Return the value below which `share` of the sorted samples lie."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def latencies(samples: list) -> dict:
    """Return p50, p99 and the worst of samples in seconds, as microseconds."""
    ordered = sorted(samples)
    return {
        "p50_us": percentile(ordered, 0.5) * 1e6, "p99_us": percentile(ordered, 0.99) * 1e6,
        "max_us": ordered[-1] * 1e6, "count": len(ordered),
    }


def timed_calls(call, count: int, seconds: float) -> dict:
    """Call `call()` up to `count` times or `seconds` long and return its latencies."""
    clock = time.perf_counter
    samples = []
    begin = before = clock()
    for _ in range(count):
        call()
        after = clock()
        samples.append(after - before)
        before = after
        if after - begin > seconds:
            break
    return latencies(samples)


def largest_gap(times: list) -> dict:
    """Return the largest distance between neighbouring completion times, in milliseconds, and the rate."""
    worst = max(later - earlier for earlier, later in zip(times, times[1:]))
    return {"gap_ms": worst * 1e3, "count": len(times), "rate": len(times) / (times[-1] - times[0])}


def take_turns(latency_call, options) -> None:
    """Hold one connection and time a slice of calls for each line on stdin, until that ends.

    The slices of all contenders alternate many times a second, so that what else goes on in the machine hits all alike.
    """
    with latency_call(options) as call:
        say({"ready": True})
        for _ in sys.stdin:
            # Untimed calls first: right after a pause the scheduler still moves the threads between cores.
            timed_calls(call, options.count // 3, options.seconds)
            say(timed_calls(call, options.count, options.seconds))


def say(result: dict) -> None:
    """Print one JSON object on a line of its own."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def run(measure, options) -> None:
    """Print what `measure(options)` returns; a latency takes turns instead."""
    # Whatever a contender raises is this row's result; the run goes on with the next one.
    try:
        if options.measure == "latency_call":
            take_turns(measure, options)
        else:
            say(measure(options))
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        say({"failed": "%s: %s" % (type(error).__name__, error)})


def main() -> int:
    """Find the contender, run the measurement and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(MODULES))
    parser.add_argument("measure")
    parser.add_argument("--url", default="")
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--window", type=int, default=2000)
    parser.add_argument("--threads", default="1,4,16")
    options = parser.parse_args()
    try:
        if options.name in NEEDS:
            importlib.import_module(NEEDS[options.name])
        measure = getattr(importlib.import_module(MODULES[options.name]), options.measure)
    except ImportError as error:
        say({"missing": str(error).split(" (")[0]})
        return 0
    run(measure, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
