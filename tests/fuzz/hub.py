"""The server's core, with no socket: frames of all kinds of clients, streams and invocations, answers of handlers.

What one client may send, every other client must be able to read: all that a hub puts out is decoded as its receiver
would, and the bounds and books of the hub are looked at.
"""

from __future__ import annotations

import random
from typing import Any, List, Tuple

from simplepubsub.exceptions import InvalidArgument, MessageTooLarge, RemoteProtocolError
from simplepubsub.server.handlers import outgoing
from simplepubsub.server.hub import hub_of
from simplepubsub.server.limits import Limits
from simplepubsub.server.permissions import ALL_ROLES, Permissions
from simplepubsub.server.wire import JSON, JSON_RELIABLE, RawMode, RawWire
from simplepubsub.server.work import Work
from simplepubsub.transports.frames import BINARY, TEXT, FrameParser
from simplepubsub.webpubsub.messages import Invoke
from simplepubsub.webpubsub.protocol import protocol_named
from tests.fuzz import nasty
from tests.fuzz.codecs import client_frame, json_text
from tests.fuzz.runner import Target

try:
    from simplepubsub.server.wire_protobuf import PROTOBUF, PROTOBUF_RELIABLE
    from tests.fuzz.codecs import protobuf_frame
except ImportError:
    PROTOBUF = PROTOBUF_RELIABLE = None  # type: ignore[assignment]

LIMITS = Limits(max_unacked_messages=30, max_ack_ids=5, max_waiting_events=4, max_streams=3, patience=0.1)
ROLES = (ALL_ROLES, (), ("webpubsub.sendToGroup.lobby", "webpubsub.joinLeaveGroups.*"))


class Link:
    """Stands for a socket."""

    def write_buffer_size(self) -> int:
        return 0


class HubCore(Target):
    """Each input is a client's life of a few frames, in a hub that lives on."""

    name = "hub"
    share = 10.0

    def open(self) -> None:
        self.readers = {None: None, "json": protocol_named("json"), "json.reliable": protocol_named("json.reliable")}
        self.wires: List[Tuple[str, Any]] = [("raw", None), ("json", JSON), ("json.reliable", JSON_RELIABLE)]
        if PROTOBUF is not None:
            self.wires += [("protobuf", PROTOBUF), ("protobuf.reliable", PROTOBUF_RELIABLE)]
            for name in ("protobuf", "protobuf.reliable"):
                self.readers[name] = protocol_named(name)
        self.renew()

    def renew(self) -> None:
        """Begin with a new hub and one listener of every kind."""
        self.now = 1000.0
        self.work = Work(LIMITS, 30.0)
        self.work.presence = {"joined", "left"}
        self.hub = hub_of(self.work, "plaza")
        self.listeners = [(name, self.connect(name, wire, ALL_ROLES)) for name, wire in self.wires]
        self.sessions: List[Any] = []
        self.inputs = 0

    def connect(self, name: str, wire: Any, roles: Any) -> Any:
        if wire is None:
            wire = RawWire(RawMode("lobby") if len(roles) else RawMode())
        session = self.hub.connect(
            wire, Link(), user_id="mi\ud800na", permissions=Permissions(roles), groups=["lobby", "news"]
        )
        self.work.calls.clear()
        return session

    def make(self, rng: random.Random) -> Any:
        kind = rng.randrange(len(self.wires))
        name = self.wires[kind][0]
        steps: List[Tuple[str, Any]] = []
        for _ in range(rng.randrange(1, 8)):
            if rng.random() < 0.25:
                steps.append(
                    (rng.choice(("cut", "recover", "wait", "answer", "fail", "refuse", "guess")), nasty.value(rng, 2))
                )
            elif name.startswith("protobuf"):
                steps.append(("bytes", protobuf_frame(rng, self.readers[name])))
            elif name.startswith("json"):
                steps.append(("text", json_text(rng, client_frame(rng))))
            else:
                steps.append(
                    rng.choice((("text", nasty.text(rng)), ("bytes", nasty.text(rng).encode("utf-8", "replace"))))
                )
            if rng.random() < 0.03:
                steps.append(("text", "x") if steps[-1][0] == "bytes" else ("bytes", b"x"))
        return kind, rng.randrange(len(ROLES)), steps

    def check(self, item: Any) -> str:
        kind, roles, steps = item
        self.inputs += 1
        if self.inputs > 200:
            self.renew()
        name, wire = self.wires[kind]
        session = self.connect(name, wire, ROLES[roles])
        word = "lived"
        for step, what in steps:
            if session.ended:
                word = "ended"
                break
            try:
                self.take(session, step, what)
            except RemoteProtocolError as error:
                assert error.code in (1003, 1007), error.code
                assert len(str(error)) < 400 and not any(char in str(error) for char in "\r\n\0\x1b"), str(error)
                word = "closed with %d" % error.code
                break
            finally:
                self.settle()
        self.drain(name, session)
        self.hub.end(session, None, "the test is over")
        self.settle()
        self.work.calls.clear()
        for index, (reader, listener) in enumerate(self.listeners):
            self.drain(reader, listener)
            if listener.ended:
                fresh = self.connect(reader, self.wires[index][1], ALL_ROLES)
                self.listeners[index] = (reader, fresh)
            elif listener.wire.reliable:
                listener.acknowledge(listener.next_sequence)
                self.work.relieve(listener)
        self.look()
        return word

    def take(self, session: Any, step: str, what: Any) -> None:
        if step in ("text", "bytes"):
            payload = what
            if step == "text":
                payload = what.encode("utf-8", "replace").decode()  # what the frame parser lets through
            opcode = TEXT if step == "text" else BINARY
            session.wire.urgent(opcode, payload)
            self.hub.execute(session, session.wire.decode(opcode, payload), self.now)
        elif step == "cut":
            if session.link is not None:
                self.hub.lost(session, self.now, "cut")
        elif step == "recover":
            if session.reconnection_token and not session.ended:
                self.hub.recover(session.connection_id, session.reconnection_token, Link(), self.now)
        elif step == "guess":
            try:
                self.hub.recover(session.connection_id, str(what), Link(), self.now)
            except Exception as error:  # noqa: BLE001 - only the refusal is right, and no guess is
                assert type(error).__name__ == "RecoveryRefused", error
                return
            raise AssertionError("a guess was right")
        elif step == "wait":
            self.now += 0.5
            self.work.streams.expire(self.now)
        else:
            self.answer(session, step, what)

    def answer(self, session: Any, step: str, what: Any) -> None:
        """Answer the first event that waits, as the dispatcher does."""
        for call in self.work.calls:
            if call.kind != "event" or call.session is not session:
                continue
            self.work.calls.remove(call)
            reply = None
            error = None if step == "answer" else nasty_text(what)
            if error is None:
                try:
                    reply = outgoing(None, None, what, None, 2**20)
                except (InvalidArgument, MessageTooLarge) as problem:
                    error = str(problem)
            try:
                self.hub.finish_event(session, call.event, reply, error, self.now, step == "refuse")
            except RemoteProtocolError as problem:
                self.hub.finish_event(session, call.event, None, str(problem), self.now)
            if isinstance(call.event, Invoke):
                assert call.event.invocation_id not in session.invocations or session.ended
            return

    def settle(self) -> None:
        self.work.streams.settle(self.now)

    def drain(self, name: str, session: Any) -> None:
        """Read what a session was sent, as its client would."""
        parser = FrameParser(masked=False)
        reader = self.readers.get(name)
        for frame in parser.feed(b"".join(session.out)):
            if reader is not None:
                reader.decode(frame)
        assert parser.violation is None, parser.violation
        session.forget_output()
        session.dirty = False

    def look(self) -> None:
        """Check the books."""
        hub, work = self.hub, self.work
        work.dirty = [session for session in work.dirty if session.dirty]
        assert len(hub.sessions) == len(self.listeners), len(hub.sessions)
        for group, members in hub.groups.items():
            assert members and all(group in member.groups for member in members)
        assert set(hub.groups) <= {"lobby", "news"}, list(hub.groups)
        assert work.streams.active == 0 and not work.streams.orphans and not work.streams.unanswered
        assert not work.retained and not work.congested, (work.retained, work.congested)


def nasty_text(what: Any) -> str:
    return what if isinstance(what, str) and what else "why: %s" % ascii(what)[:100]


TARGETS: List[type] = [HubCore]
