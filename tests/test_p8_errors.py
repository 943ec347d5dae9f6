"""P8, bad input: each mistake is named at the call, the client stays usable, and nothing is sent."""

from __future__ import annotations

import collections
import decimal
from typing import Any, Callable, Iterator, List

import pytest

from simplepubsub.exceptions import (
    AuthenticationError,
    ClientStateError,
    ClientStopped,
    HandshakeRejected,
    InvalidArgument,
    MessageTooLarge,
    SimplePubSubError,
)
from simplepubsub.webpubsub import RetryPolicy, WebPubSubClient
from tests.helpers import scaled
from tests.memory import Network, memory_client

URL = "ws://localhost:1/client/hubs/hub"


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def client(network: Network) -> Iterator[Any]:
    with memory_client(network, protocol="json") as client:
        yield client


def cycle() -> List[Any]:
    made: List[Any] = []
    made.append(made)
    return made


def deep() -> List[Any]:
    made: List[Any] = []
    for _ in range(100_000):
        made = [made]
    return made


BIG = "x" * 2**20
NAN = float("nan")

# (call, words that the error must contain)
CALLS = [
    (lambda c: c.join_group(""), ["group", "1,024" , "0"]),
    (lambda c: c.join_group("   "), ["group", "blank"]),
    (lambda c: c.join_group("g" * 1025), ["group", "1025"]),
    (lambda c: c.join_group(None), ["group", "NoneType"]),
    (lambda c: c.join_group(b"g"), ["group", "bytes"]),
    (lambda c: c.join_group("\ud800"), ["surrogate"]),
    (lambda c: c.leave_group(""), ["group"]),
    (lambda c: c.leave_group("\udfff"), ["surrogate"]),
    (lambda c: c.send_to_group("g" * 1025, "x"), ["group", "1025"]),
    (lambda c: c.send_to_group("\ud800", "x"), ["surrogate"]),
    (lambda c: c.send_to_group("g", "x", "txt"), ["data_type", "'txt'", "text", "json", "binary"]),
    (lambda c: c.send_to_group("g", {"a": 1}, "text"), ["text", "dict"]),
    (lambda c: c.send_to_group("g", "x", "binary"), ["binary", "str"]),
    (lambda c: c.send_to_group("g", None), ["None"]),
    (lambda c: c.send_to_group("g", {1, 2}), ["set", "JSON"]),
    (lambda c: c.send_to_group("g", {"a": object()}), ["JSON"]),
    (lambda c: c.send_to_group("g", [NAN]), ["JSON"]),
    (lambda c: c.send_to_group("g", float("inf")), ["JSON"]),
    (lambda c: c.send_to_group("g", decimal.Decimal("1.5")), ["Decimal"]),
    (lambda c: c.send_to_group("g", {b"key": 1}), ["JSON"]),
    (lambda c: c.send_to_group("g", cycle()), ["JSON"]),
    (lambda c: c.send_to_group("g", deep()), ["JSON"]),
    (lambda c: c.send_to_group("g", ["\ud800"]), ["surrogate"]),
    (lambda c: c.send_to_group("g", "\ud800"), ["surrogate"]),
    (lambda c: c.send_to_group("g", BIG), ["1048576", "bytes"]),
    (lambda c: c.send_to_group("g", b"x" * (800 * 1024)), ["1048576"]),
    (lambda c: c.send_to_group("g", "x", timeout=-1), ["timeout", "-1"]),
    (lambda c: c.send_to_group("g", "x", timeout="1"), ["timeout", "'1'"]),
    (lambda c: c.send_to_group("g", "x", timeout=NAN), ["timeout", "nan"]),
    (lambda c: c.send_to_group("g", "x", timeout=True), ["timeout", "True"]),
    (lambda c: c.send_to_group("g", "x", ack_id=-1), ["ack_id", "-1"]),
    (lambda c: c.send_to_group("g", "x", ack_id=2**64), ["ack_id"]),
    (lambda c: c.send_to_group("g", "x", ack_id="7"), ["ack_id", "'7'"]),
    (lambda c: c.send_to_group("g", "x", ack_id=True), ["ack_id", "True"]),
    (lambda c: c.send_event("", "x"), ["event"]),
    (lambda c: c.send_event("1st", "x"), ["event", "'1st'"]),
    (lambda c: c.send_event("e" * 129, "x"), ["event"]),
    (lambda c: c.send_event("two words", "x"), ["event"]),
    (lambda c: c.send_event(None, "x"), ["event"]),
    (lambda c: c.send_event("e", "x", "xml"), ["data_type", "'xml'"]),
    (lambda c: c.send_event("e", BIG), ["1048576"]),
    (lambda c: c.join_group("g", timeout=-0.5), ["timeout", "-0.5"]),
    (lambda c: c.leave_group("g", timeout=-0.5), ["timeout"]),
    (lambda c: c.send_event("e", "x", timeout=-0.5), ["timeout"]),
    (lambda c: c.receive(-1), ["timeout", "-1"]),
    (lambda c: c.receive("soon"), ["timeout", "'soon'"]),
    (lambda c: c.messages(timeout=-1), ["timeout"]),
    (lambda c: c.messages(max_messages=-1), ["max_messages", "-1"]),
    (lambda c: c.messages(max_messages="3"), ["max_messages", "'3'"]),
    (lambda c: c.messages(max_messages=True), ["max_messages", "True"]),
    (lambda c: c.messages(max_messages=1.5), ["max_messages", "1.5"]),
    (lambda c: c.flush(-1), ["timeout"]),
    (lambda c: c.flush("x"), ["timeout"]),
    (lambda c: c.stop(-1), ["timeout"]),
    (lambda c: c.stop("x"), ["timeout"]),
    (lambda c: c.on("no-such-event", print), ["no-such-event", "group-message"]),
    (lambda c: c.on("no-such-event"), ["no-such-event", "group-message"]),
    (lambda c: c.on("gap", 5), ["callable", "5"]),
    (lambda c: c.on("gap", lambda a, b: None), ["one parameter"]),
    (lambda c: c.off("gap", print), ["no such listener"]),
    (lambda c: c.off("no-such-event", print), ["no-such-event"]),
]


@pytest.mark.parametrize("call, words", CALLS, ids=[str(n) for n in range(len(CALLS))])
def test_a_bad_argument(client: Any, network: Network, call: Callable[[Any], Any], words: List[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        call(client)
    assert isinstance(caught.value, ValueError)
    text = str(caught.value).replace("1024", "1,024")
    for word in words:
        assert word in text
    assert len(text) < 600  # a value of a megabyte is not repeated
    assert network.links[0].commands == []
    stats = client.stats()
    assert (stats["sent"], stats["outbox_bytes"], stats["unacked"]) == (0, 0, 0)
    client.send_to_group("g", "usable", timeout=scaled(5))
    assert [command["data"] for command in network.links[0].commands] == ["usable"]


NOWAIT = [
    lambda c: c.join_group_nowait(""), lambda c: c.leave_group_nowait("g" * 1025),
    lambda c: c.send_to_group_nowait("g", {1}), lambda c: c.send_to_group_nowait("g", BIG),
    lambda c: c.send_event_nowait("?", "x"), lambda c: c.send_event_nowait("e", "x", "xml"),
    lambda c: c.send_to_group_nowait("g", "x", ack_id=-1),
]


@pytest.mark.parametrize("call", NOWAIT)
def test_a_bad_argument_of_a_send_that_does_not_wait(client: Any, network: Network, call: Any) -> None:
    with pytest.raises(InvalidArgument):  # at the call, not in the future
        call(client)
    client.send_to_group("g", "usable", timeout=scaled(5))
    assert [command["data"] for command in network.links[0].commands] == ["usable"]


def test_a_message_over_the_limit_names_both_sizes(client: Any) -> None:
    with pytest.raises(MessageTooLarge) as caught:
        client.send_to_group("g", BIG)
    assert caught.value.limit == 2**20
    assert caught.value.size > 2**20
    assert str(caught.value.size) in str(caught.value)


@pytest.mark.parametrize("options, words", [
    ({"protocol": "mqtt"}, ["protocol", "'mqtt'", "json.reliable"]),
    ({"protocol": None}, ["protocol"]),
    ({"gaps": "ignore"}, ["gaps", "'ignore'", "flag", "raise"]),
    ({"max_inbox": 0}, ["max_inbox", "0"]),
    ({"max_inbox": "many"}, ["max_inbox", "'many'"]),
    ({"max_outbox_bytes": -1}, ["max_outbox_bytes", "-1"]),
    ({"start_timeout": -1}, ["start_timeout", "-1"]),
    ({"ack_timeout": "1"}, ["ack_timeout", "'1'"]),
    ({"close_timeout": -0.1}, ["close_timeout", "-0.1"]),
    ({"ping_interval": 0}, ["ping_interval", "above 0"]),
    ({"idle_timeout": 0}, ["idle_timeout", "above 0"]),
    ({"ssl": True}, ["ssl", "SSLContext"]),
    ({"proxy": "proxy:3128"}, ["proxy", "http://host:port"]),
    ({"message_retry": 3}, ["message_retry", "RetryPolicy", "3"]),
    ({"reconnect_retry": None}, ["reconnect_retry", "RetryPolicy"]),
    ({"no_such_keyword": 1}, ["no_such_keyword"]),
])
def test_a_bad_option(options: Any, words: List[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        WebPubSubClient(URL, **options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("credential, words", [
    ("", ["ws://"]),
    ("localhost:8080/client/hubs/hub", ["ws://"]),
    ("http://localhost/client/hubs/hub", ["ws://", "http://localhost"]),
    ("ws:///client/hubs/hub", ["host"]),
    ("ws://localhost", ["hub", "/client/hubs/<hub>"]),
    ("ws://localhost/client/hubs/", ["hub"]),
    ("ws://localhost/client", ["hub"]),
    ("ws://localhost/client?hub=", ["hub"]),
    ("ws://localhost:99999/client/hubs/hub", ["port"]),
    ("ws://[::1/client/hubs/hub", ["host or port"]),
    (None, ["credential", "NoneType"]),
    (5, ["credential", "int"]),
    (b"ws://localhost/client/hubs/hub", ["credential", "bytes"]),
])
def test_a_bad_credential(credential: Any, words: List[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        WebPubSubClient(credential)
    for word in words:
        assert word.lower() in str(caught.value).lower()


@pytest.mark.parametrize("options", [
    {"total": -1}, {"total": "3"}, {"total": True}, {"base": -1}, {"base": "1"}, {"maximum": float("inf")},
    {"base": float("nan")}, {"mode": "linear"},
])
def test_a_bad_retry_policy(options: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        RetryPolicy(**options)
    assert next(iter(options)) in str(caught.value)


BEFORE_START = {
    "send_to_group": lambda c: c.send_to_group("g", "x"), "join_group": lambda c: c.join_group("g"),
    "leave_group": lambda c: c.leave_group("g"), "send_event": lambda c: c.send_event("e", "x"),
    "send_to_group_nowait": lambda c: c.send_to_group_nowait("g", "x"),
    "join_group_nowait": lambda c: c.join_group_nowait("g"), "receive": lambda c: c.receive(),
    "receive(0)": lambda c: c.receive(0),
}


@pytest.mark.parametrize("name", list(BEFORE_START))
@pytest.mark.parametrize("when", ["before start", "after stop", "after a failed start"])
def test_a_call_that_needs_a_running_client(network: Network, name: str, when: str) -> None:
    client = memory_client(network)
    if when == "after stop":
        client.start()
        client.stop()
    elif when == "after a failed start":
        network.failures = [AuthenticationError("HTTP 401", status=401)]
        with pytest.raises(AuthenticationError):
            client.start()
    with pytest.raises(ClientStopped) as caught:
        BEFORE_START[name](client)
    assert ("HTTP 401" if when == "after a failed start" else "start()") in str(caught.value)
    client.start()
    client.send_to_group("g", "usable", timeout=scaled(5))
    assert [command["data"] for command in network.links[-1].commands] == ["usable"]
    client.stop()


def test_calls_that_do_not_need_one(network: Network) -> None:
    client = memory_client(network)
    client.stop()
    client.flush(0)
    assert list(client.messages(timeout=0)) == []
    assert (client.state, client.groups, client.latency, client.connection_id) == ("stopped", (), None, None)
    assert "stopped" in repr(client)


def test_start_twice(client: Any) -> None:
    with pytest.raises(ClientStateError, match="connected.*stop"):
        client.start()
    client.send_to_group("g", "usable", timeout=scaled(5))


def test_every_error_is_of_one_family_and_says_something() -> None:
    error = HandshakeRejected("ws://h answered HTTP 503", status=503, url="ws://h", hint="try again later")
    assert isinstance(error, SimplePubSubError)
    assert str(error) == "ws://h answered HTTP 503; try again later"
    assert not error.fatal


def test_json_that_is_unusual_and_good(client: Any, network: Network) -> None:
    for data in ({"": 1}, {"1": [None, True, 1e300, -0.0, 2**80]}, collections.OrderedDict(a=1), (1, 2), 0, False, [],
                 {}, "", "\x00\u2028\U0001f600", b"", bytearray(b"x"), memoryview(b"abc")[::2]):
        client.send_to_group("g", data, timeout=scaled(5))
    sent = [command["data"] for command in network.links[0].of("sendToGroup")]
    assert sent[1] == {"1": [None, True, 1e300, -0.0, 2**80]}
    assert sent[-1] == "YWM="
    assert len(sent) == 13
