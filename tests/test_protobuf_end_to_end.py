"""The protobuf subprotocols on real sockets with the embedded server: alone, in mixed groups, through cuts."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Tuple

import pytest
import websocket

from simplepubsub.exceptions import InvalidArgument, MessageTooLarge, SendMessageError
from simplepubsub.server import Limits
from simplepubsub.webpubsub import RetryPolicy, WebPubSubClient
from simplepubsub.webpubsub.messages import StreamAck, StreamClosed, StreamError, StreamInfo
from tests import peers
from tests.helpers import MS, Recorder, make_frame, scaled, wait_until
from tests.rawclient import Clients, RawClient

wrappers_pb2 = peers.require("google.protobuf.wrappers_pb2", "messages of an application")

from simplepubsub.webpubsub import protobuf_codec as codec  # noqa: E402
from simplepubsub.webpubsub import protobuf_streams as streams  # noqa: E402

PLAIN, RELIABLE = "protobuf", "protobuf.reliable"
PLAIN_NAME, RELIABLE_NAME = "protobuf.webpubsub.azure.v1", "protobuf.reliable.webpubsub.azure.v1"
BOTH = pytest.mark.parametrize("protocol", [PLAIN, RELIABLE])

#: A serialised Any: type "t", value 1, 2.
ANY = b"\x0a\x01t\x12\x02\x01\x02"

#: One payload of each type.
PAYLOADS: List[Tuple[Any, str]] = [
    ("h\u00e9llo", "text"), ("", "text"), (b"\x00\xff", "binary"), (b"", "binary"), ({"a": [1, None, "x"]}, "json"),
    (21.5, "json"), ("JSON text", "json"), (ANY, "protobuf"),
]  # fmt: skip


@pytest.fixture
def client(server: Any) -> Iterator[Any]:
    """`client(protocol, server=, **options of client_access_url)`: started, stopped after the test."""
    made: List[WebPubSubClient] = []
    shared = server

    def make(protocol: str = RELIABLE, server: Any = shared, **options: Any) -> WebPubSubClient:
        made.append(WebPubSubClient(server.client_access_url("hub", **options), protocol=protocol))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def raw(server: Any) -> Iterator[Any]:
    """`raw(*subprotocols, **options)`: a client without a line of the package."""
    with Clients(server) as clients:
        yield clients.connect


def said(one: RawClient) -> Any:
    """Return what the server says to a raw protobuf client next."""
    while True:
        opcode, payload = one.frame()
        if opcode == websocket.ABNF.OPCODE_BINARY:
            return codec.decode_service_message(payload)


# ---- one protobuf client ---------------------------------------------------------------------------------------------


@BOTH
def test_join_publish_leave(client: Any, protocol: str) -> None:
    one = client(protocol, user_id="mina")
    assert one.user_id == "mina" and one.connection_id
    one.join_group("lobby")
    for data, data_type in PAYLOADS:
        one.send_to_group("lobby", data, data_type)
        message = one.receive(scaled(5))
        assert (message.data, message.data_type, message.group) == (data, data_type, "lobby")
        assert message.from_user_id is None  # the format has no place for it
    assert message.sequence_id == (len(PAYLOADS) if protocol == RELIABLE else 0)
    one.send_to_group("lobby", "not for me", no_echo=True)
    one.leave_group("lobby")
    one.send_to_group("lobby", "not for me either")
    one.join_group("lobby")
    one.send_to_group("lobby", "last")
    assert one.receive(scaled(5)).data == "last"
    assert one.groups == ("lobby",)


@BOTH
def test_refusals_and_repeats_are_told_in_acks(client: Any, protocol: str) -> None:
    one = client(protocol, roles=["webpubsub.sendToGroup.lobby"], groups=["lobby"])
    with pytest.raises(SendMessageError) as caught:
        one.join_group("other")
    assert caught.value.name == "Forbidden" and "other" in str(caught.value)
    one.send_to_group("lobby", "once", ack_id=2**64 - 1)
    one.send_to_group("lobby", "twice", ack_id=2**64 - 1)  # recognised, hence a success
    one.send_to_group("lobby", "then")
    assert [one.receive(scaled(5)).data for _ in range(2)] == ["once", "then"]


@BOTH
def test_events_and_what_their_handlers_answer(server: Any, client: Any, protocol: str) -> None:
    asked: List[Tuple[Any, str]] = []

    @server.on("echo")
    def echo(event: Any) -> Any:
        asked.append((event.data, event.data_type))
        return event.data

    @server.on("fail")
    def fail(event: Any) -> None:
        raise RuntimeError("on purpose")

    one = client(protocol)
    for data, data_type in PAYLOADS:
        one.send_event("echo", data, data_type)
    assert asked == PAYLOADS
    received = [one.receive(scaled(5)) for _ in PAYLOADS]
    assert {message.kind for message in received} == {"server"}
    assert [message.data for message in received] == [data for data, _ in PAYLOADS]
    # A handler's answer has the type that its Python type suggests.
    kinds = {str: "text", bytes: "binary"}
    assert [message.data_type for message in received] == [kinds.get(type(data), "json") for data, _ in PAYLOADS]
    with pytest.raises(SendMessageError) as caught:
        one.send_event_nowait("fail", "x").result(scaled(5))
    assert caught.value.name == "InternalServerError"


def test_a_handler_may_answer_with_a_message_object(server: Any, client: Any) -> None:
    server.on("ask", handler=lambda event: wrappers_pb2.StringValue(value="answer"))
    one = client(PLAIN)
    one.send_event("ask", "x")
    message = one.receive(scaled(5))
    assert message.data_type == "protobuf" and message.data.endswith(b"\x0a\x06answer")


def test_the_servers_own_messages(server: Any, client: Any) -> None:
    one, other = client(PLAIN), client(RELIABLE, user_id="mina")
    hub = server.hub("hub")
    hub.send_to_all(wrappers_pb2.StringValue(value="v"))
    hub.send_to_user("mina", {"n": 1})
    hub.send_to_connection(one.connection_id, b"\x00")
    got = [one.receive(scaled(5)), one.receive(scaled(5)), other.receive(scaled(5)), other.receive(scaled(5))]
    assert [message.data_type for message in got] == ["protobuf", "binary", "protobuf", "json"]
    assert {message.kind for message in got} == {"server"}
    with pytest.raises(InvalidArgument, match="Any"):
        hub.send_to_all(b"\xff\xff", "protobuf")
    closed = Recorder().attach(one, "disconnected")
    hub.close_connection(one.connection_id, "enough")
    assert closed.wait_event("disconnected").message == "enough"


@BOTH
def test_a_burst_arrives_whole_and_in_order(fresh_server: Any, client: Any, protocol: str) -> None:
    # Patient with a reader that does not get to run for a while.
    one = client(protocol, fresh_server(limits=Limits(patience=scaled(20))))
    one.join_group("lobby")
    for number in range(3000):
        one.send_to_group_nowait("lobby", str(number))
    assert [one.receive(scaled(10)).data for _ in range(3000)] == [str(number) for number in range(3000)]
    one.flush(scaled(10))


# ---- a mixed group --------------------------------------------------------------------------------------------------


def test_everybody_in_a_group_understands_everybody(server: Any, client: Any, raw: Any) -> None:
    members: Dict[str, Any] = {name: client(name, user_id=name) for name in (PLAIN, RELIABLE, "json", "json.reliable")}
    for member in members.values():
        member.join_group("lobby")
    simple = raw(url=server.client_access_url("hub", groups=["lobby"]) + "&webpubsub_mode=sendToGroup&group=lobby")
    bare = {"{'a': [1, None, 'x']}": '{"a":[1,null,"x"]}', "JSON text": '"JSON text"', "21.5": "21.5"}
    for sender in members.values():
        for data, data_type in PAYLOADS:
            sender.send_to_group("lobby", data, data_type)
            for name, member in members.items():
                message = member.receive(scaled(5))
                assert (message.data, message.data_type) == (data, data_type)
                has_sender = name.startswith("json")
                assert message.from_user_id == (sender.user_id if has_sender else None)
            payload = bare[str(data)] if data_type == "json" else data
            assert simple.frame() == (1 if isinstance(payload, str) else 2, payload)
    # And the other way round: text frames are text, binary frames are binary.
    for data, data_type in ("simple", "text"), (b"\x01", "binary"):
        if isinstance(data, str):
            simple.ws.send(data)
        else:
            simple.ws.send_binary(data)
        for member in members.values():
            message = member.receive(scaled(5))
            assert (message.data, message.data_type, message.group) == (data, data_type, "lobby")


def test_what_is_no_any_harms_its_sender_only(server: Any, client: Any, raw: Any) -> None:
    one = client(PLAIN)
    one.join_group("lobby")
    with pytest.raises(InvalidArgument, match="Any"):
        one.send_to_group("lobby", b"\xff\xff", "protobuf")
    sloppy = raw("json.webpubsub.azure.v1", hub="hub")
    sloppy.publish("lobby", "//8=", "protobuf")
    assert sloppy.expect_close()[0] == 1007
    client("json").send_to_group("lobby", "still there")
    assert one.receive(scaled(5)).data == "still there"


# ---- violations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame, code", [
    (make_frame(1, b"{}", mask=b"abcd"), 1003),
    (make_frame(2, b"\xff", mask=b"abcd"), 1007),
    (make_frame(2, b"", mask=b"abcd"), 1007),
    (make_frame(2, b"\x42\x02\x08", mask=b"abcd"), 1007),  # looks like a sequence ack
    (make_frame(2, b"\x52\x00", mask=b"abcd"), 1007),  # the number next to ping: perhaps an invocation
    (make_frame(2, b"x" * (2**20 + 1), mask=b"abcd"), 1009),
], ids=["text", "garbage", "empty", "truncated", "unpublished", "oversized"])  # fmt: skip
@pytest.mark.parametrize("subprotocol", [PLAIN_NAME, RELIABLE_NAME])
def test_a_violation_is_answered_with_its_close_code(raw: Any, subprotocol: str, frame: bytes, code: int) -> None:
    one = raw(subprotocol)
    one.ws.sock.sendall(frame)
    assert one.expect_close()[0] == code


def test_the_first_frame_and_the_answer_to_a_ping(raw: Any) -> None:
    plain, reliable = raw(PLAIN_NAME, user_id="mina"), raw(RELIABLE_NAME)
    assert (plain.subprotocol, reliable.subprotocol) == (PLAIN_NAME, RELIABLE_NAME)
    first, other = said(plain), said(reliable)
    assert first.connection_id and first.user_id == "mina" and first.resume is None
    assert other.user_id is None and other.resume[0] == other.connection_id and other.resume[1]
    plain.send(codec.PING)
    assert plain.frame() == (websocket.ABNF.OPCODE_BINARY, codec.PONG)


def test_the_largest_message_passes(client: Any) -> None:
    one, other = client(PLAIN), client("json")
    other.join_group("lobby")
    one.send_to_group("lobby", b"x" * (2**20 - 50))
    assert other.receive(scaled(10)).data == b"x" * (2**20 - 50)
    with pytest.raises(MessageTooLarge):
        one.send_to_group("lobby", b"x" * 2**20)


# ---- streams: the frames --------------------------------------------------------------------------------------------


def test_streams_between_the_formats(client: Any, raw: Any) -> None:
    subscribers = [client(RELIABLE), client("json")]
    for subscriber in subscribers:
        subscriber.join_group("lobby")
    publisher = raw(PLAIN_NAME, hub="hub")
    said(publisher)

    def do(body: bytes) -> None:
        publisher.send(codec.finish(body, None))

    do(streams.stream_data_body("s", 1, "too early", "text"))
    closed = said(publisher)
    assert isinstance(closed, StreamClosed) and closed.error is not None and closed.error.name == "StreamNotFound"
    do(streams.stream_start_body("lobby", "s", False, 60_000))
    assert said(publisher) == StreamAck("s", 1)
    do(streams.stream_data_body("s", 1, "one", "text"))
    do(streams.stream_data_body("s", 2, [2], "json"))
    do(streams.stream_data_body("s"))
    do(streams.stream_end_body("s", StreamError("", "model stopped", "E42")))
    heard = said(publisher)
    while isinstance(heard, StreamAck):
        heard = said(publisher)
    assert heard == StreamClosed("s")
    error = StreamError("UserError", "model stopped", "E42")
    for subscriber in subscribers:
        messages = [subscriber.receive(scaled(5)) for _ in range(3)]
        assert [message.data for message in messages[:2]] == ["one", [2]]
        assert [message.stream for message in messages] == [
            StreamInfo("s", 1), StreamInfo("s", 2), StreamInfo("s", 3, True, error)
        ]  # fmt: skip


@pytest.mark.parametrize("publishing, subscribing", [(RELIABLE, "json"), ("json.reliable", PLAIN), (PLAIN, RELIABLE)])
def test_a_stream_of_the_client_crosses_formats(client: Any, publishing: str, subscribing: str) -> None:
    publisher, subscriber = client(publishing), client(subscribing)
    subscriber.join_group("lobby")
    data = ["one", {"two": 2}, b"three", wrappers_pb2.StringValue(value="four")]
    with publisher.open_stream("lobby", stream_id="s") as stream:
        for item in data:
            stream.write(item)
    messages = [subscriber.receive(scaled(5)) for _ in range(5)]
    assert [message.data for message in messages[:3]] == data[:3] and messages[3].data.endswith(b"four")
    assert [message.stream for message in messages] == [StreamInfo("s", number, number == 5) for number in range(1, 6)]


@BOTH
def test_an_invocation_is_refused_at_the_call(client: Any, protocol: str) -> None:
    one = client(protocol)
    for call in one.invoke_event, one.invoke_event_nowait:
        with pytest.raises(InvalidArgument, match="use protocol='json.reliable'"):
            call("sum", [1, 2])
    one.join_group("lobby")  # it did no harm


# ---- P2: cut, and back again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["commands", "answers"])
def test_a_recovered_session_sends_and_receives_exactly_once(server: Any, proxy: Any, url_for: Any, lost: str) -> None:
    soon = RetryPolicy(base=10 * MS, maximum=50 * MS)
    with WebPubSubClient(server.client_access_url("hub", groups=["room"]), protocol=RELIABLE) as witness:
        with WebPubSubClient(url_for(), protocol=RELIABLE, reconnect_retry=soon) as one:
            events = Recorder().attach(one, "recovered", "gap", "disconnected")
            connection_id = one.connection_id
            one.join_group("room")
            want = []
            for round_number in range(3):
                proxy.stall("up" if lost == "commands" else "down")
                futures = []
                for number in range(50):
                    want.append("%d-%d" % (round_number, number))
                    futures.append(one.send_to_group_nowait("room", want[-1]))
                server.hub("hub").send_to_group("room", b"from the server")
                wait_until(lambda: one.stats()["outbox"] == 0)
                proxy.refuse(True)
                proxy.cut()
                wait_until(lambda: not one.is_connected())
                proxy.heal()
                events.wait_event("recovered", count=round_number + 1, timeout=10)
                for future in futures:
                    assert future.result(scaled(10)) is None
            assert one.connection_id == connection_id
            assert events.names == ["recovered"] * 3
            for member in (one, witness):
                got = [member.receive(scaled(5)) for _ in range(len(want) + 3)]
                assert [message.data for message in got if message.data_type == "text"] == want
                assert [message.sequence_id for message in got] == list(range(1, len(want) + 4))


def test_what_was_missed_is_replayed_to_another_socket(raw: Any, client: Any, server: Any) -> None:
    one = raw(RELIABLE_NAME, hub="hub", groups=["lobby"])
    connection_id, token = said(one).resume
    other = client(PLAIN)
    for text in ("a", "b"):
        other.send_to_group("lobby", text)
    assert [said(one).data for _ in range(2)] == ["a", "b"]
    one.send(codec.encode_sequence_ack(1))
    wait_until(lambda: sum(connection.unacked for connection in server.connections("hub")) == 1)
    one.abort()
    ids = "?awps_connection_id=%s&awps_reconnection_token=%s" % (connection_id, token)
    again = raw(RELIABLE_NAME, url=one.url.partition("?")[0] + ids)
    assert said(again).connection_id == connection_id
    message = said(again)
    assert (message.data, message.sequence_id) == ("b", 2)
