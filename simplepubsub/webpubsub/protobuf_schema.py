"""The messages of the protobuf subprotocols, built at import from the table below.

No generated module, hence no version to keep in step with: this works from protobuf 3.20 on, with each of its
implementations. The classes live in a descriptor pool of their own, where they cannot collide with an application's.

Left out is what this package does not use; parsers skip fields that they do not know. Invocations (10 to 12 up, 5 down)
have no published numbers (protocol reference 9.11).
"""

from __future__ import annotations

from typing import Any, Dict

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["AnyMessage", "DownstreamMessage", "MessageData", "UpstreamMessage"]

# Protocol reference 2.9: number, name, type; "?" marks an optional field, "|" a member of the message's oneof, which is
# called "kind". Two departures keep the bytes the same: a payload of the type google.protobuf.Any is declared as bytes,
# so that it is passed on as it came, and Any is declared here, to look into one.
_TABLE = """
UpstreamMessage: 1 send_to_group_message SendToGroupMessage|, 5 event_message EventMessage|,
    6 join_group_message JoinGroupMessage|, 7 leave_group_message LeaveGroupMessage|,
    8 sequence_ack_message SequenceAckMessage|, 9 ping_message PingMessage|,
    13 stream_data_message StreamDataMessage|, 14 stream_end_message StreamEndMessage|
DownstreamMessage: 1 ack_message AckMessage|, 2 data_message DataMessage|, 3 system_message SystemMessage|,
    4 pong_message PongMessage|, 6 stream_ack_message StreamAckMessage|, 7 stream_nack_message StreamNackMessage|,
    8 stream_closed_message StreamClosedMessage|

MessageData: 1 text_data string|, 2 binary_data bytes|, 3 protobuf_data bytes|, 4 json_data string|
SendToGroupMessage: 1 group string, 2 ack_id uint64?, 3 data MessageData, 4 no_echo bool?, 5 ttl_seconds uint32?,
    7 stream StreamStartInfo
StreamStartInfo: 1 stream_id string, 2 idle_timeout_ms uint32?
EventMessage: 1 event string, 2 data MessageData, 3 ack_id uint64?
JoinGroupMessage: 1 group string, 2 ack_id uint64?
LeaveGroupMessage: 1 group string, 2 ack_id uint64?
SequenceAckMessage: 1 sequence_id uint64
PingMessage:
StreamDataMessage: 1 stream_id string, 2 stream_sequence_id uint64?, 3 data MessageData
StreamEndMessage: 1 stream_id string, 2 error StreamEndError
StreamEndError: 1 message string?, 2 user_error_code string?

AckMessage: 1 ack_id uint64, 2 success bool, 3 error NamedError
DataMessage: 1 from string, 2 group string?, 3 data MessageData, 4 sequence_id uint64?, 6 stream StreamInfo
SystemMessage: 1 connected_message ConnectedMessage|, 2 disconnected_message DisconnectedMessage|
ConnectedMessage: 1 connection_id string, 2 user_id string, 3 reconnection_token string
DisconnectedMessage: 2 reason string
PongMessage:
StreamAckMessage: 1 stream_id string, 2 expected_sequence_id uint64
StreamNackMessage: 1 stream_id string, 2 name string, 3 message string, 4 expected_sequence_id uint64
StreamClosedMessage: 1 stream_id string, 2 error NamedError
StreamInfo: 1 stream_id string, 2 stream_sequence_id uint64, 3 end_of_stream bool?, 4 error NamedError
NamedError: 1 name string, 2 message string, 3 user_error_code string?

Any: 1 type_url string, 2 value bytes
"""

_PACKAGE = "simplepubsub.wire"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _Field.TYPE_STRING, "bytes": _Field.TYPE_BYTES, "bool": _Field.TYPE_BOOL,
            "uint32": _Field.TYPE_UINT32, "uint64": _Field.TYPE_UINT64}  # fmt: skip


def _add_message(file: Any, row: str) -> None:
    name, _, fields = row.partition(":")
    message = file.message_type.add(name=name)
    optional = []
    for text in filter(None, map(str.strip, fields.split(","))):
        number, field_name, kind = text.split()
        field = message.field.add(number=int(number), name=field_name, label=_Field.LABEL_OPTIONAL)
        base = kind.rstrip("?|")
        if base in _SCALARS:
            field.type = _SCALARS[base]
        else:
            field.type, field.type_name = _Field.TYPE_MESSAGE, ".%s.%s" % (_PACKAGE, base)
        if kind.endswith("|"):
            field.oneof_index = 0
            if not message.oneof_decl:
                message.oneof_decl.add(name="kind")
        elif kind.endswith("?"):
            optional.append(field)
    # What protoc makes of a proto3 "optional": a oneof of its own, after the real ones.
    for field in optional:
        field.proto3_optional = True
        field.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name="_" + field.name)


def _build() -> Dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="simplepubsub/wire.proto", package=_PACKAGE, syntax="proto3")
    for row in _TABLE.replace(",\n", ",").splitlines():
        if row:
            _add_message(file, row)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    if hasattr(message_factory, "GetMessageClass"):
        make = message_factory.GetMessageClass
    else:  # before protobuf 4.22
        make = message_factory.MessageFactory(pool).GetPrototype
    return {row.name: make(pool.FindMessageTypeByName("%s.%s" % (_PACKAGE, row.name))) for row in file.message_type}


_classes = _build()

#: Message classes; everything they hold is reached through their fields.
UpstreamMessage = _classes["UpstreamMessage"]
DownstreamMessage = _classes["DownstreamMessage"]
MessageData = _classes["MessageData"]
AnyMessage = _classes["Any"]
