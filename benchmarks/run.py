"""Compare simplepubsub with its peers in one run.

Usage: `python benchmarks/run.py [--quick] [--only NAME] [--rounds N] [--json FILE] [--svg FILE]`.
Every contender runs in a process of its own, in interleaved rounds, against one thin server; see README.md beside this
file for what each row means. A peer that is not installed gets a line that says so. Ends within about six minutes, and
leaves no process behind.
"""
from __future__ import annotations

import sys
import time

import chart
import comparison
import report
from measures import MEASURES, OUR_SERVER, OURS, Context


def main(measures=MEASURES, ours=(OURS, OUR_SERVER)) -> int:
    """Run what was asked for and print it; return 1 if one of our own rows has no result, 130 after Ctrl-C."""
    begin = time.monotonic()
    parser = comparison.options_parser(__doc__, "about one minute")
    parser.add_argument("--svg", metavar="FILE", help="write a bar chart of the rates")
    options = parser.parse_args()
    chosen = comparison.choose(parser, options, measures)
    facts = report.machine()
    summaries = comparison.compare(chosen, Context(options.quick, options.rounds), facts)
    if summaries is None:
        return 130
    targets = [target for summary in summaries.values() for target in summary["targets"] if target["limit"] is not None]
    verdicts = [target["pass"] for target in targets]
    print("\n%d targets: %d PASS, %d MISS, %d not measured; %.0f s, load after %s" % (
        len(verdicts), verdicts.count(True), verdicts.count(False), verdicts.count(None),
        time.monotonic() - begin, report.load()))
    if options.json:
        report.write_json(options.json, facts, summaries)
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as handle:
            handle.write(chart.draw(facts, summaries))
    rows = [item for summary in summaries.values() for item in summary["contenders"].items()]
    return 0 if all(any(row["rounds"]) for name, row in rows if name in ours) else 1


if __name__ == "__main__":
    sys.exit(main())
