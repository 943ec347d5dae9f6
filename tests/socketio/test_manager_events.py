"""The core of the Socket.IO client: events, acks, what waits for a connection, and what is repeated."""

from __future__ import annotations

import threading
from typing import Any, Dict, List, Tuple

import pytest

from simplepubsub.exceptions import MessageTooLarge, OutboxFull
from simplepubsub.socketio import exceptions
from simplepubsub.socketio.acks import Request, Timers
from simplepubsub.socketio.manager import Manager
from simplepubsub.socketio.outbox import OfflineBuffer, RetryQueue
from simplepubsub.socketio.packet import Packet, PacketType
from simplepubsub.socketio.seams import Connected, Disconnected, Event
from tests.helpers import MS, run_thread, scaled, wait_until

from .fake import FakeServer, FakeSession, Log, make

WAIT = scaled(5)


class Answers:
    """An on_answer that keeps what it gets."""

    def __init__(self) -> None:
        self.got: List[Tuple[Any, List[Any]]] = []
        self.changed = threading.Condition()

    def __call__(self, error: Any, values: List[Any]) -> None:
        with self.changed:
            self.got.append((error, values))
            self.changed.notify_all()

    def wait_for(self, count: int) -> List[Tuple[Any, List[Any]]]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= count, WAIT), self.got
            return list(self.got)


def up(namespaces: Any = ("/",), **changes: Any) -> Tuple[FakeServer, Log, Manager, FakeSession]:
    server, log, manager = make(**changes)
    manager.connect("http://server", namespaces=namespaces, wait_timeout=WAIT)
    return server, log, manager, server.session(0)


def go_down(server: FakeServer, log: Log) -> None:
    """Lose the connection, and stay without one until `come_up`."""
    server.hang = True
    attempts = len(server.targets)
    server.sessions[-1].drop()
    server.wait_targets(attempts + 1)


def come_up(server: FakeServer) -> FakeSession:
    with server.changed:
        count = len(server.sessions)  # the next one may be there at once
        server.hang = False
        server.changed.notify_all()
    return server.session(count)


def ack(session: FakeSession, packet: Packet, *values: Any) -> None:
    session.packet(PacketType.ACK, packet.namespace, list(values), packet.id)


# --- events -----------------------------------------------------------------------------------------------------------


def test_emit_sends_the_arguments_and_w25_binary_as_one_group() -> None:
    server, log, manager, session = up(["/", "/b"])
    assert manager.emit("/b", "x", [1, {"a": b"\x01"}, b"\x02"]) is True
    assert manager.emit("/", "y") is True
    assert session.groups[2][1:] == [b"\x01", b"\x02"] and session.groups[2][0].startswith('52-/b,["x",1,')
    assert session.groups[3] == ['2["y"]']
    manager.disconnect()


def test_later_changes_of_the_data_have_no_effect() -> None:
    server, log, manager, session = up()
    go_down(server, log)
    data = {"n": 1}
    manager.emit("/", "x", [data], offline="buffer")
    manager.emit("/", "r", [data], retries=1)
    data["n"] = 2
    assert sorted(come_up(server).events(2)) == [["r", {"n": 1}], ["x", {"n": 1}]]
    manager.disconnect()


@pytest.mark.parametrize("policy", ["raise", "buffer", "wait"])
def test_w23_w24_what_cannot_be_sent_raises_before_anything_is_written(policy: str) -> None:
    """Cases 22 and 27."""
    server, log, manager, session = up()
    for event, args in [("connect", []), ("disconnecting", []), (1.5, []), ("x", [float("nan")]), ("x", [object()]),
                        ("x", [b"1"] * 11)]:
        with pytest.raises(ValueError):
            manager.emit("/", event, args, offline=policy)
        with pytest.raises(ValueError):
            manager.call("/", event, args, offline=policy)
    for options in [{"offline": "x"}, {"retries": -1}, {"retries": 1, "volatile": True}, {"timeout": -1},
                    {"ack_timeout": "1"}]:
        with pytest.raises(ValueError):
            manager.emit("/", "x", **options)
    assert len(session.packets) == 1
    manager.emit("/", "x", [b"1"] * 10)
    manager.disconnect()


def test_w5_what_is_too_large_raises_and_the_link_stays_sound() -> None:
    """Case 10."""
    server, log, manager, session = up()
    session.max_payload = 100
    answers = Answers()
    with pytest.raises(MessageTooLarge):
        manager.emit("/", "x", ["y" * 100])
    with pytest.raises(exceptions.PayloadTooLarge):
        manager.call("/", "x", ["y" * 100])
    with pytest.raises(MessageTooLarge):
        manager.emit("/", "x", ["y" * 100], retries=2, on_answer=answers)
    manager.emit("/", "echo", [1], retries=2, on_answer=answers)  # and the queue is not stuck
    assert answers.wait_for(1) == [(None, [1])] and manager.call("/", "echo", ["z"], timeout=WAIT) == ["z"]
    manager.disconnect()


def test_what_turns_out_too_large_after_waiting_is_told_to_its_callback() -> None:
    server, log, manager, session = up()
    go_down(server, log)
    one, two = Answers(), Answers()
    manager.emit("/", "x", ["y" * 200], offline="buffer", on_answer=one)
    manager.emit("/", "x", ["y" * 200], retries=1, on_answer=two)
    manager.emit("/", "echo", [1], retries=1, on_answer=two)
    server.max_payload = 100
    come_up(server)
    assert isinstance(one.wait_for(1)[0][0], MessageTooLarge)
    (error, _), second = two.wait_for(2)
    assert isinstance(error, MessageTooLarge) and second == (None, [1])
    manager.disconnect()


def test_events_arrive_in_order_and_w8_w26_nothing_is_answered_by_itself() -> None:
    server, log, manager, session = up(["/", "/b"])
    session.raw('2["a",1]', '2/b,["b"]', '20["c"]', '2[5,"x"]')
    events = log.wait_for(4, Event)
    assert [(e.namespace, e.args, e.id) for e in events] == [
        ("/", ["a", 1], None), ("/b", ["b"], None), ("/", ["c"], 0), ("/", [5, "x"], None)
    ]
    assert len(session.packets) == 2
    manager.disconnect()


def test_case_39_an_event_is_answered_once_and_only_on_its_connection() -> None:
    server, log, manager, session = up(["/", "/b"])
    session.raw('20["a"]', '2/b,7["b"]', '2["none"]')
    first, second, none = log.wait_for(3, Event)
    assert manager.answer(first, [b"x", 1]) and not manager.answer(first, [2]) and not manager.answer(none, [])
    with pytest.raises(ValueError):
        manager.answer(second, [object()])
    assert manager.answer(second, [])
    assert session.groups[2:] == [['61-0[{"_placeholder":true,"num":0},1]', b"x"], ["3/b,7[]"]]
    session.emit("late", id=9)
    third = log.wait_for(4, Event)[3]
    session.drop()
    log.wait_for(4, Connected)
    assert not manager.answer(third, [1])  # 9 may be another event there
    manager.disconnect()
    assert not manager.answer(third, [1])


def test_an_answer_for_a_namespace_that_was_left_is_not_sent() -> None:
    server, log, manager, session = up(["/", "/b"])
    session.emit("x", namespace="/b", id=1)
    event = log.wait_for(1, Event)[0]
    manager.leave("/b")
    assert not manager.answer(event, [])
    manager.disconnect()


def test_case_35_events_before_the_answer_to_connect_come_before_the_connect_record() -> None:
    server, log, manager = make()

    def early(session: FakeSession, packet: Packet) -> None:
        session.raw('2["early",1]', '25["early",2]')
        session.accept("/")

    server.on_connect = early
    manager.connect("http://server", wait_timeout=WAIT)
    assert log.story()[:3] == ["/ early 1", "/ early 2", "+/"]
    assert manager.answer(log.of(Event)[1], ["ok"])  # their acks are possible from then on
    manager.disconnect()


def test_early_events_of_a_namespace_that_is_refused_are_dropped() -> None:
    server, log, manager = make(require_all=False)
    server.on_connect = lambda session, packet: (
        session.raw('2/b,["early"]', '4/b,"no"') if packet.namespace == "/b" else session.accept("/")
    )
    manager.connect("http://server", namespaces=["/", "/b"], wait_timeout=WAIT)
    assert log.args == []
    manager.disconnect()


# --- policies without a connection ------------------------------------------------------------------------------------


def test_w9_emit_without_a_connection_raises_as_python_does() -> None:
    server, log, manager = make()
    for call in (manager.emit, manager.call):
        with pytest.raises(exceptions.BadNamespaceError):
            call("/", "x")
    manager.connect("http://server", wait_timeout=WAIT)
    for call in (manager.emit, manager.call):
        with pytest.raises(exceptions.BadNamespaceError):
            call("/other", "x")
    go_down(server, log)
    with pytest.raises(exceptions.BadNamespaceError):
        manager.emit("/", "x")
    manager.disconnect()
    for policy in ("raise", "buffer"):
        with pytest.raises(exceptions.BadNamespaceError):
            manager.emit("/", "x", offline=policy)


def test_w12_case_68_waiting_emits_fail_at_once_without_a_connection_to_wait_for() -> None:
    server, log, manager = make()
    for call in (manager.emit, manager.call):
        with pytest.raises(exceptions.DisconnectedError, match="call connect"):
            call("/", "x", offline="wait")
    manager.connect("http://server", wait_timeout=WAIT)
    manager.disconnect()
    for call in (manager.emit, manager.call):
        with pytest.raises(exceptions.DisconnectedError) as caught:
            call("/", "x", offline="wait")
        assert caught.value.reason == "client disconnect"


def test_case_68_waiting_emits_wait_for_the_connection_and_have_a_limit() -> None:
    server, log, manager, session = up()
    go_down(server, log)
    for call in (manager.emit, manager.call):
        with pytest.raises(TimeoutError, match="not sent in time"):
            call("/", "x", offline="wait", timeout=10 * MS)
    with run_thread(manager.emit, "/", "x", offline="wait") as emitting:
        with run_thread(manager.call, "/", "echo", [1], offline="wait") as calling:
            come_up(server)
            assert emitting.result(WAIT) is True and calling.result(WAIT) == [1]
    assert sorted(data[0] for data in server.session(1).events(2)) == ["echo", "x"]
    manager.disconnect()


def test_case_64_buffered_events_come_first_and_in_order() -> None:
    server, log, manager, session = up(["/", "/b"])
    log.handlers[Connected] = lambda record: manager.emit(record.namespace, "handler")
    go_down(server, log)
    for number in range(3):
        assert manager.emit("/", "n", [number], offline="buffer")
    manager.emit("/b", "b", offline="buffer")
    second = come_up(server)
    events = [(p.namespace, p.data) for p in (second.events(6) and second.packets) if p.type == PacketType.EVENT]
    assert [data for name, data in events if name == "/"] == [["n", 0], ["n", 1], ["n", 2], ["handler"]]
    assert [data for name, data in events if name == "/b"] == [["b"], ["handler"]]
    manager.disconnect()


def test_case_64_the_buffer_is_bounded() -> None:
    server, log, manager, session = up(max_buffer=2)
    go_down(server, log)
    manager.emit("/", "1", offline="buffer")
    manager.emit("/", "2", offline="buffer")
    with pytest.raises(exceptions.BufferFull) as caught:
        manager.emit("/", "3", offline="buffer")
    assert isinstance(caught.value, OutboxFull)
    assert come_up(server).events(2) == [["1"], ["2"]]
    manager.disconnect()


@pytest.mark.parametrize("overflow, kept", [("drop_oldest", ["2", "3"]), ("drop_newest", ["1", "2"])])
def test_case_64_the_buffer_may_drop(overflow: str, kept: List[str]) -> None:
    server, log, manager, session = up(max_buffer=2, overflow=overflow)
    go_down(server, log)
    answers = {name: Answers() for name in "123"}
    for name in "123":
        manager.emit("/", name, offline="buffer", on_answer=answers[name])
    (dropped,) = set("123") - set(kept)
    assert isinstance(answers[dropped].wait_for(1)[0][0], exceptions.BufferFull)
    assert [data[0] for data in come_up(server).events(2)] == kept
    manager.disconnect()


def test_case_64_a_buffered_event_that_is_late_is_not_sent() -> None:
    server, log, manager, session = up()
    go_down(server, log)
    answers = Answers()
    manager.emit("/", "late", offline="buffer", on_answer=answers, ack_timeout=10 * MS)
    manager.emit("/", "x", offline="buffer")
    ((error, values),) = answers.wait_for(1)
    assert isinstance(error, TimeoutError) and "not sent" in str(error) and values == []
    assert come_up(server).events(1) == [["x"]]
    manager.disconnect()


def test_buffered_events_end_with_the_client_or_their_namespace() -> None:
    server, log, manager, session = up(["/", "/b"])
    go_down(server, log)
    one, two, three = Answers(), Answers(), Answers()
    manager.emit("/b", "x", offline="buffer", on_answer=one)
    manager.emit("/", "x", offline="buffer", on_answer=two)
    manager.emit("/", "x", retries=1, on_answer=three)
    manager.leave("/b")
    assert isinstance(one.wait_for(1)[0][0], exceptions.DisconnectedError)
    manager.disconnect()
    for answers in (two, three):
        assert isinstance(answers.wait_for(1)[0][0], exceptions.DisconnectedError)


def test_events_may_be_buffered_during_the_first_connect() -> None:
    server, log, manager = make()
    server.silent.append("/")
    with run_thread(manager.connect, "http://server", wait_timeout=WAIT) as connecting:
        server.session(0).wait_packets(1)
        manager.emit("/", "x", offline="buffer")
        server.session(0).accept("/")
        connecting.result(WAIT)
    assert server.session(0).events(1) == [["x"]]
    manager.disconnect()


def test_case_65_volatile_events_are_sent_at_once_or_not_at_all() -> None:
    server, log, manager, session = up()
    assert manager.emit("/", "v", volatile=True) is True
    session.set_backlog(1)
    assert manager.emit("/", "v", volatile=True) is False
    session.set_backlog(0)
    go_down(server, log)
    assert manager.emit("/", "v", volatile=True, offline="wait") is False
    assert come_up(server).wait_packets(1) and len(session.events(1)) == 1
    manager.disconnect()
    assert manager.emit("/", "v", volatile=True) is False


def test_emits_wait_while_too_much_is_unwritten() -> None:
    server, log, manager, session = up(max_unsent_bytes=10)
    session.set_backlog(11)
    with pytest.raises(TimeoutError, match="wait to be written"):
        manager.emit("/", "x", timeout=10 * MS)
    with run_thread(manager.emit, "/", "x") as emitting:
        wait_until(lambda: emitting.running)
        session.set_backlog(0)
        emitting.result(WAIT)
    session.set_backlog(11)
    with run_thread(manager.emit, "/", "x") as emitting:
        go_down(server, log)
        with pytest.raises(exceptions.BadNamespaceError):
            emitting.result(WAIT)
    assert len(session.events(1)) == 1
    manager.disconnect()


# --- acks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[], [None], [1], [1, "a", {"b": [2]}], [b"\x00", {"c": b"\x01"}]])
def test_case_38_case_40_acks_of_every_shape(values: List[Any]) -> None:
    server, log, manager, session = up()
    answers = Answers()
    manager.emit("/", "echo", values, on_answer=answers)
    assert manager.call("/", "echo", values, timeout=WAIT) == values
    assert answers.wait_for(1) == [(None, values)]
    manager.disconnect()


def test_ids_are_per_namespace_and_never_used_again() -> None:
    """W35: no id is special, and none comes back on the next connection."""
    server, log, manager, session = up(["/", "/b"])
    for namespace in ("/", "/", "/b"):
        manager.call(namespace, "echo", timeout=WAIT)
    assert [p.id for p in session.packets[2:]] == [1, 2, 1]
    session.drop()
    log.wait_for(4, Connected)
    manager.call("/", "echo", timeout=WAIT)
    assert server.session(1).packets[-1].id == 3
    manager.disconnect()


def test_callbacks_run_in_the_order_of_the_stream() -> None:
    server, log, manager, session = up()
    server.on_event = lambda session, packet: (session.emit("before"), ack(session, packet, 1), session.emit("after"))
    manager.emit("/", "x", on_answer=Answers())
    log.wait_for(2, Event)
    assert log.story()[1:] == ["/ before", "answer", "/ after"]
    manager.disconnect()


def test_case_40_call_times_out_with_the_builtin_error_too() -> None:
    server, log, manager, session = up()
    with pytest.raises(TimeoutError) as caught:
        manager.call("/", "silent", timeout=10 * MS)
    assert isinstance(caught.value, exceptions.TimeoutError)
    assert not isinstance(caught.value, exceptions.DisconnectedError)
    manager.disconnect()


def test_case_42_late_and_unknown_acks_are_ignored() -> None:
    server, log, manager, session = up()
    with pytest.raises(TimeoutError):
        manager.call("/", "silent", timeout=10 * MS)
    session.raw("31[5]", "399[]", "30[]")
    assert manager.call("/", "echo", [2], timeout=WAIT) == [2]
    manager.disconnect()


def test_w11_case_41_call_fails_at_once_when_the_link_drops() -> None:
    server, log, manager, session = up()
    with run_thread(manager.call, "/", "silent") as calling:
        session.events(1)
        session.drop("ping timeout")
        with pytest.raises(exceptions.AckLost, match="ping timeout") as caught:
            calling.result(WAIT)
    assert isinstance(caught.value, TimeoutError) and not caught.value.final
    log.wait_for(2, Connected)
    manager.disconnect()


@pytest.mark.parametrize("end", ["kick", "disconnect", "loss"])
def test_call_fails_at_once_when_the_client_ends(end: str) -> None:
    server, log, manager, session = up(reconnection=False)
    with run_thread(manager.call, "/", "silent", timeout=None) as calling:
        session.events(1)
        {"kick": session.kick, "disconnect": manager.disconnect, "loss": session.drop}[end]()
        with pytest.raises(exceptions.DisconnectedError) as caught:
            calling.result(WAIT)
    assert caught.value.final  # type: ignore[attr-defined]
    assert manager.wait(WAIT)


def test_w10_callbacks_learn_that_nothing_will_come() -> None:
    server, log, manager, session = up(["/", "/b"])
    one, two, three = Answers(), Answers(), Answers()
    manager.emit("/", "silent", on_answer=one, ack_timeout=10 * MS)
    assert isinstance(one.wait_for(1)[0][0], exceptions.TimeoutError)
    manager.emit("/b", "silent", on_answer=two)
    session.kick("/b")
    error = two.wait_for(1)[0][0]
    assert isinstance(error, exceptions.AckLost) and error.final
    manager.emit("/", "silent", on_answer=three)
    session.drop()
    error = three.wait_for(1)[0][0]
    assert isinstance(error, exceptions.AckLost) and not error.final
    manager.disconnect()
    assert len(one.got) == len(two.got) == len(three.got) == 1


def test_case_43_call_inside_a_handler() -> None:
    server, log, manager, session = up()
    results: List[Any] = []
    log.handlers[Event] = lambda record: results.append(manager.call("/", "echo", record.args[1:], timeout=WAIT))
    for number in range(3):
        session.emit("x", number)
    log.wait_for(3, Event)
    wait_until(lambda: len(results) == 3)
    assert results == [[0], [1], [2]]
    manager.disconnect()


# --- retries ----------------------------------------------------------------------------------------------------------


def test_case_66_a_server_that_never_acks_sees_every_copy_then_the_next_event() -> None:
    server, log, manager, session = up()
    answers = Answers()
    manager.emit("/", "a", retries=3, ack_timeout=5 * MS, on_answer=answers)
    manager.emit("/", "echo", [1], retries=3, ack_timeout=WAIT, on_answer=answers)
    (error, _), second = answers.wait_for(2)
    assert isinstance(error, TimeoutError) and "4 tries" in str(error) and second == (None, [1])
    assert session.events(5) == [["a"]] * 4 + [["echo", 1]]
    manager.disconnect()


def test_case_66_one_at_a_time_in_order_and_an_empty_ack_is_success() -> None:
    server, log, manager, session = up()
    answers = Answers()
    for name in "abc":
        manager.emit("/", name, retries=3, on_answer=answers)
    for count, name in enumerate("abc", 1):
        assert session.events(count)[-1] == [name]
        assert len(session.wait_packets(count, PacketType.EVENT)) == count
        ack(session, session.packets[-1])
    assert answers.wait_for(3) == [(None, [])] * 3
    manager.disconnect()


def test_case_66_a_drop_in_flight_is_sent_again_after_the_reconnection() -> None:
    server, log, manager, session = up()
    server.on_event = lambda session, packet: ack(session, packet, packet.data[0]) if session.index else None
    answers = Answers()
    for name in "abc":
        manager.emit("/", name, retries=3, on_answer=answers)
    session.events(1)
    session.drop()
    assert answers.wait_for(3) == [(None, ["a"]), (None, ["b"]), (None, ["c"])]
    assert server.session(1).events(3) == [["a"], ["b"], ["c"]]
    manager.disconnect()


def test_case_66_losses_count_as_tries_and_waiting_does_not() -> None:
    server, log, manager, session = up()
    answers = Answers()
    manager.emit("/", "a", retries=1, on_answer=answers)
    go_down(server, log)
    manager.emit("/", "b", retries=1, on_answer=answers)  # kept, whatever the policy
    second = come_up(server)
    second.events(1)
    second.drop()
    error = answers.wait_for(1)[0][0]
    assert isinstance(error, exceptions.AckLost)
    third = server.session(2)
    assert third.events(1) == [["b"]]
    ack(third, third.packets[-1])
    assert answers.wait_for(2)[1] == (None, [])
    manager.disconnect()


def test_case_66_the_answer_to_an_earlier_try_counts() -> None:
    server, log, manager, session = up()
    answers = Answers()
    manager.emit("/", "a", retries=1000000, ack_timeout=5 * MS, on_answer=answers)  # whenever the answer comes
    session.events(2)
    ack(session, session.packets[1], "first")
    assert answers.wait_for(1) == [(None, ["first"])]
    manager.disconnect()


def test_call_with_retries_goes_on_over_a_loss() -> None:
    server, log, manager, session = up()
    server.on_event = lambda session, packet: ack(session, packet, "done") if session.index else None
    with run_thread(manager.call, "/", "x", retries=5, timeout=WAIT) as calling:
        session.events(1)
        session.drop()
        assert calling.result(WAIT) == ["done"]
    server.on_event = None
    with pytest.raises(TimeoutError):  # the whole call has a limit, and what it leaves blocks nobody
        manager.call("/", "silent", retries=5, timeout=10 * MS)
    assert manager.call("/", "echo", [1], retries=5, timeout=WAIT) == [1]
    manager.disconnect()


def test_the_retry_queue_is_bounded() -> None:
    server, log, manager, session = up(max_buffer=2)
    manager.emit("/", "a", retries=1)
    manager.emit("/", "b", retries=1)
    with pytest.raises(exceptions.BufferFull):
        manager.emit("/", "c", retries=1)
    manager.disconnect()


# --- the pure parts ---------------------------------------------------------------------------------------------------


def request(name: str = "x", namespace: str = "/", **options: Any) -> Request:
    return Request(namespace, [name], **options)


def test_the_buffer_counts_bytes_and_takes_by_namespace() -> None:
    buffer = OfflineBuffer(10, 6, "raise")
    one, two, three = request("abc"), request("de", "/b"), request("f")
    for item in (one, two, three):
        assert buffer.put(item) == []
    assert buffer.bytes == 6 and len(buffer) == 3
    with pytest.raises(exceptions.BufferFull):
        buffer.put(request("g"))
    assert buffer.take("/b") == [two] and buffer.bytes == 4
    buffer.remove(one)
    buffer.remove(one)
    assert buffer.bytes == 1 and buffer.take() == [three] and buffer.bytes == 0 and len(buffer) == 0
    dropping = OfflineBuffer(10, 6, "drop_oldest")
    dropping.put(one)
    dropping.put(two)
    assert dropping.put(request("ghij")) == [one]
    with pytest.raises(exceptions.BufferFull):
        dropping.put(request("much too large"))
    with pytest.raises(exceptions.BufferFull):
        OfflineBuffer(0, 6, "drop_oldest").put(one)


def test_the_retry_queue_has_one_in_flight() -> None:
    queue = RetryQueue(5)
    one, two = request(retries=1), request(retries=1)
    queue.put(one)
    queue.put(two)
    assert queue.next() is one and queue.next() is None
    assert queue.missed() is None and queue.next() is one and queue.missed() is one
    assert queue.next() is two
    queue.ended(two)
    assert queue.next() is None and queue.missed() is None and len(queue) == 0
    queue.put(one)
    queue.put(two)
    queue.next()
    queue.ended(two)  # not the one in flight
    assert queue.in_flight and queue.take() == [one] and not queue.in_flight


def test_timers_are_next_due_cancelled_and_cleaned() -> None:
    timers = Timers()
    items: Dict[int, Request] = {number: request() for number in range(200)}
    assert timers.add(items[5], 5.0) and not timers.add(items[6], 6.0) and timers.add(items[4], 4.0)
    items[4].settle(None, [])
    assert timers.next() == 5.0 and timers.due(4.9) == [] and timers.due(10.0) == [items[5], items[6]]
    assert timers.next() is None
    for number in range(100, 200):
        timers.add(items[number], float(number))
        items[number].settle(None, [])
    assert len(timers) < 100  # what is answered does not stay until its time


def test_disconnected_records_have_the_order_of_the_stream() -> None:
    server, log, manager, session = up()
    for number in range(100):
        session.emit("n", number)
    session.drop()
    log.wait_for(2, Connected)
    story = log.story()
    assert story.index("-/ transport close") == 101 and story[100] == "/ n 99"
    assert len(log.of(Disconnected)) == 1
    manager.disconnect()
