"""Run every Socket.IO example as it stands, in a process of its own, against python-socketio's server (polling)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.helpers import run_python
from tests.socketio.pyserver import make_peer, serve

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"

#: What each prints, as a regular expression, and how many lines of that are events that it waits for.
OUTPUT = {
    "socketio_simple.py":
        (r"connected over polling\nthe server answers hello\n(received n \[\d\]\n){3}nothing more\n", 5),
    "socketio_handlers.py":
        (r"connected, recovered: False\n(received n \(\d,\)\n|it heard IS ANYBODY THERE\?\n){3}"
         r"disconnected: client disconnect\n", 4),
    "socketio_namespace.py":
        (r"in the chat\nsomebody said hello\nleft the chat: client disconnect\nstill connected: True\n", 3),
}

# The example as it stands, but what it gives the server a second for may take longer on a busy machine.
RUN = """
import functools, runpy, sys
from simplepubsub import socketio
from tests.helpers import wait_until

class Counted:
    lines = 0
    write_through = sys.stdout.write

    def write(self, text):
        self.write_through(text)
        self.lines += text.count("\\n")

    flush = sys.stdout.flush

path, lines = sys.argv.pop(1), int(sys.argv.pop(1))
sys.argv[0] = path
sys.stdout = Counted()
receive = socketio.SimpleClient.receive
for client in (socketio.Client, socketio.SimpleClient):
    client.connect = functools.partialmethod(client.connect, wait_timeout=20)
socketio.Client.sleep = lambda self, seconds=0: wait_until(lambda: sys.stdout.lines >= lines, 20)
socketio.SimpleClient.receive = lambda self, timeout=None: receive(self, timeout if sys.stdout.lines >= lines else 20)
runpy.run_path(path, run_name="__main__")
"""


def application() -> Any:
    server = make_peer()

    @server.on("connect")
    @server.on("connect", namespace="/chat")
    def connect(sid: str, environ: Any, auth: Any) -> None:
        pass

    @server.event
    def echo(sid: str, text: str) -> str:
        return text

    @server.event
    def count(sid: str, number: int) -> None:
        for n in range(number):
            server.emit("n", n, to=sid)

    @server.on("ask me")
    def ask(sid: str, text: str) -> str:
        return text.upper()

    @server.on("say", namespace="/chat")
    def say(sid: str, text: str) -> None:
        server.emit("said", text, namespace="/chat")

    return server


@pytest.fixture()
def url() -> Iterator[str]:
    with serve(application()) as (host, port):
        yield "http://%s:%d" % (host, port)


def test_every_example_is_known_and_short() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("socketio_*.py")) == sorted(OUTPUT)
    for name in OUTPUT:
        assert len((EXAMPLES / name).read_text("utf-8").splitlines()) < 45, name


@pytest.mark.interop
@pytest.mark.allows_leaks("threads of python-socketio's server end with their requests")
@pytest.mark.parametrize("name", sorted(OUTPUT))
def test_example_runs(name: str, url: str) -> None:
    pattern, lines = OUTPUT[name]
    result = run_python(RUN, str(EXAMPLES / name), str(lines), url, timeout=60)
    assert re.fullmatch(pattern, result.stdout), result.stdout + result.stderr
    assert "Traceback" not in result.stderr
