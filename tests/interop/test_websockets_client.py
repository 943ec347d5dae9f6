"""The `websockets` library as a client of the embedded server: a second implementation of RFC 6455."""

from __future__ import annotations

import json

import pytest

from tests import peers
from tests.helpers import scaled

sync_client = peers.require("websockets.sync.client", "a client that shares nothing with ours", python=(3, 8))
exceptions = peers.require("websockets.exceptions", "its errors", python=(3, 8))

pytestmark = pytest.mark.interop

PLAIN = "json.webpubsub.azure.v1"


def connect(url, *subprotocols):
    options = {"open_timeout": scaled(10), "close_timeout": scaled(10)}
    return sync_client.connect(url, subprotocols=list(subprotocols) or None, **options)


def test_a_simple_client_in_event_mode(server):
    server.on("message", handler=lambda event: event.data)
    with connect(server.client_access_url("plaza")) as client:
        for payload in ("text", b"bytes", "x" * 70_000, b""):
            client.send(payload)
            assert client.recv(timeout=scaled(10)) == payload
        client.send(["frag", "ment", "ed"])
        assert client.recv(timeout=scaled(10)) == "fragmented"
        assert client.ping().wait(scaled(10))
    assert (client.protocol.close_rcvd.code, client.protocol.close_sent.code) == (1000, 1000)


def test_a_simple_client_in_publish_mode(server):
    url = server.client_access_url("plaza", groups=["lobby"])
    with connect(url) as reader, connect(url + "&webpubsub_mode=sendToGroup&group=lobby&noEcho=true") as writer:
        writer.send("hello")
        assert reader.recv(timeout=scaled(10)) == "hello"
        server.hub("plaza").send_to_group("lobby", {"a": 1})
        assert [json.loads(client.recv(timeout=scaled(10))) for client in (reader, writer)] == [{"a": 1}] * 2


def test_a_json_client_and_a_close_by_the_service(server):
    with connect(server.client_access_url("plaza", user_id="mina"), "other", PLAIN) as client:
        assert client.subprotocol == PLAIN
        assert json.loads(client.recv(timeout=scaled(10)))["userId"] == "mina"
        server.hub("plaza").close_all_connections("maintenance")
        assert json.loads(client.recv(timeout=scaled(10)))["message"] == "maintenance"
        with pytest.raises(exceptions.ConnectionClosedOK) as caught:
            client.recv(timeout=scaled(10))
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1000, "maintenance")


def test_a_violation_is_answered_with_its_code(server):
    with connect(server.client_access_url("plaza"), PLAIN) as client:
        client.recv(timeout=scaled(10))
        client.send(b"binary")
        with pytest.raises(exceptions.ConnectionClosedError) as caught:
            client.recv(timeout=scaled(10))
        assert caught.value.rcvd.code == 1003


def test_a_refused_handshake(server):
    with pytest.raises(exceptions.InvalidStatus) as caught:
        connect(server.client_access_url("plaza").partition("?")[0], PLAIN)
    assert caught.value.response.status_code == 401
    assert b"no access token" in caught.value.response.body
