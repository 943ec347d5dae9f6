"""The core of the event handler: requests into records, results into answers, and everything that is refused."""

from __future__ import annotations

import base64
import functools
import json
import logging
import threading
from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.exceptions import InvalidArgument
from simplepubsub.webpubsub import (
    ClientCertificate,
    ConnectResponse,
    EventHandler,
    RefuseConnection,
    RefuseEvent,
    UserEventResponse,
    cloud_events,
)

KEY = "first-key-0123456789abcdef"
SECOND = "second-key-0123456789abcdef"
CONNECTION = "cn-7Qk2"
TEXT = "text/plain; charset=utf-8"
OFFERED = "json.webpubsub.azure.v1"

Answer = Tuple[int, Dict[str, str], bytes]


def headers_for(event: str, kind: str = "user", **more: Optional[str]) -> Dict[str, str]:
    """Return the headers of an event; None takes one away, "_" in a name is a dash."""
    headers = {
        "WebHook-Request-Origin": "demo.example.test",
        "Content-Type": "application/json" if kind != "user" else "text/plain",
        "ce-specversion": "1.0",
        "ce-awpsversion": "1.0",
        "ce-type": "azure.webpubsub.%s.%s" % (kind, event),
        "ce-source": "/hubs/plaza/client/" + CONNECTION,
        "ce-id": "1",
        "ce-time": "2026-01-01T00:00:00Z",
        "ce-hub": "plaza",
        "ce-connectionId": CONNECTION,
        "ce-eventName": event,
        "ce-userId": "mina",
        "ce-signature": cloud_events.signature(CONNECTION, [KEY]),
    }
    for name, value in more.items():
        name = name.replace("_", "-")
        headers.pop(name, None)
        if value is not None:
            headers[name] = value
    return headers


def post(handler: EventHandler, event: str, body: Any = b"", kind: str = "user", **more: Optional[str]) -> Answer:
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return handler.handle("POST", headers_for(event, kind, **more), body)


def make(**options: Any) -> EventHandler:
    return EventHandler(**dict({"hub": "plaza", "access_key": KEY}, **options))


def answering(result: Any, **options: Any) -> EventHandler:
    handler = make(**options)
    handler.on_event("*", lambda request: result)
    return handler


def connecting(result: Any) -> EventHandler:
    handler = make()
    handler.on_connect(lambda request: result)
    return handler


def seen(handler: EventHandler) -> List[Any]:
    """Register a function for everything; return the list of the requests that they get."""
    requests: List[Any] = []
    for register in (handler.on_connect, handler.on_connected, handler.on_disconnected, handler.on_joined,
                     handler.on_left, handler.on_event):
        register(requests.append)
    return requests


# ---- abuse protection -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed, origin, answer", [
    (None, "demo.example.test", "*"),
    ("*", "demo.example.test", "*"),
    ("demo.example.test", "demo.example.test", "demo.example.test"),
    ("DEMO.example.test", "demo.EXAMPLE.test", "demo.EXAMPLE.test"),
    ("https://demo.example.test/", "demo.example.test:443", "demo.example.test:443"),
    (["other.test", "demo.example.test"], "demo.example.test", "demo.example.test"),
    ("demo.example.test", "other.test, demo.example.test", "demo.example.test"),
    ("*.example.test", "demo.example.test", "demo.example.test"),
    ("http://127.0.0.1:8080", "localhost:9999", "localhost:9999"),
    ("[::1]:8080", "127.0.0.1", "127.0.0.1"),
    ("demo.example.test", "demo.example.test.evil.test", None),
    ("demo.example.test", "evildemo.example.test", None),
    ("*.example.test", "example.test", None),
    ("*.example.test", "other.test.demo.example.test", "other.test.demo.example.test"),
    ("*.example.test", "evilexample.test", None),
    ("demo.example.test", "other.test", None),
])
def test_abuse_protection_answers_with_the_origin_when_it_is_allowed(
    allowed: Any, origin: str, answer: Optional[str]
) -> None:
    handler = make(allowed_origins=allowed)
    status, headers, body = handler.handle("OPTIONS", {"webhook-request-origin": origin})
    assert headers.get("WebHook-Allowed-Origin") == answer
    assert status == (403 if answer is None else 200)
    handler.on_event(lambda request: "yes")
    assert post(handler, "talk", WebHook_Request_Origin=origin)[0] == status


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
@pytest.mark.parametrize("origin", [None, "", " , ", "a\r\nX-Injected: 1", "b\u00fccher.test"])
def test_a_request_without_an_origin_is_refused(method: str, origin: Optional[str]) -> None:
    headers = headers_for("talk", WebHook_Request_Origin=origin)
    status, _, body = answering("yes").handle(method, headers, b"")
    assert (status, body) == (400, b"the header WebHook-Request-Origin is missing")


def test_the_endpoint_of_the_connection_string_is_the_allowed_origin() -> None:
    text = "Endpoint=https://demo.example.test;AccessKey=%s;Version=1.0;" % KEY
    handler = EventHandler(connection_string=text)
    handler.on_event(lambda request: "yes")
    assert post(handler, "talk")[0] == 200
    assert post(handler, "talk", WebHook_Request_Origin="other.test")[0] == 403
    open_handler = EventHandler(connection_string=text, allowed_origins="*")
    assert open_handler.handle("OPTIONS", {"WebHook-Request-Origin": "other.test"})[0] == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "get", "", "X" * 99])
def test_other_methods_are_not_allowed(method: str) -> None:
    status, headers, _ = answering("yes").handle(method, headers_for("talk"), b"")
    assert status == 405 and headers["Allow"] == "OPTIONS, POST"


# ---- signature ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed_with, known, status", [
    ([KEY], {"access_key": KEY}, 200),
    ([SECOND], {"access_key": KEY}, 401),
    ([SECOND, KEY], {"access_key": KEY}, 200),
    ([SECOND], {"access_keys": [KEY, SECOND]}, 200),
    ([SECOND], {"access_key": KEY, "access_keys": (SECOND,)}, 200),
    ([KEY], {"connection_string": "Endpoint=http://demo.example.test;AccessKey=" + KEY}, 200),
    ([SECOND], {"connection_string": "Endpoint=http://demo.example.test;AccessKey=" + KEY}, 401),
    ([SECOND], {"access_key": KEY, "check_signature": False}, 200),
    ([], {"check_signature": False}, 200),
])
def test_the_signature_must_be_of_one_of_the_keys(signed_with: List[str], known: Dict[str, Any], status: int) -> None:
    handler = EventHandler("plaza", **known)
    handler.on_event(lambda request: "yes")
    signature = cloud_events.signature(CONNECTION, signed_with)
    assert post(handler, "talk", ce_signature=signature)[0] == status


@pytest.mark.parametrize("signature", [
    None, "", ",", "sha256=", "sha256", cloud_events.signature("cn-other", [KEY]),
    cloud_events.signature(CONNECTION, [KEY])[len("sha256="):], "sha1=" + "0" * 40, "sha256=" + "0" * 64,
    "sha256=\udcff", "\u20ac" * 9, "," * 10000,
])
def test_a_bad_signature_is_refused_before_anything_else_is_told(signature: Optional[str]) -> None:
    called: List[Any] = []
    handler = make()
    handler.on_event(called.append)
    for more in ({}, {"ce_hub": "secrethub"}, {"Content_Type": "what/ever"}):
        status, _, body = post(handler, "talk", b"\xff", ce_signature=signature, **more)
        assert (status, body) == (401, b"the signature is missing or made with another key")
    assert called == []


def test_the_signatures_of_the_reference_are_accepted() -> None:
    value = ("sha256=b725fe40b1734f40050c6ac6b6049aed7d203b60db9971dbbfceef939c7e8646,"
             "sha256=f1e3cc28d8bb162893f0b0522287b5bc26fee0dc6a1858480699180877977ce7")
    for key in (KEY, SECOND):
        assert post(answering("yes", access_key=key), "talk", ce_signature=value)[0] == 200
        assert post(answering("yes", access_key=key), "talk", ce_signature=value.upper())[0] == 200
    assert post(answering("yes", access_key="third-key-0123456789abcdef"), "talk", ce_signature=value)[0] == 401


def test_no_key_is_a_mistake_unless_signatures_are_not_wanted() -> None:
    with pytest.raises(InvalidArgument, match="check_signature=False"):
        EventHandler("plaza")
    assert "unsigned" in repr(EventHandler("plaza", check_signature=False))


@pytest.mark.parametrize("options", [
    {"hub": ""}, {"hub": 7}, {"access_key": ""}, {"access_key": b"key"}, {"access_keys": KEY}, {"access_keys": [None]},
    {"allowed_origins": ""}, {"allowed_origins": []}, {"allowed_origins": [7]}, {"path": "events"}, {"path": 7},
    {"max_body_bytes": 0}, {"max_body_bytes": True}, {"max_body_bytes": 1.5}, {"connection_string": "Endpoint=x"},
])
def test_a_wrong_option_is_named(options: Dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make(**options)
    assert KEY not in str(caught.value)


def test_neither_repr_nor_log_nor_answer_shows_a_key(caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    handler = make(access_keys=[SECOND])
    handler.on_event(lambda request: 1 / 0)
    answers = [post(handler, "talk"), post(handler, "talk", ce_signature="sha256=1"), repr(handler)]
    for text in (caplog.text, str(answers), str([vars(record) for record in caplog.records])):
        assert KEY not in text and SECOND not in text


# ---- attributes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more, status", [
    ({}, 200),
    ({"ce_specversion": None}, 400),
    ({"ce_specversion": "0.3"}, 400),
    ({"ce_type": None}, 400),
    ({"ce_type": "com.example.thing"}, 400),
    ({"ce_type": "azure.webpubsub.user."}, 400),
    ({"ce_type": "azure.webpubsub.user.a b"}, 400),
    ({"ce_type": "azure.webpubsub.user." + "x" * 129}, 400),
    ({"ce_type": "azure.webpubsub.sys.unheard", "ce_eventName": None}, 400),
    ({"ce_type": "azure.webpubsub.gp.unheard", "ce_eventName": None}, 400),
    ({"ce_type": "AZURE.WebPubSub.User.TALK"}, 200),
    ({"ce_hub": None}, 400),
    ({"ce_hub": "PLAZA"}, 200),
    ({"ce_hub": "other"}, 404),
    ({"ce_connectionId": None}, 400),
    ({"ce_connectionId": "  "}, 400),
    ({"ce_eventName": None}, 200),
    ({"ce_eventName": "other"}, 400),
    ({"ce_awpsversion": None, "ce_id": None, "ce_time": None, "ce_source": None, "ce_userId": None}, 200),
])
def test_attributes_are_checked(more: Dict[str, Any], status: int) -> None:
    assert post(answering("yes"), "talk", **more)[0] == status


def test_a_handler_of_every_hub_is_told_which() -> None:
    handler = make(hub=None)
    requests = seen(handler)
    assert post(handler, "talk", ce_hub="garden")[0] == 204
    assert requests[0].hub == "garden"


@pytest.mark.parametrize("headers", [
    {name.upper(): value for name, value in headers_for("talk").items()},
    list(headers_for("talk").items()),
    iter([(name.lower(), value) for name, value in headers_for("talk").items()]),
])
def test_headers_may_be_pairs_and_their_names_have_no_case(headers: Any) -> None:
    handler = make()
    requests = seen(handler)
    assert handler.handle("post", headers, bytearray(b"hello"))[0] == 204
    assert requests[0].data == "hello" and requests[0].http_headers["ce-hub"] == "plaza"


def test_a_doubled_header_is_not_taken_for_one_of_the_two() -> None:
    pairs = list(headers_for("talk").items()) + [("ce-userId", "admin")]
    handler = make()
    requests = seen(handler)
    assert handler.handle("POST", pairs, b"")[0] == 204
    assert requests[0].user_id == "mina, admin"
    assert handler.handle("POST", pairs + [("ce-connectionId", "other")], b"")[0] == 401


# ---- header values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, value", [
    ("mina", "mina"),
    ("mina smith", "mina smith"),
    ('"mina"', '"mina"'),
    (" mina ", "%20mina%20"),
    ("  ", "%20%20"),
    ("josé", "jos%C3%A9"),
    ("50%", "50%25"),
    ("a%20b", "a%2520b"),
    ("a\r\nce-hub: x", "a%0D%0Ace-hub: x"),
    ("\u0000\u007f", "%00%7F"),
    ("日本", "%E6%97%A5%E6%9C%AC"),
])
def test_a_header_value_survives_the_way(text: str, value: str) -> None:
    assert cloud_events.encode_header_value(text) == value
    assert cloud_events.decode_header_value(value) == text


@pytest.mark.parametrize("value, text", [
    ("adm%69n", "adm%69n"),  # no encoder writes this, so it is somebody's name and not "admin"
    ("100%", "100%"),
    ("%zz", "%zz"),
    ("%e9", "%e9"),
    ("%C3", "%C3"),
    ("a%20b", "a b"),  # as CloudEvents has it, with blanks encoded
    ("%22a%20b%22", '"a b"'),
    ("jos\u00c3\u00a9", "josé"),  # raw UTF-8, as HTTP libraries show it
    ("jos\u00e9", "jos\u00e9"),
    ("日本", "日本"),
])
def test_only_what_an_encoder_writes_is_decoded(value: str, text: str) -> None:
    assert cloud_events.decode_header_value(value) == text


@given(st.text(st.characters(blacklist_categories=("Cs",))))
def test_every_text_survives_as_a_header_value(text: str) -> None:
    value = cloud_events.encode_header_value(text)
    assert cloud_events.decode_header_value(value) == text
    assert value == value.strip() and all(" " <= character <= "~" for character in value)


@given(st.text(), st.text())
def test_no_two_texts_share_a_header_value(one: str, other: str) -> None:
    assert (one == other) == (cloud_events.encode_header_value(one) == cloud_events.encode_header_value(other))


def test_user_ids_arrive_decoded() -> None:
    handler = make()
    requests = seen(handler)
    post(handler, "talk", ce_userId="jos%C3%A9 %2550%25")
    post(handler, "talk", ce_userId=None)
    assert [request.user_id for request in requests] == ["josé %50%", None]


# ---- connect --------------------------------------------------------------------------------------------------------

CONNECT = {
    "claims": {"sub": ["mina"], "role": ["webpubsub.joinLeaveGroup"], "webpubsub.group": "lobby", "exp": 1700003600},
    "query": {"room": ["3", "4"], "empty": None},
    "headers": {"User-Agent": ["demo/1"]},
    "subprotocols": [OFFERED, "other"],
    "clientCertificates": [{"thumbprint": "9f", "content": "-----BEGIN CERTIFICATE-----"}],
}


def test_a_connect_request_has_what_the_client_brought() -> None:
    handler = make()
    requests = seen(handler)
    assert post(handler, "connect", CONNECT, "sys") == (204, {}, b"")
    [request] = requests
    assert (request.hub, request.connection_id, request.event, request.user_id) == ("plaza", CONNECTION, "connect",
                                                                                    "mina")
    assert request.claims == {"sub": ["mina"], "role": ["webpubsub.joinLeaveGroup"], "webpubsub.group": ["lobby"],
                              "exp": ["1700003600"]}
    assert request.query == request.queries == {"room": ["3", "4"], "empty": []}
    assert request.headers == {"User-Agent": ["demo/1"]}
    assert request.subprotocols == (OFFERED, "other")
    assert request.client_certificates == (ClientCertificate("9f", "-----BEGIN CERTIFICATE-----"),)
    assert request.roles == ("webpubsub.joinLeaveGroup",) and request.groups == ("lobby",)
    assert request.state == {} and request.mqtt is None
    with pytest.raises(AttributeError):
        request.user_id = "other"
    for mapping in (request.state, request.claims, request.query, request.headers, request.http_headers):
        with pytest.raises(TypeError):
            mapping["new"] = "value"


@pytest.mark.parametrize("body, status", [
    (b"", 204),
    ({}, 204),
    ({"claims": None, "query": None, "headers": None, "subprotocols": None, "clientCertificates": None}, 204),
    ({"mqtt": {"protocolVersion": 5}}, 204),
    ("\ufeff{}".encode("utf-16"), 400),
    (b"{", 400),
    (b"[]", 400),
    (b"null", 400),
    (b"\xff", 400),
    (b"[" * 100000, 400),
    (b"NaN", 400),
    ({"claims": []}, 400),
    ({"claims": {"sub": {}}}, 400),
    ({"query": {"room": [["3"]]}}, 400),
    ({"subprotocols": {}}, 400),
    ({"clientCertificates": {}}, 400),
    ({"clientCertificates": ["x"]}, 400),
])
def test_a_connect_body_is_checked(body: Any, status: int) -> None:
    handler = make()
    requests = seen(handler)
    assert post(handler, "connect", body, "sys")[0] == status
    assert len(requests) == (status == 204)


@pytest.mark.parametrize("content_type, status", [
    ("application/json", 204), ("application/json;charset=UTF-8", 204), ("Application/JSON; charset=\"utf-8\"", 204),
    (None, 204), ("text/plain", 415), ("application/cloudevents+json", 415), ("application/json; charset=klingon", 415),
])
def test_system_events_are_json(content_type: Optional[str], status: int) -> None:
    assert post(make(), "connect", b"{}", "sys", Content_Type=content_type)[0] == status


@pytest.mark.parametrize("result, status, body", [
    (None, 204, None),
    (ConnectResponse(), 204, None),
    ({}, 204, None),
    (ConnectResponse("verified", ["lobby"], ("webpubsub.sendToGroup.lobby",), OFFERED), 200,
     {"userId": "verified", "groups": ["lobby"], "roles": ["webpubsub.sendToGroup.lobby"], "subprotocol": OFFERED}),
    ({"user_id": "josé"}, 200, {"userId": "josé"}),
    ({"groups": [], "roles": []}, 200, {"groups": [], "roles": []}),
    ({"groups": {"lobby": 1}.keys()}, 200, {"groups": ["lobby"]}),
])
def test_a_connect_function_changes_what_it_names(result: Any, status: int, body: Any) -> None:
    answer = post(connecting(result), "connect", CONNECT, "sys")
    assert answer[0] == status
    assert (json.loads(answer[2].decode("ascii")) if answer[2] else None) == body
    assert answer[1] == ({"Content-Type": "application/json"} if body is not None else {})


@pytest.mark.parametrize("result", [
    "mina", 7, [], True, UserEventResponse("x"), {"userId": "mina"}, {"user_id": 7}, {"user_id": ""},
    {"groups": "lobby"}, {"groups": [7]}, {"groups": [""]}, {"groups": 7}, {"groups": ["x" * 1025]},
    {"roles": "admin"}, {"roles": {"admin": 1}}, {"subprotocol": "not.offered"}, {"subprotocol": ""},
    {"state": []}, {"state": {"x": object()}}, {"state": {"x": float("nan")}},
])
def test_a_result_that_cannot_be_sent_refuses_the_client(result: Any, caplog: Any) -> None:
    status, headers, body = post(connecting(result), "connect", CONNECT, "sys")
    assert (status, headers, body) == (500, {"Content-Type": TEXT}, b"the event handler failed")
    assert "InvalidArgument" in caplog.text and "Traceback" in caplog.text


@pytest.mark.parametrize("error, status, body", [
    (RefuseConnection(), 401, b"refused by the connect handler"),
    (RefuseConnection(403, "not \u20ac you\r\nX: y"), 403, "not € you\r\nX: y".encode()),
    (RefuseConnection(599, ""), 599, b""),
    (RefuseEvent(400, "bad \ud800"), 400, b"bad \\ud800"),
    (ValueError("secret"), 500, b"the event handler failed"),
])
def test_a_connect_function_refuses_by_raising(error: Exception, status: int, body: bytes) -> None:
    handler = make()

    @handler.on_connect
    def refuse(request: Any) -> None:
        raise error

    assert post(handler, "connect", CONNECT, "sys") == (status, {"Content-Type": TEXT}, body)


@pytest.mark.parametrize("status", [200, 302, 399, 600, "401", None, True])
def test_a_refusal_is_an_http_error(status: Any) -> None:
    for error in (RefuseConnection, RefuseEvent):
        with pytest.raises(InvalidArgument):
            error(status, "no")


# ---- the other system and group events ------------------------------------------------------------------------------


def test_the_events_of_a_life_arrive_as_what_they_are() -> None:
    handler = make()
    requests = seen(handler)
    more = {"ce_subprotocol": OFFERED, "ce_connectionState": cloud_events.encode_state({"turns": 3})}
    for event, kind, body in (("connected", "sys", {}), ("joined", "gp", {"group": "lobby"}),
                              ("left", "gp", {"group": "lobby"}), ("disconnected", "sys", {"reason": "gone"}),
                              ("disconnected", "sys", {"reason": None})):
        assert post(handler, event, body, kind, **more) == (204, {}, b"")
    assert [request.event for request in requests] == ["connected", "joined", "left", "disconnected", "disconnected"]
    assert [request.group for request in requests[1:3]] == ["lobby", "lobby"]
    assert [request.reason for request in requests[3:]] == ["gone", ""]
    assert {request.subprotocol for request in requests} == {OFFERED}
    assert all(request.state == {"turns": 3} for request in requests)


@pytest.mark.parametrize("event, kind, body", [
    ("disconnected", "sys", {"reason": 7}), ("disconnected", "sys", []), ("joined", "gp", {}),
    ("left", "gp", {"group": ["lobby"]}), ("connected", "sys", b"nothing"),
])
def test_their_bodies_are_checked(event: str, kind: str, body: Any) -> None:
    assert post(make(), event, body, kind)[0] == 400


@pytest.mark.parametrize("event, kind", [("connect", "sys"), ("connected", "sys"), ("disconnected", "sys")])
def test_a_system_event_without_a_function_is_fine(event: str, kind: str) -> None:
    assert post(make(), event, {}, kind) == (204, {}, b"")


def test_a_user_event_named_like_a_system_event_is_a_user_event() -> None:
    handler = make()
    handler.on_connect(lambda request: {"user_id": "wrong"})
    handler.on_event("connect", lambda request: "right")
    assert post(handler, "connect", b"")[2] == b"right"


# ---- user events: what comes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type, body, data, data_type", [
    ("text/plain", b"hello", "hello", "text"),
    ("text/plain", b"", "", "text"),
    ("text/plain; charset=utf-8", "€".encode(), "€", "text"),
    ("text/plain; charset=iso-8859-1", b"\xe9", "é", "text"),
    ("TEXT/PLAIN;charset=\"UTF-16\"", "€".encode("utf-16"), "€", "text"),
    ("application/json", b' {"a": [1, null]} ', {"a": [1, None]}, "json"),
    ("application/json", b"null", None, "json"),
    ("application/json; charset=utf-8", b'"\xe2\x82\xac"', "€", "json"),
    ("application/octet-stream", b"\x00\xff", b"\x00\xff", "binary"),
    ("application/x-protobuf", b"\x0a\x00", b"\x0a\x00", "protobuf"),
    (None, b"", None, None),
])
def test_a_user_event_has_its_data(content_type: Optional[str], body: bytes, data: Any, data_type: Any) -> None:
    handler = make()
    requests = seen(handler)
    assert post(handler, "Talk.to-me_2", body, Content_Type=content_type)[0] == 204
    assert (requests[0].data, requests[0].data_type, requests[0].event) == (data, data_type, "Talk.to-me_2")


@pytest.mark.parametrize("content_type, body, status", [
    ("text/plain", b"\xff", 400),
    ("application/json", b"", 400),
    ("application/json", b"{", 400),
    ("application/json", b"Infinity", 400),
    ("application/json", b"{} {}", 400),
    ("application/json", b"[" * 100000, 400),
    ("text/plain; charset=base64", b"aGk=", 415),
    ("text/html", b"x", 415),
    ("application/xml", b"x", 415),
    (None, b"x", 415),
    ("", b"x", 415),
    ("\r\n\x00" * 99, b"x", 415),
])
def test_data_that_cannot_be_read_is_refused(content_type: Optional[str], body: bytes, status: int) -> None:
    handler = make()
    requests = seen(handler)
    assert post(handler, "talk", body, Content_Type=content_type)[0] == status
    assert requests == []


def test_a_body_over_the_limit_is_refused() -> None:
    handler = answering("yes", max_body_bytes=10)
    assert post(handler, "talk", b"0123456789")[0] == 200
    assert post(handler, "talk", b"0123456789a")[0] == 413


# ---- user events: what goes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("result, status, content_type, body", [
    (None, 204, None, b""),
    ("hé", 200, TEXT, "hé".encode()),
    ("", 200, TEXT, b""),
    (b"\x00", 200, "application/octet-stream", b"\x00"),
    (bytearray(b"ab"), 200, "application/octet-stream", b"ab"),
    (memoryview(b"abcd")[::2], 200, "application/octet-stream", b"ac"),
    ({"a": 1}, 200, "application/json", b'{"a":1}'),
    ([1, "é"], 200, "application/json", '[1,"é"]'.encode()),
    (0, 200, "application/json", b"0"),
    (False, 200, "application/json", b"false"),
    (UserEventResponse(), 204, None, b""),
    (UserEventResponse("x", "json"), 200, "application/json", b'"x"'),
    (UserEventResponse("x", "TEXT"), 200, TEXT, b"x"),
    (UserEventResponse(b"x", "binary"), 200, "application/octet-stream", b"x"),
])
def test_a_result_becomes_an_answer(result: Any, status: int, content_type: Any, body: bytes) -> None:
    expected = {} if content_type is None else {"Content-Type": content_type}
    assert post(answering(result), "talk") == (status, expected, body)


@pytest.mark.parametrize("result", [
    object(), float("nan"), {1: {2}}, ConnectResponse("x"), UserEventResponse(7, "text"),
    UserEventResponse("x", "binary"), UserEventResponse("x", "html"), UserEventResponse(b"x", "protobuf"),
    UserEventResponse("x", state=[]), "x" * (2**20 + 1),
], ids=lambda value: type(value).__name__)
def test_a_result_that_cannot_be_sent_is_a_500_with_a_line_in_the_log(result: Any, caplog: Any) -> None:
    assert post(answering(result), "talk") == (500, {"Content-Type": TEXT}, b"the event handler failed")
    assert "the function for talk" in caplog.text and "Traceback" in caplog.text


def test_the_request_itself_is_no_result() -> None:
    handler = make()
    handler.on_event(lambda request: request)
    assert post(handler, "talk")[0] == 500


@pytest.mark.parametrize("error, status, body", [
    (RefuseEvent(), 400, b"refused by the event handler"),
    (RefuseEvent(401, "who are you?"), 401, b"who are you?"),
    (RefuseEvent(500, "the database is away"), 500, b"the database is away"),
    (RefuseConnection(403, "no"), 403, b"no"),
])
def test_a_function_fails_an_event_by_raising(error: Exception, status: int, body: bytes, caplog: Any) -> None:
    handler = make()

    @handler.on_event("talk")
    def refuse(request: Any) -> None:
        raise error

    assert post(handler, "talk") == (status, {"Content-Type": TEXT}, body)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("event, kind", [("talk", "user"), ("connected", "sys"), ("disconnected", "sys"),
                                         ("joined", "gp"), ("left", "gp"), ("connect", "sys")])
def test_a_function_that_fails_tells_the_log_and_not_the_caller(event: str, kind: str, caplog: Any) -> None:
    handler = make()

    def fail(request: Any) -> None:
        raise RuntimeError("password=hunter2")

    for register in (handler.on_connect, handler.on_connected, handler.on_disconnected, handler.on_joined,
                     handler.on_left, handler.on_event):
        register(fail)
    status, headers, body = post(handler, event, {"group": "lobby"}, kind)
    assert (status, headers, body) == (500, {"Content-Type": TEXT}, b"the event handler failed")
    [record] = [record for record in caplog.records if record.name == "simplepubsub.event_handler"]
    assert record.exc_info and record.levelname == "ERROR"
    assert "the function for %s of %r failed" % (event, CONNECTION) in caplog.text and "hunter2" in caplog.text


def test_ctrl_c_in_a_function_is_nobody_elses_failure() -> None:
    handler = make()

    @handler.on_event
    def interrupted(request: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        post(handler, "talk")


# ---- state ----------------------------------------------------------------------------------------------------------


def test_state_goes_round() -> None:
    handler = make()
    handler.on_connect(lambda request: ConnectResponse(state={"turns": 0, "name": "é \ud800"}))

    @handler.on_event("turn")
    def turn(request: Any) -> UserEventResponse:
        return UserEventResponse("ok", state=dict(request.state, turns=request.state["turns"] + 1))

    status, headers, _ = post(handler, "connect", CONNECT, "sys")
    assert status == 204
    for count in (1, 2):
        status, headers, _ = post(handler, "turn", ce_connectionState=headers["ce-connectionState"])
        assert status == 200
        assert json.loads(base64.b64decode(headers["ce-connectionState"])) == {"turns": count, "name": "é \ud800"}
    handler.on_event("turn", lambda request: UserEventResponse(state={}))
    assert post(handler, "turn")[:2] == (204, {"ce-connectionState": "e30="})
    handler.on_event("turn", lambda request: UserEventResponse(state=request.state))
    assert post(handler, "turn", ce_connectionState="eyJhIjoxfQ==")[1] == {"ce-connectionState": "eyJhIjoxfQ=="}


@pytest.mark.parametrize("value", [
    None, "", "!!!", "e30", "\u20ac", base64.b64encode(b"[1]").decode(), base64.b64encode(b"{").decode(),
    base64.b64encode(b"\xff").decode(), base64.b64encode(b"[" * 100000).decode(),
])
def test_a_state_that_cannot_be_read_is_empty(value: Optional[str]) -> None:
    handler = make()
    requests = seen(handler)
    assert post(handler, "talk", ce_connectionState=value)[0] == 204
    assert requests[0].state == {}


# ---- registration ---------------------------------------------------------------------------------------------------


def test_the_function_of_the_name_comes_before_the_one_for_all() -> None:
    handler = make()

    @handler.on_event("Talk")
    def talk(request: Any) -> str:
        return "talk"

    @handler.on_event
    def anything(request: Any) -> str:
        return "anything"

    assert post(handler, "tALK")[2] == b"talk" and post(handler, "walk")[2] == b"anything"
    handler.on_event("talk", lambda request: "new")
    assert post(handler, "talk")[2] == b"new"
    assert (talk(None), anything(None)) == ("talk", "anything")
    handler.on_event()(lambda request: "all")
    assert post(handler, "walk")[2] == b"all"


def test_an_event_without_a_function_fails_by_name(caplog: Any) -> None:
    handler = make()
    handler.on_event("talk", lambda request: None)
    assert post(handler, "walk") == (404, {"Content-Type": TEXT},
                                     b"no function for the event walk: register one with on_event")
    assert "no function for the event walk" in caplog.text


@pytest.mark.parametrize("event", ["", "1st", "a b", "x" * 129, 7, None])
def test_a_wrong_event_name_is_named(event: Any) -> None:
    with pytest.raises(InvalidArgument):
        make().on_event(event, lambda request: None)


class Callable_:
    async def __call__(self, request: Any) -> None:
        raise AssertionError("never called")


async def coroutine_function(request: Any) -> None:
    raise AssertionError("never called")


async def generator_function(request: Any) -> Any:
    yield 1


@pytest.mark.parametrize("function", [
    coroutine_function, generator_function, Callable_(), functools.partial(coroutine_function), 7, "talk",
], ids=lambda value: type(value).__name__)
def test_only_blocking_functions_can_be_registered(function: Any) -> None:
    handler = make()
    for register in (handler.on_connect, handler.on_disconnected, functools.partial(handler.on_event, "talk")):
        with pytest.raises(InvalidArgument):
            register(function)


def test_a_coroutine_that_is_returned_is_not_left_lying_about(caplog: Any) -> None:
    handler = make()
    handler.on_event(lambda request: coroutine_function(request))
    assert post(handler, "talk")[0] == 500 and "nobody awaits" in caplog.text


def test_registration_and_requests_may_meet(switch_interval: Any) -> None:
    handler = answering("0")
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            handler.on_event("talk", lambda request, number=number: str(number))
            handler.on_event("talk%d" % (number % 50), lambda request: None)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        found = [int(post(handler, "talk")[2]) for _ in range(300)]
    finally:
        stop.set()
        thread.join()
    assert found == sorted(found)


# ---- nothing a request holds makes it raise -------------------------------------------------------------------------

NAMES = st.sampled_from([name.lower() for name in headers_for("talk")] + ["ce-connectionstate", "ce-subprotocol", "x"])
VALUES = st.one_of(st.text(), st.sampled_from(list(headers_for("talk").values()) + ["azure.webpubsub.sys.connect"]))


@given(st.sampled_from(["POST", "OPTIONS", "PATCH"]), st.dictionaries(NAMES, VALUES), st.binary(),
       st.sampled_from(["talk", "connect", "disconnected"]), st.booleans())
def test_any_request_is_answered(method: str, more: Dict[str, str], body: bytes, event: str, signed: bool) -> None:
    handler = EventHandler("plaza", access_key=KEY) if signed else EventHandler(check_signature=False)
    seen(handler)
    headers = headers_for(event, "user" if event == "talk" else "sys")
    headers = {name.lower(): value for name, value in headers.items()}
    status, answered, content = handler.handle(method, dict(headers, **more), body)
    assert 200 <= status <= 599 and status != 500
    assert isinstance(content, bytes) and all(isinstance(value, str) for value in answered.values())


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_any_connect_body_is_answered(value: Any) -> None:
    for body in (value, {"claims": value}, {"query": {"a": value}}, {"subprotocols": value},
                 {"clientCertificates": value}, {"mqtt": value}, {"clientCertificates": [value]}):
        assert post(connecting(None), "connect", json.dumps(body).encode(), "sys")[0] in (204, 400)


def test_a_callable_object_that_is_false_is_called() -> None:
    class Empty(List[Any]):
        def __call__(self, request: Any) -> None:
            self.append(request.event)

    seen, handler = Empty(), EventHandler("plaza", access_key=KEY)
    handler.on_event("echo", seen)
    assert handler.handle("POST", headers_for("echo"), b"x")[0] == 204 and seen == ["echo"]
