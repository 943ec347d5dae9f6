"""Streams in the pure core of the server: client specification 3.6, protocol reference 2.7, point by point."""

from __future__ import annotations

import pytest

from simplepubsub.exceptions import RemoteProtocolError
from simplepubsub.server.commands import EXECUTE
from simplepubsub.server.limits import Limits
from simplepubsub.server.streams import MAX_IDLE_MS, MAX_STREAM_ID
from simplepubsub.server.wire import JSON, JSON_RELIABLE, RawWire
from simplepubsub.webpubsub import messages
from simplepubsub.webpubsub.messages import StreamData, StreamEnd, StreamError, StreamStart
from tests.test_hub import NOW, Link, World

IDLE = 60.0


class StreamWorld(World):
    """A hub with a publisher and members of its group; reading first lets the answers of streams gather and go."""

    def __init__(self, *args, wire=JSON_RELIABLE, **kwargs):
        super().__init__(*args, **kwargs)
        self.member = self.client(JSON, user="bob", groups=["lobby"])
        self.pub = self.client(wire)

    def settle(self):
        self.work.streams.settle(self.now)

    def read(self, session):
        self.settle()
        return super().read(session)

    def start(self, stream_id="s", group="lobby", idle=IDLE, session=None, **more):
        session = session or self.pub
        self.do(session, StreamStart(group, stream_id, idle_timeout_ms=int(idle * 1000), **more))
        return self.read(session)

    def data(self, *numbers, stream_id="s"):
        self.do(self.pub, *[StreamData(stream_id, number, "f%d" % number) for number in numbers])

    def end(self, error=None, stream_id="s"):
        self.do(self.pub, StreamEnd(stream_id, error))

    def expire(self, seconds):
        self.now += seconds
        return self.work.streams.expire(self.now)

    def cut(self):
        self.hub.lost(self.pub, self.now)
        self.work.dirty.clear()
        self.pub.dirty = False

    def recover(self):
        self.hub.recover(self.pub.connection_id, self.pub.reconnection_token, Link(), self.now)
        assert self.read(self.pub)[0]["event"] == "connected"

    def received(self, session=None):
        """Return what a receiver got: (number, data), and for the end (number, "end", error)."""
        found = []
        for message in self.read(session or self.member):
            info = message["stream"]
            if not info.get("endOfStream"):
                found.append((info["streamSequenceId"], message["data"]))
                continue
            assert (message["dataType"], message["data"]) == ("text", "")
            found.append((info["streamSequenceId"], "end", info.get("error", {}).get("name")))
        return found


@pytest.fixture
def world():
    return StreamWorld()


def ack(expected, stream_id="s"):
    return {"type": "streamAck", "streamId": stream_id, "expectedSequenceId": expected}


def closed(stream_id="s"):
    return {"type": "streamClosed", "streamId": stream_id}


def errors(answers):
    """Return the names of the errors with which streams were closed."""
    assert {answer["type"] for answer in answers} <= {"streamClosed"}, answers
    assert all(answer["error"]["message"] for answer in answers)
    return [answer["error"]["name"] for answer in answers]


def nack(answers):
    (answer,) = answers
    assert answer["type"] == "streamNack" and answer["message"]
    return answer["name"], answer["expectedSequenceId"]


def test_every_command_has_a_function():
    assert set(EXECUTE) == set(messages.ClientMessage.__args__)


# --- start ------------------------------------------------------------------------------------------------------------


def test_a_start_is_acknowledged_with_one(world):
    assert world.start() == [ack(1)]
    assert world.received() == []
    assert world.work.counters["streams_started"] == world.work.streams.active == 1


def test_an_ack_id_on_a_start_is_answered_too(world):
    assert world.start(ack_id=5) == [ack(1), {"type": "ack", "ackId": 5, "success": True}]
    again = world.start(ack_id=5)
    assert again[0]["error"]["name"] == "Duplicate" and again[1:] == [ack(1)]
    forbidden = world.client(roles=())
    answers = world.start(ack_id=6, session=forbidden)
    assert [answer["error"]["name"] for answer in answers] == ["Forbidden", "Forbidden"]
    assert {answer["type"] for answer in answers} == {"ack", "streamClosed"}


@pytest.mark.parametrize(
    "start, name",
    [
        (StreamStart("lobby", "s", idle_timeout_ms=0), "BadRequest"),
        (StreamStart("lobby", "s", idle_timeout_ms=-1), "BadRequest"),
        (StreamStart("lobby", "s", idle_timeout_ms=MAX_IDLE_MS + 1), "BadRequest"),
        (StreamStart("lobby", "s", has_data=True), "BadRequest"),
        (StreamStart("lobby", " "), "BadRequest"),
        (StreamStart("lobby", ""), "BadRequest"),
        (StreamStart("lobby", "s" * (MAX_STREAM_ID + 1)), "BadRequest"),
        (StreamStart("elsewhere", "s"), "Forbidden"),
    ],
)
def test_a_start_that_is_refused_leaves_no_stream(world, start, name):
    session = world.client(roles=["webpubsub.sendToGroup.lobby"])
    world.do(session, start)
    assert errors(world.read(session)) == [name]
    assert session.streams == {} and world.work.streams.active == 0
    assert not session.ended
    assert world.start(session=session) == [ack(1)]


def test_an_active_stream_is_not_harmed_by_a_start_with_its_id(world):
    world.start()
    world.data(1)
    world.read(world.pub)
    assert errors(world.start()) == ["BadRequest"]
    assert errors(world.start(group="elsewhere")) == ["BadRequest"]
    world.data(2)
    assert world.read(world.pub) == [ack(3)]


def test_too_many_active_streams():
    world = StreamWorld(Limits(max_streams=2))
    assert world.start("a") == [ack(1, "a")]
    assert world.start("b") == [ack(1, "b")]
    assert errors(world.start("c")) == ["BadRequest"]
    world.end(stream_id="a")
    assert world.read(world.pub) == [closed("a")]
    assert world.start("c") == [ack(1, "c")]


def test_ids_belong_to_a_connection(world):
    other = world.client(user="eve")
    assert world.start() == world.start(session=other) == [ack(1)]
    world.do(other, StreamData("s", 1, "theirs"))
    world.data(1)
    assert [message["fromUserId"] for message in world.read(world.member)] == ["eve", "mina"]


# --- fragments --------------------------------------------------------------------------------------------------------


def test_fragments_reach_the_group_with_their_numbers(world):
    reliable = world.client(groups=["lobby"])
    world.start()
    world.do(world.pub, StreamData("s", 1, {"a": 1}, "json"), StreamData("s", 2, b"\1", "binary"))
    assert world.read(reliable) == [
        {
            "type": "message",
            "from": "group",
            "group": "lobby",
            "fromUserId": "mina",
            "dataType": data_type,
            "data": data,
            "sequenceId": number,
            "stream": {"streamId": "s", "streamSequenceId": number},
        }
        for number, data_type, data in ((1, "json", {"a": 1}), (2, "binary", "AQ=="))
    ]
    assert world.received() == [(1, {"a": 1}), (2, "AQ==")]
    assert world.read(world.pub) == [ack(3)]  # one answer for what came together
    assert world.work.counters["fragments"] == 2


def test_a_fragment_that_came_before_is_acknowledged_and_not_published(world):
    world.start()
    world.data(1, 2)
    world.read(world.pub)
    for number in (1, 0, 2):
        world.data(number)
        assert world.read(world.pub) == [ack(3)]
    assert world.received() == [(1, "f1"), (2, "f2")]


def test_a_fragment_after_a_gap_is_dropped_and_the_missing_one_asked_for(world):
    world.start()
    world.data(1, 3)
    assert nack(world.read(world.pub)) == ("InvalidSequenceId", 2)
    world.data(2**64 - 1)
    assert nack(world.read(world.pub)) == ("InvalidSequenceId", 2)
    world.data(2, 3)
    assert world.read(world.pub) == [ack(4)]
    assert world.received() == [(1, "f1"), (2, "f2"), (3, "f3")]
    assert world.work.counters["fragments_refused"] == 2


@pytest.mark.parametrize(
    "numbers, answer",
    [((1, 3, 2), "nack 3"), ((1, 3, 2, 3), "ack 4"), ((3, 4, 5), "nack 1"), ((2, 1), "nack 2"), ((1, 1, 1), "ack 2")],
)
def test_one_answer_sums_up_a_turn(world, numbers, answer):
    world.start()
    world.data(*numbers)
    (message,) = world.read(world.pub)
    assert answer == "%s %d" % (message["type"][len("stream") :].lower(), message["expectedSequenceId"])


def test_no_echo_leaves_the_publisher_out(world):
    world.do(world.pub, messages.JoinGroup("lobby"))
    world.start("quiet", no_echo=True)
    world.start("loud")
    world.do(world.pub, StreamData("quiet", 1, "q"), StreamData("loud", 1, "l"), StreamEnd("quiet"))
    assert [m["data"] for m in world.read(world.pub) if m["type"] == "message"] == ["l"]
    assert world.received() == [(1, "q"), (1, "l"), (2, "end", None)]


def test_a_stream_needs_no_receivers(world):
    assert world.start(group="nobody") == [ack(1)]
    world.data(1)
    world.end()
    assert world.read(world.pub) == [ack(2), closed()]


def test_simple_clients_get_fragments_bare_and_no_end(world):
    simple = world.client(RawWire(), groups=["lobby"])
    world.start()
    world.do(world.pub, StreamData("s", 1, "hi"), StreamData("s", 2, "", "text"), StreamData("s", 3, b"\1", "binary"))
    world.end(StreamError("UserError", "why"))
    assert world.raw(simple) == [(1, "hi"), (1, ""), (2, b"\1")]


def test_unacknowledged_fragments_are_replayed_to_their_receivers(world):
    reader = world.client(groups=["lobby"])
    world.start()
    world.data(1, 2)
    world.read(reader)
    world.hub.lost(reader, NOW)
    world.data(3)
    world.end()
    world.do(reader, messages.SequenceAck(1))
    world.hub.recover(reader.connection_id, reader.reconnection_token, Link(), NOW)
    found = [message["stream"] for message in world.read(reader)[1:]]
    assert [info["streamSequenceId"] for info in found] == [2, 3, 4]
    assert [info.get("endOfStream", False) for info in found] == [False, False, True]


def test_fragments_wait_for_a_receiver_that_is_behind(world):
    slow = world.client(groups=["lobby"])
    world.start(idle=1)
    assert world.publish(world.pub, 1000) == 601
    assert world.hub.execute(world.pub, StreamData("s", 1, "x"), NOW) is False
    assert world.hub.execute(world.pub, StreamEnd("s"), NOW) is False
    world.do(world.pub, StreamData("s"), StreamData("s", 0, "old"), StreamData("s", 9, "gap"))  # nothing to publish
    assert world.hub.execute(world.pub, StreamEnd("s", StreamError("UserError")), NOW) is False
    world.now += 5
    assert world.work.streams.expire(world.now, {world.pub}) == world.now + 1
    assert world.pub.streams  # what waits for somebody else is not idle
    world.do(slow, messages.SequenceAck(601))
    world.do(world.pub, StreamData("s", 1, "x"))
    world.expire(5)
    assert not world.pub.streams


def test_data_that_cannot_be_carried_on_breaks_a_rule(world):
    world.start()
    with pytest.raises(RemoteProtocolError) as caught:
        world.do(world.pub, StreamData("s", 1, float("inf"), "json"))
    assert caught.value.code == 1007
    world.data(1)
    assert world.read(world.pub) == [ack(2)]


# --- keep-alive and idle time -----------------------------------------------------------------------------------------


def test_an_idle_stream_is_ended_for_both_sides(world):
    world.start()
    world.data(1)
    world.read(world.pub)
    assert world.expire(IDLE - 1) == NOW + IDLE
    assert world.read(world.pub) == []
    assert world.expire(1) is None
    assert errors(world.read(world.pub)) == ["IdleTimeout"]
    assert world.received() == [(1, "f1"), (2, "end", "IdleTimeout")]
    assert world.work.counters["streams_expired"] == 1
    assert world.start() == [ack(1)]  # its id is free


@pytest.mark.parametrize("command", [StreamData("s"), StreamData("s", 1, "x"), StreamData("s", 0), StreamData("s", 9)])
def test_every_frame_of_a_stream_is_activity(world, command):
    world.start()
    for _ in range(3):
        world.expire(IDLE - 1)
        world.do(world.pub, command)
    assert world.expire(IDLE - 1) == world.now + 1
    assert world.pub.streams


def test_a_keep_alive_is_not_forwarded(world):
    world.start()
    world.do(world.pub, StreamData("s"))
    assert world.received() == []


def test_streams_expire_soonest_first_each_by_its_own_time(world):
    for stream_id, idle in (("slow", 50), ("quick", 10), ("middle", 30)):
        world.start(stream_id, idle=idle)
    assert world.work.streams.due == NOW + 10
    assert world.expire(20) == NOW + 30
    assert set(world.pub.streams) == {"slow", "middle"}
    assert world.expire(100) is None
    ids = [message["stream"]["streamId"] for message in world.read(world.member)]
    assert ids == ["quick", "middle", "slow"]


def test_idle_time_stands_still_while_the_publisher_is_away(world):
    world.start(idle=5)
    world.cut()
    assert world.expire(20) == NOW + 30  # when it is given up
    world.recover()
    assert world.expire(4) == NOW + 25
    assert world.pub.streams
    world.expire(1)
    assert errors(world.read(world.pub)) == ["IdleTimeout"]


def test_idle_times_start_anew_after_the_server_was_frozen(world):
    world.start()
    world.now += 1000
    world.work.streams.restart(world.now)
    assert world.expire(IDLE - 1) == world.now + 1
    assert world.pub.streams


def test_streams_that_end_soon_leave_nothing_behind(world):
    for number in range(1000):
        world.start("s%d" % number, idle=1e6)
        world.end(stream_id="s%d" % number)
        world.cut()
        world.recover()
    assert len(world.work.streams._idle) < 100
    assert len(world.pub.stream_endings) <= 100


# --- the end ----------------------------------------------------------------------------------------------------------


def test_the_end_is_told_with_the_next_number(world):
    world.start()
    world.data(1, 2)
    world.end()
    assert world.read(world.pub) == [ack(3), closed()]
    assert world.received() == [(1, "f1"), (2, "f2"), (3, "end", None)]
    assert world.pub.streams == {} and world.work.streams.active == 0


def test_an_error_of_the_publisher_is_for_its_receivers(world):
    world.start()
    world.end(StreamError("anything", "model stopped", "E42"))
    assert world.read(world.pub) == [closed()]
    (message,) = world.read(world.member)
    error = {"name": "UserError", "message": "model stopped", "userErrorCode": "E42"}
    assert message["stream"] == {"streamId": "s", "streamSequenceId": 1, "endOfStream": True, "error": error}


@pytest.mark.parametrize("command", [StreamData("s", 1, "x"), StreamData("s"), StreamEnd("s")])
def test_a_stream_that_is_not_active_is_not_found(world, command):
    world.do(world.pub, command)
    assert errors(world.read(world.pub)) == ["StreamNotFound"]
    world.start()
    world.end()
    world.read(world.pub)
    world.do(world.pub, command)
    assert errors(world.read(world.pub)) == ["StreamNotFound"]
    assert world.received() == [(1, "end", None)]


def test_an_end_after_a_nack_waits_for_what_was_dropped(world):
    world.start()
    world.data(1, 3, 4)
    world.end()
    assert nack(world.read(world.pub)) == ("InvalidSequenceId", 2)
    world.data(9)  # behind the end: not of the stream
    world.data(2)
    world.end()  # once more: no matter
    assert nack(world.read(world.pub)) == ("InvalidSequenceId", 3)
    world.data(3, 4)
    assert world.read(world.pub) == [ack(5), closed()]
    assert world.received() == [(1, "f1"), (2, "f2"), (3, "f3"), (4, "f4"), (5, "end", None)]


def test_an_end_that_waits_in_vain_expires(world):
    world.start()
    world.data(2)
    world.end()
    world.read(world.pub)
    world.expire(IDLE)
    assert errors(world.read(world.pub)) == ["IdleTimeout"]
    assert world.received() == [(1, "end", "IdleTimeout")]


def test_an_end_with_an_error_waits_for_nothing(world):
    world.start()
    world.data(2)
    world.end()
    world.end(StreamError("UserError", "gave up"))
    answers = world.read(world.pub)
    assert nack(answers[:1]) == ("InvalidSequenceId", 1) and answers[1:] == [closed()]
    assert world.received() == [(1, "end", "UserError")]


@pytest.mark.parametrize("command", [StreamData("s", 2, "x"), StreamData("s"), StreamEnd("s")])
def test_a_right_that_is_taken_ends_the_stream(world, command):
    world.start()
    world.data(1)
    world.pub.permissions.revoke("sendToGroup", "lobby")
    world.do(world.pub, command)
    answers = world.read(world.pub)
    assert answers[0] == ack(2) and errors(answers[1:]) == ["Forbidden"]
    assert world.received() == [(1, "f1"), (2, "end", "Forbidden")]


@pytest.mark.parametrize("way", ["goodbye", "kicked", "lost", "expired"])
def test_a_publisher_that_is_gone_cancels_its_streams(way):
    world = StreamWorld(wire=JSON if way == "lost" else JSON_RELIABLE)
    world.start("a", no_echo=True)
    world.start("b")
    world.data(1, stream_id="b")
    if way == "goodbye":
        world.hub.end(world.pub, None, "bye")
    elif way == "kicked":
        world.hub.end(world.pub, 1000, "kicked", announce="kicked")
    else:
        world.hub.lost(world.pub, NOW)
        if way == "expired":
            world.work.expire(NOW + 29)
            assert world.received() == [(1, "f1")]
            world.work.expire(NOW + 30)
    assert world.received()[-2:] == [(1, "end", "Cancelled"), (2, "end", "Cancelled")]
    assert world.work.streams.active == 0
    assert world.expire(1e6) is None


def test_a_publisher_that_overflows_on_its_own_stream(world):
    world.do(world.pub, messages.JoinGroup("lobby"))
    world.start()
    world.pub.hopeless = True
    world.data(*range(1, 1002))
    assert world.pub.ended
    found = world.received()
    assert found[-2:] == [(1001, "f1001"), (1002, "end", "Cancelled")]


def test_receivers_that_overflow_at_the_terminal_message_cancel_their_own_streams():
    world = StreamWorld(Limits(max_unacked_messages=2))
    other = world.client(groups=["lobby"])
    world.start()
    world.start(group="news", session=other)
    news = world.client(JSON, groups=["news"])
    other.hopeless = True
    world.data(1, 2)
    world.hub.end(world.pub, None)
    assert world.received(news) == [(1, "end", "Cancelled")]
    assert other.ended and world.work.streams.active == 0


# --- recovery ---------------------------------------------------------------------------------------------------------


def test_a_stream_goes_on_after_a_recovery(world):
    world.start()
    world.data(1, 2)
    world.cut()
    world.recover()
    world.data(2, 3)  # what was not acknowledged, again
    assert world.read(world.pub) == [ack(4)]
    assert world.received() == [(1, "f1"), (2, "f2"), (3, "f3")]


def test_answers_for_a_socket_that_is_gone_are_lost(world):
    world.start()
    world.data(1)
    world.cut()
    assert world.read(world.pub) == []
    world.recover()
    assert world.read(world.pub) == []


def test_a_start_may_be_repeated_after_a_recovery_once(world):
    world.do(world.pub, StreamStart("lobby", "s"))
    world.cut()
    world.recover()
    assert errors(world.start(group="elsewhere")) == ["BadRequest"]
    assert world.start() == [ack(1)]
    assert errors(world.start()) == ["BadRequest"]
    world.data(1)
    assert world.received() == [(1, "f1")]
    assert world.work.counters["streams_started"] == 1


@pytest.mark.parametrize("command", [StreamData("s", 1, "f1"), StreamData("s"), StreamEnd("s")])
def test_an_ending_that_got_lost_is_repeated_after_a_recovery(world, command):
    world.start()
    world.data(1)
    world.end()
    world.cut()
    world.recover()
    world.do(world.pub, command, StreamEnd("s"))
    assert world.read(world.pub) == [closed(), closed()]
    assert world.received() == [(1, "f1"), (2, "end", None)]
    world.start()
    world.end()
    world.read(world.pub)
    world.do(world.pub, command)
    assert errors(world.read(world.pub)) == ["StreamNotFound"]


def test_an_error_that_got_lost_is_repeated_too(world):
    world.start()
    world.expire(IDLE)
    world.cut()
    world.recover()
    world.data(1)
    assert errors(world.read(world.pub)) == ["IdleTimeout"]


def test_the_last_hundred_endings_are_remembered(world):
    def run(*ids):
        for stream_id in ids:
            world.start(stream_id)
            world.end(stream_id=stream_id)

    run("first", "s", *["a%d" % number for number in range(99)])
    run("s", *["b%d" % number for number in range(50)])
    world.cut()
    world.recover()
    world.end(stream_id="s")
    world.end(stream_id="first")
    answers = world.read(world.pub)
    assert answers[0] == closed() and errors(answers[1:]) == ["StreamNotFound"]
    assert len(world.pub.stream_endings) == 100


# --- faults for tests -------------------------------------------------------------------------------------------------


def test_a_refused_fragment_is_asked_for_again(world):
    world.start()
    world.work.streams.refuse_fragments = 1
    world.data(1, 2)
    world.end()
    name, expected = nack(world.read(world.pub))
    assert expected == 1
    world.data(1, 2)
    assert world.read(world.pub) == [ack(3), closed()]
    assert world.received() == [(1, "f1"), (2, "f2"), (3, "end", None)]
    world.start()
    world.work.streams.refuse_fragments = 1
    world.data(1)
    assert nack(world.read(world.pub)) == ("TransientError", 1)
    world.end()
    assert world.read(world.pub) == []
    world.data(1)
    assert world.read(world.pub) == [ack(2), closed()]


def test_a_stream_ack_that_is_lost(world):
    world.work.streams.lose_acks = 2
    assert world.start() == []
    world.data(1)
    assert world.read(world.pub) == []
    world.data(2)
    assert world.read(world.pub) == [ack(3)]


def test_streams_that_the_service_gives_up(world):
    world.start("a")
    world.start("b")
    assert world.work.streams.fail(world.pub, StreamError("InternalServerError", "no"), NOW) == 2
    assert errors(world.read(world.pub)) == ["InternalServerError"] * 2
    assert world.received() == [(1, "end", "InternalServerError")] * 2


def test_forgetting_everything(world):
    world.start()
    world.data(1)
    world.work.clear()
    assert world.work.streams.due is None and world.work.streams.active == 0
    world.settle()
