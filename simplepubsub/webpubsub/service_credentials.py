"""Who the service client is: an access key that signs, or a token credential that is asked.

Protocol reference 4.2 and 4.3.
"""

from __future__ import annotations

import threading
import time
from typing import Any, NamedTuple, Optional, Tuple, Union
from urllib.parse import urlsplit

from ..core.deadline import Deadline
from ..exceptions import InvalidArgument, ServiceTimeout
from .access_tokens import sign_rest_token
from .service_lines import PerProcess

__all__ = ["AzureKeyCredential", "KeySigner", "Signer", "TokenSigner", "make_signer"]

#: What a token credential is asked for.
SCOPES = ("https://webpubsub.azure.com/.default",)

#: Seconds before its end from which a token is replaced.
REFRESH_MARGIN = 300.0
#: Lifetime that is assumed, in seconds, for a token that does not say when it ends.
_UNKNOWN_LIFETIME = 600.0

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class AzureKeyCredential:
    """An access key that can be replaced while clients use it, as the official SDK has it."""

    def __init__(self, key: str) -> None:
        self.update(key)

    @property
    def key(self) -> str:
        """The key of now."""
        return self._key

    def update(self, key: str) -> None:
        """Replace the key for all requests from now on. Raises InvalidArgument unless it is text."""
        self._key = check_key(key)

    def __repr__(self) -> str:
        return "AzureKeyCredential('***')"


def check_key(key: Any) -> str:
    """Return an access key. Raises InvalidArgument unless it is text without white space; never shows it."""
    if not isinstance(key, str):
        raise InvalidArgument("the access key must be a str, not %s" % type(key).__name__)
    if not key or any(character.isspace() for character in key):
        raise InvalidArgument("the access key is %s" % ("empty" if not key.strip() else "broken by white space"))
    if "accesskey=" in key.lower():
        raise InvalidArgument("the access key is a connection string: use from_connection_string()")
    return key


class KeySigner:
    """Signs each request with the key of a credential."""

    def __init__(self, credential: Any, user: Optional[str]) -> None:
        self._credential = credential
        self._user = user
        self.key  # noqa: B018  # a bad one is named at once

    @property
    def key(self) -> str:
        """The key of now. Raises InvalidArgument."""
        return check_key(self._credential.key)

    def authorize(self, audience: str, deadline: Deadline) -> str:
        """Return a token for a request to ``audience``, the URL that the service knows itself by."""
        return sign_rest_token(audience, self.key, self._user)

    def refused(self) -> None:
        """Take note of a 401."""

    hint = "check that the access key belongs to this endpoint, and the clock of this machine"


class TokenSigner:
    """Asks a token credential, and keeps its token until shortly before it ends.

    One thread at a time asks, with no lock held; the others wait for it within their deadlines.
    """

    def __init__(self, credential: Any, scopes: Tuple[str, ...] = SCOPES) -> None:
        self._credential = credential
        self._scopes = scopes
        self._cache: PerProcess[_Cache] = PerProcess(_Cache, lambda _: None)

    def authorize(self, audience: str, deadline: Deadline) -> str:
        """Return a token. Raises what the credential raises, ServiceTimeout, and InvalidArgument for no token."""
        cache = self._cache.get()
        while True:
            with cache.lock:
                held = cache.held
                if held is not None and time.time() < held.refresh_at:
                    return held.token
                asking = cache.asking
                if asking is None:
                    mine = cache.asking = threading.Event()
            if asking is None:
                return self._ask(cache, mine)
            if not asking.wait(deadline.remaining()):
                raise ServiceTimeout("no token in time: another thread is still asking the credential for it")

    def _ask(self, cache: _Cache, mine: threading.Event) -> str:
        held: Optional[_Held] = None
        try:
            held = _read_token(self._credential.get_token(*self._scopes))
            return held.token
        finally:
            with cache.lock:
                cache.held, cache.asking = held, None
            mine.set()

    def refused(self) -> None:
        """Take note of a 401: the next call asks the credential again."""
        cache = self._cache.get()
        with cache.lock:
            cache.held = None

    hint = "check that the identity has the role 'Web PubSub Service Owner'; a new role may need 30 minutes"


class _Held(NamedTuple):
    token: str
    refresh_at: float  # on the clock of time.time(), which tokens use


class _Cache:
    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards the next two; leaf
        self.held: Optional[_Held] = None
        self.asking: Optional[threading.Event] = None


def _read_token(made: Any) -> _Held:
    token = getattr(made, "token", None)
    if not isinstance(token, str) or not token or any(ord(character) <= 32 for character in token):
        raise InvalidArgument("get_token() of the credential returned no token but an object of type %s"
                              % type(made).__name__)
    now = time.time()
    ends = getattr(made, "expires_on", None)
    if isinstance(ends, bool) or not isinstance(ends, (int, float)):
        ends = now + _UNKNOWN_LIFETIME
    # A token that lives shorter than the margin is used for half of what is left.
    return _Held(token, max(ends - REFRESH_MARGIN, now + (ends - now) / 2))


#: What authorizes the requests of a client.
Signer = Union[KeySigner, TokenSigner]


class _Fixed(NamedTuple):
    key: str

    def __repr__(self) -> str:
        return "_Fixed('***')"


def make_signer(credential: Any, endpoint: str, user: Optional[str], enforce_https: bool) -> Signer:
    """Return what authorizes requests by ``credential``: an access key, an object with ``key`` or ``get_token()``.

    Raises InvalidArgument for anything else, and for a token credential that would send its token unencrypted to
    another machine.
    """
    if isinstance(credential, str):
        return KeySigner(_Fixed(credential), user)
    if hasattr(credential, "key"):
        return KeySigner(credential, user)
    if callable(getattr(credential, "get_token", None)):
        parts = urlsplit(endpoint)
        if enforce_https and parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise InvalidArgument(
                "the token of a credential must not travel over http to %s: use an https endpoint, or pass "
                "enforce_https=False" % parts.hostname
            )
        return TokenSigner(credential)
    raise InvalidArgument(
        "credential must be an access key, an object with a key, or one with get_token(), not %s"
        % type(credential).__name__
    )
