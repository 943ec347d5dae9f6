"""One factor for every bound of the tests, so that a slow machine needs a setting and no edits."""

from __future__ import annotations

import os

#: How much slower than a fast idle machine this one is.
TIME_SCALE = float(os.environ.get("SIMPLEPUBSUB_TIME_SCALE", "1"))

#: One scaled millisecond: `20 * MS` is a duration to hand to the code under test.
MS = 0.001 * TIME_SCALE

LOOPBACK = "127.0.0.1"


def scaled(seconds: float) -> float:
    """Return `seconds` stretched for a slow machine."""
    return seconds * TIME_SCALE
