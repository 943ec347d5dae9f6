"""P6: no token and no key in logs, reprs, exceptions, traces and notebooks, whatever goes wrong."""

from __future__ import annotations

import contextlib
import logging
import socket
import traceback
from typing import Any, Callable, Iterator, List

import pytest

from simplepubsub.core import logs
from simplepubsub.exceptions import ConnectError, InvalidArgument, SimplePubSubError
from simplepubsub.webpubsub import WebPubSubClient, WebPubSubClientCredential
from tests.helpers import ClosedPort, PeerConnection, Recorder, ScriptedPeer, scaled, self_signed, wait_until

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtaW5hIn0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
OPAQUE = "0paque-t0ken-with-n0-shape"
RECONNECTION = "rec0nnection-t0ken-of-the-service"
KEY = "bXktYWNjZXNzLWtleS13aGljaC1pcy12ZXJ5LXNlY3JldA=="
SECRETS = (JWT, "c2lnbmF0dXJlLW9mLXRoZS10b2tlbg", OPAQUE, RECONNECTION, KEY)


class Everything(logging.Handler):
    """All that any logger says, at every level, as a formatter would write it."""

    def __init__(self) -> None:
        super().__init__(level=0)
        self.lines: List[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def forget_stderr() -> None:
    """Take away the handler that `logger=True` made: it writes to the stderr of an earlier test."""
    if logs._handler is not None:
        logging.getLogger("simplepubsub").removeHandler(logs._handler)
        logs._handler = None


@contextlib.contextmanager
def listening(handler: Everything, *names: str) -> Iterator[None]:
    """Give ``handler`` all that the root logger and those of these names say, at every level, while the block runs."""
    forget_stderr()
    root = logging.getLogger()
    loggers = [root] + [logging.getLogger(name) for name in names]
    before = [(logger.level, logger.propagate) for logger in loggers]
    root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.propagate = True
    yield
    forget_stderr()
    root.removeHandler(handler)
    for logger, (level, propagate) in zip(loggers, before):
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture
def said(capsys: Any) -> Iterator[Callable[[], str]]:
    """A function that returns everything that was logged, printed, or shown of a client so far."""
    handler = Everything()

    def everything() -> str:
        printed = capsys.readouterr()
        return "\n".join(handler.lines) + printed.out + printed.err

    with listening(handler, "simplepubsub", "simplepubsub.wire", "websocket"):
        yield everything


def clean(text: str) -> None:
    """Check that a text contains no secret, nor half of one."""
    for secret in SECRETS:
        for piece in (secret, secret[: len(secret) // 2], secret[len(secret) // 2 :]):
            assert piece not in text, "%r shows in %s" % (piece, text)


def shown(error: BaseException) -> str:
    """All that a program may show of an exception, its causes included."""
    parts = traceback.format_exception(type(error), error, error.__traceback__)
    current: Any = error
    while current is not None:
        parts += [str(current), repr(current), repr(current.args)]
        parts += ["%s=%r" % item for item in vars(current).items()]
        current = current.__cause__
    return "\n".join(parts)


def query(token: str) -> str:
    return "/client/hubs/hub?access_token=" + token


def check_start(client: Any, said: Callable[[], str]) -> Any:
    with pytest.raises(ConnectError) as caught:
        client.start(timeout=scaled(5))
    clean(shown(caught.value))
    clean(repr(client) + client._repr_html_() + repr(vars(client)) + repr(client._credential))
    clean(said())
    return caught.value


@pytest.mark.parametrize("token", [JWT, OPAQUE])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_a_refusal_that_echoes_everything(status: int, token: str, said: Any) -> None:
    body = "GET %s HTTP/1.1 / Authorization: Bearer %s / bare: %s" % (query(token), token, token)
    with ScriptedPeer(status=status, body=body.encode(), headers=[("X-Echo", token)]) as peer:
        error = check_start(WebPubSubClient(peer.url(query(token)), logger=False), said)
    assert error.status == status
    assert "bare" in error.body


@pytest.mark.parametrize("token", [JWT, OPAQUE])
def test_failures_of_every_other_kind(token: str, said: Any, tmp_path: Any, monkeypatch: Any) -> None:
    certificate = self_signed(tmp_path)
    resolve = socket.getaddrinfo

    def without_network(host: Any, *args: Any, **options: Any) -> Any:
        if "no-such-host" in host:  # at once: a resolver that does not answer holds its thread for long
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", without_network)
    with ClosedPort() as closed:
        check_start(WebPubSubClient(closed.url(query(token))), said)
        check_start(WebPubSubClient(closed.url(query(token)), proxy="http://mina:%s@127.0.0.1:%d" % (KEY, closed.port)),
                    said)
    check_start(WebPubSubClient("ws://no-such-host.invalid" + query(token)), said)
    check_start(WebPubSubClient("ws://mina:%s@no-such-host.invalid%s" % (OPAQUE, query(token))), said)
    with ScriptedPeer(ssl_context=certificate.server_context) as peer:
        check_start(WebPubSubClient(peer.url(query(token))), said)
    with ScriptedPeer(subprotocol=None) as peer:
        check_start(WebPubSubClient(peer.url(query(token))), said)
    with ScriptedPeer(handshake=lambda request, answer: b"What is %s?\r\n\r\n" % token.encode()) as peer:
        check_start(WebPubSubClient(peer.url(query(token))), said)
    with ScriptedPeer(status=302, headers=[("Location", "ftp://x/?access_token=" + token)]) as peer:
        check_start(WebPubSubClient(peer.url(query(token))), said)


@pytest.mark.parametrize("answer", ["ws:///client/hubs/hub?access_token=" + JWT, "http://h/?access_token=" + OPAQUE,
                                    "ws://h:port/client/hubs/hub?access_token=" + JWT, JWT,
                                    "Endpoint=https://h;AccessKey=%s;Version=1.0;" % KEY])
def test_a_provider_that_returns_rubbish(answer: str, said: Any) -> None:
    check_start(WebPubSubClient(lambda: answer), said)


def test_a_provider_that_raises_with_a_secret(said: Any) -> None:
    def provider() -> str:
        raise RuntimeError("GET https://h/negotiate?access_token=%s failed" % JWT)

    with pytest.raises(ConnectError) as caught:
        WebPubSubClient(provider).start(timeout=scaled(5))
    clean(str(caught.value) + repr(caught.value))  # the cause is the user's own
    clean(said())


@pytest.mark.parametrize("credential", [
    "Endpoint=https://h;AccessKey=%s;Version=1.0;" % KEY, JWT, KEY, "http://h/client/hubs/hub?access_token=" + JWT,
    "ws://h/client?access_token=" + OPAQUE, "ws://[/client/hubs/hub?access_token=" + JWT,
    "https://h;AccessKey=" + KEY,
])
def test_a_credential_of_the_wrong_kind(credential: str, said: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        WebPubSubClient(credential)
    clean(shown(caught.value).replace("test_p6_secrets", ""))
    clean(said())


def talk(connection: PeerConnection) -> None:
    """A service that speaks of its reconnection token, and of whatever it is told."""
    if "awps_connection_id" not in connection.request.target:
        connection.send_json({"type": "system", "event": "connected", "connectionId": "c", "userId": "mina",
                              "reconnectionToken": RECONNECTION})
    while True:
        command = connection.recv_json()
        if command["type"] == "ping":
            connection.send_json({"type": "pong"})
        elif "ackId" in command:
            connection.send_json({"type": "ack", "ackId": command["ackId"], "success": command.get("data") != "refuse",
                                  "error": {"name": "Forbidden", "message": "access_token=" + JWT}})
        if command.get("data") == "cut":
            connection.reset()
        if command.get("data") == "close":
            connection.close(1008, "no such session: reconnectionToken=" + RECONNECTION)


@pytest.mark.parametrize("verbose", [True, False])
def test_a_life_with_recoveries_and_traces(said: Any, verbose: bool) -> None:
    with ScriptedPeer(talk) as peer:
        client = WebPubSubClient(peer.url(query(OPAQUE)), logger=verbose)
        events = Recorder().attach(client, "connected", "recovered", "disconnected")
        with client:
            client.join_group("g")
            client.send_to_group("g", "cut")
            events.wait_event("recovered")
            assert RECONNECTION in peer.wait_requests(2)[1].target  # it is used, and
            clean(repr(client) + client._repr_html_() + repr(client.stats()))
            with pytest.raises(SimplePubSubError) as caught:
                client.send_to_group("g", "refuse")
            clean(repr(caught.value).replace(JWT, ""))  # the service's own words are handed over as they are
            client.send_to_group_nowait("g", "close")
            told = events.wait_event("disconnected")
            wait_until(client.is_connected)
            assert told.code == 1008
        text = said()
    clean(text)
    assert "recovering" in text
    assert "joinGroup" in text  # the trace was on


def test_the_trace_goes_to_standard_error_and_masks(said: Any) -> None:
    with ScriptedPeer(talk) as peer:
        with WebPubSubClient(peer.url(query(JWT)), logger=True) as client:
            client.send_to_group("g", {"access_token": JWT, "text": "visible"})
        text = said()
    assert "visible" in text
    assert "***" in text
    clean(text)


def test_errors_of_the_dial_name_the_place_all_the_same(said: Any) -> None:
    with ClosedPort() as closed:
        error = check_start(WebPubSubClient(WebPubSubClientCredential(closed.url(query(JWT)))), said)
    assert "ws://127.0.0.1:%d/client/hubs/hub" % closed.port in str(error)
    assert error.url == "ws://127.0.0.1:%d/client/hubs/hub" % closed.port
