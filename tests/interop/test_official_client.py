"""The official Python client SDK, unchanged, against the embedded server.

Its waits miss what comes before they begin, and then take their whole time: the one for an ack `ack_timeout`, the one
for the connection `start_timeout`. So these are short here: such a send, or start, still counts as done, only later.
"""

from __future__ import annotations

import gc

import pytest

from simplepubsub.server import ALL_ROLES
from tests import peers
from tests.helpers import Recorder, run_thread, scaled, wait_until

sdk = peers.require("azure.messaging.webpubsubclient", "the official client must work with our server", python=(3, 8))
models = peers.require("azure.messaging.webpubsubclient.models", "its data types and errors", python=(3, 8))

pytestmark = [
    pytest.mark.interop,
    pytest.mark.allows_leaks("close() of the official client leaves threads and sockets to die later"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

CallbackType, DataType, ProtocolType = models.CallbackType, models.WebPubSubDataType, models.WebPubSubProtocolType


class Official:
    """An official client with everything it calls back recorded."""

    def __init__(self, url, **options):
        options.setdefault("ack_timeout", scaled(1.5))
        options.setdefault("start_timeout", scaled(5))
        options.setdefault("message_retry_total", 0)
        self.client = sdk.WebPubSubClient(url, **options)
        self.recorder = Recorder()
        for event in CallbackType:
            self.client.subscribe(event, self.recorder.named(event.value))

    def __enter__(self):
        self.client.open()
        self.recorder.wait_event("connected", timeout=20)
        return self

    def __exit__(self, *_):
        # It locks itself in for ever when somebody, such as a rejoin, still waits for an ack: then its threads stay.
        closing = run_thread(self.client.close)
        closing.thread.start()
        if closing.done.wait(scaled(10)):
            closing.result()

    def messages(self, count, event="group-message"):
        received = self.recorder.wait_for(count, timeout=20, name=event)
        return sorted(received, key=lambda message: message.sequence_id or 0)


@pytest.fixture
def server(fresh_server):
    """A server of the test's own: after its close() a client may recover once more, and must disturb nobody."""
    return fresh_server()


@pytest.fixture(scope="module", autouse=True)
def rubbish():
    """What the clients leave behind is collected here, where its warnings count for nothing."""
    yield
    gc.collect()


@pytest.fixture
def official(server):
    opened = []

    def make(hub="plaza", protocol=ProtocolType.JSON_RELIABLE, user_id="mina", roles=ALL_ROLES, **options):
        url = server.client_access_url(hub, user_id=user_id, roles=roles)
        opened.append(Official(url, protocol_type=protocol, **options))
        return opened[-1].__enter__()

    yield make
    for client in opened:
        client.__exit__()


@pytest.mark.parametrize("protocol", list(ProtocolType))
def test_join_all_data_types_leave(server, official, protocol):
    receiver, sender = official(protocol=protocol), official(protocol=protocol, user_id="bob")
    assert receiver.recorder.payloads("connected")[0].user_id == "mina"
    receiver.client.join_group("lobby")
    assert server.connections("plaza")[0].groups or server.connections("plaza")[1].groups
    values = [
        ("h\u00e9llo", DataType.TEXT),
        ({"a": [1, 2.5, None]}, DataType.JSON),
        (memoryview(b"\0\1\2"), DataType.BINARY),
        (memoryview(b"\3\4"), DataType.PROTOBUF),
    ]
    for value, data_type in values:
        sender.client.send_to_group("lobby", value, data_type)
    received = {message.data_type: message for message in receiver.messages(4)}
    assert {str(data_type.value) for _, data_type in values} == set(received)
    assert received["text"].data == "h\u00e9llo"
    assert received["json"].data == {"a": [1, 2.5, None]}
    assert bytes(received["binary"].data) == b"\0\1\2"
    assert bytes(received["protobuf"].data) == b"\3\4"
    for message in received.values():
        assert (message.group, message.from_user_id) == ("lobby", "bob")
    receiver.client.leave_group("lobby")
    assert not server.hub("plaza").group_exists("lobby")


def test_echo_and_no_echo(official):
    client = official()
    client.client.join_group("lobby")
    client.client.send_to_group("lobby", "unheard", DataType.TEXT, no_echo=True)
    client.client.send_to_group("lobby", "heard", DataType.TEXT)
    assert [message.data for message in client.messages(1)] == ["heard"]


def test_errors_in_acks_are_understood(official):
    client = official(roles=())
    with pytest.raises(models.SendMessageError) as caught:
        client.client.join_group("lobby", ack_id=5)
    error = caught.value
    if error.error_detail.name:  # otherwise it missed the ack, see above
        assert (error.ack_id, error.error_detail.name) == (5, "Forbidden")
        assert "lobby" in error.error_detail.message


def test_duplicate_is_success(server, official):
    client = official()
    for _ in range(2):
        client.client.send_to_group("lobby", "x", DataType.TEXT, ack_id=77)
    assert server.stats()["published"] == 1


def test_events_and_answers(server, official):
    server.on("sum", handler=lambda event: {"sum": sum(event.data)})
    client = official()
    client.client.send_event("sum", [1, 2, 3], DataType.JSON)
    (answer,) = client.messages(1, "server-message")
    assert (answer.data, answer.data_type) == ({"sum": 6}, "json")


def test_recovery_after_a_cut_loses_and_doubles_nothing(server, official):
    receiver = official()
    receiver.client.join_group("lobby")
    hub = server.hub("plaza")
    for number in range(10):
        hub.send_to_group("lobby", number)
    receiver.messages(10)
    assert server.faults.drop_connections() == 1
    for number in range(10, 20):
        hub.send_to_group("lobby", number)
    assert [message.data for message in receiver.messages(20)] == list(range(20))
    wait_until(lambda: server.stats()["recovered"] == 1, 10)
    receiver.client.send_to_group("lobby", 20, DataType.JSON)
    assert [message.sequence_id for message in receiver.messages(21)] == list(range(1, 22))
    assert receiver.recorder.payloads("disconnected") == []
    assert len(receiver.recorder.payloads("connected")) == 1


def test_a_refused_recovery_makes_a_new_connection_that_rejoins(server, official):
    receiver = official(reconnect_retry_total=5)
    receiver.client.join_group("lobby")
    first = receiver.recorder.payloads("connected")[0].connection_id
    server.faults.refuse_recovery()
    server.faults.drop_connections()
    second = receiver.recorder.wait_event("connected", timeout=20, count=2).connection_id
    assert second != first
    wait_until(lambda: any(info.groups == ("lobby",) and info.connected for info in server.connections()), timeout=10)
    server.hub("plaza").send_to_group("lobby", "back again")
    assert [message.data for message in receiver.messages(1)] == ["back again"]


def test_sequence_ids_are_acknowledged(server, official):
    receiver = official()
    receiver.client.join_group("lobby")
    server.hub("plaza").send_to_group("lobby", "x")
    receiver.messages(1)
    wait_until(lambda: [info.unacked for info in server.connections()] == [0], timeout=20)


def test_the_reason_of_a_close_by_the_service(server, official):
    client = official(reconnect_retry_total=0)
    server.hub("plaza").close_all_connections("maintenance")
    assert client.recorder.wait_event("disconnected", timeout=10).message == "maintenance"


def test_a_bad_token_is_an_error_with_the_status(server):
    url = server.client_access_url("plaza", minutes_to_expire=-10)
    with pytest.raises(models.OpenClientError, match="401"):
        sdk.WebPubSubClient(url, reconnect_retry_total=0, start_timeout=scaled(15)).open()


def test_tokens_of_the_official_service_client_open_the_door(server):
    service = peers.require("azure.messaging.webpubsubservice", "its client tokens must be accepted", python=(3, 8))
    client = service.WebPubSubServiceClient.from_connection_string(server.connection_string, hub="Plaza")
    token = client.get_client_access_token(user_id="mina", roles=["webpubsub.joinLeaveGroup"], groups=["lobby"])
    assert token["url"].startswith("ws://127.0.0.1:%d/client/hubs/" % server.port)
    with Official(token["url"]) as opened:
        assert opened.recorder.payloads("connected")[0].user_id == "mina"
        assert [(info.hub, info.groups) for info in server.connections()] == [("plaza", ("lobby",))]
