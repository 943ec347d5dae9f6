"""What a user may set about the HTTP side, checked once."""

from __future__ import annotations

import re
import threading
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple, Union
from urllib.parse import quote

import requests
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar

from ..core.deadline import check_timeout
from ..exceptions import InvalidArgument
from ..transports.dial import check_proxy

__all__ = ["CookieStore", "HttpOptions", "WebSocketExtras", "check_headers", "websocket_extras"]

#: What ``websocket_extra_options`` may contain, under websocket-client's names.
EXTRAS = (
    "cookie", "header", "http_no_proxy", "http_proxy_auth", "http_proxy_host", "http_proxy_port", "origin",
    "proxy_type", "sslopt", "subprotocols", "timeout",
)  # fmt: skip

#: Accepted, and without effect: this client never lets frames of two threads mix, follows redirects, sends no Origin
#: by itself and always checks UTF-8.
WITHOUT_EFFECT = ("enable_multithread", "redirect_limit", "skip_utf8_validation", "suppress_origin")


_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")


def check_headers(headers: Mapping[Any, Any]) -> Dict[str, Union[str, bytes]]:
    """Return a copy of the user's headers. Raises InvalidArgument, and shows no values: they may be secrets."""
    found: Dict[str, Union[str, bytes]] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.match(name):
            raise InvalidArgument("%r is no name of a header" % (name,))
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not isinstance(text, str) or "\r" in text or "\n" in text:
            raise InvalidArgument("the header %s must be text on one line, not %s" % (name, type(value).__name__))
        found[name] = value
    return found


class CookieStore:
    """The cookies of a client, for both directions and both legs (W42). Every method is safe from any thread.

    Sessions of requests keep jars of their own, since a jar cannot be read while another thread changes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the rest; leaf
        self._jar = RequestsCookieJar()
        self._given: Set[Tuple[str, str, str, Optional[str]]] = set()  # those of the user, with their values
        self._version = 0

    def begin(self, given: RequestsCookieJar) -> None:
        """Take the present cookies of the user; those that a server has set are newer and stay."""
        with self._lock:
            jar = given.copy()
            for cookie in self._jar:
                if _identity(cookie) not in self._given:
                    jar.set_cookie(cookie)
            self._jar, self._given = jar, {_identity(cookie) for cookie in given}
            self._version += 1

    def bring(self, session: requests.Session, version: int) -> int:
        """Give ``session`` the present cookies if it has those of an older version; return the version it has now."""
        with self._lock:
            if version != self._version:
                session.cookies = self._jar.copy()
            return self._version

    def learn(self, response: requests.Response) -> None:
        """Take over what an answer sets and deletes."""
        answers = [answer for answer in response.history + [response] if "set-cookie" in answer.headers]
        if not answers:
            return
        with self._lock:
            for answer in answers:
                extract_cookies_to_jar(self._jar, answer.request, answer.raw)  # type: ignore[no-untyped-call]
            self._version += 1


def _identity(cookie: Any) -> Tuple[str, str, str, Optional[str]]:
    return cookie.domain, cookie.path, cookie.name, cookie.value


class HttpOptions:
    """The settings of one client and its cookies, for all its sessions. Raises InvalidArgument.

    ``http_session`` is a `requests.Session`, a callable that returns one for each attempt, or None. It is never
    changed. ``request_timeout`` (seconds) limits opening a connection and the requests that open a session.
    """

    def __init__(
        self,
        *,
        http_session: Union[requests.Session, Callable[[], requests.Session], None] = None,
        ssl_verify: bool = True,
        request_timeout: Optional[float] = 5.0,
        websocket_extra_options: Optional[Mapping[str, Any]] = None,
        timestamp_requests: bool = True,
        user_agent: str = "",
    ) -> None:
        if http_session is not None and not isinstance(http_session, requests.Session) and not callable(http_session):
            raise InvalidArgument(
                "http_session must be a requests.Session or a callable that returns one, not %s"
                % type(http_session).__name__
            )
        check_timeout(request_timeout, "request_timeout")
        self.ssl_verify = bool(ssl_verify)
        self.request_timeout = request_timeout
        self.extras = websocket_extras(websocket_extra_options or {})
        self.timestamp_requests = bool(timestamp_requests)
        self.user_agent = user_agent
        self.cookies = CookieStore()
        self._http_session = http_session

    def session(self) -> requests.Session:
        """Return the session whose settings the next attempt shall have. Raises what the user's callable raises."""
        given = self._http_session
        if given is None:
            return requests.Session()
        made = given if isinstance(given, requests.Session) else given()
        if not isinstance(made, requests.Session):
            raise InvalidArgument("http_session() must return a requests.Session, not %s" % type(made).__name__)
        return made


class WebSocketExtras(NamedTuple):
    """``websocket_extra_options`` in our terms; ``proxy`` "" means that nothing was said about one."""

    headers: Sequence[str] = ()
    cookie: str = ""
    subprotocols: Sequence[str] = ()
    timeout: Optional[float] = None
    proxy: Union[str, bool] = ""
    sslopt: Mapping[str, Any] = {}


def websocket_extras(options: Mapping[str, Any]) -> WebSocketExtras:
    """Return the options for the WebSocket leg, in copies. Raises InvalidArgument for those that have no meaning."""
    unknown = sorted(set(options) - set(EXTRAS) - set(WITHOUT_EFFECT))
    if unknown:
        raise InvalidArgument(
            "websocket_extra_options may contain %s, not %s" % (", ".join(EXTRAS), ", ".join(map(str, unknown)))
        )
    given = options.get("header") or []
    headers: List[str] = (
        ["%s: %s" % pair for pair in given.items()] if isinstance(given, Mapping) else [str(line) for line in given]
    )
    if options.get("origin"):
        headers.append("Origin: %s" % options["origin"])
    timeout = options.get("timeout")
    check_timeout(timeout, "websocket_extra_options['timeout']")
    return WebSocketExtras(
        headers,
        str(options.get("cookie") or ""),
        list(options.get("subprotocols") or []),
        timeout,
        _proxy(options),
        dict(options.get("sslopt") or {}),
    )


def _proxy(options: Mapping[str, Any]) -> Union[str, bool]:
    host = options.get("http_proxy_host")
    if not host:
        return False if "*" in (options.get("http_no_proxy") or ()) else ""
    values: Dict[str, Any] = {"scheme": options.get("proxy_type") or "http", "host": host, "auth": ""}
    if options.get("http_proxy_auth"):
        user, password = options["http_proxy_auth"]
        values["auth"] = "%s:%s@" % (quote(user or "", safe=""), quote(password or "", safe=""))
    port = options.get("http_proxy_port")
    proxy = "%(scheme)s://%(auth)s%(host)s" % values + (":%d" % int(port) if port else "")
    check_proxy(proxy)
    return proxy
