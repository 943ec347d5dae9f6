"""Engine.IO v4 packets and payloads (protocol reference 1.1, 1.6): pure functions, no socket and no clock.

A packet is a pair ``(type, data)``: the type one character out of ``TYPES``, the data text, or bytes for a binary
message. A tuple, not a record, because it is made once per packet.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..exceptions import RemoteProtocolError

__all__ = [
    "CLOSE",
    "Handshake",
    "MAX_PACKETS",
    "MESSAGE",
    "NOOP",
    "OPEN",
    "PING",
    "PONG",
    "Packet",
    "UPGRADE",
    "batch",
    "decode_packet",
    "decode_payload",
    "encode_packet",
    "parse_handshake",
    "polling_size",
    "websocket_size",
]

Packet = Tuple[str, Union[str, bytes]]

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = TYPES = "0123456"

#: Packets are joined by it; JSON text escapes it, so nothing is lost.
SEPARATOR = "\x1e"

#: Packets in one POST. The Python server drops a body with more of them, and answers 200 all the same (W4).
MAX_PACKETS = 16

#: Bytes of one POST that holds several packets: the answer to a ping waits for no more than this.
MAX_BATCH = 256 * 1024


def encode_packet(packet: Packet) -> str:
    """Return a packet in the form of a payload, where binary is base64."""
    kind, data = packet
    if isinstance(data, str):
        return kind + data
    return "b" + binascii.b2a_base64(data, newline=False).decode("ascii")


def decode_packet(text: str) -> Packet:
    """Return the packet in a text: a part of a payload, or a text frame of a WebSocket.

    Raises RemoteProtocolError: empty, of an unknown type, or bad base64.
    """
    kind = text[:1]
    if kind == "b":
        try:
            return MESSAGE, base64.b64decode(text[1:].encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise RemoteProtocolError("an Engine.IO packet with bad base64: %s" % error) from None
    if not kind or kind not in TYPES:
        raise RemoteProtocolError("an Engine.IO packet of the unknown type %r" % kind if kind else "an empty packet")
    return kind, text[1:]


def decode_payload(body: bytes) -> Tuple[List[Packet], Optional[RemoteProtocolError]]:
    """Return the packets of an HTTP body, any number of them, and the fault after which the rest was dropped.

    An empty body holds no packets: a closing server may send one.
    """
    packets: List[Packet] = []
    if not body:
        return packets, None
    try:
        for part in body.decode("utf-8").split(SEPARATOR):
            packets.append(decode_packet(part))
    except UnicodeDecodeError:
        return [], RemoteProtocolError("an Engine.IO payload that is not UTF-8")
    except RemoteProtocolError as error:
        return packets, error
    return packets, None


def websocket_size(data: Union[str, bytes]) -> int:
    """Return how many bytes a message has in a WebSocket message of its own."""
    if isinstance(data, str):
        return 1 + (len(data) if data.isascii() else len(data.encode("utf-8")))
    return len(data)


def polling_size(data: Union[str, bytes]) -> int:
    """Return how many bytes a message has in a payload, without a separator."""
    return websocket_size(data) if isinstance(data, str) else 1 + 4 * ((len(data) + 2) // 3)


def batch(packets: Iterable[Packet], limit: Optional[int]) -> Tuple[bytes, int]:
    """Return the body of one POST and how many of ``packets`` are in it: at least one, at most 16.

    ``limit`` is the server's maxPayload. The caller has checked that each packet fits alone.
    """
    most = MAX_BATCH if limit is None else min(limit, MAX_BATCH)
    parts: List[bytes] = []
    size = 0
    for packet in packets:
        part = encode_packet(packet).encode("utf-8")
        if parts and (len(parts) >= MAX_PACKETS or size + 1 + len(part) > most):
            break
        size += len(part) + bool(parts)
        parts.append(part)
    return SEPARATOR.encode("ascii").join(parts), len(parts)


class Handshake(NamedTuple):
    """The contents of the open packet; times are in seconds, ``max_payload`` in bytes (None = no limit)."""

    sid: str
    upgrades: Sequence[str]
    ping_interval: float
    ping_timeout: float
    max_payload: Optional[int]

    def __repr__(self) -> str:  # the sid opens the session to whoever knows it
        return "<Handshake of Engine.IO>"


def parse_handshake(packet: Packet) -> Handshake:
    """Return what the open packet says. Raises RemoteProtocolError, which never quotes it."""
    kind, data = packet
    if kind != OPEN or not isinstance(data, str):
        raise RemoteProtocolError("the server's first packet is of the type %r, not an open packet" % kind)
    try:
        fields = json.loads(data)
    except ValueError:
        raise RemoteProtocolError("the open packet is not JSON") from None
    if not isinstance(fields, dict):
        raise RemoteProtocolError("the open packet is not a JSON object")
    sid = fields.get("sid")
    if not isinstance(sid, str) or not sid:
        raise RemoteProtocolError("the open packet has no sid")
    upgrades = fields.get("upgrades")
    return Handshake(
        sid,
        [name for name in upgrades if isinstance(name, str)] if isinstance(upgrades, list) else [],
        _milliseconds(fields, "pingInterval"),
        _milliseconds(fields, "pingTimeout"),
        int(_positive(fields, "maxPayload")) if fields.get("maxPayload") else None,
    )


def _milliseconds(fields: Dict[str, Any], name: str) -> float:
    return _positive(fields, name) / 1000.0


def _positive(fields: Dict[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e15:
        raise RemoteProtocolError("the open packet has no valid %s" % name)
    return float(value)
