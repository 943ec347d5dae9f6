"""The fuzzing suite in a Python 2.7 environment of its own: find an interpreter, install, run one mode of `wstest`.

The environment is made once, in `.tox/autobahn` of the repository, from `requirements.txt` beside this file.
"""
from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
ENVIRONMENT = os.path.join(REPOSITORY, ".tox", "autobahn")
REQUIREMENTS = os.path.join(HERE, "requirements.txt")
#: The newest virtualenv that runs on Python 2.7 and makes environments for it.
VIRTUALENV = "virtualenv==20.15.1"
#: Compression: permessage-deflate is not offered.
EXCLUDED = ["12.*", "13.*"]
#: Seconds for one step of the installation, and for the suite to start or to end.
INSTALL_BOUND, START_BOUND = 600, 20


class Unavailable(Exception):
    """The suite cannot be had here; the text says why."""


def _python2() -> str:
    candidates = [os.environ.get("AUTOBAHN_PYTHON", ""), shutil.which("python2.7") or "", shutil.which("python2") or ""]
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    candidates += sorted(glob.glob(os.path.join(root, "versions", "2.7*", "bin", "python")), reverse=True)
    for candidate in candidates:
        # A shim may be there without the interpreter.
        if candidate and subprocess.call(
            [candidate, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) == 0:
            return candidate
    raise Unavailable("no Python 2.7 found: put one on PATH, or its path into AUTOBAHN_PYTHON")


def _command() -> str:
    return os.path.join(ENVIRONMENT, "bin", "wstest")


def _stamp() -> str:
    with open(REQUIREMENTS, "rb") as handle:
        return hashlib.sha256(handle.read()).hexdigest()


def installed() -> bool:
    """Return whether the environment is there and up to date."""
    try:
        with open(os.path.join(ENVIRONMENT, "stamp")) as handle:
            return handle.read() == _stamp()
    except OSError:
        return False


def install() -> None:
    """Make the environment unless it is there. Raises Unavailable."""
    if installed():
        return
    python = _python2()
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    tools = os.path.join(ENVIRONMENT, "tools")
    os.makedirs(tools)
    pip = os.path.join(ENVIRONMENT, "bin", "python")
    steps = [
        [python, "-m", "pip", "install", "-qq", "--target", tools, VIRTUALENV],
        [python, "-m", "virtualenv", "--quiet", "--no-download", ENVIRONMENT],
        [pip, "-m", "pip", "install", "-qq", "-r", REQUIREMENTS],
    ]
    for step in steps:
        env = dict(os.environ, PYTHONWARNINGS="ignore", PIP_DISABLE_PIP_VERSION_CHECK="1")
        if "virtualenv" in step:
            env["PYTHONPATH"] = tools
        try:
            subprocess.run(step, env=env, check=True, timeout=INSTALL_BOUND, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(str(error)) from error
    with open(os.path.join(ENVIRONMENT, "stamp"), "w") as handle:
        handle.write(_stamp())


def free_port() -> int:
    """Return a port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Suite:
    """`wstest` in one mode, as a context manager; `directory` gets its specification, its log and its reports."""

    def __init__(self, mode: str, specification: Dict[str, Any], directory: str) -> None:
        self.directory = directory
        self._reports = os.path.join(directory, "reports")
        path = os.path.join(directory, mode + ".json")
        with open(path, "w") as handle:
            json.dump(dict(specification, outdir=self._reports), handle)
        self._log = open(os.path.join(directory, mode + ".log"), "wb")
        options = ["--webport", "0"] if mode == "fuzzingserver" else []
        self._process = subprocess.Popen(
            [_command(), "--mode", mode, "--spec", path] + options,
            cwd=directory, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT)

    def wait_listening(self, port: int) -> None:
        """Wait until it accepts connections."""
        deadline = time.monotonic() + START_BOUND
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise Unavailable("the fuzzing server does not listen:\n" + self.log()) from None
                time.sleep(0.05)

    def wait(self, seconds: float) -> None:
        """Wait for its end."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Unavailable("the suite has not ended within %d s:\n%s" % (seconds, self.log())) from None

    def log(self) -> str:
        """Return the last lines that it wrote."""
        self._log.flush()
        with open(self._log.name, "rb") as handle:
            return b"\n".join(handle.read().splitlines()[-15:]).decode("utf-8", "replace")

    def results(self) -> Dict[str, Dict[str, Any]]:
        """Return what it reports of the one agent, by case."""
        with open(os.path.join(self._reports, "index.json")) as handle:
            agents = json.load(handle)
        (cases,) = agents.values()
        return dict(cases)

    def __enter__(self) -> "Suite":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(START_BOUND)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(START_BOUND)
        self._log.close()


def specification(cases: Optional[List[str]]) -> Dict[str, Any]:
    """Return which cases to run; None = all but those of compression."""
    return {"cases": cases or ["*"], "exclude-cases": EXCLUDED, "exclude-agent-cases": {}}


def main() -> int:
    """Install and return the exit status."""
    try:
        install()
    except Unavailable as error:
        print("no fuzzing suite: %s" % error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
