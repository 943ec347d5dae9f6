"""`serve`: handshakes good and bad, hooks, handlers, shutdown."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simplepubsub import websockets
from simplepubsub.exceptions import InvalidArgument, ServerError
from simplepubsub.websockets import ConnectionClosed, InvalidStatus, NegotiationError, Response
from tests.helpers import run_thread, scaled, self_signed, wait_until
from tests.websockets.kit import RawClient, connect, echo, head, pair, serving, socket_with_kept_port, threads


def answer(server, request, **options):
    """Send bytes and return (status, everything that came back)."""
    with RawClient(server, opened=False, **options) as raw:
        raw.sock.sendall(request)
        data = raw.rest()
        return (int(data.split(b" ")[1]) if data else 0), data


def test_port_0_and_addresses():
    with serving(echo) as server:
        assert server.port > 0 and server.address == ("127.0.0.1", server.port)
        with connect(server.url("/a?b=c"), additional_headers={"X-Own": "1"}) as client:
            wait_until(lambda: server.connections)
            connection, = server.connections
            assert connection.path == connection.request.path == "/a?b=c"
            assert connection.request.headers["x-own"] == "1"
            assert connection.remote_address == client.local_address
            assert connection.local_address == client.remote_address == server.address
            assert client.response.status == 101 and "simplepubsub" in client.response.headers["Server"]
            assert "open" in repr(connection) and str(server.port) in repr(server)


@pytest.mark.parametrize("request_bytes, status", [
    (b"GET / HTTP/1.1\r\n\r\n", 426),
    (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nUpgrade: websocket\r\n\r\n", 426),
    (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 426),
    (head(version="12"), 426), (head(version=""), 426), (head(version="13, 13"), 426),
    (head(key=""), 400), (head(key="short"), 400), (head(key="!" * 24), 400), (head(key="é" * 24), 400),
    (head().replace(b"Host: x\r\n", b""), 400),
    (head("no-slash"), 400), (head("http://x/"), 400), (head("/\xe9"), 400), (head("/a b"), 400),
    (head("/", "X: a\r\n b"), 400),
    (head("/", *["X-%d: y" % n for n in range(200)]), 431),
    (head("/", "X: " + "y" * 70_000), 431),
    (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 405), (b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    (b"GET / HTTP/1.0\r\n\r\n", 505), (b"GET / HTTP/2\r\n\r\n", 505),
    (b"\r\n\r\n", 400), (b"GET /\r\n\r\n", 400), (b"\x16\x03\x01\0\r\n\r\n", 400), (b"\xff" * 70_000, 431),
])
def test_bad_requests_get_a_status(request_bytes, status, caplog):
    with serving(echo) as server, caplog.at_level(logging.INFO):
        got, data = answer(server, request_bytes)
        assert got == status, data
        assert b"Connection: close" in data and b"Content-Length" in data
        wait_until(lambda: not server._threads)
    assert "Traceback" not in caplog.text


@settings(suppress_health_check=[HealthCheck.too_slow])  # a stalled machine is no reason to fail
@given(st.lists(st.sampled_from([
    b"GET ", b"/", b" HTTP/1.1", b"\r\n", b"\n", b"\r", b": ", b"Host", b"Upgrade: websocket", b"Connection: Upgrade",
    b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Version: 13", b"\0", b"\xff", b"From x", b" ", b"\t", b"=?utf-8?q?=e9?=",
    b"\x85", b"\x0b", b"MDEyMzQ1Njc4OWFiY2RlZg==",
]), max_size=30))
def test_any_head_gets_an_answer_and_no_exception(fuzz_server, pieces):
    with RawClient(fuzz_server, opened=False) as raw:
        raw.sock.sendall(b"".join(pieces) + b"\r\n\r\n")
        raw.sock.shutdown(socket.SHUT_WR)
        data = raw.rest()
        assert data.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5", b"HTTP/1.1 101")), data
        assert not data.startswith(b"HTTP/1.1 500"), data


@pytest.fixture(scope="module")
def fuzz_server():
    with serving(lambda connection: None) as server:
        yield server


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\nHost"])
@pytest.mark.parametrize("how", ["end", "reset", "silent"])
def test_clients_that_never_finish_their_request(sent, how):
    with serving(echo, open_timeout=scaled(0.2) if how == "silent" else 60) as server:
        with RawClient(server, opened=False) as raw:
            raw.sock.sendall(sent)
            if how == "silent":
                assert raw.rest() == b""
            else:
                wait_until(lambda: server._threads)
            if how == "reset":
                raw.reset()
            elif how == "end":
                raw.sock.close()
            wait_until(lambda: not server._threads)


def test_a_request_in_single_bytes_and_frames_that_come_with_it():
    from tests.wire import TEXT, make_frame
    frame = make_frame(TEXT, b"early", mask=b"abcd")
    with serving(echo) as server:
        with RawClient(server, early=frame) as raw:
            assert raw.frame() == (0x81, b"early")
        with RawClient(server, opened=False) as raw:
            for byte in head():
                raw.sock.sendall(bytes([byte]))
            raw.sock.sendall(frame)
            assert raw.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
            assert raw.frame() == (0x81, b"early")


def test_a_client_that_half_closes_after_its_request_gets_its_answer(monkeypatch):
    """Whether the poller sees the end of the stream before or after the handler's thread has gone on."""
    flush = websockets.ServerConnection.flush

    def late(connection):
        if threading.current_thread().name.startswith("simplepubsub-ws-"):
            wait_until(lambda: connection._gone)
        flush(connection)

    monkeypatch.setattr(websockets.ServerConnection, "flush", late)
    with serving(echo) as server, RawClient(server, opened=False) as raw:
        raw.sock.sendall(head())
        raw.sock.shutdown(socket.SHUT_WR)
        assert raw.rest().startswith(b"HTTP/1.1 101 ")


# ---- hooks -----------------------------------------------------------------------------------------------------------


def test_process_request_answers_pages_and_refusals():
    def process(connection, request):
        assert connection.request is request and connection.remote_address
        if request.path == "/health":
            return connection.respond(200, "fine")
        if request.path == "/page":
            return connection.respond(200, "<p>é</p>", [("Content-Type", "text/html; charset=utf-8")])
        if request.path == "/no":
            return Response(403, {"X-Why": "because"}, b"no", "Never")
        return None

    with serving(echo, process_request=process) as server:
        base = server.url("").replace("ws:", "http:")
        with urllib.request.urlopen(base + "/health", timeout=scaled(5)) as page:
            assert page.read() == b"fine\n" and page.headers["Content-Type"].startswith("text/plain")
        with urllib.request.urlopen(base + "/page", timeout=scaled(5)) as page:
            assert page.read() == "<p>é</p>\n".encode() and page.headers["Content-Type"].startswith("text/html")
        with pytest.raises(InvalidStatus) as caught:
            connect(server.url("/no"))
        assert caught.value.status == 403 and "no" in str(caught.value.body)
        with connect(server.url("/")) as client:
            client.send("x")
            assert client.recv(scaled(5)) == "x"


@pytest.mark.parametrize("hook", [
    lambda c, r: 1 / 0, lambda c, r: "page", lambda c, r: open("/does/not/exist"),
    lambda c, r: Response(200, {}, "str"),
    lambda c, r: Response(101, {}), lambda c, r: Response(200, {"X": "a\r\nb"}), lambda c: None,
])
def test_a_hook_that_fails_is_a_500_and_logged(hook, caplog):
    with serving(echo, process_request=hook) as server:
        assert answer(server, head())[0] == 500
    assert "process_request or select_subprotocol failed" in caplog.text


@pytest.mark.parametrize("ours, offered, expected", [
    (["a", "b"], ["b", "a"], "a"), (["a"], ["b", "a"], "a"), (["a"], ["b"], None), (["a"], None, None),
    (None, ["a"], None),
])
def test_subprotocols(ours, offered, expected):
    with serving(lambda connection: connection.send(str(connection.subprotocol)), subprotocols=ours) as server:
        with connect(server.url(), subprotocols=offered) as client:
            assert client.subprotocol == expected
            assert client.recv(scaled(5)) == str(expected)


def test_select_subprotocol():
    choice = []
    with serving(echo, select_subprotocol=lambda connection, offered: choice[0](offered)) as server:
        choice[:] = [lambda offered: offered[-1]]
        with connect(server.url(), subprotocols=["a", "b"]) as client:
            assert client.subprotocol == "b"
        choice[:] = [lambda offered: "not offered"]
        with pytest.raises(InvalidStatus) as caught:
            connect(server.url(), subprotocols=["a"])
        assert caught.value.status == 500


def test_a_client_refuses_a_subprotocol_that_it_did_not_offer():
    from tests.helpers import ScriptedPeer
    for offered in (None, ["a"]):
        with ScriptedPeer(lambda conn: None, subprotocol="other") as peer:
            with pytest.raises(NegotiationError):
                connect(peer.url(), subprotocols=offered)
            peer.close(check=False)


def test_origins():
    with serving(echo, origins=["https://good.example", None]) as server:
        for origin in ("https://good.example", None):
            with connect(server.url(), origin=origin):
                pass
        with pytest.raises(InvalidStatus) as caught:
            connect(server.url(), origin="https://bad.example")
        assert caught.value.status == 403


# ---- handlers --------------------------------------------------------------------------------------------------------


def test_a_handler_that_raises_is_logged_and_closes_1011(caplog):
    def broken(connection):
        raise RuntimeError("a bug")

    with serving(broken) as server, connect(server.url()) as client:
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(scaled(5))
        assert caught.value.code == 1011
    assert "a bug" in caplog.text and "Traceback" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_handler_that_exits_its_thread_still_closes():
    with serving(lambda connection: sys.exit()) as server, connect(server.url()) as client:
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(scaled(5))
        assert caught.value.code == 1011


def test_a_closed_connection_of_its_own_is_no_error_but_another_one_is(caplog):
    with pair() as (other, _):
        other.close()
        with serving(lambda connection: connection.recv()) as server:
            connect(server.url()).close()
        assert "failed" not in caplog.text
        with serving(lambda connection: other.recv()) as server, connect(server.url()) as client:
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(scaled(5))
            assert caught.value.code == 1011
    assert "failed" in caplog.text


def with_default(connection, greeting="hi"):
    connection.send(greeting)


class Handlers:
    def method(self, connection):
        connection.send("method")

    def with_path(self, connection, path):
        connection.send(path)


@pytest.mark.parametrize("handler, expected", [
    (lambda websocket, path: websocket.send(path), "/p"), (Handlers().method, "method"), (Handlers().with_path, "/p"),
    (with_default, "hi"), (lambda *arguments: arguments[0].send(str(len(arguments))), "1"),
])
def test_signatures_of_handlers(handler, expected):
    with serving(handler) as server, connect(server.url("/p")) as client:
        assert client.recv(scaled(5)) == expected


# ---- where it listens ------------------------------------------------------------------------------------------------


def test_tls_and_clients_that_do_not_speak_it(tmp_path):
    certificate = self_signed(tmp_path, "localhost")
    with serving(echo, ssl=certificate.server_context, open_timeout=scaled(20)) as server:
        with RawClient(server, context=certificate.client_context) as raw:
            raw.send(1, b"x")
            assert raw.frame() == (0x81, b"x")
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"", b"\x16\x03\x01\x02"):
            with RawClient(server, opened=False) as raw:
                raw.sock.sendall(data)
                if data:
                    with contextlib.suppress(OSError):  # it may have seen enough, and be gone
                        raw.sock.shutdown(socket.SHUT_WR)
                    raw.rest()
                else:
                    raw.reset()
        wait_until(lambda: not server._threads)
        untrusting = ssl.create_default_context()
        with pytest.raises(websockets.InvalidHandshake):
            connect("wss://localhost:%d" % server.port, ssl=untrusting)
        with connect("wss://localhost:%d" % server.port, ssl=certificate.client_context) as client:
            client.send("x" * 100_000)
            assert len(client.recv(scaled(5))) == 100_000


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets on this system")
def test_unix_sockets(tmp_path):
    path = str(tmp_path / "s")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(path)
    stale.close()  # a server that was killed left this
    with serving(echo, unix=path) as server:
        assert server.port == 0
        with connect("ws://any.example/p", unix=path) as client:
            client.send("x")
            assert client.recv(scaled(5)) == "x"
            assert client.request.headers["Host"] == "any.example"
        with pytest.raises(ServerError):
            websockets.serve(echo, unix=path)
    assert not os.path.exists(path)
    (tmp_path / "file").write_text("x")
    for bad in (str(tmp_path / "file"), str(tmp_path / "no" / "where"), "x" * 200):
        with pytest.raises(ServerError):
            websockets.serve(echo, unix=bad)
    assert (tmp_path / "file").exists()


def test_a_socket_of_the_users(tmp_path):
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    with serving(echo, sock=bound) as server, connect(server.url()) as client:
        client.send("x")
        assert client.recv(scaled(5)) == "x"


def test_addresses_that_cannot_be_used():
    with serving(echo) as server:
        for host, port in (("127.0.0.1", server.port), ("host.invalid", 0), ("127.0.0.1", 70_000), ("127.0.0.1", "x"),
                           ("\udcff", 0)):
            with pytest.raises(ServerError):
                websockets.serve(echo, host, port)
    for options in ({"handler": None}, {"ssl": True}, {"origins": "https://x"}, {"subprotocols": "a"},
                    {"subprotocols": ["a b"]}, {"max_size": 0}, {"max_queue": 0}, {"ping_interval": 0},
                    {"open_timeout": -1}, {"close_timeout": None}):
        options = {"handler": echo, **options}
        with pytest.raises(InvalidArgument):
            websockets.serve(**options)


# ---- the end ---------------------------------------------------------------------------------------------------------


def test_shutdown_closes_everything_and_waits_for_the_handlers():
    ended = []

    def handler(connection):
        try:
            connection.recv()
        finally:
            ended.append(1)

    before = threads()
    with socket_with_kept_port() as sock, serving(handler, sock=sock) as server:
        clients = [connect(server.url()) for _ in range(5)]
        wait_until(lambda: len(server.connections) == 5)
        server.shutdown(1012, "restart")
        assert len(ended) == 5 and not server.connections
        for client in clients:
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(scaled(5))
            assert (caught.value.code, caught.value.reason) == (1012, "restart")
            client.close()
        server.shutdown()
        server.close()
        with pytest.raises(websockets.InvalidHandshake):
            connect(server.url())
    wait_until(lambda: threads() == before)


def test_shutdown_while_handshakes_are_open():
    with serving(echo, open_timeout=60, close_timeout=60) as server:
        with RawClient(server, opened=False) as raw:
            raw.sock.sendall(b"GET / HT")
            wait_until(lambda: server._opening)
            began = time.monotonic()
            server.shutdown()
            assert time.monotonic() - began < scaled(10)
            assert raw.rest() == b""


def test_a_handler_that_never_returns_is_left_with_a_warning(caplog):
    over = threading.Event()
    with serving(lambda connection: over.wait(60)) as server:
        client = connect(server.url())
        wait_until(lambda: server.connections)
        began = time.monotonic()
        server.shutdown(timeout=0.1)
        assert time.monotonic() - began < scaled(5)
        assert "1 handlers still run" in caplog.text
        over.set()
        wait_until(lambda: not server._threads)
        client.close()


def test_a_handler_may_shut_its_server_down():
    def handler(connection):
        server.shutdown()

    with serving(handler) as server:
        with run_thread(server.serve_forever), connect(server.url()) as client:
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(scaled(5))
            assert caught.value.code in (1000, 1001)


def test_serve_forever_ends_with_shutdown():
    with serving(echo) as server:
        with run_thread(server.serve_forever) as waiting:
            assert waiting.running
            server.shutdown()
        server.serve_forever()


def test_a_live_connection_gets_a_close_frame_in_every_race_with_shutdown():
    for _ in range(30):
        with serving(echo) as server:
            with run_thread(connect, server.url()) as dialling:
                wait_until(lambda server=server: server._threads)
                server.shutdown()
                error = dialling.exception(scaled(5))
            if error is None:
                client = dialling.result()
                with pytest.raises(ConnectionClosed) as caught:
                    client.recv(scaled(5))
                assert caught.value.code == 1001
                client.close()
            else:
                assert isinstance(error, websockets.InvalidHandshake)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of descriptors there")
def test_out_of_descriptors_it_looks_away_and_comes_back(caplog, monkeypatch):
    from simplepubsub.websockets import server as module
    monkeypatch.setattr(module, "_RETRY_DELAY", 0.05)
    with serving(echo) as server:
        waiting = RawClient.__new__(RawClient)
        sock = socket.socket()
        gc.collect()  # what it would free in the middle of this is a descriptor too many
        began = time.monotonic()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 5, hard))
        held = []
        try:
            with pytest.raises(OSError):
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            sock.connect(("127.0.0.1", server.port))
            wait_until(lambda: "cannot accept" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in held:
                os.close(descriptor)
        waiting.sock, waiting._buffer = sock, b""
        sock.settimeout(scaled(5))
        with waiting:
            sock.sendall(head())
            assert waiting.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        assert caplog.text.count("cannot accept") < 2 + (time.monotonic() - began) / 0.05


@pytest.mark.stress
def test_500_connections():
    before = threads()
    with serving(echo) as server:
        clients = [connect(server.url()) for _ in range(500)]
        wait_until(lambda: len(server.connections) == 500, timeout=20)
        began = time.monotonic()
        assert websockets.broadcast(server.connections, "hello") == []
        assert time.monotonic() - began < scaled(5)
        for client in clients:
            assert client.recv(scaled(10)) == "hello"
        for client in clients:
            client.close()
        wait_until(lambda: not server.connections, timeout=20)
    wait_until(lambda: threads() == before, timeout=20)
