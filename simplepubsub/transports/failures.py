"""Say precisely why a dial failed: which step, with which values, and what to do next."""

from __future__ import annotations

import socket
import ssl as ssl_module
from typing import Any, Callable, NamedTuple

import websocket

from ..exceptions import (
    AuthenticationError,
    ConnectError,
    ConnectTimeout,
    HandshakeRejected,
    SubprotocolRefused,
)
from .redact import redact_text, redact_url

__all__ = ["Place", "explain", "redirect_not_followed", "subprotocol_refused"]


class Place(NamedTuple):
    """Where the dial was when it failed. ``proxy`` is "" without one; ``hide`` masks the secrets of the URL."""

    step: str
    host: str
    shown_url: str
    proxy: str
    late: bool
    hide: Callable[[str], str]


def explain(error: Exception, place: Place) -> ConnectError:
    """Return the typed error for whatever the dial raised.

    It is chained to ``error``, unless the text of that holds a secret, which a traceback would show.
    """
    detail = redact_text(place.hide(str(error))) or type(error).__name__
    result = _typed(error, detail, place)
    if result is not error:
        result.__cause__ = error if detail in (str(error), type(error).__name__) else None
        result.__suppress_context__ = True
    return result


def _typed(error: Exception, detail: str, place: Place) -> ConnectError:
    shown = place.shown_url
    if isinstance(error, ConnectError):
        return error
    if isinstance(error, websocket.WebSocketBadStatusException):
        return _rejected(error, place)
    proxy_failed = isinstance(error, websocket.WebSocketProxyException) or type(error).__name__.startswith("Proxy")
    timed_out = isinstance(error, (websocket.WebSocketTimeoutException, socket.timeout))
    if timed_out or (proxy_failed and (place.late or _caused_by_timeout(error))):
        return ConnectTimeout(
            "no connection to %s in time: %s took too long" % (shown, place.step),
            url=shown,
            hint="check the host, the port, firewalls and proxies, or raise start_timeout",
        )
    if isinstance(error, ssl_module.SSLError):
        return _tls_error(error, detail, place)
    if proxy_failed or (place.proxy and isinstance(error, (OSError, websocket.WebSocketAddressException))):
        return ConnectError(
            "the proxy %s refused or failed: %s" % (redact_url(place.proxy), detail),
            url=shown,
            hint="check the proxy address and its credentials, or pass proxy=False",
        )
    if place.proxy and "python socks" in detail.lower():
        return ConnectError(
            "the proxy %s cannot be used: %s" % (redact_url(place.proxy), detail),
            url=shown,
            hint='pip install "simplepubsub[socks]", or pass an http:// proxy',
        )
    # UnicodeError: the name cannot be written in the form that DNS knows (an empty label, one of over 63 characters).
    if isinstance(error, (websocket.WebSocketAddressException, socket.gaierror, UnicodeError)):
        return ConnectError(
            "the host name %r cannot be resolved (DNS): %s" % (place.host, detail),
            url=shown,
            hint="check the spelling and the network",
        )
    if isinstance(error, ConnectionRefusedError):
        return ConnectError(
            "%s refuses connections (TCP): %s" % (shown, detail), url=shown, hint="is the server running?"
        )
    hint = "check that a WebSocket server listens there"
    if shown.startswith("ws:"):
        hint += ", and that it does not want wss"
    if isinstance(error, OSError):
        return ConnectError("%s with %s failed: %s" % (place.step, shown, detail), url=shown, hint=hint)
    return ConnectError(
        "the WebSocket handshake with %s failed: %s: %s" % (shown, type(error).__name__, detail), url=shown, hint=hint
    )


def _caused_by_timeout(error: BaseException) -> bool:
    inner = error.__cause__ or error.__context__
    return "Timeout" in type(error).__name__ or isinstance(
        inner, (websocket.WebSocketTimeoutException, socket.timeout)
    )


def _rejected(error: Any, place: Place) -> HandshakeRejected:
    status = int(error.status_code)
    body = getattr(error, "resp_body", None) or b""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
    text = redact_text(place.hide(text)).strip()[:500]
    hints = {
        400: "check the hub name and the query of the URL",
        401: "the token is missing, expired, or made for another hub or key: get a fresh client access URL",
        403: "the token is valid but not allowed to connect",
        404: "check the path: /client/hubs/<hub>",
        429: "the service limits the rate of connections: try again later",
    }
    kind = AuthenticationError if status in (401, 403) else HandshakeRejected
    message = "%s answered HTTP %d instead of upgrading%s" % (place.shown_url, status, ": " + text if text else "")
    return kind(message, status=status, body=text, url=place.shown_url, hint=hints.get(status, ""))


def _tls_error(error: ssl_module.SSLError, detail: str, place: Place) -> ConnectError:
    failed_check = isinstance(error, ssl_module.SSLCertVerificationError)
    result = ConnectError(
        "TLS with %r failed: %s" % (place.host, detail),
        url=place.shown_url,
        hint="pass ssl=ssl.create_default_context(cafile=...) if the service has a certificate of your own authority"
        if failed_check
        else "check that the port speaks TLS (wss) and not plain text (ws)",
    )
    result.fatal = failed_check
    return result


def subprotocol_refused(wanted: str, agreed: str, shown_url: str) -> SubprotocolRefused:
    """Return the error for an upgrade that was accepted without a subprotocol that was offered."""
    return SubprotocolRefused(
        "the peer accepted the upgrade without the subprotocol %s (it answered %s)"
        % (wanted, repr(agreed) if agreed else "none"),
        url=shown_url,
        hint="check that the URL names a Web PubSub client endpoint and that it supports this protocol",
    )


def redirect_not_followed(status: int, shown_target: str, shown_url: str) -> HandshakeRejected:
    """Return the error for a redirect that cannot or may not be followed."""
    return HandshakeRejected(
        "%s answered HTTP %d, a redirect to %s, which is not followed" % (shown_url, status, shown_target),
        status=status,
        url=shown_url,
        hint="check the host and the path of the URL",
    )
