"""The JSON subprotocols as the engine sees them: URLs, control frames, decoding, names."""

from __future__ import annotations

import json
from typing import Any, List, Optional, Tuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.core.protocol import Ack, Inbound, Pong, Protocol
from simplepubsub.exceptions import InvalidArgument, RemoteProtocolError
from simplepubsub.transports.frames import BINARY, TEXT
from simplepubsub.webpubsub.json_codec import PONG, decode_client_message, encode_ack, encode_message
from simplepubsub.webpubsub.messages import JoinGroup, Message, Ping, SequenceAck
from simplepubsub.webpubsub.models import WebPubSubProtocolType
from simplepubsub.webpubsub.protocol import JsonProtocol, protocol_named

RELIABLE, PLAIN = JsonProtocol(True), JsonProtocol(False)

NAMES = [
    ("json", PLAIN.name), ("JSON", PLAIN.name), ("json.webpubsub.azure.v1", PLAIN.name),
    ("json.reliable", RELIABLE.name), ("Json.Reliable", RELIABLE.name),
    ("json.reliable.webpubsub.azure.v1", RELIABLE.name),
    (WebPubSubProtocolType.JSON, PLAIN.name), (WebPubSubProtocolType.JSON_RELIABLE, RELIABLE.name),
]


@pytest.mark.parametrize("name, full", NAMES, ids=[str(row[0]) for row in NAMES])
def test_protocols_are_found_by_short_and_full_name(name: Any, full: str) -> None:
    found = protocol_named(name)
    assert found.name == full and found.subprotocols == (full,)
    assert found.reliable == ("reliable" in full)
    assert isinstance(found, Protocol)


def test_the_names_are_those_of_the_service() -> None:
    assert (PLAIN.name, RELIABLE.name) == ("json.webpubsub.azure.v1", "json.reliable.webpubsub.azure.v1")


@pytest.mark.parametrize("name", ["", "mqtt", "json.unreliable", None, 5, "json "], ids=repr)
def test_an_unknown_protocol_is_refused_with_the_known_ones(name: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        protocol_named(name)
    text = str(caught.value)
    assert text.startswith("unknown protocol %r: use one of json, " % (name,)) and RELIABLE.name in text


def test_only_a_reliable_session_bounds_what_is_in_flight() -> None:
    # The service recognises the last 1,000 ids of a connection: repeats of more could be executed twice.
    assert RELIABLE.max_in_flight == 1000 and PLAIN.max_in_flight is None


# ---- URLs -----------------------------------------------------------------------------------------------------------

RESUMED = [
    ("wss://h/client/hubs/chat?access_token=T",
     "wss://h/client/hubs/chat?awps_connection_id=c1&awps_reconnection_token=r%2F1"),
    ("wss://h/client/hubs/chat", "wss://h/client/hubs/chat?awps_connection_id=c1&awps_reconnection_token=r%2F1"),
    ("ws://h:1/client?hub=chat&access_token=T&x=a%20b&empty=",
     "ws://h:1/client?hub=chat&x=a+b&empty=&awps_connection_id=c1&awps_reconnection_token=r%2F1"),
    ("ws://u:p@[::1]:1/client/?access_token=T&hub=c&access_token=U",
     "ws://u:p@[::1]:1/client/?hub=c&awps_connection_id=c1&awps_reconnection_token=r%2F1"),
]


@pytest.mark.parametrize("base, resumed", RESUMED, ids=[row[0] for row in RESUMED])
def test_a_recovery_url_has_both_ids_and_no_token(base: str, resumed: str) -> None:
    assert RELIABLE.url(base, ("c1", "r/1")) == resumed


@pytest.mark.parametrize("base", [row[0] for row in RESUMED])
def test_a_first_connection_uses_the_url_as_it_is(base: str) -> None:
    assert RELIABLE.url(base, None) == PLAIN.url(base, None) == base


texts = st.text(max_size=12)
keys = texts.filter(lambda key: key != "access_token")


@given(st.lists(st.tuples(keys, texts), max_size=5), st.none() | st.text(), texts, texts)
def test_whatever_is_in_the_query_survives_a_recovery_but_the_token(
    query: List[Tuple[str, str]], token: Optional[str], connection_id: str, reconnection_token: str
) -> None:
    pairs = query + ([("access_token", token)] if token is not None else [])
    resumed = RELIABLE.url("wss://host:9/client/hubs/a%2Fb?" + urlencode(pairs), (connection_id, reconnection_token))
    parts = urlsplit(resumed)
    assert (parts.scheme, parts.netloc, parts.path) == ("wss", "host:9", "/client/hubs/a%2Fb")
    ids = [("awps_connection_id", connection_id), ("awps_reconnection_token", reconnection_token)]
    assert parse_qsl(parts.query, keep_blank_values=True) == query + ids


def test_a_shown_url_has_no_secret() -> None:
    resumed = RELIABLE.url("wss://h/client/hubs/chat?access_token=T0K3N", ("c1", "R3C0NN3CT"))
    assert RELIABLE.shown_url(resumed) == "wss://h/client/hubs/chat"
    assert RELIABLE.shown_url("wss://h/client?hub=c&access_token=T0K3N") == "wss://h/client"


# ---- frames ---------------------------------------------------------------------------------------------------------


def test_control_frames_are_what_the_service_understands() -> None:
    for protocol in (PLAIN, RELIABLE):
        opcode, text = protocol.ping()
        assert opcode == TEXT and decode_client_message(str(text)) == Ping()
        opcode, text = protocol.sequence_ack(2**53 + 1)
        assert opcode == TEXT and decode_client_message(str(text)) == SequenceAck(2**53 + 1)


@given(st.text(min_size=1, max_size=50).filter(lambda name: bool(name.strip())), st.integers(0, 2**64 - 1))
def test_a_group_is_restored_by_joining_it_under_the_given_id(group: str, ack_id: int) -> None:
    opcode, body = RELIABLE.restore(group, ack_id)
    assert opcode == TEXT and isinstance(body, bytes)
    assert decode_client_message(body.decode()) == JoinGroup(group, ack_id)


def test_a_command_is_finished_with_its_id_or_without() -> None:
    body = b'{"type":"leaveGroup","group":"g"'
    assert RELIABLE.finish(body, 0) == (TEXT, body + b',"ackId":0}')
    assert RELIABLE.finish(body, None) == (TEXT, body + b"}")
    for _, text in (RELIABLE.finish(body, 2**64 - 1), RELIABLE.finish(body, None)):
        assert json.loads(text)["type"] == "leaveGroup"


def test_text_frames_are_decoded_and_binary_ones_refused() -> None:
    assert PLAIN.decode((TEXT, encode_ack(5))) == Ack(5, True)
    assert type(PLAIN.decode((TEXT, PONG))) is Pong
    message = PLAIN.decode((TEXT, encode_message("g", "u", "x", "text")))
    assert isinstance(message, Message) and isinstance(message, Inbound) and message.event == "group-message"
    with pytest.raises(RemoteProtocolError, match="binary frame on a JSON subprotocol") as caught:
        RELIABLE.decode((BINARY, b"{}"))
    assert caught.value.code == 1003
    with pytest.raises(RemoteProtocolError) as caught:
        RELIABLE.decode((TEXT, "{"))
    assert caught.value.code == 1007
