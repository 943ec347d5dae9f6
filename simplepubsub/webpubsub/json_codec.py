"""The JSON wire format of Web PubSub, both directions, for the client and for the embedded server.

Subprotocols ``json.webpubsub.azure.v1`` and ``json.reliable.webpubsub.azure.v1``: one JSON object per text frame; the
reliable one adds ``sequenceId``. Pure functions over text: no socket, no state, safe from any thread.

Two measured choices (CPython 3.11, 227-byte message): frames are read by the C scanner of the standard library called
directly (1.0 us, ``json.loads`` 2.0 us), and written by joining pieces around the C string encoder. ``orjson`` reads in
0.5 us but turns integers beyond 64 bits into floats and NaN into null without a word, so it is not used.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from json.encoder import encode_basestring as _quote
from typing import Any, Callable, Dict, NoReturn, Optional, Union

from ..core.protocol import Ack, Connected, Decoded, Disconnected, Pong
from ..exceptions import InvalidArgument, RemoteProtocolError
from .messages import MAX_GROUP_NAME, Event, JoinGroup, LeaveGroup, Message, Ping, SendToGroup, SequenceAck

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

#: Ack ids and sequence ids are unsigned 64-bit integers (client specification 3.1, 3.2).
MAX_UINT64 = 2**64 - 1

#: A user event: a letter, then letters, digits, "_", ".", "-"; at most 128 characters.
EVENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,127}\Z")


def _reject_constant(name: str) -> NoReturn:
    raise ValueError("%s is not JSON" % name)


_raw_decode = json.JSONDecoder(parse_constant=_reject_constant).raw_decode
_dump = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _load(text: str) -> Any:
    value, end = _raw_decode(text, 0) if text[:1] == "{" else (None, -1)
    if end != len(text):
        # White space around the object, or not an object at all: the slow way says which.
        value = json.loads(text, parse_constant=_reject_constant)
    return value


# --- payloads ---------------------------------------------------------------------------------------------------------


def encode_data(data: Any, data_type: str) -> str:
    """Return the JSON text of a payload.

    Raises InvalidArgument when ``data`` does not fit ``data_type``: "text" takes str, "binary" and "protobuf" take
    bytes-like objects, "json" takes what JSON can carry (no NaN, no cycles, no lone surrogates).
    """
    if data_type == "text":
        if not isinstance(data, str):
            raise InvalidArgument(
                "data of type %s cannot be sent as text: pass a str, or data_type='json'" % type(data).__name__
            )
        return _quote(data)
    if data_type == "json":
        if data is None:
            raise InvalidArgument("data None cannot be sent as JSON: the service refuses a bare null")
        try:
            return _dump(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgument(
                "data of type %s cannot be sent as JSON (%s): pass dict, list, str, int, finite float, bool or None"
                % (type(data).__name__, error)
            ) from error
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise InvalidArgument(
            "data of type %s cannot be sent as %s: pass bytes, bytearray or memoryview"
            % (type(data).__name__, data_type)
        )
    if isinstance(data, memoryview):
        data = data.tobytes()  # a view may skip elements, which the encoder cannot read
    return '"%s"' % base64.b64encode(data).decode("ascii")


def _decode_data(data: Any, data_type: str) -> Any:
    if data_type == "json":
        return data
    if not isinstance(data, str):
        raise RemoteProtocolError("data of type %s must be a JSON string" % data_type, code=1007)
    if data_type == "text":
        return data
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise RemoteProtocolError("data of type %s is not base64" % data_type, code=1007) from None


# --- client to service ------------------------------------------------------------------------------------------------


# A command is written as a body without its end, so that it can be encoded, and refused, before it is given an ack id.


def finish(body: bytes, ack_id: Optional[int]) -> bytes:
    """Return the whole command: ``body`` with its ack id, None if no acknowledgement is wanted."""
    return body + b"}" if ack_id is None else body + b',"ackId":%d}' % ack_id


def join_body(group: str) -> str:
    """Return the command that joins ``group``, for `finish`."""
    return '{"type":"joinGroup","group":' + _quote(group)


def leave_body(group: str) -> str:
    """Return the command that leaves ``group``, for `finish`."""
    return '{"type":"leaveGroup","group":' + _quote(group)


def send_to_group_body(group: str, data: Any, data_type: str, no_echo: bool) -> str:
    """Return the command that publishes ``data``, for `finish`. Raises InvalidArgument as `encode_data` does."""
    return (
        '{"type":"sendToGroup","group":'
        + _quote(group)
        + (',"noEcho":true,"dataType":"' if no_echo else ',"dataType":"')
        + data_type
        + '","data":'
        + (_quote(data) if data_type == "text" and type(data) is str else encode_data(data, data_type))
    )


def event_body(event: str, data: Any, data_type: str) -> str:
    """Return the command that sends a user event, for `finish`. Raises InvalidArgument as `encode_data` does."""
    return '{"type":"event","event":%s,"dataType":"%s","data":' % (_quote(event), data_type) + encode_data(
        data, data_type
    )


def encode_sequence_ack(sequence_id: int) -> str:
    """Return the acknowledgement of every message up to ``sequence_id`` (client specification 3.2)."""
    return '{"type":"sequenceAck","sequenceId":%d}' % sequence_id


ClientMessage = Union[JoinGroup, LeaveGroup, SendToGroup, Event, SequenceAck, Ping]


def decode_client_message(text: str) -> ClientMessage:
    """Return the command in a frame that a client sent.

    Values of ``type`` and ``dataType`` ignore case, field names do not. Raises RemoteProtocolError with code 1007 for
    anything that breaks a rule (unknown type or data type, bad group, wrong kind of field).
    """
    try:
        frame = _load(text)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("not JSON: %s" % error, code=1007) from None
    if not isinstance(frame, dict):
        raise RemoteProtocolError("a message must be a JSON object", code=1007)
    kind = frame.get("type")
    reader = _CLIENT_MESSAGES.get(kind.lower()) if isinstance(kind, str) else None
    if reader is None:
        raise RemoteProtocolError("unknown message type %s" % _shown(kind), code=1007)
    return reader(frame)


def _shown(value: Any) -> str:
    """Return a value from the wire for an error text: quoted, ASCII, short enough for a close reason."""
    return ascii(value)[:40]


def _uint64(frame: Dict[str, Any], name: str) -> Optional[int]:
    value = frame.get(name)
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= 20 and value.isdigit() and value.isascii():
        value = int(value)  # an older page of the documentation shows sequence ids quoted
    if type(value) is not int or not 0 <= value <= MAX_UINT64:
        raise RemoteProtocolError("%s must be an unsigned 64-bit integer" % name, code=1007)
    return value


def _group(frame: Dict[str, Any]) -> str:
    group = frame.get("group")
    if not isinstance(group, str) or not group.strip() or len(group) > MAX_GROUP_NAME:
        raise RemoteProtocolError("group must be a name of 1 to %d characters" % MAX_GROUP_NAME, code=1007)
    return group


def _payload(frame: Dict[str, Any]) -> "tuple[Any, str]":
    data_type = frame.get("dataType", "json")
    if not isinstance(data_type, str) or data_type.lower() not in ("json", "text", "binary", "protobuf"):
        raise RemoteProtocolError("unknown dataType %s" % _shown(data_type), code=1007)
    data_type = data_type.lower()
    if frame.get("data") is None:
        raise RemoteProtocolError("data is missing", code=1007)
    return _decode_data(frame["data"], data_type), data_type


def _read_send_to_group(frame: Dict[str, Any]) -> SendToGroup:
    data, data_type = _payload(frame)
    no_echo = frame.get("noEcho", False)
    if not isinstance(no_echo, bool):
        raise RemoteProtocolError("noEcho must be true or false", code=1007)
    ttl = frame.get("ttlSeconds", 0)
    if type(ttl) is not int or not 0 <= ttl <= 300:
        raise RemoteProtocolError("ttlSeconds must be an integer from 0 to 300", code=1007)
    return SendToGroup(_group(frame), data, data_type, _uint64(frame, "ackId"), no_echo, ttl)


def _read_event(frame: Dict[str, Any]) -> Event:
    event = frame.get("event")
    if not isinstance(event, str) or not EVENT_NAME.match(event):
        raise RemoteProtocolError("bad event name %s" % _shown(event), code=1007)
    data, data_type = _payload(frame)
    return Event(event, data, data_type, _uint64(frame, "ackId"))


def _read_sequence_ack(frame: Dict[str, Any]) -> SequenceAck:
    sequence_id = _uint64(frame, "sequenceId")
    if sequence_id is None:
        raise RemoteProtocolError("sequenceId is missing", code=1007)
    return SequenceAck(sequence_id)


_PING = Ping()

_CLIENT_MESSAGES: Dict[str, Callable[[Dict[str, Any]], ClientMessage]] = {
    "joingroup": lambda frame: JoinGroup(_group(frame), _uint64(frame, "ackId")),
    "leavegroup": lambda frame: LeaveGroup(_group(frame), _uint64(frame, "ackId")),
    "sendtogroup": _read_send_to_group,
    "event": _read_event,
    "sequenceack": _read_sequence_ack,
    "ping": lambda frame: _PING,
}


# --- service to client ------------------------------------------------------------------------------------------------


def encode_connected(connection_id: str, user_id: Optional[str], reconnection_token: Optional[str]) -> str:
    """Return the first message of a connection; ``reconnection_token`` only on reliable subprotocols."""
    text = '{"type":"system","event":"connected","userId":%s,"connectionId":%s' % (
        "null" if user_id is None else _quote(user_id),
        _quote(connection_id),
    )
    return text + ("}" if reconnection_token is None else ',"reconnectionToken":%s}' % _quote(reconnection_token))


def encode_disconnected(message: str) -> str:
    """Return the announcement that the service closes the connection."""
    return '{"type":"system","event":"disconnected","message":%s}' % _quote(message)


def encode_ack(ack_id: int, name: Optional[str] = None, message: str = "") -> str:
    """Return an acknowledgement: of success without ``name``, otherwise of the error ``name``."""
    if name is None:
        return '{"type":"ack","ackId":%d,"success":true}' % ack_id
    return '{"type":"ack","ackId":%d,"success":false,"error":{"name":%s,"message":%s}}' % (
        ack_id,
        _quote(name),
        _quote(message),
    )


def encode_message(group: Optional[str], from_user_id: Optional[str], data: Any, data_type: str) -> str:
    """Return a data message without sequence id; ``group`` None makes it a message from the server.

    A reliable connection inserts its own number: ``text[:-1] + ',"sequenceId":%d}'``, so that one message is
    serialised once however many receivers it has.
    """
    if group is None:
        head = '{"type":"message","from":"server"'
    else:
        head = '{"type":"message","from":"group","group":%s,"fromUserId":%s' % (
            _quote(group),
            "null" if from_user_id is None else _quote(from_user_id),
        )
    return head + ',"dataType":"' + data_type + '","data":' + encode_data(data, data_type) + "}"


def decode_service_message(text: str) -> Decoded:
    """Return the event in a frame that the service sent, None for kinds this version does not know.

    Unknown ``type``, ``event`` and ``from`` values are ignored, as the official JavaScript client does, so that a
    newer service does not break an older client. Raises RemoteProtocolError for anything malformed.
    """
    try:
        frame = _load(text)
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
        return _PONG if kind == "pong" else None
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
        data = _decode_data(data, data_type)
    sequence_id = frame.get("sequenceId", 0)
    if type(sequence_id) is not int or not 0 <= sequence_id <= MAX_UINT64:
        sequence_id = _uint64(frame, "sequenceId") or 0
    origin = frame["from"]
    if origin == "group":
        group, user = frame["group"], frame.get("fromUserId")
        if type(group) is not str or (user is not None and type(user) is not str):
            raise RemoteProtocolError("group and fromUserId must be strings", code=1007)
        return Message("group", group, data, data_type, user, sequence_id, frame.get("stream"))
    if origin == "server":
        return Message("server", None, data, data_type, None, sequence_id)
    return None


def _read_ack(frame: Dict[str, Any]) -> Ack:
    ack_id, success = frame["ackId"], frame["success"]
    if type(ack_id) is not int:
        ack_id = _uint64(frame, "ackId")
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
