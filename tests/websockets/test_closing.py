"""The end of a connection: who says what, what the application is told, and how long it takes."""

from __future__ import annotations

import array
import gc
import sys
import threading
import time

import pytest

if sys.platform == "linux":
    import fcntl
    import termios

from simplepubsub.exceptions import InvalidArgument, RemoteProtocolError
from simplepubsub.transports.frames import close_payload
from simplepubsub.websockets import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, State
from tests.helpers import ScriptedPeer, run_thread, scaled, self_signed, wait_until
from tests.websockets.kit import RawClient, connect, pair, serving
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, TEXT, make_frame

OK, ERROR = ConnectionClosedOK, ConnectionClosedError


def outcome(connection):
    """The messages that are left, and the error behind them."""
    messages = []
    while True:
        try:
            messages.append(connection.recv(scaled(5)))
        except ConnectionClosed as error:
            return messages, error


@pytest.mark.parametrize("code, reason, kind", [
    (1000, "", OK), (1001, "bye", OK), (1002, "", ERROR), (1003, "", ERROR), (1007, "", ERROR), (1011, "é" * 61, ERROR),
    (1012, "restart", ERROR), (1014, "", ERROR), (3000, "x" * 123, ERROR), (4999, "own", ERROR),
])
@pytest.mark.parametrize("who", ["client", "server"])
def test_codes_and_reasons(who, code, reason, kind):
    with pair() as (client, server):
        first, second = (client, server) if who == "client" else (server, client)
        assert first.close_code is None and first.close_reason is None and first.state is State.OPEN
        first.send("last words")
        first.close(code, reason)
        messages, error = outcome(second)
        assert messages == ["last words"]
        assert type(error) is kind
        assert (error.code, error.reason, error.rcvd, error.sent) == (code, reason, (code, reason), (code, reason))
        assert error.by == "peer"
        assert type(outcome(first)[1]) is kind and outcome(first)[1].by == who
        for end in (first, second):
            wait_until(lambda end=end: end.state is State.CLOSED)
            assert (end.close_code, end.close_reason) == (code, reason)
        with pytest.raises(kind):
            second.send("x")
        first.close()
        second.close(4000)  # once more does nothing
        assert second.close_code == code


def test_a_close_frame_without_a_code():
    def script(conn):
        conn.send_frame(CLOSE)
        assert conn.recv_close() == (None, "") or True

    with ScriptedPeer(script, subprotocol=None) as peer, connect(peer.url()) as client:
        messages, error = outcome(client)
        assert type(error) is OK and error.code == 1005 and error.rcvd == error.sent == (1005, "")
        assert (client.close_code, client.close_reason) == (1005, "")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, True, "1000", None, 1000.0])
def test_codes_that_cannot_be_sent(code):
    with pair() as (client, server):
        with pytest.raises(InvalidArgument, match="close code"):
            client.close(code)
        assert client.state is State.OPEN


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, b"x", None, "\ud800"])
def test_reasons_that_cannot_be_sent(reason):
    with pair() as (client, server):
        with pytest.raises(InvalidArgument):
            client.close(1000, reason)


def test_both_close_at_once():
    for _ in range(20):
        with pair() as (client, server):
            with run_thread(client.close, 4001), run_thread(server.close, 4002):
                pass
            assert client.state is server.state is State.CLOSED
            assert client.close_code in (4001, 4002) and server.close_code in (4001, 4002)


def test_with_closes_1000_or_1011():
    codes = []
    with serving(lambda connection: codes.append(outcome(connection)[1].code)) as server:
        with connect(server.url()):
            pass
        wait_until(lambda: codes)  # the handlers run in threads of their own: one after the other
        with pytest.raises(KeyError):
            with connect(server.url()):
                raise KeyError
        wait_until(lambda: len(codes) == 2)
    assert codes == [1000, 1011]


def test_iteration_ends_at_a_normal_close_and_raises_otherwise():
    with pair() as (client, server):
        server.send("a")
        server.close(1001)
        assert list(client) == ["a"]
    with pair() as (client, server):
        server.send("a")
        server.close(1011)
        got = []
        with pytest.raises(ConnectionClosedError):
            for message in client:
                got.append(message)
        assert got == ["a"]


# ---- what wakes up ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["client", "server"])
def test_a_close_in_another_thread_wakes_everybody(end):
    with ScriptedPeer(lambda conn: (conn.recv_frame(), conn.hang()), subprotocol=None) as peer:
        client = connect(peer.url(), close_timeout=0.2)
        future = client.ping()
        with run_thread(client.recv) as receiver, run_thread(client.recv) as another:
            wait_until(lambda: client._inbox._waiting == 2)
            client.close()
            for thread in (receiver, another):
                assert isinstance(thread.exception(scaled(5)), ConnectionClosedError)
        assert isinstance(future.exception(scaled(5)), ConnectionClosedError)
        peer.close(check=False)


def test_each_caller_gets_an_error_of_its_own():
    with pair() as (client, server):
        server.close(1011, "why")
        first, second = outcome(client)[1], outcome(client)[1]
        assert first is not second and str(first) == str(second)
        assert "1011" in str(first) and "why" in str(first)


# ---- peers that do not close properly --------------------------------------------------------------------------------


def does_not_answer(conn):
    while True:
        conn.recv_frame()


def cuts(conn):
    conn.recv_frame()
    conn.reset()


def ends(conn):
    conn.recv_frame()


@pytest.mark.parametrize("script, limit", [
    (lambda conn: conn.hang(), 0.3), (does_not_answer, 0.3), (cuts, 2), (ends, 2),
], ids=["deaf", "no answer", "reset", "end"])
def test_close_is_bounded(script, limit):
    with ScriptedPeer(script, subprotocol=None) as peer:
        client = connect(peer.url(), close_timeout=scaled(0.3))
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < scaled(limit + 5)
        wait_until(lambda: client.state is State.CLOSED)  # a bounded close() does not wait for a poller that is stalled
        assert client.close_code == 1006 and client.close_reason == ""
        error = outcome(client)[1]
        assert type(error) is ERROR and error.rcvd is None and error.sent == (1000, "")
        peer.close(check=False)


def test_close_takes_a_timeout_of_its_own():
    with ScriptedPeer(does_not_answer, subprotocol=None) as peer:
        for timeout in (0, 0.1):
            client = connect(peer.url(), close_timeout=60)
            began = time.monotonic()
            client.close(timeout=timeout)
            assert time.monotonic() - began < scaled(10)
            wait_until(lambda client=client: client.state is State.CLOSED)
        peer.close(check=False)


@pytest.mark.parametrize("how, text", [
    (lambda conn: conn.finish(), "without a close frame"), (lambda conn: conn.reset(), "broke while reading"),
])
@pytest.mark.parametrize("before", [b"", make_frame(TEXT, b"x")[:1], make_frame(TEXT, b"x" * 1000)[:500],
                                    make_frame(TEXT, b"x", fin=False), make_frame(CLOSE, close_payload(1000))[:3]])
def test_a_peer_that_goes_at_any_point(how, text, before):
    def script(conn):
        conn.send_text("whole")
        conn.recv_text()
        if before:
            conn.send_raw(before)
        how(conn)

    with ScriptedPeer(script, subprotocol=None) as peer, connect(peer.url()) as client:
        assert client.recv(scaled(5)) == "whole"
        client.send("go")
        messages, error = outcome(client)
        assert messages == []
        assert type(error) is ERROR and error.code == 1006 and error.by == "network"
        assert error.rcvd is error.sent is None
        assert text in str(error) or "without a close frame" in str(error)
        assert error.__cause__ is not None
        assert client.close_code == 1006


def test_a_client_that_half_closes_is_answered_and_let_go():
    errors = []
    with serving(lambda connection: errors.append(outcome(connection))) as server:
        with RawClient(server) as raw:
            raw.send(TEXT, b"hello")
            raw.sock.shutdown(1)
            assert raw.rest() == b""
            wait_until(lambda: errors)
        messages, error = errors[0]
        assert messages == ["hello"] and error.code == 1006


# ---- violations ------------------------------------------------------------------------------------------------------

VIOLATIONS = [
    ("reserved bit", make_frame(TEXT, b"x", rsv=4, mask=b"abcd"), 1002),
    ("unknown opcode", make_frame(3, b"x", mask=b"abcd"), 1002),
    ("unknown control opcode", make_frame(0xB, b"x", mask=b"abcd"), 1002),
    ("continuation of nothing", make_frame(CONTINUATION, b"x", mask=b"abcd"), 1002),
    ("message in a message", make_frame(TEXT, b"x", fin=False, mask=b"abcd") * 2, 1002),
    ("fragmented ping", make_frame(PING, b"x", fin=False, mask=b"abcd"), 1002),
    ("long ping", make_frame(PING, b"x" * 126, mask=b"abcd"), 1002),
    ("wrong mask", make_frame(TEXT, b"x"), 1002),
    ("close of one byte", make_frame(CLOSE, b"x", mask=b"abcd"), 1002),
    ("close with 1005", make_frame(CLOSE, close_payload(1005), mask=b"abcd"), 1002),
    ("close with a bad reason", make_frame(CLOSE, b"\x03\xe8\xff", mask=b"abcd"), 1007),
    ("text that is no UTF-8", make_frame(TEXT, b"\xff", mask=b"abcd"), 1007),
    ("a fragment that is no UTF-8", make_frame(TEXT, b"\xff\xff", fin=False, mask=b"abcd"), 1007),
    ("too long", make_frame(TEXT, b"x" * 101, mask=b"abcd"), 1009),
    ("too long, in parts", make_frame(TEXT, b"x" * 60, fin=False, mask=b"abcd")
     + make_frame(CONTINUATION, b"x" * 60, mask=b"abcd"), 1009),
    ("a length that lies", make_frame(BINARY, b"", mask=b"abcd", length=2**62), 1009),
]


@pytest.mark.parametrize("name, data, code", VIOLATIONS, ids=[row[0] for row in VIOLATIONS])
def test_a_violation_is_answered_with_its_code(name, data, code):
    errors = []
    with serving(lambda connection: errors.append(outcome(connection)), max_size=100) as server:
        with RawClient(server) as raw:
            before, later = [make_frame(TEXT, text, mask=b"abcd") for text in (b"before", b"later")]
            raw.sock.sendall(before + data + later)
            told, reason = raw.close_frame()
            assert told == code and reason
            assert raw.rest() == b""  # FIN at once, the client need not wait for anything
            wait_until(lambda: errors)  # and the application knows
        messages, error = errors[0]
        assert messages == ["before"]
        assert type(error) is ERROR and error.sent == (code, reason) and error.rcvd is None
        assert isinstance(error.__cause__, RemoteProtocolError)


def test_the_client_answers_violations_too():
    def script(conn):
        conn.send_frame(TEXT, b"\xff")
        assert conn.recv_close()[0] == 1007

    with ScriptedPeer(script, subprotocol=None) as peer, connect(peer.url()) as client:
        messages, error = outcome(client)
        assert error.sent[0] == 1007 and isinstance(error.__cause__, RemoteProtocolError)


def test_a_violation_in_answer_to_our_close_ends_it_at_once():
    def script(conn):
        conn.recv_frame()
        conn.send_frame(3)
        conn.hang()

    with ScriptedPeer(script, subprotocol=None) as peer:
        client = connect(peer.url(), close_timeout=60)
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < scaled(5)
        assert client.close_code == 1006
        peer.close(check=False)


def test_data_after_our_close_frame_can_still_be_received():
    def script(conn):
        assert conn.recv_frame().opcode == CLOSE
        conn.send_text("on the way")
        conn.send_frame(CLOSE, close_payload(1000))

    with ScriptedPeer(script, subprotocol=None) as peer:
        client = connect(peer.url())
        client.close()
        messages, error = outcome(client)
        assert messages == ["on the way"] and type(error) is OK


def test_nothing_counts_after_a_close_frame():
    def script(conn):
        close = make_frame(CLOSE, close_payload(1000))
        conn.send_raw(make_frame(TEXT, b"a") + close + make_frame(TEXT, b"b") + b"\xff")

    with ScriptedPeer(script, subprotocol=None) as peer, connect(peer.url()) as client:
        messages, error = outcome(client)
        assert messages == ["a"] and type(error) is OK


def test_nothing_is_sent_after_the_close_frame():
    with pair() as (client, server):
        client.close()
        for call in (lambda: client.send("x"), lambda: client.send(["x"]), client.ping, client.pong):
            with pytest.raises(ConnectionClosedOK):
                call()


def unread_bytes(sock):
    answer = array.array("i", [0])
    fcntl.ioctl(sock, termios.FIONREAD, answer)
    return answer[0]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a reset drops what has arrived")
@pytest.mark.parametrize("tls", [False, True])
def test_what_a_peer_sent_before_it_went_is_received_though_our_write_fails(tmp_path, tls):
    """It sends a lot, closes properly and goes; we were not reading, and learn of it by a write that fails."""
    certificate = self_signed(tmp_path, "127.0.0.1")
    paused, gone = threading.Event(), threading.Event()

    def script(conn):
        for number in range(10):
            conn.send_text(str(number))
        paused.wait(scaled(20))
        for number in range(10, 60):  # stays in the system's buffer
            conn.send_text("%d " % number + "x" * 500)
        conn.send_frame(CLOSE, close_payload(1000))
        conn.recv_frame()
        conn.sock.close()
        gone.set()

    with ScriptedPeer(script, subprotocol=None, ssl_context=certificate.server_context if tls else None) as peer:
        options = {"ssl": certificate.client_context} if tls else {}
        with connect(peer.url(), max_queue=4, close_timeout=scaled(30), ping_interval=None, **options) as client:
            wait_until(lambda: client._intake.paused)
            client._poller.settle(scaled(5))
            paused.set()
            client.send("x")
            assert gone.wait(scaled(5))
            wait_until(lambda: unread_bytes(client._sock.sock) > 25_000)  # it is here, and a reset does not undo that
            with pytest.raises(ConnectionClosedError, match="broke while writing"):
                for _ in range(200):
                    client.send("y" * 1000, timeout=scaled(5))
                    client._poller.settle(scaled(5))
            messages, error = outcome(client)
            assert [message.split()[0] for message in messages] == [str(number) for number in range(60)]
            assert type(error) is OK and error.rcvd == (1000, "")
        peer.close(check=False)


def test_a_dead_connection_that_nobody_reads_is_closed_at_once():
    def script(conn):
        for _ in range(50):
            conn.send_text("x")
        conn.recv_frame()
        conn.reset()

    with ScriptedPeer(script, subprotocol=None) as peer:
        client = connect(peer.url(), max_queue=2, close_timeout=60)
        wait_until(lambda: client._intake.paused)
        with pytest.raises(ConnectionClosedError):
            while True:
                client.send("y" * 1000)
                client._poller.settle(scaled(5))
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < scaled(5)


def test_calls_on_a_closed_connection_start_no_thread(monkeypatch):
    with pair() as (client, server):
        client.close()
        wait_until(lambda: client._poller._thread is None)
        monkeypatch.setattr(client._poller, "_start_locked", lambda function: pytest.fail("a thread for nothing"))
        client.close()
        for call in (lambda: client.send("x"), client.recv, client.ping, client.pong):
            with pytest.raises(ConnectionClosedOK):
                call()
        assert list(client) == [] and client.offer(b"x", 1) is False


# ---- what is left ----------------------------------------------------------------------------------------------------


def test_an_open_connection_that_is_forgotten_makes_no_noise():
    with serving(lambda connection: outcome(connection)) as server:
        client = connect(server.url())
        poller = client._poller
        wait_until(lambda: client in poller._members)
        members = len(poller._members)
        client = None
        gc.collect()
        assert len(poller._members) == members  # it is open until it is closed, as the documentation says
        server.shutdown()
        wait_until(lambda: len(poller._members) == members - 1)


def test_a_peer_without_tcp_end_does_not_hold_the_application():
    """The close handshake is complete, and the server keeps TCP open: everybody is told at once, and TCP cut off."""
    def script(conn):
        conn.recv_frame()
        conn.send_frame(CLOSE, close_payload(1000))
        conn.hang()

    with ScriptedPeer(script, subprotocol=None) as peer:
        client = connect(peer.url(), close_timeout=60)
        with run_thread(client.close) as closing:
            with pytest.raises(ConnectionClosedOK):
                client.recv(scaled(10))
            assert client.close_code == 1000
            assert closing.running
            client.close(timeout=0.1)
            closing.result(scaled(10))
        wait_until(lambda: client._gone)
        assert client.close_code == 1000
        another = connect(peer.url(), close_timeout=0.2)
        another.close()
        wait_until(lambda: another._gone)
        peer.close(check=False)
