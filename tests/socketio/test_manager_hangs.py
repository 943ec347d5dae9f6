"""P1 for the core of the Socket.IO client: every blocking call ends in time, and when another thread disconnects."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Callable, Dict, Set, Tuple

import pytest

import simplepubsub
from simplepubsub.core import forks
from simplepubsub.exceptions import ForkedError
from simplepubsub.socketio import exceptions
from simplepubsub.socketio.manager import Manager, State
from simplepubsub.socketio.packet import PacketType
from simplepubsub.socketio.seams import Connected
from tests.helpers import current_frames, run_thread, scaled, subprocess_python, wait_until

from .fake import PATIENCES, FakeServer, Log, make

WAIT = scaled(5)
LIMIT = 0.05  # what each call is given (seconds, before scaling)
SLACK = 2.0  # and how much later it may return: machines are busy
RETURNS = type(None)
PACKAGE = os.path.dirname(simplepubsub.__file__)


def never(server: FakeServer) -> None:
    """No attempt gets anywhere."""
    server.hang = True


def silent(server: FakeServer) -> None:
    """Connections open, and nothing is answered on them."""
    server.silent += ["/", "/more"]


def connect(manager: Manager, limit: Any) -> None:
    manager.connect("http://server", wait_timeout=WAIT * 10, timeout=limit, retry=True)


# name: (call, what it ends with at its limit, what it ends with at a disconnect)
OFFLINE: Dict[str, Any] = {
    "emit": (lambda m, t: m.emit("/", "x", offline="wait", timeout=t), TimeoutError, exceptions.DisconnectedError),
    "call": (lambda m, t: m.call("/", "x", offline="wait", timeout=t), TimeoutError, exceptions.DisconnectedError),
    "call with retries": (
        lambda m, t: m.call("/", "x", offline="buffer", retries=9, timeout=t), TimeoutError,
        exceptions.DisconnectedError,
    ),
    "join": (lambda m, t: m.join("/more", timeout=t), ConnectionError, exceptions.DisconnectedError),
    "wait": (lambda m, t: m.wait(t), RETURNS, RETURNS),
    "disconnect": (lambda m, t: m.disconnect(t), RETURNS, RETURNS),
}
ONLINE: Dict[str, Any] = {
    "call": (lambda m, t: m.call("/", "silent", timeout=t), TimeoutError, exceptions.DisconnectedError),
    "call with retries": (
        lambda m, t: m.call("/", "silent", retries=9, timeout=t), TimeoutError, exceptions.DisconnectedError
    ),
    "join": (lambda m, t: m.join("/more", timeout=t), ConnectionError, exceptions.DisconnectedError),
    "wait": (lambda m, t: m.wait(t), RETURNS, RETURNS),
    "disconnect": (lambda m, t: m.disconnect(t), RETURNS, RETURNS),
}


def ends(call: Callable[[], Any], kind: type) -> None:
    """Check how a call ends, and when."""
    begun = time.monotonic()
    if kind is RETURNS:
        call()
    else:
        with pytest.raises(kind):
            call()
    assert time.monotonic() - begun < scaled(LIMIT + SLACK)


def is_waiting(thread: run_thread) -> bool:
    """Whether a thread stands in a wait inside the package."""
    frame = current_frames().get(thread.thread.ident or -1)
    waits = frame is not None and frame.f_code.co_name in ("wait", "join", "acquire", "_wait_for_tstate_lock")
    while frame is not None:
        if waits and frame.f_code.co_filename.startswith(PACKAGE):
            return True
        frame = frame.f_back
    return False


def outage(absence: Callable[[FakeServer], None]) -> Tuple[FakeServer, Log, Manager]:
    server, log, manager = make()
    manager.connect("http://server", wait_timeout=WAIT * 10)
    absence(server)
    server.session(0).drop()
    if absence is silent:
        server.session(1).wait_packets(1)
    else:
        server.wait_targets(2)
    return server, log, manager


@pytest.mark.parametrize("absence", [never, silent])
@pytest.mark.parametrize("name", sorted(OFFLINE))
def test_p1_calls_during_an_outage(name: str, absence: Callable[[FakeServer], None]) -> None:
    call, at_limit, at_stop = OFFLINE[name]
    server, log, manager = outage(absence)
    if name != "disconnect":
        ends(lambda: call(manager, scaled(LIMIT)), at_limit)
        with run_thread(ends, lambda: call(manager, None), at_stop) as waiting:
            wait_until(lambda: is_waiting(waiting))
            manager.disconnect()
    else:
        ends(lambda: call(manager, scaled(LIMIT)), at_limit)
    assert not manager.active


@pytest.mark.parametrize("name", sorted(ONLINE))
def test_p1_calls_on_a_connection_whose_peer_says_nothing(name: str) -> None:
    call, at_limit, at_stop = ONLINE[name]
    server, log, manager = make()
    manager.connect("http://server", wait_timeout=WAIT)
    silent(server)
    if name == "disconnect":
        server.closing.clear()
    ends(lambda: call(manager, scaled(LIMIT)), at_limit)
    if name != "disconnect":
        with run_thread(ends, lambda: call(manager, None), at_stop) as waiting:
            wait_until(lambda: is_waiting(waiting))
            manager.disconnect()
    server.closing.set()
    assert not manager.active


@pytest.mark.parametrize("name", ["emit", "call"])
def test_p1_calls_while_nothing_is_written(name: str) -> None:
    server, log, manager = make(max_unsent_bytes=10)
    manager.connect("http://server", wait_timeout=WAIT)
    server.session(0).set_backlog(100)
    method = getattr(manager, name)
    ends(lambda: method("/", "x", timeout=scaled(LIMIT)), TimeoutError)
    with run_thread(ends, lambda: method("/", "x", timeout=None), exceptions.BadNamespaceError) as waiting:
        wait_until(lambda: waiting.running and server.session(0).changed._waiters)  # type: ignore[attr-defined]
        manager.disconnect(scaled(LIMIT))
    assert not manager.active


@pytest.mark.parametrize("absence", [never, silent])
def test_p1_connect(absence: Callable[[FakeServer], None]) -> None:
    server, log, manager = make()
    absence(server)
    ends(lambda: connect(manager, scaled(LIMIT)), exceptions.ConnectionError)
    assert not manager.active
    with run_thread(ends, lambda: connect(manager, None), exceptions.ConnectionError) as waiting:
        wait_until(lambda: is_waiting(waiting) and manager.active)
        manager.disconnect()


def test_p1_a_handler_that_hangs_holds_up_connect_and_disconnect_for_no_longer_than_they_may() -> None:
    server, log, manager = make()
    gate = threading.Event()
    log.handlers[Connected] = lambda record: gate.wait(WAIT * 10)
    for patience in PATIENCES:
        begun = time.monotonic()
        try:
            manager.connect("http://server", wait_timeout=scaled(patience))
            break
        except exceptions.ConnectionError:  # the limit is that of the server's answer, too
            assert patience != PATIENCES[-1]
    assert manager.connected
    manager.disconnect(scaled(LIMIT))
    assert time.monotonic() - begun < scaled(patience + LIMIT + SLACK)
    gate.set()
    assert manager.wait(WAIT)


# --- P4: races --------------------------------------------------------------------------------------------------------


def test_p4_w25_emits_of_many_threads_keep_their_groups_and_their_order(switch_interval: Any) -> None:
    server, log, manager = make()
    manager.connect("http://server", wait_timeout=WAIT)

    def emit(thread: int) -> None:
        for number in range(100):
            manager.emit("/", "x", [thread, number, b"%d" % number, {"b": b"%d" % thread}])

    threads = [threading.Thread(target=emit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manager.disconnect()
    events = [p.data for p in server.session(0).packets if p.type == PacketType.EVENT]
    assert len(events) == 800
    for thread_number in range(8):
        mine = [data for data in events if data[1] == thread_number]
        assert [data[2] for data in mine] == list(range(100))
        assert all(data[3] == b"%d" % data[2] and data[4] == {"b": b"%d" % thread_number} for data in mine)


def test_p4_w1_events_calls_and_losses_at_once(switch_interval: Any) -> None:
    """Events of each connection arrive in order, every call ends, and the records tell a story that makes sense."""
    server, log, manager = make()
    manager.connect("http://server", wait_timeout=WAIT)
    stop = threading.Event()
    outcomes = {"ok": 0, "lost": 0}

    def call() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                assert manager.call("/", "echo", [number], offline="wait", timeout=WAIT) == [number]
                outcomes["ok"] += 1
            except exceptions.AckLost:
                outcomes["lost"] += 1

    with run_thread(call), run_thread(call):
        for round in range(20):
            session = server.session(round)
            log.wait_for(round + 1, Connected)
            for number in range(20):
                session.emit("n", round, number)
            session.drop()
        server.session(20)
        wait_until(lambda: outcomes["ok"] > 1)
        stop.set()
    manager.disconnect()
    numbers: Dict[int, int] = {}
    for _, round, number in log.args:
        assert numbers.get(round, -1) == number - 1
        numbers[round] = number
    connected = 0
    for line in log.story():
        if line[0] in "+-":
            connected += 1 if line[0] == "+" else -1
            assert connected in (0, 1)
        elif line.startswith("/"):
            assert connected == 1


def test_p4_connect_and_disconnect_from_many_threads(switch_interval: Any) -> None:
    server, log, manager = make()

    def work(seed: int) -> None:
        for number in range(15):
            try:
                if (number + seed) % 3:
                    manager.connect("http://server", wait_timeout=WAIT)
                else:
                    manager.disconnect()
                manager.call("/", "echo", [number], timeout=WAIT)
            except exceptions.SocketIOError:
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manager.disconnect()
    assert manager.state is State.CLOSED
    wait_until(lambda: all(session.over for session in server.sessions))  # one may come of an attempt that was given up
    assert manager.wait(WAIT)


def test_p4_join_and_leave_from_many_threads(switch_interval: Any) -> None:
    server, log, manager = make()
    manager.connect("http://server", wait_timeout=WAIT)

    def work(name: str) -> None:
        for number in range(15):
            manager.join(name, timeout=WAIT)
            manager.emit(name, "x", [number])
            manager.leave(name)

    with run_thread(work, "/a"), run_thread(work, "/b"):
        pass
    assert list(manager.namespaces) == ["/"]
    for name in ("/a", "/b"):
        packets = [p.type for p in server.session(0).packets if p.namespace == name]
        assert packets == [PacketType.CONNECT, PacketType.EVENT, PacketType.DISCONNECT] * 15
    manager.disconnect()


# --- P5 and P7 --------------------------------------------------------------------------------------------------------

#: For a child process: print "waiting" when the main thread stands in a wait of the package after `begun` is set.
ANNOUNCE = """
import sys, threading
from tests.helpers import current_frames, wait_until

def stands():
    frame = current_frames()[threading.main_thread().ident]
    return any(f.f_code.co_filename.endswith("deadline.py") for f in (frame, frame.f_back) if f is not None)

def announce():
    begun.wait()
    wait_until(stands, 15)
    print("waiting", flush=True)

begun = threading.Event()
threading.Thread(target=announce, daemon=True).start()
"""


@pytest.mark.parametrize(
    "call", ["manager.call('/', 'silent', timeout=None)", "manager.wait()", "manager.join('/more', timeout=None)",
             "manager.disconnect(60)"]
)
def test_p5_ctrl_c_ends_a_blocking_call_and_leaves_the_client_usable(call: str) -> None:
    code = """
from tests.socketio.fake import make
server, log, manager = make()
server.silent.append("/more")
manager.connect("http://server", wait_timeout=10)
if "disconnect" in %r:
    server.closing.clear()
""" + ANNOUNCE + """
try:
    begun.set()
    %s
except KeyboardInterrupt:
    server.closing.set()
    if "disconnect" not in %r:  # that goes on, whoever waits for it
        assert manager.call("/", "echo", [1], timeout=10) == [1]
    manager.disconnect()
    manager.connect("http://server", wait_timeout=10)
    manager.disconnect()
    print("fine", flush=True)
"""
    code %= (call, call, call)
    with subprocess_python(code) as child:
        child.wait_line("waiting")
        child.interrupt()
        child.wait_line("fine")
        assert child.wait().returncode == 0


def test_p5_ctrl_c_during_connect_leaves_nothing() -> None:
    code = """
from tests.socketio.fake import make
server, log, manager = make(open_timeout=60.0)
server.hang = True
""" + ANNOUNCE + """
try:
    begun.set()
    manager.connect("http://server", retry=True)
except KeyboardInterrupt:
    assert not manager.active
    server.hang = False
    manager.connect("http://server", wait_timeout=10)
    manager.disconnect()
    wait_until(lambda: threading.active_count() == 1)
    print("fine", flush=True)
"""
    with subprocess_python(code) as child:
        child.wait_line("waiting")
        child.interrupt()
        child.wait_line("fine")
        assert child.wait().returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_p7_a_forked_child_gets_a_clear_error(monkeypatch: Any) -> None:
    server, log, manager = make()
    manager.connect("http://server", wait_timeout=WAIT)
    monkeypatch.setattr(forks, "_forks", forks._forks + 1)
    calls: Any = [
        lambda: manager.emit("/", "x"), lambda: manager.call("/", "x"), manager.disconnect, manager.wait,
        lambda: manager.connect("http://server"), lambda: manager.join("/b"), lambda: manager.leave("/"),
        lambda: manager.state, lambda: manager.connected, lambda: manager.transport, manager.sid, manager.recovered,
        lambda: manager.active, lambda: manager.engine_sid,
    ]
    for call in calls:
        with pytest.raises(ForkedError):
            call()
    monkeypatch.undo()
    manager.disconnect()


def test_p3_threads_are_few_and_end(switch_interval: Any) -> None:
    """Case 56; the fixture for leaks looks at the end."""
    server, log, manager = make()
    before = set(threading.enumerate())

    def ours() -> Set[threading.Thread]:  # others belong to the shared server of the run
        return {t for t in set(threading.enumerate()) - before if t.name.startswith(("simplepubsub-socketio", "fake-"))}

    manager.connect("http://server", namespaces=["/", "/a", "/b"], wait_timeout=WAIT)
    for round in range(5):
        server.session(round).drop()
        log.wait_for(3 * (round + 2), Connected)
        wait_until(lambda: manager.state is State.CONNECTED)
    wait_until(lambda: len(ours()) == 3)  # supervisor, reader, dispatcher
    manager.disconnect()
    wait_until(lambda: not ours())
    assert manager.wait(WAIT)
