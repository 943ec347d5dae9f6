"""`connect`: open a WebSocket and hand it over."""

from __future__ import annotations

import base64
import re
import ssl as ssl_module
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import SplitResult, quote, unquote, urlsplit

from .. import version
from ..core.deadline import check_timeout
from ..exceptions import InvalidArgument
from ..transports.dial import Opened, WebSocketDial, check_proxy
from ..transports.redact import redact_url
from .channel import Settings
from .connection import Connection
from .exceptions import InvalidURI
from .messages import Headers, Request, Response
from .poller import Poller

__all__ = ["ClientConnection", "connect"]

HeadersLike = Union[Mapping[str, str], Sequence[Tuple[str, str]], None]

#: Reads for every client connection of the process; it has a thread while there are any.
_POLLER = Poller("simplepubsub-websockets")

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_BLANK = re.compile(r"[\x00-\x20\x7f]")

#: Headers that the handshake itself sends.
_RESERVED = ("host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "sec-websocket-accept",
             "sec-websocket-protocol", "sec-websocket-extensions")


class ClientConnection(Connection):
    """The client's end of a WebSocket, made by `connect`."""


class Plan:
    """Everything about a connection but the socket: checked once, used for every attempt."""

    def __init__(
        self,
        uri: str,
        *,
        ssl: Union[ssl_module.SSLContext, bool, None] = None,
        origin: Optional[str] = None,
        subprotocols: Optional[Sequence[str]] = None,
        additional_headers: HeadersLike = None,
        user_agent_header: Optional[str] = None,
        proxy: Union[str, bool, None] = True,
        open_timeout: Optional[float] = 10.0,
        ping_interval: Optional[float] = 20.0,
        ping_timeout: Optional[float] = 20.0,
        close_timeout: float = 10.0,
        max_size: Optional[int] = 2**20,
        max_queue: int = 1000,
        unix: Optional[str] = None,
    ) -> None:
        self.url, login = _check_uri(uri)
        secure = self.url.startswith("wss:")
        if not secure and ssl not in (None, False):
            raise InvalidArgument("ssl is for wss:// addresses, not for %s" % redact_url(self.url))
        if ssl is not None and not isinstance(ssl, (bool, ssl_module.SSLContext)):
            raise InvalidArgument("ssl must be None, True or an ssl.SSLContext, not %s" % type(ssl).__name__)
        if ssl is False and secure:
            raise InvalidArgument("a wss:// address needs TLS: pass ssl=True or an ssl.SSLContext")
        self._ssl = ssl if isinstance(ssl, ssl_module.SSLContext) else None
        # True means the environment here and None no proxy; for the dial it is None and False.
        self._proxy: Union[str, bool, None] = None if proxy is True else False if proxy is None else proxy
        check_proxy(self._proxy)
        if unix is not None and not isinstance(unix, str):
            raise InvalidArgument("unix must be the path of a socket, not %r" % (unix,))
        if unix is not None and isinstance(proxy, str):
            raise InvalidArgument("a Unix socket is not reached through a proxy: pass unix or proxy")
        self.open_timeout = open_timeout
        check_timeout(open_timeout, "open_timeout")
        self.settings = check_settings(
            Settings(ping_interval, ping_timeout, close_timeout, max_size, max_queue)
        )
        self._subprotocols = check_subprotocols(subprotocols)
        self._unix = unix
        self._headers = _header_pairs(additional_headers)
        names = {name.lower() for name, _ in self._headers}
        if origin is not None:
            self._headers += _header_pairs([("Origin", origin)])
        if login is not None and "authorization" not in names:
            self._headers.append(("Authorization", "Basic " + login))
        self._user_agent = "simplepubsub/" + version.__version__ if user_agent_header is None else user_agent_header
        _header_pairs([("User-Agent", self._user_agent)])

    def dial(self) -> WebSocketDial:
        """Return one attempt to connect."""
        return WebSocketDial(
            subprotocols=self._subprotocols,
            ssl=self._ssl,
            proxy=self._proxy,
            headers=["%s: %s" % pair for pair in self._headers],
            user_agent=self._user_agent,
            unix_path=self._unix,
            may_ignore_subprotocols=True,
        )

    def take(self, opened: Opened, settled: Optional[Callable[[], None]] = None) -> ClientConnection:
        """Return the connection over the socket of a successful attempt."""
        try:
            parts = urlsplit(self.url)
            sent = Headers([("Host", parts.netloc), ("User-Agent", self._user_agent), *self._headers])
            return ClientConnection(
                opened.sock,
                _POLLER,
                self.settings,
                client=True,
                request=Request((parts.path or "/") + ("?" + parts.query if parts.query else ""), sent),
                response=Response(opened.status, Headers(opened.headers)),
                subprotocol=opened.subprotocol,
                settled=settled,
            )
        except BaseException:  # no descriptor or thread left for the poller, or Ctrl-C
            opened.sock.close()
            raise


def connect(uri: str, **options: Any) -> ClientConnection:
    """Open a WebSocket and return the connection; use it in a ``with`` block, or call ``close()`` at the end.

    Args:
        uri: ``ws://`` or ``wss://``; a user and password in it become basic authentication.
        ssl: an ``ssl.SSLContext`` for wss (own certificates, client certificates); None or True = the system's.
        origin, subprotocols, additional_headers, user_agent_header: for the handshake.
        proxy: True = from the environment, None = none, or a URL (``http://``, ``socks5://`` with the socks extra).
        open_timeout: limit for DNS, TCP, TLS, proxy and handshake together, in seconds; None = no limit.
        ping_interval, ping_timeout: keep-alive, in seconds; None = none.
        close_timeout: limit for the closing handshake, in seconds.
        max_size: largest message to receive, in bytes; None = no limit. A larger one closes the connection with 1009.
        max_queue: received messages that may wait before reading pauses.
        unix: path of a Unix socket to connect to, in place of the host in ``uri``.

    Redirects are followed. No extension is offered: messages travel uncompressed. Safe from any thread.

    Raises: InvalidURI, InvalidArgument, InvalidHandshake (a ConnectError) and its kinds: InvalidStatus,
    NegotiationError, ConnectTimeout (a builtin TimeoutError too).
    """
    plan = Plan(uri, **options)
    return plan.take(plan.dial().open(plan.url, plan.open_timeout))


def _check_uri(uri: Any) -> Tuple[str, Optional[str]]:
    """Return the URL without its user information, and that in base64. Raises InvalidURI."""
    if not isinstance(uri, str):
        raise InvalidURI("a URI must be a str, not %s" % type(uri).__name__)
    if _BLANK.search(uri):
        raise InvalidURI("the URI contains white space or control characters: quote them as %XX")
    try:
        parts = urlsplit(uri)
        host = parts.hostname
        if parts.port == 0:  # ValueError when it is no number at all
            raise ValueError
        parts = _ascii(parts)
    except ValueError:  # UnicodeError too
        raise InvalidURI("the URI has an unusable host or port: %s" % redact_url(uri)) from None
    if parts.scheme not in ("ws", "wss") or not host:
        raise InvalidURI("the URI %s must start with ws:// or wss:// and name a host" % redact_url(uri))
    if parts.fragment or uri.endswith("#"):
        raise InvalidURI("a WebSocket URI has no fragment (RFC 6455 section 3): %s" % redact_url(uri))
    login = None
    if parts.username is not None:
        pair = "%s:%s" % (unquote(parts.username), unquote(parts.password or ""))
        login = base64.b64encode(pair.encode()).decode("ascii")
        netloc = parts.netloc.rpartition("@")[2]
        parts = parts._replace(netloc=netloc)
    return parts.geturl(), login


def _ascii(parts: SplitResult) -> SplitResult:
    """Return the parts as they go over the wire: a name in other letters as IDNA, other characters as UTF-8 in %XX."""
    host = parts.hostname or ""
    netloc = parts.netloc
    if not _is_ascii(host):
        login, at, place = netloc.rpartition("@")
        netloc = login + at + place.lower().replace(host, host.encode("idna").decode("ascii"))
    return parts._replace(
        netloc=netloc,
        path=parts.path if _is_ascii(parts.path) else quote(parts.path, safe="/%:@!$&'()*+,;=~"),
        query=parts.query if _is_ascii(parts.query) else quote(parts.query, safe="/?%:@!$&'()*+,;=~"),
    )


def _is_ascii(text: str) -> bool:
    return len(text) == len(text.encode("utf-8", "replace"))


def check_settings(settings: Settings) -> Settings:
    """Return the settings. Raises InvalidArgument for a bad time or size."""
    for name in ("ping_interval", "ping_timeout", "close_timeout"):
        value = getattr(settings, name)
        check_timeout(value, name)
        if value == 0 and name != "close_timeout":
            raise InvalidArgument("%s must be above 0 seconds, or None to switch it off" % name)
    if settings.close_timeout is None:
        raise InvalidArgument("close_timeout must be a number of seconds: a close must end")
    for name in ("max_size", "max_queue"):
        value = getattr(settings, name)
        if not (type(value) is int and value > 0) and not (name == "max_size" and value is None):
            raise InvalidArgument("%s must be an integer > 0, not %r" % (name, value))
    return settings


def check_subprotocols(names: Optional[Sequence[str]]) -> List[str]:
    """Return the subprotocols as a list. Raises InvalidArgument for what is no token (RFC 6455 section 4.1)."""
    if names is None:
        return []
    if isinstance(names, str) or not all(isinstance(name, str) and _TOKEN.match(name) for name in names):
        raise InvalidArgument("subprotocols must be a list of names without spaces or separators, not %r" % (names,))
    return list(names)


def _header_pairs(headers: HeadersLike) -> List[Tuple[str, str]]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    result: List[Tuple[str, str]] = []
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InvalidArgument("additional_headers must be a dict or a list of (name, value)")
        name, value = pair
        if not isinstance(name, str) or not _TOKEN.match(name):
            raise InvalidArgument("%r is no header name" % (name,))
        if name.lower() in _RESERVED:
            raise InvalidArgument("the header %s is made by the handshake: see subprotocols, unix" % name)
        if not isinstance(value, str) or re.search(r"[\r\n\0]", value):
            raise InvalidArgument("the value of the header %s must be a str without line breaks" % name)
        result.append((name, value))
    return result
