"""Engine.IO sessions against a raw server: both legs, limits, heartbeats, the ends. Numbers are those of the cases."""

from __future__ import annotations

import ssl
import threading
import time
from typing import Any, List

import pytest
import requests

from simplepubsub.core.deadline import Deadline
from simplepubsub.exceptions import MessageTooLarge, RemoteProtocolError, TransportClosed, TransportError
from simplepubsub.socketio.heartbeat import Heartbeat
from simplepubsub.socketio.http_errors import SessionRejected
from simplepubsub.transports.frames import CLOSE, PING, TEXT, close_payload
from tests.helpers import run_thread, scaled, self_signed
from tests.socketio.engine import Collector, open_session, patient_goodbye, running
from tests.socketio.rawserver import RawServer, Request, Response

__all__ = ["patient_goodbye"]

pytestmark = pytest.mark.usefixtures("patient_goodbye")
LEGS = pytest.mark.parametrize("leg", ["polling", "websocket"])


def soon() -> Deadline:
    return Deadline(scaled(5))


# ---- handshake (1, 2) -----------------------------------------------------------------------------------------------


@LEGS
def test_handshake(leg: str) -> None:
    with RawServer(greeting=("4first",)) as server, running(server.url("/ignored?x=1&y=a%20b"), leg) as found:
        request = server.requests[0]
        assert request.path == "/socket.io/" and request.query["EIO"] == "4" and request.query["transport"] == leg
        assert request.query["x"] == "1" and request.query["y"] == "a b" and "t" in request.query
        assert request.target.startswith("/socket.io/?x=1&y=a%20b&EIO=4")
        session = found.session
        assert (session.sid, session.transport) == (server.session.sid, leg)
        assert (session.ping_interval, session.ping_timeout, session.max_payload) == (25.0, 20.0, 1000000)
        assert found.wait_messages(1) == ["first"]
        assert session.sid not in repr(session)


@pytest.mark.parametrize("scheme", ["http", "ws"])
@LEGS
def test_schemes_and_paths(scheme: str, leg: str) -> None:
    with RawServer() as server, running(server.url("", scheme), leg, path="/clients/socketio/hubs/Hub/"):
        assert server.requests[0].path == "/clients/socketio/hubs/Hub/"


def test_packets_after_the_open_packet_come_first() -> None:
    with RawServer() as server:
        opened = server._open(server._new(), upgrades=False)
        server._open_body = (opened + "\x1e4one\x1e4two\x1e2").encode()
        with running(server.url(), "polling") as found:
            server.sessions[0].send("4three")
            assert found.wait_messages(3) == ["one", "two", "three"]
            server.sessions[0].wait(lambda: ("polling", "3") in server.sessions[0].received)


# ---- messages (3, 8, 9, 11, 15, 16) ---------------------------------------------------------------------------------


@LEGS
def test_messages_both_ways_in_order(leg: str) -> None:
    with RawServer() as server, running(server.url(), leg) as found:
        for index in range(100):
            found.session.send(['2["n",%d]' % index])
        found.session.send(['51-["b",{}]', b"\x00\xff"])
        found.session.send(["é\U0001f600\\u001e", b""])
        expected: List[Any] = ['2["n",%d]' % index for index in range(100)]
        expected += ['51-["b",{}]', b"\x00\xff", "é\U0001f600\\u001e", b""]
        assert server.session.wait_messages(len(expected)) == expected
        server.session.send(*[packet if isinstance(packet, bytes) else "4" + packet for packet in expected])
        assert found.wait_messages(len(expected)) == expected
        assert found.session.flush(soon())
        assert found.session.queued_bytes == 0 and found.session.writable
        most = server.session.most
        assert most["GET"] <= 1 and most["POST"] <= 1
        assert all(body.count(b"\x1e") <= 15 for body in server.session.posts)


def test_a_poll_with_hundreds_of_packets_is_accepted() -> None:
    """W3: python-engineio refuses more than 16."""
    with RawServer() as server, running(server.url(), "polling") as found:
        server.session.send(*["4%d" % index for index in range(400)])
        assert found.wait_messages(400) == [str(index) for index in range(400)]


def test_posts_hold_sixteen_packets() -> None:
    """W4."""
    with RawServer() as server, running(server.url(), "polling") as found:
        session = server.session
        session.hold_posts = True
        for index in range(101):
            found.session.send([str(index)])
        with server.changed:
            session.hold_posts = False
            server.changed.notify_all()
        assert session.wait_messages(101) == [str(index) for index in range(101)]
        assert max(body.count(b"\x1e") + 1 for body in session.posts) == 16


def test_oddities_on_the_websocket() -> None:
    with RawServer() as server, running(server.url(), "websocket") as found:
        server.session.send("6", "bAQI=", "6", b"", "4a", "3", "5")
        assert found.wait_messages(3) == [b"\x01\x02", b"", "a"]
        assert server.session.websocket is not None
        server.session.websocket.frame(PING, b"x")
        server.session.wait(lambda: "ws.pong" in server.session.events)


def test_oddities_while_polling() -> None:
    with RawServer(gzip=True) as server, running(server.url(), "polling") as found:
        server.session.poll_with(b"", b"6", b"", b"4" + b"x" * 5000, b"bAQI=\x1e6\x1e4a")
        assert found.wait_messages(3) == ["x" * 5000, b"\x01\x02", "a"]
        gets = [request for request in server.requests if request.method == "GET"]
        assert all("gzip" in request.headers["accept-encoding"] for request in gets)


# ---- limits (10) ----------------------------------------------------------------------------------------------------


@LEGS
def test_payload_limits(leg: str) -> None:
    """W5."""
    with RawServer(max_payload=20000) as server, running(server.url(), leg) as found:
        for index in range(10):
            found.session.send([str(index) * 5000])
        with pytest.raises(MessageTooLarge) as caught:
            found.session.send(["small", b"x" * 30000])
        assert caught.value.limit == 20000 and caught.value.size >= 30000
        with pytest.raises(MessageTooLarge):
            found.session.send(["é" * 10000])  # bytes count, not characters
        found.session.send(["last"])
        assert server.session.wait_messages(11) == [str(index) * 5000 for index in range(10)] + ["last"]
        assert all(len(body) <= 20000 for body in server.session.posts)
        assert not found.closed


def test_exactly_the_limit() -> None:
    with RawServer(max_payload=101) as server:
        for leg, size in (("polling", 75), ("websocket", 101)):
            with running(server.url(), leg) as found:
                found.session.send(["x" * 100, b"y" * size])
                with pytest.raises(MessageTooLarge):
                    found.session.send(["x" * 101])
                with pytest.raises(MessageTooLarge):
                    found.session.send([b"y" * (size + 1)])
                assert server.sessions[-1].wait_messages(2) == ["x" * 100, b"y" * size]


def test_without_a_limit_any_size_goes() -> None:
    with RawServer(max_payload=None) as server, running(server.url(), "polling") as found:
        found.session.send(["x" * 3000000])
        assert len(server.session.wait_messages(1)[0]) == 3000000


# ---- heartbeat (12, 13, 14) -----------------------------------------------------------------------------------------


@LEGS
def test_pings_are_answered_while_a_callback_works(leg: str) -> None:
    with RawServer() as server, running(server.url(), leg) as found:
        server.session.send("2")
        server.session.wait(lambda: (leg, "3") in server.session.received)
        server.session.send("2abc")
        server.session.wait(lambda: (leg, "3abc") in server.session.received)
        assert not found.messages


@LEGS
def test_a_pong_overtakes_what_is_queued(leg: str) -> None:
    with RawServer(max_payload=None) as server, running(server.url(), leg) as found:
        session = server.session
        if session.websocket is not None:
            session.websocket.reading.clear()
        session.hold_posts = True
        for _ in range(40):
            found.session.send(["x" * 500000])
        session.wait(lambda: leg == "websocket" or session.posts)
        session.send("2", "4after the ping")
        found.wait_messages(1)
        with server.changed:
            session.hold_posts = False
            server.changed.notify_all()
        if session.websocket is not None:
            session.websocket.reading.set()
        session.wait_messages(40, 20)
        place = session.received.index((leg, "3"))
        assert place <= 2 if leg == "polling" else place < 40  # some were in the network's buffers


@LEGS
def test_ping_timeout(leg: str) -> None:
    begin = time.monotonic()  # before the session: it may be stopped at any moment after its first
    with RawServer(ping_interval=0.2, ping_timeout=0.1) as server, running(server.url(), leg) as found:
        reason, error = found.wait_closed()
        assert reason == "ping timeout" and isinstance(error, TransportError)
        assert 0.3 <= time.monotonic() - begin < scaled(5)


@LEGS
def test_anything_that_arrives_is_a_sign_of_life(leg: str) -> None:
    with RawServer() as server, running(server.url(), leg) as found:
        now = [0.0]  # a clock that this test moves
        session = found.session
        with session.changed:
            session.heartbeat = Heartbeat(0.3, 0.2, lambda: now[0])
            session.changed.notify_all()
        for number in range(8):
            now[0] += 0.4
            if number % 2:
                server.session.send("4%d" % number)
                found.wait_messages(number // 2 + 1)
            else:
                server.session.send("2")
                server.session.wait(lambda count=number // 2 + 1: server.session.received.count((leg, "3")) == count)
        assert not found.closed
        now[0] += 0.6
        assert found.wait_closed()[0] == "ping timeout"


def test_a_machine_that_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer() as server, running(server.url(), "websocket") as found:
        beat = found.session.heartbeat
        beat._end = beat._clock() - 1  # the clock went on
        assert not found.session.writable
        found.session.send(["x"])
        assert found.wait_closed()[0] == "ping timeout"
        assert server.session.messages == []


# ---- the end by the server ------------------------------------------------------------------------------------------


def test_a_close_packet_is_a_transport_close() -> None:
    """W18: python-socketio does not come back from it."""
    for leg in ("polling", "websocket"):
        with RawServer() as server, running(server.url(), leg) as found:
            server.session.send("4last", "1", "4never")
            assert found.wait_closed()[0] == "transport close"
            assert found.messages == ["last"]


def test_a_close_frame_is_a_transport_close_and_answered() -> None:
    with RawServer() as server, running(server.url(), "websocket") as found:
        assert server.session.websocket is not None
        server.session.websocket.frame(TEXT, "4last")
        server.session.websocket.frame(CLOSE, close_payload(1001, "bye"))
        reason, error = found.wait_closed()
        assert reason == "transport close" and isinstance(error, TransportClosed) and error.code == 1001
        assert found.messages == ["last"]
        server.session.wait(lambda: "ws.close" in server.session.events)


@pytest.mark.parametrize("body", [b"9", b"4a\x1e", b"\xff", b"b*", b"<html>"])
def test_bad_polls_are_parse_errors(body: bytes) -> None:
    """W40."""
    with RawServer() as server, running(server.url(), "polling") as found:
        server.session.poll_with(b"4good\x1e" + body)
        reason, error = found.wait_closed()
        assert reason == "parse error" and isinstance(error, RemoteProtocolError)
        assert found.messages == ([] if body == b"\xff" else ["good", "a"] if body[:1] == b"4" else ["good"])


@pytest.mark.parametrize("data", [b"\x81\x019", b"\x81\x00", b"\x81\x02b*", b"\xf1\x01x", b"\x81\x01\xff"])
def test_bad_frames_are_parse_errors(data: bytes) -> None:
    with RawServer() as server, running(server.url(), "websocket") as found:
        assert server.session.websocket is not None
        server.session.websocket.raw(b"\x81\x054good" + data)
        reason, error = found.wait_closed()
        assert reason == "parse error" and isinstance(error, RemoteProtocolError)
        assert found.messages == ["good"]


def test_http_errors_within_a_session() -> None:
    with RawServer() as server, running(server.url(), "polling") as found:
        body = ('{"code":1,"message":"Session ID unknown %s"}' % found.session.sid).encode()
        server.answer = lambda request: Response(400, body) if request.method == "POST" else None
        found.session.send(["x"])
        reason, error = found.wait_closed()
        assert reason == "transport error" and isinstance(error, SessionRejected)
        assert (error.status, error.code) == (400, 1) and "Session ID unknown" in str(error)
        assert found.session.sid not in str(error) and found.session.sid not in repr(error.payload)


def test_an_error_of_the_receiver_ends_the_session() -> None:
    with RawServer() as server:
        session = open_session(server.url(), "websocket")
        closed: List[Any] = []
        done = threading.Event()

        def fail(messages: List[Any]) -> None:
            raise RemoteProtocolError("not for me")

        def end(reason: str, error: Any) -> None:
            closed.append((reason, str(error)))
            done.set()

        session.start(fail, end)
        server.session.send("4x")
        assert done.wait(scaled(5)) and closed == [("parse error", "not for me")]


def test_a_mistake_of_the_receiver_is_logged_and_ends_the_session(caplog: pytest.LogCaptureFixture) -> None:
    with RawServer() as server:
        session = open_session(server.url(), "polling")
        closed: List[Any] = []
        done = threading.Event()

        def end(reason: str, error: Any) -> None:
            closed.append((reason, type(error)))
            done.set()

        session.start(lambda messages: [][0], end)
        server.session.send("4x")
        assert done.wait(scaled(5)) and closed == [("transport error", IndexError)]
        assert "IndexError" in caplog.text


# ---- leaving (48, 56) -----------------------------------------------------------------------------------------------


@LEGS
def test_close_writes_everything_and_says_goodbye(leg: str) -> None:
    """W6, W37."""
    with RawServer() as server, running(server.url(), leg) as found:
        for index in range(50):
            found.session.send([str(index)])
        found.session.send(["1"])  # the namespace's farewell
        found.session.close(soon())
        assert found.closed == [("client disconnect", None)]
        session = server.session
        assert session.messages == [str(index) for index in range(50)] + ["1"]
        assert session.received[-1] == (leg, "1")
        if leg == "polling":
            assert session.posts[-1] == b"1"
            session.wait(lambda: session.busy == {"GET": 0, "POST": 0})
            assert session.events[-1] in ("GET.", "POST.")
        else:
            session.wait(lambda: "ws.close" in session.events)
        found.session.close(soon())
        found.session.abort()
        assert len(found.closed) == 1
        found.session.send(["late"])
        assert not found.session.flush(soon())


@LEGS
def test_a_session_that_was_never_started_can_be_closed(leg: str) -> None:
    with RawServer() as server:
        open_session(server.url(), leg).close(soon())
        assert server.session.received == [(leg, "1")]
        open_session(server.url(), leg).abort()
        assert server.session.received == []


@LEGS
def test_close_from_the_callback(leg: str) -> None:
    with RawServer() as server:
        session = open_session(server.url(), leg)
        closed = threading.Event()
        session.start(lambda messages: session.close(soon()), lambda reason, error: closed.set())
        server.session.send("4x")
        assert closed.wait(scaled(5))
        assert server.session.received == [(leg, "1")]


@LEGS
def test_close_when_the_server_does_not_react(leg: str) -> None:
    with RawServer() as server, running(server.url(), leg) as found:
        if leg == "polling":
            server.session.hold_posts = True
        found.session.send(["x" * 100])
        begin = time.monotonic()
        found.session.close(Deadline(0.3))
        assert time.monotonic() - begin < scaled(5)
        assert found.wait_closed()[0] == "client disconnect"
        with server.changed:
            server.session.hold_posts = False
            server.changed.notify_all()


def test_a_session_is_started_once() -> None:
    with RawServer() as server, running(server.url(), "websocket") as found:
        with pytest.raises(RuntimeError):
            Collector(found.session)


# ---- flow -----------------------------------------------------------------------------------------------------------


def test_room_flush_and_writable() -> None:
    with RawServer(max_payload=None) as server, running(server.url(), "polling") as found:
        session = server.session
        session.hold_posts = True
        assert found.session.writable
        found.session.send(["x" * 2000000])
        assert not found.session.writable and found.session.queued_bytes >= 2000000
        assert not found.session.wait_room(Deadline(0.02))
        assert not found.session.flush(Deadline(0.02))
        with server.changed:
            session.hold_posts = False
            server.changed.notify_all()
        assert found.session.wait_room(soon()) and found.session.flush(soon()) and found.session.writable


@LEGS
def test_groups_of_many_threads_stay_whole(leg: str, switch_interval: Any) -> None:
    """W25."""
    with RawServer() as server, running(server.url(), leg) as found:
        def work(number: int) -> None:
            for index in range(50):
                found.session.send(["%d.%d" % (number, index), b"%d.%d" % (number, index), b"%d" % number])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(scaled(20))
        messages = server.session.wait_messages(900, 20)
        seen = dict.fromkeys(range(6), 0)
        for start in range(0, 900, 3):
            head, first, second = messages[start:start + 3]
            number, index = map(int, head.split("."))
            assert (first, second) == (head.encode(), b"%d" % number) and seen[number] == index
            seen[number] += 1


def test_a_reader_that_is_slow_holds_back_nothing_else() -> None:
    block = threading.Event()
    with RawServer() as server:
        found = Collector(open_session(server.url(), "websocket"), block)
        try:
            server.session.send("4a")
            found.wait_messages(1)
            found.session.send(["out"])
            assert server.session.wait_messages(1) == ["out"]
        finally:
            block.set()
            found.session.abort()
        found.wait_closed()


def test_keep_alive_announcements_are_believed() -> None:
    """A POST on a connection that the server is about to close would be lost."""
    def answer(request: Request) -> Any:
        return Response(200, b"ok", {"Keep-Alive": "timeout=1"}) if request.method == "POST" else None

    with RawServer(answer=answer) as server, running(server.url(), "polling") as found:
        for _ in range(3):
            found.session.send(["x"])
            assert found.session.flush(soon())
        ports = {request.peer[1] for request in server.requests if request.method == "POST"}
        assert len(ports) == 3


@LEGS
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_much_in_both_directions_over_tls(leg: str, version: str, tmp_path: Any) -> None:
    """More than the buffers hold, so that writes are cut in pieces while the other direction is busy."""
    certificate = self_signed(tmp_path)
    if hasattr(ssl, "TLSVersion"):
        certificate.server_context.maximum_version = getattr(ssl.TLSVersion, version)
    http_session = requests.Session()
    http_session.verify = certificate.ca_file
    data = [bytes([number]) * 3000000 for number in range(4)]
    with RawServer(max_payload=None, ssl_context=certificate.server_context) as server:
        with running(server.url(), leg, http_session=http_session) as found:
            for piece in data:
                found.session.send(["head", piece])
            with run_thread(server.session.send, "4one", *data):
                assert found.wait_messages(5, 20) == ["one"] + data
                messages = server.session.wait_messages(8, 20)
            assert messages == [item for piece in data for item in ("head", piece)]
