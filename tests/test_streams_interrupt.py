"""P5 for invocations and streams: Ctrl-C at any line of a call leaves the client and the stream usable."""

from __future__ import annotations

import json
from typing import Any, Callable, List

import pytest

from simplepubsub.exceptions import InvocationTimeout, ReceiveTimeout, StreamTimeout
from simplepubsub.webpubsub import outgoing_stream
from tests.helpers import MS, PeerConnection, ScriptedPeer, scaled, wait_until
from tests.interrupts import NEEDS_SAFE_WITH, interrupt_at, interrupt_when_blocked
from tests.memory import Network, memory_client
from tests.streamdesk import Desk
from tests.test_p5_interrupt import MAKE, PATH
from tests.test_streams_receiving import end, fragment


class Scene:
    """A client with an open stream in each direction."""

    def __init__(self) -> None:
        self.network = Network()
        self.desk = Desk(self.network)
        self.desk.answer = lambda command: {"success": True} if command["event"] == "answered" else None
        self.client = memory_client(self.network, protocol="json", max_outbox_bytes=3000)
        self.client.start()
        self.writer = self.client.open_stream("g", stream_id="out")
        self.incoming = self.client.streams("g")
        self.link = self.network.links[0]
        self.link.say(fragment(1), fragment(2))
        self.reader = self.incoming.accept(scaled(5))


def expect(error: Any, call: Callable[[], Any]) -> None:
    with pytest.raises(error):
        call()


def no_room(scene: Scene) -> None:
    scene.desk.mute = True
    for n in range(3):
        scene.writer.write("filling %d" % n)


def waiting_stream(scene: Scene) -> None:
    scene.link.say(fragment(1, stream_id="t"))
    wait_until(lambda: scene.incoming._door.waiting)


def unanswered(scene: Scene) -> None:
    scene.client.invoke_event_nowait("never", "x" * 2900)


CALLS: List[Any] = [
    ("invoke_event", lambda s: s.client.invoke_event("answered", timeout=scaled(5)), None),
    ("invoke_event without answer",
     lambda s: expect(InvocationTimeout, lambda: s.client.invoke_event("never", timeout=MS)), None),
    ("invoke_event without room",
     lambda s: expect(InvocationTimeout, lambda: s.client.invoke_event("never", "x" * 100, timeout=MS)), unanswered),
    ("invoke_event_nowait", lambda s: s.client.invoke_event_nowait("never").cancel(), None),
    ("open_stream", lambda s: s.client.open_stream("g", stream_id="new", timeout=scaled(5)), None),
    ("write", lambda s: s.writer.write("interrupted", timeout=scaled(5)), None),
    ("write without room", lambda s: expect(StreamTimeout, lambda: s.writer.write("interrupted", timeout=MS)), no_room),
    ("flush", lambda s: (s.writer.write("interrupted"), s.writer.flush(scaled(5))), None),
    ("end", lambda s: s.writer.end(scaled(5)), None),
    ("abort", lambda s: s.writer.abort(), None),
    ("keep_alive", lambda s: s.writer.keep_alive(), None),
    ("streams", lambda s: s.client.streams("h"), None),
    ("accept", lambda s: s.incoming.accept(scaled(5)), waiting_stream),
    ("accept nothing", lambda s: expect(ReceiveTimeout, lambda: s.incoming.accept(MS)), None),
    ("receive", lambda s: s.reader.receive(scaled(5)), None),
    ("close", lambda s: s.reader.close(), None),
    ("close all", lambda s: s.incoming.close(), None),
]


@NEEDS_SAFE_WITH
@pytest.mark.parametrize("name, call, prepare", CALLS, ids=[row[0] for row in CALLS])
def test_ctrl_c_at_any_line_of_a_conversation(name: str, call: Any, prepare: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(outgoing_stream, "WINDOW_FRAGMENTS", 3)
    position = 0
    while True:
        position += 1
        scene = Scene()
        client, desk, link = scene.client, scene.desk, scene.link
        if prepare is not None:
            prepare(scene)
        with interrupt_at(position) as interrupt:
            try:
                call(scene)
            except KeyboardInterrupt:
                pass
        try:
            for lock in (client._engine.mutex, client._conversations.inbox._lock):
                assert lock.acquire(timeout=scaled(5)), "a lock is held"
                lock.release()
            desk.mute = False
            if prepare is no_room:
                desk.ack(link, "out")
            publishes(scene, ended=name in ("end", "abort"))
            receives(scene, closed=name in ("close", "close all"))
            invocations = client._conversations.invocations
            for invocation_id in list(invocations._pending):
                # What has been answered meanwhile cannot be cancelled.
                assert client.cancel_invocation(invocation_id) or invocation_id not in invocations._pending
            assert client.invoke_event("answered", timeout=scaled(5)).data is None
            assert invocations._bytes == 0
            client.open_stream("g", stream_id="another", timeout=scaled(5)).end(scaled(5))
            client.stop(scaled(5))
            assert not client._conversations.publisher._channels
        except BaseException as error:
            client.stop(0)
            raise AssertionError("Ctrl-C before %s: %r" % (interrupt.where, error)) from error
        if not interrupt.where:
            break
    assert position > 4


def publishes(scene: Scene, ended: bool) -> None:
    """The stream goes on, and what an interrupted call wrote is there once or not at all."""
    if not ended:
        for n in range(3):
            scene.writer.write(n, timeout=scaled(5))
        scene.writer.flush(scaled(5))
    scene.writer.end(scaled(5))
    accepted = [data for data in scene.desk.accepted["out"] if not str(data).startswith("filling")]
    assert accepted in (([], ["interrupted"]) if ended else ([0, 1, 2], ["interrupted", 0, 1, 2]))
    assert "out" in scene.desk.ended


def receives(scene: Scene, closed: bool) -> None:
    """The reader goes on; an interrupted call may take one fragment with it, as one of `receive` does."""
    scene.link.say(fragment(3), end(4))
    if not closed:
        got = [message.data for message in scene.reader]
        assert got in ([1, 2, 3], [2, 3])
    scene.reader.close()
    scene.incoming.close()
    incoming = scene.client.streams("g")
    scene.link.say(fragment(1, stream_id="u"), end(2, "u"))
    stream = incoming.accept(scaled(5))
    while stream.stream_id != "u":
        stream = incoming.accept(scaled(5))
    assert [message.data for message in stream] == [1]


# --- a real Ctrl-C in a process of its own ----------------------------------------------------------------------------


def grudging(connection: PeerConnection) -> None:
    """Accept streams, and acknowledge nothing in them but what says "ok"."""
    connection.send_json({"type": "system", "event": "connected", "connectionId": "c", "userId": None})
    while True:
        frame = connection.recv_frame()
        command = json.loads(frame.text) if frame.opcode == 1 else {}
        if command.get("type") == "ping":
            connection.send_json({"type": "pong"})
        elif command.get("event") == "ok":
            connection.send_json({"type": "invokeResponse", "invocationId": command["invocationId"], "success": True})
        elif "stream" in command and command["group"] == "ok":
            connection.send_json({"type": "streamAck", "streamId": command["stream"]["streamId"],
                                  "expectedSequenceId": 1})
        elif command.get("data") == "ok":
            connection.send_json({"type": "ack", "ackId": command["ackId"], "success": True})


STREAM = "client.start(); stream = client.open_stream('ok'); stream.write('x')"
USABLE = """client.send_to_group("ok", "ok", timeout=10)
client.invoke_event("ok", timeout=10)
client.open_stream("ok", timeout=10).abort()
print("usable")
client.stop(timeout=0.2)"""

REAL = [
    ("invoke_event", "client.start()", "client.invoke_event('e')"),
    ("open_stream", "client.start()", "client.open_stream('g')"),
    ("write", STREAM + "; outgoing_stream.WINDOW_FRAGMENTS = 1", "stream.write('y')"),
    ("end", STREAM, "stream.end()"),
    ("accept", "client.start()", "client.streams().accept()"),
]


@pytest.mark.parametrize("name, before, call", REAL, ids=[row[0] for row in REAL])
def test_ctrl_c_in_a_blocking_call_of_a_conversation(name: str, before: str, call: str) -> None:
    with ScriptedPeer(grudging, timeout=60) as peer:
        make = MAKE + "from simplepubsub.webpubsub import outgoing_stream\n"
        result = interrupt_when_blocked(make + before, call, USABLE, peer.url(PATH))
        assert "usable" in result.stdout
        peer.close(check=False)
