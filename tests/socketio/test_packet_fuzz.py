"""The packet codec against anything: what is encoded comes back, and arbitrary input is a packet or one typed error."""

from __future__ import annotations

import json
from typing import Any, List, Optional

from hypothesis import example, given
from hypothesis import strategies as st

from simplepubsub.exceptions import RemoteProtocolError
from simplepubsub.socketio.binary import deconstruct, reconstruct
from simplepubsub.socketio.packet import RESERVED_EVENTS, Decoder, DefaultSerializer, Packet, PacketType

LOOSE = DefaultSerializer(max_attachments=1000)

texts = st.text(st.characters())  # half surrogate pairs included
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-2**63, 2**64), st.floats(allow_nan=False, allow_infinity=False), texts,
    st.binary(max_size=40),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(texts.filter(lambda key: key != "_placeholder"), inner, max_size=4),
    ),
    max_leaves=25,
)
namespaces = st.one_of(
    st.just("/"), st.from_regex(r"/[^,?\x00-\x1f\x7f\ud800-\udfff]{0,12}", fullmatch=True))
names = st.one_of(texts.filter(lambda name: name not in RESERVED_EVENTS), st.integers(-1000, 1000))
ids = st.integers(0, 2**53)
events = st.builds(
    lambda nsp, name, args, number: Packet(PacketType.EVENT, nsp, [name] + args, number),
    namespaces, names, st.lists(values, max_size=4), st.one_of(st.none(), ids),
)
acks = st.builds(lambda nsp, args, number: Packet(PacketType.ACK, nsp, args, number), namespaces,
                 st.lists(values, max_size=4), ids)
plain = values.map(lambda value: deconstruct(value, []))
connects = st.builds(lambda nsp, data: Packet(PacketType.CONNECT, nsp, data), namespaces,
                     st.one_of(st.none(), st.dictionaries(texts, plain, max_size=3)))
packets = st.one_of(events, acks, connects)


@given(st.lists(packets, min_size=1, max_size=4))
def test_packets_of_one_connection_come_back(sent: List[Packet]) -> None:
    decoder = LOOSE.Decoder()
    received: List[Optional[Packet]] = []
    for packet in sent:
        messages = LOOSE.encode(packet)
        for message in messages:
            if isinstance(message, str):
                assert "\x1e" not in message
                message.encode("utf-8")
        answers = [decoder.feed(message) for message in messages]
        assert answers[:-1] == [None] * (len(messages) - 1)
        received.append(answers[-1])
    assert received == sent


@given(values)
def test_the_walk_and_the_encoder_agree(value: Any) -> None:
    attachments: List[bytes] = []
    walked = deconstruct(value, attachments)
    messages = LOOSE.encode(Packet(PacketType.ACK, "/", [value], 1))
    text = str(messages[0])
    assert json.loads(text[text.index("["):]) == [json.loads(json.dumps(walked))]
    assert messages[1:] == attachments
    assert reconstruct(walked, attachments) == value


def feed_all(messages: List[Any]) -> None:
    decoder = Decoder()
    try:
        for message in messages:
            packet = decoder.feed(message)
            if packet is not None:
                assert packet.namespace.startswith("/")
                assert packet.type <= PacketType.CONNECT_ERROR
                assert packet.id is None or packet.id >= 0
    except RemoteProtocolError as error:
        assert str(error).startswith("parse error: ")


def mutate(text: str, position: int, piece: str) -> str:
    position %= len(text) + 1
    return text[:position] + piece + text[position + 1:]


mutants = st.builds(
    lambda packet, position, piece: mutate(str(LOOSE.encode(packet)[0]), position, piece),
    packets,
    st.integers(0, 10**6),
    st.one_of(st.text(max_size=2), st.sampled_from(["0", "-", ",", "/", "[", "}", '"'])),
)


@given(st.lists(st.one_of(st.text(), st.binary(), mutants), max_size=6))
@example(["2" + "[" * 100000])
@example(['2["a",' + "9" * 10000 + "]"])
@example(['51-[{"_placeholder":true,"num":1e400}]'])
@example(['51-["a",{"_placeholder":true,"num":NaN}]', b""])
@example(['51-["a"]', b"", b""])
def test_anything_is_a_packet_or_a_parse_error(messages: List[Any]) -> None:
    feed_all(messages)


@given(st.from_regex(r"[0-9a]([0-9]{1,2}-)?(/[a-z?]{0,3},?)?[0-9]{0,3}([\[{\"][ -~]{0,12}[\]}\"])?", fullmatch=True),
       st.lists(st.binary(max_size=3), max_size=3))
def test_nearly_right_headers(text: str, attachments: List[bytes]) -> None:
    feed_all([text] + attachments)
