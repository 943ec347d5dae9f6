"""``server.faults``: each fault does what its docstring says, and clear() ends it."""

from __future__ import annotations

import threading
import time

import pytest
import websocket

from simplepubsub.exceptions import InvalidArgument, ServerError
from simplepubsub.server import Server
from tests.helpers import MS, run_thread, scaled, wait_until
from tests.rawclient import PLAIN, RELIABLE, Clients, Closed, ok, refused


def test_drop_connections_resets_and_keeps_reliable_sessions(server, connect):
    reliable, plain, other = connect(RELIABLE), connect(PLAIN), connect(PLAIN, hub="other")
    assert server.faults.drop_connections("PLAZA") == 2
    with pytest.raises(ConnectionResetError):
        reliable.ws.sock.recv(1)
    plain.expect_loss()
    other.assert_quiet()
    wait_until(lambda: server.stats()["sockets"] == 1)
    wait_until(lambda: server.stats()["retained"] == 1)
    reliable.recover().abort()
    assert server.faults.drop_connections() >= 1


def test_drop_connections_silently_leaves_the_peer_in_the_dark(server, connect):
    client = connect(RELIABLE, groups=["lobby"])
    assert server.faults.drop_connections(silent=True) == 1
    assert server.faults.drop_connections(silent=True) == 0
    assert server.stats()["retained"] == 1
    server.hub("plaza").send_to_group("lobby", "unheard")
    client.send({"type": "ping"})
    client.ws.settimeout(100 * MS)
    with pytest.raises(websocket.WebSocketTimeoutException):
        client.frame()
    with client.recover() as again:
        assert again.receive()["data"] == "unheard"
    server.faults.clear()
    client.ws.settimeout(scaled(5))
    client.expect_loss()


@pytest.mark.parametrize("code, recoverable", [(1001, True), (1011, True), (4000, True), (1000, False), (1008, False)])
def test_close_connections(server, connect, code, recoverable):
    client, other = connect(RELIABLE), connect(PLAIN, hub="other")
    assert server.faults.close_connections(code, "because", hub="plaza") == 1
    assert client.expect_close() == (code, "because")
    other.assert_quiet()
    if recoverable:
        client.recover().abort()
    else:
        with pytest.raises(Closed):
            client.recover()


@pytest.mark.parametrize("code", [0, 999, 1005, 1006, 1015, 2000, 5000, 70000, "1000", None])
def test_close_codes_that_cannot_be_sent_are_refused(server, code):
    with pytest.raises(InvalidArgument, match="close code"):
        server.faults.close_connections(code)


def test_refuse_recovery_harms_no_session(server, connect):
    client = connect(RELIABLE)
    server.faults.refuse_recovery(1)
    with pytest.raises(Closed) as caught:
        client.recover()
    assert caught.value.code == 1008
    client.assert_quiet()
    server.faults.refuse_recovery()
    for _ in range(3):
        with pytest.raises(Closed):
            client.recover()
    server.faults.refuse_recovery(0)
    client.recover().abort()
    assert server.stats()["refused_recoveries"] == 4


def test_refuse_connections_with_a_status(server, connect):
    client = connect(RELIABLE)
    url = server.client_access_url("plaza")
    server.faults.refuse_connections(502, times=2)
    assert refused(url, PLAIN)[0] == 502
    assert refused(client.recovery_url(), RELIABLE)[0] == 502
    connect(PLAIN)
    server.faults.refuse_connections(429)
    assert [refused(url, PLAIN)[0] for _ in range(3)] == [429] * 3
    server.faults.clear()
    connect(PLAIN)


def test_lose_next_ack_executes_all_the_same(server, connect):
    member, sender = connect(PLAIN, groups=["lobby"]), connect(PLAIN)
    server.faults.lose_next_ack(2)
    for number in range(3):
        sender.publish("lobby", number, "json", ackId=number)
    assert sender.receive() == ok(2)
    assert [message["data"] for message in member.receive_many(3)] == [0, 1, 2]
    sender.publish("lobby", 0, "json", ackId=0)
    assert sender.receive()["error"]["name"] == "Duplicate"
    server.faults.lose_next_ack(5)
    server.faults.clear()
    sender.publish("lobby", 4, "json", ackId=4)
    assert sender.receive() == ok(4)


def test_freeze_stops_everything_for_a_while(server, connect):
    client = connect(PLAIN)
    server.faults.freeze(600)  # it returns at once
    begin = time.monotonic()
    server.faults.freeze(200 * MS)
    client.send({"type": "ping"})
    connect(PLAIN)  # a handshake waits too
    assert client.receive() == {"type": "pong"}
    assert time.monotonic() - begin > 190 * MS


def test_a_freeze_is_ended_by_clear_reset_and_stop(server, connect, fresh_server):
    client = connect(PLAIN)
    server.faults.freeze(600)
    server.faults.freeze(600)
    client.send({"type": "ping"})
    server.faults.clear()
    assert client.receive() == {"type": "pong"}
    server.faults.freeze(600)
    server.reset()
    connect(PLAIN)
    frozen = fresh_server()
    with Clients(frozen) as clients:
        clients.connect(PLAIN)
        frozen.faults.freeze(600)
        begin = time.monotonic()
        frozen.stop()
        assert time.monotonic() - begin < scaled(20)


def test_delay_keeps_the_order(server, connect):
    client = connect(PLAIN, groups=["lobby"])
    server.faults.delay(100 * MS)
    begin = time.monotonic()
    for number in range(20):
        client.publish("lobby", number, "json")
    assert [message["data"] for message in client.receive_many(20)] == list(range(20))
    assert time.monotonic() - begin > 95 * MS
    server.faults.delay(600)
    client.publish("lobby", 20, "json")
    wait_until(lambda: server.stats()["published"] == 21)
    server.faults.delay(0)
    client.publish("lobby", 21, "json")
    assert [message["data"] for message in client.receive_many(2)] == [20, 21]


@pytest.mark.parametrize(
    "call",
    [
        lambda faults: faults.freeze(-1),
        lambda faults: faults.freeze("1"),
        lambda faults: faults.delay(float("nan")),
        lambda faults: faults.refuse_recovery(-1),
        lambda faults: faults.refuse_recovery(1.5),
        lambda faults: faults.lose_next_ack(True),
        lambda faults: faults.refuse_connections(200),
        lambda faults: faults.refuse_connections("503"),
    ],
)
def test_bad_arguments_are_refused(server, call):
    with pytest.raises(InvalidArgument):
        call(server.faults)


def test_faults_of_a_server_that_does_not_run():
    with pytest.raises(ServerError, match="not running"):
        Server().faults.drop_connections()


def test_faults_may_come_from_many_threads_at_once(server):
    barrier = threading.Barrier(4)

    def disturb():
        barrier.wait(scaled(5))
        for _ in range(25):
            server.faults.drop_connections()
            server.faults.refuse_recovery(1)
            server.faults.delay(0)
            server.faults.clear()

    threads = [run_thread(disturb) for _ in range(4)]
    for thread in threads:
        thread.__enter__()
    for thread in threads:
        thread.__exit__(None, None, None)
    wait_until(lambda: server.stats()["sockets"] == 0)
