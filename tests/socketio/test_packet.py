"""The packet codec: the worked examples byte for byte, the decoder's strictness and tolerances, limits, mappings."""

from __future__ import annotations

import json
from collections import OrderedDict
from enum import IntEnum
from typing import Any, List

import pytest

from simplepubsub.exceptions import InvalidArgument, RemoteProtocolError
from simplepubsub.socketio.binary import deconstruct
from simplepubsub.socketio.packet import (
    RESERVED_EVENTS,
    Decoder,
    DefaultSerializer,
    NotSerializable,
    Packet,
    PacketType,
    ack_value,
    check_event_name,
    check_namespace,
    encode,
    get_serializer,
    pack_args,
)

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR = (PacketType(number) for number in range(5))

NESTED: List[Any] = [
    "up",
    {"file": b"\xde\xad", "meta": {"name": "x", "parts": [b"\x01", b"\x02\x03"]}},
    None,
    b"",
]
NESTED_TEXT = (
    '54-/chat,7["up",{"file":{"_placeholder":true,"num":0},"meta":{"name":"x","parts":[{"_placeholder":true,"num":1},'
    '{"_placeholder":true,"num":2}]}},null,{"_placeholder":true,"num":3}]'
)

#: Case 20: section 2.4 of the protocol reference, without the leading "4" of Engine.IO. Both ways.
GOLDEN = [
    (Packet(CONNECT), ["0"]),
    (Packet(CONNECT, "/", {}), ["0{}"]),
    (Packet(CONNECT, "/chat", {"token": "t"}), ['0/chat,{"token":"t"}']),
    (Packet(EVENT, "/", ["msg", {"a": 1}, "é"]), ['2["msg",{"a":1},"é"]']),
    (Packet(EVENT, "/chat", ["q"], 0), ['2/chat,0["q"]']),
    (Packet(ACK, "/chat", [], 0), ["3/chat,0[]"]),
    (Packet(ACK, "/", ["ok", 1], 12), ['312["ok",1]']),
    (Packet(DISCONNECT), ["1"]),
    (Packet(DISCONNECT, "/chat"), ["1/chat,"]),
    (Packet(EVENT, "/", [5, "x"]), ['2[5,"x"]']),
    (Packet(EVENT, "/chat", NESTED, 7), [NESTED_TEXT, b"\xde\xad", b"\x01", b"\x02\x03", b""]),
    (Packet(ACK, "/", [b"hi"], 7), ['61-7[{"_placeholder":true,"num":0}]', b"hi"]),
    (Packet(EVENT, "/", ["world", "abc", "Q7ztB3b"]), ['2["world","abc","Q7ztB3b"]']),
]

#: The same section: what only servers send.
RECEIVED = [
    ('0/chat,{"sid":"oSO0"}', Packet(CONNECT, "/chat", {"sid": "oSO0"})),
    ('0{"sid":"WXot","pid":"Gnfh"}', Packet(CONNECT, "/", {"sid": "WXot", "pid": "Gnfh"})),
    ('4/chat,{"message":"denied","data":{"code":42}}',
     Packet(CONNECT_ERROR, "/chat", {"message": "denied", "data": {"code": 42}})),
    ('4/nope,{"message":"Invalid namespace"}', Packet(CONNECT_ERROR, "/nope", {"message": "Invalid namespace"})),
    ('4/nope,"Unable to connect"', Packet(CONNECT_ERROR, "/nope", "Unable to connect")),
    ('2["msg","\\u00e9 \\ud83d\\ude00"]', Packet(EVENT, "/", ["msg", "é 😀"])),
]


def decode(messages: List[Any], **options: Any) -> Packet:
    decoder = Decoder(**options)
    for message in messages[:-1]:
        assert decoder.feed(message) is None
    packet = decoder.feed(messages[-1])
    assert packet is not None
    return packet


@pytest.mark.parametrize("packet, messages", GOLDEN, ids=lambda value: repr(value)[:40])
def test_golden_table_byte_for_byte_in_both_directions(packet: Packet, messages: List[Any]) -> None:
    assert encode(packet) == messages
    assert decode(messages) == packet


@pytest.mark.parametrize("text, packet", RECEIVED)
def test_what_servers_send(text: str, packet: Packet) -> None:
    assert decode([text]) == packet


#: Section 2.3. What the reference decoder refuses is refused here.
REFUSED = [
    "", "7", "a", 'a["x"]', "-1", "٢[\"a\"]",
    '50-["a"]', '5["a"]', "5x-", '5-["a"]', '51["a"]', '5١-["a"]', '51e0-["a"]', '5+1-["a"]', "5" + "9" * 5000 + "-",
    '511-["a"]',
    "2", '2"x"', "2{}", "2[]", "2[null]", "2[true]", "2[[]]", '2[{"a":1}]', "2/chat", "2/chat,", "25",
    "3", "31", '31"x"', "31{}", "31null",
    "0[]", '0["a"]', '0"x"',
    '21e3["a"]', '2abc["a"]', '2["a"', '2["a"]]', '2["a"]x', "2[NaN]", '2["a",NaN]', '2["a",Infinity]', "2['a']",
    '2["a",' + "[" * 100000, '2["a",' + "[" * 100000 + "]" * 100001, "2" + "1" * 5000 + '["a"]', "2/" + "a" * 5000,
]
REFUSED += ['2["%s"]' % name for name in sorted(RESERVED_EVENTS)]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_w40_structural_violations_are_parse_errors(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="^parse error: "):
        Decoder().feed(text)


@pytest.mark.parametrize("text, packet", [
    ('1/deny,{"message":"nope","data":{"code":7}}',
     Packet(DISCONNECT, "/deny", {"message": "nope", "data": {"code": 7}})),
    ("1/chat", Packet(DISCONNECT, "/chat")),
    ("0/chat", Packet(CONNECT, "/chat")),
    ("0", Packet(CONNECT)),
    ("4", Packet(CONNECT_ERROR)),
    ('4["a",1]', Packet(CONNECT_ERROR, "/", ["a", 1])),
    ('0{"sid":"s","new":[]}', Packet(CONNECT, "/", {"sid": "s", "new": []})),
    ('2/a?x=1,["e"]', Packet(EVENT, "/a", ["e"])),
    ('2 ["e"]', Packet(EVENT, "/", ["e"])),
    ('2["e"] ', Packet(EVENT, "/", ["e"])),
    ("2[1.5]", Packet(EVENT, "/", [1.5])),
    ('2["_placeholder",{"_placeholder":true,"num":9}]',
     Packet(EVENT, "/", ["_placeholder", {"_placeholder": True, "num": 9}])),
    ("07", Packet(CONNECT, "/", None, 7)),
    ("3007[]", Packet(ACK, "/", [], 7)),
])
def test_tolerances(text: str, packet: Packet) -> None:
    assert decode([text]) == packet


def test_placeholders_are_filled_by_index_and_may_repeat() -> None:
    text = '52-["e",{"_placeholder":true,"num":1},[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]]'
    assert decode([text, b"a", bytearray(b"b")]).data == ["e", b"b", [b"a", b"b"]]
    assert type(decode([text, bytearray(b"a"), memoryview(b"b")]).data[1]) is bytes


@pytest.mark.parametrize("index", ["1", "-1", "true", '"0"', "null", "0.5", "1e999", "{}"])
def test_w40_illegal_placeholders(index: str) -> None:
    decoder = Decoder()
    assert decoder.feed('51-["e",{"_placeholder":true,"num":%s}]' % index) is None if index != "1e999" else True
    if index != "1e999":
        with pytest.raises(RemoteProtocolError, match="illegal attachments"):
            decoder.feed(b"x")
    with pytest.raises(RemoteProtocolError):
        decode(['51-["e",{"_placeholder":true}]', b"x"])


def test_w40_text_among_attachments_and_bytes_without_a_header() -> None:
    decoder = Decoder()
    decoder.feed('52-["e",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]')
    decoder.feed(b"x")
    with pytest.raises(RemoteProtocolError, match="text where 1 more"):
        decoder.feed('2["a"]')
    with pytest.raises(RemoteProtocolError, match="no packet announced"):
        Decoder().feed(b"x")


def test_w24_more_attachments_than_the_limit_are_refused_locally_and_on_arrival() -> None:
    ten = Packet(EVENT, "/", ["e"] + [b"x"] * 10)
    eleven = Packet(EVENT, "/", ["e"] + [b"x"] * 11)
    assert len(encode(ten)) == 11
    with pytest.raises(InvalidArgument, match="11 binary values .* accepts 10; .*max_attachments"):
        encode(eleven)
    lifted = DefaultSerializer(max_attachments=11)
    messages = lifted.encode(eleven)
    decoder = lifted.Decoder()
    assert [decoder.feed(message) for message in messages][-1] == eleven
    with pytest.raises(RemoteProtocolError, match="too many attachments: 11"):
        Decoder().feed(messages[0])
    with pytest.raises(InvalidArgument, match="max_attachments"):
        DefaultSerializer(max_attachments=-1)


@pytest.mark.parametrize("name", sorted(RESERVED_EVENTS))
def test_w23_reserved_names_raise(name: str) -> None:
    with pytest.raises(ValueError, match="reserved"):
        check_event_name(name)
    with pytest.raises(ValueError, match="reserved"):
        encode(Packet(EVENT, "/", [name]))


def test_event_names() -> None:
    for good in ("", "message", "été", "*", 5):
        check_event_name(good)
    for bad in (None, True, 1.5, b"x", ["a"]):
        with pytest.raises(InvalidArgument, match="event name"):
            check_event_name(bad)


def test_namespaces() -> None:
    assert check_namespace(None) == check_namespace("") == "/"
    assert check_namespace("/chat/é") == "/chat/é"
    for bad in ("chat", "/a,b", "/a?x=1", "/a\x1eb", "/a\n", "/\ud800", 5):
        with pytest.raises(InvalidArgument, match="namespace"):
            check_namespace(bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="namespace"):
        encode(Packet(EVENT, "/a,b", ["e"]))


def test_arguments_and_answers() -> None:
    assert pack_args(None) == []
    assert pack_args((1, 2)) == [1, 2]
    assert pack_args(()) == []
    assert pack_args([1, 2]) == [[1, 2]]
    assert pack_args(0) == [0]
    assert ack_value([]) is None
    assert ack_value([0]) == 0
    assert ack_value([1, [2]]) == (1, [2])


class Color(IntEnum):
    RED = 1


def test_values_of_every_kind() -> None:
    data = ["e", None, True, False, 0, -1.5, 2**60, "\u001e\u2028\x00", [], {}, (1, (b"x",)), OrderedDict(a=1),
            Color.RED, {1: 2, None: 3}]
    header, attachment = encode(Packet(EVENT, "/", data))
    assert attachment == b"x"
    assert "\x1e" not in str(header)
    assert decode([header, attachment]).data == [
        "e", None, True, False, 0, -1.5, 2**60, "\u001e\u2028\x00", [], {}, [1, [b"x"]], {"a": 1}, 1,
        {"1": 2, "null": 3},
    ]


def test_half_a_surrogate_pair_is_escaped() -> None:
    text, attachment = encode(Packet(EVENT, "/", ["e", "é\ud800", b"x"]))
    assert text == '51-["e","\\u00e9\\ud800",{"_placeholder":true,"num":0}]'
    assert str(text).encode("utf-8")
    assert decode([text, attachment]).data == ["e", "é\ud800", b"x"]


def test_bytes_are_copied_when_they_are_encoded() -> None:
    buffer = bytearray(b"abc")
    messages = encode(Packet(EVENT, "/", ["e", buffer, memoryview(buffer)[::2]]))
    buffer[:] = b"xyz"
    assert messages[1:] == [b"abc", b"ac"]
    assert all(type(message) is bytes for message in messages[1:])


def circular() -> List[Any]:
    value: List[Any] = []
    value.append(value)
    return value


def deep(levels: int = 100000) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [
    float("nan"), float("inf"), {"a": [-float("inf")]}, {1, 2}, object(), {b"k": 1}, {(1, 2): 3}, [b"x", object()],
    [b"x", float("nan")], [b"x", {"_placeholder": True, "num": 0}],
])
def test_what_is_not_json_is_both_kinds_of_error(value: Any) -> None:
    packet = Packet(EVENT, "/", ["e", value])
    for kind in (TypeError, ValueError, NotSerializable):
        with pytest.raises(kind, match="cannot be sent"):
            encode(packet)


@pytest.mark.parametrize("make", [circular, deep])
def test_endless_and_bottomless_values(make: Any) -> None:
    value = make()
    for data in (["e", value], ["e", b"x", value]):
        with pytest.raises(NotSerializable):
            encode(Packet(EVENT, "/", data))
        with pytest.raises(NotSerializable):
            DefaultSerializer(json=JsonObject()).encode(Packet(EVENT, "/", data))
    del value[:]


def test_a_placeholder_like_text_or_key_is_no_placeholder() -> None:
    data = ["e", '"_placeholder":true', {"_placeholder": False}, {"_placeholder": [True]}, b"x"]
    assert decode(encode(Packet(EVENT, "/", data))).data == data
    alone = ["e", {"_placeholder": True, "num": 0}]
    assert decode(encode(Packet(EVENT, "/", alone))).data == alone


@pytest.mark.parametrize("packet, message", [
    (Packet(CONNECT, "/", {"token": b"t"}), "CONNECT data cannot hold bytes"),
    (Packet(CONNECT, "/", ["token"]), "auth must be a dict"),
    (Packet(CONNECT, "/", None, 1), "have an id"),
    (Packet(DISCONNECT, "/", {}), "no data"),
    (Packet(EVENT, "/", []), "begins with its name"),
    (Packet(EVENT, "/", "e"), "begins with its name"),
    (Packet(ACK, "/", [1]), "and an id"),
    (Packet(ACK, "/", 1, 1), "list of values"),
])
def test_packets_that_make_no_sense(packet: Packet, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        encode(packet)


def test_binary_types_given_by_hand_follow_the_data() -> None:
    assert encode(Packet(PacketType.BINARY_EVENT, "/", ["e"])) == ['2["e"]']
    assert encode(Packet(PacketType.BINARY_ACK, "/", [b"x"], 1)) == ['61-1[{"_placeholder":true,"num":0}]', b"x"]


def test_reprs_hide_what_connect_carries() -> None:
    assert "secret" not in repr(Packet(CONNECT, "/", {"token": "secret"}))
    assert repr(Packet(EVENT, "/chat", ["e"], 0)) == "Packet(EVENT, '/chat', ['e'], id=0)"
    assert Packet(CONNECT) != "0"


class JsonObject:
    """A JSON library in miniature; it counts its calls."""

    def __init__(self) -> None:
        self.calls: List[str] = []

    def dumps(self, value: Any, separators: Any = None) -> Any:
        self.calls.append("dumps")
        return json.dumps(value, separators=separators)

    def loads(self, text: str) -> Any:
        self.calls.append("loads")
        return json.loads(text)


class BytesJson:
    """Like orjson: no separators, bytes out."""

    def dumps(self, value: Any) -> Any:
        return json.dumps(value, separators=(",", ":")).encode("utf-8")

    loads = staticmethod(json.loads)


def test_w34_a_json_module_belongs_to_one_serializer() -> None:
    module = JsonObject()
    packet = Packet(EVENT, "/chat", NESTED, 7)
    for serializer in (DefaultSerializer(json=module), DefaultSerializer(json=BytesJson())):
        messages = serializer.encode(packet)
        assert messages == encode(packet)
        decoder = serializer.Decoder()
        assert [decoder.feed(message) for message in messages][-1] == packet
        with pytest.raises(NotSerializable):
            serializer.encode(Packet(EVENT, "/", ["e", float("nan")]))
    assert "loads" in module.calls
    before = len(module.calls)
    encode(packet)
    Decoder().feed('2["a"]')
    assert len(module.calls) == before
    assert DefaultSerializer(json=json).encode(packet) == messages


def test_the_walk_finds_what_the_encoder_finds() -> None:
    attachments: List[bytes] = []
    walked = deconstruct(NESTED, attachments)
    assert [NESTED_TEXT] + attachments == [
        "54-/chat,7" + json.dumps(walked, separators=(",", ":"))] + encode(Packet(EVENT, "/chat", NESTED, 7))[1:]


def test_get_serializer() -> None:
    assert isinstance(get_serializer(), DefaultSerializer)
    assert isinstance(get_serializer("default", json), DefaultSerializer)
    own = DefaultSerializer()
    assert get_serializer(own) is own
    for bad in ("pickle", 5, Packet):
        with pytest.raises(InvalidArgument, match="serializer"):
            get_serializer(bad)
