"""Targets that are codecs: JSON and protobuf, both directions, the client's and the server's side of each."""

from __future__ import annotations

import json
import random
from typing import Any, Dict, List, Tuple

from simplepubsub.core.protocol import Ack, Connected, Disconnected, Pong
from simplepubsub.exceptions import InvalidArgument, MessageTooLarge, RemoteProtocolError
from simplepubsub.transports.frames import BINARY, TEXT
from simplepubsub.webpubsub import json_codec, messages
from simplepubsub.webpubsub.protocol import protocol_named
from tests.fuzz import nasty
from tests.fuzz.runner import Target

#: Every record that a codec may return.
CLIENT_RECORDS: Tuple[type, ...] = tuple(messages.ClientMessage.__args__)  # type: ignore[attr-defined]
SERVICE_RECORDS = (
    Ack,
    Connected,
    Disconnected,
    Pong,
    messages.Message,
    messages.StreamAck,
    messages.StreamNack,
    messages.StreamClosed,
    messages.InvokeResponse,
    type(None),
)

CODES = (1003, 1007)

STREAM_IDS = ("s", "s2", "", "\ud800", "\0", "x" * 1024, "y" * 1025, "a\r\nb")


def client_frame(rng: random.Random) -> Dict[str, Any]:
    """Return a command of a JSON client, mostly a right one."""
    kind = rng.choice(
        (
            "joinGroup",
            "leaveGroup",
            "sendToGroup",
            "event",
            "sequenceAck",
            "ping",
            "streamStart",
            "streamData",
            "streamEnd",
            "invoke",
            "cancelInvocation",
        )
    )
    group = rng.choice(("lobby", "lobby", "news", nasty.text(rng)))
    data_type = rng.choice(("text", "json", "binary", "protobuf", "TEXT"))
    data: Any = nasty.text(rng) if data_type.lower() == "text" else nasty.value(rng, 2)
    if data_type in ("binary", "protobuf"):
        data = rng.choice(("", "AAEC", "CgJ4eQ==", "AAE", "\u00e9", "CgV0ZXN0LxIBAQ=="))
    frame: Dict[str, Any] = {"type": kind}
    if kind in ("joinGroup", "leaveGroup", "sendToGroup", "streamStart"):
        frame["group"] = group
    if kind == "streamStart":
        frame["type"] = "sendToGroup"
        frame["stream"] = {
            "streamId": rng.choice(STREAM_IDS),
            "idleTimeoutMs": rng.choice((1, 1000, 300000, 0, 2**32, 1.5)),
        }
    elif kind in ("sendToGroup", "event"):
        frame.update(dataType=data_type, data=data)
    if kind in ("event", "invoke"):
        frame["event"] = rng.choice(("echo", "echo", "a.b-c_d", nasty.text(rng)))
    if kind == "sequenceAck":
        frame["sequenceId"] = rng.choice(nasty.NUMBERS + ("1", "x"))
    if kind in ("streamData", "streamEnd"):
        frame["streamId"] = rng.choice(STREAM_IDS)
    if kind == "streamData" and rng.random() < 0.8:
        frame.update(
            streamSequenceId=rng.choice((1, 2, 3, 4, 5, 0, 2**64 - 1, 2**64, "1", -1)), dataType=data_type, data=data
        )
    if kind == "streamEnd" and rng.random() < 0.5:
        frame["error"] = rng.choice(
            ({"message": nasty.text(rng), "userErrorCode": nasty.text(rng)}, {}, nasty.value(rng))
        )
    if kind in ("invoke", "cancelInvocation"):
        frame["invocationId"] = rng.choice(("1", "2", nasty.text(rng)))
    if kind == "invoke":
        frame.update(target="event")
        if rng.random() < 0.7:
            frame.update(dataType=data_type, data=data)
    if kind in ("joinGroup", "leaveGroup", "sendToGroup", "event", "streamStart") and rng.random() < 0.6:
        frame["ackId"] = rng.choice((1, 2, 3, rng.randrange(2**64), rng.choice(nasty.NUMBERS)))
    if kind == "sendToGroup" and rng.random() < 0.3:
        frame[rng.choice(("noEcho", "ttlSeconds"))] = rng.choice((True, False, 0, 1, 300, 301, "true", None))
    return disturb(rng, frame)


def service_frame(rng: random.Random) -> Dict[str, Any]:
    """Return a frame of a JSON service, mostly a right one."""
    kind = rng.choice(
        (
            "ack",
            "message",
            "message",
            "system",
            "pong",
            "streamAck",
            "streamNack",
            "streamClosed",
            "invokeResponse",
            "new",
        )
    )
    frame: Dict[str, Any] = {"type": kind}
    error = rng.choice(({"name": "Forbidden", "message": nasty.text(rng)}, {}, None, nasty.value(rng)))
    if kind == "ack":
        frame.update(
            ackId=rng.choice((1, 7, rng.choice(nasty.NUMBERS))), success=rng.choice((True, False)), error=error
        )
    elif kind == "message":
        frame.update(
            {
                "from": rng.choice(("group", "server", "moon")),
                "group": nasty.text(rng),
                "dataType": rng.choice(("text", "json", "binary", "protobuf", "new")),
                "data": rng.choice((nasty.text(rng), "AAEC", nasty.value(rng))),
            }
        )
        if rng.random() < 0.5:
            frame["sequenceId"] = rng.choice(nasty.NUMBERS + ("1",))
        if rng.random() < 0.5:
            frame["fromUserId"] = nasty.text(rng)
        if rng.random() < 0.3:
            frame["stream"] = {
                "streamId": rng.choice(STREAM_IDS),
                "streamSequenceId": rng.choice(nasty.NUMBERS),
                "endOfStream": rng.choice((True, False, None, 1)),
                "error": error,
            }
    elif kind == "system":
        frame.update(
            event=rng.choice(("connected", "disconnected", "new")),
            connectionId=nasty.text(rng),
            userId=rng.choice((None, nasty.text(rng))),
            reconnectionToken=rng.choice((None, nasty.text(rng), 5)),
            message=rng.choice((None, nasty.text(rng), nasty.value(rng))),
        )
    elif kind.startswith("stream"):
        frame.update(streamId=rng.choice(STREAM_IDS), expectedSequenceId=rng.choice(nasty.NUMBERS), error=error)
        if kind == "streamNack":
            frame.update(name=nasty.text(rng), message=nasty.text(rng))
    elif kind == "invokeResponse":
        frame.update(invocationId=nasty.text(rng), success=rng.choice((True, False, 1)), error=error)
        if rng.random() < 0.6:
            frame.update(dataType=rng.choice(("text", "json", "binary")), data=nasty.value(rng, 2))
    return disturb(rng, frame)


def disturb(rng: random.Random, frame: Dict[str, Any]) -> Dict[str, Any]:
    """Return the frame, perhaps with a field that is missing, of another kind, or new."""
    if rng.random() < 0.3:
        name = rng.choice(list(frame) + ["data", "stream", "error"])
        kind = rng.randrange(3)
        if kind == 0:
            frame.pop(name, None)
        elif kind == 1:
            frame[name] = nasty.value(rng, 2)
        else:
            frame[nasty.text(rng)] = nasty.value(rng, 1)
    return frame


def json_text(rng: random.Random, frame: Dict[str, Any]) -> str:
    """Return a frame as text, perhaps a damaged one."""
    kind = rng.random()
    if kind < 0.03:
        name = rng.choice(list(frame) + ["data"])
        frame[name] = "@@"
        return nasty.dump(rng, frame).replace('"@@"', nasty.nested(rng), 1)
    text = nasty.dump(rng, frame)
    if kind < 0.25:
        return nasty.break_text(rng, text)
    return text if kind < 0.99 else nasty.text(rng)


def refused(error: RemoteProtocolError) -> str:
    """Check a refusal; its text becomes the reason of a close frame and a line of a log."""
    assert error.code in CODES, error.code
    text = str(error)
    assert len(text) < 400 and not any(char in text for char in "\r\n\0\x1b"), text
    return "closed with %s" % error.code


class Decoded(Target):
    """Frames into a decoder, which returns one of its records or refuses."""

    records: Tuple[type, ...] = ()

    def decode(self, item: Any) -> Any:
        """Return the record of an input."""
        raise NotImplementedError

    def check(self, item: Any) -> str:
        try:
            record = self.decode(item)
        except RemoteProtocolError as error:
            return refused(error)
        assert isinstance(record, self.records), record
        repr(record)
        return self.judge(record)

    def judge(self, record: Any) -> str:
        """Return in a word what became of the input, after a closer look at its record."""
        return type(record).__name__


class JsonClient(Decoded):
    """Frames of clients into the server's decoder, and its records back into the server's data frames."""

    name = "json-upstream"
    share = 12.0
    records = CLIENT_RECORDS

    def make(self, rng: random.Random) -> Any:
        return json_text(rng, client_frame(rng))

    def decode(self, item: Any) -> Any:
        return json_codec.decode_client_message(item)

    def judge(self, record: Any) -> str:
        if isinstance(record, (messages.SendToGroup, messages.StreamData)) and record.data is not None:
            info = messages.StreamInfo("s", 1) if isinstance(record, messages.StreamData) else None
            try:
                text = json_codec.encode_message("lobby", "mina", record.data, record.data_type, info)
            except InvalidArgument:
                return "cannot be passed on"  # 1e999
            back = json_codec.decode_service_message(text.encode("utf-8", "backslashreplace").decode())
            assert isinstance(back, messages.Message) and back.data_type == record.data_type
            assert repr(back.data) == repr(record.data) and back.stream == info, (back.data, record.data)
        return super().judge(record)


class JsonService(Decoded):
    """Frames of services into the client's decoder."""

    name = "json-downstream"
    share = 10.0
    records = SERVICE_RECORDS

    def make(self, rng: random.Random) -> Any:
        return json_text(rng, service_frame(rng))

    def decode(self, item: Any) -> Any:
        return json_codec.decode_service_message(item)


class Commands(Target):
    """What applications pass to clients, any values: InvalidArgument, or a command that the server reads as meant."""

    name = "json-commands"
    share = 6.0
    protocol_name = "json.reliable"

    def open(self) -> None:
        self.protocol = protocol_named(self.protocol_name)

    def make(self, rng: random.Random) -> Any:
        data = rng.choice(
            (
                nasty.text(rng),
                nasty.value(rng),
                b"\0\xff",
                bytearray(b"ab"),
                memoryview(b"abcd")[::2],
                object,
                float("nan"),
                {1: 2},
                {(1,): 2},
                [set()],
                b"\n\x05test/",
                b"\n\x05test/\x12\x01a",
            )
        )
        return (
            rng.choice(("join", "leave", "send", "event", "start", "data", "end", "invoke", "cancel")),
            nasty.text(rng),
            data,
            rng.choice(("text", "json", "binary", "protobuf")),
            rng.random() < 0.5,
            rng.choice((None, 0, 1, 2**64 - 1, rng.randrange(2**64))),
            rng.choice((1, 5, 2**32 - 1)),
            nasty.text(rng),
        )

    def body(self, item: Any) -> bytes:
        kind, name, data, data_type, flag, _, number, extra = item
        protocol = self.protocol
        if kind in ("join", "leave"):
            return (protocol.join_body if kind == "join" else protocol.leave_body)(name)
        if kind == "send":
            return protocol.send_to_group_body(name, data, data_type, flag)
        if kind == "event":
            return protocol.event_body(name, data, data_type)
        if kind == "start":
            return protocol.stream_start_body(name, extra, flag, number)
        if kind == "data":
            return protocol.stream_data_body(name, None if flag else number, data, data_type)
        if kind == "end":
            return protocol.stream_end_body(name, messages.StreamError("UserError", extra, name) if flag else None)
        if kind == "invoke":
            return protocol.invoke_body(name, extra, data, None if flag else data_type)
        return protocol.cancel_body(name)

    def check(self, item: Any) -> str:
        kind, name, ack_id = item[0], item[1], item[5]
        try:
            opcode, frame = self.protocol.finish(
                self.body(item), ack_id if kind in ("join", "leave", "send", "event") else None
            )
        except (InvalidArgument, MessageTooLarge):
            return "refused here"
        try:
            record: Any = self.decode(opcode, frame)
        except RemoteProtocolError:
            # What the codecs do not look at, because callers have: names.
            if kind in ("join", "leave", "send", "start"):
                assert not name.strip() or len(name) > 1024 or not item[7], item
            elif kind in ("event", "invoke"):
                assert not name or not _is_event(name if kind == "event" else item[7]), item
            else:
                assert not name, item
            return "refused there"
        if kind in ("join", "leave", "send", "start"):
            assert record.group == name, (record, name)
        elif kind == "event":
            assert record.event == name
        elif kind in ("data", "end"):
            assert record.stream_id == name
        else:
            assert record.invocation_id == name
        if kind in ("join", "leave", "send", "event"):
            assert record.ack_id == ack_id, record
        if kind == "send" or kind == "event" or kind == "data" and not item[4]:
            data = bytes(item[2]) if isinstance(item[2], (bytearray, memoryview)) else item[2]
            assert record.data_type == item[3]
            if item[3] != "json":
                assert record.data == data, (record.data, data)
            else:
                assert json.dumps(record.data) == json.dumps(json.loads(json.dumps(data)))
        return kind

    @staticmethod
    def decode(opcode: int, frame: Any) -> Any:
        assert opcode == TEXT
        return json_codec.decode_client_message(frame if isinstance(frame, str) else frame.decode("utf-8"))


def _is_event(name: str) -> bool:
    from simplepubsub.webpubsub.json_fields import EVENT_NAME

    return EVENT_NAME.match(name) is not None


TARGETS: List[type] = [JsonClient, JsonService, Commands]

try:
    import google.protobuf  # noqa: F401
except ImportError:
    pass
else:
    from simplepubsub.webpubsub import protobuf_codec
    from simplepubsub.webpubsub.protobuf_fields import chunk, varint

    def protobuf_bytes(rng: random.Random, depth: int = 3) -> bytes:
        """Return bytes in the grammar of protobuf, with the field numbers that the schema uses and some others."""
        parts = []
        for _ in range(rng.randrange(1, 5)):
            number = rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 10, 16, 1000))
            kind = rng.choice((0, 0, 2, 2, 2, 2, 1, 5, 3, 4, 6))
            tag = varint(number << 3 | kind)
            if kind == 0:
                parts.append(tag + varint(abs(rng.choice([item for item in nasty.NUMBERS if isinstance(item, int)]))))
            elif kind == 2:
                inner = (
                    protobuf_bytes(rng, depth - 1)
                    if depth > 0 and rng.random() < 0.6
                    else rng.choice(
                        (
                            nasty.text(rng).encode("utf-8", "surrogatepass"),
                            b"\xff",
                            nasty.dump(rng, nasty.value(rng, 1)).encode("utf-8", "surrogatepass"),
                        )
                    )
                )
                parts.append(chunk(tag, inner))
            elif kind in (1, 5):
                parts.append(tag + b"\x01" * (8 if kind == 1 else 4))
            else:
                parts.append(tag)
        if depth == 3 and rng.random() < 0.01:
            data = b"a"
            for _ in range(rng.choice((90, 100, 101, 2000))):
                data = chunk(b"\x1a", data)
            parts.append(data if rng.random() < 0.5 else b"\x0b" * rng.choice((99, 101, 5000)))
        return b"".join(parts)

    def protobuf_frame(rng: random.Random, protocol: Any) -> bytes:
        """Return a command of a protobuf client: a right one, a damaged one, or one by the grammar alone."""
        kind = rng.random()
        if kind < 0.4:
            return protobuf_bytes(rng)
        maker = Commands()
        maker.protocol = protocol
        for _ in range(10):
            item = maker.make(rng)
            try:
                data = protocol.finish(
                    maker.body(item), item[5] if item[0] in ("join", "leave", "send", "event") else None
                )[1]
            except (InvalidArgument, MessageTooLarge):
                continue
            return nasty.break_bytes(rng, data) if kind < 0.8 else bytes(data)
        return b""

    class ProtobufClient(Decoded):
        """Frames of protobuf clients into the server's decoder, and the data on to the client's decoder."""

        name = "protobuf-upstream"
        share = 10.0
        records = CLIENT_RECORDS

        def open(self) -> None:
            self.protocol = protocol_named("protobuf.reliable")

        def make(self, rng: random.Random) -> Any:
            return protobuf_frame(rng, self.protocol)

        def decode(self, item: Any) -> Any:
            return protobuf_codec.decode_client_message(item)

        def judge(self, record: Any) -> str:
            if isinstance(record, (messages.SendToGroup, messages.StreamData)) and record.data is not None:
                info = messages.StreamInfo("s", 1) if isinstance(record, messages.StreamData) else None
                try:
                    fields = protobuf_codec.encode_message("lobby", record.data, record.data_type, info)
                    json_codec.encode_message("lobby", None, record.data, record.data_type, info)
                except InvalidArgument:
                    return "cannot be passed on"
                back = protobuf_codec.decode_service_message(protobuf_codec.finish_message(fields, 7))
                assert isinstance(back, messages.Message) and back.sequence_id == 7 and back.stream == info
                if record.data_type == "json":
                    assert json.dumps(back.data) == json.dumps(record.data)
                else:
                    assert back.data == record.data, (back.data, record.data)
            return super().judge(record)

    class ProtobufService(Decoded):
        """Frames of protobuf services into the client's decoder."""

        name = "protobuf-downstream"
        share = 8.0
        records = SERVICE_RECORDS

        def make(self, rng: random.Random) -> Any:
            kind = rng.randrange(8)
            if kind < 3:
                return protobuf_bytes(rng)
            error = messages.StreamError(nasty.text(rng), nasty.text(rng), rng.choice((None, nasty.text(rng))))
            number = rng.choice((0, 1, 2**32, 2**64 - 1))
            if kind == 3:
                data = protobuf_codec.encode_ack(
                    number, rng.choice((None, "Duplicate", nasty.text(rng))), nasty.text(rng)
                )
            elif kind == 4:
                data = protobuf_codec.encode_connected(nasty.text(rng), nasty.text(rng), nasty.text(rng))
            elif kind == 5:
                data = protobuf_codec.encode_disconnected(nasty.text(rng))
            else:
                info = rng.choice((None, messages.StreamInfo(nasty.text(rng), number, rng.random() < 0.5, error)))
                data = protobuf_codec.finish_message(
                    protobuf_codec.encode_message(rng.choice((None, nasty.text(rng))), nasty.text(rng), "text", info),
                    number,
                )
            return nasty.break_bytes(rng, data) if rng.random() < 0.7 else data

        def decode(self, item: Any) -> Any:
            return protobuf_codec.decode_service_message(item)

    class ProtobufCommands(Commands):
        """What applications pass to clients on a protobuf subprotocol."""

        name = "protobuf-commands"
        share = 4.0
        protocol_name = "protobuf.reliable"

        @staticmethod
        def decode(opcode: int, frame: Any) -> Any:
            assert opcode == BINARY
            return protobuf_codec.decode_client_message(frame)

    TARGETS += [ProtobufClient, ProtobufService, ProtobufCommands]
