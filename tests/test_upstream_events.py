"""CloudEvents out of calls, outcomes out of answers: no data breaks them, and none gets out of its header."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.exceptions import RefuseConnection
from simplepubsub.server.handlers import ConnectReply, ConnectRequest
from simplepubsub.server.hub import Hub
from simplepubsub.server.session import Call
from simplepubsub.server.upstream_events import (
    Answer,
    Correspondence,
    connect_request,
    event_request,
    read_connect_answer,
    read_event_answer,
)
from simplepubsub.server.wire import JSON, RawWire
from simplepubsub.server.work import Work
from simplepubsub.webpubsub.messages import Event, Invoke

KEYS = ("first-key-0123456789abcdef", "second-key-0123456789abcdef")
HEADER = re.compile(r"[ -~]*\Z")

any_text = st.text(st.characters(), max_size=30)
json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | any_text, lambda children: (
    st.lists(children, max_size=3) | st.dictionaries(any_text, children, max_size=3)), max_leaves=8)  # fmt: skip


def session(user_id=None, wire=JSON, state=None):
    found = Hub("plaza", Work()).connect(wire, object(), user_id=user_id, connection_id="cn-7Qk2")
    found.state = state or {}
    return found


def request_of(**changes):
    return ConnectRequest("plaza", "cn-7Qk2", None, (), (), {}, {}, {}, ())._replace(**changes)


def test_the_signature_of_the_reference():
    found = event_request(Call("connected", session()), Correspondence(), "h", KEYS).headers["ce-signature"]
    assert found == (
        "sha256=b725fe40b1734f40050c6ac6b6049aed7d203b60db9971dbbfceef939c7e8646,"
        "sha256=f1e3cc28d8bb162893f0b0522287b5bc26fee0dc6a1858480699180877977ce7"
    )


@pytest.mark.parametrize(
    "command, content_type, body",
    [
        (Event("e", b"\0\1", "protobuf"), "application/x-protobuf", b"\0\1"),
        (Event("e", "\ud800", "text"), "text/plain", b"?"),
        (Invoke("1", "e"), "text/plain", b""),
        (Invoke("1", "e", [1], "json"), "application/json", b"[1]"),
    ],
)
def test_bodies(command, content_type, body):
    request = event_request(Call("event", session(), command), Correspondence(), "h", KEYS)
    assert (request.headers["Content-Type"], request.body) == (content_type, body)


def test_claims_become_lists_of_strings():
    claims = {
        "sub": "mina", "role": ["a", "b"], "exp": 5, "ok": True, "more": {"a": 1}, "nothing": None, "mixed": [1, "x"],
    }  # fmt: skip
    body = json.loads(connect_request(request_of(claims=claims), Correspondence(), "h", KEYS).body)
    assert body["claims"] == {
        "sub": ["mina"], "role": ["a", "b"], "exp": ["5"], "ok": ["true"], "more": ['{"a": 1}'], "nothing": ["null"],
        "mixed": ["1", "x"],
    }  # fmt: skip


@given(any_text, any_text, any_text, st.dictionaries(any_text, json_values, max_size=3))
def test_no_text_of_a_client_breaks_a_header(user_id, subprotocol, text, state):
    for call in (
        Call("disconnected", session(user_id, RawWire(subprotocol=subprotocol), state), reason=text),
        Call("joined", session(user_id), group=text),
        Call("event", session(user_id), Event("e", text, "text")),
    ):
        request = event_request(call, Correspondence(), "h:1", KEYS)
        assert all(HEADER.match(key) and HEADER.match(value) for key, value in request.headers.items())
    fields = {"query": {text: [text]}, "headers": {text: [text, user_id]}, "claims": {text: text}}
    request = connect_request(request_of(user_id=user_id, **fields), Correspondence(), "h:1", KEYS)
    assert all(HEADER.match(value) for value in request.headers.values())
    assert isinstance(json.loads(request.body), dict)


answers = st.builds(
    Answer,
    st.sampled_from([200, 200, 200, 201, 204, 301, 400, 500]),
    st.dictionaries(
        st.sampled_from(["content-type", "ce-connectionstate"]),
        st.sampled_from(["text/plain", "application/json; charset=utf-16", "application/octet-stream"])
        | st.sampled_from(["e30=", "eyJhIjoxfQ=="]) | any_text,
    ),
    st.binary(max_size=40) | any_text.map(lambda text: text.encode("utf-8", "replace"))
    | json_values.map(lambda value: json.dumps(value).encode()),
)  # fmt: skip


@given(answers)
def test_any_answer_to_an_event_has_an_outcome(answer):
    outcome = read_event_answer(answer, 1000)
    assert outcome.reply is None or outcome.error is None
    if outcome.reply is not None:
        assert outcome.reply.packed(JSON).plain()


@given(answers | st.builds(
    lambda value: Answer(200, {}, json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(["userId", "groups", "roles", "subprotocol"]), json_values),
))  # fmt: skip
def test_any_answer_to_connect_is_a_reply_or_a_refusal(answer):
    try:
        reply = read_connect_answer(answer, request_of(subprotocols=("a",)))
    except RefuseConnection as refusal:
        assert 400 <= refusal.status <= 500
    else:
        assert isinstance(reply, ConnectReply)
        assert reply.user_id is None or isinstance(reply.user_id, str)
