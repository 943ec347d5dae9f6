"""WebSocket framing (RFC 6455): bytes to frames and back, for both roles, with no socket and no clock.

A *frame* here is a tuple ``(opcode, payload)`` that stands for one whole message or one control frame: ``str``
payloads for TEXT (already checked to be UTF-8), ``bytes`` for everything else. A tuple, not a record, because it is
made once per message on the hottest path (a NamedTuple costs ten times as much).

Reading: feed a `FrameParser` whatever the socket returned. It never raises for bad input: it returns the frames that
came before the fault and records a `RemoteProtocolError` in ``violation``; from then on it returns nothing. So
nothing that arrived intact is lost, and the caller decides when to act.

Writing: `encode_frames` turns a batch into one bytes object for one system call.
"""

from __future__ import annotations

import codecs
import os
import struct
from collections import deque
from typing import Callable, Deque, Iterable, List, Optional, Tuple, Union

from ..exceptions import InvalidArgument, RemoteProtocolError

__all__ = [
    "BINARY",
    "CLOSE",
    "CONT",
    "Frame",
    "FrameParser",
    "MAX_CONTROL_PAYLOAD",
    "PING",
    "PONG",
    "TEXT",
    "apply_mask",
    "close_payload",
    "encode_frame",
    "encode_frames",
    "mask_key",
    "parse_close",
    "utf8",
]

Frame = Tuple[int, Union[str, bytes]]

# Opcodes, RFC 6455 section 5.2.
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

#: Largest payload of a control frame in bytes (RFC 6455 section 5.5).
MAX_CONTROL_PAYLOAD = 125

_unpack_u16 = struct.Struct("!H").unpack_from
_unpack_u64 = struct.Struct("!Q").unpack_from
_pack_short = struct.Struct("!BB").pack
_pack_u16 = struct.Struct("!BBH").pack
_pack_u64 = struct.Struct("!BBQ").pack

#: Masking keys that are made at once.
_MASKS = 1024

_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")


def apply_mask(data: bytes, mask: bytes) -> bytes:
    """Return ``data`` XORed with the repeated 4-byte ``mask`` (RFC 6455 section 5.3); its own inverse.

    One XOR of two large integers instead of a loop: linear in C, with no extension module.
    """
    size = len(data)
    pattern = mask * ((size + 3) // 4)
    number = int.from_bytes(data, "little") ^ int.from_bytes(pattern[:size], "little")
    return number.to_bytes(size, "little")


_masks: "Deque[bytes]" = deque()


def mask_key() -> bytes:
    """Return a fresh key for one frame: unpredictable, as RFC 6455 section 5.3 wants it. Safe from any thread.

    One read of the system's source serves many frames.
    """
    try:
        return _masks.popleft()
    except IndexError:
        keys = os.urandom(4 * _MASKS)
        _masks.extend([keys[position : position + 4] for position in range(4, 4 * _MASKS, 4)])
        return keys[:4]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_masks.clear)  # parent and child must not use the same keys


def encode_frame(opcode: int, payload: Union[str, bytes], mask: Optional[bytes] = None, fin: bool = True) -> bytes:
    """Return one encoded frame; a client passes a 4-byte ``mask``, a server None (RFC 6455 section 5.1)."""
    data = payload.encode() if isinstance(payload, str) else payload
    size = len(data)
    first = opcode | 0x80 if fin else opcode
    bit = 0 if mask is None else 0x80
    if size < 126:
        head = _pack_short(first, size | bit)
    elif size < 65536:
        head = _pack_u16(first, 126 | bit, size)
    else:
        head = _pack_u64(first, 127 | bit, size)
    if mask is None:
        return head + data
    return head + mask + apply_mask(data, mask)


def encode_frames(frames: Iterable[Frame], masked: bool) -> bytes:
    """Return a batch of frames as one bytes object, each masked with a fresh random key when ``masked``."""
    if not masked:
        return b"".join([encode_frame(opcode, payload) for opcode, payload in frames])
    return b"".join([encode_frame(opcode, payload, mask_key()) for opcode, payload in frames])


def utf8(text: str) -> bytes:
    """Return ``text`` encoded. Raises InvalidArgument for lone surrogates."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            "text with the lone surrogate %r cannot be sent: it has no UTF-8 form" % error.object[error.start]
        ) from None


def close_payload(code: int, reason: str = "") -> bytes:
    """Return the payload of a close frame; the reason is cut to what a control frame can hold."""
    data = reason.encode("utf-8", "replace")
    if len(data) > MAX_CONTROL_PAYLOAD - 2:
        data = data[: MAX_CONTROL_PAYLOAD - 2].decode("utf-8", "ignore").encode()
    return struct.pack("!H", code) + data


def parse_close(payload: bytes) -> Tuple[int, str]:
    """Return (code, reason) of a close frame; (1005, "") when it is empty.

    Raises RemoteProtocolError: a one-byte payload, a code that must not be sent, or a reason that is not UTF-8
    (RFC 6455 sections 5.5.1, 7.4).
    """
    if not payload:
        return 1005, ""
    if len(payload) == 1:
        raise RemoteProtocolError("close frame with a payload of one byte", code=1002)
    code = _unpack_u16(payload)[0]
    # 1004-1006 and 1015 are reserved, 1016-2999 unassigned, 3000-4999 free for libraries and applications.
    if not (1000 <= code <= 1014 and code not in (1004, 1005, 1006) or 3000 <= code <= 4999):
        raise RemoteProtocolError("close frame with the invalid code %d" % code, code=1002)
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("close frame with a reason that is not UTF-8", code=1007) from None


class FrameParser:
    """Turn received bytes into frames, in any cuts.

    ``masked`` says what the peer must do: True on the server side, False on the client side (RFC 6455 section 5.1).
    ``max_size`` limits one message in bytes, all fragments together; None means no limit. Not thread-safe: it belongs
    to whoever reads the socket.
    """

    __slots__ = (
        "_chunks",
        "_decoder",
        "_fragments",
        "_fragments_size",
        "_have",
        "_masked",
        "_max_size",
        "_need",
        "_opcode",
        "violation",
    )

    def __init__(self, *, masked: bool, max_size: Optional[int] = None) -> None:
        self._masked = masked
        self._max_size = max_size
        self._chunks: List[bytes] = []  # an incomplete frame, from its first byte, as it came
        self._have = 0  # bytes in _chunks
        self._need = 0  # bytes that must be there before parsing can go on
        self._opcode = CONT  # opcode of the fragmented message in progress; CONT = none
        self._fragments: List[Union[str, bytes]] = []
        self._fragments_size = 0
        self._decoder: Optional[codecs.IncrementalDecoder] = None
        #: The first fault of the peer, or None.
        self.violation: Optional[RemoteProtocolError] = None

    def feed(self, data: bytes) -> List[Frame]:
        """Return the frames that ``data`` completes; see ``violation`` for a fault after them."""
        if self.violation is not None:
            return []
        frames: List[Frame] = []
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return frames  # joining on every piece would make a large message in small cuts quadratic
            data = b"".join(self._chunks)
        try:
            used = self._parse(data, frames)
        except RemoteProtocolError as error:
            self.violation = error
            self._chunks = []
            self._fragments = []
        else:
            rest = data[used:] if used else data
            self._chunks = [rest] if rest else []
            self._have = len(rest)
        return frames

    def _parse(self, data: bytes, frames: List[Frame]) -> int:
        """Append the whole frames of ``data``, return how many bytes they took, and set ``_need`` for the next."""
        expected_mask = 0x80 if self._masked else 0
        position, end = 0, len(data)
        append = frames.append
        self._need = 0
        while end - position >= 2:
            first, second = data[position], data[position + 1]
            if second & 0x80 != expected_mask:
                raise RemoteProtocolError("frame %smasked" % ("not " if self._masked else ""), code=1002)
            size = second & 0x7F
            start = position + 2
            if size == 126:
                if end - start < 2:
                    break
                size = _unpack_u16(data, start)[0]
                start += 2
            elif size == 127:
                if end - start < 8:
                    break
                size = _unpack_u64(data, start)[0]
                if size >> 63:
                    raise RemoteProtocolError("frame length with the highest bit set", code=1002)
                start += 8
            opcode = first & 0x0F
            if first != 0x81 or self._opcode or (self._max_size is not None and size > self._max_size):
                # Everything but a whole text message that fits: checked before waiting for the payload,
                # so that a hostile length is refused at once instead of being buffered.
                self._check_head(first, opcode, second & 0x7F, size)
            if expected_mask:
                start += 4
            stop = start + size
            if stop > end:
                self._need = stop - position
                break
            payload = data[start:stop]
            if expected_mask:
                payload = apply_mask(payload, data[start - 4 : start])
            if first == 0x81:
                try:
                    append((TEXT, payload.decode()))
                except UnicodeDecodeError:
                    raise RemoteProtocolError("text message that is not UTF-8", code=1007) from None
            elif opcode >= CLOSE:
                append((opcode, payload))
            elif first == 0x82:
                append((BINARY, payload))
            else:
                self._add_fragment(opcode, payload, bool(first & 0x80), append)
            position = stop
        return position

    def _check_head(self, first: int, opcode: int, short_size: int, size: int) -> None:
        if first & 0x70:
            raise RemoteProtocolError("reserved bits set in a frame, but no extension was agreed", code=1002)
        if opcode >= CLOSE:
            if opcode > PONG:
                raise RemoteProtocolError("frame with the unknown opcode 0x%X" % opcode, code=1002)
            if not first & 0x80:
                raise RemoteProtocolError("fragmented control frame", code=1002)
            if short_size > MAX_CONTROL_PAYLOAD:
                raise RemoteProtocolError("control frame over %d bytes" % MAX_CONTROL_PAYLOAD, code=1002)
            return
        if opcode > BINARY:
            raise RemoteProtocolError("frame with the unknown opcode 0x%X" % opcode, code=1002)
        if opcode == CONT and not self._opcode:
            raise RemoteProtocolError("continuation frame without a message to continue", code=1002)
        if opcode != CONT and self._opcode:
            raise RemoteProtocolError("new message inside a fragmented one", code=1002)
        if self._max_size is not None and size + self._fragments_size > self._max_size:
            raise RemoteProtocolError(
                "message of at least %d bytes, the limit is %d" % (size + self._fragments_size, self._max_size),
                code=1009,
            )

    def _add_fragment(self, opcode: int, payload: bytes, final: bool, append: Callable[[Frame], None]) -> None:
        """Collect one fragment; text is decoded piece by piece so that bad UTF-8 fails at once (section 8.1)."""
        if opcode != CONT:
            self._opcode = opcode
            self._decoder = _new_utf8_decoder() if opcode == TEXT else None
        self._fragments_size += len(payload)
        piece: Union[str, bytes] = payload
        if self._decoder is not None:
            try:
                piece = self._decoder.decode(payload, final)
            except UnicodeDecodeError:
                raise RemoteProtocolError("text message that is not UTF-8", code=1007) from None
        if piece:  # the size limit does not bound the number of empty ones
            self._fragments.append(piece)
        if final:
            whole: Union[str, bytes]
            whole = "".join(self._fragments) if self._opcode == TEXT else b"".join(self._fragments)  # type: ignore[arg-type]
            append((self._opcode, whole))
            self._opcode = CONT
            self._fragments = []
            self._fragments_size = 0
            self._decoder = None
