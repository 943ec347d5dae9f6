"""The event "connect": an upstream server decides who gets in, and as whom (protocol reference 6.6)."""

from __future__ import annotations

import json
import ssl
from urllib.parse import quote

import pytest
import trustme

from simplepubsub.server import Limits
from tests.helpers import self_signed
from tests.rawclient import PLAIN, RELIABLE, Clients, RawClient, ok, refused


@pytest.fixture
def connect(server, upstream):
    """`connect(*subprotocols, **options of client_access_url)`; the server has the handler."""
    server.add_event_handler(upstream.url(), retry_delays=())
    with Clients(server) as clients:
        yield clients.connect


def answering(value, status=200):
    """Return a script that answers "connect" with this and everything else with 204."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda request: (status, {"Content-Type": "application/json; charset=utf-8"}, body) if (
        request.event == "connect"
    ) else 204


def test_the_request_as_it_came_but_for_its_secrets(server, connect, upstream):
    url = server.client_access_url("plaza", user_id="mina", roles=["r1", "r2"], groups=["g"])
    url += "&room=3&room=" + quote("\u00e9")
    connect(RELIABLE, PLAIN, url=url, headers=["X-Test: 1", "X-Test: 2", "Cookie: a=b"])
    (request,) = upstream.events("connect")
    body = json.loads(request.body)
    assert list(body) == ["claims", "query", "headers", "subprotocols", "clientCertificates"]
    assert (body["claims"]["sub"], body["claims"]["role"]) == (["mina"], ["r1", "r2"])
    assert body["query"] == {"room": ["3", "\u00e9"]}
    assert (body["headers"]["X-Test"], body["headers"]["Cookie"]) == (["1", "2"], ["a=b"])
    assert body["subprotocols"] == [RELIABLE, PLAIN]
    assert body["clientCertificates"] == []
    lists = [values for key in ("claims", "query", "headers") for values in body[key].values()]
    assert all(isinstance(item, str) for values in lists for item in values)
    token = url.partition("access_token=")[2].partition("&")[0]
    assert "access_token" not in request.body.decode() and token not in request.body.decode()


def test_a_bearer_token_is_not_passed_on(server, connect, upstream):
    url, _, token = server.client_access_url("plaza").partition("?access_token=")
    connect(PLAIN, url=url, headers=["Authorization: Bearer " + token])
    assert token not in upstream.events("connect")[0].body.decode()


def test_everything_may_be_changed(connect, upstream):
    upstream.script = answering(
        {"userId": "real", "groups": ["lobby"], "roles": ["webpubsub.sendToGroup.lobby"], "subprotocol": PLAIN}
    )
    client = connect(RELIABLE, PLAIN, user_id="mina")
    assert (client.subprotocol, client.first["userId"]) == (PLAIN, "real")
    client.publish("lobby", "hi", ackId=1)
    assert client.receive()["data"] == "hi" and client.receive() == ok(1)
    client.send({"type": "joinGroup", "group": "lobby", "ackId": 2})
    assert client.receive()["error"]["name"] == "Forbidden"
    (request,) = upstream.wait(1, "connected")
    assert (request.headers["ce-userid"], request.headers["ce-subprotocol"]) == ("real", PLAIN)


@pytest.mark.parametrize(
    "answer",
    [{}, b"", b"null", {"userId": None, "groups": None, "roles": None}, {"groups": [], "userId": ""}, {"x": 1}],
    ids=str,
)
def test_what_is_absent_or_null_stays_as_in_the_token(connect, server, upstream, answer):
    upstream.script = answering(answer)
    client = connect(PLAIN, user_id="mina", groups=["lobby"])
    assert client.first["userId"] == "mina"
    assert server.connections()[0].groups == ("lobby",)
    client.join("other")


def test_no_roles_are_no_rights(connect, upstream):
    upstream.script = answering({"roles": []})
    client = connect(PLAIN)
    client.send({"type": "joinGroup", "group": "lobby", "ackId": 2})
    assert client.receive()["error"]["name"] == "Forbidden"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 429])
def test_a_4xx_is_the_answer_to_the_client_without_its_body(connect, server, upstream, status):
    upstream.script = answering(b"inner detail", status)
    found, body = refused(server.client_access_url("plaza"), PLAIN)
    assert found == status and "detail" not in body
    assert [request.event for request in upstream.posts] == ["connect"]
    assert server.connections() == []


@pytest.mark.parametrize("status", [300, 301, 500, 503])
def test_any_other_failure_is_500(connect, server, upstream, status):
    upstream.script = answering(b"", status)
    assert refused(server.client_access_url("plaza"), PLAIN)[0] == 500


UNUSABLE = [
    b"{", b"[]", b"5", b"\xff", b"[" * 100000,
    {"userId": 5}, {"userId": False}, {"groups": "lobby"}, {"groups": [""]}, {"groups": [" "]},
    {"groups": ["x" * 1025]}, {"groups": {"a": 1}}, {"groups": [1]},
    {"roles": "r"}, {"roles": [None]}, {"roles": ["webpubsub.sendToGroups.******"]},
    {"subprotocol": ""}, {"subprotocol": "mqtt"}, {"subprotocol": 5},
    b"{" + b" " * (16 * 2**20) + b"}",
]  # fmt: skip


@pytest.mark.parametrize("answer", UNUSABLE, ids=lambda answer: str(answer)[:40])
def test_an_unusable_answer_is_500(connect, server, upstream, answer):
    upstream.script = answering(answer)
    assert refused(server.client_access_url("plaza"), PLAIN)[0] == 500
    assert server.connections() == []


def test_an_answer_larger_than_a_message_is_read(fresh_server, upstream):
    server = fresh_server(limits=Limits(max_message_bytes=1000))
    server.add_event_handler(upstream.url())
    upstream.script = answering({"userId": "mina", "more": "x" * 100000})
    with RawClient(server.client_access_url("plaza"), PLAIN) as client:
        assert client.first["userId"] == "mina"


def test_nobody_is_asked_before_the_token_is_good(connect, server, upstream):
    assert refused(server.client_access_url("plaza") + "x", PLAIN)[0] == 401
    assert upstream.requests == []


def test_a_certificate_of_the_client_is_passed_on(fresh_server, tmp_path, upstream):
    certificate = self_signed(tmp_path)
    ca = trustme.CA()
    ca.configure_trust(certificate.server_context)
    certificate.server_context.verify_mode = ssl.CERT_OPTIONAL
    mine = ca.issue_cert("mina@example.test")
    mine.configure_cert(certificate.client_context)
    server = fresh_server(ssl=certificate.server_context)
    server.add_event_handler(upstream.url())
    RawClient(server.client_access_url("h"), PLAIN, sslopt={"context": certificate.client_context}).close()
    (found,) = json.loads(upstream.events("connect")[0].body)["clientCertificates"]
    assert len(found["thumbprint"]) == 40
    assert found["content"].strip() == mine.cert_chain_pems[0].bytes().decode().strip()
