"""The core of the Socket.IO client: connecting, refusals, losses, reconnection, and the end."""

from __future__ import annotations

import logging
import threading
from typing import Any, Dict, List

import pytest

from simplepubsub.exceptions import ConnectError
from simplepubsub.socketio import exceptions
from simplepubsub.socketio.manager import Manager, State
from simplepubsub.socketio.packet import PacketType
from simplepubsub.socketio.seams import Connected, Disconnected, Event, Finished, Lifecycle, Refused
from simplepubsub.socketio.settings import Options, backoff
from tests.helpers import MS, run_thread, scaled, wait_until

from .fake import PATIENCES, FakeServer, Log, make, quick

WAIT = scaled(5)


def connect(manager: Manager, namespaces: Any = ("/",), **options: Any) -> None:
    options.setdefault("wait_timeout", WAIT)
    manager.connect("http://server", namespaces=namespaces, **options)


# --- connecting -------------------------------------------------------------------------------------------------------


def test_connect_ask_for_each_namespace_and_run_the_connect_handlers_first() -> None:
    server, log, manager = make()
    seen: List[Any] = []
    log.handlers[Connected] = lambda record: seen.append((record.namespace, manager.connected, manager.state))
    assert manager.state is State.IDLE and not manager.connected and manager.namespaces == {}
    connect(manager, ["/", "/chat"], auth={"token": "t"})
    # The handlers have run, in them the client is connected already (section 3.4).
    assert [name for name, _, _ in seen] == ["/", "/chat"] and all(connected for _, connected, _ in seen)
    assert manager.namespaces == {"/": "sid/-0", "/chat": "sid/chat-0"}
    assert manager.sid("/chat") == "sid/chat-0" and manager.sid("/no") is None
    assert manager.state is State.CONNECTED and manager.active and manager.transport == "websocket"
    assert [(p.namespace, p.data) for p in server.session(0).packets] == [
        ("/", {"token": "t"}), ("/chat", {"token": "t"})
    ]
    manager.disconnect()
    assert manager.state is State.CLOSED and not manager.active and manager.sid() is None and manager.transport == ""
    assert log.story() == [
        "+/", "+/chat", "-/ client disconnect final", "-/chat client disconnect final", "end client disconnect"
    ]


def test_connect_without_auth_sends_an_empty_object_as_python_does() -> None:
    server, log, manager = make()
    connect(manager)
    assert server.session(0).groups[0] == ["0{}"]
    manager.disconnect()


def test_w39_auth_per_namespace_and_callables_that_take_the_namespace() -> None:
    server, log, manager = make()
    asked: List[str] = []

    def chat(namespace: str) -> Dict[str, str]:
        asked.append(namespace)
        return {"for": namespace}

    connect(manager, ["/", "/chat", "/none"], auth={"/": {"a": 1}, "/chat": chat})
    data = {p.namespace: p.data for p in server.session(0).packets}
    assert data == {"/": {"a": 1}, "/chat": {"for": "/chat"}, "/none": {}} and asked == ["/chat"]
    manager.disconnect()


def test_callables_are_asked_for_each_attempt_outside_the_lock() -> None:
    server, log, manager = make()
    calls: List[str] = []

    def value(name: str, result: Any) -> Any:
        def ask() -> Any:
            assert manager.state is not None  # needs the lock
            calls.append(name)
            return result(len(calls)) if callable(result) else result

        return ask

    auth = value("auth", lambda count: {"n": count})
    manager.connect(value("url", "http://server"), value("headers", {"X": "y"}), auth, ["/", "/b"], wait_timeout=WAIT)
    server.session(0).drop()
    second = server.session(1)
    second.wait_packets(2)
    assert calls == ["url", "headers", "auth"] * 2  # once per connection, also for two namespaces
    assert [packet.data for packet in second.packets] == [{"n": 6}, {"n": 6}]
    assert [(target.url, dict(target.headers)) for target in server.targets] == [("http://server", {"X": "y"})] * 2
    manager.disconnect()


@pytest.mark.parametrize("which", ["url", "headers", "auth"])
def test_a_callable_that_fails_fails_the_attempt_and_says_which(which: str) -> None:
    server, log, manager = make()

    def broken() -> Any:
        raise LookupError("no access_token=secret today")

    arguments: Dict[str, Any] = {"url": "http://server", which: broken}
    with pytest.raises(exceptions.ConnectionError, match="callable for the %s raised LookupError" % which) as caught:
        manager.connect(**arguments)
    assert "secret" not in str(caught.value)
    assert not server.sessions
    assert log.story()[-1] == "end transport error"


def test_w21_the_callers_headers_are_not_touched_and_not_watched() -> None:
    server, log, manager = make()
    headers = {"Cookie": "a=b"}
    manager.connect("http://server", headers, wait_timeout=WAIT)
    headers["Cookie"] = "changed"
    server.session(0).drop()
    server.session(1)
    assert [target.headers["Cookie"] for target in server.targets] == ["a=b", "a=b"]
    manager.disconnect()


@pytest.mark.parametrize(
    "arguments", [{"url": 5}, {"auth": [1]}, {"auth": {"a": b"x"}}, {"namespaces": []}, {"namespaces": ["/a,b"]},
                  {"timeout": -1}, {"wait_timeout": "x"}]
)
def test_bad_arguments_are_value_errors(arguments: Dict[str, Any]) -> None:
    server, log, manager = make()
    with pytest.raises(ValueError):
        manager.connect(**dict({"url": "http://server", "wait_timeout": WAIT}, **arguments))
    assert not manager.active


def test_case_57_a_first_attempt_that_fails_raises_at_once_with_the_payload() -> None:
    server, log, manager = make()
    failure = ConnectError("HTTP 403", url="http://server")
    failure.payload = {"code": 4, "message": "Forbidden"}  # type: ignore[attr-defined]
    server.failures.append(failure)
    with pytest.raises(exceptions.ConnectionError) as caught:
        connect(manager, ["/", "/b"])
    assert caught.value.payload == {"code": 4, "message": "Forbidden"} and caught.value.url == "http://server"
    assert [record.data for record in log.of(Refused)] == [failure.payload] * 2  # type: ignore[attr-defined]
    assert len(server.targets) == 1 and manager.state is State.CLOSED
    connect(manager)  # and may try again
    manager.disconnect()


def test_case_57_with_retry_it_goes_on_until_it_works() -> None:
    server, log, manager = make()
    server.failures += [ConnectError("no"), ConnectError("no")]
    connect(manager, retry=True)
    assert len(server.targets) == 3 and manager.connected
    manager.disconnect()


def test_case_57_with_retry_it_goes_on_until_the_deadline() -> None:
    server, log, manager = make()
    server.down = lambda: ConnectError("no")
    for patience in PATIENCES:
        del server.targets[:]
        with pytest.raises(exceptions.ConnectionError, match="in time"):
            connect(manager, retry=True, timeout=scaled(patience))
        assert not manager.active
        if len(server.targets) > 1:
            break
    assert len(server.targets) > 1


def test_with_retry_the_attempts_are_limited_too() -> None:
    server, log, manager = make(attempts=2)
    server.down = lambda: ConnectError("no")
    with pytest.raises(exceptions.ConnectionError, match="no"):
        connect(manager, retry=True)
    assert len(server.targets) == 3


def test_w19_a_refusal_carries_what_the_server_said_and_leaves_nothing_behind() -> None:
    server, log, manager = make()
    server.refused["/deny"] = {"message": "not allowed", "data": {"code": 7}}
    with pytest.raises(exceptions.ConnectionError, match="/deny .not allowed.") as caught:
        connect(manager, ["/", "/deny"])
    assert caught.value.refused == {"/deny": {"message": "not allowed", "data": {"code": 7}}}
    assert isinstance(caught.value, ConnectionError) and isinstance(caught.value, ConnectError)  # the builtin, too
    session = server.session(0)
    assert [p.namespace for p in session.packets if p.type == PacketType.DISCONNECT] == ["/"] and session.over
    assert sorted(log.story()[:2]) == ["!/deny %r" % server.refused["/deny"], "+/"]
    assert log.story()[2:] == ["-/ client disconnect final", "end transport error"]


@pytest.mark.parametrize("payload", ["Unable to connect", None, {"message": "x"}, ["a", 1]])
def test_every_form_of_refusal_is_surfaced(payload: Any) -> None:
    server, log, manager = make()
    server.refused["/"] = payload
    with pytest.raises(exceptions.ConnectionError) as caught:
        connect(manager)
    assert caught.value.refused == {"/": payload}
    assert [record.data for record in log.of(Refused)] == [payload]


def test_case_30_one_refusal_may_leave_the_others_usable() -> None:
    server, log, manager = make(require_all=False)
    server.refused["/deny"] = "no"
    connect(manager, ["/", "/deny"])
    assert list(manager.namespaces) == ["/"] and manager.call("/", "echo", [1], timeout=WAIT) == [1]
    manager.disconnect()
    server.refused["/"] = "no"
    with pytest.raises(exceptions.ConnectionError):  # nothing is left
        connect(manager, ["/", "/deny"])


def test_a_namespace_without_an_answer_is_refused_at_the_deadline() -> None:
    server, log, manager = make()
    server.silent.append("/b")
    for patience in PATIENCES:  # the answer for the other one may take its time
        before = len(log.of(Refused))
        with pytest.raises(exceptions.ConnectionError, match="/b .no answer") as caught:
            connect(manager, ["/", "/b"], wait_timeout=scaled(patience))
        if "/" not in caught.value.refused:
            break
    assert list(caught.value.refused) == ["/b"]
    assert [record.namespace for record in log.of(Refused)[before:]] == ["/b"]


def test_an_old_server_is_a_clear_refusal() -> None:
    server, log, manager = make()
    server.on_connect = lambda session, packet: session.raw("0")
    with pytest.raises(exceptions.ConnectionError, match="old protocol"):
        connect(manager)


def test_the_connection_is_lost_while_it_is_made() -> None:
    server, log, manager = make()
    server.on_connect = lambda session, packet: session.drop("transport error", OSError("reset"))
    with pytest.raises(exceptions.ConnectionError, match="lost .transport error"):
        connect(manager)
    assert len(log.of(Refused)) == 1


def test_without_wait_it_returns_when_the_connection_is_open() -> None:
    server, log, manager = make()
    server.silent.append("/")
    connect(manager, wait=False)
    assert manager.active and not manager.connected
    server.session(0).accept("/")
    log.wait_for(1, Connected)
    assert manager.connected
    manager.disconnect()


def test_without_wait_refusals_are_events_and_losses_are_followed_by_attempts() -> None:
    server, log, manager = make()
    server.silent += ["/", "/b"]
    connect(manager, ["/", "/b"], wait=False)
    server.session(0).drop()
    second = server.session(1)
    second.wait_packets(2)
    second.refuse("/b", "no")
    second.accept("/")
    log.wait_for(1, Connected)
    wait_until(lambda: manager.state is State.CONNECTED)
    manager.disconnect()


def test_connect_twice_raises_and_disturbs_nothing() -> None:
    server, log, manager = make()
    connect(manager)
    with pytest.raises(exceptions.ConnectionError, match="Already connected"):
        connect(manager)
    assert manager.connected
    manager.disconnect()


def test_an_attempt_that_hangs_is_given_up_in_time() -> None:
    server, log, manager = make(open_timeout=50 * MS)
    server.hang = True
    with pytest.raises(exceptions.ConnectionError, match="too long"):
        connect(manager)


def test_a_callable_that_hangs_is_given_up_in_time_and_does_no_harm_later() -> None:
    server, log, manager = make()
    options = manager.options
    gate = threading.Event()

    def url() -> str:
        gate.wait(WAIT * 10)
        return "http://server"

    for patience in PATIENCES:
        manager.options = options._replace(open_timeout=scaled(patience))
        with pytest.raises(exceptions.ConnectionError, match="took too long") as caught:
            manager.connect(url)
        if "callable" in str(caught.value):  # else the thread that calls it was late itself
            break
    assert "the callable for the url took too long" in str(caught.value)
    manager.options = options
    connect(manager)
    gate.set()
    assert len(server.sessions) == 1  # what comes late opens nothing
    manager.disconnect()


# --- losses and reconnection ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["transport close", "transport error", "ping timeout"])
def test_case_51_a_loss_is_told_and_mended(reason: str) -> None:
    """W18, W27: honest reasons, and all of these come back."""
    server, log, manager = make()
    connect(manager, ["/", "/b"])
    server.session(0).drop(reason)
    log.wait_for(4, Connected)
    wait_until(lambda: manager.state is State.CONNECTED)
    assert manager.namespaces == {"/": "sid/-1", "/b": "sid/b-1"}
    story = log.story()
    assert story[2:4] == ["-/ %s" % reason, "-/b %s" % reason]
    log.wait_for(2, Lifecycle)
    assert [(r.name, r.args) for r in log.of(Lifecycle)] == [("reconnect_attempt", (1,)), ("reconnect", (1,))]
    manager.disconnect()


def test_w40_a_malformed_packet_is_a_parse_error_and_what_came_before_it_counts() -> None:
    server, log, manager = make()
    connect(manager)
    server.session(0).raw('2["good"]', "7", '2["lost"]')
    log.wait_for(2, Connected)
    assert log.args == [["good"]] and log.of(Disconnected)[0].reason == "parse error"
    wait_until(lambda: server.session(0).over)
    manager.disconnect()


def test_a_serializer_that_fails_is_a_parse_error_too() -> None:
    class Broken:
        def encode(self, packet: Any) -> List[Any]:
            return ["x"]

        def Decoder(self) -> Any:
            return self

        def feed(self, message: Any) -> Any:
            raise KeyError("broken")

    server, log = FakeServer(), Log()
    server.decoder = None
    manager = Manager(server, log, quick(), Broken())
    with pytest.raises(exceptions.ConnectionError, match="lost .parse error.*serializer failed") as caught:
        connect(manager)
    assert isinstance(caught.value.__cause__, exceptions.ConnectionError)


def test_without_reconnection_a_loss_is_the_end() -> None:
    server, log, manager = make(reconnection=False)
    connect(manager)
    server.session(0).drop("transport error", OSError("reset"))
    assert manager.wait(WAIT)
    assert log.story()[1:] == ["-/ transport error final", "end transport error"] and manager.state is State.CLOSED


def test_case_54_a_kick_is_the_end_and_the_disconnect_handler_may_connect_again() -> None:
    server, log, manager = make()
    again = threading.Event()

    def come_back(record: Disconnected) -> None:
        if not again.is_set():
            again.set()
            connect(manager)

    log.handlers[Disconnected] = come_back
    connect(manager)
    server.session(0).kick()
    server.session(1)
    log.wait_for(2, Connected)
    assert log.story()[:3] == ["+/", "-/ server disconnect final", "end server disconnect"]
    with run_thread(manager.wait, WAIT) as waiting:
        manager.disconnect()
        assert waiting.result(WAIT)


def test_case_34_a_kick_from_one_namespace_leaves_the_other_and_a_loss_does_not_bring_it_back() -> None:
    server, log, manager = make()
    connect(manager, ["/", "/b"])
    server.session(0).kick("/b")
    log.wait_for(1, Disconnected)
    assert list(manager.namespaces) == ["/"]
    server.session(0).drop()
    server.session(1).wait_packets(1)
    log.wait_for(3, Connected)
    assert list(manager.namespaces) == ["/"]
    server.session(1).kick("/")
    assert manager.wait(WAIT)
    assert server.session(1).polite


def test_case_36_what_a_disconnect_packet_carries_is_surfaced() -> None:
    server, log, manager = make()
    connect(manager, ["/", "/b"])
    server.session(0).raw('1/b,{"message":"nope","data":{"code":7}}')
    assert log.wait_for(1, Disconnected)[0].data == {"message": "nope", "data": {"code": 7}}
    manager.disconnect()


def test_a_disconnect_packet_instead_of_an_answer_is_a_refusal() -> None:
    server, log, manager = make()
    server.on_connect = lambda session, packet: session.raw('1{"message":"nope"}')
    with pytest.raises(exceptions.ConnectionError) as caught:
        connect(manager)
    assert caught.value.refused == {"/": {"message": "nope"}}


def test_packets_for_unknown_namespaces_and_second_answers_are_ignored() -> None:
    server, log, manager = make()
    connect(manager)
    session = server.session(0)
    session.raw('2/x,["a"]', "1/x,", '0/x,{"sid":"q"}', '4/x,"no"', "3/x,1[]", '0{"sid":"other"}', '4"no"', '2["b"]')
    assert log.wait_for(1, Event)[0].args == ["b"] and manager.sid() == "sid/-0"
    manager.disconnect()


def test_w15_after_giving_up_a_manual_connect_is_a_new_start() -> None:
    server, log, manager = make(attempts=2)
    connect(manager)
    server.down = lambda: ConnectError("down")
    server.session(0).drop()
    assert manager.wait(WAIT)
    assert [r.name for r in log.of(Lifecycle)] == [
        "reconnect_attempt", "reconnect_error", "reconnect_attempt", "reconnect_error", "reconnect_failed"
    ]
    assert log.story()[-1] == "end transport close" and len(server.targets) == 3
    server.down = None
    connect(manager)
    server.session(1).drop()
    log.wait_for(3, Connected)
    manager.disconnect()


def test_w16_every_attempt_has_the_callers_wait_timeout() -> None:
    server, log, manager = make()
    connect(manager, wait_timeout=WAIT)
    server.silent.append("/")
    server.session(0).drop()
    second = server.session(1)
    second.wait_packets(1)
    assert not second.over and manager.state is State.RECONNECTING
    second.accept("/")
    log.wait_for(2, Connected)
    manager.disconnect()


def test_refusals_during_reconnection_are_reported_and_tried_again() -> None:
    server, log, manager = make()
    connect(manager, ["/", "/b"])
    server.refused["/b"] = "expired"
    server.session(0).drop()
    log.wait_for(2, Refused)
    server.refused.clear()
    wait_until(lambda: len(manager.namespaces) == 2)
    # The one that was accepted meanwhile was left again, and its handlers know.
    assert "-/ client disconnect" in log.story()
    manager.disconnect()


def test_refusals_may_be_final_during_reconnection() -> None:
    server, log, manager = make(retry_refused=False)
    connect(manager, ["/", "/b"])
    server.refused["/b"] = "expired"
    server.session(0).drop()
    wait_until(lambda: manager.state is State.CONNECTED and len(server.sessions) == 2)
    assert list(manager.namespaces) == ["/"]
    server.refused["/"] = "expired"
    server.session(1).drop()
    assert manager.wait(WAIT)
    assert len(server.sessions) == 3


def test_w17_case_52_backoff_is_proportional_and_bounded() -> None:
    options = Options()
    for attempt, (low, high) in enumerate([(0.5, 1.5), (1, 3), (2, 5), (2.5, 5), (2.5, 5)], 1):
        assert backoff(options, attempt, lambda: 0.0) == pytest.approx(low)
        assert backoff(options, attempt, lambda: 1.0) == pytest.approx(high)
        assert low <= (backoff(options, attempt) or 0) <= high
    assert backoff(options, 5000) is not None
    assert backoff(options._replace(attempts=3), 3) is not None
    assert backoff(options._replace(attempts=3), 4) is None
    assert backoff(options._replace(randomization=0), 2) == 2.0


@pytest.mark.parametrize(
    "changes", [{"delay": -1}, {"randomization": 2}, {"attempts": 1.5}, {"overflow": "x"}, {"strip_offset": "y"},
                {"max_buffer": True}, {"delay_max": float("inf")}, {"open_timeout": "1"}]
)
def test_options_are_checked(changes: Dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        make(**changes)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_case_48_what_was_emitted_is_written_before_the_end() -> None:
    """W6: the session flushes before it closes, and DISCONNECT follows when the server has handled the events.

    A Node server drops events that it reads together with DISCONNECT.
    """
    server, log, manager = make()
    connect(manager)
    for number in range(50):
        manager.emit("/", "n", [number])
    manager.disconnect()
    session = server.session(0)
    assert [p.data for p in session.packets[1:51]] == [["n", number] for number in range(50)]
    assert session.packets[51].type == PacketType.DISCONNECT and session.polite and session.drained == [51]


def test_case_48_leaving_a_namespace_waits_too_and_nothing_waits_without_events() -> None:
    server, log, manager = make()
    connect(manager, ["/", "/b"])
    manager.emit("/b", "x")
    manager.leave("/b")
    manager.disconnect()
    session = server.session(0)
    assert session.drained == [3]
    assert [(p.type, p.namespace) for p in session.packets[2:]] == [
        (PacketType.EVENT, "/b"), (PacketType.DISCONNECT, "/b"), (PacketType.DISCONNECT, "/")
    ]


def test_w14_case_49_disconnect_during_an_outage_leaves_nothing_that_comes_back() -> None:
    server, log, manager = make()
    connect(manager)
    server.hang = True
    server.session(0).drop()
    server.wait_targets(2)
    manager.disconnect()
    assert manager.state is State.CLOSED and all(opener.aborted.is_set() for opener in server.openers[1:])
    server.hang = False
    assert len(server.sessions) == 1
    assert log.story()[-1] == "end client disconnect"


def test_case_49_disconnect_while_it_waits_for_the_next_attempt() -> None:
    server, log, manager = make(delay=60.0, delay_max=60.0)
    connect(manager)
    server.session(0).drop()
    log.wait_for(1, Disconnected)
    manager.disconnect()
    assert len(server.targets) == 1


@pytest.mark.parametrize("stage", ["opening", "asked"])
def test_case_49_disconnect_during_connect_ends_that(stage: str) -> None:
    server, log, manager = make()
    server.hang = stage == "opening"
    server.silent.append("/")
    with run_thread(connect, manager) as connecting:
        if stage == "opening":
            server.wait_targets(1)
        else:
            server.session(0).wait_packets(1)
        manager.disconnect()
        with pytest.raises(exceptions.ConnectionError, match="was disconnected"):
            connecting.result(WAIT)
    assert not manager.active
    if stage == "asked":  # a namespace that is not connected is not left: the server would drop the connection
        assert [p.type for p in server.session(0).packets] == [PacketType.CONNECT]


@pytest.mark.parametrize("kind", [Connected, Event, Disconnected, Refused])
def test_case_49_disconnect_inside_a_handler(kind: type) -> None:
    server, log, manager = make()
    log.handlers[kind] = lambda record: manager.disconnect()
    if kind is Refused:
        server.refused["/"] = "no"
        with pytest.raises(exceptions.ConnectionError):
            connect(manager)
    else:
        connect(manager)
        server.session(0).emit("x")
        if kind is Disconnected:
            server.session(0).drop()
    assert manager.wait(WAIT)
    assert len(log.of(Finished)) == 1


def test_case_49_disconnect_inside_a_callable() -> None:
    server, log, manager = make()

    def url() -> str:
        manager.disconnect()
        return "http://server"

    with pytest.raises(exceptions.ConnectionError):
        manager.connect(url)
    assert not server.sessions


def test_disconnect_twice_and_before_connect_does_nothing() -> None:
    server, log, manager = make()
    manager.disconnect()
    assert manager.wait(0)
    connect(manager)
    manager.disconnect()
    manager.disconnect()
    assert len(log.of(Finished)) == 1


def test_disconnect_has_a_limit_when_the_peer_does_not_answer() -> None:
    server, log, manager = make()
    connect(manager)
    server.closing.clear()
    manager.disconnect(timeout=20 * MS)
    wait_until(lambda: server.session(0).aborts)
    connect(manager)
    server.closing.set()
    manager.disconnect()


def test_case_55_wait_returns_after_the_end_and_not_before() -> None:
    server, log, manager = make()
    connect(manager)
    assert not manager.wait(10 * MS)
    server.session(0).drop()
    with run_thread(manager.wait) as waiting:
        log.wait_for(2, Connected)
        assert waiting.running
        manager.disconnect()
        assert waiting.result(WAIT)


def test_case_55_an_attempt_that_hangs_in_a_callable_holds_up_wait_for_a_moment_only(monkeypatch: Any) -> None:
    monkeypatch.setattr("simplepubsub.socketio.life.CLEANUP", 0.01)
    server, log, manager = make()
    gate, called = threading.Event(), threading.Event()

    def url() -> str:
        called.set()
        gate.wait(WAIT * 10)
        return "http://server"

    with run_thread(manager.connect, url) as connecting:
        assert called.wait(WAIT)
        manager.disconnect()
        with pytest.raises(exceptions.ConnectionError, match="was disconnected"):
            connecting.result(WAIT)
    assert manager.wait(WAIT)
    assert manager.wait()
    gate.set()


def test_an_old_session_touches_nothing_of_the_new_one() -> None:
    server, log, manager = make()
    connect(manager)
    old = server.session(0)
    old.gate.clear()  # what the reader has is delivered late
    old.raw('2["late"]')
    manager.disconnect(timeout=20 * MS)
    connect(manager)
    old.gate.set()
    wait_until(lambda: old.closed_with is not None)
    assert log.args == [] and manager.connected and log.of(Disconnected)[1:] == []
    manager.disconnect()


# --- namespaces at run time -------------------------------------------------------------------------------------------


def test_case_33_join_and_leave_on_a_live_connection() -> None:
    """W39: per-namespace life."""
    server, log, manager = make()
    connect(manager)
    manager.join("/b", auth={"t": 1}, timeout=WAIT)
    assert list(manager.namespaces) == ["/", "/b"] and server.session(0).packets[1].data == {"t": 1}
    manager.join("/b")  # once is enough: a second CONNECT would end the connection
    server.session(0).drop()
    wait_until(lambda: manager.sid("/b") == "sid/b-1")
    assert server.session(1).wait_packets(2)[1].data == {"t": 1}
    manager.leave("/b")
    last = server.session(1).packets[-1]
    assert (last.type, last.namespace) == (PacketType.DISCONNECT, "/b")
    assert log.of(Disconnected)[-1] == Disconnected("/b", "client disconnect", None, True)
    with pytest.raises(exceptions.BadNamespaceError):
        manager.emit("/b", "x")
    with pytest.raises(exceptions.BadNamespaceError):
        manager.leave("/b")
    manager.emit("/", "x")
    manager.leave("/")
    assert manager.state is State.CLOSED and server.session(1).polite


def test_join_is_refused_and_nothing_else_happens() -> None:
    server, log, manager = make()
    server.refused["/b"] = {"message": "no"}
    connect(manager)
    with pytest.raises(exceptions.ConnectionError) as caught:
        manager.join("/b", timeout=WAIT)
    assert caught.value.refused == {"/b": {"message": "no"}} and manager.connected
    server.refused.clear()
    manager.join("/b", timeout=WAIT)
    manager.disconnect()


def test_join_without_an_answer_and_the_answer_that_comes_late() -> None:
    server, log, manager = make()
    connect(manager)
    server.silent.append("/b")
    with pytest.raises(exceptions.ConnectionError, match="in time"):
        manager.join("/b", timeout=10 * MS)
    session = server.session(0)
    assert [p.type for p in session.packets] == [PacketType.CONNECT] * 2  # DISCONNECT would be an error of ours now
    session.accept("/b")
    session.wait_packets(1, PacketType.DISCONNECT)
    assert list(manager.namespaces) == ["/"]
    with pytest.raises(exceptions.ConnectionError):
        manager.join("/b", timeout=10 * MS)
    with run_thread(manager.join, "/b", timeout=WAIT) as joining:
        wait_until(lambda: "/b" in manager._run.traffic.wanted)
        session.accept("/b")  # the answer to the one that was given up counts
        joining.result(WAIT)
    assert len(session.wait_packets(3, PacketType.CONNECT)) == 3
    manager.disconnect()


def test_join_while_reconnecting_waits_for_the_next_connection() -> None:
    server, log, manager = make()
    connect(manager)
    server.hang = True
    server.session(0).drop()
    server.wait_targets(2)
    with run_thread(manager.join, "/b", lambda: {"n": 1}, timeout=WAIT) as joining:
        wait_until(lambda: "/b" in manager._run.traffic.wanted)
        server.hang = False
        with server.changed:
            server.changed.notify_all()
        joining.result(WAIT)
    assert list(manager.namespaces) == ["/", "/b"]
    manager.disconnect()


def test_join_without_a_connection_is_an_error() -> None:
    server, log, manager = make()
    with pytest.raises(exceptions.DisconnectedError):
        manager.join("/b")


# --- P6 ---------------------------------------------------------------------------------------------------------------


def test_p6_no_secret_is_logged(caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "simplepubsub")
    server, log, manager = make()
    server.on_connect = lambda session, packet: session.accept(packet.namespace, pid="private-id")
    manager.connect("http://server?access_token=top-secret", {"Cookie": "top-secret"}, {"token": "top-secret"},
                    wait_timeout=WAIT)
    server.session(0).raw('2["x"]', "7")
    log.wait_for(2, Connected)
    manager.disconnect()
    for secret in ("top-secret", "private-id", "engine-0", "sid/-0"):
        assert secret not in caplog.text
