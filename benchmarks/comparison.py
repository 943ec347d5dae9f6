"""Run measures in interleaved rounds and print their tables, with a line that says how far it is."""
from __future__ import annotations

import argparse
import sys
import time

import report
from processes import Failed, Missing


def options_parser(about: str, quick: str) -> argparse.ArgumentParser:
    """Return a parser of the options of every comparison; `quick` says how long the quick one takes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: " + quick)
    parser.add_argument("--only", action="append", metavar="NAME", help="only measures whose name begins so")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of every measure, instead of its own number")
    parser.add_argument("--json", metavar="FILE", help="write everything, single rounds included")
    return parser


def choose(parser: argparse.ArgumentParser, options, measures: list) -> list:
    """Return the measures that `--only` names; exit with a message when there are none."""
    chosen = [item for item in measures if not options.only or item.name.startswith(tuple(options.only))]
    if not chosen:
        names = ", ".join(item.name for item in measures)
        parser.error("no measure begins with %s; there are %s" % (" or ".join(options.only), names))
    return chosen


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


def run_measure(measure, context, progress: Progress) -> dict:
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


def compare(chosen: list, context, facts: dict, stop_each: bool = False) -> "dict | None":
    """Run the measures, print a table after each; return the summaries by name.

    None after Ctrl-C. The processes of `context` are stopped at the end; `stop_each` stops its servers after each
    measure.
    """
    progress = Progress(sum(item.rounds(context) * len(item.contenders) for item in chosen))
    summaries = {}
    print(report.header(facts), flush=True)
    try:
        for measure in chosen:
            summaries[measure.name] = run_measure(measure, context, progress)
            progress.clear()
            print(report.table(measure, summaries[measure.name]), flush=True)
            if stop_each:
                context.stop()
    except KeyboardInterrupt:
        progress.clear()
        print("\ninterrupted; what was finished is above", flush=True)
        return None
    finally:
        context.end_turns()
        context.stop()
    return summaries
