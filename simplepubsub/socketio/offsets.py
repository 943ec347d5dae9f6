"""The offset that a recovering server appends to its events, and how to tell it from an argument (section 2.12).

An offset is an extra last argument: text that names the event in the server's store. Handlers must not see it, and a
server does not mark it, so its form decides: every known store makes offsets out of the time.
"""

from __future__ import annotations

import re
from typing import Any, List, Optional, Tuple, Union

__all__ = ["looks_like_offset", "split_offset"]

_DIGITS = {c: i for i, c in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_")}

#: In memory: milliseconds in base 64, and a counter for several in one millisecond.
_YEAST = re.compile(r"([0-9A-Za-z_-]{7})(?:\.[0-9A-Za-z_-]{1,6})?\Z")

#: Redis Streams: milliseconds and a counter.
_REDIS = re.compile(r"([0-9]{13})-[0-9]{1,20}\Z")

#: MongoDB: an object id, whose first eight digits are seconds.
_MONGO = re.compile(r"([0-9a-f]{8})[0-9a-f]{16}\Z")

#: Seconds that the clocks of server and client may differ, and an event may be old.
_WINDOW = 86400.0


def _seconds(text: str) -> Optional[float]:
    match = _YEAST.match(text)
    if match:
        milliseconds = 0
        for digit in match.group(1):
            milliseconds = milliseconds * 64 + _DIGITS[digit]
        return milliseconds / 1000
    match = _REDIS.match(text)
    if match:
        return int(match.group(1)) / 1000
    match = _MONGO.match(text)
    return float(int(match.group(1), 16)) if match else None


def looks_like_offset(value: Any, now: float) -> bool:
    """Return whether ``value`` has the form of an offset made within a day of ``now`` (seconds since the epoch)."""
    if not isinstance(value, str) or not 7 <= len(value) <= 40:
        return False
    made = _seconds(value)
    return made is not None and abs(made - now) <= _WINDOW


def split_offset(args: List[Any], now: float, strip: Union[str, bool] = "auto") -> Tuple[List[Any], Optional[str]]:
    """Return the arguments for handlers and the offset, or None, of an event whose ``args`` do not include its name.

    For events without ack id from a server that gave a pid; others carry no offset. ``strip`` "auto" removes what looks
    like an offset, True any last string, False nothing; the offset is returned all the same, for recovery.
    """
    if not args or not isinstance(args[-1], str):
        return args, None
    last = args[-1]
    if strip is True or looks_like_offset(last, now):
        return (args if strip is False else args[:-1]), last
    return args, None
