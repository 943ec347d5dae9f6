"""The protobuf wire format of Web PubSub, both directions, for the client and for the embedded server.

Subprotocols ``protobuf.webpubsub.azure.v1`` and ``protobuf.reliable.webpubsub.azure.v1``: one message per binary frame;
the reliable one adds ``sequence_id``. Field numbers: protocol reference 2.9, and `protobuf_schema`. Pure functions over
bytes: no socket, no state, safe from any thread.

Frames are written by hand and read by the protobuf library. Data of the type "protobuf" is a serialised
``google.protobuf.Any`` on either side. DataMessage has no place for the publisher's user id, so receivers do not learn
it; invocations have no published field numbers. Importing this module needs the extra ``[protobuf]``.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Union

from ..core.protocol import Ack, Connected, Decoded, Disconnected, Pong
from ..exceptions import RemoteProtocolError
from ..transports.frames import utf8
from .json_fields import check_event_name, check_group_name, encode_json
from .messages import (
    ClientMessage,
    Event,
    JoinGroup,
    LeaveGroup,
    Message,
    Ping,
    SendToGroup,
    SequenceAck,
    StreamError,
    StreamInfo,
)
from .protobuf_fields import chunk, number, text, varint
from .protobuf_payload import MALFORMED, encode_data, read_ack_id, read_data, read_payload
from .protobuf_schema import DownstreamMessage, UpstreamMessage
from .protobuf_streams import CLIENT_MESSAGES, SERVICE_MESSAGES, encode_error, encode_info, read_info, read_start

__all__ = [
    "PING",
    "PONG",
    "decode_client_message",
    "decode_service_message",
    "encode_ack",
    "encode_connected",
    "encode_disconnected",
    "encode_message",
    "encode_sequence_ack",
    "event_body",
    "finish",
    "finish_message",
    "join_body",
    "leave_body",
    "send_to_group_body",
]

PING = b"\x4a\x00"
PONG = b"\x22\x00"

# Tags below are number * 8 + 2 for text, bytes and messages, number * 8 for numbers.

# --- client to service ------------------------------------------------------------------------------------------------

# A body is the tag of the command, one byte, and its fields without the ack id.


def finish(body: bytes, ack_id: Optional[int]) -> bytes:
    """Return the whole command: ``body`` with its ack id, None if no acknowledgement is wanted."""
    if ack_id is None:
        return body[:1] + varint(len(body) - 1) + body[1:]
    if body[0] == 0x2A:  # an event: number 3, behind the data
        ack = b"\x18" + varint(ack_id)
        return body[:1] + varint(len(body) - 1 + len(ack)) + body[1:] + ack
    # The others: number 2, behind the group, whose length has one or two bytes.
    ack = b"\x10" + varint(ack_id)
    place = 3 + body[2] if body[2] < 128 else 4 + (body[2] & 127 | body[3] << 7)
    return b"".join((body[:1], varint(len(body) - 1 + len(ack)), body[1:place], ack, body[place:]))


def join_body(group: str) -> bytes:
    """Return the command that joins ``group``, for `finish`."""
    return b"\x32" + chunk(b"\x0a", utf8(group))


def leave_body(group: str) -> bytes:
    """Return the command that leaves ``group``, for `finish`."""
    return b"\x3a" + chunk(b"\x0a", utf8(group))


def send_to_group_body(group: str, data: Any, data_type: str, no_echo: bool) -> bytes:
    """Return the command that publishes ``data``, for `finish`. Raises InvalidArgument as `encode_data` does."""
    body = b"\x0a" + chunk(b"\x0a", utf8(group)) + chunk(b"\x1a", encode_data(data, data_type))
    return body + b"\x20\x01" if no_echo else body


def event_body(event: str, data: Any, data_type: str) -> bytes:
    """Return the command that sends a user event, for `finish`. Raises InvalidArgument as `encode_data` does."""
    return b"\x2a" + chunk(b"\x0a", utf8(event)) + chunk(b"\x12", encode_data(data, data_type))


def encode_sequence_ack(sequence_id: int) -> bytes:
    """Return the acknowledgement of every message up to ``sequence_id`` (client specification 3.2)."""
    return chunk(b"\x42", b"\x08" + varint(sequence_id))


def decode_client_message(data: bytes) -> ClientMessage:
    """Return the command in a frame that a client sent.

    Raises RemoteProtocolError with code 1007 for anything that breaks a rule (not a message, an unknown kind of one,
    bad group, no payload).
    """
    try:
        frame = UpstreamMessage.FromString(data)
        kind = frame.WhichOneof("kind")
        if kind is None:
            raise RemoteProtocolError("unknown or unsupported kind of message", code=1007)
        return _CLIENT_MESSAGES[kind](getattr(frame, kind))
    except MALFORMED as error:
        raise RemoteProtocolError("malformed message: %s" % error, code=1007) from None


def _read_send_to_group(command: Any) -> ClientMessage:
    if command.HasField("stream"):
        return read_start(command)
    group = check_group_name(command.group)
    data, data_type = read_payload(command)
    ttl = command.ttl_seconds
    if ttl > 300:
        raise RemoteProtocolError("ttl_seconds must be an integer from 0 to 300", code=1007)
    return SendToGroup(group, data, data_type, read_ack_id(command), command.no_echo, ttl)


def _read_event(command: Any) -> Event:
    data, data_type = read_payload(command)
    return Event(check_event_name(command.event), data, data_type, read_ack_id(command))


_PING = Ping()

_CLIENT_MESSAGES: Dict[str, Callable[[Any], ClientMessage]] = {
    "send_to_group_message": _read_send_to_group,
    "event_message": _read_event,
    "join_group_message": lambda command: JoinGroup(check_group_name(command.group), read_ack_id(command)),
    "leave_group_message": lambda command: LeaveGroup(check_group_name(command.group), read_ack_id(command)),
    "sequence_ack_message": lambda command: SequenceAck(command.sequence_id),
    "ping_message": lambda command: _PING,
    **CLIENT_MESSAGES,
}


# --- service to client ------------------------------------------------------------------------------------------------


def encode_connected(connection_id: str, user_id: Optional[str], reconnection_token: Optional[str]) -> bytes:
    """Return the first message of a connection; ``reconnection_token`` only on reliable subprotocols."""
    fields = text(b"\x0a", connection_id) + text(b"\x12", user_id) + text(b"\x1a", reconnection_token)
    return chunk(b"\x1a", chunk(b"\x0a", fields))


def encode_disconnected(message: str) -> bytes:
    """Return the announcement that the service closes the connection."""
    return chunk(b"\x1a", chunk(b"\x12", text(b"\x12", message)))


def encode_ack(ack_id: int, name: Optional[str] = None, message: str = "") -> bytes:
    """Return an acknowledgement: of success without ``name``, otherwise of the error ``name``."""
    fields = number(b"\x08", ack_id)
    if name is None:
        return chunk(b"\x0a", fields + b"\x10\x01")
    return chunk(b"\x0a", fields + encode_error(b"\x1a", StreamError(name, message)))


def encode_message(group: Optional[str], data: Any, data_type: str, stream: Optional[StreamInfo] = None) -> bytes:
    """Return the fields of a data message, for `finish_message`; ``group`` None makes it a message from the server.

    Raises InvalidArgument as `encode_data` does; but text may have lone surrogates, which JSON peers can send.
    """
    if data_type == "text":
        payload = chunk(b"\x0a", data.encode("utf-8", "replace"))
    elif data_type == "json":
        payload = chunk(b"\x22", encode_json(data).encode("utf-8", "backslashreplace"))  # JSON's own escapes
    else:
        payload = encode_data(data, data_type)
    head = b"\x0a\x06server" if group is None else b"\x0a\x05group" + text(b"\x12", group)
    fields = head + chunk(b"\x1a", payload)
    return fields if stream is None else fields + encode_info(stream)


def finish_message(fields: bytes, sequence_id: int = 0) -> bytes:
    """Return a data message, with a number for reliable receivers; its fields may stand in any order."""
    if not sequence_id:
        return chunk(b"\x12", fields)
    end = b"\x20" + varint(sequence_id)
    return b"\x12" + varint(len(fields) + len(end)) + fields + end


def decode_service_message(data: bytes) -> Decoded:
    """Return the event in a frame that the service sent, None for kinds this version does not know.

    JSON data is read from ``json_data``; documentation has it arrive as ``text_data``, and then it is text. Raises
    RemoteProtocolError for anything malformed.
    """
    try:
        frame = DownstreamMessage.FromString(data)
        kind = frame.WhichOneof("kind")
        if kind == "data_message":
            return _read_message(frame.data_message)
        if kind == "ack_message":
            return _read_ack(frame.ack_message)
        reader = _SERVICE_MESSAGES.get(kind) if kind else None
        return None if reader is None else reader(getattr(frame, kind))
    except MALFORMED as error:
        raise RemoteProtocolError("malformed message: %s" % error, code=1007) from None


def _read_message(message: Any) -> Optional[Message]:
    data, data_type = read_data(message.data)
    if not data_type:
        if message.data.ByteSize():
            return None  # a payload of a kind to come
        data_type = "text"  # some writers leave out what is empty, such as the data at the end of a stream
    origin = getattr(message, "from")
    if origin == "group":
        stream = read_info(message.stream) if message.HasField("stream") else None
        return Message("group", message.group, data, data_type, None, message.sequence_id, stream)
    if origin == "server":
        return Message("server", None, data, data_type, None, message.sequence_id)
    return None


def _read_ack(ack: Any) -> Ack:
    if ack.success:
        return Ack(ack.ack_id, True)
    # "Duplicate" says that this id was executed before: the send has succeeded (client specification 3.1.3).
    return Ack(ack.ack_id, ack.error.name == "Duplicate", ack.error.name, ack.error.message)


def _read_system(message: Any) -> Union[Connected, Disconnected, None]:
    kind = message.WhichOneof("kind")
    if kind == "connected_message":
        connected = message.connected_message
        connection_id, token = connected.connection_id, connected.reconnection_token
        if not connection_id:
            raise RemoteProtocolError("connection_id is missing", code=1007)
        return Connected(connection_id, connected.user_id or None, (connection_id, token) if token else None)
    return Disconnected(message.disconnected_message.reason) if kind == "disconnected_message" else None


_PONG = Pong()

_SERVICE_MESSAGES: Dict[str, Callable[[Any], Any]] = {
    "system_message": _read_system,
    "pong_message": lambda message: _PONG,
    **SERVICE_MESSAGES,
}
