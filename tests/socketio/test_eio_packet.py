"""Engine.IO payloads, the handshake's contents and the heartbeat: pure."""

from __future__ import annotations

import json
import time
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.exceptions import RemoteProtocolError
from simplepubsub.socketio import heartbeat
from simplepubsub.socketio.eio_packet import (
    MAX_PACKETS,
    batch,
    decode_packet,
    decode_payload,
    encode_packet,
    parse_handshake,
    polling_size,
    websocket_size,
)
from simplepubsub.socketio.heartbeat import Heartbeat, awake_clock

PACKETS = st.lists(st.one_of(
    st.tuples(st.just("4"), st.text().filter(lambda text: "\x1e" not in text)),
    st.tuples(st.just("4"), st.binary()),
    st.tuples(st.sampled_from("12356"), st.just("")),
), min_size=1, max_size=60)


def test_the_example_of_the_reference() -> None:
    body, count = batch([("4", '2["a"]'), ("4", b"\x01\x02")], None)
    assert (body, count) == (bytes.fromhex("34 32 5b 22 61 22 5d 1e 62 41 51 49 3d"), 2)


def test_a_ping_between_header_and_attachment() -> None:
    body = b'451-["f",{"_placeholder":true,"num":0}]\x1e2\x1ebAQIDBA=='
    packets, fault = decode_payload(body)
    assert fault is None
    assert packets == [("4", '51-["f",{"_placeholder":true,"num":0}]'), ("2", ""), ("4", b"\x01\x02\x03\x04")]


def test_an_empty_body_and_an_empty_attachment() -> None:
    assert decode_payload(b"") == ([], None)
    assert decode_payload(b"b") == ([("4", b"")], None)
    assert encode_packet(("4", b"")) == "b"


@pytest.mark.parametrize("text", ["", "7", "a", "x1", "bA", "b*", "bé"])
def test_bad_packets(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_packet(text)


def test_what_comes_before_a_fault_counts() -> None:
    packets, fault = decode_payload(b"4a\x1e4b\x1e9\x1e4c")
    assert packets == [("4", "a"), ("4", "b")] and fault is not None
    assert decode_payload(b"4a\x1e\xff")[1] is not None


@given(PACKETS, st.one_of(st.none(), st.integers(min_value=1, max_value=200)))
def test_batches_keep_order_and_limits(packets: List[Any], limit: Any) -> None:
    if limit is not None:
        packets = [(kind, data) for kind, data in packets if len(encode_packet((kind, data)).encode()) <= limit]
    left, bodies = list(packets), []
    while left:
        body, count = batch(left, limit)
        assert 1 <= count <= MAX_PACKETS
        assert limit is None or len(body) <= limit
        bodies.append(body)
        left = left[count:]
    found: List[Any] = []
    for body in bodies:
        got, fault = decode_payload(body)
        assert fault is None
        found += got
    assert found == packets


@given(st.one_of(st.text(), st.binary()))
def test_sizes(data: Any) -> None:
    assert polling_size(data) == len(encode_packet(("4", data)).encode())
    assert websocket_size(data) == (len(data) if isinstance(data, bytes) else len(("4" + data).encode()))


def test_seventeen_packets_are_two_posts() -> None:
    body, count = batch([("4", str(index)) for index in range(17)], None)
    assert count == 16 and body.count(b"\x1e") == 15


def test_large_packets_travel_alone() -> None:
    assert batch([("4", "x" * 200000), ("4", "y" * 200000)], None)[1] == 1


# ---- the handshake --------------------------------------------------------------------------------------------------

FIELDS = {"sid": "abc", "upgrades": ["websocket"], "pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 1000000}


def test_the_open_packet_in_any_order() -> None:
    for fields in (FIELDS, dict(reversed(list(FIELDS.items())))):
        assert parse_handshake(("0", json.dumps(fields))) == ("abc", ["websocket"], 25.0, 20.0, 1000000)


def test_what_may_be_absent() -> None:
    fields = {name: value for name, value in FIELDS.items() if name not in ("upgrades", "maxPayload")}
    found = parse_handshake(("0", json.dumps(fields)))
    assert found.upgrades == [] and found.max_payload is None
    assert "abc" not in repr(found)


@pytest.mark.parametrize("packet", [
    ("4", "x"), ("0", b"x"), ("0", ""), ("0", "[]"), ("0", "{}"), ("0", "null"), ("6", ""),
    ("0", json.dumps({**FIELDS, "sid": ""})), ("0", json.dumps({**FIELDS, "sid": 5})),
    ("0", json.dumps({**FIELDS, "pingInterval": None})), ("0", json.dumps({**FIELDS, "pingTimeout": 0})),
    ("0", json.dumps({**FIELDS, "pingTimeout": True})), ("0", json.dumps({**FIELDS, "pingInterval": "1"})),
    ("0", json.dumps({**FIELDS, "maxPayload": -1})),
])
def test_bad_open_packets(packet: Any) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_handshake(packet)
    assert "abc" not in str(caught.value)


# ---- the heartbeat --------------------------------------------------------------------------------------------------


def test_the_heartbeat() -> None:
    now = [100.0]
    beat = Heartbeat(25, 20, lambda: now[0])
    assert beat.remaining() == 45 and not beat.expired()
    now[0] += 40
    beat.heard()
    now[0] += 44
    assert beat.remaining() == 1 and not beat.expired()
    now[0] += 3600  # the machine slept
    assert beat.remaining() == 0 and beat.expired()


def test_the_clock_that_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    first = awake_clock()
    assert awake_clock() >= first

    def refuse(number: int) -> float:
        raise OSError("not here")

    monkeypatch.setattr(time, "clock_gettime", refuse, raising=False)
    assert heartbeat._boot_time() is None
