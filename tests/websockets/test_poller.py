"""The poller: life of its thread, lost calls, faults, forks, and what a process has left."""

from __future__ import annotations

import gc
import os
import random
import resource
import socket
import sys
import threading
import time
from contextlib import closing

import pytest

from simplepubsub.websockets import poller as module
from simplepubsub.websockets.poller import READ, Poller
from simplepubsub.websockets.readiness import PortableReadiness
from tests.helpers import run_python, run_thread, scaled, wait_until
from tests.websockets.kit import connect, echo, pair, serving, threads


class Member:
    def __init__(self, poller):
        self.poller = poller
        self.failures = []

    def fail(self, error):
        self.failures.append(error)
        self.poller.remove(self)

    def callback(self, *args):
        raise KeyError("a bug")


def test_the_thread_lives_as_long_as_there_are_members():
    wait_until(lambda: threads() == [])  # a server of tests before this one may be on its way out
    poller = Poller("simplepubsub-test")
    member = Member(poller)
    poller.call(lambda: poller.add(member))
    wait_until(lambda: poller._members)
    assert threads() == ["simplepubsub-test"]
    poller.call(lambda: poller.remove(member))
    wait_until(lambda: threads() == [])
    poller.call(lambda: None)  # it comes for one call, too
    wait_until(lambda: threads() == [])


def test_no_call_is_lost_whoever_comes_and_goes(switch_interval):
    """Several threads call, and the poller's thread ends and starts all the time."""
    poller = Poller("simplepubsub-test")
    done = []

    def calls(name):
        for number in range(1500):
            poller.call(lambda number=number: done.append((name, number)))
            if number % 10 == 0:
                wait_until(lambda number=number: (name, number) in done[-50:] or (name, number) in done)

    callers = [threading.Thread(target=calls, args=(name,)) for name in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(scaled(60))
    wait_until(lambda: len(done) == 4500)
    for name in range(3):
        assert [number for who, number in done if who == name] == list(range(1500))
    wait_until(lambda: threads() == [])


def test_no_wake_up_is_lost_between_two_threads(switch_interval):
    """A byte that is taken for somebody who is not looked at yet would leave that call alone for ever."""
    poller = Poller("simplepubsub-test")
    member = Member(poller)
    poller.call(lambda: poller.add(member))

    def asks(count):
        for _ in range(count):
            answered = threading.Event()
            poller.call(answered.set)
            assert answered.wait(scaled(5)), (poller._calls, poller._woken)

    with run_thread(asks, 3000, join_timeout=60), run_thread(asks, 3000, join_timeout=60), run_thread(
            asks, 3000, join_timeout=60):
        pass
    poller.call(lambda: poller.remove(member))


def test_a_bug_in_one_member_does_not_hurt_the_others(caplog):
    poller = Poller("simplepubsub-test")
    good, bad = Member(poller), Member(poller)
    ours, theirs = socket.socketpair()
    seen = []
    with ours, theirs:
        poller.call(lambda: (poller.add(good), poller.add(bad)))
        poller.call(lambda: poller.watch(ours, READ, lambda events: seen.append(ours.recv(10))))
        poller.call(bad.callback)
        poller.call(sys.exit)
        poller.call(lambda: poller.after(0, bad.callback))
        theirs.send(b"x")
        wait_until(lambda: seen == [b"x"] and bad.failures)  # in either order, if one look finds both
        assert len(bad.failures) == 1 and isinstance(bad.failures[0], KeyError)
        assert good.failures == []
        poller.call(lambda: (poller.watch(ours, 0, print), poller.remove(good)))
        wait_until(lambda: threads() == [])
    assert "a callback of simplepubsub-test failed" in caplog.text


def test_a_bug_in_a_connection_ends_that_connection(caplog):
    with pair() as (client, server), serving(echo) as other_server, connect(other_server.url()) as other:
        client._take = lambda data: 1 / 0
        server.send("x")
        error = run_in_thread(lambda: client.recv(scaled(5)))
        assert "ZeroDivisionError" in str(error)
        other.send("still here")
        assert other.recv(scaled(5)) == "still here"


def run_in_thread(call):
    with run_thread(call) as thread:
        return thread.exception(scaled(10))


def test_a_poll_that_fails_ends_every_connection_and_the_next_one_works(caplog):
    class Broken(PortableReadiness):
        def poll(self, timeout, most):
            raise ValueError("too many file descriptors in select()")

    with serving(echo) as server, closing(Broken()) as broken:
        client = connect(server.url())
        poller = client._poller

        def spoil():
            whole, poller._readiness = poller._readiness, broken
            whole.unregister(client._sock.sock.fileno())
            broken.register(client._sock.sock.fileno(), READ)

        wait_until(lambda: client in poller._members)
        poller.call(spoil)
        assert "too many file descriptors" in str(run_in_thread(lambda: client.recv(scaled(5))))
        with connect(server.url()) as again:
            again.send("x")
            assert again.recv(scaled(5)) == "x"


def test_a_call_that_comes_while_everything_fails_is_not_lost(caplog):
    """Who is told of the failure may connect again before the poller's thread has ended."""
    done = []

    class Returning(Member):
        def fail(self, error):
            super().fail(error)
            with run_thread(self.come_back):
                pass

        def come_back(self):
            for number in range(3):
                self.poller.call(lambda number=number: done.append((number, threading.current_thread())))

    class Broken(PortableReadiness):
        def poll(self, timeout, most):
            raise ValueError("broken")

    with closing(Broken()) as broken:
        poller = Poller("simplepubsub-test")
        poller.call(lambda: poller.add(Returning(poller)))
        poller.call(lambda: setattr(poller, "_readiness", broken))
        wait_until(lambda: len(done) == 3)
        wait_until(lambda: threads() == [])
    assert [number for number, _ in done] == [0, 1, 2] and len({thread for _, thread in done}) == 1


def test_where_there_is_no_epoll(monkeypatch):
    made = []

    def portable():
        made.append(PortableReadiness())
        return made[-1]

    monkeypatch.setattr(module, "new_readiness", portable)
    with serving(echo, max_size=None) as server, connect(server.url(), max_size=None) as client:
        for message in ("x", "y" * 10_000_000):
            with run_thread(client.send, message):
                assert client.recv(scaled(10)) == message
    assert made


def test_timers():
    poller = Poller("simplepubsub-test")
    member = Member(poller)
    fired = []

    def plan():
        poller.add(member)
        now = time.monotonic()
        poller.at(now + 0.03, lambda: fired.append("second"))
        poller.at(now + 0.01, lambda: fired.append("first"))
        poller.at(now + 0.02, lambda: fired.append("cancelled")).cancel()
        poller.after(float("inf"), lambda: fired.append("never"))
        poller.after(1e12, lambda: fired.append("never"))

    poller.call(plan)
    wait_until(lambda: fired == ["first", "second"])
    poller.call(lambda: poller.remove(member))
    wait_until(lambda: threads() == [])


def test_settle_waits_for_what_was_asked_for():
    poller = Poller("simplepubsub-test")
    poller.settle(0)  # no thread: nothing to wait for
    done = []
    gate = threading.Event()
    poller.call(gate.wait)
    poller.call(lambda: done.append(1))
    poller.settle(0.01)
    assert done == []
    gate.set()
    poller.settle(scaled(5))
    assert done == [1]


# ---- descriptors and threads -----------------------------------------------------------------------------------------


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_connections_that_come_and_go_leave_nothing(switch_interval):
    with serving(echo) as server:
        before = descriptors()

        def cycles(seed):
            rng = random.Random(seed)
            for _ in range(25):
                client = connect(server.url())
                client.send("x")
                if rng.random() < 0.7:
                    assert client.recv(scaled(10)) == "x"
                client.close(timeout=rng.choice([None, 0]))

        with run_thread(cycles, 1, join_timeout=60), run_thread(cycles, 2, join_timeout=60):
            cycles(3)
        wait_until(lambda: not server._threads)
        wait_until(lambda: threads() == ["simplepubsub-websockets-server"])
        wait_until(lambda: descriptors() <= before)


def test_one_thread_for_any_number_of_clients_and_one_more_per_server_connection():
    wait_until(lambda: threads() == [])
    with serving(echo) as server:
        clients = [connect(server.url()) for _ in range(10)]
        names = threads()
        assert names.count("simplepubsub-websockets") == 1
        assert names.count("simplepubsub-websockets-server") == 1
        assert len(names) == 12
        for client in clients:
            client.close()
        wait_until(lambda: threads() == ["simplepubsub-websockets-server"])
    wait_until(lambda: threads() == [])


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of descriptors there")
def test_no_descriptor_for_the_poller_is_an_error_and_not_a_hang():
    poller = Poller("simplepubsub-test")
    gc.collect()  # what it would free in the middle of this is a descriptor too many
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 20, hard))
    held = []
    try:
        with pytest.raises(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(3):  # with one descriptor, then two and three: enough for a part of what it needs
            with pytest.raises(OSError):
                poller.call(print)
            os.close(held.pop())
            assert threads() == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
    done = threading.Event()
    poller.call(done.set)
    assert done.wait(scaled(5))


# ---- forks -----------------------------------------------------------------------------------------------------------

FORK = """
import os, sys, threading
from simplepubsub import websockets
from simplepubsub.exceptions import ForkedError

def echo(connection):
    for message in connection:
        connection.send(message)

url = sys.argv[1]
server = websockets.serve(echo)
mine = websockets.connect(url, proxy=None)
mine.send("before")
assert mine.recv(10) == "before"

begun, stop = threading.Event(), threading.Event()
def busy():                       # the locks are in use when the fork happens
    with websockets.connect(url, proxy=None) as other:
        while not stop.is_set():
            other.send("x"); other.recv(30)
            begun.set()
thread = threading.Thread(target=busy); thread.start()
begun.wait()                      # the system's resolver is not: it would leave its own locks in the child

for _ in range(10):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for call in (lambda: mine.send("x"), mine.recv, mine.close, mine.ping, lambda: mine.send(["a", "b"]),
                         lambda: websockets.broadcast([mine], "x")):
                try:
                    call()
                except ForkedError:
                    pass
                else:
                    raise AssertionError("no ForkedError")
            mine.__exit__(None, None, None)
            server.shutdown()
            with websockets.connect(url, proxy=None) as fresh:
                fresh.send("child")
                assert fresh.recv(10) == "child"
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    mine.send("after")
    assert mine.recv(10) == "after"
stop.set()
thread.join()
mine.close()
assert mine.close_code == 1000
with websockets.connect("ws://127.0.0.1:%d" % server.port, proxy=None) as client:
    client.send("x")
    assert client.recv(10) == "x"
server.shutdown()
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child():
    with serving(echo) as server:
        result = run_python(FORK, server.url(), env={"PYTHONWARNINGS": "ignore"}, timeout=60)
    assert "fine" in result.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_that_lives_on_does_not_keep_a_connection_open():
    with serving(echo) as server:
        result = run_python(
            """
            import os, sys
            from simplepubsub import websockets
            connection = websockets.connect(sys.argv[1], proxy=None, close_timeout=30)
            connection.send("x"); connection.recv(10)
            read, write = os.pipe()
            if os.fork() == 0:
                os.close(write)
                os.read(read, 1)  # until the parent has gone
                os._exit(0)
            connection.close()
            print(connection.close_code)
            """, server.url(), env={"PYTHONWARNINGS": "ignore"})
        wait_until(lambda: not server._threads)
    assert result.stdout.split() == ["1000"]


def test_the_module_flushes_at_exit_only_what_runs():
    module._settle_at_exit()  # without any thread it returns at once
