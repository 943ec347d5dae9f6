"""Messages with a time to live: too late is never delivered, wherever a message waits (protocol reference 5.3).

What the operating system has taken cannot be taken back, so tests first fill the socket of a client that does not read,
until frames wait in the server itself.
"""

from __future__ import annotations

import json
import socket
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from simplepubsub.server.hub import hub_of
from simplepubsub.server.limits import Limits
from simplepubsub.server.wire import JSON_RELIABLE, Outgoing
from simplepubsub.server.work import Work
from simplepubsub.webpubsub.messages import SequenceAck
from tests.helpers import MS, run_thread, scaled, self_signed, wait_until
from tests.rawclient import PLAIN, RELIABLE, Clients, Closed, RawClient
from tests.restclient import TEXT

BLOCK = "x" * 200_000
SMALL = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),)


@pytest.fixture
def narrow():
    """`narrow(server, *subprotocols, **options)` connects a client whose socket takes little."""
    made = []

    def connect(server, *subprotocols, **options):
        url = server.client_access_url("plaza", **options)
        made.append(RawClient(url, *subprotocols, sockopt=SMALL))
        return made[-1]

    yield connect
    for client in made:
        client.abort()


def buffered(server):
    """Return the bytes that wait in the transports of the server."""
    return server._call(lambda: sum(link.write_buffer_size() for link in server._pump.connections))


def fill(server, hub="plaza"):
    """Send to clients that do not read until their sockets take no more; return how many messages.

    Much is left in the server: the system may find room for some more a moment later.
    """
    count = 0
    while buffered(server) < 300_000:
        server.hub(hub).send_to_all(BLOCK)
        count += 1
        assert count < 100
    return count


def pass_time(seconds):
    """Let a time to live pass: nothing happens that could be waited for instead."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end)


def age(server, seconds):
    """Let a time to live pass for what was sent and not acknowledged, in no time."""

    def apply():
        for session in server._pump.work.hubs["plaza"].sessions.values():
            for number, due in list(session.deadlines.items()):
                session.limit(number, due - seconds)

    server._call(apply)


def texts(client, last):
    """Return the short messages that a client gets, up to `last`, as (text, sequence id or None)."""
    found = []
    while not found or found[-1][0] != last:
        opcode, payload = client.frame()
        message = json.loads(payload) if payload.startswith("{") else {"type": "message", "data": payload}
        if message["type"] == "message" and message["data"] != BLOCK:
            found.append((message["data"], message.get("sequenceId")))
    return found


@pytest.mark.parametrize("subprotocols", [(), (PLAIN,), (RELIABLE,)], ids=["simple", "plain", "reliable"])
def test_a_full_socket_gets_nothing_that_is_too_late(server, narrow, subprotocols):
    client = narrow(server, *subprotocols)
    blocks = fill(server)
    hub = server.hub("plaza")
    hub.send_to_all("early")
    hub.send_to_all("late", ttl_seconds=50 * MS)
    hub.send_to_all("between")
    hub.send_to_all("patient", ttl_seconds=scaled(60))
    hub.send_to_all("late too", ttl_seconds=50 * MS)
    hub.send_to_all("end")
    pass_time(60 * MS)
    found = texts(client, "end")
    assert [text for text, _ in found] == ["early", "between", "patient", "end"]
    if subprotocols == (RELIABLE,):
        assert [number - blocks for _, number in found] == [1, 3, 4, 6]
        client.acknowledge(blocks + 6)
        wait_until(lambda: server.connections()[0].unacked == 0)
        hub.send_to_all("after")
        assert texts(client, "after") == [("after", blocks + 7)]


def test_a_full_tls_socket_gets_nothing_that_is_too_late(fresh_server, tmp_path):
    certificate = self_signed(tmp_path)
    server = fresh_server(ssl=certificate.server_context)
    url = server.client_access_url("plaza")
    with RawClient(url, RELIABLE, sockopt=SMALL, sslopt={"ca_certs": certificate.ca_file}) as client:
        fill(server)
        hub = server.hub("plaza")
        for number in range(3):
            hub.send_to_all("late", ttl_seconds=20 * MS)
            hub.send_to_all(str(number))
        pass_time(30 * MS)
        assert [text for text, _ in texts(client, "2")] == ["0", "1", "2"]


def test_a_socket_that_takes_everything_gets_it_at_once(rest, connect):
    client = connect(PLAIN)
    for number in range(20):
        rest.ok("POST", "/:send", str(number), TEXT, query=[("messageTtlSeconds", 60)])
    assert [client.receive()["data"] for _ in range(20)] == [str(number) for number in range(20)]


def test_rest_has_times_to_live(rest, server, narrow):
    client = narrow(server, PLAIN, user_id="mina", groups=["g"])
    fill(server)
    for path in ("/:send", "/groups/g/:send", "/users/mina/:send", "/connections/%s/:send" % client.connection_id):
        rest.ok("POST", path, "late", TEXT, query=[("messageTtlSeconds", 1)])
        rest.ok("POST", path, "patient", TEXT, query=[("messageTtlSeconds", 300)])
        rest.ok("POST", path, "eternal", TEXT, query=[("messageTtlSeconds", 0)])
    rest.ok("POST", "/:send", "end", TEXT)
    pass_time(1.05)
    assert [text for text, _ in texts(client, "end")] == ["patient", "eternal"] * 4 + ["end"]


def test_what_waits_while_the_server_is_frozen_can_be_too_late(server, connect):
    client = connect(PLAIN)
    server.faults.freeze(60)
    server.hub("plaza").send_to_all("late", ttl_seconds=20 * MS)
    server.hub("plaza").send_to_all("end")
    pass_time(30 * MS)
    server.faults.clear()
    assert texts(client, "end") == [("end", None)]


def test_a_client_that_comes_back_gets_nothing_that_is_too_late(server, connect):
    client = connect(RELIABLE)
    hub = server.hub("plaza")
    hub.send_to_all("received", ttl_seconds=scaled(60))
    assert client.receive()["data"] == "received"
    client.abort()
    wait_until(lambda: server.stats()["retained"] == 1)
    age(server, scaled(60))
    for _ in range(3):
        hub.send_to_all("late", ttl_seconds=20 * MS)
    hub.send_to_all("kept")
    hub.send_to_all("patient", ttl_seconds=scaled(60))
    pass_time(30 * MS)
    with client.recover() as again:
        assert texts(again, "patient") == [("kept", 5), ("patient", 6)]
        again.acknowledge(5)
        wait_until(lambda: server.connections()[0].unacked == 1)
        again.acknowledge(6)
        wait_until(lambda: server.connections()[0].unacked == 0)


def test_a_recovered_client_that_does_not_read_gets_nothing_too_late_either(server, connect):
    client = connect(RELIABLE)
    client.abort()
    wait_until(lambda: server.stats()["retained"] == 1)
    hub = server.hub("plaza")
    for _ in range(40):
        hub.send_to_all(BLOCK)  # more than the socket takes when it is back
    hub.send_to_all("late", ttl_seconds=100 * MS)
    hub.send_to_all("end")
    with client.recover(sockopt=SMALL) as again:
        pass_time(110 * MS)
        assert texts(again, "end") == [("end", 42)]


def test_messages_that_are_too_late_do_not_fill_the_window_of_a_receiver(fresh_server, narrow):
    """A client that is away, or does not read, is not closed for messages that it need not get any more."""
    server = fresh_server(limits=Limits(max_unacked_messages=20, patience=20 * MS))
    with Clients(server) as clients:
        full = narrow(server, PLAIN)
        fill(server)
        away = clients.connect(RELIABLE)
        away.abort()
        wait_until(lambda: server.stats()["retained"] == 1)
        hub = server.hub("plaza")
        for _ in range(8):
            for _ in range(5):
                hub.send_to_all("late", ttl_seconds=5 * MS)
            pass_time(6 * MS)
        hub.send_to_all("end")
        assert server.stats()["overflowed"] == 0
        assert texts(full, "end") == [("end", None)]
        with away.recover() as again:
            assert texts(again, "end") == [("end", 41)]


def test_what_waits_counts_against_the_limits(fresh_server, narrow):
    server = fresh_server(limits=Limits(max_unacked_bytes=4 * 2**20, patience=10 * MS))
    server._pump.close_timeout = scaled(20)  # its narrow socket takes a while to read
    client = narrow(server, PLAIN)
    fill(server)
    hub = server.hub("plaza")
    for _ in range(40):
        hub.send_to_all(BLOCK, ttl_seconds=scaled(60))
    assert server.stats()["overflowed"] == 1
    with pytest.raises(Closed) as caught:
        while True:
            client.frame()
    assert caught.value.code == 1008


def test_publishers_wait_for_a_receiver_whose_messages_wait(fresh_server, narrow):
    server = fresh_server(limits=Limits(patience=scaled(20)))
    client = narrow(server, PLAIN)
    fill(server)
    hub = server.hub("plaza")

    def congested():
        return server._call(lambda: len(server._pump.work.congested))

    sent = 0
    while not congested():
        hub.send_to_all(BLOCK, ttl_seconds=scaled(60))
        sent += 1
        assert sent < 100
    with run_thread(hub.send_to_all, "end") as publisher:
        assert not publisher.done.wait(50 * MS)
        assert texts(client, "end") == [("end", None)]


def test_a_client_that_is_closed_gets_what_is_not_too_late_before(server, narrow, monkeypatch):
    monkeypatch.setattr(server._pump, "close_timeout", scaled(20))
    client = narrow(server, PLAIN)
    fill(server)
    hub = server.hub("plaza")
    hub.send_to_all("late", ttl_seconds=20 * MS)
    hub.send_to_all("patient", ttl_seconds=scaled(60))
    pass_time(30 * MS)
    hub.close_all_connections("bye")
    assert texts(client, "patient") == [("patient", None)]
    assert client.receive()["message"] == "bye"
    assert client.expect_close() == (1000, "bye")


# --- pure: what a session keeps, against a list of what it should -----------------------------------------------------


class Bookkeeping(RuleBasedStateMachine):
    """Deliveries with and without times to live, acknowledgements, losses and recoveries, in any order."""

    def __init__(self):
        super().__init__()
        self.work = Work(Limits(max_unacked_messages=30, max_unacked_bytes=10**6))
        self.hub = hub_of(self.work, "plaza")
        self.now = 100.0
        self.session = self.hub.connect(JSON_RELIABLE, object())
        self.session.forget_output()
        self.sent = []  # (sequence id, when it is too late or None), not acknowledged
        self.next = 1

    @rule(ttl=st.sampled_from([0, 0, 1, 5]), count=st.integers(1, 8))
    def deliver(self, ttl, count):
        for _ in range(count):
            if len(self.live()) >= 30:
                return
            self.hub.deliver([self.session], Outgoing(None, None, "x", "text", ttl), self.now)
            self.sent.append((self.next, self.now + ttl if ttl else None))
            self.next += 1

    @rule(seconds=st.sampled_from([0.5, 1, 3, 10]))
    def pass_time(self, seconds):
        self.now += seconds

    @rule(data=st.data())
    def acknowledge(self, data):
        number = data.draw(st.integers(0, self.next + 2))
        self.hub.execute(self.session, SequenceAck(number), self.now)
        self.sent = [item for item in self.sent if item[0] > min(number, self.next - 1)]

    @precondition(lambda self: self.session.link is not None)
    @rule()
    def lose(self):
        self.hub.lost(self.session, self.now)

    @rule()
    def recover(self):
        self.hub.recover(self.session.connection_id, self.session.reconnection_token, object(), self.now)
        numbers = [json.loads(frame[frame.index(b"{"):])["sequenceId"] for frame in self.session.out[1:]]
        assert numbers == [number for number, _ in self.live()]
        due = {index + 1: due for index, (_, due) in enumerate(self.live()) if due is not None}
        assert self.session.expiring == due
        self.session.forget_output()

    def live(self):
        return [item for item in self.sent if item[1] is None or item[1] > self.now]

    @invariant()
    def books_are_right(self):
        session = self.session
        assert not session.ended
        numbers = session.numbers or list(range(session.first_unacked, session.next_sequence))
        assert len(numbers) == len(session.unacked) and session.next_sequence == self.next
        kept = [json.loads(frame[frame.index(b"{"):])["sequenceId"] for frame in session.unacked]
        assert kept == numbers
        assert {number for number, _ in self.live()} <= set(kept) <= {number for number, _ in self.sent}
        assert session.unacked_bytes == sum(map(len, session.unacked))
        assert session.first_unacked == (numbers[0] if numbers else self.next)
        assert {number: due for number, due in self.sent if due and number in kept} == session.deadlines
        assert all(due >= session.earliest for due in session.deadlines.values())


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = settings(stateful_step_count=20)
