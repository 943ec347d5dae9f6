"""Messages, pings and subprotocols between ours and other WebSocket libraries, both ways round."""

from __future__ import annotations

import random

import pytest

from simplepubsub import websockets
from tests.helpers import run_thread
from tests.interop.plain_peers import MAX_SIZE, NAMES, open_pair

pytestmark = pytest.mark.interop

MESSAGES = [
    "hello", "", b"", b"\0\x01\xfe\xff", "h\u00e9llo \u4e16\u754c \U0001f600", "\0 \u2028 \ufeff \uffff", "x" * 125,
    "x" * 126, b"x" * 65535, b"x" * 65536,
]


@pytest.fixture(params=NAMES)
def pair(request):
    with open_pair(request.param) as made:
        yield made


def test_messages_of_all_kinds_and_lengths_come_back_as_they_went(pair):
    for message in MESSAGES:
        pair.ours.send(message)
        got = pair.theirs.recv()
        assert got == message and isinstance(got, type(message))
        pair.theirs.send(got)
        back = pair.ours.recv(timeout=30)
        assert back == message and isinstance(back, type(message))


def test_the_largest_message_that_both_ends_take(pair, seed):
    data = bytes(random.Random(seed).getrandbits(8) for _ in range(4096)) * (MAX_SIZE // 4096)
    text = "\u00e4" * (MAX_SIZE // 2)
    for message in (data, text):
        with run_thread(pair.ours.send, message):
            assert pair.theirs.recv() == message
        with run_thread(pair.theirs.send, message):
            assert pair.ours.recv(timeout=30) == message


def test_fragments_of_ours_arrive_as_one_message(pair):
    pair.ours.send(iter(["h\u00e9", "", "llo", " \U0001f600"]))
    assert pair.theirs.recv() == "h\u00e9llo \U0001f600"
    pair.ours.send([b"\xff\xfe", b"\0"])
    assert pair.theirs.recv() == b"\xff\xfe\0"


@pytest.mark.parametrize("name", [name for name in NAMES if "aiohttp" not in name])  # which cannot send them
def test_fragments_of_theirs_arrive_as_one_message(name):
    with open_pair(name) as pair:
        pair.theirs.send_fragments(["h\u00e9", "", "llo", " \U0001f600"])
        assert pair.ours.recv(timeout=30) == "h\u00e9llo \U0001f600"
        pair.theirs.send_fragments([b"\xff\xfe", b"\0"])
        assert pair.ours.recv(timeout=30) == b"\xff\xfe\0"


def test_messages_keep_their_order(pair):
    count = 500
    with run_thread(lambda: [pair.ours.send(str(number)) for number in range(count)]):
        assert [pair.theirs.recv() for _ in range(count)] == [str(number) for number in range(count)]
    with run_thread(lambda: [pair.theirs.send(str(number)) for number in range(count)]):
        assert [pair.ours.recv(timeout=30) for _ in range(count)] == [str(number) for number in range(count)]


def test_a_ping_of_ours_is_answered(pair):
    answered = pair.ours.ping(b"are you there")
    silent = pair.ours.ping()
    pair.ours.send("after the pings")
    assert pair.theirs.recv() == "after the pings"  # some answer only while they are asked for messages
    assert 0 <= silent.result(30) < 30 and 0 <= answered.result(30) < 30
    assert pair.ours.latency is not None


def test_a_ping_of_theirs_is_answered(pair):
    wait = pair.theirs.ping(b"are you there")
    wait()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("offered, spoken, agreed", [
    (["chat.v2", "chat.v1"], ["chat.v1"], "chat.v1"),
    (["chat.v1", "chat.v2"], ["chat.v1", "chat.v2"], "chat.v1"),
])
def test_subprotocols(name, offered, spoken, agreed):
    with open_pair(name, offered=offered, spoken=spoken) as pair:
        assert pair.ours.subprotocol == agreed
        assert pair.theirs.subprotocol == agreed
        pair.ours.send("hello")
        assert pair.theirs.recv() == "hello"


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_offers_no_subprotocol(name):
    if name in ("websockets.sync server", "websockets.asyncio server"):  # they insist
        with pytest.raises(websockets.InvalidStatus) as caught:
            with open_pair(name, spoken=["chat.v1"]):
                pass
        assert caught.value.status == 400
        return
    with open_pair(name, spoken=["chat.v1"]) as pair:
        assert pair.ours.subprotocol is None and pair.theirs.subprotocol is None
