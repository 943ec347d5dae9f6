"""URL templates, event patterns and the text form of an event handler: pure rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.exceptions import InvalidArgument
from simplepubsub.server.event_routes import EventRoute, UrlTemplate, parse_event_handler


class Target:
    def handle(self, method, headers, body):
        return 204, {}, b""


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template, expected",
    [
        ("http://h/", "http://h/"),
        ("https://h:8443/a/{hub}/{event}?code=1&e={event}", "https://h:8443/a/pla%60za/my%2Fevent?code=1&e=my%2Fevent"),
        ("HTTP://[::1]:80/{HUB}/{Event}", "HTTP://[::1]:80/pla%60za/my%2Fevent"),
        ("http://h?x={hub}", "http://h?x=pla%60za"),
        ("http://h/a%20b,c=d", "http://h/a%20b,c=d"),
    ],
)
def test_names_are_put_in_percent_encoded(template, expected):
    assert UrlTemplate(template).url("pla`za", "my/event") == expected


@pytest.mark.parametrize(
    "template, text",
    [
        ("", "printable ASCII"),
        ("/path", "http:// or https://"),
        ("ftp://h/", "http:// or https://"),
        ("h.example/x", "http:// or https://"),
        ("tunnel:///x", "need the cloud"),
        ("http://", "host"),
        ("http:///path", "host"),
        ("http://h:0/", "port"),
        ("http://h:x/", "port"),
        ("http://h:70000/", "port"),
        ("http://[::1/", "host or port"),
        ("http://{hub}.example/", "not in its host"),
        ("http://h:{event}/", "not in its host"),
        ("http://h/{user}", "not {user}"),
        ("http://h/{}", "not {}"),
        ("http://h/{hub", "brace"),
        ("http://h/hub}", "brace"),
        ("http://h/#x", "fragment"),
        ("http://h/a b", "printable ASCII"),
        ("http://h/a\r\nX: y", "printable ASCII"),
        ("http://h/\u00e9", "printable ASCII"),
        ("http://h/{@Microsoft.KeyVault(SecretUri=https://v/s)}", "Key Vault"),
    ],
)
def test_a_url_that_cannot_be_is_refused_with_its_reason(template, text):
    with pytest.raises(InvalidArgument, match="(?i)%s" % text.replace("{", r"\{")):
        UrlTemplate(template)


@pytest.mark.parametrize("url", ["http://me:secret@h/p?code=secret", "http://me:secret@h?secret", "x://a:secret@h/?secret"])
def test_secrets_of_a_url_are_not_shown(url):
    try:
        shown = repr(UrlTemplate(url)) + repr(EventRoute(url))
    except InvalidArgument as error:
        shown = str(error)
    assert "secret" not in shown and "h" in shown


# --- routes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "events, yes, no",
    [
        ("*", ["a", "connect"], []),
        ("a", ["a"], ["b", "ab"]),
        ("A, b", ["a", "b"], ["c"]),
        ("a+b", ["a", "b"], ["a+b"]),
        (["a", "B"], ["a", "b"], ["c"]),
        (("a", "*"), ["a", "z"], []),
        ("", [], ["a"]),
        ([], [], ["a"]),
        (None, [], ["a"]),
    ],
)
def test_patterns_of_user_events(events, yes, no):
    route = EventRoute(Target(), events=events)
    assert [name for name in yes + no if route.takes("event", name, "hub")] == yes


def test_system_events_are_not_user_events_and_the_other_way_round():
    route = EventRoute(Target(), "plaza", events="connected", system="joined")
    assert route.takes("event", "connected", "plaza") and route.takes("joined", "joined", "plaza")
    assert not route.takes("connected", "connected", "plaza") and not route.takes("event", "joined", "plaza")
    assert not route.takes("joined", "joined", "other")


@pytest.mark.parametrize(
    "options, text",
    [
        ({"target": 5}, "an object with handle"),
        ({"target": print}, "server.on"),
        ({"events": "1st"}, "names of user events"),
        ({"events": "a b"}, "names of user events"),
        ({"events": [5]}, "sequence of str"),
        ({"system": "connect,message"}, "not 'message'"),
        ({"system": "*"}, "not '\\*'"),
        ({"events": "", "system": ()}, "never be called"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"retry_delays": (-1,)}, "retry_delays"),
        ({"retry_delays": ("1",)}, "retry_delays"),
        ({"ssl": True}, "SSLContext"),
    ],
)
def test_bad_options_are_refused(options, text):
    with pytest.raises(InvalidArgument, match=text):
        EventRoute(**dict({"target": "http://h/"}, **options))


def test_a_bad_hub_is_refused(fresh_server):
    with pytest.raises(InvalidArgument, match="hub must be"):
        fresh_server().add_event_handler("http://h/", "no/hub")


# --- the text form ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("url=http://h/", {"target": "http://h/"}),
        (
            "hub=H,url=http://h/{event},events=*,system=connect+connected+disconnected",
            {"target": "http://h/{event}", "hub": "H", "events": "*", "system": "connect+connected+disconnected"},
        ),
        ("url=http://h/?a=1,b=2&c=,d,hub=H", {"target": "http://h/?a=1,b=2&c=,d", "hub": "H"}),
        ("events=a,b,url=http://h/", {"target": "http://h/", "events": "a,b"}),
        ("events=a+b,system=,url=http://h/", {"target": "http://h/", "events": "a+b", "system": ""}),
        ("hub=*,url=http://h/", {"target": "http://h/"}),
        ("hub=,url=http://h/,timeout=2.5", {"target": "http://h/", "timeout": 2.5}),
        ("hub=a,b[1],url=http://h/?events=x", {"target": "http://h/?events=x", "hub": "a,b[1]"}),
    ],
)
def test_text_forms(text, expected):
    assert parse_event_handler(text) == expected


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "expected one of"),
        ("http://h/", "expected one of"),
        ("link=http://h/", "expected one of hub="),
        ("hub=H", "url= is missing"),
        ("url=,hub=H", "url= is missing"),
        ("url=http://h/,event=a", "no field begins with 'event=a'"),
        ("url=http://h/?a,url=http://h/", "given twice"),
        ("url=http://h/,timeout=soon", "number of seconds"),
    ],
)
def test_text_forms_that_cannot_be(text, reason):
    with pytest.raises(InvalidArgument, match=reason):
        parse_event_handler(text)


def test_no_text_form_shows_the_secrets_of_its_url():
    with pytest.raises(InvalidArgument) as caught:
        parse_event_handler("http://h/?code=secret")
    assert "secret" not in str(caught.value)


@given(st.text(alphabet="hub=,url:/?{}events+*%stimeout1.\u00e9\r\n ", max_size=60))
def test_any_text_is_understood_or_refused(text):
    try:
        EventRoute(**parse_event_handler(text))
    except InvalidArgument as error:
        assert str(error)
