"""`Client` in front of a fake server: every row of the API tables (3.1, 3.2) and what goes beyond."""

from __future__ import annotations

import builtins
import inspect
import io
import logging
import sys
import threading
from typing import Any, Iterator, List

import pytest

from simplepubsub import socketio
from simplepubsub.exceptions import ConnectError, InvalidArgument
from simplepubsub.socketio.packet import Packet, PacketType
from tests.helpers import Recorder, run_thread, scaled, subprocess_python, wait_until
from tests.socketio.faces import URL, client_on
from tests.socketio.fake import FakeServer

#: Threads of the shared server of the run, which come when they like.
SHARED = ("simplepubsub-server", "simplepubsub-handler")

ACK, CONNECT, DISCONNECT, EVENT = PacketType.ACK, PacketType.CONNECT, PacketType.DISCONNECT, PacketType.EVENT


@pytest.fixture()
def peer() -> FakeServer:
    return FakeServer()


@pytest.fixture()
def sio(peer: FakeServer) -> Iterator[socketio.Client]:
    with client_on(peer) as client:
        yield client


# --- names and defaults ---------------------------------------------------------------------------------------------


def defaults(function: Any) -> Any:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]


REQUIRED = inspect.Parameter.empty


@pytest.mark.parametrize("function, expected", [
    (socketio.Client.__init__, [
        ("reconnection", True), ("reconnection_attempts", 0), ("reconnection_delay", 1), ("reconnection_delay_max", 5),
        ("randomization_factor", 0.5), ("logger", False), ("serializer", "default"), ("json", None),
        ("handle_sigint", False)]),  # W28: not on by default
    (socketio.Client.connect, [
        ("url", REQUIRED), ("headers", None), ("auth", None), ("transports", None), ("namespaces", None),
        ("socketio_path", "socket.io"), ("wait", True), ("wait_timeout", 1), ("retry", False)]),
    (socketio.Client.emit, [("event", REQUIRED), ("data", None), ("namespace", None), ("callback", None)]),
    (socketio.Client.send, [("data", REQUIRED), ("namespace", None), ("callback", None)]),
    (socketio.Client.call, [("event", REQUIRED), ("data", None), ("namespace", None), ("timeout", 60)]),
    (socketio.Client.get_sid, [("namespace", None)]),
    (socketio.Client.on, [("event", REQUIRED), ("handler", None), ("namespace", None)]),
    (socketio.Client.sleep, [("seconds", 0)]),
    (socketio.SimpleClient.connect, [
        ("url", REQUIRED), ("headers", None), ("auth", None), ("transports", None), ("namespace", "/"),
        ("socketio_path", "socket.io"), ("wait_timeout", 5)]),
    (socketio.SimpleClient.emit, [("event", REQUIRED), ("data", None)]),
    (socketio.SimpleClient.call, [("event", REQUIRED), ("data", None), ("timeout", 60)]),
    (socketio.SimpleClient.receive, [("timeout", None)]),
    (socketio.ClientNamespace.emit, [("event", REQUIRED), ("data", None), ("namespace", None), ("callback", None)]),
    (socketio.ClientNamespace.send, [("data", REQUIRED), ("room", None), ("namespace", None), ("callback", None)]),
    (socketio.ClientNamespace.call, [  # W31: finite by default
        ("event", REQUIRED), ("data", None), ("namespace", None), ("timeout", 60)]),
], ids=lambda value: getattr(value, "__qualname__", ""))
def test_w31_signatures_and_defaults(function: Any, expected: Any) -> None:
    assert defaults(function) == expected


def test_w30_exceptions_are_of_both_families() -> None:
    errors = socketio.exceptions
    assert issubclass(errors.TimeoutError, errors.SocketIOError)
    assert issubclass(errors.TimeoutError, builtins.TimeoutError)
    assert issubclass(errors.ConnectionError, errors.SocketIOError)
    assert issubclass(errors.ConnectionError, builtins.ConnectionError)
    assert issubclass(errors.BadNamespaceError, errors.SocketIOError)
    assert issubclass(errors.DisconnectedError, errors.SocketIOError)
    assert issubclass(errors.ConnectionRefusedError, errors.ConnectionError)


def test_reasons() -> None:
    reason = socketio.Client.reason
    assert (reason.CLIENT_DISCONNECT, reason.SERVER_DISCONNECT, reason.TRANSPORT_ERROR) == (
        "client disconnect", "server disconnect", "transport error")
    assert (reason.TRANSPORT_CLOSE, reason.PING_TIMEOUT, reason.PARSE_ERROR) == (
        "transport close", "ping timeout", "parse error")
    assert reason.INBOX_OVERFLOW == "inbox overflow"


# --- handlers -------------------------------------------------------------------------------------------------------


def test_decorators_and_methods_register_and_return_the_handler(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()

    @sio.event
    def message(*args: Any) -> None:
        seen.record("message", args)

    @sio.event(namespace="/chat")
    def note(*args: Any) -> None:
        seen.record("note", args)

    @sio.on("my message")
    def other(*args: Any) -> None:
        seen.record("my message", args)

    def last(*args: Any) -> None:
        seen.record("last", args)

    assert sio.on("my event", last) is last
    assert callable(message) and callable(note) and callable(other)
    sio.connect(URL)
    session = peer.session(0)
    assert list(sio.namespaces) == ["/", "/chat"]
    session.emit("message", 1, [2])
    session.emit("note", namespace="/chat")
    session.emit("my message", None)
    session.emit("my event", {"a": b"x"})
    assert seen.wait_for(4) == [(1, [2]), (), (None,), ({"a": b"x"},)]
    assert seen.names == ["message", "note", "my message", "last"]


def test_catch_alls_get_the_event_and_the_namespace(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()
    for event, namespace in (("*", "/"), ("known", "/"), ("e", "*"), ("*", "*")):
        sio.on(event, lambda *args, name="%s %s" % (event, namespace): seen.record(name, args), namespace)
    sio.connect(URL, namespaces=["/", "/x"])
    session = peer.session(0)
    for namespace in ("/", "/x"):
        for event in ("known", "e", "f"):
            session.emit(event, 1, namespace=namespace)
    seen.wait_for(6)
    assert seen.events == [
        ("known /", (1,)), ("* /", ("e", 1)), ("* /", ("f", 1)),
        ("* *", ("known", "/x", 1)), ("e *", ("/x", 1)), ("* *", ("f", "/x", 1)),
    ]


def test_w1_events_are_handled_in_order_by_one_thread(
    peer: FakeServer, sio: socketio.Client, switch_interval: Any
) -> None:
    seen: List[int] = []
    threads = set()
    done = threading.Event()

    @sio.event
    def n(number: int) -> None:
        seen.append(number)
        threads.add(threading.current_thread())
        if number == 1999:
            done.set()

    sio.connect(URL)
    session = peer.session(0)
    for number in range(2000):
        session.emit("n", number)
    assert done.wait(scaled(10))
    assert seen == list(range(2000))
    assert len(threads) == 1


def test_w1_binary_events_are_whole(peer: FakeServer, sio: socketio.Client, switch_interval: Any) -> None:
    seen: List[Any] = []
    done = threading.Event()

    @sio.event
    def b(*args: Any) -> None:
        seen.append(args)
        if len(seen) == 500:
            done.set()

    sio.connect(URL)
    for number in range(500):
        piece = b"%d" % number
        peer.session(0).emit("b", number, piece, {"x": [piece * 2]})
    assert done.wait(scaled(10))
    assert seen == [(n, b"%d" % n, {"x": [b"%d%d" % (n, n)]}) for n in range(500)]


def test_w2_a_slow_handler_makes_no_threads(peer: FakeServer, sio: socketio.Client) -> None:
    going, go_on, done = threading.Event(), threading.Event(), threading.Event()
    seen: List[int] = []

    @sio.event
    def slow(number: int) -> None:
        going.set()
        go_on.wait(scaled(10))
        seen.append(number)
        if len(seen) == 1000:
            done.set()

    sio.connect(URL)
    peer.session(0).emit("slow", 0)
    assert going.wait(scaled(5))
    before = set(threading.enumerate())
    for number in range(1, 1000):
        peer.session(0).emit("slow", number)
    assert sio.call("echo", 1) == 1  # the reader is past them all, and is not held up
    new = [thread.name for thread in set(threading.enumerate()) - before]
    assert not [name for name in new if not name.startswith(SHARED)]
    go_on.set()
    assert done.wait(scaled(10))
    assert seen == list(range(1000))


def test_w25_emits_of_many_threads_are_whole_groups(
    peer: FakeServer, sio: socketio.Client, switch_interval: Any
) -> None:
    sio.connect(URL)

    def emit(who: int) -> None:
        for number in range(50):
            sio.emit("b", (who, number, b"%d" % who, [b"%d" % number]))

    threads = [sio.start_background_task(emit, who) for who in range(6)]
    for thread in threads:
        thread.join(scaled(20))
    events = peer.session(0).events(300)  # the fake's decoder raises for a group that is torn
    for who in range(6):
        assert [data[2] for data in events if data[1] == who] == list(range(50))
    assert all(data[3:] == [b"%d" % data[1], [b"%d" % data[2]]] for data in events)


def test_w38_several_handlers_once_and_off(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()
    first = sio.on("e", lambda x: seen.record("first", x))
    sio.on("e", lambda x: seen.record("second", x), add=True)
    sio.once("e", lambda x: seen.record("once", x))

    @sio.once("f")
    def f() -> None:
        seen.record("f")

    sio.connect(URL)
    session = peer.session(0)
    session.emit("e", 1)
    session.emit("e", 2)
    session.emit("f")
    session.emit("f")
    session.emit("e", 3)
    seen.wait_for(8)
    assert seen.names == ["first", "second", "once", "first", "second", "f", "first", "second"]
    assert sio.off("e", first) == 1
    session.emit("e", 4)
    seen.wait_for(9)
    assert seen.names[8:] == ["second"]
    assert sio.off("e") == 1 and sio.off("f") == 0 and sio.off() == 0


def test_w38_listeners_for_everything(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()

    @sio.on_any
    def all_of_it(event: str, *args: Any) -> None:
        seen.record("in", (event,) + args)

    sio.on_any(lambda event, namespace, *args: seen.record("in*", (event, namespace) + args), "*")

    @sio.on_any_outgoing(namespace="/")
    def out(event: str, *args: Any) -> None:
        seen.record("out", (event,) + args)

    sio.on("e", lambda *args: seen.record("handler", args))
    sio.connect(URL)
    session = peer.session(0)
    session.emit("e", 1)
    session.emit("unhandled")
    seen.wait_for(5)
    assert seen.events == [
        ("in", ("e", 1)), ("in*", ("e", "/", 1)), ("handler", (1,)),
        ("in", ("unhandled",)), ("in*", ("unhandled", "/")),
    ]
    sio.emit("x", (1, 2))
    assert seen.events[5:] == [("out", ("x", 1, 2))]
    assert sio.off_any(all_of_it) == 1 and sio.off_any_outgoing() == 1 and sio.off_any(namespace="*") == 1
    sio.emit("y")
    session.emit("e", 2)
    seen.wait_for(7)
    assert seen.names[6:] == ["handler"]


def test_outgoing_listeners_hear_of_a_call_before_its_answer(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()
    sio.on_any_outgoing(lambda event, *args: seen.record(event, args))
    with pytest.raises(socketio.exceptions.BadNamespaceError):
        sio.call("early")
    sio.connect(URL)
    with pytest.raises(TimeoutError):
        sio.call("silent", 1, timeout=scaled(0.01))
    assert seen.events == [("silent", (1,))]


def test_a_failing_outgoing_listener_does_not_fail_the_emit(
    peer: FakeServer, sio: socketio.Client, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Recorder()
    sio.hook("error", lambda error, event, namespace: seen.record("error", (str(error), event, namespace)))
    sio.on_any_outgoing(lambda *args: 1 / 0)
    sio.connect(URL)
    assert sio.emit("x")
    assert seen.events == [("error", ("division by zero", "x", "/"))]
    assert peer.session(0).events(1) == [["x"]]


def test_handler_exceptions_are_logged_and_told_and_stop_nothing(
    peer: FakeServer, sio: socketio.Client, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Recorder()

    @sio.hook("error")
    def on_error(error: BaseException, event: str, namespace: str) -> None:
        seen.record("error", (type(error), event, namespace))
        raise RuntimeError("the hook fails, too")

    @sio.event
    def bad(x: int) -> None:
        raise KeyError(x)

    @sio.event
    def exits() -> None:
        raise SystemExit

    sio.on("good", lambda: seen.record("good"))
    sio.connect(URL)
    session = peer.session(0)
    session.emit("bad", 1, id=5)
    session.emit("bad")  # too few arguments
    session.emit("exits")
    session.emit("good", id=6)
    seen.wait_event("good")
    assert seen.payloads("error") == [(KeyError, "bad", "/"), (TypeError, "bad", "/"), (SystemExit, "exits", "/")]
    acks = session.wait_packets(1, ACK)
    assert [(packet.id, packet.data) for packet in acks] == [(6, [])]  # a handler that failed has answered nothing
    assert "the handler of bad [/] failed" in caplog.text and "KeyError" in caplog.text
    assert sio.connected


@pytest.mark.parametrize("returned, expected", [
    (None, []), (5, [5]), ((1, "b"), [1, "b"]), ((), []), ([1, 2], [[1, 2]]), (b"x", [b"x"]), (False, [False]),
], ids=repr)
def test_what_a_handler_returns_is_the_acknowledgement(
    peer: FakeServer, sio: socketio.Client, returned: Any, expected: Any
) -> None:
    sio.on("e", lambda: returned)
    sio.connect(URL)
    session = peer.session(0)
    session.emit("e", id=0)  # id 0 is an id
    session.emit("e")
    session.emit("e", id=7)
    acks = session.wait_packets(2, ACK)
    assert [(packet.id, packet.data) for packet in acks] == [(0, expected), (7, expected)]


def test_w26_nobody_handles_nobody_acknowledges(peer: FakeServer, sio: socketio.Client) -> None:
    class Chat(socketio.ClientNamespace):
        def on_known(self) -> int:
            return 3

    sio.on("e", lambda: 1)
    sio.register_namespace(Chat("/chat"))
    sio.connect(URL)
    session = peer.session(0)
    session.emit("unknown", id=1)
    session.emit("unknown", id=2, namespace="/chat")
    session.emit("known", id=3, namespace="/chat")
    session.emit("e", id=4)
    acks = session.wait_packets(2, ACK)
    assert [(packet.namespace, packet.id, packet.data) for packet in acks] == [("/chat", 3, [3]), ("/", 4, [1])]


def test_an_answer_that_cannot_be_sent_is_the_handlers_failure(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()
    sio.hook("error", lambda error, event, namespace: seen.record("error", error))
    sio.on("e", lambda: object())
    sio.connect(URL)
    peer.session(0).emit("e", id=1)
    assert isinstance(seen.wait_event("error"), InvalidArgument)
    assert sio.connected


def test_with_several_handlers_the_first_value_is_the_acknowledgement(peer: FakeServer, sio: socketio.Client) -> None:
    sio.on("e", lambda: None)
    sio.on("e", lambda: 0, add=True)
    sio.on("e", lambda: 2, add=True)
    sio.connect(URL)
    peer.session(0).emit("e", id=1)
    assert peer.session(0).wait_packets(1, ACK)[0].data == [0]


# --- class namespaces -----------------------------------------------------------------------------------------------


class Recording(socketio.ClientNamespace):
    def __init__(self, namespace: Any, seen: Recorder) -> None:
        super().__init__(namespace)
        self.seen = seen

    def on_connect(self, *args: Any) -> None:
        self.seen.record("connect", args)

    def on_disconnect(self, *args: Any) -> None:
        self.seen.record("disconnect", args)

    def on_e(self, *args: Any) -> Any:
        self.seen.record("e", args)
        return args


def test_class_namespaces(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()
    space = Recording("/chat", seen)
    with pytest.raises(RuntimeError, match="register_namespace"):
        space.emit("e")
    sio.register_namespace(space)
    assert space.client is sio
    sio.connect(URL)
    session = peer.session(0)
    assert list(sio.namespaces) == ["/chat"]
    assert space.sid == sio.get_sid("/chat") == "sid/chat-0"
    assert space.recovered is False
    session.emit("e", 1, 2, id=0, namespace="/chat")
    session.emit("missing", namespace="/chat")
    assert session.wait_packets(1, ACK)[0] == Packet(ACK, "/chat", [1, 2], 0)
    space.emit("a", 1)
    space.send("b")
    assert space.call("echo", 5) == 5
    assert session.events(3) == [["a", 1], ["message", "b"], ["echo", 5]]
    space.disconnect()
    wait_until(lambda: seen.names == ["connect", "e", "disconnect"], scaled(5))
    assert seen.payloads("disconnect") == [("client disconnect",)]


def test_a_function_wins_over_the_method_and_the_star_object_gets_the_namespace(
    peer: FakeServer, sio: socketio.Client
) -> None:
    seen, star = Recorder(), Recorder()
    sio.register_namespace(Recording("/", seen))
    sio.register_namespace(Recording("*", star))
    sio.on("e", lambda *args: seen.record("function", args))
    sio.connect(URL, namespaces=["/", "/x"])
    session = peer.session(0)
    session.emit("e", 1)
    session.emit("e", 2, namespace="/x")
    star.wait_event("e")
    assert seen.events == [("connect", ()), ("function", (1,))]
    assert star.events == [("connect", ("/x",)), ("e", ("/x", 2))]


def test_trigger_event_may_be_overridden(peer: FakeServer, sio: socketio.Client) -> None:
    class All(socketio.ClientNamespace):
        def trigger_event(self, event: str, *args: Any) -> Any:
            return [event, *args]

    sio.register_namespace(All())
    sio.connect(URL)
    peer.session(0).emit("some event", 1, id=2)
    assert peer.session(0).wait_packets(1, ACK)[0].data == [["some event", 1]]


def test_w39_a_class_namespace_leaves_only_itself(peer: FakeServer, sio: socketio.Client) -> None:
    space = Recording("/chat", Recorder())
    sio.register_namespace(space)
    sio.connect(URL, namespaces=["/", "/chat"])
    space.disconnect()
    assert list(sio.namespaces) == ["/"]
    assert [packet.namespace for packet in peer.session(0).wait_packets(1, DISCONNECT)] == ["/chat"]


@pytest.mark.parametrize("bad", [5, socketio.ClientNamespace, object()])
def test_what_is_no_namespace(sio: socketio.Client, bad: Any) -> None:
    with pytest.raises(ValueError, match="ClientNamespace"):
        sio.register_namespace(bad)


# --- connect, connect_error, disconnect -----------------------------------------------------------------------------


def test_the_connect_handler_runs_before_connect_returns_and_may_emit(peer: FakeServer, sio: socketio.Client) -> None:
    seen: List[Any] = []

    @sio.event
    def connect() -> None:
        seen.append((sio.connected, sio.sid, sio.recovered, sio.call("echo", 1)))
        sio.emit("hello")

    sio.connect(URL)
    assert seen == [(True, "sid/-0", False, 1)]
    assert peer.session(0).events(2) == [["echo", 1], ["hello"]]


def test_state(peer: FakeServer, sio: socketio.Client) -> None:
    assert (sio.connected, sio.active, sio.namespaces, sio.sid, sio.get_sid(), sio.transport) == (
        False, False, {}, None, None, "")
    sio.connect(URL, namespaces=["/a", "/b"])
    assert sio.connected and sio.active
    assert sio.namespaces == {"/a": "sid/a-0", "/b": "sid/b-0"}
    assert sio.sid == "sid/a-0" and sio.get_sid("/b") == "sid/b-0" and sio.get_sid() is None
    assert sio.transport == "websocket" and sio.transport() == "websocket"
    with pytest.raises(ConnectionError, match="Already connected"):
        sio.connect(URL)
    sio.disconnect()
    assert (sio.connected, sio.active, sio.namespaces, sio.transport) == (False, False, {}, "")
    sio.connect(URL, namespaces="/c")
    assert list(sio.namespaces) == ["/c"]


@pytest.mark.parametrize("how, reason", [
    ("own", "client disconnect"), ("kick", "server disconnect"), ("drop", "transport close"),
    ("timeout", "ping timeout"), ("garbage", "parse error"),
])
def test_w27_the_reasons_of_a_disconnection(peer: FakeServer, how: str, reason: str) -> None:
    seen = Recorder()
    with client_on(peer, reconnection=False) as sio:
        sio.on("disconnect", lambda why: seen.record("disconnect", why))
        sio.connect(URL)
        session = peer.session(0)
        if how == "own":
            sio.disconnect()
        elif how == "kick":
            session.kick()
        elif how == "garbage":
            session.raw("9")
        else:
            session.drop("ping timeout" if how == "timeout" else "transport close")
        assert seen.wait_event("disconnect") == reason
        assert sio.wait(scaled(5))
        assert not sio.connected


def test_w32_disconnect_handlers_of_every_signature(peer: FakeServer) -> None:
    calls: List[Any] = []

    class Old(socketio.ClientNamespace):
        def on_disconnect(self) -> None:
            calls.append("old method")

    with client_on(peer) as sio:
        sio.on("disconnect", lambda: calls.append("none"), "/")
        sio.on("disconnect", lambda reason, details: calls.append((reason, details)), "/two")

        def once_only(reason: str) -> None:
            calls.append(reason)
            raise TypeError("not a matter of the signature")

        sio.on("disconnect", once_only, "/one")
        sio.register_namespace(Old("/old"))
        sio.connect(URL)
        sio.disconnect()
    assert calls == ["none", ("client disconnect", None), "client disconnect", "old method"]


def test_connect_error_gets_the_refusal_and_so_does_the_exception(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()
    for namespace in ("/", "/list", "/none"):
        sio.on("connect_error", lambda *args, name=namespace: seen.record(name, args), namespace)
    details = {"message": "nope", "data": {"code": 7}}
    peer.refused = {"/": details, "/list": ["a", 1], "/none": None}
    with pytest.raises(socketio.exceptions.ConnectionError, match="nope") as caught:
        sio.connect(URL)
    assert caught.value.refused["/"] == details  # W19
    assert sorted(seen.events) == [("/", (details,)), ("/list", ("a", 1)), ("/none", ())]
    assert not sio.active


@pytest.mark.parametrize("handler, payload, expected", [
    ("one", None, (None,)), ("one", "text", ("text",)), ("one", ["a", 1], (["a", 1],)), ("no", "text", ()),
    ("two", ["a", 1], ("a", 1)), ("no", None, ()),
])
def test_connect_error_handlers_get_what_fits_them(
    peer: FakeServer, sio: socketio.Client, handler: str, payload: Any, expected: Any
) -> None:
    seen = Recorder()
    handlers = {
        "no": lambda: seen.record("error", ()),
        "one": lambda data: seen.record("error", (data,)),
        "two": lambda a, b: seen.record("error", (a, b)),
    }
    sio.on("connect_error", handlers[handler])
    peer.refused = {"/": payload}
    with pytest.raises(ConnectionError):
        sio.connect(URL)
    assert seen.events == [("error", expected)]


def test_a_connection_that_fails_is_told_to_connect_error(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()
    sio.on("connect_error", lambda data: seen.record("error", data))
    peer.failures = [ConnectError("no route")]
    with pytest.raises(ConnectionError, match="no route"):
        sio.connect(URL)
    assert seen.events == [("error", "no route")]


def test_a_loss_and_the_way_back(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()
    sio.on("connect", lambda: seen.record("connect"))
    sio.on("disconnect", lambda reason: seen.record("disconnect", reason))
    for name in ("reconnect_attempt", "reconnect", "reconnect_error", "reconnect_failed"):
        sio.hook(name, lambda *args, name=name: seen.record(name, args))
    sio.connect(URL)
    peer.failures = [ConnectError("not yet")]
    peer.session(0).drop()
    peer.session(1)
    seen.wait_event("reconnect")
    assert seen.names == [
        "connect", "disconnect", "reconnect_attempt", "reconnect_error", "reconnect_attempt", "connect", "reconnect"]
    assert seen.payloads("reconnect_attempt") == [(1,), (2,)]
    assert seen.payloads("reconnect") == [(2,)]


def test_giving_up(peer: FakeServer) -> None:
    seen = Recorder()
    with client_on(peer, reconnection_attempts=2) as sio:
        sio.on("__disconnect_final", lambda: seen.record("final"))
        sio.on("disconnect", lambda reason: seen.record("disconnect", reason))
        sio.hook("reconnect_failed", lambda: seen.record("failed"))
        sio.connect(URL)
        peer.down = lambda: ConnectError("down")
        with run_thread(sio.wait) as waiting:
            peer.session(0).drop()
            assert waiting.result(scaled(5)) is True
        assert seen.names == ["disconnect", "failed", "final"]


def test_a_server_cannot_end_anything_by_an_event_name(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()
    sio.on("__disconnect_final", lambda: seen.record("final"))
    sio.on("e", lambda: seen.record("e"))
    sio.connect(URL)
    peer.session(0).raw('2["__disconnect_final"]', '2["e"]')
    seen.wait_event("e")
    assert seen.names == ["e"]


def test_disconnect_inside_handlers(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()

    @sio.event
    def bye() -> None:
        sio.disconnect()
        sio.disconnect()
        seen.record("after")

    sio.on("disconnect", lambda reason: seen.record("disconnect", reason))
    sio.connect(URL)
    peer.session(0).emit("bye")
    assert sio.wait(scaled(5))
    assert seen.names == ["after", "disconnect"]


def test_the_context_manager_disconnects_whatever_happens(peer: FakeServer) -> None:
    with pytest.raises(KeyError):
        with client_on(peer) as sio:
            sio.connect(URL)
            raise KeyError
    assert not sio.active
    assert peer.session(0).wait_packets(1, DISCONNECT)


def test_shutdown_stops_a_reconnection(peer: FakeServer, sio: socketio.Client) -> None:
    sio.shutdown()  # nothing to do
    sio.connect(URL)
    peer.hang = True
    peer.session(0).drop()
    peer.wait_targets(2)
    assert sio.active and not sio.connected
    sio.shutdown()
    assert not sio.active
    assert len(peer.sessions) == 1


# --- connect's arguments --------------------------------------------------------------------------------------------


def test_url_headers_and_auth_may_be_callables_and_are_asked_each_time(peer: FakeServer, sio: socketio.Client) -> None:
    count = iter(range(1, 100))
    headers = {"X-Test": "1"}
    sio.connect(lambda: "http://fake/%d" % next(count), headers=lambda: headers, auth=lambda: {"n": next(count)})
    peer.session(0).drop()
    peer.session(1).wait_packets(1)
    assert [target.url for target in peer.targets] == ["http://fake/1", "http://fake/3"]
    assert [dict(target.headers) for target in peer.targets] == [headers, headers]
    assert [session.packets[0].data for session in peer.sessions] == [{"n": 2}, {"n": 4}]


def test_w21_the_callers_objects_are_left_alone(peer: FakeServer, sio: socketio.Client) -> None:
    headers, auth = {"Cookie": "a=b"}, {"token": "t"}
    sio.connect(URL, headers=headers, auth=auth, socketio_path="/x/", transports=["websocket", "carrier-pigeon"])
    assert headers == {"Cookie": "a=b"} and auth == {"token": "t"}
    (target,) = peer.targets
    assert target.path == "/x/" and target.transports == ("websocket",)


def test_transports(peer: FakeServer, sio: socketio.Client) -> None:
    with pytest.raises(ValueError, match="transports"):
        sio.connect(URL, transports=["carrier-pigeon"])
    sio.connect(URL, transports="polling")
    assert peer.targets[0].transports == ("polling",)


def test_w39_auth_by_namespace_and_namespaces_that_come_and_go(peer: FakeServer, sio: socketio.Client) -> None:
    sio.connect(URL, namespaces=["/a", "/b"], auth={"/a": {"t": 1}, "/b": lambda: {"t": 2}})
    session = peer.session(0)
    sio.connect_namespace("/c", {"t": 3})
    assert {packet.namespace: packet.data for packet in session.wait_packets(3, CONNECT)} == {
        "/a": {"t": 1}, "/b": {"t": 2}, "/c": {"t": 3}}
    sio.disconnect(namespace="/b")
    assert list(sio.namespaces) == ["/a", "/c"]
    with pytest.raises(socketio.exceptions.BadNamespaceError):
        sio.emit("e", namespace="/b")
    with pytest.raises(socketio.exceptions.BadNamespaceError):
        sio.disconnect(namespace="/b")
    sio.emit("e", namespace="/c")
    assert sio.connected


# --- emitting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data, args", [
    (None, []), ("text", ["text"]), (b"x", [b"x"]), (5, [5]), (False, [False]), ([1, 2], [[1, 2]]),
    ({"a": None}, [{"a": None}]), ((1, 2), [1, 2]), ((), []), ((None,), [None]),
], ids=repr)
def test_how_data_becomes_arguments(peer: FakeServer, sio: socketio.Client, data: Any, args: Any) -> None:
    sio.connect(URL)
    assert sio.emit("e", data) is True
    assert sio.send(data) is True
    assert peer.session(0).events(2) == [["e", *args], ["message", *args]]


def test_emit_without_a_connection(peer: FakeServer, sio: socketio.Client) -> None:
    for namespace in (None, "/other"):
        with pytest.raises(socketio.exceptions.BadNamespaceError, match="is not a connected namespace"):
            sio.emit("e", namespace=namespace)
        with pytest.raises(socketio.exceptions.BadNamespaceError):
            sio.call("e", namespace=namespace)


@pytest.mark.parametrize("name", ["connect", "disconnect", "connect_error", "disconnecting", "newListener"])
def test_w23_reserved_names_send_nothing(peer: FakeServer, sio: socketio.Client, name: str) -> None:
    sio.connect(URL)
    for function in (sio.emit, sio.call):
        with pytest.raises(ValueError, match="reserved"):
            function(name)
    assert [packet.type for packet in peer.session(0).packets] == [CONNECT]


def test_w24_the_limit_of_attachments_can_be_lifted(peer: FakeServer, sio: socketio.Client) -> None:
    sio.connect(URL)
    with pytest.raises(ValueError, match="max_attachments"):
        sio.emit("e", tuple([b"x"] * 11))
    assert sio.emit("e", tuple([b"x"] * 10))


@pytest.mark.parametrize("values", [[], [1], [1, "b"], [b"x"]], ids=repr)
def test_callbacks_get_the_values_of_the_ack(peer: FakeServer, sio: socketio.Client, values: Any) -> None:
    seen = Recorder()
    sio.connect(URL)
    sio.emit("silent", callback=lambda *args: seen.record("ack", args))
    session = peer.session(0)
    (event,) = session.wait_packets(1, EVENT)
    session.packet(ACK, "/", values, event.id)
    session.packet(ACK, "/", values, event.id)
    session.packet(ACK, "/", values, 0)
    assert seen.wait_for(1) == [tuple(values)]
    assert sio.call("echo", tuple(values)) == (None if not values else values[0] if len(values) == 1 else tuple(values))
    assert len(seen.events) == 1


def test_w10_a_callback_that_gets_no_answer_has_an_error(peer: FakeServer, sio: socketio.Client) -> None:
    seen = Recorder()
    sio.connect(URL)
    sio.emit("silent", on_error=lambda error: seen.record("late", error), ack_timeout=scaled(0.01))
    assert type(seen.wait_event("late")) is socketio.exceptions.TimeoutError
    sio.emit("silent", callback=lambda: seen.record("never"), on_error=lambda error: seen.record("lost", error))
    sio.emit("silent", callback=lambda: seen.record("never"))
    peer.session(0).drop()
    assert isinstance(seen.wait_event("lost"), socketio.exceptions.AckLost)
    with pytest.raises(InvalidArgument, match="callback"):
        sio.emit("e", callback="no function")  # type: ignore[arg-type]
    assert "never" not in seen.names


def test_call(peer: FakeServer, sio: socketio.Client) -> None:
    sio.connect(URL)
    assert sio.call("echo") is None
    assert sio.call("echo", 0) == 0
    assert sio.call("echo", (1, [2])) == (1, [2])
    with pytest.raises(socketio.exceptions.TimeoutError):
        sio.call("silent", timeout=scaled(0.01))
    with pytest.raises(TimeoutError):  # the builtin
        sio.call("silent", timeout=0)


def test_call_inside_a_handler(peer: FakeServer, sio: socketio.Client) -> None:
    sio.on("question", lambda x: sio.call("echo", x))
    sio.connect(URL)
    peer.session(0).emit("question", 42, id=1)
    assert peer.session(0).wait_packets(1, ACK)[0].data == [42]


def test_w11_call_fails_at_once_when_the_connection_is_lost(peer: FakeServer, sio: socketio.Client) -> None:
    sio.connect(URL)
    with run_thread(sio.call, "silent", timeout=scaled(60)) as calling:
        peer.session(0).wait_packets(1, EVENT)
        peer.session(0).drop()
        error = calling.exception(scaled(5))
    assert isinstance(error, socketio.exceptions.AckLost)
    assert isinstance(error, TimeoutError) and isinstance(error, socketio.exceptions.DisconnectedError)


def test_w9_emits_wait_in_a_bounded_buffer_by_choice(peer: FakeServer) -> None:
    with client_on(peer, offline="buffer", max_buffer=2) as sio:
        sio.on("connect", lambda: sio.emit("from the handler"))
        sio.connect(URL)
        peer.session(0).wait_packets(2)
        peer.hang = True
        peer.session(0).drop()
        peer.wait_targets(2)
        sio.emit("a", 1)
        sio.emit("b")
        with pytest.raises(socketio.exceptions.BufferFull):
            sio.emit("c")
        with pytest.raises(socketio.exceptions.BadNamespaceError):
            sio.emit("d", offline="raise")
        assert sio.emit("e", volatile=True) is False
        peer.hang = False
        with peer.changed:
            peer.changed.notify_all()
        assert peer.session(1).events(3) == [["a", 1], ["b"], ["from the handler"]]


def test_w10_retries(peer: FakeServer) -> None:
    seen = Recorder()
    with client_on(peer, retries=2, ack_timeout=scaled(0.01)) as sio:
        sio.connect(URL)
        sio.emit("silent", on_error=lambda error: seen.record("given up", error))
        sio.emit("echo", 1, callback=lambda x: seen.record("answered", x), ack_timeout=scaled(5))
        seen.wait_for(2)
        assert seen.names == ["given up", "answered"]
        assert peer.session(0).events(4) == [["silent"]] * 3 + [["echo", 1]]
        assert sio.emit("once", volatile=True) and sio.emit("plain", retries=0)
    with pytest.raises(InvalidArgument, match="retries"):
        client_on(peer, retries=-1)
    with pytest.raises(InvalidArgument, match="offline"):
        client_on(peer, offline="sometimes")


def test_volatile_is_dropped_when_it_cannot_leave_at_once(peer: FakeServer, sio: socketio.Client) -> None:
    sent = Recorder()
    sio.on_any_outgoing(lambda event: sent.record(event))
    assert sio.emit("a", volatile=True) is False
    sio.connect(URL)
    peer.session(0).set_backlog(1)
    assert sio.emit("b", volatile=True) is False
    peer.session(0).set_backlog(0)
    assert sio.emit("c", volatile=True) is True
    assert peer.session(0).events(1) == [["c"]] and sent.names == ["c"]


# --- helpers --------------------------------------------------------------------------------------------------------


def test_background_tasks_and_sleep(sio: socketio.Client) -> None:
    seen: List[Any] = []
    task = sio.start_background_task(lambda *args, **kwargs: seen.append((args, kwargs)), 1, a=2)
    task.join(scaled(5))
    assert seen == [((1,), {"a": 2})] and task.daemon
    sio.sleep()
    sio.sleep(0.001)
    with pytest.raises(ValueError):
        sio.sleep(-1)


def test_wait_ends_with_the_connection_and_not_before(peer: FakeServer, sio: socketio.Client) -> None:
    assert sio.wait(scaled(1))  # never connected
    sio.connect(URL)
    assert sio.wait(0.001) is False
    with run_thread(sio.wait) as waiting:
        peer.session(0).drop()
        peer.session(1).wait_packets(1)
        assert waiting.running
        wait_until(lambda: sio.connected, scaled(5))
        peer.session(1).kick()
        assert waiting.result(scaled(5)) is True


def test_a_client_without_handlers_has_no_dispatcher(peer: FakeServer, sio: socketio.Client) -> None:
    sio.connect(URL)
    peer.session(0).emit("e", id=1)
    assert sio.call("echo", 1) == 1
    names = [thread.name for thread in threading.enumerate()]
    assert "simplepubsub-socketio-dispatcher" not in names
    seen = Recorder()
    sio.on("e", lambda: seen.record("e"))
    peer.session(0).emit("e")
    seen.wait_event("e")
    peer.session(0).emit("e")
    seen.wait_for(2)


# --- logs -----------------------------------------------------------------------------------------------------------


@pytest.fixture()
def clean_loggers() -> Iterator[List[logging.Logger]]:
    loggers = [logging.getLogger(name) for name in ("simplepubsub.socketio", "simplepubsub.socketio.engine")]
    saved = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    yield loggers
    for logger, (level, propagate, handlers) in zip(loggers, saved):
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers


def test_a_logger_of_the_applications_is_used_as_it_is(peer: FakeServer) -> None:
    stream = io.StringIO()
    logger = logging.Logger("mine", logging.INFO)
    logger.addHandler(logging.StreamHandler(stream))
    with client_on(peer, logger=logger) as sio:
        assert sio.logger is logger
        sio.on("e", lambda data: None)
        sio.connect(URL, auth={"token": "secret"})
        sio.emit("hello", "secret")
        peer.session(0).emit("e", "secret", id=0)
        peer.session(0).wait_packets(1, ACK)
    text = stream.getvalue()
    for line in ("Namespace / is connected", 'Emitting event "hello" [/]', 'Received event "e" [/]'):
        assert line in text
    assert "secret" not in text


def test_true_adds_one_handler_and_masks(
    peer: FakeServer, clean_loggers: List[logging.Logger], capsys: pytest.CaptureFixture[str]
) -> None:
    mine, engine = clean_loggers
    for _ in range(3):
        client_on(peer, logger=True, engineio_logger=True)
    assert [len(logger.handlers) for logger in (mine, engine)] == [1, 1]
    engine.info("GET http://x/?access_token=abc.def")
    error = capsys.readouterr().err
    assert "access_token=***" in error and "abc" not in error
    assert error.count("GET") == 1


def test_without_logger_nothing_is_configured(peer: FakeServer, clean_loggers: List[logging.Logger]) -> None:
    client_on(peer)
    assert [(logger.level, logger.handlers) for logger in clean_loggers] == [(0, []), (0, [])]
    client_on(peer, logger=True)
    assert clean_loggers[1].getEffectiveLevel() == logging.WARNING  # it was not asked for


def test_engineio_logger_gets_what_the_transports_log(peer: FakeServer, clean_loggers: List[logging.Logger]) -> None:
    stream = io.StringIO()
    target = logging.Logger("mine", logging.INFO)
    target.addHandler(logging.StreamHandler(stream))
    for _ in range(2):
        client_on(peer, engineio_logger=target)
    clean_loggers[1].info("POST %s", "http://x/?access_token=abc.def")
    assert stream.getvalue() == "POST http://x/?access_token=***\n"


# --- Ctrl-C ---------------------------------------------------------------------------------------------------------

PROGRAM = """
import signal, sys
from simplepubsub import socketio
from tests.socketio.faces import URL, client_on
from tests.socketio.fake import FakeServer

before = signal.getsignal(signal.SIGINT)
peer = FakeServer()
sio = client_on(peer, handle_sigint=%r)
assert (signal.getsignal(signal.SIGINT) is before) is not %r
sio.on("disconnect", lambda reason: print(reason, flush=True))
sio.connect(URL)
try:
    print("ready", flush=True)
    sio.wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("handle", [False, True])
def test_w28_sigint_is_left_alone_unless_asked_for(handle: bool) -> None:
    with subprocess_python(PROGRAM % (handle, handle)) as child:
        child.wait_line("ready")
        child.interrupt()
        result = child.wait()
    assert result.returncode == 0, result.stderr
    assert "interrupted" in result.stdout
    assert ("client disconnect" in result.stdout) is handle
