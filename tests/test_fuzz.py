"""A short run of the fuzzer, a longer one marked stress, and what it has found so far.

The whole: ``python -m tests.fuzz``, a million inputs. SIMPLEPUBSUB_SEED makes a run here again.
"""

from __future__ import annotations

import gc
import http.client
import io
import logging
import socket
import sys
import time
import warnings
from typing import Any, Callable, Dict, List

import pytest

from simplepubsub.exceptions import InvalidArgument, RefuseConnection, RemoteProtocolError
from simplepubsub.server.filters import compile_filter
from simplepubsub.transports.redact import redact_text
from simplepubsub.webpubsub import EventHandler, odata
from simplepubsub.webpubsub.cloud_events import decode_header_value, encode_header_value
from simplepubsub.webpubsub.connection_string import check_endpoint, parse_connection_string
from simplepubsub.webpubsub.json_codec import decode_service_message
from tests.fuzz import runner
from tests.fuzz.texts import token_of
from tests.rawclient import upgrade_request
from tests.restclient import Rest
from tests.timing import TIME_SCALE, scaled

pytest.importorskip("aiohttp", reason="the doors of the server are among the targets")

NAMES = [target.name for target in runner.targets()]


def feed(name: str, inputs: int, seed: int) -> None:
    """Run a target; what it finds is shown with how to make it again."""
    target = next(target for target in runner.targets() if target.name == name)
    report = runner.run(target, round(inputs * target.share), str(seed), most=3)
    shown = ["--only %s --seed %s --first %d --inputs 1\n%s\n%s" % finding for finding in report.findings]
    assert not shown, "\n\n".join(shown)
    assert report.slowest[0] < runner.SLOW


@pytest.mark.parametrize("name", NAMES)
def test_a_few_inputs(name: str, seed: int) -> None:
    feed(name, 20, seed)


@pytest.mark.stress
@pytest.mark.parametrize("name", NAMES)
def test_many_inputs(name: str, seed: int) -> None:
    feed(name, 1000, seed)


def test_an_input_can_be_made_again() -> None:
    for target in runner.targets():
        target.open()
        try:
            for number in (0, 7):
                made = [repr(target.make(runner.generator("1", target.name, number))) for _ in range(2)]
                assert runner.stable(made[0]) == runner.stable(made[1]), target.name
        finally:
            target.close()


def test_the_command_reports_and_returns(capsys: Any) -> None:
    gc.collect()
    with warnings.catch_warnings():  # it makes errors of them, and that is not meant for what others have left behind
        assert runner.main(["--inputs", "50", "--seed", "5", "--only", "headers,filters"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("seed 5") and "50 inputs, 0 findings" in printed


# --- what it has found: texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["{\u00b2}", "{\u0663}", "{%s}" % ("9" * 5000)])
def test_a_placeholder_with_digits_that_are_no_number(template: str) -> None:
    with pytest.raises(InvalidArgument, match="no value for the placeholder"):
        odata("userId eq " + template, 1)


@pytest.mark.parametrize("text, value", [("0" * 5000, 0), ("-" + "0" * 5000 + "5", -5), ("0" * 5000 + "12", 12)])
def test_an_integer_with_more_zeros_than_int_reads(text: str, value: int) -> None:
    for other, equal in ((value, True), (value + 1, False)):
        assert compile_filter("%s eq %d" % (text, other))(None) is equal


KEY = "bXktYWNjZXNzLWtleS13aGljaC1pcy12ZXJ5LXNlY3JldA=="


@pytest.mark.parametrize("text", [
    "Endpoint=https://h\nAccess Key=" + KEY, "Access Key=%s;endpoint=h" % KEY, "Endpoint=//h AccessKey =" + KEY, KEY,
    "Endpoint=%s;AccessKey=https://h" % KEY, "Endpoint=https://h;AccessKey=k;Port=" + KEY, "https://h;" + KEY,
    "Endpoint=%s;AccessKey=https://h" % KEY.strip("="),
])
def test_a_key_in_the_wrong_place_is_not_shown(text: str) -> None:
    for read in (parse_connection_string, check_endpoint):
        with pytest.raises(InvalidArgument) as caught:
            read(text)
        assert KEY[:12] not in str(caught.value) and KEY[-15:-3] not in str(caught.value), str(caught.value)


@pytest.mark.parametrize("space", ["\x85", "\u00a0", "\u2028", "\u3000"], ids=ascii)
def test_an_endpoint_that_would_end_with_a_space(space: str) -> None:
    for endpoint in ("https://h/a%s/" % space, "https://h/a%sb" % space):
        with pytest.raises(InvalidArgument, match="must look like"):
            check_endpoint(endpoint)
    assert check_endpoint("https://h/a/" + space) == "https://h/a"


@pytest.mark.parametrize("opening, inner, closing", [("[", "", "]"), ('{"a":', "1", "}")], ids=["lists", "objects"])
def test_a_value_that_is_nested_too_deeply_to_be_shown(opening: str, inner: str, closing: str) -> None:
    limit = sys.getrecursionlimit()
    for depth in range(limit - 150, limit):
        text = '{"type":"streamClosed","streamId":%s%s%s}' % (opening * depth, inner, closing * depth)
        with pytest.raises(RemoteProtocolError):
            decode_service_message(text)


def quick(function: Callable[[str], Any], text: str) -> None:
    """Check that a text is read in a time that grows with its length, not with the square of it."""
    started = time.thread_time()
    function(text)
    assert time.thread_time() - started < 1.0 * TIME_SCALE


@pytest.mark.parametrize("function, text", [
    (encode_header_value, "a" + " " * 100_000 + "b"), (decode_header_value, "%41" + " " * 100_000 + "b"),
    (redact_text, "eyJ" * 60_000), (redact_text, "eyJ." * 60_000),
], ids=["encode", "decode", "run", "dots"])
def test_long_texts_take_no_time(function: Callable[[str], Any], text: str) -> None:
    quick(function, text)


@pytest.mark.parametrize("text", ["", " ", "   ", " a", "a ", "  a  b  ", "\u00e9 ", " %"])
def test_blanks_around_a_header_value_survive(text: str) -> None:
    value = encode_header_value(text)
    assert value == value.strip() and decode_header_value(value) == text


@pytest.mark.parametrize("length, status", [("\u00b2", 413), ("9" * 5000, 400), ("0" * 40 + "2", 403), ("\u0663", 413)])
def test_a_content_length_that_int_does_not_read(length: str, status: int) -> None:
    handler = EventHandler(check_signature=False, allowed_origins="nowhere", max_body_bytes=100)
    environ: Dict[str, Any] = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": length}
    environ["wsgi.input"] = io.BytesIO(b"{}" * 200)
    environ["HTTP_WEBHOOK_REQUEST_ORIGIN"] = "nowhere"
    if status == 400:
        environ["wsgi.input"] = io.BytesIO(b"{}")  # it ends before what was announced
    if status == 403:
        environ["HTTP_WEBHOOK_REQUEST_ORIGIN"] = "elsewhere"
    statuses: List[str] = []
    handler.wsgi(environ, lambda line, headers: statuses.append(line))
    assert [int(line[:3]) for line in statuses] == [status]


# --- what it has found: the server ------------------------------------------------------------------------------------


def raw(server: Any, data: bytes) -> bytes:
    """Return what the server answers before it closes."""
    found = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=scaled(10)) as sock:
        sock.sendall(data)
        while True:
            piece = sock.recv(65536)
            found += piece
            if not piece or b"\r\n\r\n" in found and found.split(b"\r\n\r\n", 1)[1]:
                return found


def test_requests_that_are_not_http_leave_no_token_in_the_log(server: Any, caplog: Any) -> None:
    url = server.client_access_url("plaza")
    good = upgrade_request(server, url)
    token = url.partition("access_token=")[2]
    with caplog.at_level(logging.DEBUG):
        for bad in (good.replace(b"GET /", b"GET /\xff", 1), good.replace(b"&" if b"&" in good else b"?", b"?\x01", 1),
                    good.replace(b"Upgrade: websocket", b"Upgr\0ade: websocket"),
                    good.replace(b"GET /", b"GET http://[::1/", 1),
                    b"GET / HTTP/1.1\r\nAuthorization: Bearer " + token.encode() + b"\0\r\n\r\n"):
            assert raw(server, bad)[8:13] == b" 400 "
    assert "not HTTP" in caplog.text and "Traceback" not in caplog.text
    assert token[:20] not in caplog.text and token[-20:] not in caplog.text


def test_the_header_of_a_token_cannot_break_a_line_of_the_log(server: Any, caplog: Any) -> None:
    token = token_of(b'{"alg":"HS256","crit":["a\\r\\nFAKE line\\u001b[31m"],"a\\r\\nFAKE line":1}', b"{}", "any key")
    with caplog.at_level(logging.DEBUG):
        assert Rest(server)("POST", "/:send", b"x", token=token).status == 401
        request = upgrade_request(server, server.endpoint + "/client/hubs/plaza?access_token=" + token)
        assert raw(server, request)[9:12] == b"401"
    assert "\nFAKE" not in caplog.text and "\x1b" not in caplog.text and "\r" not in caplog.text


@pytest.mark.parametrize("path", ["/api/health", "/client/hubs/plaza", "/elsewhere"])
def test_an_expectation_that_is_not_utf8(server: Any, path: str, caplog: Any) -> None:
    head = "GET %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" % path
    assert raw(server, head.encode() + b"Expect: \xff\r\n\r\n").startswith(b"HTTP/1.1 417")
    assert "Traceback" not in caplog.text


def test_a_client_that_waits_before_it_sends_its_body(server: Any) -> None:
    rest = Rest(server)
    path = rest.path("/:send")
    head = ("POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: text/plain\r\n"
            "Content-Length: 2\r\nExpect: 100-Continue\r\n\r\n" % (path, rest.host, rest.token(rest.url(path))))
    with socket.create_connection(("127.0.0.1", server.port), timeout=scaled(10)) as sock:
        sock.sendall(head.encode())
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hi")
        response = http.client.HTTPResponse(sock)
        response.begin()
        assert response.status == 202
        response.close()


def test_a_host_that_is_not_utf8_is_refused_like_any_other(server: Any, caplog: Any) -> None:
    request = upgrade_request(server, server.client_access_url("plaza").replace("plaza", "other", 1))
    answer = raw(server, request.replace(b"Host: 127.0.0.1", b"Host: \xff\x80"))
    assert answer.startswith(b"HTTP/1.1 401") and b"another audience" in answer
    assert "Traceback" not in caplog.text


def test_a_permission_cannot_break_a_line_of_the_log(server: Any, caplog: Any) -> None:
    rest = Rest(server)
    with caplog.at_level(logging.DEBUG):
        answer = rest("PUT", "/permissions/a%0d%0aFAKE%20line/connections/c", query=[("targetName", "g")])
    assert answer.status == 400
    assert "FAKE" in caplog.text and "\nFAKE" not in caplog.text and "\r" not in caplog.text


@pytest.mark.parametrize("names", ["a\u00fcb", "a b", "\u00fc, a/b"])
def test_names_of_subprotocols_that_cannot_be_answered_are_not_offered(server: Any, names: str) -> None:
    offered: List[Any] = []

    @server.on("connect")
    def connect(request: Any) -> Any:
        offered.append(request.subprotocols)
        return {"subprotocol": request.subprotocols[0] if request.subprotocols else None}

    request = upgrade_request(server, server.client_access_url("plaza")).decode()
    request = request.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: %s\r\n\r\n" % names)
    with socket.create_connection(("127.0.0.1", server.port), timeout=scaled(10)) as sock:
        sock.sendall(request.encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 101")
    assert offered == [()]


def test_a_refusal_that_has_no_utf8_form(server: Any, caplog: Any) -> None:
    @server.on("connect")
    def connect(request: Any) -> None:
        raise RefuseConnection(403, "no \ud800 and\r\nFAKE line")

    answer = raw(server, upgrade_request(server, server.client_access_url("plaza")))
    assert answer.startswith(b"HTTP/1.1 403") and answer.endswith(b"no \\ud800 and\r\nFAKE line")
    assert "\nFAKE" not in caplog.text and "Traceback" not in caplog.text
