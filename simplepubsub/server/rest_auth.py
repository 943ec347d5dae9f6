"""Who may use the data plane: whoever signs a token for exactly this request with an access key.

Protocol reference 4.2. The audience of a token is the URL of its request. Clients write it with or without the query,
encoded or not, with the name that they know the server by; scheme, host and path must fit, in any case.
"""

from __future__ import annotations

import re
from typing import List, Set
from urllib.parse import unquote

from aiohttp import web

from .rest_requests import RestError, target_of
from .tokens import TokenRejected, Tokens

__all__ = ["authorize"]

_DEFAULT_PORT = re.compile(r"(http://[^/]*):80(?=/|$)|(https://[^/]*):443(?=/|$)")


def authorize(request: web.Request, tokens: Tokens, endpoint: str) -> None:
    """Let a request pass whose bearer token is good for it.

    ``endpoint`` is the server's own address; the ``Host`` that the client used is as good. Raises RestError with 401,
    whose text says what is wrong with the token and never contains it.
    """
    value = request.headers.get("Authorization")
    if value is None:
        text = "no token: send a JWT for this URL, signed with an access key, as Authorization: Bearer"
        raise _unauthorized(text, "Bearer")
    scheme, _, token = value.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthorized("the header Authorization must be Bearer and a token", "Bearer")
    try:
        found = tokens.made_out_to(token.strip())
    except TokenRejected as error:
        raise _unauthorized(str(error)) from None
    path = target_of(request)[0]
    hosts = dict.fromkeys((endpoint.partition("://")[2], request.host))
    urls = ["%s://%s%s" % (scheme, host, path) for host in hosts for scheme in ("http", "https")]
    if not any(_forms(audience) & forms for forms in map(_forms, urls) for audience in found):
        own = "%s://%s%s" % (request.scheme, request.host, path)
        expected = " or ".join(dict.fromkeys((own, endpoint + path)))
        text = "the token is for another audience: expected %s, got %s"
        raise _unauthorized(text % (ascii(expected)[1:-1][:2000], _shown(found)))


def _forms(url: str) -> Set[str]:
    """Return the spellings of a URL that count as equal: without query, in lower case, as it stands or decoded."""
    plain = url.partition("?")[0].partition("#")[0]
    return {_DEFAULT_PORT.sub(r"\1\2", text.lower()).rstrip("/") for text in (plain, unquote(plain))}


def _shown(audiences: List[str]) -> str:
    return " and ".join(ascii(item)[1:-1][:1000] for item in audiences[:5]) or "none"


def _unauthorized(text: str, challenge: str = 'Bearer error="invalid_token"') -> RestError:
    return RestError(401, "Error.Unauthorized", text, {"WWW-Authenticate": challenge})
