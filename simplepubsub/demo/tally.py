"""What was sent, what arrived, and the difference. Pure: no thread, no clock, no output.

A message is the number of the line, one blank, and the bytes of the line; the number tells a repeated line of the file
from a line that arrived twice. Independently of the numbers, a digest over all bytes in the order of arrival is
compared with that of the text.
"""

from __future__ import annotations

import hashlib
from typing import Iterator, List, NamedTuple, Optional, Sequence, Union

__all__ = ["Outcome", "Tally", "Text", "encode_line", "table"]


class Text:
    """The lines of a file, with their line ends, several times over."""

    def __init__(self, data: bytes, repeats: int = 1) -> None:
        self._lines = data.splitlines(keepends=True)
        self.repeats = repeats
        self.size = len(data) * repeats

    def __len__(self) -> int:
        return len(self._lines) * self.repeats

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._lines[number % len(self._lines)]

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self.repeats):
            yield from self._lines

    def digest(self) -> str:
        """Return the SHA-256 of all the bytes."""
        whole = hashlib.sha256()
        once = b"".join(self._lines)
        for _ in range(self.repeats):
            whole.update(once)
        return whole.hexdigest()


def encode_line(number: int, line: bytes) -> Union[str, bytes]:
    """Return the message for a line: text if its bytes are UTF-8, else binary."""
    message = b"%d " % number + line
    try:
        return message.decode("utf-8")
    except UnicodeDecodeError:
        return message


class Tally:
    """Counts what one subscriber received of ``text``. Not thread-safe."""

    def __init__(self, name: str, text: Text) -> None:
        self.name = name
        self.arrived = 0
        self.doubled = 0
        self.out_of_order = 0
        self.changed = 0
        self.highest = -1  # number of the latest line
        self._text = text
        self._seen = bytearray(len(text))
        self._distinct = 0
        self._digest = hashlib.sha256()

    def add(self, message: Union[str, bytes]) -> None:
        """Count one message."""
        data = message.encode("utf-8") if isinstance(message, str) else message
        prefix, _, line = data.partition(b" ")
        self._digest.update(line)
        self.arrived += 1
        number = int(prefix) if prefix.isdigit() and len(prefix) < 20 else -1
        if not 0 <= number < len(self._seen):
            self.changed += 1
            return
        if self._seen[number]:
            self.doubled += 1
            return
        self._seen[number] = 1
        self._distinct += 1
        if number < self.highest:
            self.out_of_order += 1
        self.highest = max(self.highest, number)
        if line != self._text[number]:
            self.changed += 1

    def lost(self, sent: int) -> int:
        """Return how many of the first ``sent`` lines have not arrived."""
        return sent - self._distinct

    @property
    def identical(self) -> bool:
        """Whether all that arrived, in the order of arrival, is the text byte for byte."""
        return self._digest.hexdigest() == self._text.digest()

    @property
    def clean(self) -> bool:
        """Whether every line arrived once, in order, byte for byte."""
        return not (self.lost(len(self._seen)) or self.doubled or self.out_of_order or self.changed) and self.identical


class Outcome(NamedTuple):
    """Everything that the table at the end shows. ``failure`` says in one line why the run ended early, if it did."""

    tallies: Sequence[Tally]
    sent: int
    acknowledged: int
    replayed: int
    cuts: int
    survived: int
    recovery_times: Sequence[float]
    seconds: float
    failure: Optional[str] = None

    @property
    def status(self) -> int:
        """The exit status: 0 only if every line was acknowledged and arrived everywhere once, in order, unchanged."""
        whole = bool(self.tallies) and all(tally.clean and tally.arrived == self.sent for tally in self.tallies)
        return 0 if whole and self.failure is None and self.acknowledged == self.sent else 1


_ROW = "{:<14}{:>11}{:>9}{:>9}{:>14}{:>9}{:>11}"


def table(outcome: Outcome) -> List[str]:
    """Return the lines of the final report."""
    rows = [_ROW.format("", "received", "lost", "doubled", "out of order", "changed", "text")]
    for tally in outcome.tallies:
        counts = (tally.arrived, tally.lost(outcome.sent), tally.doubled, tally.out_of_order, tally.changed)
        cells = ["{:,}".format(count) for count in counts]
        rows.append(_ROW.format(tally.name, *cells, "identical" if tally.identical else "DIFFERS"))
    times = sorted(outcome.recovery_times)
    recovery = "none to measure"
    if times:
        middle = (times[len(times) // 2] + times[(len(times) - 1) // 2]) / 2
        recovery = "median %.1f ms, longest %.1f ms" % (middle * 1e3, times[-1] * 1e3)
    received = sum(tally.arrived for tally in outcome.tallies)
    speed = "too short to measure"
    if outcome.seconds > 0:
        rates = (outcome.sent / outcome.seconds, received / outcome.seconds)
        speed = "{:,.0f} sent and {:,.0f} received in {:.2f} s".format(*rates, outcome.seconds)
    rows += [
        "",
        "lines sent      {:,}, acknowledged {:,}, sent again after a cut {:,}".format(
            outcome.sent, outcome.acknowledged, outcome.replayed
        ),
        "cuts survived   %d of %d" % (outcome.survived, outcome.cuts),
        "recovery time   %s" % recovery,
        "messages/s      %s" % speed,
        "",
    ]
    if outcome.failure is not None:
        rows.append("FAILED: %s" % outcome.failure)
    elif outcome.status:
        rows.append("FAILED: not everything arrived once, in order and byte for byte")
    else:
        rows.append("Every line arrived once, in order, byte for byte.")
    return rows
