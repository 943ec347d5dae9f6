"""P1: no call hangs. Every blocking call of both ends against every way a peer can be absent."""

from __future__ import annotations

import concurrent.futures
import contextlib
import random
import threading
import time

import pytest

from simplepubsub import websockets
from simplepubsub.websockets import ConnectionClosed
from tests.helpers import ScriptedPeer, run_thread, scaled, wait_until
from tests.websockets.kit import RawClient, connect, pair, serving
from tests.wire import PING

LIMIT = 0.1  # seconds that each call is given
SLACK = 5.0


def silent(conn):
    """Accept, and never read or write."""
    conn.hang()


def reads(conn):
    """Read everything and answer nothing, no ping and no close frame."""
    conn.drain()


def floods_pings(conn):
    """Send pings and read nothing."""
    with contextlib.suppress(AssertionError):
        while True:
            conn.send_frame(PING, b"x" * 100)


def forever(call):
    def calls(end, **options):
        while True:
            call(end, **options)
    return calls


FULL = forever(lambda end, **options: end.send(b"x" * 300_000, **options))
CALLS = [
    ("recv", lambda end, **options: end.recv(**options)),
    ("iteration", lambda end, **options: list(end)),
    ("send", FULL),
    ("send fragments", forever(lambda end, **options: end.send([b"x" * 300_000, b"y"], **options))),
    ("ping", lambda end, **options: end.ping().result(options.get("timeout"))),
]
LIMITED = [row for row in CALLS if row[0] != "iteration"]


@pytest.mark.parametrize("script", [silent, reads, floods_pings], ids=lambda script: script.__name__)
@pytest.mark.parametrize("name, call", LIMITED, ids=[row[0] for row in LIMITED])
def test_a_call_with_a_limit(script, name, call):
    if name.startswith("send") and script is reads:
        pytest.skip("it reads: a send has no reason to wait")
    with ScriptedPeer(script, subprotocol=None, timeout=60) as peer:
        client = connect(peer.url(), ping_interval=None, close_timeout=LIMIT)
        began = time.monotonic()
        with run_thread(call, client, timeout=scaled(LIMIT)) as thread:
            error = thread.exception(scaled(10))
        assert isinstance(error, (TimeoutError, concurrent.futures.TimeoutError)), error
        assert time.monotonic() - began < scaled(LIMIT + SLACK)
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < scaled(LIMIT + SLACK)
        peer.close(check=False)


@pytest.mark.parametrize("script", [silent, reads], ids=lambda script: script.__name__)
@pytest.mark.parametrize("how", ["close", "keep-alive", "peer ends"])
@pytest.mark.parametrize("name, call", CALLS, ids=[row[0] for row in CALLS])
def test_a_call_without_a_limit_ends_with_the_connection(script, how, name, call):
    with ScriptedPeer(script, subprotocol=None, timeout=60) as peer:
        interval = scaled(LIMIT) if how == "keep-alive" else None
        client = connect(peer.url(), ping_interval=interval, ping_timeout=interval, close_timeout=LIMIT)
        with run_thread(call, client) as thread:
            if how == "close":
                wait_until(lambda: client._inbox._waiting or client._waiting_sends or client._pings or
                           (name.startswith("send") and script is reads))
                client.close()
            elif how == "peer ends":
                peer.close(check=False)
            error = thread.exception(scaled(10))
        assert isinstance(error, ConnectionClosed), error
        client.close()
        peer.close(check=False)


@pytest.mark.parametrize("name, call", CALLS, ids=[row[0] for row in CALLS])
def test_the_servers_end(name, call):
    """A handler that is blocked is set free by the shutdown of its server, though the client is silent."""
    errors = []

    def handler(connection):
        try:
            call(connection)
        except ConnectionClosed as error:
            errors.append(error)

    with serving(handler, ping_interval=None, close_timeout=scaled(LIMIT)) as server:
        with RawClient(server, receive_buffer=4096):
            wait_until(lambda: server.connections)
            end, = server.connections
            wait_until(lambda: end._inbox._waiting or end._waiting_sends or end._pings)
            began = time.monotonic()
            server.shutdown()
            assert time.monotonic() - began < scaled(LIMIT + SLACK)
            wait_until(lambda: errors and not server._threads)  # a bounded shutdown does not wait for a stalled thread


def test_close_in_many_threads_at_once():
    with ScriptedPeer(reads, subprotocol=None) as peer:
        client = connect(peer.url(), close_timeout=scaled(LIMIT))
        closers = [threading.Thread(target=client.close) for _ in range(8)]
        began = time.monotonic()
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(scaled(5))
        assert time.monotonic() - began < scaled(LIMIT + SLACK)
        peer.close(check=False)


@pytest.mark.stress
def test_everything_at_once(switch_interval, seed):
    """P4: sends, receives, pings, broadcasts, fragments, closes from many threads; nothing hangs or breaks a frame."""
    for round_ in range(15):
        rng = random.Random(seed + round_)
        options = {"max_size": None, "max_queue": 100_000, "close_timeout": scaled(60)}
        with pair(options, **options) as (client, server):
            ends = (client, server)

            def act(seed_, ends=ends):
                mine = random.Random(seed_)
                try:
                    for _ in range(60):
                        end = mine.choice(ends)
                        what = mine.randrange(5)
                        if what == 0:
                            end.send("x" * mine.choice([0, 10, 5000, 200_000]))
                        elif what == 1:
                            end.send(["part"] * mine.randrange(1, 5))
                        elif what == 2:
                            end.ping()
                        elif what == 3:
                            websockets.broadcast([end], b"y" * 300)
                        else:
                            with contextlib.suppress(TimeoutError):
                                end.recv(mine.choice([0, 0.001]))
                except ConnectionClosed as closed:
                    return closed
                return None

            threads = [run_thread(act, rng.random(), join_timeout=60) for _ in range(6)]
            for thread in threads:
                thread.__enter__()
            if round_ % 3 == 0:
                rng.choice(ends).close()
            results = [thread.result(scaled(60)) for thread in threads]
            for thread in threads:
                thread.__exit__(None, None, None)
            for error in results:
                assert error is None or isinstance(error, websockets.ConnectionClosedOK), error
