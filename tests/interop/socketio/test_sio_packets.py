"""Packets (cases 20-28 of the protocol reference, section 6.2), against the real servers.

Proved without them in ``tests/socketio``:

==== ===============================================================================================================
case test
==== ===============================================================================================================
20   test_packet.py::test_golden_table_byte_for_byte_in_both_directions
25   test_packet.py::test_w40_structural_violations_are_parse_errors
25   test_manager_life.py::test_w40_a_malformed_packet_is_a_parse_error_and_what_came_before_it_counts
26   test_eio_packet.py::test_a_ping_between_header_and_attachment
==== ===============================================================================================================
"""

from __future__ import annotations

from typing import Any

import pytest

from simplepubsub.exceptions import InvalidArgument
from tests.helpers import wait_until
from tests.interop.socketio.play import EVERY_LEG, join, listen

pytestmark = pytest.mark.interop

NESTED = {"file": b"\xde\xad", "meta": {"name": "x", "parts": [b"\x01", b"", [b"\x02\x03", None]]}}


@pytest.mark.parametrize("kind, leg", EVERY_LEG)
def test_case_21_nested_binary(peer: Any, leg: str, client: Any) -> None:
    sio = client()
    recorder = listen(sio)
    join(sio, peer, leg)
    assert sio.call("echo", (NESTED, None, b"")) == (NESTED, None, b"")
    sio.emit("say", ("back", NESTED, b""))
    assert recorder.wait_event("back") == [NESTED, b""]
    got = []
    sio.emit("echo", NESTED, callback=lambda *values: got.append(values))
    wait_until(lambda: got, 15)
    assert got == [(NESTED,)]
    sio.on("question", lambda *args: args)
    sio.emit("want", ("question", NESTED, b""))
    assert peer.wait_log("answer", to="question")[0]["values"] == [NESTED, b""]


def test_case_22_many_attachments(peer: Any, leg: str, client: Any) -> None:
    ten, eleven = [[bytes([i]) for i in range(count)] for count in (10, 11)]
    sio = client()
    recorder = listen(sio)
    join(sio, peer, leg)
    assert sio.call("echo", ten) == ten
    with pytest.raises(InvalidArgument, match="attachments"):
        sio.emit("echo", eleven)
    assert sio.call("echo", "sound") == "sound"
    assert recorder.payloads("disconnect") == []
    if not peer.node:
        lifted = join(client(max_attachments=50), peer, leg)
        assert lifted.call("echo", eleven) == eleven


TEXTS = ["é", "\U0001f600 astral", "sep\u001earator", "\u2028\u2029", "\x00\x7f", '"quoted\\"', "5-[",
         "combining e\u0301"]


def test_case_23_unicode(peer: Any, leg: str, client: Any) -> None:
    sio = client()
    recorder = listen(sio)
    join(sio, peer, leg)
    assert sio.call("echo", tuple(TEXTS)) == tuple(TEXTS)
    for text in TEXTS:
        sio.emit("say", (text, {text: text}))
    recorder.wait_for(1 + len(TEXTS), 15)
    assert recorder.events[1:] == [(text, [{text: text}]) for text in TEXTS]


DATA = [
    (None, []), ((), []), ((1,), [1]), ((None,), [None]), ((1, "2", [3]), [1, "2", [3]]), ([1, 2], [[1, 2]]),
    ([], [[]]), ({}, [{}]), (0, [0]), (False, [False]), (1.5, [1.5]), ("", [""]), (b"", [b""]),
    (bytearray(b"ab"), [b"ab"]), (memoryview(b"cd"), [b"cd"]), ({"a": (1, (2,))}, [{"a": [1, [2]]}]),
    (-(2**53), [-(2**53)]),
]


def test_case_24_how_data_becomes_arguments(peer: Any, client: Any) -> None:
    sio = join(client(), peer)
    for data, args in DATA:
        expected = None if not args else args[0] if len(args) == 1 else tuple(args)
        assert sio.call("echo", data) == expected, data


@pytest.mark.parametrize("kind", ["node"])
def test_case_24_numbers_as_names(peer: Any, leg: str, client: Any) -> None:
    sio = client()
    recorder = listen(sio)
    join(sio, peer, leg)
    sio.emit("say", (5, "x"))
    assert recorder.wait_event("5") == ["x"]


RESERVED = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]


def test_case_27_reserved_names(peer: Any, client: Any) -> None:
    sio = client()
    recorder = listen(sio)
    join(sio, peer)
    for name in RESERVED:
        with pytest.raises(ValueError, match=name):
            sio.emit(name, 1)
    assert sio.call("echo", 1) == 1
    assert recorder.payloads("disconnect") == [] and peer.log_now("event", sid=sio.sid) == []


@pytest.mark.parametrize("kind, options", [
    ("node", {"parser": "msgpack"}), ("threading", {"opts": {"serializer": "msgpack"}}),
    ("asgi", {"opts": {"serializer": "msgpack"}})])
def test_case_28_msgpack(serve: Any, kind: str, options: Any, leg: str, client: Any) -> None:
    peer = serve(kind, **options)
    sio = client(serializer="msgpack")
    recorder = listen(sio, ["/", "/chat"])
    join(sio, peer, leg, auth={"token": "t"})
    assert sio.call("echo", (NESTED, "é", None, 1.5)) == (NESTED, "é", None, 1.5)
    assert sio.call("echo", b"chat", namespace="/chat") == b"chat"
    sio.emit("burstbin", 20)
    assert [args[0] for args in recorder.wait_for(20, 15, name="b")] == list(range(20))
    eleven = [bytes([i]) for i in range(11)]
    assert sio.call("echo", eleven) == eleven  # there are no attachments
    sid = sio.sid
    sio.disconnect()
    (left,) = peer.wait_log("disconnect", sid=sid)
    assert left["reason"] == ("client namespace disconnect" if kind == "node" else "client disconnect")
