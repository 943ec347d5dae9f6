"""The official JavaScript client, unchanged, against the embedded server, with our client as the other side."""

from __future__ import annotations

import pytest

from simplepubsub import WebPubSubClient
from simplepubsub.server import RefuseConnection
from tests.helpers import scaled, wait_until
from tests.node import NodeError

pytestmark = pytest.mark.interop

PROTOCOLS = ["json.reliable", "json"]
VALUES = [("h\u00e9llo \U0001f600", "text"), ({"a": [1, 2.5, None, True]}, "json"), (b"\0\1\xff", "binary")]
ONCE = {"messageRetryOptions": {"maxRetries": 0}}


@pytest.fixture
def url(server):
    return lambda **options: server.client_access_url("plaza", **options)


def test_the_default_protocol_is_the_reliable_one(server, node, url):
    client = node.client(url(user_id="mina"))
    (connected,) = client.recorder.payloads("connected")
    (info,) = server.connections("plaza")
    assert connected == {"connectionId": info.connection_id, "userId": "mina"}
    assert info.subprotocol == "json.reliable.webpubsub.azure.v1"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_data_types_in_both_directions(node, url, protocol):
    theirs = node.client(url(user_id="mina"), protocol=protocol)
    with WebPubSubClient(url(user_id="bob"), protocol=protocol) as ours:
        theirs.call("joinGroup", "lobby")
        ours.join_group("quay")
        for value, data_type in VALUES:
            ours.send_to_group("lobby", value, data_type)
            theirs.call("sendToGroup", "quay", value, data_type)
        received = theirs.messages(len(VALUES))
        assert [(message["data"], message["dataType"]) for message in received] == VALUES
        assert {(message["group"], message["fromUserId"]) for message in received} == {("lobby", "bob")}
        for value, data_type in VALUES:
            message = ours.receive(timeout=10)
            assert (message.data, message.data_type) == (value, data_type)
            assert (message.group, message.from_user_id) == ("quay", "mina")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_server_reaches_it_with_all_data_types(server, node, url, protocol):
    client = node.client(url(), protocol=protocol)
    for value, data_type in VALUES:
        server.hub("plaza").send_to_connection(client.connection_id, value, data_type)
    received = client.messages(len(VALUES), "server-message")
    assert [(message["data"], message["dataType"]) for message in received] == VALUES


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_leaving_a_group(server, node, url, protocol):
    client = node.client(url(), protocol=protocol)
    client.call("joinGroup", "lobby")
    assert server.connections()[0].groups == ("lobby",)
    client.call("leaveGroup", "lobby")
    assert not server.hub("plaza").group_exists("lobby")
    server.hub("plaza").send_to_group("lobby", "unheard")
    server.hub("plaza").send_to_all("heard")
    assert client.values(1, "server-message") == ["heard"]
    assert client.recorder.payloads("group-message") == []


def test_echo_and_no_echo(node, url):
    client = node.client(url())
    client.call("joinGroup", "lobby")
    client.call("sendToGroup", "lobby", "unheard", "text", {"noEcho": True})
    client.call("sendToGroup", "lobby", "heard", "text")
    assert client.values(1) == ["heard"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fire_and_forget(server, node, url, protocol):
    heard = []
    server.on("note", handler=lambda event: heard.append(event.data))
    client = node.client(url(), protocol=protocol)
    with WebPubSubClient(url()) as ours:
        ours.join_group("lobby")
        result = client.call("sendToGroup", "lobby", "gone", "text", {"fireAndForget": True})
        assert result == {"isDuplicated": False}
        assert ours.receive(timeout=10).data == "gone"
    assert client.call("sendEvent", "note", "too", "text", {"fireAndForget": True}) == {"isDuplicated": False}
    wait_until(lambda: heard == ["too"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_events_reach_the_handler_and_its_reply_comes_back(server, node, url, protocol):
    seen = []

    @server.on("echo")
    def echo(event):
        seen.append((event.data, event.data_type, event.user_id))
        return event.data

    client = node.client(url(user_id="mina"), protocol=protocol)
    for value, data_type in VALUES:
        assert client.call("sendEvent", "echo", value, data_type)["isDuplicated"] is False
    assert seen == [(value, data_type, "mina") for value, data_type in VALUES]
    replies = client.messages(len(VALUES), "server-message")
    assert [(message["data"], message["dataType"]) for message in replies] == VALUES


@pytest.mark.parametrize(
    "method, args",
    [("joinGroup", ["lobby"]), ("leaveGroup", ["lobby"]), ("sendToGroup", ["lobby", "x", "text"])],
)
def test_forbidden_is_understood(node, url, method, args):
    client = node.client(url(roles=()), **ONCE)
    with pytest.raises(NodeError) as caught:
        client.call(method, *args, {"ackId": 5})
    assert (caught.value.name, caught.value.fields["ackId"]) == ("SendMessageError", 5)
    assert caught.value.detail["name"] == "Forbidden"
    assert "lobby" in caught.value.detail["message"]


def test_a_failing_handler_is_an_error_in_the_ack(server, node, url):
    @server.on("break")
    def fail(event):
        raise ValueError("no good")

    client = node.client(url(), **ONCE)
    for event in ("break", "nobody-hears-this"):
        with pytest.raises(NodeError) as caught:
            client.call("sendEvent", event, "x", "text")
        assert caught.value.detail["name"] == "InternalServerError"
        assert caught.value.detail["message"]
    assert server.connections()[0].connected


def test_it_repeats_a_failed_event_under_its_own_id_until_it_works(server, node, url):
    calls = []

    @server.on("third-time")
    def third_time(event):
        calls.append(event.data)
        if len(calls) < 3:
            raise ValueError("not yet")

    client = node.client(url(), messageRetryOptions={"maxRetries": 3, "retryDelayInMs": 20})
    assert client.call("sendEvent", "third-time", "x", "text", {"ackId": 9}) == {"ackId": 9, "isDuplicated": False}
    assert calls == ["x"] * 3


def test_an_ack_id_used_twice_is_a_duplicate(server, node, url):
    client = node.client(url())
    assert client.call("sendToGroup", "lobby", "x", "text", {"ackId": 77}) == {"ackId": 77, "isDuplicated": False}
    assert client.call("sendToGroup", "lobby", "x", "text", {"ackId": 77}) == {"ackId": 77, "isDuplicated": True}
    assert server.stats()["published"] == 1


def test_many_sends_at_once_are_all_acknowledged_in_order(node, url):
    client = node.client(url())
    with WebPubSubClient(url()) as ours:
        ours.join_group("lobby")
        pending = [client.begin("sendToGroup", "lobby", number, "json") for number in range(200)]
        assert not any(one.result()["isDuplicated"] for one in pending)
        assert [ours.receive(timeout=10).data for _ in range(200)] == list(range(200))


def test_pings_are_answered_and_keep_it_alive(proxy, url_for, node):
    patience = scaled(1.5)  # a machine that stands still for longer lets it give up
    client = node.client(url_for("plaza"), keepAliveIntervalInMs=25, keepAliveTimeoutInMs=int(1000 * patience))
    pong = b'\x81\x0f{"type":"pong"}'
    count = int(1.3 * patience / 0.025)  # one in 25 ms at most, and nothing else comes
    proxy.wait_bytes(proxy.bytes_down + count * len(pong), "down", timeout=30)
    assert proxy.accepted == 1
    assert client.recorder.payloads("disconnected") == []


def test_its_idle_check_ends_a_silent_connection_and_recovers(server, proxy, url_for, node):
    client = node.client(url_for("plaza"), keepAliveIntervalInMs=50, keepAliveTimeoutInMs=300)
    client.call("joinGroup", "lobby")
    proxy.stall("down")
    # It closes, and waits for the answer to that before it comes back.
    wait_until(lambda: not server.connections()[0].connected, 15)
    server.hub("plaza").send_to_group("lobby", "while it was deaf")
    proxy.resume("down")
    assert client.values(1) == ["while it was deaf"]
    assert [info.connection_id for info in server.connections()] == [client.connection_id]
    assert len(client.recorder.payloads("connected")) == 1
    assert proxy.accepted >= 2  # a machine that stands still for 300 ms is an idle connection, too


def test_stop_ends_the_connection_for_good(fresh_server, node):
    # It closes without a code, as it does when it means to come back: the session waits for it.
    server = fresh_server(recovery_window=0.2)
    client = node.client(server.client_access_url("plaza"))
    client.call("stop")
    client.recorder.wait_event("stopped")
    wait_until(lambda: server.connections() == [])
    assert client.recorder.payloads("disconnected") == [{"connectionId": client.connection_id}]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_learns_why_the_server_closes_and_stops(server, node, url, protocol):
    client = node.client(url(), protocol=protocol, autoReconnect=False)
    server.hub("plaza").close_connection(client.connection_id, "maintenance")
    client.recorder.wait_event("stopped")
    (told,) = client.recorder.payloads("disconnected")
    assert told["message"] == "maintenance"
    wait_until(lambda: server.connections() == [])


def test_it_comes_back_after_a_close_by_the_server(server, node, url):
    client = node.client(url())
    first = client.connection_id
    client.call("joinGroup", "lobby")
    server.hub("plaza").close_all_connections("maintenance")
    client.recorder.wait_event("connected", timeout=10, count=2)
    assert client.connection_id != first
    server.hub("plaza").send_to_group("lobby", "welcome back")  # it has rejoined before it says that it is connected
    assert client.values(1) == ["welcome back"]


def test_refusals_show_their_status(server, node, url):
    @server.on("connect")
    def connect(request):
        raise RefuseConnection(403, "not today")

    client = node.client(url(), start=False)
    with pytest.raises(NodeError, match="403"):
        client.call("start")
    expired = node.client(url(minutes_to_expire=-10), "expired", start=False)
    with pytest.raises(NodeError, match="401"):
        expired.call("start")


def test_groups_and_roles_of_the_token(server, node, url):
    client = node.client(url(groups=["lobby"], roles=["webpubsub.sendToGroup.lobby"]), **ONCE)
    client.call("sendToGroup", "lobby", "x", "text")
    assert client.values(1) == ["x"]
    with pytest.raises(NodeError, match="Forbidden"):
        client.call("sendToGroup", "quay", "x", "text")


def test_protobuf_payloads_travel_through_json_in_both_directions(node, url):
    theirs = node.client(url())
    with WebPubSubClient(url()) as ours:
        theirs.call("joinGroup", "lobby")
        ours.join_group("quay")
        ours.send_to_group("lobby", b"\3\4", "protobuf")
        theirs.call("sendToGroup", "quay", b"\5\6", "protobuf")
        assert [(one["data"], one["dataType"]) for one in theirs.messages(1)] == [(b"\3\4", "protobuf")]
        message = ours.receive(timeout=10)
        assert (message.data, message.data_type) == (b"\5\6", "protobuf")


def test_a_bare_websocket_is_a_simple_client(server, node, url):
    server.on("message", handler=lambda event: event.data)
    socket = node.socket(url(user_id="mina"))
    for value in ("h\u00e9llo \U0001f600", b"\0\1\xff", "x" * 100_000):
        socket.call("send", value)
    assert socket.recorder.wait_for(3, 10, name="message") == ["h\u00e9llo \U0001f600", b"\0\1\xff", "x" * 100_000]
    socket.call("ping", b"there?")
    assert socket.recorder.wait_event("pong") == b"there?"
    server.hub("plaza").send_to_user("mina", {"a": 1})
    assert socket.recorder.wait_for(4, 10, name="message")[3] == '{"a":1}'
    server.hub("plaza").close_user_connections("mina")
    assert socket.recorder.wait_event("close")["code"] == 1000


def test_a_bare_websocket_may_close_with_a_code_of_its_own(server, node, url):
    socket = node.socket(url())
    socket.call("close", 4001, "enough")
    assert socket.recorder.wait_event("close")["code"] == 4001
    wait_until(lambda: server.connections() == [])
