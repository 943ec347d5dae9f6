"""Every operation of the service client, as it goes over the wire: method, path, query, body, success code."""

from __future__ import annotations

import inspect
import io
import json
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import jwt
import pytest

from simplepubsub import RetryPolicy
from simplepubsub.exceptions import InvalidArgument, MessageTooLarge, RemoteProtocolError, ServiceResponseError
from simplepubsub.webpubsub import (
    AzureKeyCredential,
    GroupMember,
    HttpRequest,
    HttpResponseError,
    WebPubSubServiceClient,
)
from tests.scriptedhttp import Reply, ScriptedHttp

KEY = "first-key-0123456789abcdef0123456789"
HUB = "/api/hubs/plaza"
VERSION = ("api-version", "2024-12-01")


@pytest.fixture
def peer() -> Iterator[ScriptedHttp]:
    with ScriptedHttp() as peer:
        yield peer


@pytest.fixture
def service(peer: ScriptedHttp) -> Iterator[WebPubSubServiceClient]:
    with WebPubSubServiceClient(peer.endpoint, "plaza", KEY, retry=RetryPolicy(total=0)) as service:
        yield service


class Row(NamedTuple):
    call: Callable[[Any], Any]
    method: str
    path: str
    ok: int
    query: List[Tuple[str, str]] = []
    body: Any = None
    result: Any = None


TABLE = {
    "send_to_all": Row(lambda s: s.send_to_all({"a": 1}, excluded=["c1", "c2"], filter="userId ne null",
                                               message_ttl_seconds=60),
                       "POST", "/:send", 202, [("excluded", "c1"), ("excluded", "c2"), ("filter", "userId ne null"),
                                               ("messageTtlSeconds", "60")], b'{"a":1}'),
    "send_to_group": Row(lambda s: s.send_to_group("lobby", "hi", content_type="text/plain", excluded=["c1"]),
                         "POST", "/groups/lobby/:send", 202, [("excluded", "c1")], b"hi"),
    "send_to_user": Row(lambda s: s.send_to_user("mina", "hi", filter="'a' in groups", message_ttl_seconds=0),
                        "POST", "/users/mina/:send", 202, [("filter", "'a' in groups"), ("messageTtlSeconds", "0")],
                        b'"hi"'),
    "send_to_connection": Row(lambda s: s.send_to_connection("c1", b"\0\xff", message_ttl_seconds=300),
                              "POST", "/connections/c1/:send", 202, [("messageTtlSeconds", "300")], b"\0\xff"),
    "add_connection_to_group": Row(lambda s: s.add_connection_to_group("lobby", "c1"),
                                   "PUT", "/groups/lobby/connections/c1", 200),
    "remove_connection_from_group": Row(lambda s: s.remove_connection_from_group(group="lobby", connection_id="c1"),
                                        "DELETE", "/groups/lobby/connections/c1", 204),
    "remove_connection_from_all_groups": Row(lambda s: s.remove_connection_from_all_groups("c1"),
                                             "DELETE", "/connections/c1/groups", 204),
    "add_user_to_group": Row(lambda s: s.add_user_to_group("lobby", "mina"), "PUT", "/users/mina/groups/lobby", 200),
    "remove_user_from_group": Row(lambda s: s.remove_user_from_group("lobby", "mina"),
                                  "DELETE", "/users/mina/groups/lobby", 204),
    "remove_user_from_all_groups": Row(lambda s: s.remove_user_from_all_groups("mina"),
                                       "DELETE", "/users/mina/groups", 204),
    "add_connections_to_groups": Row(lambda s: s.add_connections_to_groups(["a", "b"], filter="userId eq 'x'"),
                                     "POST", "/:addToGroups", 200, [],
                                     b'{"groups":["a","b"],"filter":"userId eq \'x\'"}'),
    "remove_connections_from_groups": Row(lambda s: s.remove_connections_from_groups(("a",)),
                                          "POST", "/:removeFromGroups", 200, [], b'{"groups":["a"]}'),
    "connection_exists": Row(lambda s: s.connection_exists("c1"), "HEAD", "/connections/c1", 200, result=True),
    "group_exists": Row(lambda s: s.group_exists("lobby"), "HEAD", "/groups/lobby", 200, result=True),
    "user_exists": Row(lambda s: s.user_exists("mina"), "HEAD", "/users/mina", 200, result=True),
    "close_connection": Row(lambda s: s.close_connection("c1", reason="bye & thanks"),
                            "DELETE", "/connections/c1", 204, [("reason", "bye & thanks")]),
    "close_all_connections": Row(lambda s: s.close_all_connections(excluded=["c1"], reason="night"),
                                 "POST", "/:closeConnections", 204, [("excluded", "c1"), ("reason", "night")]),
    "close_group_connections": Row(lambda s: s.close_group_connections("lobby", reason="night"),
                                   "POST", "/groups/lobby/:closeConnections", 204, [("reason", "night")]),
    "close_user_connections": Row(lambda s: s.close_user_connections("mina", excluded=["c2"]),
                                  "POST", "/users/mina/:closeConnections", 204, [("excluded", "c2")]),
    "grant_permission": Row(lambda s: s.grant_permission("sendToGroup", "c1", target_name="lobby"),
                            "PUT", "/permissions/sendToGroup/connections/c1", 200, [("targetName", "lobby")]),
    "revoke_permission": Row(lambda s: s.revoke_permission("joinLeaveGroup", "c1", target_name="lobby"),
                             "DELETE", "/permissions/joinLeaveGroup/connections/c1", 204, [("targetName", "lobby")]),
    "has_permission": Row(lambda s: s.has_permission("sendtogroup", "c1"),
                          "HEAD", "/permissions/sendToGroup/connections/c1", 200, result=True),
    "check_permission": Row(lambda s: s.check_permission("sendToGroup", "c1", target_name="a/b"),
                            "HEAD", "/permissions/sendToGroup/connections/c1", 200, [("targetName", "a/b")],
                            result=True),
}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_operation_on_the_wire(name: str, peer: ScriptedHttp, service: WebPubSubServiceClient) -> None:
    row = TABLE[name]
    peer.script = [row.ok]
    assert row.call(service) is row.result
    request, = peer.requests
    assert (request.method, request.path) == (row.method, HUB + row.path.replace(" ", "%20"))
    assert request.query == row.query + [VERSION]
    assert request.body == (row.body or b"")
    assert request.headers.get("accept") == (None if row.method == "HEAD" else "application/json")
    assert request.headers["user-agent"].startswith("simplepubsub/")
    assert "cookie" not in request.headers
    scheme, _, token = request.headers["authorization"].partition(" ")
    claims = jwt.decode(token, KEY, algorithms=["HS256"], options={"verify_aud": False})
    assert scheme == "Bearer" and claims["aud"] == peer.endpoint + request.target and "iat" not in claims


#: Success codes of the interface; any other answer is an error.
SUCCESSES = (200, 202, 204)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_any_other_success_is_an_error(name: str, peer: ScriptedHttp, service: WebPubSubServiceClient) -> None:
    row = TABLE[name]
    for status in SUCCESSES:
        if status != row.ok:
            peer.script = [status]
            with pytest.raises(ServiceResponseError, match="answered %d.*Web PubSub service" % status):
                row.call(service)


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.method == "HEAD"])
def test_what_is_not_found_does_not_exist(name: str, peer: ScriptedHttp, service: WebPubSubServiceClient) -> None:
    peer.script = [404, 403]
    assert TABLE[name].call(service) is False
    with pytest.raises(HttpResponseError) as caught:
        TABLE[name].call(service)
    assert caught.value.status_code == 403


def test_service_status(peer: ScriptedHttp, service: WebPubSubServiceClient) -> None:
    assert service.get_service_status() is True
    assert (peer.requests[0].method, peer.requests[0].path) == ("HEAD", "/api/health")
    peer.script = [404]
    with pytest.raises(ServiceResponseError):
        service.get_service_status()


#: Parameters of the official SDK 1.3.0, which code that changes only its import passes.
OFFICIAL = {
    "send_to_all": "message excluded filter content_type message_ttl_seconds",
    "send_to_group": "group message excluded filter content_type message_ttl_seconds",
    "send_to_user": "user_id message filter content_type message_ttl_seconds",
    "send_to_connection": "connection_id message content_type message_ttl_seconds",
    "add_connection_to_group": "group connection_id", "remove_connection_from_group": "group connection_id",
    "remove_connection_from_all_groups": "connection_id",
    "add_user_to_group": "group user_id", "remove_user_from_group": "group user_id",
    "remove_user_from_all_groups": "user_id",
    "connection_exists": "connection_id", "group_exists": "group", "user_exists": "user_id",
    "close_connection": "connection_id reason", "close_all_connections": "excluded reason",
    "close_group_connections": "group excluded reason", "close_user_connections": "user_id excluded reason",
    "grant_permission": "permission connection_id target_name",
    "revoke_permission": "permission connection_id target_name",
    "has_permission": "permission connection_id target_name",
    "get_client_access_token": "user_id roles groups minutes_to_expire jwt_headers client_protocol",
    "list_connections": "group top", "send_request": "request stream", "close": "",
    "from_connection_string": "connection_string hub",
}


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_names_are_those_of_the_official_sdk(name: str) -> None:
    parameters = [item for item in inspect.signature(getattr(WebPubSubServiceClient, name)).parameters
                  if item != "self"]
    wanted = OFFICIAL[name].split()
    positional = [item for item in wanted if item in ("group", "user_id", "connection_id", "permission", "message")]
    assert set(wanted) <= set(parameters)
    if name != "get_client_access_token":
        assert parameters[:len(positional)] == positional


# ---- names in paths -------------------------------------------------------------------------------------------------

SEGMENTS = [
    ("a b", "a%20b"), ("a+b", "a%2Bb"), ("a/b", "a%2Fb"), ("a%2Fb", "a%252Fb"), ("../x", "..%2Fx"), ("..a", "..a"),
    ("?x=1#y", "%3Fx%3D1%23y"), ("caf\u00e9 \u2615", "caf%C3%A9%20%E2%98%95"), ("a\r\nB: c", "a%0D%0AB%3A%20c"),
    ("x;y:z@w&v", "x%3By%3Az%40w%26v"), ("~-_.", "~-_."), ("\\..\\", "%5C..%5C"), ("\0", "%00"),
]


@pytest.mark.parametrize("name, encoded", SEGMENTS, ids=[row[1] for row in SEGMENTS])
def test_a_name_stays_in_its_segment(
    name: str, encoded: str, peer: ScriptedHttp, service: WebPubSubServiceClient
) -> None:
    peer.script = [202]
    service.send_to_group(name, 1)
    service.send_to_user(name, 1)
    service.send_to_connection(name, 1)
    assert [request.path for request in peer.requests] == [
        "%s/%s/%s/:send" % (HUB, kind, encoded) for kind in ("groups", "users", "connections")]
    for request in peer.requests:
        token = request.headers["authorization"][7:]
        jwt.decode(token, KEY, algorithms=["HS256"], audience=peer.endpoint + request.target)


@pytest.mark.parametrize("name", [".", "..", "", " ", "\t", "a\ud800", None, 5, b"x"], ids=repr)
def test_a_name_that_a_url_cannot_hold_is_refused(name: Any, peer: ScriptedHttp, service: Any) -> None:
    for call in (service.group_exists, service.user_exists, service.connection_exists):
        with pytest.raises(InvalidArgument):
            call(name)
    assert peer.requests == []


BAD = [
    (lambda s: s.send_to_all(None), "None"),
    (lambda s: s.send_to_all({1, 2}), "set"),
    (lambda s: s.send_to_all(float("nan")), "JSON"),
    (lambda s: s.send_to_all({"a": 1}, content_type="text/plain"), "dict"),
    (lambda s: s.send_to_all("x", content_type="text/html"), "'text/html'"),
    (lambda s: s.send_to_all("x", content_type="text/plain\r\nX: y"), "content_type"),
    (lambda s: s.send_to_all("x", content_type=5), "content_type"),
    (lambda s: s.send_to_all(b"x", content_type="application/json"), "octet-stream"),
    (lambda s: s.send_to_all("\ud800", content_type="text/plain"), "surrogate"),
    (lambda s: s.send_to_all(1, excluded="c1"), "excluded must be a list"),
    (lambda s: s.send_to_all(1, excluded=["c1", None]), "excluded"),
    (lambda s: s.send_to_all(1, excluded=5), "excluded"),
    (lambda s: s.send_to_all(1, filter=5), "filter"),
    (lambda s: s.send_to_all(1, message_ttl_seconds=301), "300"),
    (lambda s: s.send_to_all(1, message_ttl_seconds=-1), "300"),
    (lambda s: s.send_to_all(1, message_ttl_seconds=True), "300"),
    (lambda s: s.send_to_all(1, message_ttl_seconds=1.5), "300"),
    (lambda s: s.send_to_all(1, ttl=5), "unknown keyword 'ttl'"),
    (lambda s: s.send_to_all(1, timeout=-1), "timeout"),
    (lambda s: s.send_to_all(1, timeout=0), "above 0"),
    (lambda s: s.send_to_all(1, headers={"a b": "x"}), "HTTP header"),
    (lambda s: s.send_to_all(1, headers={"a": "x\r\ny: z"}), "one line"),
    (lambda s: s.send_to_all(1, headers={"a": "\u2615"}), "Latin-1"),
    (lambda s: s.send_to_all(1, headers=[("a", "b")]), "mapping"),
    (lambda s: s.send_to_all(1, params="a=b"), "mapping"),
    (lambda s: s.send_to_all(1, params={"a": "\ud800"}), "surrogate"),
    (lambda s: s.send_to_all(1, retry=3), "RetryPolicy"),
    (lambda s: s.send_to_all(1, retry_total=-1), "total"),
    (lambda s: s.close_connection("c1", reason=5), "reason"),
    (lambda s: s.add_connections_to_groups([]), "at least one"),
    (lambda s: s.add_connections_to_groups("lobby"), "groups must be a list"),
    (lambda s: s.add_connections_to_groups(["  "]), "group"),
    (lambda s: s.grant_permission("admin", "c1", target_name="g"), "'sendToGroup' or 'joinLeaveGroup'"),
    (lambda s: s.list_connections("g", top=0), "top"),
    (lambda s: s.list_connections("g", maxpagesize=201), "200"),
    (lambda s: s.get_client_access_token(client_protocol="AMQP"), "'MQTT'"),
    (lambda s: s.get_client_access_token(roles="webpubsub.sendToGroup"), "roles must be a list"),
    (lambda s: s.get_client_access_token(groups=[""]), "groups"),
    (lambda s: s.get_client_access_token(user_id=5), "user_id"),
    (lambda s: s.get_client_access_token(minutes_to_expire=0), "above 0"),
    (lambda s: s.get_client_access_token(minutes_to_expire="60"), "number"),
    (lambda s: s.get_client_access_token(jwt_headers={"alg": "none"}), "algorithm"),
    (lambda s: s.get_client_access_token(jwt_headers={"x": object()}), "cannot carry"),
    (lambda s: s.send_request(object()), "method"),
    (lambda s: s.send_request(HttpRequest("GET", "https://evil.test/api")), "one of http"),
    (lambda s: s.send_request(HttpRequest("GET", "//evil.test/api")), "one of http"),
    (lambda s: s.send_request(HttpRequest("GET", s.endpoint + "0/api")), "one of http"),
    (lambda s: s.send_request(HttpRequest("GET", "/api/../x")), "'..'"),
    (lambda s: s.send_request(HttpRequest("GET", "/api/%2e%2E/x")), "'..'"),
    (lambda s: s.send_request(HttpRequest("GET X", "/api")), "method"),
    (lambda s: HttpRequest("GET", "/", json=1, content="x"), "not both"),
]


@pytest.mark.parametrize("call, words", BAD, ids=range(len(BAD)))
def test_a_mistake_is_named_before_anything_is_sent(
    call: Any, words: str, peer: ScriptedHttp, service: WebPubSubServiceClient
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        call(service)
    assert words in str(caught.value) and peer.requests == []


# ---- bodies ---------------------------------------------------------------------------------------------------------

JSON, TEXT, BINARY = "application/json", "text/plain", "application/octet-stream"

BODIES: List[Tuple[Any, Optional[str], str, bytes]] = [
    ("hi", None, JSON, b'"hi"'), ({"a": [1, None, True]}, None, JSON, b'{"a":[1,null,true]}'), (0, None, JSON, b"0"),
    ([], JSON, JSON, b"[]"), ("\u2615", JSON + "; charset=utf-8", JSON + "; charset=utf-8", '"\u2615"'.encode()),
    ("\ud800", JSON, JSON, b'"\\ud800"'),
    ("hi\u2615", TEXT, TEXT, "hi\u2615".encode()), (b"hi", TEXT, TEXT, b"hi"), ("", TEXT, TEXT, b""),
    ("hi", "Text/Plain; charset=utf-8", "Text/Plain; charset=utf-8", b"hi"),
    (b"\0\1", BINARY, BINARY, b"\0\1"), (bytearray(b"x"), None, BINARY, b"x"), (memoryview(b"abc")[::2], None, BINARY,
                                                                              b"ac"),
    ("hi", BINARY, BINARY, b"hi"), (b"", None, BINARY, b""),
    (io.StringIO("Hello World"), BINARY, BINARY, b"Hello World"), (io.BytesIO(b"\xff"), BINARY, BINARY, b"\xff"),
    (io.BytesIO(b"\xfe"), None, BINARY, b"\xfe"), (io.StringIO("x"), TEXT, TEXT, b"x"),
    (io.StringIO(""), TEXT, TEXT, b""),
]


@pytest.mark.parametrize("message, given, sent, body", BODIES, ids=range(len(BODIES)))
def test_body_and_content_type(
    message: Any, given: Optional[str], sent: str, body: bytes, peer: ScriptedHttp, service: WebPubSubServiceClient
) -> None:
    peer.script = [202]
    service.send_to_all(message, content_type=given)
    assert (peer.requests[0].headers["content-type"], peer.requests[0].body) == (sent, body)
    assert peer.requests[0].headers["content-length"] == str(len(body))


def test_content_type_may_stand_in_the_headers(peer: ScriptedHttp, service: WebPubSubServiceClient) -> None:
    peer.script = [202]
    service.send_to_all("hi", headers={"content-type": "text/plain"})
    assert (peer.requests[0].headers["content-type"], peer.requests[0].body) == ("text/plain", b"hi")


@pytest.mark.parametrize("message, content_type", [
    (b"x" * (2**20 + 1), None), ("x" * (2**20 + 1), TEXT), ("x" * 2**20, None), (io.BytesIO(b"x" * 2**22), None),
    (io.StringIO("\u2615" * 2**20), BINARY),
], ids=["bytes", "text", "JSON", "file", "text file"])
def test_a_message_of_over_a_mebibyte_is_refused(message: Any, content_type: Any, peer: Any, service: Any) -> None:
    with pytest.raises(MessageTooLarge) as caught:
        service.send_to_all(message, content_type=content_type)
    assert caught.value.limit == 2**20 and peer.requests == []


def test_a_message_of_a_mebibyte_is_sent(peer: ScriptedHttp, service: WebPubSubServiceClient) -> None:
    peer.script = [202]
    service.send_to_all(io.BytesIO(b"x" * 2**20))
    assert len(peer.requests[0].body) == 2**20


def test_an_endless_file_is_not_read_to_its_end(service: WebPubSubServiceClient) -> None:
    class Endless:
        taken = 0

        def read(self, size: int) -> bytes:
            self.taken += 1000
            return b"x" * 1000

    file = Endless()
    with pytest.raises(MessageTooLarge):
        service.send_to_all(file)
    assert file.taken < 2**20 + 3000


def test_a_file_that_reads_something_else_is_refused(service: WebPubSubServiceClient) -> None:
    class Odd:
        def read(self, size: int) -> Any:
            return [1]

    with pytest.raises(InvalidArgument, match="read"):
        service.send_to_all(Odd())


# ---- headers and parameters of the caller ---------------------------------------------------------------------------


def test_params_and_headers_are_passed_through(peer: ScriptedHttp) -> None:
    peer.script = [202]
    with WebPubSubServiceClient(peer.endpoint, "plaza", KEY, headers={"X-App": "one", "X-Both": "client"},
                                user_agent="my app/2") as service:
        service.send_to_all(1, headers={"X-Both": "call", "X-WebPubSub-Metadata-K": "v", "authorization": "mine"},
                            params={"messageTtlSeconds": 7, "flag": True, "list": ["a", "b"], "none": None},
                            excluded=["c1"])
        service.send_to_all(1, message_ttl_seconds=5, params={"MessageTtlSeconds": 9, "api-version": "2022-11-01"})
    first, second = peer.requests
    assert first.headers["x-app"] == "one" and first.headers["x-both"] == "call"
    assert first.headers["x-webpubsub-metadata-k"] == "v" and first.headers["authorization"].startswith("Bearer ey")
    assert first.headers["user-agent"].startswith("my app/2 simplepubsub/")
    assert first.query == [("excluded", "c1"), ("messageTtlSeconds", "7"), ("flag", "true"), ("list", "a"),
                           ("list", "b"), VERSION]
    assert second.query == [("MessageTtlSeconds", "9"), ("api-version", "2022-11-01")]
    assert second.headers["x-both"] == "client"


def test_values_in_the_query_stay_values(peer: ScriptedHttp, service: WebPubSubServiceClient) -> None:
    peer.script = [204]
    reason = "a&b=c#d +%41\r\nX: y \u2615"
    service.close_all_connections(reason=reason, excluded=["a&b", "?"])
    assert peer.requests[0].query == [("excluded", "a&b"), ("excluded", "?"), ("reason", reason), VERSION]


def test_the_name_of_the_caller_is_signed_in(peer: ScriptedHttp) -> None:
    with WebPubSubServiceClient(peer.endpoint, "plaza", AzureKeyCredential(KEY), user="ops") as service:
        service.get_service_status()
    claims = jwt.decode(peer.requests[0].headers["authorization"][7:], KEY, algorithms=["HS256"],
                        options={"verify_aud": False})
    assert claims["http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name"] == "ops"


def test_an_endpoint_with_a_path_and_a_reverse_proxy(peer: ScriptedHttp) -> None:
    peer.script = [202]
    with WebPubSubServiceClient("https://Real.Example.test/base/", "plaza", KEY,
                                reverse_proxy_endpoint=peer.endpoint + "/proxy/") as service:
        service.send_to_all(1)
        url = service.get_client_access_token()["url"]
    request = peer.requests[0]
    assert request.path == "/proxy/api/hubs/plaza/:send"
    audience = "https://real.example.test/base/api/hubs/plaza/:send?api-version=2024-12-01"
    jwt.decode(request.headers["authorization"][7:], KEY, algorithms=["HS256"], audience=audience)
    assert url.startswith("wss://real.example.test/base/client/hubs/plaza?access_token=")


# ---- pages ----------------------------------------------------------------------------------------------------------


def page(members: List[Any], link: Optional[str] = None) -> Reply:
    body: Dict[str, Any] = {"value": [{"connectionId": c, "userId": u} for c, u in members]}
    if link:
        body["nextLink"] = link
    return Reply(200, json.dumps(body).encode())


def test_connections_are_fetched_page_by_page_when_they_are_wanted(peer: ScriptedHttp, service: Any) -> None:
    link = "https://elsewhere.test/api/hubs/plaza/groups/x/connections?api-version=1999-01-01&continuationToken=t%2F1&top=1"
    peer.script = [page([("c1", "mina"), ("c2", None)], link), page([("c3", "bo")])]
    members = service.list_connections("lobby", top=3, maxpagesize=2)
    assert peer.requests == []
    assert next(members) == GroupMember(connection_id="c1", user_id="mina")
    assert len(peer.requests) == 1
    assert list(members) == [GroupMember("c2", None), GroupMember("c3", "bo")] and list(members) == []
    first, second = peer.requests
    # The link is asked for its parameters, and not followed: the token goes to no other place.
    assert first.path == second.path == HUB + "/groups/lobby/connections"
    assert first.query == [("maxpagesize", "2"), ("top", "3"), VERSION]
    assert second.query == [("maxpagesize", "2"), ("continuationToken", "t/1"), ("top", "1"), VERSION]


def test_pages_and_the_token_that_leads_on(peer: ScriptedHttp, service: WebPubSubServiceClient) -> None:
    peer.script = [page([("c1", "a")], "/x?continuationToken=t1"), page([("c2", "b")], "/x?continuationToken=t2"),
                   page([]), page([("c2", "b")]), page([])]
    pages = service.list_connections(group="lobby").by_page()
    assert [member.connection_id for member in next(pages)] == ["c1"]
    token = pages.continuation_token
    assert [[member.user_id for member in one] for one in pages] == [["b"], []] and pages.continuation_token is None
    again = service.list_connections(group="lobby").by_page(continuation_token=token)
    assert [list(one) for one in again] == [[GroupMember("c2", "b")]]
    list(service.list_connections(group="lobby", continuation_token="bare"))
    assert [dict(request.query).get("continuationToken") for request in peer.requests] == [None, "t1", "t2", "t1",
                                                                                           "bare"]


BAD_PAGES = [b"", b"[]", b"{}", b'{"value":5}', b'{"value":[5]}', b'{"value":[{}]}', b"<html>",
             b'{"value":[{"connectionId":1}]}', b"\xff", b"[" * 5000]


@pytest.mark.parametrize("body", BAD_PAGES, ids=range(len(BAD_PAGES)))
def test_a_page_that_is_none_is_an_error(body: bytes, peer: ScriptedHttp, service: WebPubSubServiceClient) -> None:
    peer.script = [Reply(200, body)]
    with pytest.raises(RemoteProtocolError, match="list_connections"):
        list(service.list_connections("lobby"))


def test_links_in_a_circle_end(peer: ScriptedHttp, service: WebPubSubServiceClient) -> None:
    peer.script = [page([("c", "u")], "/x?continuationToken=1"), page([("d", "u")], "/x?continuationToken=2"),
                   page([("c", "u")], "/x?continuationToken=1")]
    with pytest.raises(RemoteProtocolError, match="circle"):
        list(service.list_connections("lobby"))
    assert len(peer.requests) == 3


# ---- anything else --------------------------------------------------------------------------------------------------


class Foreign:
    """As the official SDK's HttpRequest looks."""

    def __init__(self, method: str, url: str, content: Any = None) -> None:
        self.method, self.url, self.content, self.headers = method, url, content, {"X-A": "b"}


@pytest.mark.parametrize("url, target", [
    ("/api/x?b=1&c=%20", "/api/x?b=1&c=%20&api-version=2024-12-01"),
    ("api/x", "/api/x?api-version=2024-12-01"),
    ("{endpoint}/api/a%2Fb/:send", "/api/a%2Fb/:send?api-version=2024-12-01"),
    ("ENDPOINT/api/y?api-version=2022-11-01", "/api/y?api-version=2022-11-01"),
    ("/api/caf\u00e9 x", "/api/caf%C3%A9%20x?api-version=2024-12-01"),
])
def test_send_request_goes_below_the_endpoint(url: str, target: str, peer: ScriptedHttp, service: Any) -> None:
    peer.script = [Reply(200, b'{"x":1}', [("Content-Type", "application/json")])]
    answer = service.send_request(Foreign("PATCH", url.replace("ENDPOINT", peer.endpoint), b"body"),
                                  headers={"X-C": "d"})
    request = peer.requests[0]
    assert (request.method, request.target, request.body) == ("PATCH", target, b"body")
    assert (request.headers["x-a"], request.headers["x-c"]) == ("b", "d")
    jwt.decode(request.headers["authorization"][7:], KEY, algorithms=["HS256"], audience=peer.endpoint + target)
    with answer:
        assert (answer.status_code, answer.json(), answer.text(), answer.read()) == (200, {"x": 1}, '{"x":1}',
                                                                                     b'{"x":1}')
    assert answer.content_type == "application/json" and list(answer.iter_bytes()) == [b'{"x":1}']
    answer.raise_for_status()


def test_send_request_raises_for_no_status_by_itself(peer: ScriptedHttp, service: WebPubSubServiceClient) -> None:
    peer.script = [Reply(409, b'{"code":"Full","message":"no room"}')]
    answer = service.send_request(HttpRequest("POST", "/api/x", json={"a": 1}, params={"p": 1}), stream=True)
    assert answer.status_code == 409 and peer.requests[0].body == b'{"a":1}'
    assert dict(peer.requests[0].query)["p"] == "1"
    with pytest.raises(ServiceResponseError, match="Full: no room") as caught:
        answer.raise_for_status()
    assert caught.value.code == "Full"
