"""Turn what went wrong with a request into a typed error that says what to do."""

from __future__ import annotations

import email.utils
import json
import socket
import ssl as ssl_module
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Type

import requests

from ..exceptions import (
    ServiceAuthenticationError,
    ServiceConflict,
    ServiceConnectionError,
    ServiceForbidden,
    ServiceNotFound,
    ServicePayloadTooLarge,
    ServiceResponseError,
    ServiceThrottled,
    ServiceTimeout,
    ServiceUnavailable,
)
from .service_wire import Answer

__all__ = ["Place", "connection_error", "response_error", "retry_after"]

_KINDS: Dict[int, Type[ServiceResponseError]] = {
    401: ServiceAuthenticationError,
    403: ServiceForbidden,
    404: ServiceNotFound,
    409: ServiceConflict,
    413: ServicePayloadTooLarge,
    429: ServiceThrottled,
}

_HINTS = {
    400: "the service does not accept an argument of the call",
    403: "check the access rules of the service and what the identity is allowed to do",
    404: "check that the connection or user still exists, the hub, and that the endpoint is a Web PubSub service",
    405: "check that the endpoint is a Web PubSub service",
    407: "check the credentials of the proxy",
    409: "the service cannot do this in its present state",
    413: "send the message in parts",
    414: "name fewer connections in excluded, or use a filter",
    429: "send less often, or give the service more units",
    501: "the service does not implement this operation",
}


class Place(NamedTuple):
    """Which request it was. ``url`` is without query; ``hide`` masks secrets; ``auth_hint`` is for a 401."""

    operation: str
    method: str
    url: str
    hide: Callable[[str], str]
    auth_hint: str = ""


def retry_after(headers: Mapping[str, str]) -> Optional[float]:
    """Return the seconds that the service asks us to wait, at least 0, None if it does not say (RFC 9110 10.2.3)."""
    for name, unit in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if not value:
            continue
        try:
            seconds = float(value) * unit
            if 0 <= seconds < float("inf"):
                return seconds
            continue
        except ValueError:
            pass
        moment = email.utils.parsedate_tz(value)
        if moment is not None:
            try:
                return max(0.0, email.utils.mktime_tz(moment) - time.time())
            except (ValueError, OverflowError):
                continue
    return None


def response_error(answer: Answer, place: Place, own_id: str) -> ServiceResponseError:
    """Return the error for an answer that is none of those the operation allows."""
    said = _read_body(answer)
    code = place.hide(str(said.get("code") or answer.headers.get("x-ms-error-code") or ""))[:200]
    text = " ".join(place.hide(str(said.get("message") or "")).split())[:500]
    kind = _KINDS.get(answer.status, ServiceUnavailable if answer.status >= 500 else ServiceResponseError)
    hint = place.auth_hint if answer.status == 401 else _HINTS.get(answer.status, "")
    if answer.status < 400:
        hint = "check that the endpoint is a Web PubSub service" + (
            ": redirects are not followed, since they would carry the token to another place"
            if 300 <= answer.status < 400
            else ""
        )
    elif answer.status >= 500 and not hint:
        hint = "try again later"
    request_id = place.hide(answer.headers.get("x-ms-request-id") or own_id)[:100]
    shown = "%s: %s %s answered %d%s%s (request id %s)" % (
        place.operation,
        place.method,
        place.url,
        answer.status,
        " " + code if code else " " + place.hide(answer.reason)[:100] if answer.reason else "",
        ": " + text if text else "",
        request_id,
    )
    return kind(
        shown,
        status=answer.status,
        code=code,
        text=text,
        target=place.hide(str(said.get("target") or ""))[:200],
        details=_masked(said.get("details"), place.hide),
        request_id=request_id,
        retry_after=retry_after(answer.headers),
        method=place.method,
        url=place.url,
        hint=hint,
    )


def _masked(value: Any, hide: Callable[[str], str], depth: int = 0) -> Any:
    """Return a JSON value with the secrets in its texts masked; what is nested too deeply is left out."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, (list, dict)) and depth > 8:
        return "..."
    if isinstance(value, list):
        return [_masked(item, hide, depth + 1) for item in value]
    if isinstance(value, dict):
        return {hide(name): _masked(item, hide, depth + 1) for name, item in value.items()}
    return value


def _read_body(answer: Answer) -> Dict[str, Any]:
    text = answer.body[:65536].decode("utf-8", "replace").strip()
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        # An HTML page of some gateway says nothing that is worth a line of a log.
        return {} if text[:1] == "<" else {"message": text}
    if isinstance(said, str):
        return {"message": said}
    if not isinstance(said, dict):
        return {}
    inner = said.get("error")
    return inner if isinstance(inner, dict) else said


def connection_error(error: BaseException, place: Place, step: str, written: bool) -> ServiceConnectionError:
    """Return the error for a request that got no answer; ``step`` is what was being done."""
    chain = _causes(error)
    details: Dict[str, Any] = {"method": place.method, "url": place.url, "written": written}
    start = "%s: %s %s failed" % (place.operation, place.method, place.url)
    # The first cause says it best; what requests and urllib3 wrap around it repeats it.
    cause = next((item for item in reversed(chain) if isinstance(item, OSError) and str(item)), chain[0])
    text = place.hide(" ".join(str(cause).split()))[:300] or type(cause).__name__
    if any(isinstance(item, (socket.timeout, requests.Timeout)) for item in chain):
        return ServiceTimeout(
            "%s: no answer in time, while %s" % (start, step),
            hint="check host, port, firewalls and proxies, or raise timeout, connect_timeout or read_timeout",
            **details
        )
    if any(isinstance(item, ssl_module.SSLError) for item in chain):
        tls = next(item for item in chain if isinstance(item, ssl_module.SSLError))
        text = place.hide(str(tls))[:300]
        failed_check = isinstance(tls, ssl_module.SSLCertVerificationError)
        hint = (
            "pass verify='<file with the certificate of your own authority>'"
            if failed_check
            else "check that the port speaks TLS (https) and not plain text (http)"
        )
        return ServiceConnectionError("%s: TLS: %s" % (start, text), hint=hint, **details)
    if any(isinstance(item, socket.gaierror) or isinstance(item, UnicodeError) for item in chain):
        return ServiceConnectionError(
            "%s: the host name cannot be resolved (DNS): %s" % (start, text),
            hint="check the spelling of the endpoint and the network",
            **details
        )
    if any(isinstance(item, requests.exceptions.ProxyError) for item in chain) or "proxy" in step:
        hint = "check the address and the credentials of the proxy, or pass proxies=False"
    elif any(isinstance(item, ConnectionRefusedError) for item in chain):
        hint = "is the service running?"
    elif isinstance(chain[0], (requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema)):
        hint = 'SOCKS proxies need: pip install "simplepubsub[socks]"'
    else:
        hint = "the request may have been carried out" if written else "check that a Web PubSub service listens there"
    return ServiceConnectionError("%s while %s: %s" % (start, step, text), hint=hint, **details)


def _causes(error: BaseException) -> List[BaseException]:
    """Return an error and what it was made from, outermost first; requests and urllib3 hide it in many places."""
    found: List[BaseException] = []
    todo: List[Any] = [error]
    while todo and len(found) < 20:
        item = todo.pop(0)
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            todo += [getattr(item, "reason", None), item.__cause__, item.__context__]
            todo += list(item.args)
    return found
