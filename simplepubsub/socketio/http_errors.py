"""Errors of the HTTP side of Engine.IO: typed, with status, code and message, and without secrets.

The two kinds of servers answer errors in different forms (protocol reference 1.10); `payload` is the decoded body of
either.
"""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any, List, Optional, Set, Tuple
from urllib.parse import parse_qsl, unquote, urlsplit

import requests

from ..exceptions import AuthenticationError, ConnectError, ConnectTimeout, HandshakeRejected, TransportError
from ..transports.guarded import Aborted
from ..transports.redact import MASK, redact_text

__all__ = [
    "EngineForbidden",
    "EngineRejected",
    "Hider",
    "SessionRejected",
    "connect_error",
    "rejected",
    "session_error",
    "session_rejected",
    "with_hint",
]

#: Shorter values are names, and masking every "a" helps nobody.
SHORTEST_SECRET = 12


class EngineRejected(HandshakeRejected):
    """The server answered the opening of a session with an HTTP error.

    ``code`` is Engine.IO's number for the error, None without one; ``payload`` the decoded body if it is JSON, or None.
    """

    def __init__(self, message: str, *, code: Optional[int] = None, payload: Any = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.code = code
        self.payload = payload


class EngineForbidden(EngineRejected, AuthenticationError):
    """The application refused the session: 401 or 403."""


class SessionRejected(TransportError):
    """The server answered a request of an open session with an HTTP error; the session is lost."""

    def __init__(self, message: str, *, status: int, code: Optional[int] = None, payload: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.payload = payload


class Hider:
    """Masks in texts what must not be shown: tokens in the URL, passwords, the id of the session."""

    def __init__(self, url: str) -> None:
        self._secrets: Set[str] = set()
        self.learn(url)

    def learn(self, url: str) -> None:
        """Hide the values in the query of this URL too, and its password."""
        parts = urlsplit(url)
        for pair in parts.query.split("&"):
            self.add(pair.partition("=")[2])
        for _, value in parse_qsl(parts.query):
            self.add(value)
        if parts.password:
            self._secrets.update((parts.password, unquote(parts.password)))

    def add(self, secret: str) -> None:
        """Hide this too, unless it is short."""
        if len(secret) >= SHORTEST_SECRET:
            self._secrets.add(secret)

    def __call__(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return redact_text(text)


def _body(body: bytes, hide: Hider) -> Tuple[str, Optional[int], Any]:
    """Return the message for people, the code, and the payload."""
    text = hide(body.decode("utf-8", "replace")).strip()
    try:
        payload = json.loads(text)
    except ValueError:
        # A page of a proxy in between says nothing that its status does not.
        return ("" if text.startswith("<") else text[:500]), None, None
    if isinstance(payload, dict):
        code, message = payload.get("code"), payload.get("message")
        shown = message if isinstance(message, str) else text[:500]
        return shown, code if isinstance(code, int) and not isinstance(code, bool) else None, payload
    return payload if isinstance(payload, str) else text[:500], None, payload


def _told(status: int, message: str, code: Optional[int]) -> str:
    told = "HTTP %d" % status
    if message:
        told += ": " + message
    return told + (" (code %d)" % code if code is not None else "")


def _hint(status: int, code: Optional[int]) -> str:
    if code == 1:
        return "with several servers behind one address, use transports=['websocket'] or sticky sessions"
    if status in (401, 403):
        return "the server wants other credentials: check the query, the headers and the token"
    if status == 404:
        return "check socketio_path, which is 'socket.io' unless the server says otherwise"
    return "the server, or a proxy in front of it, has a problem" if status >= 500 else ""


def rejected(status: int, body: bytes, shown_url: str, hide: Hider) -> EngineRejected:
    """Return the error for an HTTP answer that opens no session."""
    message, code, payload = _body(body, hide)
    kind = EngineForbidden if status in (401, 403) else EngineRejected
    return kind(
        "%s answered %s" % (shown_url, _told(status, message, code)),
        status=status,
        body=hide(body.decode("utf-8", "replace")),
        code=code,
        payload=payload,
        url=shown_url,
        hint=_hint(status, code),
    )


def session_rejected(method: str, status: int, body: bytes, hide: Hider) -> SessionRejected:
    """Return the error for an HTTP error within an open session."""
    message, code, payload = _body(body, hide)
    text = "the server answered a %s of the session with %s" % (method, _told(status, message, code))
    return SessionRejected(text, status=status, code=code, payload=payload)


def _causes(error: BaseException) -> List[BaseException]:
    """Return ``error`` and everything that it was made from, the innermost last."""
    found: List[BaseException] = []
    todo: List[Any] = [error]
    while todo and len(found) < 30:
        item = todo.pop(0)
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            todo += [item.__cause__, item.__context__, getattr(item, "reason", None)]
            todo += item.args
    return found


def _first(causes: List[BaseException], *kinds: Any) -> Optional[BaseException]:
    return next((cause for cause in reversed(causes) if isinstance(cause, kinds)), None)


def _detail(causes: List[BaseException], hide: Hider) -> Tuple[str, Optional[BaseException]]:
    """Return the text of the innermost system error, and it; the texts around it repeat the URL."""
    root = _first(causes[1:], OSError) or causes[-1]
    text = str(root)
    shown = hide(text)
    return shown or type(root).__name__, root if shown == text else None


def connect_error(error: BaseException, step: str, shown_url: str, hide: Hider, proxied: bool) -> ConnectError:
    """Return the typed error for whatever requests raised while a session was opened."""
    causes = _causes(error)
    detail, root = _detail(causes, hide)
    host = urlsplit(shown_url).hostname or ""
    result: ConnectError
    certificate = _first(causes, ssl.SSLCertVerificationError)
    if _first(causes, Aborted):
        result = ConnectError("the attempt was given up", url=shown_url)
    elif certificate is not None:
        result = ConnectError(
            "TLS with %r failed: %s" % (host, hide(str(certificate))),
            url=shown_url,
            hint="give http_session.verify the file of your certificate authority, or ssl_verify=False for tests",
        )
        result.fatal = True
    elif isinstance(error, requests.exceptions.ProxyError) or (proxied and "proxy" in step):
        text = "the proxy for %s refused or failed: %s" % (shown_url, detail)
        result = ConnectError(text, url=shown_url, hint="check http_session.proxies and the environment")
    elif _first(causes, socket.gaierror, UnicodeError):
        text = "the host name %r cannot be resolved (DNS): %s" % (host, detail)
        result = ConnectError(text, url=shown_url, hint="check the spelling and the network")
    elif _first(causes, ConnectionRefusedError):
        text = "%s refuses connections (TCP): %s" % (shown_url, detail)
        result = ConnectError(text, url=shown_url, hint="is the server running?")
    elif isinstance(error, (requests.Timeout, socket.timeout)) or _first(causes, socket.timeout, requests.Timeout):
        text = "no session with %s in time: %s took too long" % (shown_url, step)
        hint = "check the host, the port, firewalls and proxies, or raise request_timeout"
        result = ConnectTimeout(text, url=shown_url, hint=hint)
    else:
        hint = "check that a Socket.IO server listens there"
        if shown_url.startswith("http:"):
            hint += ", and that it does not want https"
        result = ConnectError("%s with %s failed: %s" % (step, shown_url, detail), url=shown_url, hint=hint)
    result.__cause__ = root
    result.__suppress_context__ = True
    return result


def session_error(method: str, error: BaseException, hide: Hider) -> TransportError:
    """Return the error for a request of an open session that got no answer."""
    detail, root = _detail(_causes(error), hide)
    result = TransportError("a %s of the session failed: %s" % (method, detail))
    result.__cause__ = root
    result.__suppress_context__ = True
    return result


def with_hint(error: ConnectError, hint: str) -> ConnectError:
    """Return ``error`` with another hint: those of the dial speak of a different service."""
    text = str(error)
    if error.hint and text.endswith("; " + error.hint):
        text = text[: -len("; " + error.hint)]
    made = type(error)(text, url=error.url, hint=hint)
    made.fatal = error.fatal
    made.__cause__ = error.__cause__
    made.__suppress_context__ = True
    return made
