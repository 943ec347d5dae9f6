"""The JSON wire format of Web PubSub, both directions, for the client and for the embedded server.

Subprotocols ``json.webpubsub.azure.v1`` and ``json.reliable.webpubsub.azure.v1``: one JSON object per text frame; the
reliable one adds ``sequenceId``. Pure functions over text: no socket, no state, safe from any thread.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Union

from ..core.protocol import Ack, Connected, Decoded, Disconnected, Pong
from ..exceptions import RemoteProtocolError
from . import json_streams
from .json_fields import (
    MAX_UINT64,
    decode_data,
    encode_data,
    load,
    quote,
    read_event,
    read_group,
    read_object,
    read_payload,
    read_uint64,
    shown,
)
from .messages import ClientMessage, Event, JoinGroup, LeaveGroup, Message, Ping, SendToGroup, SequenceAck, StreamInfo

__all__ = [
    "PING",
    "PONG",
    "decode_client_message",
    "decode_service_message",
    "encode_ack",
    "encode_connected",
    "encode_data",
    "encode_disconnected",
    "encode_message",
    "encode_sequence_ack",
    "event_body",
    "finish",
    "join_body",
    "leave_body",
    "send_to_group_body",
]

PING = '{"type":"ping"}'
PONG = '{"type":"pong"}'

# --- client to service ------------------------------------------------------------------------------------------------


# A command is written as a body without its end, so that it can be encoded, and refused, before it is given an ack id.


def finish(body: bytes, ack_id: Optional[int]) -> bytes:
    """Return the whole command: ``body`` with its ack id, None if no acknowledgement is wanted."""
    return body + b"}" if ack_id is None else body + b',"ackId":%d}' % ack_id


def join_body(group: str) -> str:
    """Return the command that joins ``group``, for `finish`."""
    return '{"type":"joinGroup","group":' + quote(group)


def leave_body(group: str) -> str:
    """Return the command that leaves ``group``, for `finish`."""
    return '{"type":"leaveGroup","group":' + quote(group)


def send_to_group_body(group: str, data: Any, data_type: str, no_echo: bool) -> str:
    """Return the command that publishes ``data``, for `finish`. Raises InvalidArgument as `encode_data` does."""
    return (
        '{"type":"sendToGroup","group":'
        + quote(group)
        + (',"noEcho":true,"dataType":"' if no_echo else ',"dataType":"')
        + data_type
        + '","data":'
        + (quote(data) if data_type == "text" and type(data) is str else encode_data(data, data_type))
    )


def event_body(event: str, data: Any, data_type: str) -> str:
    """Return the command that sends a user event, for `finish`. Raises InvalidArgument as `encode_data` does."""
    return '{"type":"event","event":%s,"dataType":"%s","data":' % (quote(event), data_type) + encode_data(
        data, data_type
    )


def encode_sequence_ack(sequence_id: int) -> str:
    """Return the acknowledgement of every message up to ``sequence_id`` (client specification 3.2)."""
    return '{"type":"sequenceAck","sequenceId":%d}' % sequence_id


def decode_client_message(text: str) -> ClientMessage:
    """Return the command in a frame that a client sent.

    Values of ``type`` and ``dataType`` ignore case, field names do not. Raises RemoteProtocolError with code 1007 for
    anything that breaks a rule (unknown type or data type, bad group, wrong kind of field).
    """
    frame = read_object(text)
    kind = frame.get("type")
    reader = _CLIENT_MESSAGES.get(kind.lower()) if isinstance(kind, str) else None
    if reader is None:
        raise RemoteProtocolError("unknown message type %s" % shown(kind), code=1007)
    return reader(frame)


def _read_send_to_group(frame: Dict[str, Any]) -> ClientMessage:
    if frame.get("stream") is not None:
        return json_streams.read_start(frame)
    data, data_type = read_payload(frame)
    no_echo = frame.get("noEcho", False)
    if not isinstance(no_echo, bool):
        raise RemoteProtocolError("noEcho must be true or false", code=1007)
    ttl = frame.get("ttlSeconds", 0)
    if type(ttl) is not int or not 0 <= ttl <= 300:
        raise RemoteProtocolError("ttlSeconds must be an integer from 0 to 300", code=1007)
    return SendToGroup(read_group(frame), data, data_type, read_uint64(frame, "ackId"), no_echo, ttl)


def _read_event(frame: Dict[str, Any]) -> Event:
    data, data_type = read_payload(frame)
    return Event(read_event(frame), data, data_type, read_uint64(frame, "ackId"))


def _read_sequence_ack(frame: Dict[str, Any]) -> SequenceAck:
    sequence_id = read_uint64(frame, "sequenceId")
    if sequence_id is None:
        raise RemoteProtocolError("sequenceId is missing", code=1007)
    return SequenceAck(sequence_id)


_PING = Ping()

_CLIENT_MESSAGES: Dict[str, Callable[[Dict[str, Any]], ClientMessage]] = {
    "joingroup": lambda frame: JoinGroup(read_group(frame), read_uint64(frame, "ackId")),
    "leavegroup": lambda frame: LeaveGroup(read_group(frame), read_uint64(frame, "ackId")),
    "sendtogroup": _read_send_to_group,
    "event": _read_event,
    "sequenceack": _read_sequence_ack,
    "ping": lambda frame: _PING,
    **json_streams.CLIENT_MESSAGES,
}


# --- service to client ------------------------------------------------------------------------------------------------


def encode_connected(connection_id: str, user_id: Optional[str], reconnection_token: Optional[str]) -> str:
    """Return the first message of a connection; ``reconnection_token`` only on reliable subprotocols."""
    text = '{"type":"system","event":"connected","userId":%s,"connectionId":%s' % (
        "null" if user_id is None else quote(user_id),
        quote(connection_id),
    )
    return text + ("}" if reconnection_token is None else ',"reconnectionToken":%s}' % quote(reconnection_token))


def encode_disconnected(message: str) -> str:
    """Return the announcement that the service closes the connection."""
    return '{"type":"system","event":"disconnected","message":%s}' % quote(message)


def encode_ack(ack_id: int, name: Optional[str] = None, message: str = "") -> str:
    """Return an acknowledgement: of success without ``name``, otherwise of the error ``name``."""
    if name is None:
        return '{"type":"ack","ackId":%d,"success":true}' % ack_id
    return '{"type":"ack","ackId":%d,"success":false,"error":{"name":%s,"message":%s}}' % (
        ack_id,
        quote(name),
        quote(message),
    )


def encode_message(
    group: Optional[str], from_user_id: Optional[str], data: Any, data_type: str, stream: Optional[StreamInfo] = None
) -> str:
    """Return a data message without sequence id; ``group`` None makes it a message from the server.

    A reliable connection inserts its own number: ``text[:-1] + ',"sequenceId":%d}'``, so that one message is
    serialised once however many receivers it has.
    """
    if group is None:
        head = '{"type":"message","from":"server"'
    else:
        head = '{"type":"message","from":"group","group":%s,"fromUserId":%s' % (
            quote(group),
            "null" if from_user_id is None else quote(from_user_id),
        )
    text = head + ',"dataType":"' + data_type + '","data":' + encode_data(data, data_type)
    return text + ("}" if stream is None else ',"stream":%s}' % json_streams.encode_info(stream))


def decode_service_message(text: str) -> Decoded:
    """Return the event in a frame that the service sent, None for kinds this version does not know.

    Unknown ``type``, ``event`` and ``from`` values are ignored, as the official JavaScript client does, so that a
    newer service does not break an older client. Raises RemoteProtocolError for anything malformed.
    """
    try:
        frame = load(text)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("not JSON: %s" % error, code=1007) from None
    try:
        kind = frame["type"]
        if kind == "message":
            return _read_message(frame)
        if kind == "ack":
            return _read_ack(frame)
        if kind == "system":
            return _read_system(frame)
        if kind == "pong":
            return _PONG
        reader = json_streams.SERVICE_MESSAGES.get(kind)
        return None if reader is None else reader(frame)
    except RemoteProtocolError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RemoteProtocolError("malformed message (%s: %s)" % (type(error).__name__, error), code=1007) from None


_PONG = Pong()


def _read_message(frame: Dict[str, Any]) -> Optional[Message]:
    data_type = frame.get("dataType", "json")
    data = frame["data"] if "data" in frame else ""
    if data_type != "text" or type(data) is not str:
        if data_type not in ("json", "text", "binary", "protobuf"):
            return None
        data = decode_data(data, data_type)
    sequence_id = frame.get("sequenceId", 0)
    if type(sequence_id) is not int or not 0 <= sequence_id <= MAX_UINT64:
        sequence_id = read_uint64(frame, "sequenceId") or 0
    origin = frame["from"]
    if origin == "group":
        group, user = frame["group"], frame.get("fromUserId")
        if type(group) is not str or (user is not None and type(user) is not str):
            raise RemoteProtocolError("group and fromUserId must be strings", code=1007)
        stream = frame.get("stream")
        if stream is not None:
            stream = json_streams.read_info(stream)
        return Message("group", group, data, data_type, user, sequence_id, stream)
    if origin == "server":
        return Message("server", None, data, data_type, None, sequence_id)
    return None


def _read_ack(frame: Dict[str, Any]) -> Ack:
    ack_id, success = frame["ackId"], frame["success"]
    if type(ack_id) is not int:
        ack_id = read_uint64(frame, "ackId")
    if ack_id is None or not isinstance(success, bool):
        raise RemoteProtocolError("ackId must be an unsigned 64-bit integer, success true or false", code=1007)
    if success:
        return Ack(ack_id, True)
    error = frame.get("error") or {}
    name = str(error.get("name") or "")
    # "Duplicate" says that this id was executed before: the send has succeeded (client specification 3.1.3).
    return Ack(ack_id, name == "Duplicate", name, str(error.get("message") or ""))


def _read_system(frame: Dict[str, Any]) -> Union[Connected, Disconnected, None]:
    event = frame["event"]
    if event == "connected":
        connection_id, user, token = frame["connectionId"], frame.get("userId"), frame.get("reconnectionToken")
        if not isinstance(connection_id, str) or not connection_id:
            raise RemoteProtocolError("connectionId must be a string, and not empty", code=1007)
        if not isinstance(user or "", str) or not isinstance(token or "", str):
            raise RemoteProtocolError("userId and reconnectionToken must be strings", code=1007)
        return Connected(connection_id, user, (connection_id, token) if token else None)
    if event == "disconnected":
        return Disconnected(str(frame.get("message") or ""))
    return None
