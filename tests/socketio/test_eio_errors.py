"""Errors of opening a session, typed and without secrets (protocol reference 1.10; cases 7, 19; P6)."""

from __future__ import annotations

import logging
import pickle
import socket
import traceback
from typing import Any, List

import pytest

from simplepubsub.core.deadline import Deadline
from simplepubsub.exceptions import AuthenticationError, ConnectError, ConnectTimeout, HandshakeRejected
from simplepubsub.socketio.http_errors import EngineForbidden, EngineRejected
from tests.helpers import ClosedPort, SilentPeer, scaled, self_signed, wait_until
from tests.socketio.engine import open_session, running
from tests.socketio.rawserver import RawServer, Response

LEGS = pytest.mark.parametrize("leg", ["polling", "websocket"])
TOKEN = "abcdefghijklmnopqrstuvwxyz-token"


@LEGS
@pytest.mark.parametrize("status, body, code, payload, shown", [
    (400, b'{"code":0,"message":"Transport unknown"}', 0, {"code": 0, "message": "Transport unknown"}, "Transport"),
    (400, b'{"code":1,"message":"Session ID unknown"}', 1, {"code": 1, "message": "Session ID unknown"}, "sticky"),
    (403, b'{"code":4,"message":"Forbidden"}', 4, {"code": 4, "message": "Forbidden"}, "Forbidden (code 4)"),
    (400, b'{"code":5,"message":"Unsupported protocol version"}', 5, None, "Unsupported protocol version"),
    (400, b'"Invalid session zzz"', None, "Invalid session zzz", "Invalid session zzz"),
    (401, b'{"why":[1]}', None, {"why": [1]}, '{"why":[1]}'),
    (401, b"null", None, None, "HTTP 401"),
    (400, b"Session ID unknown", None, None, "Session ID unknown"),
    (404, b"nothing here", None, None, "socketio_path"),
    (502, b"<html><h1>Bad Gateway</h1></html>", None, None, "HTTP 502"),
    (500, b"", None, None, "HTTP 500"),
    (413, b"\xff\xfe", None, None, "HTTP 413"),
])
def test_answers_that_open_no_session(
    leg: str, status: int, body: bytes, code: Any, payload: Any, shown: str
) -> None:
    with RawServer(answer=lambda request: Response(status, body)) as server:
        with pytest.raises(EngineRejected) as caught:
            open_session(server.url(), leg)
    error = caught.value
    assert (error.status, error.code) == (status, code)
    assert payload is None or error.payload == payload
    assert shown in str(error) and "<html>" not in str(error)
    assert isinstance(error, HandshakeRejected) and error.url.endswith("/socket.io/")
    assert isinstance(error, AuthenticationError) == (status in (401, 403)) == isinstance(error, EngineForbidden)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.code, copy.payload, str(copy)) == (type(error), code, error.payload, str(error))


@pytest.mark.parametrize("options", [
    {"open_body": b""}, {"open_body": b"<html>hello</html>"}, {"open_body": b"40"}, {"open_body": b"0{}"},
    {"open_body": b"0nonsense"}, {"open_body": b"6"}, {"open_fields": {"sid": None}}, {"open_fields": {"sid": 7}},
    {"open_fields": {"pingInterval": None}}, {"open_fields": {"pingTimeout": "x"}},
])
@LEGS
def test_no_open_packet(leg: str, options: Any) -> None:
    with RawServer(**options) as server:
        with pytest.raises(ConnectError, match="did not open an Engine.IO v4 session") as caught:
            open_session(server.url(), leg)
        assert "secret-sid" not in str(caught.value)


@LEGS
def test_nobody_listens(leg: str) -> None:
    with ClosedPort() as port:
        with pytest.raises(ConnectError, match="refuses connections"):
            open_session(port.url("/").replace("ws:", "http:"), leg)


@LEGS
def test_a_name_that_does_not_exist(leg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # a resolver takes any time, and some know every name
    with pytest.raises(ConnectError, match="cannot be resolved"):
        open_session("http://no-such-host.invalid/", leg)


@LEGS
def test_tls_at_a_port_without(leg: str) -> None:
    with RawServer() as server, pytest.raises(ConnectError):
        open_session(server.url("", "https"), leg)
    server.errors.clear()


@LEGS
def test_plain_text_at_a_tls_port(leg: str, tmp_path: Any) -> None:
    certificate = self_signed(tmp_path)
    with RawServer(ssl_context=certificate.server_context) as server, pytest.raises(ConnectError):
        open_session(server.url("", "http"), leg)


@LEGS
def test_request_timeout(leg: str) -> None:
    with SilentPeer() as peer:
        with pytest.raises(ConnectTimeout) as caught:
            open_session(peer.url("/", "http"), leg, request_timeout=0.1)
        assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("url", [
    "", "127.0.0.1", "ftp://x/", "http://", "http://[/", "http://x:0/", "http://x:y/", "http://x/?sid=1", "//x",
    "http://x/?transport=polling", "http://x/?EIO=3", "http://x/?t=1", "http://x/?b64=1", "http://x/?j=0",
])
def test_bad_urls(url: str) -> None:
    with pytest.raises(ValueError):
        open_session(url)


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"X": 5}, {"X Y\n": "a"}])
def test_bad_headers(headers: Any) -> None:
    with RawServer() as server:
        for leg in ("polling", "websocket"):
            with pytest.raises(ValueError):
                open_session(server.url(), leg, headers=headers)
        assert server.requests == []


# ---- secrets (P6) ---------------------------------------------------------------------------------------------------


@LEGS
def test_secrets_are_not_shown_by_errors(leg: str) -> None:
    def check(error: BaseException) -> None:
        shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        shown += repr(error) + repr(getattr(error, "__dict__", {}))
        assert TOKEN not in shown and "pass-word" not in shown and "hunter-two" not in shown

    body = ('{"code":1,"message":"bad token %s"}' % TOKEN).encode()
    query = "/?access_token=%s&other=%s" % (TOKEN, TOKEN)
    headers = {"Cookie": "x=hunter-two-hunter", "Authorization": "Bearer hunter-two"}
    urls: List[str] = ["http://user:pass-word@no-such-host.invalid" + query]
    with RawServer(answer=lambda request: Response(400, body)) as server, ClosedPort() as port, SilentPeer() as silent:
        urls += [server.url(query).replace("//", "//user:pass-word@"), "http://user:pass-word@127.0.0.1:%d%s"
                 % (port.port, query), "http://127.0.0.1:%d%s" % (silent.port, query), server.url(query, "https")]
        for url in urls:
            with pytest.raises(ConnectError) as caught:
                open_session(url, leg, headers=headers, request_timeout=0.2)
            check(caught.value)
        for url in ("ftp://user:pass-word@x" + query, "http://x:y/" + query, query):
            with pytest.raises(ValueError) as refused:
                open_session(url, leg)
            check(refused.value)


@pytest.mark.parametrize("transports", ["polling", "websocket", None])
def test_secrets_are_not_logged(transports: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with RawServer(set_cookie="sticky=cookie-secret-value") as server:
        with running(server.url("/?access_token=" + TOKEN), transports) as found:
            if transports is None:
                wait_until(lambda: found.session.transport == "websocket")
            found.session.send(["0"])
            server.session.wait_messages(1)
            shown = repr(found.session) + repr(vars(found.session)) + str(found.session.legs)
            found.session.close(Deadline(scaled(5)))
        with running(server.url("/?access_token=" + TOKEN), "polling") as found:
            sid = found.session.sid
            body = '{"code":1,"message":"no session %s"}' % sid
            server.answer = lambda request: Response(400, body.encode()) if request.method == "POST" else None
            found.session.send(["x"])
            _, error = found.wait_closed()
            assert error is not None
            shown += "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert transports == "websocket" or "/socket.io/?***" in caplog.text  # what urllib3 says
    for text in (caplog.text, shown.replace("'sid': '%s'" % server.sessions[0].sid, "")):
        assert TOKEN not in text and "secret-sid" not in text and "cookie-secret" not in text
