"""Dial a WebSocket.

websocket-client does the dial: the handshake, cookies, and everything through a proxy. It is spared the opening of the
socket of a direct connection: its own cannot be interrupted before it is connected, and a ``stop()`` must not leave a
thread behind that still waits for a network that does not answer.
"""

from __future__ import annotations

import functools
import re
import socket
import ssl as ssl_module
import threading
import traceback
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import websocket

from ..core.deadline import Deadline
from ..core.protocol import Dial, Transport
from ..exceptions import ConnectError, InvalidArgument
from .failures import Place, explain, redirect_not_followed, subprotocol_refused
from .redact import MASK, redact_url
from .tcp import open_tcp, open_unix
from .websocket import WebSocketTransport

__all__ = ["Opened", "WebSocketDial", "check_proxy", "close_unfinished"]

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


#: How many redirects are followed, and what counts as one.
REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)


def _hider(url: str, proxy: str) -> Callable[[str], str]:
    """Return a function that masks in a text what this dial must not show, whatever it looks like."""
    secrets = {unquote(part) for text in (url, proxy) for part in (urlsplit(text).password or "",)}
    for pair in urlsplit(url).query.split("&"):
        secrets.add(pair.partition("=")[2])
    secrets.update(value for _, value in parse_qsl(urlsplit(url).query))
    # Short values are names (of a hub, say), and masking every "a" helps nobody.
    found = sorted((secret for secret in secrets if len(secret) >= 12), key=len, reverse=True)

    def hide(text: str) -> str:
        for secret in found:
            text = text.replace(secret, MASK)
        return text

    return hide


def _redirect(error: Optional[Exception], dialler: websocket.WebSocket) -> Optional[Tuple[int, str]]:
    """Return (status, location) if the answer was a redirect; its versions say so in different ways."""
    if isinstance(error, websocket.WebSocketBadStatusException):
        status, headers = error.status_code, error.resp_headers
    elif dialler.handshake_response is not None:
        status, headers = dialler.handshake_response.status, dialler.handshake_response.headers
    else:
        return None
    return (int(status), str((headers or {}).get("location", ""))) if status in _REDIRECTS else None


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


def close_unfinished(error: BaseException) -> None:
    """Close the TLS socket that ``wrap_socket`` had begun: CPython drops it unclosed if the peer has reset it."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        made = frame.f_locals.get("self")
        if isinstance(made, ssl_module.SSLSocket):
            made.close()


@functools.lru_cache(maxsize=None)
def _default_context() -> ssl_module.SSLContext:
    # Loading the system's certificates takes longer than a whole handshake, and a recovery should not wait for it.
    return ssl_module.create_default_context()


class Opened(NamedTuple):
    """A socket after the handshake, and what the server answered; ``headers`` are lower-case."""

    sock: socket.socket
    subprotocol: Optional[str]
    status: int
    headers: Dict[str, str]


class WebSocketDial(Dial):
    """One dial attempt.

    ``ssl`` None means the system's certificates; ``proxy`` as in `check_proxy`. ``unix_path`` connects to a Unix socket
    in place of the host that the URL names. Unless ``may_ignore_subprotocols`` the peer must choose one of them.
    """

    def __init__(
        self,
        *,
        subprotocols: Sequence[str] = (),
        ssl: Optional[ssl_module.SSLContext] = None,
        proxy: Union[str, bool, None] = None,
        headers: Headers = None,
        user_agent: str = "",
        max_size: Optional[int] = None,
        unix_path: Optional[str] = None,
        may_ignore_subprotocols: bool = False,
    ) -> None:
        self._unix_path = unix_path
        self._may_ignore_subprotocols = may_ignore_subprotocols
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
        opened = self.open(url, timeout)
        return WebSocketTransport(opened.sock, subprotocol=opened.subprotocol, max_size=self._max_size)

    def open(self, url: str, timeout: Optional[float]) -> Opened:
        """Return the socket after the handshake, redirects followed. Raises ConnectError, as `connect` does."""
        try:
            return self._open(url, Deadline(timeout))
        except Exception:
            raise
        except BaseException:  # Ctrl-C: nobody else knows the socket
            if self._sock is not None:
                self._sock.close()
            raise

    def _open(self, url: str, deadline: Deadline) -> Opened:
        first = urlsplit(url).netloc
        left = REDIRECTS
        while True:
            dialler, redirect = self._dial(url, deadline, own_headers=urlsplit(url).netloc == first)
            if redirect is None:
                return self._adopt(dialler, redact_url(url))
            if dialler.sock is not None:
                dialler.sock.close()
            status, location = redirect
            target = re.sub("^http", "ws", urljoin(url, location))
            scheme = urlsplit(target).scheme
            # Not followed: what is no WebSocket, and what would give up the encryption.
            if not left or scheme not in ("ws", "wss") or (url.startswith("wss:") and scheme == "ws"):
                raise redirect_not_followed(status, redact_url(target), redact_url(url))
            left -= 1
            url = target

    def _dial(
        self, url: str, deadline: Deadline, own_headers: bool
    ) -> Tuple[websocket.WebSocket, Optional[Tuple[int, str]]]:
        """Return websocket-client's object and, if the answer was a redirect, its status and where it leads."""
        parts = urlsplit(url)
        secure = parts.scheme == "wss"
        host = parts.hostname or ""
        from_environment = self._proxy is None and self._unix_path is None
        proxy = _environment_proxy(secure, host) if from_environment else self._proxy or ""
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
                options["http_proxy_timeout"] = step
                if secure:
                    dialler = websocket.WebSocket(
                        enable_multithread=False, sslopt={"context": _TlsContext(self, self._context())}
                    )
            else:
                self.step = "resolving the host name (DNS)"
                if self._unix_path is not None:
                    sock = open_unix(self._unix_path, deadline, self._connecting)
                else:
                    sock = open_tcp(host, parts.port or (443 if secure else 80), deadline, self._connecting)
                if secure:
                    sock = self.handshake_tls(sock, self._context(), host)
                self.step = "waiting for the answer to the WebSocket handshake"
                options, step = {"socket": sock}, deadline.remaining()
            dialler.connect(  # type: ignore[no-untyped-call]
                url,
                timeout=step,
                header=self._header_lines(own_headers),
                suppress_origin=True,
                redirect_limit=0,  # we follow them ourselves: its way there knows neither our TLS context nor abort()
                **options,
            )
        except Exception as error:  # noqa: BLE001  # each step has exceptions of its own; explain() sorts them all
            if sock is not None:
                sock.close()
            redirect = _redirect(error, dialler)
            if redirect is None:
                place = Place(self.step, host, redact_url(url), proxy, deadline.expired(), _hider(url, proxy))
                raise explain(error, place)  # noqa: B904  # chained there
            return dialler, redirect
        return dialler, _redirect(None, dialler)

    def _connecting(self, sock: socket.socket) -> None:
        self.step = "connecting (TCP)"
        self._show(sock)

    def _context(self) -> ssl_module.SSLContext:
        return self._ssl or _default_context()

    def handshake_tls(self, sock: socket.socket, context: ssl_module.SSLContext, host: str) -> ssl_module.SSLSocket:
        """Return ``sock`` wrapped in TLS, visible to `abort` during the handshake."""
        self.step = "TLS handshake"
        try:
            tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        except OSError as error:
            close_unfinished(error)
            raise
        try:
            self._show(tls)
            tls.do_handshake()
        except BaseException:
            tls.close()
            raise
        return tls

    def _adopt(self, dialler: websocket.WebSocket, shown: str) -> Opened:
        """Take the socket over from websocket-client, if the subprotocol is agreed."""
        sock = dialler.sock
        assert sock is not None
        dialler.sock = None
        headers = {str(name).lower(): str(value) for name, value in (dialler.getheaders() or {}).items()}
        # websocket-client would refuse a wrong one with the words "Invalid WebSocket Header", so it is not told what to
        # expect.
        agreed = headers.get("sec-websocket-protocol", "")
        wanted = [name.lower() for name in self._subprotocols]
        if agreed.lower() not in wanted and (agreed or not self._may_ignore_subprotocols) and (agreed or wanted):
            sock.close()
            raise subprotocol_refused(" or ".join(self._subprotocols), agreed, shown)
        return Opened(sock, agreed or None, int(dialler.getstatus() or 101), headers)

    def _header_lines(self, own: bool) -> List[str]:
        """Return the request's extra headers; ``own`` False leaves out those of the user, for a host not theirs."""
        headers = (self._headers or []) if own else []
        lines = (
            ["%s: %s" % (name, value) for name, value in headers.items()]
            if isinstance(headers, Mapping)
            else list(headers)
        )
        if self._user_agent and not any(line.lower().startswith("user-agent:") for line in lines):
            lines.append("User-Agent: " + self._user_agent)
        if self._subprotocols:
            lines.append("Sec-WebSocket-Protocol: " + ", ".join(self._subprotocols))
        return lines
