"""The service client behind proxies: tunnels, SOCKS, refusals, and proxies that say nothing."""

from __future__ import annotations

import threading
from typing import Any, Iterator

import pytest

from simplepubsub import RetryPolicy
from simplepubsub import exceptions as errors
from simplepubsub.webpubsub import WebPubSubServiceClient
from tests import peers
from tests.helpers import MS, run_thread, scaled, self_signed
from tests.proxies import HttpProxy, SocksProxy
from tests.scriptedhttp import Exchange, ScriptedHttp, time_out

KEY = "first-key-0123456789abcdef0123456789"
NONE = RetryPolicy(total=0)
ACCOUNT = ("me", "pr0xy-passw0rd")


@pytest.fixture
def secure(tmp_path: Any) -> Iterator[Any]:
    """(peer, certificate): a TLS server."""
    certificate = self_signed(tmp_path, "127.0.0.1")
    with ScriptedHttp(202, tls=certificate.server_context) as peer:
        yield peer, certificate


@pytest.mark.parametrize("credentials", [None, ACCOUNT])
def test_a_tunnel_to_a_tls_service(credentials: Any, secure: Any) -> None:
    peer, certificate = secure
    with HttpProxy(credentials=credentials) as proxy:
        url = proxy.url("%s:%s" % ACCOUNT if credentials else "")
        options = {"proxies": url, "ssl": certificate.client_context}
        with WebPubSubServiceClient(peer.endpoint, "plaza", KEY, **options) as service:
            service.send_to_all(b"x" * 2**20)
            service.send_to_all("x")
    assert proxy.targets == [("127.0.0.1", peer.port)] and len(peer.requests) == 2
    assert "proxy-authorization" not in peer.requests[0].headers


@pytest.mark.parametrize("credentials", [None, ACCOUNT])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_socks_proxy(scheme: str, credentials: Any, secure: Any) -> None:
    peers.require("socks", "SOCKS proxies need it")
    peer, certificate = secure
    with SocksProxy(credentials=credentials) as proxy, ScriptedHttp(202) as plain:
        url = proxy.url("%s:%s" % ACCOUNT if credentials else "")
        target = peer if scheme == "https" else plain
        with WebPubSubServiceClient(target.endpoint, "plaza", KEY, proxies={scheme: url},
                                    ssl=certificate.client_context) as service:
            service.send_to_all("x")
            service.send_to_all("x")
        assert proxy.targets == [("127.0.0.1", target.port)] and len(target.requests) == 2


@pytest.mark.parametrize("kind, options", [
    (HttpProxy, {"refuse": True}), (HttpProxy, {"credentials": ACCOUNT}), (SocksProxy, {"refuse": True}),
    (SocksProxy, {"credentials": ACCOUNT}),
], ids=["tunnel refused", "password wanted", "SOCKS refused", "SOCKS password"])
def test_a_proxy_that_refuses(kind: Any, options: Any, secure: Any) -> None:
    peer, _ = secure
    if kind is SocksProxy:
        peers.require("socks", "SOCKS proxies need it")
    with kind(**options) as proxy:
        with WebPubSubServiceClient(peer.endpoint, "plaza", KEY, proxies=proxy.url("me:wrong-pass"), retry=NONE,
                                    verify=False) as service:
            with pytest.raises(errors.ServiceConnectionError, match="proxy") as caught:
                service.send_to_all("x")
    assert caught.value.written is False and "wrong-pass" not in str(caught.value)


def test_a_silent_proxy_is_given_the_time_of_a_connection(secure: Any) -> None:
    peer, _ = secure
    with HttpProxy(silent=True) as proxy:
        with WebPubSubServiceClient(peer.endpoint, "plaza", KEY, proxies=proxy.url(), retry=NONE) as service:
            time_out(lambda timeout: service.send_to_all("x", connect_timeout=timeout),
                     lambda error: "tunnel" in str(error))
            with run_thread(service.send_to_all, "x", connect_timeout=None, timeout=None) as blocked:
                started = threading.Event()
                while not service._pipeline._lines.get()._busy and not started.wait(0.01):
                    assert blocked.running
                service.close()
                assert isinstance(blocked.exception(scaled(5)), errors.ClientStopped)


def test_a_proxy_that_never_ends_its_head() -> None:
    def drip(exchange: Exchange) -> None:
        exchange.drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500, 20 * MS)

    with ScriptedHttp(drip) as proxy:
        with WebPubSubServiceClient("https://demo.example.test", "plaza", KEY, proxies=proxy.endpoint) as service:
            with pytest.raises(errors.ServiceTimeout):
                service.send_to_all("x", timeout=300 * MS)
