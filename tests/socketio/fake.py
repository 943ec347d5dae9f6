"""An Engine.IO server inside the process, for the core of the Socket.IO client.

`FakeServer` is what a `Manager` takes for an opener. Each connection is a `FakeSession`: the client's end (the seam)
and the server's end (`emit`, `accept`, `drop`, ...) in one object. Its one thread is the reader's. The server answers
in the thread that sends, into the reader's queue, so nothing here races but what a test makes race.

`Log` is a delegate that runs handlers in a thread of its own, as the dispatcher of the clients does.
"""

from __future__ import annotations

import queue
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence

from simplepubsub.core.deadline import Deadline
from simplepubsub.exceptions import ConnectError, MessageTooLarge
from simplepubsub.socketio.manager import Manager
from simplepubsub.socketio.packet import Decoder, Packet, PacketType, encode
from simplepubsub.socketio.seams import (
    Answer,
    Connected,
    Delegate,
    Disconnected,
    Event,
    Finished,
    Lifecycle,
    Opener,
    Refused,
    Session,
    Target,
)
from simplepubsub.socketio.settings import Options
from tests.timing import scaled

__all__ = ["PATIENCES", "FakeServer", "FakeSession", "Log", "make", "quick"]

#: Limits (seconds, before scaling) to try in turn where one has to run out, but not before something else is done. The
#: first does on all but a busy machine.
PATIENCES = (0.1, 1.0, 10.0)


class FakeSession(Session):
    """One connection, both ends."""

    def __init__(self, server: FakeServer, target: Target, index: int) -> None:
        self.server = server
        self.target = target
        self.index = index
        self.sid = "engine-%d" % index
        self.transport = "websocket"
        self.max_payload: Optional[int] = None
        self.packets: List[Packet] = []  # what the client sent
        self.handled = 0  # so many of them the server has answered, or left without an answer
        self.groups: List[List[Any]] = []
        self.changed = threading.Condition()
        self.closed_with: Optional[str] = None
        self.polite = False
        self.drained: List[int] = []  # how many packets had been sent then
        self.aborts = 0
        self._decoder = server.decoder and server.decoder()
        self._queue: Any = queue.Queue()
        self._over = False
        self.backlog = 0  # bytes that "wait to be written", set by tests
        self.gate = threading.Event()  # the reader delivers nothing while it is clear
        self.gate.set()
        self._thread = threading.Thread(target=self._read, name="fake-reader-%d" % index, daemon=True)

    # --- the client's end ---------------------------------------------------------------------------------------------

    def start(self, on_messages: Any, on_closed: Any) -> None:
        self._on_messages, self._on_closed = on_messages, on_closed
        self._thread.start()

    def send(self, group: Sequence[Any]) -> None:
        if self.max_payload is not None:
            for message in group:
                if len(message) > self.max_payload:
                    raise MessageTooLarge("too large", size=len(message), limit=self.max_payload)
        packet = None
        with self.changed:
            if self._over:
                return
            self.groups.append(list(group))
            if self._decoder is None:
                return self.raw("no packet")
            for message in group:
                packet = self._decoder.feed(message)
            assert packet is not None
            self.packets.append(packet)
        try:
            self.server.handle(self, packet)
        finally:
            with self.changed:
                self.handled += 1
                self.changed.notify_all()

    @property
    def writable(self) -> bool:
        return not self.backlog

    @property
    def queued_bytes(self) -> int:
        return self.backlog

    def set_backlog(self, size: int) -> None:
        with self.changed:
            self.backlog = size
            self.changed.notify_all()

    def wait_room(self, deadline: Deadline) -> bool:
        with self.changed:
            while self.backlog and not self._over:
                if deadline.expired():
                    return False
                self.changed.wait(deadline.remaining())
            return True

    def flush(self, deadline: Deadline) -> bool:
        return self.wait_room(deadline)

    def drain(self, deadline: Deadline) -> bool:
        self.drained.append(len(self.packets))
        return self.flush(deadline)

    def close(self, deadline: Deadline) -> None:
        self.server.closing.wait(deadline.remaining())
        self.polite = True
        self._end("client disconnect", None)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(deadline.remaining())

    def abort(self) -> None:
        self.aborts += 1
        self._end("client disconnect", None)

    def _end(self, reason: str, error: Optional[BaseException]) -> None:
        with self.changed:
            if self._over:
                return
            self._over = True
            self.changed.notify_all()
        self._queue.put((reason, error))

    def _read(self) -> None:
        while True:
            item = self._queue.get()
            self.gate.wait(scaled(10))
            if isinstance(item, tuple):
                self.closed_with = item[0]
                self._on_closed(*item)
                return
            self._on_messages(item)

    # --- the server's end ---------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self._over

    def raw(self, *messages: Any) -> None:
        """Deliver messages as they are, in one batch."""
        self._queue.put(list(messages))

    def packet(self, kind: PacketType, namespace: str = "/", data: Any = None, id: Optional[int] = None) -> None:
        self.raw(*encode(Packet(kind, namespace, data, id)))

    def emit(self, *args: Any, namespace: str = "/", id: Optional[int] = None) -> None:
        self.packet(PacketType.EVENT, namespace, list(args), id)

    def accept(self, namespace: str = "/", **fields: Any) -> None:
        fields.setdefault("sid", "sid%s-%d" % (namespace, self.index))
        self.packet(PacketType.CONNECT, namespace, fields)

    def refuse(self, namespace: str, data: Any) -> None:
        self.packet(PacketType.CONNECT_ERROR, namespace, data)

    def kick(self, namespace: str = "/") -> None:
        self.packet(PacketType.DISCONNECT, namespace)

    def drop(self, reason: str = "transport close", error: Optional[BaseException] = None) -> None:
        self._end(reason, error)

    def wait_packets(self, count: int, kind: Optional[PacketType] = None) -> List[Packet]:
        """Wait until ``count`` packets (of a kind) have come and the server has done with them, and return them."""
        deadline = Deadline(scaled(5))
        with self.changed:
            while True:
                found = [p for p in self.packets[: self.handled] if kind is None or p.type == kind]
                if len(found) >= count:
                    return found
                assert not deadline.expired(), "%d of %d packets: %r" % (len(found), count, self.packets)
                self.changed.wait(deadline.remaining())

    def events(self, count: int) -> List[Any]:
        """Wait for ``count`` events, and return their names and arguments."""
        return [packet.data for packet in self.wait_packets(count, PacketType.EVENT)]


class FakeOpener(Opener):
    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.aborted = threading.Event()

    def open(self, target: Target, deadline: Deadline) -> Session:
        return self.server.open(self, target, deadline)

    def abort(self) -> None:
        self.aborted.set()
        with self.server.changed:
            self.server.changed.notify_all()


class FakeServer:
    """Accepts every namespace and answers nothing else, unless told to."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.sessions: List[FakeSession] = []
        self.targets: List[Target] = []
        self.failures: List[BaseException] = []  # raised by the next attempts
        self.down: Optional[Callable[[], BaseException]] = None  # raised by all attempts
        self.hang = False  # attempts go nowhere until they are aborted
        self.closing = threading.Event()  # a polite close waits for this
        self.closing.set()
        self.refused: Dict[str, Any] = {}
        self.silent: List[str] = []
        self.on_connect: Optional[Callable[[FakeSession, Packet], None]] = None
        self.on_event: Optional[Callable[[FakeSession, Packet], None]] = None
        self.openers: List[FakeOpener] = []
        self.max_payload: Optional[int] = None
        self.decoder: Optional[Callable[[], Any]] = Decoder  # None: answers whatever comes with nonsense

    def __call__(self) -> FakeOpener:
        opener = FakeOpener(self)
        self.openers.append(opener)
        return opener

    def open(self, opener: FakeOpener, target: Target, deadline: Deadline) -> FakeSession:
        with self.changed:
            self.targets.append(target)
            self.changed.notify_all()
            if self.failures:
                raise self.failures.pop(0)
            if self.down is not None:
                raise self.down()
            while self.hang and not opener.aborted.is_set():
                if deadline.expired():
                    raise ConnectError("the handshake took too long")
                self.changed.wait(deadline.remaining())
            if opener.aborted.is_set():
                raise ConnectError("aborted")
            session = FakeSession(self, target, len(self.sessions))
            session.max_payload = self.max_payload
            self.sessions.append(session)
            self.changed.notify_all()
            return session

    def handle(self, session: FakeSession, packet: Packet) -> None:
        # Each setting is looked at once: the test may change it meanwhile.
        if packet.type == PacketType.CONNECT:
            on_connect, refused = self.on_connect, dict(self.refused)
            if packet.namespace in self.silent:
                return
            if on_connect is not None:
                on_connect(session, packet)
            elif packet.namespace in refused:
                session.refuse(packet.namespace, refused[packet.namespace])
            else:
                session.accept(packet.namespace)
        elif packet.type == PacketType.EVENT:
            on_event = self.on_event
            if on_event is not None:
                on_event(session, packet)
            elif packet.id is not None and packet.data[0] == "echo":
                session.packet(PacketType.ACK, packet.namespace, packet.data[1:], packet.id)

    def wait_targets(self, count: int) -> None:
        self._wait(lambda: len(self.targets) >= count)

    def session(self, index: int) -> FakeSession:
        """Wait for the connection with this number."""
        self._wait(lambda: len(self.sessions) > index)
        return self.sessions[index]

    def _wait(self, predicate: Callable[[], bool]) -> None:
        deadline = Deadline(scaled(5))
        with self.changed:
            while not predicate():
                assert not deadline.expired(), "%d attempts, %d sessions" % (len(self.targets), len(self.sessions))
                self.changed.wait(deadline.remaining())


class Log(Delegate):
    """Keeps every record, and runs ``handlers`` (by kind of record) in its own thread."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.records: List[Any] = []
        self.handled = 0
        self.runs = 0
        self.finished = 0
        self.handlers: Dict[type, Callable[[Any], None]] = {}
        self.thread: Optional[threading.Thread] = None

    def started(self) -> None:
        with self.changed:
            self.runs += 1
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name="fake-dispatcher", daemon=True)
                self.thread.start()

    def deliver(self, records: Sequence[Any]) -> None:
        with self.changed:
            assert self.runs > sum(isinstance(r, Finished) for r in self.records), "records after the last"
            self.records.extend(records)
            self.changed.notify_all()

    def settle(self, deadline: Deadline) -> bool:
        thread = self.thread
        if threading.current_thread() is thread:
            return True
        with self.changed:
            count = len(self.records)
            while self.handled < count:
                if deadline.expired():
                    return False
                self.changed.wait(deadline.remaining())
            again = self.finished < self.runs
        if not again and thread is not None:
            thread.join(deadline.remaining())
        return True

    def _run(self) -> None:
        while True:
            with self.changed:
                while self.handled == len(self.records):
                    if self.finished == self.runs:
                        self.thread = None
                        return
                    self.changed.wait()
                record = self.records[self.handled]
            if isinstance(record, Answer):
                record.callback(record.error, record.values)
            else:
                handler = self.handlers.get(type(record))
                if handler is not None:
                    handler(record)
            with self.changed:
                self.handled += 1
                self.finished += isinstance(record, Finished)
                self.changed.notify_all()

    # --- for tests ----------------------------------------------------------------------------------------------------

    def of(self, *kinds: type) -> List[Any]:
        with self.changed:
            return [record for record in self.records if isinstance(record, kinds)]

    def wait_for(self, count: int, *kinds: type) -> List[Any]:
        """Wait until ``count`` records of these kinds have come."""
        deadline = Deadline(scaled(5))
        with self.changed:
            while True:
                found = [record for record in self.records if isinstance(record, kinds)]
                if len(found) >= count:
                    return found
                assert not deadline.expired(), "%d of %d: %r" % (len(found), count, self.story())
                self.changed.wait(deadline.remaining())

    def story(self) -> List[str]:
        """The records in short form."""
        return [_short(record) for record in self.records]

    @property
    def args(self) -> List[Any]:
        return [record.args for record in self.of(Event)]


def _short(record: Any) -> str:
    if isinstance(record, Event):
        return "%s %s" % (record.namespace, " ".join(map(str, record.args)))
    if isinstance(record, Connected):
        return "+" + record.namespace + (" recovered" if record.recovered else "")
    if isinstance(record, Disconnected):
        return "-%s %s%s" % (record.namespace, record.reason, " final" if record.final else "")
    if isinstance(record, Refused):
        return "!%s %s" % (record.namespace, record.data)
    if isinstance(record, Lifecycle):
        return record.name
    if isinstance(record, Finished):
        return "end " + record.reason
    return "answer"


def quick(**changes: Any) -> Options:
    """Options with short times."""
    values: Dict[str, Any] = {
        "delay": scaled(0.005), "delay_max": scaled(0.02), "open_timeout": scaled(5), "close_timeout": scaled(5),
    }
    values.update(changes)
    return Options(**values)


def make(**changes: Any) -> Any:
    """Return a server, a log, and a manager between them."""
    server, log = FakeServer(), Log()
    return server, log, Manager(server, log, quick(**changes))
