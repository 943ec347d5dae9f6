"""Nothing waits for ever, and an abort wakes everything: peers that are silent, deaf, dead, slow, cut off."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Callable, List, Tuple

import pytest
import requests

from simplepubsub.core.deadline import Deadline
from simplepubsub.exceptions import ConnectError, ConnectTimeout
from simplepubsub.socketio.engineio import EngineIO
from simplepubsub.socketio.heartbeat import Heartbeat
from simplepubsub.socketio.http_options import HttpOptions
from simplepubsub.socketio.opening import EngineOpener
from simplepubsub.socketio.seams import Target
from tests.faultproxy import FaultProxy
from tests.helpers import DeafPort, SilentPeer, run_thread, scaled, self_signed, wait_until
from tests.socketio.engine import Collector, open_session, running
from tests.socketio.rawserver import RawServer, Request

LEGS = pytest.mark.parametrize("leg", ["polling", "websocket"])
BOTH = pytest.mark.parametrize("transports", ["polling", "websocket", None], ids=["polling", "websocket", "upgrade"])


def our_threads() -> List[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("simplepubsub-sio")]


def opener(url: str, leg: str, timeout: float, **settings: Any) -> Tuple[EngineOpener, Callable[[], Any]]:
    made = EngineOpener(HttpOptions(**settings))
    return made, lambda: made.open(Target(url, transports=(leg,)), Deadline(timeout))


# ---- opening --------------------------------------------------------------------------------------------------------


@LEGS
def test_opening_ends_in_time_before_a_silent_peer(leg: str) -> None:
    with SilentPeer() as peer:
        begin = time.monotonic()
        with pytest.raises(ConnectTimeout):
            opener(peer.url("/", "http"), leg, 0.1, request_timeout=None)[1]()
        assert time.monotonic() - begin < scaled(5)
        wait_until(lambda: our_threads() == [])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a deaf port is made with Linux' backlog")
@LEGS
def test_opening_ends_in_time_before_a_deaf_port(leg: str) -> None:
    with DeafPort() as port:
        with pytest.raises(ConnectTimeout):
            opener("http://127.0.0.1:%d" % port.port, leg, 0.1)[1]()
        wait_until(lambda: our_threads() == [])


@LEGS
@pytest.mark.parametrize("secure", [False, True])
def test_opening_is_aborted_from_another_thread(leg: str, secure: bool) -> None:
    with SilentPeer() as peer:
        made, run = opener(peer.url("/", "https" if secure else "http"), leg, 60, request_timeout=None)
        with run_thread(run) as running_thread:
            peer.wait_accepted(1)
            begin = time.monotonic()
            made.abort()
            assert isinstance(running_thread.exception(5), ConnectError)
            assert time.monotonic() - begin < scaled(5)
        wait_until(lambda: our_threads() == [])
        made.abort()
        with pytest.raises(ConnectError, match="given up"):
            run()


@LEGS
def test_opening_is_interrupted(leg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C: the attempt ends, and a session that is there already is not kept."""
    def interrupt(condition: Any, timeout: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("simplepubsub.socketio.opening.wait", interrupt)
    with SilentPeer() as peer:
        with pytest.raises(KeyboardInterrupt):
            opener(peer.url("/", "http"), leg, 60, request_timeout=None)[1]()
        wait_until(lambda: our_threads() == [])

    def interrupt_late(condition: Any, timeout: Any) -> None:
        waiting.set()
        condition.wait_for(lambda: made._result is not None, scaled(5))
        raise KeyboardInterrupt

    monkeypatch.setattr("simplepubsub.socketio.opening.wait", interrupt_late)
    waiting = threading.Event()  # the answer comes when open() waits for it, not before
    with RawServer(answer=lambda request: None if waiting.wait(scaled(5)) else None) as server:
        made, run = opener(server.url(), leg, 60)
        with pytest.raises(KeyboardInterrupt):
            run()
        assert isinstance(made._result, EngineIO) and made._result.ended
        wait_until(lambda: our_threads() == [])


@LEGS
def test_a_handshake_that_trickles(leg: str) -> None:
    """A byte now and then must not keep an attempt alive."""
    with RawServer() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.throttle(1, interval=0.05, direction="down")
        with pytest.raises(ConnectTimeout):
            opener(proxy.url(server.url()), leg, 0.3)[1]()
        wait_until(lambda: our_threads() == [])


def test_a_websocket_without_an_open_packet() -> None:
    with RawServer(silent_websocket=True) as server:
        with pytest.raises(ConnectError):
            opener(server.url(), "websocket", 5, request_timeout=0.2)[1]()


@LEGS
def test_a_result_that_comes_after_the_abort_is_thrown_away(leg: str) -> None:
    with RawServer() as server:
        gate = threading.Event()

        def answer(request: Request) -> Any:
            assert gate.wait(scaled(5))

        server.answer = answer
        made, run = opener(server.url(), leg, 60)
        with run_thread(run) as running_thread:
            server.wait_requests(lambda seen: seen)
            made.abort()
            assert isinstance(running_thread.exception(5), ConnectError)
        gate.set()
        wait_until(lambda: our_threads() == [])


# ---- a running session ----------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("secure", [False, True])
def test_abort_wakes_everything_at_once(transports: Any, secure: bool, tmp_path: Any) -> None:
    context = self_signed(tmp_path).server_context if secure else None
    with RawServer(ssl_context=context, max_payload=None, probe_answer=None) as server:
        options: Any = {"websocket_extra_options": {"sslopt": {"cert_reqs": 0}}} if secure else {}
        http_session = None
        if secure:
            http_session = requests.Session()
            http_session.verify = str(tmp_path / "ca.pem")
        with running(server.url(), transports, http_session=http_session, **options) as found:
            session = server.session
            session.hold_posts = True
            if session.websocket is not None:
                session.websocket.reading.clear()
            found.session.send(["x" * 20000000])  # more than the network's buffers hold
            if transports != "websocket":
                session.wait(lambda: session.busy["GET"] == 1)
            waiting: List[Any] = []
            with run_thread(lambda: waiting.append(found.session.flush(Deadline(60)))):
                with run_thread(lambda: waiting.append(found.session.wait_room(Deadline(60)))):
                    begin = time.monotonic()
                    found.session.abort()
                    assert found.wait_closed() == ("client disconnect", None)
            assert time.monotonic() - begin < scaled(5)
            assert sorted(waiting) == [False, True]
            wait_until(lambda: our_threads() == [])
        with server.changed:
            session.hold_posts = False
            server.changed.notify_all()


@BOTH
def test_close_gives_up_at_its_deadline(transports: Any) -> None:
    """W29."""
    with RawServer(max_payload=None) as server, FaultProxy("127.0.0.1", server.port) as proxy:
        with running(proxy.url(server.url()), transports) as found:
            if transports is None:
                wait_until(lambda: found.session.transport == "websocket")
            proxy.stall()
            found.session.send(["x" * 20000000])
            begin = time.monotonic()
            found.session.close(Deadline(0.2))
            assert time.monotonic() - begin < scaled(5)
            assert found.wait_closed()[0] == "client disconnect"
            wait_until(lambda: our_threads() == [])


@BOTH
@pytest.mark.parametrize("busy", [False, True])
def test_a_link_that_goes_silent(transports: Any, busy: bool) -> None:
    """Case 13, also while a write waits for a peer that does not read."""
    with RawServer(max_payload=None) as server:
        with FaultProxy("127.0.0.1", server.port) as proxy, running(proxy.url(server.url()), transports) as found:
            if transports is None:
                wait_until(lambda: found.session.transport == "websocket")
            with found.session.changed:  # only now: the upgrade may have taken its time
                found.session.heartbeat = Heartbeat(0.3, 0.2)
                found.session.changed.notify_all()
            proxy.stall()
            if busy:
                found.session.send(["x" * 12000000])
            begin = time.monotonic()
            assert found.wait_closed()[0] == "ping timeout"
            assert time.monotonic() - begin < scaled(5)
            wait_until(lambda: our_threads() == [])


@BOTH
def test_a_dead_peer(transports: Any) -> None:
    with RawServer() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        with running(proxy.url(server.url()), transports) as found:
            if transports is None:
                wait_until(lambda: found.session.transport == "websocket")
            else:
                server.session.wait(lambda: transports == "websocket" or server.session.busy["GET"] == 1)
            proxy.cut()
            reason, error = found.wait_closed()
            assert reason == "transport error" and error is not None
            wait_until(lambda: our_threads() == [])


@pytest.mark.parametrize("cut", [300, 700, 1200, 1500, 2000, 4000, 8000])
@BOTH
def test_cut_anywhere(transports: Any, cut: int) -> None:
    """Wherever the link breaks, opening raises or the session reports it, and nothing is left behind."""
    with RawServer() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.cut_after(cut, "up" if cut % 200 else "down")
        found = None
        try:
            found = Collector(open_session(proxy.url(server.url()), transports))
        except ConnectError:
            pass
        if found is not None:
            for index in range(200):
                found.session.send(["2[%d]" % index])
                if index % 20 == 0:
                    server.session.send("4x", "2")
            found.session.flush(Deadline(scaled(1)))
            if not found.closed:
                server.session.send("4" + "y" * 10000)
                found.session.flush(Deadline(scaled(1)))
                found.session.abort()
            assert found.wait_closed()[0] in ("transport error", "transport close", "client disconnect")
            sent = server.sessions[-1].messages
            assert sent == ["2[%d]" % index for index in range(len(sent))]
        wait_until(lambda: our_threads() == [])


@BOTH
def test_a_slow_link_keeps_order(transports: Any, seed: int) -> None:
    with RawServer() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.throttle(7, seed)
        with running(proxy.url(server.url()), transports) as found:
            for index in range(30):
                found.session.send([str(index), b"%d" % index])
                server.session.send("4%d" % index, b"%d" % index)
            expected = [item for index in range(30) for item in (str(index), b"%d" % index)]
            assert found.wait_messages(60, 20) == expected
            assert server.session.wait_messages(60, 20) == expected


def test_abort_during_the_probe_and_the_switch() -> None:
    for delay in range(12):
        with RawServer() as server, FaultProxy("127.0.0.1", server.port) as proxy:
            proxy.delay(0.002)
            with running(proxy.url(server.url())) as found:
                threading.Event().wait(delay * 0.003)
                found.session.abort()
                assert found.wait_closed() == ("client disconnect", None)
            wait_until(lambda: our_threads() == [])


def flood(found: Collector, stop: threading.Event) -> None:
    while not stop.is_set():
        found.session.send(["a", b"b"])
        found.session.wait_room(Deadline(0.1))


@BOTH
def test_abort_and_send_from_many_threads(transports: Any, switch_interval: Any) -> None:
    with RawServer() as server:
        for _ in range(5):
            with running(server.url(), transports) as found:
                stop = threading.Event()

                threads = [threading.Thread(target=flood, args=(found, stop)) for _ in range(4)]
                for thread in threads:
                    thread.start()
                stop.wait(0.02)
                found.session.abort()
                assert found.wait_closed() == ("client disconnect", None)
                stop.set()
                for thread in threads:
                    thread.join(scaled(5))
        wait_until(lambda: our_threads() == [])
