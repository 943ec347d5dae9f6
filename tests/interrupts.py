"""Ctrl-C for tests: at any line of a call, and a real one in a process that is blocked in a call."""

from __future__ import annotations

import linecache
import os
import sys
import time
from typing import Any, Callable, Optional

import pytest

import simplepubsub
from tests.children import ChildResult, subprocess_python

__all__ = ["NEEDS_SAFE_WITH", "interrupt_at", "interrupt_when_blocked"]

PACKAGE = os.path.dirname(simplepubsub.__file__)

# Before 3.10 the interpreter itself may handle a signal between the end of a `with` block and its `__exit__`
# (bpo-29988), which leaves the lock held whatever the code does; a real Ctrl-C is tested everywhere.
NEEDS_SAFE_WITH = pytest.mark.skipif(
    sys.version_info < (3, 10), reason="this interpreter can lose a lock to Ctrl-C at such a line")


class interrupt_at:
    """Raise KeyboardInterrupt in this thread before the ``position``-th line of the package that runs from here on.

    The interpreter looks for signals between lines too. Not before the line of a `with`: it is visited a second time on
    the way out, where a signal is never handled before the lock is released. ``where`` is the line, "" for none.
    """

    def __init__(self, position: int) -> None:
        self._left = position
        self.where = ""

    def _trace(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "call":
            return self._trace if frame.f_code.co_filename.startswith(PACKAGE) else None
        if event == "line" and not self.where:
            self._left -= 1
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            if self._left <= 0 and not line.startswith("with "):
                self.where = "%s:%d %s" % (os.path.relpath(frame.f_code.co_filename, PACKAGE), frame.f_lineno, line)
                raise KeyboardInterrupt
        return self._trace

    def __enter__(self) -> interrupt_at:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)


_CHILD = """
import sys, threading, time
from tests.helpers import current_frames, wait_until

def blocked():
    frame = current_frames()[threading.main_thread().ident]
    return frame.f_code.co_filename == threading.__file__ and frame.f_code.co_name == "wait"

def announce():
    started.wait()
    wait_until(blocked, 60)
    print("blocked")

started = threading.Event()
threading.Thread(target=announce, daemon=True).start()
%(before)s
try:
    started.set()
    %(call)s
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - float(sys.stdin.readline()) < 20)
else:
    print("returned")
%(after)s
print("done")
"""


def interrupt_when_blocked(
    before: str, call: str, after: str, *args: str, when: Optional[Callable[[], Any]] = None
) -> ChildResult:
    """Run code in a process of its own (``args`` in sys.argv), with a Ctrl-C when ``call``, one line, waits.

    The call must end within twenty seconds, and the rest by itself; returns how. ``when`` is called before the signal,
    once the call waits.
    """
    code = _CHILD % {"before": before, "call": call, "after": after}
    with subprocess_python(code, *args, timeout=60) as child:
        child.wait_line("blocked", timeout=30)
        if when is not None:
            when()
        child.send_line(str(time.monotonic()))
        child.interrupt()
        child.wait_line("interrupted True", timeout=30)
        result = child.wait(30)
    assert result.returncode == 0 and "done" in result.stdout, result
    return result
