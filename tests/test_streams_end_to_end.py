"""Streams and invocations of the client against the embedded server, on real sockets and through its faults."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest

from simplepubsub.exceptions import InvocationError, RefuseEvent, StreamFailed, StreamLost, StreamRefused
from simplepubsub.server import Limits
from simplepubsub.webpubsub import RetryPolicy, WebPubSubClient
from tests.helpers import MS, run_thread, scaled, wait_until
from tests.rawclient import Clients


def wait_for_signs_of_life(server, client, writer):
    """Wait until the server has put off the end of a quiet stream three times, because its writer keeps it alive.

    The client is made to believe in a shorter idle time than the server, so that no busy machine is too slow for it.
    """

    def due():
        hubs = server._pump.work.hubs.values()
        streams = [session.streams for hub in hubs for session in hub.sessions.values()]
        return next(table[writer.stream_id].due for table in streams if writer.stream_id in table)

    with client._engine.mutex:
        writer._channel.stream.idle_timeout = 40 * MS
        client._engine.wake.notify_all()
    for _ in range(3):
        before = server._call(due)
        wait_until(lambda before=before: server._call(due) > before)


@pytest.fixture
def connect(server):
    """`connect(**options of client_access_url)`, or `connect(url=...)`: a started client, stopped after the test."""
    made = []

    def make(protocol="json.reliable", url=None, **options):
        url = url or server.client_access_url("plaza", **options)
        policy = RetryPolicy(base=10 * MS, maximum=50 * MS)
        made.append(WebPubSubClient(url, protocol=protocol, reconnect_retry=policy))
        made[-1].start()
        return made[-1]

    yield make
    for client in made:
        client.stop()


def open_and_forget(client, group, idle_timeout):
    """Open a stream that nobody writes; on a busy machine its idle time may be over before it is seen to be open."""
    with contextlib.suppress(StreamFailed):
        client.open_stream(group, idle_timeout=idle_timeout)


class Reading:
    """Reads the next stream of a client to its end, in a thread."""

    def __init__(self, client, **options):
        self.incoming = client.streams("lobby", **options)
        self.data = []
        self.thread = run_thread(self.read)

    def read(self):
        reader = self.incoming.accept(scaled(10))
        for message in reader:
            self.data.append(message.data)
        return reader

    def __enter__(self):
        self.thread.__enter__()
        return self

    def __exit__(self, *error):
        self.thread.__exit__(*error)
        self.incoming.close()


@pytest.mark.parametrize("protocol", ["json", "json.reliable"])
def test_a_stream_from_one_client_to_another(connect, protocol):
    reader, publisher = connect(groups=["lobby"], protocol=protocol), connect(protocol=protocol)
    pieces = ["once", {"upon": "a"}, b"time", "", [None]]
    with Reading(reader) as reading:
        with publisher.open_stream("lobby") as stream:
            for piece in pieces:
                stream.write(piece)
        assert (str(stream.state), stream.acknowledged, stream.unacknowledged) == ("closed", 5, 0)
    assert reading.data == pieces
    assert reading.thread.result().stream_id == stream.stream_id


def test_an_abort_reaches_the_reader(connect):
    reader, publisher = connect(groups=["lobby"]), connect()
    with Reading(reader) as reading:
        stream = publisher.open_stream("lobby")
        stream.write("half a")
        stream.abort("model stopped", "E42")
        error = reading.thread.exception(scaled(10))
    assert reading.data == ["half a"]
    assert isinstance(error, StreamFailed)
    assert (error.name, error.message, error.user_error_code) == ("UserError", "model stopped", "E42")


def test_a_start_that_is_refused(connect):
    publisher = connect(roles=["webpubsub.sendToGroup.other"])
    with pytest.raises(StreamRefused) as caught:
        publisher.open_stream("lobby")
    assert caught.value.name == "Forbidden"
    publisher.open_stream("other").end()


def test_a_right_that_is_revoked_fails_both_sides(server, connect):
    reader, publisher = connect(groups=["lobby"]), connect()
    with Reading(reader) as reading:
        stream = publisher.open_stream("lobby")
        server.hub("plaza").revoke_permission("sendToGroup", publisher.connection_id, "lobby")
        stream.write("x")
        with pytest.raises(StreamFailed) as caught:
            stream.flush(scaled(10))
        assert caught.value.name == reading.thread.exception(scaled(10)).name == "Forbidden"


def test_the_writer_keeps_its_stream_alive(server, connect):
    publisher = connect()
    stream = publisher.open_stream("lobby", idle_timeout=scaled(30))
    wait_for_signs_of_life(server, publisher, stream)
    open_and_forget(publisher, "lobby", scaled(0.1))
    wait_until(lambda: server.stats()["streams_expired"] == 1)
    open_and_forget(publisher, "lobby", scaled(0.3))
    wait_until(lambda: server.stats()["streams_expired"] == 2)
    stream.write("still here")
    stream.end()
    assert server.stats()["streams"] == 0


@pytest.mark.parametrize("fault", ["refused", "acks lost", "cut", "all"])
def test_nothing_is_lost_repeated_or_out_of_order(server, proxy, url_for, connect, seed, fault):
    chance = random.Random(seed)
    publisher = connect(url=url_for("plaza"))
    with Clients(server) as clients:
        reader = clients.connect("json.webpubsub.azure.v1", groups=["lobby"])  # its link is not cut
        stream = publisher.open_stream("lobby")
        for number in range(400):
            stream.write(number)
            if fault in ("refused", "all") and chance.random() < 0.02:
                server.faults.refuse_fragments(chance.randint(1, 3))
            if fault in ("acks lost", "all") and chance.random() < 0.05:
                server.faults.lose_next_stream_ack(chance.randint(1, 3))
            if fault in ("cut", "all") and number % 80 == 79:
                proxy.cut()
        server.faults.lose_next_stream_ack(0)  # or the end would wait for an ack that never comes
        stream.write(400)
        with run_thread(stream.end, scaled(20)) as ending:
            if fault in ("cut", "all"):
                proxy.cut()
            ending.result(scaled(20))
        messages = reader.receive_many(402)
        assert [message["data"] for message in messages] == list(range(401)) + [""]
        assert [message["stream"]["streamSequenceId"] for message in messages] == list(range(1, 403))
        assert messages[-1]["stream"]["endOfStream"] is True and "error" not in messages[-1]["stream"]
        assert stream.acknowledged == 401
        reader.assert_quiet()


def test_a_new_session_fails_the_stream(server, proxy, url_for, connect):
    reader, publisher = connect(groups=["lobby"]), connect(url=url_for("plaza"))
    with Reading(reader) as reading:
        stream = publisher.open_stream("lobby")
        stream.write("x")
        stream.flush()
        server.faults.refuse_recovery(1)
        proxy.cut()
        with pytest.raises(StreamLost):
            while True:
                stream.write("more")
                stream.flush(scaled(10))
        server.hub("plaza").close_all_connections()
        assert isinstance(reading.thread.exception(scaled(10)), (StreamFailed, StreamLost))


def test_a_burst_beyond_every_window_loses_nothing(fresh_server, connect):
    server = fresh_server(limits=Limits(patience=scaled(20)))  # with a reader that does not get to run for a while
    reader = connect(url=server.client_access_url("plaza", groups=["lobby"]))
    publisher = connect(url=server.client_access_url("plaza"))
    with Reading(reader) as reading:
        with publisher.open_stream("lobby") as stream:
            for number in range(3000):
                stream.write(number)
    assert reading.data == list(range(3000))
    assert server.stats()["overflowed"] == 0


def test_streams_side_by_side(connect):
    reader, publisher = connect(groups=["lobby"]), connect()
    incoming = reader.streams("lobby")
    writers = [publisher.open_stream("lobby", stream_id="s%d" % number) for number in range(5)]

    def write(writer):
        for number in range(100):
            writer.write("%s %d" % (writer.stream_id, number))
        writer.end()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    found = {}
    for _ in writers:
        with incoming.accept(scaled(10)) as one:
            found[one.stream_id] = [message.data for message in one]
    for thread in threads:
        thread.join()
    assert found == {"s%d" % n: ["s%d %d" % (n, number) for number in range(100)] for n in range(5)}
    incoming.close()


# --- invocations ------------------------------------------------------------------------------------------------------


def test_invocations_end_to_end(server, connect):
    @server.on("echo")
    def echo(event):
        if event.data == "no":
            raise RefuseEvent(422, "say something else")
        return event.data

    client = connect()
    for data in ("text", {"a": [1]}, b"\1\2", 5):
        assert client.invoke_event("echo", data).data == data
    assert client.invoke_event("echo").data is None
    with pytest.raises(InvocationError) as caught:
        client.invoke_event("echo", "no")
    assert (caught.value.name, caught.value.message) == ("BadRequest", "say something else")
    with pytest.raises(InvocationError) as caught:
        client.invoke_event("unheard.of")
    assert caught.value.name == "InvocationFailed"
    assert server.stats()["invocations"] == 7


def test_a_cancelled_invocation_frees_its_place(server, connect):
    entered, release = threading.Event(), threading.Event()

    @server.on("slow")
    def slow(event):
        entered.set()
        release.wait(scaled(10))

    client = connect()
    futures = [client.invoke_event_nowait("slow") for _ in range(3)]
    assert entered.wait(scaled(10))
    client.join_group("g", timeout=scaled(10))  # so the server has them all: nobody tells it of what was not written
    for future in futures[:2]:
        assert future.cancel()
    wait_until(lambda: server.stats()["invocations_cancelled"] == 2)
    release.set()
    assert futures[2].result(scaled(10)).data is None
    assert server.stats()["invocations"] == 1
