"""What becomes of a send: the delivery table (docs/architecture.md), acknowledgements, withdrawal, groups, bytes.

P2: "in order, exactly once, or said so". Here without a thread, a socket or a clock; the machine at the end drives a
session against a model of the service through link losses, recoveries and new sessions.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from simplepubsub.core.protocol import Ack
from simplepubsub.core.session import BATCH_BYTES, Entry, Session

OPCODE = 1


def entry(name: str, ack_id: Optional[int] = None, **details: Any) -> Entry:
    return Entry((OPCODE, name.encode()), ack_id, **details)


class Desk:
    """A session with short words for what the engine does to it."""

    def __init__(self, max_bytes: int = 1000, max_in_flight: Optional[int] = None, connected: bool = True) -> None:
        self.session = Session(max_bytes, max_in_flight)
        self.uncertain: List[str] = []
        if connected:
            self.session.begin([], True)

    def send(self, name: str, ack_id: Optional[int] = None, **details: Any) -> Entry:
        """Submit a command that wants an answer, under the next id or the one given."""
        sent = entry(name, self.session.next_ack_id() if ack_id is None else ack_id, **details)
        self.session.submit(sent)
        return sent

    def tell(self, name: str) -> Entry:
        """Submit a command that wants no answer."""
        told = entry(name)
        self.session.submit(told)
        return told

    def write(self) -> List[str]:
        """Take a batch and write it."""
        frames = self.session.take()
        self.session.wrote()
        return [str(payload.decode()) for _, payload in frames]  # type: ignore[union-attr]

    def answer(self, *entries: Entry, ok: bool = True) -> List[Entry]:
        return [got for got, _ in self.session.acknowledge([Ack(e.ack_id or 0, ok) for e in entries])]

    def lose(self) -> List[str]:
        return names(self.session.link_lost())

    def new_session(self, replay: bool = True, rejoin: bool = True) -> int:
        groups = list(self.session.restore) if rejoin else []
        entries = [entry("rejoin " + group, self.session.next_ack_id(), restores=group) for group in groups]
        replayed, uncertain = self.session.begin(entries, replay)
        self.uncertain = names(uncertain)
        return replayed

    def joined(self, *groups: str) -> Desk:
        for group in groups:
            self.answer(self.send("join " + group, join=(group, True)))
        self.session.take()
        return self


def names(entries: List[Entry]) -> List[str]:
    return [e.frame[1].decode() for e in entries]  # type: ignore[union-attr]


@pytest.fixture
def desk() -> Desk:
    return Desk()


# ---- the delivery table ---------------------------------------------------------------------------------------------
#
# What the service gets of a send when the link dies. Rows: how far the send had come. Columns: what the link came back
# as. The three last values: what the next connection writes, what was reported as uncertain, what is still unanswered.

QUEUED, WRITTEN, CUT_SHORT = "queued", "written", "cut short"

DELIVERY = [
    # ack     how far     session recovered      new, replay            new, no replay
    (True, QUEUED, (["m"], [], 1), (["m"], [], 1), (["m"], [], 1)),
    (True, WRITTEN, (["m"], [], 1), (["m"], [], 1), ([], ["m"], 0)),
    (True, CUT_SHORT, (["m"], [], 1), (["m"], [], 1), ([], ["m"], 0)),
    (False, QUEUED, (["m"], [], 0), (["m"], [], 0), (["m"], [], 0)),
    (False, WRITTEN, ([], [], 0), ([], [], 0), ([], [], 0)),
    (False, CUT_SHORT, ([], ["m"], 0), ([], ["m"], 0), ([], ["m"], 0)),
]


@pytest.mark.parametrize("column", [0, 1, 2], ids=["recovered", "new session, replay", "new session, no replay"])
@pytest.mark.parametrize("row", DELIVERY, ids=lambda row: "%s %s" % ("ack" if row[0] else "no ack", row[1]))
def test_delivery_table(row: Tuple[Any, ...], column: int) -> None:
    ack, how_far, *columns = row
    written, uncertain, unanswered = columns[column]
    desk = Desk()
    sent = desk.send("m") if ack else desk.tell("m")
    if how_far == WRITTEN:
        assert desk.write() == ["m"]
    elif how_far == CUT_SHORT:
        desk.session.take()  # the transport fails before it reports the batch as written
    assert sent.written == (how_far != QUEUED)
    reported = desk.lose()
    assert desk.write() == [] and not desk.session.writable
    if column == 0:
        assert desk.session.resume() == (ack and how_far != QUEUED)
    else:
        assert desk.new_session(replay=column == 1) == (column == 1 and ack and how_far != QUEUED)
    reported += desk.uncertain
    assert desk.write() == written
    assert reported == uncertain
    assert desk.session.unanswered == unanswered
    assert desk.session.size == unanswered  # one byte each
    if written and ack:
        assert desk.answer(sent) == [sent]
    assert desk.session.idle and desk.session.size == 0


def test_a_replay_is_the_same_frame_under_the_same_id_before_what_was_queued(desk: Desk) -> None:
    first, second = desk.send("1"), desk.send("2")
    desk.write()
    queued, told = desk.send("3"), desk.tell("4")
    desk.lose()
    late = desk.send("5")
    assert desk.session.resume() == 2
    frames = desk.session.take()
    assert frames == [e.frame for e in (first, second, queued, told, late)]
    assert frames[0] is first.frame
    assert [first.ack_id, second.ack_id, queued.ack_id, late.ack_id] == [1, 2, 3, 4]


def test_what_was_answered_is_not_replayed(desk: Desk) -> None:
    sends = [desk.send(str(n)) for n in range(4)]
    desk.write()
    desk.answer(sends[2], sends[0])
    desk.lose()
    assert desk.session.resume() == 2
    assert desk.write() == ["1", "3"]


def test_a_link_that_dies_again_and_again_replays_everything_each_time_and_counts_it_once_per_time(desk: Desk) -> None:
    sends = [desk.send(str(n)) for n in range(3)]
    desk.write()
    for _ in range(3):
        desk.lose()
        assert desk.session.resume() == 3
        assert desk.write() == ["0", "1", "2"]
    assert desk.answer(*sends) == sends and desk.session.idle


def test_a_link_that_dies_in_the_middle_of_a_replay_keeps_the_order(desk: Desk) -> None:
    big = BATCH_BYTES // 2
    desk.session.max_bytes = 10 * BATCH_BYTES
    for name in "abcde":
        desk.send(name * big)
    while desk.write():
        pass
    desk.lose()
    desk.session.resume()
    assert [name[0] for name in desk.write()] == ["a", "b"]
    desk.lose()
    assert desk.session.resume() == 2  # a and b again; the others never left the queue
    assert [name[0] for _ in range(3) for name in desk.write()] == list("abcde")


def test_sends_of_a_recovered_session_that_ends_before_their_replay_stay_uncertain(desk: Desk) -> None:
    # Between the recovery and the replay such a send used to count as never written: after a further loss it was sent
    # in the new session, where the service cannot recognise it, although the user had asked for no such thing.
    sent = desk.send("m")
    desk.write()
    desk.lose()
    desk.session.resume()
    desk.lose()
    assert desk.new_session(replay=False) == 0
    assert desk.uncertain == ["m"] and desk.write() == []
    assert sent.written and desk.session.idle and desk.session.size == 0


def test_without_replay_joins_and_leaves_are_repeated_all_the_same(desk: Desk) -> None:
    join, leave = desk.send("join", join=("g", True)), desk.send("leave", join=("h", False))
    desk.send("data")
    desk.write()
    desk.lose()
    assert desk.new_session(replay=False) == 2
    assert desk.uncertain == ["data"] and desk.write() == ["join", "leave"]
    assert desk.answer(join, leave) == [join, leave]
    assert list(desk.session.restore) == ["g"]


def test_sends_before_the_first_connection_wait_for_it() -> None:
    desk = Desk(connected=False)
    desk.send("a")
    desk.tell("b")
    assert not desk.session.writable and desk.write() == []
    assert desk.new_session() == 0  # nothing of it is a replay
    assert desk.session.writable and desk.write() == ["a", "b"]


def test_batches_are_bounded_in_bytes_and_take_at_least_one() -> None:
    desk = Desk(max_bytes=10**9)
    for size in (BATCH_BYTES - 1, 1, 1, BATCH_BYTES * 3, 1):
        desk.send("x" * size)
    assert [len(desk.write()) for _ in range(4)] == [2, 2, 1, 0]


# ---- acknowledgements -----------------------------------------------------------------------------------------------


def test_an_answer_to_an_unknown_id_is_ignored(desk: Desk) -> None:
    sent = desk.send("a")
    desk.write()
    assert desk.session.acknowledge([Ack(99, True), Ack(0, False), Ack(2**64 - 1, True)]) == []
    assert desk.session.size == 1
    assert desk.answer(sent, sent) == [sent]  # the second answer is to nothing known
    assert desk.answer(sent) == [] and desk.session.size == 0


def test_answers_settle_in_the_order_in_which_they_come_and_keep_their_words(desk: Desk) -> None:
    first, second = desk.send("1"), desk.send("2")
    desk.write()
    answers = [Ack(second.ack_id or 0, False, "Forbidden", "no"), Ack(first.ack_id or 0, True)]
    assert desk.session.acknowledge(answers) == [(second, answers[0]), (first, answers[1])]


def test_a_late_answer_to_what_waits_for_its_replay_cancels_the_replay(desk: Desk) -> None:
    # It used to be written again; in a further new session the service would then have executed it a second time.
    first, second = desk.send("1"), desk.send("2")
    desk.write()
    desk.lose()
    desk.session.resume()
    assert desk.answer(first) == [first]
    assert desk.session.queued == 1 and desk.write() == ["2"]
    desk.answer(second)
    assert desk.session.idle and desk.session.size == 0


def test_an_answered_fire_and_forget_is_done_when_written_and_not_earlier(desk: Desk) -> None:
    told = desk.tell("abc")
    assert desk.session.unanswered == 1 and not desk.session.idle
    desk.session.take()
    assert desk.session.unanswered == 1 and desk.session.size == 3 and not desk.session.idle
    assert desk.session.wrote() == [told]
    assert desk.session.wrote() == [] and desk.session.size == 0 and desk.session.idle


def test_a_future_cannot_be_cancelled_and_names_its_id() -> None:
    sent = entry("a", 7)
    assert sent.future.ack_id == 7
    assert sent.future.cancel() is False and not sent.future.cancelled() and not sent.future.done()
    assert entry("b").future.ack_id is None


# ---- how many may be in flight --------------------------------------------------------------------------------------


def test_no_more_commands_are_written_than_the_service_can_recognise() -> None:
    desk = Desk(max_in_flight=2)
    sends = [desk.send(str(n)) for n in range(4)]
    desk.tell("t")
    assert desk.write() == ["0", "1"] and not desk.session.writable and desk.write() == []
    desk.answer(sends[1])
    assert desk.session.writable and desk.write() == ["2"]
    desk.answer(sends[0], sends[2])
    assert desk.write() == ["3", "t"]


def test_what_wants_no_answer_needs_no_slot_but_keeps_its_place() -> None:
    desk = Desk(max_in_flight=1)
    desk.send("1")
    desk.tell("t")
    second = desk.send("2")
    desk.tell("u")
    assert desk.write() == ["1", "t"] and not second.written


def test_a_withdrawn_command_keeps_its_slot_until_it_is_answered_or_the_link_dies() -> None:
    desk = Desk(max_in_flight=1)
    first = desk.send("1")
    desk.write()
    assert desk.session.withdraw(first)
    second = desk.send("2")
    assert not desk.session.writable and desk.write() == []
    assert desk.answer(first) == [] and desk.write() == ["2"]
    desk.session.withdraw(second)
    desk.send("3")
    desk.lose()
    desk.session.resume()
    assert desk.write() == ["3"]


def test_control_frames_need_no_slot_and_no_session() -> None:
    desk = Desk(max_in_flight=1, connected=False)
    ping, pong = (OPCODE, "ping"), (9, b"pong")
    desk.send("a")
    desk.session.control(ping)
    desk.session.control(pong)
    assert desk.session.writable and desk.session.take() == [ping, pong] and not desk.session.writable
    desk.new_session()
    desk.session.control(ping)
    assert desk.session.take() == [ping, (OPCODE, b"a")]
    desk.session.control(ping)
    desk.lose()
    assert not desk.session.writable  # what was meant for the old connection is gone


def test_only_the_newest_control_frame_of_each_kind_waits() -> None:
    # A peer that pings without reading used to make us collect an answer for each.
    session = Desk(connected=False).session
    session.control((OPCODE, "ping"))
    for n in range(1000):
        session.control((9, b"%d" % n), "pong")
        session.control((OPCODE, "ack %d" % n), "ack")
        session.control((OPCODE, "ping"))
    assert session.take() == [(OPCODE, "ping"), (9, b"999"), (OPCODE, "ack 999")]
    session.control((OPCODE, "ping"))
    assert session.take() == [(OPCODE, "ping")]


# ---- withdrawing ----------------------------------------------------------------------------------------------------


def test_a_withdrawn_send_that_was_not_written_is_never_written(desk: Desk) -> None:
    gone, stays = desk.send("gone"), desk.send("stays")
    assert desk.session.withdraw(gone) and not gone.written
    assert desk.write() == ["stays"]
    assert desk.answer(gone) == [] and desk.answer(stays) == [stays]
    assert desk.session.size == 0 and desk.session.idle


def test_a_withdrawn_send_that_was_written_is_not_replayed_and_its_answer_is_ignored(desk: Desk) -> None:
    sent = desk.send("m")
    desk.write()
    assert desk.session.withdraw(sent) and sent.written
    assert desk.session.size == 0 and desk.session.idle
    desk.lose()
    assert desk.session.resume() == 0 and desk.write() == []
    assert desk.answer(sent) == []


def test_what_is_settled_cannot_be_withdrawn(desk: Desk) -> None:
    sent = desk.send("m")
    desk.write()
    desk.answer(sent)
    assert not desk.session.withdraw(sent)
    again = desk.send("m", sent.ack_id)  # the same id, another send
    assert not desk.session.withdraw(sent) and desk.session.size == 1
    assert desk.session.withdraw(again) and desk.session.size == 0
    assert not desk.session.withdraw(desk.tell("t"))


def test_a_send_withdrawn_while_it_waits_for_its_replay_has_been_written(desk: Desk) -> None:
    # Its timeout used to say that the message was not sent, although the service may have delivered it.
    sent = desk.send("m")
    desk.write()
    desk.lose()
    desk.session.resume()
    assert desk.session.withdraw(sent) and sent.written
    assert desk.write() == [] and desk.session.size == 0


def test_withdrawn_sends_leave_nothing_behind_while_there_is_no_link() -> None:
    # They used to stay in the queue, without bound in a long outage, and a flush waited for them in vain.
    desk = Desk(connected=False)
    for _ in range(100):
        assert desk.session.withdraw(desk.send("m"))
    assert desk.session.queued == 0 and desk.session.idle and desk.session.unanswered == 0
    assert desk.session.settled_up_to(desk.session.mark())


# ---- ack ids --------------------------------------------------------------------------------------------------------


def test_automatic_ids_rise_from_1_and_stay_clear_of_chosen_ones(desk: Desk) -> None:
    session = desk.session
    assert [session.next_ack_id() for _ in range(3)] == [1, 2, 3]
    session.reserve_ack_id(10)
    assert session.next_ack_id() == 11
    session.reserve_ack_id(12)
    assert session.next_ack_id() == 13
    session.reserve_ack_id(5)  # a retry under an earlier id
    assert session.next_ack_id() == 14
    for enormous in (2**53, 2**64 - 1):  # beyond what JSON peers can count
        session.reserve_ack_id(enormous)
    assert session.next_ack_id() == 15
    session.reserve_ack_id(2**53 - 1)
    assert session.next_ack_id() == 2**53


# ---- groups ---------------------------------------------------------------------------------------------------------


def test_groups_are_remembered_when_their_join_succeeds_and_forgotten_when_their_leave_does(desk: Desk) -> None:
    session = desk.session
    join = desk.send("join", join=("g", True))
    assert list(session.restore) == []
    desk.answer(join)
    assert list(session.restore) == ["g"]
    desk.answer(desk.send("join", join=("h", True)), ok=False)
    assert list(session.restore) == ["g"]
    desk.answer(desk.send("leave", join=("g", False)), ok=False)
    assert list(session.restore) == ["g"]
    desk.answer(desk.send("leave", join=("g", False)))
    desk.answer(desk.send("leave", join=("never joined", False)))
    assert list(session.restore) == []


def test_groups_are_rejoined_in_the_order_of_joining_before_anything_else() -> None:
    desk = Desk().joined("b", "a", "c")
    desk.send("written")
    desk.write()
    desk.send("queued")
    desk.tell("told")
    desk.lose()
    assert desk.new_session() == 1  # rejoins are not counted as replays
    assert desk.write() == ["rejoin b", "rejoin a", "rejoin c", "written", "queued", "told"]


def test_a_recovered_session_rejoins_nothing() -> None:
    desk = Desk().joined("g")
    desk.lose()
    desk.session.resume()
    assert desk.write() == []


def test_a_rejoin_that_a_recovery_interrupts_is_replayed_before_the_leave_that_followed_it() -> None:
    desk = Desk().joined("g")
    leave = desk.send("leave g", join=("g", False))
    desk.write()
    desk.lose()
    assert desk.new_session() == 1
    assert desk.write() == ["rejoin g", "leave g"]
    desk.lose()
    assert desk.session.resume() == 2
    assert desk.write() == ["rejoin g", "leave g"]
    desk.answer(leave)
    assert list(desk.session.restore) == []


@pytest.mark.parametrize("written", [True, False])
def test_rejoins_of_an_older_session_are_replaced_by_new_ones(written: bool) -> None:
    desk = Desk().joined("g", "h")
    before = desk.session.size
    desk.lose()
    desk.new_session()
    old = set(desk.session.pending)
    if written:
        desk.write()
    desk.lose()
    desk.new_session()
    assert desk.write() == ["rejoin g", "rejoin h"] and len(desk.session.pending) == 2
    assert not old & set(desk.session.pending)
    assert desk.session.acknowledge([Ack(ack_id, True) for ack_id in old]) == []
    desk.answer(*list(desk.session.pending.values()))
    assert desk.session.size == before == 0 and desk.session.idle


def test_groups_survive_giving_up_and_come_back_with_the_next_start() -> None:
    desk = Desk().joined("g")
    assert desk.session.abandon() == []
    assert list(desk.session.restore) == ["g"]
    desk.new_session()
    assert desk.write() == ["rejoin g"]


# ---- room -----------------------------------------------------------------------------------------------------------


def test_the_outbox_counts_bytes_of_everything_unsent_or_unanswered() -> None:
    desk = Desk(max_bytes=10)
    first = desk.send("x" * 6)
    assert desk.session.has_room(4) and not desk.session.has_room(5)
    desk.write()
    assert desk.session.has_room(4) and not desk.session.has_room(5)  # written, but not answered
    desk.answer(first)
    assert desk.session.has_room(10)


def test_a_message_larger_than_the_outbox_fits_when_it_is_empty() -> None:
    desk = Desk(max_bytes=10)
    assert desk.session.has_room(11)
    small = desk.send("x")
    assert not desk.session.has_room(10)
    desk.session.withdraw(small)
    desk.send("x" * 11)
    assert not desk.session.has_room(0)


# ---- flush ----------------------------------------------------------------------------------------------------------


def test_a_mark_is_settled_when_everything_before_it_is_done_whatever_came_after(desk: Desk) -> None:
    session = desk.session
    assert session.settled_up_to(session.mark())
    sent, told = desk.send("a"), desk.tell("b")
    mark = session.mark()
    after = desk.send("c")
    assert not session.settled_up_to(mark)
    desk.answer(sent)
    assert not session.settled_up_to(mark)  # told is queued
    session.take()
    assert not session.settled_up_to(mark)  # told is being written
    assert session.wrote() == [told]
    assert session.settled_up_to(mark) and not session.settled_up_to(session.mark())
    desk.answer(after, ok=False)
    assert session.settled_up_to(session.mark())


def test_a_mark_does_not_wait_for_rejoins_but_for_what_is_behind_them() -> None:
    desk = Desk().joined("g", "h")
    sent = desk.send("m")
    desk.write()
    mark = desk.session.mark()
    desk.lose()
    desk.new_session()
    assert not desk.session.settled_up_to(mark)
    desk.write()
    assert not desk.session.settled_up_to(mark)
    desk.answer(sent)
    assert desk.session.settled_up_to(mark) and not desk.session.idle  # the rejoins are still out
    assert desk.session.settled_up_to(desk.session.mark())


def test_a_mark_survives_replays(desk: Desk) -> None:
    first = desk.send("1")
    mark = desk.session.mark()
    second = desk.send("2")
    desk.write()
    for new in (False, True):
        desk.lose()
        if new:
            desk.new_session()
        else:
            desk.session.resume()
        assert not desk.session.settled_up_to(mark)
        desk.write()
        assert not desk.session.settled_up_to(mark)
    desk.answer(first)
    assert desk.session.settled_up_to(mark) and not desk.session.settled_up_to(desk.session.mark())
    desk.answer(second)


# ---- the end --------------------------------------------------------------------------------------------------------


def test_giving_up_returns_every_unfinished_send_once_and_empties_everything() -> None:
    desk = Desk()
    answered, written = desk.send("answered"), desk.send("written")
    desk.write()
    desk.answer(answered)
    writing = desk.tell("writing")
    desk.session.take()
    queued, told, gone = desk.send("queued"), desk.tell("told"), desk.send("gone")
    desk.session.withdraw(gone)
    desk.session.control((OPCODE, "ping"))
    left = desk.session.abandon()
    assert sorted(names(left)) == ["queued", "told", "writing", "written"]
    assert {e.frame[1].decode() for e in left if e.written} == {"writing", "written"}  # type: ignore[union-attr]
    session = desk.session
    assert session.idle and session.size == 0 and not session.writable and session.unanswered == session.queued == 0
    assert session.settled_up_to(session.mark())
    # Whatever the threads of the old connection still do now changes nothing.
    assert session.wrote() == [] and desk.answer(written, queued) == [] and session.link_lost() == []
    assert not any(session.withdraw(e) for e in (written, queued, told, writing))
    assert session.size == 0
    assert session.begin([], True) == (0, []) and session.take() == []


def test_giving_up_frees_every_slot() -> None:
    desk = Desk(max_in_flight=1)
    desk.send("m")
    desk.write()
    desk.session.abandon()
    desk.new_session()
    desk.send("n")
    assert desk.write() == ["n"]


# ---- the machine ----------------------------------------------------------------------------------------------------


class Service:
    """One session on the service's side: executes each ack id once, and forgets all with the session."""

    def __init__(self) -> None:
        self.executed: List[str] = []
        self._ids: Dict[int, None] = {}

    def receive(self, name: str, ack_id: Optional[int]) -> bool:
        """Execute a command, unless it is a repeat; return whether it was executed."""
        if ack_id is not None and ack_id in self._ids:
            return False
        self.executed.append(name)
        if ack_id is not None:
            self._ids[ack_id] = None
        return True


class DeliveryMachine(RuleBasedStateMachine):
    """Random sends, cuts, recoveries and new sessions; every send ends exactly once, and nothing leaks.

    Names are numbers in the order of submission, so order can be seen in what the service executed.
    """

    sends = Bundle("sends")
    LIMIT = 3

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(10**9, self.LIMIT)
        self.service = Service()
        self.frames: Dict[int, Entry] = {}  # by id() of the frame
        self.wire: List[Entry] = []  # written on this link, not yet seen by the service
        self.answers: List[int] = []  # seen by the service, answer not yet here
        self.open: Dict[str, Entry] = {}  # neither answered, failed, dropped nor withdrawn
        self.ends: Dict[str, str] = {}
        self.ever_executed: List[Entry] = []  # executed by the service, in this or an earlier session
        self.replay = True
        self.lost = True
        self.recoverable = False
        self.count = 0

    def _end(self, name: str, how: str) -> None:
        assert name not in self.ends, "%s ended as %s and again as %s" % (name, self.ends[name], how)
        self.ends[name] = how
        del self.open[name]

    @staticmethod
    def _name(sent: Entry) -> str:
        return str(sent.frame[1].decode())  # type: ignore[union-attr]

    @initialize(replay=st.booleans())
    def connect(self, replay: bool) -> None:
        self.replay = replay  # the user's choice, for the life of the client
        self.new_session()

    # -- the application

    @rule(target=sends, kinds=st.lists(st.sampled_from(["ack", "none", "join", "leave"]), min_size=1, max_size=4))
    def send(self, kinds: List[str]) -> Any:
        made = []
        for kind in kinds:
            self.count += 1
            name = "%04d" % self.count
            join = {"join": ("g", True), "leave": ("g", False)}.get(kind)
            sent = entry(name, None if kind == "none" else self.session.next_ack_id(), join=join)
            self.frames[id(sent.frame)] = sent
            self.session.submit(sent)
            self.open[name] = sent
            made.append(sent)
        return multiple(*made)

    @rule(sent=consumes(sends))
    def withdraw(self, sent: Entry) -> None:
        possible = self._name(sent) in self.open and sent.ack_id is not None
        assert self.session.withdraw(sent) == possible
        if possible:
            self._end(self._name(sent), "withdrawn")

    # -- the wire

    @precondition(lambda self: not self.lost)
    @rule(cut_short=st.booleans())
    def write(self, cut_short: bool) -> None:
        writable = self.session.writable
        frames = self.session.take()
        assert bool(frames) == writable
        batch = [self.frames[id(frame)] for frame in frames]
        assert all(sent.written and not sent.queued for sent in batch)
        for sent in batch:
            assert sent.restores is not None or self._name(sent) in self.open, "a settled send is written"
        self.wire += batch
        if cut_short:
            self.cut(0)
            return
        for sent in self.session.wrote():
            self._end(self._name(sent), "written")

    @precondition(lambda self: not self.lost and self.wire)
    @rule(n=st.integers(1, 4))
    def arrive(self, n: int) -> None:
        """The service sees the next frames."""
        for sent in self.wire[:n]:
            if self.service.receive(self._name(sent), sent.ack_id):
                assert sent not in self.ever_executed or self.replay or sent.join, "repeated against the user's choice"
                self.ever_executed.append(sent)
            if sent.ack_id is not None:
                self.answers.append(sent.ack_id)
            else:
                assert self.ever_executed.count(sent) == 1, "fire and forget is at most once"
        del self.wire[:n]

    @precondition(lambda self: not self.lost and self.answers)
    @rule(n=st.integers(1, 4), ok=st.booleans())
    def answer(self, n: int, ok: bool) -> None:
        for sent, ack in self.session.acknowledge([Ack(ack_id, ok) for ack_id in self.answers[:n]]):
            assert ack.ok == ok and sent.ack_id == ack.ack_id
            if sent.restores is None:
                self._end(self._name(sent), "answered")
        del self.answers[:n]

    @precondition(lambda self: not self.lost)
    @rule(arrived=st.integers(0, 4))
    def cut(self, arrived: int) -> None:
        """The link dies; the service may have seen some more frames, and its answers are lost."""
        self.arrive(arrived)
        self.wire.clear()
        self.answers.clear()
        for sent in self.session.link_lost():
            assert sent.ack_id is None
            self._end(self._name(sent), "dropped")
        self.lost = True

    @precondition(lambda self: self.lost and self.recoverable)
    @rule()
    def recover(self) -> None:
        expected = [name for name, sent in self.open.items() if sent.written and not sent.queued]
        self.session.resume()
        assert all(self.open[name].queued for name in expected)
        self.lost = False

    @precondition(lambda self: self.lost)
    @rule()
    def new_session(self) -> None:
        self._check_order()
        self.service = Service()
        rejoins = []
        for group in self.session.restore:
            self.count += 1
            rejoin = entry("%04d" % self.count, self.session.next_ack_id(), restores=group)
            self.frames[id(rejoin.frame)] = rejoin
            rejoins.append(rejoin)
        uncertain = {name for name, sent in self.open.items() if sent.written and sent.join is None and not self.replay}
        replayed, failed = self.session.begin(rejoins, self.replay)
        assert {self._name(sent) for sent in failed} == uncertain
        for sent in failed:
            self._end(self._name(sent), "uncertain")
        assert replayed <= len(self.open)
        self.lost, self.recoverable = False, True

    # -- promises

    def _check_order(self) -> None:
        executed = [name for name in self.service.executed if name in self.open or name in self.ends]
        assert executed == sorted(set(executed)), "doubled or out of order within one session"

    @invariant()
    def bytes_are_accounted_for(self) -> None:
        rejoins = [sent for sent in self.session.pending.values() if sent.restores is not None]
        assert self.session.size == sum(sent.size for sent in list(self.open.values()) + rejoins)
        assert self.session.unanswered == len(self.open) + len(rejoins)

    @invariant()
    def the_service_can_recognise_every_repeat(self) -> None:
        in_flight = {sent.ack_id for sent in self.session.pending.values() if sent.written and not sent.queued}
        assert self.lost or len(in_flight) <= self.LIMIT

    @invariant()
    def sends_are_pending_until_they_end(self) -> None:
        pending = [self._name(sent) for sent in self.session.pending.values() if sent.restores is None]
        assert pending == [name for name, sent in self.open.items() if sent.ack_id is not None]
        assert self.session.settled_up_to(self.session.mark()) == (not self.open)

    def teardown(self) -> None:
        """Let everything come through: each send ends exactly once and nothing is left."""
        if self.lost:
            self.recover() if self.recoverable else self.new_session()
        while self.session.writable or self.wire or self.answers:
            if self.session.writable:
                self.write(False)
            if self.wire:
                self.arrive(len(self.wire))
            if self.answers:
                self.answer(len(self.answers), True)
        self._check_order()
        assert self.open == {} and self.session.idle and self.session.size == 0


TestDeliveryMachine = DeliveryMachine.TestCase
