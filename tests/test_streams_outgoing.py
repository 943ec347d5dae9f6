"""A published stream as a state machine: every event in every state, and a machine against a model of the service."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from simplepubsub.exceptions import ClientStateError, StreamFailed, StreamLost, StreamRefused
from simplepubsub.webpubsub import outgoing_stream
from simplepubsub.webpubsub.messages import StreamError
from simplepubsub.webpubsub.outgoing_stream import Action, OutgoingStream, StreamState

TEXT = 1
START, END, ABORT = (TEXT, b"start"), (TEXT, b"end"), (TEXT, b"abort")
REFUSED = StreamError("TransientError", "later")


def frame(number: int) -> Any:
    return TEXT, b"%d" % number


class Stream(OutgoingStream):
    """With short words for what its owner does."""

    def __init__(self, idle_timeout: float = 10.0, opened: bool = True) -> None:
        super().__init__("s", START, idle_timeout)
        self.now = 100.0
        if opened:
            assert self.send() == ["start"]
            assert self.ack(1, self.now) is Action.NOTHING

    def send(self, most: int = 10**6) -> List[str]:
        """Queue up to ``most`` frames and return them."""
        sent: List[str] = []
        while len(sent) < most:
            next_frame = self.peek()
            if next_frame is None:
                break
            self.advance(self.now)
            sent.append(next_frame[1].decode())  # type: ignore[union-attr]
        return sent

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            self.append(frame(self.next))


def opened(fragments: int = 0) -> Stream:
    stream = Stream()
    stream.write(fragments)
    assert len(stream.send()) == fragments
    return stream


def test_a_stream_begins_with_its_start_and_nothing_goes_out_before_the_answer() -> None:
    stream = Stream(opened=False)
    assert stream.state == "starting" and stream.waiting
    with pytest.raises(ClientStateError):
        stream.check_open()
    assert stream.send() == ["start"] and stream.send() == []
    assert stream.ack(1, 0.0) is Action.NOTHING
    assert stream.state == "open" and not stream.waiting
    stream.check_open()
    stream.write(2)
    assert stream.send() == ["1", "2"] and stream.waiting and stream.unacknowledged == 2
    assert stream.ack(2, 0.0) is Action.NOTHING
    assert stream.expected == 2 and stream.unacknowledged == 1
    assert stream.ack(3, 0.0) is Action.NOTHING and not stream.waiting


@pytest.mark.parametrize("error, name", [(StreamError("Forbidden", "no"), "Forbidden"), (None, "")])
def test_a_close_before_the_first_ack_is_a_refusal(error: Optional[StreamError], name: str) -> None:
    stream = Stream(opened=False)
    stream.send()
    stream.closed(error)
    assert stream.state == "failed" and stream.over and stream.send() == []
    assert isinstance(stream.failure, StreamRefused) and stream.failure.name == name


def test_answers_to_a_start_that_was_not_sent_on_this_link_are_not_for_us() -> None:
    stream = Stream(opened=False)
    stream.closed(StreamError("StreamNotFound"))
    assert stream.ack(1, 0.0) is Action.NOTHING
    assert stream.state == "starting"


@pytest.mark.parametrize("expected, sent", [(0, 0), (2, 0), (2, 3), (9, 3), (2**63, 3)])
@pytest.mark.parametrize("refusal", [False, True])
def test_an_answer_out_of_range_fails_the_stream(expected: int, sent: int, refusal: bool) -> None:
    stream = opened(sent + 2)
    assert stream.ack(3 if sent else 1, 0.0) is Action.NOTHING
    if not sent:
        expected = {0: 0, 2: 4}[expected]
    answer = stream.nack(expected, REFUSED, 0.0) if refusal else stream.ack(expected, 0.0)
    assert answer is Action.VIOLATION
    assert stream.state == "failed" and isinstance(stream.failure, StreamFailed)
    assert stream.failure.name == "ProtocolViolation" and str(expected) in str(stream.failure)
    with pytest.raises(StreamFailed):
        stream.check_open()
    assert stream.ack(3, 0.0) is Action.NOTHING  # it is over, whatever comes


def test_an_ack_before_a_start_must_say_one() -> None:
    stream = Stream(opened=False)
    stream.send()
    assert stream.ack(2, 0.0) is Action.VIOLATION


def test_a_refusal_rewinds_to_the_number_that_is_wanted() -> None:
    stream = opened(5)
    assert stream.nack(3, REFUSED, 0.0) is Action.REWIND
    assert stream.expected == 3 and stream.send() == ["3", "4", "5"]


def test_the_refusals_that_follow_one_do_not_each_rewind() -> None:
    # The service drops whatever follows the missing fragment, and says so every time.
    stream = opened(5)
    assert stream.nack(2, REFUSED, 10.0) is Action.REWIND
    assert stream.send() == ["2", "3", "4", "5"]
    for _ in range(3):
        assert stream.nack(2, REFUSED, 10.1) is Action.NOTHING
        assert stream.send() == []
    # Should one of them have been for the repeats, it is made good a little later.
    at = stream.next_deadline(False)
    assert at == 10.0 + outgoing_stream.REWIND_PAUSE
    assert stream.due(at - 0.01, False) is Action.NOTHING
    assert stream.due(at, False) is Action.REWIND
    assert stream.send() == ["2", "3", "4", "5"]
    assert stream.ack(6, 11.0) is Action.NOTHING and stream.next_deadline(False) is None


def test_progress_after_a_rewind_cancels_the_second_one() -> None:
    stream = opened(3)
    stream.nack(2, REFUSED, 10.0)
    stream.send()
    stream.nack(2, REFUSED, 10.1)
    stream.ack(3, 10.2)
    assert stream.due(20.0, False) is Action.NOTHING and stream.send() == []
    assert stream.nack(3, REFUSED, 10.2) is Action.REWIND  # another number: at once


def test_a_refusal_with_nothing_outstanding_is_an_ack() -> None:
    stream = opened(2)
    assert stream.nack(3, REFUSED, 0.0) is Action.NOTHING
    assert stream.unacknowledged == 0


def test_the_window_is_bounded_in_bytes_and_in_fragments(monkeypatch: Any) -> None:
    monkeypatch.setattr(outgoing_stream, "WINDOW_BYTES", 10)
    monkeypatch.setattr(outgoing_stream, "WINDOW_FRAGMENTS", 3)
    stream = Stream()
    stream.append((TEXT, b"x" * 100))  # a larger one than the limit fits an empty window
    assert not stream.has_room
    stream.ack(2, 0.0)
    assert stream.has_room
    for _ in range(3):
        assert stream.has_room
        stream.append((TEXT, b"x"))
    assert not stream.has_room
    stream.ack(3, 0.0)
    assert stream.has_room


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_an_end_waits_for_everything_to_be_accepted() -> None:
    stream = opened(2)
    stream.end(END, 0.0)
    assert stream.state == "ending" and stream.send() == []
    with pytest.raises(ClientStateError):
        stream.check_open()
    stream.ack(2, 0.0)
    assert stream.send() == []
    stream.ack(3, 0.0)
    assert stream.send() == ["end"] and stream.waiting
    stream.closed(None)
    assert stream.state == "closed" and stream.over and not stream.waiting and stream.failure is None
    stream.closed(StreamError("IdleTimeout"))
    assert stream.state == "closed"


def test_an_end_does_not_wait_for_ever_for_a_service_that_acknowledges_lazily() -> None:
    stream = opened(2)
    stream.end(END, 5.0)
    stream.now = 5.0 + outgoing_stream.END_PATIENCE
    assert stream.next_deadline(True) == stream.now
    assert stream.due(stream.now - 0.1, True) is Action.NOTHING and stream.send() == []
    assert stream.due(stream.now, True) is Action.NOTHING and stream.send() == ["end"]
    stream.closed(None)  # that is an answer for all of it
    assert stream.state == "closed" and stream.expected == 3


def test_a_refusal_after_the_end_went_out_is_never_silent() -> None:
    for repaired in (True, False):
        stream = opened(2)
        stream.end(END, 5.0)
        stream.due(5.0 + outgoing_stream.END_PATIENCE, True)
        assert stream.send() == ["end"]
        assert stream.nack(2, REFUSED, 9.0) is Action.REWIND
        assert stream.send() == ["2"]
        if repaired:  # a service that holds the end for what it has refused
            stream.ack(3, 9.1)
        stream.closed(None)
        assert stream.state == ("closed" if repaired else "failed")
        assert repaired or getattr(stream.failure, "name", "") == "TransientError"


@pytest.mark.parametrize("ending", [False, True])
def test_a_close_with_an_error_fails_the_stream(ending: bool) -> None:
    stream = opened(1)
    if ending:
        stream.end(END, 0.0)
    stream.closed(StreamError("IdleTimeout", "too slow"))
    assert stream.state == "failed" and isinstance(stream.failure, StreamFailed)
    assert (stream.failure.name, stream.failure.message) == ("IdleTimeout", "too slow")
    assert "too slow" in str(stream.failure) and stream.failure.stream_id == "s"


def test_a_close_without_reason_that_nobody_asked_for_is_a_failure() -> None:
    stream = opened(1)
    stream.closed(None)
    assert stream.state == "failed"


def test_an_abort_waits_for_nothing() -> None:
    stream = opened(2)
    stream.write()
    stream.abort(ABORT)
    assert stream.send() == ["3", "abort"] and stream.state == "ending"
    assert stream.nack(2, REFUSED, 0.0) is Action.NOTHING  # there is nothing to repair any more
    stream.abort(ABORT)
    assert stream.send() == []
    stream.closed(StreamError("StreamNotFound"))
    assert stream.state == "closed" and stream.cut_short


def test_an_abort_when_everything_is_accepted_cuts_nothing_short() -> None:
    stream = opened(2)
    stream.abort(ABORT)
    stream.send()
    stream.ack(3, 0.0)
    stream.closed(None)
    assert stream.state == "closed" and not stream.cut_short


def test_an_abort_may_follow_an_end() -> None:
    stream = opened(2)
    stream.end(END, 0.0)
    stream.abort(ABORT)
    assert stream.send() == ["abort"]


# ---- the link --------------------------------------------------------------------------------------------------------


def test_after_a_recovery_everything_unacknowledged_goes_out_again_in_order() -> None:
    stream = opened(4)
    stream.ack(2, 0.0)
    stream.link_lost()
    stream.write(2)  # meanwhile
    assert stream.send() == ["2", "3", "4", "5", "6"]
    stream.link_lost()
    stream.ack(7, 0.0)  # too late to be true, but in range
    assert stream.send() == []


def test_a_start_without_answer_is_repeated_on_any_link() -> None:
    stream = Stream(opened=False)
    stream.send()
    stream.link_lost()
    stream.session_lost()
    assert stream.state == "starting" and stream.send() == ["start"]
    stream.ack(1, 0.0)
    assert stream.state == "open"


def test_a_lost_session_takes_its_streams_with_it() -> None:
    for prepare in (lambda s: None, lambda s: s.end(END, 0.0), lambda s: s.abort(ABORT)):
        stream = opened(3)
        stream.ack(2, 0.0)
        prepare(stream)
        stream.link_lost()
        stream.session_lost()
        assert stream.state == "failed" and isinstance(stream.failure, StreamLost)
        assert "1 fragments are accepted, 2 uncertain" in str(stream.failure)


def test_a_pending_end_is_repeated_and_may_find_the_stream_gone() -> None:
    stream = opened(1)
    stream.ack(2, 0.0)
    stream.end(END, 0.0)
    assert stream.send() == ["end"]
    stream.link_lost()
    assert stream.send() == ["end"]
    stream.closed(StreamError("StreamNotFound"))  # the first one had arrived
    assert stream.state == "closed" and stream.failure is None


def test_an_end_that_was_never_repeated_and_finds_no_stream_is_a_failure() -> None:
    stream = opened(0)
    stream.end(END, 0.0)
    stream.send()
    stream.closed(StreamError("StreamNotFound"))
    assert stream.state == "failed"


# ---- keep-alive ------------------------------------------------------------------------------------------------------


def test_a_quiet_stream_is_kept_alive_while_somebody_holds_it() -> None:
    stream = opened(0)
    assert stream.next_deadline(True) == 105.0 and stream.next_deadline(False) is None
    assert stream.due(104.9, True) is Action.NOTHING
    assert stream.due(105.0, False) is Action.NOTHING
    assert stream.due(105.0, True) is Action.KEEP_ALIVE
    assert stream.next_deadline(True) == 110.0
    stream.now = 107.0
    stream.write()
    stream.send()
    assert stream.next_deadline(True) == 112.0
    stream.end(END, 107.0)
    stream.ack(2, 107.0)
    assert stream.next_deadline(True) is None


def test_a_stream_that_does_not_stand_open_is_not_kept_alive() -> None:
    assert Stream(opened=False).next_deadline(True) is None
    stream = opened(0)
    stream.fail(StreamFailed("no"))
    assert stream.next_deadline(True) is None and stream.due(10**6, True) is Action.NOTHING
    stream.fail(StreamFailed("another"))
    assert str(stream.failure) == "no"


# ---- against a service that drops, refuses, and is cut off -----------------------------------------------------------


class ServiceMachine(RuleBasedStateMachine):
    """Frames and answers travel over a link that may break at any moment; the session is always recovered."""

    def __init__(self) -> None:
        super().__init__()
        self.up: List[bytes] = []
        self.down: List[Any] = []
        self.expected = 0  # 0: not started
        self.accepted: List[int] = []
        self.ended = False
        self.overtaken = False  # the end came although something was missing
        self.written = 0
        self.stream = OutgoingStream("s", START, 10.0)
        self.now = 0.0
        self.waited = 0.0

    @initialize()
    def begin(self) -> None:
        self.queue(1)

    @rule(count=st.integers(1, 5))
    def queue(self, count: int) -> None:
        for _ in range(count):
            next_frame = self.stream.peek()
            if next_frame is None:
                break
            self.stream.advance(self.now)
            self.up.append(next_frame[1])  # type: ignore[arg-type]

    @precondition(lambda self: self.stream.state is StreamState.OPEN)
    @rule(count=st.integers(1, 4))
    def write(self, count: int) -> None:
        for _ in range(count):
            self.stream.append(frame(self.stream.next))
            self.written += 1

    @precondition(lambda self: self.stream.state is StreamState.OPEN and self.written > 5)
    @rule()
    def end(self) -> None:
        self.stream.end(END, self.now)

    @precondition(lambda self: self.up)
    @rule(refuse=st.integers(0, 4), lazy=st.booleans())
    def service(self, refuse: int, lazy: bool) -> None:
        body = self.up.pop(0)
        if body == b"start":
            self.expected = self.expected or 1
            self.down.append(("ack", self.expected))
        elif body == b"end":
            self.overtaken = self.overtaken or (not self.ended and len(self.accepted) < self.written)
            self.down.append(("closed", StreamError("StreamNotFound") if self.ended else None))
            self.ended = True
        elif self.ended:
            self.down.append(("closed", StreamError("StreamNotFound")))
        elif int(body) > self.expected or (int(body) == self.expected and refuse == 0):
            self.down.append(("nack", self.expected))
        else:
            if int(body) == self.expected:
                self.accepted.append(int(body))
                self.expected += 1
            if not lazy:
                self.down.append(("ack", self.expected))

    @precondition(lambda self: self.down)
    @rule()
    def client(self) -> None:
        self.answer(*self.down.pop(0))

    def answer(self, kind: str, value: Any) -> None:
        self.now += 0.01
        if kind == "ack":
            assert self.stream.ack(value, self.now) is Action.NOTHING
        elif kind == "nack":
            assert self.stream.nack(value, REFUSED, self.now) is not Action.VIOLATION
        else:
            self.stream.closed(value)

    @rule()
    def cut(self) -> None:
        self.up.clear()
        self.down.clear()
        self.stream.link_lost()

    @rule(seconds=st.sampled_from([0.1, 0.6, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.stream.state is StreamState.ENDING:
            self.waited += seconds
        self.stream.due(self.now, True)

    @invariant()
    def in_order_and_once(self) -> None:
        assert self.accepted == list(range(1, len(self.accepted) + 1))
        assert len(self.accepted) <= self.written
        # Only an end that had waited for long enough may overtake a fragment, and then it is not silent about it. Nor
        # when that is merely possible, since the service was too lazy to say what it has accepted.
        doubt = self.overtaken or self.stream._refused is not None or self.stream._end_repeated
        assert self.stream.state is not StreamState.FAILED or doubt, self.stream.failure
        assert self.stream.state is not StreamState.CLOSED or not self.overtaken
        assert not self.overtaken or self.waited >= outgoing_stream.END_PATIENCE

    def teardown(self) -> None:
        # Left alone, everything arrives.
        if self.stream.state is StreamState.OPEN:
            self.end()
        for _ in range(200):
            if self.stream.over:
                break
            self.queue(10**3)
            while self.up:
                self.service(1, False)
            while self.down:
                self.client()
            self.time_passes(0.6)
        if self.written:
            assert self.stream.over and self.ended
            assert self.overtaken or len(self.accepted) == self.written


ServiceMachine.TestCase.settings = settings(stateful_step_count=40)
TestService = ServiceMachine.TestCase


def test_the_states_of_the_drawing_are_all_there() -> None:
    drawn: Dict[str, int] = {name: (outgoing_stream.__doc__ or "").count(name) for name in StreamState.__members__}
    assert all(drawn.values()) and {str(state) for state in StreamState} == {name.lower() for name in drawn}
