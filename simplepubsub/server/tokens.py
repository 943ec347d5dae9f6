"""Client access tokens: made for tests and applications, checked at the door.

HS256 only, by PyJWT; protocol reference 4.1. Errors name what was wrong, what was expected and what was found, and
never contain a token or a key.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import jwt

from ..exceptions import ServerError, SimplePubSubError
from ..webpubsub.access_tokens import sign_client_token
from ..webpubsub.json_fields import one_line

__all__ = ["Claims", "DEVELOPMENT_ACCESS_KEY", "MIN_KEY_BYTES", "TokenRejected", "Tokens", "check_key"]

#: The key of a server that was given none. It is public: fit for loopback only.
DEVELOPMENT_ACCESS_KEY = "simplepubsub-development-access-key-not-a-secret-0123456789"

#: Shortest access key in bytes (HS256 wants at least as many as its digest has, RFC 7518 section 3.2).
MIN_KEY_BYTES = 32

#: Seconds by which clocks may differ (protocol reference 4.1).
CLOCK_SKEW = 300

#: The compact serialization of RFC 7515 section 7.1: base64url without padding.
_COMPACT = re.compile(r"[A-Za-z0-9_.-]*")

_GROUPS = "webpubsub.group"
_NAME_ID = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"


class TokenRejected(SimplePubSubError):
    """The token gives no access; the message says why, for the log and for the body of the 401."""


class Claims(NamedTuple):
    """What a token says about its bearer."""

    user_id: Optional[str]
    roles: Tuple[str, ...]
    groups: Tuple[str, ...]
    raw: Dict[str, Any]


def check_key(key: Any, name: str = "access_key") -> str:
    """Return the key. Raises ServerError unless it is text of at least 32 bytes."""
    if not isinstance(key, str):
        raise ServerError("%s must be a str, not %s" % (name, type(key).__name__))
    size = len(key.encode("utf-8", "surrogatepass"))
    if size < MIN_KEY_BYTES:
        raise ServerError(
            "%s has %d bytes, at least %d are needed; to make one: "
            "python -c 'import secrets; print(secrets.token_urlsafe(48))'" % (name, size, MIN_KEY_BYTES)
        )
    return key


class Tokens:
    """Makes and checks tokens with a primary and an optional secondary access key. Safe from any thread."""

    def __init__(self, access_key: str, secondary_key: Optional[str] = None) -> None:
        self._keys = [check_key(access_key)]
        if secondary_key is not None:
            self._keys.append(check_key(secondary_key, "secondary_key"))

    @property
    def keys(self) -> Tuple[str, ...]:
        """The access keys, the primary one first."""
        return tuple(self._keys)

    def make(
        self,
        audience: str,
        *,
        user_id: Optional[str] = None,
        roles: Iterable[str] = (),
        groups: Iterable[str] = (),
        minutes_to_expire: float = 60,
    ) -> str:
        """Return a client access token signed with the primary key."""
        return sign_client_token(
            audience,
            self._keys[0],
            user_id=user_id,
            roles=roles,
            groups=groups,
            minutes_to_expire=minutes_to_expire,
        )

    def check(self, token: str, audiences: Sequence[str]) -> Claims:
        """Return the claims of a token meant for one of ``audiences``, compared without case. Raises TokenRejected."""
        payload = self._decode(token)
        found = _texts(payload, "aud")
        wanted = {audience.lower() for audience in audiences}
        if not any(audience.lower() in wanted for audience in found):
            raise TokenRejected(
                "the token is for another audience: expected %s, got %s" % (" or ".join(audiences), ascii(found)[:300])
            )
        users = _texts(payload, "sub") or _texts(payload, _NAME_ID)
        if len(users) > 1:
            raise TokenRejected("the token names %d users, at most one is allowed" % len(users))
        return Claims(
            users[0] if users else None, tuple(_texts(payload, "role")), tuple(_texts(payload, _GROUPS)), payload
        )

    def made_out_to(self, token: str) -> List[str]:
        """Return the audiences that a REST token names; only these and its times matter. Raises TokenRejected."""
        return _texts(self._decode(token), "aud")

    def _decode(self, token: str) -> Dict[str, Any]:
        options: Any = {"verify_aud": False, "require": ["exp"]}
        error: Optional[Exception] = None
        for key in self._keys:
            try:
                payload: Any = jwt.decode(token, key, algorithms=["HS256"], leeway=CLOCK_SKEW, options=options)
                if "crit" in jwt.get_unverified_header(token):  # RFC 7515 section 4.1.11; older versions overlook it
                    raise jwt.InvalidTokenError("it needs an extension that is not known here")
                if not _COMPACT.fullmatch(token):  # the decoder skips what does not belong there
                    raise jwt.InvalidTokenError("it has characters that are not base64url")
                return dict(payload)
            except jwt.InvalidSignatureError as problem:
                error = problem
            except (jwt.PyJWTError, ValueError, OverflowError, TypeError, RecursionError) as problem:
                error = problem  # not all of them are PyJWT's own: headers nested without end, times beyond all bounds
                break
        raise TokenRejected(_explain(error)) from None


def _explain(error: Optional[Exception]) -> str:
    if isinstance(error, jwt.InvalidSignatureError):
        return "the token is not signed with an access key of this server"
    if isinstance(error, jwt.ExpiredSignatureError):
        return "the token has expired"
    if isinstance(error, jwt.InvalidAlgorithmError):
        return "the token is not signed with HS256"
    if isinstance(error, jwt.MissingRequiredClaimError):
        return "the token has no %s claim" % error.claim
    if isinstance(error, (jwt.ImmatureSignatureError, jwt.InvalidIssuedAtError)):
        return "the token is not valid yet"
    return "the token is malformed (%s)" % one_line(str(error)[:200])  # it may repeat what the token says


def _texts(payload: Dict[str, Any], name: str) -> List[str]:
    """Return a claim that may be one string or a list of strings. Raises TokenRejected for anything else."""
    value = payload.get(name)
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in values):
        raise TokenRejected("the claim %s must be a string or a list of strings" % name)
    return values
