"""Abuse protection: events go only where somebody said that they are wanted (protocol reference 6.2)."""

from __future__ import annotations

import threading

import pytest

from simplepubsub.server import Server, upstream_validation
from simplepubsub.server.upstream_validation import Timing, allows
from tests.helpers import run_thread, scaled, wait_until
from tests.rawclient import PLAIN, Clients, ok, refused
from tests.upstreams import SILENCE, ScriptedUpstream

EVENT = {"type": "event", "event": "e", "data": 1, "ackId": 1}
ALLOWED = (200, {"WebHook-Allowed-Origin": "*"}, b"")


@pytest.fixture
def upstream():
    with ScriptedUpstream(options=True) as found:
        yield found


def questions(upstream):
    return [request for request in upstream.requests if request.method != "POST"]


@pytest.mark.parametrize(
    "values, origin, expected",
    [
        (["*"], "h:1", True),
        (["h:1"], "h:1", True),
        (["H"], "h:1", True),
        (["a, h:1"], "h:1", True),
        (["a", " h:1 "], "h:1", True),
        (["[::1]:80"], "[::1]:80", True),
        (["[::1]"], "[::1]:80", True),
        ([], "h:1", False),
        ([""], "h:1", False),
        (["h:2", "http://h:1", "*.h", "xh:1"], "h:1", False),
        (["h:1"], "h", False),
    ],
)
def test_which_answers_allow(values, origin, expected):
    assert allows(values, origin) is expected


def test_the_question_is_asked_once_before_the_first_event(server, connect, upstream):
    upstream.script = lambda request: ALLOWED if request.method == "OPTIONS" else 204
    server.add_event_handler(upstream.url("/{event}?code=1"))
    for _ in range(3):
        client = connect(PLAIN)
        client.send(EVENT)
        assert client.receive() == ok(1)
    assert [request.method for request in upstream.requests].count("OPTIONS") == 1
    first = upstream.requests[0]
    assert (first.method, first.path, first.body) == ("OPTIONS", "/validate?code=1", b"")
    assert first.headers["webhook-request-origin"] == server.endpoint.partition("://")[2]
    assert first.headers["ce-awpsversion"] == "1.0"
    assert "ce-signature" not in first.headers


@pytest.mark.parametrize(
    "fields",
    [
        {"WebHook-Allowed-Origin": "%s"},
        [("WebHook-Allowed-Origin", "other.example"), ("WebHook-Allowed-Origin", "%s")],
        {"webhook-allowed-origin": "other.example,%s"},
    ],
)
def test_the_host_of_the_server_allows_too(server, connect, upstream, fields):
    host = server.endpoint.partition("://")[2]
    found = fields.items() if isinstance(fields, dict) else fields
    pairs = [(key, value.replace("%s", host)) for key, value in found]
    upstream.script = lambda request: (204, pairs, b"") if request.method == "OPTIONS" else 204
    server.add_event_handler(upstream.url())
    connect(PLAIN)
    assert len(questions(upstream)) == 1


@pytest.mark.parametrize(
    "answer",
    [
        200, 400, 405, 500,
        (200, {"WebHook-Allowed-Origin": "other.example"}, b""),
        (302, {"WebHook-Allowed-Origin": "*"}, b""),
    ],  # fmt: skip
    ids=str,
)
def test_without_permission_no_event_is_sent(server, connect, upstream, answer, caplog):
    upstream.script = lambda request: answer if request.method == "OPTIONS" else 204
    server.add_event_handler(upstream.url("/{event}?code=s3cret"), retry_delays=())
    assert refused(server.client_access_url("plaza"), PLAIN)[0] == 500
    assert upstream.posts == []
    assert "no events go to" in caplog.text and "s3cret" not in caplog.text


def test_404_to_options_is_followed_by_get(server, connect, upstream):
    upstream.script = lambda request: {"OPTIONS": 404, "GET": ALLOWED}.get(request.method, 204)
    server.add_event_handler(upstream.url())
    connect(PLAIN)
    upstream.wait(2)
    assert [request.method for request in upstream.requests] == ["OPTIONS", "GET", "POST", "POST"]


def test_each_address_is_asked(server, connect, upstream):
    upstream.script = lambda request: ALLOWED if request.method == "OPTIONS" else 204
    server.add_event_handler(upstream.url("/{hub}/x"), events="", system="connect")
    server.add_event_handler(upstream.url("/other"), system=())
    for hub in ("one", "two", "two"):
        client = connect(PLAIN, hub=hub)
        client.send(EVENT)
        assert client.receive() == ok(1)
    assert [request.path for request in questions(upstream)] == ["/one/x", "/other", "/two/x"]


def test_those_who_come_together_ask_once(server, upstream):
    upstream.script = lambda request: ALLOWED if request.method == "OPTIONS" else 204
    server.add_event_handler(upstream.url())
    with Clients(server) as clients:
        threads = [run_thread(clients.connect, PLAIN) for _ in range(8)]
        for thread in threads:
            thread.__enter__()
        for thread in threads:
            thread.__exit__(None, None, None)
    assert len(questions(upstream)) == 1


def test_verdicts_are_bounded_and_nobody_who_waits_is_forgotten(server, connect, upstream, monkeypatch):
    monkeypatch.setattr(upstream_validation, "_MAX_RECORDS", 2)
    go = threading.Event()

    def script(request):
        if request.path == "/one":
            go.wait(scaled(10))
        return ALLOWED if request.method == "OPTIONS" else 204

    upstream.script = script
    server.add_event_handler(upstream.url("/{hub}"), system=())
    clients = [connect(PLAIN, hub=hub) for hub in ("one", "two", "three", "four")]
    clients[0].send(EVENT)
    wait_until(lambda: upstream.requests)
    for client in clients[1:]:
        client.send(EVENT)
        assert client.receive() == ok(1)
    go.set()
    assert clients[0].receive() == ok(1)
    assert len(server._dispatcher._upstream._http._protection._records) == 2


def server_with(timing):
    server = Server()
    server._upstream_timing = timing
    return server


def test_a_refusal_is_remembered_for_a_while_and_longer_each_time(upstream, caplog):
    upstream.script = lambda request: 400
    server = server_with(Timing(first_refusal=0.001, longest_refusal=0.004))
    server.add_event_handler(upstream.url(), retry_delays=())
    with server:
        def asked():
            refused(server.client_access_url("plaza"), PLAIN)
            return len(questions(upstream))

        wait_until(lambda: asked() >= 5)
    assert [caplog.text.count("for %g s" % pause) > 0 for pause in (0.001, 0.002, 0.004, 0.008)] == [1, 1, 1, 0]


def test_a_fresh_refusal_answers_at_once(upstream):
    upstream.script = lambda request: 400
    server = server_with(Timing(first_refusal=scaled(60)))
    server.add_event_handler(upstream.url())
    with server:
        for _ in range(5):
            assert refused(server.client_access_url("plaza"), PLAIN)[0] == 500
        assert len(questions(upstream)) == 1


def test_a_permission_is_renewed_while_events_flow(upstream):
    answers = {"OPTIONS": ALLOWED}
    upstream.script = lambda request: answers.get(request.method, 204)
    server = server_with(Timing(allowed=0.0, first_refusal=0.0, longest_refusal=0.0, timeout=scaled(60)))
    server.add_event_handler(upstream.url(), system=(), retry_delays=())
    with server, Clients(server) as clients:
        client = clients.connect(PLAIN)
        client.send(EVENT)
        assert client.receive() == ok(1)
        answers["OPTIONS"] = SILENCE  # the question is open, and the old permission still holds
        for number in range(2, 5):
            client.send(dict(EVENT, ackId=number))
            assert client.receive() == ok(number)
        # It is asked beside the events, on a connection of its own, so it may come in after them; and only one is open.
        wait_until(lambda: len(questions(upstream)) == 2)
        client.send(dict(EVENT, ackId=5))
        assert client.receive() == ok(5)
        assert len(questions(upstream)) == 2


def test_a_permission_that_is_withdrawn_ends_the_events(upstream):
    answers = {"OPTIONS": ALLOWED}
    upstream.script = lambda request: answers.get(request.method, 204)
    server = server_with(Timing(allowed=0.0))
    server.add_event_handler(upstream.url(), system=(), retry_delays=())
    with server, Clients(server) as clients:
        client = clients.connect(PLAIN)
        client.send(EVENT)
        assert client.receive() == ok(1)
        answers["OPTIONS"] = 400

        def denied():
            client.send(dict(EVENT, ackId=len(upstream.requests) + 100))
            return not client.receive()["success"]

        wait_until(denied)


def test_a_server_that_does_not_answer_the_question(upstream):
    upstream.script = lambda request: SILENCE
    server = server_with(Timing(timeout=0.05))
    server.add_event_handler(upstream.url(), retry_delays=())
    with server:
        assert refused(server.client_access_url("plaza"), PLAIN)[0] == 500
