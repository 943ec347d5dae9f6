"""What the official service SDK and ours put on the wire for the same call: the same request, but for what is named."""

from __future__ import annotations

import io
import json
from typing import Any, Dict, List, Tuple

import jwt
import pytest

from simplepubsub.webpubsub import WebPubSubServiceClient
from tests import peers
from tests.scriptedhttp import HttpRequest, Reply, ScriptedHttp
from tests.test_service_requests import KEY, TABLE

pytestmark = pytest.mark.interop

#: What the official SDK 1.3.0 does not have, loses (the time to live of messages), or does not read (names of
#: permissions in another case).
OURS_ALONE = {"add_connections_to_groups", "remove_connections_from_groups", "check_permission", "send_to_all",
              "send_to_user", "send_to_connection", "has_permission"}

OCTETS = "application/octet-stream"

EXTRA: List[Tuple[str, Any]] = [
    ("text", lambda s: s.send_to_all("hi \u2615", content_type="text/plain")),
    ("JSON text", lambda s: s.send_to_all("hi \u2615")),
    ("JSON", lambda s: s.send_to_all({"a": [1, 2.5, None, True, "\u2615"]})),
    ("octets", lambda s: s.send_to_all(b"\0\xff", content_type="application/octet-stream")),
    ("text file as octets", lambda s: s.send_to_all(message=io.StringIO("Hello"), content_type=OCTETS)),
    ("a file", lambda s: s.send_to_all(message=io.BytesIO(b"\0\xff"), content_type=OCTETS)),
    ("choice", lambda s: s.send_to_all(1, excluded=["c1", "c 2"], filter="userId ne 'a&b'")),
    ("user", lambda s: s.send_to_user("mina", {}, filter="userId ne null")),
    ("connection", lambda s: s.send_to_connection("c1", "x", content_type="text/plain")),
    ("names", lambda s: s.send_to_group("a/b c?d=\u2615&+%41", 1)),
    ("params", lambda s: s.send_to_user("mina", 1, params={"messageTtlSeconds": "5"}, headers={"X-A": "b"})),
]
QUESTIONS: List[Tuple[str, Any]] = [
    ("permission", lambda s: s.has_permission("sendToGroup", "c1", target_name="lobby")),
]
CALLS = [(name, row.call, row.ok) for name, row in TABLE.items()] + [(name, call, 202) for name, call in EXTRA]
CALLS += [(name, call, 200) for name, call in QUESTIONS]


def comparable(request: HttpRequest) -> Dict[str, Any]:
    content_type = request.headers.get("content-type")
    body: Any = request.body
    if content_type == "application/json" and body:
        body = json.loads(body)
    token = request.headers["authorization"][len("Bearer "):]
    claims = jwt.decode(token, KEY, algorithms=["HS256"], options={"verify_aud": False})
    host = request.headers["host"]
    assert claims["aud"].startswith("http://" + host + request.path)
    return {"method": request.method, "path": request.path, "query": sorted(request.query), "body": body,
            "type": content_type if request.body else None, "accept": request.headers.get("accept", "*/*"),
            "claims": sorted(claims), "x-a": request.headers.get("x-a")}


def official(endpoint: str) -> Any:
    sdk = peers.require("azure.messaging.webpubsubservice", "the SDK that we are compared with")
    credentials = peers.require("azure.core.credentials", "the SDK that we are compared with")
    return sdk.WebPubSubServiceClient(endpoint, "plaza", credentials.AzureKeyCredential(KEY), retry_total=0)


@pytest.mark.parametrize("call, ok", [row[1:] for row in CALLS if row[0] not in OURS_ALONE],
                         ids=[row[0] for row in CALLS if row[0] not in OURS_ALONE])
def test_both_send_the_same(call: Any, ok: int) -> None:
    with ScriptedHttp(ok) as peer, WebPubSubServiceClient(peer.endpoint, "plaza", KEY) as ours:
        with official(peer.endpoint) as theirs:
            assert call(theirs) == call(ours)
        first, second = (comparable(request) for request in peer.requests)
    assert first == second


def test_requests_of_the_official_library_are_taken() -> None:
    rest = peers.require("azure.core.rest", "the SDK that we are compared with")
    with ScriptedHttp(200) as peer, WebPubSubServiceClient(peer.endpoint, "plaza", KEY) as ours:
        with official(peer.endpoint) as theirs:
            for service in (theirs, ours):
                made = rest.HttpRequest("PUT", "{endpoint}/api/x%2Fy?a=b%20c&api-version=1", json={"a": 1},
                                        params={"p": "q"}, headers={"X-A": "b"})
                answer = service.send_request(made)
                assert (answer.status_code, answer.text(), answer.content) == (200, "", b"")
                answer.raise_for_status()
        first, second = (dict(comparable(request), accept=None) for request in peer.requests)
    assert first == second


def test_both_make_the_same_tokens() -> None:
    options = {"user_id": "mina", "roles": ["r"], "groups": ["g"], "minutes_to_expire": 5, "jwt_headers": {"kid": "k"}}
    for endpoint in ("https://Demo.example.test", "http://localhost:8080/"):
        with WebPubSubServiceClient(endpoint, "plaza", KEY) as ours, official(endpoint) as theirs:
            for protocol in ("Default", "mqtt", "SocketIO"):
                made = [service.get_client_access_token(client_protocol=protocol, **options)
                        for service in (theirs, ours)]
                tokens = [jwt.decode(one["token"], options={"verify_signature": False}) for one in made]
                heads = [jwt.get_unverified_header(one["token"]) for one in made]
                for claims in tokens:
                    claims["exp"] -= claims.pop("iat")
                assert made[0]["baseUrl"] == made[1]["baseUrl"] and set(made[0]) == set(made[1])
                assert tokens[0] == dict(tokens[1], exp=tokens[0]["exp"]) and abs(tokens[1]["exp"] - 300) <= 1
                assert heads[0] == heads[1]


def test_both_walk_the_same_pages() -> None:
    def page(ids: List[str], link: str) -> Reply:
        body: Dict[str, Any] = {"value": [{"connectionId": name, "userId": "u"} for name in ids]}
        if link:
            body["nextLink"] = link
        return Reply(200, json.dumps(body).encode(), [("Content-Type", "application/json")])

    with ScriptedHttp() as peer, WebPubSubServiceClient(peer.endpoint, "plaza", KEY) as ours:
        link = "%s/api/hubs/plaza/groups/lobby/connections?continuationToken=t&top=1" % peer.endpoint
        pages = [page(["c1", "c2"], link), page(["c3"], "")]
        peer.script = pages * 2
        with official(peer.endpoint) as theirs:
            found = [[(m.connection_id, m.user_id) for m in service.list_connections(group="lobby", top=3)]
                     for service in (theirs, ours)]
        assert found[0] == found[1] == [("c1", "u"), ("c2", "u"), ("c3", "u")]
        asked = [dict(comparable(request), accept=None) for request in peer.requests]
        assert asked[:2] == asked[2:]
