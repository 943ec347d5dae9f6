"""Child processes with a bound, whose output can be waited for and which can be sent Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence

from tests.timing import scaled

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class ChildResult(NamedTuple):
    """How a child process ended."""

    returncode: int
    stdout: str
    stderr: str


# SIGINT may be ignored by inheritance (a test run in the background of a shell), and Python then installs no handler.
_CHILD_PRELUDE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGBREAK"):
    signal.signal(signal.SIGBREAK, signal.default_int_handler)
code = sys.argv.pop(1)
exec(compile(code, "<child>", "exec", dont_inherit=True), {"__name__": "__main__"})
"""


class Child:
    """A process that runs `command`; made by `subprocess_python` and others. Leaving its `with` ends the process.

    Its output is collected by two threads, so it never blocks on a full pipe. `timeout` bounds its whole life.
    """

    def __init__(self, command: Sequence[str], env: Optional[Mapping[str, str]] = None, timeout: float = 20.0) -> None:
        self._deadline = time.monotonic() + scaled(timeout)
        self._changed = threading.Condition()
        self._lines: Dict[str, List[str]] = {"stdout": [], "stderr": []}
        self._open = 2
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # Windows: else Ctrl-C would reach the tests too
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
            encoding="utf-8", errors="replace", creationflags=flags, cwd=REPOSITORY, env={**os.environ, **(env or {})})
        self._readers = [threading.Thread(target=self._read, args=(name,), name=f"child-{name}", daemon=True)
                         for name in self._lines]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        for line in getattr(self.process, name):
            with self._changed:
                self._lines[name].append(line)
                self._received(name, line)
                self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _received(self, name: str, line: str) -> None:
        """For subclasses: a line has come. Runs in the reader's thread, under the lock."""

    def output(self, name: str = "stdout") -> str:
        """What the child has written so far to "stdout" or "stderr"."""
        with self._changed:
            return "".join(self._lines[name])

    def _found(self, text: str, name: str) -> Optional[str]:
        return next((line.rstrip("\n") for line in self._lines[name] if text in line), None)

    def wait_line(self, text: str, timeout: float = 10.0, name: str = "stdout") -> str:
        """Wait for a line that contains `text` and return it; AssertionError when none comes or the child ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._found(text, name) is not None or not self._open, scaled(timeout))
            line = self._found(text, name)
        if line is None:
            raise AssertionError(f"the child did not print {text!r} within {scaled(timeout):g} s\n{self._report()}")
        return line

    def send_line(self, text: str) -> None:
        """Write one line to the child's standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        """Press Ctrl-C in the child: KeyboardInterrupt in its main thread."""
        self.process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT))

    def wait(self, timeout: Optional[float] = None) -> ChildResult:
        """Wait for the end; AssertionError with the stacks of all its threads when it does not come in time."""
        left = self._deadline - time.monotonic() if timeout is None else scaled(timeout)
        try:
            self.process.wait(max(0.0, left))
        except subprocess.TimeoutExpired:
            self._kill()
            raise AssertionError(f"the child still ran after its bound\n{self._report()}") from None
        self._join()
        return ChildResult(self.process.returncode, self.output(), self.output("stderr"))

    def _kill(self) -> None:
        if self.process.poll() is None and hasattr(signal, "SIGKILL"):
            self.process.send_signal(signal.SIGABRT)  # faulthandler prints the stacks
            try:
                self.process.wait(scaled(10))
            except subprocess.TimeoutExpired:
                self.process.kill()
        elif self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._join()

    def _join(self) -> None:
        for reader in self._readers:  # they end at EOF, unless a grandchild holds the pipe
            reader.join(scaled(5))

    def _report(self) -> str:
        return (f"exit status: {self.process.poll()}\nstdout:\n{self.output()}\nstderr:\n{self.output('stderr')}")

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                pass  # stdin: unsent input for a process that is gone


def subprocess_python(code: str, *args: str, env: Optional[Mapping[str, str]] = None, timeout: float = 20.0) -> Child:
    """Start a child interpreter on `code` (dedented; sys.argv[1:] is `args`) with the package importable.

    `env` is added to the environment. Use as `with subprocess_python(...) as child`, then `wait_line`, `interrupt`,
    `wait`.
    """
    prelude = ["-u", "-X", "faulthandler", "-c", _CHILD_PRELUDE]
    return _python([*prelude, textwrap.dedent(code), *args], env, timeout)


def subprocess_module(module: str, *args: str, env: Optional[Mapping[str, str]] = None, timeout: float = 20.0) -> Child:
    """Start `python -m module args`, the package importable, as `subprocess_python` does."""
    return _python(["-u", "-X", "faulthandler", "-m", module, *args], env, timeout)


def _python(arguments: Sequence[str], env: Optional[Mapping[str, str]], timeout: float) -> Child:
    path = os.pathsep.join(p for p in (REPOSITORY, os.environ.get("PYTHONPATH", "")) if p)
    ours = {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8",
            # PyJWT imports cryptography where it is installed, which complains about old interpreters.
            "PYTHONWARNINGS": "ignore:Python 3"}
    return Child([sys.executable, *arguments], {**ours, **(env or {})}, timeout)


def run_python(code: str, *args: str, env: Optional[Mapping[str, str]] = None, timeout: float = 20.0) -> ChildResult:
    """Run `code` in a child interpreter to its end; AssertionError when it exits other than by 0 or not in time."""
    with subprocess_python(code, *args, env=env, timeout=timeout) as child:
        result = child.wait()
    if result.returncode:
        raise AssertionError(f"the child exited by {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result
