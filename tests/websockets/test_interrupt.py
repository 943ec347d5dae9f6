"""P5: Ctrl-C in every blocking call of a plain WebSocket, at any line."""

from __future__ import annotations

import gc
import linecache
import threading
import time
import warnings
from typing import Any

import pytest

from simplepubsub.websockets import State
from tests import interrupts
from tests.helpers import DeafPort, ScriptedPeer, SilentPeer, run_python, scaled, subprocess_python, wait_until
from tests.interrupts import NEEDS_SAFE_WITH, interrupt_when_blocked
from tests.websockets.kit import connect, echo, pair, serving, threads


class interrupt_at(interrupts.interrupt_at):
    """Not at a `try:` either: no signal is handled there, and a `with` around it does not see what a tracer raises."""

    def _trace(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line" and linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip() == "try:":
            return self._trace
        return super()._trace(frame, event, argument)


def sends_in_a_row(client, server):
    client.send("a")
    client.send("b")
    client.send("c")


def receives(client, server):
    server.send("for you")
    wait_until(lambda: client.unread)
    client.recv(scaled(5))


def receives_from_a_full_inbox(client, server):
    for number in range(10):
        server.send(str(number))
    wait_until(lambda: client._intake.full)
    for _ in range(10):
        client.recv(scaled(5))


def times_out(client, server):
    with pytest.raises(TimeoutError):
        client.recv(0.001)


CALLS = [
    ("send", lambda client, server: client.send("x")),
    ("send in a row", sends_in_a_row),
    ("send a lot", lambda client, server: client.send("x" * 1_000_000)),
    ("recv", receives),
    ("recv from a full inbox", receives_from_a_full_inbox),
    ("recv with a timeout", times_out),
    ("ping", lambda client, server: client.ping().result(scaled(5))),
    ("pong", lambda client, server: client.pong()),
    ("broadcast", lambda client, server: client.offer(b"\x81\x80abcd", 1000)),
]


@NEEDS_SAFE_WITH
@pytest.mark.parametrize("name, call", CALLS, ids=[row[0] for row in CALLS])
def test_ctrl_c_at_any_line_leaves_a_usable_connection(name, call):
    position = 0
    with pair({"max_size": None}, max_queue=4) as (client, server):
        while True:
            position += 1
            with interrupt_at(position) as interrupt:
                try:
                    call(client, server)
                except KeyboardInterrupt:
                    pass
            try:
                for lock in (client._changed, client._poller._lock, client._inbox._condition):
                    assert lock.acquire(timeout=scaled(5)), "%r is held" % lock
                    lock.release()
                client.send("mark", timeout=scaled(5))
                while server.recv(scaled(5)) != "mark":
                    pass
                server.send("mark")
                while client.recv(scaled(5)) != "mark":
                    pass
                assert client.ping().result(scaled(5)) > 0
                assert not client._waiting_sends
                wait_until(lambda: client._writer is None)  # a keep-alive may be going out just now, but not for long
            except BaseException as error:
                raise AssertionError("Ctrl-C before %s: %r" % (interrupt.where, error)) from error
            if not interrupt.where:
                break
        assert position > 10


@NEEDS_SAFE_WITH
def test_ctrl_c_at_any_line_of_fragments_ends_nothing_but_the_message():
    position = 0
    while True:
        position += 3
        with pair() as (client, server):
            with interrupt_at(position) as interrupt:
                try:
                    client.send(["a", "b", "c"])
                except KeyboardInterrupt:
                    pass
            # Either nothing of it was sent, or the connection says that it has ended: it never hangs.
            assert client._fragmenting is None, interrupt.where
            if client.state is State.OPEN:
                client.send("after", timeout=scaled(5))
                assert server.recv(scaled(5)) in ("after", "abc"), interrupt.where
        if not interrupt.where:
            return


@NEEDS_SAFE_WITH
def test_ctrl_c_at_any_line_of_close_and_connect():
    position = 0
    # A socket that was only just made when the signal came is closed by the garbage collector, which says so.
    with serving(echo) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        url = server.url()
        while True:
            position += 5
            client = None
            with interrupt_at(position) as interrupt:
                try:
                    client = connect(url)
                    client.close()
                except KeyboardInterrupt:
                    pass
            if client is not None:
                began = time.monotonic()
                client.close()
                assert time.monotonic() - began < scaled(8), interrupt.where
                wait_until(lambda client=client: client.state is State.CLOSED, message=interrupt.where)
            if not interrupt.where:
                break
        assert position > 100
        gc.collect()
    wait_until(lambda: threads() == [])


# ---- a real Ctrl-C in a process of its own ---------------------------------------------------------------------------

MAKE = "from simplepubsub import websockets\n"
CONNECT = "ws = websockets.connect(sys.argv[1], proxy=None, close_timeout=60)"
USABLE = "ws.send('ok'); assert ws.recv(10) == 'ok'; ws.close(timeout=0.2)"
GONE = "ws.close(timeout=0.2); wait_until(lambda: ws.close_code == 1006)"
REAL = [
    ("recv", CONNECT, "ws.recv()", USABLE),
    ("recv with a timeout", CONNECT, "ws.recv(60)", USABLE),
    ("iteration", CONNECT, "list(ws)", USABLE),
    ("send", CONNECT + "; ws.send('stop')", "[ws.send('x' * 500000) for _ in range(100)]", GONE),
    ("close", CONNECT + "; ws.send('stop')", "ws.close()", GONE),
    ("with", CONNECT + "; ws.send('stop')", "ws.__exit__(None, None, None)", GONE),
    ("reconnect recv", "ws = websockets.reconnect(sys.argv[1], proxy=None)", "ws.recv()", USABLE),
    ("serve_forever", "ws = websockets.serve(print)", "ws.serve_forever()", "ws.shutdown()"),
    ("with serve_forever", "", "websockets.serve(print).__enter__().serve_forever()", ""),
]

#: Each row starts a process: the others run with the long tests.
QUICK = ("recv", "send", "close", "serve_forever")


def stops_when_told(conn):
    while True:
        text = conn.recv_text()
        if text == "stop":
            conn.hang()
        conn.send_text(text)


@pytest.mark.parametrize("name, before, call, after", [
    pytest.param(*row, id=row[0], marks=[] if row[0] in QUICK else [pytest.mark.stress]) for row in REAL])
def test_ctrl_c_in_a_blocking_call(name, before, call, after):
    with ScriptedPeer(stops_when_told, subprotocol=None, timeout=60) as peer:
        interrupt_when_blocked(MAKE + before, call, after, peer.url())
        peer.close(check=False)


@pytest.mark.parametrize("where", ["silent", "deaf"])
def test_ctrl_c_in_connect(where):
    with SilentPeer() as silent, DeafPort() as deaf:
        peer = silent if where == "silent" else deaf
        code = """
            import sys, time
            from simplepubsub import websockets
            try:
                print("trying")
                websockets.connect(sys.argv[1], proxy=None, open_timeout=60)
            except KeyboardInterrupt:
                print("interrupted")
            """
        with subprocess_python(code, peer.url("/", "ws") if where == "silent" else peer.url("/")) as child:
            child.wait_line("trying")
            if where == "silent":
                silent.wait_accepted(1)
            child.interrupt()
            child.wait_line("interrupted")
            assert child.wait(10).returncode == 0


def test_a_signal_handler_may_shut_a_server_down():
    code = """
        import signal
        from simplepubsub import websockets
        with websockets.serve(lambda connection: connection.recv()) as server:
            signal.signal(signal.SIGINT, lambda *args: server.shutdown())
            print("serving")
            server.serve_forever()
        print("done")
        """
    with subprocess_python(code) as child:
        child.wait_line("serving")
        child.interrupt()
        assert "done" in child.wait(10).stdout


def test_exit_without_close_is_quick_and_quiet():
    over = threading.Event()
    with ScriptedPeer(lambda conn: over.wait(30), subprotocol=None) as peer:
        result = run_python(
            """
            import sys, time
            from simplepubsub import websockets
            websockets.serve(print)
            connection = websockets.connect(sys.argv[1], proxy=None)
            connection.send("x")
            print(time.monotonic())
            """, peer.url())
        took = time.monotonic() - float(result.stdout)  # without the start: one clock for all processes
        over.set()
        assert result.stderr == "" and took < scaled(8)
        peer.close(check=False)
