"""Records of the Web PubSub protocols: what crosses the API, and what the codecs turn into frames and back.

Used by the client and by the embedded server alike; they know no wire format.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple, Optional, Union

from ..core.protocol import Inbound

__all__ = [
    "CancelInvocation",
    "ClientMessage",
    "DataType",
    "Event",
    "Invoke",
    "InvokeResponse",
    "JoinGroup",
    "LeaveGroup",
    "MAX_GROUP_NAME",
    "MAX_MESSAGE_BYTES",
    "Message",
    "Ping",
    "SendToGroup",
    "SequenceAck",
    "StreamAck",
    "StreamClosed",
    "StreamData",
    "StreamEnd",
    "StreamError",
    "StreamInfo",
    "StreamNack",
    "StreamStart",
]

#: Longest group name in characters (data-plane description: 1 to 1024).
MAX_GROUP_NAME = 1024

#: Milliseconds without a fragment or keep-alive after which the service ends a stream (client specification 3.6.1.4).
DEFAULT_STREAM_IDLE_MS = 300_000

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

    ``kind`` is "group" or "server"; ``data`` is str ("text"), bytes ("binary"), the bytes of a serialised
    ``google.protobuf.Any`` ("protobuf") or any JSON value ("json"); ``from_user_id`` is the publisher's user id, None
    when anonymous or unknown, and always on protobuf subprotocols; ``sequence_id`` is 0 outside reliable subprotocols;
    ``after_gap`` is True on the first message after a session that could not be recovered; ``stream`` is a
    `StreamInfo`, None outside streams.
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
        stream: Optional[StreamInfo] = None,
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


class StreamError(NamedTuple):
    """Why a stream ended: a ``name`` of the service ("UserError", "IdleTimeout", ...), with the publisher's words."""

    name: str
    message: str = ""
    user_error_code: Optional[str] = None


class StreamInfo(NamedTuple):
    """The place of a group message in a stream: numbers start at 1 and rise by 1; the last one ends the stream."""

    stream_id: str
    sequence_id: int
    end_of_stream: bool = False
    error: Optional[StreamError] = None


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


class StreamStart(NamedTuple):
    """A sendToGroup that opens a stream; ``has_data`` notes a payload, which it must not have (spec 3.6.1.1)."""

    group: str
    stream_id: str
    no_echo: bool = False
    idle_timeout_ms: int = DEFAULT_STREAM_IDLE_MS
    ack_id: Optional[int] = None
    has_data: bool = False


class StreamData(NamedTuple):
    """A fragment; with ``sequence_id`` None it is a keep-alive without payload (client specification 3.6.2.8)."""

    stream_id: str
    sequence_id: Optional[int] = None
    data: Any = None
    data_type: str = "text"


class StreamEnd(NamedTuple):
    """The end of a stream; the name of its ``error`` is not on the wire, subscribers see "UserError"."""

    stream_id: str
    error: Optional[StreamError] = None


class Invoke(NamedTuple):
    """A user event whose answer the client waits for; without payload ``data`` and ``data_type`` are None."""

    invocation_id: str
    event: str
    data: Any = None
    data_type: Optional[str] = None


class CancelInvocation(NamedTuple):
    invocation_id: str


ClientMessage = Union[
    JoinGroup, LeaveGroup, SendToGroup, Event, SequenceAck, Ping, StreamStart, StreamData, StreamEnd, Invoke,
    CancelInvocation,
]


# What the service answers to streams and invocations.


class StreamAck(NamedTuple):
    """Everything below ``expected`` has been accepted."""

    stream_id: str
    expected: int


class StreamNack(NamedTuple):
    """A fragment was dropped: the stream lives, and goes on at ``expected``."""

    stream_id: str
    expected: int
    name: str
    message: str = ""


class StreamClosed(NamedTuple):
    """The stream is over; ``error`` None says that it ended as its publisher wished."""

    stream_id: str
    error: Optional[StreamError] = None


class InvokeResponse(NamedTuple):
    """The answer to `Invoke`: data, or the ``name`` and ``message`` of an error."""

    invocation_id: str
    success: bool
    data: Any = None
    data_type: Optional[str] = None
    name: str = ""
    message: str = ""
