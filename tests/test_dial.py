"""P8, the dial: every way a connection can fail has its own error, with values, and says what to do next."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any, Callable, Iterator, List, Optional

import pytest

from simplepubsub.exceptions import (
    AuthenticationError,
    ConnectError,
    ConnectTimeout,
    HandshakeRejected,
    InvalidArgument,
    SubprotocolRefused,
    TransportClosed,
)
from simplepubsub.transports.dial import WebSocketDial
from simplepubsub.webpubsub import WebPubSubClient
from tests import peers
from tests.helpers import (
    LOOPBACK,
    MS,
    ClosedPort,
    DeafPort,
    PeerConnection,
    ScriptedPeer,
    SilentPeer,
    repoint,
    run_thread,
    scaled,
    self_signed,
    wait_until,
)
from tests.proxies import HttpProxy, SocksProxy

PATH = "/client/hubs/hub?access_token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2VjcmV0LXNpZ25hdHVyZQ"
SECRETS = ("eyJ", "c2VjcmV0LXNpZ25hdHVyZQ")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: Any) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def dial(url: str, timeout: Optional[float] = 5.0, **options: Any) -> Any:
    """Dial and give everything back; return (subprotocol)."""
    options.setdefault("subprotocols", ["json.reliable.webpubsub.azure.v1"])
    transport = WebSocketDial(**options).connect(url, None if timeout is None else scaled(timeout))
    transport.abort()
    transport.release()
    return transport.subprotocol  # type: ignore[attr-defined]


def failure(url: str, kind: Any = ConnectError, timeout: float = 5.0, **options: Any) -> Any:
    """Dial in vain; return the error, checked to be of exactly this kind and to contain no secret."""
    started = time.monotonic()
    with pytest.raises(ConnectError) as caught:
        dial(url, timeout, **options)
    error = caught.value
    assert type(error) is kind, repr(error)
    assert time.monotonic() - started < scaled(timeout) + scaled(2)
    for secret in SECRETS:
        assert secret not in str(error) + repr(error) + error.url
    return error


def too_late(attempt: Callable[[float], Any], words: str) -> Any:
    """Let a dial run out of time at the step that ``words`` tell of; a slow machine may need more time to get there."""
    for timeout in (0.2, 1.0, 5.0):
        error = attempt(timeout)
        if words in str(error):
            break
    assert words in str(error)
    return error


# --- it works ---------------------------------------------------------------------------------------------------------


def test_a_dial_that_works() -> None:
    with ScriptedPeer() as peer:
        assert dial(peer.url(PATH)) == "json.reliable.webpubsub.azure.v1"
        (request,) = peer.wait_requests(1)
    assert request.target == PATH
    assert request.subprotocols == ["json.reliable.webpubsub.azure.v1"]
    assert "origin" not in request.headers


def test_headers_and_user_agent() -> None:
    with ScriptedPeer() as peer:
        dial(peer.url(PATH), headers={"X-One": "1"}, user_agent="agent/1")
        dial(peer.url(PATH), headers=["X-Two: 2", "User-Agent: mine"], user_agent="agent/1")
        first, second = peer.wait_requests(2)
    assert (first.headers["x-one"], first.headers["user-agent"]) == ("1", "agent/1")
    assert (second.headers["x-two"], second.headers["user-agent"]) == ("2", "mine")


def test_tls_with_an_authority_of_ones_own(tmp_path: Any) -> None:
    certificate = self_signed(tmp_path)
    with ScriptedPeer(ssl_context=certificate.server_context) as peer:
        assert dial(repoint(peer.url(PATH), peer.port, "localhost"), ssl=certificate.client_context)


def test_a_redirect_is_followed() -> None:
    with ScriptedPeer() as peer:
        with ScriptedPeer(status=307, headers=[("Location", peer.url(PATH))]) as first:
            dial(first.url("/client/hubs/other"))
        assert peer.wait_requests(1)[0].target == PATH


@pytest.mark.parametrize("target", ["", "ftp://127.0.0.1/", "mailto:x"])
def test_a_redirect_that_leads_nowhere(target: str) -> None:
    with ScriptedPeer(status=301, headers=[("Location", target)] if target else []) as peer:
        error = failure(peer.url(PATH), HandshakeRejected)
    assert error.status == 301
    assert error.fatal is False


def test_a_redirect_may_be_relative_and_go_to_http_but_not_give_up_encryption(tmp_path: Any) -> None:
    certificate = self_signed(tmp_path)
    with ScriptedPeer() as peer:
        target = peer.url(PATH, "http")
        with ScriptedPeer(status=308, headers=[("Location", target)]) as first:
            dial(first.url("/client/hubs/other"), headers={"X-Secret": "for the first host only"})
            assert first.wait_requests(1)[0].headers["x-secret"]
        assert "x-secret" not in peer.wait_requests(1)[0].headers
        with ScriptedPeer(status=308, headers=[("Location", target)], ssl_context=certificate.server_context) as first:
            error = failure(first.url(PATH), HandshakeRejected, ssl=certificate.client_context)
            assert "not followed" in str(error)
        assert peer.accepted == 1


def test_a_redirect_to_tls_uses_the_context_of_the_user(tmp_path: Any) -> None:
    certificate = self_signed(tmp_path)
    with ScriptedPeer(ssl_context=certificate.server_context) as peer:
        with ScriptedPeer(status=302, headers=[("Location", peer.url(PATH))]) as first:
            dial(first.url("/"), ssl=certificate.client_context)
            error = failure(first.url("/"))
            assert "TLS" in str(error)


def test_redirects_without_end() -> None:
    with ScriptedPeer(status=302) as peer:
        peer._headers.append(("Location", peer.url(PATH)))
        error = failure(peer.url(PATH), HandshakeRejected)
        assert error.status == 302
        assert peer.accepted <= 5


# --- names and ports --------------------------------------------------------------------------------------------------


def test_a_name_that_does_not_exist() -> None:
    error = failure("ws://no-such-host.invalid" + PATH)
    assert "'no-such-host.invalid' cannot be resolved (DNS)" in str(error)
    assert "spelling" in error.hint
    assert not error.fatal


@pytest.mark.parametrize("host", ["a" * 70, "a..b"])
def test_a_name_that_cannot_exist(host: str) -> None:
    error = failure("ws://%s%s" % (host, PATH))
    assert "DNS" in str(error)
    assert host in str(error)


def test_a_closed_port() -> None:
    with ClosedPort() as port:
        error = failure(port.url(PATH))
        assert "127.0.0.1:%d" % port.port in str(error)
    assert "refuses connections (TCP)" in str(error)
    assert "running" in error.hint


def test_a_port_that_does_not_answer() -> None:
    with DeafPort() as port:
        error = too_late(lambda limit: failure(port.url(PATH), ConnectTimeout, limit), "connecting (TCP) took too long")
    assert "start_timeout" in error.hint
    assert isinstance(error, TimeoutError)


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_tls_against_a_plain_port() -> None:
    def serve(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            try:
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the client was faster

    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(1)
        with run_thread(serve, listener):
            error = failure("wss://%s:%d%s" % (LOOPBACK, listener.getsockname()[1], PATH))
    assert "TLS with '127.0.0.1' failed" in str(error)
    assert "plain text" in error.hint
    assert not error.fatal


def test_plain_text_against_a_tls_port(tmp_path: Any) -> None:
    certificate = self_signed(tmp_path)
    with ScriptedPeer(ssl_context=certificate.server_context) as peer:
        error = failure(peer.url(PATH, "ws"))
    assert "handshake" in str(error)
    assert error.hint


def test_a_certificate_that_is_not_trusted(tmp_path: Any) -> None:
    certificate = self_signed(tmp_path)
    with ScriptedPeer(ssl_context=certificate.server_context) as peer:
        error = failure(peer.url(PATH))
    assert "TLS with '127.0.0.1' failed" in str(error)
    assert "cafile" in error.hint
    assert error.fatal


def test_a_certificate_for_another_name(tmp_path: Any) -> None:
    certificate = self_signed(tmp_path, "example.org")
    with ScriptedPeer(ssl_context=certificate.server_context) as peer:
        error = failure(repoint(peer.url(PATH), peer.port, "localhost"), ssl=certificate.client_context)
    assert "localhost" in str(error)
    assert error.fatal


def test_a_peer_that_is_silent_in_the_tls_handshake() -> None:
    with SilentPeer() as peer:
        too_late(lambda limit: failure(peer.url(PATH, "wss"), ConnectTimeout, limit), "TLS handshake took too long")


# --- HTTP -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, kind, fatal, hint",
    [
        (400, HandshakeRejected, True, "hub name"),
        (401, AuthenticationError, True, "fresh client access URL"),
        (403, AuthenticationError, True, "not allowed"),
        (404, HandshakeRejected, True, "/client/hubs/"),
        (408, HandshakeRejected, False, ""),
        (429, HandshakeRejected, False, "later"),
        (500, HandshakeRejected, False, ""),
        (502, HandshakeRejected, False, ""),
        (503, HandshakeRejected, False, ""),
    ],
)
def test_an_http_answer(status: int, kind: Any, fatal: bool, hint: str) -> None:
    with ScriptedPeer(status=status, body=b"reason given by the service") as peer:
        error = failure(peer.url(PATH), kind)
    assert (error.status, error.body, error.fatal) == (status, "reason given by the service", fatal)
    assert "HTTP %d" % status in str(error)
    assert "reason given by the service" in str(error)
    assert hint in error.hint


def test_an_http_answer_that_echoes_the_url() -> None:
    body = "<p>GET http://x%s is not for you, Authorization: Bearer %s</p>" % (PATH, PATH.split("=")[1])
    with ScriptedPeer(status=401, body=body.encode()) as peer:
        error = failure(peer.url(PATH), AuthenticationError)
    assert "is not for you" in error.body
    for secret in SECRETS:
        assert secret not in error.body


def test_a_huge_or_binary_body_is_cut() -> None:
    with ScriptedPeer(status=500, body=b"\xff\x00" * 50000) as peer:
        error = failure(peer.url(PATH), HandshakeRejected)
    assert len(error.body) <= 500


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"+OK\r\n", b""])
def test_something_that_is_not_http(answer: bytes) -> None:
    with ScriptedPeer(handshake=lambda request, good: answer) as peer:
        error = failure(peer.url(PATH), timeout=2.0)
    assert "handshake" in str(error)
    assert "WebSocket server" in error.hint


@pytest.mark.parametrize("broken", [b"Sec-WebSocket-Accept", b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n"])
def test_a_101_that_is_wrong(broken: bytes) -> None:
    with ScriptedPeer(handshake=lambda request, good: good.replace(broken, b"X-Broken: 1\r\n" if broken[-1:] == b"\n"
                                                                   else b"X-Broken")) as peer:
        error = failure(peer.url(PATH))
    assert "handshake" in str(error)


@pytest.mark.parametrize("agreed", [None, "graphql-ws"])
def test_a_wrong_subprotocol(agreed: Optional[str]) -> None:
    with ScriptedPeer(subprotocol=agreed) as peer:
        error = failure(peer.url(PATH), SubprotocolRefused)
    assert error.fatal
    assert "subprotocol" in str(error)
    assert error.hint


def test_the_name_of_the_subprotocol_ignores_case() -> None:
    with ScriptedPeer(subprotocol="JSON.Reliable.WebPubSub.Azure.V1") as peer:
        dial(peer.url(PATH))


def test_a_peer_that_never_answers_the_handshake() -> None:
    with SilentPeer() as peer:
        too_late(lambda limit: failure(peer.url(PATH), ConnectTimeout, limit), "handshake took too long")


def test_a_handshake_that_drips_ends_in_time() -> None:
    # Each byte comes in time, all of them would take far longer than allowed.
    stop = threading.Event()

    def serve(listener: socket.socket) -> None:
        listener.settimeout(0.02)
        while not stop.is_set():
            try:
                sock, _ = listener.accept()
            except socket.timeout:
                continue
            with sock:
                sock.settimeout(scaled(5))
                try:
                    sock.recv(65536)
                    for byte in b"HTTP/1.1 101 Switching Protocols\r\n" + b"X-Filler: x\r\n" * 10000:
                        sock.sendall(bytes([byte]))
                        if stop.wait(scaled(0.01)):
                            return
                except OSError:
                    pass  # given up, as it should be

    def start(timeout: float) -> Any:
        started = time.monotonic()
        with pytest.raises(ConnectTimeout) as caught:
            client.start(timeout=scaled(timeout))
        assert time.monotonic() - started < scaled(timeout) + scaled(2)
        return caught.value

    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(1)
        with run_thread(serve, listener):
            client = WebPubSubClient("ws://%s:%d%s" % (LOOPBACK, listener.getsockname()[1], PATH))
            too_late(start, "handshake took too long")
            stop.set()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_stop_ends_a_dial_at_every_step(scheme: str) -> None:
    with SilentPeer() as silent, DeafPort() as deaf:
        for peer in (silent, deaf):
            client = WebPubSubClient(peer.url(PATH, scheme))
            with run_thread(client.start) as starting:
                wait_until(lambda client=client: client.state == "connecting")
                if peer is silent:
                    silent.wait_accepted(1)
                started = time.monotonic()
                client.stop()
                assert time.monotonic() - started < scaled(3)
                starting.exception()
            prefix = client._engine.name + "-"
            wait_until(lambda prefix=prefix: not [t for t in threading.enumerate() if t.name.startswith(prefix)])


def test_a_service_that_closes_instead_of_accepting() -> None:
    def refuse(connection: PeerConnection) -> None:
        connection.close(1008, "no room")

    with ScriptedPeer(refuse) as peer:
        client = WebPubSubClient(peer.url(PATH))
        with pytest.raises(ConnectError, match="1008: no room") as caught:
            client.start(timeout=scaled(5))
    cause: Any = caught.value.__cause__
    while cause is not None and not isinstance(cause, TransportClosed):
        cause = cause.__cause__
    assert cause.code == 1008


def test_a_service_that_accepts_and_says_nothing() -> None:
    with ScriptedPeer() as peer:
        client = WebPubSubClient(peer.url(PATH))

        def start(timeout: float) -> Any:
            with pytest.raises(ConnectTimeout) as caught:
                client.start(timeout=scaled(timeout))
            return caught.value

        too_late(start, "connected message")


# --- proxies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True])
def test_an_http_proxy(secure: bool, tmp_path: Any) -> None:
    certificate = self_signed(tmp_path)
    with ScriptedPeer(ssl_context=certificate.server_context if secure else None) as peer, HttpProxy() as proxy:
        dial(peer.url(PATH), proxy=proxy.url(), ssl=certificate.client_context)
        assert proxy.targets == [(LOOPBACK, peer.port)]
        assert peer.wait_requests(1)[0].target == PATH


def test_an_http_proxy_with_a_password() -> None:
    with ScriptedPeer() as peer, HttpProxy(credentials=("mina", "p@ss:word")) as proxy:
        dial(peer.url(PATH), proxy=proxy.url("mina:p%40ss%3Aword"))
        assert len(proxy.targets) == 1
        for credentials in ("", "mina:wrong-password"):
            error = failure(peer.url(PATH), proxy=proxy.url(credentials))
            assert "127.0.0.1:%d" % proxy.port in str(error)
            assert "407" in str(error)
            assert "credentials" in error.hint
            assert "wrong-password" not in str(error) + repr(error)
        assert len(proxy.targets) == 1


def test_an_http_proxy_that_refuses() -> None:
    with ScriptedPeer() as peer, HttpProxy(refuse=True) as proxy:
        error = failure(peer.url(PATH), proxy=proxy.url())
    assert "proxy http://127.0.0.1:%d" % proxy.port in str(error)
    assert "403" in str(error)
    assert "proxy=False" in error.hint


def test_a_proxy_that_is_silent() -> None:
    with ScriptedPeer() as peer, HttpProxy(silent=True) as proxy:
        too_late(lambda limit: failure(peer.url(PATH), ConnectTimeout, limit, proxy=proxy.url()),
                 "through the proxy http://127.0.0.1:%d took too long" % proxy.port)


def test_a_proxy_that_is_not_there() -> None:
    with ScriptedPeer() as peer, ClosedPort() as port:
        error = failure(peer.url(PATH), proxy="http://%s:%d" % (LOOPBACK, port.port))
    assert "proxy" in str(error)
    assert str(port.port) in str(error)
    assert "proxy" in error.hint


def test_a_proxy_whose_name_does_not_exist() -> None:
    error = failure("ws://127.0.0.1:9" + PATH, proxy="http://no-such-proxy.invalid:3128")
    assert "no-such-proxy.invalid" in str(error)
    assert "proxy" in error.hint


@pytest.mark.parametrize("secure, variable", [(False, "http_proxy"), (True, "https_proxy"), (False, "HTTP_PROXY")])
def test_proxies_from_the_environment(secure: bool, variable: str, tmp_path: Any, monkeypatch: Any) -> None:
    certificate = self_signed(tmp_path)
    with ScriptedPeer(ssl_context=certificate.server_context if secure else None) as peer, HttpProxy() as proxy:
        monkeypatch.setenv(variable, proxy.url())
        dial(peer.url(PATH), ssl=certificate.client_context)
        assert len(proxy.targets) == 1
        dial(peer.url(PATH), ssl=certificate.client_context, proxy=False)
        assert len(proxy.targets) == 1
        monkeypatch.setenv("no_proxy", "example.org,127.0.0.1")
        dial(peer.url(PATH), ssl=certificate.client_context)
        assert len(proxy.targets) == 1
        monkeypatch.setenv("no_proxy", "example.org")
        dial(peer.url(PATH), ssl=certificate.client_context)
        assert len(proxy.targets) == 2
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        dial(peer.url(PATH), ssl=certificate.client_context, proxy=proxy.url())  # an explicit one has no exceptions
        assert len(proxy.targets) == 3


def test_a_proxy_without_scheme_in_the_environment(monkeypatch: Any) -> None:
    with ScriptedPeer() as peer, HttpProxy() as proxy:
        monkeypatch.setenv("http_proxy", "%s:%d" % (LOOPBACK, proxy.port))
        dial(peer.url(PATH))
        assert len(proxy.targets) == 1


@pytest.mark.parametrize("proxy", ["ftp://x:1", "proxy:3128", "http://", 5, True, "http://user:password@"])
def test_a_bad_proxy_is_refused_at_the_call(proxy: Any) -> None:
    with pytest.raises(InvalidArgument, match="proxy") as caught:
        WebPubSubClient("ws://127.0.0.1:9" + PATH, proxy=proxy)
    assert "password" not in str(caught.value)


@pytest.fixture
def socks() -> Iterator[Callable[..., SocksProxy]]:
    peers.require("python_socks", "SOCKS proxies need it")
    made: List[SocksProxy] = []

    def make(**options: Any) -> SocksProxy:
        made.append(SocksProxy(**options))
        return made[-1].__enter__()  # type: ignore[no-any-return]

    yield make
    for proxy in made:
        proxy.__exit__()


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("credentials", [None, ("mina", "secret")])
def test_a_socks_proxy(socks: Any, secure: bool, credentials: Any, tmp_path: Any) -> None:
    certificate = self_signed(tmp_path)
    proxy = socks(credentials=credentials)
    with ScriptedPeer(ssl_context=certificate.server_context if secure else None) as peer:
        url = proxy.url("mina:secret" if credentials else "")
        dial(peer.url(PATH), proxy=url, ssl=certificate.client_context)
        assert len(proxy.targets) == 1


@pytest.mark.parametrize("options", [{"refuse": True}, {"credentials": ("mina", "other-secret")}])
def test_a_socks_proxy_that_refuses(socks: Any, options: Any) -> None:
    proxy = socks(**options)
    with ScriptedPeer() as peer:
        error = failure(peer.url(PATH), proxy=proxy.url("mina:my-secret"))
    assert "proxy socks5://127.0.0.1:%d" % proxy.port in str(error)
    assert "my-secret" not in str(error)


def test_a_socks_proxy_without_python_socks(monkeypatch: Any) -> None:
    import websocket._http as http

    monkeypatch.setattr(http, "HAVE_PYTHON_SOCKS", False)
    error = failure("ws://127.0.0.1:9" + PATH, proxy="socks5://127.0.0.1:9")
    assert "simplepubsub[socks]" in error.hint


def test_the_client_goes_through_the_proxy_and_back_after_a_cut() -> None:
    def accept(connection: PeerConnection) -> None:
        if "awps_connection_id" not in connection.request.target:
            connection.send_json({"type": "system", "event": "connected", "connectionId": "c", "userId": None,
                                  "reconnectionToken": "t"})
        while True:
            if connection.recv_json()["type"] == "ping":
                connection.send_json({"type": "pong"})
                if connection.index == 0:
                    connection.reset()

    with ScriptedPeer(accept) as peer, HttpProxy() as proxy:
        client = WebPubSubClient(peer.url(PATH), proxy=proxy.url(), ping_interval=20 * MS)
        with client:
            wait_until(lambda: client.stats()["recoveries"] == 1)
        assert len(proxy.targets) == 2
