"""The official JavaScript client, unchanged, when its connections break."""

from __future__ import annotations

import pytest

from simplepubsub import WebPubSubClient
from tests.helpers import run_thread, wait_until
from tests.node import NodeError

pytestmark = pytest.mark.interop

MESSAGES = 400
#: Numbers of messages after which the connection is cut.
CUTS = (20, 90, 150, 151, 240, 330)
#: Cuts within what it sends, and messages from one cut to the next.
CUTS_OF_SENDS, SENT = 6, 70
PATIENT = {"messageRetryOptions": {"maxRetries": 1000, "retryDelayInMs": 10}}


def test_cuts_lose_double_and_reorder_nothing_that_it_receives(server, proxy, url_for, node):
    theirs = node.client(url_for("plaza"))
    theirs.call("joinGroup", "lobby")
    first = theirs.connection_id

    def publish(ours):
        for number in range(MESSAGES):
            ours.send_to_group("lobby", number)

    with WebPubSubClient(url_for("plaza", proxy=None)) as ours, run_thread(publish, ours):
        for cuts, number in enumerate(CUTS, 1):
            theirs.messages(number)
            proxy.cut()
            proxy.wait_accepted(cuts + 1, timeout=10)
        assert theirs.values(MESSAGES, timeout=20) == list(range(MESSAGES))
    assert [message["sequenceId"] for message in theirs.messages(MESSAGES)] == list(range(1, MESSAGES + 1))
    assert theirs.recorder.payloads("connected") == [{"connectionId": first, "userId": None}]
    assert theirs.recorder.payloads("disconnected") == []


def test_cuts_lose_double_and_reorder_nothing_that_it_sends_under_ack_ids(server, proxy, url_for, node):
    theirs = node.client(url_for("plaza"), **PATIENT)
    with WebPubSubClient(url_for("plaza", proxy=None)) as ours:
        ours.join_group("lobby")
        for cuts in range(1, CUTS_OF_SENDS + 1):
            # Within a message (of some 100 bytes), or within an acknowledgement (of some 40).
            proxy.cut_after(300 * cuts + cuts, "up" if cuts % 2 else "down")
            sending = theirs.repeat("sendToGroup", "lobby", first=(cuts - 1) * SENT, count=SENT, ack_ids=True)
            wait_until(lambda cuts=cuts: server.stats()["recovered"] == cuts, 20)
            sending.result()
        total = CUTS_OF_SENDS * SENT
        assert [message.data for message in ours.messages(timeout=20, max_messages=total)] == list(range(total))
    assert len(theirs.recorder.payloads("connected")) == 1
    assert server.stats()["published"] == total


def test_an_ack_lost_with_the_connection_is_asked_for_again_and_is_a_duplicate(server, node):
    client = node.client(server.client_access_url("plaza"), **PATIENT)
    server.faults.lose_next_ack()
    sending = client.begin("sendToGroup", "lobby", "x", "text", {"ackId": 5})
    wait_until(lambda: server.stats()["published"] == 1)
    assert server.faults.drop_connections() == 1
    assert sending.result() == {"ackId": 5, "isDuplicated": True}
    assert server.stats()["published"] == 1


@pytest.mark.parametrize("code", [1001, 1011])
def test_other_closes_by_the_server_are_recovered_from(server, node, code):
    client = node.client(server.client_access_url("plaza"))
    client.call("joinGroup", "lobby")
    server.faults.close_connections(code, "restarting")
    server.hub("plaza").send_to_group("lobby", "still here")
    assert client.values(1) == ["still here"]
    assert [info.connection_id for info in server.connections()] == [client.connection_id]


def refuse_recovery(server):
    server.faults.refuse_recovery()
    server.faults.drop_connections()


def forget_the_session(server):
    server.faults.close_connections(1008, "no more")


@pytest.mark.parametrize("spoil", [refuse_recovery, forget_the_session])
def test_without_recovery_it_makes_a_new_connection_that_rejoins(server, node, spoil):
    client = node.client(server.client_access_url("plaza", user_id="mina"))
    first = client.connection_id
    client.call("joinGroup", "lobby")
    client.call("joinGroup", "quay")
    client.call("leaveGroup", "quay")
    spoil(server)
    client.recorder.wait_event("connected", timeout=10, count=2)
    assert client.connection_id != first
    assert client.recorder.payloads("disconnected")[0]["connectionId"] == first
    (info,) = [info for info in server.connections() if info.connected]
    assert (info.connection_id, info.groups, info.user_id) == (client.connection_id, ("lobby",), "mina")
    server.hub("plaza").send_to_group("lobby", "back again")
    (message,) = client.messages(1)
    assert (message["data"], message["sequenceId"]) == ("back again", 1)


def test_a_rejoin_that_is_refused_is_reported(server, node):
    client = node.client(server.client_access_url("plaza", roles=["webpubsub.joinLeaveGroup"]))
    client.call("joinGroup", "lobby")

    @server.on("connect")
    def no_roles(request):
        return {"roles": []}

    refuse_recovery(server)
    failed = client.recorder.wait_event("rejoin-group-failed", timeout=10)
    assert failed["group"] == "lobby"
    assert failed["error"]["errorDetail"]["name"] == "Forbidden"


def test_without_a_reliable_protocol_a_cut_makes_a_new_connection_that_rejoins(server, node):
    client = node.client(server.client_access_url("plaza"), protocol="json")
    client.call("joinGroup", "lobby")
    server.faults.drop_connections()
    client.recorder.wait_event("connected", timeout=10, count=2)
    server.hub("plaza").send_to_group("lobby", "back again")
    (message,) = client.messages(1)
    assert message["data"] == "back again"
    assert "sequenceId" not in message
    assert len(client.recorder.payloads("disconnected")) == 1


def test_it_waits_until_the_server_is_back(server, proxy, url_for, node):
    client = node.client(url_for("plaza"), messageRetryOptions={"maxRetries": 0})
    client.call("joinGroup", "lobby")
    proxy.refuse(True)
    proxy.cut()
    server.hub("plaza").send_to_group("lobby", "kept")
    with pytest.raises(NodeError, match="not connected|disconnected before"):  # it may not have noticed the cut
        client.call("sendToGroup", "lobby", "x", "text")
    with pytest.raises(NodeError, match="not connected"):
        client.call("sendToGroup", "lobby", "x", "text")
    proxy.refuse(False)
    assert client.values(1, timeout=20) == ["kept"]
    client.call("sendToGroup", "lobby", "sent again", "text")
    assert client.values(2) == ["kept", "sent again"]
    assert len(client.recorder.payloads("connected")) == 1


def test_what_it_acknowledges_is_forgotten_by_the_server(server, node):
    client = node.client(server.client_access_url("plaza"))
    client.call("joinGroup", "lobby")
    for number in range(10):
        server.hub("plaza").send_to_group("lobby", number)
    client.messages(10)
    wait_until(lambda: [info.unacked for info in server.connections()] == [0], 10)
