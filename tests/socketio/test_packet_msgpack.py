"""The msgpack serializer (section 2.13), with the library and without it."""

from __future__ import annotations

import datetime
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.exceptions import InvalidArgument, RemoteProtocolError
from simplepubsub.socketio.packet import NotSerializable, Packet, PacketType, get_serializer
from tests import peers

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR = (PacketType(number) for number in range(5))


@pytest.fixture(scope="module")
def msgpack() -> Any:
    return peers.require("msgpack", "the msgpack serializer needs it")


@pytest.fixture(scope="module")
def serializer(msgpack: Any) -> Any:
    return get_serializer("msgpack")


def test_without_the_library_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(ImportError, match=r"pip install 'simplepubsub\[msgpack\]'"):
        get_serializer("msgpack")


@pytest.mark.parametrize("packet, fields", [
    (Packet(EVENT, "/", ["e", b"\x00", {"a": [1, None]}]),
     {"type": 2, "nsp": "/", "data": ["e", b"\x00", {"a": [1, None]}]}),
    (Packet(EVENT, "/chat", ["e"], 0), {"type": 2, "nsp": "/chat", "data": ["e"], "id": 0}),
    (Packet(ACK, "/", [b"x"], 3), {"type": 3, "nsp": "/", "data": [b"x"], "id": 3}),
    (Packet(CONNECT), {"type": 0, "nsp": "/"}),
    (Packet(CONNECT, "/", {"token": "t"}), {"type": 0, "nsp": "/", "data": {"token": "t"}}),
    (Packet(DISCONNECT, "/chat"), {"type": 1, "nsp": "/chat"}),
])
def test_packets_are_maps(msgpack: Any, serializer: Any, packet: Packet, fields: Any) -> None:
    (message,) = serializer.encode(packet)
    assert type(message) is bytes
    assert msgpack.unpackb(message) == fields  # W36: no "data" where there is none
    assert serializer.Decoder().feed(message) == packet


def test_w36_disconnect_has_no_data_key(serializer: Any) -> None:
    assert serializer.encode(Packet(DISCONNECT)) == [b"\x82\xa4type\x01\xa3nsp\xa1/"]


def test_undefined_and_dates_of_javascript(msgpack: Any, serializer: Any) -> None:
    undefined = msgpack.ExtType(0, b"\x00")
    date = msgpack.ExtType(0, (1_500_000_000_250).to_bytes(8, "big"))
    decoder = serializer.Decoder()
    answer = msgpack.packb({"type": 0, "nsp": "/", "data": {"sid": "s", "pid": undefined}, "id": undefined})
    assert decoder.feed(answer) == Packet(CONNECT, "/", {"sid": "s"})
    event = decoder.feed(msgpack.packb({"type": 2, "nsp": "/", "data": ["e", undefined, [undefined], date]}))
    moment = datetime.datetime(2017, 7, 14, 2, 40, 0, 250000, tzinfo=datetime.timezone.utc)
    assert event.data == ["e", None, [None], moment]
    other = decoder.feed(msgpack.packb({"type": 2, "nsp": "/", "data": ["e", msgpack.ExtType(9, b"x")]}))
    assert other.data == ["e", msgpack.ExtType(9, b"x")]


def test_a_disconnect_with_nil_is_tolerated(msgpack: Any, serializer: Any) -> None:
    message = msgpack.packb({"type": 1, "nsp": "/", "data": None, "id": None})
    assert serializer.Decoder().feed(message) == Packet(DISCONNECT)


BAD = [
    {"type": 5, "nsp": "/", "data": ["e"]}, {"type": True, "nsp": "/"}, {"type": "2", "nsp": "/"}, {"nsp": "/"},
    {"type": 2, "data": ["e"]}, {"type": 2, "nsp": "chat", "data": ["e"]}, {"type": 2, "nsp": "/", "data": []},
    {"type": 2, "nsp": "/", "data": ["connect"]}, {"type": 2, "nsp": "/"}, {"type": 3, "nsp": "/", "data": {}, "id": 1},
    {"type": 3, "nsp": "/", "data": [], "id": -1}, {"type": 3, "nsp": "/", "data": [], "id": "1"},
    {"type": 0, "nsp": "/", "data": []}, [2, "/"], 5, None,
]


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_w40_bad_maps(msgpack: Any, serializer: Any, value: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="^parse error"):
        serializer.Decoder().feed(msgpack.packb(value))


def test_text_says_what_is_wrong(serializer: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="does the server use it"):
        serializer.Decoder().feed('0{"sid":"s"}')


@pytest.mark.parametrize("message", [
    b"", b"\xc1", b"\x81", b"\xc0\xc0", b"\x81\x90\x01", b"\x81\xa1\xff\x01", b"\x91" * 5000 + b"\xc0",
    b"\xd7\x00\x7f" + b"\xff" * 7, b"\xd6\xff\x00\x00\x00\x00", b"\xc7\x0c\xff" + b"\xff" * 12,
])
def test_broken_msgpack(serializer: Any, message: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="^parse error"):
        serializer.Decoder().feed(message)


@pytest.mark.parametrize("value", [2**64, object(), {1, 2}, ["\ud800"]])
def test_what_msgpack_cannot_hold(serializer: Any, value: Any) -> None:
    with pytest.raises(NotSerializable, match="cannot be sent"):
        serializer.encode(Packet(EVENT, "/", ["e", value]))


def test_the_same_local_checks(serializer: Any) -> None:
    for packet in (Packet(EVENT, "/", ["connect"]), Packet(EVENT, "/a,b", ["e"]), Packet(CONNECT, "/", ["x"])):
        with pytest.raises(InvalidArgument):
            serializer.encode(packet)


@given(message=st.binary(max_size=60))
def test_any_bytes_are_a_packet_or_a_parse_error(serializer: Any, message: bytes) -> None:
    try:
        assert isinstance(serializer.Decoder().feed(message), Packet)
    except RemoteProtocolError as error:
        assert str(error).startswith("parse error: ")
