"""P2 (in order, exactly once, or said so) in the pure bookkeeping: what `Session` writes, repeats and gives up."""

from __future__ import annotations

from typing import Any, List, Optional

from simplepubsub.core.protocol import Ack
from simplepubsub.core.session import Entry, Session


def entry(name: str, ack_id: Optional[int], **options: Any) -> Entry:
    return Entry((1, name.encode()), ack_id, **options)


def submit(session: Session, *names: str) -> List[Entry]:
    entries = [entry(name, session.next_ack_id()) for name in names]
    for item in entries:
        session.submit(item)
    return entries


def written(session: Session) -> List[str]:
    return [payload.decode() for _, payload in session.take()]  # type: ignore[union-attr]


def settled(session: Session, *ack_ids: int) -> List[Optional[int]]:
    return [item.ack_id for item, _ in session.acknowledge([Ack(ack_id, True) for ack_id in ack_ids])]


def opened(max_in_flight: Optional[int] = None) -> Session:
    session = Session(10**6, max_in_flight)
    assert session.begin([], True) == (0, [])
    return session


class TestInFlight:
    def test_no_more_is_written_than_the_service_can_recognise_as_repeats(self) -> None:
        # Used to be unbounded: a cut with more than 1,000 answers missing made the service execute commands twice.
        session = opened(max_in_flight=3)
        submit(session, "a", "b", "c", "d", "e")
        assert written(session) == ["a", "b", "c"]
        assert not session.writable and session.take() == []
        assert settled(session, 1, 2) == [1, 2]
        assert session.writable
        assert written(session) == ["d", "e"]

    def test_what_is_held_back_is_not_overtaken_by_fire_and_forget(self) -> None:
        session = opened(max_in_flight=1)
        submit(session, "a", "b")
        session.submit(entry("f", None))
        assert written(session) == ["a"]
        settled(session, 1)
        assert written(session) == ["b", "f"]

    def test_a_withdrawn_command_counts_until_its_answer_comes(self) -> None:
        # The service has it and remembers it, whether somebody still waits or not.
        session = opened(max_in_flight=2)
        first, _, _ = submit(session, "a", "b", "c")
        assert written(session) == ["a", "b"]
        assert session.withdraw(first)
        assert not session.writable
        assert settled(session, 1) == []
        assert written(session) == ["c"]

    def test_control_frames_are_not_held_back(self) -> None:
        session = opened(max_in_flight=1)
        submit(session, "a", "b")
        written(session)
        session.control((1, b"ping"))
        assert session.writable
        assert written(session) == ["ping"]

    def test_after_a_recovery_the_window_is_refilled_in_order(self) -> None:
        session = opened(max_in_flight=2)
        submit(session, "a", "b", "c")
        assert written(session) == ["a", "b"]
        session.link_lost()
        assert session.resume() == 2
        assert written(session) == ["a", "b"]
        settled(session, 1, 2)
        assert written(session) == ["c"]


class TestUncertain:
    def test_what_was_written_before_a_recovery_is_uncertain_after_the_next_session_too(self) -> None:
        # Used to be sent again without a word: a recovery put it back into the queue as if it had never been written.
        session = opened()
        first, _ = submit(session, "a", "b")
        assert written(session) == ["a", "b"]
        session.link_lost()
        assert session.resume() == 2
        session.link_lost()  # before the writer came to it
        fresh = submit(session, "c")
        replayed, uncertain = session.begin([], False)
        assert replayed == 0 and [item.ack_id for item in uncertain] == [1, 2]
        assert first.written and not fresh[0].written
        assert written(session) == ["c"]
        settled(session, 3)
        assert session.idle and session.size == 0

    def test_two_losses_before_the_writer_comes_keep_one_copy_in_order(self) -> None:
        session = opened()
        submit(session, "a", "b")
        assert written(session) == ["a", "b"]
        submit(session, "c")
        session.link_lost()
        assert session.resume() == 2
        session.link_lost()
        assert session.begin([], True) == (0, [])  # they are queued already
        session.link_lost()
        assert session.resume() == 0
        assert written(session) == ["a", "b", "c"]

    def test_joins_are_repeated_even_when_sends_are_not(self) -> None:
        session = opened()
        session.submit(entry("join", 1, join=("g", True)))
        session.submit(entry("send", 2))
        assert written(session) == ["join", "send"]
        session.link_lost()
        replayed, uncertain = session.begin([], False)
        assert replayed == 1 and [item.ack_id for item in uncertain] == [2]
        assert written(session) == ["join"]

    def test_an_answered_command_that_is_queued_for_repetition_is_not_repeated(self) -> None:
        session = opened()
        submit(session, "a", "b")
        assert written(session) == ["a", "b"]
        session.link_lost()
        session.resume()
        assert settled(session, 1) == [1]  # of a handler that ran on while the link was down
        assert written(session) == ["b"]


class TestFlush:
    def test_a_withdrawn_send_that_is_still_queued_holds_up_nobody(self) -> None:
        # Used to time out with "0 sends are unacknowledged" until the link was back.
        session = opened()
        session.link_lost()
        (item,) = submit(session, "a")
        mark = session.mark()
        assert not session.settled_up_to(mark)
        assert session.withdraw(item)
        assert session.settled_up_to(mark)


class TestRestore:
    def test_rejoins_come_first_and_only_those_of_the_present_session(self) -> None:
        session = opened()
        submit(session, "a")
        assert written(session) == ["a"]
        session.link_lost()
        session.begin([entry("join g", 10, restores="g")], True)
        session.link_lost()  # nothing was written
        session.begin([entry("join g again", 11, restores="g")], True)
        assert written(session) == ["join g again", "a"]
        settled(session, 10, 11, 1)
        assert session.idle and session.size == 0
