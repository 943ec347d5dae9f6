"""P1 and P8 of the service client: what is tried again and when, how a call ends, what its errors say."""

from __future__ import annotations

import email.utils
import pickle
import socket
import threading
import time
from typing import Any, Callable, Iterator, List, Tuple, Type

import pytest

from simplepubsub import RetryPolicy
from simplepubsub import exceptions as errors
from simplepubsub.webpubsub import WebPubSubServiceClient, service_http, service_wire
from simplepubsub.webpubsub.service_errors import retry_after
from tests.helpers import MS, ClosedPort, SilentPeer, run_thread, scaled, self_signed
from tests.scriptedhttp import Exchange, Reply, ScriptedHttp, time_out

KEY = "first-key-0123456789abcdef0123456789"
QUICK = RetryPolicy(total=3, base=0.01, maximum=0.02)


@pytest.fixture
def make() -> Iterator[Callable[..., WebPubSubServiceClient]]:
    """`make(endpoint, **options)`: a client that is closed after the test."""
    made: List[WebPubSubServiceClient] = []

    def build(endpoint: Any, **options: Any) -> WebPubSubServiceClient:
        options.setdefault("retry", QUICK)
        made.append(WebPubSubServiceClient(getattr(endpoint, "endpoint", endpoint), "plaza", KEY, **options))
        return made[-1]

    yield build
    for service in made:
        service.close()


# ---- statuses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_status_of_the_moment_is_tried_again(status: int, make: Any) -> None:
    with ScriptedHttp([status, status, 202]) as peer:
        make(peer).send_to_all({"a": 1})
        assert [request.body for request in peer.requests] == [b'{"a":1}'] * 3
        assert len({request.headers["x-ms-client-request-id"] for request in peer.requests}) == 1


@pytest.mark.parametrize("status, kind, words", [
    (400, errors.ServiceResponseError, "does not accept an argument"),
    (401, errors.ServiceAuthenticationError, "access key belongs to this endpoint"),
    (403, errors.ServiceForbidden, "allowed"), (404, errors.ServiceNotFound, "still exists"),
    (405, errors.ServiceResponseError, "Web PubSub"), (409, errors.ServiceConflict, "state"),
    (413, errors.ServicePayloadTooLarge, "in parts"), (415, errors.ServiceResponseError, ""),
    (500, errors.ServiceUnavailable, "later"), (501, errors.ServiceUnavailable, "implement"),
    (301, errors.ServiceResponseError, "redirects are not followed"),
    (307, errors.ServiceResponseError, "redirects are not followed"), (204, errors.ServiceResponseError, "Web PubSub"),
])
def test_another_status_is_an_error_at_once(status: int, kind: Type[Any], words: str, make: Any) -> None:
    with ScriptedHttp(Reply(status, b"", [("Location", "http://elsewhere.test/")])) as peer:
        with pytest.raises(errors.ServiceResponseError) as caught:
            make(peer).send_to_group("lobby", "x")
        assert type(caught.value) is kind and caught.value.status == caught.value.status_code == status
        assert words in caught.value.hint and "send_to_group: POST http://127" in str(caught.value)
        assert len(peer.requests) == 1


@pytest.mark.parametrize("status, kind", [(429, errors.ServiceThrottled), (503, errors.ServiceUnavailable)])
def test_the_last_answer_is_raised_when_no_retry_is_left(status: int, kind: Type[Any], make: Any) -> None:
    with ScriptedHttp(status) as peer:
        with pytest.raises(kind):
            make(peer).send_to_all(1)
        assert len(peer.requests) == 4
        with pytest.raises(kind):
            make(peer).send_to_all(1, retry_total=1, retry_backoff_factor=0.01)
        assert len(peer.requests) == 6
        assert make(peer, retry=RetryPolicy(total=0)).send_request(Request("GET", "/api/x")).status_code == status


class Request:
    def __init__(self, method: str, url: str) -> None:
        self.method, self.url = method, url


BODY = (b'{"code":"Error.Bad","message":"no such\\nthing","target":"hub","details":[{"code":"d"}],'
        b'"inner":{"code":"deep"}}')

SAID: List[Tuple[Reply, str, str, str]] = [
    (Reply(400, BODY, [("x-ms-request-id", "req-7")]), "Error.Bad", "no such thing", "req-7"),
    (Reply(400, b'{"error":{"code":"E","message":"m"}}'), "E", "m", ""),
    (Reply(400, b"plain words", [("x-ms-error-code", "Header.Code")]), "Header.Code", "plain words", ""),
    (Reply(400, b'"a string"'), "", "a string", ""),
    (Reply(400, b"<html>a gateway's page</html>"), "", "", ""),
    (Reply(400, b"\xff\xfe{"), "", "\ufffd\ufffd{", ""),
    (Reply(400, b"[1]"), "", "", ""), (Reply(400, b"null"), "", "", ""),
    (Reply(400, b'{"code":5,"message":null}'), "5", "", ""), (Reply(400, b"[" * 100000), "", "[" * 500, ""),
]


@pytest.mark.parametrize("reply, code, text, request_id", SAID, ids=range(len(SAID)))
def test_an_error_says_what_the_service_said(reply: Reply, code: str, text: str, request_id: str, make: Any) -> None:
    with ScriptedHttp(reply) as peer:
        with pytest.raises(errors.ServiceResponseError) as caught:
            make(peer).add_user_to_group("lobby", "mina")
        error = caught.value
        own_id = peer.requests[0].headers["x-ms-client-request-id"]
    assert (error.code, error.text, error.request_id) == (code, text, request_id or own_id)
    assert (error.method, error.url) == ("PUT", peer.endpoint + "/api/hubs/plaza/users/mina/groups/lobby")
    assert "\n" not in str(error) and error.request_id in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert vars(copy) == vars(error) and str(copy) == str(error)


# ---- Retry-After ----------------------------------------------------------------------------------------------------


def test_the_wait_that_the_service_asks_for_goes_before_ours(make: Any, monkeypatch: Any) -> None:
    waited: List[float] = []
    monkeypatch.setattr(service_http.Lines, "pause", lambda self, seconds: waited.append(seconds))
    moment = email.utils.formatdate(time.time() + 1000, usegmt=True)
    headers = [[("Retry-After", "3")], [("Retry-After", moment)], [("Retry-After", "soon")], []]
    with ScriptedHttp([Reply(429, b"", h) for h in headers[:3]] + [202]) as peer:
        make(peer).send_to_all(1, timeout=None)
    assert waited[0] == 3 and 900 < waited[1] <= 1000 and waited[2] <= 0.02


@pytest.mark.parametrize("headers, seconds", [
    ({"retry-after": "0"}, 0.0), ({"retry-after": " 1.5 "}, 1.5), ({"retry-after-ms": "250"}, 0.25),
    ({"x-ms-retry-after-ms": "250", "retry-after": "9"}, 0.25), ({"retry-after": "-1"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None), ({"retry-after": ""}, None), ({}, None), ({"retry-after": "\u0663"}, 3.0),
    ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0), ({"retry-after": "Sun, 99 Nov 1994"}, None),
    ({"retry-after": "Sun, 06 Nov 99999999 08:49:37 GMT"}, None), ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
])
def test_reading_retry_after(headers: Any, seconds: Any) -> None:
    assert retry_after(headers) == seconds


def test_no_wait_is_begun_that_would_outlast_the_call(make: Any) -> None:
    with ScriptedHttp(Reply(503, b"", [("Retry-After", "100")])) as peer:
        with pytest.raises(errors.ServiceUnavailable) as caught:
            make(peer).send_to_all(1, timeout=scaled(5))
        assert caught.value.retry_after == 100 and len(peer.requests) == 1


# ---- connections that fail ------------------------------------------------------------------------------------------


def test_a_port_where_nobody_listens(make: Any) -> None:
    with ClosedPort() as port:
        service = make("http://127.0.0.1:%d" % port.port)
        with pytest.raises(errors.ServiceConnectionError, match="connecting.*refused.*running") as caught:
            service.send_to_all(1)
    assert caught.value.written is False and not isinstance(caught.value, TimeoutError)


def test_a_name_that_does_not_exist(make: Any, monkeypatch: Any) -> None:
    def resolve(host: str, *args: Any, **keywords: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(service_wire.socket, "getaddrinfo", resolve)
    with pytest.raises(errors.ServiceConnectionError, match=r"\(DNS\)"):
        make("https://nowhere.example.test").send_to_all(1)


def test_a_resolver_that_does_not_answer_holds_no_call(make: Any, monkeypatch: Any) -> None:
    real, release = socket.getaddrinfo, threading.Event()

    def resolve(host: str, *args: Any, **keywords: Any) -> Any:
        if keywords.get("flags"):
            return real(host, *args, **keywords)
        release.wait(30)
        raise socket.gaierror(-3, "Temporary failure")

    monkeypatch.setattr(service_wire.socket, "getaddrinfo", resolve)
    service = make("http://slow.example.test")
    try:
        start = time.monotonic()
        with pytest.raises(errors.ServiceTimeout, match="resolving"):
            service.send_to_all(1, timeout=100 * MS)
        with run_thread(service.send_to_all, 1, timeout=None, connect_timeout=None) as blocked:
            service.close()
            assert isinstance(blocked.exception(), (errors.ClientStopped, errors.ClientStateError))
        assert time.monotonic() - start < scaled(5)
    finally:
        release.set()


def test_a_lost_connection_is_tried_again_where_that_is_harmless(make: Any) -> None:
    with ScriptedHttp([Exchange.reset, Exchange.reset, 200]) as peer:
        make(peer).add_connection_to_group("lobby", "c1")
        assert len(peer.requests) == 3


def test_a_message_whose_answer_is_lost_is_not_sent_again(make: Any) -> None:
    with ScriptedHttp([Exchange.reset, 202, Exchange.reset, 202]) as peer:
        service = make(peer)
        with pytest.raises(errors.ServiceConnectionError, match="may have been carried out") as caught:
            service.send_to_all(1)
        assert caught.value.written is True and len(peer.requests) == 1
        service.send_to_all(1)
        service.send_to_all(1, repeat_sends=True)
        assert len(peer.requests) == 4


def test_a_message_is_sent_on_a_new_connection_when_the_kept_one_was_closed_meanwhile(make: Any) -> None:
    with ScriptedHttp(202) as peer:
        service = make(peer)
        service.send_to_all(1)
        for line in service._pipeline._lines.get()._idle:
            kept = line._socks[-1]
        peer.drop_connections()
        kept.settimeout(scaled(5))
        assert kept.recv(1, socket.MSG_PEEK) == b""
        service.send_to_all(2)
        assert [(request.body, request.connection) for request in peer.requests] == [(b"1", 0), (b"2", 1)]


def test_an_answer_that_is_cut_short_is_a_lost_connection(make: Any) -> None:
    def half(exchange: Exchange) -> None:
        exchange.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

    with ScriptedHttp(half) as peer:
        with pytest.raises(errors.ServiceConnectionError, match="reading the answer"):
            list(make(peer).list_connections("lobby"))
        assert len(peer.requests) == 4


def test_an_answer_that_is_no_http(make: Any) -> None:
    with ScriptedHttp(lambda exchange: exchange.sock.sendall(b"SSH-2.0-nonsense\r\n")) as peer:
        with pytest.raises(errors.ServiceConnectionError):
            make(peer).send_to_all(1)


def test_an_answer_without_end_is_refused(make: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(service_wire, "MAX_ANSWER_BYTES", 1000)
    with ScriptedHttp(Reply(200, b"x" * 200000)) as peer:
        with pytest.raises(errors.RemoteProtocolError, match="1000 bytes"):
            list(make(peer).list_connections("lobby"))


def test_tls_with_a_certificate_of_an_unknown_authority(make: Any, tmp_path: Any) -> None:
    certificate = self_signed(tmp_path, "127.0.0.1")
    with ScriptedHttp(200, tls=certificate.server_context) as peer:
        with pytest.raises(errors.ServiceConnectionError, match="TLS.*verify=") as caught:
            make(peer, retry=RetryPolicy(total=0)).get_service_status()
        assert caught.value.written is False
        assert make(peer, verify=str(certificate.ca_file)).get_service_status()
        assert make(peer, ssl=certificate.client_context).get_service_status()
        assert make(peer, connection_verify=str(certificate.ca_file)).get_service_status()
        with pytest.warns(Warning, match="certificate verification"):
            assert make(peer, verify=False).get_service_status()


def test_tls_to_a_port_without_it(make: Any) -> None:
    with ScriptedHttp(200) as peer:
        with pytest.raises(errors.ServiceConnectionError, match="TLS"):
            make(peer.endpoint.replace("http:", "https:"), retry=RetryPolicy(total=0)).get_service_status()


# ---- time -----------------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n"

SLOW: List[Tuple[str, Callable[[Exchange], None]]] = [
    ("silence", Exchange.hang),
    ("a head byte by byte", lambda exchange: exchange.drip(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 3000, 20 * MS)),
    ("a body byte by byte", lambda exchange: exchange.drip(HEAD + b"z" * 4000, 20 * MS)),
    ("chunks byte by byte", lambda exchange: exchange.drip(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 3000, 20 * MS)),
    ("1xx for ever", lambda exchange: exchange.drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 3000, 1 * MS)),
]


@pytest.mark.parametrize("script", [row[1] for row in SLOW], ids=[row[0] for row in SLOW])
def test_a_peer_that_takes_its_time_gets_no_more_than_the_call_has(script: Any, make: Any) -> None:
    with ScriptedHttp(script) as peer:
        service = make(peer)
        error = time_out(lambda timeout: next(service.list_connections("lobby", timeout=timeout)),
                         lambda error: error.written)
        assert isinstance(error, TimeoutError)


def test_silence_ends_a_try_and_not_the_call(make: Any) -> None:
    with ScriptedHttp([Exchange.hang, 200]) as peer:
        # More tries than needed: on a busy machine an answer may take as long as the silence.
        service = make(peer, retry=RetryPolicy(total=20, base=0.01, maximum=0.02))
        assert service.connection_exists("c1", read_timeout=100 * MS) is True
        assert len(peer.requests) >= 2


def test_a_slow_answer_is_no_silence(make: Any) -> None:
    body = b'{"value":[]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)

    def slowly(exchange: Exchange) -> None:
        exchange.sock.sendall(head)
        exchange.drip(body, 30 * MS)

    with ScriptedHttp(slowly) as peer:
        # Each try takes longer than that; a busy machine may make a real silence of one or the other.
        service = make(peer, retry=RetryPolicy(total=20, base=0.01, maximum=0.02))
        assert list(service.list_connections("lobby", read_timeout=250 * MS, timeout=None)) == []


def test_a_peer_that_reads_nothing(make: Any) -> None:
    with SilentPeer() as peer:
        with pytest.raises(errors.ServiceTimeout, match="no answer in time"):
            make("http://127.0.0.1:%d" % peer.port).send_to_all(b"x" * 2**20, timeout=200 * MS)


def test_a_tls_handshake_without_answer(make: Any) -> None:
    with SilentPeer() as peer:
        service = make("https://127.0.0.1:%d" % peer.port)
        time_out(lambda timeout: service.send_to_all(1, connect_timeout=timeout, retry_total=0),
                 lambda error: "TLS handshake" in str(error))


def test_waits_between_tries_count(make: Any) -> None:
    with ScriptedHttp(503) as peer:
        service = make(peer, retry=RetryPolicy(total=None, base=0.01, maximum=0.05))
        for timeout in (300 * MS, scaled(2), scaled(10)):  # more than the first on a busy machine only
            before, start = len(peer.requests), time.monotonic()
            with pytest.raises((errors.ServiceUnavailable, errors.ServiceTimeout)):
                service.send_to_all(1, timeout=timeout)
            assert time.monotonic() - start < timeout + scaled(8)
            if len(peer.requests) - before > 2:
                return
        raise AssertionError("%d requests" % len(peer.requests))


# ---- the end of a client --------------------------------------------------------------------------------------------


def stuck(where: str) -> Any:
    return {"waiting": Exchange.hang,
            "reading": lambda exchange: exchange.drip(HEAD + b"z" * 4000, 20 * MS),
            "pausing": Reply(503, b"", [("Retry-After", "30")])}[where]


@pytest.mark.parametrize("where", ["waiting", "reading", "pausing"])
def test_close_wakes_a_call_in_progress(where: str, make: Any) -> None:
    with ScriptedHttp(stuck(where)) as peer:
        service = make(peer)
        with run_thread(lambda: list(service.list_connections("lobby", timeout=None, read_timeout=None))) as blocked:
            peer.wait_requests(1)
            service.close()
            assert isinstance(blocked.exception(scaled(5)), errors.ClientStopped)


def test_close_wakes_a_tls_handshake(make: Any) -> None:
    with SilentPeer() as peer:
        service = make("https://127.0.0.1:%d" % peer.port)
        with run_thread(service.send_to_all, 1, timeout=None, connect_timeout=None) as blocked:
            peer.wait_accepted(1)
            service.close()
            assert isinstance(blocked.exception(scaled(5)), errors.ClientStopped)


def test_a_closed_client_says_so(make: Any) -> None:
    with ScriptedHttp(202) as peer:
        service = make(peer)
        with service:
            service.send_to_all(1)
        service.close()
        with pytest.raises(errors.ClientStateError, match="closed"):
            service.send_to_all(1)
        assert service.get_client_access_token()["token"]
