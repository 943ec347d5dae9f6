"""Run every Socket.IO example as it stands, in a process of its own, against python-socketio's server (polling)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.helpers import run_python
from tests.socketio.pyserver import make_peer, serve

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"

#: What each prints, as a regular expression.
OUTPUT = {
    "socketio_simple.py":
        r"connected over polling\nthe server answers hello\n(received n \[\d\]\n){3}nothing more\n",
    "socketio_handlers.py":
        r"connected, recovered: False\n(received n \(\d,\)\n|it heard IS ANYBODY THERE\?\n){3}"
        r"disconnected: client disconnect\n",
    "socketio_namespace.py":
        r"in the chat\nsomebody said hello\nleft the chat: client disconnect\nstill connected: True\n",
}

RUN = "import runpy, sys\npath = sys.argv.pop(1)\nsys.argv[0] = path\nrunpy.run_path(path, run_name='__main__')"


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
    result = run_python(RUN, str(EXAMPLES / name), url, timeout=60)
    assert re.fullmatch(OUTPUT[name], result.stdout), result.stdout + result.stderr
    assert "Traceback" not in result.stderr
