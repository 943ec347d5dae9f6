"""What the service client reads and writes as text: connection strings, endpoints, filters, tokens."""

from __future__ import annotations

import time
from typing import Any, List, Tuple

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.exceptions import InvalidArgument
from simplepubsub.webpubsub import WebPubSubServiceClient, access_tokens, odata
from simplepubsub.webpubsub.access_tokens import client_path, sign, sign_client_token
from simplepubsub.webpubsub.connection_string import check_endpoint, parse_connection_string

KEY = "first-key-0123456789abcdef"
SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXM9PQ=="

# ---- connection strings ---------------------------------------------------------------------------------------------

READ = [
    ("Endpoint=https://demo.example.test;AccessKey=abc==;Version=1.0;", "https://demo.example.test", "abc=="),
    ("accesskey=a=b=c;ENDPOINT=http://Demo.Example.test:8080/", "http://demo.example.test:8080", "a=b=c"),
    ("Endpoint=https://h;AccessKey=k;Port=8080", "https://h:8080", "k"),
    ("Endpoint=https://h;AccessKey=k;Port=080", "https://h:80", "k"),
    ("Endpoint=https://h:8080;AccessKey=k;Port=8080", "https://h:8080", "k"),
    ("Endpoint=https://h/base//;AccessKey=k;Port=81", "https://h:81/base", "k"),
    ("  Endpoint = https://h ; AccessKey = k ;; \n", "https://h", "k"),
    ("Endpoint=https://[::1]:8080;AccessKey=k;Something=new", "https://[::1]:8080", "k"),
    ("Endpoint=https://h;AccessKey=k;Port=;", "https://h", "k"),
    ("Endpoint=https://h;Endpoint=https://h;AccessKey=k", "https://h", "k"),
]


@pytest.mark.parametrize("text, endpoint, key", READ, ids=range(len(READ)))
def test_reading_a_connection_string(text: str, endpoint: str, key: str) -> None:
    parts = parse_connection_string(text)
    assert (parts.endpoint, parts.access_key) == (endpoint, key)
    assert "***" in repr(parts)


REFUSED: List[Tuple[Any, str]] = [
    (None, "NoneType"), (b"Endpoint=https://h;AccessKey=k", "bytes"), ("", "empty"), ("   ", "empty"),
    ("'Endpoint=https://h;AccessKey=%s'" % SECRET, "without quotes"),
    ("Endpoint=https://h", "no AccessKey"), ("AccessKey=%s" % SECRET, "no Endpoint (it has accesskey)"),
    ("Endpoint=https://h;AccessKey=", "no AccessKey"), ("Version=1.0", "no Endpoint and no AccessKey"),
    ("Endpoint=https://h;AccessKey=%s;oops" % SECRET, "part 3 of the connection string has no '='"),
    ("Endpoint=https://h;%s" % SECRET.replace("=", ""), "part 2 of the connection string has no '='"),
    ("Endpoint=https://h;%s" % SECRET, "part 2"), ("=x;Endpoint=https://h", "part 1"),
    ("Endpoint=https://h;AccessKey=%s;AccessKey=other" % SECRET, "part 3 a second time"),
    ("Endpoint=https://h;AccessKey=k;Port=eighty", "Port"), ("Endpoint=https://h;AccessKey=k;Port=0", "Port"),
    ("Endpoint=https://h;AccessKey=k;Port=65536", "Port"), ("Endpoint=https://h;AccessKey=k;Port=99999999999", "Port"),
    ("Endpoint=https://h;AccessKey=k;Port=00000801111", "Port"),
    ("Endpoint=https://h:1;AccessKey=k;Port=2", "port 1 and Port says 2"),
    ("Endpoint=h.example.test;AccessKey=k", "https://"), ("Endpoint=wss://h;AccessKey=k", "https://"),
    ("Endpoint=https://;AccessKey=k", "https://"), ("Endpoint=https://u:%s@h;AccessKey=k" % SECRET, "password"),
    ("Endpoint=https://h:port;AccessKey=k", "unusable"), ("Endpoint=https://[::1;AccessKey=k", "unusable"),
    ("Endpoint=https://h?a=b;AccessKey=k", "query"), ("Endpoint=https://h#a;AccessKey=k", "fragment"),
    ("Endpoint=https://h\nX: y;AccessKey=k", "unusable"),
]


@pytest.mark.parametrize("text, words", REFUSED, ids=range(len(REFUSED)))
def test_a_bad_connection_string_is_explained_without_the_key(text: Any, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        WebPubSubServiceClient.from_connection_string(text, "plaza")
    assert words in str(caught.value)
    assert SECRET[:12] not in str(caught.value) and caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.one_of(st.text(), st.lists(st.tuples(st.sampled_from(["Endpoint", "accessKey", "Port", "x", ""]),
                                               st.sampled_from(["=", "==", ""]), st.text()))))
def test_any_text_is_read_or_refused(made: Any) -> None:
    text = made if isinstance(made, str) else ";".join("".join(parts) for parts in made)
    try:
        parts = parse_connection_string(text)
    except InvalidArgument as error:
        assert str(error)
    else:
        assert parts.endpoint.startswith("http") and parts.access_key


@pytest.mark.parametrize("given_text, endpoint", [
    ("https://H.example.test", "https://h.example.test"), ("HTTPS://h/", "https://h"), (" http://h:80 ", "http://h:80"),
    ("https://b\u00fccher.example", "https://xn--bcher-kva.example"), ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ("https://h/A/b/", "https://h/A/b"),
])
def test_endpoints(given_text: str, endpoint: str) -> None:
    assert check_endpoint(given_text) == endpoint
    assert check_endpoint(endpoint) == endpoint


def test_a_connection_string_in_the_wrong_place_is_recognised() -> None:
    text = "Endpoint=https://h;AccessKey=%s" % SECRET
    for arguments in ((text, "plaza", SECRET), ("https://h", "plaza", text)):
        with pytest.raises(InvalidArgument, match="from_connection_string") as caught:
            WebPubSubServiceClient(*arguments)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("hub", ["", "1hub", "hub name", "hub/x", "h" * 129, "h\n", "h-x", None, 5, b"hub"], ids=repr)
def test_a_hub_that_cannot_be(hub: Any) -> None:
    with pytest.raises(InvalidArgument, match="hub"):
        WebPubSubServiceClient("https://h", hub, KEY)


@pytest.mark.parametrize("options, words", [
    ({"credential": None}, "credential"), ({"credential": ""}, "empty"), ({"credential": "a b"}, "white space"),
    ({"credential": object()}, "object"), ({"endpoint": 5}, "endpoint"), ({"endpoint": "h"}, "https://"),
    ({"reverse_proxy_endpoint": "h"}, "reverse_proxy_endpoint"), ({"proxies": "h:1"}, "proxy"),
    ({"proxies": {"https": "ftp://h"}}, "proxy"), ({"verify": "/no/such/file"}, "certificates"),
    ({"verify": 5}, "verify"), ({"cert": "/no/such/file"}, "certificates"), ({"ssl": True}, "ssl"),
    ({"timeout": "5"}, "timeout"), ({"retry": 3}, "RetryPolicy"), ({"retry_total": "x"}, "total"),
    ({"hearders": {}}, "unknown keyword 'hearders'"), ({"user_agent": "a\nb"}, "User-Agent"),
    ({"headers": {"x": 5}}, "header"), ({"port": "x"}, "Port"),
])
def test_options_that_cannot_be(options: Any, words: str) -> None:
    arguments = dict({"endpoint": "https://h", "hub": "plaza", "credential": KEY}, **options)
    with pytest.raises(InvalidArgument, match=words):
        WebPubSubServiceClient(**arguments)


# ---- filters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made, text", [
    (lambda: odata("userId eq {} and {} in groups", "mina", "lobby"), "userId eq 'mina' and 'lobby' in groups"),
    (lambda: odata("userId eq {}", "O'Brien' or '1' eq '1"), "userId eq 'O''Brien'' or ''1'' eq ''1'"),
    (lambda: odata("userId ne {}", None), "userId ne null"),
    (lambda: odata("length(groups) gt {} and {}", 3, True), "length(groups) gt 3 and true"),
    (lambda: odata("{b} eq {a}", a=-1, b=False), "false eq -1"),
    (lambda: odata("{1} eq {0}", "a", "b"), "'b' eq 'a'"),
    (lambda: odata("userId in {}", ["a", "it's"]), "userId in ('a','it''s')"),
    (lambda: odata("userId in {}", (1, None)), "userId in (1,null)"),
    (lambda: odata("userId eq 'x{{y}}' or userId eq {}", "{z}"), "userId eq 'x{y}' or userId eq '{z}'"),
    (lambda: odata("userId eq 'it''s' and userId ne {}", "'"), "userId eq 'it''s' and userId ne ''''"),
    (lambda: odata("userId ne null"), "userId ne null"),
])
def test_values_in_filters(made: Any, text: str) -> None:
    assert made() == text


@pytest.mark.parametrize("made, words", [
    (lambda: odata("userId eq '{}'", "a"), "between quotes"), (lambda: odata("userId eq {}"), "no value"),
    (lambda: odata("userId eq {name}", nam="a"), "no value"),
    (lambda: odata("userId", "a"), "does not use the value 0"),
    (lambda: odata("userId", b="a"), "does not use the value b"), (lambda: odata("{:x}", 1), "no format"),
    (lambda: odata("{!r}", 1), "no format"), (lambda: odata("{0.real}", 1), "no value"),
    (lambda: odata("{", 1), "braces"), (lambda: odata("}", 1), "braces"), (lambda: odata(5), "str"),
    (lambda: odata("{}", 1.5), "float"), (lambda: odata("{}", b"x"), "bytes"), (lambda: odata("{}", []), "empty list"),
    (lambda: odata("{}", [["a"]]), "list"), (lambda: odata("{}", {"a"}), "set"),
    (lambda: odata("{}", object()), "object"),
])
def test_what_a_filter_cannot_carry(made: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        made()


@given(st.text())
def test_a_value_never_leaves_its_quotes(value: str) -> None:
    text = odata("userId eq {}", value)
    inner = text[len("userId eq '"):-1]
    assert inner.replace("''", "").count("'") == 0 and inner.replace("''", "'") == value


# ---- tokens ---------------------------------------------------------------------------------------------------------


def test_the_vector_of_the_reference(monkeypatch: Any) -> None:
    monkeypatch.setattr(access_tokens.time, "time", lambda: 1700000000.9)
    token = sign_client_token("https://demo.example.test/client/hubs/plaza", KEY, user_id="mina",
                              roles=["webpubsub.joinLeaveGroup"], groups=["lobby"])
    assert token.split(".")[2] == "TviK9EfqCE4N2U3hn-0BdLdmmC4mljYFuEtDD_y3pXk"
    with WebPubSubServiceClient("https://Demo.example.test/", "plaza", KEY) as service:
        made = service.get_client_access_token(user_id="mina", roles=["webpubsub.joinLeaveGroup"], groups=["lobby"])
    base = "wss://demo.example.test/client/hubs/plaza"
    assert made == {"baseUrl": base, "token": token, "url": base + "?access_token=" + token}


@pytest.mark.parametrize("protocol, path", [
    ("Default", "/client/hubs/plaza"), ("mqtt", "/clients/mqtt/hubs/plaza"),
    ("SOCKETIO", "/clients/socketio/hubs/plaza"),
])
def test_each_kind_of_client_has_its_path(protocol: str, path: str) -> None:
    assert client_path("plaza", protocol) == path
    service = WebPubSubServiceClient("http://localhost:8080", "plaza", KEY)
    made = service.get_client_access_token(client_protocol=protocol, minutes_to_expire=0.5, jwt_headers={"kid": "k1"})
    claims = jwt.decode(made["token"], options={"verify_signature": False})
    assert made["baseUrl"] == "ws://localhost:8080" + path and claims["aud"] == "http://localhost:8080" + path
    assert claims["exp"] - claims["iat"] == 30 and abs(claims["iat"] - time.time()) < 60
    assert set(claims) == {"aud", "iat", "exp"}
    assert jwt.get_unverified_header(made["token"]) == {"alg": "HS256", "typ": "JWT", "kid": "k1"}


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.lists(st.text()))), st.text(min_size=32))
def test_pyjwt_reads_what_we_sign(payload: Any, key: str) -> None:
    payload = {"x-" + name: value for name, value in payload.items()}
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        return
    assert jwt.decode(sign(payload, key), key, algorithms=["HS256"]) == payload
