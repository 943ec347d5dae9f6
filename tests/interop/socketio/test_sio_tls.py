"""TLS and Web PubSub for Socket.IO (cases 71-72 of the protocol reference, section 6.2): fixtures T and Z."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
import requests

from simplepubsub.socketio import exceptions
from tests.faultproxy import FaultProxy
from tests.helpers import scaled, self_signed, wait_until
from tests.interop.socketio.play import join, listen, lose

pytestmark = pytest.mark.interop

WAYS = ["polling", "websocket", "upgrade"]
BUNDLES = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(kind: str, serve: Any, certificate: Any) -> Any:
    return serve(kind, tls={"cert": certificate.cert_file, "key": certificate.key_file})


def check(sio: Any, way: str) -> None:
    assert sio.call("echo", b"secret") == b"secret"
    if way == "upgrade":
        wait_until(lambda: sio.transport == "websocket", 15)
        assert sio.call("echo", 2) == 2


@pytest.mark.parametrize("way", WAYS)
def test_case_71_verification_is_the_default(tls: Any, way: str, client: Any) -> None:
    with pytest.raises(exceptions.ConnectionError, match="certificate"):
        join(client(), tls, way)


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("way", WAYS)
def test_case_71_without_verification(tls: Any, way: str, client: Any) -> None:
    session = requests.Session()
    session.verify = False
    check(join(client(http_session=session), tls, way), way)
    check(join(client(ssl_verify=False), tls, way), way)


@pytest.mark.parametrize("way", WAYS)
def test_case_71_an_authority_of_ones_own(tls: Any, way: str, client: Any, certificate: Any) -> None:
    session = requests.Session()
    session.verify = certificate.ca_file
    check(join(client(http_session=session), tls, way), way)


@pytest.mark.parametrize("variable", BUNDLES)
@pytest.mark.parametrize("way", WAYS)
def test_case_71_w33_the_environment(
    tls: Any, way: str, variable: str, client: Any, certificate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in BUNDLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, certificate.ca_file)
    check(join(client(), tls, way), way)


@pytest.mark.parametrize("way", WAYS)
def test_case_71_client_certificates(kind: str, serve: Any, way: str, client: Any, certificate: Any) -> None:
    files = {"cert": certificate.cert_file, "key": certificate.key_file, "ca": certificate.ca_file}
    peer = serve(kind, tls=files)
    session = requests.Session()
    session.verify = certificate.ca_file
    with pytest.raises(exceptions.ConnectionError):
        join(client(http_session=session), peer, way)
    session.cert = (certificate.cert_file, certificate.key_file)
    check(join(client(http_session=session), peer, way), way)


PATH = "/clients/socketio/hubs/Hub"


@pytest.fixture
def z(serve: Any) -> Any:
    return serve("node", path=PATH, token="the-token", requests=True)


def test_case_72_the_token_in_the_query(z: Any, leg: str, client: Any) -> None:
    sio = join(client(), z.url + "?access_token=the-token", leg, socketio_path=PATH)
    assert sio.call("echo", 1) == 1
    assert all(request.query["access_token"] == "the-token" and request.path == PATH + "/" for request in z.requests())
    assert sio.transport == leg


def test_case_72_a_missing_token(z: Any, leg: str, client: Any) -> None:
    for url in (z.url, z.url + "?access_token=wrong-token"):
        with pytest.raises(exceptions.ConnectionError) as caught:
            join(client(), url, leg, socketio_path=PATH)
        error: Any = caught.value
        if leg == "polling":
            assert (error.__cause__.status, error.payload) == (403, {"code": 4, "message": "no access token"})
        assert "no access token" in str(error) and "wrong-token" not in str(error)
    with pytest.raises(exceptions.ConnectionError):
        join(client(), z.url + "?access_token=the-token", leg)


def test_case_72_negotiation_again_for_each_attempt(z: Any, leg: str, client: Any) -> None:
    with FaultProxy("127.0.0.1", z.port) as proxy:

        def negotiate() -> str:
            with urllib.request.urlopen(z.url + "/negotiate", timeout=scaled(20)) as answer:
                found = json.load(answer)
            assert found["path"] == PATH
            return "%s?access_token=%s" % (proxy.url(found["endpoint"]), found["token"])

        sio = client()
        recorder = listen(sio)
        join(sio, negotiate, leg, socketio_path=PATH)
        assert len(z.wait_log("negotiate")) == 1
        lose(proxy, recorder)
        recorder.wait_event("connect", 15, count=2)
        assert len(z.wait_log("negotiate", 2)) >= 2
        sio.disconnect()
