"""Run the fuzzing suite against `connect` and `serve`, all on loopback; print a table, or write it to the docs.

Usage: `python tests/interop/autobahn/run.py [--only connect|serve] [--cases 1.* 2.*] [--docs] [--keep DIRECTORY]`.
Exits by 1 when a case failed, by 2 when the suite cannot be had here. Ends within ten minutes.
"""
from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, Optional
from urllib.parse import quote

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import suite  # beside this file

try:
    import simplepubsub
except ImportError:
    sys.path.insert(0, suite.REPOSITORY)
    import simplepubsub
from simplepubsub import websockets

#: Seconds for one end against all cases.
BOUND = 280
#: Larger than any message of the suite.
MAX_SIZE = 32 * 2**20
DOCS = os.path.join(suite.REPOSITORY, "docs", "autobahn.md")
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")
GROUPS = {
    "1": "framing", "2": "pings and pongs", "3": "reserved bits", "4": "opcodes", "5": "fragmentation",
    "6": "UTF-8", "7": "close handshake", "9": "limits and large messages", "10": "many small fragments",
}

Results = Dict[str, Dict[str, Any]]


def run_connect(cases: Optional[List[str]], directory: str) -> Results:
    """Let the fuzzing server loose on `connect`."""
    port = suite.free_port()
    url = "ws://127.0.0.1:%d" % port
    agent = quote(agent_name())
    with suite.Suite("fuzzingserver", dict(suite.specification(cases), url=url), directory) as server:
        server.wait_listening(port)
        with websockets.connect(url + "/getCaseCount", proxy=None) as connection:
            count = int(connection.recv(timeout=10))
        deadline = time.monotonic() + BOUND
        for number in range(1, count + 1):
            if time.monotonic() > deadline:
                raise suite.Unavailable("only %d of %d cases ran within %d s" % (number - 1, count, BOUND))
            uri = "%s/runCase?case=%d&agent=%s" % (url, number, agent)
            with websockets.connect(uri, proxy=None, max_size=MAX_SIZE) as connection:
                echo(connection)
        with websockets.connect("%s/updateReports?agent=%s" % (url, agent), proxy=None) as connection:
            for _ in connection:
                pass
        return server.results()


def run_serve(cases: Optional[List[str]], directory: str) -> Results:
    """Let the fuzzing client loose on `serve`."""
    with websockets.serve(echo, max_size=MAX_SIZE) as server:
        target = {"agent": agent_name(), "url": "ws://127.0.0.1:%d" % server.port}
        with suite.Suite("fuzzingclient", dict(suite.specification(cases), servers=[target]), directory) as client:
            client.wait(BOUND)
            return client.results()


def echo(connection: websockets.ClientConnection) -> None:
    """Send every message back as it came."""
    try:
        for message in connection:
            connection.send(message)
    except websockets.ConnectionClosed:
        pass  # most cases end so


RUNS: Dict[str, Callable[[Optional[List[str]], str], Results]] = {"connect": run_connect, "serve": run_serve}


def agent_name() -> str:
    """Return what the reports call us."""
    return "simplepubsub-%s" % simplepubsub.__version__


def failures(results: Results) -> Dict[str, str]:
    """Return the cases that are not good, by name."""
    return {
        name: "%s, close: %s" % (case["behavior"], case["behaviorClose"])
        for name, case in results.items()
        if case["behavior"] not in GOOD or case["behaviorClose"] not in GOOD
    }


def order(name: str) -> List[int]:
    """Return the key that sorts case 2.10 after case 2.9."""
    return [int(part) for part in name.split(".")]


def table(found: Dict[str, Results]) -> str:
    """Return one line for each group and end, and below them the cases that are not simply OK."""
    lines = ["| group | end | cases | OK | non-strict | informational | failed |", "|---|---|---|---|---|---|---|"]
    for group, title in GROUPS.items():
        for end, results in found.items():
            cases = {name: case for name, case in results.items() if name.split(".")[0] == group}
            if cases:
                counts = [[case["behavior"] for case in cases.values()].count(verdict) for verdict in GOOD]
                cells = ["%s: %s" % (group, title), "`%s`" % end, len(cases)] + counts + [len(failures(cases))]
                lines.append("| %s |" % " | ".join(map(str, cells)))
    lines.append("")
    for end, results in found.items():
        for verdict in sorted({case["behavior"] for case in results.values()} - {"OK"}):
            names = sorted((name for name, case in results.items() if case["behavior"] == verdict), key=order)
            lines.append("- `%s`, %s: %s" % (end, verdict.lower(), ", ".join(names)))
        lines += ["- `%s`, failed: %s: %s" % (end, name, text) for name, text in failures(results).items()]
    return "\n".join(lines)


def write_docs(text: str) -> None:
    """Replace what is between the two marks in the docs page."""
    with open(DOCS, encoding="utf-8") as handle:
        page = handle.read()
    marked = re.compile("(<!-- results -->\n).*(<!-- end of results -->)", re.DOTALL)
    with open(DOCS, "w", encoding="utf-8") as handle:
        handle.write(marked.sub(lambda found: found.group(1) + text + "\n" + found.group(2), page))


def main() -> int:
    """Run what was asked for and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(RUNS), help="one end only")
    parser.add_argument("--cases", nargs="+", metavar="PATTERN", help="such as 1.* 5.12; all of them by default")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/autobahn.md")
    parser.add_argument("--keep", metavar="DIRECTORY", help="keep specifications, logs and HTML reports there")
    options = parser.parse_args()
    found: Dict[str, Results] = {}
    try:
        suite.install()
        with tempfile.TemporaryDirectory() as temporary:
            for end in [options.only] if options.only else sorted(RUNS):
                directory = os.path.join(os.path.abspath(options.keep or temporary), end)
                os.makedirs(directory, exist_ok=True)
                begin = time.monotonic()
                found[end] = RUNS[end](options.cases, directory)
                print("%s: %d cases in %.0f s" % (end, len(found[end]), time.monotonic() - begin), flush=True)
    except suite.Unavailable as error:
        print("no result: %s" % error, file=sys.stderr)
        return 2
    text = table(found)
    print(text)
    if options.docs:
        write_docs("Version %s, Python %s.\n\n%s" % (simplepubsub.__version__, sys.version.split()[0], text))
    return 1 if any(failures(results) for results in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
