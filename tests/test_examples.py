"""Run every example as it stands, in a process of its own: on its own server, and on one that it is told.

Those of plain WebSocket are in test_websocket_examples.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import run_python

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

#: What each prints, as a regular expression.
OUTPUT = {
    "event_handler_flask.py": r"answer: HELLO\n|this example needs Flask: pip install flask\n",
    "event_handler_plain.py": r"refused with 401\nevent 1: one; event 2: two\nann is gone\n",
    "fresh_url.py": r"URLs so far: 1\n(URLs so far: 2\n)?",
    "legacy_thread.py": r"received 200, each once: True\n",
    "listeners.py": r"connected\nquestions: is anybody there\?\nanswers: IS ANYBODY THERE\?\nstopped\n",
    "publish_with_futures.py": r"20000 sent, 0 failed\nacknowledged: 20000\n",
    "quickstart.py": r"received 'hello' from (ann|somebody) in lobby\n",
    "receive_loop.py": r"job: sweep\njob: wash\njob: cook\ndone\n",
    "service_broadcast.py": r"ann received 2 messages\nbob received 3 messages\neve received 1 messages\n"
                            r"in the lobby: ann, bob, eve\n",
    "reconnect_and_gap.py": r"one in sequence\ntwo in sequence\nthree in sequence\nrecovered: True\nmore after a gap\n",
}

#: Those that break or configure their own server, or take its connection string, and so take no URL.
OWN_SERVER = {"event_handler_flask.py", "event_handler_plain.py", "reconnect_and_gap.py",
              "service_broadcast.py"}

RUN = "import runpy, sys\npath = sys.argv.pop(1)\nsys.argv[0] = path\nrunpy.run_path(path, run_name='__main__')"


def run_example(name: str, *arguments: str) -> None:
    result = run_python(RUN, str(EXAMPLES / name), *arguments, timeout=60)
    assert re.fullmatch(OUTPUT[name], result.stdout), result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_every_example_is_known_and_short():
    # Those for Socket.IO need another server: tests/socketio runs them.
    files = {path.name for path in EXAMPLES.glob("*.py")}
    assert sorted(name for name in files if not name.startswith(("websocket_", "socketio_"))) == sorted(OUTPUT)
    for name in OUTPUT:
        assert len((EXAMPLES / name).read_text("utf-8").splitlines()) < 40, name


@pytest.mark.parametrize("name", sorted(OUTPUT))
def test_example_runs_on_its_own_server(name: str) -> None:
    run_example(name)


@pytest.mark.parametrize("name", sorted(set(OUTPUT) - OWN_SERVER))
def test_example_runs_with_a_url(name: str, server: Any) -> None:
    run_example(name, server.client_access_url("chat"))
