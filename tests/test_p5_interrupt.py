"""P5: Ctrl-C works in every blocking call, leaves the client usable, and the process exits."""

from __future__ import annotations

import json
import threading
from typing import Any, Callable, List

import pytest

from simplepubsub.core import deadline
from simplepubsub.exceptions import AckTimeout, SimplePubSubError
from tests.helpers import (
    MS,
    DeafPort,
    PeerConnection,
    ScriptedPeer,
    SilentPeer,
    run_python,
    run_thread,
    scaled,
    subprocess_python,
    wait_until,
)
from tests.interrupts import NEEDS_SAFE_WITH, interrupt_at, interrupt_when_blocked
from tests.memory import Network, memory_client


def full_inbox(client: Any, network: Network) -> None:
    link = network.links[-1]
    link.say(link.message("x"))
    wait_until(lambda: client.stats()["inbox"])


def nothing_is_answered(client: Any, network: Network) -> None:
    network.on_command = lambda link, command: command.get("data") != "after"


def full_outbox(client: Any, network: Network) -> None:
    nothing_is_answered(client, network)
    client.send_to_group_nowait("g", "x" * 2000)


def times_out(client: Any) -> None:
    with pytest.raises(AckTimeout):
        client.send_to_group("g", "x", timeout=2 * MS)


def waits_for_room(client: Any) -> None:
    with pytest.raises(AckTimeout):
        client.send_to_group("g", "x" * 2000, timeout=2 * MS)


CALLS: List[Any] = [
    ("start", lambda client: client.start(scaled(5)), None),
    ("send_to_group", lambda client: client.send_to_group("g", "x", timeout=scaled(5)), None),
    ("send without ack", lambda client: client.send_to_group("g", "x", ack=False), None),
    ("send_event_nowait", lambda client: client.send_event_nowait("e", "x"), None),
    ("join_group", lambda client: client.join_group("g", timeout=scaled(5)), None),
    ("flush", lambda client: (client.send_to_group_nowait("g", "x"), client.flush(scaled(5))), None),
    ("receive", lambda client: client.receive(scaled(5)), full_inbox),
    ("stop", lambda client: client.stop(), None),
    ("ack timeout", times_out, nothing_is_answered),
    ("full outbox", waits_for_room, full_outbox),
    ("with", lambda client: client.__exit__(None, None, None), None),
]


@NEEDS_SAFE_WITH
@pytest.mark.parametrize("name, call, prepare", CALLS, ids=[row[0] for row in CALLS])
def test_ctrl_c_at_any_line_leaves_a_usable_client(name: str, call: Callable[[Any], Any], prepare: Any) -> None:
    position = 0
    while True:
        position += 1
        network = Network()
        client = memory_client(network, protocol="json", max_outbox_bytes=3000)
        if name != "start":
            client.start()
        if prepare is not None:
            prepare(client, network)
        with interrupt_at(position) as interrupt:
            try:
                call(client)
            except KeyboardInterrupt:
                pass
        where = interrupt.where
        try:
            if name in ("stop", "with"):
                client.stop(scaled(5))  # it may be half done
            if client.state == "stopped":
                client.start(scaled(5))
            if not client._engine.mutex.acquire(timeout=scaled(10)):
                pytest.fail("Ctrl-C before %s: the mutex is held" % where)  # not below: stop() and repr() would hang
            client._engine.mutex.release()
            client.send_to_group("g", "after", timeout=scaled(5))
            network.on_command = lambda link, command: False
            for command in network.link_of(client).of("sendToGroup"):  # an interrupted send stays in progress
                network.link_of(client).ack(command.get("ackId", 0))
            client.flush(scaled(5))
            link = network.link_of(client)
            link.say(link.message("mark"))
            while client.receive(scaled(5)).data != "mark":
                pass
            assert client.stats()["outbox_bytes"] == 0
            client.stop(scaled(5))
            assert client.state == "stopped"
            left = [t.name for t in threading.enumerate() if t.name.startswith(client._engine.name + "-")]
            wait_until(lambda left=left: not [t for t in threading.enumerate() if t.name in left])
            wait_until(lambda network=network: all(link.released == 1 for link in network.links))
        except (AssertionError, SimplePubSubError) as error:
            client.stop(0)
            raise AssertionError("Ctrl-C before %s: %r" % (where, error)) from error
        if not where:
            break
    assert position > 10  # it was interrupted somewhere


# --- a real Ctrl-C in a process of its own ----------------------------------------------------------------------------

PATH = "/client/hubs/hub"


def grudging(connection: PeerConnection) -> None:
    """Answer only what says "ok", and no close frame."""
    connection.send_json({"type": "system", "event": "connected", "connectionId": "c", "userId": None})
    while True:
        frame = connection.recv_frame()
        command = json.loads(frame.text) if frame.opcode == 1 else {}
        if command.get("type") == "ping":
            connection.send_json({"type": "pong"})
        elif "ok" in (command.get("data"), command.get("group")):
            connection.send_json({"type": "ack", "ackId": command["ackId"], "success": True})


#: What a child makes before anything else: a client that waits without limits.
MAKE = """
from simplepubsub.webpubsub import WebPubSubClient
client = WebPubSubClient(sys.argv[1], protocol="json", ack_timeout=None, close_timeout=None, start_timeout=None,
                         max_outbox_bytes=1000)
"""

USABLE = """client.send_to_group("ok", "ok", timeout=60)
print("usable")
client.stop(timeout=0.2)"""

REAL = [
    ("receive", "client.start()", "client.receive()", USABLE),
    ("receive with a timeout", "client.start()", "client.receive(timeout=60)", USABLE),
    ("iteration", "client.start()", "list(client)", USABLE),
    ("send_to_group", "client.start()", "client.send_to_group('g', 'x')", USABLE),
    ("send_event", "client.start()", "client.send_event('e', 'x', timeout=60)", USABLE),
    ("join_group", "client.start()", "client.join_group('g')", USABLE),
    ("leave_group", "client.start()", "client.leave_group('g')", USABLE),
    ("flush", "client.start(); client.send_to_group_nowait('g', 'x')", "client.flush()", USABLE),
    ("a full outbox", "client.start(); client.send_to_group_nowait('g', 'x' * 990)",
     "client.send_to_group('g', 'x' * 990)", "print('usable'); client.stop(timeout=0.2)"),
    ("stop", "client.start()", "client.stop()", "client.stop(0.2); client.start(60); " + USABLE),
    ("with", "client.start(); client.send_to_group_nowait('g', 'x')", "client.__exit__(None, None, None)",
     "client.stop(0.2); client.start(60); " + USABLE),
]


@pytest.mark.parametrize("name, before, call, after", REAL, ids=[row[0] for row in REAL])
def test_ctrl_c_in_a_blocking_call(name: str, before: str, call: str, after: str) -> None:
    with ScriptedPeer(grudging, timeout=60) as peer:
        result = interrupt_when_blocked(MAKE + before, call, after, peer.url(PATH))
        assert "usable" in result.stdout
        peer.close(check=False)  # the child's end was not polite


@pytest.mark.parametrize("where", ["silent", "deaf"])
def test_ctrl_c_in_start(where: str) -> None:
    with SilentPeer() as silent, DeafPort() as deaf, ScriptedPeer(grudging, timeout=60) as peer:
        after = ("assert client.state == 'stopped'; client.stop(); client._credential = None; client = "
                 "WebPubSubClient(sys.argv[2], protocol='json'); client.start(60); " + USABLE)
        result = interrupt_when_blocked(
            MAKE, "client.start()", after, (silent if where == "silent" else deaf).url(PATH), peer.url(PATH),
            when=(lambda: silent.wait_accepted(1)) if where == "silent" else None)
        assert "usable" in result.stdout
        peer.close(check=False)


def test_ctrl_c_that_nobody_catches_ends_the_process() -> None:
    with ScriptedPeer(grudging, timeout=60) as peer:
        with subprocess_python(
            """
            import sys
            from simplepubsub.webpubsub import WebPubSubClient

            with WebPubSubClient(sys.argv[1], protocol="json", close_timeout=0.3) as client:
                client.on("group-message", print)
                client.send_to_group_nowait("g", "x")
                print("ready")
                client.receive()
            """,
            peer.url(PATH), timeout=60,
        ) as child:
            child.wait_line("ready", timeout=30)
            child.interrupt()
            result = child.wait(30)
        peer.close(check=False)
    assert result.returncode != 0
    assert "KeyboardInterrupt" in result.stderr
    assert "1 sends unacknowledged" in result.stderr


def test_an_exit_without_stop_does_not_hang_and_says_what_was_left() -> None:
    with ScriptedPeer(grudging, timeout=60) as peer:
        result = run_python(
            """
            import sys
            from simplepubsub.webpubsub import WebPubSubClient

            client = WebPubSubClient(sys.argv[1], protocol="json")
            client.on("group-message", print)
            client.start()
            for _ in range(3):
                client.send_to_group_nowait("g", "x")
            """,
            peer.url(PATH),
        )
        peer.close(check=False)
    assert "3 sends unacknowledged" in result.stderr
    assert "stop()" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_exit_in_the_middle_of_traffic_is_quiet() -> None:
    def flood(connection: PeerConnection) -> None:
        connection.send_json({"type": "system", "event": "connected", "connectionId": "c", "userId": None})
        message = {"type": "message", "from": "group", "group": "g", "dataType": "text", "data": "x" * 100}
        while True:
            connection.send_json(message)

    with ScriptedPeer(flood) as peer:
        for _ in range(5):
            result = run_python(
                """
                import sys
                from simplepubsub.webpubsub import WebPubSubClient

                client = WebPubSubClient(sys.argv[1], protocol="json")
                client.on("group-message", lambda: None)
                client.start()
                """,
                peer.url(PATH),
            )
            assert result.stderr == ""
        peer.close(check=False)


def test_an_exit_while_reconnecting_does_not_hang() -> None:
    def leave(connection: PeerConnection) -> None:
        connection.send_json({"type": "system", "event": "connected", "connectionId": "c", "userId": None})

    with ScriptedPeer([leave, PeerConnection.hang]) as peer:
        run_python(
            """
            import sys, threading
            from simplepubsub.webpubsub import WebPubSubClient

            client = WebPubSubClient(sys.argv[1], protocol="json")
            lost = threading.Event()
            client.on("disconnected", lost.set)
            client.start()
            assert lost.wait(60)
            """,
            peer.url(PATH),
        )
        peer.close(check=False)


def test_the_main_thread_looks_for_signals_while_it_waits() -> None:
    # A signal between the interpreter's last look and the system call was noticed when the wait ended: never.
    waits: List[float] = []

    class Spy(threading.Condition):
        def wait(self, timeout: Any = None) -> bool:
            waits.append(timeout)
            return True

    assert threading.current_thread() is threading.main_thread()
    deadline.wait(Spy(), None)
    deadline.wait(Spy(), 0.5)
    assert waits == [deadline._SLICE, min(0.5, deadline._SLICE)]
    assert deadline._SLICE <= 1.0
    with run_thread(deadline.wait, Spy(), None):
        pass
    assert waits[-1] == threading.TIMEOUT_MAX  # other threads get no signals, and should not wake for nothing
