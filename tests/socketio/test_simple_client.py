"""`SimpleClient` in front of a fake server."""

from __future__ import annotations

import threading
from typing import Any, Iterator, List

import pytest

from simplepubsub import socketio
from simplepubsub.exceptions import ConnectError
from simplepubsub.socketio.packet import PacketType
from tests.helpers import run_thread, scaled, wait_until
from tests.socketio.faces import URL, simple_on
from tests.socketio.fake import FakeServer

ACK, DISCONNECT, EVENT = PacketType.ACK, PacketType.DISCONNECT, PacketType.EVENT
Disconnected, TimedOut = socketio.exceptions.DisconnectedError, socketio.exceptions.TimeoutError


@pytest.fixture()
def peer() -> FakeServer:
    return FakeServer()


@pytest.fixture()
def sio(peer: FakeServer) -> Iterator[socketio.SimpleClient]:
    with simple_on(peer) as client:
        yield client


def lose(peer: FakeServer, index: int = 0) -> None:
    """Cut the connection; there will be no other until `restore`."""
    peer.hang = True
    peer.session(index).drop()
    peer.wait_targets(index + 2)


def restore(peer: FakeServer) -> None:
    peer.hang = False
    with peer.changed:
        peer.changed.notify_all()


def test_events_come_as_lists_in_order(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    session = peer.session(0)
    session.emit("a")
    session.emit("b", 1, [b"x"])
    session.emit(5, None)
    assert sio.receive(scaled(5)) == ["a"]
    event = sio.receive(timeout=scaled(5))
    assert event == ["b", 1, [b"x"]] and isinstance(event, list)
    assert (event[0], event[1:]) == ("b", [1, [b"x"]]) and (event.name, event.args) == ("b", [1, [b"x"]])
    assert sio.receive() == [5, None]
    with pytest.raises(TimedOut, match="no event within 0.001 s"):
        sio.receive(timeout=0.001)
    with pytest.raises(TimeoutError):  # the builtin
        sio.receive(timeout=0)
    with pytest.raises(ValueError):
        sio.receive(timeout=-1)


def test_only_its_own_namespace(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL, namespace="/chat", auth={"t": 1})
    session = peer.session(0)
    session.emit("other")
    session.emit("mine", namespace="/chat")
    assert sio.receive(scaled(5)) == ["mine"]
    sio.emit("e", (1, 2))
    assert sio.call("echo", 3) == 3
    assert [(p.namespace, p.data) for p in session.wait_packets(3)] == [
        ("/chat", {"t": 1}), ("/chat", ["e", 1, 2]), ("/chat", ["echo", 3])]


def test_state_before_during_and_after(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    assert (sio.connected, sio.sid, sio.transport, sio.client, sio.recovered) == (False, None, "", None, False)
    sio.connect(URL)
    assert (sio.connected, sio.sid, sio.transport, sio.transport()) == (True, "sid/-0", "websocket", "websocket")
    with pytest.raises(RuntimeError, match="Already connected"):
        sio.connect(URL)
    sio.disconnect()
    assert (sio.connected, sio.sid, sio.transport) == (False, None, "")
    for call in (sio.receive, lambda: sio.emit("e"), lambda: sio.call("e"), lambda: sio.emit("e", ack=True)):
        with pytest.raises(Disconnected):
            call()
    sio.disconnect()
    peer.session(0)
    sio.connect(URL)
    assert sio.sid == "sid/-1" and sio.call("echo", 1) == 1


def test_a_new_connection_begins_with_an_empty_buffer(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    peer.session(0).emit("old")
    peer.session(0).emit("older", id=0)
    assert sio.call("echo") is None
    sio.disconnect()
    sio.connect(URL)
    with pytest.raises(TimedOut):
        sio.receive(0)


def test_w12_before_connect_nothing_blocks(sio: socketio.SimpleClient) -> None:
    for call in (sio.receive, lambda: sio.receive(5), lambda: sio.emit("e"), lambda: sio.call("e")):
        with pytest.raises(Disconnected, match="connect"):
            call()


def test_a_connection_that_fails(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    peer.failures = [ConnectError("no route")]
    with pytest.raises(socketio.exceptions.ConnectionError, match="no route"):
        sio.connect(URL)
    assert not sio.connected
    with pytest.raises(Disconnected):
        sio.emit("e")
    peer.refused = {"/": {"message": "denied", "data": {"code": 42}}}
    with pytest.raises(ConnectionError, match="denied") as caught:
        sio.connect(URL)
    assert caught.value.refused == {"/": {"message": "denied", "data": {"code": 42}}}  # type: ignore[attr-defined]
    peer.refused = {}
    sio.connect(URL)
    assert sio.connected


def test_w13_receive_ends_when_the_server_ends_it(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    with run_thread(sio.receive) as receiving:
        peer.session(0).kick()
        error = receiving.exception(scaled(5))
    assert isinstance(error, Disconnected) and error.reason == "server disconnect"
    wait_until(lambda: not sio.connected, scaled(5))


def test_w13_receive_ends_when_the_connection_is_lost_for_good(peer: FakeServer) -> None:
    with simple_on(peer, reconnection=False) as sio:
        sio.connect(URL)
        peer.session(0).emit("last")
        with run_thread(lambda: [sio.receive(), sio.receive()]) as receiving:
            peer.session(0).drop("ping timeout")
            error = receiving.exception(scaled(5))
        assert isinstance(error, Disconnected) and error.reason == "ping timeout"


def test_w13_what_was_received_before_comes_first(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    for number in range(3):
        peer.session(0).emit("n", number)
    peer.session(0).kick()
    assert [sio.receive(scaled(5)) for _ in range(3)] == [["n", 0], ["n", 1], ["n", 2]]
    with pytest.raises(Disconnected):
        sio.receive()


def test_w13_one_deadline_over_a_reconnection(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    with run_thread(sio.receive, scaled(0.2)) as receiving:
        peer.session(0).drop()
        peer.session(1).wait_packets(1)  # an event before CONNECT would be ignored
        assert isinstance(receiving.exception(scaled(5)), TimedOut)
    peer.session(1).emit("after")
    assert sio.receive(scaled(5)) == ["after"]


def test_reconnections_go_unnoticed(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    peer.session(0).emit("before")
    lose(peer)
    assert sio.connected and sio.sid is None
    with run_thread(sio.emit, "while away", 1) as emitting, run_thread(sio.call, "echo", 2) as calling:
        assert sio.receive() == ["before"]
        assert emitting.running and calling.running
        restore(peer)
        emitting.result(scaled(5))
        assert calling.result(scaled(5)) == 2
    assert sorted(peer.session(1).events(2)) == [["echo", 2], ["while away", 1]]
    assert sio.sid == "sid/-1"


def test_w12_timeouts_while_reconnecting(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    lose(peer)
    for call in (
        lambda: sio.emit("e", timeout=scaled(0.01)),
        lambda: sio.emit("e", timeout=scaled(0.01), ack=True),
        lambda: sio.call("e", timeout=scaled(0.01)),
    ):
        with pytest.raises(TimedOut):
            call()
    restore(peer)
    sio.emit("last")
    assert peer.session(1).events(1) == [["last"]]  # what timed out is not sent later


def test_emits_end_when_the_client_gives_up_or_is_told_to(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    lose(peer)
    with run_thread(sio.emit, "e") as emit, run_thread(sio.call, "e") as call, run_thread(sio.receive) as receive:
        sio.disconnect()
        for thread in (emit, call, receive):
            assert isinstance(thread.exception(scaled(5)), Disconnected)


def test_w14_nothing_comes_back_after_the_with_block(peer: FakeServer) -> None:
    with simple_on(peer) as sio:
        sio.connect(URL)
        lose(peer)
    restore(peer)
    assert len(peer.sessions) == 1
    shared = ("simplepubsub-server", "simplepubsub-handler")  # the embedded server of other tests
    wait_until(lambda: all(thread.name.startswith(shared) for thread in threading.enumerate()
                           if "simplepubsub-" in thread.name))
    assert len(peer.sessions) == 1


def test_a_lost_answer(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    with run_thread(sio.call, "silent", timeout=scaled(60)) as calling:
        peer.session(0).wait_packets(1, EVENT)
        peer.session(0).drop()
        error = calling.exception(scaled(5))
    assert isinstance(error, socketio.exceptions.AckLost) and isinstance(error, TimedOut)


def test_emit_with_ack_survives_a_loss(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    assert sio.emit("e") is None
    assert sio.emit("echo", (1, 2), ack=True) == (1, 2)
    with run_thread(sio.emit, "silent", ack=True) as emitting:
        peer.session(0).wait_packets(3, EVENT)
        peer.session(0).drop()
        (event,) = peer.session(1).wait_packets(1, EVENT)
        peer.session(1).packet(ACK, "/", ["done"], event.id)
        assert emitting.result(scaled(5)) == "done"


def test_iteration_ends_with_disconnect(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    for number in range(3):
        peer.session(0).emit("n", number)
    seen: List[Any] = []
    for event in sio:
        seen.append(event)
        if len(seen) == 3:
            sio.disconnect()
    assert seen == [["n", 0], ["n", 1], ["n", 2]]


def test_iteration_does_not_hide_that_the_connection_was_lost(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    peer.session(0).emit("e")
    peer.session(0).kick()
    seen = []
    with pytest.raises(Disconnected, match="server disconnect"):
        for event in sio:
            seen.append(event)
    assert seen == [["e"]]


def test_w26_an_event_is_acknowledged_when_it_is_received(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    session = peer.session(0)
    session.emit("q", id=0)
    session.emit("q", id=1)
    session.emit("q")
    sio.call("echo")
    assert not [packet for packet in session.packets if packet.type == ACK]
    first = sio.receive()
    assert not first.wants_ack and not first.ack(1)
    second = sio.receive(ack=False)
    assert second.wants_ack
    assert second.ack(1, b"x") is True
    assert second.ack(2) is False and not second.wants_ack
    third = sio.receive()
    assert not third.wants_ack and third.ack(5) is False
    assert [(packet.id, packet.data) for packet in session.wait_packets(2, ACK)] == [(0, []), (1, [1, b"x"])]


def test_manual_acknowledgements_for_a_whole_client(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.auto_ack = False
    sio.connect(URL)
    peer.session(0).emit("q", id=3)
    event = sio.receive(scaled(5))
    peer.session(0).drop()
    peer.session(1).wait_packets(1)
    assert event.ack("late") is False  # another connection: the server would not know the id
    assert sio.call("echo", 1) == 1
    assert [packet for session in peer.sessions for packet in session.packets if packet.type == ACK] == []


def test_no_thread_but_the_connections(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    peer.session(0).emit("e")
    sio.receive()
    names = [thread.name for thread in threading.enumerate() if "dispatcher" in thread.name]
    assert names == []


def test_a_client_class_with_handlers_of_its_own(peer: FakeServer) -> None:
    seen: List[Any] = []

    class Mixed(simple_on(peer).client_class):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.on("mine", lambda *args: seen.append(args))
            self.once("first", lambda: seen.append("first"))
            self.on("disconnect", lambda reason: seen.append(reason))

    sio = simple_on(peer)
    sio.client_class = Mixed
    sio.connect(URL)
    peer.session(0).emit("first")
    for number in range(3):
        peer.session(0).emit("mine", number)
        peer.session(0).emit("other", number)
    peer.session(0).kick()
    assert [sio.receive(scaled(5)) for _ in range(3)] == [["other", 0], ["other", 1], ["other", 2]]
    with pytest.raises(Disconnected):
        sio.receive(scaled(5))
    sio.disconnect()
    assert seen == ["first", (0,), (1,), (2,), "server disconnect"]


def test_many_receivers_get_every_event_once(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    got: List[Any] = []

    def receive() -> None:
        try:
            while True:
                got.append(sio.receive()[1])
        except Disconnected:
            pass

    with run_thread(receive), run_thread(receive), run_thread(receive):
        for number in range(300):
            peer.session(0).emit("n", number)
        peer.session(0).kick()
    assert sorted(got) == list(range(300))


def test_what_was_emitted_before_disconnect_is_sent(peer: FakeServer, sio: socketio.SimpleClient) -> None:
    sio.connect(URL)
    for number in range(50):
        sio.emit("n", number)
    sio.disconnect()
    packets = peer.session(0).packets
    assert [packet.data for packet in packets if packet.type == EVENT] == [["n", number] for number in range(50)]
    assert packets[-1].type == DISCONNECT


def test_retries_of_the_client_count_here_too(peer: FakeServer) -> None:
    with simple_on(peer, retries=2, ack_timeout=scaled(0.01)) as sio:
        sio.connect(URL)
        with pytest.raises(TimedOut, match="any of 3 tries"):
            sio.call("silent")
        assert peer.session(0).events(3) == [["silent"]] * 3
