"""The protobuf subprotocols on the server's side; importing this needs the protobuf library."""

from __future__ import annotations

from typing import Optional, Union

from ..exceptions import RemoteProtocolError
from ..transports.frames import BINARY, encode_frame
from ..webpubsub import protobuf_codec, protobuf_streams
from ..webpubsub.messages import ClientMessage, InvokeResponse, Ping, SequenceAck, StreamError
from .wire import Outgoing, Packed, Wire

__all__ = ["PROTOBUF", "PROTOBUF_RELIABLE", "ProtobufWire"]

#: Sequence acks and pings are not longer than this, in bytes, nor do they begin with anything else.
_MAX_URGENT = 16
_URGENT_TAGS = (0x42, 0x4A)


class ProtobufPacked(Packed):
    """A data message without its end, for protobuf receivers."""

    __slots__ = ()

    def plain(self) -> bytes:
        """Return the frame for receivers that are not reliable."""
        if self._plain is None:
            self._plain = encode_frame(BINARY, protobuf_codec.finish_message(self._text))
        return self._plain

    def number(self, sequence_id: int) -> bytes:
        """Return the frame for reliable receivers whose next sequence id is this one."""
        frame = encode_frame(BINARY, protobuf_codec.finish_message(self._text, sequence_id))
        self.numbered[sequence_id] = frame
        return frame


class ProtobufWire(Wire):
    """One message per binary frame; ``fromUserId`` has no place in them, nor have invocations."""

    form = "protobuf"

    def decode(self, opcode: int, payload: Union[str, bytes]) -> ClientMessage:
        """Return the command in a data frame. Raises RemoteProtocolError with the close code to answer with."""
        if opcode != BINARY:
            raise RemoteProtocolError("text frame on the subprotocol %s" % self.subprotocol, code=1003)
        assert isinstance(payload, bytes)
        return protobuf_codec.decode_client_message(payload)

    def urgent(self, opcode: int, payload: Union[str, bytes]) -> Optional[ClientMessage]:
        """Return the command of a sequence ack or a ping, None for all others; see `Wire.urgent`."""
        if opcode == BINARY and 2 <= len(payload) <= _MAX_URGENT and payload[0] in _URGENT_TAGS:
            assert isinstance(payload, bytes)
            command = protobuf_codec.decode_client_message(payload)
            if isinstance(command, (SequenceAck, Ping)):
                return command
        return None

    def pack(self, message: Outgoing) -> Packed:
        """Encode a data message. Raises InvalidArgument when the data does not fit."""
        return ProtobufPacked(
            protobuf_codec.encode_message(message.group, message.data, message.data_type, message.stream)
        )

    def connected(self, connection_id: str, user_id: Optional[str], reconnection_token: Optional[str]) -> bytes:
        """Return the first frame of a connection."""
        return _frame(protobuf_codec.encode_connected(connection_id, user_id, reconnection_token))

    def disconnected(self, message: str) -> bytes:
        """Return the announcement of a close by the service."""
        return _frame(protobuf_codec.encode_disconnected(message))

    def ack(self, ack_id: int, name: Optional[str] = None, message: str = "") -> bytes:
        """Return the answer to a command: success, or the error ``name``."""
        return _frame(protobuf_codec.encode_ack(ack_id, name, message))

    def pong(self) -> bytes:
        """Return the answer to a ping message."""
        return _PONG

    def stream_ack(self, stream_id: str, expected: int) -> bytes:
        """Return the acknowledgement of every fragment below ``expected``."""
        return _frame(protobuf_streams.encode_stream_ack(stream_id, expected))

    def stream_nack(self, stream_id: str, expected: int, name: str, message: str) -> bytes:
        """Return the refusal of a fragment; the stream goes on at ``expected``."""
        return _frame(protobuf_streams.encode_stream_nack(stream_id, expected, name, message))

    def stream_closed(self, stream_id: str, error: Optional[StreamError] = None) -> bytes:
        """Return the end of a stream, for its publisher; without ``error`` it is the end that was asked for."""
        return _frame(protobuf_streams.encode_stream_closed(stream_id, error))

    def invoke_response(self, response: InvokeResponse) -> bytes:
        """Fail: no invocation can arrive on these subprotocols, the numbers of its fields are not published."""
        raise AssertionError("a protobuf client cannot have invoked anything")


def _frame(message: bytes) -> bytes:
    return encode_frame(BINARY, message)


_PONG = _frame(protobuf_codec.PONG)

PROTOBUF = ProtobufWire("protobuf.webpubsub.azure.v1", False)
PROTOBUF_RELIABLE = ProtobufWire("protobuf.reliable.webpubsub.azure.v1", True)
