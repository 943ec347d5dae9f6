"""Tokens that must not open a door, at both of them: the WebSocket handshake and the data plane."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import pytest

from simplepubsub.exceptions import ServerError
from simplepubsub.server.tokens import Tokens
from tests.fuzz.texts import token_of
from tests.helpers import SilentPeer
from tests.rawclient import PLAIN, RawClient, refused
from tests.restclient import TEXT, Rest
from tests.timing import scaled

KEY = "primary-key-0123456789abcdef0123456789"
SECOND = "secondary-key-0123456789abcdef01234567"
PUBLIC = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKk\n-----END PUBLIC KEY-----\n"


class Door(NamedTuple):
    """Where tokens are shown, with what is right there: the audience, and what lets a token in."""

    name: str
    audience: str
    show: Callable[[str], Tuple[int, str]]


@pytest.fixture(scope="module")
def house() -> Any:
    from simplepubsub.server import Server

    with Server(access_key=KEY, secondary_key=SECOND) as server:
        yield server


@pytest.fixture(params=["query", "header", "rest"])
def door(request: Any, house: Any) -> Door:
    rest = Rest(house, key=KEY)
    url = house.endpoint + "/client/hubs/plaza"

    def by_rest(token: str) -> Tuple[int, str]:
        answer = rest("POST", "/:send", b"x", TEXT, token=token)
        return (101, "") if answer.status == 202 else (answer.status, answer.message)

    def by_query(token: str) -> Tuple[int, str]:
        return shake("ws" + url[4:] + "?access_token=" + token, None)

    def by_header(token: str) -> Tuple[int, str]:
        return shake("ws" + url[4:], ["Authorization: Bearer " + token])

    def shake(address: str, headers: Optional[List[str]]) -> Tuple[int, str]:
        import websocket

        try:
            RawClient(address, PLAIN, header=headers).abort()
        except websocket.WebSocketBadStatusException as error:
            return error.status_code, (error.resp_body or b"").decode()
        return 101, ""

    if request.param == "rest":
        return Door("rest", rest.url("/:send"), by_rest)
    return Door("socket", url, by_query if request.param == "query" else by_header)


def make(door: Door, *, key: Optional[str] = KEY, head: Any = (), without: str = "", **changes: Any) -> str:
    """Return a token that is good but for what is asked."""
    payload: Dict[str, Any] = {"aud": door.audience, "exp": int(time.time()) + 600}
    payload.update(changes)
    payload.pop(without, None)
    header = dict({"alg": "HS256", "typ": "JWT"}, **dict(head))
    return token_of(json.dumps(header).encode(), json.dumps(payload).encode(), key)


def changed(token: str, part: int, edit: Callable[[str], str]) -> str:
    parts = token.split(".")
    parts[part] = edit(parts[part])
    return ".".join(parts)


def now() -> int:
    return int(time.time())


def flipped(text: str) -> str:
    """Return a part of a token whose first octet is another."""
    data = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    data[0] ^= 1
    return base64.urlsafe_b64encode(bytes(data)).decode().rstrip("=")


FORGED: List[Tuple[str, Callable[[Door], str]]] = [
    ("another key", lambda d: make(d, key="x" * 40)),
    ("an empty key", lambda d: make(d, key="")),
    ("a key of zeros", lambda d: make(d, key="\0" * 64)),
    ("the key in lower case", lambda d: make(d, key=KEY.upper())),
    ("the key with a line end", lambda d: make(d, key=KEY + "\n")),
    ("part of the key", lambda d: make(d, key=KEY[:-1])),
    ("a public key", lambda d: make(d, key=PUBLIC)),
    ("no signature", lambda d: make(d, key=None)),
    ("alg none", lambda d: make(d, key=None, head={"alg": "none"})),
    ("alg None", lambda d: make(d, key=None, head={"alg": "None"})),
    ("alg nOnE, signed", lambda d: make(d, head={"alg": "nOnE"})),
    ("alg empty", lambda d: make(d, head={"alg": ""})),
    ("alg null", lambda d: make(d, head={"alg": None})),
    ("alg in a list", lambda d: make(d, head={"alg": ["HS256"]})),
    ("alg hs256", lambda d: make(d, head={"alg": "hs256"})),
    ("alg HS512", lambda d: make(d, head={"alg": "HS512"})),
    ("alg RS256, signed with the key", lambda d: make(d, head={"alg": "RS256"})),
    ("alg RS256, signed with a public key", lambda d: make(d, key=PUBLIC, head={"alg": "RS256"})),
    ("alg ES256", lambda d: make(d, head={"alg": "ES256"})),
    ("key in the header", lambda d: make(d, key="x" * 40, head={"jwk": {"kty": "oct", "k": "eHh4" * 14}})),
    ("kid names a file", lambda d: make(d, key="", head={"kid": "../../../../dev/null"})),
    ("kid injects", lambda d: make(d, key="x" * 40, head={"kid": "' UNION SELECT 'x' --"})),
    ("certificate in the header", lambda d: make(d, key="x" * 40, head={"x5c": ["eHh4"]})),
    ("detached payload", lambda d: make(d, head={"b64": False, "crit": ["b64"]})),
    ("an extension that must be understood", lambda d: make(d, head={"crit": ["exp"]})),
    ("payload changed", lambda d: changed(make(d), 1, lambda p: make(d, sub="admin").split(".")[1])),
    ("header changed", lambda d: changed(make(d), 0, lambda p: make(d, head={"a": 1}).split(".")[0])),
    ("signature changed", lambda d: changed(make(d), 2, flipped)),
    ("signature truncated", lambda d: make(d)[:-4]),
    ("signature doubled", lambda d: make(d) + make(d).split(".")[2]),
    ("junk in the signature", lambda d: changed(make(d), 2, lambda p: p[:9] + "!" + p[9:])),
    ("junk behind the signature", lambda d: changed(make(d), 2, lambda p: p + "*~")),
    ("padding", lambda d: make(d) + "="),
    ("two signatures", lambda d: make(d) + "." + make(d).split(".")[2]),
    ("in another order", lambda d: ".".join(reversed(make(d).split(".")))),
    ("nothing but dots", lambda d: ".."),
    ("the key itself", lambda d: KEY),
]
TIMES: List[Tuple[str, Callable[[Door], str]]] = [
    ("expired", lambda d: make(d, exp=now() - 400)),
    ("expired long ago", lambda d: make(d, exp=0)),
    ("expires before time", lambda d: make(d, exp=-(2**70))),
    ("never expires", lambda d: make(d, without="exp")),
    ("expiry is null", lambda d: make(d, exp=None)),
    ("expiry is text", lambda d: make(d, exp="tomorrow")),
    ("expiry is a list", lambda d: make(d, exp=[now() + 600])),
    ("expiry is an object", lambda d: make(d, exp={})),
    ("expiry is infinite", lambda d: make(d, exp=float("inf"))),
    ("expiry is no number", lambda d: make(d, exp=float("nan"))),
    ("not valid yet", lambda d: make(d, nbf=now() + 400)),
    ("not valid before the end of time", lambda d: make(d, nbf=2**70)),
    ("issued in the future", lambda d: make(d, iat=now() + 400)),
]


def other(d: Door, *edits: Tuple[str, str]) -> str:
    audience = d.audience
    for old, new in edits:
        assert old in audience
        audience = audience.replace(old, new)
    return make(d, aud=audience)


AUDIENCES: List[Tuple[str, Callable[[Door], str]]] = [
    ("none", lambda d: make(d, without="aud")),
    ("null", lambda d: make(d, aud=None)),
    ("empty", lambda d: make(d, aud="")),
    ("an empty list", lambda d: make(d, aud=[])),
    ("a number", lambda d: make(d, aud=1)),
    ("an object", lambda d: make(d, aud={d.audience: 1})),
    ("a number in a list", lambda d: make(d, aud=[d.audience, 1])),
    ("any", lambda d: make(d, aud="*")),
    ("another scheme", lambda d: other(d, ("http:", "ftp:"))),
    ("no scheme", lambda d: other(d, ("http:", ""))),
    ("another host", lambda d: other(d, ("127.0.0.1", "127.0.0.2"))),
    ("a longer host", lambda d: other(d, ("127.0.0.1", "127.0.0.1.evil.test"))),
    ("a host behind a user", lambda d: other(d, ("127.0.0.1", "127.0.0.1@evil.test"))),
    ("another port", lambda d: make(d, aud=d.audience.replace(d.audience.split(":")[2].split("/")[0], "1"))),
    ("another hub", lambda d: other(d, ("plaza", "plazb"))),
    ("a longer hub", lambda d: other(d, ("plaza", "plaza2"))),
    ("the start of the hub", lambda d: make(d, aud=d.audience[: d.audience.index("plaza") + 4])),
    ("no hub", lambda d: make(d, aud=d.audience[: d.audience.index("plaza")])),
    ("a way back", lambda d: other(d, ("plaza", "x/../plaza"))),
    ("two slashes", lambda d: other(d, ("/hubs", "//hubs"))),
    ("another path", lambda d: other(d, ("/hubs", "/hub"))),
    ("the whole server", lambda d: make(d, aud=d.audience[:22])),
    (
        "the other door",
        lambda d: make(
            d,
            aud="http://127.0.0.1:%s/%s"
            % (
                d.audience.split(":")[2].split("/")[0],
                ("client/hubs/plaza" if d.name == "rest" else "api/hubs/plaza/:send"),
            ),
        ),
    ),
]
ALL = [
    ("%s: %s" % (kind, name), build)
    for kind, table in (("forged", FORGED), ("time", TIMES), ("audience", AUDIENCES))
    for name, build in table
]


@pytest.mark.parametrize("build", [item[1] for item in ALL], ids=[item[0] for item in ALL])
def test_no_door_opens(door: Door, build: Callable[[Door], str], caplog: Any) -> None:
    token = build(door)
    with caplog.at_level(logging.DEBUG):
        status, text = door.show(token)
    assert status == 401, (status, text)
    said = text + caplog.text
    assert KEY not in said and SECOND not in said
    assert (
        len(token) < 20
        or token not in said
        and token.split(".")[-1][:20] not in said.replace("127.0.0.1", "")
        or not token.split(".")[-1]
    )


GOOD: List[Tuple[str, Callable[[Door], str]]] = [
    ("as it should be", lambda d: make(d)),
    ("the second key", lambda d: make(d, key=SECOND)),
    ("several audiences", lambda d: make(d, aud=["http://elsewhere", d.audience])),
    ("a host and a hub in another case", lambda d: make(d, aud=d.audience.upper())),
    ("https", lambda d: other(d, ("http:", "https:"))),
    ("expired a moment ago", lambda d: make(d, exp=now() - 200)),
    ("expires in the year 10**300", lambda d: make(d, exp=1e300)),
    ("expires in 2**63", lambda d: make(d, exp=2**63)),
    ("a signed header that means nothing", lambda d: make(d, head={"kid": "../../etc/passwd", "cty": "x", "x5t": "y"})),
]


@pytest.mark.parametrize("build", [item[1] for item in GOOD], ids=[item[0] for item in GOOD])
def test_the_door_opens(door: Door, build: Callable[[Door], str]) -> None:
    assert door.show(build(door)) == (101, "")


@pytest.mark.parametrize("name", ["jku", "x5u", "kid", "iss"])
def test_addresses_in_a_token_are_not_followed(door: Door, name: str) -> None:
    with SilentPeer() as peer:
        url = peer.url("/keys.json", "http")
        assert door.show(make(door, head={name: url}))[0] == 101
        assert door.show(make(door, key="x" * 40, head={name: url}, iss=url))[0] == 401
        assert peer.accepted == 0


def test_a_large_token_is_refused(house: Any) -> None:
    token = house.client_access_url("plaza", user_id="y" * 70_000).partition("=")[2]
    for path, headers in (
        ("/client/hubs/plaza?access_token=" + token, {}),
        ("/client/hubs/plaza", {"Authorization": token}),
        ("/api/hubs/plaza/:send", {"Authorization": "Bearer " + token}),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=scaled(10))
        try:
            connection.request("POST", path, b"", headers)
            response = connection.getresponse()
            response.read()
        except ConnectionError:
            continue  # refused before all of it was sent
        finally:
            connection.close()
        assert response.status in (400, 414, 431)
    rest = Rest(house, key=KEY)
    assert rest("POST", "/:send", b"x", TEXT).status == 202  # nobody else is harmed


def test_a_token_for_one_operation_is_good_for_no_other(house: Any) -> None:
    rest = Rest(house, key=KEY)
    token = rest.token(rest.url("/groups/a/:send"))
    for path in ("/groups/b/:send", "/:send", "/groups/a%2F..%2Fb/:send", "/groups/a", "/groups/A%00/:send"):
        assert rest("POST" if path.endswith("send") else "HEAD", path, b"x", TEXT, token=token).status == 401
    assert rest("POST", "/groups/a/:send?api-version=2024-12-01", b"x", TEXT, token=token).status == 202


def test_an_anonymous_client_has_no_rights(fresh_server: Any) -> None:
    server = fresh_server(access_key=KEY, allow_anonymous=True)
    url = "ws" + server.endpoint[4:] + "/client/hubs/plaza"
    with RawClient(url, PLAIN) as client:
        for kind in ("joinGroup", "sendToGroup"):
            client.send({"type": kind, "group": "g", "ackId": 1, "dataType": "text", "data": "x"})
            assert client.receive()["error"]["name"] == "Forbidden"
    assert (
        refused(url + "?access_token=" + token_of(b'{"alg":"none"}', b"{}", None))[0] == 401
    )  # a bad token is no none
    assert Rest(server, key=KEY)("POST", "/:send", b"x", TEXT, token=None).status == 401


@pytest.mark.parametrize("key", ["", " ", "short", "x" * 31, None, b"x" * 40, 5])
def test_keys_that_are_too_weak_are_refused(key: Any) -> None:
    for keys in ((key,), (KEY, key) if key is not None else ("",)):
        with pytest.raises(ServerError) as caught:
            Tokens(*keys)
        assert KEY not in str(caught.value)
