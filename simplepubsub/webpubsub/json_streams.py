"""Streams and invocations on the JSON subprotocols: their messages, both directions.

They have answers of their own instead of acks (client specification 3.6 for streams; invocations as the official
JavaScript client sends them, protocol reference 2.6). Pure functions over text, safe from any thread. `json_codec` puts
the tables at the end of this module beside its own.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional

from ..exceptions import RemoteProtocolError
from .json_fields import encode_data, quote, read_event, read_group, read_payload, read_uint64, shown
from .messages import (
    DEFAULT_STREAM_IDLE_MS,
    CancelInvocation,
    Invoke,
    InvokeResponse,
    StreamAck,
    StreamClosed,
    StreamData,
    StreamEnd,
    StreamError,
    StreamInfo,
    StreamNack,
    StreamStart,
)

__all__ = [
    "CLIENT_MESSAGES",
    "SERVICE_MESSAGES",
    "cancel_body",
    "encode_info",
    "encode_invoke_response",
    "encode_stream_ack",
    "encode_stream_closed",
    "encode_stream_nack",
    "invoke_body",
    "read_info",
    "read_start",
    "stream_data_body",
    "stream_end_body",
    "stream_start_body",
]


def _text(frame: Dict[str, Any], name: str, default: Optional[str] = None) -> str:
    """Return a string field; without a ``default`` it must be there and not empty."""
    value = frame.get(name, default)
    if value is None:
        value = default
    if not isinstance(value, str) or (default is None and not value):
        raise RemoteProtocolError("%s must be a string, not %s" % (name, shown(value)), code=1007)
    return value


def _number(frame: Dict[str, Any], name: str) -> int:
    value = read_uint64(frame, name)
    if value is None:
        raise RemoteProtocolError("%s is missing" % name, code=1007)
    return value


# --- errors -----------------------------------------------------------------------------------------------------------


def _read_error(value: Any, name: Optional[str] = None) -> Optional[StreamError]:
    """Return an error object; ``name`` is for errors of publishers, which have none of their own."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RemoteProtocolError("error must be an object", code=1007)
    code = value.get("userErrorCode")
    if code is not None and not isinstance(code, str):
        raise RemoteProtocolError("userErrorCode must be a string", code=1007)
    return StreamError(name or _text(value, "name", ""), _text(value, "message", ""), code)


def _encode_error(error: StreamError, with_name: bool = True) -> str:
    fields = ['"name":' + quote(error.name)] if with_name else []
    fields.append('"message":' + quote(error.message))
    if error.user_error_code is not None:
        fields.append('"userErrorCode":' + quote(error.user_error_code))
    return "{%s}" % ",".join(fields)


# --- client to service: bodies for `json_codec.finish`, and their readers ---------------------------------------------


def stream_start_body(group: str, stream_id: str, no_echo: bool, idle_timeout_ms: int) -> str:
    """Return the command that opens a stream (client specification 3.6.1)."""
    return '{"type":"sendToGroup","group":%s%s,"stream":{"streamId":%s,"idleTimeoutMs":%d}' % (
        quote(group),
        ',"noEcho":true' if no_echo else "",
        quote(stream_id),
        idle_timeout_ms,
    )


def stream_data_body(stream_id: str, sequence_id: Optional[int] = None, data: Any = None, data_type: str = "") -> str:
    """Return a fragment, or without ``sequence_id`` a keep-alive. Raises InvalidArgument as `encode_data` does."""
    text = '{"type":"streamData","streamId":' + quote(stream_id)
    if sequence_id is None:
        return text
    return text + ',"streamSequenceId":%d,"dataType":"%s","data":' % (sequence_id, data_type) + encode_data(
        data, data_type
    )


def stream_end_body(stream_id: str, error: Optional[StreamError] = None) -> str:
    """Return the end of a stream; the name of the ``error`` is not sent (client specification 3.6.3.2)."""
    text = '{"type":"streamEnd","streamId":' + quote(stream_id)
    return text if error is None else text + ',"error":' + _encode_error(error, with_name=False)


def invoke_body(invocation_id: str, event: str, data: Any, data_type: Optional[str]) -> str:
    """Return an invocation; ``data_type`` None sends no payload. Raises InvalidArgument as `encode_data` does."""
    text = '{"type":"invoke","invocationId":%s,"target":"event","event":%s' % (quote(invocation_id), quote(event))
    if data_type is None:
        return text
    return text + ',"dataType":"%s","data":' % data_type + encode_data(data, data_type)


def cancel_body(invocation_id: str) -> str:
    """Return the message that gives up an invocation."""
    return '{"type":"cancelInvocation","invocationId":' + quote(invocation_id)


def read_start(frame: Dict[str, Any]) -> StreamStart:
    """Return the start of a stream from a sendToGroup that has the field ``stream``."""
    stream = frame["stream"]
    if not isinstance(stream, dict):
        raise RemoteProtocolError("stream must be an object", code=1007)
    idle = stream.get("idleTimeoutMs", DEFAULT_STREAM_IDLE_MS)
    if type(idle) is not int:
        raise RemoteProtocolError("idleTimeoutMs must be an integer", code=1007)
    no_echo = frame.get("noEcho", False)
    if not isinstance(no_echo, bool):
        raise RemoteProtocolError("noEcho must be true or false", code=1007)
    has_data = frame.get("data") is not None or frame.get("dataType") is not None
    ack_id = read_uint64(frame, "ackId")
    return StreamStart(read_group(frame), _text(stream, "streamId"), no_echo, idle, ack_id, has_data)


def _read_data(frame: Dict[str, Any]) -> StreamData:
    stream_id, sequence_id = _text(frame, "streamId"), read_uint64(frame, "streamSequenceId")
    if sequence_id is None:
        if frame.get("data") is not None or frame.get("dataType") is not None:
            raise RemoteProtocolError("streamData with data needs streamSequenceId", code=1007)
        return StreamData(stream_id)
    if frame.get("dataType") is None:
        raise RemoteProtocolError("streamData with streamSequenceId needs dataType", code=1007)
    data, data_type = read_payload(frame)
    return StreamData(stream_id, sequence_id, data, data_type)


def _read_end(frame: Dict[str, Any]) -> StreamEnd:
    return StreamEnd(_text(frame, "streamId"), _read_error(frame.get("error"), "UserError"))


def _read_invoke(frame: Dict[str, Any]) -> Invoke:
    target = frame.get("target", "event")
    if target != "event":
        raise RemoteProtocolError("unknown target %s" % shown(target), code=1007)
    invocation_id, event = _text(frame, "invocationId"), read_event(frame)
    if frame.get("data") is None and frame.get("dataType") is None:
        return Invoke(invocation_id, event)
    data, data_type = read_payload(frame)
    return Invoke(invocation_id, event, data, data_type)


def _read_cancel(frame: Dict[str, Any]) -> CancelInvocation:
    return CancelInvocation(_text(frame, "invocationId"))


# --- service to client ------------------------------------------------------------------------------------------------


def encode_stream_ack(stream_id: str, expected: int) -> str:
    """Return the acknowledgement of everything below ``expected``."""
    return '{"type":"streamAck","streamId":%s,"expectedSequenceId":%d}' % (quote(stream_id), expected)


def encode_stream_nack(stream_id: str, expected: int, name: str, message: str) -> str:
    """Return the refusal of a fragment; the stream goes on at ``expected``."""
    return '{"type":"streamNack","streamId":%s,"expectedSequenceId":%d,"name":%s,"message":%s}' % (
        quote(stream_id),
        expected,
        quote(name),
        quote(message),
    )


def encode_stream_closed(stream_id: str, error: Optional[StreamError] = None) -> str:
    """Return the end of a stream, for its publisher."""
    text = '{"type":"streamClosed","streamId":' + quote(stream_id)
    return text + ("}" if error is None else ',"error":%s}' % _encode_error(error))


def encode_info(info: StreamInfo) -> str:
    """Return the ``stream`` member of a data message."""
    text = '{"streamId":%s,"streamSequenceId":%d' % (quote(info.stream_id), info.sequence_id)
    if info.end_of_stream:
        text += ',"endOfStream":true'
    return text + ("}" if info.error is None else ',"error":%s}' % _encode_error(info.error))


def encode_invoke_response(response: InvokeResponse) -> str:
    """Return the answer to an invocation. Raises InvalidArgument as `encode_data` does."""
    text = '{"type":"invokeResponse","invocationId":%s,"success":' % quote(response.invocation_id)
    if not response.success:
        return text + 'false,"error":{"name":%s,"message":%s}}' % (quote(response.name), quote(response.message))
    if response.data_type is None:
        return text + "true}"
    return text + 'true,"dataType":"%s","data":%s}' % (
        response.data_type,
        encode_data(response.data, response.data_type),
    )


def read_info(value: Any) -> StreamInfo:
    """Return the ``stream`` member of a data message."""
    if not isinstance(value, dict):
        raise RemoteProtocolError("stream must be an object", code=1007)
    end = value.get("endOfStream") or False
    if not isinstance(end, bool):
        raise RemoteProtocolError("endOfStream must be true or false", code=1007)
    return StreamInfo(
        _text(value, "streamId"), _number(value, "streamSequenceId"), end, _read_error(value.get("error"))
    )


def _read_stream_ack(frame: Dict[str, Any]) -> StreamAck:
    return StreamAck(_text(frame, "streamId"), _number(frame, "expectedSequenceId"))


def _read_stream_nack(frame: Dict[str, Any]) -> StreamNack:
    expected = _number(frame, "expectedSequenceId")
    return StreamNack(_text(frame, "streamId"), expected, _text(frame, "name", ""), _text(frame, "message", ""))


def _read_stream_closed(frame: Dict[str, Any]) -> StreamClosed:
    return StreamClosed(_text(frame, "streamId"), _read_error(frame.get("error")))


def _read_invoke_response(frame: Dict[str, Any]) -> InvokeResponse:
    invocation_id, success = _text(frame, "invocationId"), frame.get("success")
    if success is True:
        if frame.get("data") is None and frame.get("dataType") is None:
            return InvokeResponse(invocation_id, True)
        data, data_type = read_payload(frame)
        return InvokeResponse(invocation_id, True, data, data_type)
    if success is not False:
        raise RemoteProtocolError("success must be true or false", code=1007)
    error = _read_error(frame.get("error")) or StreamError("")
    return InvokeResponse(invocation_id, False, name=error.name, message=error.message)


#: Readers by the value of ``type``, in lower case.
CLIENT_MESSAGES: Dict[str, Callable[[Dict[str, Any]], Any]] = {
    "streamdata": _read_data,
    "streamend": _read_end,
    "invoke": _read_invoke,
    "cancelinvocation": _read_cancel,
}

#: Readers by the value of ``type``, as the service writes it.
SERVICE_MESSAGES: Dict[Any, Callable[[Dict[str, Any]], Any]] = {
    "streamAck": _read_stream_ack,
    "streamNack": _read_stream_nack,
    "streamClosed": _read_stream_closed,
    "invokeResponse": _read_invoke_response,
}
