"""`reconnect`: a connection that comes back, says so, and ends when it should."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from simplepubsub import websockets
from simplepubsub.exceptions import InvalidArgument, MessagesLost
from simplepubsub.webpubsub import RetryPolicy
from simplepubsub.websockets import ConnectionClosedOK, ReceiveTimeout, SendTimeout
from simplepubsub.websockets import reconnect as _function
from tests.helpers import ClosedPort, ScriptedPeer, SilentPeer, run_thread, scaled, wait_until
from tests.websockets.kit import echo, serving, threads

assert _function is websockets.reconnect
QUICK = RetryPolicy(total=None, base=0.01, maximum=0.05)


def open_to(server, **options):
    options.setdefault("retry", QUICK)
    return websockets.reconnect(server.url(), proxy=None, close_timeout=scaled(10), **options)


@contextlib.contextmanager
def open_to_a_server_that_goes(retry=QUICK):
    """Yield a connection whose server has gone. Nobody else can come to listen where it looks for it."""
    with serving(echo) as server, ClosedPort() as nobody:
        addresses = [server.url()]
        options = {"proxy": None, "close_timeout": scaled(10), "retry": retry}
        with websockets.reconnect(lambda: addresses[-1], **options) as connection:
            addresses.append(nobody.url("/"))
            server.shutdown()
            yield connection


def cut(server, code=1012):
    wait_until(lambda: server.connections)
    for connection in server.connections:
        connection.close(code)


def test_it_comes_back_and_says_so():
    told, hooks = [], []
    with serving(echo) as server:
        with open_to(server, on_gap=told.append, on_connect=hooks.append) as connection:
            connection.send("a")
            assert connection.recv(scaled(5)) == "a"
            cut(server)
            connection.send("b", timeout=scaled(5))
            assert connection.recv(scaled(5)) == "b"
            assert connection.gaps == 1 and len(hooks) == 2
            assert [gap.number for gap in told] == [2]
            assert told[0].cause.code == 1012
            assert connection.connection is hooks[1]
            assert "connected" in repr(connection)
        with pytest.raises(ConnectionClosedOK):
            connection.recv(scaled(5))
        with pytest.raises(ConnectionClosedOK):
            connection.send("x")
        assert list(connection) == [] and connection.connection is None
        connection.close()
    wait_until(lambda: "simplepubsub-reconnect" not in threads())


def test_what_arrived_before_the_cut_is_received_before_what_comes_after():
    def talk(connection):
        for number in range(20):
            connection.send("%d" % number)
        connection.recv()

    with serving(talk) as server, open_to(server) as connection:
        wait_until(lambda: connection.connection.unread == 20)
        cut(server)
        wait_until(lambda: connection.gaps == 1 and connection.connection)
        assert [connection.recv(scaled(5)) for _ in range(40)] == [str(n) for n in range(20)] * 2


def test_gaps_raise_once_between_the_messages():
    def talk(connection):
        connection.send("hello")
        connection.recv()

    with serving(talk) as server, open_to(server, gaps="raise") as connection:
        for number in (2, 3):
            wait_until(lambda: connection.connection and connection.connection.unread)
            cut(server)
            assert connection.recv(scaled(5)) == "hello"
            with pytest.raises(MessagesLost) as caught:
                connection.recv(scaled(5))
            assert caught.value.gap.number == number and caught.value.__cause__ is caught.value.gap.cause
        assert connection.recv(scaled(5)) == "hello"


def test_a_program_that_only_sends_keeps_no_dead_connections():
    with serving(lambda connection: connection.recv()) as server, open_to(server) as connection:
        for number in range(5):
            connection.send("x", timeout=scaled(5))  # the handler returns, and that closes
            wait_until(lambda number=number: connection._connections == number + 2)
        assert len(connection._arrived) <= 2


def test_a_server_that_hangs_up_at_once_is_not_stormed():
    with serving(lambda connection: None) as server:
        began = time.monotonic()  # not later: it may have come back already when this thread goes on
        with open_to(server, retry=RetryPolicy(total=None, base=0.1, mode="fixed", jitter=False)) as connection:
            wait_until(lambda: connection._connections >= 4, timeout=20)
            assert time.monotonic() - began >= 0.15


def test_the_first_attempt_raises_what_connect_raises():
    with ClosedPort() as port, pytest.raises(websockets.InvalidHandshake):
        websockets.reconnect(port.url("/"), proxy=None, retry=QUICK)
    with serving(echo) as server:
        with pytest.raises(KeyError):
            open_to(server, on_connect=lambda connection: {}["x"])
        wait_until(lambda: not server.connections)


@pytest.mark.parametrize("options", [{"gaps": "x"}, {"on_gap": 5}, {"on_connect": "x"}, {"retry": 3}, {"max_size": 0}])
def test_bad_options(options):
    with pytest.raises(InvalidArgument):
        websockets.reconnect("ws://127.0.0.1:1/", **options)


def test_a_permanent_refusal_ends_it():
    deny = threading.Event()

    def process(connection, request):
        return connection.respond(401, "no") if deny.is_set() else None

    with serving(echo, process_request=process) as server, open_to(server) as connection:
        with run_thread(connection.recv) as receiver, run_thread(list, connection) as iterator:
            deny.set()
            cut(server)
            for thread in (receiver, iterator):
                error = thread.exception(scaled(5))
                assert isinstance(error, websockets.InvalidStatus) and error.status == 401
        with pytest.raises(websockets.InvalidStatus):
            connection.send("x")


def test_attempts_run_out():
    with open_to_a_server_that_goes(RetryPolicy(total=2, base=0.01)) as connection:
        with pytest.raises(websockets.InvalidHandshake):
            connection.recv(scaled(5))


def test_an_address_that_is_asked_for_every_connection():
    asked = []
    with serving(echo) as server:
        def address():
            asked.append(1)
            return server.url("/%d" % len(asked))

        with websockets.reconnect(address, proxy=None, retry=QUICK) as connection:
            assert len(asked) == 1
            cut(server)
            connection.send("x", timeout=scaled(5))
            assert len(asked) == 2 and next(iter(server.connections)).path == "/2"


def test_a_hook_that_fails_is_an_attempt_that_failed(caplog):
    calls = []

    def hook(connection):
        calls.append(1)
        if len(calls) in (2, 3):
            raise KeyError("a bug in the hook")
        connection.send("hello")
        assert connection.recv(scaled(5)) == "hello"

    with serving(echo) as server, open_to(server, on_connect=hook) as connection:
        cut(server)
        connection.send("x", timeout=scaled(10))
        assert connection.recv(scaled(5)) == "x" and len(calls) == 4
    assert "a bug in the hook" in caplog.text


def test_a_gap_hook_that_fails_hurts_nobody(caplog):
    with serving(echo) as server, open_to(server, on_gap=lambda gap: 1 / 0) as connection:
        cut(server)
        connection.send("x", timeout=scaled(5))
        assert connection.recv(scaled(5)) == "x"
    assert "ZeroDivisionError" in caplog.text


def test_timeouts_without_a_connection():
    with open_to_a_server_that_goes() as connection:
        wait_until(lambda: connection.connection is None)
        with pytest.raises(ReceiveTimeout):
            connection.recv(scaled(0.05))
        with pytest.raises(SendTimeout):
            connection.send("x", timeout=scaled(0.05))
        with pytest.raises(InvalidArgument):
            connection.send(["a", "b"])


def test_a_silent_server_is_left_at_once_after_its_silence():
    with ScriptedPeer([lambda conn: conn.hang(), lambda conn: conn.drain()], subprotocol=None) as peer:
        began = time.monotonic()
        with websockets.reconnect(peer.url(), proxy=None, retry=QUICK, ping_interval=0.1, ping_timeout=scaled(0.1),
                                  close_timeout=scaled(30)) as connection:
            peer.wait_accepted(2)
            wait_until(lambda: connection.gaps >= 1)  # the second one is as silent, and left as soon
            assert time.monotonic() - began < scaled(15)
            connection.close(timeout=0)
        peer.close(check=False)


def test_several_receivers():
    with serving(echo) as server, open_to(server) as connection:
        with run_thread(connection.recv, scaled(20)) as one, run_thread(connection.recv, scaled(20)) as two:
            cut(server)
            for text in ("a", "b"):
                connection.send(text, timeout=scaled(5))
            assert {one.result(scaled(10)), two.result(scaled(10))} == {"a", "b"}


@pytest.mark.parametrize("moment", ["dial", "hook", "wait", "open"])
def test_close_at_every_moment(moment):
    in_hook = threading.Event()
    calls = []

    def hook(connection):
        calls.append(1)
        if moment == "hook" and len(calls) == 2:
            in_hook.set()
            connection.recv()

    with serving(echo) as server, SilentPeer() as silent, ClosedPort() as closed:
        addresses = [server.url()]
        connection = websockets.reconnect(
            lambda: addresses[-1], proxy=None, on_connect=hook, close_timeout=scaled(1),
            retry=RetryPolicy(total=None, base=60.0 if moment == "wait" else 0.01, jitter=False))
        if moment == "dial":
            addresses.append(silent.url("/", "ws"))
        elif moment == "wait":
            addresses.append(closed.url("/"))
        with run_thread(connection.recv) as receiver:
            if moment != "open":
                cut(server)
            if moment == "dial":
                silent.wait_accepted(1)
            elif moment == "hook":
                assert in_hook.wait(scaled(5))
            elif moment == "wait":
                wait_until(lambda: connection.connection is None and connection._dialling is None)
            began = time.monotonic()
            connection.close()
            assert time.monotonic() - began < scaled(6)
            assert isinstance(receiver.exception(scaled(5)), ConnectionClosedOK)
        wait_until(lambda: "simplepubsub-reconnect" not in threads())


@pytest.mark.stress
def test_nothing_is_doubled_or_reordered_through_many_cuts(make_proxy):
    with serving(echo) as server:
        proxy = make_proxy(("127.0.0.1", server.port))
        connection = websockets.reconnect(proxy.url(server.url()), proxy=None, retry=QUICK, close_timeout=0.5)
        got, cuts = [], 0
        with run_thread(lambda: got.extend(connection), join_timeout=60):
            for number in range(3000):
                connection.send(str(number), timeout=scaled(20))
                if number % 300 == 299:
                    wait_until(lambda cuts=cuts: connection.gaps == cuts, timeout=20)  # or there is nothing to cut
                    proxy.cut()
                    cuts += 1

            def last_arrived():
                connection.send("last", timeout=scaled(20))  # again and again: one that meets the cut is lost
                return "last" in got

            wait_until(last_arrived, timeout=20)
            connection.close()
        numbers = [int(text) for text in got if text != "last"]
        assert numbers == sorted(set(numbers))
        assert connection.gaps == cuts == 10
