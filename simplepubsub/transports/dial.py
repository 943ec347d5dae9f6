"""Dial a WebSocket with websocket-client and say precisely what went wrong.

DNS, TCP, proxy, TLS and handshake share one limit: the caller waits for the attempt and aborts it when the time is up,
because websocket-client applies its timeout to each network operation in turn.
"""

from __future__ import annotations

import socket
import ssl as ssl_module
import threading
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union
from urllib.parse import unquote, urlsplit

import websocket

from ..core.protocol import Dial, Transport
from ..exceptions import (
    AuthenticationError,
    ConnectError,
    ConnectTimeout,
    HandshakeRejected,
    InvalidArgument,
    SubprotocolRefused,
)
from .redact import redact_text, redact_url
from .websocket import WebSocketTransport

__all__ = ["WebSocketDial", "check_proxy"]

Headers = Union[Mapping[str, str], Sequence[str], None]

#: Proxy schemes that websocket-client understands; all but http need python-socks.
PROXY_SCHEMES = ("http", "socks4", "socks4a", "socks5", "socks5h")


def check_proxy(proxy: Union[str, bool, None]) -> None:
    """Raise InvalidArgument unless ``proxy`` is None (from the environment), False (none) or a proxy URL."""
    if proxy is None or proxy is False:
        return
    if isinstance(proxy, str):
        parts = urlsplit(proxy)
        if parts.scheme in PROXY_SCHEMES and parts.hostname:
            return
    raise InvalidArgument(
        "proxy must be None (use the environment), False (no proxy) or a URL such as http://host:port or "
        "socks5://host:port, not %s" % (redact_url(proxy) if isinstance(proxy, str) else repr(proxy))
    )


def _proxy_options(proxy: Union[str, bool, None]) -> Dict[str, Any]:
    if proxy is None:
        return {}  # websocket-client reads http_proxy, https_proxy and no_proxy
    if proxy is False:
        return {"http_no_proxy": ["*"]}
    assert isinstance(proxy, str)
    parts = urlsplit(proxy)
    options: Dict[str, Any] = {
        "http_proxy_host": parts.hostname,
        "http_proxy_port": parts.port or (80 if parts.scheme == "http" else 1080),
        "proxy_type": parts.scheme,
        "http_no_proxy": [""],  # an explicit proxy is meant: no exceptions from the environment
    }
    if parts.username:
        options["http_proxy_auth"] = (unquote(parts.username), unquote(parts.password or ""))
    return options


#: Longest single network operation of a dial in seconds. TCP connect and a proxy's answer cannot be interrupted from outside,
#: so this is also how long a thread of an abandoned attempt can stay behind.
STEP_LIMIT = 10.0


class _AbortableSocket(websocket.WebSocket):
    """A dialler whose socket another thread can shut down at any step."""

    def abort(self) -> None:
        sock = self.sock
        if sock is not None:
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except (OSError, ValueError):
                pass


class _TlsContext:
    """What websocket-client is given in place of the SSLContext.

    It shows the socket to the dialler before the TLS handshake, so that `abort` can reach it there too, and it keeps
    websocket-client from writing into a context that belongs to the user.
    """

    def __init__(self, context: ssl_module.SSLContext) -> None:
        self._context = context
        self.dialler: Optional[_AbortableSocket] = None
        self.verify_mode = context.verify_mode
        self.check_hostname = context.check_hostname

    def wrap_socket(self, sock: socket.socket, server_hostname: str = "", **_options: object) -> ssl_module.SSLSocket:
        tls = self._context.wrap_socket(sock, server_hostname=server_hostname, do_handshake_on_connect=False)
        try:
            if self.dialler is not None:
                self.dialler.sock = tls
            tls.do_handshake()
        except BaseException:
            tls.close()
            raise
        return tls


class WebSocketDial(Dial):
    """One dial attempt. ``ssl`` None means the system's certificates; ``proxy`` as in `check_proxy`."""

    def __init__(
        self,
        *,
        subprotocols: Sequence[str] = (),
        ssl: Optional[ssl_module.SSLContext] = None,
        proxy: Union[str, bool, None] = None,
        headers: Headers = None,
        user_agent: str = "",
        max_size: Optional[int] = None,
    ) -> None:
        self._subprotocols = list(subprotocols)
        self._ssl = ssl
        self._proxy = proxy
        self._headers = headers
        self._user_agent = user_agent
        self._max_size = max_size
        self._dialler: Optional[_AbortableSocket] = None
        self._lock = threading.Lock()  # guards the next one and the hand-over of _dialler
        self._aborted = False

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            dialler = self._dialler
        if dialler is not None:
            dialler.abort()

    def connect(self, url: str, timeout: Optional[float]) -> Transport:
        shown = redact_url(url)
        context = (
            _TlsContext(self._ssl or ssl_module.create_default_context()) if url.lower().startswith("wss:") else None
        )
        dialler = _AbortableSocket(sslopt={} if context is None else {"context": context}, enable_multithread=False)
        if context is not None:
            context.dialler = dialler
        with self._lock:
            self._dialler = dialler
            if self._aborted:
                raise ConnectError("the attempt was given up", url=shown)
        options: Dict[str, Any] = _proxy_options(self._proxy)
        if self._subprotocols:
            options["subprotocols"] = self._subprotocols
        step = STEP_LIMIT if timeout is None else min(timeout, STEP_LIMIT)
        try:
            dialler.connect(  # type: ignore[no-untyped-call]
                url, timeout=step, header=self._header_lines(), suppress_origin=True, redirect_limit=3, **options
            )
        except Exception as error:  # every step has exceptions of its own; _explain sorts them, unknown ones included
            raise self._explain(error, url, shown, step) from error
        sock = dialler.sock
        assert sock is not None
        # The answer of the handshake decides; websocket-client has checked that it was offered.
        agreed = dialler.getsubprotocol()
        if self._subprotocols and (agreed or "").lower() not in [name.lower() for name in self._subprotocols]:
            sock.close()
            raise SubprotocolRefused(
                "the peer accepted the upgrade without the subprotocol %s (it answered %r)"
                % (" or ".join(self._subprotocols), agreed),
                url=shown,
                hint="check that the URL names a Web PubSub client endpoint and that it supports this protocol",
            )
        dialler.sock = None  # ours from here on
        return WebSocketTransport(sock, subprotocol=agreed, max_size=self._max_size)

    def _header_lines(self) -> List[str]:
        headers = self._headers or []
        lines = (
            ["%s: %s" % (name, value) for name, value in headers.items()]
            if isinstance(headers, Mapping)
            else list(headers)
        )
        if self._user_agent and not any(line.lower().startswith("user-agent:") for line in lines):
            lines.append("User-Agent: " + self._user_agent)
        return lines

    def _explain(self, error: Exception, url: str, shown: str, step: float) -> ConnectError:
        """Return the typed error for whatever the dial raised: which step failed, with values, and the next step."""
        host = urlsplit(url).hostname or ""
        detail = redact_text(str(error)) or type(error).__name__
        if isinstance(error, websocket.WebSocketBadStatusException):
            return _rejected(error, shown)
        if isinstance(error, websocket.WebSocketProxyException) or type(error).__name__.startswith("Proxy"):
            return ConnectError(
                "the proxy %s refused or failed: %s" % (self._shown_proxy(), detail),
                url=shown,
                hint="check the proxy address and its credentials, or pass proxy=False",
            )
        if isinstance(error, (websocket.WebSocketAddressException, socket.gaierror)):
            return ConnectError(
                "the host name %r cannot be resolved (DNS): %s" % (host, detail),
                url=shown,
                hint="check the spelling and DNS",
            )
        if isinstance(error, ssl_module.SSLError):
            return _tls_error(error, host, detail, shown)
        if isinstance(error, (websocket.WebSocketTimeoutException, socket.timeout)):
            return ConnectTimeout(
                "no answer from %s within %.1f s" % (shown, step),
                url=shown,
                hint="check the host, the port, firewalls and proxies, or raise start_timeout",
            )
        if isinstance(error, ConnectionRefusedError):
            return ConnectError(
                "%s refuses connections (TCP): %s" % (shown, detail), url=shown, hint="is the server running?"
            )
        if isinstance(error, OSError):
            return ConnectError("TCP connection to %s failed: %s" % (shown, detail), url=shown)
        if "ubprotocol" in detail:
            return SubprotocolRefused("the peer chose a subprotocol that was not offered: %s" % detail, url=shown)
        return ConnectError(
            "the WebSocket handshake with %s failed: %s: %s" % (shown, type(error).__name__, detail),
            url=shown,
            hint="check that a WebSocket server listens there",
        )

    def _shown_proxy(self) -> str:
        return redact_url(self._proxy) if isinstance(self._proxy, str) else "of the environment"


def _rejected(error: Any, shown: str) -> HandshakeRejected:
    status = int(error.status_code)
    body = getattr(error, "resp_body", None) or b""
    text = redact_text(body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)).strip()[:500]
    hints = {
        400: "check the hub name and the query of the URL",
        401: "the token is missing, expired, or made for another hub or key: get a fresh client access URL",
        403: "the token is valid but not allowed to connect",
        404: "check the path: /client/hubs/<hub>",
        429: "the service limits the rate of connections: try again later",
    }
    kind = AuthenticationError if status in (401, 403) else HandshakeRejected
    message = "%s answered HTTP %d instead of upgrading%s" % (shown, status, ": " + text if text else "")
    return kind(message, status=status, body=text, url=shown, hint=hints.get(status, ""))


def _tls_error(error: ssl_module.SSLError, host: str, detail: str, shown: str) -> ConnectError:
    failed_check = isinstance(error, ssl_module.SSLCertVerificationError)
    result = ConnectError(
        "TLS with %r failed: %s" % (host, detail),
        url=shown,
        hint="pass ssl=ssl.create_default_context(cafile=...) if the service has a certificate of your own authority"
        if failed_check
        else "check that the port speaks TLS (wss) and not plain text (ws)",
    )
    result.fatal = failed_check
    return result
