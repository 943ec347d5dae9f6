"""Streams over real sockets: what the pump adds to the pure core (timers, turns), and the faults for them."""

from __future__ import annotations

import json
import struct

import pytest

from simplepubsub.exceptions import InvalidArgument
from simplepubsub.server import Limits
from tests.helpers import CLOSE, TEXT, make_frame, scaled, wait_until
from tests.rawclient import PLAIN, RELIABLE, Clients
from tests.test_server_streams import ack, closed


def start_of(stream_id="s", idle=None, **more):
    stream = {"streamId": stream_id}
    if idle is not None:
        stream["idleTimeoutMs"] = int(1000 * scaled(idle))
    return dict({"type": "sendToGroup", "group": "lobby", "stream": stream}, **more)


def data_of(number, stream_id="s"):
    return {"type": "streamData", "streamId": stream_id, "streamSequenceId": number, "dataType": "text",
            "data": "f%d" % number}


def end_of(stream_id="s"):
    return {"type": "streamEnd", "streamId": stream_id}


def together(client, *messages, close=None):
    """Send in one piece, perhaps with a close frame at its end.

    The server meets it at once, however slow the client is: no idle time passes in between.
    """
    frames = [make_frame(TEXT, json.dumps(message).encode(), mask=b"abcd") for message in messages]
    if close is not None:
        frames.append(make_frame(CLOSE, struct.pack("!H", close), mask=b"abcd"))
    client.ws.sock.sendall(b"".join(frames))


def start(client, stream_id="s", idle=None, **more):
    client.send(start_of(stream_id, idle, **more))
    assert client.receive() == ack(1, stream_id)


def data(client, *numbers, stream_id="s"):
    client.send(*[data_of(number, stream_id) for number in numbers])


def end(client, stream_id="s"):
    client.send(end_of(stream_id))


def until_closed(client):
    """Return the acks before a streamClosed, and that."""
    answers = [client.receive()]
    while answers[-1]["type"] != "streamClosed":
        answers.append(client.receive())
    return answers[:-1], answers[-1]


def fragment(client):
    message = client.receive()
    info = message["stream"]
    return info["streamSequenceId"], message["data"], info.get("endOfStream", False)


def test_a_whole_stream(server, connect):
    reader, simple = connect(PLAIN, groups=["lobby"]), connect(groups=["lobby"])
    publisher = connect(RELIABLE, groups=["lobby"])
    start(publisher, noEcho=True)
    assert server.stats()["streams"] == 1
    data(publisher, *range(1, 201))
    end(publisher)
    acks, last = until_closed(publisher)
    assert last == closed()
    numbers = [answer["expectedSequenceId"] for answer in acks]
    assert numbers == sorted(numbers) and numbers[-1] == 201
    assert [fragment(reader) for _ in range(201)] == [(n, "f%d" % n, False) for n in range(1, 201)] + [(201, "", True)]
    assert [simple.frame()[1] for _ in range(200)] == ["f%d" % n for n in range(1, 201)]
    reader.assert_quiet()
    server.hub("plaza").send_to_all("next")
    assert simple.frame()[1] == "next"
    stats = server.stats()
    assert (stats["streams"], stats["streams_started"], stats["fragments"]) == (0, 1, 200)


def test_idle_streams_end_by_themselves_soonest_first(server, connect):
    reader, publisher = connect(PLAIN, groups=["lobby"]), connect(PLAIN)
    together(publisher, start_of("long", idle=600), start_of("later", idle=0.3), start_of("soon", idle=0.05))
    assert publisher.receive_many(3) == [ack(1, "long"), ack(1, "later"), ack(1, "soon")]
    for stream_id in ("soon", "later"):
        answer = publisher.receive()
        assert (answer["streamId"], answer["error"]["name"]) == (stream_id, "IdleTimeout")
        message = reader.receive()
        assert message["stream"]["streamId"] == stream_id
        assert message["stream"]["error"]["name"] == "IdleTimeout"
    assert server.stats()["streams"] == 1 and server.stats()["streams_expired"] == 2


def test_the_end_of_a_publisher_is_told(server, connect):
    reader = connect(PLAIN, groups=["lobby"])
    for way in ("polite", "cut", "kicked"):
        publisher = connect(PLAIN)
        start(publisher, way)
        if way == "polite":
            publisher.close()
        elif way == "cut":
            publisher.abort()
        else:
            server.hub("plaza").close_connection(publisher.connection_id)
        message = reader.receive()
        assert message["stream"]["streamId"] == way
        assert message["stream"]["error"]["name"] == "Cancelled"


def test_a_publisher_that_does_not_come_back_is_told_when_it_is_given_up(fresh_server):
    server = fresh_server(recovery_window=scaled(0.2))
    with Clients(server) as clients:
        reader, publisher = clients.connect(PLAIN, groups=["lobby"]), clients.connect(RELIABLE)
        together(publisher, start_of(idle=0.01), close=4000)  # the idle time does not count meanwhile
        assert reader.receive()["stream"]["error"]["name"] == "Cancelled"


def test_a_stream_goes_on_after_a_cut(server, connect):
    reader, publisher = connect(PLAIN, groups=["lobby"]), connect(RELIABLE)
    start(publisher)
    data(publisher, 1, 2)
    assert fragment(reader) == (1, "f1", False)
    assert fragment(reader) == (2, "f2", False)
    server.faults.drop_connections()
    publisher.expect_loss()
    reader.expect_loss()
    second = connect(PLAIN, groups=["lobby"])
    with publisher.recover() as again:
        data(again, 1, 2, 3)
        end(again)
        assert until_closed(again)[1] == closed()
        assert fragment(second) == (3, "f3", False)
        assert fragment(second) == (4, "", True)


def test_fragments_wait_for_slow_receivers(fresh_server):
    server = fresh_server(limits=Limits(max_unacked_messages=50, patience=20))
    with Clients(server) as clients:
        reader, publisher = clients.connect(RELIABLE, groups=["lobby"]), clients.connect(PLAIN)
        together(publisher, start_of(idle=0.2), *[data_of(number) for number in range(1, 301)], end_of())
        for number in range(1, 301):
            assert fragment(reader) == (number, "f%d" % number, False)
            reader.acknowledge(number)
        assert fragment(reader) == (301, "", True)
        assert until_closed(publisher)[1] == closed()
        assert server.stats()["overflowed"] == 0


def test_what_waits_behind_another_command_is_not_idle(fresh_server):
    server = fresh_server(limits=Limits(max_unacked_messages=50, patience=20))
    with Clients(server) as clients:
        reader, publisher = clients.connect(RELIABLE, groups=["news"]), clients.connect(PLAIN)
        control, quick = clients.connect(PLAIN), clients.connect(PLAIN)
        news = [{"type": "sendToGroup", "group": "news", "dataType": "text", "data": "x"}] * 40
        together(publisher, start_of(idle=0.2), *news, data_of(1))
        assert publisher.receive() == ack(1)
        start(control, "other", idle=0.3)
        assert control.receive()["error"]["name"] == "IdleTimeout"
        start(quick, "other", idle=0.3)
        assert quick.receive()["error"]["name"] == "IdleTimeout"
        for number in range(1, 41):
            assert reader.receive()["sequenceId"] == number
            reader.acknowledge(number)
        assert publisher.receive() == ack(2)


def test_a_right_that_is_revoked(server, connect):
    reader, publisher = connect(PLAIN, groups=["lobby"]), connect(PLAIN)
    start(publisher)
    server.hub("plaza").revoke_permission("sendToGroup", publisher.connection_id, "lobby")
    data(publisher, 1)
    assert publisher.receive()["error"]["name"] == "Forbidden"
    assert reader.receive()["stream"]["error"]["name"] == "Forbidden"


def test_lost_stream_acks(server, connect):
    publisher = connect(PLAIN)
    server.faults.lose_next_ack()
    start(publisher)  # other acks
    server.faults.lose_next_stream_ack()
    data(publisher, 1)
    publisher.assert_quiet()
    server.faults.lose_next_stream_ack(None)
    data(publisher, 2)
    publisher.assert_quiet()
    server.faults.clear()
    data(publisher, 2)
    assert publisher.receive() == ack(3)
    server.faults.clear()


def test_refused_fragments(server, connect):
    publisher = connect(PLAIN)
    start(publisher)
    server.faults.refuse_fragments(2)
    for _ in range(2):
        data(publisher, 1)
        answer = publisher.receive()
        assert (answer["type"], answer["name"], answer["expectedSequenceId"]) == ("streamNack", "TransientError", 1)
    data(publisher, 1)
    assert publisher.receive() == ack(2)
    for wrong in (-1, 1.5, True, "1"):
        with pytest.raises(InvalidArgument):
            server.faults.refuse_fragments(wrong)
        with pytest.raises(InvalidArgument):
            server.faults.lose_next_stream_ack(wrong)
    server.faults.refuse_fragments(None)
    server.faults.clear()
    data(publisher, 2)
    assert publisher.receive() == ack(3)


def test_streams_ended_by_the_service(server, connect):
    publisher, other = connect(PLAIN), connect(PLAIN, hub="other")
    for client in (publisher, other):
        start(client)
    assert server.faults.end_streams("PLAZA") == 1
    assert publisher.receive()["error"]["name"] == "InternalServerError"
    other.assert_quiet()
    assert server.faults.end_streams() == 1
    assert other.receive()["error"]["name"] == "InternalServerError"


def test_a_frozen_server_does_not_blame_the_publisher(server, connect):
    """The idle time is made to end while the server is frozen, and to begin anew with plenty of time."""
    publisher, pump = connect(PLAIN), server._pump
    start(publisher, idle=600)
    server.faults.freeze(600)

    def hurry():
        stream = pump.work.hubs["plaza"].sessions[publisher.connection_id].streams["s"]
        stream.due = pump.loop.time()
        pump.work.streams._watch(stream)
        pump._watch_streams()

    server._call(hurry)
    wait_until(lambda: server._call(lambda: pump._idle_timer is None))
    server.faults.clear()
    publisher.assert_quiet()
    data(publisher, 1)
    assert publisher.receive() == ack(2)


def test_reset_forgets_streams(server, connect):
    start(connect(RELIABLE))
    server.reset()
    assert server.stats()["streams"] == 0
    wait_until(lambda: server.stats()["sockets"] == 0)


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "sendToGroup", "group": "lobby", "stream": "s"},
        {"type": "sendToGroup", "group": "lobby", "stream": {}},
        {"type": "sendToGroup", "group": "lobby", "stream": {"streamId": "s", "idleTimeoutMs": "1"}},
        {"type": "streamData"},
        {"type": "streamData", "streamId": "s", "data": "x"},
        {"type": "streamData", "streamId": "s", "streamSequenceId": 1},
        {"type": "streamData", "streamId": "s", "streamSequenceId": -1, "dataType": "text", "data": "x"},
        {"type": "streamEnd", "streamId": "s", "error": "x"},
    ],
)
def test_malformed_frames_close_the_connection(connect, frame):
    client = connect(PLAIN)
    client.send(frame)
    assert client.expect_close()[0] == 1007
