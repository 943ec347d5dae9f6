"""Connection state recovery, section 2.12 of the protocol reference, in the core of the Socket.IO client."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional, Tuple

import pytest

from simplepubsub.socketio.manager import Manager
from simplepubsub.socketio.packet import Packet
from simplepubsub.socketio.recovery import Memory
from simplepubsub.socketio.seams import Connected, Event
from tests.helpers import scaled

from .fake import FakeServer, FakeSession, Log, make

WAIT = scaled(5)
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"


def offset(number: int = 0) -> str:
    """What the in-memory adapter makes now."""
    left, text = int(time.time() * 1000) + number, ""
    while left:
        left, digit = divmod(left, 64)
        text = DIGITS[digit] + text
    return text


class Recovering:
    """The server's half: remembers what it emitted, and replays what follows the client's offset."""

    def __init__(self, server: FakeServer) -> None:
        self.sent: Dict[str, List[Tuple[str, List[Any]]]] = {}
        self.pids: Dict[str, str] = {}
        self.expired = False
        self.asked: List[Tuple[str, Any]] = []
        self.count = 0
        server.on_connect = self.connect

    def connect(self, session: FakeSession, packet: Packet) -> None:
        namespace, data = packet.namespace, packet.data
        self.asked.append((namespace, data))
        pid: Optional[str] = data.get("pid")
        sent = self.sent.setdefault(namespace, [])
        known = [text for text, _ in sent]
        if pid is not None and pid == self.pids.get(namespace) and data.get("offset") in known and not self.expired:
            for text, args in sent[known.index(data["offset"]) + 1 :]:
                session.emit(*(args + [text]), namespace=namespace)
        else:
            pid = self.pids[namespace] = "pid%s%d" % (namespace, session.index)
            del sent[:]
        session.accept(namespace, pid=pid, sid="sid-of-" + pid)

    def emit(self, session: Optional[FakeSession], *args: Any, namespace: str = "/") -> None:
        self.count += 1
        text = offset(self.count)
        self.sent[namespace].append((text, list(args)))
        if session is not None:
            session.emit(*(list(args) + [text]), namespace=namespace)


def up(namespaces: Any = ("/",), **changes: Any) -> Tuple[FakeServer, Log, Manager, Recovering]:
    server, log, manager = make(**changes)
    recovering = Recovering(server)
    manager.connect("http://server", auth={"user": "x"}, namespaces=namespaces, wait_timeout=WAIT)
    return server, log, manager, recovering


def back(server: FakeServer, log: Log, count: int) -> FakeSession:
    log.wait_for(count, Connected)
    return server.sessions[-1]


def test_w7_case_59_what_was_missed_comes_once_in_order_and_before_connect() -> None:
    server, log, manager, recovering = up()
    session = server.session(0)
    recovering.emit(session, "n", 0)
    log.wait_for(1, Event)
    for number in range(1, 6):
        recovering.emit(None, "n", number)  # never arrives; after the loss it might come after the way back
    session.drop()
    back(server, log, 2)
    assert log.args == [["n", number] for number in range(6)]
    story = log.story()
    assert story.index("+/ recovered") > story.index("/ n 5")
    assert manager.recovered() and manager.sid() == "sid-of-pid/0"
    assert recovering.asked[1][1]["user"] == "x"  # the auth goes along
    manager.disconnect()


def test_every_recovery_goes_on_from_the_newest_event() -> None:
    server, log, manager, recovering = up()
    for round in range(30):
        recovering.emit(server.sessions[-1], "n", 2 * round)
        log.wait_for(2 * round + 1, Event)
        recovering.emit(None, "n", 2 * round + 1)
        server.sessions[-1].drop()
        back(server, log, round + 2)
    log.wait_for(60, Event)
    assert log.args == [["n", number] for number in range(60)]
    manager.disconnect()


def test_a_connection_that_is_lost_during_the_replay_loses_and_doubles_nothing() -> None:
    server, log, manager, recovering = up()
    recovering.emit(server.session(0), "n", 0)
    log.wait_for(1, Event)
    connect = recovering.connect

    def cut(session: FakeSession, packet: Packet) -> None:
        server.on_connect = connect
        text, args = recovering.sent["/"][1]
        session.emit(*(args + [text]))
        session.drop()

    server.on_connect = cut
    recovering.emit(None, "n", 1)
    recovering.emit(None, "n", 2)
    server.session(0).drop()
    back(server, log, 2)
    assert log.args == [["n", 0], ["n", 1], ["n", 2]] and manager.recovered()
    manager.disconnect()


def test_case_60_without_an_event_there_is_nothing_to_go_on_from() -> None:
    server, log, manager, recovering = up()
    server.session(0).drop()
    back(server, log, 2)
    assert recovering.asked[1] == ("/", {"user": "x"}) and not manager.recovered()
    manager.disconnect()


def test_case_60_an_expired_session_is_replaced_and_the_new_one_is_used() -> None:
    server, log, manager, recovering = up()
    recovering.emit(server.session(0), "n", 0)
    log.wait_for(1, Event)
    recovering.expired = True
    server.session(0).drop()
    second = back(server, log, 2)
    assert not manager.recovered()
    recovering.expired = False
    second.drop()
    third = back(server, log, 3)
    assert "pid" not in recovering.asked[2][1]  # the old offset does not belong to the new pid
    recovering.emit(third, "n", 1)
    log.wait_for(2, Event)
    third.drop()
    back(server, log, 4)
    assert recovering.asked[3][1]["pid"] == "pid/2" and manager.recovered()
    manager.disconnect()


def test_case_61_a_clean_disconnect_forgets() -> None:
    server, log, manager, recovering = up()
    recovering.emit(server.session(0), "n", 0)
    log.wait_for(1, Event)
    manager.disconnect()
    manager.connect("http://server", wait_timeout=WAIT)
    assert recovering.asked[1] == ("/", {}) and not manager.recovered()
    manager.disconnect()


def test_case_61_leaving_a_namespace_forgets() -> None:
    server, log, manager, recovering = up(["/", "/b"])
    recovering.emit(server.session(0), "n", namespace="/b")
    log.wait_for(1, Event)
    manager.leave("/b")
    manager.join("/b", timeout=WAIT)
    assert recovering.asked[2] == ("/b", {})
    manager.disconnect()


def test_case_62_each_namespace_has_its_own() -> None:
    server, log, manager, recovering = up(["/", "/b"])
    recovering.emit(server.session(0), "a")
    recovering.emit(server.session(0), "b", namespace="/b")
    log.wait_for(2, Event)
    recovering.emit(None, "c")
    recovering.emit(None, "d", namespace="/b")
    server.session(0).drop()
    back(server, log, 4)
    assert {name: data["pid"] for name, data in recovering.asked[2:]} == {"/": "pid/0", "/b": "pid/b0"}
    assert sorted((e.namespace, e.args[0]) for e in log.of(Event)) == [
        ("/", "a"), ("/", "c"), ("/b", "b"), ("/b", "d")
    ]
    assert manager.recovered("/b")
    manager.disconnect()


def test_case_63_a_server_without_recovery_sees_nothing_of_it() -> None:
    server, log, manager = make()
    manager.connect("http://server", wait_timeout=WAIT)
    server.session(0).emit("n", offset())
    event = log.wait_for(1, Event)[0]
    assert len(event.args) == 2  # and nothing is taken off
    server.session(0).drop()
    back(server, log, 2)
    assert server.session(1).packets[0].data == {}
    manager.disconnect()


@pytest.mark.parametrize("strip, left", [("auto", ["n", 1]), (True, ["n", 1]), (False, ["n", 1, "OFFSET"])])
def test_w8_case_58_offsets_are_taken_off(strip: Any, left: List[Any]) -> None:
    server, log, manager, recovering = up(strip_offset=strip)
    recovering.emit(server.session(0), "n", 1)
    text = recovering.sent["/"][0][0]
    args = log.wait_for(1, Event)[0].args
    assert args == [text if item == "OFFSET" else item for item in left]
    server.session(0).drop()
    back(server, log, 2)
    assert manager.recovered()
    manager.disconnect()


def test_case_58_other_strings_at_the_end_are_arguments_and_no_offsets() -> None:
    server, log, manager, recovering = up()
    session = server.session(0)
    recovering.emit(session, "good")
    session.emit("volatile", "a string")
    session.emit("asks", offset(), id=0)
    session.emit("only-name")
    log.wait_for(4, Event)
    assert log.args[1] == ["volatile", "a string"] and len(log.args[2]) == 2 and log.args[3] == ["only-name"]
    session.drop()
    back(server, log, 2)
    assert manager.recovered()  # the good one was kept
    manager.disconnect()


def test_memory_merges_with_auth_and_the_users_keys_win() -> None:
    memory = Memory("auto")
    assert memory.connect_data(None) is None and not memory.connected("p")
    assert memory.connect_data({"a": 1}) == {"a": 1}
    args = ["x", offset()]
    text = args[1]
    memory.accept(args)
    assert args == ["x"]
    assert memory.connect_data(None) == {"pid": "p", "offset": text}
    assert memory.connect_data({"a": 1, "pid": "mine"}) == {"pid": "mine", "offset": text, "a": 1}
    assert memory.connected("p") and memory.connect_data(None)["offset"] == text
    assert not memory.connected(None) and memory.connect_data(None) is None
    assert text not in repr(memory)  # P6


def test_recovered_is_false_without_a_connection() -> None:
    server, log, manager = make()
    assert not manager.recovered()
