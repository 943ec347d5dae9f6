"""Dial a WebSocket and say precisely what went wrong.

websocket-client does the dial: handshake, cookies, redirects, and everything through a proxy. The one part it is
spared is
opening the socket of a direct connection: its own cannot be interrupted before it is connected, and a ``stop()``
must not
leave a thread behind that still waits for a network that does not answer.
"""

from __future__ import annotations

import functools
import socket
import ssl as ssl_module
import threading
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import websocket

from ..core.deadline import Deadline
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
from .tcp import open_tcp
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
        try:
            parts = urlsplit(proxy)
            if parts.scheme in PROXY_SCHEMES and parts.hostname and parts.port != 0:
                return
        except ValueError:  # brackets without an address, a port that is no number
            pass
    raise InvalidArgument(
        "proxy must be None (use the environment), False (no proxy) or a URL such as http://host:port or "
        "socks5://host:port, not %s" % (redact_url(proxy) if isinstance(proxy, str) else repr(proxy))
    )


def _environment_proxy(secure: bool, host: str) -> str:
    """Return the proxy that the environment (on Windows and macOS also the system) names for ``host``, "" for none."""
    proxy = getproxies().get("https" if secure else "http", "")
    return "" if not proxy or proxy_bypass(host) else proxy if "://" in proxy else "http://" + proxy


def _proxy_options(proxy: str) -> Dict[str, Any]:
    parts = urlsplit(proxy)
    options: Dict[str, Any] = {
        "http_proxy_host": parts.hostname,
        "http_proxy_port": parts.port or (80 if parts.scheme == "http" else 1080),
        "proxy_type": parts.scheme,
        "http_no_proxy": [""],  # the decision is made: no exceptions from the environment
    }
    if parts.username:
        options["http_proxy_auth"] = (unquote(parts.username), unquote(parts.password or ""))
    return options


#: Longest single network operation of a dial through a proxy in seconds. Connecting to the proxy and its answer
#: cannot be
#: interrupted from outside, so this is also how long a thread of an abandoned attempt can stay behind there.
PROXY_STEP_LIMIT = 10.0


class _TlsContext:
    """What websocket-client is given in place of the SSLContext when it dials through a proxy.

    It shows the socket to the dial before the TLS handshake, so that `abort` can reach it there too, and it keeps
    websocket-client from writing into a context that belongs to the user.
    """

    def __init__(self, dial: WebSocketDial, context: ssl_module.SSLContext) -> None:
        self._dial = dial
        self._context = context
        self.verify_mode = context.verify_mode
        self.check_hostname = context.check_hostname

    def wrap_socket(self, sock: socket.socket, server_hostname: str = "", **_options: object) -> ssl_module.SSLSocket:
        return self._dial.handshake_tls(sock, self._context, server_hostname)


@functools.lru_cache(maxsize=None)
def _default_context() -> ssl_module.SSLContext:
    # Loading the system's certificates takes longer than a whole handshake, and a recovery should not wait for it.
    return ssl_module.create_default_context()


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
        self.step = "resolving the host name (DNS)"
        self._lock = threading.Lock()  # guards the next two; leaf
        self._sock: Optional[socket.socket] = None  # what abort() shuts down
        self._aborted = False

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            sock = self._sock
        if sock is not None:
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except (OSError, ValueError):
                pass  # not connected yet: the shutdown still ends the attempt to

    def _show(self, sock: socket.socket) -> None:
        with self._lock:
            self._sock = sock
            if self._aborted:
                raise ConnectError("the attempt was given up")

    def connect(self, url: str, timeout: Optional[float]) -> Transport:
        shown = redact_url(url)
        deadline = Deadline(timeout)
        parts = urlsplit(url)
        secure = parts.scheme == "wss"
        host = parts.hostname or ""
        proxy = _environment_proxy(secure, host) if self._proxy is None else self._proxy or ""
        assert isinstance(proxy, str)
        dialler = websocket.WebSocket(enable_multithread=False)
        sock: Optional[socket.socket] = None
        step: Optional[float]
        try:
            if proxy:
                options = _proxy_options(proxy)
                self.step = "connecting through the proxy %s" % redact_url(proxy)
                remaining = deadline.remaining()
                step = PROXY_STEP_LIMIT if remaining is None else min(remaining, PROXY_STEP_LIMIT)
                if secure:
                    dialler = websocket.WebSocket(
                        enable_multithread=False, sslopt={"context": _TlsContext(self, self._context())}
                    )
            else:
                sock = open_tcp(host, parts.port or (443 if secure else 80), deadline, self._connecting)
                if secure:
                    sock = self.handshake_tls(sock, self._context(), host)
                self.step = "waiting for the answer to the WebSocket handshake"
                options, step = {"socket": sock}, deadline.remaining()
            if self._subprotocols:
                options["subprotocols"] = self._subprotocols
            dialler.connect(  # type: ignore[no-untyped-call]
                url, timeout=step, header=self._header_lines(), suppress_origin=True, redirect_limit=3, **options
            )
        except Exception as error:  # each step has exceptions of its own; _explain sorts them all
            if sock is not None:
                sock.close()
            raise self._explain(error, host, shown, proxy) from error
        return self._adopt(dialler, shown)

    def _connecting(self, sock: socket.socket) -> None:
        self.step = "connecting (TCP)"
        self._show(sock)

    def _context(self) -> ssl_module.SSLContext:
        return self._ssl or _default_context()

    def handshake_tls(self, sock: socket.socket, context: ssl_module.SSLContext, host: str) -> ssl_module.SSLSocket:
        """Return ``sock`` wrapped in TLS, visible to `abort` during the handshake."""
        self.step = "TLS handshake"
        tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        try:
            self._show(tls)
            tls.do_handshake()
        except BaseException:
            tls.close()
            raise
        return tls

    def _adopt(self, dialler: websocket.WebSocket, shown: str) -> WebSocketTransport:
        """Take the socket over from websocket-client, if the subprotocol is agreed."""
        sock = dialler.sock
        assert sock is not None
        dialler.sock = None
        agreed = dialler.getsubprotocol()
        if self._subprotocols and (agreed or "").lower() not in [name.lower() for name in self._subprotocols]:
            sock.close()
            raise SubprotocolRefused(
                "the peer accepted the upgrade without the subprotocol %s (it answered %r)"
                % (" or ".join(self._subprotocols), agreed),
                url=shown,
                hint="check that the URL names a Web PubSub client endpoint and that it supports this protocol",
            )
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

    def _explain(self, error: Exception, host: str, shown: str, proxy: str) -> ConnectError:
        """Return the typed error for whatever the dial raised: which step failed, with values, and the next step."""
        detail = redact_text(str(error)) or type(error).__name__
        if isinstance(error, ConnectError):
            return error
        if isinstance(error, websocket.WebSocketBadStatusException):
            return _rejected(error, shown)
        if isinstance(error, websocket.WebSocketProxyException) or type(error).__name__.startswith("Proxy"):
            return ConnectError(
                "the proxy %s refused or failed: %s" % (redact_url(proxy), detail),
                url=shown,
                hint="check the proxy address and its credentials, or pass proxy=False",
            )
        if isinstance(error, (websocket.WebSocketAddressException, socket.gaierror)):
            return ConnectError(
                "the host name %r cannot be resolved (DNS): %s" % (host, detail),
                url=shown,
                hint="check the spelling and the network",
            )
        if isinstance(error, (websocket.WebSocketTimeoutException, socket.timeout)):
            return ConnectTimeout(
                "no connection to %s in time: %s took too long" % (shown, self.step),
                url=shown,
                hint="check the host, the port, firewalls and proxies, or raise start_timeout",
            )
        if isinstance(error, ssl_module.SSLError):
            return _tls_error(error, host, detail, shown)
        if isinstance(error, ConnectionRefusedError):
            return ConnectError(
                "%s refuses connections (TCP): %s" % (shown, detail), url=shown, hint="is the server running?"
            )
        if isinstance(error, OSError):
            return ConnectError("%s with %s failed: %s" % (self.step, shown, detail), url=shown)
        if "ubprotocol" in detail:
            return SubprotocolRefused("the peer chose a subprotocol that was not offered: %s" % detail, url=shown)
        return ConnectError(
            "the WebSocket handshake with %s failed: %s: %s" % (shown, type(error).__name__, detail),
            url=shown,
            hint="check that a WebSocket server listens there",
        )


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
