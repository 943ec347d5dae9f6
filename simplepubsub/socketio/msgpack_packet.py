"""The msgpack serializer: a whole packet as one msgpack map in one binary message (section 2.13 of the protocol).

Needs the ``msgpack`` extra, and the same parser on the server.
"""

from __future__ import annotations

import datetime
from typing import Any, List, Optional

from ..exceptions import RemoteProtocolError, SimplePubSubError
from .binary import NotSerializable
from .packet import Packet, PacketType, check_namespace, check_received, check_structure
from .seams import Message

__all__ = ["MissingDependency", "MsgpackDecoder", "MsgpackSerializer"]

#: JavaScript's undefined. It is a missing key, or a null in an array.
_UNDEFINED = object()
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


class MissingDependency(SimplePubSubError, ImportError):
    """A feature needs a library that is not installed; the message names the command that installs it."""


def _library() -> Any:
    try:
        import msgpack  # type: ignore[import-not-found,import-untyped,unused-ignore]  # optional
    except ImportError as error:
        raise MissingDependency(
            "serializer='msgpack' needs the msgpack library: pip install 'simplepubsub[msgpack]'"
        ) from error
    return msgpack


class MsgpackSerializer:
    """Packets as msgpack maps. Immutable; for any number of connections and threads.

    Raises MissingDependency (also an ImportError) when the library is not installed.
    """

    name = "msgpack"

    def __init__(self) -> None:
        self._msgpack = _library()

    def encode(self, packet: Packet) -> List[Message]:
        """Return the one message of a packet. Raises InvalidArgument as `packet.encode` does."""
        fields = {"type": check_structure(packet), "nsp": check_namespace(packet.namespace)}
        if packet.data is not None:
            fields["data"] = packet.data  # absent otherwise: Node's parser drops a client that sends nil
        if packet.id is not None:
            fields["id"] = packet.id
        try:
            return [self._msgpack.packb(fields, use_bin_type=True)]
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise NotSerializable("the data cannot be sent: %s" % error) from error

    def Decoder(self) -> "MsgpackDecoder":
        """Return a decoder for one connection."""
        return MsgpackDecoder(self._msgpack)


class MsgpackDecoder:
    """Turns the messages of one connection into packets. One thread at a time."""

    def __init__(self, library: Any) -> None:
        self._msgpack = library

    def feed(self, message: Message) -> Optional[Packet]:
        """Return the packet of ``message``. Raises RemoteProtocolError for anything that breaks the protocol."""
        try:
            if isinstance(message, str):
                raise ValueError("text, where the msgpack serializer sends binary: does the server use it?")
            fields = self._msgpack.unpackb(
                bytes(message), raw=False, strict_map_key=False, ext_hook=self._extension, timestamp=3
            )
            packet = _packet(_clean(fields))
            check_received(packet)
            return packet
        # The library's own errors are ValueErrors, apart from keys that Python cannot hash.
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise RemoteProtocolError("parse error: %s" % error, code=1002) from error

    def _extension(self, code: int, data: bytes) -> Any:
        if code == 0 and data == b"\x00":
            return _UNDEFINED
        if code == 0 and len(data) == 8:  # a JavaScript Date
            return _EPOCH + datetime.timedelta(milliseconds=int.from_bytes(data, "big", signed=True))
        return self._msgpack.ExtType(code, data)


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items() if item is not _UNDEFINED and key is not _UNDEFINED}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return None if value is _UNDEFINED else value


def _packet(fields: Any) -> Packet:
    if not isinstance(fields, dict):
        raise ValueError("a packet must be a map, not %s" % type(fields).__name__)
    kind, namespace, number = fields.get("type"), fields.get("nsp"), fields.get("id")
    if isinstance(kind, bool) or not isinstance(kind, int) or not 0 <= kind <= PacketType.CONNECT_ERROR:
        raise ValueError("unknown packet type %r" % (kind,))
    if not isinstance(namespace, str) or not namespace.startswith("/"):
        raise ValueError("invalid namespace %r" % (namespace,))
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
        raise ValueError("invalid acknowledgement id %r" % (number,))
    return Packet(PacketType(kind), namespace.split("?", 1)[0], fields.get("data"), number)
