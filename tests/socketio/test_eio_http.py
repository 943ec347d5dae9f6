"""The HTTP settings of Engine.IO, the same on both legs (protocol reference 1.12; cases 17, 18, 19, 71)."""

from __future__ import annotations

import base64
import copy
import os
import shutil
import ssl
from typing import Any, Dict, List

import pytest
import requests
from requests.adapters import HTTPAdapter

from simplepubsub.core.deadline import Deadline
from simplepubsub.exceptions import InvalidArgument
from simplepubsub.socketio.http_options import HttpOptions
from tests.helpers import scaled, self_signed, wait_until
from tests.proxies import HttpProxy
from tests.socketio.engine import open_session, running
from tests.socketio.rawserver import RawServer, Request, Response

BOTH = pytest.mark.parametrize("transports", ["polling", "websocket", None], ids=["polling", "websocket", "upgrade"])
ENVIRONMENT = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
               "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", os.devnull)


def exercise(url: str, transports: Any, server: RawServer, **options: Any) -> List[Request]:
    """Run a session that uses every kind of request it has, and return the requests."""
    first = len(server.requests)
    count = len(server.sessions)
    with running(url, transports, **options) as found:
        session = server.wait_session(count + 1)
        if transports is None:
            wait_until(lambda: found.session.transport == "websocket")
        found.session.send(["a"])
        assert session.wait_messages(1) == ["a"]
        session.send("4b")
        assert found.wait_messages(1) == ["b"]
        found.session.close(Deadline(scaled(5)))
    return server.requests[first:]


def cookies(request: Request) -> Dict[str, str]:
    header = request.headers.get("cookie", "")
    return dict(part.split("=", 1) for part in header.split("; ")) if header else {}


# ---- headers, cookies, credentials (17, W20, W21, W42) --------------------------------------------------------------


@BOTH
def test_headers_are_on_every_request(transports: Any) -> None:
    headers = {"X-Test": "yes", "Cookie": "mine=1; both=header"}
    given = dict(headers)
    http_session = requests.Session()
    http_session.headers["X-Session"] = "too"
    http_session.cookies.set("jar", "2")
    http_session.cookies.set("both", "jar")
    options = HttpOptions(http_session=http_session, user_agent="agent/1")
    with RawServer(set_cookie="sticky=backend1; Path=/") as server:
        for attempt in range(2):
            seen = exercise(server.url(), transports, server, headers=headers, options=options)
            assert len(seen) >= 1
            for index, request in enumerate(seen):
                assert request.headers["x-test"] == "yes" and request.headers["x-session"] == "too"
                assert request.headers["user-agent"] == "agent/1"
                expected = {"mine": "1", "both": "header", "jar": "2"}
                if transports != "websocket" and (index or attempt):
                    expected["sticky"] = "backend1"
                assert cookies(request) == expected
                assert "origin" not in request.headers
            assert headers == given
    assert sorted(http_session.cookies.keys()) == ["both", "jar"]


@pytest.mark.parametrize("transports", ["polling", None])
def test_cookies_that_the_server_changes(transports: Any) -> None:
    def answer(request: Request) -> Any:
        if request.method == "POST":
            return Response(200, b"ok", {"Set-Cookie": "token=; Max-Age=0; Path=/"})
        return None

    with RawServer(set_cookie="token=new; Path=/") as server:
        options = HttpOptions()
        with running(server.url(), "polling", options=options) as found:
            server.wait_requests(lambda seen: len(seen) >= 2)
            assert cookies(server.requests[1]) == {"token": "new"}
            server.answer = answer
            found.session.send(["x"])
            assert found.session.flush(Deadline(scaled(5)))
            found.session.send(["x"])
            assert found.session.flush(Deadline(scaled(5)))
            posts = [request for request in server.requests if request.method == "POST"]
            assert [cookies(request) for request in posts] == [{"token": "new"}, {}]


def test_cookies_that_the_user_changes_between_attempts() -> None:
    http_session = requests.Session()
    options = HttpOptions(http_session=http_session)
    with RawServer(set_cookie="sticky=1; Path=/") as server:
        for value in ("old", "new"):
            http_session.cookies.set("login", value)
            seen = exercise(server.url(), None, server, options=options)
            assert cookies(seen[-1]) == {"login": value, "sticky": "1"}
        http_session.cookies.clear()
        seen = exercise(server.url(), None, server, options=options)
        assert cookies(seen[0]) == {"sticky": "1"}


class Bearer(requests.auth.AuthBase):
    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = "Bearer abc"
        return request


BASIC = "Basic " + base64.b64encode(b"user:pass").decode()


@BOTH
@pytest.mark.parametrize("auth, expected", [(("user", "pass"), BASIC), (Bearer(), "Bearer abc")])
def test_credentials_of_the_session(transports: Any, auth: Any, expected: str) -> None:
    """W33: python-socketio raises for anything but Basic on the websocket leg."""
    http_session = requests.Session()
    http_session.auth = auth
    http_session.params = {"version": "7"}
    with RawServer() as server:
        for request in exercise(server.url("?a=1"), transports, server, http_session=http_session):
            assert request.headers["authorization"] == expected
            assert request.query["a"] == "1" and request.query["version"] == "7"


@BOTH
def test_credentials_in_the_url(transports: Any) -> None:
    with RawServer() as server:
        url = server.url().replace("127.0.0.1", "user:pass@127.0.0.1")
        for request in exercise(url, transports, server):
            assert request.headers["authorization"] == BASIC


def test_the_session_of_the_user_is_not_changed() -> None:
    class Special(requests.Session):
        def __init__(self) -> None:
            super().__init__()
            self.seen: List[str] = []

        def request(self, method: Any, url: Any, *args: Any, **keywords: Any) -> Any:
            self.seen.append(method)
            return super().request(method, url, *args, **keywords)

    http_session = Special()
    http_session.hooks["response"].append(lambda response, *args, **keywords: response.raise_for_status())
    before = {name: copy.copy(value) for name, value in vars(http_session).items() if name != "seen"}
    with RawServer() as server:
        exercise(server.url(), None, server, http_session=http_session, ssl_verify=False)
        server.answer = lambda request: Response(500, b'"broken"')
        with pytest.raises(Exception, match="HTTP 500: broken"):
            open_session(server.url(), "polling", http_session=http_session)
    assert http_session.seen and http_session.seen[0] == "GET"  # its own methods are used
    for name, value in before.items():
        assert getattr(http_session, name) == value, name
    assert len(http_session.cookies) == 0


def test_a_factory_of_sessions_is_called_for_each_attempt() -> None:
    made: List[requests.Session] = []

    def factory() -> requests.Session:
        made.append(requests.Session())
        made[-1].headers["X-Number"] = str(len(made))
        return made[-1]

    with RawServer() as server:
        options = HttpOptions(http_session=factory)
        for number in ("1", "2"):
            for request in exercise(server.url(), None, server, options=options):
                assert request.headers["x-number"] == number
    assert len(made) == 2
    with RawServer() as server, pytest.raises(InvalidArgument, match="http_session"):
        open_session(server.url(), http_session=lambda: 5)
    with pytest.raises(InvalidArgument, match="http_session"):
        HttpOptions(http_session=5)  # type: ignore[arg-type]


def test_time_stamps() -> None:
    with RawServer() as server:
        seen = exercise(server.url(), None, server)
        assert all(("t" in request.query) == (request.method == "GET") for request in seen)
        seen = exercise(server.url(), None, server, timestamp_requests=False)
        assert not any("t" in request.query for request in seen)


# ---- TLS (71, W33) --------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("how", ["file", "directory", "off", "option", "environment", "adapter", "off beats it"])
def test_tls(transports: Any, how: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(tmp_path)
    http_session = requests.Session()
    options: Dict[str, Any] = {"http_session": http_session}
    if how == "file":
        http_session.verify = certificate.ca_file
    elif how == "directory":
        hashed = tmp_path / "ca"
        hashed.mkdir()
        shutil.copy(certificate.ca_file, str(hashed / "ca.pem"))
        if shutil.which("openssl") is None or os.system("openssl rehash %s >/dev/null 2>&1" % hashed):
            pytest.skip("openssl rehash is needed")
        http_session.verify = str(hashed)
    elif how == "off":
        http_session.verify = False
    elif how == "option":
        options = {"ssl_verify": False}
    elif how == "environment":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate.ca_file)
        options = {}
    elif how == "adapter":
        class Adapter(HTTPAdapter):
            def __init__(self, context: ssl.SSLContext) -> None:
                self.context = context
                super().__init__()

            def init_poolmanager(self, *args: Any, **keywords: Any) -> None:
                super().init_poolmanager(*args, ssl_context=self.context, **keywords)

        http_session.mount("https://", Adapter(certificate.client_context))
    else:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.devnull)
        http_session.verify = False
    with RawServer(ssl_context=certificate.server_context) as server:
        for host in ("127.0.0.1", "localhost"):
            assert exercise(server.url().replace("127.0.0.1", host), transports, server, **options)


@pytest.mark.parametrize("leg", ["polling", "websocket"])
def test_tls_with_a_stranger(leg: str, tmp_path: Any) -> None:
    certificate = self_signed(tmp_path)
    with RawServer(ssl_context=certificate.server_context) as server:
        with pytest.raises(Exception, match="TLS with '127.0.0.1' failed") as caught:
            open_session(server.url(), leg)
        assert caught.value.fatal
        http_session = requests.Session()
        http_session.verify = certificate.ca_file + ".missing"
        with pytest.raises((InvalidArgument, Exception)) as caught:
            open_session(server.url(), leg, http_session=http_session)
        assert "missing" in str(caught.value)


@BOTH
@pytest.mark.parametrize("pair", [True, False])
def test_client_certificates(transports: Any, pair: bool, tmp_path: Any) -> None:
    certificate = self_signed(tmp_path)
    context = certificate.server_context
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate.ca_file)
    http_session = requests.Session()
    http_session.verify = certificate.ca_file
    if pair:
        http_session.cert = (certificate.cert_file, certificate.key_file)
    else:
        both = tmp_path / "both.pem"
        with open(certificate.key_file) as key, open(certificate.cert_file) as cert:
            both.write_text(key.read() + cert.read())
        http_session.cert = str(both)
    with RawServer(ssl_context=context) as server:
        assert exercise(server.url(), transports, server, http_session=http_session)
        http_session.cert = None
        with pytest.raises(Exception), running(server.url(), transports, http_session=http_session) as found:  # noqa: B017
            raise RuntimeError(found.wait_closed())  # TLS 1.3 refuses after the handshake


def test_sslopt(tmp_path: Any) -> None:
    certificate = self_signed(tmp_path)
    with RawServer(ssl_context=certificate.server_context) as server:
        for sslopt in ({"ca_certs": certificate.ca_file}, {"cert_reqs": ssl.CERT_NONE},
                       {"context": certificate.client_context}):
            exercise(server.url(), "websocket", server, websocket_extra_options={"sslopt": sslopt})
        for bad in ({"server_hostname": "x"}, {"context": 5}, {"ca_certs": "/does/not/exist"}):
            with pytest.raises(InvalidArgument):
                open_session(server.url(), "websocket", websocket_extra_options={"sslopt": bad})


# ---- proxies --------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("how", ["session", "environment"])
def test_a_proxy_for_tls(transports: Any, how: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(tmp_path)
    http_session = requests.Session()
    http_session.verify = certificate.ca_file
    with RawServer(ssl_context=certificate.server_context) as server, HttpProxy(credentials=("me", "pw")) as proxy:
        if how == "session":
            http_session.proxies["https"] = proxy.url("me:pw")
        else:
            monkeypatch.setenv("https_proxy", proxy.url("me:pw"))
        exercise(server.url(), transports, server, http_session=http_session)
        asked = len(proxy.targets)
        assert asked >= (1 if transports == "websocket" else 2)
        assert set(proxy.targets) == {("127.0.0.1", server.port)}
        if how == "environment":
            http_session.trust_env = False
            exercise(server.url(), transports, server, http_session=http_session)
            http_session.trust_env = True
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            exercise(server.url(), transports, server, http_session=http_session)
            assert len(proxy.targets) == asked


def test_a_proxy_for_plain_http() -> None:
    http_session = requests.Session()
    with RawServer() as server:
        http_session.proxies["http"] = server.url()
        with running("http://no.such.host.invalid/", "polling", http_session=http_session) as found:
            found.session.send(["a"])
            assert server.session.wait_messages(1) == ["a"]
            assert all(request.target.startswith("http://no.such.host.invalid/socket.io/")
                       for request in server.requests)


@pytest.mark.parametrize("leg", ["polling", "websocket"])
def test_a_proxy_that_refuses(leg: str, tmp_path: Any) -> None:
    http_session = requests.Session()
    with HttpProxy(refuse=True) as proxy:
        http_session.proxies["https"] = proxy.url("me:proxy-password")
        with pytest.raises(Exception, match="proxy") as caught:
            open_session("https://127.0.0.1:1/", leg, http_session=http_session)
        assert "proxy-password" not in str(caught.value)


# ---- options of websocket-client ------------------------------------------------------------------------------------


def test_websocket_extra_options() -> None:
    extra: Dict[str, Any] = {
        "header": ["X-Extra: 1"], "cookie": "extra=2", "origin": "http://me", "subprotocols": ["one", "two"],
        "timeout": 5, "enable_multithread": True, "http_no_proxy": ["*"],
    }
    given = copy.deepcopy(extra)
    with RawServer(set_cookie="sticky=1") as server:
        seen = exercise(server.url(), None, server, websocket_extra_options=extra, headers={"Cookie": "mine=3"})
        upgrade = next(request for request in seen if request.upgrade)
        assert upgrade.headers["x-extra"] == "1" and upgrade.headers["origin"] == "http://me"
        assert upgrade.headers["sec-websocket-protocol"] == "one, two"
        assert cookies(upgrade) == {"extra": "2", "mine": "3", "sticky": "1"}
        assert not any("x-extra" in request.headers for request in seen if not request.upgrade)
        exercise(server.url(), "websocket", server, websocket_extra_options={"header": {"X-Extra": "1"}})
        assert server.requests[-1].headers["x-extra"] == "1"
    assert extra == given


def test_a_proxy_for_the_websocket_alone() -> None:
    with RawServer() as server, HttpProxy(credentials=("me", "p:w")) as proxy:
        extra: Dict[str, Any] = {"http_proxy_host": "127.0.0.1", "http_proxy_port": proxy.port,
                                 "http_proxy_auth": ("me", "p:w"), "proxy_type": "http"}
        exercise(server.url(), None, server, websocket_extra_options=extra)
        assert proxy.targets == [("127.0.0.1", server.port)]
        with pytest.raises(InvalidArgument, match="proxy"):
            HttpOptions(websocket_extra_options={**extra, "proxy_type": "carrier"})


@pytest.mark.parametrize("bad", [{"sockopt": []}, {"class": 5}, {"timeout": "1"}, {"host": "x"}])
def test_options_that_have_no_meaning(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match="websocket_extra_options"):
        HttpOptions(websocket_extra_options=bad)


# ---- redirects (19) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transports", ["polling", None])
def test_a_redirected_handshake_stays_where_it_was_led(transports: Any) -> None:
    with RawServer() as server:
        place = server.url("/other/path/?k=v")

        def answer(request: Request) -> Any:
            return Response(307, b"", {"Location": place}) if request.path == "/socket.io/" else None

        # A redirect replaces the query, so this server puts back what it needs.
        place += "&EIO=4&transport=polling"
        server.answer = answer
        seen = exercise(server.url("?secret=none"), transports, server, headers={"Authorization": "Bearer x"})
        assert seen[0].path == "/socket.io/"
        assert all(request.path == "/other/path/" and request.query["k"] == "v" for request in seen[1:])
        assert all(request.headers["authorization"] == "Bearer x" for request in seen)


def test_credentials_do_not_follow_to_another_host() -> None:
    with RawServer() as target:
        place = target.url("/socket.io/?EIO=4&transport=polling").replace("127.0.0.1", "localhost")
        with RawServer(answer=lambda request: Response(302, b"", {"Location": place})) as server:
            http_session = requests.Session()
            http_session.auth = ("user", "pass")
            headers = {"Cookie": "mine=1", "X-Test": "1"}
            seen = exercise(server.url(), "polling", target, http_session=http_session, headers=headers)
            assert "authorization" in server.requests[0].headers
            for request in seen:
                assert "authorization" not in request.headers and "cookie" not in request.headers
                assert request.headers["x-test"] == "1"


@pytest.mark.parametrize("leg", ["polling", "websocket"])
def test_redirects_without_end(leg: str) -> None:
    with RawServer() as server:
        place = server.url("/socket.io/?EIO=4")
        server.answer = lambda request: Response(302, b"", {"Location": place})
        with pytest.raises(Exception, match=r"redirect|302"):
            open_session(server.url(), leg)


def test_a_redirected_post_ends_the_session() -> None:
    with RawServer() as server, running(server.url(), "polling") as found:
        server.answer = lambda request: Response(302, b"", {"Location": "/"}) if request.method == "POST" else None
        found.session.send(["x"])
        reason, error = found.wait_closed()
        assert reason == "transport error" and "HTTP 302" in str(error)
