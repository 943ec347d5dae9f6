"""Upstream servers that are silent, dead or in trouble, and a server that stops or is reset meanwhile."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import websocket

from simplepubsub.server import Server, upstream_http
from simplepubsub.server.upstream_validation import Timing
from tests.helpers import ClosedPort, run_thread, scaled, self_signed, wait_until
from tests.rawclient import PLAIN, Clients, RawClient, ok, refused
from tests.stranger import SilentPeer
from tests.upstreams import RESET, SILENCE, ScriptedUpstream

EVENT = {"type": "event", "event": "e", "data": 1, "ackId": 1}


def at_event(*answers):
    """Return a script that gives these answers to the event "e", one after the other, and 204 to all else."""
    left = list(answers)
    return lambda request: left.pop(0) if request.event == "e" and left else 204


# --- retries ----------------------------------------------------------------------------------------------------------


def test_the_delays_of_retries_are_those_of_the_emulator(server):
    assert server.add_event_handler("http://localhost/").retry_delays == (1.0, 3.0, 5.0)
    assert server.add_event_handler("http://localhost/").timeout == 100.0


@pytest.mark.parametrize("first", [408, 500, 503, RESET])
def test_an_attempt_that_may_succeed_later_is_repeated_as_the_same_event(server, connect, upstream, first):
    server.add_event_handler(upstream.url(), system=(), retry_delays=(0.01, 0.01))
    upstream.script = at_event(first, first, (200, {"Content-Type": "text/plain"}, b"done"))
    client = connect(PLAIN)
    client.send(EVENT)
    assert client.receive()["data"] == "done"
    assert client.receive() == ok(1)
    assert len({(request.headers["ce-id"], request.headers["ce-time"]) for request in upstream.events("e")}) == 1
    assert len(upstream.events("e")) == 3


def test_there_are_as_many_attempts_as_delays_and_one(server, connect, upstream):
    server.add_event_handler(upstream.url(), system=(), retry_delays=(0.0, 0.0, 0.0))
    upstream.script = at_event(*[500] * 9)
    client = connect(PLAIN)
    client.send(EVENT)
    assert "answered 500" in client.receive()["error"]["message"]
    assert len(upstream.events("e")) == 4


@pytest.mark.parametrize("status", [400, 401, 404, 429, 302])
def test_an_answer_that_will_not_change_is_not_asked_for_again(server, connect, upstream, status):
    server.add_event_handler(upstream.url(), system=())
    upstream.script = at_event(status)
    client = connect(PLAIN)
    client.send(EVENT)
    assert str(status) in client.receive()["error"]["message"]
    assert len(upstream.events("e")) == 1


def test_a_dead_upstream_fails_events_and_refuses_connections(server, connect):
    with ClosedPort() as closed:
        server.add_event_handler("http://127.0.0.1:%d/" % closed.port, retry_delays=(0.0,), system=())
        client = connect(PLAIN)
        client.send(EVENT)
        assert client.receive()["error"]["name"] == "InternalServerError"
        client.send(dict(EVENT, ackId=2))
        assert client.receive()["error"]["name"] == "InternalServerError"
        server.add_event_handler("http://127.0.0.1:%d/" % closed.port, retry_delays=())
        assert refused(server.client_access_url("plaza"), PLAIN) == (500, "the event handler cannot be reached")


def test_an_upstream_that_comes_up_between_the_attempts_is_found(upstream):
    upstream.options = True
    allowed = (200, {"WebHook-Allowed-Origin": "*"}, b"")
    upstream.script = lambda request: RESET if len(upstream.requests) < 4 else allowed
    server = Server()
    server._upstream_timing = Timing(first_refusal=0.0, longest_refusal=0.0)
    server.add_event_handler(upstream.url(), system=(), retry_delays=(0.0,) * 5)
    with server, Clients(server) as clients:
        client = clients.connect(PLAIN)
        client.send(EVENT)
        assert client.receive() == ok(1)


def test_a_host_without_an_address_is_a_network_error(server, connect, caplog, monkeypatch):
    real = socket.getaddrinfo

    def resolve(host, *args, **keywords):  # a name server that is far away, or none, takes its time to say so
        if host == "no-such-host.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **keywords)

    monkeypatch.setattr(upstream_http.socket, "getaddrinfo", resolve)
    server.add_event_handler("http://no-such-host.invalid/", system=(), retry_delays=())
    client = connect(PLAIN)
    client.send(EVENT)
    assert client.receive()["error"]["name"] == "InternalServerError"
    assert "no-such-host.invalid" in caplog.text


def test_a_host_name_is_looked_up(server, connect, upstream):
    server.add_event_handler(upstream.url().replace("127.0.0.1", "localhost"), system=(), retry_delays=())
    client = connect(PLAIN)
    client.send(EVENT)
    assert client.receive() == ok(1)


# --- silence ----------------------------------------------------------------------------------------------------------


def test_a_silent_upstream_costs_its_timeout_and_nobody_else_waits(server, connect, upstream):
    server.add_event_handler(upstream.url(), "slow", system=(), timeout=scaled(0.3))
    server.add_event_handler(upstream.url(), system=())
    upstream.script = lambda request: SILENCE if request.headers["ce-hub"] == "slow" else 204
    slow, other = connect(PLAIN, hub="slow"), connect(PLAIN)
    begin = time.monotonic()
    slow.send(EVENT, dict(EVENT, ackId=2))
    wait_until(lambda: upstream.requests)  # the question at least; whether the event gets there in its time is open
    other.send(EVENT)
    assert other.receive() == ok(1)
    assert "too slow" in slow.receive()["error"]["message"]
    assert time.monotonic() - begin >= scaled(0.3)
    assert slow.receive()["ackId"] == 2
    mine = [request.headers["ce-id"] for request in upstream.events("e") if request.headers["ce-hub"] == "slow"]
    assert len(mine) == len(set(mine))  # timeouts are not retried


def test_a_peer_that_accepts_and_says_nothing(server, connect):
    with SilentPeer() as peer:
        server.add_event_handler(peer.url("/", "http"), system=(), timeout=scaled(0.2))
        client = connect(PLAIN)
        client.send(EVENT)
        assert client.receive()["error"]["name"] == "InternalServerError"


def test_connect_that_takes_too_long_is_refused(server, upstream):
    server.add_event_handler(upstream.url(), timeout=scaled(0.2))
    upstream.script = lambda request: SILENCE
    assert refused(server.client_access_url("plaza"), PLAIN)[0] == 500


def test_many_silent_calls_are_bounded_and_the_rest_gets_its_turn(server, connect, upstream, monkeypatch):
    monkeypatch.setattr(upstream_http, "_MAX_REQUESTS", 2)
    server.add_event_handler(upstream.url(), system=(), timeout=scaled(60))
    go = threading.Event()
    upstream.script = lambda request: 204 if go.wait(scaled(20)) else 500
    clients = [connect(PLAIN) for _ in range(6)]
    for client in clients:
        client.send(EVENT)
    upstream.wait(2)
    for client in clients:
        client.assert_quiet()
    assert len(upstream.events("e")) == 2
    go.set()
    for client in clients:
        assert client.receive() == ok(1)


# --- stop and reset ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_stop_ends_calls_that_run_and_leaves_nothing(fresh_server, tmp_path, secure):
    certificate = self_signed(tmp_path, "127.0.0.1") if secure else None
    with ScriptedUpstream(
        lambda request: SILENCE, context=certificate.server_context if certificate else None
    ) as upstream:
        server = fresh_server()
        server.add_event_handler(upstream.url(), ssl=certificate.client_context if certificate else None, system=())
        with Clients(server) as clients:
            for _ in range(3):
                clients.connect(PLAIN).send(EVENT)
            upstream.wait(3, "e")
            begin = time.monotonic()
            server.stop()
            assert time.monotonic() - begin < scaled(8)  # the silence would last for a minute


def test_stop_ends_a_handshake_that_waits_for_upstream(fresh_server, upstream):
    server = fresh_server()
    server.add_event_handler(upstream.url())
    upstream.script = lambda request: SILENCE

    def lost():
        with pytest.raises((OSError, websocket.WebSocketException)):
            RawClient(server.client_access_url("h"), PLAIN)

    with run_thread(lost):
        upstream.wait(1, "connect")
        begin = time.monotonic()
        server.stop()
        assert time.monotonic() - begin < scaled(8)


def test_reset_ends_calls_and_waiting_events_and_the_server_goes_on(server, connect, upstream):
    route = server.add_event_handler(upstream.url(), system=())
    upstream.script = lambda request: SILENCE
    client = connect(PLAIN)
    client.send(EVENT, dict(EVENT, ackId=2))
    upstream.wait(1)
    server.reset()
    client.expect_loss()
    upstream.script = lambda request: 204
    again = connect(PLAIN)
    again.send(dict(EVENT, event="later"))
    assert again.receive() == ok(1)
    assert [request.event for request in upstream.posts] == ["e", "later"]
    assert server.remove_event_handler(route) and not server.remove_event_handler(route)


def test_a_function_that_outlives_a_reset_changes_nothing_after_it(server, connect):
    started, release = threading.Event(), threading.Event()
    seen = []

    @server.on("e")
    def stuck(event):
        seen.append(event.data)
        started.set()
        release.wait(scaled(10))

    client = connect(PLAIN)
    client.send(EVENT, dict(EVENT, ackId=2, data=2))
    assert started.wait(scaled(5))
    server.reset()
    release.set()
    server.on("e", handler=lambda event: None)
    again = connect(PLAIN)
    again.send(EVENT)
    assert again.receive() == ok(1)
    assert seen == [1]


def test_a_fault_of_our_own_fails_one_event_and_not_the_next(server, connect, upstream, monkeypatch, caplog):
    server.add_event_handler(upstream.url(), system=())
    client = connect(PLAIN)
    with monkeypatch.context() as patch:
        patch.setattr(upstream_http.HttpClient, "post", lambda *_: {}["a fault"])
        client.send(EVENT)
        assert client.receive()["error"]["name"] == "InternalServerError"
    client.send(dict(EVENT, ackId=2))
    assert client.receive() == ok(2)
    assert "a fault" in caplog.text


# --- TLS --------------------------------------------------------------------------------------------------------------


# Before Python 3.11 asyncio forgets to close the transport of a client handshake that fails; its socket is closed.
@pytest.mark.filterwarnings("ignore:(?s).*_SSLProtocolTransport:pytest.PytestUnraisableExceptionWarning")
def test_certificates_are_verified_and_a_context_of_ones_own_may_trust_them(server, connect, tmp_path, caplog):
    certificate = self_signed(tmp_path, "127.0.0.1")
    with ScriptedUpstream(context=certificate.server_context) as upstream:
        strict = server.add_event_handler(upstream.url(), system=(), retry_delays=(60.0,))
        client = connect(PLAIN)
        client.send(EVENT)
        assert client.receive()["error"]["name"] == "InternalServerError"  # at once: a certificate does not get better
        assert "ertificate" in caplog.text and not upstream.requests
        server.remove_event_handler(strict)
        server.reset()
        server.add_event_handler(upstream.url(), system=(), ssl=certificate.client_context)
        client = connect(PLAIN)
        client.send(EVENT)
        assert client.receive() == ok(1)
        assert [request.method for request in upstream.requests] == ["OPTIONS", "POST"]


def test_an_idle_connection_is_used_again(server, connect, upstream, monkeypatch):
    monkeypatch.setattr(upstream_http, "_KEEP_ALIVE", scaled(60))
    server.add_event_handler(upstream.url(), system=())
    client = connect(PLAIN)
    for number in range(20):
        client.send(dict(EVENT, ackId=number))
        assert client.receive() == ok(number)
    # One for the question whether events are wanted and one for them, at most.
    assert len(upstream._sockets) <= 2
