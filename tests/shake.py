"""Shake the order in which threads run, so that what only a busy machine shows comes up on a quiet one.

``SIMPLEPUBSUB_SHAKE=SEED pytest ...`` (or ``SEED:CHANCE``, by default 0.02) stops threads at random for some
milliseconds where the machine may stop them at any time: before a new thread's first line, around the calls of a
socket, after a wake-up, before a turn of an event loop. A test that fails under it and not without it relied on an
order that nobody promises, or has found a race of the package. It slows a run down, so give it
SIMPLEPUBSUB_TIME_SCALE as well.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import select
import selectors
import socket
import sys
import threading
import time
from typing import Any, Callable

__all__ = ["shake"]

#: For how long a thread is stopped at most, in seconds; before its first line a new one, which is stopped more often.
LONGEST = 0.03
LONGEST_START = 0.5
STARTS = 5

_sleep = time.sleep
_random = random.Random()
_chance = 0.02


def _pause() -> None:
    draw = _random.random()
    if draw < _chance:
        _sleep(draw / _chance * LONGEST)
    elif draw < 0.2 + _chance:
        _sleep(0)  # let others have a turn


def _pause_at_start() -> None:
    draw = _random.random()
    if draw < STARTS * _chance:
        _sleep(draw / (STARTS * _chance) * LONGEST_START)


def _shaken(function: Callable[..., Any], before: bool, after: bool) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if before:
            _pause()
        result = function(*args, **kwargs)
        if after:
            _pause()
        return result

    return wrapper


def _patch(owner: Any, name: str, before: bool = False, after: bool = False) -> None:
    if hasattr(owner, name):
        setattr(owner, name, _shaken(getattr(owner, name), before, after))


class _ShakenEpoll:
    def __init__(self, real: Any) -> None:
        self._real = real
        self.poll = _shaken(real.poll, False, True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def shake(setting: str) -> None:
    """Shake this process until its end; ``setting`` is ``SEED`` or ``SEED:CHANCE``."""
    global _chance
    seed, _, chance = setting.partition(":")
    _chance = float(chance or _chance)
    _random.seed("%s %s" % (seed, os.environ.get("PYTEST_XDIST_WORKER")))
    sys.setswitchinterval(1e-4)
    for name in ("send", "sendall", "sendmsg", "connect", "shutdown", "close"):
        _patch(socket.socket, name, before=True, after=True)
    for name in ("recv", "recv_into", "accept"):
        _patch(socket.socket, name, after=True)
    run = threading.Thread.run

    def late(thread: threading.Thread) -> None:
        _pause_at_start()  # here and not before start() returns, which waits for the thread
        run(thread)

    threading.Thread.run = late  # type: ignore[method-assign]
    _patch(threading.Thread, "start", after=True)
    _patch(threading.Condition, "wait", after=True)
    _patch(threading.Condition, "notify", after=True)
    _patch(threading.Event, "set", before=True, after=True)
    _patch(selectors.DefaultSelector, "select", after=True)
    if hasattr(select, "epoll"):
        epoll = select.epoll
        select.epoll = lambda *args: _ShakenEpoll(epoll(*args))  # type: ignore[misc,assignment]
    _patch(asyncio.BaseEventLoop, "_run_once", before=True)
