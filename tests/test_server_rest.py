"""The operations of the data plane, each with its success and what clients see of it (protocol reference 5.2, 5.3)."""

from __future__ import annotations

import pytest

from tests.rawclient import PLAIN, RELIABLE, RawClient
from tests.restclient import BINARY, JSON, TEXT, Rest


def test_health_needs_no_token(rest):
    for method in ("HEAD", "GET"):
        answer = rest(method, "/api/health", token=None)
        assert (answer.status, answer.body) == (200, b"")


PAYLOADS = [
    (b'{"a": [1, 2.5, null, "\xc3\xbc"]}', JSON, "json", {"a": [1, 2.5, None, "\u00fc"]}),
    (b'"text"', {"Content-Type": "application/json; charset=utf-8"}, "json", "text"),
    (b"12345678901234567890123", {"Content-Type": "Application/JSON"}, "json", 12345678901234567890123),
    ("h\u00e9llo".encode(), TEXT, "text", "h\u00e9llo"),
    (b"", TEXT, "text", ""),
    (b"a", {"Content-Type": "text/plain; charset=UTF-8"}, "text", "a"),
    (b"\0\xff", BINARY, "binary", "AP8="),
    (b"\1", {}, "binary", "AQ=="),
]


@pytest.mark.parametrize("body, headers, data_type, data", PAYLOADS)
@pytest.mark.parametrize("path", ["/:send", "/groups/lobby/:send", "/users/mina/:send", "/connections/{}/:send"])
def test_a_message_reaches_its_target_in_every_type(rest, connect, path, body, headers, data_type, data):
    client = connect(RELIABLE, user_id="mina", groups=["lobby"])
    other = connect(PLAIN, user_id="bob", hub="plaza" if path != "/:send" else "elsewhere")
    rest.ok("POST", path.format(client.connection_id), body, headers)
    message = client.receive()
    assert (message["dataType"], message["data"], message["sequenceId"]) == (data_type, data, 1)
    if "groups" in path:
        assert (message["from"], message["group"], message["fromUserId"]) == ("group", "lobby", None)
    else:
        assert message["from"] == "server"
    other.assert_quiet()


def test_simple_clients_get_the_payload_and_nothing_else(rest, connect):
    client = connect(groups=["lobby"])
    rest.ok("POST", "/:send", b'{"a": 1}', JSON)
    rest.ok("POST", "/groups/lobby/:send", b"text", TEXT)
    rest.ok("POST", "/:send", b"\0\1", BINARY)
    assert [client.frame() for _ in range(3)] == [(1, '{"a":1}'), (1, "text"), (2, b"\0\1")]


@pytest.mark.parametrize("path", ["/:send", "/groups/lobby/:send", "/users/mina/:send", "/connections/nobody/:send"])
def test_sending_to_nobody_is_no_error(rest, path):
    rest.ok("POST", path, b"x", TEXT)


@pytest.mark.parametrize("path", ["/:send", "/groups/lobby/:send"])
def test_excluded_and_filter_are_joined_by_and(rest, connect, path):
    a, b, c = (connect(PLAIN, user_id=name, groups=["lobby"]) for name in ("ann", "bob", "cat"))
    query = [("excluded", a.connection_id), ("excluded", "nobody"), ("filter", "userId ne 'bob'")]
    rest.ok("POST", path, b"1", TEXT, query=query)
    rest.ok("POST", path, b"2", TEXT)
    assert [client.receive()["data"] for client in (a, b)] == ["2", "2"]
    assert [item["data"] for item in c.receive_many(2)] == ["1", "2"]


def test_a_filter_applies_to_a_user(rest, connect):
    a, b = (connect(PLAIN, user_id="mina", groups=groups) for groups in (["quiet"], []))
    rest.ok("POST", "/users/mina/:send", b"1", TEXT, query=[("filter", "not ('quiet' in groups)")])
    assert b.receive()["data"] == "1"
    a.assert_quiet()


def test_an_empty_filter_is_none(rest, connect):
    client = connect(PLAIN)
    rest.ok("POST", "/:send", b"1", TEXT, query=[("filter", " ")])
    assert client.receive()["data"] == "1"


# --- closing ----------------------------------------------------------------------------------------------------------

REASONS = [
    (None, "Closed by REST API."),
    ("", ""),
    ("bye", "bye"),
    ("\u00fc" * 200, "\u00fc" * 200),
    ("bye\r\nX-Header: 1\r\n\r\n\0", "bye\r\nX-Header: 1\r\n\r\n\0"),
]


@pytest.mark.parametrize("reason, said", REASONS)
def test_a_closed_client_is_told_why_and_cannot_recover(rest, connect, server, reason, said):
    client = connect(RELIABLE, user_id="mina")
    query = [] if reason is None else [("reason", reason)]
    rest.ok("DELETE", "/connections/" + client.connection_id, query=query)
    assert client.receive() == {"type": "system", "event": "disconnected", "message": said}
    code, text = client.expect_close()
    assert (code, said.startswith(text), len(text.encode()) <= 123) == (1000, True, True)
    assert len(text.encode()) >= min(122, len(said.encode()))
    with RawClient(client.recovery_url(), RELIABLE, hello=False) as back:
        assert back.expect_close()[0] == 1008


@pytest.mark.parametrize("path", ["/:closeConnections", "/groups/lobby/:closeConnections",
                                  "/users/mina/:closeConnections"])
def test_closing_many_spares_the_excluded_and_those_of_others(rest, connect, path):
    closed, spared = (connect(PLAIN, user_id="mina", groups=["lobby"]) for _ in range(2))
    stranger = connect(PLAIN, user_id="bob", hub="plaza" if path != "/:closeConnections" else "elsewhere")
    rest.ok("POST", path, query=[("excluded", spared.connection_id), ("reason", "over")])
    assert closed.receive()["message"] == "over"
    assert closed.expect_close() == (1000, "over")
    spared.assert_quiet()
    stranger.assert_quiet()


def test_closing_nobody_is_no_error(rest):
    rest.ok("DELETE", "/connections/nobody")
    for path in ("/:closeConnections", "/groups/lobby/:closeConnections", "/users/mina/:closeConnections"):
        rest.ok("POST", path)


# --- groups -----------------------------------------------------------------------------------------------------------


def groups_of(server):
    return {info.user_id: set(info.groups) for info in server.connections("plaza")}


def test_a_connection_joins_and_leaves(rest, connect, server):
    client = connect(RELIABLE, user_id="mina")
    for group in ("a", "b", "c"):
        rest.ok("PUT", "/groups/%s/connections/%s" % (group, client.connection_id))
    rest.ok("PUT", "/groups/a/connections/" + client.connection_id)
    assert groups_of(server) == {"mina": {"a", "b", "c"}}
    rest.ok("DELETE", "/groups/b/connections/" + client.connection_id)
    rest.ok("DELETE", "/groups/b/connections/" + client.connection_id)
    assert groups_of(server) == {"mina": {"a", "c"}}
    rest.ok("DELETE", "/connections/%s/groups" % client.connection_id)
    assert groups_of(server) == {"mina": set()}


def test_all_connections_of_a_user_join_and_leave_and_those_to_come_do_not(rest, connect, server):
    clients = [connect(PLAIN, user_id="mina") for _ in range(2)] + [connect(PLAIN, user_id="bob")]
    for group in ("a", "b"):
        rest.ok("PUT", "/users/mina/groups/" + group)
    late = connect(PLAIN, user_id="mina")
    members = {info.connection_id: set(info.groups) for info in server.connections()}
    assert [members[client.connection_id] for client in clients + [late]] == [{"a", "b"}, {"a", "b"}, set(), set()]
    rest.ok("DELETE", "/users/mina/groups/a")
    assert groups_of(server)["mina"] <= {"b"}
    rest.ok("DELETE", "/users/mina/groups")
    assert not server.hub("plaza").group_exists("b")


def test_whoever_is_not_there_cannot_join_but_can_leave(rest):
    assert rest("PUT", "/groups/a/connections/nobody").status == 404
    assert rest("PUT", "/users/nobody/groups/a").status == 404
    for path in ("/groups/a/connections/nobody", "/connections/nobody/groups", "/users/nobody/groups/a",
                 "/users/nobody/groups"):
        rest.ok("DELETE", path)


def test_many_connections_join_and_leave_many_groups(rest, connect, server):
    for name in ("ann", "bob", None):
        connect(PLAIN, user_id=name)
    rest.ok("POST", "/:addToGroups", {"groups": ["x", "y"]})
    rest.ok("POST", "/:addToGroups", {"groups": ["z"], "filter": "userId eq 'ann'"})
    assert groups_of(server) == {"ann": {"x", "y", "z"}, "bob": {"x", "y"}, None: {"x", "y"}}
    rest.ok("POST", "/:removeFromGroups", {"groups": ["x", "z", "never"], "filter": "userId ne null"})
    rest.ok("POST", "/:removeFromGroups", {"groups": ["y"], "filter": None})
    assert groups_of(server) == {"ann": set(), "bob": set(), None: {"x"}}


def test_existence(rest, connect):
    client = connect(RELIABLE, user_id="mina", groups=["lobby"])
    for path, status in [
        ("/connections/" + client.connection_id, 200), ("/connections/" + client.connection_id.swapcase(), 404),
        ("/groups/lobby", 200), ("/groups/Lobby", 404), ("/users/mina", 200), ("/users/MINA", 404),
    ]:
        answer = rest("HEAD", path)
        assert (answer.status, answer.body) == (status, b"")
        assert answer.headers.get("x-ms-error-code") == (None if status == 200 else "Error.NotFound")
    assert Rest(rest.server, "PLAZA")("HEAD", "/groups/lobby").status == 200
    assert Rest(rest.server, "nowhere")("HEAD", "/groups/lobby").status == 404


# --- permissions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("permission", ["sendToGroup", "joinLeaveGroup"])
def test_permissions_override_roles(rest, connect, permission):
    client = connect(PLAIN, roles=["webpubsub.%s.granted" % permission, "webpubsub.%ss.*" % permission])
    path = "/permissions/%s/connections/%s" % (permission, client.connection_id)

    def allowed(group):
        kind = {"sendToGroup": "sendToGroup", "joinLeaveGroup": "joinGroup"}[permission]
        allowed.ack += 1
        client.send({"type": kind, "group": group, "data": "x", "dataType": "text", "ackId": allowed.ack,
                     "noEcho": True})
        heard = client.receive()["success"]
        assert (rest("HEAD", path, query=[("targetName", group)]).status == 200) == heard
        return heard

    allowed.ack = 0
    assert allowed("granted") and allowed("by-pattern") and not allowed("not.this")
    for group in ("granted", "by-pattern"):
        rest.ok("DELETE", path, query=[("targetName", group)])
        assert not allowed(group)
    for group in ("granted", "not.this"):
        rest.ok("PUT", path, query=[("targetName", group)])
        assert allowed(group)
    assert not allowed("by-pattern") and allowed("another")


def test_permissions_of_whoever_is_not_there(rest):
    path = "/permissions/sendToGroup/connections/nobody"
    target = [("targetName", "lobby")]
    assert rest("PUT", path, query=target).status == 404
    assert rest("HEAD", path, query=target).status == 404
    rest.ok("DELETE", path, query=target)


def test_permissions_have_a_limit(rest, connect, server):
    client = connect(PLAIN)
    for number in range(1000):
        assert server.hub("plaza").grant_permission("sendToGroup", client.connection_id, "g%d" % number)
    path = "/permissions/sendToGroup/connections/" + client.connection_id
    assert rest("PUT", path, query=[("targetName", "one-more")]).status == 409
    rest.ok("PUT", path, query=[("targetName", "g5")])


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_generated_token_connects_with_what_was_asked_for(rest, connect, server):
    query = [("userId", "m\u00efna"), ("role", "webpubsub.joinLeaveGroup.x"), ("role", "webpubsub.sendToGroup"),
             ("group", "a b"), ("group", "c"), ("minutesToExpire", 5), ("clientType", "default")]
    token = rest.ok("POST", "/:generateToken", query=query).json["token"]
    url = "ws://127.0.0.1:%d/client/hubs/plaza?access_token=%s" % (server.port, token)
    client = connect(PLAIN, url=url)
    assert client.first["userId"] == "m\u00efna"
    assert groups_of(server) == {"m\u00efna": {"a b", "c"}}
    client.join("x")
    client.publish("x", "hello", ackId=1)
    assert {message["type"] for message in client.receive_many(2)} == {"ack", "message"}


def test_a_token_without_anything_is_for_an_anonymous_client_for_an_hour(rest, server):
    import jwt

    for hub, kind, path in [("plaza", None, "/client/hubs/plaza"), ("plaza", "MQTT", "/clients/mqtt/hubs/plaza")]:
        query = [] if kind is None else [("clientType", kind)]
        answer = Rest(server, hub).ok("POST", "/:generateToken", query=query)
        assert answer.headers["Content-Type"].startswith("application/json")
        claims = jwt.decode(answer.json["token"], options={"verify_signature": False})
        assert set(claims) == {"aud", "iat", "exp"}
        assert (claims["aud"], claims["exp"] - claims["iat"]) == (server.endpoint + path, 3600)
