"""Start servers and contenders as processes of their own, bound in time, and look at what they use."""
from __future__ import annotations

import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
_URL = re.compile(r"wss?://[^\s\"'<>]+")


class Missing(Exception):
    """A peer that is not installed, or not there yet; the table says so and the run goes on."""


class Failed(Exception):
    """A process that ended badly or said nothing in time."""


def environment() -> dict:
    """Return the environment for children: the checkout importable, no debug logging, UTF-8."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SIMPLEPUBSUB_", "AZURE_LOG"))}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))
    kept["PYTHONUNBUFFERED"] = "1"
    return kept


def run_json(script: str, *arguments: str, timeout: float) -> dict:
    """Run one of our scripts and return the JSON object on the last line of its output.

    Raises Missing when that object says so, Failed on a bad exit, no JSON, or after `timeout` seconds (then killed).
    """
    command = [sys.executable, os.path.join(HERE, script)] + [str(item) for item in arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=ROOT)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise Failed("nothing within %.0f s; %s" % (timeout, last_line(err))) from None
    except BaseException:
        process.kill()
        process.communicate()
        raise
    try:
        result = json.loads(out.decode().strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise Failed("exit status %d; %s" % (process.returncode, last_line(err) or last_line(out))) from None
    if "missing" in result:
        raise Missing(result["missing"])
    if "failed" in result:
        raise Failed(result["failed"])
    return result


def last_line(raw: bytes) -> str:
    """Return the last line with something on it."""
    lines = raw.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip()[:160] if lines else ""


class ServerProcess:
    """A server in its own process: `url` once it is ready, `pid`, stopped on leaving the with block."""

    def __init__(self, command: list, ready, timeout: float = 15.0) -> None:
        """Start `command`; `ready(line)` returns the client URL as soon as a line of output gives it."""
        self.url = ""
        self.lines = []
        self._ready = ready
        self._found = threading.Event()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment(), cwd=ROOT)
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._found.wait(timeout)
        if not self.url:
            self.stop()
            said = " / ".join(self.lines[-3:])
            if said.startswith("missing "):
                raise Missing(said[8:])
            if "No module named" in said:
                raise Missing(said[said.index("No module named"):].split(";")[0])
            raise Failed("server not ready: %s" % (said or "no output"))

    def _read(self) -> None:
        for raw in iter(self.process.stdout.readline, b""):
            line = raw.decode("utf-8", "replace").strip()
            if len(self.lines) < 1000:
                self.lines.append(line)
            if not self.url:
                self.url = self._ready(line) or ""
                if self.url:
                    self._found.set()
        self._found.set()

    def stop(self) -> None:
        """End the process: its stdin closes, then SIGTERM, then kill."""
        self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self._reader.join(5)
        self.process.stdout.close()

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_) -> None:
        self.stop()


class Worker:
    """A contender that stays connected and runs one slice of its measurement each time it is told to."""

    script = "contender.py"

    def __init__(self, *arguments: str) -> None:
        """Start the script; raises Missing or Failed as run_json does."""
        command = [sys.executable, os.path.join(HERE, self.script)] + [str(item) for item in arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment(), cwd=ROOT)
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._answer(30.0)

    def _read(self) -> None:
        for line in iter(self.process.stdout.readline, b""):
            self._lines.put(line)
        self._lines.put(b'{"failed":"it ended"}')

    def _answer(self, timeout: float) -> dict:
        try:
            result = json.loads(self._lines.get(timeout=timeout).decode())
        except queue.Empty:
            result = {"failed": "nothing within %.0f s" % timeout}
        if "missing" in result or "failed" in result:
            self.stop()
            raise Missing(result["missing"]) if "missing" in result else Failed(result["failed"])
        return result

    def turn(self, timeout: float = 20.0) -> dict:
        """Let it run one slice and return its result."""
        try:
            self.process.stdin.write(b"go\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended; its last line says why
        return self._answer(timeout)

    def stop(self) -> None:
        """End it: its stdin closes, and five seconds later it is killed."""
        try:
            self.process.stdin.close()
        except OSError:
            pass  # it has ended already
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self._reader.join(5)
        self.process.stdout.close()


def script_server(script: str) -> ServerProcess:
    """Start one of our own server scripts, which say `ready PORT`."""
    def ready(line: str) -> str:
        return "ws://127.0.0.1:%s/client/hubs/bench?access_token=none" % line[6:] if line.startswith("ready ") else ""

    return ServerProcess([sys.executable, os.path.join(HERE, script)], ready)


def our_server() -> ServerProcess:
    """Start `simplepubsub serve` and take the client URL that it prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def ready(line: str) -> str:
        found = _URL.search(line)
        return found.group() if found and "access_token=" in found.group() else ""

    server = ServerProcess([sys.executable, "-m", "simplepubsub", "serve", "--port", str(port)], ready)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server
        except OSError:
            if time.monotonic() > deadline:
                server.stop()
                raise Failed("`simplepubsub serve` does not listen: %s" % " / ".join(server.lines[-3:])) from None
            time.sleep(0.02)


def rss(pid: int) -> "int | None":
    """Return the resident bytes of a process, or None where neither /proc nor ps can say."""
    try:
        with open("/proc/%d/statm" % pid) as handle:
            return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) * 1024
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def cpu_seconds(pid: int) -> "float | None":
    """Return the user and system seconds of a process so far (10 ms steps), or None without /proc."""
    try:
        with open("/proc/%d/stat" % pid) as handle:
            fields = handle.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return None


def thread_count(pid: int) -> "int | None":
    """Return the threads of a process, native ones included, or None without /proc."""
    try:
        return len(os.listdir("/proc/%d/task" % pid))
    except OSError:
        return None
