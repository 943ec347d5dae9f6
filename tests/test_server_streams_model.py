"""Streams of the server against a model that knows no hub: any order of starts, fragments, ends, cuts and waits."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from simplepubsub.server.limits import Limits
from simplepubsub.server.wire import JSON, JSON_RELIABLE
from simplepubsub.webpubsub.messages import SequenceAck, StreamData, StreamEnd, StreamError, StreamStart
from tests.test_server_streams import StreamWorld

MAX = 2
WINDOW = 30.0
IDS = st.sampled_from("abc")
GROUPS = st.sampled_from(["lobby", "news"])
IDLE = st.sampled_from([4.0, 7.0, 40.0])


#: Fragments, counted from the one that is wanted, after an end that follows a hole and one more.
AFTER_GAP = [(0, 1, 2), (0, 1), (0, 1, 2, 3), (3, 0, 1, 2), (0, 3, 4, 1, 1, 2), (2, 1, 0), (-1, 2)]


def is_here(machine):
    return machine.away is None


def is_away(machine):
    return machine.away is not None


class ModelStream:
    """What there is to know about a stream."""

    def __init__(self, group, idle, generation, now):
        self.group, self.idle, self.generation = group, idle, generation
        self.expected, self.gap, self.ending = 1, 0, False
        self.last = now


class StreamMachine(RuleBasedStateMachine):
    """One reliable publisher, which is cut and comes back or does not, one reader; the model keeps plain lists."""

    @initialize()
    def begin(self):
        self.world = StreamWorld(Limits(max_streams=MAX), WINDOW)
        self.reader = self.world.client(JSON, groups=["lobby", "news"])
        self.fresh()

    def fresh(self):
        self.streams = {}
        self.endings = {}  # id -> (generation, error)
        self.generation = 0
        self.away = None
        self.allowed = {"lobby": True, "news": True}
        self.reported = {}  # id -> the highest number that the publisher was told

    # --- the model

    def known(self, stream_id):
        return self.streams.get(stream_id)

    def finish(self, stream_id, told, seen):
        stream = self.streams.pop(stream_id)
        self.endings[stream_id] = (self.generation, told)
        return (stream_id, stream.expected, "end", seen)

    def not_found(self, stream_id):
        generation, told = self.endings.get(stream_id, (self.generation, None))
        return ("closed", stream_id, "StreamNotFound" if generation == self.generation else told)

    # --- what really came

    def answers(self):
        found = []
        for message in self.world.read(self.world.pub):
            kind, stream_id = message["type"][len("stream") :].lower(), message["streamId"]
            if kind == "closed":
                found.append((kind, stream_id, message.get("error", {}).get("name")))
                self.reported.pop(stream_id, None)
                continue
            found.append((kind, stream_id, message["expectedSequenceId"]))
            assert message["expectedSequenceId"] >= self.reported.get(stream_id, 0), "it must never fall"
            self.reported[stream_id] = message["expectedSequenceId"]
        return found

    def deliveries(self):
        found = []
        for message in self.world.read(self.reader):
            info = message["stream"]
            item = (info["streamId"], info["streamSequenceId"])
            if info.get("endOfStream"):
                found.append(item + ("end", info.get("error", {}).get("name")))
            else:
                found.append(item + (message["data"],))
        return found

    def expect(self, answers=(), deliveries=()):
        assert self.answers() == list(answers)
        assert self.deliveries() == list(deliveries)

    # --- what happens

    @precondition(is_here)
    @rule(stream_id=IDS, group=GROUPS, idle=IDLE)
    def start(self, stream_id, group, idle):
        world, stream = self.world, self.known(stream_id)
        world.do(world.pub, StreamStart(group, stream_id, idle_timeout_ms=int(idle * 1000)))
        if not self.allowed[group]:
            self.expect([("closed", stream_id, "Forbidden")])
        elif stream is not None:
            if stream.generation != self.generation and stream.group == group:
                stream.generation = self.generation
                self.expect([("ack", stream_id, stream.expected)])
            else:
                before = self.reported.get(stream_id, 0)
                self.expect([("closed", stream_id, "BadRequest")])
                self.reported[stream_id] = before  # the stream lives
        elif len(self.streams) >= MAX:
            self.expect([("closed", stream_id, "BadRequest")])
        else:
            self.streams[stream_id] = ModelStream(group, idle, self.generation, world.now)
            self.endings.pop(stream_id, None)
            self.expect([("ack", stream_id, 1)])

    @precondition(is_here)
    @rule(
        stream_id=IDS,
        offsets=st.lists(st.sampled_from([0, 0, 0, 1, 2, -1]), min_size=1, max_size=4),
        keep_alive=st.booleans(),
    )
    def data(self, stream_id, offsets, keep_alive):
        """Send fragments in one turn, numbered around the one that is wanted."""
        world, stream = self.world, self.known(stream_id)
        wanted = stream.expected if stream is not None else 1
        numbers = [max(0, wanted + offset) for offset in offsets] + [None] * keep_alive
        answers, deliveries = [], []
        answered = refused = False
        for number in numbers:
            world.do(world.pub, StreamData(stream_id, number, "x%s" % number))
            stream = self.known(stream_id)
            if stream is None:
                answers.append(self.not_found(stream_id))
                continue
            if not self.allowed[stream.group]:
                if answered:
                    answers.append(self.summary(stream_id, refused))
                deliveries.append(self.finish(stream_id, "Forbidden", "Forbidden"))
                answers.append(("closed", stream_id, "Forbidden"))
                continue
            stream.last = world.now
            if number is None:
                continue
            if number == stream.expected:
                deliveries.append((stream_id, number, "x%d" % number))
                stream.expected += 1
                if stream.ending and stream.gap < stream.expected:
                    answers.append(("ack", stream_id, stream.expected))
                    deliveries.append(self.finish(stream_id, None, None))
                    answers.append(("closed", stream_id, None))
                    answered = refused = False
                    continue
            elif number > stream.expected:
                refused = True
                if not stream.ending:
                    stream.gap = max(stream.gap, number)
            answered = True
        if answered and self.known(stream_id) is not None:
            answers.append(self.summary(stream_id, refused))
        self.expect(answers, deliveries)

    def summary(self, stream_id, refused):
        stream = self.known(stream_id)
        kind = "nack" if refused and stream.gap >= stream.expected else "ack"
        return (kind, stream_id, stream.expected)

    @precondition(is_here)
    @rule(stream_id=IDS, error=st.booleans())
    def end(self, stream_id, error):
        world, stream = self.world, self.known(stream_id)
        world.do(world.pub, StreamEnd(stream_id, StreamError("UserError", "why") if error else None))
        if stream is None:
            self.expect([self.not_found(stream_id)])
        elif not self.allowed[stream.group]:
            self.expect([("closed", stream_id, "Forbidden")], [self.finish(stream_id, "Forbidden", "Forbidden")])
        elif not error and stream.gap >= stream.expected:
            stream.last, stream.ending = world.now, True
            self.expect()
        else:
            seen = "UserError" if error else None
            self.expect([("closed", stream_id, None)], [self.finish(stream_id, None, seen)])

    @rule(group=GROUPS, allowed=st.sampled_from([True, True, True, False]))
    def permit(self, group, allowed):
        self.allowed[group] = allowed
        change = self.world.pub.permissions.grant if allowed else self.world.pub.permissions.revoke
        change("sendToGroup", group)

    @rule(seconds=st.sampled_from([0.5, 3.0, 20.0]))
    def wait(self, seconds):
        world = self.world
        world.now += seconds
        world.work.expire(world.now)
        world.work.streams.expire(world.now)
        if self.away is not None:
            if world.now - self.away >= WINDOW:
                gone = [self.finish(stream_id, None, "Cancelled") for stream_id in list(self.streams)]
                assert self.deliveries() == gone
                world.pub = world.client(JSON_RELIABLE)
                self.fresh()
            return
        late = [item for item in self.streams if world.now - self.streams[item].last >= self.streams[item].idle]
        late.sort(key=lambda item: self.streams[item].last + self.streams[item].idle)
        ends = [self.finish(stream_id, "IdleTimeout", "IdleTimeout") for stream_id in late]
        assert sorted(self.answers()) == sorted(("closed", stream_id, "IdleTimeout") for stream_id in late)
        assert sorted(self.deliveries()) == sorted(ends)

    @precondition(is_here)
    @rule()
    def cut(self):
        self.world.cut()
        self.away = self.world.now

    @precondition(is_away)
    @rule()
    def recover(self):
        self.away = None
        self.generation += 1
        self.world.recover()
        for stream in self.streams.values():
            stream.last = self.world.now

    @precondition(is_here)
    @rule(stream_id=IDS, group=GROUPS, again=st.booleans())
    def blink(self, stream_id, group, again):
        """Cut and recover at once, and perhaps repeat a start or an end then."""
        self.cut()
        self.recover()
        stream = self.known(stream_id)
        if again and stream is not None:
            self.start(stream_id, stream.group, stream.idle)
            if self.known(stream_id) is not None and group == "news":
                self.start(stream_id, stream.group, stream.idle)
        elif again:
            self.end(stream_id, False)

    @precondition(is_here)
    @rule(stream_id=IDS, numbers=st.sampled_from(AFTER_GAP))
    def end_after_gap(self, stream_id, numbers):
        """Leave a hole, end, and send some of what is missing, or too much."""
        self.data(stream_id, [2], False)
        self.end(stream_id, False)
        self.data(stream_id, numbers, False)

    @precondition(is_here)
    @rule(stream_id=IDS)
    def hold_out(self, stream_id):
        """Keep a stream alive beyond its idle time."""
        for _ in range(4):
            self.data(stream_id, [], True)
            self.wait(3.0)

    # --- what always holds

    @invariant()
    def nothing_is_left_behind(self):
        if not hasattr(self, "world"):
            return
        streams = self.world.work.streams
        assert set(self.world.pub.streams) == set(self.streams)
        assert streams.active == len(self.streams)
        assert not streams.orphans and not streams.unanswered
        assert self.streams == {} or streams.due is not None

    def teardown(self):
        if hasattr(self, "world"):
            self.world.hub.end(self.world.pub, None)
            ends = [self.finish(stream_id, None, "Cancelled") for stream_id in list(self.streams)]
            assert self.deliveries() == ends
            self.world.do(self.world.member, SequenceAck(1))
            assert self.world.expire(1e9) is None


TestStreams = StreamMachine.TestCase
TestStreams.settings = settings(max_examples=min(150, settings().max_examples), stateful_step_count=60, deadline=None)
