"""Wire formats as the hub sees them: commands out of frames, and frames, ready to be written, out of what it says.

One `Wire` per subprotocol. A data message is serialised once per *form* (JSON text, raw payload), however many
receivers it has: `Outgoing` holds it, a `Packed` is its encoded form, and receivers with the same sequence id even
share the bytes. A further wire format is one more `Wire` in `wires` and one more `Packed`.
"""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional, Union

from ..exceptions import InvalidArgument, RemoteProtocolError
from ..transports.frames import BINARY, TEXT, encode_frame
from ..webpubsub import json_codec, json_streams
from ..webpubsub.messages import (
    ClientMessage,
    Event,
    InvokeResponse,
    Ping,
    SendToGroup,
    SequenceAck,
    StreamError,
    StreamInfo,
)

__all__ = ["JSON", "JSON_RELIABLE", "Outgoing", "Packed", "RawMode", "RawWire", "Wire"]

#: Frames that are answered before what the same connection sent earlier and waits: this long at most, in characters.
_MAX_URGENT = 80


class Packed:
    """One data message in one form, for any number of receivers."""

    __slots__ = ("_plain", "_text", "numbered")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._plain: Optional[bytes] = None
        #: Frames that already exist, by sequence id.
        self.numbered: Dict[int, bytes] = {}

    def plain(self) -> bytes:
        """Return the frame for receivers that are not reliable."""
        if self._plain is None:
            self._plain = encode_frame(TEXT, self._text)
        return self._plain

    def number(self, sequence_id: int) -> bytes:
        """Return the frame for reliable receivers whose next sequence id is this one."""
        frame = encode_frame(TEXT, self._text[:-1] + b',"sequenceId":%d}' % sequence_id)
        self.numbered[sequence_id] = frame
        return frame


class RawPacked(Packed):
    """A bare payload, for simple clients."""

    __slots__ = ("_opcode",)

    def __init__(self, opcode: int, payload: bytes) -> None:
        super().__init__(payload)
        self._opcode = opcode

    def plain(self) -> bytes:
        """Return the frame; simple clients know no sequence ids."""
        if self._plain is None:
            self._plain = encode_frame(self._opcode, self._text)
        return self._plain


class Outgoing:
    """One data message on its way: ``group`` None makes it one from the server, ``stream`` a fragment of a stream.

    Raises RemoteProtocolError (1007) from `packed` when the data cannot be carried by the receiver's form.
    """

    __slots__ = ("_forms", "data", "data_type", "from_user_id", "group", "stream", "ttl")

    def __init__(
        self,
        group: Optional[str],
        from_user_id: Optional[str],
        data: Any,
        data_type: str,
        ttl: float = 0,
        stream: Optional[StreamInfo] = None,
    ) -> None:
        self.group = group
        self.from_user_id = from_user_id
        self.data = data
        self.data_type = data_type
        self.ttl = ttl
        self.stream = stream
        self._forms: Dict[str, Packed] = {}

    def packed(self, wire: "Wire") -> Packed:
        """Return this message as ``wire`` carries it, encoded on first use."""
        form = self._forms.get(wire.form)
        if form is None:
            try:
                form = self._forms[wire.form] = wire.pack(self)
            except InvalidArgument as error:
                raise RemoteProtocolError(str(error), code=1007) from error
        return form


class Wire:
    """The rules of one subprotocol on the server's side; here the JSON ones. Pure, shared by all connections."""

    #: Receivers with the same form share one encoding.
    form = "json"

    def __init__(self, subprotocol: Optional[str], reliable: bool) -> None:
        self.subprotocol = subprotocol
        self.reliable = reliable

    def decode(self, opcode: int, payload: Union[str, bytes]) -> ClientMessage:
        """Return the command in a data frame. Raises RemoteProtocolError with the close code to answer with."""
        if opcode != TEXT:
            raise RemoteProtocolError("binary frame on the subprotocol %s" % self.subprotocol, code=1003)
        assert isinstance(payload, str)
        return json_codec.decode_client_message(payload)

    def urgent(self, opcode: int, payload: Union[str, bytes]) -> Optional[ClientMessage]:
        """Return the command of a frame that must not wait its turn (sequence acks, pings), None for all others.

        A publisher that waits for a receiver may be that receiver: its acknowledgement is behind its publishes.
        """
        if opcode == TEXT and len(payload) <= _MAX_URGENT:
            assert isinstance(payload, str)
            if "sequenceAck" in payload or payload == json_codec.PING:
                command = json_codec.decode_client_message(payload)
                if isinstance(command, (SequenceAck, Ping)):
                    return command
        return None

    def pack(self, message: Outgoing) -> Packed:
        """Encode a data message. Raises InvalidArgument when the data does not fit."""
        text = json_codec.encode_message(
            message.group, message.from_user_id, message.data, message.data_type, message.stream
        )
        # Only a lone surrogate cannot be UTF-8; as a backslash escape it is what the sender wrote.
        return Packed(text.encode("utf-8", "backslashreplace"))

    def connected(self, connection_id: str, user_id: Optional[str], reconnection_token: Optional[str]) -> bytes:
        """Return the first frame of a connection, empty where the form has none."""
        return _text_frame(json_codec.encode_connected(connection_id, user_id, reconnection_token))

    def disconnected(self, message: str) -> bytes:
        """Return the announcement of a close by the service, empty where the form has none."""
        return _text_frame(json_codec.encode_disconnected(message))

    def ack(self, ack_id: int, name: Optional[str] = None, message: str = "") -> bytes:
        """Return the answer to a command: success, or the error ``name``."""
        return _text_frame(json_codec.encode_ack(ack_id, name, message))

    def pong(self) -> bytes:
        """Return the answer to a ping message."""
        return _PONG

    def stream_ack(self, stream_id: str, expected: int) -> bytes:
        """Return the acknowledgement of every fragment below ``expected``."""
        return _text_frame(json_streams.encode_stream_ack(stream_id, expected))

    def stream_nack(self, stream_id: str, expected: int, name: str, message: str) -> bytes:
        """Return the refusal of a fragment; the stream goes on at ``expected``."""
        return _text_frame(json_streams.encode_stream_nack(stream_id, expected, name, message))

    def stream_closed(self, stream_id: str, error: Optional[StreamError] = None) -> bytes:
        """Return the end of a stream, for its publisher; without ``error`` it is the end that was asked for."""
        return _text_frame(json_streams.encode_stream_closed(stream_id, error))

    def invoke_response(self, response: InvokeResponse) -> bytes:
        """Return the answer to an invocation. Raises RemoteProtocolError (1007) when its data cannot be carried."""
        try:
            return _text_frame(json_streams.encode_invoke_response(response))
        except InvalidArgument as error:
            raise RemoteProtocolError(str(error), code=1007) from error


def _text_frame(text: str) -> bytes:
    return encode_frame(TEXT, text.encode("utf-8", "backslashreplace"))


_PONG = _text_frame(json_codec.PONG)


class RawMode(NamedTuple):
    """What the frames of a simple client mean: user events, or with a ``group`` publishes to it."""

    group: Optional[str] = None
    no_echo: bool = False


class NoPacked(Packed):
    """A message that a form does not carry: its frames are empty."""

    __slots__ = ()

    def plain(self) -> bytes:
        """Return no bytes."""
        return b""


_NOTHING = NoPacked(b"")


class RawWire(Wire):
    """Bare payloads for simple WebSocket clients (protocol reference 1.4); ``subprotocol`` is their own, if any."""

    form = "raw"

    def __init__(self, mode: RawMode = RawMode(), subprotocol: Optional[str] = None) -> None:
        super().__init__(subprotocol, False)
        self.mode = mode

    def decode(self, opcode: int, payload: Union[str, bytes]) -> ClientMessage:
        """Return the user event or the publish that a frame stands for."""
        data_type = "text" if opcode == TEXT else "binary"
        if self.mode.group is None:
            return Event("message", payload, data_type)
        return SendToGroup(self.mode.group, payload, data_type, None, self.mode.no_echo)

    def urgent(self, opcode: int, payload: Union[str, bytes]) -> Optional[ClientMessage]:
        """Return None: every frame of a simple client is data."""
        return None

    def pack(self, message: Outgoing) -> Packed:
        """Encode a bare payload: text and JSON as a text frame, bytes as a binary one.

        Fragments of a stream are payloads like any other; its end, which has none, is not told.
        """
        data, data_type = message.data, message.data_type
        if message.stream is not None and message.stream.end_of_stream and not data:
            return _NOTHING
        if data_type == "text":
            return RawPacked(TEXT, data.encode("utf-8", "replace"))
        if data_type == "json":
            return RawPacked(TEXT, json_codec.encode_data(data, data_type).encode("utf-8", "backslashreplace"))
        return RawPacked(BINARY, bytes(data))

    def connected(self, connection_id: str, user_id: Optional[str], reconnection_token: Optional[str]) -> bytes:
        """Return nothing: simple clients get payloads only."""
        return b""

    def disconnected(self, message: str) -> bytes:
        """Return nothing: simple clients get payloads only."""
        return b""


JSON = Wire("json.webpubsub.azure.v1", False)
JSON_RELIABLE = Wire("json.reliable.webpubsub.azure.v1", True)
