"""P6: no secret in logs, reprs, exceptions and traces. These two functions are what keeps them out."""

from __future__ import annotations

import json
from typing import Optional
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simplepubsub.exceptions import InvalidArgument
from simplepubsub.transports.dial import check_proxy
from simplepubsub.transports.redact import redact_text, redact_url

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJl-_"
SECRET = "S3cr3t+Value/With=Signs"

URLS = [
    ("wss://host/client/hubs/chat?access_token=" + JWT, "wss://host/client/hubs/chat"),
    ("ws://host:8080/client?hub=chat&access_token=" + JWT, "ws://host:8080/client"),
    ("ws://mina:pass-word@host:1/x#" + JWT, "ws://host:1/x"),
    ("ws://mina@host", "ws://host"),
    ("ws://[::1]:8080/x?a=b", "ws://[::1]:8080/x"),
    ("WSS://HOST/Path", "wss://host/Path"),
    ("http://user:pass-word@proxy:3128", "http://proxy:3128"),
    ("//user:pass-word@host/x", "//host/x"),
]


@pytest.mark.parametrize("url, shown", URLS, ids=[row[1] for row in URLS])
def test_an_url_is_shown_as_its_place(url: str, shown: str) -> None:
    assert redact_url(url) == shown


NO_URLS = [
    # What callers pass by mistake. All of these used to be shown as they are, key and all.
    ("Endpoint=https://host;AccessKey=%s;Version=1.0;" % SECRET, "***"),
    (SECRET, "***"),
    (JWT, "***"),
    ("user:pass-word@proxy:3128", "user:***"),
    ("localhost:8080/client/hubs/chat", "localhost:***"),
    ("wss:///client/hubs/" + SECRET, "wss:***"),
    ("", "***"),
    # What cannot be read at all.
    ("ws://user:pass-word@[host/x", "***"),
    ("ws://host:pass-word/x", "***"),
    ("ws://host:99999/x", "***"),
]


@pytest.mark.parametrize("text, shown", NO_URLS, ids=[row[1] + str(n) for n, row in enumerate(NO_URLS)])
def test_of_what_is_no_url_nothing_is_shown_but_a_scheme(text: str, shown: str) -> None:
    assert redact_url(text) == shown


words = st.text(alphabet="abcxyzABC0189-._~%", min_size=1, max_size=12)


@given(st.sampled_from(["ws", "wss", "http"]), words, st.none() | words, st.none() | st.integers(1, 65535), words)
def test_user_information_and_query_never_survive(
    scheme: str, user: str, password: Optional[str], port: Optional[int], path: str
) -> None:
    info = "UsEr" + user + (":PaSs" + password if password else "")
    place = "%s://host.example%s/%s" % (scheme, "" if port is None else ":%d" % port, path)
    url = place.replace("://", "://%s@" % info) + "?QuErY=%s#FrAg%s" % (user, user)
    assert redact_url(url) == place


@given(st.text(max_size=60))
@example("ws://a@[::1]]x")
@example("//\u2100@x")
def test_any_text_can_be_redacted(text: str) -> None:
    redact_text(text)
    shown = redact_url(text)
    assert shown == redact_url(shown) or "***" in shown


HIDDEN = [
    ("GET /client?access_token=%s&hub=x", "GET /client?access_token=***&hub=x"),
    ("?awps_connection_id=c1&awps_reconnection_token=%s", "?awps_connection_id=c1&awps_reconnection_token=***"),
    ('{"type":"system","connectionId":"c1","reconnectionToken":"%s"}',
     '{"type":"system","connectionId":"c1","reconnectionToken":"***"}'),
    ('{"access_token": "%s", "a": 1}', '{"access_token": "***", "a": 1}'),
    ('"{\\"access_token\\":\\"%s\\"}"', '"{\\"access_token\\":\\"***\\"}"'),
    ("{'accessToken': '%s'}", "{'accessToken': '***'}"),
    ("Endpoint=http://host;AccessKey=%s;Version=1.0;", "Endpoint=http://host;AccessKey=***;Version=1.0;"),
    ("access_key = %s", "access_key = ***"),
    ("url%%3Faccess_token%%3D%s", "url%%3Faccess_token%%3D***"),
    ("Authorization: Bearer %s", "Authorization: Bearer ***"),
    ("authorization: basic %s\r\nHost: x", "authorization: basic ***\r\nHost: x"),
    ("proxy http://user:%s@host:3128 refused", "proxy http://***@host:3128 refused"),
]


@pytest.mark.parametrize("template, shown", HIDDEN, ids=[row[1][:40].replace("\r\n", " ") for row in HIDDEN])
def test_secrets_are_masked_where_they_stand(template: str, shown: str) -> None:
    shown = shown.replace("%%", "%")
    for secret in (JWT, quote(SECRET, safe=""), "short"):
        assert redact_text(template % secret) == shown
        assert redact_text(shown) == shown


def test_a_token_is_known_by_its_looks_wherever_it_is() -> None:
    assert redact_text("refused %s, twice: (%s)" % (JWT, JWT)) == "refused ***, twice: (***)"


def test_text_without_secrets_stays_as_it_is() -> None:
    for text in (
        "", "a plain sentence: nothing = here", '{"type":"sendToGroup","group":"access","data":"token"}',
        "ws://host:1/client/hubs/x?hub=y", "mail to mina@host.example", "tokens and keys", "10:15 CET",
    ):
        assert redact_text(text) == text


@given(st.text(alphabet="abcXYZ0123456789-_.", min_size=6, max_size=40))
def test_a_reconnection_token_never_reaches_a_trace(token: str) -> None:
    connected = json.dumps({"type": "system", "event": "connected", "connectionId": "c1", "reconnectionToken": token})
    assert json.loads(redact_text(connected))["reconnectionToken"] == "***"
    for url in ("ws://h/client?awps_reconnection_token=%s&x=1" % token, "awps_reconnection_token=" + token):
        assert token not in redact_text(url).replace("***", "")


@pytest.mark.parametrize("proxy", [
    "user:pass-word@proxy:3128", "ftp://user:pass-word@proxy", "http://user:pass-word@[proxy", "http://",
    "http://user:pass-word@proxy:0", "http://user:pass-word@proxy:port", True, 3128,
])
def test_a_bad_proxy_is_refused_with_a_typed_error_and_without_its_password(proxy: object) -> None:
    # Brackets and ports that urllib cannot read used to come out as its ValueError, "user:..@host" with its password.
    with pytest.raises(InvalidArgument, match="proxy must be None") as caught:
        check_proxy(proxy)  # type: ignore[arg-type]
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize("proxy", [None, False, "http://proxy:3128", "socks5h://user:pass-word@[::1]:1080"])
def test_a_good_proxy_is_accepted(proxy: object) -> None:
    check_proxy(proxy)  # type: ignore[arg-type]
    assert not isinstance(proxy, str) or urlsplit(redact_url(proxy)).username is None
