"""Arguments, the file, and the output of ``simplepubsub demo``."""

from __future__ import annotations

import argparse
import logging
import math
import os
import random
import shutil
import signal
import sys
import threading
import time
from types import FrameType
from typing import Optional, TextIO

from ..exceptions import MessageTooLarge
from ..webpubsub.arguments import encode_checked
from ..webpubsub.json_codec import send_to_group_body
from ..webpubsub.messages import MAX_MESSAGE_BYTES
from .tally import Text, encode_line, table

__all__ = ["add_arguments", "run"]

#: The file that is sent when none is named: the licence text, which ships with the package.
DEFAULT_FILE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "LICENSE.txt")

#: A short file is sent several times, so that the cuts hit it on the way: at least so many lines, but no more bytes.
LINES, BYTES = 30_000, 8 * 2**20

#: Largest file; it is kept in memory.
MAX_FILE = 64 * 2**20

#: Lines up to this length (bytes) fit into a message whatever they contain: JSON needs at most six characters for one.
ALWAYS_FITS = MAX_MESSAGE_BYTES // 8

#: Seconds between two updates of the progress line.
UPDATE = 0.1


class Unusable(Exception):
    """The file cannot be sent; the text says why, in one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to ``parser``."""
    parser.description = (
        "Start a server, a publisher and two subscribers; send a file line by line while the network between them is "
        "cut; check that every line arrived once, in order, byte for byte. Exit status: 0 if so, 1 if not, 2 if the "
        "file cannot be sent, 130 after Ctrl-C."
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="file to send (default: the licence of this package)")
    parser.add_argument("--cuts", type=_cuts, default=5, metavar="N", help="how often to cut (default: %(default)s)")
    parser.add_argument("--seed", type=int, metavar="N", help="repeats the choice of places to cut (default: random)")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="give up when nothing has moved for so long (default: %(default)g)",
    )


def _cuts(text: str) -> int:
    if not text.isdigit() or not text.isascii() or len(text) > 3 or int(text) > 100:
        raise argparse.ArgumentTypeError("%r is not a number from 0 to 100" % text)
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError("%r is not a number of seconds above 0" % text)
    return seconds


def run(options: argparse.Namespace) -> int:
    """Run the demo and return the exit status. Raises ImportError without aiohttp, ServerError without a free port."""
    screen = Screen(sys.stdout)
    # The warnings about lost connections are the point of the exercise, not news: without a handler of the user's they
    # would end up between the lines of the progress report.
    quiet = logging.NullHandler()
    logger = logging.getLogger("simplepubsub")
    logger.addHandler(quiet)
    try:
        with CtrlC() as ctrl_c:
            return _run(options, screen, ctrl_c)
    except Unusable as error:
        print("simplepubsub demo: %s" % error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        screen.end()
        print("simplepubsub demo: interrupted", file=sys.stderr)
        return 130
    finally:
        logger.removeHandler(quiet)


def _run(options: argparse.Namespace, screen: Screen, ctrl_c: CtrlC) -> int:
    from .play import Play  # needs aiohttp, which the rest of the command line does not

    name = options.file or DEFAULT_FILE
    text = load(name, options.cuts)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    times = "" if text.repeats == 1 else " ({:,} times the file)".format(text.repeats)
    screen.say("{}: {:,} lines{}, {:,} bytes, seed {}".format(_printable(name), len(text), times, text.size, seed))
    screen.expect(len(text), options.cuts)
    outcome = Play(text, options.cuts, random.Random(seed), options.timeout, screen, ctrl_c).run()
    for row in [""] + table(outcome):
        screen.say(row)
    return outcome.status


def load(name: str, cuts: int) -> Text:
    """Return the lines of a file, repeated if they are few. Raises Unusable."""
    shown = _printable(name)
    try:
        if os.path.isdir(name):
            raise Unusable("%s is a directory: name a file" % shown)
        with open(name, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        raise Unusable("cannot read %s: %s" % (shown, getattr(error, "strerror", None) or error)) from error
    if not data:
        raise Unusable("%s is empty: there is nothing to send" % shown)
    if len(data) > MAX_FILE:
        raise Unusable("{} is larger than {:,} bytes: name a smaller file".format(shown, MAX_FILE))
    text = Text(data)
    for number, line in enumerate(text):
        if len(line) > ALWAYS_FITS:
            _check_size(shown, number, line)
    wanted = min(-(-LINES // len(text)), max(BYTES // len(data), -(-(cuts + 1) // len(text))))
    return Text(data, max(1, wanted))


def _check_size(shown: str, number: int, line: bytes) -> None:
    message = encode_line(10**9, line)
    data_type = "text" if isinstance(message, str) else "binary"
    try:
        encode_checked(send_to_group_body("demo", message, data_type, False))
    except MessageTooLarge as error:
        raise Unusable(
            "line {:,} of {} makes a message of {:,} bytes, and {:,} are allowed".format(
                number + 1, shown, error.size, error.limit
            )
        ) from error


def _printable(name: str) -> str:
    """Return a file name that any terminal can show on one line."""
    return "".join(char if " " <= char <= "~" else ascii(char)[1:-1] for char in name)


class CtrlC:
    """Remembers a Ctrl-C that came while it is open, because Python may lose one.

    KeyboardInterrupt is raised wherever the main thread happens to be. In the callback of a weak reference or in a
    ``__del__`` it is reported as ignored and gone.
    """

    def __init__(self) -> None:
        self._pressed = False
        self._installed = False

    def __enter__(self) -> CtrlC:
        # Only where Ctrl-C means KeyboardInterrupt: not in a background job or a thread, not where others handle it.
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._press)
                self._installed = True
        return self

    def __exit__(self, *unused: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _press(self, number: int, frame: Optional[FrameType]) -> None:
        self._pressed = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if it was pressed and got lost."""
        if self._pressed:
            raise KeyboardInterrupt


class Screen:
    """Progress on a terminal (one line that is written over) or in a file (a line per event)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines = 1
        self._cuts = 0
        self._live = stream.isatty()
        self._next = 0.0
        self._shown = 0  # characters of the live line

    def expect(self, lines: int, cuts: int) -> None:
        """Say how much there will be to show."""
        self._lines, self._cuts = lines, cuts

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self.end()
        self._stream.write(text + "\n")
        self._stream.flush()

    def progress(self, lines: int, cuts: int) -> None:
        """Show how far it is; cheap to call often."""
        now = time.monotonic()
        if self._live and now >= self._next:
            self._next = now + UPDATE
            filled = 30 * lines // self._lines
            self._write(
                "{:>9,} of {:,} lines, {} of {} cuts [{}{}]".format(
                    lines, self._lines, cuts, self._cuts, "#" * filled, "." * (30 - filled)
                )
            )

    def cut(self, lines: int, number: int, what: str) -> None:
        """Show that a cut was made."""
        if self._live:
            self._next = 0.0
            self.progress(lines, number)
        else:
            self.say("{:>9,} of {:,} lines, cut {} of {}: {}".format(lines, self._lines, number, self._cuts, what))

    def _write(self, text: str) -> None:
        text = text[: max(1, shutil.get_terminal_size().columns - 1)]
        self._stream.write("\r" + text.ljust(self._shown))
        self._stream.flush()
        self._shown = len(text)

    def end(self) -> None:
        """Leave the live line, so that what follows starts on a line of its own."""
        if self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._stream.flush()
            self._shown = 0


