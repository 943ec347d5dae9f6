"""Bad input is refused at the call, with a typed error that names the value and what is allowed (P8)."""

from __future__ import annotations

import enum
import re
import ssl
from typing import Any, Callable, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.core.backoff import RetryPolicy
from simplepubsub.exceptions import InvalidArgument, MessageTooLarge
from simplepubsub.webpubsub import WebPubSubClient, WebPubSubClientCredential, WebPubSubDataType, arguments, options
from simplepubsub.webpubsub.arguments import (
    check_ack_id,
    check_event,
    check_group,
    check_url,
    encode_checked,
    name_data_type,
)
from simplepubsub.webpubsub.credentials import as_credential
from simplepubsub.webpubsub.json_codec import finish, send_to_group_body
from simplepubsub.webpubsub.messages import MAX_MESSAGE_BYTES

URL = "wss://host.example/client/hubs/chat?access_token=S3cr3t"

# ---- URLs -----------------------------------------------------------------------------------------------------------

GOOD_URLS = [
    "ws://127.0.0.1:8080/client/hubs/chat",
    URL,
    "wss://host/client/hubs/chat/",
    "wss://host/Client/Hubs/Chat",
    "WSS://HOST/client/hubs/chat",
    "wss://host/client?hub=chat&access_token=x",
    "wss://host/client/?hub=chat",
    "wss://host/behind/a/gateway/client/hubs/chat",
    "ws://[::1]:80/client/hubs/chat",
    "ws://user:password@host/client/hubs/chat",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_client_access_url_is_accepted_with_blanks_around_it(url: str) -> None:
    assert check_url(url) == check_url("  %s\n" % url) == url


BAD_URLS = [
    (None, "must be a str, not NoneType"),
    (b"ws://host/client/hubs/chat", "must be a str, not bytes"),
    ("", "must start with ws:// or wss://"),
    ("https://host/client/hubs/chat?access_token=S3cr3t", "https://host/client/hubs/chat must start with ws:// or wss://"),
    ("host/client/hubs/chat", "must start with ws:// or wss://"),
    ("wss:///client/hubs/chat", "name a host"),
    ("wss://host", "names no hub: expected .../client/hubs/<hub> or .../client?hub=<hub>"),
    ("wss://host/client/hubs/", "names no hub"),
    ("wss://host/client?hub=&access_token=S3cr3t", "wss://host/client names no hub"),
    ("wss://host/client/hubs/a/b", "names no hub"),
    ("wss://host:port/client/hubs/chat", "unusable host or port"),
    ("wss://host:S3cr3t/client/hubs/chat", "unusable host or port"),
    ("wss://host:99999/client/hubs/chat", "unusable host or port"),
    ("wss://[::1/client/hubs/chat", "unusable host or port"),
    ("wss://user:S3cr3t@ho\u2100st/client/hubs/chat", "unusable host or port"),
    # A line end inside used to be passed on to the handshake.
    ("wss://host/client/hubs/chat\r\nX-Header: 1?access_token=S3cr3t", "white space or control characters"),
    ("wss://host/client/hubs/my chat", "white space or control characters"),
    ("wss://host/client/hubs/chat\x00", "white space or control characters"),
    # What is easily mistaken for a client access URL used to stand in the error, key and all.
    ("Endpoint=https://host;AccessKey=S3cr3t;Version=1.0;", "URL *** must start with"),
    ("S3cr3t", "URL *** must start with"),
]


@pytest.mark.parametrize("url, words", BAD_URLS, ids=[ascii(row[0])[:50] for row in BAD_URLS])
def test_anything_else_is_refused_without_showing_a_secret(url: Any, words: str) -> None:
    for check in (check_url, WebPubSubClientCredential, WebPubSubClient):
        if not isinstance(url, str) and check is not check_url:
            continue
        with pytest.raises(InvalidArgument, match=re.escape(words)) as caught:
            check(url)
        assert "S3cr3t" not in str(caught.value) and caught.value.__cause__ is None


# ---- credentials ----------------------------------------------------------------------------------------------------


def test_a_url_is_given_again_for_every_connection() -> None:
    credential = as_credential(URL)
    assert [credential.get_client_access_url() for _ in range(2)] == [URL, URL]


def test_a_callable_is_asked_for_every_connection_and_its_answer_checked() -> None:
    answers = iter([URL, URL + "2", "https://wrong", 5])
    credential = as_credential(lambda: next(answers))
    assert credential.get_client_access_url() == URL
    assert credential.get_client_access_url() == URL + "2"
    with pytest.raises(InvalidArgument, match="must start with ws://"):
        credential.get_client_access_url()
    with pytest.raises(InvalidArgument, match="must be a str, not int"):
        credential.get_client_access_url()


def test_what_the_callable_raises_comes_through() -> None:
    def fail() -> str:
        raise LookupError("no token today")

    with pytest.raises(LookupError, match="no token today"):
        as_credential(fail).get_client_access_url()


def test_credentials_of_the_official_sdk_are_accepted() -> None:
    class Foreign:
        def get_client_access_url(self) -> str:
            return URL

    assert as_credential(Foreign()).get_client_access_url() == URL
    ours = WebPubSubClientCredential(lambda: URL)
    assert as_credential(ours) is ours


@pytest.mark.parametrize("credential", [None, 5, b"ws://x", ["ws://x"], object()], ids=lambda value: str(type(value)))
def test_other_credentials_are_refused(credential: Any) -> None:
    words = "URL or a callable that returns one, not " + type(credential).__name__
    for make in (as_credential, WebPubSubClientCredential, WebPubSubClient):
        with pytest.raises(InvalidArgument, match=words):
            make(credential)


# ---- names and ids --------------------------------------------------------------------------------------------------

REFUSED = [
    (check_group, "", "1 to 1024 characters that are not all blank, not 0"),
    (check_group, " \t", "not all blank"),
    (check_group, "g" * 1025, "1 to 1024 characters that are not all blank, not 1025 ('ggg"),
    (check_group, None, "group must be a str, not NoneType"),
    (check_group, b"g", "group must be a str, not bytes"),
    (check_event, "", "event must be a letter followed by"),
    (check_event, "9a", "not '9a'"),
    (check_event, "a b", "not 'a b'"),
    (check_event, "a\n", "not 'a\\n'"),
    (check_event, "\u00e9", "event must be a letter"),
    (check_event, "e" * 129, "up to 127 letters"),
    (check_event, None, "not None"),
    (check_event, ("a",), "not ('a',)"),
    (check_ack_id, -1, "ack_id must be None or an integer from 0 to 2**64-1, not -1"),
    (check_ack_id, 2**64, "not 18446744073709551616"),
    (check_ack_id, True, "not True"),
    (check_ack_id, 1.0, "not 1.0"),
    (check_ack_id, "1", "not '1'"),
]


@pytest.mark.parametrize("check, value, words", REFUSED, ids=[row[0].__name__ + ascii(row[1])[:20] for row in REFUSED])
def test_a_bad_name_or_id_is_refused_with_its_value(check: Callable[[Any], Any], value: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(words)) as caught:
        check(value)
    assert len(str(caught.value)) < 250


ACCEPTED = [
    (check_group, "g"), (check_group, "g" * 1024), (check_group, " g\n\u00e9"), (check_event, "e"),
    (check_event, "E" * 128), (check_event, "a.b-c_9"), (check_ack_id, None), (check_ack_id, 0),
    (check_ack_id, 2**64 - 1),
]


@pytest.mark.parametrize("check, value", ACCEPTED, ids=[row[0].__name__ + ascii(row[1])[:20] for row in ACCEPTED])
def test_a_good_name_or_id_comes_back_as_it_is(check: Callable[[Any], Any], value: Any) -> None:
    assert check(value) == value


# ---- data types -----------------------------------------------------------------------------------------------------


class ForeignType(enum.Enum):
    """As the enumeration of the official SDK comes."""

    TEXT = "text"


NAMED = [
    ("x", None, "text"), ("", None, "text"), (b"x", None, "binary"), (bytearray(1), None, "binary"),
    (memoryview(b"x"), None, "binary"), (5, None, "json"), (None, None, "json"), ({}, None, "json"),
    ([b"x"], None, "json"), ("x", "json", "json"), ("x", "TEXT", "text"), (b"x", "Protobuf", "protobuf"),
    (1, WebPubSubDataType.JSON, "json"), ("x", ForeignType.TEXT, "text"),
]


NAMED_IDS = ["%s as %s" % (type(row[0]).__name__, row[1]) for row in NAMED]


@pytest.mark.parametrize("data, data_type, name", NAMED, ids=NAMED_IDS)
def test_the_data_type_is_inferred_or_taken_by_name(data: Any, data_type: Any, name: str) -> None:
    assert name_data_type(data, data_type) == name


@pytest.mark.parametrize("data_type", ["", "xml", 5, b"text", "text "], ids=repr)
def test_an_unknown_data_type_is_refused(data_type: Any) -> None:
    words = "unknown data_type %r: use one of text, json, binary, protobuf, or None" % (data_type,)
    with pytest.raises(InvalidArgument, match=re.escape(words)):
        name_data_type("x", data_type)


# ---- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\U0001f600"])
def test_the_largest_message_is_one_mebibyte_with_its_ack_id(letter: str) -> None:
    envelope = len(send_to_group_body("g", "", "text", True)) + arguments.MAX_ENDING
    width = len(letter.encode())
    letters, rest = divmod(MAX_MESSAGE_BYTES - envelope, width)
    body = encode_checked(send_to_group_body("g", letter * letters + "x" * rest, "text", True))
    assert len(finish(body, 2**64 - 1)) == MAX_MESSAGE_BYTES == 2**20
    words = "has 1048577 bytes, the service accepts 1048576: send it in parts"
    with pytest.raises(MessageTooLarge, match=words) as caught:
        encode_checked(send_to_group_body("g", letter * letters + "x" * (rest + 1), "text", True))
    assert (caught.value.size, caught.value.limit) == (2**20 + 1, 2**20)


@given(st.integers(0, 2**64 - 1))
def test_no_ack_id_is_longer_than_the_room_kept_for_it(ack_id: int) -> None:
    assert len(finish(b"", ack_id)) <= arguments.MAX_ENDING == len(finish(b"", 2**64 - 1))


def test_text_without_utf8_form_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=re.escape(r"lone surrogate '\ud800' cannot be sent")) as caught:
        encode_checked("ab\ud800c")
    assert caught.value.__cause__ is None
    assert encode_checked("\U0001f600") == b"\xf0\x9f\x98\x80"


# ---- keywords of the client -----------------------------------------------------------------------------------------

BAD_KEYWORDS = [
    ({"protocol": "mqtt"}, "unknown protocol 'mqtt': use one of json, "),
    ({"protocol": None}, "unknown protocol None"),
    ({"protocol_type": "mqtt"}, "unknown protocol 'mqtt'"),
    ({"start_timeout": -1}, "start_timeout must be None or a number of seconds >= 0, not -1"),
    ({"ack_timeout": float("nan")}, "ack_timeout must be"),
    ({"close_timeout": "5"}, "close_timeout must be"),
    ({"ping_interval": True}, "ping_interval must be"),
    ({"ping_interval": 0}, "ping_interval must be above 0 seconds, or None to switch it off"),
    ({"idle_timeout": 0.0}, "idle_timeout must be above 0 seconds"),
    ({"max_inbox": 0}, "max_inbox must be an integer >= 1, not 0"),
    ({"max_inbox": 1.5}, "max_inbox must be an integer >= 1, not 1.5"),
    ({"max_inbox": True}, "max_inbox must be an integer >= 1, not True"),
    ({"max_outbox_bytes": None}, "max_outbox_bytes must be an integer >= 1, not None"),
    ({"gaps": "ignore"}, "gaps must be 'flag' or 'raise', not 'ignore'"),
    ({"gaps": None}, "gaps must be"),
    ({"ssl": True}, "ssl must be None or an ssl.SSLContext, not bool"),
    ({"ssl": "cert.pem"}, "ssl must be None or an ssl.SSLContext, not str"),
    ({"proxy": True}, "proxy must be None"),
    ({"message_retry": 3}, "message_retry must be a RetryPolicy, not 3"),
    ({"reconnect_retry": None}, "reconnect_retry must be a RetryPolicy, not None"),
    ({"message_retry_total": -1}, "message_retry: total must be None or an integer >= 0, not -1"),
    ({"reconnect_retry_mode": "linear"}, "reconnect_retry: mode must be 'exponential' or 'fixed'"),
    ({"reconnect_retry_backoff_factor": -1}, "reconnect_retry: base must be"),
    ({"message_retry_backoff_max": float("inf")}, "message_retry: maximum must be"),
    ({"ping_intervall": 5, "auto": 1}, "unknown keyword 'auto', 'ping_intervall': see help(WebPubSubClient)"),
]


@pytest.mark.parametrize("keywords, words", BAD_KEYWORDS, ids=[",".join(row[0]) + row[1] for row in BAD_KEYWORDS])
def test_a_bad_keyword_of_the_client_is_refused_with_its_name_and_value(keywords: Dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match="^" + re.escape(words)):
        WebPubSubClient(URL, **keywords)


GOOD_KEYWORDS: Dict[str, Any] = {
    "protocol": "json", "auto_reconnect": False, "start_timeout": None, "ack_timeout": 0, "close_timeout": float("inf"),
    "ping_interval": None, "idle_timeout": None, "max_inbox": 1, "max_outbox_bytes": 1, "gaps": "raise",
    "ssl": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "proxy": False,
}


@pytest.mark.parametrize("name", sorted(GOOD_KEYWORDS))
def test_a_good_keyword_at_its_edge_is_accepted(name: str) -> None:
    client = WebPubSubClient(URL, **{name: GOOD_KEYWORDS[name]})
    assert client.state == "stopped" and "S3cr3t" not in repr(client)


def translate(**flat: Any) -> options.Translated:
    return options.translate(flat, RetryPolicy(total=3), RetryPolicy(), "json.reliable", True, False)


def test_without_flat_keywords_nothing_changes() -> None:
    assert translate() == (RetryPolicy(total=3), RetryPolicy(), "json.reliable", True, False, "")


def test_the_flat_keywords_of_the_official_sdk_set_the_policies() -> None:
    result = translate(
        message_retry_total=5, message_retry_backoff_factor=0.1, message_retry_backoff_max=2,
        message_retry_mode="fixed", reconnect_retry_total=7, protocol_type="json", logging_enable=True,
        user_agent="mine/1",
    )
    assert result.message_retry == RetryPolicy(5, 0.1, 2, "fixed")
    assert result.reconnect_retry == RetryPolicy(7)
    assert result[2:] == ("json", True, True, "mine/1")


def test_a_reconnect_total_of_zero_switches_reconnecting_off() -> None:
    assert translate(reconnect_retry_total=0).auto_reconnect is False
    assert translate(message_retry_total=0).auto_reconnect is True


def test_the_callers_keywords_are_not_changed() -> None:
    flat = {"message_retry_total": 1, "user_agent": None}
    options.translate(flat, RetryPolicy(), RetryPolicy(), "json", True, False)
    assert flat == {"message_retry_total": 1, "user_agent": None}


# ---- calls that fail before they touch anything ---------------------------------------------------------------------


@pytest.mark.parametrize("max_messages", [-1, True, 1.5, "3", float("nan")], ids=repr)
def test_a_bad_number_of_messages_is_refused_at_the_call(max_messages: Any) -> None:
    # Anything but a negative number or a bool used to pass, or to raise a bare TypeError.
    with pytest.raises(InvalidArgument, match="max_messages must be None or an integer >= 0, not"):
        WebPubSubClient(URL).messages(max_messages=max_messages)


def test_bad_arguments_are_named_before_the_state_of_the_client() -> None:
    client = WebPubSubClient(URL)
    calls: Any = [
        lambda: client.join_group(""), lambda: client.leave_group_nowait(None),
        lambda: client.send_to_group("g", {1, 2}), lambda: client.send_to_group("g", "x", "xml"),
        lambda: client.send_event("9", "x"), lambda: client.send_event_nowait("e", None),
        lambda: client.send_to_group("g", "x", timeout=-1),
        lambda: client.send_to_group("g", "x", ack_id=-1), lambda: client.join_group_nowait("\ud800"),
        lambda: client.join_group("\ud800"), lambda: client.send_to_group_nowait("g", "\ud800"),
        lambda: client.receive(timeout=-1), lambda: client.start(timeout="1"), lambda: client.stop(timeout=True),
        lambda: client.flush(timeout=float("nan")), lambda: client.messages(timeout=-1),
        lambda: client.send_to_group_nowait("g", "x" * 2**20), lambda: client.on("message", print),
        lambda: client.on("connected", 5), lambda: client.off("connected", print),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(InvalidArgument):
            call()
            pytest.fail("call %d was accepted" % number)
    stats = client.stats()
    assert client.state == "stopped" and not any(stats.values()), "nothing was sent or queued"
