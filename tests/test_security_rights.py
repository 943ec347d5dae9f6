"""What clients may do: roles for every command, escalation by any other way, limits of size, guesses at recovery."""

from __future__ import annotations

import hmac
import json
import re
import time
from typing import Any, Dict, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.server import Limits
from simplepubsub.server.permissions import Permissions, compile_pattern
from tests.rawclient import PLAIN, RELIABLE, Clients, RawClient, refused
from tests.restclient import TEXT, Rest

JOIN, SEND = "webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"


# --- roles ------------------------------------------------------------------------------------------------------------

START: Dict[str, Any] = {"type": "sendToGroup", "group": "lobby", "stream": {"streamId": "s"}}
COMMANDS: List[Tuple[str, Dict[str, Any], str]] = [
    ("join", {"type": "joinGroup", "group": "lobby"}, JOIN),
    ("leave", {"type": "leaveGroup", "group": "lobby"}, JOIN),
    ("send", {"type": "sendToGroup", "group": "lobby", "dataType": "text", "data": "x"}, SEND),
    ("stream", START, SEND),
]
NOT_ENOUGH = {
    JOIN: [
        (),
        (SEND,),
        (JOIN + ".news",),
        (JOIN + "s.new*",),
        (JOIN + ".Lobby",),
        (JOIN + ".*",),
        (JOIN.upper(),),
        ("joinLeaveGroup",),
        (JOIN + " ",),
        (" " + JOIN,),
        (JOIN + ".lobby ",),
        (JOIN + "\0",),
        (JOIN + "s",),
        (JOIN + ".",),
        ("webpubsub.*",),
        ("*",),
    ],
    SEND: [
        (),
        (JOIN,),
        (SEND + ".news",),
        (SEND + "s.new*",),
        (SEND + ".LOBBY",),
        (SEND + ".**",),
        (SEND + "s.lobb\\*",),
        (SEND + "s.lob?",),
    ],
}
CASES = [(name, frame, roles) for name, frame, role in COMMANDS for roles in NOT_ENOUGH[role]]


@pytest.mark.parametrize(
    "name, frame, roles", CASES, ids=["%s-%s" % (case[0], "+".join(case[2]).encode().hex()[-16:]) for case in CASES]
)
def test_a_command_without_its_role(connect: Any, name: str, frame: Dict[str, Any], roles: Any) -> None:
    reader = connect(PLAIN, groups=["lobby"])
    client = connect(PLAIN, roles=roles)
    client.send(dict(frame, ackId=1))
    answers = client.receive_many(2 if name == "stream" else 1)
    assert [answer["error"]["name"] for answer in answers] == ["Forbidden"] * len(answers)
    if name == "stream":
        client.send({"type": "streamData", "streamId": "s", "streamSequenceId": 1, "dataType": "text", "data": "x"})
        assert client.receive()["error"]["name"] == "StreamNotFound"
    client.assert_quiet()
    reader.assert_quiet()


@pytest.mark.parametrize("name, frame, role", COMMANDS, ids=[item[0] for item in COMMANDS])
def test_the_role_is_enough(connect: Any, name: str, frame: Dict[str, Any], role: str) -> None:
    for roles in ((role,), (role + ".lobby",), (role + "s.lob*",)):
        client = connect(PLAIN, roles=roles)
        client.send(dict(frame, ackId=1))
        assert all(answer.get("success", True) for answer in client.receive_many(2 if name == "stream" else 1))


def test_events_and_invocations_need_no_role(server: Any, connect: Any) -> None:
    server.on("echo")(lambda event: event.data)
    client = connect(PLAIN, roles=())
    client.send({"type": "event", "event": "echo", "dataType": "text", "data": "a", "ackId": 1})
    assert client.receive()["data"] == "a" and client.receive()["success"]
    client.send(
        {"type": "invoke", "invocationId": "1", "target": "event", "event": "echo", "dataType": "text", "data": "b"}
    )
    assert client.receive()["data"] == "b"


def test_rights_that_are_taken_away_end_a_stream(server: Any, connect: Any) -> None:
    client = connect(PLAIN, roles=(SEND,))
    client.send(START)
    assert client.receive()["type"] == "streamAck"
    server.hub("plaza").revoke_permission("sendToGroup", client.connection_id, "lobby")
    client.send({"type": "streamData", "streamId": "s", "streamSequenceId": 1, "dataType": "text", "data": "x"})
    assert client.receive()["error"]["name"] == "Forbidden"


def test_a_simple_client_without_the_right_to_publish_is_closed(connect: Any) -> None:
    client = connect(roles=(JOIN,), query="&webpubsub_mode=sendToGroup&group=lobby")
    client.send("x")
    assert client.expect_close()[0] == 1008


# --- escalation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "&role=%s" % SEND,
        "&roles=%s" % SEND,
        "&userId=admin",
        "&webpubsub.group=lobby",
        "&groups=lobby",
        "&role[]=%s" % SEND,
        "&access_token=x",
        "&hub=other",
    ],
)
def test_the_query_gives_no_rights(server: Any, connect: Any, query: str) -> None:
    client = connect(PLAIN, roles=(), user_id="mina", query=query)
    (info,) = server.connections()
    assert (info.user_id, info.hub, tuple(info.groups)) == ("mina", "plaza", ())
    client.send(dict(COMMANDS[2][1], ackId=1))
    assert client.receive()["error"]["name"] == "Forbidden"


def test_headers_of_the_handshake_give_no_rights(server: Any, connect: Any) -> None:
    connect(
        PLAIN,
        roles=(),
        headers=["ce-userId: admin", "ce-connectionId: c", "X-WebPubSub-Role: " + SEND, "Authorization: Bearer x"],
    )
    (info,) = server.connections()
    assert info.user_id is None and info.connection_id != "c"


@pytest.mark.parametrize(
    "more",
    [
        {"fromUserId": "admin"},
        {"from": "server"},
        {"userId": "admin"},
        {"connectionId": "c"},
        {"sequenceId": 99},
        {"roles": [SEND]},
        {"__proto__": {"a": 1}},
    ],
)
def test_a_publisher_cannot_pass_for_somebody_else(connect: Any, more: Dict[str, Any]) -> None:
    reader = connect(PLAIN, groups=["lobby"], user_id="reader")
    connect(PLAIN, roles=(SEND,), user_id="mina").send(dict(COMMANDS[2][1], **more))
    assert reader.receive() == {
        "type": "message",
        "from": "group",
        "group": "lobby",
        "fromUserId": "mina",
        "dataType": "text",
        "data": "x",
    }


def test_the_roles_of_a_connect_answer_replace_those_of_the_token(server: Any, connect: Any) -> None:
    answers = {
        "none": None,
        "less": {"roles": []},
        "same": {},
        "more": {"roles": [SEND + ".lobby"]},
        "user": {"user_id": "other"},
    }
    server.on("connect", handler=lambda request: answers[request.user_id])
    for name, allowed in (("none", True), ("less", False), ("same", True), ("more", True), ("user", True)):
        client = connect(PLAIN, roles=(SEND,), user_id=name)
        for group, right in (("lobby", allowed), ("news", allowed and name != "more")):
            client.send(dict(COMMANDS[2][1], group=group, ackId=1 if group == "lobby" else 2))
            assert client.receive()["success"] is right, (name, group)


@pytest.mark.parametrize(
    "answer",
    [
        {"roles": SEND},
        {"roles": [SEND, 5]},
        {"roles": [SEND + "s." + "*" * 6]},
        {"roles": {SEND: 1}, "groups": "lobby"},
        {"user_id": 5},
        {"groups": [""]},
        {"groups": ["x" * 1025]},
        {"subprotocol": "mqtt"},
        {"state": [1]},
        {"rolls": [SEND]},
        "let in",
        1,
        [SEND],
    ],
)
def test_a_connect_answer_that_cannot_be_lets_nobody_in(server: Any, answer: Any) -> None:
    server.on("connect", handler=lambda request: answer)
    assert refused(server.client_access_url("plaza"), PLAIN)[0] == 500
    assert server.connections() == []


def test_rights_of_one_connection_are_not_those_of_its_user(server: Any, connect: Any) -> None:
    strong, weak = connect(PLAIN, roles=(SEND,), user_id="mina"), connect(PLAIN, roles=(), user_id="mina")
    weak.send(dict(COMMANDS[2][1], ackId=1))
    assert not weak.receive()["success"]
    server.hub("plaza").grant_permission("joinLeaveGroup", strong.connection_id, "lobby")
    weak.send(dict(COMMANDS[0][1], ackId=1))
    assert not weak.receive()["success"]


def test_a_hub_is_closed_to_others(server: Any, connect: Any) -> None:
    here, there = connect(PLAIN, groups=["lobby"]), connect(PLAIN, hub="other", user_id="mina")
    there.send(dict(COMMANDS[2][1], ackId=1))
    assert there.receive()["success"]
    rest = Rest(server, "other")
    rest.ok("POST", "/connections/%s/:send" % here.connection_id, b"x", TEXT)
    assert rest("HEAD", "/connections/" + here.connection_id).status == 404
    rest.ok("DELETE", "/connections/" + here.connection_id)
    here.assert_quiet()


@pytest.mark.parametrize("pattern", ["*a*a*a*a*b", "**a**a*b", "*****b", "?" * 500 + "*" * 5 + "b"])
def test_patterns_take_no_time(pattern: str) -> None:
    """Clients choose the names; one must not stop the server's loop by what a pattern tries on it."""
    permissions = Permissions([SEND + "s." + pattern])
    started = time.thread_time()
    assert not permissions.can_send("a" * 1024)
    assert permissions.can_send("a" * 1023 + "b")
    assert time.thread_time() - started < 0.5


@given(st.text("ab.*?\\", min_size=1, max_size=8), st.text("ab.*?\\", max_size=8))
def test_patterns_match_what_a_regular_expression_would(pattern: str, group: str) -> None:
    try:
        compiled = compile_pattern(pattern)
    except ValueError:
        return
    expression = re.sub(
        r"\\(.)|\*\*|\*|\?|.",
        lambda match: (
            re.escape(match.group(1))
            if match.group(1)
            else {"**": ".*", "*": "[^.]*", "?": "[^.]"}.get(match.group(), re.escape(match.group()))
        ),
        pattern,
    )
    assert compiled.fullmatch(group) is bool(re.fullmatch(expression, group))


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "joinGroup", "group": "g" * 1025},
        {"type": "joinGroup", "group": " " * 20},
        {"type": "joinGroup", "group": ""},
        {"type": "event", "event": "e" * 129, "dataType": "text", "data": ""},
        {"type": "event", "event": "a\r\nb", "dataType": "text", "data": ""},
        {"type": "sendToGroup", "group": "g", "dataType": "text", "data": "x", "ttlSeconds": 10**30},
        {"type": "sendToGroup", "group": "g", "dataType": "text", "data": "x", "ackId": 2**64},
    ],
)
def test_fields_that_are_too_long_close_their_sender_only(connect: Any, frame: Dict[str, Any]) -> None:
    other, client = connect(PLAIN), connect(PLAIN)
    client.send(frame)
    assert client.expect_close()[0] == 1007
    other.assert_quiet()


def test_sizes(fresh_server: Any) -> None:
    server = fresh_server(limits=Limits(max_message_bytes=2000))
    with Clients(server) as clients:
        reader, client = clients.connect(PLAIN, groups=["lobby"]), clients.connect(PLAIN)
        client.publish("lobby", "x" * 1900)
        assert len(reader.receive()["data"]) == 1900
        client.publish("lobby", "x" * 2000)
        assert client.expect_close()[0] == 1009
        simple = clients.connect()
        simple.send(b"x" * 2001)
        assert simple.expect_close()[0] == 1009
        rest = Rest(server)
        assert rest("POST", "/:send", b"x" * 2001, TEXT).status == 413
        assert rest("POST", "/:addToGroups", json.dumps({"groups": ["g" * 2000]}).encode()).status == 413
        assert reader.receive  # it is still there:
        reader.assert_quiet()
    assert refused(server.client_access_url("plaza"), headers=["X-Long: " + "x" * 9000])[0] in (400, 431)
    for group in ("g" * 1025, " " * 3):
        assert refused(server.client_access_url("plaza", groups=[group]))[0] == 400


# --- recovery ---------------------------------------------------------------------------------------------------------


def guesses(token: str) -> List[str]:
    return [
        "",
        "x",
        token[:-1],
        token + "x",
        token[::-1],
        token.swapcase(),
        " " + token,
        token[:-1] + "\0",
        "\u00e9" * 20,
        "*",
        "null",
    ]


def test_a_session_is_recovered_by_its_token_only(server: Any, connect: Any, monkeypatch: Any) -> None:
    compared: List[Any] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    victim, other = connect(RELIABLE, user_id="mina"), connect(RELIABLE, user_id="noor")
    plain, elsewhere = connect(PLAIN), connect(RELIABLE, hub="other")
    token = victim.first["reconnectionToken"]
    attempts = [victim.recovery_url(guess) for guess in guesses(token) if guess]
    attempts += [
        victim.recovery_url(other.first["reconnectionToken"]),
        other.recovery_url(token),
        victim.recovery_url().replace("/plaza", "/other"),
        elsewhere.recovery_url(token, victim.connection_id),
        victim.recovery_url(token, plain.connection_id),
        victim.recovery_url(token, "x"),
        victim.recovery_url(token, victim.connection_id + " "),
    ]
    for url in attempts:
        with RawClient(url, RELIABLE, hello=False) as thief:
            assert thief.expect_close()[0] == 1008, url
    assert refused(victim.recovery_url("").replace("awps_reconnection_token=", ""))[0] == 401
    assert len(compared) >= len(guesses(token)) - 1 and all(
        isinstance(item, bytes) for pair in compared for item in pair
    )
    assert (
        len(token) >= 22 and len({token, other.first["reconnectionToken"], elsewhere.first["reconnectionToken"]}) == 3
    )
    victim.assert_quiet()
    with victim.recover() as again:
        assert again.connection_id == victim.connection_id


def test_a_session_that_is_over_is_not_recovered(server: Any, connect: Any) -> None:
    client = connect(RELIABLE)
    Rest(server).ok("DELETE", "/connections/" + client.connection_id)
    assert client.expect_close()[0] == 1000
    with RawClient(client.recovery_url(), RELIABLE, hello=False) as thief:
        assert thief.expect_close()[0] == 1008
