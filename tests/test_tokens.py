"""Client access tokens: what is accepted, and how precisely a refusal says why (protocol reference 4.1)."""

from __future__ import annotations

import time

import jwt
import pytest

from simplepubsub.exceptions import ServerError
from simplepubsub.server.tokens import DEVELOPMENT_ACCESS_KEY, TokenRejected, Tokens, check_key

KEY = "primary-key-0123456789abcdef0123456789"
OTHER = "secondary-key-0123456789abcdef01234567"
AUDIENCE = "http://localhost:8080/client/hubs/plaza"


def make(payload, key=KEY, algorithm="HS256", **options):
    return str(jwt.encode(payload, key, algorithm=algorithm, **options))


def good(**changes):
    """Return claims; a callable is given the time of the call, since a run may begin minutes after the collection."""
    now = int(time.time())
    payload = {"aud": AUDIENCE, "exp": now + 600}
    payload.update((name, value(now) if callable(value) else value) for name, value in changes.items())
    return {name: value for name, value in payload.items() if value is not None}


def reason(payload_or_token):
    if callable(payload_or_token):
        payload_or_token = payload_or_token()
    token = payload_or_token if isinstance(payload_or_token, str) else make(payload_or_token)
    with pytest.raises(TokenRejected) as caught:
        Tokens(KEY).check(token, [AUDIENCE])
    assert token not in str(caught.value) and KEY not in str(caught.value)
    return str(caught.value)


def test_a_token_that_we_make_says_what_we_put_in():
    token = Tokens(KEY).make(AUDIENCE, user_id="mina", roles=["r1", "r2"], groups=["lobby"], minutes_to_expire=5)
    claims = Tokens(KEY).check(token, [AUDIENCE])
    assert (claims.user_id, claims.roles, claims.groups) == ("mina", ("r1", "r2"), ("lobby",))
    assert claims.raw["aud"] == AUDIENCE
    assert claims.raw["exp"] - claims.raw["iat"] == 300
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}


def test_a_token_without_user_roles_and_groups():
    claims = Tokens(KEY).check(Tokens(KEY).make(AUDIENCE), [AUDIENCE])
    assert (claims.user_id, claims.roles, claims.groups) == (None, (), ())


ACCEPTED = [
    ("audience in another case", {"aud": AUDIENCE.upper()}),
    ("audience in a list", {"aud": ["http://elsewhere", AUDIENCE]}),
    ("expired within the skew", {"exp": lambda now: now - 240}),
    ("issued within the skew", {"iat": lambda now: now + 240}),
    ("valid since", {"nbf": lambda now: now - 10}),
    ("claims that mean nothing to us", {"tenant": {"a": 1}}),
]


@pytest.mark.parametrize("changes", [item[1] for item in ACCEPTED], ids=[item[0] for item in ACCEPTED])
def test_accepted(changes):
    Tokens(KEY).check(make(good(**changes)), [AUDIENCE])


REJECTED = [
    ("not a token", "garbage", "malformed"),
    ("another key", lambda: make(good(), key=OTHER), "not signed with an access key"),
    ("unsigned", lambda: str(jwt.encode(good(), "", algorithm="none")), "HS256"),
    ("another algorithm", lambda: make(good(), key=KEY * 2, algorithm="HS512"), "HS256"),
    ("expired", lambda: good(exp=lambda now: now - 360), "expired"),
    ("never expires", lambda: good(exp=None), "no exp claim"),
    ("not valid yet", lambda: good(nbf=lambda now: now + 360), "not valid yet"),
    ("no audience", lambda: good(aud=None), "another audience: expected %s, got []" % AUDIENCE),
    ("wrong hub", lambda: good(aud=AUDIENCE + "2"), "another audience: expected %s, got ['%s2']" % ((AUDIENCE,) * 2)),
    ("websocket scheme", lambda: good(aud="ws" + AUDIENCE[4:]), "another audience"),
    ("audience is a number", lambda: good(aud=5), "aud"),
    ("roles are an object", lambda: good(role={"a": 1}), "role must be a string or a list of strings"),
    ("a group is a number", lambda: good(**{"webpubsub.group": ["a", 1]}), "webpubsub.group must be"),
]


@pytest.mark.parametrize("token, text", [item[1:] for item in REJECTED], ids=[item[0] for item in REJECTED])
def test_rejected_with_a_reason(token, text):
    assert text in reason(token)


def test_one_role_may_be_a_plain_string():
    claims = Tokens(KEY).check(make(good(role="webpubsub.sendToGroup")), [AUDIENCE])
    assert claims.roles == ("webpubsub.sendToGroup",)


def test_the_user_id_may_come_from_the_old_name_claim():
    claim = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"
    assert Tokens(KEY).check(make(good(**{claim: "mina"})), [AUDIENCE]).user_id == "mina"


def test_either_key_is_accepted_and_the_first_signs():
    tokens = Tokens(KEY, OTHER)
    for key in (KEY, OTHER):
        assert tokens.check(make(good(sub="mina"), key=key), [AUDIENCE]).user_id == "mina"
    jwt.decode(tokens.make(AUDIENCE), KEY, algorithms=["HS256"], audience=AUDIENCE)


def test_any_of_several_audiences_will_do():
    Tokens(KEY).check(make(good()), ["http://other/client/hubs/plaza", AUDIENCE])


@pytest.mark.parametrize("key", ["short", "x" * 31, None, b"x" * 40])
def test_keys_that_cannot_be(key):
    with pytest.raises(ServerError, match="access_key"):
        check_key(key)


def test_key_length_is_counted_in_bytes():
    assert check_key("\u00e9" * 16) == "\u00e9" * 16
    assert len(DEVELOPMENT_ACCESS_KEY) >= 32
    with pytest.raises(ServerError, match="secondary_key"):
        Tokens(KEY, "short")
