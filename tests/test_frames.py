"""RFC 6455 framing: one table read as bytes -> frames and as frames -> bytes; every cut, honest and hostile."""

from __future__ import annotations

import struct
import time
import tracemalloc
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simplepubsub.exceptions import RemoteProtocolError
from simplepubsub.transports import frames as frames_module
from simplepubsub.transports.frames import (
    BINARY,
    CLOSE,
    CONT,
    MAX_CONTROL_PAYLOAD,
    PING,
    PONG,
    TEXT,
    Frame,
    FrameParser,
    apply_mask,
    close_payload,
    encode_frame,
    encode_frames,
    parse_close,
)
from tests import peers
from tests.helpers import make_frame, scaled

KEY = bytes.fromhex("37fa213d")  # the masking key of the examples in RFC 6455 section 5.7


class Result(NamedTuple):
    """What a parser made of some bytes."""

    frames: List[Frame]
    fault: Optional[Tuple[int, str]]


def parse(pieces: Any, masked: bool = False, max_size: Optional[int] = None) -> Result:
    """Feed pieces to a new parser."""
    parser = FrameParser(masked=masked, max_size=max_size)
    frames: List[Frame] = []
    for piece in [pieces] if isinstance(pieces, bytes) else pieces:
        frames += parser.feed(piece)
    fault = parser.violation
    return Result(frames, None if fault is None else (fault.code, str(fault)))


def single(data: bytes) -> Iterator[bytes]:
    """Cut into single bytes."""
    return (data[i : i + 1] for i in range(len(data)))


def cut(data: bytes, places: List[int]) -> List[bytes]:
    """Cut at the given places, which may repeat or lie outside."""
    edges = [0] + sorted(min(place, len(data)) for place in places) + [len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:])]


def reference(data: bytes) -> List[Tuple[bool, int, Optional[bytes], bytes]]:
    """Read well-formed frames the slow and obvious way: (fin, opcode, key, payload)."""
    frames = []
    while data:
        fin, opcode, masked, size = data[0] >> 7, data[0] & 0x7F, data[1] >> 7, data[1] & 0x7F
        width = {126: 2, 127: 8}.get(size, 0)
        size, data = int.from_bytes(data[2 : 2 + width], "big") if width else size, data[2 + width :]
        key, data = (data[:4], data[4:]) if masked else (None, data)
        payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(data[:size])) if key else data[:size]
        assert len(payload) == size
        frames.append((bool(fin), opcode, key, payload))
        data = data[size:]
    return frames


# ---- the table ------------------------------------------------------------------------------------------------------

#: What a frame is, and its bytes from a server (no mask) and from a client (masked with KEY).
TABLE = [
    ("text", (TEXT, "Hello"), "810548656c6c6f", "818537fa213d7f9f4d5158"),
    ("text of no length", (TEXT, ""), "8100", "818037fa213d"),
    ("text beyond ASCII", (TEXT, "ä€\U0001f600"), "8109c3a4e282acf09f9880", "818937fa213df45ec3bf9b0abea5b7"),
    ("ping", (PING, b"Hello"), "890548656c6c6f", "898537fa213d7f9f4d5158"),
    ("pong", (PONG, b"Hello"), "8a0548656c6c6f", "8a8537fa213d7f9f4d5158"),
    ("empty close", (CLOSE, b""), "8800", "888037fa213d"),
    ("close", (CLOSE, b"\x03\xe8"), "880203e8", "888237fa213d3412"),
    ("binary", (BINARY, b"\x00\xff"), "820200ff", "828237fa213d3705"),
    ("longest in the 7-bit form", (BINARY, bytes(125)), "827d" + "00" * 125, "82fd" + "37fa213d" * 32 + "37"),
    ("shortest in the 16-bit form", (BINARY, bytes(126)), "827e007e" + "00" * 126,
     "82fe007e" + "37fa213d" * 32 + "37fa"),
    ("longest in the 16-bit form", (BINARY, bytes(65535)), "827effff" + "00" * 65535,
     "82feffff" + "37fa213d" * 16384 + "37fa21"),
    ("shortest in the 64-bit form", (BINARY, bytes(65536)), "827f0000000000010000" + "00" * 65536,
     "82ff0000000000010000" + "37fa213d" * 16385),
]
NAMES = [row[0] for row in TABLE]
ROWS = [row[1:] for row in TABLE]


@pytest.mark.parametrize("frame, plain, masked", ROWS, ids=NAMES)
def test_frames_become_these_bytes(frame: Frame, plain: str, masked: str) -> None:
    assert encode_frame(*frame).hex() == plain
    assert encode_frame(frame[0], frame[1], KEY).hex() == masked
    assert encode_frames([frame], masked=False).hex() == plain


@pytest.mark.parametrize("frame, plain, masked", ROWS, ids=NAMES)
def test_these_bytes_become_frames_whole_and_byte_by_byte(frame: Frame, plain: str, masked: str) -> None:
    for data, from_client in ((bytes.fromhex(plain), False), (bytes.fromhex(masked), True)):
        assert parse(data, from_client) == ([frame], None)
        assert parse(single(data), from_client) == ([frame], None)


@pytest.mark.parametrize("frame, plain, masked", ROWS, ids=NAMES)
def test_a_frame_masked_by_the_wrong_side_is_refused_at_its_second_byte(frame: Frame, plain: str, masked: str) -> None:
    assert parse(bytes.fromhex(plain)[:2], masked=True) == ([], (1002, "frame not masked"))
    assert parse(bytes.fromhex(masked)[:2], masked=False) == ([], (1002, "frame masked"))


def test_a_fragment_is_encoded_without_the_final_bit() -> None:
    assert encode_frame(TEXT, "Hel", fin=False) + encode_frame(CONT, "lo") == bytes.fromhex("010348656c80026c6f")
    assert parse(bytes.fromhex("010348656c80026c6f")) == ([(TEXT, "Hello")], None)


def test_a_table_of_frames_in_one_batch_comes_back_in_order() -> None:
    frames = [row[0] for row in ROWS]
    assert parse(encode_frames(frames, masked=True), masked=True) == (frames, None)
    assert parse(encode_frames(iter(frames), masked=True), masked=True) == (frames, None)
    assert encode_frames([], masked=True) == b"" == encode_frames([], masked=False)


# ---- masks ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_is_the_byte_wise_xor_and_its_own_inverse(data: bytes, key: bytes) -> None:
    masked = apply_mask(data, key)
    assert masked == bytes(byte ^ key[i % 4] for i, byte in enumerate(data))
    assert apply_mask(masked, key) == data


def test_every_frame_of_a_batch_has_a_key_of_its_own_and_every_batch_has_others() -> None:
    batch: List[Frame] = [(TEXT, "same")] * 50
    keys = [key for n in range(2) for _, _, key, _ in reference(encode_frames(batch, masked=True))]
    assert len(keys) == 100
    assert len(set(keys)) >= 99  # two equal ones of 100 random ones: once in a million runs


# ---- messages in any cut --------------------------------------------------------------------------------------------

texts = st.text(max_size=40)
payloads = st.binary(max_size=40) | st.integers(120, 140).map(bytes) | st.sampled_from([65535, 65536]).map(bytes)
controls = st.tuples(st.sampled_from([PING, PONG, CLOSE]), st.binary(max_size=MAX_CONTROL_PAYLOAD))
messages = st.tuples(st.just(TEXT), texts) | st.tuples(st.just(BINARY), payloads)
cuts = st.lists(st.integers(0, 300), max_size=12)


@st.composite
def streams(draw: Any) -> Tuple[bytes, bool, List[Frame]]:
    """Return bytes, whether they are a client's, and the frames that they are: fragmented, control frames between."""
    masked = draw(st.booleans())
    data, frames = b"", []

    def add(opcode: int, payload: bytes, fin: bool = True) -> bytes:
        return make_frame(opcode, payload, fin=fin, mask=draw(st.binary(min_size=4, max_size=4)) if masked else None)

    for opcode, payload in draw(st.lists(messages | controls, max_size=6)):
        if opcode >= CLOSE:
            data += add(opcode, payload)
            frames.append((opcode, payload))
            continue
        raw = payload.encode() if isinstance(payload, str) else payload
        pieces = cut(raw, draw(st.lists(st.integers(0, len(raw)), max_size=4)))  # UTF-8 is cut anywhere
        for n, piece in enumerate(pieces):
            data += add(CONT if n else opcode, piece, fin=n == len(pieces) - 1)
            if n < len(pieces) - 1:
                for control in draw(st.lists(controls, max_size=2)):
                    data += add(*control)
                    frames.append(control)
        frames.append((opcode, payload))
    return data, masked, frames


@given(streams(), cuts)
def test_messages_survive_fragmentation_and_any_cut(stream: Tuple[bytes, bool, List[Frame]], places: List[int]) -> None:
    data, masked, frames = stream
    assert parse(data, masked) == (frames, None)
    assert parse(cut(data, places), masked) == (frames, None)
    if len(data) < 2000:
        assert parse(single(data), masked) == (frames, None)


@given(st.lists(messages | controls, max_size=6), st.booleans())
def test_a_batch_is_what_an_obvious_reader_reads(frames: List[Frame], masked: bool) -> None:
    seen = reference(encode_frames(frames, masked))
    assert [(opcode, payload) for _, opcode, _, payload in seen] == [
        (opcode, payload.encode() if isinstance(payload, str) else payload) for opcode, payload in frames
    ]
    assert all(fin and (key is not None) == masked for fin, _, key, _ in seen)


def test_each_frame_is_handed_over_as_soon_as_its_last_byte_is_there() -> None:
    parser = FrameParser(masked=False)
    data = make_frame(TEXT, b"one") + make_frame(BINARY, b"two")
    seen = [len(parser.feed(piece)) for piece in single(data)]
    assert [n for n, count in enumerate(seen) if count] == [4, 9]
    assert parser.feed(b"") == []


def test_a_large_message_in_small_cuts_takes_linear_time() -> None:
    data = make_frame(BINARY, bytes(2**21))
    began = time.monotonic()
    assert parse([data[i : i + 64] for i in range(0, len(data), 64)]).frames == [(BINARY, bytes(2**21))]
    assert time.monotonic() - began < scaled(3)  # 20 ms; joining at every piece copies 34 GB


# ---- UTF-8 ----------------------------------------------------------------------------------------------------------

SAMPLE = "a\u00e9\u20ac\U0001f600\U0010ffff\ufeffz"


@pytest.mark.parametrize("place", range(len(SAMPLE.encode()) + 1))
def test_text_may_be_cut_inside_a_character(place: int) -> None:
    raw = SAMPLE.encode()
    data = make_frame(TEXT, raw[:place], fin=False) + make_frame(PING, b"") + make_frame(CONT, raw[place:])
    assert parse(data) == ([(PING, b""), (TEXT, SAMPLE)], None)


NOT_UTF8 = {
    "a lone continuation byte": b"\x80",
    "a character without its end": b"abc\xe2\x82",
    "an overlong slash": b"\xc0\xaf",
    "an overlong NUL of three bytes": b"\xe0\x80\x80",
    "a surrogate": b"\xed\xa0\x80",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "a byte that UTF-8 never has": b"ok\xff",
    "Latin-1": "é".encode("latin-1") + b"t",
}


@pytest.mark.parametrize("raw", NOT_UTF8.values(), ids=list(NOT_UTF8))
def test_text_that_is_not_utf8_is_a_fault_of_the_data_however_it_is_cut(raw: bytes) -> None:
    fault = (1007, "text message that is not UTF-8")
    assert parse(make_frame(TEXT, raw)) == ([], fault)
    for place in range(len(raw) + 1):
        fragments = make_frame(TEXT, raw[:place], fin=False) + make_frame(CONT, raw[place:])
        assert parse(fragments) == ([], fault)
        assert parse(single(fragments)) == ([], fault)
    assert parse(make_frame(BINARY, raw)) == ([(BINARY, raw)], None)


def test_text_that_cannot_become_utf8_any_more_fails_before_its_last_fragment() -> None:
    assert parse(make_frame(TEXT, b"good\xff", fin=False)).fault == (1007, "text message that is not UTF-8")
    assert parse(make_frame(TEXT, b"half\xe2", fin=False)).fault is None


# ---- faults ---------------------------------------------------------------------------------------------------------

HUGE = 2**63

#: Name, the bytes up to the one that decides, the close code, and a word of the message.
FAULTS = [
    ("the first reserved bit", "c1", "00", 1002, "reserved bits"),
    ("the second reserved bit", "a2", "00", 1002, "reserved bits"),
    ("the third reserved bit on a ping", "99", "00", 1002, "reserved bits"),
    ("opcode 3", "83", "00", 1002, "unknown opcode 0x3"),
    ("opcode 7", "87", "00", 1002, "unknown opcode 0x7"),
    ("opcode 11", "8b", "00", 1002, "unknown opcode 0xB"),
    ("opcode 15", "8f", "00", 1002, "unknown opcode 0xF"),
    ("a ping in two parts", "09", "00", 1002, "fragmented control frame"),
    ("a close in two parts", "08", "00", 1002, "fragmented control frame"),
    ("a ping of 126 bytes", "89", "7e007e", 1002, "control frame over 125 bytes"),
    ("a pong in the 64-bit form", "8a", "7f0000000000000001", 1002, "control frame over 125 bytes"),
    ("an end without a beginning", "80", "00", 1002, "continuation frame without"),
    ("a middle without a beginning", "00", "00", 1002, "continuation frame without"),
    ("a text inside a text", "0101" "61" "81", "00", 1002, "new message inside"),
    ("a binary inside a text", "0101" "61" "82", "00", 1002, "new message inside"),
    ("a text part inside a binary", "0201" "61" "01", "00", 1002, "new message inside"),
    ("a text longer than the limit", "81", "7e0401", 1009, "1025 bytes, the limit is 1024"),
    ("a binary longer than the limit", "82", "7f0000000100000000", 1009, "4294967296 bytes"),
    ("a part longer than the limit", "02", "7e0401", 1009, "1025 bytes, the limit is 1024"),
    ("a length with the highest bit", "82", "7f8000000000000000", 1002, "highest bit"),
    ("a text length with the highest bit", "81", "7f8000000000000000", 1002, "highest bit"),
    ("a part's length with the highest bit", "0101" "61" "80", "7fffffffffffffffff", 1002, "highest bit"),
]


@pytest.mark.parametrize("head, rest, code, words", [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_fault_is_found_at_the_byte_that_shows_it_and_ends_everything(
    head: str, rest: str, code: int, words: str
) -> None:
    before, after = make_frame(TEXT, b"before"), make_frame(TEXT, b"after")
    data = bytes.fromhex(head + rest)
    for pieces in ([before + data], single(before + data)):
        frames, fault = parse(pieces, max_size=1024)
        assert frames == [(TEXT, "before")]
        assert fault is not None and fault[0] == code and words in fault[1]
    # One byte earlier nothing is wrong yet.
    assert parse(before + data[:-1], max_size=1024) == ([(TEXT, "before")], None)
    parser = FrameParser(masked=False, max_size=1024)
    parser.feed(data)
    first = parser.violation
    assert parser.feed(after) == [] and parser.violation is first is not None


def test_a_length_with_the_highest_bit_is_refused_without_a_limit_too() -> None:
    # A whole text message used to be looked at only when there was a limit: the parser then waited for 2**63 bytes.
    for opcode in (TEXT, BINARY):
        assert parse(make_frame(opcode, length=HUGE)).fault == (1002, "frame length with the highest bit set")
        assert parse(make_frame(opcode, length=HUGE - 1)) == ([], None)


# ---- the size limit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("masked", [True, False])
def test_a_message_of_the_limit_passes_and_one_byte_more_does_not(opcode: int, masked: bool) -> None:
    mask = KEY if masked else None
    fits = parse(make_frame(opcode, b"x" * 1000, mask=mask) * 2, masked, max_size=1000)
    assert [len(payload) for _, payload in fits.frames] == [1000, 1000] and fits.fault is None
    over = parse(make_frame(opcode, b"x" * 1001, mask=mask), masked, max_size=1000)
    assert over == ([], (1009, "message of at least 1001 bytes, the limit is 1000"))


def test_the_limit_counts_all_fragments_of_a_message_and_no_control_frame() -> None:
    part, ping = make_frame(CONT, b"x" * 400, fin=False), make_frame(PING, b"y" * 125)
    data = make_frame(TEXT, b"x" * 400, fin=False) + ping + part + ping
    fits = parse(data + make_frame(CONT, b"x" * 200) + make_frame(TEXT, b"next"), max_size=1000)
    assert fits == ([(PING, b"y" * 125)] * 2 + [(TEXT, "x" * 1000), (TEXT, "next")], None)
    over = parse(data + make_frame(CONT, length=201), max_size=1000)
    assert over.fault == (1009, "message of at least 1001 bytes, the limit is 1000")


def test_the_limit_is_in_bytes_not_in_characters() -> None:
    assert parse(make_frame(TEXT, ("é" * 5).encode()), max_size=10) == ([(TEXT, "é" * 5)], None)
    assert parse(make_frame(TEXT, ("é" * 5 + "x").encode()), max_size=10).fault is not None


def test_fragments_without_content_cost_no_memory() -> None:
    # Each used to be kept until the end of its message, which the size limit never brought about.
    parser = FrameParser(masked=False, max_size=1000)
    parser.feed(make_frame(TEXT, b"a", fin=False))
    many = make_frame(CONT, fin=False) * 1000

    def used() -> int:
        """Return the bytes that the parser holds, and not what other threads do meanwhile."""
        snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, frames_module.__file__)])
        return sum(trace.size for trace in snapshot.traces)

    tracemalloc.start()
    try:
        parser.feed(many)
        before = used()
        for _ in range(50):
            assert parser.feed(many) == []
        grown = used() - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000  # 50,000 fragments; the list of them took 400,000 bytes
    assert parser.feed(make_frame(CONT, b"b")) == [(TEXT, "ab")]


# ---- garbage --------------------------------------------------------------------------------------------------------


@st.composite
def damaged(draw: Any) -> Tuple[bytes, bool]:
    """Return the bytes of good frames with a few of them replaced, removed or doubled."""
    data, masked, _ = draw(streams())
    data = data[:3000]
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, min(len(data) - 1, 400))))
        size = draw(st.integers(0, 3))
        data = data[:place] + draw(st.binary(max_size=3)) + data[place + size :]
    return data, masked


@given(st.tuples(st.binary(max_size=200), st.booleans()) | damaged(), cuts, st.sampled_from([None, 50, 1000]))
@example((b"\x81\xff" + b"\xff" * 8, True), [], None)
def test_garbage_never_raises_and_means_the_same_in_any_cut(
    garbage: Tuple[bytes, bool], places: List[int], limit: Optional[int]
) -> None:
    data, masked = garbage
    whole = parse(data, masked, limit)
    assert parse(cut(data, places), masked, limit) == whole
    assert parse(single(data), masked, limit) == whole
    for opcode, payload in whole.frames:
        assert isinstance(payload, str) == (opcode == TEXT)
        assert opcode in (TEXT, BINARY, CLOSE, PING, PONG)
        size = len(payload.encode() if isinstance(payload, str) else payload)
        assert size <= (MAX_CONTROL_PAYLOAD if opcode >= CLOSE else size if limit is None else limit)
    assert whole.fault is None or whole.fault[0] in (1002, 1007, 1009)


# ---- close frames ---------------------------------------------------------------------------------------------------

#: RFC 6455 section 7.4 and the registry it opened: what may stand in a close frame.
SENDABLE = set(range(1000, 1015)) - {1004, 1005, 1006} | set(range(3000, 5000))


def test_every_close_code_is_accepted_or_refused_as_the_rfc_says() -> None:
    accepted = set()
    for code in range(65536):
        try:
            assert parse_close(struct.pack("!H", code) + b"why") == (code, "why")
            accepted.add(code)
        except RemoteProtocolError as error:
            assert error.code == 1002 and str(code) in str(error)
    assert accepted == SENDABLE


def test_an_empty_close_is_1005_and_a_single_byte_is_a_fault() -> None:
    assert parse_close(b"") == (1005, "")
    with pytest.raises(RemoteProtocolError, match="one byte") as caught:
        parse_close(b"\x03")
    assert caught.value.code == 1002


def test_a_close_reason_that_is_not_utf8_is_a_fault_of_the_data() -> None:
    for raw in NOT_UTF8.values():
        with pytest.raises(RemoteProtocolError, match="not UTF-8") as caught:
            parse_close(b"\x03\xe8" + raw)
        assert caught.value.code == 1007


@given(st.sampled_from(sorted(SENDABLE)), st.text(alphabet=st.characters(), max_size=200))
@example(1000, "\ud800" + "é" * 61 + "€" * 61)
def test_a_close_payload_fits_its_frame_and_its_reason_is_cut_at_a_character(code: int, reason: str) -> None:
    payload = close_payload(code, reason)
    assert len(payload) <= MAX_CONTROL_PAYLOAD
    read_code, read_reason = parse_close(payload)
    sendable = reason.encode("utf-8", "replace").decode()
    assert read_code == code and sendable.startswith(read_reason)
    room = MAX_CONTROL_PAYLOAD - 2 - len(read_reason.encode())
    assert read_reason == sendable or room < len(sendable[len(read_reason)].encode())


# ---- strangers ------------------------------------------------------------------------------------------------------


@pytest.mark.interop
@given(st.lists(messages | controls.filter(lambda frame: frame[0] != CLOSE), max_size=6), cuts)
def test_the_websockets_library_reads_what_our_client_writes(frames: List[Frame], places: List[int]) -> None:
    websockets = peers.require("websockets.protocol", "a second opinion on our frames", python=(3, 8))
    theirs = websockets.Protocol(websockets.SERVER, state=websockets.OPEN, max_size=None)
    for piece in cut(encode_frames(frames, masked=True), places):
        theirs.receive_data(piece)
    seen = [(int(event.opcode), event.data) for event in theirs.events_received()]
    assert seen == [(opcode, payload.encode() if isinstance(payload, str) else payload) for opcode, payload in frames]
    assert theirs.parser_exc is None


@pytest.mark.interop
@pytest.mark.parametrize("ours_is_client", [True, False])
@given(frames=st.lists(messages, max_size=4), pings=st.lists(st.binary(max_size=125), max_size=2), places=cuts)
def test_we_read_what_the_websockets_library_writes(
    ours_is_client: bool, frames: List[Frame], pings: List[bytes], places: List[int]
) -> None:
    websockets = peers.require("websockets.protocol", "a second opinion on our frames", python=(3, 8))
    side = websockets.SERVER if ours_is_client else websockets.CLIENT
    theirs = websockets.Protocol(side, state=websockets.OPEN, max_size=None)
    expected: List[Frame] = []
    for ping in pings:
        theirs.send_ping(ping)
        expected.append((PING, ping))
    for opcode, payload in frames:
        if isinstance(payload, str):
            raw = payload.encode()
            theirs.send_text(raw[: len(raw) // 2], fin=False)
            theirs.send_continuation(raw[len(raw) // 2 :], fin=True)
        else:
            theirs.send_binary(payload)
        expected.append((opcode, payload))
    theirs.send_close(1000, "done")
    expected.append((CLOSE, close_payload(1000, "done")))
    data = b"".join(theirs.data_to_send())
    assert parse(cut(data, places), masked=not ours_is_client) == (expected, None)


@pytest.mark.interop
@pytest.mark.parametrize("code", sorted(SENDABLE)[::97] + [1000, 1014, 4999])
def test_the_websockets_library_reads_our_close_frames(code: int) -> None:
    websockets = peers.require("websockets.protocol", "a second opinion on our close frames", python=(3, 8))
    theirs = websockets.Protocol(websockets.SERVER, state=websockets.OPEN, max_size=None)
    theirs.receive_data(encode_frames([(CLOSE, close_payload(code, "é" * 100))], masked=True))
    assert theirs.close_rcvd.code == code and theirs.close_rcvd.reason == "é" * 61
    assert theirs.parser_exc is None
