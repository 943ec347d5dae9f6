"""The official JavaScript express event handler, unchanged, as the upstream of the embedded server."""

from __future__ import annotations

import pytest

from simplepubsub import WebPubSubClient
from simplepubsub.webpubsub.cloud_events import signature_matches
from tests.helpers import wait_until
from tests.node import NodeError

pytestmark = pytest.mark.interop

VALUES = [("h\u00e9llo \U0001f600", "text"), ({"a": [1, 2.5, None, True]}, "json"), (b"\0\1\xff", "binary")]
ONCE = {"messageRetryOptions": {"maxRetries": 0}}
EVENTS = {
    "echo": {"echo": True},
    "nothing": {},
    "tell": {"reply": "text \u00e9", "type": "text"},
    "bytes": {"reply": b"\0\xff"},
    "wrong": {"fail": [400, "no good"]},
    "broken": {"fail": [500, "no good"]},
    "remember": {"set": {"seen": {"deep": [1, "\u00e9"]}}, "states": True},
    "recall": {"states": True},
}
CONNECT = {
    "default": {},
    "rename": {"success": {"userId": "mina-verified", "groups": ["lobby"], "roles": ["webpubsub.sendToGroup.lobby"]}},
    "remember": {"set": {"from": "connect"}, "success": {"userId": "mina"}},
    "refuse": {"fail": [401, "not you"]},
    "choose": {"success": {"subprotocol": "json.reliable.webpubsub.azure.v1"}},
}


@pytest.fixture
def upstream(fresh_server, node):
    """An express event handler for the hub "plaza"; `upstream.server` is the server that calls it."""
    server = fresh_server()
    upstream = node.upstream("plaza", connect=CONNECT, events=EVENTS)
    upstream.server = server
    server.add_event_handler(upstream.url, "plaza")
    return upstream


@pytest.fixture
def client(upstream, node):
    """`client(**options)` is an official client, connected; `rule` is the one of CONNECT that admits it."""

    def make(rule="default", name="client", user_id="mina", roles=(), **options):
        url = upstream.server.client_access_url("plaza", user_id=user_id, roles=roles)
        return node.client(f"{url}&rule={rule}", name, **{**ONCE, **options})

    return make


def contexts(upstream, event, count=1):
    return [request["context"] for request in upstream.recorder.wait_for(count, 10, name=event)]


def test_abuse_protection_comes_first_and_once(upstream, client):
    client()
    client(name="second")
    upstream.recorder.wait_for(2, 10, name="connected")
    requests = upstream.recorder.payloads("http")
    assert [request["method"] for request in requests][:2] == ["OPTIONS", "POST"]
    assert [request["method"] for request in requests].count("OPTIONS") == 1
    host = upstream.server.endpoint.partition("://")[2]
    assert {request["headers"]["webhook-request-origin"] for request in requests} == {host}
    assert upstream.recorder.payloads("answered")[0] == {"method": "OPTIONS", "status": 200}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_origins_that_it_does_not_allow_get_nothing(fresh_server, node, elsewhere):
    server = fresh_server()
    allowed = ["https://elsewhere.example.com"] + ([] if elsewhere else [server.endpoint])
    upstream = node.upstream("plaza", connect=CONNECT, allowedEndpoints=allowed)
    server.add_event_handler(upstream.url, "plaza")
    client = node.client(server.client_access_url("plaza"), start=False)
    if elsewhere:
        with pytest.raises(NodeError, match="500"):
            client.call("start")
        assert {request["method"] for request in upstream.recorder.payloads("http")} == {"OPTIONS"}
    else:
        client.call("start")
        assert len(upstream.recorder.payloads("connect")) == 1


def test_what_connect_is_told(upstream, client):
    connected = client(roles=["webpubsub.joinLeaveGroup"])
    (request,) = upstream.recorder.payloads("connect")
    assert request["claims"]["sub"] == ["mina"]
    assert request["claims"]["role"] == ["webpubsub.joinLeaveGroup"]
    assert request["queries"] == {"rule": ["default"]}
    assert request["subprotocols"] == ["json.reliable.webpubsub.azure.v1"]
    assert request["clientCertificates"] == []
    assert "host" in {name.lower() for name in request["headers"]}
    context = request["context"]
    assert (context["hub"], context["eventName"], context["userId"]) == ("plaza", "connect", "mina")
    assert context["connectionId"] == connected.connection_id
    assert context["states"] == {}


def test_every_event_is_signed(upstream, client):
    connected = client()
    connected.call("sendEvent", "nothing", "x", "text")
    connected.call("stop")
    key = upstream.server.connection_string.split("AccessKey=")[1].split(";")[0]
    told = contexts(upstream, "connect") + contexts(upstream, "connected") + contexts(upstream, "user-event")
    assert len(told) == 3
    for context in told:
        assert signature_matches(context["signature"], context["connectionId"], [key])
        assert not signature_matches(context["signature"], context["connectionId"], ["x" + key])


def test_success_sets_user_groups_and_roles(upstream, client):
    connected = client("rename")
    assert connected.recorder.payloads("connected")[0]["userId"] == "mina-verified"
    (info,) = upstream.server.connections()
    assert (info.user_id, info.groups) == ("mina-verified", ("lobby",))
    connected.call("sendToGroup", "lobby", "allowed", "text")
    assert connected.values(1) == ["allowed"]
    with pytest.raises(NodeError, match="Forbidden"):
        connected.call("sendToGroup", "quay", "x", "text")
    assert contexts(upstream, "connected")[0]["userId"] == "mina-verified"


def test_success_without_anything_leaves_the_token_as_it_is(upstream, client):
    client(roles=["webpubsub.sendToGroup"]).call("sendToGroup", "lobby", "x", "text")
    (info,) = upstream.server.connections()
    assert info.user_id == "mina"


def test_success_chooses_the_subprotocol(upstream, client):
    client("choose")
    assert upstream.server.connections()[0].subprotocol == "json.reliable.webpubsub.azure.v1"
    with pytest.raises(NodeError, match="500"):  # the client did not offer that one
        client("choose", "other", protocol="json")


def test_fail_refuses_the_client_with_its_status(upstream, client):
    with pytest.raises(NodeError, match="401"):
        client("refuse")
    assert upstream.server.connections() == []
    client("default", "allowed")
    assert len(contexts(upstream, "connected")) == 1


def test_user_events_of_all_content_types_and_their_replies(upstream, client):
    connected = client()
    for value, data_type in VALUES:
        connected.call("sendEvent", "echo", value, data_type)
    requests = upstream.recorder.wait_for(len(VALUES), 10, name="user-event")
    assert [request["dataType"] for request in requests] == [data_type for _, data_type in VALUES]
    assert {request["context"]["eventName"] for request in requests} == {"echo"}
    replies = connected.messages(len(VALUES), "server-message")
    assert [(reply["data"], reply["dataType"]) for reply in replies] == VALUES


def test_replies_of_another_type_and_without_one(upstream, client):
    connected = client()
    for event in ("tell", "bytes", "nothing"):
        connected.call("sendEvent", event, 1, "json")
    connected.call("sendEvent", "echo", "end", "text")
    replies = connected.messages(3, "server-message")
    assert [(reply["data"], reply["dataType"]) for reply in replies] == [
        ("text \u00e9", "text"), (b"\0\xff", "binary"), ("end", "text")]


@pytest.mark.parametrize("event", ["wrong", "broken"])
def test_fail_is_an_error_in_the_ack(fresh_server, node, event):
    server = fresh_server()
    upstream = node.upstream("plaza", events=EVENTS)
    server.add_event_handler(upstream.url, "plaza", retry_delays=(0.01,))
    client = node.client(server.client_access_url("plaza"), **ONCE)
    with pytest.raises(NodeError) as caught:
        client.call("sendEvent", event, 1, "json")
    assert caught.value.detail["name"] == "InternalServerError"
    client.call("sendEvent", "echo", "still here", "text")
    assert client.values(1, "server-message") == ["still here"]
    attempts = [context["eventName"] for context in contexts(upstream, "user-event", 2)].count(event)
    assert attempts == (1 if event == "wrong" else 2)


def test_state_travels_with_every_later_event(upstream, client):
    connected, other = client("remember"), client(name="other")
    connected.call("sendEvent", "recall", 1, "json")
    connected.call("sendEvent", "remember", 1, "json")
    connected.call("sendEvent", "recall", 1, "json")
    other.call("sendEvent", "recall", 1, "json")
    first, remembered = {"from": "connect"}, {"from": "connect", "seen": {"deep": [1, "\u00e9"]}}
    assert connected.values(3, "server-message") == [first, remembered, remembered]
    assert other.values(1, "server-message") == [{}]
    upstream.server.hub("plaza").close_connection(connected.connection_id, "enough")
    assert contexts(upstream, "disconnected")[0]["states"] == remembered


def test_connected_and_disconnected_come_once_whatever_happens_between(upstream, client, node):
    server = upstream.server
    connected = client()
    first = connected.connection_id
    for cuts in (1, 2):
        server.faults.drop_connections()
        wait_until(lambda cuts=cuts: server.stats()["recovered"] == cuts, 10)
    server.hub("plaza").close_connection(first, "enough")
    connected.recorder.wait_event("connected", timeout=10, count=2)
    second = connected.connection_id
    connected.call("sendEvent", "nothing", 1, "json")
    assert [context["connectionId"] for context in contexts(upstream, "connect", 2)] == [first, second]
    assert [context["connectionId"] for context in contexts(upstream, "connected", 2)] == [first, second]
    (gone,) = upstream.recorder.wait_for(1, 10, name="disconnected")
    assert (gone["context"]["connectionId"], gone["reason"]) == (first, "enough")


def test_joined_and_left_where_they_are_asked_for(fresh_server, node):
    server = fresh_server()
    upstream = node.upstream("plaza")
    server.add_event_handler(upstream.url, "plaza", system=("joined", "left"))
    client = node.client(server.client_access_url("plaza", user_id="mina"))
    client.call("joinGroup", "lobby")
    client.call("leaveGroup", "lobby")
    for event in ("joined", "left"):
        (request,) = upstream.recorder.wait_for(1, 10, name=event)
        assert (request["group"], request["context"]["connectionId"]) == ("lobby", client.connection_id)
    assert upstream.recorder.payloads("connected") == []


def test_invocations_are_answered_by_the_same_handlers(upstream, client):
    connected = client()
    for value, data_type in VALUES:
        result = connected.call("invokeEvent", "echo", value, data_type)
        assert (result["data"], result["dataType"]) == (value, data_type)
    assert connected.call("invokeEvent", "nothing", 1, "json") == {"invocationId": "4"}
    with pytest.raises(NodeError) as caught:
        connected.call("invokeEvent", "wrong", 1, "json")
    assert caught.value.detail["name"] == "BadRequest"
    assert connected.recorder.payloads("server-message") == []


def test_our_client_is_served_as_well(upstream):
    url = upstream.server.client_access_url("plaza", user_id="jos\u00e9")
    with WebPubSubClient(url + "&rule=remember") as ours:
        assert ours.user_id == "mina"
        for value, data_type in VALUES:
            ours.send_event("echo", value, data_type)
            message = ours.receive(timeout=10)
            assert (message.data, message.data_type) == (value, data_type)


def test_templates_name_the_hub_and_the_event(fresh_server, node):
    server = fresh_server()
    upstream = node.upstream("plaza", path="/hook", events=EVENTS)
    root = upstream.url.rsplit("/hook/", 1)[0]
    server.add_event_handler(root + "/hook/{hub}/{event}?code=s3cret", events="echo,tell", system=())
    client = node.client(server.client_access_url("Plaza"), **ONCE)
    client.call("sendEvent", "echo", "x", "text")
    assert client.values(1, "server-message") == ["x"]
    with pytest.raises(NodeError, match="InternalServerError"):
        client.call("sendEvent", "nothing", "x", "text")
    urls = [(request["method"], request["url"]) for request in upstream.recorder.payloads("http")]
    assert urls == [("OPTIONS", "/hook/plaza/validate?code=s3cret"), ("POST", "/hook/plaza/echo?code=s3cret")]
