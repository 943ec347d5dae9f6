"""The way in: bounds, pauses, both sides that only send, TLS."""

from __future__ import annotations

import threading

import pytest

from simplepubsub.exceptions import InboxOverflow
from simplepubsub.websockets import ConnectionClosed, ConnectionClosedError, ReceiveTimeout
from simplepubsub.websockets import intake as module
from simplepubsub.websockets.intake import Intake
from tests.helpers import run_thread, scaled, self_signed, wait_until
from tests.websockets.kit import RawClient, connect, pair, serving
from tests.wire import TEXT, make_frame


def test_intake_pauses_when_full_and_goes_on_at_a_quarter():
    drained = []
    intake = Intake(8, lambda: drained.append(1), lambda: None)
    intake.add(list("abcdefg"))
    assert not intake.full and not intake.paused
    intake.add(list("hij"))
    intake.refill(False)
    assert intake.paused and len(intake.inbox) == 8
    assert "".join(intake.inbox.get(0) for _ in range(5)) == "abcde"
    intake.refill(False)
    assert intake.paused and len(intake.inbox) == 5  # h, i and j are in
    assert "".join(intake.inbox.get(0) for _ in range(3)) == "fgh" and drained
    intake.refill(False)
    assert not intake.paused and not intake.full
    assert [intake.inbox.get(0) for _ in range(2)] == ["i", "j"]


def test_intake_counts_bytes_too(monkeypatch):
    monkeypatch.setattr(module, "QUEUE_BYTES", 1000)
    intake = Intake(100, lambda: None, lambda: None)
    intake.add(["x" * 400] * 5)
    intake.refill(False)
    assert intake.paused and len(intake.inbox) == 2


def test_intake_reads_on_while_a_send_waits_and_overflows_in_the_end(monkeypatch):
    monkeypatch.setattr(module, "HELD_BYTES", 10_000)
    intake = Intake(4, lambda: None, lambda: None)
    while not intake.overflowing:
        intake.add(["x" * 100] * 3)
        intake.refill(True)
        assert not intake.paused and len(intake.inbox) <= 4
    assert intake._held_bytes < 12_000
    intake.refill(False)
    assert intake.paused


def test_intake_at_the_end_hands_over_what_is_held():
    intake = Intake(2, lambda: None, lambda: None)
    intake.add(list("abcdef"))
    intake.refill(False)
    intake.close(lambda: KeyError("over"))
    assert "".join(intake.inbox.get(0) for _ in range(6)) == "abcdef"
    with pytest.raises(KeyError):
        intake.inbox.get(0)


def test_intake_drops_without_a_gap():
    intake = Intake(2, lambda: None, lambda: None)
    intake.add(list("abc"))
    intake.refill(False)
    intake.drop()
    assert intake.inbox.get(0) + intake.inbox.get(0) == "ab"
    intake.add(["d"])
    assert len(intake.inbox) == 0 and not intake.paused


# ---- connections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
def test_a_slow_reader_slows_the_sender_and_loses_nothing(tmp_path, tls):
    certificate = self_signed(tmp_path, "127.0.0.1")
    count = 3000

    def flood(connection):
        for number in range(count):
            connection.send("%d " % number + "x" * 2000)

    with serving(flood, ssl=certificate.server_context if tls else None, close_timeout=scaled(30)) as server:
        with connect(server.url(), max_queue=16, **({"ssl": certificate.client_context} if tls else {})) as client:
            wait_until(lambda: client._intake.paused)
            assert client.unread <= 16
            for number in range(count):
                assert client.recv(scaled(10)).startswith("%d " % number)
            with pytest.raises(ConnectionClosed):
                client.recv(scaled(5))


def test_large_messages_are_bounded_by_bytes():
    with pair(max_size=None) as (client, server):
        with run_thread(lambda: [server.send(b"x" * 4_000_000) for _ in range(10)], join_timeout=30):
            wait_until(lambda: client._intake.paused)
            assert client.unread <= 5
            for _ in range(10):
                assert len(client.recv(scaled(10))) == 4_000_000


def test_both_sides_only_send_and_then_both_read():
    """Neither reads while it sends: what arrives meanwhile is held, so nobody waits for the other."""
    with pair({"max_queue": 4}, max_queue=4) as (client, server):
        def side(connection):
            for _ in range(60):
                connection.send(b"x" * 100_000, timeout=scaled(20))
            return sum(len(connection.recv(scaled(20))) for _ in range(60))

        with run_thread(side, client, join_timeout=60) as one, run_thread(side, server, join_timeout=60) as two:
            assert one.result(scaled(30)) == two.result(scaled(30)) == 6_000_000


def test_a_side_that_never_reads_fails_and_does_not_eat_the_memory(monkeypatch):
    monkeypatch.setattr(module, "HELD_BYTES", 1_000_000)
    # The other side may have stopped reading before the close frame: then it is cut off after this time.
    options = {"max_queue": 4, "close_timeout": 0.5}
    with pair(options, **options) as (client, server):
        def side(connection):
            while True:
                connection.send(b"x" * 100_000, timeout=scaled(20))

        with run_thread(side, client, join_timeout=60) as one, run_thread(side, server, join_timeout=60) as two:
            errors = [one.exception(scaled(30)), two.exception(scaled(30))]
        assert all(isinstance(error, ConnectionClosedError) for error in errors)
        assert any(isinstance(error.__cause__, InboxOverflow) for error in errors)


def test_messages_in_any_cuts():
    messages = ["", "x", "é" * 200, "y" * 70_000]
    data = b"".join(make_frame(TEXT, message.encode(), mask=b"abcd") for message in messages)
    got = []
    with serving(lambda connection: got.extend(connection)) as server:
        for size in (1, 7, 1000):
            del got[:]
            with RawClient(server) as raw:
                for start in range(0, len(data) if size > 1 else 500, size):
                    raw.sock.sendall(data[start:start + size])
                raw.sock.sendall(data[500:] if size == 1 else b"")
                raw.send(8, b"\x03\xe8")
                assert raw.close_frame() == (1000, "")
            wait_until(lambda: not server._threads)
            assert got == messages


def test_timeouts_of_recv():
    with pair() as (client, server):
        with pytest.raises(ReceiveTimeout) as caught:
            client.recv(0)
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(ReceiveTimeout):
            client.recv(timeout=0.01)
        for bad in (-1, "1", True, float("nan")):
            with pytest.raises(ValueError):
                client.recv(bad)
        server.send("x")
        assert client.recv(float("inf")) == "x"


def test_many_receivers_share_the_messages(switch_interval):
    with pair({"close_timeout": scaled(30)}, max_queue=50) as (client, server):  # it is all read before the close
        got, lock = [], threading.Lock()

        def receive():
            for message in client:
                with lock:
                    got.append(int(message))

        receivers = [threading.Thread(target=receive) for _ in range(4)]
        for thread in receivers:
            thread.start()
        for number in range(2000):
            server.send(str(number))
        server.close()
        for thread in receivers:
            thread.join(scaled(20))
        assert sorted(got) == list(range(2000))
