"""The protobuf wire format: bytes written by hand, one table per direction, and the library as a second opinion."""

from __future__ import annotations

from typing import Any, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.core.protocol import Ack, Connected, Disconnected, Pong
from simplepubsub.exceptions import InvalidArgument, RemoteProtocolError
from simplepubsub.webpubsub.messages import (
    DEFAULT_STREAM_IDLE_MS,
    Event,
    JoinGroup,
    LeaveGroup,
    Message,
    Ping,
    SendToGroup,
    SequenceAck,
    StreamAck,
    StreamClosed,
    StreamData,
    StreamEnd,
    StreamError,
    StreamInfo,
    StreamNack,
    StreamStart,
)
from tests import peers

peers.require("google.protobuf", "the protobuf subprotocols")

from simplepubsub.webpubsub import protobuf_codec as codec  # noqa: E402
from simplepubsub.webpubsub import protobuf_streams as streams  # noqa: E402
from simplepubsub.webpubsub.protobuf_fields import varint  # noqa: E402
from simplepubsub.webpubsub.protobuf_schema import DownstreamMessage, UpstreamMessage  # noqa: E402

UINT64 = 2**64 - 1

#: google.protobuf.Any of the type "t" with the value 1, 2.
ANY = bytes.fromhex("0a0174 12020102".replace(" ", ""))


def write(command: Any) -> bytes:
    """Encode a command as the client does."""
    kind = type(command)
    if kind is SequenceAck:
        return codec.encode_sequence_ack(command.sequence_id)
    if kind is Ping:
        return codec.PING
    if kind is StreamStart:
        body = streams.stream_start_body(command.group, command.stream_id, command.no_echo, command.idle_timeout_ms)
    elif kind is StreamData:
        body = streams.stream_data_body(command.stream_id, command.sequence_id, command.data, command.data_type)
    elif kind is StreamEnd:
        body = streams.stream_end_body(command.stream_id, command.error)
    elif kind is SendToGroup:
        body = codec.send_to_group_body(command.group, command.data, command.data_type, command.no_echo)
    elif kind is Event:
        body = codec.event_body(command.event, command.data, command.data_type)
    else:
        body = (codec.join_body if kind is JoinGroup else codec.leave_body)(command.group)
    return codec.finish(body, getattr(command, "ack_id", None))


def announce(message: Any) -> bytes:
    """Encode what the service says as the server does."""
    kind = type(message)
    if kind is Message:
        return codec.finish_message(
            codec.encode_message(message.group, message.data, message.data_type, message.stream), message.sequence_id
        )
    if kind is Connected:
        return codec.encode_connected(message.connection_id, message.user_id, message.resume and message.resume[1])
    if kind is Disconnected:
        return codec.encode_disconnected(message.message)
    if kind is Ack:
        return codec.encode_ack(message.ack_id, None if message.ok and not message.name else message.name,
                                message.message)
    if kind is StreamAck:
        return streams.encode_stream_ack(*message)
    if kind is StreamNack:
        return streams.encode_stream_nack(*message)
    if kind is StreamClosed:
        return streams.encode_stream_closed(*message)
    assert kind is Pong
    return codec.PONG


def fields(message: Any) -> Any:
    """Return a message as something that compares."""
    if not isinstance(message, Message):
        return type(message), message
    return (message.kind, message.group, message.data, message.data_type, message.from_user_id, message.sequence_id,
            message.stream)


def group_message(data: Any, data_type: str, sequence_id: int = 0, stream: Any = None, group: str = "lobby") -> Message:
    return Message("group", group, data, data_type, None, sequence_id, stream)


# ---- commands -------------------------------------------------------------------------------------------------------

#: The first ones are the byte vectors of the protocol reference, 2.9.
COMMANDS: List[Tuple[Any, str]] = [
    (JoinGroup("lobby", 7), "32 09 0a 05 6c 6f 62 62 79 10 07"),
    (SendToGroup("lobby", "hi", "text", 3, True), "0a 11 0a 05 6c 6f 62 62 79 10 03 1a 04 0a 02 68 69 20 01"),
    (Event("greet", "hi", "text", 4), "2a 0f 0a 05 67 72 65 65 74 12 04 0a 02 68 69 18 04"),
    (SequenceAck(5), "42 02 08 05"),
    (Ping(), "4a 00"),
    (StreamStart("lobby", "s1"), "0a 0d 0a 05 6c 6f 62 62 79 3a 04 0a 02 73 31"),
    (StreamData("s1", 1, "hi", "text"), "6a 0c 0a 02 73 31 10 01 1a 04 0a 02 68 69"),
    # Further ones, written by hand from the tables there.
    (JoinGroup("g"), "32 03 0a 01 67"),
    (JoinGroup("g", 0), "32 05 0a 01 67 10 00"),
    (JoinGroup("g", UINT64), "32 0e 0a 01 67 10 ff ff ff ff ff ff ff ff ff 01"),
    (LeaveGroup("g", 300), "3a 06 0a 01 67 10 ac 02"),
    (LeaveGroup("\u00e9", 1), "3a 06 0a 02 c3 a9 10 01"),
    (SendToGroup("g", "", "text"), "0a 07 0a 01 67 1a 02 0a 00"),
    (SendToGroup("g", b"\x01\xff", "binary", 1), "0a 0b 0a 01 67 10 01 1a 04 12 02 01 ff"),
    (SendToGroup("g", b"", "binary"), "0a 07 0a 01 67 1a 02 12 00"),
    (SendToGroup("g", [1], "json"), "0a 0a 0a 01 67 1a 05 22 03 5b 31 5d"),
    (SendToGroup("g", ANY, "protobuf"), "0a 0e 0a 01 67 1a 09 1a 07 0a 01 74 12 02 01 02"),
    (Event("e", {"a": None}, "json"), "2a 11 0a 01 65 12 0c 22 0a 7b 22 61 22 3a 6e 75 6c 6c 7d"),
    (StreamStart("g", "s", True, 300), "0a 0d 0a 01 67 20 01 3a 06 0a 01 73 10 ac 02"),
    (StreamData("s"), "6a 03 0a 01 73"),
    (StreamData("s", 2, b"\x00", "binary"), "6a 0a 0a 01 73 10 02 1a 03 12 01 00"),
    (StreamEnd("s"), "72 03 0a 01 73"),
    (StreamEnd("s", StreamError("UserError", "m", "c")), "72 0b 0a 01 73 12 06 0a 01 6d 12 01 63"),
]


@pytest.mark.parametrize("command, text", COMMANDS, ids=[text for _, text in COMMANDS])
def test_a_command_is_these_bytes(command: Any, text: str) -> None:
    assert " ".join("%02x" % byte for byte in write(command)) == text


@pytest.mark.parametrize("command, text", COMMANDS, ids=[text for _, text in COMMANDS])
def test_these_bytes_are_a_command(command: Any, text: str) -> None:
    read = codec.decode_client_message(bytes.fromhex(text.replace(" ", "")))
    assert type(read) is type(command) and read == command


def field(number: int, value: Any) -> bytes:
    """Write one field as any encoder would, in whatever order the caller likes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


HI = field(1, "hi")

LENIENT = [
    ("fields in any order", field(1, field(4, 1) + field(3, HI) + field(2, 3) + field(1, "lobby")),
     SendToGroup("lobby", "hi", "text", 3, True)),
    ("unknown fields at every level",
     field(99, "x") + field(6, field(77, 5) + field(1, "g") + field(78, b"\xff")) + field(1000, 1), JoinGroup("g")),
    ("the last of several kinds", field(6, field(1, "g")) + field(7, field(1, "h")), LeaveGroup("h")),
    ("the last of several values", field(6, field(1, "g") + field(1, "h")), JoinGroup("h")),
    ("a number in more bytes than it needs", b"\x42\x03\x08\x85\x00", SequenceAck(5)),
    ("metadata is skipped", field(1, field(1, "g") + field(3, HI) + field(6, field(1, "k") + field(2, "v"))),
     SendToGroup("g", "hi", "text")),
    ("a time to live is kept", field(1, field(1, "g") + field(3, HI) + field(5, 300)),
     SendToGroup("g", "hi", "text", None, False, 300)),
    ("JSON with white space", field(5, field(1, "e") + field(2, field(4, " [1, 2] "))), Event("e", [1, 2], "json")),
    ("an explicit default", field(1, field(1, "g") + field(3, HI) + field(4, 0)), SendToGroup("g", "hi", "text")),
    ("a stream whose start wants an ack, and has data",
     field(1, field(1, "g") + field(2, 9) + field(3, HI) + field(7, field(1, "s"))),
     StreamStart("g", "s", False, DEFAULT_STREAM_IDLE_MS, 9, True)),
    ("an end with an empty error", field(14, field(1, "s") + field(2, b"")), StreamEnd("s", StreamError("UserError"))),
]


@pytest.mark.parametrize("frame, command", [row[1:] for row in LENIENT], ids=[row[0] for row in LENIENT])
def test_what_other_clients_may_write_is_understood(frame: bytes, command: Any) -> None:
    assert codec.decode_client_message(frame) == command


REFUSED = [
    ("nothing", b"", "kind of message"),
    ("an unknown kind", field(18, b""), "kind of message"),
    ("an invocation", field(10, field(1, "1")), "kind of message"),
    ("a group state", field(15, field(1, "g")), "kind of message"),
    ("text", b"hello", "malformed"),
    ("a truncated frame", bytes.fromhex("32090a056c6f"), "malformed"),
    ("text that is not UTF-8", field(6, field(1, b"\xff\xfe")), "malformed"),
    ("a surrogate", field(6, field(1, b"\xed\xa0\x80")), "malformed"),
    ("no group", field(6, b""), "group"),
    ("a blank group", field(6, field(1, " \t")), "group"),
    ("a long group", field(6, field(1, "g" * 1025)), "group"),
    ("a bad event name", field(5, field(1, "1a") + field(2, HI)), "event name"),
    ("no event name", field(5, field(2, HI)), "event name"),
    ("no data", field(1, field(1, "g")), "data is missing"),
    ("empty data", field(1, field(1, "g") + field(3, b"")), "data is missing"),
    ("data of an unknown kind", field(1, field(1, "g") + field(3, field(9, "x"))), "data is missing"),
    ("a JSON null", field(5, field(1, "e") + field(2, field(4, "null"))), "data is missing"),
    ("no JSON", field(5, field(1, "e") + field(2, field(4, "{"))), "malformed"),
    ("a JSON NaN", field(5, field(1, "e") + field(2, field(4, "NaN"))), "malformed"),
    ("an abyss of JSON", field(5, field(1, "e") + field(2, field(4, "[" * 100_000))), "malformed"),
    ("no Any", field(1, field(1, "g") + field(3, field(3, b"\xff\xff"))), "Any"),
    ("a long time to live", field(1, field(1, "g") + field(3, HI) + field(5, 301)), "ttl"),
    ("a stream without id", field(1, field(1, "g") + field(7, b"")), "stream_id"),
    ("a fragment without id", field(13, field(2, 1) + field(3, HI)), "stream_id"),
    ("a fragment without number", field(13, field(1, "s") + field(3, HI)), "stream_sequence_id"),
    ("a fragment without data", field(13, field(1, "s") + field(2, 1)), "data is missing"),
    ("an end without id", field(14, b""), "stream_id"),
]


@pytest.mark.parametrize("frame, words", [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_command_that_breaks_a_rule_is_refused_with_1007(frame: bytes, words: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode_client_message(frame)
    assert caught.value.code == 1007 and words in str(caught.value)


@pytest.mark.parametrize("data, data_type", [
    (1, "text"), (b"x", "text"), (None, "json"), (float("nan"), "json"), ({1}, "json"), ("x", "binary"),
    ("x", "protobuf"), (b"\xff\xff", "protobuf"), (b"\x0a\x05ab", "protobuf"), ("\ud800", "text"), ("\ud800", "json"),
    ({"a": "\udfff"}, "json"), (int, "protobuf"),
], ids=repr)  # fmt: skip
def test_data_that_does_not_fit_its_type_is_refused_before_it_is_sent(data: Any, data_type: str) -> None:
    for encode in (lambda: codec.send_to_group_body("g", data, data_type, False),
                   lambda: codec.event_body("e", data, data_type),
                   lambda: streams.stream_data_body("s", 1, data, data_type)):
        with pytest.raises(InvalidArgument):
            encode()


@pytest.mark.parametrize("data", [bytearray(b"ab"), memoryview(b"a-b-")[::2]], ids=["bytearray", "strided view"])
def test_bytes_like_objects_are_binary_data(data: Any) -> None:
    assert codec.decode_client_message(write(SendToGroup("g", data, "binary"))) == SendToGroup("g", b"ab", "binary")


@pytest.mark.parametrize("timeout", [0, -1, 2**32])
def test_an_idle_timeout_that_has_no_form_is_refused(timeout: int) -> None:
    with pytest.raises(InvalidArgument, match="milliseconds"):
        streams.stream_start_body("g", "s", False, timeout)


# ---- what the service says ------------------------------------------------------------------------------------------

USER_ERROR = StreamError("UserError", "m", "c")

SAID: List[Tuple[Any, str]] = [
    (Pong(), "22 00"),
    (Ack(3, True), "0a 04 08 03 10 01"),
    (group_message("hi", "text", 5),
     "12 16 0a 05 67 72 6f 75 70 12 05 6c 6f 62 62 79 1a 04 0a 02 68 69 20 05"),
    (Connected("c1", "mina", ("c1", "tok")), "1a 11 0a 0f 0a 02 63 31 12 04 6d 69 6e 61 1a 03 74 6f 6b"),
    (StreamAck("s1", 1), "32 06 0a 02 73 31 10 01"),
    # Further ones, written by hand.
    (Connected("c1"), "1a 06 0a 04 0a 02 63 31"),
    (Disconnected("bye"), "1a 07 12 05 12 03 62 79 65"),
    (Disconnected(""), "1a 02 12 00"),
    (Ack(0, True), "0a 02 10 01"),
    (Ack(1, False, "E", "m"), "0a 0a 08 01 1a 06 0a 01 45 12 01 6d"),
    (Message("server", None, b"\x01", "binary", None, 300), "12 10 0a 06 73 65 72 76 65 72 1a 03 12 01 01 20 ac 02"),
    (Message("server", None, ANY, "protobuf"), "12 13 0a 06 73 65 72 76 65 72 1a 09 1a 07 0a 01 74 12 02 01 02"),
    (group_message([1], "json", 0, None, "g"), "12 11 0a 05 67 72 6f 75 70 12 01 67 1a 05 22 03 5b 31 5d"),
    (group_message("x", "text", 0, StreamInfo("s", 1), "g"),
     "12 16 0a 05 67 72 6f 75 70 12 01 67 1a 03 0a 01 78 32 05 0a 01 73 10 01"),
    (group_message("", "text", 0, StreamInfo("s", 2, True, USER_ERROR), "g"),
     "12 2a 0a 05 67 72 6f 75 70 12 01 67 1a 02 0a 00 32 1a 0a 01 73 10 02 18 01 22 11 "
     "0a 09 55 73 65 72 45 72 72 6f 72 12 01 6d 1a 01 63"),
    (StreamNack("s", 4, "N", "m"), "3a 0b 0a 01 73 12 01 4e 1a 01 6d 20 04"),
    (StreamClosed("s"), "42 03 0a 01 73"),
    (StreamClosed("s", StreamError("E", "m")), "42 0b 0a 01 73 12 06 0a 01 45 12 01 6d"),
]


@pytest.mark.parametrize("message, text", SAID, ids=[text for _, text in SAID])
def test_what_the_service_says_is_these_bytes(message: Any, text: str) -> None:
    assert " ".join("%02x" % byte for byte in announce(message)) == text


@pytest.mark.parametrize("message, text", SAID, ids=[text for _, text in SAID])
def test_these_bytes_are_what_the_service_says(message: Any, text: str) -> None:
    assert fields(codec.decode_service_message(bytes.fromhex(text.replace(" ", "")))) == fields(message)


def data_message(*parts: bytes, origin: str = "group", group: str = "g") -> bytes:
    return field(2, field(1, origin) + (field(2, group) if group else b"") + b"".join(parts))


UNDERSTOOD = [
    ("a repeat counts as success", field(1, field(1, 4) + field(3, field(1, "Duplicate") + field(2, "again"))),
     Ack(4, True, "Duplicate", "again")),
    ("a refusal without reason", field(1, field(1, 4)), Ack(4, False)),
    ("a number in the middle", data_message(field(4, 7), field(3, HI)), group_message("hi", "text", 7, None, "g")),
    ("JSON as the documentation has it", data_message(field(3, field(1, '{"a":1}'))),
     group_message('{"a":1}', "text", 0, None, "g")),
    ("JSON null", data_message(field(3, field(4, "null"))), group_message(None, "json", 0, None, "g")),
    ("a message without data", data_message(), group_message("", "text", 0, None, "g")),
    ("the end of a stream without data", data_message(field(6, field(1, "s") + field(2, 2) + field(3, 1))),
     group_message("", "text", 0, StreamInfo("s", 2, True), "g")),
    ("metadata is skipped", data_message(field(3, HI), field(5, field(1, "k") + field(2, "v"))),
     group_message("hi", "text", 0, None, "g")),
]


@pytest.mark.parametrize("frame, message", [row[1:] for row in UNDERSTOOD], ids=[row[0] for row in UNDERSTOOD])
def test_what_a_service_may_write_is_understood(frame: bytes, message: Any) -> None:
    assert fields(codec.decode_service_message(frame)) == fields(message)


IGNORED = [
    ("nothing", b""),
    ("a kind to come", field(11, field(1, "x"))),
    ("the answer to an invocation", field(5, field(1, "1"))),
    ("a group state update", field(9, field(1, "g") + field(2, field(1, "c1") + field(4, 5)))),
    ("a group state snapshot", field(10, field(1, "g") + field(3, 8))),
    ("a system event to come", field(3, field(3, "x"))),
    ("a payload of a kind to come", data_message(field(3, field(5, "x")))),
    ("a message from elsewhere", data_message(field(3, HI), origin="moon")),
]


@pytest.mark.parametrize("frame", [row[1] for row in IGNORED], ids=[row[0] for row in IGNORED])
def test_what_a_newer_service_says_is_ignored(frame: bytes) -> None:
    assert codec.decode_service_message(frame) is None


MALFORMED = [
    ("text", b"hello"),
    ("a truncated frame", bytes.fromhex("12160a0567726f")),
    ("no UTF-8", data_message(field(3, field(1, b"\xff")))),
    ("no JSON", data_message(field(3, field(4, "[1,")))),
    ("no connection id", field(3, field(1, field(2, "mina")))),
    ("a stream without id", data_message(field(3, HI), field(6, field(2, 1)))),
    ("a stream ack without id", field(6, field(2, 1))),
]


@pytest.mark.parametrize("frame", [row[1] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_a_malformed_message_is_one_typed_error(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode_service_message(frame)
    assert caught.value.code == 1007


def test_lone_surrogates_of_json_peers_do_not_stop_a_delivery() -> None:
    message = codec.finish_message(codec.encode_message("g\ud800", "a\udfffb", "text"))
    assert fields(codec.decode_service_message(message)) == fields(group_message("a?b", "text", 0, None, "g?"))
    message = codec.finish_message(codec.encode_message(None, {"a": "\ud800"}, "json"))
    assert fields(codec.decode_service_message(message)) == fields(Message("server", None, {"a": "\ud800"}, "json"))


# ---- in general -----------------------------------------------------------------------------------------------------

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=200)
names = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=200).filter(str.strip)
numbers = st.integers(0, UINT64) | st.integers(0, 200)
anys = st.builds(lambda kind, value: field(1, kind) + field(2, value), names, st.binary(max_size=50))
scalars = st.integers(-(2**70), 2**70) | st.booleans() | texts | st.floats(allow_nan=False, allow_infinity=False)
documents = scalars | st.lists(scalars | st.none(), max_size=4) | st.dictionaries(texts, scalars, max_size=4)
payloads = (
    st.tuples(texts, st.just("text")) | st.tuples(st.binary(max_size=300), st.just("binary"))
    | st.tuples(documents, st.just("json")) | st.tuples(anys, st.just("protobuf"))
)
ack_ids = st.none() | numbers
event_names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.\-]{0,127}", fullmatch=True)
user_errors = st.none() | st.builds(StreamError, st.just("UserError"), texts, st.none() | texts)
commands = st.one_of(
    st.builds(JoinGroup, names, ack_ids),
    st.builds(LeaveGroup, names, ack_ids),
    st.builds(lambda group, data, ack_id, flag: SendToGroup(group, data[0], data[1], ack_id, flag), names, payloads,
              ack_ids, st.booleans()),
    st.builds(lambda event, data, ack_id: Event(event, data[0], data[1], ack_id), event_names, payloads, ack_ids),
    st.builds(SequenceAck, numbers.filter(bool)),
    st.just(Ping()),
    st.builds(lambda *values: StreamStart(*values), names, names, st.booleans(), st.integers(1, 2**32 - 1)),
    st.builds(lambda stream, number, data: StreamData(stream, number, *data), names, numbers, payloads),
    names.map(StreamData),
    st.builds(StreamEnd, names, user_errors),
)
named_errors = st.none() | st.builds(StreamError, texts, texts, st.none() | texts)
infos = st.none() | st.builds(StreamInfo, names, numbers, st.booleans(), named_errors)
said = st.one_of(
    st.builds(lambda group, data, number, info: group_message(data[0], data[1], number, info, group), names, payloads,
              numbers, infos),
    st.builds(lambda data, number: Message("server", None, data[0], data[1], None, number), payloads, numbers),
    numbers.map(lambda number: Ack(number, True)),
    st.builds(lambda number, name, text: Ack(number, name == "Duplicate", name, text), numbers,
              names | st.just("Duplicate"), texts),
    st.builds(lambda name, user, token: Connected(name, user, (name, token) if token else None), names,
              st.none() | names, st.none() | names),
    st.builds(Disconnected, texts),
    st.just(Pong()),
    st.builds(StreamAck, names, numbers),
    st.builds(StreamNack, names, numbers, texts, texts),
    st.builds(StreamClosed, names, named_errors),
)


@given(numbers)
def test_numbers_are_as_the_library_writes_them(value: int) -> None:
    message = UpstreamMessage()
    message.sequence_ack_message.sequence_id = value
    assert codec.encode_sequence_ack(value) == (message.SerializeToString() if value else b"\x42\x02\x08\x00")


@given(commands)
def test_commands_survive_the_journey(command: Any) -> None:
    read = codec.decode_client_message(write(command))
    assert type(read) is type(command) and read == command


@given(said)
def test_what_the_service_says_survives_the_journey(message: Any) -> None:
    assert fields(codec.decode_service_message(announce(message))) == fields(message)


@given(commands)
def test_commands_are_as_the_library_writes_them(command: Any) -> None:
    data = write(command)
    assert UpstreamMessage.FromString(data).SerializeToString() == data


@given(said)
def test_what_the_service_says_is_what_the_library_reads(message: Any) -> None:
    # It would write a sequence number before the stream of a message; nothing else is in another order.
    data = announce(message)
    written = DownstreamMessage.FromString(data).SerializeToString()
    if isinstance(message, Message) and message.stream and message.sequence_id:
        assert sorted(written) == sorted(data)
    else:
        assert written == data


def check_both(data: bytes) -> None:
    for decode in (codec.decode_client_message, codec.decode_service_message):
        try:
            decode(data)
        except RemoteProtocolError as error:
            assert error.code == 1007


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_message_or_one_typed_error(data: bytes) -> None:
    check_both(data)


@given(st.builds(write, commands) | st.builds(announce, said), st.data())
def test_damaged_messages_are_a_message_or_one_typed_error(data: bytes, choice: Any) -> None:
    check_both(data[:choice.draw(st.integers(0, len(data)))])
    place = choice.draw(st.integers(0, len(data) - 1))
    check_both(data[:place] + bytes([choice.draw(st.integers(0, 255))]) + data[place + 1:])


@given(st.builds(write, commands), st.integers(100, 2**29 - 1), st.binary(max_size=20) | numbers)
def test_unknown_fields_change_nothing(data: bytes, number: int, value: Any) -> None:
    assert codec.decode_client_message(data + field(number, value)) == codec.decode_client_message(data)


def test_an_abyss_of_unknown_groups_is_one_typed_error() -> None:
    check_both(b"\xa3\x06" * 100_000)


def test_the_classes_live_in_a_pool_of_their_own() -> None:
    default = peers.require("google.protobuf.descriptor_pool", "the pool that applications use").Default()
    with pytest.raises(KeyError):
        default.FindMessageTypeByName(UpstreamMessage.DESCRIPTOR.full_name)
