"""The options of a client's core, and what one ``connect()`` asks for."""

from __future__ import annotations

import random
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple, Union

from ..core.backoff import RetryPolicy
from ..exceptions import InvalidArgument

__all__ = ["Options", "Plan", "backoff"]


class Options(NamedTuple):
    """Times are in seconds. ``attempts`` 0 means without end.

    ``require_all``: a connection that lacks a namespace is none. ``retry_refused``: a refusal during a reconnection is
    tried again like any failure; otherwise the namespace is given up. ``overflow``: "raise", "drop_oldest" or
    "drop_newest". An emit waits while ``max_unsent_bytes`` or more are queued in the session.
    """

    reconnection: bool = True
    attempts: int = 0
    delay: float = 1.0
    delay_max: float = 5.0
    randomization: float = 0.5
    open_timeout: float = 5.0
    close_timeout: float = 5.0
    require_all: bool = True
    retry_refused: bool = True
    strip_offset: Union[str, bool] = "auto"
    max_buffer: int = 1000
    max_buffer_bytes: int = 8 * 2**20
    overflow: str = "raise"
    max_unsent_bytes: int = 8 * 2**20
    max_inbox: int = 10_000  # events; twice that ends the connection
    ack_timeout: float = 10.0  # of a try, for events with retries that give none

    def check(self) -> None:
        """Raise InvalidArgument for a value that makes no sense."""
        for name in ("delay", "delay_max", "open_timeout", "close_timeout", "ack_timeout"):
            _check_number(name, getattr(self, name), None)
        _check_number("randomization", self.randomization, 1)
        for name in ("attempts", "max_buffer", "max_buffer_bytes", "max_unsent_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidArgument("%s must be an integer >= 0, not %r" % (name, value))
        if isinstance(self.max_inbox, bool) or not isinstance(self.max_inbox, int) or self.max_inbox < 1:
            raise InvalidArgument("max_inbox must be an integer >= 1, not %r" % (self.max_inbox,))
        if self.strip_offset not in ("auto", True, False):
            raise InvalidArgument("strip_offset must be 'auto', True or False, not %r" % (self.strip_offset,))
        if self.overflow not in ("raise", "drop_oldest", "drop_newest"):
            raise InvalidArgument(
                "overflow must be 'raise', 'drop_oldest' or 'drop_newest', not %r" % (self.overflow,)
            )


def _check_number(name: str, value: Any, maximum: Optional[float]) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise InvalidArgument("%s must be a number >= 0, not %r" % (name, value))
    if maximum is not None and value > maximum:
        raise InvalidArgument("%s must be at most %s, not %r" % (name, maximum, value))


class Plan(NamedTuple):
    """What one ``connect()`` asked for; url, headers and auth may be callables, asked again for each attempt."""

    url: Union[str, Callable[[], str]]
    headers: Union[None, Mapping[str, str], Callable[[], Mapping[str, str]]]
    auth: Dict[str, Any]  # by namespace
    transports: Optional[Tuple[str, ...]]
    path: str
    wait: bool
    wait_timeout: float
    retry: bool


def backoff(options: Options, attempt: int, rng: Callable[[], float] = random.random) -> Optional[float]:
    """Return the seconds to wait before reconnection attempt ``attempt`` (from 1), None when there is none left.

    The delay doubles up to ``delay_max``; ``randomization`` is the part of it by which it may differ either way, and
    the maximum holds after that, too.
    """
    policy = RetryPolicy(options.attempts or None, options.delay, options.delay_max, jitter=False)
    grown = policy.delay(attempt)
    if grown is None:
        return None
    return min(grown * (1.0 + options.randomization * (2.0 * rng() - 1.0)), options.delay_max)
