"""Recovery, keep-alive and slow readers, on real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest
import websocket

from simplepubsub.exceptions import ServerError
from simplepubsub.server import Limits
from tests.helpers import MS, Recorder, make_frame, run_thread, scaled, wait_until
from tests.rawclient import PLAIN, RELIABLE, Clients, Closed, RawClient, upgrade_request

# --- recovery (3.3), keep-alive (1.7) ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["reset", "abort", "close 1001", "close 4000"])
def test_a_lost_connection_is_recovered(server, connect, cut):
    client, sender = connect(RELIABLE, groups=["lobby"], user_id="mina"), connect(PLAIN)
    sender.publish("lobby", "before")
    assert client.receive()["sequenceId"] == 1
    if cut == "reset":
        server.faults.drop_connections()
        sender = connect(PLAIN)
    elif cut == "abort":
        client.abort()
    else:
        client.close(int(cut[6:]))
    wait_until(lambda: server.stats()["retained"] == 1)
    sender.publish("lobby", "while away", ackId=1)
    sender.receive()
    again = client.recover()
    assert again.first["connectionId"] == client.connection_id
    assert [(m["sequenceId"], m["data"]) for m in again.receive_many(2)] == [(1, "before"), (2, "while away")]
    again.acknowledge(2)
    sender.publish("lobby", "after")
    assert again.receive()["sequenceId"] == 3
    assert server.stats()["recovered"] == 1
    again.abort()


def test_a_goodbye_with_1000_is_final(server, connect):
    client = connect(RELIABLE)
    client.close(1000)
    wait_until(lambda: not server.connections())
    with pytest.raises(Closed) as caught:
        client.recover()
    assert caught.value.code == 1008


@pytest.mark.parametrize("wrong", [{"token": "x"}, {"connection_id": "x"}])
def test_a_refused_recovery_is_an_accepted_websocket_closed_1008(connect, wrong):
    client = connect(RELIABLE)
    with pytest.raises(Closed) as caught:
        RawClient(client.recovery_url(**wrong), RELIABLE)
    assert caught.value.code == 1008
    client.assert_quiet()


def test_recovery_ignores_the_token_and_keeps_the_subprotocol(server, connect):
    client = connect(RELIABLE, groups=["lobby"])
    client.abort()
    with RawClient(client.recovery_url() + "&access_token=expired", PLAIN) as again:
        assert again.subprotocol == PLAIN  # what was offered is echoed
        server.hub("plaza").send_to_group("lobby", "x")
        assert again.receive()["sequenceId"] == 1  # and the original is spoken


def test_recovery_takes_over_a_socket_that_still_lives(connect):
    client = connect(RELIABLE)
    with client.recover() as again:
        client.expect_loss()
        again.assert_quiet()


def test_retained_sessions_expire_and_say_so(fresh_server):
    server = fresh_server(recovery_window=50 * MS)
    recorder = Recorder()
    server.on("disconnected", handler=lambda event: recorder.record("gone", event.reason))
    with RawClient(server.client_access_url("h"), RELIABLE) as client:
        client.abort()
        assert recorder.wait_event("gone") == "the client did not come back in time"
        assert server.connections() == []
        assert server.stats()["expired"] == 1


@contextlib.contextmanager
def dead_peer(server):
    """Connect a client that says nothing after its handshake; yields what reads to the end of the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=scaled(10)) as sock:
        sock.sendall(upgrade_request(server, server.client_access_url("h"), "Sec-WebSocket-Protocol: " + RELIABLE))

        def rest():
            received = b""
            while True:
                piece = sock.recv(4096)
                if not piece:
                    return received
                received += piece

        yield rest


def test_peers_are_pinged_and_dropped_when_they_are_dead(fresh_server):
    """Time is made to pass for the keep-alive only: in real time a busy machine makes any peer look dead."""
    server = fresh_server(keep_alive_interval=20.0)
    pump = server._pump

    def pass_21_seconds():
        for connection in pump.connections:
            connection.last_received -= 21
            connection.last_ping -= 21
        pump._keep_alive()

    with RawClient(server.client_access_url("h"), RELIABLE) as alive, dead_peer(server) as rest:
        wait_until(lambda: len(server.connections()) == 2)
        link = server._call(lambda: pump.work.hubs["h"].sessions[alive.connection_id].link)
        for _ in range(3):
            server._call(pass_21_seconds)
            assert alive.frame() == (websocket.ABNF.OPCODE_PING, b"")  # websocket-client answers while it reads
            wait_until(lambda: server._call(lambda: pump.loop.time() - link.last_received < 20))
        assert rest().count(b"\x89\x00") == 2  # it was asked before it was dropped
        wait_until(lambda: server.stats()["retained"] == 1)  # and may come back
        alive.assert_quiet()


def test_the_keep_alive_needs_nobody_to_start_it(fresh_server):
    server = fresh_server(keep_alive_interval=30 * MS)
    with dead_peer(server) as rest:
        assert b" 101 " in rest()
        wait_until(lambda: server.stats()["retained"] == 1)


# --- slow readers -----------------------------------------------------------------------------------------------------


def test_a_stuck_reliable_reader_is_closed_and_costs_its_group_one_moment(server, connect, monkeypatch):
    monkeypatch.setattr(server._pump, "close_timeout", scaled(20))
    waited = server._pump.work.waited
    stuck, healthy, sender = connect(RELIABLE, groups=["lobby"]), connect(PLAIN, groups=["lobby"]), connect(PLAIN)
    count = 3000

    def publish():
        for number in range(count):
            sender.publish("lobby", str(number))

    begin = time.monotonic()
    with run_thread(publish):
        arrived = [time.monotonic() for _ in range(count) if healthy.receive()]
    gaps = [later - earlier for earlier, later in zip([begin] + arrived, arrived)]
    assert max(gaps) < scaled(5)
    # Counted by the server's own measure of patience: on a busy machine gaps have many causes.
    assert 0 < server._pump.work.waited - waited < 2 * server.limits.patience
    assert stuck.expect_close()[0] == 1008
    stats = server.stats()
    assert (stats["overflowed"], stats["published"]) == (1, count)
    with pytest.raises(Closed) as caught:
        stuck.recover()
    assert caught.value.code == 1008


def test_a_stuck_plain_reader_is_closed(fresh_server):
    server = fresh_server(limits=Limits(max_unacked_bytes=2**20))
    url = server.client_access_url("h", groups=["lobby"])
    with RawClient(url, PLAIN) as stuck, RawClient(url, PLAIN) as healthy:
        data = "x" * 200_000
        for _ in range(200):  # far more than the buffers of the system can hold
            server.hub("h").send_to_group("lobby", data)
            assert healthy.receive()["data"] == data
            if server.stats()["overflowed"]:
                break
        assert server.stats()["overflowed"] == 1
        assert [info.connection_id for info in server.connections()] == [healthy.connection_id]
        assert stuck.first


def test_a_publisher_that_does_not_read_its_answers_is_not_answered_for_ever(server, connect):
    sender = connect(PLAIN)
    sender.ws.settimeout(scaled(1))
    frame = make_frame(1, json.dumps({"type": "ping"}).encode(), mask=b"abcd") * 20_000
    with pytest.raises((OSError, websocket.WebSocketTimeoutException)):
        for _ in range(200):
            sender.ws.sock.sendall(frame)
    assert connect(PLAIN).first  # the server is as responsive as ever


@pytest.fixture
def patient(fresh_server):
    """A server whose publishers wait for as long as it takes: a busy machine may stop a reader for any time."""
    server = fresh_server(limits=Limits(patience=600.0))
    with Clients(server) as clients:
        yield server, clients.connect


@pytest.mark.parametrize("members", [1, 3])
def test_a_flat_out_publisher_does_not_overflow_readers_that_acknowledge(patient, members):
    server, connect = patient
    count = 8_000
    readers = [connect(RELIABLE, groups=["lobby"], timeout=30) for _ in range(members)]

    def read(client):
        for number in range(1, count + 1):
            assert client.receive()["sequenceId"] == number
            if number % 300 == 0:
                client.acknowledge(number)

    sender = connect(PLAIN, timeout=30)
    threads = [run_thread(read, reader, join_timeout=60) for reader in readers]
    for thread in threads:
        thread.__enter__()
    text = json.dumps({"type": "sendToGroup", "group": "lobby", "dataType": "text", "data": "x" * 80})
    frame = make_frame(1, text.encode(), mask=b"abcd") * 1000
    for _ in range(count // 1000):
        sender.ws.sock.sendall(frame)
    for thread in threads:
        thread.__exit__(None, None, None)
    assert server.stats()["overflowed"] == 0


def test_a_flat_out_publisher_that_reads_its_own_echo_does_not_overflow(patient):
    server, connect = patient
    count = 8_000
    client = connect(RELIABLE, groups=["lobby"], timeout=30)
    lock = threading.Lock()  # websocket-client locks too, but not around the raw socket

    def publish():
        text = json.dumps({"type": "sendToGroup", "group": "lobby", "dataType": "text", "data": "x" * 80})
        frame = make_frame(1, text.encode(), mask=b"abcd") * 100
        for _ in range(count // 100):
            with lock:
                client.ws.sock.sendall(frame)

    with run_thread(publish, join_timeout=60):
        for number in range(1, count + 1):
            assert client.receive()["sequenceId"] == number
            if number % 300 == 0:
                with lock:
                    client.acknowledge(number)
    assert server.stats()["overflowed"] == 0


def test_a_plain_reader_that_pauses_and_catches_up_loses_nothing(fresh_server):
    server = fresh_server(limits=Limits(patience=600.0))
    with Clients(server) as clients:
        reader, sender = clients.connect(PLAIN, groups=["lobby"], timeout=30), clients.connect(PLAIN, timeout=30)
        size, count = 100_000, 300  # more than the buffers of the system and our own can hold

        def publish():
            for number in range(count):
                sender.publish("lobby", "%06d" % number + "x" * size)

        with run_thread(publish, join_timeout=60):
            wait_until(lambda: server._call(lambda: len(server._pump.work.congested)), timeout=20)
            assert [int(reader.receive()["data"][:6]) for _ in range(count)] == list(range(count))
        assert server.stats()["overflowed"] == 0


def test_sending_from_the_process_waits_for_receivers_too(fresh_server):
    server = fresh_server(limits=Limits(patience=600.0))
    with Clients(server) as clients:
        reader = clients.connect(RELIABLE, groups=["lobby"])

        def publish():
            for number in range(1300):
                server.hub("plaza").send_to_group("lobby", number)

        with run_thread(publish, join_timeout=60) as thread:
            wait_until(lambda: server.connections()[0].unacked == 601, timeout=20)
            assert [message["data"] for message in reader.receive_many(601)] == list(range(601))
            reader.assert_quiet()
            assert thread.running
            reader.acknowledge(601)
            assert [message["data"] for message in reader.receive_many(601)] == list(range(601, 1202))
            reader.acknowledge(1202)
        assert reader.receive_many(98)[-1]["sequenceId"] == 1300


def test_a_send_that_waits_is_told_that_the_server_stops(fresh_server):
    server = fresh_server(limits=Limits(patience=600.0))
    with Clients(server) as clients:
        clients.connect(RELIABLE, groups=["lobby"])

        def publish():
            with pytest.raises(ServerError, match="stopped|not running"):
                while True:
                    server.hub("plaza").send_to_group("lobby", "x")

        with run_thread(publish):
            wait_until(lambda: server.connections()[0].unacked == 601, timeout=20)
            server.stop()
