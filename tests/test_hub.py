"""The pure core of the server: no socket, no clock, no thread. Sections are those of the protocol reference."""

from __future__ import annotations

import json

import pytest

from simplepubsub.exceptions import InvalidArgument, RemoteProtocolError
from simplepubsub.server.hub import RecoveryRefused, hub_of
from simplepubsub.server.limits import Limits
from simplepubsub.server.permissions import ALL_ROLES, Permissions
from simplepubsub.server.wire import JSON, JSON_RELIABLE, Outgoing, RawMode, RawWire
from simplepubsub.server.work import Work
from simplepubsub.transports.frames import FrameParser
from simplepubsub.webpubsub.messages import Event, JoinGroup, LeaveGroup, Ping, SendToGroup, SequenceAck

NOW = 1000.0


class Link:
    """Stands for a socket."""

    waiting = 0

    def write_buffer_size(self):
        return self.waiting


class World:
    """One hub, and connections whose output can be read."""

    def __init__(self, limits=Limits(patience=0.1), recovery_window=30.0):
        self.work = Work(limits, recovery_window)
        self.hub = hub_of(self.work, "Plaza")
        self.now = NOW

    def client(self, wire=JSON_RELIABLE, roles=ALL_ROLES, user="mina", groups=(), quiet=True):
        link = Link()
        session = self.hub.connect(wire, link, user_id=user, permissions=Permissions(roles), groups=groups)
        if quiet:
            self.read(session)
        return session

    def do(self, session, *commands):
        for command in commands:
            assert self.hub.execute(session, command, self.now), "%r has to wait" % (command,)

    def raw(self, session):
        """Return the frames queued for a session, as the peer gets them."""
        frames = FrameParser(masked=False).feed(b"".join(session.out))
        session.out.clear()
        session.dirty = False
        self.work.dirty = [item for item in self.work.dirty if item is not session]
        return frames

    def read(self, session):
        return [json.loads(payload) for _, payload in self.raw(session)]

    def calls(self):
        calls, self.work.calls = self.work.calls, []
        return calls

    def publish(self, sender, count, group="lobby"):
        """Publish until done or made to wait; return how many were executed."""
        for number in range(count):
            if not self.hub.execute(sender, SendToGroup(group, "m%d" % number, "text"), self.now):
                return number
        return count


@pytest.fixture
def world():
    return World()


def ok(ack_id):
    return {"type": "ack", "ackId": ack_id, "success": True}


def numbers(messages):
    return [message["sequenceId"] for message in messages if message["type"] == "message"]


# --- 1.5 connected ---------------------------------------------------------------------------------------------------


def test_the_first_message_says_who_one_is(world):
    session = world.client(quiet=False)
    assert world.read(session) == [
        {
            "type": "system",
            "event": "connected",
            "userId": "mina",
            "connectionId": session.connection_id,
            "reconnectionToken": session.reconnection_token,
        }
    ]
    plain = world.client(JSON, user=None, quiet=False)
    assert world.read(plain) == [
        {"type": "system", "event": "connected", "userId": None, "connectionId": plain.connection_id}
    ]
    assert world.raw(world.client(RawWire(), quiet=False)) == []


def test_groups_of_the_token_are_joined_without_a_role(world):
    session = world.client(roles=(), groups=["lobby", "news"])
    assert session.groups == {"lobby", "news"}
    assert set(world.hub.groups) == {"lobby", "news"}


def test_hub_names_ignore_case():
    work = Work()
    assert hub_of(work, "Plaza") is hub_of(work, "PLAZA")


# --- 2.2, 2.3 groups and messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, data_type, on_the_wire",
    [
        ("h\u00e9llo", "text", "h\u00e9llo"),
        ({"a": [1, None, 2.5]}, "json", {"a": [1, None, 2.5]}),
        (b"\x01\x02\x03", "binary", "AQID"),
        (b"\x01\x02\x03", "protobuf", "AQID"),
    ],
)
def test_publish_reaches_members_with_sequence_ids(world, data, data_type, on_the_wire):
    member, outsider, sender = world.client(), world.client(), world.client(user="bob")
    world.do(member, JoinGroup("lobby", 1))
    world.do(sender, SendToGroup("lobby", data, data_type, 7))
    assert world.read(member) == [
        ok(1),
        {
            "type": "message",
            "from": "group",
            "group": "lobby",
            "fromUserId": "bob",
            "dataType": data_type,
            "data": on_the_wire,
            "sequenceId": 1,
        },
    ]
    assert world.read(outsider) == []
    assert world.read(sender) == [ok(7)]


def test_json_clients_that_are_not_reliable_get_no_sequence_id(world):
    member = world.client(JSON, groups=["lobby"])
    world.do(world.client(user=None), SendToGroup("lobby", "x", "text"))
    (message,) = world.read(member)
    assert "sequenceId" not in message
    assert message["fromUserId"] is None


def test_echo_and_no_echo(world):
    one, two = world.client(groups=["lobby"]), world.client(groups=["lobby"])  # the same user twice
    world.do(one, SendToGroup("lobby", "a", "text"), SendToGroup("lobby", "b", "text", None, True))
    assert [message["data"] for message in world.read(one)] == ["a"]
    assert [message["data"] for message in world.read(two)] == ["a", "b"]


def test_join_and_leave_are_idempotent(world):
    session = world.client()
    world.do(session, JoinGroup("lobby", 1), JoinGroup("lobby", 2), LeaveGroup("lobby", 3), LeaveGroup("lobby", 4))
    assert world.read(session) == [ok(1), ok(2), ok(3), ok(4)]
    assert world.hub.groups == {}


def test_publishing_needs_no_membership_and_no_members(world):
    session = world.client()
    world.do(session, SendToGroup("nobody", "x", "text", 1))
    assert world.read(session) == [ok(1)]


def test_ping_is_answered(world):
    session = world.client(JSON)
    world.do(session, Ping())
    assert world.read(session) == [{"type": "pong"}]


def test_a_lone_surrogate_arrives_as_it_was_escaped(world):
    member, raw = world.client(groups=["lobby"]), world.client(RawWire(), groups=["lobby"])
    world.do(member, SendToGroup("lobby", {"x": "\ud800"}, "json"), SendToGroup("lobby", "\ud800", "text"))
    assert [message["data"] for message in world.read(member)] == [{"x": "\ud800"}, "\ud800"]
    assert [payload for _, payload in world.raw(raw)] == ['{"x":"\\ud800"}', "?"]


def test_data_that_cannot_be_carried_on_breaks_a_rule(world):
    member = world.client(groups=["lobby"])
    with pytest.raises(RemoteProtocolError) as caught:
        world.hub.execute(member, SendToGroup("lobby", float("inf"), "json", 1), NOW)
    assert caught.value.code == 1007
    assert world.read(member) == []


# --- 2.4 acks ---------------------------------------------------------------------------------------------------------


def test_forbidden(world):
    session = world.client(roles=["webpubsub.joinLeaveGroup.mine"])
    world.do(session, JoinGroup("lobby", 1), LeaveGroup("lobby", 2), SendToGroup("mine", "x", "text", 3))
    world.do(session, JoinGroup("mine", 4))
    answers = world.read(session)
    assert [answer["success"] for answer in answers] == [False, False, False, True]
    assert {answer["error"]["name"] for answer in answers[:3]} == {"Forbidden"}
    assert all(answer["error"]["message"] for answer in answers[:3])


def test_failure_without_ack_id_stays_silent(world):
    session = world.client(roles=())
    world.do(session, JoinGroup("lobby"), SendToGroup("lobby", "x", "text"))
    assert world.read(session) == []
    assert not session.ended


def test_duplicate_is_not_executed(world):
    member, sender = world.client(groups=["lobby"]), world.client()
    world.do(sender, SendToGroup("lobby", "x", "text", 5), SendToGroup("lobby", "x", "text", 5), JoinGroup("lobby", 5))
    first, second, third = world.read(sender)
    assert first == ok(5)
    assert second["error"]["name"] == third["error"]["name"] == "Duplicate"
    assert len(world.read(member)) == 1
    assert sender.groups == set()


def test_only_successes_are_remembered_and_duplicate_comes_before_permission(world):
    session = world.client(roles=())
    world.do(session, SendToGroup("lobby", "x", "text", 1))
    session.permissions.grant("sendToGroup", "lobby")
    world.do(session, SendToGroup("lobby", "x", "text", 1))  # failed before: may be tried again under its id
    session.permissions.revoke("sendToGroup", "lobby")
    world.do(session, SendToGroup("lobby", "x", "text", 1))
    names = [answer.get("error", {}).get("name") for answer in world.read(session)]
    assert names == ["Forbidden", None, "Duplicate"]


def test_the_last_thousand_ack_ids_are_remembered(world):
    session = world.client()
    world.do(session, *[JoinGroup("lobby", number) for number in range(1001)])
    world.read(session)
    world.do(session, JoinGroup("lobby", 1), JoinGroup("lobby", 1000), JoinGroup("lobby", 0))
    answers = world.read(session)
    assert [answer["success"] for answer in answers] == [False, False, True]  # 0 has been forgotten
    assert len(session.ack_ids) == len(session.ack_order) == 1000


def test_ack_ids_belong_to_a_connection_and_are_64_bits_wide(world):
    one, two = world.client(), world.client()
    for session in (one, two):
        world.do(session, JoinGroup("lobby", 2**64 - 1))
        assert world.read(session) == [ok(2**64 - 1)]


def test_a_lost_ack_is_executed_and_remembered(world):
    session = world.client()
    world.work.lose_acks = 1
    world.do(session, JoinGroup("lobby", 1), JoinGroup("news", 2), JoinGroup("lobby", 1))
    answers = world.read(session)
    assert answers[0] == ok(2)
    assert answers[1]["error"]["name"] == "Duplicate"
    assert session.groups == {"lobby", "news"}


# --- events -----------------------------------------------------------------------------------------------------------


def event_of(world, session, event):
    world.calls()
    world.do(session, event)
    (call,) = world.calls()
    assert (call.kind, call.session, call.event) == ("event", session, event)
    return event


def test_an_event_is_acknowledged_after_its_reply(world):
    session = world.client()
    event = event_of(world, session, Event("greet", "hi", "text", 3))
    assert world.read(session) == []
    world.hub.finish_event(session, event, Outgoing(None, None, {"ok": 1}, "json"), None, NOW)
    reply = {"type": "message", "from": "server", "dataType": "json", "data": {"ok": 1}, "sequenceId": 1}
    assert world.read(session) == [reply, ok(3)]


def test_an_event_in_progress_is_not_started_again(world):
    session = world.client()
    event = event_of(world, session, Event("greet", "hi", "text", 3))
    world.do(session, event)
    assert world.calls() == []
    world.hub.finish_event(session, event, None, None, NOW)
    assert world.read(session) == [ok(3)]
    world.do(session, event)
    assert world.read(session)[0]["error"]["name"] == "Duplicate"


def test_a_failed_event_may_be_tried_again(world):
    session = world.client()
    event = event_of(world, session, Event("greet", "hi", "text", 3))
    world.hub.finish_event(session, event, None, "it broke", NOW)
    (answer,) = world.read(session)
    assert answer["error"] == {"name": "InternalServerError", "message": "it broke"}
    event_of(world, session, event)


def test_a_failed_event_closes_a_simple_client(world):
    session = world.client(RawWire())
    event = event_of(world, session, Event("message", "hi", "text"))
    world.hub.finish_event(session, event, None, "it broke", NOW)
    assert session.closing == (1011, "it broke")


def test_the_result_of_an_event_for_a_connection_that_is_gone(world):
    session = world.client()
    event = event_of(world, session, Event("greet", "hi", "text", 3))
    world.hub.end(session, None)
    world.hub.finish_event(session, event, Outgoing(None, None, "x", "text"), None, NOW)
    assert world.raw(session) == []


def test_events_wait_when_too_many_wait_for_handlers():
    world = World(Limits(max_waiting_events=2))
    session = world.client()
    world.do(session, Event("e", "", "text", 1))
    session.calls.extend(world.calls() * 2)
    assert world.hub.execute(session, Event("e", "", "text", 2), NOW) is False
    world.do(session, JoinGroup("lobby", 3))  # other commands need not wait


# --- 1.4 simple clients -----------------------------------------------------------------------------------------------


def test_simple_clients_get_bare_payloads(world):
    session = world.client(RawWire(), groups=["lobby"])
    sender = world.client()
    world.do(
        sender,
        SendToGroup("lobby", "text", "text"),
        SendToGroup("lobby", {"a": 1}, "json"),
        SendToGroup("lobby", "quoted", "json"),
        SendToGroup("lobby", b"\0\1", "binary"),
        SendToGroup("lobby", b"\2\3", "protobuf"),
    )
    assert world.raw(session) == [(1, "text"), (1, '{"a":1}'), (1, '"quoted"'), (2, b"\0\1"), (2, b"\2\3")]


@pytest.mark.parametrize("no_echo", [False, True])
def test_simple_clients_in_publish_mode(world, no_echo):
    wire = RawWire(RawMode("lobby", no_echo))
    session, member = world.client(wire, groups=["lobby"]), world.client(groups=["lobby"])
    world.do(session, wire.decode(1, "hi"), wire.decode(2, b"\1"))
    received = [(message["dataType"], message["data"]) for message in world.read(member)]
    assert received == [("text", "hi"), ("binary", "AQ==")]
    assert world.raw(session) == ([] if no_echo else [(1, "hi"), (2, b"\1")])


def test_simple_clients_in_event_mode():
    wire = RawWire()
    assert wire.decode(1, "hi") == Event("message", "hi", "text")
    assert wire.decode(2, b"\1") == Event("message", b"\1", "binary")


def test_a_simple_client_without_the_right_is_closed(world):
    wire = RawWire(RawMode("lobby"))
    session = world.client(wire, roles=["webpubsub.sendToGroup.other"])
    world.do(session, wire.decode(1, "hi"))
    assert session.closing[0] == 1008 and session.ended


# --- 3 reliability ----------------------------------------------------------------------------------------------------


def test_sequence_acks_are_cumulative_and_forgiving(world):
    session = world.client(groups=["lobby"])
    world.publish(session, 5)
    assert numbers(world.read(session)) == [1, 2, 3, 4, 5]
    sizes = []
    for acked in (0, 2, 2, 1, 4, 99, 5):
        world.do(session, SequenceAck(acked))
        sizes.append((len(session.unacked), session.first_unacked))
    assert sizes == [(5, 1), (3, 3), (3, 3), (3, 3), (1, 5), (0, 6), (0, 6)]
    assert session.unacked_bytes == 0
    world.publish(session, 1)
    assert numbers(world.read(session)) == [6]


def test_sequence_acks_of_other_clients_are_ignored(world):
    session = world.client(JSON, groups=["lobby"])
    world.do(session, SequenceAck(3), SendToGroup("lobby", "x", "text"))
    assert len(world.read(session)) == 1


def test_recovery_greets_then_replays_what_was_not_acknowledged(world):
    session, sender = world.client(groups=["lobby"]), world.client()
    world.publish(sender, 3)
    world.do(session, SequenceAck(1), JoinGroup("news", 1))
    world.read(session)
    world.hub.lost(session, NOW)
    world.publish(sender, 2)
    assert session.out == []
    link = object()
    same, previous = world.hub.recover(session.connection_id, session.reconnection_token, link, NOW + 29)
    assert same is session and previous is None and session.link is link
    messages = world.read(session)
    assert messages[0]["event"] == "connected"
    assert messages[0]["connectionId"] == session.connection_id
    assert messages[0]["reconnectionToken"] == session.reconnection_token
    assert numbers(messages[1:]) == [2, 3, 4, 5] and len(messages) == 5  # no ack is replayed
    world.do(session, JoinGroup("news", 1), SendToGroup("lobby", "x", "text"))
    duplicate, fresh = world.read(session)
    assert duplicate["error"]["name"] == "Duplicate"  # the memory of ids survives
    assert fresh["sequenceId"] == 6 and fresh["data"] == "x"
    assert session.groups == {"lobby", "news"}


def test_recovery_while_the_old_socket_lives_hands_that_over(world):
    session = world.client()
    old = session.link
    _, previous = world.hub.recover(session.connection_id, session.reconnection_token, object(), NOW)
    assert previous is old


@pytest.mark.parametrize("wrong", ["token", "id", "hub", "no token"])
def test_a_refused_recovery_harms_nothing(world, wrong):
    session = world.client()
    world.hub.lost(session, NOW)
    hub = hub_of(world.work, "other") if wrong == "hub" else world.hub
    connection_id = "nobody" if wrong == "id" else session.connection_id
    token = {"token": "guess", "no token": ""}.get(wrong, session.reconnection_token)
    with pytest.raises(RecoveryRefused) as caught:
        hub.recover(connection_id, token, object(), NOW)
    assert session.reconnection_token not in str(caught.value)
    world.hub.recover(session.connection_id, session.reconnection_token, object(), NOW)


def test_connections_that_are_not_reliable_cannot_be_recovered(world):
    session = world.client(JSON)
    with pytest.raises(RecoveryRefused):
        world.hub.recover(session.connection_id, "", object(), NOW)
    world.hub.lost(session, NOW)
    assert session.ended


def test_retained_sessions_expire(world):
    first, second = world.client(groups=["lobby"]), world.client()
    world.calls()
    world.hub.lost(first, NOW)
    world.hub.lost(second, NOW + 1)
    assert world.work.expire(NOW + 29.9) == NOW + 30
    assert not first.ended and "lobby" in world.hub.groups
    assert world.work.expire(NOW + 30) == NOW + 31
    assert first.ended and world.hub.groups == {}
    assert [call.kind for call in world.calls()] == ["disconnected"]
    assert world.work.expire(NOW + 31) is None
    with pytest.raises(RecoveryRefused):
        world.hub.recover(first.connection_id, first.reconnection_token, object(), NOW + 31)


def test_a_recovered_session_does_not_expire(world):
    session = world.client()
    world.hub.lost(session, NOW)
    world.hub.recover(session.connection_id, session.reconnection_token, object(), NOW + 1)
    assert world.work.expire(NOW + 100) is None
    assert not session.ended


def test_a_window_of_zero_retains_nothing():
    world = World(recovery_window=0)
    session = world.client()
    world.hub.lost(session, NOW)
    assert session.ended


def test_messages_past_their_time_to_live_are_not_replayed(world):
    session = world.client(groups=["lobby"])
    world.hub.lost(session, NOW)
    for ttl in (5, 0, 20):
        world.hub.deliver([session], Outgoing(None, None, "x", "text", ttl), NOW)
    world.hub.recover(session.connection_id, session.reconnection_token, object(), NOW + 10)
    assert numbers(world.read(session)) == [2, 3]
    world.do(session, SequenceAck(3))
    assert session.unacked == [] and session.deadlines == {}


# --- limits -----------------------------------------------------------------------------------------------------------


def flood(world, sender, count, group="lobby"):
    """Publish ``count`` messages, losing patience with whoever holds it up."""
    done = 0
    while done < count:
        done += world.publish(sender, count - done, group)
        if done < count:
            world.work.wait(1)


@pytest.mark.parametrize("options", [{"max_unacked_messages": 0}, {"patience": "1"}, {"max_message_bytes": 1.5}])
def test_limits_that_cannot_be(options):
    with pytest.raises(InvalidArgument):
        Limits(**options)


def test_a_thousand_unacknowledged_messages_are_too_many(world):
    slow, healthy, sender = world.client(groups=["lobby"]), world.client(JSON, groups=["lobby"]), world.client()
    flood(world, sender, 1000)
    assert not slow.ended
    flood(world, sender, 1)
    assert slow.ended and slow.closing[0] == 1008
    assert len(numbers(world.read(slow))) == 1000
    assert len(world.read(healthy)) == 1001
    assert world.hub.groups["lobby"] == {healthy: None}
    with pytest.raises(RecoveryRefused):
        world.hub.recover(slow.connection_id, slow.reconnection_token, object(), NOW)


def test_too_many_unacknowledged_bytes():
    world = World(Limits(max_unacked_bytes=10_000))
    slow, sender = world.client(groups=["lobby"]), world.client()
    for number in range(10):
        while not world.hub.execute(sender, SendToGroup("lobby", "x" * 1000, "text"), world.now):
            world.work.wait(1)
        assert slow.ended is (number == 8), number  # about 1,100 bytes each
        if slow.ended:
            break


def test_a_retained_session_overflows_too(world):
    session, sender = world.client(groups=["lobby"]), world.client()
    world.hub.lost(session, NOW)
    flood(world, sender, 1001)
    assert session.ended and session.closing is None
    assert world.work.retained == {}


def test_receivers_with_the_same_position_share_the_bytes(world):
    members = [world.client(groups=["lobby"]) for _ in range(3)]
    world.publish(world.client(), 1)
    assert members[0].unacked[0] is members[1].unacked[0] is members[2].unacked[0]


# --- congestion -------------------------------------------------------------------------------------------------------


def test_publishers_wait_for_a_receiver_that_is_behind_until_it_has_caught_up(world):
    receiver, sender = world.client(groups=["lobby"]), world.client()
    assert world.publish(sender, 1000) == 601
    assert world.publish(sender, 1, group="elsewhere") == 1  # others are not concerned
    world.do(receiver, SequenceAck(150))
    assert world.publish(sender, 1) == 0
    world.do(receiver, SequenceAck(300))
    assert world.work.relieved
    assert world.publish(sender, 1000) == 300
    assert receiver.next_sequence == 902


def test_patience_ends_once_and_comes_back_with_health(world):
    receiver, sender = world.client(groups=["lobby"]), world.client()
    world.publish(sender, 1000)
    world.work.wait(0.06)
    assert world.publish(sender, 1) == 0
    world.work.wait(0.06)
    assert world.work.relieved and receiver.hopeless
    assert world.publish(sender, 300) == 300  # nobody waits again while it stays behind
    world.do(receiver, SequenceAck(900))
    assert not receiver.hopeless
    assert world.publish(sender, 1000) == 600  # it is waited for again: 1 left and 600 more
    world.work.wait(0.06)
    assert world.publish(sender, 1) == 0


def test_patience_is_counted_for_each_receiver(world):
    first, second = world.client(groups=["one"]), world.client(groups=["two"])
    sender = world.client()
    world.publish(sender, 1000, "one")
    world.work.wait(0.06)
    world.publish(sender, 1000, "two")
    world.work.wait(0.06)
    assert first.hopeless and not second.hopeless
    world.work.wait(0.06)
    assert second.hopeless


def test_many_dead_receivers_do_not_cost_one_wait_each(world):
    sender = world.client()
    dead = []
    for _ in range(50):  # each is behind by another number of messages
        dead.append(world.client(groups=["lobby"]))
        world.publish(sender, 10)
    waits = 0
    while any(not session.ended for session in dead):
        if world.publish(sender, 1) == 0:
            world.work.wait(0.1)
            waits += 1
    assert waits <= 2


def test_many_full_sockets_do_not_cost_one_wait_each(world):
    sender = world.client()
    receivers = [world.client(JSON, groups=["lobby"]) for _ in range(50)]
    for session in receivers[:49]:
        session.link.waiting = 1000
    for session in receivers:
        session.link_full = True
        world.work.strain(session, NOW)
        if session is receivers[0]:
            world.work.wait(0.1)
    assert list(world.work.congested) == [receivers[49]]  # it had taken everything when the wait ended
    assert world.publish(sender, 1) == 0


def test_healthy_receivers_are_still_waited_for_beside_a_dead_one(world):
    dead, healthy, sender = world.client(groups=["lobby"]), world.client(groups=["lobby"]), world.client()
    world.publish(sender, 1000)
    world.work.wait(0.05)
    world.do(healthy, SequenceAck(600))
    world.work.wait(0.05)
    assert dead.hopeless and not healthy.hopeless
    while not dead.ended:
        world.publish(sender, 1)
    world.do(healthy, SequenceAck(healthy.next_sequence))
    assert world.publish(sender, 1000) == 601


def test_a_client_that_is_away_is_waited_for_only_at_first(world):
    quick, away, sender = world.client(groups=["one"]), world.client(groups=["two"]), world.client()
    world.hub.lost(away, NOW - 0.2)
    world.hub.lost(quick, NOW - 0.05)
    assert world.publish(sender, 700, "one") == 601
    assert world.publish(sender, 700, "two") == 700
    assert away.hopeless and not quick.hopeless


def test_a_receiver_that_ends_is_not_waited_for(world):
    receiver, sender = world.client(groups=["lobby"]), world.client()
    world.publish(sender, 1000)
    world.hub.end(receiver, None)
    assert world.work.relieved and world.publish(sender, 1000) == 1000


def test_a_recovered_receiver_gets_new_patience(world):
    receiver, sender = world.client(groups=["lobby"]), world.client()
    world.publish(sender, 1000)
    world.work.wait(1)
    world.hub.lost(receiver, NOW + 1)
    world.hub.recover(receiver.connection_id, receiver.reconnection_token, object(), NOW + 2)
    assert world.work.congested == {receiver: 1.0}
    assert world.publish(sender, 1) == 0


def test_a_full_socket_is_congestion(world):
    receiver, sender = world.client(JSON, groups=["lobby"]), world.client()
    receiver.link_full = True
    world.work.strain(receiver, NOW)
    assert world.publish(sender, 1) == 0
    receiver.link_full = False
    world.work.relieve(receiver)
    assert world.publish(sender, 1) == 1


def test_a_publisher_that_holds_itself_up_is_helped_by_its_acks(world):
    session = world.client(groups=["lobby"])
    assert world.publish(session, 1000) == 601
    world.do(session, SequenceAck(601))
    assert world.publish(session, 100) == 100


# --- the end of a connection ------------------------------------------------------------------------------------------


def test_end_removes_every_trace_and_happens_once(world):
    session = world.client(groups=["lobby"])
    world.calls()
    world.hub.end(session, 1000, "bye", announce="closed by operator")
    world.hub.end(session, 1008, "again")
    assert world.read(session) == [{"type": "system", "event": "disconnected", "message": "closed by operator"}]
    assert session.closing == (1000, "bye")
    assert (world.hub.sessions, world.hub.groups, world.hub.users) == ({}, {}, {})
    assert [(call.kind, call.reason) for call in world.calls()] == [("disconnected", "bye")]


def test_users_are_known_as_long_as_they_have_a_connection(world):
    one, two = world.client(), world.client()
    assert list(world.hub.users) == ["mina"]
    world.hub.end(one, None)
    assert world.hub.users == {"mina": {two: None}}
    world.hub.end(two, None)
    assert world.hub.users == {}


def test_repr_shows_state(world):
    session = world.client(groups=["lobby"])
    world.publish(session, 2)
    assert repr(session) == (
        "<Session %s user='mina' json.reliable.webpubsub.azure.v1 connected groups=1 unacked=2>" % session.connection_id
    )
    world.hub.lost(session, NOW)
    assert "retained" in repr(session)
    world.hub.end(session, None)
    assert "ended" in repr(session)
