"""Programs in the idiom of python-socketio's client guide: the same output with its library and with ours.

Each section of the guide has a program in ``programs``; only the import differs, by the first argument. Both run
against the same server. What differs on purpose (the "requirement for ours" of the protocol reference, section 3.1) is
not in them.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, List

import pytest

from tests import peers
from tests.children import Child
from tests.helpers import self_signed
from tests.interop.socketio.servers import HERE

pytestmark = pytest.mark.interop

PROGRAMS = os.path.join(HERE, "programs")
NAMES = sorted(name[:-3] for name in os.listdir(PROGRAMS) if name.endswith(".py"))

#: What the programs print, apart from being the same; a line that must be there.
MARKS = {
    "background_tasks": "[123, 246]", "callbacks": "callback ('a', b'b')", "catch_all": "any event unknown (2,)",
    "class_namespaces": "my_event ('/room', 4)", "client_connecting": "my transport is polling",
    "client_disconnecting": "disconnect client disconnect", "client_emitting": "world 3", "client_tls": "not trusted",
    "connect_events": "disconnected by accident", "debugging": "lines: True",
    "event_handlers": "plain (1, 'two', None)",
    "namespaces": "/ is not connected", "simple_connecting": "my transport is websocket",
    "simple_creating": "after the block: False", "simple_disconnecting": "disconnected",
    "simple_emitting": "('several', {'arguments': True}, b'x')",
    "simple_receiving": "timed out waiting for event", "simple_tls": "not trusted",
}


#: Runs a program as it stands, only that a connection may take its time on a busy machine.
PATIENT = """
import functools, runpy, sys
if sys.argv[2] == "socketio":
    import socketio
else:
    from simplepubsub import socketio
for client in (socketio.Client, socketio.SimpleClient):
    client.connect = functools.partialmethod(client.connect, wait_timeout=30)
path = sys.argv.pop(1)
sys.argv[0] = path
runpy.run_path(path, run_name="__main__")
"""


def start(library: str, name: str, arguments: List[str]) -> Child:
    path = os.path.join(PROGRAMS, name + ".py")
    command = [sys.executable, "-u", "-W", "ignore", "-c", PATIENT, path, library, *arguments]
    environment: Dict[str, str] = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p) if library != "socketio"
                                   else os.environ.get("PYTHONPATH", ""), "PYTHONIOENCODING": "utf-8",
                                   "REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": ""}
    return Child(command, environment, 50.0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return self_signed(tmp_path_factory.mktemp("tls"))


#: python-socketio's clients may need seconds to leave its own threaded server, so not all run there.
RUNS = [("node", name) for name in NAMES] + [
    ("threading", name)
    for name in ("callbacks", "class_namespaces", "client_emitting", "event_handlers", "simple_emitting")
]


@pytest.mark.parametrize("kind, name", RUNS)
def test_the_same_program_with_both_libraries(serve: Any, kind: str, name: str, certificate: Any) -> None:
    peers.require("socketio.exceptions", "the programs run with it first", python=(3, 8))
    if name.endswith("_tls"):
        files = (certificate.cert_file, certificate.key_file)
        peer = serve(kind, tls={"cert": files[0], "key": files[1]})
        arguments = [peer.url, certificate.ca_file, *files]
    else:
        peer = serve(kind)
        arguments = [peer.url]
    # A log for each: they tell what the server was answered.
    other = serve(kind, fresh=True) if name == "callbacks" else peer
    with start("socketio", name, [other.url, *arguments[1:]]) as theirs, start("simplepubsub", name, arguments) as ours:
        expected, result = theirs.wait(), ours.wait()
    for _ in range(3):
        # Its threads race for the parts of a binary packet (weakness W1) and with each other, on a busy machine often
        # enough.
        if "in _handle_eio_message" not in expected.stderr and expected[:2] == result[:2]:
            break
        with start("socketio", name, [other.url, *arguments[1:]]) as theirs:
            expected = theirs.wait()
    assert (expected.returncode, result.returncode) == (0, 0), expected.stderr + result.stderr
    assert result.stdout == expected.stdout, "\n".join(["theirs:", expected.stderr, "ours:", result.stderr])
    assert MARKS[name] in result.stdout.splitlines()
    assert bool(result.stderr) == bool(expected.stderr) == (name == "debugging")
    if name == "callbacks":
        answers = [(entry["to"], list(entry["values"])) for entry in peer.wait_log("answer", 3)]
        assert [name for name, _ in answers] == ["my_event", "nothing", "one"]
        # Its last answers may be lost when it leaves.
        assert all((entry["to"], list(entry["values"])) in answers for entry in other.wait_log("answer"))
