"""Every operation of the official JavaScript service package, unchanged, against the embedded server's REST side."""

from __future__ import annotations

import contextlib
import time

import pytest

from simplepubsub import WebPubSubClient
from simplepubsub.webpubsub.access_tokens import sign_rest_token
from tests.helpers import Recorder, self_signed, wait_until
from tests.node import Node, NodeError, odata

pytestmark = pytest.mark.interop

TEXT = {"contentType": "text/plain"}
#: The message, the options, and what a client gets.
PAYLOADS = [
    ("h\u00e9llo \U0001f600", TEXT, "text"),
    ("a JSON string", {}, "json"),
    ({"a": [1, 2.5, None, True]}, {}, "json"),
    (17, {}, "json"),
    (b"\0\1\xff", {}, "binary"),
]


@pytest.fixture
def service(server, node):
    return node.service("plaza", connectionString=server.connection_string)


@pytest.fixture
def connect(server):
    """`connect(user_id, groups)` is one of our clients, connected to the hub "plaza"."""
    with contextlib.ExitStack() as stack:

        def make(user_id=None, groups=(), **options):
            url = server.client_access_url("plaza", user_id=user_id, groups=groups)
            return stack.enter_context(WebPubSubClient(url, **options))

        yield make


def assert_receives(clients, data):
    for client in clients:
        assert client.receive(timeout=10).data == data


# What each call below excludes or leaves out is shown by the "end" that everybody gets next.


def assert_nothing_more(service, clients):
    service.call("sendToAll", "end")
    assert_receives(clients, "end")


@pytest.mark.parametrize("message, options, data_type", PAYLOADS)
def test_content_types_reach_all_a_user_a_connection_and_a_group(service, connect, message, options, data_type):
    client = connect("mina", ["lobby"])
    service.call("sendToAll", message, options)
    service.call("sendToUser", "mina", message, options)
    service.call("sendToConnection", client.connection_id, message, options)
    service.keep("lobby", "group", "lobby").call("sendToAll", message, options)
    for kind, group in [("server", None)] * 3 + [("group", "lobby")]:
        received = client.receive(timeout=10)
        assert (received.data, received.data_type) == (message, data_type)
        assert (received.kind, received.group, received.from_user_id) == (kind, group, None)


def test_excluded_connections_get_nothing(service, connect):
    one, two = connect(groups=["lobby"]), connect(groups=["lobby"])
    but_one = {"excludedConnections": [one.connection_id, "nobody"]}
    service.call("sendToAll", "to all", but_one)
    service.keep("lobby", "group", "lobby").call("sendToAll", "to the group", but_one)
    assert_receives([two], "to all")
    assert_receives([two], "to the group")
    assert_nothing_more(service, [one, two])


def test_filters_of_its_odata_tag(service, connect):
    quoted, plain = connect("o'hara", ["lobby"]), connect("bob", ["lobby", "quay"])
    anonymous = connect(groups=["lobby"])
    lobby = service.keep("lobby", "group", "lobby")
    service.call("sendToAll", 1, {"filter": odata(["userId eq ", ""], "o'hara")})
    assert_receives([quoted], 1)
    lobby.call("sendToAll", 2, {"filter": odata(["userId eq ", ""], None)})
    assert_receives([anonymous], 2)
    lobby.call("sendToAll", 3, {"filter": odata(["", " in groups and length(userId) le ", ""], "quay", 3)})
    assert_receives([plain], 3)
    service.call("sendToUser", "bob", 4, {"filter": odata(["not ('", "' in groups)"], "quay")})
    service.call("sendToUser", "bob", 5, {"filter": odata(["startswith(userId, '", "')"], "b")})
    assert_receives([plain], 5)
    assert_nothing_more(service, [quoted, plain, anonymous])


def test_a_bad_filter_is_a_bad_request(service):
    with pytest.raises(NodeError) as caught:
        service.call("sendToAll", 1, {"filter": "length(userId) > 3"})
    assert caught.value.fields["statusCode"] == 400


def test_a_message_past_its_time_to_live_is_not_delivered(server, service, connect, proxy):
    with WebPubSubClient(proxy.url(server.client_access_url("plaza", groups=["lobby"]))) as client:
        proxy.refuse(True)
        proxy.cut()
        lobby = service.keep("lobby", "group", "lobby")
        lobby.call("sendToAll", "short-lived", {"messageTtlSeconds": 1})
        lobby.call("sendToAll", "long-lived", {"messageTtlSeconds": 300})
        due = time.monotonic() + 1.1
        wait_until(lambda: time.monotonic() > due, 5, "a message to be too old")
        proxy.refuse(False)
        assert_receives([client], "long-lived")


def test_existence(service, connect):
    client = connect("mina", ["lobby"])
    for method, name in (("connectionExists", client.connection_id), ("userExists", "mina"), ("groupExists", "lobby")):
        assert service.call(method, name) is True
        assert service.call(method, "nobody") is False


def test_names_with_all_sorts_of_characters(server, service, connect):
    name = "a b/c?d#e%2Ff&g+\u00e9\U0001f600"
    client = connect(name, [name])
    assert service.call("userExists", name) is True
    assert service.call("groupExists", name) is True
    service.call("sendToUser", name, "user")
    service.keep("group", "group", name).call("sendToAll", "group")
    assert [client.receive(timeout=10).data for _ in range(2)] == ["user", "group"]


def closed(clients, reason):
    """Wait until the clients have been told why they are disconnected."""
    for _, recorder in clients:
        assert recorder.wait_event("disconnected", timeout=10).message == reason


@pytest.fixture
def watched(connect):
    def make(*args):
        client = connect(*args, auto_reconnect=False)
        return client, Recorder().attach(client, "disconnected")

    return make


def test_closing_a_connection_a_user_a_group_and_all(server, service, watched):
    one, user, group, others = watched(), watched("mina"), watched(None, ["lobby"]), [watched(), watched()]
    service.call("closeConnection", one[0].connection_id, {"reason": "just you"})
    closed([one], "just you")
    service.call("closeUserConnections", "mina", {"reason": "who you are"})
    closed([user], "who you are")
    service.keep("lobby", "group", "lobby").call("closeAllConnections", {"reason": "where you are"})
    closed([group], "where you are")
    assert len(server.connections()) == 2
    service.call("closeAllConnections", {"reason": "good night & bye"})
    closed(others, "good night & bye")
    assert server.connections() == []


def test_memberships_of_connections_and_users(server, service, connect):
    client = connect("mina")

    def groups():
        (info,) = server.connections()
        return info.groups

    lobby = service.keep("lobby", "group", "lobby")
    lobby.call("addConnection", client.connection_id)
    assert groups() == ("lobby",)
    lobby.call("removeConnection", client.connection_id)
    assert groups() == ()
    lobby.call("addUser", "mina")
    assert groups() == ("lobby",)
    lobby.call("removeUser", "mina")
    assert groups() == ()
    targets = {"removeUserFromAllGroups": "mina", "removeConnectionFromAllGroups": client.connection_id}
    for method, target in targets.items():
        for name in ("lobby", "quay"):
            service.keep(name, "group", name).call("addUser", "mina")
        assert set(groups()) == {"lobby", "quay"}
        service.call(method, target)
        assert groups() == ()
    with pytest.raises(NodeError) as caught:
        lobby.call("addConnection", "nobody")
    assert caught.value.fields["statusCode"] == 404
    lobby.call("removeConnection", "nobody")


def test_memberships_by_filter(server, service, connect):
    for user_id in ("ann", "bob", "anton"):
        connect(user_id)

    def members(group):
        return {info.user_id for info in server.connections() if group in info.groups}

    service.call("addConnectionsToGroups", ["lobby", "quay"], odata(["startswith(userId, ", ")"], "an"))
    assert members("lobby") == members("quay") == {"ann", "anton"}
    service.call("removeConnectionsFromGroups", ["lobby"], odata(["userId eq ", ""], "ann"))
    assert (members("lobby"), members("quay")) == ({"anton"}, {"ann", "anton"})
    service.call("addConnectionsToGroups", ["everybody"], "")
    assert members("everybody") == {"ann", "bob", "anton"}


@pytest.mark.parametrize("permission, method", [("sendToGroup", "send_to_group"), ("joinLeaveGroup", "join_group")])
def test_permissions(server, service, permission, method):
    with WebPubSubClient(server.client_access_url("plaza", roles=())) as client:
        args = ["lobby", "x"] if method == "send_to_group" else ["lobby"]
        target = {"targetName": "lobby"}
        assert service.call("hasPermission", client.connection_id, permission, target) is False
        with pytest.raises(Exception, match="Forbidden|lobby"):
            getattr(client, method)(*args)
        service.call("grantPermission", client.connection_id, permission, target)
        assert service.call("hasPermission", client.connection_id, permission, target) is True
        assert service.call("hasPermission", client.connection_id, permission, {"targetName": "quay"}) is False
        getattr(client, method)(*args)
        service.call("revokePermission", client.connection_id, permission, target)
        assert service.call("hasPermission", client.connection_id, permission, target) is False
        with pytest.raises(NodeError) as caught:
            service.call("grantPermission", "nobody", permission, target)
        assert caught.value.fields["statusCode"] == 404


def test_listing_the_connections_of_a_group_by_pages(server, service, connect):
    users = ["user-%d" % number for number in range(5)]
    expected = sorted((connect(user, ["lobby"]).connection_id, user) for user in users)
    anonymous = connect(None, ["quay"]).connection_id
    lobby = service.keep("lobby", "group", "lobby")

    def pages(group=lobby, settings=None, **options):
        return group.call("listConnections", options, pages=settings or {})

    def flat(pages):
        return [(one["connectionId"], one["userId"]) for page in pages for one in page]

    assert flat(pages()) == expected
    by_two = pages(maxPageSize=2)
    assert [len(page) for page in by_two] == [2, 2, 1]
    assert flat(by_two) == expected
    assert flat(pages(top=3)) == expected[:3]
    three_by_two = pages(top=3, maxPageSize=2)
    assert [len(page) for page in three_by_two] == [2, 1]
    assert flat(three_by_two) == expected[:3]
    assert pages(service.keep("quay", "group", "quay")) == [[{"connectionId": anonymous}]]
    assert flat(pages(service.keep("none", "group", "nobody is here"))) == []


def test_tokens_with_user_groups_and_roles_open_the_door_to_its_own_kind(server, node, service):
    token = service.call("getClientAccessToken", {
        "userId": "mina", "groups": ["lobby"], "roles": ["webpubsub.sendToGroup.lobby"], "expirationTimeInMinutes": 5})
    client = node.client(token["url"], messageRetryOptions={"maxRetries": 0})
    (info,) = server.connections("plaza")
    assert (info.connection_id, info.user_id, info.groups) == (client.connection_id, "mina", ("lobby",))
    client.call("sendToGroup", "lobby", "x", "text")
    assert client.values(1) == ["x"]
    with pytest.raises(NodeError, match="Forbidden"):
        client.call("sendToGroup", "quay", "x", "text")
    service.call("sendToUser", "mina", {"from": "the service"})
    assert client.values(1, "server-message") == [{"from": "the service"}]
    anonymous = node.client(service.call("getClientAccessToken")["url"], "anonymous")
    assert anonymous.recorder.payloads("connected")[0]["userId"] is None


def test_a_wrong_key_is_refused(server, node):
    wrong = server.connection_string.replace("AccessKey=", "AccessKey=x")
    with pytest.raises(NodeError) as caught:
        node.service("plaza", connectionString=wrong).call("sendToAll", 1)
    assert caught.value.fields["statusCode"] == 401


def test_a_reverse_proxy_between_them(server, node, proxy, connect):
    client = connect()
    options = {"reverseProxyEndpoint": f"http://{proxy.host}:{proxy.port}"}
    node.service("plaza", connectionString=server.connection_string, options=options).call("sendToAll", "around")
    assert_receives([client], "around")
    assert proxy.accepted == 1


def test_a_token_credential_over_tls_lets_the_server_make_client_tokens(fresh_server, tmp_path):
    certificate = self_signed(tmp_path, "localhost", "127.0.0.1")
    server = fresh_server(ssl=certificate.server_context)
    endpoint = server.endpoint
    key = server.connection_string.split("AccessKey=")[1].split(";")[0]
    bearer = sign_rest_token(f"{endpoint}/api/hubs/plaza/:generateToken", key)
    with Node(env={"NODE_EXTRA_CA_CERTS": str(certificate.ca_file)}) as node:
        service = node.service("plaza", endpoint=endpoint, token=bearer)
        token = service.call("getClientAccessToken", {"userId": "mina", "groups": ["lobby"]})
        assert token["url"].startswith("wss://")
        client = node.client(token["url"])
        (info,) = server.connections("plaza")
        assert (info.connection_id, info.user_id, info.groups) == (client.connection_id, "mina", ("lobby",))
        assert node.output("stderr") == ""
