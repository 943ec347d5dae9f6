"""The rules of the Web PubSub subprotocols, as the engine's `Protocol`.

Beside what the engine asks for, each has the encoders of the client's commands (`WebPubSubProtocol`): they return a
*body*, which `finish` makes a frame once the ack id is known.
"""

from __future__ import annotations

from typing import Any, Optional
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..core.protocol import Decoded, Frame, Protocol, Resume
from ..exceptions import InvalidArgument, RemoteProtocolError
from ..transports.frames import BINARY, TEXT
from ..transports.redact import redact_text, redact_url
from . import json_codec, json_streams
from .arguments import encode_checked
from .messages import StreamError

__all__ = ["JsonProtocol", "WebPubSubProtocol", "protocol_named"]

_PING: Frame = (TEXT, json_codec.PING)

#: The service remembers the ack ids of the last 1,000 successful commands of a connection (protocol reference 2.4).
#: With more of them unanswered at a cut it would execute the oldest a second time.
REMEMBERED_ACK_IDS = 1000


class WebPubSubProtocol(Protocol):
    """What all subprotocols share; ``name`` is the full name.

    The ``*_body`` methods raise MessageTooLarge, and InvalidArgument for data that the format cannot carry.
    """

    def __init__(self, name: str, reliable: bool) -> None:
        self.name = name
        self.reliable = reliable
        self.max_in_flight = REMEMBERED_ACK_IDS if reliable else None
        self.subprotocols = (name,)

    def url(self, base: str, resume: Resume) -> str:
        """Return ``base``, or for a recovery the URL with both ids and no token (client specification 1.4)."""
        if resume is None:
            return base
        connection_id, token = resume
        parts = urlsplit(base)
        query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "access_token"]
        query += [("awps_connection_id", connection_id), ("awps_reconnection_token", token)]
        return urlunsplit(parts._replace(query=urlencode(query)))

    def shown_url(self, url: str) -> str:
        return redact_url(url)

    def shown_text(self, text: str) -> str:
        return redact_text(text)

    def restore(self, key: str, ack_id: int) -> Frame:
        return self.finish(self.join_body(key), ack_id)

    def join_body(self, group: str) -> bytes:
        """Return the command that joins ``group``."""
        raise AssertionError("a subprotocol must implement join_body()")

    def leave_body(self, group: str) -> bytes:
        """Return the command that leaves ``group``."""
        raise AssertionError("a subprotocol must implement leave_body()")

    def send_to_group_body(self, group: str, data: Any, data_type: str, no_echo: bool) -> bytes:
        """Return the command that publishes ``data``."""
        raise AssertionError("a subprotocol must implement send_to_group_body()")

    def event_body(self, event: str, data: Any, data_type: str) -> bytes:
        """Return the command that sends a user event."""
        raise AssertionError("a subprotocol must implement event_body()")

    def stream_start_body(self, group: str, stream_id: str, no_echo: bool, idle_timeout_ms: int) -> bytes:
        """Return the command that opens a stream."""
        raise AssertionError("a subprotocol must implement stream_start_body()")

    def stream_data_body(
        self, stream_id: str, sequence_id: Optional[int] = None, data: Any = None, data_type: str = ""
    ) -> bytes:
        """Return a fragment of a stream, or without ``sequence_id`` a keep-alive."""
        raise AssertionError("a subprotocol must implement stream_data_body()")

    def stream_end_body(self, stream_id: str, error: Optional[StreamError] = None) -> bytes:
        """Return the end of a stream."""
        raise AssertionError("a subprotocol must implement stream_end_body()")

    def invoke_body(self, invocation_id: str, event: str, data: Any, data_type: Optional[str]) -> bytes:
        """Return an invocation; ``data_type`` None sends no payload."""
        raise AssertionError("a subprotocol must implement invoke_body()")

    def cancel_body(self, invocation_id: str) -> bytes:
        """Return the message that gives up an invocation."""
        raise AssertionError("a subprotocol must implement cancel_body()")


class JsonProtocol(WebPubSubProtocol):
    """``json.webpubsub.azure.v1``, or with ``reliable`` ``json.reliable.webpubsub.azure.v1``."""

    def __init__(self, reliable: bool) -> None:
        super().__init__("json.reliable.webpubsub.azure.v1" if reliable else "json.webpubsub.azure.v1", reliable)

    def decode(self, frame: Frame) -> Decoded:
        if frame[0] == BINARY:
            raise RemoteProtocolError("binary frame on a JSON subprotocol", code=1003)
        return json_codec.decode_service_message(frame[1])  # type: ignore[arg-type]  # text frames carry str

    def ping(self) -> Frame:
        return _PING

    def sequence_ack(self, sequence_id: int) -> Frame:
        return TEXT, json_codec.encode_sequence_ack(sequence_id)

    def finish(self, body: bytes, ack_id: Optional[int]) -> Frame:
        return TEXT, json_codec.finish(body, ack_id)

    def join_body(self, group: str) -> bytes:
        return encode_checked(json_codec.join_body(group))

    def leave_body(self, group: str) -> bytes:
        return encode_checked(json_codec.leave_body(group))

    def send_to_group_body(self, group: str, data: Any, data_type: str, no_echo: bool) -> bytes:
        return encode_checked(json_codec.send_to_group_body(group, data, data_type, no_echo))

    def event_body(self, event: str, data: Any, data_type: str) -> bytes:
        return encode_checked(json_codec.event_body(event, data, data_type))

    def stream_start_body(self, group: str, stream_id: str, no_echo: bool, idle_timeout_ms: int) -> bytes:
        return encode_checked(json_streams.stream_start_body(group, stream_id, no_echo, idle_timeout_ms))

    def stream_data_body(
        self, stream_id: str, sequence_id: Optional[int] = None, data: Any = None, data_type: str = ""
    ) -> bytes:
        return encode_checked(json_streams.stream_data_body(stream_id, sequence_id, data, data_type))

    def stream_end_body(self, stream_id: str, error: Optional[StreamError] = None) -> bytes:
        return encode_checked(json_streams.stream_end_body(stream_id, error))

    def invoke_body(self, invocation_id: str, event: str, data: Any, data_type: Optional[str]) -> bytes:
        return encode_checked(json_streams.invoke_body(invocation_id, event, data, data_type))

    def cancel_body(self, invocation_id: str) -> bytes:
        return encode_checked(json_streams.cancel_body(invocation_id))


_NAMES = (
    "json",
    "json.webpubsub.azure.v1",
    "json.reliable",
    "json.reliable.webpubsub.azure.v1",
    "protobuf",
    "protobuf.webpubsub.azure.v1",
    "protobuf.reliable",
    "protobuf.reliable.webpubsub.azure.v1",
)


def protocol_named(name: object) -> WebPubSubProtocol:
    """Return the protocol for a short or full name, ignoring case.

    Raises InvalidArgument for an unknown one, and for a protobuf one without the protobuf library.
    """
    text = str(getattr(name, "value", name)).lower()
    if text not in _NAMES:
        raise InvalidArgument("unknown protocol %r: use one of %s" % (name, ", ".join(_NAMES)))
    reliable = ".reliable" in text
    if text.startswith("json"):
        return JsonProtocol(reliable)
    try:
        from .protobuf_protocol import ProtobufProtocol
    except ImportError as error:
        raise InvalidArgument(
            "the protocol %r needs the protobuf library: pip install 'simplepubsub[protobuf]' (%s)" % (name, error)
        ) from error
    return ProtobufProtocol(reliable)
