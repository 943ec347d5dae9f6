"""Pings that arrive together."""

from __future__ import annotations

from simplepubsub import websockets
from tests.helpers import ScriptedPeer
from tests.wire import PING, PONG, make_frame


def test_each_of_several_pings_in_one_read_is_answered_in_order():
    payloads = [b"%d" % number for number in range(10)]

    def script(conn):
        conn.send_raw(b"".join(make_frame(PING, payload) for payload in payloads))
        frames = [conn.recv_frame() for _ in payloads]
        assert [(frame.opcode, frame.payload) for frame in frames] == [(PONG, payload) for payload in payloads]
        conn.close()

    with ScriptedPeer(script, subprotocol=None) as peer:
        with websockets.connect(peer.url(), proxy=None) as connection:
            assert list(connection) == []
