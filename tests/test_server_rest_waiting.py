"""REST requests that have to wait: for receivers that are behind, for their own bodies, for the end of a fault."""

from __future__ import annotations

import socket
import time

import pytest

from simplepubsub.server.limits import Limits
from tests.helpers import MS, run_thread, scaled, wait_until
from tests.rawclient import PLAIN, RELIABLE, Clients
from tests.restclient import TEXT, Rest


def congest(server, client):
    """Send to a client that acknowledges nothing until publishers wait for it; return how many messages."""
    count = 0
    while not server._call(lambda: len(server._pump.work.congested)):
        server.hub("plaza").send_to_connection(client.connection_id, "x")
        count += 1
    return count


def test_a_publish_waits_until_its_receiver_has_caught_up(fresh_server):
    server = fresh_server(limits=Limits(max_unacked_messages=50, patience=scaled(30)))
    rest = Rest(server)
    with Clients(server) as clients:
        behind, other = clients.connect(RELIABLE, groups=["g"]), clients.connect(PLAIN, user_id="other")
        count = congest(server, behind)
        with run_thread(rest.ok, "POST", "/groups/g/:send", "waits", TEXT) as publisher:
            # Whoever does not publish to that receiver is not held up, nor is any other operation.
            rest.ok("POST", "/users/other/:send", "at once", TEXT)
            rest.ok("POST", "/:send", "excluded", TEXT, query=[("excluded", behind.connection_id)])
            rest.ok("POST", "/:send", "filtered", TEXT, query=[("filter", "userId eq 'other'")])
            rest.ok("HEAD", "/groups/g")
            assert [message["data"] for message in other.receive_many(3)] == ["at once", "excluded", "filtered"]
            assert not publisher.done.wait(50 * MS)
            behind.receive_many(count)
            behind.acknowledge(count)
            assert behind.receive()["data"] == "waits"


def test_a_publish_waits_no_longer_than_patience(fresh_server):
    server = fresh_server(limits=Limits(max_unacked_messages=50, patience=100 * MS))
    with Clients(server) as clients:
        behind = clients.connect(RELIABLE, groups=["g"])
        congest(server, behind)
        start = time.monotonic()
        Rest(server).ok("POST", "/groups/g/:send", "x", TEXT)
        assert 20 * MS < time.monotonic() - start < scaled(3)


@pytest.mark.parametrize("what", ["receiver", "body", "fault"])
def test_a_server_that_stops_leaves_requests_that_wait(fresh_server, what):
    server = fresh_server(limits=Limits(max_unacked_messages=50, patience=scaled(60)))
    rest = Rest(server)
    with Clients(server) as clients:
        behind = clients.connect(RELIABLE)
        if what == "receiver":
            congest(server, behind)
        elif what == "fault":
            server.faults.freeze(60)
        head = ["POST %s HTTP/1.1" % rest.path("/:send"), "Host: " + rest.host,
                "Authorization: Bearer " + rest.token(rest.url("/:send")), "Content-Length: 2"]
        with socket.create_connection(("127.0.0.1", server.port), timeout=scaled(10)) as sock:
            sock.sendall(("\r\n".join(head) + "\r\n\r\na" + ("" if what == "body" else "b")).encode())
            # Another connection is accepted and parsed after this one.
            if what == "receiver":
                wait_until(lambda: server._call(lambda: len(server._pump._waiters)) == 1)
            elif what == "body":
                rest.ok("HEAD", "/api/health", token=None)
            start = time.monotonic()
            server.stop()
            assert time.monotonic() - start < scaled(5)


def test_a_frozen_server_answers_when_it_thaws(server):
    rest = Rest(server)
    server.faults.freeze(60)
    with run_thread(rest.ok, "HEAD", "/api/health", token=None) as request:
        assert not request.done.wait(30 * MS)
        server.faults.clear()


def test_requests_side_by_side(server):
    rest = Rest(server)
    with Clients(server) as clients:
        client = clients.connect(PLAIN, groups=["g"])

        def publish(name):
            for number in range(20):
                rest.ok("POST", "/groups/g/:send", "%s%d" % (name, number), TEXT)

        with run_thread(publish, "a"), run_thread(publish, "b"), run_thread(publish, "c"):
            found = [message["data"] for message in client.receive_many(60)]
        for name in "abc":
            assert [text for text in found if text.startswith(name)] == ["%s%d" % (name, n) for n in range(20)]
