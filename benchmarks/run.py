"""Compare simplepubsub with its peers in one run.

Usage: `python benchmarks/run.py [--quick] [--only NAME] [--rounds N] [--json FILE] [--svg FILE]`.
Every contender runs in a process of its own, in interleaved rounds, against one thin server; see README.md beside this
file for what each row means. A peer that is not installed gets a line that says so. Ends within about six minutes, and
leaves no process behind.
"""
from __future__ import annotations

import argparse
import sys
import time

import chart
import report
from measures import MEASURES, OUR_SERVER, OURS, Context
from processes import Failed, Missing


class Progress:
    """One line on standard error: how far, how long, what just came out."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.begin = total, 0, time.monotonic()
        self.wide = 0

    def show(self, text: str, step: int = 0) -> None:
        """Replace the line on a terminal; elsewhere write a line for each finished step."""
        self.done += step
        line = "[%3d/%d %4.0f s] %s" % (self.done, self.total, time.monotonic() - self.begin, text)
        if sys.stderr.isatty():
            sys.stderr.write("\r" + line.ljust(self.wide)[:150])
            self.wide = min(len(line), 150)
        elif step:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line, so that a table can be printed."""
        if sys.stderr.isatty():
            sys.stderr.write("\r" + " " * self.wide + "\r")
            sys.stderr.flush()


def run_measure(measure, context: Context, progress: Progress) -> dict:
    """Run all rounds of one measure, each contender once a round, and return its summary."""
    rounds = {name: [] for name in measure.contenders}
    notes = {}
    count = measure.rounds(context)
    key, heading, form = measure.columns[0]
    for number in range(count):
        # Every other round backwards, so that nobody is always the one who runs after the heaviest neighbour.
        for name in measure.contenders[::-1 if number % 2 else 1]:
            where = "%s %d/%d %s" % (measure.name, number + 1, count, name)
            progress.show(where + " ...")
            result = None
            if not notes.get(name, "").startswith("not installed"):
                try:
                    result = measure.run(context, name)
                except Missing as missing:
                    notes[name] = "not installed: %s" % missing
                except Failed as failed:
                    notes[name] = "failed: %s" % failed
            rounds[name].append(result)
            progress.show("%s: %s" % (where, "%s %s" % (form(result[key]), heading) if result else notes[name]), 1)
    context.end_turns()
    for name, results in rounds.items():
        notes.setdefault(name, report.extra(results))
    return report.summarise(measure, rounds, notes)


def main() -> int:
    """Run what was asked for and print it; return 1 if one of our own rows has no result, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: about one minute")
    parser.add_argument("--only", action="append", metavar="NAME", help="only measures whose name begins so")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of every measure, instead of its own number")
    parser.add_argument("--json", metavar="FILE", help="write everything, single rounds included")
    parser.add_argument("--svg", metavar="FILE", help="write a bar chart of the rates")
    options = parser.parse_args()
    chosen = [item for item in MEASURES if not options.only or item.name.startswith(tuple(options.only))]
    if not chosen:
        names = ", ".join(item.name for item in MEASURES)
        parser.error("no measure begins with %s; there are %s" % (" or ".join(options.only), names))
    context = Context(options.quick, options.rounds)
    progress = Progress(sum(item.rounds(context) * len(item.contenders) for item in chosen))
    facts = report.machine()
    summaries = {}
    print(report.header(facts), flush=True)
    try:
        for measure in chosen:
            summaries[measure.name] = run_measure(measure, context, progress)
            progress.clear()
            print(report.table(measure, summaries[measure.name]), flush=True)
    except KeyboardInterrupt:
        progress.clear()
        print("\ninterrupted; what was finished is above", flush=True)
        return 130
    finally:
        context.end_turns()
        context.stop()
    targets = [target for summary in summaries.values() for target in summary["targets"] if target["limit"] is not None]
    verdicts = [target["pass"] for target in targets]
    print("\n%d targets: %d PASS, %d MISS, %d not measured; %.0f s, load after %s" % (
        len(verdicts), verdicts.count(True), verdicts.count(False), verdicts.count(None),
        time.monotonic() - progress.begin, report.load()))
    if options.json:
        report.write_json(options.json, facts, summaries)
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as handle:
            handle.write(chart.draw(facts, summaries))
    rows = [item for summary in summaries.values() for item in summary["contenders"].items()]
    return 0 if all(any(row["rounds"]) for name, row in rows if name in (OURS, OUR_SERVER)) else 1


if __name__ == "__main__":
    sys.exit(main())
