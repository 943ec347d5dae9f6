"""Sign access tokens: those that admit clients, and those that REST requests carry.

HS256 with the text of the access key as it stands; protocol reference 4.1 and 4.2. The service client and the embedded
server share it. Written here and not left to PyJWT, whose newer versions warn about keys under 32 bytes on every call:
the service makes the keys, and so decides about them. Checking tokens is left to PyJWT. Pure functions, safe from any
thread.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any, Dict, Iterable, Mapping, Optional

from ..exceptions import InvalidArgument

__all__ = ["CLIENT_PATHS", "client_path", "sign", "sign_client_token", "sign_rest_token"]

#: Where each kind of client connects, by the name of its protocol in lower case.
CLIENT_PATHS = {
    "default": "/client/hubs/",
    "mqtt": "/clients/mqtt/hubs/",
    "socketio": "/clients/socketio/hubs/",
}

_GROUPS = "webpubsub.group"
_NAME = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name"

#: Seconds for which the token of one REST request is good; it is made anew for every attempt.
REST_LIFETIME = 300


def client_path(hub: str, client_protocol: Any = "Default") -> str:
    """Return the path at which clients of a hub connect. Raises InvalidArgument for an unknown protocol."""
    path = CLIENT_PATHS.get(client_protocol.lower()) if isinstance(client_protocol, str) else None
    if path is None:
        raise InvalidArgument("client_protocol must be 'Default', 'MQTT' or 'SocketIO', not %.40r" % (client_protocol,))
    return path + hub


def sign(payload: Mapping[str, Any], key: str, headers: Optional[Mapping[str, Any]] = None) -> str:
    """Return a JWT signed by HS256; ``headers`` are further members of its header.

    Raises InvalidArgument for a header that asks for another algorithm, or that JSON cannot carry.
    """
    head: Dict[str, Any] = {"alg": "HS256", "typ": "JWT"}
    head.update(headers or {})
    if head["alg"] != "HS256":
        raise InvalidArgument("jwt_headers must not change the algorithm: access keys sign HS256 and nothing else")
    try:
        signed = b".".join(_base64(json.dumps(part, separators=(",", ":")).encode("ascii")) for part in (head, payload))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument("the token cannot carry what it is given: %s" % error) from None
    digest = hmac.new(key.encode("utf-8"), signed, hashlib.sha256).digest()
    return (signed + b"." + _base64(digest)).decode("ascii")


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sign_client_token(
    audience: str,
    key: str,
    *,
    user_id: Optional[str] = None,
    roles: Iterable[str] = (),
    groups: Iterable[str] = (),
    minutes_to_expire: float = 60,
    jwt_headers: Optional[Mapping[str, Any]] = None,
) -> str:
    """Return a token that admits a client at ``audience``: ``http(s)://host`` and the path of `client_path`.

    Without ``user_id`` (None or "") the client is anonymous. Raises InvalidArgument as `sign` does.
    """
    now = int(time.time())
    payload: Dict[str, Any] = {"aud": audience, "iat": now, "exp": now + int(minutes_to_expire * 60)}
    roles, groups = list(roles), list(groups)
    if user_id:
        payload["sub"] = user_id
    if roles:
        payload["role"] = roles
    if groups:
        payload[_GROUPS] = groups
    return sign(payload, key, jwt_headers)


def sign_rest_token(url: str, key: str, user: Optional[str] = None) -> str:
    """Return a token for one REST request; ``user`` is the name that the service notes as the caller's."""
    payload: Dict[str, Any] = {"aud": url, "exp": int(time.time()) + REST_LIFETIME}
    if user:
        payload[_NAME] = user
    return sign(payload, key)
