"""One event handler and what a client goes through with it: the same play in every web framework and without one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from simplepubsub.exceptions import AuthenticationError, SendMessageError
from simplepubsub.webpubsub import (
    ConnectResponse,
    EventHandler,
    RefuseConnection,
    RefuseEvent,
    RetryPolicy,
    UserEventResponse,
    WebPubSubClient,
)
from tests.helpers import Recorder, scaled

HUB = "plaza"
SUBPROTOCOL = "json.reliable.webpubsub.azure.v1"
SYSTEM = ("connect", "connected", "disconnected", "joined", "left")


def make_handler(key: str, notes: Recorder, **options: Any) -> EventHandler:
    """Return the event handler of the play, which takes down in `notes` what it is asked."""
    handler = EventHandler(HUB, access_key=key, **options)

    @handler.on_connect
    def connect(request: Any) -> ConnectResponse:
        notes.record("connect", request)
        if request.query.get("room") == ["closed"]:
            raise RefuseConnection(403, "the room is closed")
        return ConnectResponse("%s, verified" % request.user_id, ["lobby"], ["webpubsub.sendToGroup.lobby"],
                               state={"turns": 0})

    for register, name in ((handler.on_connected, "connected"), (handler.on_disconnected, "disconnected"),
                           (handler.on_joined, "joined"), (handler.on_left, "left")):
        register(notes.named(name))

    @handler.on_event("echo")
    def echo(request: Any) -> UserEventResponse:
        notes.record("echo", request)
        data_type = "binary" if request.data_type == "protobuf" else request.data_type
        return UserEventResponse(request.data, data_type)

    @handler.on_event("turn")
    def turn(request: Any) -> UserEventResponse:
        turns = request.state["turns"] + 1
        return UserEventResponse({"turns": turns}, state=dict(request.state, turns=turns))

    @handler.on_event("refuse")
    def refuse(request: Any) -> None:
        notes.record("refuse", request)
        raise RefuseEvent(400, "not like this")

    @handler.on_event("fail")
    def fail(request: Any) -> None:
        notes.record("fail", request)
        raise ZeroDivisionError("on purpose")

    @handler.on_event
    def nothing(request: Any) -> None:
        notes.record("nothing", request)

    return handler


def play(server: Any, notes: Recorder) -> None:
    """Connect to `server`, whose upstream the handler is, and check every kind of event and answer."""
    url = server.client_access_url(HUB, user_id="josé 50%", roles=["webpubsub.joinLeaveGroup"])
    _refusal(url, notes)
    client = WebPubSubClient(url + "&room=3&room=4", ack_timeout=scaled(20), message_retry=RetryPolicy(total=0))
    with client:
        assert client.user_id == "josé 50%, verified"
        _connect(notes.wait_event("connect", count=2))
        connected = notes.wait_event("connected")
        assert (connected.user_id, connected.subprotocol) == ("josé 50%, verified", SUBPROTOCOL)
        assert connected.state == {"turns": 0} and connected.connection_id == client.connection_id
        joined = notes.wait_event("joined")
        assert (joined.group, joined.connection_id) == ("lobby", client.connection_id)
        _groups(client)
        _data(client, notes)
        _state(client)
        _failures(client, notes)
        _large(client)
    gone = notes.wait_event("disconnected")
    assert (gone.user_id, gone.state) == ("josé 50%, verified", {"turns": 2})
    assert gone.connection_id == connected.connection_id and len(notes.payloads("disconnected")) == 1


def _refusal(url: str, notes: Recorder) -> None:
    refused = WebPubSubClient(url + "&room=closed")
    with pytest.raises(AuthenticationError) as caught:
        refused.start()
    assert caught.value.status == 403
    refused.stop()
    assert notes.wait_event("connect").query == {"room": ["closed"]}


def _connect(request: Any) -> None:
    assert (request.hub, request.user_id) == (HUB, "josé 50%")
    assert request.query == {"room": ["3", "4"]}
    assert request.claims["sub"] == ["josé 50%"] and request.roles == ("webpubsub.joinLeaveGroup",)
    assert request.subprotocols == (SUBPROTOCOL,)
    assert "access_token" not in json.dumps(dict(request.query))


def _groups(client: WebPubSubClient) -> None:
    client.send_to_group("lobby", "from a member")
    message = client.receive(scaled(20))
    assert (message.kind, message.group, message.data) == ("group", "lobby", "from a member")
    with pytest.raises(SendMessageError) as caught:
        client.join_group("garden")  # the answer took the token's roles away
    assert caught.value.name == "Forbidden"


def _data(client: WebPubSubClient, notes: Recorder) -> None:
    for number, (data, data_type) in enumerate([
        ("text é €", "text"), ({"a": [1, None, "é"]}, "json"), ("a JSON text", "json"), (b"\x00\xff\r\n", "binary"),
        (False, "json"), (b"\x0a\x01a", "protobuf"),
    ], 1):
        client.send_event("echo", data, data_type)
        message = client.receive(scaled(20))
        assert (message.kind, message.data) == ("server", data)
        assert message.data_type == ("binary" if data_type == "protobuf" else data_type)
        request = notes.wait_event("echo", count=number)
        assert (request.event, request.data, request.data_type) == ("echo", data, data_type)
        assert request.connection_id == client.connection_id


def _state(client: WebPubSubClient) -> None:
    for turns in (1, 2):
        client.send_event("turn", "next")
        assert client.receive(scaled(20)).data == {"turns": turns}


def _failures(client: WebPubSubClient, notes: Recorder) -> None:
    for event in ("refuse", "fail"):
        with pytest.raises(SendMessageError) as caught:
            client.send_event(event, "x")
        assert caught.value.name == "InternalServerError" and "on purpose" not in str(caught.value)
        assert len(notes.payloads(event)) == 1
    client.send_event("anything.else", "x")
    assert notes.wait_event("nothing").event == "anything.else"


def _large(client: WebPubSubClient) -> None:
    large = "é" * 400_000
    client.send_event("echo", large)
    assert client.receive(scaled(20)).data == large
