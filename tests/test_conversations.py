"""The engine's seam for conversations: bound entries of the session, and which hook is called when."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Iterator, List, Optional, Tuple

import pytest

from simplepubsub.core.conversations import Conversations
from simplepubsub.core.session import Entry, Session
from simplepubsub.exceptions import FlushTimeout
from simplepubsub.webpubsub.messages import StreamAck
from tests.helpers import MS, run_thread, scaled, wait_until
from tests.memory import Network, memory_client


def bound(name: str, owner: object) -> Entry:
    return Entry((1, name.encode()), None, bound=owner)


def names(frames: Any) -> List[str]:
    return [payload.decode() for _, payload in frames]


def opened() -> Session:
    session = Session(10)
    session.begin([], True)
    return session


def test_bound_entries_go_out_in_their_turn_and_are_done_with_that() -> None:
    session, owner = opened(), object()
    first, middle, last = Entry((1, b"first"), 1), bound("middle", owner), Entry((1, b"last"), None)
    session.submit(first)
    session.submit_bound(middle)
    session.submit(last)
    assert session.size == 9 and session.unanswered == 3
    assert names(session.take()) == ["first", "middle", "last"] and middle.written
    assert session.wrote() == [last]
    assert list(session.pending) == [1] and session.size == 5


def test_bound_entries_do_not_take_room_from_others() -> None:
    session = opened()
    session.submit_bound(bound("x" * 1000, object()))
    assert session.size == 0 and session.has_room(10) and not session.idle


def test_a_lost_link_forgets_what_is_bound_and_nothing_else() -> None:
    session, owner = opened(), object()
    session.submit(Entry((1, b"sent"), 1))
    session.take()
    entries = [bound("a", owner), Entry((1, b"kept"), 2), bound("b", object()), Entry((1, b"told"), None)]
    for entry in entries:
        session.submit_bound(entry) if entry.bound else session.submit(entry)
    assert session.link_lost() == []
    session.resume()
    assert names(session.take()) == ["sent", "kept", "told"]
    assert not entries[0].written and not entries[2].written


def test_one_conversation_can_be_forgotten() -> None:
    session, mine, other = opened(), object(), object()
    for name, owner in (("a", mine), ("b", other), ("c", mine)):
        session.submit_bound(bound(name, owner))
    session.forget_bound(mine)
    assert names(session.take()) == ["b"]


def test_the_end_of_a_run_does_not_ask_about_bound_entries() -> None:
    session = opened()
    session.submit_bound(bound("a", object()))
    told = Entry((1, b"told"), None)
    session.submit(told)
    assert session.abandon() == [told] and session.idle


def test_flush_waits_until_bound_entries_are_written() -> None:
    session = opened()
    session.submit_bound(bound("a", object()))
    mark = session.mark()
    assert not session.settled_up_to(mark)
    session.take()
    assert session.settled_up_to(mark)


class Diary(Conversations):
    """Writes down what the engine calls, and that the mutex is held, or is not."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.entries: List[Any] = []
        self.deadline: Optional[float] = None
        engine.conversations = self

    def note(self, *entry: Any) -> None:
        assert self.engine.mutex.locked()
        self.entries.append(entry if len(entry) > 1 else entry[0])

    def received_locked(self, replies: List[Any], now: float) -> None:
        self.note("received", replies)

    def link_lost_locked(self) -> None:
        self.note("link lost")
        assert not self.engine.session.open

    def session_lost_locked(self) -> None:
        self.note("session lost")

    def recovered_locked(self) -> None:
        self.note("recovered")
        assert self.engine.session.open

    def begun_locked(self) -> None:
        self.note("begun")
        assert self.engine.session.open

    def stopped_locked(self) -> None:
        self.note("stopped")
        assert self.engine.supervisor is None

    def due_locked(self, now: float) -> None:
        assert self.engine.mutex.locked()
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self.note("due")

    def next_deadline_locked(self) -> Optional[float]:
        return self.deadline

    def settle(self) -> None:
        if self.entries[-1:] != ["settle"]:
            self.entries.append("settle")

    @property
    def news(self) -> List[Any]:
        return [entry for entry in self.entries if entry != "settle"]


def test_every_hook_at_its_time() -> None:
    network = Network()
    client = memory_client(network)
    diary = Diary(client._engine)
    client.start()
    wait_until(lambda: diary.entries[-1] == "settle")  # start() returns between the two
    assert diary.entries == ["begun", "settle"]
    link = network.links[0]
    link.say({"type": "streamAck", "streamId": "s", "expectedSequenceId": 1}, {"type": "pong"},
             {"type": "streamAck", "streamId": "s", "expectedSequenceId": 2})
    wait_until(lambda: len(diary.news) == 2)
    assert diary.news[1] == ("received", [StreamAck("s", 1), StreamAck("s", 2)])
    wait_until(lambda: diary.entries[-1] == "settle")

    link.cut()
    wait_until(lambda: len(diary.news) == 4)
    assert diary.news[2:] == ["link lost", "recovered"]

    network.accept_recovery = False
    network.links[1].cut()
    wait_until(lambda: diary.news[-1] == "begun")
    # The connection whose recovery was refused counts as a link, too.
    assert diary.news[4:] == ["link lost", "link lost", "session lost", "begun"]

    client.stop()
    assert diary.news[8:] == ["link lost", "stopped"] and diary.entries[-1] == "settle"


def test_an_early_deadline_wakes_the_supervisor() -> None:
    import time

    network = Network()
    client = memory_client(network, ping_interval=None, idle_timeout=None)
    diary = Diary(client._engine)
    with client:
        with client._engine.mutex:
            diary.deadline = time.monotonic() + 20 * MS
            client._engine.wake.notify_all()
        wait_until(lambda: "due" in diary.news)


def test_an_answer_is_counted_before_anybody_knows_of_it() -> None:
    # It was counted behind the futures of its batch, so that who had waited for one could find too few.
    network = Network()
    network.on_command = lambda link, command: True
    with memory_client(network) as client:
        counted: List[int] = []
        futures = [client.send_to_group_nowait("g", "x") for _ in range(2)]
        for future in futures:
            future.add_done_callback(lambda future: counted.append(client.stats()["acked"]))
        network.links[0].say(*[{"type": "ack", "ackId": future.ack_id, "success": True} for future in futures])
        wait_until(lambda: len(counted) == 2)
    assert counted == [2, 2]


@contextlib.contextmanager
def held_answers() -> Iterator[Tuple[Any, List[Any], threading.Event]]:
    """Yield a client, two answered sends and an event, until which a callback holds up the second one's future."""
    network = Network()
    network.on_command = lambda link, command: True
    entered, release = threading.Event(), threading.Event()
    with memory_client(network) as client:
        futures = [client.send_to_group_nowait("g", "x") for _ in range(2)]
        futures[0].add_done_callback(lambda future: (entered.set(), release.wait(scaled(10))))
        network.links[0].say(*[{"type": "ack", "ackId": future.ack_id, "success": True} for future in futures])
        assert entered.wait(scaled(5))
        yield client, futures, release


def test_flush_returns_when_the_futures_are_done() -> None:
    # It did when they were about to be.
    with held_answers() as (client, futures, release):
        with run_thread(lambda: [client.flush(scaled(10)), futures[1].done()]) as flushing:
            assert not flushing.done.wait(0.05)
            release.set()
            assert flushing.result() == [None, True]


def test_flush_gives_up_on_a_callback_that_does_not_end() -> None:
    with held_answers() as (client, futures, release):
        with pytest.raises(FlushTimeout, match="callback"):
            client.flush(MS)
        release.set()


def test_a_client_without_conversations_ignores_them() -> None:
    network = Network()
    client = memory_client(network)
    client._engine.conversations = Conversations()
    with client:
        link = network.links[0]
        link.say({"type": "invokeResponse", "invocationId": "1", "success": True}, link.message("x"))
        assert client.receive(scaled(5)).data == "x"
        link.cut()
        client.send_to_group("g", "y")
