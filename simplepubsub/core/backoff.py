"""How often and how soon to try again."""

from __future__ import annotations

import random
from typing import Callable, NamedTuple, Optional

from ..exceptions import InvalidArgument

__all__ = ["RetryPolicy"]


class _Fields(NamedTuple):
    total: Optional[int]
    base: float
    maximum: float
    mode: str
    jitter: bool


class RetryPolicy(_Fields):
    """When to try again: ``total`` times (None = without end), ``base`` seconds apart at first.

    ``mode`` "exponential" doubles the delay each time up to ``maximum`` seconds, "fixed" keeps it. ``jitter`` takes a
    random half off each delay so that many clients do not return at the same moment. Immutable.

    Raises InvalidArgument for a negative count or delay, or an unknown mode.
    """

    __slots__ = ()

    def __new__(
        cls,
        total: Optional[int] = None,
        base: float = 0.5,
        maximum: float = 30.0,
        mode: str = "exponential",
        jitter: bool = True,
    ) -> "RetryPolicy":
        if total is not None and (isinstance(total, bool) or not isinstance(total, int) or total < 0):
            raise InvalidArgument("total must be None or an integer >= 0, not %r" % (total,))
        for name, value in (("base", base), ("maximum", maximum)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise InvalidArgument("%s must be a number of seconds >= 0, not %r" % (name, value))
        mode = str(getattr(mode, "value", mode)).lower()  # enumerations of other libraries are welcome
        if mode not in ("exponential", "fixed"):
            raise InvalidArgument("mode must be 'exponential' or 'fixed', not %r" % (mode,))
        return super().__new__(cls, total, float(base), float(maximum), mode, bool(jitter))

    def delay(self, attempt: int, rng: Callable[[], float] = random.random) -> Optional[float]:
        """Return the seconds to wait before retry number ``attempt`` (from 1), None when there is none left."""
        if self.total is not None and attempt > self.total:
            return None
        # The exponent is bounded: after 60 doublings every maximum is reached, and 2.0**2000 overflows.
        grown = self.base if self.mode == "fixed" else self.base * 2.0 ** min(attempt - 1, 60)
        bounded = min(grown, self.maximum)
        return bounded * (0.5 + 0.5 * rng()) if self.jitter else bounded
