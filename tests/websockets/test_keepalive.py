"""When to ping, when to give up: the pure part by tables, the rest against silent peers."""

from __future__ import annotations

import time

import pytest

from simplepubsub.websockets import ConnectionClosedError, State
from simplepubsub.websockets.keepalive import KeepAlive
from tests.helpers import ScriptedPeer, scaled, wait_until
from tests.websockets.kit import RawClient, connect, pair, serving


def test_a_ping_after_each_interval_and_its_latency():
    alive = KeepAlive(10.0, 5.0, 100.0)
    assert alive.next_deadline() == 110.0
    assert alive.due(109.9, False) is None
    ping = alive.due(110.0, False)
    assert ping is not None and alive.next_deadline() == 115.0
    assert alive.answered(b"something else", 110.5) is None
    assert alive.answered(ping, 110.5) == 0.5
    assert alive.answered(ping, 110.6) is None
    assert alive.next_deadline() == 120.0
    assert alive.due(120.0, False) not in (None, ping)


def test_a_silent_peer_is_given_up_after_interval_and_timeout():
    alive = KeepAlive(10.0, 5.0, 0.0)
    assert alive.due(10.0, False)
    assert alive.due(14.9, False) is None and not alive.failed
    assert alive.due(15.0, False) is None and alive.failed


@pytest.mark.parametrize("interval, timeout", [(1.0, 30.0), (30.0, 1.0), (5.0, 5.0)])
def test_it_takes_no_longer_than_both_together(interval, timeout):
    alive = KeepAlive(interval, timeout, 0.0)
    for _ in range(200):
        now = alive.next_deadline()
        alive.due(now, False)
        if alive.failed:
            break
    assert now == interval + timeout


def test_whatever_arrives_is_a_sign_of_life():
    alive = KeepAlive(10.0, 5.0, 0.0)
    assert alive.due(10.0, False)
    alive.received(11.0)
    assert alive.due(15.0, False) is None and not alive.failed
    assert alive.due(20.0, False)


def test_our_own_pause_is_not_the_peers_silence():
    alive = KeepAlive(10.0, 5.0, 0.0)
    assert alive.due(10.0, False)
    assert alive.due(15.0, True) is None and not alive.failed  # paused: nothing can arrive
    assert alive.due(20.0, False)
    alive.resumed(24.0)  # paused and resumed between two looks
    assert alive.due(25.0, False) is None and not alive.failed


def test_off_and_without_a_limit():
    off = KeepAlive(None, 5.0, 0.0)
    assert off.next_deadline() is None and off.due(1e9, False) is None
    patient = KeepAlive(10.0, None, 0.0)
    assert patient.due(10.0, False)
    assert patient.next_deadline() == 20.0
    assert patient.due(1e6, False) is None and not patient.failed


def test_a_client_gives_up_a_silent_server():
    with ScriptedPeer(lambda conn: conn.hang(), subprotocol=None) as peer:
        began = time.monotonic()
        with connect(peer.url(), ping_interval=scaled(0.1), ping_timeout=scaled(0.1), close_timeout=0.1) as client:
            with pytest.raises(ConnectionClosedError, match="keep-alive") as caught:
                client.recv(scaled(10))
            assert time.monotonic() - began < scaled(8)
            assert caught.value.sent == (1011, "keepalive ping timeout") and caught.value.rcvd is None
            with pytest.raises(ConnectionClosedError, match="keep-alive"):
                client.send("x")
        peer.close(check=False)


def test_a_server_gives_up_a_silent_client():
    errors = []

    def handler(connection):
        try:
            connection.recv(scaled(20))
        except ConnectionClosedError as error:
            errors.append(error)

    with serving(handler, ping_interval=scaled(0.05), ping_timeout=scaled(0.05), close_timeout=0.1) as server:
        with RawClient(server) as raw:
            assert raw.close_frame() == (1011, "keepalive ping timeout")
        wait_until(lambda: errors)
    assert isinstance(errors[0], ConnectionClosedError)


def test_latency_is_measured_by_the_keep_alive_and_by_pings():
    with pair(ping_interval=0.02) as (client, server):
        assert server.latency is None
        wait_until(lambda: client.latency is not None)
        assert server.ping().result(scaled(5)) == server.latency > 0


def test_a_reader_that_makes_us_pause_is_not_killed():
    quick = {"ping_interval": 0.02, "ping_timeout": scaled(10)}  # long enough for a machine that stalls
    with pair(quick, max_queue=2, **quick) as (client, server):
        looked = []

        def let_a_timeout_pass(look):
            """As if the last ping were unanswered for long, and nothing had come since."""
            alive = client._keep_alive
            alive._sent = time.monotonic() - scaled(100)
            alive._heard = alive._sent - 1
            if look:
                client._tick()
            looked.append((client._intake.paused, alive.failed))

        for number in range(20):
            server.send(str(number))
        wait_until(lambda: client._intake.paused)
        for look in (True, True, False):  # the last time the next look comes when reading has gone on
            client._poller.call(lambda look=look: let_a_timeout_pass(look))
        wait_until(lambda: len(looked) == 3)
        assert looked == [(True, False)] * 3
        assert [client.recv(scaled(5)) for _ in range(20)] == [str(number) for number in range(20)]
        before = client._keep_alive._serial
        wait_until(lambda: client._keep_alive._serial > before + 2)  # pings go on and are answered
        assert client.state is server.state is State.OPEN
