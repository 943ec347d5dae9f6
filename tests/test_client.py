"""The public API of `WebPubSubClient`, end to end against the embedded server, on both JSON subprotocols.

What happens when connections break is in test_p2_delivery.py; hangs, interrupts and leaks have modules of their own.
"""

from __future__ import annotations

import datetime
import gc
import logging
import select
import socket
import ssl
import struct
import threading
import warnings
from concurrent.futures import Future

import pytest

import simplepubsub
from simplepubsub import exceptions
from simplepubsub.core import supervisor as supervisor_module
from simplepubsub.exceptions import (
    AckTimeout,
    AuthenticationError,
    ClientStateError,
    ClientStopped,
    ConnectError,
    FlushTimeout,
    HandshakeRejected,
    InvalidArgument,
    MessageTooLarge,
    OutboxFull,
    ReceiveTimeout,
    SendMessageError,
)
from simplepubsub.server import RefuseConnection
from simplepubsub.transports.dial import WebSocketDial
from simplepubsub.webpubsub import (
    CallbackType,
    Message,
    OpenClientError,
    RetryPolicy,
    State,
    WebPubSubClient,
    WebPubSubClientCredential,
    WebPubSubDataType,
    WebPubSubProtocolType,
    models,
)
from tests.helpers import MS, ClosedPort, Recorder, run_python, run_thread, scaled, wait_until

JSON, RELIABLE = "json", "json.reliable"
NEVER = RetryPolicy(total=0)
SOON = RetryPolicy(total=3, base=0.005, mode="fixed")


@pytest.fixture(params=[RELIABLE, JSON])
def protocol(request):
    return request.param


@pytest.fixture
def new_client(server):
    """`new_client(hub="hub", *, url=None, **options)`: not started, stopped at the end.

    user_id, roles and groups go into the token, all other options to the client.
    """
    clients = []

    def make(hub="hub", *, url=None, **options):
        token = {name: options.pop(name) for name in ("user_id", "roles", "groups") if name in options}
        client = WebPubSubClient(url or server.client_access_url(hub, **token), **options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.stop()


@pytest.fixture
def connect(new_client):
    """As `new_client`, and started."""

    def make(*args, **options):
        client = new_client(*args, **options)
        client.start()
        return client

    return make


# ---- life ------------------------------------------------------------------------------------------------------------


class TestLife:
    def test_start_and_stop(self, new_client, server, protocol):
        client = new_client(protocol=protocol, user_id="mina")
        assert client.state is State.STOPPED and client.state == "stopped" and not client.is_connected()
        assert client.connection_id is None
        client.start()
        assert client.state is State.CONNECTED and client.is_connected()
        (seen,) = server.connections()
        assert client.connection_id == seen.connection_id
        assert client.user_id == seen.user_id == "mina"
        client.stop()
        assert client.state == "stopped" and client.connection_id is None
        wait_until(lambda: not server.connections(), message="a polite goodbye ends the session at once")

    def test_open_and_close_are_the_same(self, new_client):
        client = new_client()
        client.open()
        assert client.is_connected()
        client.close()
        assert client.state == "stopped"

    def test_with_block_flushes_what_was_sent(self, connect, new_client, server):
        receiver = connect(groups=["room"])
        with new_client(close_timeout=scaled(20)) as client:
            futures = [client.send_to_group_nowait("room", str(number)) for number in range(200)]
        assert all(future.done() and future.exception() is None for future in futures)
        assert [receiver.receive(scaled(5)).data for _ in range(200)] == [str(number) for number in range(200)]
        assert client.state == "stopped"

    def test_with_block_does_not_wait_after_an_exception(self, new_client, server):
        server.faults.lose_next_ack()
        with pytest.raises(KeyError):
            with new_client(close_timeout=60) as client:
                future = client.send_to_group_nowait("room", "x")
                raise KeyError("the block")
        assert isinstance(future.exception(0), ClientStopped)

    def test_with_block_says_what_was_left(self, new_client, server, caplog):
        with caplog.at_level(logging.WARNING, "simplepubsub"):
            with new_client(close_timeout=100 * MS) as client:
                server.faults.lose_next_ack()
                future = client.send_to_group_nowait("room", "x")
        assert isinstance(future.exception(scaled(5)), ClientStopped)
        assert "1 sends unacknowledged" in caplog.text

    def test_starting_again_rejoins_groups(self, new_client, server, protocol):
        client = new_client(protocol=protocol)
        client.start()
        client.join_group("kept")
        client.join_group("left")
        client.leave_group("left")
        first = client.connection_id
        client.stop()
        assert client.groups == ("kept",)
        client.start()
        assert client.connection_id not in (None, first)
        wait_until(lambda: [sorted(c.groups) for c in server.connections()] == [["kept"]])
        client.send_to_group("kept", "still here")
        assert client.receive(scaled(5)).data == "still here"

    def test_start_twice(self, connect):
        client = connect()
        with pytest.raises(ClientStateError, match="connected"):
            client.start()
        client.send_to_group("room", "usable")

    def test_stop_is_repeatable(self, new_client):
        client = new_client()
        client.stop()
        client.start()
        client.stop()
        client.stop()

    def test_no_future_is_left_when_stop_returns(self, new_client, server, monkeypatch):
        # stop() with its time used up used to return while the supervisor was still failing the futures.
        monkeypatch.setattr(supervisor_module, "RELEASE_WAIT", scaled(30))
        client = new_client()
        client.start()
        server.faults.lose_next_ack()
        future = client.send_to_group_nowait("room", "x")
        entered, go = threading.Event(), threading.Event()
        supervisor, fail = client._engine.supervisor, client._sender.fail

        def held_up(entries, error):
            entered.set()
            go.wait(scaled(60))
            fail(entries, error)

        monkeypatch.setattr(client._sender, "fail", held_up)
        monkeypatch.setattr(supervisor, "join", lambda deadline: not entered.wait(scaled(10)))
        with run_thread(client.stop) as stopper:
            assert entered.wait(scaled(5)) and not stopper.done.wait(20 * MS)
            go.set()
            stopper.result(5)
            assert isinstance(future.exception(0), ClientStopped)

    def test_calls_before_start(self, new_client, server):
        client = new_client()
        calls = [
            lambda: client.receive(0),
            lambda: client.join_group("room"),
            lambda: client.leave_group("room"),
            lambda: client.send_to_group("room", "x"),
            lambda: client.send_event("shout", "x"),
            lambda: client.send_to_group("room", "x", ack=False),
            lambda: client.send_to_group_nowait("room", "x"),
            lambda: client.join_group_nowait("room"),
            lambda: client.leave_group_nowait("room"),
            lambda: client.send_event_nowait("shout", "x"),
        ]
        for call in calls:
            with pytest.raises(ClientStopped, match="start"):
                call()
        client.flush(0)  # there is nothing to wait for
        assert client.stats()["sent"] == 0 and server.stats()["published"] == 0

    def test_receive_after_stop_hands_out_what_was_received_first(self, connect):
        client = connect(groups=["room"])
        client.send_to_group("room", "kept")
        client.stop()
        assert client.receive(0).data == "kept"
        with pytest.raises(ClientStopped):
            client.receive(0)

    def test_stop_wakes_receive(self, connect):
        client = connect()
        with run_thread(client.receive) as thread:
            client.stop()
            assert isinstance(thread.exception(5), ClientStopped)

    def test_starting_again_in_a_stopped_listener(self, new_client, server, protocol):
        client = new_client(protocol=protocol, auto_reconnect=False)
        events = Recorder().attach(client, "connected", "stopped")

        @client.on("stopped")
        def restart(event):
            if event.error is not None:
                client.start()

        client.start()
        client.join_group("room")
        server.faults.refuse_recovery()
        server.faults.drop_connections()
        assert events.wait_event("stopped").error is not None
        events.wait_event("connected", count=2)
        client.send_to_group("room", "again")
        assert client.receive(scaled(5)).data == "again"
        client.stop()
        assert events.wait_event("stopped", count=2).error is None

    def test_a_run_that_a_stopped_listener_started_keeps_its_events(self, new_client):
        # stop() used to mark everything that the listeners of the new run should get for discarding.
        client = new_client(close_timeout=200 * MS)
        messages = Recorder().attach(client, "group-message")
        again = []

        @client.on("stopped")
        def restart():
            if not again:
                again.append(client.start())

        client.start()
        client.stop()
        wait_until(client.is_connected)  # stop() waits for the listener no longer than close_timeout
        client.join_group("room")
        client.send_to_group("room", "heard")
        assert messages.wait_event("group-message").data == "heard"

    def test_names_at_the_top(self):
        assert simplepubsub.WebPubSubClient is WebPubSubClient
        assert simplepubsub.SendMessageError is SendMessageError
        assert set(exceptions.__all__) <= set(simplepubsub.__all__)


class TestCredential:
    def test_a_callable_is_asked_for_each_new_connection_and_not_for_a_recovery(self, new_client, server):
        urls = []

        def fetch():
            urls.append(server.client_access_url("hub", user_id="user%d" % len(urls)))
            return urls[-1]

        client = new_client(url=fetch)
        events = Recorder().attach(client, "connected", "recovered")
        client.start()
        assert client.user_id == "user0" and len(urls) == 1
        server.faults.drop_connections()
        events.wait_event("recovered")
        assert len(urls) == 1
        server.faults.refuse_recovery()
        server.faults.drop_connections()
        assert events.wait_event("connected", count=2).user_id == "user1"
        assert client.user_id == "user1" and len(urls) == 2

    @pytest.mark.parametrize("wrap", [WebPubSubClientCredential, lambda url: WebPubSubClientCredential(lambda: url)])
    def test_credential_objects(self, new_client, server, wrap):
        client = new_client(url=wrap(server.client_access_url("hub", user_id="mina")))
        client.start()
        assert client.user_id == "mina"

    def test_a_stranger_with_the_right_method(self, new_client, server):
        class Stranger:
            def get_client_access_url(self):
                return server.client_access_url("hub", user_id="mina")

        client = new_client(url=Stranger())
        client.start()
        assert client.user_id == "mina"

    @pytest.mark.parametrize(
        "url, said",
        [
            ("http://localhost/client/hubs/hub?access_token=SECRET", "ws://"),
            ("ws://localhost/?access_token=SECRET", "hub"),
            ("ws://localhost/client/hubs/?access_token=SECRET", "hub"),
            ("ws:///client/hubs/hub?access_token=SECRET", "host"),
            ("ws://localhost:port/client/hubs/hub?access_token=SECRET", "port"),
            (b"ws://localhost/client/hubs/hub", "callable"),
            (None, "callable"),
            (7, "callable"),
        ],
    )
    def test_bad_urls(self, url, said):
        with pytest.raises(InvalidArgument) as caught:
            WebPubSubClient(url)
        assert said in str(caught.value) and "SECRET" not in str(caught.value)

    def test_a_callable_that_raises(self, new_client):
        def fetch():
            raise OSError("the token service is down")

        client = new_client(url=fetch)
        with pytest.raises(ConnectError, match="the token service is down") as caught:
            client.start()
        assert isinstance(caught.value, OpenClientError)
        assert client.state == "stopped"

    def test_a_callable_that_returns_nonsense(self, new_client):
        client = new_client(url=lambda: "https://example.invalid/?access_token=SECRET")
        with pytest.raises(ConnectError, match="ws://") as caught:
            client.start()
        assert "SECRET" not in str(caught.value)


class TestRefusals:
    def test_closed_port(self, new_client):
        with ClosedPort() as port:
            client = new_client(url=port.url("/client/hubs/hub?access_token=SECRET"))
            with pytest.raises(ConnectError) as caught:
                client.start()
        assert "SECRET" not in str(caught.value) + repr(caught.value) + caught.value.url
        assert client.state == "stopped"

    def test_a_reset_before_the_tls_handshake_leaves_no_socket(self):
        # CPython dropped a half-made TLS socket unclosed: a ResourceWarning now and then in a network that resets.
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            with socket.create_connection(listener.getsockname()) as near:
                far, _ = listener.accept()
                far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                far.close()
                assert select.select([near], [], [], scaled(5))[0], "the reset is here"
                gc.collect()  # what others left behind is theirs
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    with pytest.raises(OSError):
                        WebSocketDial().handshake_tls(near, ssl.create_default_context(), "localhost")
                    gc.collect()
        assert [str(warning.message) for warning in caught if "SSLSocket" in str(warning.message)] == []

    def test_bad_token(self, new_client, server):
        client = new_client(url=server.client_access_url("hub") + "x")
        with pytest.raises(AuthenticationError) as caught:
            client.start()
        assert caught.value.status == 401

    def test_refused_by_a_connect_handler(self, new_client, server):
        @server.on("connect")
        def no(request):
            raise RefuseConnection(403, "not today")

        with pytest.raises(AuthenticationError, match="not today") as caught:
            new_client().start()
        assert caught.value.status == 403

    def test_busy_service(self, new_client, server):
        server.faults.refuse_connections(503, times=1)
        client = new_client()
        with pytest.raises(HandshakeRejected) as caught:
            client.start()
        assert caught.value.status == 503 and not caught.value.fatal
        client.start()  # the same client, a moment later
        assert client.is_connected()

    def test_a_fatal_refusal_of_a_reconnect_stops_the_client(self, new_client, server):
        urls = [server.client_access_url("hub"), server.client_access_url("hub") + "x"]
        client = new_client(url=lambda: urls.pop(0), protocol=JSON)
        events = Recorder().attach(client, "stopped")
        client.start()
        server.faults.drop_connections()
        assert isinstance(events.wait_event("stopped").error, AuthenticationError)
        with pytest.raises(ClientStopped, match="401"):
            client.receive(scaled(5))

    def test_a_failed_start_announces_no_stop(self, new_client, server):
        client = new_client(url=server.client_access_url("hub") + "x")
        events = Recorder().attach(client, "stopped", "connected", "disconnected")
        with pytest.raises(ConnectError):
            client.start()
        client.stop()
        assert events.names == []


# ---- receiving -------------------------------------------------------------------------------------------------------


class TestReceive:
    @pytest.mark.parametrize(
        "data, data_type",
        [
            ("text", "text"),
            ("", "text"),
            ("snowman \u2603, quotes \" and \\, \x00 and \U0001f600", "text"),
            (b"\x00\xff bytes", "binary"),
            (b"", "binary"),
            ({"a": [1, 2.5, None, True, "\u2603"]}, "json"),
            ([], "json"),
            (12345678901234567890, "json"),
            (False, "json"),
        ],
    )
    def test_data_types_come_back_as_they_were_sent(self, connect, protocol, data, data_type):
        client = connect(protocol=protocol, user_id="mina", groups=["room"])
        client.send_to_group("room", data)
        message = client.receive(scaled(5))
        assert (message.data, message.data_type) == (data, data_type)
        assert type(message.data) is type(data)
        assert (message.kind, message.group, message.from_user_id) == ("group", "room", "mina")
        assert message.sequence_id == (1 if protocol == RELIABLE else 0)
        assert message.after_gap is False and message.stream is None

    @pytest.mark.parametrize("data", [bytearray(b"ab"), memoryview(b"ab"), memoryview(b"aabb")[::2]])
    def test_anything_like_bytes_is_binary(self, connect, data):
        # A view with a step used to raise a bare BufferError.
        client = connect(groups=["room"])
        client.send_to_group("room", data)
        assert client.receive(scaled(5)).data == b"ab"

    @pytest.mark.parametrize("data_type", ["json", "JSON", WebPubSubDataType.JSON, models.WebPubSubDataType.JSON])
    def test_the_data_type_can_be_said(self, connect, data_type):
        client = connect(groups=["room"])
        client.send_to_group("room", "a str as JSON", data_type)
        message = client.receive(scaled(5))
        assert (message.data, message.data_type) == ("a str as JSON", "json")

    def test_timeouts(self, connect):
        client = connect()
        for timeout in (0, 0.0, 10 * MS):
            with pytest.raises(ReceiveTimeout) as caught:
                client.receive(timeout)
            assert isinstance(caught.value, TimeoutError)
        for timeout in (-1, "1", float("nan"), True):
            with pytest.raises(InvalidArgument, match="timeout"):
                client.receive(timeout)

    def test_messages_ends_after_a_count_or_a_quiet_time(self, connect):
        client = connect(groups=["room"])
        for number in range(5):
            client.send_to_group("room", number)
        assert [message.data for message in client.messages(max_messages=3)] == [0, 1, 2]
        assert [message.data for message in client.messages(timeout=50 * MS)] == [3, 4]
        assert list(client.messages(max_messages=0)) == []
        with pytest.raises(InvalidArgument):
            client.messages(max_messages=-1)
        with pytest.raises(InvalidArgument):
            client.messages(timeout=-1)

    def test_iteration_ends_with_stop(self, connect):
        client = connect(groups=["room"])
        got = []

        def read():
            for message in client:
                got.append(message.data)

        with run_thread(read) as reader:
            client.send_to_group("room", "one")
            wait_until(lambda: got == ["one"])
            client.stop()
            reader.result(5)

    def test_iteration_raises_when_the_client_gave_up(self, connect, server):
        client = connect(protocol=JSON, auto_reconnect=False)
        with run_thread(lambda: list(client)) as reader:
            server.faults.drop_connections()
            assert isinstance(reader.exception(5), ClientStopped)

    def test_each_message_goes_to_one_thread(self, connect):
        client = connect(groups=["room"])
        got = Recorder()

        def read():
            for message in client:
                got(message.data)

        with run_thread(read), run_thread(read), run_thread(read):
            for number in range(300):
                client.send_to_group_nowait("room", number)
            got.wait_for(300)
            client.stop()
        assert sorted(got.payloads()) == list(range(300))

    def test_messages_of_the_server(self, connect, server, protocol):
        client = connect(protocol=protocol, user_id="mina")
        hub = server.hub("hub")
        hub.send_to_all("to all")
        hub.send_to_user("mina", b"to user")
        hub.send_to_connection(client.connection_id, {"to": "connection"})
        messages = list(client.messages(timeout=scaled(5), max_messages=3))
        assert [message.data for message in messages] == ["to all", b"to user", {"to": "connection"}]
        assert {message.kind for message in messages} == {"server"}
        assert {message.group for message in messages} == {None}

    def test_the_repr_of_a_message_is_short(self, connect):
        client = connect(groups=["room"])
        client.send_to_group("room", "x" * 1000)
        text = repr(client.receive(scaled(5)))
        assert "group='room'" in text and len(text) < 150


# ---- listeners -------------------------------------------------------------------------------------------------------


class TestListeners:
    def test_as_function_decorator_and_without_parameter(self, new_client):
        client = new_client(groups=["room"])
        seen = Recorder()
        listener = seen.named("function")
        assert client.on("group-message", listener) is listener

        @client.on("group-message")
        def decorated(message):
            seen.record("decorated", message)

        client.on("group-message", lambda: seen.record("lambda"))
        assert callable(decorated)
        client.start()
        client.send_to_group("room", "hello")
        seen.wait_for(3)
        assert seen.names == ["function", "decorated", "lambda"]
        first, second, third = seen.payloads()
        assert isinstance(first, Message) and first is second and first.data == "hello" and third is None

    def test_a_message_goes_to_its_listeners_or_to_receive(self, connect, server):
        client = connect(groups=["room"])
        seen = Recorder().attach(client, "group-message")
        client.send_to_group("room", "for the listener")
        server.hub("hub").send_to_all("for receive")
        assert client.receive(scaled(5)).data == "for receive"
        assert seen.wait_event("group-message").data == "for the listener"

    @pytest.mark.parametrize("add, remove", [("on", "off"), ("subscribe", "unsubscribe")])
    def test_taking_a_listener_away(self, connect, add, remove):
        client = connect(groups=["room"])
        seen = Recorder()
        getattr(client, add)("group-message", seen)
        client.send_to_group("room", "one")
        seen.wait_for(1)
        getattr(client, remove)("group-message", seen)
        client.send_to_group("room", "two")
        assert client.receive(scaled(5)).data == "two"
        assert len(seen) == 1
        with pytest.raises(InvalidArgument):
            getattr(client, remove)("group-message", seen)

    def test_subscribe_is_a_decorator_too(self, connect):
        client = connect(groups=["room"])
        seen = Recorder()

        @client.subscribe(CallbackType.GROUP_MESSAGE)
        def listener(message):
            seen(message.data)

        client.send_to_group("room", "hello")
        assert seen.wait_for(1) == ["hello"]

    @pytest.mark.parametrize("event", ["group_message", "", "message", None, 7])
    def test_unknown_events(self, new_client, event):
        with pytest.raises(InvalidArgument, match="unknown event"):
            new_client().on(event, print)

    def test_bad_listeners(self, new_client):
        client = new_client()
        with pytest.raises(InvalidArgument, match="callable"):
            client.on("connected", 7)
        with pytest.raises(InvalidArgument, match="one parameter"):
            client.on("connected", lambda a, b: None)

    def test_events_of_a_plain_life(self, new_client):
        client = new_client(user_id="mina")
        events = Recorder().attach(client, "connected", "recovered", "disconnected", "stopped", "gap", "error")
        client.start()
        connection_id = client.connection_id
        client.stop()
        assert events.names == ["connected", "stopped"]
        connected, stopped = events.payloads()
        assert (connected.connection_id, connected.user_id) == (connection_id, "mina")
        assert stopped.error is None

    def test_order_is_kept(self, connect):
        client = connect(groups=["room"])
        seen = Recorder()
        client.on("group-message", lambda message: seen(message.data))
        for number in range(500):
            client.send_to_group_nowait("room", number)
        assert seen.wait_for(500) == list(range(500))

    def test_a_listener_that_raises_stops_nothing(self, connect, caplog):
        client = connect(groups=["room"])
        seen = Recorder()
        errors = Recorder().attach(client, "error")

        @client.on("group-message")
        def fails(message):
            raise ValueError("a bad listener")

        client.on("group-message", lambda message: seen(message.data))
        client.send_to_group("room", "one")
        client.send_to_group("room", "two")
        assert seen.wait_for(2) == ["one", "two"]
        error = errors.wait_event("error")
        assert isinstance(error.error, ValueError)
        assert (error.event, error.listener) == ("group-message", fails)
        assert client.stats()["listener_errors"] == 2
        assert "a bad listener" in caplog.text and "Traceback" in caplog.text

    def test_a_listener_may_call_everything(self, connect):
        client = connect(groups=["room"])
        seen = Recorder()

        @client.on("group-message")
        def answer(message):
            if message.data == "question":
                client.join_group("other")
                client.send_to_group("other", "answer")
                client.send_to_group_nowait("other", "answer by future").result(scaled(5))
                client.flush(scaled(5))
                client.leave_group("other")
            seen(message.data)

        client.send_to_group("room", "question")
        assert seen.wait_for(3) == ["question", "answer", "answer by future"]

    def test_a_listener_may_stop_the_client(self, connect):
        client = connect(groups=["room"])
        stopped = Recorder().attach(client, "stopped")
        client.on("group-message", lambda message: client.stop())
        client.send_to_group("room", "last", ack=False)
        assert stopped.wait_event("stopped").error is None
        assert client.state == "stopped"


# ---- sending ---------------------------------------------------------------------------------------------------------


class TestGroups:
    def test_join_and_leave(self, connect, server, protocol):
        client, other = connect(protocol=protocol), connect()
        assert client.join_group("a") is None
        client.join_group("b")
        assert client.groups == ("a", "b")
        other.send_to_group("a", 1)
        assert client.receive(scaled(5)).data == 1
        client.leave_group("a")
        assert client.groups == ("b",)
        other.send_to_group("a", 2)
        other.send_to_group("b", 3)
        assert client.receive(scaled(5)).data == 3

    def test_futures(self, connect):
        client = connect()
        joined = client.join_group_nowait("room")
        sent = client.send_to_group_nowait("room", "x")
        assert isinstance(joined, Future)
        assert joined.result(scaled(5)) is None and sent.result(scaled(5)) is None
        assert client.groups == ("room",)
        assert client.receive(scaled(5)).data == "x"
        client.leave_group_nowait("room").result(scaled(5))
        assert client.groups == ()

    def test_joining_twice_is_joining_once(self, connect):
        client = connect()
        client.join_group("room")
        client.join_group("room")
        client.send_to_group("room", "x")
        assert client.receive(scaled(5)).data == "x"
        with pytest.raises(ReceiveTimeout):
            client.receive(20 * MS)

    def test_forbidden(self, connect, protocol):
        client = connect(protocol=protocol, roles=(), message_retry=RetryPolicy(total=5, base=60))
        for call in (client.join_group, client.leave_group, lambda group: client.send_to_group(group, "x")):
            with pytest.raises(SendMessageError) as caught:
                call("room")
            assert caught.value.name == "Forbidden" and caught.value.message
            assert caught.value.error_detail == (caught.value.name, caught.value.message)
            assert caught.value.ack_id
        assert client.groups == ()
        assert client.stats()["retried"] == 0, "Forbidden stays forbidden"

    @pytest.mark.parametrize("group", ["", " ", "x" * 1025, None, 7, b"room"])
    def test_bad_names(self, connect, server, group):
        client = connect()
        for call in (
            client.join_group,
            client.leave_group,
            client.join_group_nowait,
            client.leave_group_nowait,
            lambda group: client.send_to_group(group, "x"),
            lambda group: client.send_to_group_nowait(group, "x"),
        ):
            with pytest.raises(InvalidArgument, match="group"):
                call(group)
        assert client.stats()["sent"] == 0

    @pytest.mark.parametrize("group", ["x" * 1024, "\u2603", "a b/c?d=e&f", '"quoted"'])
    def test_odd_names(self, connect, group):
        client = connect()
        client.join_group(group)
        client.send_to_group(group, "x")
        assert client.receive(scaled(5)).group == group


class TestSend:
    def test_no_echo(self, connect, protocol):
        client, other = connect(protocol=protocol, groups=["room"]), connect(groups=["room"])
        client.send_to_group("room", "for others", no_echo=True)
        client.send_to_group("room", "for all")
        assert client.receive(scaled(5)).data == "for all"
        assert [other.receive(scaled(5)).data for _ in range(2)] == ["for others", "for all"]

    def test_no_ack(self, connect, protocol):
        client = connect(protocol=protocol, groups=["room"])
        client.send_to_group("room", "blocking", ack=False)
        future = client.send_to_group_nowait("room", "by future", ack=False)
        assert future.result(scaled(5)) is None and future.ack_id is None
        assert [client.receive(scaled(5)).data for _ in range(2)] == ["blocking", "by future"]
        assert client.stats()["acked"] == 0

    def test_no_ack_hides_a_refusal(self, connect):
        client = connect(roles=())
        client.send_to_group("room", "x", ack=False)
        client.flush(scaled(5))
        assert client.stats()["failed"] == 0

    def test_order_of_mixed_sends(self, connect, protocol):
        client = connect(protocol=protocol, groups=["room"])
        for number in range(60):
            if number % 3 == 0:
                client.send_to_group("room", number)
            elif number % 3 == 1:
                client.send_to_group_nowait("room", number)
            else:
                client.send_to_group("room", number, ack=False)
        assert [client.receive(scaled(5)).data for _ in range(60)] == list(range(60))

    def test_flush_waits_for_answers(self, connect, server):
        client = connect(groups=["room"])
        futures = [client.send_to_group_nowait("room", number) for number in range(100)]
        client.flush(scaled(5))
        assert all(future.done() for future in futures)
        server.faults.lose_next_ack()
        lost = client.send_to_group_nowait("room", "x")
        with pytest.raises(FlushTimeout) as caught:
            client.flush(50 * MS)
        assert isinstance(caught.value, TimeoutError) and caught.value.unacked == 1 and not lost.done()

    def test_flush_does_not_wait_for_what_comes_later(self, connect, server):
        client = connect()
        entered = threading.Event()

        @server.on("slow")
        def slow(event):
            wait_until(lambda: client._engine._waiters)  # flush() has begun
            entered.set()
            client.send_event_nowait("never", "answered")
            return None

        @server.on("never")
        def never(event):
            done.wait(scaled(20))

        done = threading.Event()
        try:
            client.send_event_nowait("slow", "x")
            client.flush(scaled(5))
            assert entered.is_set() and client.stats()["unacked"] == 1
        finally:
            done.set()

    def test_the_same_ack_id_is_executed_once_and_counts_as_success(self, connect, protocol):
        client = connect(protocol=protocol, groups=["room"])
        client.send_to_group("room", "once", ack_id=700)
        client.send_to_group("room", "once", ack_id=700)
        assert client.send_to_group_nowait("room", "once", ack_id=700).result(scaled(5)) is None
        client.send_to_group("room", "end")
        assert [client.receive(scaled(5)).data for _ in range(2)] == ["once", "end"]

    def test_automatic_ids_keep_clear_of_chosen_ones(self, connect):
        client = connect(groups=["room"])
        client.send_to_group("room", "chosen", ack_id=5)
        for number in range(10):
            client.send_to_group("room", number)
        assert [client.receive(scaled(5)).data for _ in range(11)] == ["chosen"] + list(range(10))

    def test_trying_again_after_a_lost_answer(self, connect, server, protocol):
        client = connect(protocol=protocol, groups=["room"])
        server.faults.lose_next_ack()
        wait_until(lambda: client._engine.connection._writer_idle)  # then the caller writes, whatever the time is
        with pytest.raises(AckTimeout) as caught:
            client.send_to_group("room", "once", timeout=50 * MS)
        assert isinstance(caught.value, TimeoutError) and caught.value.written
        client.send_to_group("room", "once", ack_id=caught.value.ack_id)
        client.send_to_group("room", "end")
        assert [client.receive(scaled(5)).data for _ in range(2)] == ["once", "end"]

    def test_an_ack_id_in_use(self, connect, server):
        client = connect(message_retry=NEVER)
        server.faults.lose_next_ack()
        first = client.send_to_group_nowait("room", "x", ack_id=9)
        with pytest.raises(SendMessageError, match="in progress") as caught:
            client.send_to_group_nowait("room", "x", ack_id=9)
        assert caught.value.ack_id == 9 and not first.done()

    @pytest.mark.parametrize("ack_id", [-1, 2**64, "7", 1.0, True])
    def test_bad_ack_ids(self, connect, ack_id):
        with pytest.raises(InvalidArgument, match="ack_id"):
            connect().send_to_group("room", "x", ack_id=ack_id)

    def test_the_largest_ack_id(self, connect):
        client = connect(groups=["room"])
        client.send_to_group("room", "x", ack_id=2**64 - 1)
        client.send_to_group("room", "y")
        assert [client.receive(scaled(5)).data for _ in range(2)] == ["x", "y"]

    def test_default_timeout_is_ack_timeout(self, connect, server):
        client = connect(ack_timeout=50 * MS)
        server.faults.lose_next_ack()
        with pytest.raises(AckTimeout):
            client.send_to_group("room", "x")

    def test_futures_are_not_cancelled(self, connect, server):
        client = connect()
        server.faults.lose_next_ack()
        future = client.send_to_group_nowait("room", "x")
        assert future.cancel() is False and not future.cancelled()

    def test_a_callback_of_a_future_must_not_block(self, connect, server):
        go = threading.Event()
        server.on("held", None, lambda event: go.wait(scaled(20)) and None)
        client = connect(groups=["room"])
        seen = Recorder()

        def callback(future):
            client.send_to_group_nowait("room", "from the callback")
            for call in (lambda: client.flush(1), lambda: client.send_to_group("room", "x")):
                try:
                    call()
                except ClientStateError as error:
                    seen(error)

        server_says = client.send_event_nowait("held", "x")
        server_says.add_done_callback(callback)
        go.set()  # not done before: the callback would run here, where it may block
        assert len(seen.wait_for(2)) == 2
        assert client.receive(scaled(5)).data == "from the callback"

    @pytest.mark.parametrize(
        "data, data_type, said",
        [
            (object(), None, "object"),
            ({1, 2}, None, "set"),
            (float("nan"), None, "float"),
            (float("inf"), "json", "float"),
            (None, None, "null"),
            ({"when": datetime.date(2020, 1, 1)}, None, "dict"),
            (7, "text", "int"),
            ("text", "binary", "str"),
            (b"bytes", "text", "bytes"),
            (b"bytes", "json", "bytes"),
            ("x", "yaml", "yaml"),
            ("lone \ud800 surrogate", None, "surrogate"),
        ],
    )
    def test_bad_data(self, connect, data, data_type, said):
        client = connect(groups=["room"])
        for call in (client.send_to_group, client.send_to_group_nowait, client.send_event, client.send_event_nowait):
            with pytest.raises(InvalidArgument) as caught:
                call("room", data, data_type)
            assert said in str(caught.value)
        client.send_to_group("room", "usable")
        assert client.receive(scaled(5)).data == "usable"
        assert client.stats()["sent"] == 1

    def test_a_cycle_in_json(self, connect):
        cycle = []
        cycle.append(cycle)
        with pytest.raises(InvalidArgument):
            connect().send_to_group("room", cycle)

    def test_messages_up_to_the_limit(self, connect, protocol):
        client = connect(protocol=protocol, groups=["room"])
        data = "x" * (2**20 - 200)
        client.send_to_group("room", data)
        assert client.receive(scaled(5)).data == data
        with pytest.raises(MessageTooLarge) as caught:
            client.send_to_group("room", "x" * 2**20)
        assert caught.value.size > caught.value.limit == 2**20
        client.send_to_group("room", "usable")
        assert client.receive(scaled(5)).data == "usable"

    def test_full_outbox(self, connect, server):
        client = connect(max_outbox_bytes=1000)
        server.faults.lose_next_ack()
        client.send_to_group_nowait("room", "x" * 900)
        with pytest.raises(OutboxFull):
            client.send_to_group_nowait("room", "y" * 100)
        with pytest.raises(AckTimeout) as caught:
            client.send_to_group("room", "y" * 100, timeout=50 * MS)
        assert not caught.value.written
        assert client.stats()["sent"] == 1

    def test_a_blocking_send_waits_for_room(self, connect, server):
        client = connect(max_outbox_bytes=1000)
        go = threading.Event()

        @server.on("slow")
        def slow(event):
            go.wait(scaled(20))

        client.send_event_nowait("slow", "x" * 900)
        with run_thread(client.send_to_group, "room", "y" * 100, timeout=scaled(20)) as sender:
            try:
                assert not sender.done.wait(20 * MS)
            finally:
                go.set()
            sender.result(5)

    def test_a_message_larger_than_the_outbox_fits_an_empty_one(self, connect):
        client = connect(max_outbox_bytes=10, groups=["room"])
        client.send_to_group("room", "x" * 100)
        assert client.receive(scaled(5)).data == "x" * 100


class TestEvents:
    def test_a_handler_gets_the_event_and_its_answer_comes_before_the_ack(self, connect, server, protocol):
        seen = Recorder()

        @server.on("echo", hub="hub")
        def echo(event):
            seen((event.hub, event.event, event.data, event.data_type, event.user_id, event.connection_id))
            return event.data

        client = connect(protocol=protocol, user_id="mina")
        for data, data_type in (("text", "text"), (b"bytes", "binary"), ({"json": [1]}, "json")):
            client.send_event("echo", data)
            message = client.receive(0)  # it arrived before send_event returned
            assert (message.kind, message.data, message.data_type) == ("server", data, data_type)
            assert seen.payloads()[-1] == ("hub", "echo", data, data_type, "mina", client.connection_id)

    def test_server_message_listeners(self, connect, server):
        server.on("echo", None, lambda event: event.data)
        client = connect()
        seen = Recorder().attach(client, "server-message")
        client.send_event("echo", "hello")
        assert seen.wait_event("server-message").data == "hello"

    def test_futures_and_fire_and_forget(self, connect, server):
        seen = Recorder()
        server.on("note", None, lambda event: seen(event.data))
        client = connect()
        assert client.send_event_nowait("note", 1).result(scaled(5)) is None
        client.send_event("note", 2, ack=False)
        assert client.send_event_nowait("note", 3, ack=False).result(scaled(5)) is None
        assert seen.wait_for(3) == [1, 2, 3]

    def test_no_handler(self, connect):
        client = connect(message_retry=NEVER)
        with pytest.raises(SendMessageError) as caught:
            client.send_event("nobody", "x")
        assert caught.value.name == "InternalServerError"
        future = client.send_event_nowait("nobody", "x")
        assert isinstance(future.exception(scaled(5)), SendMessageError)
        assert client.stats()["failed"] == 2

    def test_a_refused_send_is_tried_again_under_the_same_id(self, connect, server):
        calls = []

        @server.on("shaky")
        def shaky(event):
            calls.append(event.data)
            if len(calls) < 3:
                raise RuntimeError("not yet")

        client = connect(message_retry=SOON)
        client.send_event("shaky", "x", ack_id=77)
        assert calls == ["x"] * 3
        assert client.stats()["retried"] == 2
        client.send_event("shaky", "x", ack_id=77)  # a repeat: the three tries had one id
        assert calls == ["x"] * 3

    def test_retries_keep_every_flag(self, connect, server):
        # The official client loses ack_id, ack and no_echo in its retries.
        permission = server.hub("hub")
        client = connect(groups=["room"], message_retry=SOON)
        other = connect(groups=["room"])
        calls = []

        @server.on("shaky")
        def shaky(event):
            calls.append(event)
            if len(calls) == 1:
                raise RuntimeError("not yet")

        client.send_event("shaky", b"raw", "binary")
        assert [(event.data, event.data_type) for event in calls] == [(b"raw", "binary")] * 2
        assert permission.group_exists("room")
        client.send_to_group("room", "not for me", no_echo=True)
        client.send_to_group("room", "end")
        assert client.receive(scaled(5)).data == "end" and other.receive(scaled(5)).data == "not for me"

    def test_retries_run_out(self, connect, server):
        calls = []

        @server.on("broken")
        def broken(event):
            calls.append(1)
            raise RuntimeError("never")

        client = connect(message_retry=RetryPolicy(total=2, base=0.001, mode="fixed"))
        with pytest.raises(SendMessageError) as caught:
            client.send_event("broken", "x", ack_id=5)
        assert len(calls) == 3 and caught.value.ack_id == 5

    def test_stop_ends_the_wait_before_a_retry(self, connect, server):
        client = connect(message_retry=RetryPolicy(total=2, base=3600, maximum=3600), ack_timeout=None)
        with run_thread(client.send_event, "nobody", "x") as sender:
            wait_until(lambda: client.stats()["retried"] == 1)
            client.stop()
            assert isinstance(sender.exception(5), ClientStopped)

    @pytest.mark.parametrize("event", ["", "1st", "a b", "x" * 129, None, 7])
    def test_bad_names(self, connect, event):
        client = connect()
        for call in (client.send_event, client.send_event_nowait):
            with pytest.raises(InvalidArgument, match="event"):
                call(event, "x")


class TestRejoin:
    def reconnect(self, server, client, events, count):
        server.faults.refuse_recovery(times=1)
        server.faults.drop_connections()
        events.wait_event("connected", count=count)

    def groups_at(self, server, client):
        # The lost session is still there: the server keeps it for its window.
        return sorted(*(c.groups for c in server.connections() if c.connection_id == client.connection_id))

    def test_a_refused_rejoin_is_told(self, new_client, server, protocol):
        roles = [None, ()]  # None: all of them
        urls = [
            server.client_access_url("hub", **({} if role is None else {"roles": role})) for role in roles
        ]
        client = new_client(url=lambda: urls.pop(0), protocol=protocol)
        events = Recorder().attach(client, "connected", "rejoin-group-failed")
        client.start()
        client.join_group("room")
        self.reconnect(server, client, events, 2)
        failure = events.wait_event("rejoin-group-failed")
        assert failure.group == "room"
        assert isinstance(failure.error, SendMessageError) and failure.error.name == "Forbidden"
        stats = client.stats()
        assert (stats["sent"], stats["acked"], stats["failed"]) == (1, 1, 0), "a rejoin is no send of the user's"

    def test_switched_off(self, new_client, server, protocol):
        client = new_client(protocol=protocol, auto_rejoin_groups=False)
        events = Recorder().attach(client, "connected")
        client.start()
        client.join_group("room")
        self.reconnect(server, client, events, 2)
        client.send_to_group("room", "x")
        assert self.groups_at(server, client) == []

    def test_only_what_is_joined_now(self, new_client, server, protocol):
        client = new_client(protocol=protocol)
        events = Recorder().attach(client, "connected")
        client.start()
        for group in ("a", "b", "c"):
            client.join_group(group)
        client.leave_group("b")
        self.reconnect(server, client, events, 2)
        client.join_group("d")
        assert self.groups_at(server, client) == ["a", "c", "d"]
        assert client.groups == ("a", "c", "d")


# ---- looking, options, other people's names --------------------------------------------------------------------------


class TestLooking:
    def test_stats(self, connect, protocol):
        client = connect(protocol=protocol, groups=["room"])
        assert set(client.stats().values()) == {0}
        client.join_group("room")
        for number in range(5):
            client.send_to_group("room", number)
        for _ in range(3):
            client.receive(scaled(5))
        wait_until(lambda: client.stats()["received"] == 5)
        stats = client.stats()
        assert {name: value for name, value in stats.items() if value} == {
            "sent": 6,
            "acked": 6,
            "received": 5,
            "inbox": 2,
        }
        assert set(stats) >= {
            "failed", "retried", "replayed", "dropped", "gaps", "reconnects", "recoveries", "unacked", "outbox",
            "outbox_bytes", "duplicates_dropped", "listener_queue", "listener_errors",
        }  # fmt: skip

    def test_repr(self, connect, new_client):
        stopped = repr(new_client())
        assert "WebPubSubClient stopped json.reliable.webpubsub.azure.v1" in stopped and "token" not in stopped
        client = connect(protocol=JSON, user_id="mina", groups=["room"])
        client.join_group("room")
        client.send_to_group("room", "x")
        text = repr(client)
        for part in ("connected", "json.webpubsub.azure.v1", client.connection_id, "'mina'", "groups=1", "inbox=1"):
            assert part in text
        assert "eyJ" not in text  # how every token begins

    def test_card_for_notebooks(self, connect):
        client = connect(user_id="<b>mina</b>")
        client.join_group("<script>")
        card = client._repr_html_()
        assert "<b>mina" not in card and "<script>" not in card and "&lt;script&gt;" in card
        for part in ("connected", client.connection_id, "json.reliable.webpubsub.azure.v1"):
            assert part in card
        assert card.count("<table") == card.count("</table>") == 1

    def test_latency(self, connect):
        client = connect(ping_interval=20 * MS)
        wait_until(lambda: client.latency is not None)
        assert 0 < client.latency < scaled(5)
        client.stop()
        assert client.latency is None


class TestOptions:
    @pytest.mark.parametrize(
        "name, wire",
        [
            ("json", "json.webpubsub.azure.v1"),
            ("JSON.Reliable", "json.reliable.webpubsub.azure.v1"),
            ("json.webpubsub.azure.v1", "json.webpubsub.azure.v1"),
            (WebPubSubProtocolType.JSON, "json.webpubsub.azure.v1"),
            (WebPubSubProtocolType.JSON_RELIABLE, "json.reliable.webpubsub.azure.v1"),
        ],
    )
    def test_protocols(self, connect, server, name, wire):
        connect(protocol=name)
        connect(protocol_type=name)
        assert [connection.subprotocol for connection in server.connections()] == [wire, wire]

    @pytest.mark.parametrize(
        "options, said",
        [
            ({"protocol": "xml"}, "xml"),
            ({"protocol_type": "xml"}, "xml"),
            ({"start_timeout": -1}, "start_timeout"),
            ({"ack_timeout": "soon"}, "ack_timeout"),
            ({"close_timeout": float("nan")}, "close_timeout"),
            ({"ping_interval": 0}, "ping_interval"),
            ({"idle_timeout": 0}, "idle_timeout"),
            ({"max_inbox": 0}, "max_inbox"),
            ({"max_outbox_bytes": 1.5}, "max_outbox_bytes"),
            ({"gaps": "ignore"}, "gaps"),
            ({"ssl": True}, "ssl"),
            ({"proxy": "ftp://proxy:21"}, "proxy"),
            ({"message_retry": 3}, "message_retry"),
            ({"reconnect_retry": None}, "reconnect_retry"),
            ({"message_retry_total": -1}, "total"),
            ({"reconnect_retry_mode": "sometimes"}, "mode"),
            ({"reconect_retry_total": 1}, "reconect_retry_total"),
        ],
    )
    def test_bad_ones(self, options, said):
        with pytest.raises(InvalidArgument, match=said):
            WebPubSubClient("ws://localhost/client/hubs/hub", **options)

    def test_headers_reach_the_service(self, connect, server):
        seen = Recorder()
        server.on("connect", None, lambda request: seen(request.headers))
        connect(headers={"X-Custom": "seen"}, user_agent="mine/1.0")
        headers = {name.lower(): values for name, values in seen.wait_for(1)[0].items()}
        assert headers["x-custom"] == ["seen"]
        (agent,) = headers["user-agent"]
        assert agent.startswith("mine/1.0 simplepubsub/")

    def test_start_timeout_of_the_call_wins(self, new_client, fresh_server):
        server = fresh_server()  # of its own: it may find what is left of the attempt after the test
        server.faults.freeze(scaled(20))
        client = new_client(url=server.client_access_url("hub"), start_timeout=3600)
        with pytest.raises(simplepubsub.ConnectTimeout):
            client.start(timeout=50 * MS)


class TestOtherPeoplesNames:
    """Code that was written for the official SDK needs another import and no more."""

    def test_models(self):
        for name in (
            "WebPubSubDataType", "OnConnectedArgs", "OnDisconnectedArgs", "OnServerDataMessageArgs",
            "OnGroupDataMessageArgs", "OnRejoinGroupFailedArgs", "WebPubSubProtocolType", "CallbackType",
            "SendMessageError", "OpenClientError", "AckMessageError",
        ):  # fmt: skip
            assert hasattr(models, name) and name in models.__all__
        assert models.OpenClientError is OpenClientError is ConnectError
        assert models.SendMessageError is SendMessageError
        assert {item.value for item in CallbackType} == {
            "connected", "disconnected", "stopped", "server-message", "group-message", "rejoin-group-failed",
        }  # fmt: skip

    def test_flat_retry_keywords(self, connect, server):
        calls = []

        @server.on("broken")
        def broken(event):
            calls.append(1)
            raise RuntimeError("never")

        client = connect(
            message_retry_total=1,
            message_retry_backoff_factor=0.001,
            message_retry_backoff_max=0.002,
            message_retry_mode="fixed",
            reconnect_retry_total=7,
            reconnect_retry_backoff_factor=0.5,
            reconnect_retry_backoff_max=3.0,
            reconnect_retry_mode="exponential",
            auto_rejoin_groups=True,
            ack_timeout=scaled(20),
            start_timeout=scaled(20),
            logging_enable=False,
            user_agent="old code",
        )
        with pytest.raises(SendMessageError):
            client.send_event("broken", "x")
        assert len(calls) == 2

    def test_a_total_of_zero_switches_reconnecting_off(self, connect, server):
        client = connect(reconnect_retry_total=0, protocol=JSON)
        stopped = Recorder().attach(client, "stopped")
        server.faults.drop_connections()
        assert stopped.wait_event("stopped").error is not None

    def test_code_in_the_wild(self, server):
        seen = Recorder()
        credential = WebPubSubClientCredential(
            client_access_url_provider=lambda: server.client_access_url("hub", user_id="mina")
        )
        client = WebPubSubClient(credential=credential, protocol_type=models.WebPubSubProtocolType.JSON_RELIABLE)
        client.subscribe(models.CallbackType.CONNECTED, lambda e: seen.record("connected", e.connection_id))
        client.subscribe(
            models.CallbackType.GROUP_MESSAGE, lambda e: seen.record("message", e.group, e.data, e.data_type)
        )
        with client:
            client.join_group("room")
            client.send_to_group("room", "hello", models.WebPubSubDataType.TEXT, no_echo=False, ack=True)
            client.send_to_group("room", {"a": 1}, models.WebPubSubDataType.JSON)
            client.send_to_group("room", memoryview(b"raw"), models.WebPubSubDataType.BINARY)
            connection_id = client.connection_id
            seen.wait_for(4)
        assert seen.events == [
            ("connected", connection_id),
            ("message", ("room", "hello", "text")),
            ("message", ("room", {"a": 1}, "json")),
            ("message", ("room", b"raw", "binary")),
        ]


# ---- logs ------------------------------------------------------------------------------------------------------------

LOGGING_CHILD = """
    import sys
    from simplepubsub.webpubsub import WebPubSubClient
    with WebPubSubClient(sys.argv[1], logger=%r) as client:
        client.join_group("room")
        client.send_to_group("room", "the payload")
        assert client.receive(10).data == "the payload"
"""


class TestLogs:
    def output(self, server, logger=False, **env):
        url = server.client_access_url("hub", user_id="mina")
        clean = {"SIMPLEPUBSUB_LOG_LEVEL": "", "AZURE_LOG_LEVEL": ""}
        result = run_python(LOGGING_CHILD % logger, url, env={**clean, **env})
        assert url.partition("access_token=")[2] not in result.stderr
        assert "eyJ" not in result.stderr, "a token"
        return result.stderr

    def test_silent_by_default(self, server):
        assert self.output(server) == ""

    @pytest.mark.parametrize(
        "options",
        [
            {"logger": True},
            {"SIMPLEPUBSUB_LOG_LEVEL": "verbose"},
            {"SIMPLEPUBSUB_LOG_LEVEL": "Verbose"},
            {"AZURE_LOG_LEVEL": "verbose"},
            {"SIMPLEPUBSUB_LOG_LEVEL": "verbose", "AZURE_LOG_LEVEL": "error"},
        ],
    )
    def test_everything_with_secrets_masked(self, server, options):
        text = self.output(server, **options)
        assert "simplepubsub.wire" in text and "the payload" in text
        assert "start() was called" in text, "one line per change of state, with its reason"
        # The connected message carries the token that continues the session.
        (line,) = [line for line in text.splitlines() if "reconnectionToken" in line]
        assert '"reconnectionToken":"***"' in line

    @pytest.mark.parametrize("name", ["SIMPLEPUBSUB_LOG_LEVEL", "AZURE_LOG_LEVEL"])
    def test_debug_shows_states_and_no_frames(self, server, name):
        text = self.output(server, **{name: "debug"})
        assert "start() was called" in text and "the payload" not in text

    def test_an_unknown_level_is_named(self, server):
        assert "loud" in self.output(server, SIMPLEPUBSUB_LOG_LEVEL="loud")
        assert self.output(server, AZURE_LOG_LEVEL="loud") == "", "that variable is not ours"
