"""The protobuf subprotocols as the engine sees them, message objects as data, and life without the protobuf library."""

from __future__ import annotations

import logging
import random
from typing import Any, List

import pytest

from simplepubsub.core import logs
from simplepubsub.core.protocol import Ack, Connected, Pong, Protocol
from simplepubsub.exceptions import InvalidArgument, MessageTooLarge, RemoteProtocolError
from simplepubsub.transports.frames import BINARY, TEXT
from simplepubsub.webpubsub import json_codec
from simplepubsub.webpubsub.arguments import name_data_type
from simplepubsub.webpubsub.messages import Event, JoinGroup, LeaveGroup, Ping, SendToGroup, SequenceAck, StreamEnd
from simplepubsub.webpubsub.protocol import JsonProtocol, protocol_named
from simplepubsub.webpubsub.trace import make_trace
from tests import peers
from tests.helpers import run_python

any_pb2 = peers.require("google.protobuf.any_pb2", "messages inside messages")
wrappers_pb2 = peers.require("google.protobuf.wrappers_pb2", "messages of an application")
descriptor_pb2 = peers.require("google.protobuf.descriptor_pb2", "messages with required fields")

from simplepubsub.webpubsub import protobuf_codec as codec  # noqa: E402

PLAIN, RELIABLE = protocol_named("protobuf"), protocol_named("protobuf.reliable")
MIB = 2**20


@pytest.mark.parametrize("name, full", [
    ("protobuf", "protobuf.webpubsub.azure.v1"),
    ("Protobuf.WebPubSub.Azure.v1", "protobuf.webpubsub.azure.v1"),
    ("protobuf.reliable", "protobuf.reliable.webpubsub.azure.v1"),
    ("PROTOBUF.reliable.webpubsub.azure.v1", "protobuf.reliable.webpubsub.azure.v1"),
])  # fmt: skip
def test_protocols_are_found_by_short_and_full_name(name: str, full: str) -> None:
    found = protocol_named(name)
    assert found.name == full and found.subprotocols == (full,) and isinstance(found, Protocol)
    assert found.reliable == ("reliable" in full)
    assert found.max_in_flight == (1000 if found.reliable else None)


def test_control_frames_are_what_the_service_understands() -> None:
    for protocol in (PLAIN, RELIABLE):
        opcode, data = protocol.ping()
        assert opcode == BINARY and codec.decode_client_message(data) == Ping()
        opcode, data = protocol.sequence_ack(2**63)
        assert opcode == BINARY and codec.decode_client_message(data) == SequenceAck(2**63)
        opcode, data = protocol.restore("g", 2**64 - 1)
        assert opcode == BINARY and codec.decode_client_message(data) == JoinGroup("g", 2**64 - 1)


def test_binary_frames_are_decoded_and_text_ones_refused() -> None:
    assert PLAIN.decode((BINARY, codec.encode_ack(5))) == Ack(5, True)
    assert type(PLAIN.decode((BINARY, codec.PONG))) is Pong
    assert RELIABLE.decode((BINARY, codec.encode_connected("c", None, "t"))) == Connected("c", None, ("c", "t"))
    for protocol, frame, code in ((PLAIN, (TEXT, "{}"), 1003), (RELIABLE, (BINARY, b"\xff"), 1007)):
        with pytest.raises(RemoteProtocolError) as caught:
            protocol.decode(frame)
        assert caught.value.code == code


@pytest.mark.parametrize("group", ["g", "g" * 127, "g" * 128, "g" * 1024, "\U0001f600" * 1024],
                         ids=lambda group: str(len(group.encode())))
@pytest.mark.parametrize("ack_id", [None, 0, 127, 128, 2**64 - 1])
def test_a_body_is_finished_with_its_id_or_without(group: str, ack_id: Any) -> None:
    for body, command in (
        (PLAIN.join_body(group), JoinGroup(group, ack_id)),
        (PLAIN.leave_body(group), LeaveGroup(group, ack_id)),
        (PLAIN.send_to_group_body(group, "x" * 200, "text", True), SendToGroup(group, "x" * 200, "text", ack_id, True)),
        (PLAIN.event_body("e", b"", "binary"), Event("e", b"", "binary", ack_id)),
        (PLAIN.stream_end_body("s"), StreamEnd("s")),
    ):
        opcode, data = PLAIN.finish(body, None if isinstance(command, StreamEnd) else ack_id)
        assert opcode == BINARY and codec.decode_client_message(data) == command


def test_messages_up_to_the_limit_can_be_sent() -> None:
    def biggest(protocol: Any, size: int) -> int:
        return len(protocol.finish(protocol.send_to_group_body("g", b"x" * size, "binary", False), 2**64 - 1)[1])

    assert MIB - 40 < biggest(PLAIN, MIB - 50) <= MIB
    with pytest.raises(MessageTooLarge) as caught:
        biggest(PLAIN, MIB - 20)
    assert caught.value.limit == MIB < caught.value.size
    with pytest.raises(MessageTooLarge):  # base64
        biggest(JsonProtocol(True), MIB - 50)


def test_invocations_are_refused_with_what_to_use_instead() -> None:
    for call in (lambda: RELIABLE.invoke_body("1", "sum", [1], "json"), lambda: PLAIN.cancel_body("1")):
        with pytest.raises(InvalidArgument, match="json.reliable"):
            call()


# ---- message objects ------------------------------------------------------------------------------------------------


def packed(message: Any) -> bytes:
    wrapper = any_pb2.Any()
    wrapper.Pack(message)
    return bytes(wrapper.SerializeToString())


MESSAGES: List[Any] = [
    wrappers_pb2.StringValue(value="\u00fcber"),
    wrappers_pb2.StringValue(),
    wrappers_pb2.BytesValue(value=b"x" * 300),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: str(message.ByteSize()))
@pytest.mark.parametrize("protocol", [PLAIN, JsonProtocol(False)], ids=lambda protocol: protocol.name)
def test_a_message_object_travels_inside_an_any(message: Any, protocol: Any) -> None:
    assert name_data_type(message, None) == "protobuf"
    opcode, data = protocol.finish(protocol.event_body("e", message, "protobuf"), 1)
    read = codec.decode_client_message if opcode == BINARY else json_codec.decode_client_message
    assert read(data if opcode == BINARY else data.decode()) == Event("e", packed(message), "protobuf", 1)


def test_an_any_is_not_packed_again() -> None:
    wrapper = any_pb2.Any.FromString(packed(MESSAGES[0]))
    assert json_codec.encode_data(wrapper, "protobuf") == json_codec.encode_data(packed(MESSAGES[0]), "protobuf")


def test_a_message_that_lacks_a_required_field_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="NamePart"):
        PLAIN.event_body("e", descriptor_pb2.UninterpretedOption.NamePart(), "protobuf")


def test_a_message_object_is_no_other_type_of_data() -> None:
    for data_type in ("text", "json", "binary"):
        with pytest.raises(InvalidArgument, match="StringValue"):
            PLAIN.event_body("e", MESSAGES[0], data_type)
    assert name_data_type(wrappers_pb2.StringValue, None) == "json"  # a class is no message


# ---- around it ------------------------------------------------------------------------------------------------------


def test_the_trace_does_not_show_the_reconnection_token(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logs, "configure_from_environment", lambda: None)
    caplog.set_level(logging.DEBUG, logs.VERBOSE_LOGGER)
    trace = make_trace(False)
    assert trace is not None
    trace("received", [(BINARY, codec.encode_connected("c1", "mina", "R3C0NN3CT")), (BINARY, codec.encode_ack(5))])
    trace("sent", [PLAIN.finish(PLAIN.join_body("lobby"), 1)])
    traced = [record for record in caplog.records if record.name == logs.VERBOSE_LOGGER]
    assert len(traced) == 3 and "lobby" in caplog.text
    assert "R3C0NN3CT" not in caplog.text


def test_the_library_is_imported_when_it_is_needed_and_not_before() -> None:
    run_python(
        """
        import sys
        import simplepubsub.cli
        from simplepubsub.server import Server
        from simplepubsub.webpubsub import WebPubSubClient
        with Server() as server:
            with WebPubSubClient(server.client_access_url("h")) as client:
                client.join_group("g")
            assert not [name for name in sys.modules if name.startswith("google.protobuf")]
            with WebPubSubClient(server.client_access_url("h"), protocol="protobuf") as client:
                client.join_group("g")
        assert "google.protobuf" in sys.modules
        """
    )


def test_without_the_library_both_sides_say_how_to_get_it() -> None:
    run_python(
        """
        import sys
        sys.modules["google.protobuf"] = None  # as if it were not installed
        import websocket
        from simplepubsub.exceptions import InvalidArgument
        from simplepubsub.server import Server
        from simplepubsub.webpubsub import WebPubSubClient
        PIP = "pip install 'simplepubsub[protobuf]'"
        NAME = "protobuf.webpubsub.azure.v1"
        with Server() as server:
            url = server.client_access_url("h")
            try:
                WebPubSubClient(url, protocol="protobuf")
            except InvalidArgument as error:
                assert PIP in str(error), error
            else:
                raise AssertionError("accepted")
            # Not taken for a simple client.
            try:
                websocket.create_connection(url, subprotocols=[NAME], timeout=10)
            except websocket.WebSocketBadStatusException as error:
                assert error.status_code == 501 and PIP in error.resp_body.decode(), error
            else:
                raise AssertionError("accepted")
            both = websocket.create_connection(url, subprotocols=[NAME, "json.webpubsub.azure.v1"], timeout=10)
            assert both.subprotocol == "json.webpubsub.azure.v1"
            both.close()
        """
    )


def test_no_two_implementations_of_the_library_read_different_messages(seed: int) -> None:
    random_bytes = random.Random(seed)
    good = [codec.finish(codec.send_to_group_body("lobby", data, kind, True), 7)
            for data, kind in (("h\u00e9", "text"), (b"\xff", "binary"), ({"a": [1, None]}, "json"))]
    good += [codec.finish_message(codec.encode_message("g", "x", "text"), 9), codec.encode_connected("c", "u", "t")]
    frames = list(good)
    for frame in good * 20:
        damaged = bytearray(frame)
        damaged[random_bytes.randrange(len(damaged))] = random_bytes.randrange(256)
        frames.append(bytes(damaged[:random_bytes.randrange(len(damaged)) + 1]))
    code = """
        import sys
        from simplepubsub.exceptions import RemoteProtocolError
        from simplepubsub.webpubsub import protobuf_codec
        def read(decode, frame):
            try:
                return repr(decode(frame))
            except RemoteProtocolError as error:
                return str(error.code)
        for text in sys.argv[1:]:
            for decode in (protobuf_codec.decode_client_message, protobuf_codec.decode_service_message):
                print(ascii(read(decode, bytes.fromhex(text))))
        """
    texts = [frame.hex() for frame in frames]
    fast = run_python(code, *texts).stdout.splitlines()
    slow = run_python(code, *texts, env={"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}).stdout.splitlines()
    assert len(fast) == len(slow) == 2 * len(frames)
    assert fast[:2 * len(good)] == slow[:2 * len(good)]
    # They are not equally strict with what is damaged, but never take it for different messages.
    assert [pair for pair in zip(fast, slow) if pair[0] != pair[1] and "'1007'" not in pair] == []


def test_a_message_is_encoded_once_and_shared_by_sequence_number(monkeypatch: pytest.MonkeyPatch) -> None:
    server_wires = pytest.importorskip("simplepubsub.server.wires")
    from simplepubsub.server.wire import Outgoing

    calls = []
    encode = codec.encode_message
    monkeypatch.setattr(codec, "encode_message", lambda *values: calls.append(values) or encode(*values))
    plain, reliable = map(server_wires.find_wire, ("protobuf.webpubsub.azure.v1", RELIABLE.name.upper()))
    message = Outgoing("g", "mina", "hi", "text")
    packed_form = message.packed(plain)
    assert message.packed(reliable) is packed_form and len(calls) == 1
    assert packed_form.plain() is packed_form.plain()
    assert packed_form.number(5) is packed_form.numbered[5]
    assert packed_form.number(300) == bytes.fromhex("8215" "1213" "0a0567726f7570" "120167" "1a040a026869" "20ac02")
