"""What clients may send to the embedded server, and what it answers: commands, violations, simple clients."""

from __future__ import annotations

import pytest
import websocket

from tests.helpers import make_frame, scaled
from tests.rawclient import PLAIN, RELIABLE, ok

# --- commands over the wire -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subprotocol", [PLAIN, RELIABLE])
def test_join_publish_leave(connect, subprotocol):
    mina, bob = connect(subprotocol, user_id="mina"), connect(subprotocol, user_id="bob")
    mina.join("lobby")
    bob.send({"type": "sendToGroup", "group": "lobby", "data": {"n": 1}, "ackId": 0})
    assert bob.receive() == ok(0)
    message = mina.receive()
    assert message.pop("sequenceId", None) == (1 if subprotocol == RELIABLE else None)
    assert message == {
        "type": "message", "from": "group", "group": "lobby", "fromUserId": "bob", "dataType": "json", "data": {"n": 1}
    }  # fmt: skip
    mina.send({"type": "leaveGroup", "group": "lobby", "ackId": 2})
    assert mina.receive() == ok(2)
    bob.publish("lobby", "nobody hears", ackId=3)
    assert bob.receive() == ok(3)
    mina.assert_quiet()


def test_order_and_completeness_of_a_burst(connect):
    client = connect(PLAIN, groups=["lobby"])
    for number in range(2000):
        client.publish("lobby", str(number), ackId=number)
    messages = [client.receive() for _ in range(4000)]
    assert [m["data"] for m in messages if m["type"] == "message"] == [str(number) for number in range(2000)]
    assert [m["ackId"] for m in messages if m["type"] == "ack"] == list(range(2000))


def test_fragments_and_control_frames_between_them(connect):
    client = connect(PLAIN)
    text = b'{"type":"ping"}'
    parts = [make_frame(1, text[:5], fin=False, mask=b"abcd"), make_frame(9, b"hi", mask=b"abcd")]
    parts += [make_frame(0, text[5:], mask=b"efgh")]
    for byte in b"".join(parts):
        client.ws.sock.sendall(bytes([byte]))
    assert client.frame() == (websocket.ABNF.OPCODE_PONG, b"hi")
    assert client.receive() == {"type": "pong"}


VIOLATIONS = [
    ("not JSON", "{", 1007),
    ("no object", "[]", 1007),
    ("unknown type", {"type": "shout"}, 1007),
    ("no type", {}, 1007),
    ("no group", {"type": "joinGroup", "ackId": 1}, 1007),
    ("empty group", {"type": "joinGroup", "group": ""}, 1007),
    ("long group", {"type": "joinGroup", "group": "x" * 1025}, 1007),
    ("bad data type", {"type": "sendToGroup", "group": "g", "dataType": "xml", "data": ""}, 1007),
    ("text that is none", {"type": "sendToGroup", "group": "g", "dataType": "text", "data": 1}, 1007),
    ("no base64", {"type": "sendToGroup", "group": "g", "dataType": "binary", "data": "*"}, 1007),
    ("noEcho of another kind", {"type": "sendToGroup", "group": "g", "data": 1, "noEcho": "yes"}, 1007),
    ("negative ack id", {"type": "joinGroup", "group": "g", "ackId": -1}, 1007),
    ("number beyond floats", '{"type":"sendToGroup","group":"lobby","data":1e999}', 1007),
    ("binary", b"\x00", 1003),
    ("unmasked", make_frame(1, b"{}"), 1002),
    ("reserved bit", make_frame(1, b"{}", rsv=4, mask=b"abcd"), 1002),
    ("opcode 3", make_frame(3, b"{}", mask=b"abcd"), 1002),
    ("lone continuation", make_frame(0, b"{}", mask=b"abcd"), 1002),
    ("bad UTF-8", make_frame(1, b"\xff\xfe", mask=b"abcd"), 1007),
    ("bad close code", make_frame(8, b"\x03\xed", mask=b"abcd"), 1002),
    ("over 1 MiB", "x" * (2**20 + 1), 1009),
    ("over 1 MiB, announced", make_frame(1, b"", length=2**40, mask=b"abcd"), 1009),
]
_RAW_FRAMES = {
    "unmasked",
    "reserved bit",
    "opcode 3",
    "lone continuation",
    "bad UTF-8",
    "bad close code",
    "over 1 MiB, announced",
}


@pytest.mark.parametrize("name, message, code", VIOLATIONS, ids=[item[0] for item in VIOLATIONS])
def test_violations_close_with_their_code_and_leave_the_session_recoverable(
    server, connect, monkeypatch, name, message, code
):
    monkeypatch.setattr(server._pump, "close_timeout", scaled(20))  # the answer may come before the rest is sent
    client = connect(RELIABLE, groups=["lobby"])
    if name in _RAW_FRAMES:
        client.ws.sock.sendall(message)
    else:
        client.send(message)
    found, reason = client.expect_close()
    assert (found, bool(reason)) == (code, True)
    with client.recover() as again:
        again.join("other")
    server.hub("plaza").close_all_connections()


def test_a_message_of_exactly_1_mib_is_taken(connect):
    client = connect(PLAIN, groups=["g"])
    head, tail = '{"type":"sendToGroup","group":"g","dataType":"text","ackId":1,"data":"', '"}'
    client.send(head + "x" * (2**20 - len(head) - len(tail)) + tail)
    first, second = client.receive(), client.receive()
    assert {first["type"], second["type"]} == {"message", "ack"}


def test_what_came_before_a_violation_or_a_close_is_executed(connect):
    member = connect(PLAIN, groups=["lobby"])
    sender = connect(RELIABLE)
    for number in range(500):
        sender.publish("lobby", str(number))
    sender.send("{")
    assert sender.expect_close()[0] == 1007
    assert [member.receive()["data"] for _ in range(500)] == [str(number) for number in range(500)]
    other = connect(PLAIN)
    for number in range(500):
        other.publish("lobby", str(number))
    other.close()
    assert [member.receive()["data"] for _ in range(500)] == [str(number) for number in range(500)]


def test_fire_and_forget_then_gone(connect):
    member = connect(PLAIN, groups=["lobby"])
    sender = connect(PLAIN)
    for number in range(500):
        sender.publish("lobby", str(number))
    sender.abort()
    assert [member.receive()["data"] for _ in range(500)] == [str(number) for number in range(500)]


# --- 1.4 simple clients -----------------------------------------------------------------------------------------------


def test_a_simple_client_sends_events_and_gets_payloads(server, connect):
    @server.on("message", hub="plaza")
    def answer(event):
        return {"got": event.data if event.data_type == "text" else len(event.data)}

    client = connect(user_id="mina")
    assert client.subprotocol is None
    client.send("hi", b"\0\1\2")
    assert [client.frame(), client.frame()] == [(1, '{"got":"hi"}'), (1, '{"got":3}')]
    server.hub("plaza").send_to_user("mina", b"\5")
    server.hub("plaza").send_to_user("mina", "plain")
    assert [client.frame(), client.frame()] == [(2, b"\5"), (1, "plain")]


def test_a_simple_client_without_a_handler_is_closed_1011(connect):
    client = connect()
    client.send("hi")
    assert client.expect_close()[0] == 1011


@pytest.mark.parametrize("echo", ["false", "TRUE"])
def test_a_simple_client_publishes_to_its_group(connect, echo):
    member = connect(PLAIN, groups=["lobby"])
    query = "&webpubsub_mode=SENDTOGROUP&group=old&group=lobby&noEcho=" + echo
    client = connect(groups=["lobby"], user_id="raw", query=query)
    client.send("hi")
    assert member.receive()["data"] == "hi"
    member.publish("lobby", "reply")
    expected = ["hi", "reply"] if echo == "false" else ["reply"]
    assert [client.frame()[1] for _ in expected] == expected


def test_a_simple_client_without_the_right_to_publish_is_closed_1008(connect):
    client = connect(roles=(), query="&webpubsub_mode=sendToGroup&group=lobby")
    client.send("hi")
    assert client.expect_close()[0] == 1008
