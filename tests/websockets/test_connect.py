"""`connect`: addresses, options, TLS, proxies, failures that explain themselves, and no secret in any of them."""

from __future__ import annotations

import logging
import ssl
import time

import pytest

from simplepubsub.exceptions import ConnectError, InvalidArgument
from simplepubsub.websockets import (
    ConnectTimeout,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)
from tests import peers
from tests.helpers import ClosedPort, DeafPort, ScriptedPeer, SilentPeer, run_thread, scaled, self_signed
from tests.proxies import HttpProxy, SocksProxy
from tests.websockets.kit import connect, echo, serving


@pytest.mark.parametrize("uri", [
    None, 5, b"ws://x", "", "x", "http://x", "https://x", "wss:", "ws://", "ws:///path", "ws://:80", "//x", "ws:x",
    "ws://x:port", "ws://x:70000", "ws://x:0", "ws://[::1", "ws://x/#part", "ws://x#", "ws://x y/", "ws://x/a b",
    "ws://x/\n", "ws://x/\r\nX: y", " ws://x", "ws://x\x7f", "ws://\u2100/", "ws://" + "\u00fc" * 64 + ".example",
])
def test_bad_addresses(uri):
    with pytest.raises(InvalidURI) as caught:
        connect(uri)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("options", [
    {"ssl": True}, {"ssl": ssl.create_default_context()}, {"ssl": "x"}, {"subprotocols": "a"},
    {"subprotocols": ["a,b"]},
    {"subprotocols": [""]}, {"additional_headers": {"X": "a\r\nY: b"}}, {"additional_headers": {"X\n": "a"}},
    {"additional_headers": {"a b": "c"}}, {"additional_headers": {"X": 1}}, {"additional_headers": [("X",)]},
    {"additional_headers": ["X: y"]}, {"additional_headers": {"Host": "x"}}, {"additional_headers": {"upgrade": "x"}},
    {"additional_headers": {"Sec-WebSocket-Key": "x"}}, {"origin": "a\nb"}, {"user_agent_header": "a\r\nb"},
    {"proxy": "x"}, {"proxy": "ftp://x:1"}, {"open_timeout": -1}, {"open_timeout": "1"}, {"ping_interval": 0},
    {"ping_timeout": 0}, {"ping_interval": -1}, {"close_timeout": None}, {"close_timeout": -1}, {"max_size": 0},
    {"max_size": "1"}, {"max_queue": None}, {"max_queue": True}, {"unix": 5}, {"unix": "/x", "proxy": "http://x:1"},
])
def test_bad_options(options):
    with pytest.raises(InvalidArgument):
        connect("ws://127.0.0.1:1/", **options)


def test_ssl_false_and_unknown_options():
    with pytest.raises(InvalidArgument):
        connect("wss://127.0.0.1:1/", ssl=False)
    with pytest.raises(TypeError):
        connect("ws://127.0.0.1:1/", compression=None)


def test_the_request():
    def script(conn):
        conn.close()

    with ScriptedPeer(script, subprotocol=None) as peer:
        with connect(peer.url("/p\u00e4th?q=\u00fc&r=%20"), origin="https://o.example", subprotocols=["a", "b"],
                     additional_headers=[("X-One", "1"), ("X-Two", "2")]):
            pass
        with connect(peer.url(""), user_agent_header="own"):
            pass
        first, second = peer.requests
        assert first.target == "/p%C3%A4th?q=%C3%BC&r=%20"
        assert first.headers["origin"] == "https://o.example" and first.subprotocols == ["a", "b"]
        assert first.headers["x-one"] == "1" and first.headers["x-two"] == "2"
        assert first.headers["user-agent"].startswith("simplepubsub/")
        assert "sec-websocket-extensions" not in first.headers
        assert second.target == "/" and second.headers["user-agent"] == "own" and "origin" not in second.headers


def test_frames_that_come_with_the_answer_are_not_lost():
    from tests.wire import TEXT, make_frame
    with ScriptedPeer(lambda conn: conn.close(), subprotocol=None,
                      handshake=lambda request, answer: answer + make_frame(TEXT, b"early")) as peer:
        with connect(peer.url()) as client:
            assert list(client) == ["early"]


def test_basic_authentication_in_the_url_never_shows(caplog):
    caplog.set_level(logging.DEBUG)
    seen = []

    def process(connection, request):
        seen.append(request.headers.get("Authorization"))
        return connection.respond(401, "no") if "deny" in request.path else None

    with serving(echo, process_request=process) as server:
        url = server.url("/").replace("ws://", "ws://user:hunter2-s%C3%A4cret@")
        with connect(url) as client:
            assert "hunter2" not in repr(client) and "hunter2" not in repr(client.request.path)
        with pytest.raises(InvalidStatus) as caught:
            connect(url + "deny?access_token=abcdefghijklmnop")
        assert caught.value.status == 401
        for text in (str(caught.value), repr(caught.value), repr(caught.value.__cause__), caplog.text):
            assert "hunter2" not in text and "abcdefghijklmnop" not in text
    assert seen[0] == seen[1] and seen[0].startswith("Basic ")
    for bad in ("ws://user:hunter2@x:port/", "ws://user:hunter2@x/#a", "http://user:hunter2@x/"):
        with pytest.raises(InvalidURI) as caught:
            connect(bad)
        assert "hunter2" not in str(caught.value)
    with ClosedPort() as port, pytest.raises(ConnectError) as caught:
        connect(port.url("/").replace("ws://", "ws://user:hunter2@"))
    assert "hunter2" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 503, 200])
def test_refusals(status):
    with ScriptedPeer(status=status, body=b"because") as peer:
        with pytest.raises(InvalidStatus) as caught:
            connect(peer.url())
        assert caught.value.status == status and str(status) in str(caught.value)


def test_redirects():
    with serving(echo) as target:
        with ScriptedPeer(status=302, headers=[("Location", target.url("/there").replace("ws:", "http:"))]) as peer:
            with connect(peer.url(), additional_headers={"X-Secret": "x"}) as client:
                client.send("x")
                assert client.recv(scaled(5)) == "x"
                connection, = target.connections
                assert connection.path == "/there" and "X-Secret" not in connection.request.headers
    with ScriptedPeer(status=301, headers=[("Location", "/again")]) as peer:
        with pytest.raises(InvalidHandshake):
            connect(peer.url())


def test_nothing_there():
    began = time.monotonic()
    with ClosedPort() as port, pytest.raises(ConnectError):
        connect(port.url("/"))
    for make in (SilentPeer, DeafPort):
        with make() as peer, pytest.raises(ConnectTimeout) as caught:
            connect("ws://127.0.0.1:%d/" % peer.port, open_timeout=0.1)
        assert isinstance(caught.value, TimeoutError) and "0.1" in str(caught.value) or str(caught.value)
    with SilentPeer() as peer, pytest.raises(ConnectTimeout):
        connect("wss://127.0.0.1:%d/" % peer.port, open_timeout=0.1)
    with pytest.raises(ConnectError):
        connect("ws://x/", unix="/does/not/exist")
    assert time.monotonic() - began < scaled(8)
    with pytest.raises(ConnectError):
        connect("ws://name.invalid/")  # takes as long as the system's resolver does


def test_tls(tmp_path):
    (tmp_path / "other").mkdir()
    certificate, other = self_signed(tmp_path, "localhost"), self_signed(tmp_path / "other", "localhost")
    with serving(echo, ssl=certificate.server_context) as server:
        url = "wss://localhost:%d/" % server.port
        with connect(url, ssl=certificate.client_context) as client:
            client.send("x")
            assert client.recv(scaled(5)) == "x"
        for wrong, options in ((url, {}), (url, {"ssl": True}), (url, {"ssl": other.client_context}),
                               (server.url(), {"ssl": certificate.client_context})):  # the name does not fit
            with pytest.raises(InvalidHandshake, match="(?i)certificate"):
                connect(wrong, **options)
        with pytest.raises(InvalidHandshake):
            connect("ws://localhost:%d/" % server.port, open_timeout=scaled(3))


def test_client_certificates(tmp_path):
    certificate = self_signed(tmp_path, "localhost")
    demanding = certificate.server_context
    demanding.verify_mode = ssl.CERT_REQUIRED
    demanding.load_verify_locations(certificate.ca_file)
    presenting = ssl.create_default_context(cafile=certificate.ca_file)
    presenting.load_cert_chain(certificate.cert_file, certificate.key_file)
    with serving(echo, ssl=demanding) as server:
        url = "wss://localhost:%d/" % server.port
        with connect(url, ssl=presenting) as client:
            client.send("x")
            assert client.recv(scaled(5)) == "x"
        with pytest.raises(InvalidHandshake):
            connect(url, ssl=certificate.client_context)


@pytest.mark.parametrize("kind", [HttpProxy, SocksProxy])
@pytest.mark.parametrize("tls", [False, True])
def test_proxies(tmp_path, kind, tls):
    if kind is SocksProxy:
        peers.require("python_socks", "a SOCKS proxy")
    certificate = self_signed(tmp_path, "localhost")
    with serving(echo, ssl=certificate.server_context if tls else None) as server, kind() as proxy:
        options = {"ssl": certificate.client_context} if tls else {}
        with connect(server.url().replace("127.0.0.1", "localhost"), proxy=proxy.url(), **options) as client:
            client.send("x" * 100_000)
            assert len(client.recv(scaled(5))) == 100_000
            assert len(proxy.targets) == 1
    with kind(credentials=("user", "hunter2-hunter2")) as proxy, pytest.raises(ConnectError) as caught:
        connect("ws://localhost:1/", proxy=proxy.url("user:wrong-password-1"))
    assert "wrong-password-1" not in str(caught.value)


def test_the_environments_proxy(monkeypatch):
    with serving(echo) as server, HttpProxy() as proxy:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        for wanted, expected in ((True, 1), (None, 1), (False, 1)):
            with connect(server.url(), proxy=wanted):
                pass
            assert len(proxy.targets) == expected


def test_options_are_checked_before_anything_is_opened():
    with SilentPeer() as peer:
        with pytest.raises(InvalidArgument):
            connect(peer.url("/", "ws"), max_size=-1)
        assert peer.accepted == 0


def test_connects_in_many_threads_at_once(switch_interval):
    with serving(echo) as server:
        def once():
            with connect(server.url()) as client:
                client.send("x")
                return client.recv(scaled(10))

        running = [run_thread(once, join_timeout=30) for _ in range(12)]
        for item in running:
            item.__enter__()
        try:
            assert [item.result(scaled(20)) for item in running] == ["x"] * 12
        finally:
            for item in running:
                item.__exit__(None, None, None)
