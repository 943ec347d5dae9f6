"""The Socket.IO servers of the conformance tests, in child processes: one for Node, one for each kind of Python server.

Each process holds many servers, on free loopback ports, and ends when its standard input does. Fixtures of the protocol
reference, section 6.1: N is "node", P "threading", PA "asgi"; their variants are options of `ServerProcess.start`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any, Callable, Dict, List, Optional
from urllib.parse import parse_qs, urlsplit

from tests import peers
from tests.children import REPOSITORY, Child
from tests.node import PACKAGES, _decode, _encode
from tests.timing import scaled

HERE = os.path.join(REPOSITORY, "tests", "interop", "socketio")


def command(kind: str) -> List[str]:
    """Return how to run the server process, or skip the test."""
    if kind == "node":
        node = peers.require_node_packages(PACKAGES, "our Socket.IO clients must work with the Node server")
        return [node, os.path.join(PACKAGES, "socketio.js")]
    for package in ("socketio.exceptions", "msgpack") + (
        ("werkzeug", "simple_websocket") if kind == "threading" else ("uvicorn", "websockets")
    ):
        peers.require(package, "our Socket.IO clients must work with python-socketio's servers", python=(3, 8))
    return [sys.executable, "-u", "-W", "ignore", os.path.join(HERE, "python_servers.py"), kind]


class ServerProcess(Child):
    """A process with servers. Leaving its `with` ends it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._answers: Dict[int, Dict[str, Any]] = {}
        self._logs: Dict[int, List[Dict[str, Any]]] = {}
        self._ids = 0
        super().__init__(command(kind), {"PYTHONIOENCODING": "utf-8"}, 600.0)

    def wait_ready(self) -> None:
        """Wait until it takes commands. All processes start at once, and a test waits for the one that it wants."""
        self.wait_line('"ready"', 50.0)

    def _received(self, name: str, line: str) -> None:
        if name != "stdout":
            return
        message = json.loads(line, object_hook=_decode)
        if "id" in message:
            self._answers[message["id"]] = message
        elif "server" in message:
            self._logs.setdefault(message["server"], []).append(message)

    def do(self, op: str, **fields: Any) -> Any:
        """Send a command and return its result."""
        with self._changed:
            self._ids += 1
            number = self._ids
        self.send_line(json.dumps({"id": number, "op": op, **fields}, default=_encode))
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers or self._open < 2, scaled(30.0))
            answer = self._answers.pop(number, {"error": "no answer"})
        assert "error" not in answer, "%s\n%s" % (answer["error"], self.output("stderr"))
        return answer["result"]

    def start(self, options: Dict[str, Any]) -> Dict[str, int]:
        """Start a server; the options are described in `socketio.js` and `python_servers.py`."""
        started: Dict[str, int] = self.do("start", options=options)
        return started


class Peer:
    """One server as one test sees it: its log begins empty."""

    def __init__(self, process: ServerProcess, number: int, port: int, options: Dict[str, Any]) -> None:
        self.process = process
        self.kind = process.kind
        self.number = number
        self.port = port
        self.options = options
        self._begin = len(self._all())

    def _all(self) -> List[Dict[str, Any]]:
        return self.process._logs.setdefault(self.number, [])

    @property
    def node(self) -> bool:
        """Whether it is the Node server."""
        return self.kind == "node"

    @property
    def url(self) -> str:
        """Where it is."""
        return "%s://127.0.0.1:%d" % ("https" if self.options.get("tls") else "http", self.port)

    def log(self, kind: Optional[str] = None, **fields: Any) -> List[Dict[str, Any]]:
        """Return what has happened, of one kind and with these fields."""
        with self.process._changed:
            entries = self._all()[self._begin:]
        return [entry for entry in entries if kind in (None, entry["kind"])
                and all(entry.get(name) == value for name, value in fields.items())]

    def log_now(self, kind: Optional[str] = None, **fields: Any) -> List[Dict[str, Any]]:
        """Return what has happened, nothing of it still on its way through the pipe."""
        self.clients()  # what the process has told before its answer is here, too
        return self.log(kind, **fields)

    def wait_log(self, kind: str, count: int = 1, timeout: float = 10.0, **fields: Any) -> List[Dict[str, Any]]:
        """Wait for so many entries and return all there are."""
        changed: threading.Condition = self.process._changed
        with changed:
            changed.wait_for(lambda: len(self.log(kind, **fields)) >= count, scaled(timeout))
        entries = self.log(kind, **fields)
        assert len(entries) >= count, "wanted %d of %s %s, got %s" % (count, kind, fields, self.log())
        return entries

    def requests(self) -> List[Request]:
        """Return the HTTP requests so far."""
        return [Request(entry) for entry in self.log_now("request")]

    def get(self, key: str) -> List[Any]:
        """Return what clients have `put` under ``key``."""
        found: List[Any] = self.process.do("get", server=self.number, key=key)
        return found

    def wait_store(self, key: str, count: int, timeout: float = 10.0) -> List[Any]:
        """Wait until clients have `put` so many values under ``key``."""
        from tests.helpers import wait_until

        wait_until(lambda: self.process.do("count", server=self.number, key=key) >= count, timeout,
                   "%d values of %s" % (count, key))
        return self.get(key)

    def emit(self, *args: Any, **where: Any) -> None:
        """Emit to all clients, those of a ``room`` or ``namespace``."""
        self.process.do("emit", server=self.number, args=args, **where)

    def clients(self) -> int:
        """Return how many Engine.IO sessions there are."""
        count: int = self.process.do("clients", server=self.number)
        return count

    def polled(self) -> bool:
        """Whether every session has a transport that can be written to now, such as a poll that waits. Node only."""
        answer: bool = self.process.do("polled", server=self.number)
        return answer

    def miss(self, sid: str) -> None:
        """Have the server notice that a client has gone, as its ping timeout would. Node only."""
        self.process.do("miss", server=self.number, sid=sid)
        self.wait_log("disconnect", sid=sid)

    def close(self) -> None:
        """io.close(), Node only."""
        self.process.do("close", server=self.number)


class Request:
    """An HTTP request as the server saw it; ``str(x)`` is for failures."""

    def __init__(self, entry: Dict[str, Any]) -> None:
        self.method: str = entry["method"]
        self.url: str = entry["url"]
        self.headers: Dict[str, str] = entry["headers"]
        self.path = urlsplit(self.url).path
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(self.url).query, True).items()}

    @property
    def websocket(self) -> bool:
        """Whether it asks for a WebSocket."""
        return self.query.get("transport") == "websocket"

    def __repr__(self) -> str:
        return "%s %s" % (self.method, self.url)


class Servers:
    """The running processes and the servers in them, which are shared by all tests that want the same options.

    So the log of a test may tell of clients of the tests before, who go late. A server that logs requests is no test's
    but one.
    """

    def __init__(self) -> None:
        self._processes: Dict[str, ServerProcess] = {}
        self._started: Dict[Any, Dict[str, int]] = {}

    def process(self, kind: str) -> ServerProcess:
        """Return the process of a kind; starts it."""
        if kind not in self._processes:
            self._processes[kind] = ServerProcess(kind)
        return self._processes[kind]

    def peer(self, kind: str, fresh: bool = False, **options: Any) -> Peer:
        """Return a server with these options, one of its own if ``fresh``."""
        process = self.process(kind)
        process.wait_ready()
        fresh = fresh or bool(options.get("requests"))
        key = (kind, json.dumps(options, sort_keys=True))
        started = process.start(options) if fresh or key not in self._started else self._started[key]
        if not fresh:
            self._started[key] = started
        return Peer(process, started["server"], started["port"], options)

    def stop(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.__exit__()


Serve = Callable[..., Peer]
