"""Anything at any time: random calls of several threads, random acts of the server, and what must hold all the same."""

from __future__ import annotations

import random
import threading
from typing import Any, Dict, List

from simplepubsub.exceptions import ConnectError
from simplepubsub.socketio import exceptions
from simplepubsub.socketio.manager import State
from simplepubsub.socketio.packet import Packet, PacketType
from simplepubsub.socketio.seams import Connected, Disconnected, Event, Finished
from tests.helpers import MS, run_thread, scaled, wait_until

from .fake import FakeServer, FakeSession, make

WAIT = scaled(5)
NAMESPACES = ["/", "/a", "/b"]


class StrictServer(FakeServer):
    """Holds the client to section 2.6: what a Node server drops the connection for is noted."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.lock = threading.Lock()
        self.joined: Dict[int, Dict[str, str]] = {}
        self.faults: List[str] = []

    def handle(self, session: FakeSession, packet: Packet) -> None:
        with self.lock:
            spaces = self.joined.setdefault(session.index, {})
            state = spaces.get(packet.namespace)
            kind = packet.type
            if kind == PacketType.CONNECT:
                if state in ("asked", "joined"):
                    self.faults.append("second CONNECT to " + packet.namespace)
                fate = self.rng.random()
                if fate < 0.1:
                    spaces[packet.namespace] = "refused"
                    session.refuse(packet.namespace, {"message": "no"})
                elif fate < 0.15:
                    spaces[packet.namespace] = "asked"  # and no answer
                else:
                    spaces[packet.namespace] = "joined"
                    if fate < 0.3:
                        session.emit("early", namespace=packet.namespace)
                    session.accept(packet.namespace)
            elif state in (None, "left", "asked", "refused"):
                self.faults.append("%s to %s, which is %s" % (PacketType(kind).name, packet.namespace, state))
            elif kind == PacketType.DISCONNECT:
                spaces[packet.namespace] = "left"
            elif kind == PacketType.EVENT and packet.id is not None and packet.data[0] == "echo" and state == "joined":
                session.packet(PacketType.ACK, packet.namespace, packet.data[1:], packet.id)

    def act(self) -> None:
        """Do something to the newest connection."""
        with self.changed:
            session = self.sessions[-1] if self.sessions else None
        if session is None:
            return
        choice = self.rng.random()
        with self.lock:
            spaces = self.joined.setdefault(session.index, {})
            joined = [name for name, state in spaces.items() if state == "joined"]
            if joined and choice < 0.7:
                session.emit("n", namespace=self.rng.choice(joined), id=self.rng.choice([None, 0, 5]))
            elif joined and choice < 0.75:
                name = self.rng.choice(joined)
                spaces[name] = "kicked"  # what the client sends before it hears of it is no fault
                session.kick(name)
            elif choice < 0.8:
                session.raw("7")
            elif choice < 0.9:
                session.drop(self.rng.choice(["transport close", "transport error", "ping timeout"]))
            else:
                self.failures[:] = [ConnectError("no")] * self.rng.randrange(3)


def test_p2_p4_anything_at_any_time(seed: int, switch_interval: Any) -> None:
    rng = random.Random(seed)
    _, log, manager = make()
    server = StrictServer(rng)
    manager._opener = server
    asked, answered = [0], [0]
    lock = threading.Lock()

    def on_answer(error: Any, values: List[Any]) -> None:
        with lock:
            answered[0] += 1

    log.handlers[Event] = lambda event: manager.answer(event, [1]) if rng.random() < 0.5 else None

    def work(number: int) -> None:
        own = random.Random(seed + number)
        for _ in range(200):
            name = own.choice(NAMESPACES)
            choice = own.random() if manager.active else 0.9
            try:
                if choice < 0.35:
                    offline = own.choice(["raise", "buffer"])
                    retries = own.choice([0, 0, 2])
                    with lock:
                        asked[0] += 1
                    try:
                        manager.emit(name, own.choice(["echo", "silent"]), [b"x"], offline=offline, retries=retries,
                                     on_answer=on_answer, ack_timeout=20 * MS)
                    except exceptions.SocketIOError:
                        with lock:
                            asked[0] -= 1
                elif choice < 0.7:
                    assert manager.call(name, "echo", [number], timeout=20 * MS) == [number]
                elif choice < 0.75:
                    manager.emit(name, "v", volatile=True)
                elif choice < 0.8:
                    manager.join(name, timeout=20 * MS)
                elif choice < 0.83:
                    manager.leave(name)
                elif choice < 0.97:
                    manager.connect("http://server", namespaces=NAMESPACES[: own.randrange(1, 4)],
                                    wait_timeout=50 * MS, retry=own.random() < 0.5, timeout=200 * MS)
                else:
                    manager.disconnect()
            except (exceptions.SocketIOError, TimeoutError):
                pass
            if own.random() < 0.5:
                server.act()

    with run_thread(work, 1, join_timeout=60), run_thread(work, 2, join_timeout=60):
        work(3)
    manager.disconnect()
    assert manager.wait(WAIT) and manager.state is State.CLOSED
    assert server.faults == []
    assert answered[0] == asked[0]
    wait_until(lambda: all(session.over for session in server.sessions))  # one may come of an attempt that was given up
    assert len(log.of(Finished)) == log.runs
    connected: Dict[str, bool] = {}
    for record in log.records:
        if isinstance(record, Connected):
            assert not connected.get(record.namespace)
            connected[record.namespace] = True
        elif isinstance(record, Disconnected):
            assert connected[record.namespace]
            connected[record.namespace] = False
        elif isinstance(record, Event):
            assert connected.get(record.namespace) or record.args == ["early"]
        elif isinstance(record, Finished):
            assert not any(connected.values())
