"""Check the tools that the other tests lean on: recorders, threads, children, hand-written peers, required peers."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any, Callable, List

import pytest
import websocket

from tests import peers
from tests.children import subprocess_module
from tests.faultproxy import FaultProxy
from tests.helpers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    LOOPBACK,
    MS,
    PING,
    PONG,
    TEXT,
    ClosedPort,
    DeafPort,
    PeerConnection,
    PeerGone,
    Recorder,
    ScriptedPeer,
    SilentPeer,
    make_frame,
    run_python,
    run_thread,
    scaled,
    self_signed,
    subprocess_python,
    wait_until,
)

_with_handler: pytest.StashKey[Any] = pytest.StashKey()

# ---- waiting --------------------------------------------------------------------------------------------------------


def test_wait_until_returns_the_first_true_value_and_fails_with_the_last_false_one() -> None:
    values = iter([0, "", "here"])
    assert wait_until(lambda: next(values)) == "here"
    with pytest.raises(AssertionError, match=r"in vain: the moon \(last value 0\)"):
        wait_until(lambda: 0, 0.01, "the moon")


def test_recorder_waits_for_events_of_other_threads() -> None:
    recorder = Recorder()
    on_ack = recorder.named("ack")
    with run_thread(lambda: [on_ack(7), on_ack(), recorder("bare"), on_ack(1, 2)]):
        assert recorder.wait_for(3, name="ack") == [7, None, (1, 2)]
        assert recorder.wait_event("ack", count=2) is None
        assert recorder.wait_event("") == "bare"
    assert recorder.names == ["ack", "ack", "", "ack"] and len(recorder) == 4
    recorder.clear()
    with pytest.raises(AssertionError, match=r"1 of 'ack'; got \[\]"):
        recorder.wait_event("ack", 0.01)


def test_recorder_attaches_to_a_client() -> None:
    class Client:
        listeners: Any = {}

        def on(self, name: str, listener: Callable[..., None]) -> None:
            self.listeners[name] = listener

    client = Client()
    recorder = Recorder().attach(client, "connected", "stopped")
    client.listeners["stopped"]("e")
    assert recorder.events == [("stopped", "e")]


def test_run_thread_hands_over_values_and_exceptions() -> None:
    with run_thread(divmod, 7, 2) as thread:
        assert thread.result() == (3, 1)
    with run_thread(divmod, 7, 0) as thread:
        assert isinstance(thread.exception(), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError), run_thread(divmod, 7, 0):
        pass
    with pytest.raises(LookupError), run_thread(divmod, 7, 0):
        raise LookupError("the body's own failure comes first")


def test_run_thread_shows_where_a_stuck_thread_is() -> None:
    entered, release = threading.Event(), threading.Event()

    def stuck() -> None:
        entered.set()
        release.wait()

    with run_thread(stuck) as thread:
        assert entered.wait(scaled(5))
        with pytest.raises(AssertionError, match=r"still runs after(.|\n)*in stuck"):
            thread.result(0.02)
        assert thread.running
        release.set()


# ---- ports ----------------------------------------------------------------------------------------------------------


def test_a_closed_port_refuses() -> None:
    with ClosedPort() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port.port), timeout=scaled(5))


def test_a_silent_peer_accepts_and_says_nothing() -> None:
    with SilentPeer() as peer, socket.create_connection((LOOPBACK, peer.port), timeout=30 * MS) as sock:
        peer.wait_accepted(1)
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(socket.timeout):
            sock.recv(1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="relies on how Linux treats a full accept queue")
def test_a_deaf_port_lets_connects_hang() -> None:
    with DeafPort() as port, pytest.raises(socket.timeout):
        socket.create_connection((LOOPBACK, port.port), timeout=50 * MS)


# ---- child interpreters ---------------------------------------------------------------------------------------------


def test_a_child_can_be_waited_for_and_interrupted() -> None:
    code = """
        from __future__ import annotations
        import sys, threading
        print("args", sys.argv[1:])
        try:
            print("heard", input())
            threading.Event().wait()
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(3)
    """
    with subprocess_python(code, "a", "b c") as child:
        assert child.wait_line("args") == "args ['a', 'b c']"
        child.send_line("you")
        child.wait_line("heard you")
        child.interrupt()
        result = child.wait()
    assert (result.returncode, result.stderr) == (3, "interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="faulthandler is asked by SIGABRT")
def test_a_child_past_its_bound_shows_its_stacks() -> None:
    with subprocess_python("def stuck():\n    input('here\\n')\nstuck()", timeout=0.01) as child:
        child.wait_line("here")
        with pytest.raises(AssertionError, match=r"still ran after its bound(.|\n)*in stuck"):
            child.wait()


def test_a_module_runs_in_a_child() -> None:
    with subprocess_module("json.tool", env={"X": "1"}) as child:
        child.send_line('{"a":1}')
        child.process.stdin.close()  # type: ignore[union-attr]
        assert json.loads(child.wait().stdout) == {"a": 1}


def test_run_python_insists_on_success() -> None:
    assert run_python("import os; print(os.environ['X'])", env={"X": "1"}).stdout == "1\n"
    with pytest.raises(AssertionError, match=r"exited by 1(.|\n)*LookupError: why"):
        run_python("raise LookupError('why')")


# ---- the scripted peer, against a client that is not ours -----------------------------------------------------------


def dial(url: str, **options: Any) -> websocket.WebSocket:
    return websocket.create_connection(url, timeout=scaled(5), **options)


def test_a_script_talks_in_every_kind_of_frame() -> None:
    def script(conn: PeerConnection) -> None:
        assert conn.recv_json() == {"hello": "wörld"}
        conn.send_json(["hi"])
        conn.send_text("frag", fin=False)
        conn.send_frame(PING, b"between")
        conn.send_frame(CONTINUATION, b"ment")
        assert conn.recv_frame() == (PONG, b"between", True, 0)
        conn.send_bytes(b"\0\1")
        assert conn.recv_message() == bytes(70_000)
        assert conn.close(4001, "enough") == (1000, "")  # what this client answers to any close

    with ScriptedPeer(script) as peer:
        client = dial(peer.url("/chat?x=1"), subprotocols=["one", "two"], header=["X-Test: yes"])
        assert client.subprotocol == "one"
        client.send('{"hello": "w\u00f6rld"}')
        assert client.recv() == '["hi"]'
        assert client.recv() == "fragment"
        assert client.recv() == b"\0\1"
        client.send_binary(bytes(70_000))
        opcode, payload = client.recv_data()
        assert (opcode, payload) == (CLOSE, struct.pack("!H", 4001) + b"enough")
        client.shutdown()
    request, = peer.requests
    assert (request.target, request.subprotocols, request.headers["x-test"]) == ("/chat?x=1", ["one", "two"], "yes")


def test_recv_message_answers_pings_joins_fragments_and_ends_with_the_clients_close_code() -> None:
    gone: List[PeerGone] = []

    def script(conn: PeerConnection) -> None:
        assert conn.recv_message() == "whole"
        with pytest.raises(PeerGone) as info:
            conn.recv_message()
        gone.append(info.value)
        conn.close(1000)

    with ScriptedPeer(script) as peer:
        client = dial(peer.url())
        client.send_frame(websocket.ABNF.create_frame("wh", TEXT, 0))
        client.ping("are you there")
        client.send_frame(websocket.ABNF.create_frame("ole", CONTINUATION, 1))
        assert client.recv_data_frame(control_frame=True)[1].data == b"are you there"
        client.close(4444, b"bye")
    assert [(e.code, e.reason) for e in gone] == [(4444, "bye")]


def test_scripts_are_dealt_out_by_connection() -> None:
    with ScriptedPeer([lambda c: c.send_text("first"), lambda c: c.send_text(f"later {c.index}")]) as peer:
        heard = []
        for _ in range(3):
            client = dial(peer.url())
            heard.append(client.recv())
            client.shutdown()
        assert heard == ["first", "later 1", "later 2"]
        peer.wait_accepted(3)


def test_a_status_is_answered_instead_of_an_upgrade() -> None:
    with ScriptedPeer(status=403, body=b"no entry", headers=[("X-Why", "because")]) as peer:
        with pytest.raises(websocket.WebSocketBadStatusException) as info:
            dial(peer.url())
        assert info.value.status_code == 403
        assert info.value.resp_headers["x-why"] == "because"
        assert len(peer.wait_requests(1)) == 1


@pytest.mark.parametrize("subprotocol", [None, "unasked"])
def test_the_subprotocol_answer_can_be_missing_or_wrong(subprotocol: Any) -> None:
    with ScriptedPeer(subprotocol=subprotocol) as peer:
        sock = socket.create_connection((LOOPBACK, peer.port), timeout=scaled(5))
        with sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
                         b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                         b"Sec-WebSocket-Protocol: mine\r\n\r\n")
            answer = ""
            while "\r\n\r\n" not in answer:
                answer += sock.recv(4096).decode()
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer  # the example of RFC 6455 section 1.3
    assert ("Sec-WebSocket-Protocol: unasked\r\n" in answer) == (subprotocol is not None)


def test_the_handshake_answer_can_be_replaced() -> None:
    with ScriptedPeer(handshake=lambda request, answer: answer.replace(b"Accept: ", b"Accept: x")) as peer:
        with pytest.raises(websocket.WebSocketException):
            dial(peer.url())


def test_finish_and_reset_look_different_to_the_client() -> None:
    with ScriptedPeer([lambda c: c.finish(), lambda c: c.reset()]) as peer:
        ended, broken = dial(peer.url()), dial(peer.url())
        with pytest.raises(websocket.WebSocketConnectionClosedException):
            ended.recv()
        with pytest.raises((ConnectionResetError, websocket.WebSocketConnectionClosedException)):
            broken.recv()
        ended.shutdown()
        broken.shutdown()


def test_hang_does_not_read_until_the_peer_is_closed() -> None:
    with ScriptedPeer(lambda c: c.hang()) as peer:
        client = dial(peer.url())
        client.settimeout(100 * MS)
        with pytest.raises(websocket.WebSocketTimeoutException):
            for _ in range(100):
                client.send_binary(bytes(1_000_000))
        client.settimeout(scaled(5))
    with pytest.raises((ConnectionError, websocket.WebSocketConnectionClosedException)):
        client.recv()
    client.shutdown()


def test_tls_with_a_certificate_made_for_the_test(tmp_path: Any) -> None:
    certificate = self_signed(tmp_path)
    with ScriptedPeer(lambda c: c.send_text(c.recv_text()), ssl_context=certificate.server_context) as peer:
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
            dial(peer.url())
        client = dial(peer.url(), sslopt={"context": certificate.client_context})
        client.send("secret")
        assert client.recv() == "secret"
        client.shutdown()


def raw_client(peer: ScriptedPeer, data: bytes) -> None:
    """Upgrade by a library, then write bytes of our own and wait for the end."""
    client = dial(peer.url())
    try:
        client.sock.sendall(data)
        client.sock.shutdown(socket.SHUT_WR)
        while client.sock.recv(4096):
            pass
    except OSError as error:
        # The script did not read everything; on a connection that is reset already, shutdown() has another error.
        assert isinstance(error, ConnectionError) or error.errno == errno.ENOTCONN, error
    client.shutdown()


@pytest.mark.parametrize("data, complaint", [
    (make_frame(TEXT, b"naked"), "unmasked"),
    (make_frame(TEXT, b"", rsv=4, mask=b"mask"), "reserved bits 100"),
    (make_frame(3, b"", mask=b"mask"), "reserved opcode"),
    (make_frame(PING, b"", fin=False, mask=b"mask"), "control frame"),
    (make_frame(PING, bytes(126), mask=b"mask"), "control frame"),
    (b"\x81\xfe\0\x05mask", "16-bit form"),
    (b"\x81\xff\0\0\0\0\0\0\0\x05mask", "64-bit form"),
    (make_frame(CONTINUATION, b"", mask=b"mask"), "out of order"),
    (make_frame(TEXT, b"a", fin=False, mask=b"mask") + make_frame(TEXT, b"b", mask=b"mask"), "out of order"),
    (make_frame(CLOSE, b"x", mask=b"mask"), "one byte"),
    (make_frame(CLOSE, b"\x03\xed", mask=b"mask"), "close code 1005"),
])
def test_a_client_that_breaks_the_rules_is_told_on(data: bytes, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        with ScriptedPeer(lambda c: c.recv_message()) as peer:
            raw_client(peer, data)


def test_a_failed_assertion_of_a_script_fails_the_test_and_a_vain_wait_is_one() -> None:
    with pytest.raises(AssertionError, match="nothing more came"):
        with ScriptedPeer(lambda c: c.recv_text(timeout=0.02)) as peer:
            client = dial(peer.url())
            with pytest.raises(websocket.WebSocketConnectionClosedException):
                client.recv()
            client.shutdown()
    with pytest.raises(LookupError, match="the test's own"):
        with ScriptedPeer(lambda c: divmod(1, 0)) as peer:
            dial(peer.url()).shutdown()
            wait_until(lambda: peer.errors)
            raise LookupError("the test's own failure comes first")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_masked_and_plain_frames_carry_every_size(size: int, seed: int) -> None:
    data = random.Random(seed).getrandbits(8 * size + 1).to_bytes(size + 1, "big")[1:]

    def script(conn: PeerConnection) -> None:
        frame = conn.recv_frame()
        assert (frame.opcode, frame.payload) == (BINARY, data)
        conn.send_bytes(frame.payload)

    with ScriptedPeer(script) as peer:
        client = dial(peer.url())
        client.send_binary(data)
        assert client.recv_data() == (BINARY, data)
        client.shutdown()


# ---- the server fixtures --------------------------------------------------------------------------------------------

SUBPROTOCOL = "json.webpubsub.azure.v1"


def test_url_for_leads_through_the_proxy(url_for: Callable[..., str], server: Any, proxy: FaultProxy) -> None:
    url = url_for("chat", user_id="ann")
    assert f":{proxy.port}/client/hubs/chat?access_token=" in url
    client = dial(url, subprotocols=[SUBPROTOCOL])
    assert json.loads(client.recv())["userId"] == "ann"
    proxy.cut()
    with pytest.raises((ConnectionResetError, websocket.WebSocketConnectionClosedException)):
        client.recv()
    client.shutdown()
    straight = dial(url_for(proxy=None), subprotocols=[SUBPROTOCOL])
    assert json.loads(straight.recv())["event"] == "connected"
    straight.close()
    assert proxy.accepted == 1


def test_a_handler_on_the_shared_server_is_not_met_by_later_tests(server: Any, request: pytest.FixtureRequest) -> None:
    server.on("connect", handler=print)
    request.config.stash[_with_handler] = server


def test_a_handler_of_an_earlier_test_is_gone(server: Any, request: pytest.FixtureRequest) -> None:
    if request.config.stash.get(_with_handler, None) is None:
        pytest.skip("the test before this one did not run")
    assert request.config.stash[_with_handler] is server
    assert server._handlers.find("connect", "connect", "any") is None


def test_fresh_servers_are_the_tests_own(fresh_server: Callable[..., Any], url_for: Callable[..., str], server: Any,
                                         make_proxy: Callable[..., FaultProxy]) -> None:
    own, other = fresh_server(), fresh_server(recovery_window=1.0)
    assert len({own.endpoint, other.endpoint, server.endpoint}) == 3
    way = make_proxy(own)
    client = dial(url_for(server=own, proxy=way), subprotocols=[SUBPROTOCOL])
    assert json.loads(client.recv())["event"] == "connected"
    assert way.connections == 1
    client.close()


# ---- required peers -------------------------------------------------------------------------------------------------


def test_a_missing_peer_skips_or_fails_when_required(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peers.require("json", "to show a module that is there").loads("1") == 1
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    assert peers.require_command(os.path.basename(sys.executable), "to show a command")
    monkeypatch.setattr(peers, "REQUIRED", False)
    with pytest.raises(pytest.skip.Exception, match="no_such_peer.x is not installed; wanted for: the show"):
        peers.require("no_such_peer.x", "the show")
    monkeypatch.setattr(peers, "REQUIRED", True)
    with pytest.raises(pytest.fail.Exception, match="no-such-command is not installed"):
        peers.require_command("no-such-command", "the show")
    with pytest.raises(pytest.skip.Exception, match="needs Python 9.0"):
        peers.require("no_such_peer", "the show", python=(9, 0))


def test_a_peer_that_is_there_but_broken_is_not_skipped(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_peer.py").write_text("import something_it_needs", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="something_it_needs"):
        peers.require("broken_peer", "the show")


def test_node_packages_must_be_there_in_the_version_of_package_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "require_command", lambda name, why: "/bin/" + name)
    monkeypatch.setattr(peers, "REQUIRED", False)
    (tmp_path / "package.json").write_text('{"dependencies": {"@scope/thing": "1.2.0"}}')
    installed = tmp_path / "node_modules" / "@scope" / "thing" / "package.json"
    installed.parent.mkdir(parents=True)
    for found in (None, "1.1.9"):
        if found:
            installed.write_text('{"version": "%s"}' % found)
        with pytest.raises(pytest.skip.Exception, match="the Node package @scope/thing 1.2.0.*wanted for: the show"):
            peers.require_node_packages(str(tmp_path), "the show")
    installed.write_text('{"version": "1.2.0"}')
    assert peers.require_node_packages(str(tmp_path), "the show") == "/bin/node"


def test_the_node_packages_are_locked_and_come_from_wherever_npm_is_told() -> None:
    directory = Path(__file__).resolve().parent / "interop" / "js"
    wanted = json.loads((directory / "package.json").read_text("utf-8"))["dependencies"]
    locked = json.loads((directory / "package-lock.json").read_text("utf-8"))["packages"]
    assert all(locked["node_modules/" + name]["version"] == version for name, version in wanted.items())
    assert [name for name, entry in locked.items() if "resolved" in entry or (name and "integrity" not in entry)] == []
