"""Show where our client's time goes while it publishes or receives: `python benchmarks/profile_client.py publish`.

Without options: CPU of each thread per message, which costs nothing to measure. `--calls` adds cProfile in every thread
(all functions look slower, small ones most). `--lines` adds a sampler; it sees a thread only where that lets go of the
interpreter lock, so read it as a hint. Standard library only; the clocks need Linux.
"""
from __future__ import annotations

import argparse
import collections
import cProfile
import os
import pstats
import sys
import threading
import time

from processes import ROOT, script_server

sys.path.insert(0, ROOT)


def thread_clocks() -> dict:
    """Return the CPU seconds of every live thread by name."""
    return {
        "%s (%d)" % (thread.name, thread.ident): time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate() if thread.ident
    }


class Sampler(threading.Thread):
    """Counts the line each thread is on, about a thousand times a second."""

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self.lines = collections.defaultdict(collections.Counter)
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.001):
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                if ident != self.ident:
                    code = frame.f_code
                    place = "%s:%d %s" % (os.path.basename(code.co_filename), frame.f_lineno, code.co_name)
                    self.lines[names.get(ident, str(ident))][place] += 1

    def show(self, top: int) -> None:
        """Print the most frequent lines of each thread."""
        for name, lines in sorted(self.lines.items()):
            total = sum(lines.values())
            print("\n%s: %d samples" % (name, total))
            for place, count in lines.most_common(top):
                print("  %5.1f %%  %s" % (100.0 * count / total, place))


def profile_threads() -> list:
    """Make every thread started from now on profile itself; return the list that collects (name, profile)."""
    found = []
    plain = threading.Thread.run

    def run(self) -> None:
        profile = cProfile.Profile()
        found.append((self.name, profile))
        profile.runcall(plain, self)

    threading.Thread.run = run
    return found


def work(options, url: str, clocks: dict) -> dict:
    """Run the chosen loop of the benchmark; `clocks` gets the CPU of its threads before it stops."""
    import contender_ours

    from simplepubsub.webpubsub import WebPubSubClient

    class Client(WebPubSubClient):
        """Looks at the clocks while the threads still live."""

        def __exit__(self, *details):
            clocks.update(thread_clocks())
            return super().__exit__(*details)

    contender_ours.WebPubSubClient = Client
    options.url = url
    return {"publish": contender_ours.publish_acked, "receive": contender_ours.receive}[options.path](options)


def main() -> int:
    """Run once and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", choices=("publish", "receive"))
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--count", type=int, default=200000, help="messages to receive")
    parser.add_argument("--window", type=int, default=2000)
    parser.add_argument("--calls", action="store_true", help="profile calls with cProfile, in every thread")
    parser.add_argument("--lines", action="store_true", help="sample lines")
    parser.add_argument("--top", type=int, default=12)
    options = parser.parse_args()
    if options.calls and sys.version_info >= (3, 12):
        parser.error("cProfile can watch only one thread from Python 3.12 on; use 3.11 or --lines")
    profiles = profile_threads() if options.calls else []
    sampler = Sampler()
    clocks = {}
    with script_server("thin_server.py") as server:
        if options.lines:
            sampler.start()
        own = cProfile.Profile()
        before = thread_clocks()
        if options.calls:
            result = own.runcall(work, options, server.url, clocks)
            profiles.append(("main", own))
        else:
            result = work(options, server.url, clocks)
        sampler.done.set()
    print("%s: %.0f msgs/s, %.1f us CPU/msg over %d messages" % (
        options.path, result["rate"], result["cpu_us"], result["count"]))
    for name, seconds in sorted(clocks.items(), key=lambda item: -item[1]):
        used = seconds - before.get(name, 0.0)
        print("  %6.2f us/msg  %s" % (used / result["count"] * 1e6, name))
    for name, profile in profiles:
        print("\n== calls in %s" % name)
        pstats.Stats(profile).sort_stats("tottime").print_stats(options.top)
    if options.lines:
        sampler.join(1)
        sampler.show(options.top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
