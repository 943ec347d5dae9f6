"""The protobuf subprotocols as the engine's `Protocol`; imported when one is asked for, since it needs the library."""

from __future__ import annotations

from typing import Any, Optional

from ..core.protocol import Decoded, Frame
from ..exceptions import InvalidArgument, RemoteProtocolError
from ..transports.frames import BINARY
from . import protobuf_codec, protobuf_streams
from .arguments import check_size
from .messages import StreamError
from .protocol import WebPubSubProtocol

__all__ = ["ProtobufProtocol"]

_PING: Frame = (BINARY, protobuf_codec.PING)


class ProtobufProtocol(WebPubSubProtocol):
    """``protobuf.webpubsub.azure.v1``, or with ``reliable`` ``protobuf.reliable.webpubsub.azure.v1``.

    It has no invocations: the numbers of their fields are not published.
    """

    def __init__(self, reliable: bool) -> None:
        name = "protobuf.reliable.webpubsub.azure.v1" if reliable else "protobuf.webpubsub.azure.v1"
        super().__init__(name, reliable)

    def decode(self, frame: Frame) -> Decoded:
        if frame[0] != BINARY:
            raise RemoteProtocolError("text frame on a protobuf subprotocol", code=1003)
        return protobuf_codec.decode_service_message(frame[1])  # type: ignore[arg-type]  # binary frames carry bytes

    def ping(self) -> Frame:
        return _PING

    def sequence_ack(self, sequence_id: int) -> Frame:
        return BINARY, protobuf_codec.encode_sequence_ack(sequence_id)

    def finish(self, body: bytes, ack_id: Optional[int]) -> Frame:
        return BINARY, protobuf_codec.finish(body, ack_id)

    def join_body(self, group: str) -> bytes:
        return check_size(protobuf_codec.join_body(group))

    def leave_body(self, group: str) -> bytes:
        return check_size(protobuf_codec.leave_body(group))

    def send_to_group_body(self, group: str, data: Any, data_type: str, no_echo: bool) -> bytes:
        return check_size(protobuf_codec.send_to_group_body(group, data, data_type, no_echo))

    def event_body(self, event: str, data: Any, data_type: str) -> bytes:
        return check_size(protobuf_codec.event_body(event, data, data_type))

    def stream_start_body(self, group: str, stream_id: str, no_echo: bool, idle_timeout_ms: int) -> bytes:
        return check_size(protobuf_streams.stream_start_body(group, stream_id, no_echo, idle_timeout_ms))

    def stream_data_body(
        self, stream_id: str, sequence_id: Optional[int] = None, data: Any = None, data_type: str = ""
    ) -> bytes:
        return check_size(protobuf_streams.stream_data_body(stream_id, sequence_id, data, data_type))

    def stream_end_body(self, stream_id: str, error: Optional[StreamError] = None) -> bytes:
        return check_size(protobuf_streams.stream_end_body(stream_id, error))

    def invoke_body(self, invocation_id: str, event: str, data: Any, data_type: Optional[str]) -> bytes:
        raise InvalidArgument(
            "the subprotocol %s has no invocations: use protocol='json.reliable' or 'json' for them" % self.name
        )

    def cancel_body(self, invocation_id: str) -> bytes:
        return self.invoke_body(invocation_id, "", None, None)
