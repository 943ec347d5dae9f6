"""P1: no call hangs. Every blocking call against every way a peer can be absent, with a limit and with a stop()."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any, Callable, Dict, Iterator, List

import pytest

import simplepubsub
from simplepubsub.exceptions import (
    AckTimeout,
    ClientStopped,
    ConnectError,
    ConnectTimeout,
    FlushTimeout,
    InvocationTimeout,
    OutboxFull,
    ReceiveTimeout,
    SendMessageError,
    StreamTimeout,
)
from simplepubsub.webpubsub import RetryPolicy, WebPubSubClient, outgoing_stream
from tests.helpers import (
    DeafPort,
    PeerConnection,
    ScriptedPeer,
    SilentPeer,
    current_frames,
    run_thread,
    scaled,
    wait_until,
)

PACKAGE = os.path.dirname(simplepubsub.__file__)
PATH = "/client/hubs/hub?access_token=x"
LIMIT = 0.3  # what each call is given, in seconds, before scaling
SLACK = 10.0  # and how much later it may return: machines are busy, and a hang has no end
RETURNS = type(None)


def accepts(connection: PeerConnection) -> None:
    """Accept the session, read everything, answer nothing."""
    if "awps_connection_id" not in connection.request.target:
        connection.send_json({"type": "system", "event": "connected", "connectionId": "c", "userId": None,
                              "reconnectionToken": "t"})
    connection.drain()


def answers_goodbye(connection: PeerConnection) -> None:
    connection.send_json({"type": "system", "event": "connected", "connectionId": "c", "userId": None})
    while True:
        connection.recv_message()  # ends the script at the client's close frame, and that the connection


def stops_reading(connection: PeerConnection) -> None:
    connection.send_json({"type": "system", "event": "connected", "connectionId": "c", "userId": None,
                          "reconnectionToken": "t"})
    connection.hang()


# name: (call with its limit, call without, what the first ends with, what the second ends with when stopped)
CALLS: Dict[str, Any] = {
    "receive": (lambda c, t: c.receive(t), ReceiveTimeout, ClientStopped),
    "messages": (lambda c, t: list(c.messages(timeout=t)), RETURNS, RETURNS),
    "for": (lambda c, t: list(c) if t is None else c.receive(t), ReceiveTimeout, RETURNS),
    "join_group": (lambda c, t: c.join_group("g", timeout=t), AckTimeout, ClientStopped),
    "leave_group": (lambda c, t: c.leave_group("g", timeout=t), AckTimeout, ClientStopped),
    "send_to_group": (lambda c, t: c.send_to_group("g", "x", timeout=t), AckTimeout, ClientStopped),
    "large send_to_group": (lambda c, t: c.send_to_group("g", "x" * 10**6, timeout=t), AckTimeout, ClientStopped),
    "send_event": (lambda c, t: c.send_event("e", "x", timeout=t), AckTimeout, ClientStopped),
    "flush": (lambda c, t: c.flush(t), FlushTimeout, ClientStopped),
    "invoke_event": (lambda c, t: c.invoke_event("e", "x", timeout=t), InvocationTimeout, ClientStopped),
    "open_stream": (lambda c, t: c.open_stream("g", timeout=t), StreamTimeout, ClientStopped),
    "streams": (lambda c, t: list(c.streams(timeout=t)), RETURNS, RETURNS),
    "accept": (lambda c, t: c.streams().accept(t), ReceiveTimeout, ClientStopped),
    "stop": (lambda c, t: c.stop(t), RETURNS, RETURNS),
    "with": (lambda c, t: c.__exit__(None, None, None), RETURNS, RETURNS),
}


@pytest.fixture
def peer(request: Any) -> Iterator[Any]:
    with ExitStack() as stack:
        peer = ScriptedPeer(request.param, timeout=30)
        made = stack.enter_context(peer)
        if request.param is stops_reading:
            # Connections take it over, so their windows are small and soon full.
            made._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        yield made
        made.close(check=False)  # clients leave without a word in half of these situations


def start_clients(url: str, names: List[str]) -> Dict[str, WebPubSubClient]:
    clients = {}
    for name in names:
        # Without limits of their own: None is no limit. Only __exit__ has no argument for one.
        clients[name] = WebPubSubClient(
            url, ack_timeout=None, close_timeout=scaled(LIMIT), ping_interval=None, max_outbox_bytes=3 * 2**20
        )
        clients[name].start(scaled(10))
    return clients


def fill(client: WebPubSubClient) -> None:
    """Send until the connection and the outbox take no more."""
    with pytest.raises(OutboxFull):
        while True:
            client.send_to_group_nowait("g", "x" * 2**18)


def stop_all(clients: Dict[str, WebPubSubClient], limit: float) -> None:
    together([lambda client=client: client.stop(scaled(limit)) for client in clients.values()])  # type: ignore[misc]


def nothing() -> None:
    pass


def is_waiting(thread: run_thread) -> bool:
    """Whether a thread stands in a wait inside the package."""
    frame = current_frames().get(thread.thread.ident or -1)
    if frame is None or frame.f_code.co_filename != threading.__file__ or frame.f_code.co_name != "wait":
        return False
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return frame is not None


def together(calls: List[Callable[[], Any]]) -> None:
    """Make all calls at the same time and wait for their ends."""
    with ExitStack() as stack:
        for call in calls:
            stack.enter_context(run_thread(call))


def run(calls: Dict[str, Callable[[], Any]], wanted: Dict[str, Any], bound: float,
        meanwhile: Callable[[], None] = nothing) -> None:
    """Make all calls at the same time, each in a thread; check how each ends and that it does within ``bound``.

    ``meanwhile`` is called when all of them are blocked.
    """
    outcomes: Dict[str, Any] = {}
    ready = threading.Barrier(len(calls) + 1)

    def one(name: str) -> None:
        ready.wait(scaled(10))
        started = time.monotonic()
        try:
            calls[name]()
            outcome: Any = None
        except Exception as error:  # noqa: BLE001  # it is what is being tested
            outcome = error
        outcomes[name] = (type(outcome), time.monotonic() - started)

    threads = [run_thread(one, name, join_timeout=bound + 10, name=name) for name in calls]
    for thread in threads:
        thread.__enter__()
    ready.wait(scaled(10))
    if meanwhile is not nothing:
        for thread in threads:
            wait_until(lambda thread=thread: is_waiting(thread), message="%s blocks" % thread.thread.name)
    meanwhile()
    for thread in threads:
        thread.__exit__(None, None, None)
    wrong = {name: outcome for name, outcome in outcomes.items()
             if not issubclass(outcome[0], wanted[name]) or outcome[1] > scaled(bound)}
    assert not wrong
    assert len(outcomes) == len(calls)


SITUATIONS = {
    "silent": accepts, "dead": accepts, "half-open": accepts, "stalled": accepts, "not reading": stops_reading,
}


@pytest.mark.parametrize("peer", [pytest.param(script, id=name) for name, script in SITUATIONS.items()], indirect=True)
@pytest.mark.parametrize("limit", [True, False], ids=["timeout", "stop"])
def test_every_call_ends(peer: Any, limit: bool, make_proxy: Any, request: Any) -> None:
    situation = request.node.callspec.id.split("-", 1)[1]
    proxy = make_proxy(peer.url(PATH)) if situation in ("dead", "half-open", "stalled") else None
    names = [name for name in CALLS if limit or name not in ("stop", "with")]
    clients = start_clients(peer.url(PATH) if proxy is None else proxy.url(peer.url(PATH)), names)
    try:
        for name, client in clients.items():
            if situation == "not reading":
                fill(client)
            elif name in ("flush", "with"):
                client.send_to_group_nowait("g", "never answered")
        if situation == "dead":
            proxy.refuse(True)
            proxy.cut()
            wait_until(lambda: not any(client.is_connected() for client in clients.values()))
        elif situation == "half-open":
            assert proxy.half_open() == len(clients)
        elif situation == "stalled":
            proxy.stall()
        timeout = scaled(LIMIT) if limit else None
        run(
            {name: lambda name=name: CALLS[name][0](clients[name], timeout) for name in names},  # type: ignore[misc]
            {name: CALLS[name][1 if limit else 2] for name in names},
            LIMIT + SLACK,
            nothing if limit else lambda: stop_all(clients, LIMIT),
        )
        assert clients["receive"].state == ("stopped" if not limit else clients["receive"].state)
        if limit:
            assert clients["stop"].state == clients["with"].state == "stopped"
    finally:
        stop_all(clients, 0)


def opens_streams(connection: PeerConnection) -> None:
    """Accept the session and the start of a stream, send one fragment of another, then answer nothing."""
    accept_stream(connection)
    connection.drain()


def opens_streams_and_stops_reading(connection: PeerConnection) -> None:
    accept_stream(connection)
    connection.hang()


def accept_stream(connection: PeerConnection) -> None:
    if "awps_connection_id" in connection.request.target:
        return
    connection.send_json({"type": "system", "event": "connected", "connectionId": "c", "userId": None,
                          "reconnectionToken": "t"})
    command = connection.recv_json()
    connection.send_json({"type": "streamAck", "streamId": command["stream"]["streamId"], "expectedSequenceId": 1})
    connection.send_json({"type": "message", "from": "group", "group": "g", "dataType": "text", "data": "x",
                          "fromUserId": None, "stream": {"streamId": "s", "streamSequenceId": 1}})


STREAM_CALLS: Dict[str, Any] = {
    "write": (lambda w, r, t: w.write("x", timeout=t), StreamTimeout, ClientStopped),
    "flush": (lambda w, r, t: w.flush(t), StreamTimeout, ClientStopped),
    "end": (lambda w, r, t: w.end(t), StreamTimeout, ClientStopped),
    "with": (lambda w, r, t: w.__exit__(None, None, None) if t is None else w.end(t), StreamTimeout, ClientStopped),
    "read": (lambda w, r, t: r.receive(t), ReceiveTimeout, ClientStopped),
    "for": (lambda w, r, t: list(r) if t is None else r.receive(t), ReceiveTimeout, ClientStopped),
    "abort": (lambda w, r, t: w.abort(), RETURNS, None),
    "close": (lambda w, r, t: r.close(), RETURNS, None),
}
STREAM_SITUATIONS = dict.fromkeys(("silent", "dead", "half-open", "stalled"), opens_streams)
STREAM_SITUATIONS["not reading"] = opens_streams_and_stops_reading


@pytest.mark.parametrize("limit", [True, False], ids=["timeout", "stop"])
@pytest.mark.parametrize(
    "peer", [pytest.param(script, id=name) for name, script in STREAM_SITUATIONS.items()], indirect=True)
def test_every_call_of_a_stream_ends(
    peer: Any, limit: bool, make_proxy: Any, request: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(outgoing_stream, "WINDOW_FRAGMENTS", 1)
    situation = request.node.callspec.id
    proxy = make_proxy(peer.url(PATH))
    names = [name for name in STREAM_CALLS if limit or STREAM_CALLS[name][2]]
    clients = start_clients(proxy.url(peer.url(PATH)), names)
    try:
        handles = {}
        for name, client in clients.items():
            incoming = client.streams("g", idle_timeout=None)
            handles[name] = client.open_stream("g", timeout=scaled(10)), incoming.accept(scaled(10))
            handles[name][0].write("unacknowledged" if "reading" not in situation else "x" * 2**19)
            assert handles[name][1].receive(scaled(10)).data == "x"
        if "dead" in situation:
            proxy.refuse(True)
            proxy.cut()
            wait_until(lambda: not any(client.is_connected() for client in clients.values()))
        elif "half-open" in situation:
            proxy.half_open()
        elif "stalled" in situation:
            proxy.stall()
        timeout = scaled(LIMIT) if limit else None
        run(
            {name: lambda name=name: STREAM_CALLS[name][0](*handles[name], timeout) for name in names},  # type: ignore[misc]
            {name: STREAM_CALLS[name][1 if limit else 2] for name in names},
            LIMIT + SLACK,
            nothing if limit else lambda: stop_all(clients, LIMIT),
        )
    finally:
        stop_all(clients, 0)


def no_answer(connection: PeerConnection) -> None:
    connection.drain()  # upgraded, and that was all


@pytest.mark.parametrize("limit", [True, False], ids=["timeout", "stop"])
def test_every_start_ends(limit: bool, make_proxy: Any) -> None:
    with ExitStack() as stack:
        silent, deaf, mute = (stack.enter_context(made) for made in (SilentPeer(), DeafPort(), ScriptedPeer(no_answer)))
        proxy = make_proxy(mute.url(PATH))
        proxy.drop()
        urls = {
            "silent": silent.url(PATH), "silent TLS": silent.url(PATH, "wss"), "deaf": deaf.url(PATH),
            "deaf TLS": deaf.url(PATH, "wss"), "mute": mute.url(PATH), "dropped": proxy.url(mute.url(PATH)),
        }
        clients = {name: WebPubSubClient(url, start_timeout=None) for name, url in urls.items()}
        blocked = threading.Event()
        clients["provider"] = WebPubSubClient(lambda: str(blocked.wait(scaled(20))), start_timeout=None)

        timeout = scaled(LIMIT) if limit else None
        run(
            {name: lambda name=name: clients[name].start(timeout) for name in clients},  # type: ignore[misc]
            dict.fromkeys(clients, ConnectTimeout if limit else ClientStopped),
            LIMIT + SLACK,
            nothing if limit else lambda: stop_all(clients, LIMIT),
        )
        blocked.set()
        assert {client.state.value for client in clients.values()} == {"stopped"}
        mute.close(check=False)


def test_a_limit_covers_the_whole_call_and_not_each_wait() -> None:
    """Acknowledgements that are refused again and again: the retries share one limit."""

    def refuses(connection: PeerConnection) -> None:
        connection.send_json({"type": "system", "event": "connected", "connectionId": "c", "userId": None})
        while True:
            command = connection.recv_json()
            if "ackId" in command:
                connection.send_json({"type": "ack", "ackId": command["ackId"], "success": False,
                                      "error": {"name": "InternalServerError", "message": "again"}})

    with ScriptedPeer(refuses) as peer:
        retry = RetryPolicy(total=None, base=0.05, mode="fixed", jitter=False)
        with WebPubSubClient(peer.url(PATH), protocol="json", message_retry=retry) as client:
            for _ in range(10):  # a busy machine may use up the limit before the first answer
                started = time.monotonic()
                # The limit may come while the last answer is on its way.
                with pytest.raises(SendMessageError, match="InternalServerError|no acknowledgement in time"):
                    client.send_to_group("g", "x", timeout=scaled(LIMIT))
                assert time.monotonic() - started < scaled(LIMIT + SLACK)
                if client.stats()["retried"]:
                    break
            assert client.stats()["retried"] >= 1


@pytest.mark.parametrize("timeout", [float("inf"), 1e12])
def test_a_limit_without_end_is_no_limit(timeout: float) -> None:
    # The system's calls refuse numbers that large: OverflowError in the middle of a stop().
    with ScriptedPeer(answers_goodbye) as peer:
        client = WebPubSubClient(peer.url(PATH))
        client.start(timeout)
        with run_thread(client.receive, timeout) as receiving, run_thread(client.flush, timeout) as flushing:
            flushing.result()
            client.stop(timeout)
            assert isinstance(receiving.exception(), ClientStopped)


def test_zero_is_a_look_and_not_a_wait() -> None:
    with ScriptedPeer(accepts) as peer:
        client = WebPubSubClient(peer.url(PATH))
        with pytest.raises(ConnectError):
            client.start(0)
        client.start(scaled(10))
        with pytest.raises(ReceiveTimeout):
            client.receive(0)
        assert list(client.messages(timeout=0)) == []
        client.flush(0)
        with pytest.raises(AckTimeout):
            client.send_to_group("g", "x", timeout=0)
        started = time.monotonic()
        client.stop(0)
        assert time.monotonic() - started < scaled(4)
        assert client.state == "stopped"
        peer.close(check=False)
