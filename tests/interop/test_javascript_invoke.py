"""Invocations by the official JavaScript client, unchanged, and handlers of the embedded server that answer them."""

from __future__ import annotations

import threading

import pytest

from tests.helpers import scaled, wait_until
from tests.node import NodeError, signal

pytestmark = pytest.mark.interop

VALUES = [("h\u00e9llo \U0001f600", "text"), ({"a": [1, 2.5, None, True]}, "json"), (b"\0\1\xff", "binary")]


@pytest.fixture
def client(server, node):
    return node.client(server.client_access_url("plaza", user_id="mina"))


@pytest.fixture
def held(server):
    """A handler "held" that answers when the test lets it."""
    gate = threading.Event()
    calls = []

    @server.on("held")
    def hold(event):
        calls.append(event.data)
        gate.wait(scaled(40))
        return "late"

    hold.gate, hold.calls = gate, calls
    yield hold
    gate.set()


@pytest.mark.parametrize("protocol", ["json.reliable", "json"])
def test_the_answer_is_the_result_and_no_message(server, node, protocol):
    seen = []

    @server.on("echo")
    def echo(event):
        seen.append((event.data, event.data_type, event.user_id))
        return event.data

    client = node.client(server.client_access_url("plaza", user_id="mina"), protocol=protocol)
    for number, (value, data_type) in enumerate(VALUES, 1):
        result = client.call("invokeEvent", "echo", value, data_type)
        assert result == {"invocationId": str(number), "dataType": data_type, "data": value}
    assert seen == [(value, data_type, "mina") for value, data_type in VALUES]
    assert client.recorder.payloads("server-message") == []


def test_a_handler_without_an_answer_is_a_success_without_data(server, client):
    server.on("nothing", handler=lambda event: None)
    assert client.call("invokeEvent", "nothing", 1, "json") == {"invocationId": "1"}


@pytest.mark.parametrize("value", [0, False, "", [], {}])
def test_empty_answers_arrive_as_they_are(server, client, value):
    server.on("echo", handler=lambda event: event.data)
    result = client.call("invokeEvent", "echo", {"value": value}, "json")
    assert result["data"] == {"value": value}


def test_its_own_invocation_id_comes_back(server, client):
    server.on("echo", handler=lambda event: event.data)
    result = client.call("invokeEvent", "echo", 1, "json", {"invocationId": "my-own \u00e9"})
    assert result == {"invocationId": "my-own \u00e9", "dataType": "json", "data": 1}


def test_failures_carry_a_name_and_a_message(server, client):
    @server.on("break")
    def fail(event):
        raise ValueError("no good")

    for event in ("break", "nobody-hears-this"):
        with pytest.raises(NodeError) as caught:
            client.call("invokeEvent", event, 1, "json")
        assert caught.value.name == "InvocationError"
        assert caught.value.detail["name"] == "InvocationFailed"
        assert caught.value.detail["message"]
    server.on("echo", handler=lambda event: event.data)
    assert client.call("invokeEvent", "echo", 1, "json")["data"] == 1


def test_an_abort_cancels_and_the_late_answer_is_no_harm(server, client, held):
    server.on("echo", handler=lambda event: event.data)
    pending = client.begin("invokeEvent", "held", 1, "json", {"abortSignal": signal("stop")})
    wait_until(lambda: held.calls, 10)
    client.node.abort("stop")
    with pytest.raises(NodeError, match="cancelled by abortSignal"):
        pending.result()
    wait_until(lambda: server.stats()["invocations_cancelled"] == 1)
    held.gate.set()
    assert client.call("invokeEvent", "echo", 1, "json")["data"] == 1
    assert len(client.recorder.payloads("connected")) == 1


def test_an_abort_before_the_start_still_cancels(server, client):
    server.on("echo", handler=lambda event: event.data)
    client.node.abort("stop")
    with pytest.raises(NodeError, match="cancelled by abortSignal"):
        client.call("invokeEvent", "echo", 1, "json", {"abortSignal": signal("stop")})
    assert client.call("invokeEvent", "echo", 2, "json")["data"] == 2


def test_a_lost_connection_fails_what_is_pending_and_later_ones_work(server, client, held):
    server.on("echo", handler=lambda event: event.data)
    pending = client.begin("invokeEvent", "held", 1, "json")
    wait_until(lambda: held.calls, 10)
    server.faults.drop_connections()
    with pytest.raises(NodeError, match="disconnected before"):
        pending.result()
    held.gate.set()
    wait_until(lambda: server.stats()["recovered"] == 1, 10)
    server.hub("plaza").send_to_connection(client.connection_id, "welcome back")
    assert client.values(1, "server-message") == ["welcome back"]  # it knows now that it is connected again
    assert client.call("invokeEvent", "echo", 2, "json")["data"] == 2
    assert len(client.recorder.payloads("connected")) == 1


def test_many_at_once_get_their_own_answers(server, client):
    server.on("double", handler=lambda event: 2 * event.data)
    pending = [client.begin("invokeEvent", "double", number, "json") for number in range(100)]
    assert [one.result()["data"] for one in pending] == [2 * number for number in range(100)]
