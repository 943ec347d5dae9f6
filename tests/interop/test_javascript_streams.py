"""Streams of the official JavaScript client, unchanged, through the embedded server, to our client and to itself."""

from __future__ import annotations

import pytest

from simplepubsub import WebPubSubClient
from simplepubsub.exceptions import StreamFailed, StreamRefused
from tests.helpers import scaled, wait_until
from tests.node import NodeError

pytestmark = pytest.mark.interop

FRAGMENTS = 300
VALUES = [("h\u00e9llo \U0001f600", "text"), ({"a": [1, 2.5, None, True]}, "json"), (b"\0\1\xff", "binary")]


@pytest.fixture
def ours(server):
    """Our client, a member of the group "lobby"."""
    with WebPubSubClient(server.client_access_url("plaza")) as client:
        client.join_group("lobby")
        yield client


@pytest.fixture
def writer(server, node):
    return node.client(server.client_access_url("plaza", user_id="mina"), "writer")


@pytest.fixture
def reader(server, node):
    """An official client in the group "lobby" that reads its streams."""
    client = node.client(server.client_access_url("plaza"), "reader", streams={})
    client.call("joinGroup", "lobby")
    return client


def received(client):
    """What our client receives of one stream, to its end."""
    fragments = []
    while True:
        fragments.append(client.receive(timeout=20))
        if fragments[-1].stream.end_of_stream:
            return fragments


def fragments(client, count):
    return [(data["data"], data["dataType"]) for data in client.messages(count, "stream-data", timeout=20)]


def test_all_data_types_reach_our_client(ours, writer):
    stream = writer.keep("stream", "openGroupStream", "lobby", {"streamId": "s-01"})
    for value, data_type in VALUES:
        stream.call("write", value, data_type)
    stream.call("end")
    *data, end = received(ours)
    assert [(message.data, message.data_type) for message in data] == VALUES
    assert [message.stream[:2] for message in [*data, end]] == [("s-01", number) for number in (1, 2, 3, 4)]
    assert {(message.group, message.from_user_id) for message in data} == {("lobby", "mina")}
    assert end.stream.error is None


def test_all_data_types_reach_its_own_kind(reader, writer):
    stream = writer.keep("stream", "openGroupStream", "lobby", {"streamId": "s-01"})
    for value, data_type in VALUES:
        stream.call("write", value, data_type)
    stream.call("end")
    ended = reader.recorder.wait_event("stream-ended", timeout=10)
    assert ended == {"groupName": "lobby", "streamId": "s-01"}
    assert fragments(reader, 3) == VALUES
    assert [data["fromUserId"] for data in reader.messages(3, "stream-data")] == ["mina"] * 3
    assert [data["stream"]["streamSequenceId"] for data in reader.messages(3, "stream-data")] == [1, 2, 3]


def test_echo_and_no_echo(server, node):
    client = node.client(server.client_access_url("plaza"), streams={})
    client.call("joinGroup", "lobby")
    for name, no_echo in (("unheard", True), ("heard", False)):
        stream = client.keep(name, "openGroupStream", "lobby", {"noEcho": no_echo})
        stream.call("write", name, "text")
        stream.call("end")
    client.recorder.wait_event("stream-ended", timeout=10)
    assert fragments(client, 1) == [("heard", "text")]


def test_two_streams_side_by_side_are_independent(reader, writer):
    streams = [writer.keep(name, "openGroupStream", "lobby", {"streamId": name}) for name in ("one", "two")]
    for number in range(10):
        for stream in streams:
            stream.call("write", {"of": stream.name, "number": number}, "json")
    for stream in streams:
        stream.call("end")
    reader.recorder.wait_event("stream-ended", timeout=10, count=2)
    data = [message["data"] for message in reader.messages(20, "stream-data")]
    for stream in streams:
        assert [one["number"] for one in data if one["of"] == stream.name] == list(range(10))


def test_an_abort_reaches_subscribers_with_its_words(ours, reader, writer):
    stream = writer.keep("stream", "openGroupStream", "lobby")
    stream.call("write", "Once upon", "text")
    stream.call("abort", {"message": "model stopped", "userErrorCode": "E42"})
    failed = reader.recorder.wait_event("stream-failed", timeout=10)
    assert failed["error"] == {"name": "UserError", "message": "model stopped", "userErrorCode": "E42"}
    error = received(ours)[-1].stream.error
    assert (error.name, error.message, error.user_error_code) == ("UserError", "model stopped", "E42")
    assert fragments(reader, 1) == [("Once upon", "text")]
    assert stream.recorder.payloads("error") == []


def test_a_stream_id_may_be_used_again_after_its_end(ours, writer):
    for text in ("first", "second"):
        stream = writer.keep("stream", "openGroupStream", "lobby", {"streamId": "s-01"})
        stream.call("write", text, "text")
        stream.call("end")
        assert [message.data for message in received(ours)][0] == text
        with pytest.raises(NodeError, match="completed"):
            stream.call("write", "too late", "text")


def test_a_forbidden_group_refuses_the_stream(server, node):
    client = node.client(server.client_access_url("plaza", roles=["webpubsub.sendToGroup.lobby"]))
    with pytest.raises(NodeError) as caught:
        client.call("openGroupStream", "quay")
    assert caught.value.name == "Forbidden"
    client.keep("stream", "openGroupStream", "lobby").call("end")


def test_an_idle_stream_is_ended_for_both_sides(reader, writer):
    # Long enough for the fragment to come before the end, even where the machine stands still for a second.
    stream = writer.keep("stream", "openGroupStream", "lobby", {"idleTimeoutInMs": int(scaled(700))})
    stream.call("write", "x", "text")
    assert stream.recorder.wait_event("error", timeout=10)["name"] == "IdleTimeout"
    assert reader.recorder.wait_event("stream-failed", timeout=10)["error"]["name"] == "IdleTimeout"
    with pytest.raises(NodeError, match="completed"):
        stream.call("write", "too late", "text")


def test_a_long_stream_arrives_whole(ours, writer):
    stream = writer.keep("stream", "openGroupStream", "lobby")
    stream.repeat("write", count=1500).result(30)
    stream.call("end")
    *data, end = received(ours)
    assert [message.data for message in data] == list(range(1500))
    assert [message.stream.sequence_id for message in [*data, end]] == list(range(1, 1502))
    assert stream.recorder.payloads("error") == []


@pytest.mark.parametrize("direction", ["up", "down"])
def test_cuts_of_the_publisher_in_mid_stream_lose_and_double_nothing(server, proxy, url_for, node, ours, direction):
    writer = node.client(url_for("plaza"), "writer")
    stream = writer.keep("stream", "openGroupStream", "lobby")
    for cuts in range(1, 6):
        first = (cuts - 1) * FRAGMENTS
        # Within a frame of a fragment (of some 100 bytes), or of an acknowledgement.
        proxy.cut_after(3_000 * cuts if direction == "up" else 30 * cuts, direction)
        writing = stream.repeat("write", first=first, count=FRAGMENTS)
        wait_until(lambda cuts=cuts: server.stats()["recovered"] == cuts, timeout=10)
        writing.result()
        assert [ours.receive(timeout=20).data for _ in range(FRAGMENTS)] == list(range(first, first + FRAGMENTS))
    stream.call("end")
    (end,) = received(ours)
    assert end.stream.sequence_id == 5 * FRAGMENTS + 1
    assert stream.recorder.payloads("error") == []
    assert len(writer.recorder.payloads("connected")) == 1


def test_cuts_of_the_subscriber_in_mid_stream_lose_and_double_nothing(server, proxy, url_for, node, writer):
    reader = node.client(url_for("plaza"), "reader", streams={"handleFromStart": True})
    reader.call("joinGroup", "lobby")
    stream = writer.keep("stream", "openGroupStream", "lobby")
    writing = stream.repeat("write", count=FRAGMENTS)
    for cuts, number in enumerate((20, 100, 200), 1):
        reader.messages(number, "stream-data")
        proxy.cut()
        wait_until(lambda cuts=cuts: server.stats()["recovered"] == cuts, timeout=10)
    writing.result()
    stream.call("end")
    reader.recorder.wait_event("stream-ended", timeout=20)
    assert [value for value, _ in fragments(reader, FRAGMENTS)] == list(range(FRAGMENTS))


def test_a_new_connection_fails_the_streams_of_the_old_one(server, writer, ours):
    stream = writer.keep("stream", "openGroupStream", "lobby")
    stream.call("write", 1, "json")
    assert ours.receive(timeout=10).data == 1
    server.faults.refuse_recovery()
    server.hub("plaza").close_connection(writer.connection_id, "away with it")
    writer.recorder.wait_event("connected", timeout=10, count=2)
    assert "cannot be recovered" in stream.recorder.wait_event("error")["message"]
    with pytest.raises(NodeError, match="completed"):
        stream.call("write", 2, "json")
    again = writer.keep("again", "openGroupStream", "lobby")
    again.call("write", 3, "json")
    while True:  # the server may tell of the end of the old one first
        message = ours.receive(timeout=10)
        if not message.stream.end_of_stream:
            break
    assert (message.data, message.stream.sequence_id) == (3, 1)


def test_who_joins_late_may_ask_for_whole_streams_only(server, node, writer, ours):
    patient = node.client(server.client_access_url("plaza"), "patient", streams={"handleFromStart": True})
    anything = node.client(server.client_access_url("plaza"), "anything", streams={})
    stream = writer.keep("stream", "openGroupStream", "lobby")
    stream.call("write", 1, "json")
    assert ours.receive(timeout=20).data == 1  # a write is done when it is sent: now the server has it
    for client in (patient, anything):
        client.call("joinGroup", "lobby")
    stream.call("write", 2, "json")
    stream.call("end")
    whole = writer.keep("whole", "openGroupStream", "lobby")
    whole.call("write", 3, "json")
    whole.call("end")
    anything.recorder.wait_event("stream-ended", timeout=10, count=2)
    patient.recorder.wait_event("stream-ended", timeout=10)
    assert [value for value, _ in fragments(anything, 2)] == [2, 3]
    assert [value for value, _ in fragments(patient, 1)] == [3]


# ---- the streams of our own client, at either end -------------------------------------------------------------------


def test_our_reader_reads_all_data_types(ours, writer):
    with ours.streams("lobby") as incoming:
        stream = writer.keep("stream", "openGroupStream", "lobby", {"streamId": "s-01"})
        for value, data_type in VALUES:
            stream.call("write", value, data_type)
        stream.call("end")
        with incoming.accept(timeout=10) as reader:
            assert (reader.stream_id, reader.group, reader.from_user_id) == ("s-01", "lobby", "mina")
            assert [(message.data, message.data_type) for message in reader] == VALUES


def test_our_reader_learns_why_a_stream_was_aborted(ours, writer):
    with ours.streams("lobby") as incoming:
        stream = writer.keep("stream", "openGroupStream", "lobby")
        stream.call("write", "Once upon", "text")
        stream.call("abort", {"message": "model stopped", "userErrorCode": "E42"})
        with incoming.accept(timeout=10) as reader:
            assert reader.receive(timeout=10).data == "Once upon"
            with pytest.raises(StreamFailed, match="model stopped") as caught:
                reader.receive(timeout=10)
    assert (caught.value.name, caught.value.user_error_code) == ("UserError", "E42")


def test_our_writer_reaches_its_reader(ours, reader):
    with ours.open_stream("lobby", stream_id="s-01", no_echo=True) as stream:
        for value, data_type in VALUES:
            stream.write(value, data_type)
    assert reader.recorder.wait_event("stream-ended", timeout=10) == {"groupName": "lobby", "streamId": "s-01"}
    assert fragments(reader, 3) == VALUES
    assert [data["stream"]["streamSequenceId"] for data in reader.messages(3, "stream-data")] == [1, 2, 3]


def test_its_reader_learns_why_our_stream_was_aborted(ours, reader):
    stream = ours.open_stream("lobby", no_echo=True)
    stream.write("Once upon")
    stream.abort("model stopped", "E42")
    failed = reader.recorder.wait_event("stream-failed", timeout=10)
    assert failed["error"] == {"name": "UserError", "message": "model stopped", "userErrorCode": "E42"}
    assert fragments(reader, 1) == [("Once upon", "text")]


def test_both_kinds_of_publishers_are_refused_alike(server, node):
    url = server.client_access_url("plaza", roles=())
    with pytest.raises(NodeError) as theirs:
        node.client(url).call("openGroupStream", "lobby")
    with WebPubSubClient(url) as client, pytest.raises(StreamRefused) as ours:
        client.open_stream("lobby")
    assert theirs.value.name == ours.value.name == "Forbidden"
    assert theirs.value.message == ours.value.message


def test_cuts_of_both_sides_in_mid_stream_lose_and_double_nothing_from_ours_to_its_own(server, make_proxy, node):
    ours_proxy, theirs_proxy = make_proxy(server), make_proxy(server)
    url = server.client_access_url("plaza")
    reader = node.client(theirs_proxy.url(url), "reader", streams={"handleFromStart": True})
    reader.call("joinGroup", "lobby")
    with WebPubSubClient(ours_proxy.url(url)) as ours, ours.open_stream("lobby") as stream:
        for cuts, number in enumerate((20, 100, 200), 1):
            ours_proxy.cut_after(5_000, "up")
            for value in range((cuts - 1) * FRAGMENTS, cuts * FRAGMENTS):
                stream.write(value)
            reader.messages((cuts - 1) * FRAGMENTS + number, "stream-data", timeout=20)
            theirs_proxy.cut()
            wait_until(lambda cuts=cuts: server.stats()["recovered"] == 2 * cuts, timeout=10)
    reader.recorder.wait_event("stream-ended", timeout=20)
    assert [value for value, _ in fragments(reader, 3 * FRAGMENTS)] == list(range(3 * FRAGMENTS))


def test_cuts_of_both_sides_in_mid_stream_lose_and_double_nothing_from_its_own_to_ours(server, make_proxy, node):
    ours_proxy, theirs_proxy = make_proxy(server), make_proxy(server)
    url = server.client_access_url("plaza")
    writer = node.client(theirs_proxy.url(url), "writer")
    with WebPubSubClient(ours_proxy.url(url)) as ours, ours.streams("lobby") as incoming:
        ours.join_group("lobby")
        stream = writer.keep("stream", "openGroupStream", "lobby")
        for cuts in range(1, 4):
            theirs_proxy.cut_after(5_000, "up")
            ours_proxy.cut_after(5_000, "down")
            stream.repeat("write", first=(cuts - 1) * FRAGMENTS, count=FRAGMENTS).result()
            wait_until(lambda cuts=cuts: server.stats()["recovered"] == 2 * cuts, timeout=10)
        stream.call("end")
        with incoming.accept(timeout=10) as reader:
            received = [message.data for message in reader]
    assert received == list(range(3 * FRAGMENTS))
