"""P7: old interpreters, few packages, forks."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Any, List

import pytest

import simplepubsub
from tests.helpers import PeerConnection, ScriptedPeer, run_python

PACKAGE = Path(simplepubsub.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
PATH = "/client/hubs/hub"

#: Refuses to import what an application may not have, and lists what was imported.
WITHOUT = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in %r:
            raise ImportError("blocked: " + name, name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.skipif(sys.version_info < (3, 8), reason="this interpreter has compiled all of it itself")
@pytest.mark.parametrize("source", SOURCES, ids=[str(path.relative_to(PACKAGE)) for path in SOURCES])
def test_every_module_is_python_3_7(source: Path) -> None:
    ast.parse(source.read_text("utf-8"), str(source), feature_version=(3, 7))


@pytest.mark.parametrize("source", SOURCES, ids=[str(path.relative_to(PACKAGE)) for path in SOURCES])
def test_no_module_uses_names_that_3_7_lacks(source: Path) -> None:
    newer = {
        "removeprefix", "removesuffix", "cached_property", "to_thread", "TaskGroup", "ExceptionGroup", "add_note",
        "pairwise", "batched", "is_relative_to", "unraisablehook", "excepthook_args",
    }
    only_from_typing = {"Protocol", "Literal", "Final", "TypedDict", "ParamSpec", "Self", "Annotated"}
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Attribute):
            assert node.attr not in newer, "%s:%d" % (source, node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "typing":
            assert not only_from_typing & {alias.name for alias in node.names}, "%s:%d" % (source, node.lineno)


@pytest.mark.parametrize("module", ["simplepubsub", "simplepubsub.webpubsub", "simplepubsub.webpubsub.models"])
def test_the_client_needs_no_extra(module: str) -> None:
    run_python(
        WITHOUT % (["aiohttp", "orjson", "python_socks", "socks", "redis", "google", "trustme", "yarl", "multidict"],)
        + """
import importlib
importlib.import_module(sys.argv[1])
from simplepubsub import WebPubSubClient
WebPubSubClient("ws://localhost:1/client/hubs/hub")
""",
        module,
    )


def test_the_client_imports_nothing_heavy() -> None:
    result = run_python("""
import sys
import simplepubsub.webpubsub
print(" ".join(sorted({name.split(".")[0] for name in sys.modules})))
""")
    names = result.stdout.split()
    assert "websocket" in names
    assert not {"aiohttp", "asyncio", "redis", "orjson", "pytest", "numpy"} & set(names)


def test_the_server_says_what_it_needs() -> None:
    run_python(
        WITHOUT % (["aiohttp"],)
        + """
try:
    import simplepubsub.server
except ImportError as error:
    assert "aiohttp" in str(error), error
else:
    raise AssertionError("aiohttp is not needed?")
"""
    )


# --- forks ------------------------------------------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def service(connection: PeerConnection) -> None:
    connection.send_json({"type": "system", "event": "connected", "connectionId": "c", "userId": None})
    while True:
        command = connection.recv_json()
        if "ackId" in command:
            connection.send_json({"type": "ack", "ackId": command["ackId"], "success": True})


FORK = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # newer versions warn of any fork with threads
from simplepubsub import ForkedError
from simplepubsub.webpubsub import WebPubSubClient

CALLS = {
    "start": lambda: client.start(), "stop": lambda: client.stop(), "receive": lambda: client.receive(),
    "receive(0)": lambda: client.receive(0), "messages": lambda: next(iter(client)),
    "join_group": lambda: client.join_group("g"), "leave_group": lambda: client.leave_group("g"),
    "send_to_group": lambda: client.send_to_group("g", "x"), "send_event": lambda: client.send_event("e", "x"),
    "join_group_nowait": lambda: client.join_group_nowait("g"),
    "leave_group_nowait": lambda: client.leave_group_nowait("g"),
    "send_to_group_nowait": lambda: client.send_to_group_nowait("g", "x"),
    "send_event_nowait": lambda: client.send_event_nowait("e", "x"), "flush": lambda: client.flush(),
    "on": lambda: client.on("gap", print), "off": lambda: client.off("gap", print), "stats": lambda: client.stats(),
    "groups": lambda: client.groups, "invoke_event": lambda: client.invoke_event("e"),
    "invoke_event_nowait": lambda: client.invoke_event_nowait("e"), "open_stream": lambda: client.open_stream("g"),
    "cancel_invocation": lambda: client.cancel_invocation("1"), "streams": lambda: client.streams(),
}

def in_child(what):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # a hang ends by a signal, which the parent sees
        status = 1
        try:
            status = what()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status or 0)
    return os.waitpid(pid, 0)[1]

def all_calls():
    wrong = []
    for name, call in CALLS.items():
        try:
            call()
            wrong.append(name)
        except ForkedError as error:
            assert "child" in str(error)
        except BaseException as error:
            wrong.append("%s: %r" % (name, error))
    repr(client), client._repr_html_(), client.state, client.connection_id, client.latency
    if client.is_connected():
        wrong.append("is_connected")
    if wrong:
        print("no ForkedError from", wrong)
        return 1
"""


@needs_fork
@pytest.mark.parametrize("started", [True, False])
def test_a_child_is_told_and_its_parent_goes_on(started: bool) -> None:
    with ScriptedPeer(service) as peer:
        result = run_python(
            FORK
            + """
client = WebPubSubClient(sys.argv[1], protocol="json")
started = sys.argv[2] == "True"
if started:
    client.start()
    client.join_group("g")
assert in_child(all_calls) == 0
if not started:
    client.start()
client.send_to_group("g", "still alive", timeout=10)
client.stop()
print("parent done")
""",
            peer.url(PATH), str(started),
        )
    assert "parent done" in result.stdout, result


@needs_fork
def test_a_fork_in_the_middle_of_traffic_hangs_nobody() -> None:
    # The child gets a copy of every lock, held for ever if a thread held it at the moment of the fork.
    with ScriptedPeer(service) as peer:
        result = run_python(
            FORK
            + """
sys.setswitchinterval(1e-5)
client = WebPubSubClient(sys.argv[1], protocol="json")
client.start()
over = threading.Event()

def busy():
    while not over.is_set():
        client.send_to_group("g", "x", timeout=20)
        client.stats()

threads = [threading.Thread(target=busy) for _ in range(3)]
for thread in threads:
    thread.start()
statuses = [in_child(all_calls) for _ in range(30)]
over.set()
for thread in threads:
    thread.join()
client.stop()
assert statuses == [0] * 30, statuses
print("parent done")
""",
            peer.url(PATH), timeout=60,
        )
        peer.close(check=False)
    assert "parent done" in result.stdout, result


@needs_fork
def test_a_child_may_make_a_client_of_its_own_and_leave_the_block_of_its_parent() -> None:
    with ScriptedPeer(service) as peer:
        result = run_python(
            FORK
            + """
def own():
    with WebPubSubClient(sys.argv[1], protocol="json") as mine:
        mine.send_to_group("g", "from the child", timeout=10)
    print("child done")

client = WebPubSubClient(sys.argv[1], protocol="json")
with client:
    client.on("group-message", print)
    pid = os.fork()
    if pid == 0:
        own()
if pid == 0:
    sys.stdout.flush()
    sys.exit(7)  # leaves by the usual way, atexit included
assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 7
print("parent done")
""",
            peer.url(PATH),
        )
        peer.close(check=False)
    assert "parent done" in result.stdout, result
    assert "child done" in result.stdout, result
    assert "Traceback" not in result.stderr
    assert "unacknowledged" not in result.stderr


@needs_fork
def test_multiprocessing_by_fork() -> None:
    with ScriptedPeer(service) as peer:
        result = run_python(
            """
            import multiprocessing, sys, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            from simplepubsub import ForkedError
            from simplepubsub.webpubsub import WebPubSubClient

            client = WebPubSubClient(sys.argv[1], protocol="json")

            def work(queue):
                try:
                    client.send_to_group("g", "x")
                except ForkedError as error:
                    queue.put(str(error))

            client.start()
            context = multiprocessing.get_context("fork")
            queue = context.Queue()
            process = context.Process(target=work, args=(queue,))
            process.start()
            print(queue.get(timeout=20))
            process.join(20)
            client.send_to_group("g", "x", timeout=10)
            client.stop()
            """,
            peer.url(PATH),
        )
    assert "new client in the child" in result.stdout


def test_what_forks_and_exits_leaves_no_engine_behind() -> None:
    # The registry of engines must not keep them alive.
    import gc
    import weakref

    from simplepubsub.core import engine
    from simplepubsub.webpubsub import WebPubSubClient

    clients: List[Any] = [WebPubSubClient("ws://localhost:1" + PATH) for _ in range(5)]
    ours = weakref.WeakSet(client._engine for client in clients)
    assert len(ours) == 5 and set(ours) <= set(engine._engines)
    clients.clear()
    gc.collect()
    assert len(ours) == 0
