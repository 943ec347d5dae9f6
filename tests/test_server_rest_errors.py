"""What the data plane refuses: tokens, addresses, arguments and bodies; and that nothing of it harms the server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import socket
import time

import pytest

from tests.rawclient import PLAIN
from tests.restclient import JSON, TEXT, Rest
from tests.timing import scaled

KEY = "primary-key-0123456789abcdef0123456789"
SECOND = "secondary-key-0123456789abcdef01234567"


# --- tokens -----------------------------------------------------------------------------------------------------------

PEM = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK\n-----END PUBLIC KEY-----\n"
PATH = "/groups/a%2Fb%20%C3%BC/:send"

AUDIENCES = [
    ("as requested", lambda rest: rest.url(PATH)),
    ("with a query", lambda rest: rest.url(PATH) + "?api-version=2024-12-01&excluded=a"),
    ("in another case", lambda rest: rest.url(PATH).upper()),
    ("decoded", lambda rest: "http://%s/api/hubs/plaza/groups/a/b \u00fc/:send" % rest.host),
    ("encoded otherwise", lambda rest: rest.url("/groups/%61%2fb%20%c3%bc/%3Asend")),
    ("https, behind a proxy", lambda rest: "https" + rest.url(PATH)[4:]),
    ("by the server's own name", lambda rest: rest.server.endpoint + rest.path(PATH)),
    ("with a slash at the end", lambda rest: rest.url(PATH) + "/"),
    ("in a list", lambda rest: ["http://elsewhere/", rest.url(PATH)]),
]


@pytest.mark.parametrize("audience", [item[1] for item in AUDIENCES], ids=[item[0] for item in AUDIENCES])
@pytest.mark.parametrize("host", [None, "pubsub.example.test", "pubsub.example.test:80", "localhost:1234"])
def test_an_audience_that_fits(server, audience, host):
    rest = Rest(server, host=host)
    assert rest("POST", PATH, b"x", TEXT, token=rest.token(audience(rest))).status == 202


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(payload, head, key=None):
    """Return a token with any header, without a signature or with one by HMAC."""
    signed = ".".join(encoded(json.dumps(part).encode()) for part in (head, payload))
    signature = b"" if key is None else hmac.new(key.encode(), signed.encode(), hashlib.sha256).digest()
    return signed + "." + encoded(signature)


def payload_for(rest):
    return {"aud": rest.url(PATH), "exp": int(time.time()) + 60}


REFUSED = [
    ("none", lambda rest: None, "no token"),
    ("empty", lambda rest: "", "must be Bearer"),
    ("garbage", lambda rest: "a.b.c", "malformed"),
    ("nested header", lambda rest: base64.urlsafe_b64encode(b"[" * 4000).decode() + ".e30.e30", "malformed"),
    ("another key", lambda rest: rest.token(rest.url(PATH), "x" * 40), "not signed with an access key"),
    ("alg none", lambda rest: unsigned(payload_for(rest), {"alg": "none"}), "HS256"),
    ("alg None", lambda rest: unsigned(payload_for(rest), {"alg": "None"}), "HS256"),
    ("no alg", lambda rest: unsigned(payload_for(rest), {"typ": "JWT"}), ""),
    ("RS256, signed with the key", lambda rest: unsigned(payload_for(rest), {"alg": "RS256"}, rest.key), "HS256"),
    ("HS256, signed with a public key", lambda rest: unsigned(payload_for(rest), {"alg": "HS256"}, PEM), "access key"),
    ("HS512", lambda rest: rest.token(rest.url(PATH), rest.key * 2, "HS512"), "HS256"),
    ("expired", lambda rest: rest.token(rest.url(PATH), exp=int(time.time()) - 400), "expired"),
    ("no expiry", lambda rest: rest.token(rest.url(PATH), exp=None), "no exp claim"),
    ("expiry beyond all bounds", lambda rest: rest.token(rest.url(PATH), exp=1e308), None),
    ("expiry is infinite", lambda rest: rest.token(rest.url(PATH), exp=float("inf")), "malformed"),
    ("expiry is no number", lambda rest: rest.token(rest.url(PATH), exp=[1]), "malformed"),
    ("not yet", lambda rest: rest.token(rest.url(PATH), nbf=int(time.time()) + 400), "not valid yet"),
    ("no audience", lambda rest: rest.token(rest.url(PATH), aud=None), "got none"),
    ("a number as audience", lambda rest: rest.token(rest.url(PATH), aud=5), "aud"),
    ("another group", lambda rest: rest.token(rest.url("/groups/b/:send")), "another audience"),
    ("another hub", lambda rest: rest.token(Rest(rest.server, "other").url(PATH)), "another audience"),
    ("another host", lambda rest: rest.token("http://elsewhere" + rest.path(PATH)), "got http://elsewhere/api"),
    ("another scheme", lambda rest: rest.token("ws" + rest.url(PATH)[4:]), "another audience"),
    ("the token of a client", lambda rest: rest.server.client_access_url("plaza").partition("=")[2], "client/hubs"),
]


@pytest.mark.parametrize("make, text", [item[1:] for item in REFUSED], ids=[item[0] for item in REFUSED])
def test_a_token_that_is_refused(rest, make, text, caplog):
    token = make(rest)
    with caplog.at_level(logging.DEBUG):
        answer = rest("POST", PATH, b"x", TEXT, token=token)
    if text is None:
        assert answer.status == 202
        return
    assert answer.status == 401 and text in answer.message
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    if "another audience" in text:
        assert "expected " + rest.url(PATH) in answer.message
    assert rest.key not in caplog.text + answer.message
    assert not token or len(token) < 9 or token not in caplog.text + answer.message


def test_clocks_may_differ_by_five_minutes(rest):
    token = rest.token(rest.url(PATH), exp=int(time.time()) - 240)
    assert rest("POST", PATH, b"x", TEXT, token=token).status == 202


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer", "", "Bearer  ", "Token x"])
def test_another_scheme_is_refused(rest, value):
    answer = rest("POST", PATH, b"x", dict(TEXT, Authorization=value), token=None)
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_both_keys_sign_requests(fresh_server):
    server = fresh_server(access_key=KEY, secondary_key=SECOND)
    for key, status in ((KEY, 202), (SECOND, 202), (KEY[::-1], 401)):
        assert Rest(server, key=key)("POST", "/:send", b"x", TEXT).status == status


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method, path", [
    ("GET", "/api"), ("GET", "/api/"), ("POST", "/api/nothing"), ("GET", "/api/hubs"), ("GET", "/api/hubs/plaza"),
    ("POST", "/api/hubs/plaza/:Send"), ("POST", "/api/hubs/plaza//:send"), ("GET", "/api/hubs/plaza/groups"),
    ("POST", "/api/hubs/plaza/groups/a/b/:send"), ("HEAD", "/api/hubs/plaza/"), ("GET", "/api/../api/health"),
])
def test_an_unknown_address_is_404(rest, method, path):
    if path == "/api":
        return  # not below /api/: the answer is aiohttp's
    answer = rest(method, path)
    assert answer.status == 404
    assert method == "HEAD" or answer.json["code"] == "Error.NotFound"


@pytest.mark.parametrize("method, path, allowed", [
    ("GET", "/:send", "POST"), ("POST", "/connections/a", "DELETE, HEAD"), ("DELETE", "/groups/a", "HEAD"),
    ("POST", "/groups/a/connections", "GET"), ("OPTIONS", "/:send", "POST"), ("POST", "/api/health", "GET, HEAD"),
    ("PATCH", "/permissions/sendToGroup/connections/c", "DELETE, HEAD, PUT"),
])
def test_another_method_is_405(rest, method, path, allowed):
    answer = rest(method, path)
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)


@pytest.mark.parametrize("version, status", [
    (None, 202), ("2021-10-01", 202), ("2022-11-01", 202), ("2023-07-01", 202), ("2024-01-01", 202),
    ("2024-12-01", 202), ("2020-01-01", 400), ("", 400), ("latest", 400),
])
def test_api_versions(rest, version, status):
    query = [] if version is None else [("api-version", version)]
    answer = rest("POST", "/:send", b"x", TEXT, query=query)
    assert answer.status == status
    assert status == 202 or "2024-12-01" in answer.message


NAMES = [
    ("lobby", "lobby"), ("a%2Fb", "a/b"), ("a%252Fb", "a%2Fb"), ("%25", "%"), ("%2E%2E", ".."), ("..", ".."),
    ("a+b", "a+b"), ("a%20b", "a b"), ("%C3%BC%F0%9F%98%80", "\u00fc\U0001f600"), ("a%3Fb%23c", "a?b#c"),
    (":send", ":send"), ("%00%0D%0A", "\0\r\n"), ("a%0D%0Ab", "a\r\nb"), ("connections", "connections"), (".", "."),
    ("a;b=c", "a;b=c"),
    ("%2e%2e%2f%2e%2e%2fhealth", "../../health"), ("a" * 1024, "a" * 1024), ("a" * 1025, None), ("%20", None),
    ("", None), ("%FF", None), ("%E2%80%8B", "\u200b"), ("%zz", "%zz"),
]


@pytest.mark.parametrize("segment, name", NAMES, ids=[item[0][:30] for item in NAMES])
def test_group_names_are_decoded_exactly_once(rest, connect, server, segment, name):
    client = connect(PLAIN)
    path = "/groups/%s/connections/%s" % (segment, client.connection_id)
    if name is None:
        assert rest("PUT", path).status == 400
        return
    rest.ok("PUT", path)
    assert server.connections()[0].groups == (name,)
    rest.ok("HEAD", "/groups/" + segment)
    rest.ok("POST", "/groups/%s/:send" % segment, b"x", TEXT)
    assert client.receive()["group"] == name


def test_user_ids_are_decoded_exactly_once(rest, connect):
    for user_id, segment in [("a/b", "a%2Fb"), ("a%2Fb", "a%252Fb"), ("\u00fc +", "%C3%BC%20+")]:
        connect(PLAIN, user_id=user_id)
        rest.ok("HEAD", "/users/" + segment)


@pytest.mark.parametrize("hub", ["1a", "a%20b", "a%2Fb", "a" * 129, "%C3%BC", "a%0A"])
def test_a_bad_hub_name_is_400(server, hub):
    assert Rest(server, hub)("POST", "/:send", b"x", TEXT).status == 400


@pytest.mark.parametrize("path", ["/connections/", "/users/", "/connections//:send", "/users//groups/a"])
def test_an_empty_id_is_400(rest, path):
    method = "POST" if path.endswith(":send") else "PUT" if "groups" in path else "HEAD"
    assert rest(method, path, b"x" if method == "POST" else None, TEXT).status == 400


# --- arguments --------------------------------------------------------------------------------------------------------

BAD_QUERIES = [
    ("POST", "/:send", "messageTtlSeconds=301", "messageTtlSeconds must be an integer from 0 to 300"),
    ("POST", "/:send", "messageTtlSeconds=-1", "messageTtlSeconds"),
    ("POST", "/:send", "messageTtlSeconds=1.5", "messageTtlSeconds"),
    ("POST", "/:send", "messageTtlSeconds=", "messageTtlSeconds"),
    ("POST", "/:send", "messageTtlSeconds=" + "9" * 5000, "messageTtlSeconds"),
    ("POST", "/:send", "messageTtlSeconds=%D9%A3", "messageTtlSeconds"),
    ("POST", "/:send", "messageTtlSeconds=1&messageTtlSeconds=2", "given 2 times"),
    ("POST", "/:send", "filter=a%20eq%20b", "filter, character 1: unknown name 'a'"),
    ("POST", "/:send", "filter=true&filter=true", "given 2 times"),
    ("POST", "/:send", "filter=%FF", "cannot be read"),
    ("GET", "/groups/a/connections", "top=0", "top"),
    ("GET", "/groups/a/connections", "top=2147483648", "top"),
    ("GET", "/groups/a/connections", "maxpagesize=0", "maxpagesize"),
    ("GET", "/groups/a/connections", "maxpagesize=201", "maxpagesize must be an integer from 1 to 200"),
    ("GET", "/groups/a/connections", "continuationToken=x", "continuationToken"),
    ("PUT", "/permissions/sendToGroup/connections/c", "", "targetName"),
    ("PUT", "/permissions/sendToGroup/connections/c", "targetName=", "group"),
    ("DELETE", "/permissions/sendToGroup/connections/c", "", "targetName"),
    ("PUT", "/permissions/other/connections/c", "targetName=a", "permission must be"),
    ("POST", "/:generateToken", "minutesToExpire=0", "minutesToExpire"),
    ("POST", "/:generateToken", "minutesToExpire=" + "9" * 30, "minutesToExpire"),
    ("POST", "/:generateToken", "clientType=Other", "clientType"),
    ("POST", "/:generateToken", "group=%20", "group"),
    ("POST", "/:generateToken", "role=webpubsub.sendToGroups.*****a*", "asterisks"),
]


@pytest.mark.parametrize("method, path, query, text", BAD_QUERIES, ids=[item[2][:30] for item in BAD_QUERIES])
def test_a_bad_query_is_400(rest, method, path, query, text):
    body = b"x" if path == "/:send" else None
    answer = rest(method, path + "?" + query, body, TEXT if body else None)
    assert answer.status == 400 and text in answer.message


def test_a_check_of_permissions_without_target_is_400(rest):
    assert rest("HEAD", "/permissions/sendToGroup/connections/c").status == 400


BAD_BODIES = [
    (400, "/:send", b"{", JSON), (400, "/:send", b"", JSON), (400, "/:send", b"null", JSON),
    (400, "/:send", b"NaN", JSON), (400, "/:send", b"1e999", JSON), (400, "/:send", b'"\xff"', JSON),
    (400, "/:send", b"[" * 100000, JSON), (400, "/:send", b"\xff", TEXT),
    (415, "/:send", b"<a/>", {"Content-Type": "text/xml"}), (415, "/:send", b"x", {"Content-Type": ""}),
    (415, "/:send", b"x", {"Content-Type": "application/x-protobuf"}),
    (415, "/:send", b"x", {"Content-Type": "text/plain; charset=utf-16"}),
    (415, "/:send", b"x", dict(TEXT, **{"Content-Encoding": "gzip"})),
    (415, "/:send", b"x", dict(TEXT, **{"Content-Encoding": "br, deflate"})),
    (413, "/:send", b"x" * (2**20 + 1), TEXT),
    (413, "/:addToGroups", b" " * (2**20 + 1), JSON),
    (400, "/:addToGroups", b"[]", JSON), (400, "/:addToGroups", b"{}", JSON), (400, "/:addToGroups", b"", JSON),
    (400, "/:addToGroups", b'{"groups": []}', JSON), (400, "/:addToGroups", b'{"groups": "a"}', JSON),
    (400, "/:addToGroups", b'{"groups": [1]}', JSON), (400, "/:addToGroups", b'{"groups": ["a", " "]}', JSON),
    (400, "/:addToGroups", b'{"groups": ["a"], "filter": 5}', JSON),
    (400, "/:removeFromGroups", b'{"groups": ["a"], "filter": "x"}', JSON),
    (415, "/:addToGroups", b'{"groups": ["a"]}', TEXT),
]


@pytest.mark.parametrize("status, path, body, headers", BAD_BODIES)
def test_a_bad_body_is_refused_whether_anybody_listens_or_not(rest, connect, status, path, body, headers):
    assert rest("POST", path, body, headers).status == status
    client = connect(PLAIN)
    assert rest("POST", path, body, headers).status == status
    client.assert_quiet()


def test_a_body_as_large_as_allowed_arrives_also_in_chunks(rest, connect, server):
    body = b'"' * 2**20  # twice as long as a JSON string
    client = connect()
    rest.ok("POST", "/:send", body, TEXT)
    assert client.frame()[1] == body.decode()
    rest.ok("POST", "/:send", iter([body[:5], body[5:]]), dict(TEXT, **{"Transfer-Encoding": "chunked"}))
    assert client.frame()[1] == body.decode()
    answer = rest("POST", "/:send", iter([body, b"x"]), dict(TEXT, **{"Transfer-Encoding": "chunked"}))
    assert answer.status == 413
    client.close()


def test_the_request_id_of_a_client_comes_back_unless_it_is_none(rest):
    for sent, got in [("abc-123_4.5", "abc-123_4.5"), ("a b", None), ("x" * 200, None)]:
        answer = rest("HEAD", "/groups/a", headers={"x-ms-client-request-id": sent})
        assert answer.headers["x-ms-client-request-id"] == got
    assert rest("HEAD", "/groups/a").headers["x-ms-request-id"] != rest("HEAD", "/groups/a").headers["x-ms-request-id"]


# --- nothing of it harms the server -----------------------------------------------------------------------------------

RAW = [
    b"GET /api/hubs/plaza/:send?%ff=%ff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://a/api/health HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /api/%ff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /api//../..//hubs HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /api/health HTTP/1.1\r\n\r\n",
    b"POST /api/hubs/plaza/:send HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
    b"POST /api/hubs/plaza/:send HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /api/" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
]


@pytest.mark.parametrize("request_bytes", RAW, ids=range(len(RAW)))
def test_broken_requests(rest, request_bytes, caplog):
    with socket.create_connection(("127.0.0.1", rest.server.port), timeout=scaled(5)) as sock:
        sock.sendall(request_bytes)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while True:
            try:
                piece = sock.recv(65536)
            except ConnectionResetError:  # the server did not wait for the rest of the request
                break
            if not piece:
                break
            answer += piece
    assert not answer or answer.startswith(b"HTTP/1.") and b" 500 " not in answer.split(b"\r\n")[0]
    assert "failed" not in caplog.text
    assert rest("HEAD", "/api/health").status == 200


def test_a_bug_in_an_operation_is_a_500_with_the_cause_in_the_log(rest, monkeypatch, caplog):
    from simplepubsub.server import operations

    def broken(*_):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(operations, "close", broken)
    answer = rest("POST", "/:closeConnections")
    assert answer.status == 500 and "secret" not in answer.message
    assert answer.headers["x-ms-request-id"] in answer.message and answer.headers["x-ms-request-id"] in caplog.text
    assert "secret detail" in caplog.text
    assert rest("HEAD", "/api/health").status == 200
