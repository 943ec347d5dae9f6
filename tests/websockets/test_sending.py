"""The way out: order, gathering, partial writes, fragments, control frames, broadcast."""

from __future__ import annotations

import threading
import time

import pytest

from simplepubsub import websockets
from simplepubsub.exceptions import InvalidArgument, SimplePubSubError
from simplepubsub.websockets import ConnectionClosedError, SendTimeout
from simplepubsub.websockets import connection as connection_module
from tests.helpers import ScriptedPeer, run_python, run_thread, scaled, self_signed, wait_until
from tests.websockets.kit import RawClient, connect, echo, pair, serving
from tests.wire import BINARY, CONTINUATION, PING, PONG, TEXT, make_frame


@pytest.mark.parametrize("message, text, expected", [
    ("x", None, "x"), ("", None, ""), ("é\U0001f600", None, "é\U0001f600"), ("é", False, "é".encode()),
    (b"x", None, b"x"), (b"", None, b""), (bytearray(b"ab"), None, b"ab"), (memoryview(b"abcd")[::2], None, b"ac"),
    ("é".encode(), True, "é"),
    (["a", "b", "c"], None, "abc"), ([b"a", b"b"], None, b"ab"), (iter(["a"]), None, "a"), (["", ""], None, ""),
    ((part for part in ("a", "b")), None, "ab"), ([b"a", bytearray(b"b")], True, "ab"),
])
def test_kinds_of_messages(message, text, expected):
    with pair() as (client, server):
        client.send(message, text)
        assert server.recv(scaled(5)) == expected


@pytest.mark.parametrize("message", [None, 1, {"a": 1}, 1.5, object(), ["a", b"b"], [1], "\ud800", ["a", "\ud800"]],
                         )
def test_what_is_no_message(message):
    with pair() as (client, server):
        with pytest.raises(InvalidArgument):
            client.send(message)
        if not isinstance(message, list) or len(message) == 1:  # nothing was sent
            client.send("ok")
            assert server.recv(scaled(5)) == "ok"


def test_an_empty_iterable_sends_nothing():
    with pair() as (client, server):
        client.send([])
        client.send("next")
        assert server.recv(scaled(5)) == "next"


def test_decode_at_the_receiver():
    with pair() as (client, server):
        client.send("é")
        client.send("é".encode())
        assert server.recv(scaled(5), decode=False) == "é".encode()
        assert server.recv(scaled(5), decode=True) == "é"


@pytest.mark.parametrize("tls", [False, True])
def test_large_messages_in_both_directions(tmp_path, tls):
    certificate = self_signed(tmp_path, "127.0.0.1") if tls else None
    options = {"ssl": certificate.server_context} if tls else {}
    message = bytes(range(256)) * 4 * 2**10 * 8  # 8 MiB
    with serving(echo, max_size=None, **options) as server:
        with connect(server.url(), max_size=None, **({"ssl": certificate.client_context} if tls else {})) as client:
            began = time.monotonic()
            client.send(message)
            assert client.recv(scaled(20)) == message
            client.send([message[:5], message[5:]])
            assert client.recv(scaled(20)) == message
            assert time.monotonic() - began < scaled(30)


def test_a_large_message_is_not_copied_for_every_piece_that_is_written():
    # 24 MiB in pieces of what a socket takes: copying the rest each time would move gigabytes.
    message = b"x" * (24 * 2**20)
    with pair({"max_size": None}) as (client, server):
        began = time.process_time()
        client.send(message, timeout=scaled(30))
        assert len(server.recv(scaled(30))) == len(message)
        assert time.process_time() - began < scaled(5)


def test_many_threads_keep_their_order(switch_interval):
    with pair({"max_queue": 100_000}) as (client, server):
        def sends(name):
            for number in range(500):
                client.send("%d %d" % (name, number))

        senders = [threading.Thread(target=sends, args=(name,)) for name in range(6)]
        for thread in senders:
            thread.start()
        got = [server.recv(scaled(20)) for _ in range(3000)]
        for thread in senders:
            thread.join()
        for name in range(6):
            assert [g for g in got if g.startswith("%d " % name)] == ["%d %d" % (name, n) for n in range(500)]


def test_what_was_gathered_never_gets_stuck(switch_interval):
    """The last of a few messages in a row is left to the poller; every one must arrive without another push."""
    with serving(echo) as server, connect(server.url()) as client:
        for turn in range(300):
            for number in range(1 + turn % 7):
                client.send("%d" % number)
            for number in range(1 + turn % 7):
                assert client.recv(scaled(5)) == "%d" % number


def test_messages_in_a_row_share_system_calls(monkeypatch):
    """How many depends on the machine, but for two things: what counts as in a row, and when the poller gets a turn."""
    monkeypatch.setattr(connection_module, "IN_A_ROW", 3600.0)
    with pair() as (client, server):
        calls, blocked, go = [], threading.Event(), threading.Event()
        client._poller.call(lambda: (blocked.set(), go.wait(scaled(20))))
        assert blocked.wait(scaled(10))  # not before: the beginning of a connection writes what it finds
        real = client._sock.send
        client._sock.send = lambda data, done: (calls.append(1), real(data, done))
        for number in range(1000):
            client.send("%020d" % number)
        assert 1 <= len(calls) <= 3, len(calls)  # the first at once, and whenever 16 KiB have gathered
        go.set()
        assert [server.recv(scaled(5)) for _ in range(1000)] == ["%020d" % number for number in range(1000)]
        assert len(calls) <= 5, len(calls)


def test_messages_in_a_row_are_told_by_the_time_between_them(monkeypatch):
    monkeypatch.setattr(connection_module, "IN_A_ROW", 0.0)
    with pair() as (client, server):
        calls = []
        real = client._sock.send
        client._sock.send = lambda data, done: (calls.append(1), real(data, done))
        for number in range(10):
            client.send("x")
            assert len(calls) == number + 1


def test_the_exit_of_the_interpreter_writes_what_gathered():
    got = []
    over = threading.Event()

    def collect(connection):
        try:
            for message in connection:
                got.append(message)
        finally:
            over.set()

    with serving(collect) as server:
        for _ in range(2):
            del got[:]
            over.clear()
            run_python(
                """
                import sys
                from simplepubsub import websockets
                from simplepubsub.websockets import poller
                poller.EXIT_WAIT = 20.0  # no limit for a machine that stalls
                connection = websockets.connect(sys.argv[1], proxy=None)
                for number in range(50):
                    connection.send(str(number))
                """, server.url())
            assert over.wait(scaled(5))
            assert got == [str(number) for number in range(50)]


# ---- a peer that does not read --------------------------------------------------------------------------------------


def test_a_send_to_a_peer_that_does_not_read_waits_for_room_and_says_so():
    with ScriptedPeer(lambda conn: conn.hang(), subprotocol=None) as peer:
        client = connect(peer.url(), close_timeout=0.1)
        sent = 0
        with pytest.raises(SendTimeout, match="does not read") as caught:
            while True:
                client.send(b"x" * 100_000, timeout=scaled(0.2))
                sent += 1
        assert isinstance(caught.value, TimeoutError)
        assert client.state.value == "open"
        assert client._out_bytes < 300_000
        with pytest.raises(SendTimeout):
            while True:  # the system may still have found some room
                client.send(b"x" * 100_000, timeout=0)
        began = time.monotonic()
        client.close(timeout=scaled(0.2))
        assert time.monotonic() - began < scaled(10)
        peer.close(check=False)


def test_a_waiting_send_goes_on_when_the_peer_reads():
    gate = threading.Event()
    got = []

    def late(conn):
        gate.wait(scaled(10))
        while True:
            got.append(len(conn.recv_message()))

    with ScriptedPeer(late, subprotocol=None) as peer, connect(peer.url()) as client:
        with run_thread(lambda: [client.send(b"x" * 500_000) for _ in range(40)]) as sender:
            wait_until(lambda: client._blocked)
            assert sender.running
            gate.set()
            sender.result(scaled(10))
        wait_until(lambda: len(got) == 40)


def test_a_send_ends_when_the_connection_does():
    with ScriptedPeer(lambda conn: conn.hang(), subprotocol=None) as peer:
        client = connect(peer.url(), close_timeout=0.2)
        with run_thread(lambda: [client.send(b"x" * 500_000) for _ in range(1000)]) as sender:
            wait_until(lambda: client._waiting_sends)
            client.close()
            assert isinstance(sender.exception(scaled(5)), websockets.ConnectionClosed)
        peer.close(check=False)


# ---- fragments ------------------------------------------------------------------------------------------------------


def test_fragments_on_the_wire():
    def script(conn):
        frames = [conn.recv_frame() for _ in range(3)]
        assert [(f.opcode, f.payload, f.fin) for f in frames] == [
            (TEXT, b"a", False), (CONTINUATION, b"b", False), (CONTINUATION, b"c", True)]
        frame = conn.recv_frame()
        assert (frame.opcode, frame.payload, frame.fin) == (BINARY, b"one", True)
        conn.close()

    with ScriptedPeer(script, subprotocol=None) as peer, connect(peer.url()) as client:
        client.send(iter("abc"))
        client.send([b"one"])
        assert list(client) == []


class Parts:
    """Parts of a message; the first two come at once, then ``half`` is set, and the others wait for ``go``."""

    def __init__(self, *parts):
        self.parts = parts
        self.half, self.go = threading.Event(), threading.Event()

    def __iter__(self):
        yield from self.parts[:2]
        self.half.set()
        self.go.wait(scaled(10))
        yield from self.parts[2:]


def test_other_senders_wait_for_the_end_of_a_fragmented_message_and_control_frames_do_not():
    parts = Parts("a", "b", "c")
    with pair() as (client, server):
        with run_thread(client.send, iter(parts)) as fragments:
            assert parts.half.wait(scaled(5))
            with pytest.raises(SendTimeout, match="another thread sends an iterable"):
                client.send("x", timeout=0.05)
            assert client.ping().result(scaled(5)) > 0
            with run_thread(client.send, "after") as other:
                assert websockets.broadcast([client], "broadcast") == []
                wait_until(lambda: other.running)
                parts.go.set()
                fragments.result(scaled(5))
        assert server.recv(scaled(5)) == "abc"
        assert sorted(server.recv(scaled(5)) for _ in range(2)) == ["after", "broadcast"]


def test_a_wait_for_fragments_does_not_switch_off_flow_control():
    parts = Parts("a", "b")
    with pair(max_queue=2) as (client, server):
        with run_thread(client.send, iter(parts)), run_thread(lambda: parts.half.wait(scaled(5)) and client.send("x")):
            assert parts.half.wait(scaled(5))
            for _ in range(100):
                server.send("y" * 1000)
            wait_until(lambda: client._intake.paused)
            parts.go.set()
        assert server.recv(scaled(5)) == "ab"


class Broken(Exception):
    pass


def failing(after):
    for number in range(after):
        yield str(number)
    raise Broken


def test_an_iterable_that_fails_at_once_sends_nothing():
    with pair() as (client, server):
        for after in (0, 1):  # one part is held back until the next one is known
            with pytest.raises(Broken):
                client.send(failing(after))
        client.send("ok")
        assert server.recv(scaled(5)) == "ok"


def test_an_iterable_that_fails_in_the_middle_ends_the_connection():
    with pair() as (client, server):
        with pytest.raises(Broken):
            client.send(failing(3))
        with pytest.raises(ConnectionClosedError) as caught:
            server.recv(scaled(5))
        assert caught.value.code == 1011
        with pytest.raises(ConnectionClosedError, match="given up before its end"):
            client.send("x")


def test_a_close_in_the_middle_of_an_iterable_is_an_ordinary_close():
    parts = Parts("a", "b", "c")
    with pair() as (client, server):
        with run_thread(client.send, iter(parts)) as sender:
            assert parts.half.wait(scaled(5))
            with run_thread(client.close):
                wait_until(lambda: client.state.value != "open")
                parts.go.set()
                assert isinstance(sender.exception(scaled(5)), websockets.ConnectionClosedOK)
        assert client.close_code == 1000


def test_an_iterable_must_not_send_on_its_own_connection():
    with pair() as (client, server):
        def parts(message):
            yield "a"
            yield "b"
            client.send(message, timeout=scaled(5))
            yield "c"

        for message in ("x", ["y", "z"]):
            with pytest.raises(InvalidArgument, match="must not send on the same connection"):
                client.send(parts(message))
            break
        with pytest.raises(websockets.ConnectionClosed):
            server.recv(scaled(5))


# ---- pings ----------------------------------------------------------------------------------------------------------


def test_pings_and_pongs():
    with pair() as (client, server):
        latency = client.ping().result(scaled(5))
        assert 0 < latency < scaled(5) and client.latency == latency
        assert server.ping(b"data").result(scaled(5)) > 0
        assert client.ping("text").result(scaled(5)) > 0
        client.pong()
        client.pong(b"unasked")
        for bad in (b"x" * 126, 5, None):
            with pytest.raises(InvalidArgument):
                client.pong(bad)


def test_an_answer_counts_for_older_pings_and_equal_ones_are_refused():
    def script(conn):
        frames = [conn.recv_frame() for _ in range(3)]
        assert [frame.opcode for frame in frames] == [PING] * 3
        conn.send_frame(PONG, b"nobody sent this")
        conn.send_frame(PONG, frames[1].payload)
        assert conn.recv_text() == "go on"
        conn.close()

    with ScriptedPeer(script, subprotocol=None) as peer, connect(peer.url()) as client:
        first, second, third = client.ping(b"a"), client.ping(b"b"), client.ping(b"c")
        with pytest.raises(InvalidArgument, match="unanswered"):
            client.ping(b"c")
        assert first.result(scaled(5)) >= second.result(scaled(5))
        assert not third.done()
        client.send("go on")
        assert list(client) == []
        assert isinstance(third.exception(scaled(5)), websockets.ConnectionClosedOK)
        with pytest.raises(websockets.ConnectionClosed):
            client.ping()
        with pytest.raises(websockets.ConnectionClosed):
            client.pong()


def test_a_callback_of_a_future_cannot_hold_the_poller():
    with ScriptedPeer(lambda conn: conn.hang(), subprotocol=None) as peer, \
            connect(peer.url(), close_timeout=0.2) as blocked, pair(close_timeout=scaled(60)) as (client, server):
        blocked.send(b"x" * 16_000_000)  # more than the buffers of the system take
        with pytest.raises(SendTimeout):
            blocked.send("x", timeout=0)
        outcomes = []

        def callback(future):
            for call in (lambda: client.recv(), lambda: client.recv(timeout=scaled(60)), lambda: client.recv(timeout=0),
                         lambda: blocked.send("x"), lambda: client.send("from the callback"), lambda: client.close()):
                try:
                    outcomes.append(call())
                except SimplePubSubError as error:
                    outcomes.append(type(error).__name__)

        began = time.monotonic()
        held, attached = threading.Event(), threading.Event()
        client._poller.call(lambda: (held.set(), attached.wait(scaled(5))))
        assert held.wait(scaled(5))  # no answer is read before the callback is there
        client.ping().add_done_callback(callback)
        attached.set()
        wait_until(lambda: len(outcomes) == 6, timeout=10)
        assert outcomes == ["InvalidArgument", "InvalidArgument", "ReceiveTimeout", "InvalidArgument", None, None]
        assert time.monotonic() - began < scaled(20)
        assert server.recv(scaled(5)) == "from the callback"
        peer.close(check=False)


def test_pings_of_a_peer_that_does_not_read_do_not_pile_up():
    with serving(lambda connection: connection.recv(), ping_interval=None, close_timeout=0.1) as server:
        with RawClient(server, receive_buffer=4096) as raw:
            wait_until(lambda: server.connections)
            connection = next(iter(server.connections))
            websockets.broadcast([connection], b"x" * 8_000_000)  # more than the buffers of the system take
            ping = make_frame(PING, b"p" * 125, mask=b"abcd")
            for _ in range(200):
                raw.sock.sendall(ping * 100)
            raw.send(PING, b"the last")
            wait_until(lambda: connection._pong_due == b"the last")
            assert sum(map(len, connection._out)) < 2_000_000
            while raw.frame() != (0x80 | PONG, b"the last"):
                pass


# ---- broadcast ------------------------------------------------------------------------------------------------------


def test_broadcast_keeps_the_order_on_every_connection():
    with pair() as (one, from_one), pair() as (two, from_two):
        for number in range(200):
            from_one.send("s%d" % number) if number % 3 else None
            assert websockets.broadcast([from_one, from_two], "b%d" % number) == []
        assert [two.recv(scaled(5)) for _ in range(200)] == ["b%d" % n for n in range(200)]
        expected = [x for n in range(200) for x in (["s%d" % n] if n % 3 else []) + ["b%d" % n]]
        assert [one.recv(scaled(5)) for _ in range(len(expected))] == expected
        assert websockets.broadcast({one, two}, b"up") == []  # clients can, too
        assert from_one.recv(scaled(5)) == from_two.recv(scaled(5)) == b"up"


def test_broadcast_never_waits_and_closes_who_is_too_far_behind():
    with serving(lambda connection: connection.recv(), ping_interval=None, close_timeout=0.1) as server:
        with RawClient(server, receive_buffer=4096), connect(server.url()) as quick:
            wait_until(lambda: len(server.connections) == 2)
            everybody = server.connections
            began = time.monotonic()
            rounds = 0
            left_out = []
            while not left_out:
                left_out = websockets.broadcast(everybody, b"x" * 100_000)
                assert quick.recv(scaled(5))
                rounds += 1
            assert time.monotonic() - began < scaled(20)
            slow, = left_out
            assert slow.state is not websockets.State.OPEN
            with pytest.raises(ConnectionClosedError, match="did not read what was broadcast") as caught:
                slow.recv(scaled(5))
            assert caught.value.sent == (1008, "too slow")
            assert websockets.broadcast(everybody, b"next") == [slow]
            assert quick.recv(scaled(5)) == b"next"


@pytest.mark.parametrize("message", [["a", "b"], None, {"a": 1}, 5, "\ud800"])
def test_broadcast_of_what_is_no_message(message):
    with pair() as (client, server):
        with pytest.raises(InvalidArgument):
            websockets.broadcast([server], message)
