"""All official JavaScript packages, unchanged, with the command `simplepubsub serve` in a process of its own."""

from __future__ import annotations

import re

import pytest

from tests.children import subprocess_module

pytestmark = pytest.mark.interop


def printed(child, label):
    """What the command prints after `label`."""
    return re.sub(r"^%s:\s*" % label, "", child.wait_line(label + ":", 30))


def test_service_client_and_event_handler_around_the_command(node):
    upstream = node.upstream("plaza", connect={"default": {"set": {"n": 1}}}, events={"default": {"echo": True}})
    handler = "hub=plaza,url=%s,events=*,system=connect+connected+disconnected" % upstream.url
    arguments = ["--port", "0", "--hub", "plaza", "--event-handler", handler]
    with subprocess_module("simplepubsub", "serve", *arguments, timeout=60) as command:
        service = node.service("plaza", connectionString=printed(command, "connection string"))
        printed_url = node.client(printed(command, "client URL"), "printed")
        token = service.call("getClientAccessToken", {"userId": "mina", "roles": ["webpubsub.joinLeaveGroup"]})
        client = node.client(token["url"], autoReconnect=False)
        client.call("joinGroup", "lobby")
        assert service.call("userExists", "mina") is True
        printed_url.call("sendToGroup", "lobby", {"to": "the group"}, "json")
        service.call("sendToUser", "mina", "to the user", {"contentType": "text/plain"})
        assert client.values(1) == [{"to": "the group"}]
        assert client.values(1, "server-message") == ["to the user"]
        client.call("sendEvent", "echo", b"\0\xff", "binary")
        assert client.values(2, "server-message")[1] == b"\0\xff"
        assert client.call("invokeEvent", "sum", [1, 2], "json")["data"] == [1, 2]
        service.call("closeUserConnections", "mina", {"reason": "enough"})
        gone = upstream.recorder.wait_event("disconnected", timeout=10)
        assert (gone["reason"], gone["context"]["connectionId"]) == ("enough", client.connection_id)
        command.wait_line("running")
        printed_url.call("stop")
        command.interrupt()
        result = command.wait()
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
