"""The service client: what a server does with its hub, over REST. Blocking and thread-safe."""

from __future__ import annotations

import json
import re
import ssl as ssl_module
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import parse_qsl, quote, urlsplit

from ..core.backoff import RetryPolicy
from ..exceptions import InvalidArgument, RemoteProtocolError
from .access_tokens import client_path, sign_client_token
from .arguments import check_group
from .connection_string import check_endpoint, parse_connection_string
from .service_credentials import KeySigner, make_signer
from .service_http import Operation, Pipeline
from .service_operations import Operations, group_segment, names, text
from .service_options import (
    API_VERSION,
    CallOptions,
    Certificate,
    Proxies,
    call_options,
    choose_proxies,
    make_context,
    user_agent,
)
from .service_paging import GroupMembers
from .service_request import HttpResponse

__all__ = ["WebPubSubServiceClient"]

_HUB = re.compile(r"[A-Za-z][A-Za-z0-9_`,.\[\]]{0,127}\Z")
_METHOD = re.compile(r"[A-Z]+\Z")

#: Methods that are the same carried out twice as once (RFC 9110 9.2.2).
_IDEMPOTENT = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS")


class WebPubSubServiceClient(Operations):
    """A client of the REST interface of Azure Web PubSub, or of `simplepubsub.server.Server`, for one hub.

    Every method may be called from any thread, and in a child after a fork. A call ends within its ``timeout``, waits
    between attempts included. ``close()`` or the end of a ``with`` block closes the connections it keeps; calls in
    progress then raise ClientStopped, later ones ClientStateError.

    Args:
        endpoint: ``https://<name>.webpubsub.azure.com``, or ``http://localhost:8080``.
        hub: a letter, then letters, digits and ``_ ` , . [ ]``, at most 128.
        credential: an access key, an object with ``key`` (AzureKeyCredential), or one with ``get_token(*scopes)``
            (azure-identity), whose tokens are kept until shortly before they end.
        api_version: the version of the REST interface.
        user: a name that the service notes as the caller's; with an access key only.
        reverse_proxy_endpoint: where requests go instead, when a reverse proxy stands before ``endpoint``.
        proxies: None = from the environment, False = none, a URL, or a mapping from "http" and "https" to URLs.
        verify: True = trust the authorities of the system and of certifi, a path = those in that file or directory,
            False = do not check the service's certificate.
        cert: a client certificate: the path of a file with its key, or (file, key file).
        ssl: an ``ssl.SSLContext`` in place of ``verify`` and ``cert``.
        timeout: limit for a whole call, attempts and waits included, in seconds; None = no limit.
        connect_timeout: limit for opening a connection: DNS, TCP, TLS and proxy together.
        read_timeout: limit for the silence of the service.
        retry: when to try again after 429, 502, 503, 504, or a connection that failed; a Retry-After of the service
            goes before. 502 and 504 leave open whether the service had got the request.
        repeat_sends: send a message again, too, when the connection was lost after it had been written. It may then
            arrive twice; without, the call raises ServiceConnectionError with ``written``.
        user_agent: what stands before ours in the header User-Agent.
        headers: headers for every request.
        logging_enable: log requests and answers to ``simplepubsub.service`` at DEBUG, with secrets masked.
        enforce_https: refuse to send tokens of a token credential over http to other machines.
        port: what to add to ``endpoint``.
        compatibility: ``connection_timeout``, ``connection_verify``, ``connection_cert``, ``retry_total``,
            ``retry_backoff_factor``, ``retry_backoff_max`` and ``retry_mode`` of the official SDK.

    Raises InvalidArgument for arguments that cannot be right.
    """

    def __init__(
        self,
        endpoint: str,
        hub: str,
        credential: Any,
        *,
        api_version: str = API_VERSION,
        user: Optional[str] = None,
        reverse_proxy_endpoint: Optional[str] = None,
        proxies: Proxies = None,
        verify: Union[bool, str] = True,
        cert: Certificate = None,
        ssl: Optional[ssl_module.SSLContext] = None,
        timeout: Optional[float] = CallOptions().timeout,
        connect_timeout: Optional[float] = CallOptions().connect_timeout,
        read_timeout: Optional[float] = CallOptions().read_timeout,
        retry: RetryPolicy = CallOptions().retry,
        repeat_sends: bool = False,
        user_agent: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
        logging_enable: bool = False,
        enforce_https: bool = True,
        port: Optional[int] = None,
        **compatibility: Any,
    ) -> None:
        if not isinstance(hub, str) or not _HUB.match(hub):
            raise InvalidArgument(
                "hub must be a letter followed by up to 127 letters, digits or any of _`,.[], not %.60r" % (hub,)
            )
        endpoint = check_endpoint(endpoint, port)
        target = endpoint
        if reverse_proxy_endpoint is not None:
            target = check_endpoint(reverse_proxy_endpoint, what="reverse_proxy_endpoint")
        verify = compatibility.pop("connection_verify", verify)
        cert = compatibility.pop("connection_cert", cert)
        if ssl is not None and not isinstance(ssl, ssl_module.SSLContext):
            raise InvalidArgument("ssl must be None or an ssl.SSLContext, not %s" % type(ssl).__name__)
        context = ssl
        chosen = choose_proxies(proxies)
        if context is None and (target.startswith("https:") or cert is not None or _any_https(chosen)):
            context = make_context(verify, cert)
        given: Dict[str, Any] = {
            "timeout": timeout,
            "connect_timeout": connect_timeout,
            "read_timeout": read_timeout,
            "retry": retry,
            "repeat_sends": repeat_sends,
            "logging_enable": logging_enable,
            "headers": headers,
        }
        given.update(compatibility)
        self._options = call_options(CallOptions(), given, "")
        signer = make_signer(credential, target, user, enforce_https)
        self._pipeline = Pipeline(endpoint, target, signer, context, chosen, _user_agent(user_agent), api_version)
        self._hub = hub
        self._base = "/api/hubs/" + quote(hub, safe="")

    @classmethod
    def from_connection_string(cls, connection_string: str, hub: str, **options: Any) -> WebPubSubServiceClient:
        """Return a client for ``Endpoint=...;AccessKey=...;Version=1.0;``; ``options`` are those of the class.

        Raises InvalidArgument, which never shows the key.
        """
        parts = parse_connection_string(connection_string)
        return cls(parts.endpoint, hub, parts.access_key, **options)

    @property
    def endpoint(self) -> str:
        """The endpoint, without a slash at its end."""
        return self._pipeline.endpoint

    @property
    def hub(self) -> str:
        """The hub."""
        return self._hub

    # --- tokens ---

    def get_client_access_token(
        self,
        *,
        user_id: Optional[str] = None,
        roles: Optional[Sequence[str]] = None,
        groups: Optional[Sequence[str]] = None,
        minutes_to_expire: float = 60,
        jwt_headers: Optional[Mapping[str, Any]] = None,
        client_protocol: str = "Default",
        **options: Any,
    ) -> Dict[str, str]:
        """Return ``{"baseUrl", "token", "url"}``: where a client connects, and what admits it.

        With an access key the token is signed here, without any request; with a token credential the service makes it,
        ``jwt_headers`` do not apply, and minutes are whole ones, at least one.

        Args:
            user_id: the user; None = anonymous.
            roles: "webpubsub.joinLeaveGroup.<group>", "webpubsub.sendToGroup", ...
            groups: groups that the client is in from the start.
            minutes_to_expire: how long the token admits; a connection may last longer.
            jwt_headers: further members of the token's header.
            client_protocol: "Default", "MQTT" or "SocketIO", in any case.
        """
        path = client_path(self._hub, client_protocol)
        if user_id is not None:
            text(user_id, "user_id")
        role_list = names(roles, "roles")
        group_list = [check_group(group) for group in names(groups, "groups")]
        if isinstance(minutes_to_expire, bool) or not isinstance(minutes_to_expire, (int, float)):
            raise InvalidArgument("minutes_to_expire must be a number, not %r" % (minutes_to_expire,))
        if not 0 < minutes_to_expire < 10**9:
            raise InvalidArgument("minutes_to_expire must be above 0, not %r" % (minutes_to_expire,))
        signer = self._pipeline.signer
        if isinstance(signer, KeySigner):
            call_options(self._options, options, ".get_client_access_token")
            token = sign_client_token(
                self.endpoint + path,
                signer.key,
                user_id=user_id,
                roles=role_list,
                groups=group_list,
                minutes_to_expire=minutes_to_expire,
                jwt_headers=jwt_headers,
            )
        else:
            token = self._generate_token(
                user_id, role_list, group_list, max(1, round(minutes_to_expire)), client_protocol, options
            )
        base = "ws" + self.endpoint[len("http") :] + path
        return {"baseUrl": base, "token": token, "url": "%s?access_token=%s" % (base, token)}

    def _generate_token(
        self,
        user_id: Optional[str],
        roles: List[str],
        groups: List[str],
        minutes: int,
        client_protocol: str,
        options: Mapping[str, Any],
    ) -> str:
        query = [("userId", user_id)] if user_id else []
        query += [("role", role) for role in roles]
        query += [("minutesToExpire", str(minutes))]
        query += [("group", group) for group in groups]
        query += [("clientType", client_protocol)]
        answer = self._call("get_client_access_token", "POST", "/:generateToken", (200,), options, query)
        made = _json(answer.body, "get_client_access_token")
        token = made.get("token") if isinstance(made, dict) else None
        if not isinstance(token, str) or not token:
            raise RemoteProtocolError("get_client_access_token: the answer has no token")
        return token

    # --- lists, health, and anything else ---

    def list_connections(
        self,
        group: str,
        *,
        top: Optional[int] = None,
        maxpagesize: Optional[int] = None,
        continuation_token: Optional[str] = None,
        **options: Any,
    ) -> GroupMembers:
        """Return an iterator over the connections in a group (`GroupMember`), fetched page by page as it is read.

        ``by_page()`` gives pages instead, and ``continuation_token`` of those leads on later, elsewhere too.

        Args:
            top: how many connections at most, all pages together.
            maxpagesize: how many in a page at most, 1 to 200.

        The timeout is that of each page. Raises InvalidArgument at once, other errors when a page is fetched.
        """
        path = "/groups/%s/connections" % group_segment(group)
        first: List[Tuple[str, str]] = []
        for name, value, limit in (("maxpagesize", maxpagesize, 200), ("top", top, 2**31 - 1)):
            if value is not None:
                if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
                    raise InvalidArgument("%s must be an integer from 1 to %d, not %r" % (name, limit, value))
                first.append((name, str(value)))
        call_options(self._options, options, ".list_connections")

        def fetch(query: Optional[List[Tuple[str, str]]]) -> Any:
            # What the link says goes before what was asked at first: the number of connections to come gets smaller.
            said = {name for name, _ in query or ()}
            whole = [pair for pair in first if pair[0] not in said] + list(query or ())
            answer = self._call("list_connections", "GET", path, (200,), options, whole)
            return _json(answer.body, "list_connections")

        return GroupMembers(fetch, continuation_token)

    def get_service_status(self, **options: Any) -> bool:
        """Return True when the service answers that it is well; whatever it answers else is raised."""
        applied = call_options(self._options, options, ".get_service_status")
        self._pipeline.run(Operation("get_service_status", "HEAD", "/api/health", accept=None, ok=(200,)), applied)
        return True

    def send_request(self, request: Any, *, stream: bool = False, **options: Any) -> HttpResponse:
        """Send a request that this client has no method for, signed like the others, and return the answer.

        ``request`` is an `HttpRequest`, or any object with ``method``, ``url``, ``headers`` and ``content``, that of
        the official SDK included; its URL is a path below the endpoint ("/api/hubs/chat/..."), or a URL of the
        endpoint. No status raises by itself: ask ``raise_for_status()``. The answer is read whole, with ``stream`` too.

        Raises InvalidArgument for a URL of another place, which must not get the token.
        """
        method = str(getattr(request, "method", "")).upper()
        url = getattr(request, "url", None)
        if not _METHOD.match(method) or not isinstance(url, str):
            raise InvalidArgument("request must have a method and a url: pass an HttpRequest")
        body: Any = getattr(request, "content", None)
        if isinstance(body, str):
            body = body.encode("utf-8", "replace")
        if not isinstance(body, (bytes, bytearray, type(None))):
            raise InvalidArgument("the content of a request must be str or bytes, not %s" % type(body).__name__)
        path, query = self._below_endpoint(url)
        query += [(str(name), str(value)) for name, value in (getattr(request, "params", None) or {}).items()]
        headers = dict(getattr(request, "headers", None) or {}, **(options.pop("headers", None) or {}))
        applied = call_options(self._options, dict(options, headers=headers), ".send_request")
        operation = Operation(
            "send_request", method, path, query, bytes(body or b""), repeatable=method in _IDEMPOTENT
        )
        answer, error = self._pipeline.ask(operation, applied)
        return HttpResponse(answer.status, answer.reason, answer.headers, answer.body, error)

    def _below_endpoint(self, url: str) -> Tuple[str, List[Tuple[str, str]]]:
        """Return the path below the endpoint and the query of a URL. Raises InvalidArgument."""
        rest = url.replace("{endpoint}", self.endpoint).replace("{Endpoint}", self.endpoint)
        if rest[: len(self.endpoint) + 1].lower() in (self.endpoint + "/", self.endpoint):
            rest = rest[len(self.endpoint) :]
        parts = urlsplit(rest)
        if parts.scheme or parts.netloc or rest.startswith("//"):
            raise InvalidArgument("the url of the request must be one of %s" % self.endpoint)
        # What is encoded stays so; what a URL cannot hold is encoded now.
        path = quote("/" + parts.path.lstrip("/"), safe="/%:@!$&'()*+,;=-._~")
        if any(item.lower().replace("%2e", ".") in (".", "..") for item in path.split("/")):
            raise InvalidArgument("the path of the request must not contain '.' or '..'")
        return path, parse_qsl(parts.query, keep_blank_values=True)

    # --- life ---

    def close(self) -> None:
        """Close the connections that are kept; calls in progress raise ClientStopped. A second time does nothing."""
        self._pipeline.close()

    def __enter__(self) -> WebPubSubServiceClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return "<WebPubSubServiceClient %s hub=%r>" % (self.endpoint, self._hub)


#: The function, under a name that the constructor's keyword does not hide.
_user_agent = user_agent


def _any_https(proxies: Optional[Mapping[str, str]]) -> bool:
    return any(proxy.lower().startswith("https:") for proxy in (proxies or {}).values())


def _json(body: bytes, operation: str) -> Any:
    try:
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("%s: the answer is not JSON: %s" % (operation, error)) from None
