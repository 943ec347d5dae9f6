"""How connections end between ours and other WebSocket libraries: codes and reasons, and what each side reports."""

from __future__ import annotations

import contextlib

import pytest

from simplepubsub import websockets
from simplepubsub.transports.frames import TEXT
from tests.helpers import run_thread
from tests.interop.plain_peers import MAX_SIZE, NAMES, open_pair

pytestmark = pytest.mark.interop

AIOHTTP = ("aiohttp server", "aiohttp client")
#: They answer every close frame with 1000; the others answer with the code and the reason that they got.
ANSWER_1000 = (*AIOHTTP, "websocket-client")
#: It raises on a fault of the peer, and leaves it to the caller to tell the peer.
SILENT = "websocket-client"

LONGEST = "\u00e4" * 61 + "x"  # 123 bytes
CODES = [
    (1000, ""), (1000, "done"), (1001, "going away"), (1011, ""), (3000, LONGEST), (4000, "gr\u00fc\u00dfe"), (4999, "")
]

BAD_TEXT = "text message that is not UTF-8"


def told(connection):
    """What ours reports: the kind of error, the code and the reason, and both close frames."""
    with pytest.raises(websockets.ConnectionClosed) as caught:
        while True:
            connection.recv(timeout=30)
    error = caught.value
    assert (error.code, error.reason) == (connection.close_code, connection.close_reason)
    return type(error), connection.close_code, connection.close_reason, error.rcvd, error.sent


def expected(rcvd, sent):
    fine = rcvd and sent and rcvd[0] in (1000, 1001, 1005) and sent[0] in (1000, 1001, 1005)
    kind = websockets.ConnectionClosedOK if fine else websockets.ConnectionClosedError
    return (kind, *(rcvd or (1006, "")), rcvd, sent)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("code, reason", CODES)
def test_we_close(name, code, reason):
    with open_pair(name) as pair:
        with run_thread(pair.ours.close, code, reason):
            assert pair.theirs.ended() == (code, reason)
        answer = (1000, "") if name in ANSWER_1000 else (code, reason)
        assert told(pair.ours) == expected(answer, (code, reason))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("code, reason", CODES)
def test_they_close(name, code, reason):
    with open_pair(name) as pair:
        with run_thread(told, pair.ours) as ours:
            # aiohttp does not tell the reason in the answer to its own close.
            assert pair.theirs.close(code, reason) == (code, None if name in AIOHTTP else reason)
            assert ours.result(30) == expected((code, reason), (code, reason))


@pytest.mark.parametrize("name", NAMES)
def test_they_close_without_a_code(name):
    with open_pair(name) as pair:
        with run_thread(told, pair.ours) as ours:
            without = 0 if name in AIOHTTP else None if name == "websocket-client" else 1005
            assert pair.theirs.close(None, "") == (without, "")  # we answer without one, too
            assert ours.result(30) == expected((1005, ""), (1005, ""))


@pytest.mark.parametrize("name", NAMES)
def test_what_they_sent_before_they_closed_is_still_received(name):
    with open_pair(name) as pair:
        for number in range(3):
            pair.theirs.send(str(number))
        with run_thread(lambda: list(pair.ours)) as ours:
            pair.theirs.close(1001, "enough")
            assert ours.result(30) == ["0", "1", "2"]
        assert pair.ours.close_code == 1001


@pytest.mark.parametrize("name", NAMES)
def test_what_we_sent_before_we_closed_is_still_received(name):
    with open_pair(name) as pair:
        for number in range(3):
            pair.ours.send(str(number))
        with run_thread(pair.ours.close):
            assert [pair.theirs.recv() for _ in range(3)] == ["0", "1", "2"]
            assert pair.theirs.ended() == (1000, "")


@pytest.mark.parametrize("name", NAMES)
def test_their_connection_breaks(name):
    with open_pair(name) as pair:
        pair.theirs.abort()
        assert told(pair.ours) == expected(None, None)


@pytest.mark.parametrize("name", NAMES)
def test_our_connection_breaks(name):
    with open_pair(name) as pair:
        pair.ours._sock.half_close()  # there is no public way to leave without a word
        assert pair.theirs.ended()[0] == (None if name == "websocket-client" else 1006)
        assert told(pair.ours) == expected(None, None)


@pytest.mark.parametrize("name", NAMES)
def test_they_send_text_that_is_not_utf8(name):
    with open_pair(name) as pair:
        pair.theirs.send_frame(TEXT, b"\xff")
        assert pair.theirs.ended() == (1007, BAD_TEXT)
        kind, code, _, _, sent = told(pair.ours)
        assert (kind, code, sent) == (websockets.ConnectionClosedError, 1006, (1007, BAD_TEXT))


@pytest.mark.parametrize("name", NAMES)
def test_they_send_a_message_that_is_too_long(name):
    with open_pair(name) as pair:
        with run_thread(pair.theirs.send, "x" * (MAX_SIZE + 1)) as sending:
            code, reason = pair.theirs.ended()
            sending.exception()  # some notice the end while they still send
        assert code == 1009 and str(MAX_SIZE) in reason
        kind, code, _, _, sent = told(pair.ours)
        assert (kind, code, sent) == (websockets.ConnectionClosedError, 1006, (1009, reason))


@pytest.mark.parametrize("name", [name for name in NAMES if name != SILENT])
@pytest.mark.parametrize("fault, code", [
    (lambda ours: ours.push((TEXT, b"\xff")), 1007),
    (lambda ours: ours.push((0x3, b"")), 1002),
    (lambda ours: ours.send("x" * (MAX_SIZE + 2)), 1009),
], ids=["text that is not UTF-8", "an unknown opcode", "a message that is too long"])
def test_a_fault_of_ours_that_they_refuse(name, fault, code):
    with open_pair(name) as pair:
        with contextlib.suppress(websockets.ConnectionClosed):  # they may refuse it before we have sent all of it
            fault(pair.ours)
        pair.theirs.ended()  # what they report of their own refusal differs
        kind, seen, reason, rcvd, sent = told(pair.ours)
        assert (kind, seen) == (websockets.ConnectionClosedError, code)
        assert rcvd == sent == (code, reason)
