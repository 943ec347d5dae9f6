"""Who the service client is, what it shows of that, threads and forks."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import pickle
import ssl
import threading
import time
import traceback
from typing import Any, Iterator, List, NamedTuple

import jwt
import pytest

from simplepubsub import RetryPolicy
from simplepubsub import exceptions as errors
from simplepubsub.exceptions import InvalidArgument
from simplepubsub.webpubsub import AzureKeyCredential, WebPubSubServiceClient
from simplepubsub.webpubsub.service_options import make_context
from tests.helpers import ClosedPort, run_python, run_thread, scaled, self_signed, subprocess_python
from tests.scriptedhttp import Exchange, Reply, ScriptedHttp

KEY = "first-key-0123456789abcdef0123456789"
TOKEN = "opaque-token-of-an-identity-0123456789"
NONE = RetryPolicy(total=0)


class AccessToken(NamedTuple):
    token: str
    expires_on: int


class Identity:
    """A token credential as azure-identity has them."""

    def __init__(self, lifetime: float = 3600, token: Any = TOKEN) -> None:
        self.lifetime = lifetime
        self.token = token
        self.asked: List[Any] = []
        self.fail: Any = None
        self.gate = threading.Event()
        self.gate.set()

    def get_token(self, *scopes: str, **_keywords: Any) -> AccessToken:
        self.asked.append(scopes)
        assert self.gate.wait(20)
        if self.fail is not None:
            raise self.fail
        return AccessToken(self.token, int(time.time() + self.lifetime))


@contextlib.contextmanager
def pair(script: Any, credential: Any, **options: Any) -> Iterator[Any]:
    with ScriptedHttp(script) as peer:
        options.setdefault("retry", NONE)
        with WebPubSubServiceClient(peer.endpoint, "plaza", credential, **options) as service:
            yield peer, service


# ---- access keys ----------------------------------------------------------------------------------------------------


def test_a_key_may_be_replaced_while_the_client_is_in_use() -> None:
    credential = AzureKeyCredential(KEY)
    with pair(200, credential) as (peer, service):
        service.get_service_status()
        credential.update("second" + KEY)
        service.get_service_status()
        for request, key in zip(peer.requests, (KEY, "second" + KEY)):
            jwt.decode(request.headers["authorization"][7:], key, algorithms=["HS256"],
                       audience=peer.endpoint + request.target)
    assert KEY not in repr(credential)
    with pytest.raises(InvalidArgument):
        credential.update("")


def test_each_attempt_is_signed_anew() -> None:
    with pair([503, 200], KEY, retry=RetryPolicy(total=1, base=0.0)) as (peer, service):
        service.get_service_status()
        claims = [jwt.decode(request.headers["authorization"][7:], options={"verify_signature": False})
                  for request in peer.requests]
    assert len(claims) == 2 and all(200 < claim["exp"] - time.time() <= 300 for claim in claims)


# ---- token credentials ----------------------------------------------------------------------------------------------


def test_a_token_is_kept_until_shortly_before_it_ends() -> None:
    identity = Identity()
    with pair(200, identity) as (peer, service):
        for _ in range(3):
            service.get_service_status()
        assert identity.asked == [("https://webpubsub.azure.com/.default",)]
        assert peer.requests[2].headers["authorization"] == "Bearer " + TOKEN
    identity = Identity(lifetime=0.0)
    with pair(200, identity) as (peer, service):
        service.get_service_status()
        service.get_service_status()
        assert len(identity.asked) == 2


def test_threads_wait_for_the_one_that_asks() -> None:
    identity = Identity()
    identity.gate.clear()
    with pair(200, identity) as (peer, service), contextlib.ExitStack() as stack:
        calls = [stack.enter_context(run_thread(service.get_service_status)) for _ in range(5)]
        with pytest.raises(errors.ServiceTimeout, match="token"):
            # Somebody asks by now, or this call itself would: then it would not end.
            while not identity.asked:
                assert all(call.running for call in calls)
            service.get_service_status(timeout=scaled(0.05))
        identity.gate.set()
        assert [call.result(10) for call in calls] == [True] * 5
    assert len(identity.asked) == 1


def test_what_a_credential_raises_is_raised_and_not_remembered() -> None:
    identity = Identity()
    identity.fail = KeyError("no identity here")
    with pair(200, identity) as (peer, service):
        for _ in range(2):
            with pytest.raises(KeyError, match="no identity here"):
                service.get_service_status()
        identity.fail = None
        assert service.get_service_status()
    assert len(identity.asked) == 3


def test_a_token_that_was_refused_is_asked_for_again() -> None:
    identity = Identity()
    with pair([401, 200], identity) as (peer, service):
        with pytest.raises(errors.ServiceAuthenticationError, match="Service Owner"):
            service.get_service_status()
        assert service.get_service_status()
    assert len(identity.asked) == 2


@pytest.mark.parametrize("token", [None, "", 5, "a b", "a\r\nX: y"], ids=repr)
def test_a_credential_that_returns_no_token(token: Any) -> None:
    with pair(200, Identity(token=token)) as (peer, service):
        with pytest.raises(InvalidArgument, match="get_token"):
            service.get_service_status()


def test_a_token_does_not_travel_in_the_clear_to_other_machines() -> None:
    with pytest.raises(InvalidArgument, match="https"):
        WebPubSubServiceClient("http://demo.example.test", "plaza", Identity())
    WebPubSubServiceClient("http://demo.example.test", "plaza", Identity(), enforce_https=False).close()
    WebPubSubServiceClient("https://demo.example.test", "plaza", Identity()).close()


def test_the_service_makes_the_tokens_of_clients_when_we_have_no_key() -> None:
    with pair(Reply(200, b'{"token":"made-there"}'), Identity()) as (peer, service):
        made = service.get_client_access_token(user_id="mina", roles=["r1", "r2"], groups=["g"], minutes_to_expire=0.2,
                                               client_protocol="mqtt")
        base = "ws" + peer.endpoint[4:] + "/clients/mqtt/hubs/plaza"
        assert made == {"baseUrl": base, "token": "made-there", "url": base + "?access_token=made-there"}
        request = peer.requests[0]
        assert (request.method, request.path) == ("POST", "/api/hubs/plaza/:generateToken")
        assert request.query == [("userId", "mina"), ("role", "r1"), ("role", "r2"), ("minutesToExpire", "1"),
                                 ("group", "g"), ("clientType", "mqtt"), ("api-version", "2024-12-01")]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"token":5}', b'{"token":""}'])
def test_an_answer_without_a_token(body: bytes) -> None:
    with pair(Reply(200, body), Identity()) as (peer, service):
        with pytest.raises(errors.RemoteProtocolError, match="get_client_access_token"):
            service.get_client_access_token()


# ---- secrets --------------------------------------------------------------------------------------------------------

PASSWORD = "pr0xy-passw0rd"


def shown(error: BaseException) -> str:
    """All that a program may show of an exception, its causes and its pickle included."""
    parts = traceback.format_exception(type(error), error, error.__traceback__)
    current: Any = error
    while current is not None:
        parts += [str(current), repr(current.args), repr(vars(current))]
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "".join(parts) + repr(pickle.dumps(error))


@pytest.fixture
def said(caplog: Any) -> Any:
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.mark.parametrize("credential, secret", [(KEY, KEY), (Identity(), TOKEN)], ids=["key", "identity"])
def test_no_secret_shows_anywhere(credential: Any, secret: str, said: Any) -> None:
    def echo(exchange: Exchange) -> Reply:
        given = exchange.request.headers["authorization"]
        body = json.dumps({"code": given[7:], "message": "bad token %s of %s" % (given, secret), "target": given,
                           "details": [{"message": given}]})
        return Reply(400, body.encode(), [("x-ms-request-id", given[7:]), ("X-Odd", given), ("Set-Cookie", given)])

    with pair([echo, Reply(200, b'{"token":"%s"}' % TOKEN.encode()), Exchange.reset], credential,
              logging_enable=True, headers={"X-Api-Key": PASSWORD}) as (peer, service):
        texts = [repr(service), repr(service._options._replace(headers={})), repr(service._pipeline.signer)]
        with pytest.raises(errors.ServiceResponseError) as refused:
            service.send_to_all({"token": TOKEN}, params={"code": PASSWORD})
        service.send_request(Ask("GET", "/api/x"))
        with pytest.raises(errors.ServiceConnectionError) as lost:
            service.send_to_all("x")
        tokens = [request.headers["authorization"][7:] for request in peer.requests]
    texts += [shown(refused.value), shown(lost.value)]
    texts += [record.getMessage() for record in said.records if record.name == "simplepubsub.service"]
    assert len(texts) > 9
    for token in tokens + [secret, PASSWORD, TOKEN]:
        for text in texts:
            assert token not in text and token.rpartition(".")[2] not in text


class Ask:
    def __init__(self, method: str, url: str) -> None:
        self.method, self.url = method, url


def test_the_password_of_a_proxy_does_not_show(said: Any) -> None:
    with ClosedPort() as port:
        proxy = "http://user:%s@127.0.0.1:%d" % (PASSWORD, port.port)
        for endpoint in ("http://demo.example.test", "https://demo.example.test"):
            options = {"proxies": proxy, "retry": NONE, "logging_enable": True}
            with WebPubSubServiceClient(endpoint, "plaza", KEY, **options) as service:
                with pytest.raises(errors.ServiceConnectionError, match="proxy") as caught:
                    service.send_to_all(1)
            assert PASSWORD not in shown(caught.value)
    assert PASSWORD not in said.text


def test_what_logging_enable_shows(said: Any) -> None:
    answer = Reply(202, b"", [("x-ms-request-id", "r-1"), ("X-Secret", "hidden")])
    with pair(answer, KEY) as (peer, service):
        service.send_to_all("x")
        assert [record for record in said.records if record.name == "simplepubsub.service"] == []
        service.send_to_group("lobby", {"text": "hello"}, logging_enable=True, excluded=["c\n1"], params={"p": "q"})
        service.send_to_all(b"\0" * 50, logging_enable=True)
    sent, got, binary, _ = [record.getMessage() for record in said.records if record.name == "simplepubsub.service"]
    assert sent.startswith("request POST %s/api/hubs/plaza/groups/lobby/:send?excluded=c\\n1&p=***&api-version=2024"
                           % peer.endpoint)
    assert "Authorization: ***" in sent and "Content-Type: application/json" in sent
    assert sent.endswith("16 bytes: '{\"text\":\"hello\"}'")
    assert got.startswith("answer 202 to POST %s" % peer.endpoint) and " ms; " in got and got.endswith("; no body")
    assert "x-ms-request-id: r-1" in got and "X-Secret: ***" in got
    assert binary.endswith("50 bytes of application/octet-stream")


def test_a_retry_is_always_logged(said: Any) -> None:
    with pair([503, 202], KEY, retry=RetryPolicy(total=1, base=0.0)) as (peer, service):
        service.send_to_all("x")
    record, = [record for record in said.records if record.name == "simplepubsub.service"]
    assert record.levelno == logging.INFO and "answered 503" in record.getMessage()


# ---- the environment ------------------------------------------------------------------------------------------------


def test_proxies_come_from_the_environment_unless_told_otherwise(monkeypatch: Any) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ScriptedHttp(200) as proxy:
        monkeypatch.setenv("http_proxy", proxy.endpoint)
        url = "http://demo.example.test:8080"
        with WebPubSubServiceClient(url, "plaza", KEY, retry=NONE) as service:
            assert service.get_service_status()
        assert proxy.requests[0].target.startswith(url + "/api/health")
        with pair(200, KEY, proxies=False) as (peer, direct):
            assert direct.get_service_status() and len(peer.requests) == 1
        user = proxy.endpoint.replace("://", "://me:%s@" % PASSWORD)
        for proxies in (user, {"http": user}):
            with WebPubSubServiceClient(url, "plaza", KEY, retry=NONE, proxies=proxies) as service:
                assert service.get_service_status()
            assert proxy.requests[-1].headers["proxy-authorization"].startswith("Basic ")


def test_a_password_in_netrc_does_not_replace_the_token(monkeypatch: Any, tmp_path: Any) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pair(200, KEY) as (peer, service):
        service.get_service_status()
        assert peer.requests[0].headers["authorization"].startswith("Bearer ")


def test_cookies_are_not_kept() -> None:
    with pair(Reply(200, b"", [("Set-Cookie", "session=1; Path=/")]), KEY) as (peer, service):
        service.get_service_status()
        service.get_service_status()
        assert [request.headers.get("cookie") for request in peer.requests] == [None, None]


# ---- threads and forks ----------------------------------------------------------------------------------------------


def test_threads_share_a_client_and_nothing_of_each_other(switch_interval: Any) -> None:
    def echo(exchange: Exchange) -> Reply:
        return Reply(200, exchange.request.body)

    class Send(Ask):
        def __init__(self, text: str) -> None:
            super().__init__("PUT", "/api/x")
            self.content = text

    with pair(echo, KEY) as (peer, service):
        def work(number: int) -> List[str]:
            wanted = ["%d-%d" % (number, index) for index in range(25)]
            return [text for text in wanted if service.send_request(Send(text)).text() != text]

        with contextlib.ExitStack() as stack:
            threads = [stack.enter_context(run_thread(work, number)) for number in range(12)]
            assert [thread.result(30) for thread in threads] == [[]] * 12
        assert len(peer.requests) == 300 and peer.connections <= 200
        lines = service._pipeline._lines.get()
        assert len(lines._idle) <= 8 and not lines._busy
        before = peer.connections
        for _ in range(10):
            service.get_service_status()
        assert peer.connections == before  # one thread goes on with one connection


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_works_on_with_connections_of_its_own() -> None:
    output = run_python(FORK).stdout
    assert output.split() == ["inherited", "closed", "child", "True", "parent", "True", "connections", "2"]


FORK = """
import os
from simplepubsub.webpubsub import WebPubSubServiceClient
from tests.scriptedhttp import ScriptedHttp

with ScriptedHttp(200) as peer:
    service = WebPubSubServiceClient(peer.endpoint, "plaza", "k" * 40)
    service.get_service_status()
    pool = service._pipeline._lines.get()
    pool._lock.acquire()  # a fork may happen while another thread holds it
    descriptor = pool._idle[0]._socks[-1].fileno()
    pid = os.fork()
    if not pid:
        inode = os.fstat(descriptor).st_ino
        alive = service.get_service_status(timeout=10)
        try:
            kept = os.fstat(descriptor).st_ino == inode
        except OSError:
            kept = False
        print("inherited", "kept" if kept else "closed", "child", alive, flush=True)
        os._exit(0)
    pool._lock.release()
    os.waitpid(pid, 0)
    print("parent", service.get_service_status(), "connections", peer.connections, flush=True)
    service.close()
"""


def test_ctrl_c_ends_a_call_and_leaves_the_client_usable() -> None:
    with subprocess_python(INTERRUPTED) as child:
        child.wait_line("waiting")
        child.interrupt()
        result = child.wait(20)
    assert result.stdout.split() == ["waiting", "interrupted", "True"], result.stderr


INTERRUPTED = """
from simplepubsub.webpubsub import WebPubSubServiceClient
from tests.scriptedhttp import Exchange, ScriptedHttp

def hang(exchange):
    print("waiting", flush=True)
    exchange.hang()

with ScriptedHttp([hang, 200]) as peer:
    with WebPubSubServiceClient(peer.endpoint, "plaza", "k" * 40) as service:
        try:
            service.get_service_status(timeout=None, read_timeout=None)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(service.get_service_status(), flush=True)
"""


def test_a_client_that_is_forgotten_leaves_no_socket() -> None:
    with ScriptedHttp(200) as peer:
        service = WebPubSubServiceClient(peer.endpoint, "plaza", KEY)
        service.get_service_status()
        service.close()
        del service
        gc.collect()


def test_which_authorities_are_trusted(monkeypatch: Any, tmp_path: Any) -> None:
    certificate = self_signed(tmp_path, "127.0.0.1")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    usual = make_context(True, None)
    assert usual is make_context(True, None) and usual.check_hostname and len(usual.get_ca_certs()) > 50
    with_key = make_context(True, (str(certificate.cert_file), str(certificate.key_file)))
    assert with_key is not usual and len(with_key.get_ca_certs()) == len(usual.get_ca_certs())
    monkeypatch.setenv("CURL_CA_BUNDLE", str(certificate.ca_file))
    assert len(make_context(True, None).get_ca_certs()) == 1
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    with pytest.raises(InvalidArgument, match="no/such/file"):
        make_context(True, None)
    assert len(make_context(str(certificate.ca_file), None).get_ca_certs()) == 1
    trusting = make_context(False, None)
    assert trusting.verify_mode == ssl.CERT_NONE and not trusting.check_hostname
