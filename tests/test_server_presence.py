"""The events "joined" and "left": whichever way a membership begins or ends, and only when somebody asks."""

from __future__ import annotations

import json
import time

import jwt
import pytest
import requests

from simplepubsub.server import Limits
from simplepubsub.server.hub import Hub
from simplepubsub.server.wire import JSON
from simplepubsub.server.work import Work
from tests.helpers import Recorder, scaled, wait_until
from tests.rawclient import PLAIN, RELIABLE, Clients, ok
from tests.upstreams import ScriptedUpstream


@pytest.fixture
def heard(server):
    """What the handlers of the events were told, as (event, group)."""
    recorder = Recorder()
    for name in ("connected", "joined", "left", "disconnected"):
        server.on(name, handler=lambda event: recorder.record("event", (event.event, event.group)))
    return recorder


def test_commands_tell_once_each(connect, heard):
    client = connect(PLAIN)
    for number, kind in enumerate(("joinGroup", "joinGroup", "leaveGroup", "leaveGroup")):
        client.send({"type": kind, "group": "lobby", "ackId": number})
        assert client.receive() == ok(number)
    assert heard.wait_for(3) == [("connected", None), ("joined", "lobby"), ("left", "lobby")]
    client.assert_quiet()
    assert len(heard) == 3


def test_groups_of_a_token_are_joined_after_connected_and_left_before_disconnected(connect, heard):
    connect(PLAIN, groups=["a", "b"]).close()
    calls = heard.wait_for(6)
    assert calls[:3] == [("connected", None), ("joined", "a"), ("joined", "b")]
    assert sorted(calls[3:5]) == [("left", "a"), ("left", "b")]
    assert calls[5] == ("disconnected", None)


def test_groups_of_a_connect_answer(server, connect, heard):
    server.on("connect", handler=lambda request: {"groups": ["a"]})
    connect(PLAIN, groups=["b"])
    assert heard.wait_for(2) == [("connected", None), ("joined", "a")]


def test_from_inside_the_process(server, connect, heard):
    client = connect(PLAIN, user_id="mina")
    hub = server.hub("plaza")
    hub.add_connection_to_group("a", client.connection_id)
    hub.add_user_to_group("b", "mina")
    hub.remove_connection_from_group("a", client.connection_id)
    hub.remove_user_from_all_groups("mina")
    hub.remove_user_from_group("b", "mina")
    assert heard.wait_for(5)[1:] == [("joined", "a"), ("joined", "b"), ("left", "a"), ("left", "b")]


def test_over_rest(server, connect, heard):
    client = connect(PLAIN)
    path = "%s/api/hubs/plaza/groups/lobby/connections/%s" % (server.endpoint, client.connection_id)
    token = jwt.encode({"aud": path, "exp": int(time.time()) + 60}, server._access_key, algorithm="HS256")
    with requests.Session() as session:
        session.trust_env = False
        for method in ("PUT", "PUT", "DELETE"):
            headers = {"Authorization": "Bearer " + token}
            url = path + "?api-version=2024-12-01"
            session.request(method, url, headers=headers, timeout=scaled(10)).raise_for_status()
    assert heard.wait_for(3)[1:] == [("joined", "lobby"), ("left", "lobby")]


def test_a_recovery_neither_leaves_nor_joins(connect, heard):
    client = connect(RELIABLE, groups=["a"])
    heard.wait_for(2)
    client.abort()
    client.recover().close()
    assert heard.wait_for(4)[2:] == [("left", "a"), ("disconnected", None)]


def test_as_a_cloud_event(server, connect):
    with ScriptedUpstream() as upstream:
        server.add_event_handler(upstream.url("/{event}"), events="", system="joined+left")
        client = connect(PLAIN, user_id="mina")
        client.join("gr\u00fcn")
        client.close()
        joined, left = upstream.wait(2)
    assert [joined.path, left.path] == ["/joined", "/left"]
    assert joined.headers["ce-type"] == "azure.webpubsub.gp.joined"
    assert left.headers["ce-type"] == "azure.webpubsub.gp.left"
    assert json.loads(joined.body) == json.loads(left.body) == {"group": "gr\u00fcn"}
    assert joined.headers["content-type"] == "application/json" and joined.headers["ce-userid"] == "mina"


def test_a_flood_of_joins_waits_in_the_socket(fresh_server):
    server = fresh_server(limits=Limits(max_waiting_events=4))
    recorder = Recorder()
    server.on("joined", handler=lambda event: recorder.record("joined", event.group))
    with Clients(server) as clients:
        client = clients.connect(PLAIN)
        for number in range(200):
            client.send({"type": "joinGroup", "group": "g%d" % number, "ackId": number})
        assert client.receive_many(200) == [ok(number) for number in range(200)]
        wait_until(lambda: len(recorder) == 200)
    assert recorder.payloads() == ["g%d" % number for number in range(200)]


def test_no_call_is_made_for_an_event_that_nobody_asked_for():
    work = Work(Limits(max_waiting_events=2))
    hub = Hub("plaza", work)
    session = hub.connect(JSON, object(), groups=["a"])
    hub.join(session, "b")
    hub.leave(session, "b")
    assert [call.kind for call in work.calls] == ["connected"]
    work.presence = {"left"}
    hub.join(session, "b")
    hub.leave(session, "b")
    assert [(call.kind, call.group) for call in work.calls[1:]] == [("left", "b")]


def test_changes_by_others_that_nobody_handles_in_time_are_dropped_and_said_so(caplog):
    work = Work(Limits(max_waiting_events=2))
    work.presence = {"joined", "left"}
    hub = Hub("plaza", work)
    session = hub.connect(JSON, object())
    session.calls.extend(work.calls * 32)
    work.calls.clear()
    hub.join(session, "a")
    assert work.calls == [] and "is dropped" in caplog.text
    hub.end(session, None)
    assert [call.kind for call in work.calls] == ["left", "disconnected"]
