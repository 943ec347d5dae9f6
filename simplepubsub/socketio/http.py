"""The HTTP side of one Engine.IO session: its requests for polling, and the dial of its WebSocket.

Both legs take their settings from one place, a session of requests: what it would put on a request (headers, cookies,
credentials, query) goes on the upgrade as well, and its TLS and proxy settings are those of both.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

import requests
from requests.cookies import get_cookie_header
from requests.structures import CaseInsensitiveDict
from requests.utils import default_user_agent, select_proxy

from ..core.deadline import Deadline
from ..exceptions import ConnectError, HandshakeRejected, InvalidArgument
from ..transports.dial import WebSocketDial, check_proxy
from ..transports.polling import Wire, twin_session
from ..transports.redact import MASK, redact_url
from .http_errors import Hider, connect_error, rejected, session_error, session_rejected, with_hint
from .http_options import HttpOptions, check_headers
from .http_tls import adapter_context, make_context
from .seams import Target

__all__ = ["Dialled", "Legs", "check_url"]

#: What the protocol puts into the query.
RESERVED = ("EIO", "transport", "sid", "t", "j", "b64")

#: Headers of a request that say nothing on an upgrade, or something else.
_NOT_ON_UPGRADE = re.compile("(?i)(accept|accept-encoding|connection|upgrade|host|content-.*|sec-websocket-.*)$")

#: A kept connection is not used again so shortly (seconds) before the server said it would close it.
KEEP_ALIVE_MARGIN = 1.0


class _Redactor(logging.Filter):
    """Takes the query out of what urllib3 logs about our requests: it holds the session's id, and tokens."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                arg.partition("?")[0] + "?" + MASK if isinstance(arg, str) and "EIO=4&transport=" in arg else arg
                for arg in record.args
            )
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_Redactor())


class Dialled(NamedTuple):
    """A WebSocket dial that is ready to go; ``timeout`` limits it."""

    dial: WebSocketDial
    url: str
    timeout: Optional[float]


class _Direction:
    """One session of requests, used by one thread at a time, and when its connection must not be used any more."""

    def __init__(self, base: requests.Session, connect_timeout: Optional[float]) -> None:
        self.wire = Wire(connect_timeout)
        self.session = twin_session(base, self.wire)
        self.cookies = -1  # the version that it has
        self._stale: Optional[float] = None

    def before(self) -> None:
        if self._stale is not None and time.monotonic() >= self._stale:
            self.close()  # a POST on a connection that the server is closing would be lost

    def close(self) -> None:
        self.session.close()
        self.wire.release()

    def after(self, response: requests.Response) -> None:
        found = re.search(r"timeout=(\d+)", response.headers.get("Keep-Alive", ""))
        seconds = max(0.0, int(found.group(1)) - KEEP_ALIVE_MARGIN) if found else None
        self._stale = None if seconds is None else time.monotonic() + seconds


class Legs:
    """Everything HTTP that one session needs. `poll` and `post` belong to a thread each, `abort` to any.

    Raises InvalidArgument for an URL, headers or settings that cannot be used.
    """

    def __init__(self, target: Target, options: HttpOptions) -> None:
        self._options = options
        self._secure, self._base = _base_url(target)
        self.shown_url = redact_url(self._base)
        self.hide = Hider(target.url)
        base = options.session()
        options.cookies.begin(base.cookies)
        self._headers: Any = CaseInsensitiveDict(check_headers(target.headers))
        self._cookie = _take(self._headers, "Cookie")
        for name in ("Authorization", "Cookie"):
            self.hide.add(str(target.headers.get(name, "")))
        agent = base.headers.get("User-Agent", "")
        if options.user_agent and "User-Agent" not in self._headers and agent in ("", default_user_agent()):
            self._headers["User-Agent"] = options.user_agent
        self._get = _Direction(base, options.request_timeout)
        self._post = _Direction(base, options.request_timeout)
        if not options.ssl_verify:
            self._get.session.verify = self._post.session.verify = False
        self._sid = ""
        self._longest = options.request_timeout

    @property
    def wires(self) -> Tuple[Wire, Wire]:
        """What ends the GET and the POST in progress."""
        return self._get.wire, self._post.wire

    def own(self, sid: str, patience: float) -> None:
        """Put the id of the session on every request from now on; an answer may take ``patience`` seconds."""
        self._sid = sid
        self._longest = max(patience, self._options.request_timeout or 0.0)
        self.hide.add(sid)

    def abort(self) -> None:
        """Make the requests in progress, and later ones, fail at once."""
        for wire in self.wires:
            wire.abort()

    def release(self) -> None:
        """Close the connections; nobody uses them any more."""
        self._get.close()
        self._post.close()

    # --- polling ---

    def handshake(self, deadline: Deadline) -> bytes:
        """Return the body of the first GET. Raises ConnectError; redirects are followed, also by what comes later."""
        wire = self._get.wire
        limit = Deadline(_least(self._options.request_timeout, deadline.remaining()))
        wire.limit = limit.remaining
        proxied = False
        try:
            proxied = bool(select_proxy(self._base, self._settings(self._get.session, self._base)["proxies"]))
            response = self._request(self._get, "GET", None, redirects=True)
            if response.history:
                self._moved(response)
        except (InvalidArgument, requests.exceptions.InvalidHeader) as error:
            raise InvalidArgument(self.hide(str(error))) from None
        except (requests.RequestException, OSError, ValueError) as error:
            raise connect_error(error, wire.step, self.shown_url, self.hide, proxied) from None
        if not response.ok or response.status_code >= 300:
            raise rejected(response.status_code, response.content, self.shown_url, self.hide)
        return response.content

    def poll(self, limit: Callable[[], Optional[float]]) -> bytes:
        """Return the body of a GET within the session. Raises TransportError; ``limit`` is that of `Wire`."""
        return self._exchange(self._get, "GET", None, limit)

    def post(self, body: bytes, limit: Callable[[], float]) -> None:
        """Send one body. Raises TransportError, also when the answer takes longer than that to a poll may."""
        whole = Deadline(self._longest)
        self._exchange(self._post, "POST", body, lambda: _least(limit(), whole.remaining()))

    def _exchange(
        self, direction: _Direction, method: str, body: Optional[bytes], limit: Callable[[], Optional[float]]
    ) -> bytes:
        direction.wire.limit = limit
        try:
            # A redirected POST would come out as a second GET.
            response = self._request(direction, method, body, redirects=method == "GET")
        except (requests.RequestException, OSError, ValueError) as error:
            raise session_error(method, error, self.hide) from None
        if not response.ok or response.status_code >= 300:
            raise session_rejected(method, response.status_code, response.content, self.hide)
        return response.content

    def _request(
        self, direction: _Direction, method: str, body: Optional[bytes], redirects: bool
    ) -> requests.Response:
        session = direction.session
        direction.before()
        direction.cookies = self._options.cookies.bring(session, direction.cookies)
        url = self._url("polling", stamp=method == "GET")
        headers = self._request_headers(session, url)
        if body is not None:
            headers["Content-Type"] = "text/plain;charset=UTF-8"
        connect = _least(direction.wire.connect_timeout, direction.wire.limit())
        connect = None if connect is None else max(connect, 0.001)
        try:
            response = session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=(connect, self._longest),  # for adapters without a wire, which knows better
                allow_redirects=redirects,
                stream=False,
                verify=None if session.verify is True else session.verify,  # the environment does not overrule it
            )
        except requests.HTTPError as error:
            if error.response is None:
                raise
            response = error.response  # a hook of the user calls raise_for_status(): we say it better
        self._options.cookies.learn(response)
        direction.after(response)
        return response

    def _request_headers(self, session: requests.Session, url: str) -> Any:
        """Return the user's headers for one request, in a copy, with the user's Cookie header and the jar joined."""
        headers = self._headers.copy()
        if self._cookie:
            jar: str = get_cookie_header(session.cookies, requests.Request("GET", url)) or ""  # type: ignore[no-untyped-call]
            headers["Cookie"] = _join_cookies(self._cookie, jar)
        return headers

    def _url(self, transport: str, stamp: bool) -> str:
        url = "%sEIO=4&transport=%s" % (self._base, transport)
        if self._sid:
            url += "&sid=" + quote(self._sid, safe="")
        return url + ("&t=%.6f" % time.time() if stamp and self._options.timestamp_requests else "")

    def _moved(self, response: requests.Response) -> None:
        """Stay where the handshake was redirected to; credentials do not go to another host."""
        before, url = response.history[0].url, response.url
        parts = urlsplit(url)
        query = [part for part in parts.query.split("&") if part and part.partition("=")[0] not in RESERVED]
        self._secure = parts.scheme == "https"
        self.hide.learn(url)
        self._base = urlunsplit((parts.scheme, parts.netloc, parts.path, "&".join(query + [""]), ""))
        if not query:
            self._base += "?"
        self.shown_url = redact_url(self._base)
        strip: Any = self._get.session.should_strip_auth
        if strip(before, url):
            self._headers.pop("Authorization", None)
            self._cookie = ""
            for direction in (self._get, self._post):
                direction.session.auth = None
                direction.session.headers.pop("Authorization", None)

    # --- the websocket ---

    def websocket(self) -> Dialled:
        """Return the dial of the WebSocket, which is for the session if it has an id already."""
        session = self._copy()
        url = self._url("websocket", stamp=True)
        # As requests would send it: with the headers, cookies, credentials and parameters that a GET would have.
        prepared = session.prepare_request(
            requests.Request("GET", url, headers=dict(self._request_headers(session, url)))
        )
        extras = self._options.extras
        headers: Any = CaseInsensitiveDict(
            (name, _text(value)) for name, value in prepared.headers.items() if not _NOT_ON_UPGRADE.match(name)
        )
        for line in extras.headers:
            name, _, value = line.partition(":")
            headers[name.strip()] = value.strip()
        if extras.cookie:
            headers["Cookie"] = _join_cookies(extras.cookie, headers.get("Cookie", ""))
        settings = self._settings(session, url)
        dial = WebSocketDial(
            subprotocols=extras.subprotocols,
            may_ignore_subprotocols=True,
            ssl=self._context(session, url, settings) if self._secure else None,
            proxy=self._proxy(session, url, settings),
            headers=["%s: %s" % pair for pair in headers.items()],
        )
        parts = urlsplit(prepared.url or url)
        place = parts.netloc.rpartition("@")[2]
        whole = urlunsplit(("wss" if self._secure else "ws", place, parts.path, parts.query, ""))
        return Dialled(dial, whole, self._options.request_timeout if extras.timeout is None else extras.timeout)

    def refused(self, error: ConnectError) -> ConnectError:
        """Return the error of the dial in the terms of Engine.IO."""
        if isinstance(error, HandshakeRejected):
            return rejected(error.status, error.body.encode("utf-8"), self.shown_url, self.hide)
        return with_hint(error, "check the host, the port, firewalls and proxies")

    def _copy(self) -> requests.Session:
        """Return a session with cookies of its own for a third thread, which opens no connection with it."""
        source = self._post.session
        session: requests.Session = object.__new__(type(source))
        session.__dict__.update(source.__dict__)
        self._options.cookies.bring(session, -1)
        return session

    def _settings(self, session: requests.Session, url: str) -> Dict[str, Any]:
        verify = None if session.verify is True else session.verify
        return dict(session.merge_environment_settings(url, {}, None, verify, None))

    def _context(self, session: requests.Session, url: str, settings: Dict[str, Any]) -> Any:
        own = adapter_context(session, url)
        return make_context(settings["verify"], settings["cert"], own, self._options.extras.sslopt)

    def _proxy(self, session: requests.Session, url: str, settings: Dict[str, Any]) -> Union[str, bool]:
        if self._options.extras.proxy != "":
            return self._options.extras.proxy
        proxies = settings["proxies"]
        proxy: Any = session.proxies.get("wss" if self._secure else "ws") or select_proxy(url, proxies)
        if not proxy:
            return False
        proxy = proxy if "://" in proxy else "http://" + proxy
        check_proxy(proxy)
        return str(proxy)


def _base_url(target: Target) -> Tuple[bool, str]:
    """Return whether it is TLS, and the URL up to and with the "?" or "&" that ends the user's query."""
    try:
        parts = urlsplit(target.url)
        scheme = {"http": "http", "ws": "http", "https": "https", "wss": "https"}.get(parts.scheme.lower())
        valid = scheme is not None and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets without an address, a port that is no number
        valid = False
    if not valid:
        shown = redact_url(target.url) or "an empty text"
        raise InvalidArgument("the URL must be http(s):// or ws(s):// with a host, not %s" % shown)
    taken = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if name in RESERVED]
    if taken:
        raise InvalidArgument("the query of the URL must not contain %s: the protocol uses it" % ", ".join(taken))
    path = "/%s/" % target.path.strip("/") if target.path.strip("/") else "/"
    query = parts.query.strip("&")
    base = urlunsplit((str(scheme), parts.netloc, path, query, ""))
    return scheme == "https", base + ("&" if query else "?")


def check_url(target: Target) -> str:
    """Return the URL of a target for messages. Raises InvalidArgument if it cannot be used."""
    return redact_url(_base_url(target)[1])


def _take(headers: Any, name: str) -> str:
    return str(headers.pop(name, "") or "")


def _join_cookies(given: str, jar: str) -> str:
    """Return one Cookie header; where both have a name, the one that was given counts."""
    names = {part.partition("=")[0].strip() for part in given.split(";")}
    added: List[str] = [part.strip() for part in jar.split(";") if part.partition("=")[0].strip() not in names]
    return "; ".join([given.strip().rstrip(";")] + [part for part in added if part])


def _text(value: Union[str, bytes]) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _least(first: Optional[float], second: Optional[float]) -> Optional[float]:
    given = [value for value in (first, second) if value is not None]
    return min(given) if given else None
