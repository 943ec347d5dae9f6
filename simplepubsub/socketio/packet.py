"""Socket.IO v5 packets: from values to Engine.IO messages and back. Pure: no socket, no thread, no clock.

A packet becomes a group of messages: a header (text) and its attachments (bytes), which must follow each other on the
wire with no other packet between them. The messages carry no Engine.IO type; that belongs to the session below.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Any, Callable, List, Optional, Tuple

from ..exceptions import InvalidArgument, RemoteProtocolError
from .binary import PLACEHOLDER, PLACEHOLDER_TEXT, NotSerializable, reconstruct
from .packet_json import STDLIB, JsonCodec, json_codec
from .seams import Message

__all__ = [
    "MAX_ATTACHMENTS", "RESERVED_EVENTS", "DefaultSerializer", "Decoder", "NotSerializable", "Packet",
    "PacketType", "ack_value", "check_event_name", "check_namespace", "check_structure", "encode", "get_serializer",
    "pack_args",
]

#: The reference parser refuses packets with more attachments than this.
MAX_ATTACHMENTS = 10

#: A Node server drops the connection of a client that emits one of these.
RESERVED_EVENTS = frozenset(
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]
)


class PacketType(IntEnum):
    """The first digit of a header. The decoder yields the first five only: whether binary came along is no news."""

    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    CONNECT_ERROR = 4
    BINARY_EVENT = 5
    BINARY_ACK = 6


class Packet:
    """One packet. ``data`` is a list for EVENT (name first) and ACK; ``id`` is the ack id, 0 included, or None."""

    __slots__ = ("data", "id", "namespace", "type")

    def __init__(self, type: PacketType, namespace: str = "/", data: Any = None, id: Optional[int] = None) -> None:
        self.type = type
        self.namespace = namespace
        self.data = data
        self.id = id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Packet):
            return NotImplemented
        mine = (self.type, self.namespace, self.data, self.id)
        return mine == (other.type, other.namespace, other.data, other.id)

    __hash__ = None  # type: ignore[assignment]  # its data is mutable

    def __repr__(self) -> str:
        # CONNECT holds credentials one way and the private session id the other way.
        data = "***" if self.type == PacketType.CONNECT and self.data else repr(self.data)
        return "Packet(%s, %r, %s, id=%r)" % (PacketType(self.type).name, self.namespace, data, self.id)


def check_event_name(name: Any) -> None:
    """Raise InvalidArgument unless ``name`` may be emitted: a string that is not reserved, or a whole number."""
    if isinstance(name, str):
        if name in RESERVED_EVENTS:
            raise InvalidArgument(
                "%r is a reserved event name (%s): a server drops the connection that emits it; use another name"
                % (name, ", ".join(sorted(RESERVED_EVENTS)))
            )
    elif isinstance(name, bool) or not isinstance(name, int):
        raise InvalidArgument("an event name must be a string, not %r" % (name,))


# A comma ends the name, control characters cut polling payloads, a query is dropped by half of the servers, and what
# is no Unicode cannot be sent.
_NAMESPACE = re.compile(r"/[^,?\x00-\x1f\x7f\ud800-\udfff]*\Z")


def check_namespace(namespace: Optional[str]) -> str:
    """Return the namespace; None and "" are "/". Raises InvalidArgument for one that no packet can carry."""
    if not namespace:
        return "/"
    if not isinstance(namespace, str) or not _NAMESPACE.match(namespace):
        raise InvalidArgument(
            "a namespace must be a string that begins with '/' and has no ',', '?' or control character, not %r"
            % (namespace,)
        )
    return namespace


def pack_args(data: Any) -> List[Any]:
    """Return the positional arguments that ``data`` stands for: None is none, a tuple several, anything else one."""
    if data is None:
        return []
    return list(data) if isinstance(data, tuple) else [data]


def ack_value(args: List[Any]) -> Any:
    """Return the arguments of an acknowledgement as one value: None, the only one, or a tuple of several."""
    return args[0] if len(args) == 1 else tuple(args) if args else None


# --- packets to messages -------------------------------------------------------------------------------------------

def encode(packet: Packet, *, max_attachments: int = MAX_ATTACHMENTS, _codec: JsonCodec = STDLIB) -> List[Message]:
    """Return the messages of a packet: the header, then its attachments.

    EVENT and ACK become their binary types by themselves when the data holds bytes, bytearray or memoryview, at any
    depth; the bytes are copied. Tuples inside data become lists.

    Raises InvalidArgument for what a peer would not accept: data that is not JSON (also a TypeError), NaN, binary in
    CONNECT, more than ``max_attachments`` attachments, a reserved event name, a bad namespace.
    """
    kind = check_structure(packet)
    namespace = packet.namespace
    header = "" if namespace == "/" else check_namespace(namespace) + ","
    if packet.id is not None:
        header += "%d" % packet.id
    if packet.data is None:
        return ["%d%s" % (kind, header)]
    text, attachments = _codec.dump(packet.data)
    if not attachments:
        return ["%d%s%s" % (kind, header, text)]
    if kind not in (PacketType.EVENT, PacketType.ACK):
        raise InvalidArgument("%s data cannot hold bytes; only events and acknowledgements can" % PacketType(kind).name)
    if len(attachments) > max_attachments:
        raise InvalidArgument(
            "%d binary values in one packet, and the server accepts %d; join some of them, or raise max_attachments "
            "here and maxAttachments in the server's parser" % (len(attachments), max_attachments)
        )
    if text.count(PLACEHOLDER_TEXT) != len(attachments):
        raise NotSerializable("the data cannot be sent: a dict with the key %r among binary values" % PLACEHOLDER)
    messages: List[Message] = ["%d%d-%s%s" % (kind + 3, len(attachments), header, text)]
    messages.extend(attachments)
    return messages


def check_structure(packet: Packet) -> int:
    """Return the type of a packet to send, binary types as their plain ones; InvalidArgument if it makes no sense."""
    kind, data = int(packet.type), packet.data
    if kind >= PacketType.BINARY_EVENT:
        kind -= 3
    if kind == PacketType.EVENT:
        if not isinstance(data, list) or not data:
            raise InvalidArgument("an event is a list that begins with its name, not %s" % type(data).__name__)
        check_event_name(data[0])
    elif kind == PacketType.ACK:
        if not isinstance(data, list) or packet.id is None:
            raise InvalidArgument("an acknowledgement is a list of values and an id")
    elif packet.id is not None:
        raise InvalidArgument("only events and acknowledgements have an id")
    elif kind == PacketType.CONNECT and not (data is None or isinstance(data, dict)):
        raise InvalidArgument("auth must be a dict, not %s" % type(data).__name__)
    elif kind == PacketType.DISCONNECT and data is not None:
        raise InvalidArgument("DISCONNECT has no data")
    return kind


# --- messages to packets -------------------------------------------------------------------------------------------

# Type, attachments (digits or not, to be looked at), namespace with its comma, id. Digits are ASCII's only.
_HEADER = re.compile(r"([0-6])(?:(?<=[56])([^-]*)-)?(?:(/[^,]*)(?:,|\Z))?([0-9]+)?")


def _parse(text: str, max_attachments: int, load: Callable[[str, int], Any]) -> Tuple[Packet, int]:
    """Return the packet of a header and its number of attachments. Raises ValueError."""
    match = _HEADER.match(text)
    if match is None:
        raise ValueError("unknown packet type %r" % text[:1])
    digit, count, namespace, id_digits = match.groups()
    kind, attachments = int(digit), 0
    if kind >= PacketType.BINARY_EVENT:
        if not count or len(count) > 10 or not (count.isascii() and count.isdigit()) or int(count) < 1:
            raise ValueError("illegal number of attachments")
        attachments = int(count)
        if attachments > max_attachments:
            raise ValueError("too many attachments: %d, more than max_attachments=%d" % (attachments, max_attachments))
        kind -= 3
    number = None
    if id_digits:
        if len(id_digits) > 20:
            raise ValueError("an acknowledgement id of %d digits" % len(id_digits))
        number = int(id_digits)
    start = match.end()
    data = load(text, start) if start < len(text) else None
    packet = Packet(_TYPES[kind], namespace.split("?", 1)[0] if namespace else "/", data, number)
    check_received(packet)
    return packet, attachments


_TYPES = [PacketType(number) for number in range(5)]
_EVENT = PacketType.EVENT


def check_received(packet: Packet) -> None:
    """Raise ValueError for a structure that the reference decoder refuses too.

    Tolerated beyond it: DISCONNECT and CONNECT_ERROR with any payload or none.
    """
    kind, data = packet.type, packet.data
    if kind == PacketType.EVENT:
        if not isinstance(data, list) or not data:
            raise ValueError("invalid payload: an event must be a non-empty array")
        name = data[0]
        if isinstance(name, str):
            if name in RESERVED_EVENTS:
                raise ValueError("invalid payload: reserved event name %r" % name)
        elif isinstance(name, bool) or not isinstance(name, (int, float)):
            raise ValueError("invalid payload: an event name of type %s" % type(name).__name__)
    elif kind == PacketType.ACK:
        if not isinstance(data, list):
            raise ValueError("invalid payload: an acknowledgement must be an array")
    elif kind == PacketType.CONNECT and not (data is None or isinstance(data, dict)):
        raise ValueError("invalid payload: CONNECT must carry an object")


class Decoder:
    """Turns the messages of one connection, in order, into packets. One thread at a time; after an error it is over.

    As strict as the reference decoder on structure, tolerant where servers are known to differ (section 2.3). Bytes
    arrive as `bytes`, at the index that their placeholder names.
    """

    def __init__(self, *, max_attachments: int = MAX_ATTACHMENTS, _codec: JsonCodec = STDLIB) -> None:
        self._max_attachments = max_attachments
        self._load = _codec.load
        self._pending: Optional[Packet] = None
        self._missing = 0
        self._attachments: List[bytes] = []

    def feed(self, message: Message) -> Optional[Packet]:
        """Return the packet that ``message`` completes, or None while attachments are missing.

        Raises RemoteProtocolError for anything that breaks the protocol.
        """
        try:
            if self._pending is None:
                if type(message) is str and message[:2] == "2[":  # most: an event of "/" that wants no answer
                    data = self._load(message, 1)
                    packet = Packet(_EVENT, "/", data)
                    if not (type(data) is list and data and type(data[0]) is str and data[0] not in RESERVED_EVENTS):
                        check_received(packet)
                    return packet
                return self._header(message)
            return self._attachment(message)
        except (ValueError, RecursionError) as error:
            self._pending = None
            raise RemoteProtocolError("parse error: %s" % error, code=1002) from error

    def _header(self, message: Message) -> Optional[Packet]:
        if not isinstance(message, str):
            raise ValueError("binary data that no packet announced")
        packet, attachments = _parse(message, self._max_attachments, self._load)
        if not attachments:
            return packet
        self._pending, self._missing, self._attachments = packet, attachments, []
        return None

    def _attachment(self, message: Message) -> Optional[Packet]:
        if isinstance(message, str):
            raise ValueError("text where %d more attachments belong" % self._missing)
        self._attachments.append(bytes(message))
        self._missing -= 1
        packet = self._pending
        if self._missing or packet is None:
            return None
        packet.data = reconstruct(packet.data, self._attachments)
        self._pending, self._attachments = None, []
        return packet


class DefaultSerializer:
    """The JSON serializer: text headers and binary attachments. Immutable; for any number of connections and threads.

    ``json`` is a module or object with ``dumps`` and ``loads`` to use instead of the standard library's.
    """

    name = "default"

    def __init__(self, json: Any = None, max_attachments: int = MAX_ATTACHMENTS) -> None:
        if isinstance(max_attachments, bool) or not isinstance(max_attachments, int) or max_attachments < 0:
            raise InvalidArgument("max_attachments must be an integer >= 0, not %r" % (max_attachments,))
        self.max_attachments = max_attachments
        self._codec = json_codec(json)

    def encode(self, packet: Packet) -> List[Message]:
        """Return the messages of a packet; see `encode`."""
        return encode(packet, max_attachments=self.max_attachments, _codec=self._codec)

    def Decoder(self) -> Decoder:
        """Return a decoder for one connection."""
        return Decoder(max_attachments=self.max_attachments, _codec=self._codec)


def get_serializer(serializer: Any = "default", json: Any = None, max_attachments: int = MAX_ATTACHMENTS) -> Any:
    """Return an object with ``encode(packet)`` and ``Decoder()`` for "default", "msgpack", or such an object itself.

    Raises InvalidArgument for anything else, MissingDependency (also an ImportError) for "msgpack" without its library.
    """
    if serializer in (None, "default"):
        return DefaultSerializer(json, max_attachments)
    if serializer == "msgpack":
        from .msgpack_packet import MsgpackSerializer  # an optional dependency

        return MsgpackSerializer()
    if not isinstance(serializer, str) and callable(getattr(serializer, "encode", None)):
        if callable(getattr(serializer, "Decoder", None)):
            return serializer
    raise InvalidArgument(
        "serializer must be 'default', 'msgpack' or an object with encode(packet) and Decoder(), not %r" % (serializer,)
    )
