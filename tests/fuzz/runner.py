"""Feeds inputs to targets and holds each to the same rules.

An input must not raise anything but the typed errors of what reads it, must not take long (each input is timed), and
must have the right consequence: a close code, a status, an answer that the other side can read. What exactly is right
is said by the target's ``check``, which raises when it is not.

Every input is made from three things only, the seed of the run, the name of the target and the number of the input, so
each can be made again alone: ``python -m tests.fuzz --seed S --only NAME --first NUMBER --inputs 1``.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import re
import sys
import threading
import time
import traceback
import warnings
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from tests.timing import scaled

__all__ = ["Finding", "Report", "Target", "main", "run", "stable", "targets"]

#: Seconds of processor time after which an input counts as a hang, and of any time after which the run is given up.
SLOW = scaled(1.0)
STUCK = scaled(60.0)

_PASSING = re.compile(r"eyJ[\w\-.]+|at 0x[0-9a-f]+")


class Target:
    """One thing that reads. ``share`` is its part of the inputs; ``first`` how many it gets at least."""

    name = ""
    share = 1.0

    def open(self) -> None:
        """Get ready."""

    def close(self) -> None:
        """Leave nothing behind."""

    def make(self, rng: random.Random) -> Any:
        """Return an input; anything with a useful repr."""
        raise NotImplementedError

    def check(self, item: Any) -> str:
        """Feed an input; return in a word what became of it. Whatever this raises is a finding."""
        raise NotImplementedError


class Finding(NamedTuple):
    """A rule that was broken."""

    target: str
    seed: str
    number: int
    item: str
    error: str


class Report(NamedTuple):
    """What became of a target's inputs."""

    target: str
    inputs: int
    seconds: float
    outcomes: Dict[str, int]
    slowest: Tuple[float, int]  # seconds of processor time, number of the input
    findings: List[Finding]


class ErrorLog(logging.Handler):
    """Notes what must not be logged: errors, tracebacks, and lines that a peer could break in two."""

    def __init__(self) -> None:
        super().__init__(level=logging.DEBUG)
        self.bad: List[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR or record.exc_info:
            detail = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
            self.bad.append("%s: %s %s" % (record.name, text[:300], detail[-3000:]))
        elif any(char in text for char in "\r\n\0\x1b"):
            self.bad.append("a log line with controls: %r" % text[:300])

    def check(self) -> None:
        """Raise AssertionError when something was noted since the last time."""
        bad, self.bad = self.bad, []
        assert not bad, bad[0]


class Watch:
    """Ends the process, with all stacks, when one input takes for ever."""

    def __init__(self) -> None:
        self.current: Tuple[str, str, int, float] = ("", "", 0, 0.0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="fuzz-watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(1.0):
            name, seed, number, since = self.current
            if name and time.monotonic() - since > STUCK:
                import faulthandler

                print("STUCK: --seed %s --only %s --first %d --inputs 1" % (seed, name, number), flush=True)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(3)


def generator(seed: str, name: str, number: int) -> random.Random:
    """Return the source of randomness of one input."""
    return random.Random("%s/%s/%d" % (seed, name, number))


def stable(shown: str) -> str:
    """Return a repr without what differs from one run to the next: addresses, and tokens with their times."""
    return _PASSING.sub("", shown)


def run(
    target: Target,
    inputs: int,
    seed: str,
    *,
    first: int = 0,
    most: int = 20,
    watch: Optional[Watch] = None,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Feed ``inputs`` inputs to a target, and stop early after ``most`` findings."""
    outcomes: Dict[str, int] = {}
    findings: List[Finding] = []
    slowest = (0.0, first)
    begin = time.perf_counter()
    number = first
    target.open()
    try:
        for number in range(first, first + inputs):
            rng = generator(seed, target.name, number)
            item: Any = None
            if watch is not None:
                watch.current = (target.name, seed, number, time.monotonic())
            error = None
            spent = 0.0
            try:
                item = target.make(rng)
                started = time.thread_time()
                word = target.check(item)
                spent = time.thread_time() - started
                outcomes[word] = outcomes.get(word, 0) + 1
                if spent > slowest[0]:
                    slowest = (spent, number)
            except Exception as problem:  # noqa: BLE001 - whatever it is, it is what we are looking for
                error = "".join(traceback.format_exception(type(problem), problem, problem.__traceback__))
            if error is None and spent > SLOW:
                error = "took %.2f s of processor time" % spent
            if error is not None:
                findings.append(Finding(target.name, seed, number, repr(item)[:2000], error))
                say("FOUND: --seed %s --only %s --first %d --inputs 1" % (seed, target.name, number))
                say("  input %s\n%s" % (repr(item)[:2000], error[-4000:]))
                if len(findings) >= most:
                    break
    finally:
        if watch is not None:
            watch.current = ("", "", 0, 0.0)
        target.close()
    done = number + 1 - first if inputs else 0
    return Report(target.name, done, time.perf_counter() - begin, outcomes, slowest, findings)


def targets() -> List[Target]:
    """Return a new instance of every target."""
    from . import codecs, doors, events, hub, texts

    return [kind() for module in (texts, codecs, hub, events, doors) for kind in module.TARGETS]


def _is_chosen(name: str, chosen: List[str]) -> bool:
    return any(name == choice or name.startswith(choice + "-") for choice in chosen)


def main(arguments: Optional[List[str]] = None) -> int:
    """See ``--help``."""
    everything = targets()
    warnings.simplefilter("error")  # what importing other people's packages warns of is not looked for
    names = [target.name for target in everything]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Random inputs; the seed is printed.")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many, of all targets together")
    parser.add_argument("--seed", default=None, help="makes the same inputs again")
    parser.add_argument(
        "--only", default=",".join(names), help='targets, with commas, "json" for all that begin with it: %(default)s'
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each target")
    options = parser.parse_args(arguments)
    seed = str(random.SystemRandom().randrange(2**32)) if options.seed is None else options.seed
    chosen = options.only.split(",")
    for choice in chosen:
        if not any(_is_chosen(name, [choice]) for name in names):
            parser.error("unknown target %s; there are %s" % (choice, ", ".join(names)))
    picked = [target for target in everything if _is_chosen(target.name, chosen)]
    whole = sum(target.share for target in picked)

    def say(text: str) -> None:
        print(text.encode("ascii", "backslashreplace").decode(), flush=True)

    say("seed %s, Python %s" % (seed, sys.version.split()[0]))
    reports = []
    with Watch() as watch:
        for target in picked:
            count = max(1, round(options.inputs * target.share / whole))
            report = run(target, count, seed, first=options.first, watch=watch, say=say)
            reports.append(report)
            found = ", ".join(
                "%s %d" % item for item in sorted(report.outcomes.items(), key=lambda item: -item[1])[:12]
            )
            say(
                "%-20s %7d inputs in %6.1f s, slowest %6.1f ms (number %d), %d findings; %s"
                % (
                    report.target,
                    report.inputs,
                    report.seconds,
                    report.slowest[0] * 1000,
                    report.slowest[1],
                    len(report.findings),
                    found,
                )
            )
    findings = sum(len(report.findings) for report in reports)
    say(
        "seed %s: %d inputs, %d findings, slowest %.1f ms"
        % (
            seed,
            sum(report.inputs for report in reports),
            findings,
            max(report.slowest[0] for report in reports) * 1000,
        )
    )
    return 1 if findings else 0
