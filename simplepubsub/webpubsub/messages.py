"""Records of the Web PubSub protocols: what crosses the API, and what the codecs turn into frames and back.

Used by the client and by the embedded server alike; they know no wire format.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple, Optional

from ..core.protocol import Inbound

__all__ = [
    "DataType",
    "Event",
    "JoinGroup",
    "LeaveGroup",
    "MAX_GROUP_NAME",
    "MAX_MESSAGE_BYTES",
    "Message",
    "Ping",
    "SendToGroup",
    "SequenceAck",
]

#: Longest group name in characters (data-plane description: 1 to 1024).
MAX_GROUP_NAME = 1024

#: Largest message in bytes, either direction (service limit of 1 MB; the official emulator reads it as 1 MiB).
MAX_MESSAGE_BYTES = 2**20


class DataType(str, enum.Enum):
    """How the payload of a message travels; each member equals its wire name."""

    TEXT = "text"
    JSON = "json"
    BINARY = "binary"
    PROTOBUF = "protobuf"

    def __str__(self) -> str:
        return self.value


class Message(Inbound):
    """One message from a group or from the server.

    ``kind`` is "group" or "server"; ``data`` is str ("text"), bytes ("binary" and "protobuf") or any JSON value
    ("json"); ``from_user_id`` is the publisher's user id, None when anonymous or unknown; ``sequence_id`` is 0 outside
    reliable subprotocols; ``after_gap`` is True on the first message after a session that could not be recovered;
    ``stream`` is None outside streams.
    """

    __slots__ = ("data", "data_type", "from_user_id", "group", "kind", "stream")

    def __init__(
        self,
        kind: str,
        group: Optional[str],
        data: Any,
        data_type: str,
        from_user_id: Optional[str] = None,
        sequence_id: int = 0,
        stream: Any = None,
    ) -> None:
        self.kind = kind
        self.group = group
        self.data = data
        self.data_type = data_type
        self.from_user_id = from_user_id
        self.sequence_id = sequence_id
        self.stream = stream
        self.after_gap = False

    @property
    def event(self) -> str:
        """The listener event that this message belongs to."""
        return "group-message" if self.kind == "group" else "server-message"

    def __repr__(self) -> str:
        text = repr(self.data)
        if len(text) > 60:
            text = text[:57] + "..."
        where = " group=%r" % self.group if self.group is not None else ""
        gap = " after_gap" if self.after_gap else ""
        return "<Message %s%s %s %s #%d%s>" % (self.kind, where, self.data_type, text, self.sequence_id, gap)


# What a client sends. `ack_id` None means that no acknowledgement is wanted.


class JoinGroup(NamedTuple):
    group: str
    ack_id: Optional[int] = None


class LeaveGroup(NamedTuple):
    group: str
    ack_id: Optional[int] = None


class SendToGroup(NamedTuple):
    group: str
    data: Any
    data_type: str
    ack_id: Optional[int] = None
    no_echo: bool = False
    ttl_seconds: int = 0


class Event(NamedTuple):
    event: str
    data: Any
    data_type: str
    ack_id: Optional[int] = None


class SequenceAck(NamedTuple):
    sequence_id: int


class Ping(NamedTuple):
    pass
