"""Invocations: an event whose answer the client waits for (protocol reference 2.6). Core first, then over sockets."""

from __future__ import annotations

import threading

import pytest

from simplepubsub.exceptions import RefuseEvent, RemoteProtocolError
from simplepubsub.server.limits import Limits
from simplepubsub.server.wire import Outgoing
from simplepubsub.webpubsub.messages import CancelInvocation, Event, Invoke, JoinGroup
from tests.helpers import scaled, wait_until
from tests.rawclient import PLAIN, RELIABLE, Clients, ok
from tests.test_hub import NOW, Link, World


@pytest.fixture
def world():
    return World()


def begun(world, session, number="1", event="sum", data=None, data_type=None):
    """Invoke, and return the command of the one call that this makes."""
    world.calls()
    world.do(session, Invoke(number, event, data, data_type))
    (call,) = world.calls()
    assert call.kind == "event" and call.session is session
    return call.event


def finish(world, session, invoke, reply=None, error=None, **more):
    outgoing = None if reply is None else Outgoing(None, None, *reply)
    world.hub.finish_event(session, invoke, outgoing, error, NOW, **more)
    return world.read(session)


def success(number, **more):
    return dict({"type": "invokeResponse", "invocationId": number, "success": True}, **more)


def failure(answer, number="1"):
    assert (answer["type"], answer["invocationId"], answer["success"]) == ("invokeResponse", number, False)
    assert answer["error"]["message"]
    return answer["error"]["name"]


# --- the core ---------------------------------------------------------------------------------------------------------


def test_the_answer_carries_what_the_handler_returned(world):
    session = world.client()
    invoke = begun(world, session, data=[1, 2], data_type="json")
    assert invoke == Invoke("1", "sum", [1, 2], "json")
    assert world.read(session) == []
    assert finish(world, session, invoke, (3, "json")) == [success("1", dataType="json", data=3)]
    assert session.next_sequence == 1  # no message, no sequence id
    assert world.work.counters["invocations"] == 1 and world.work.counters["events"] == 0


@pytest.mark.parametrize(
    "reply, fields",
    [
        (None, {}),
        (("text", "text"), {"dataType": "text", "data": "text"}),
        (("", "text"), {"dataType": "text", "data": ""}),
        (({"code": "no"}, "json"), {"dataType": "json", "data": {"code": "no"}}),
        ((b"\1\2", "binary"), {"dataType": "binary", "data": "AQI="}),
    ],
)
def test_answers_have_data_and_type_or_neither(world, reply, fields):
    session = world.client()
    assert finish(world, session, begun(world, session), reply) == [success("1", **fields)]


@pytest.mark.parametrize("refused, name", [(False, "InvocationFailed"), (True, "BadRequest")])
def test_errors_have_names(world, refused, name):
    session = world.client()
    (answer,) = finish(world, session, begun(world, session), error="it broke", refused=refused)
    assert failure(answer) == name and answer["error"]["message"] == "it broke"


def test_errors_of_events_keep_their_name(world):
    session = world.client()
    world.do(session, Event("e", "", "text", 1))
    world.hub.finish_event(session, Event("e", "", "text", 1), None, "no", NOW, refused=True)
    assert world.read(session)[0]["error"]["name"] == "InternalServerError"


def test_an_id_is_taken_until_it_is_answered(world):
    session = world.client()
    first = begun(world, session)
    world.do(session, Invoke("1", "other"))
    assert world.calls() == []
    assert failure(world.read(session)[0]) == "BadRequest"
    assert finish(world, session, first) == [success("1")]
    assert finish(world, session, begun(world, session)) == [success("1")]


def test_ids_belong_to_a_connection(world):
    one, two = world.client(), world.client()
    first, second = begun(world, one), begun(world, two)
    assert finish(world, two, second) == [success("1")]
    assert finish(world, one, first) == [success("1")]


def test_a_cancelled_invocation_is_not_answered(world):
    session = world.client()
    invoke = begun(world, session)
    world.do(session, CancelInvocation("1"), CancelInvocation("1"), CancelInvocation("never"))
    again = begun(world, session)  # the same id, and equal to the first
    assert finish(world, session, invoke, ("old", "text")) == []
    assert finish(world, session, again, ("new", "text")) == [success("1", dataType="text", data="new")]
    assert world.work.counters["invocations_cancelled"] == 1
    assert world.work.counters["invocations"] == 1


def test_a_cancelled_invocation_that_has_not_begun_never_does(world):
    session = world.client()
    world.calls()
    for number in ("1", "2", "3"):
        world.do(session, Invoke(number, "sum"))
    session.calls.extend(world.calls())  # as the dispatcher keeps them: the first is running
    world.do(session, CancelInvocation("1"), CancelInvocation("3"))
    assert [call.event.invocation_id for call in session.calls] == ["1", "2"]
    world.do(session, Invoke("4", "sum"), CancelInvocation("4"))
    assert world.calls() == []


def test_invocations_and_events_wait_together_when_there_are_too_many():
    world = World(Limits(max_waiting_events=2))
    session = world.client()
    world.calls()
    world.do(session, Event("e", "", "text"), Invoke("1", "sum"))
    session.calls.extend(world.calls())
    assert world.hub.execute(session, Invoke("2", "sum"), NOW) is False
    assert world.hub.execute(session, Event("e", "", "text"), NOW) is False
    world.do(session, Invoke("1", "sum"), JoinGroup("lobby"), CancelInvocation("1"))  # these need not wait
    world.do(session, Invoke("2", "sum"))


def test_answers_go_to_the_present_socket_or_are_lost(world):
    session = world.client()
    kept, lost = begun(world, session, "kept"), begun(world, session, "lost")
    world.hub.lost(session, NOW)
    assert finish(world, session, lost) == []
    world.hub.recover(session.connection_id, session.reconnection_token, Link(), NOW)
    world.read(session)
    assert finish(world, session, kept) == [success("kept")]
    gone = begun(world, session, "gone")
    world.hub.end(session, None)
    assert finish(world, session, gone) == []


def test_an_answer_that_cannot_be_carried_may_be_replaced_by_an_error(world):
    session = world.client()
    invoke = begun(world, session)
    with pytest.raises(RemoteProtocolError):
        finish(world, session, invoke, (float("nan"), "json"))
    assert failure(finish(world, session, invoke, error="not JSON")[0]) == "InvocationFailed"


# --- over sockets -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clients(server):
    with Clients(server) as clients:
        yield clients


def ask(client, number, event="sum", **more):
    client.send(dict({"type": "invoke", "invocationId": number, "target": "event", "event": event}, **more))


def test_handlers_answer_invocations(server, clients):
    @server.on("sum")
    def add(event):
        if not isinstance(event.data, list):
            raise RefuseEvent(400, "a list please")
        return sum(event.data)

    @server.on("nothing")
    def nothing(event):
        assert event.data is None and event.data_type is None

    @server.on("broken")
    def broken(event):
        raise OSError("secret")

    server.on("busy", handler=lambda event: (_ for _ in ()).throw(RefuseEvent(503, "come back later")))
    server.on("bytes", handler=lambda event: event.data[::-1])
    client = clients.connect(PLAIN)
    ask(client, "1", dataType="json", data=[1, 2])
    assert client.receive() == success("1", dataType="json", data=3)
    ask(client, "2", dataType="text", data="x")
    answer = client.receive()
    assert failure(answer, "2") == "BadRequest" and answer["error"]["message"] == "a list please"
    ask(client, "3", "nothing")
    assert client.receive() == success("3")
    ask(client, "4", "broken")
    answer = client.receive()
    assert failure(answer, "4") == "InvocationFailed" and "secret" not in answer["error"]["message"]
    ask(client, "5", "unheard.of")
    assert failure(client.receive(), "5") == "InvocationFailed"
    ask(client, "6", "bytes", dataType="binary", data="AQI=")
    assert client.receive() == success("6", dataType="binary", data="AgE=")
    ask(client, "7", "busy")
    assert failure(client.receive(), "7") == "InvocationFailed"
    assert server.stats()["invocations"] == 7


def test_cancelling_lets_the_next_call_through(server, clients):
    entered, release, ran = threading.Event(), threading.Event(), []

    @server.on("slow")
    def slow(event):
        ran.append(event.data)
        if len(ran) == 1:
            entered.set()
            release.wait(scaled(20))
        return event.data

    client = clients.connect(PLAIN)
    for number in "123":
        ask(client, number, "slow", dataType="text", data=number)
    assert entered.wait(scaled(10))
    for number in "12":
        client.send({"type": "cancelInvocation", "invocationId": number})
    client.assert_quiet()
    release.set()
    assert client.receive() == success("3", dataType="text", data="3")
    assert ran == ["1", "3"]
    assert server.stats()["invocations_cancelled"] == 2
    client.assert_quiet()


def test_an_invocation_that_outlives_a_socket_is_answered_on_the_next(server, clients):
    entered, release = threading.Event(), threading.Event()

    @server.on("slow")
    def slow(event):
        entered.set()
        release.wait(scaled(20))
        return "done"

    client = clients.connect(RELIABLE)
    ask(client, "1", "slow")
    assert entered.wait(scaled(10))
    client.abort()
    wait_until(lambda: server.stats()["retained"] == 1)
    with client.recover() as again:
        release.set()
        assert again.receive() == success("1", dataType="text", data="done")
        again.join("lobby", 7)


def test_invocations_keep_their_place_among_events(server, clients):
    order = []
    server.on("*", handler=lambda event: order.append(event.data))
    client = clients.connect(PLAIN)
    for number in range(20):
        if number % 2:
            ask(client, str(number), "e", dataType="json", data=number)
        else:
            client.send({"type": "event", "event": "e", "ackId": number, "dataType": "json", "data": number})
    assert client.receive_many(20) == [success(str(n)) if n % 2 else ok(n) for n in range(20)]
    assert order == list(range(20))


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "invoke", "event": "sum"},
        {"type": "invoke", "invocationId": "", "event": "sum"},
        {"type": "invoke", "invocationId": 1, "event": "sum"},
        {"type": "invoke", "invocationId": "1", "event": ""},
        {"type": "invoke", "invocationId": "1", "event": "sum", "target": "group"},
        {"type": "invoke", "invocationId": "1", "event": "sum", "dataType": "json"},
        {"type": "cancelInvocation"},
    ],
)
def test_malformed_invocations_close_the_connection(clients, frame):
    client = clients.connect(PLAIN)
    client.send(frame)
    assert client.expect_close()[0] == 1007
