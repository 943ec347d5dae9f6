"""Streams on the protobuf subprotocols: their messages, both directions (client specification 3.6).

Pure functions, safe from any thread. `protobuf_codec` puts the tables at the end of this module beside its own.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional

from ..exceptions import InvalidArgument, RemoteProtocolError
from ..transports.frames import utf8
from .json_fields import check_group_name
from .messages import (
    DEFAULT_STREAM_IDLE_MS,
    StreamAck,
    StreamClosed,
    StreamData,
    StreamEnd,
    StreamError,
    StreamInfo,
    StreamNack,
    StreamStart,
)
from .protobuf_fields import chunk, number, text, varint
from .protobuf_payload import encode_data, read_ack_id, read_payload

__all__ = [
    "CLIENT_MESSAGES",
    "SERVICE_MESSAGES",
    "encode_error",
    "encode_info",
    "encode_stream_ack",
    "encode_stream_closed",
    "encode_stream_nack",
    "read_info",
    "read_start",
    "stream_data_body",
    "stream_end_body",
    "stream_start_body",
]

# --- errors and ids ---------------------------------------------------------------------------------------------------


def encode_error(tag: bytes, error: Optional[StreamError]) -> bytes:
    """Return an error field with a name, nothing for None."""
    if error is None:
        return b""
    fields = text(b"\x0a", error.name) + text(b"\x12", error.message)
    if error.user_error_code is not None:
        fields += chunk(b"\x1a", error.user_error_code.encode("utf-8", "replace"))
    return chunk(tag, fields)


def _read_error(message: Any) -> Optional[StreamError]:
    if not message.HasField("error"):
        return None
    return StreamError(message.error.name, message.error.message, _code(message.error))


def _code(error: Any) -> Optional[str]:
    return error.user_error_code if error.HasField("user_error_code") else None


def _stream_id(message: Any) -> str:
    stream_id: str = message.stream_id
    if not stream_id:
        raise RemoteProtocolError("stream_id is missing", code=1007)
    return stream_id


# --- client to service: bodies for `protobuf_codec.finish`, and their readers -----------------------------------------


def stream_start_body(group: str, stream_id: str, no_echo: bool, idle_timeout_ms: int) -> bytes:
    """Return the command that opens a stream (client specification 3.6.1). Raises InvalidArgument for the timeout."""
    if not 0 < idle_timeout_ms < 2**32:
        raise InvalidArgument("an idle timeout must have 1 to 2**32-1 milliseconds, not %d" % idle_timeout_ms)
    info = chunk(b"\x0a", utf8(stream_id))
    if idle_timeout_ms != DEFAULT_STREAM_IDLE_MS:
        info += b"\x10" + varint(idle_timeout_ms)
    return b"\x0a" + chunk(b"\x0a", utf8(group)) + (b"\x20\x01" if no_echo else b"") + chunk(b"\x3a", info)


def stream_data_body(stream_id: str, sequence_id: Optional[int] = None, data: Any = None, data_type: str = "") -> bytes:
    """Return a fragment, or without ``sequence_id`` a keep-alive. Raises InvalidArgument as `encode_data` does."""
    body = b"\x6a" + chunk(b"\x0a", utf8(stream_id))
    if sequence_id is None:
        return body
    return body + b"\x10" + varint(sequence_id) + chunk(b"\x1a", encode_data(data, data_type))


def stream_end_body(stream_id: str, error: Optional[StreamError] = None) -> bytes:
    """Return the end of a stream; the name of the ``error`` is not sent (client specification 3.6.3.2)."""
    body = b"\x72" + chunk(b"\x0a", utf8(stream_id))
    if error is None:
        return body
    fields = chunk(b"\x0a", utf8(error.message))
    if error.user_error_code is not None:
        fields += chunk(b"\x12", utf8(error.user_error_code))
    return body + chunk(b"\x12", fields)


def read_start(command: Any) -> StreamStart:
    """Return the start of a stream from a SendToGroupMessage that has the field ``stream``."""
    stream = command.stream
    idle = stream.idle_timeout_ms if stream.HasField("idle_timeout_ms") else DEFAULT_STREAM_IDLE_MS
    return StreamStart(
        check_group_name(command.group),
        _stream_id(stream),
        command.no_echo,
        idle,
        read_ack_id(command),
        command.HasField("data"),
    )


def _read_stream_data(command: Any) -> StreamData:
    stream_id = _stream_id(command)
    if not command.HasField("stream_sequence_id"):
        if command.HasField("data"):
            raise RemoteProtocolError("stream data needs stream_sequence_id", code=1007)
        return StreamData(stream_id)
    data, data_type = read_payload(command)
    return StreamData(stream_id, command.stream_sequence_id, data, data_type)


def _read_stream_end(command: Any) -> StreamEnd:
    error = None
    if command.HasField("error"):
        error = StreamError("UserError", command.error.message, _code(command.error))
    return StreamEnd(_stream_id(command), error)


# --- service to client ------------------------------------------------------------------------------------------------


def encode_stream_ack(stream_id: str, expected: int) -> bytes:
    """Return the acknowledgement of everything below ``expected``."""
    return chunk(b"\x32", text(b"\x0a", stream_id) + number(b"\x10", expected))


def encode_stream_nack(stream_id: str, expected: int, name: str, message: str) -> bytes:
    """Return the refusal of a fragment; the stream goes on at ``expected``."""
    words = text(b"\x0a", stream_id) + text(b"\x12", name) + text(b"\x1a", message)
    return chunk(b"\x3a", words + number(b"\x20", expected))


def encode_stream_closed(stream_id: str, error: Optional[StreamError] = None) -> bytes:
    """Return the end of a stream, for its publisher."""
    return chunk(b"\x42", text(b"\x0a", stream_id) + encode_error(b"\x12", error))


def encode_info(info: StreamInfo) -> bytes:
    """Return the ``stream`` field of a data message."""
    fields = text(b"\x0a", info.stream_id) + number(b"\x10", info.sequence_id)
    if info.end_of_stream:
        fields += b"\x18\x01"
    return chunk(b"\x32", fields + encode_error(b"\x22", info.error))


def read_info(info: Any) -> StreamInfo:
    """Return the ``stream`` field of a data message."""
    return StreamInfo(_stream_id(info), info.stream_sequence_id, info.end_of_stream, _read_error(info))


#: Readers by the name of the field.
CLIENT_MESSAGES: Dict[str, Callable[[Any], Any]] = {
    "stream_data_message": _read_stream_data,
    "stream_end_message": _read_stream_end,
}

#: Readers by the name of the field.
SERVICE_MESSAGES: Dict[str, Callable[[Any], Any]] = {
    "stream_ack_message": lambda message: StreamAck(_stream_id(message), message.expected_sequence_id),
    "stream_nack_message": lambda message: StreamNack(
        _stream_id(message), message.expected_sequence_id, message.name, message.message
    ),
    "stream_closed_message": lambda message: StreamClosed(_stream_id(message), _read_error(message)),
}
