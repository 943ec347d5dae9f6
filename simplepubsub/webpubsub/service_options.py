"""The options of a service client and of one call, checked, under our names and those of the official SDK."""

from __future__ import annotations

import functools
import os
import re
import ssl as ssl_module
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple, Union

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from .. import version
from ..core.backoff import RetryPolicy
from ..core.deadline import check_timeout
from ..exceptions import InvalidArgument
from ..transports.dial import check_proxy

__all__ = ["API_VERSION", "CallOptions", "Certificate", "Proxies", "call_options", "make_context", "user_agent"]

#: The version of the REST interface that is spoken unless told otherwise.
API_VERSION = "2024-12-01"

Proxies = Union[None, bool, str, Mapping[str, str]]
Certificate = Union[None, str, Tuple[str, str]]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")

#: Names of the official SDK for options of ours.
_SYNONYMS = {"connection_timeout": "connect_timeout"}
_RETRY_FIELDS = {
    "retry_total": "total",
    "retry_backoff_factor": "base",
    "retry_backoff_max": "maximum",
    "retry_mode": "mode",
}


class CallOptions(NamedTuple):
    """What may differ from call to call; times in seconds, None = no limit."""

    timeout: Optional[float] = 60.0
    connect_timeout: Optional[float] = 10.0
    read_timeout: Optional[float] = 30.0
    retry: RetryPolicy = RetryPolicy(total=3, base=0.5, maximum=30.0)
    repeat_sends: bool = False
    logging_enable: bool = False
    headers: Mapping[str, str] = {}
    params: Mapping[str, Any] = {}


def call_options(defaults: CallOptions, given: Mapping[str, Any], where: str) -> CallOptions:
    """Return ``defaults`` with the keywords of a call applied. Raises InvalidArgument for unknown or bad ones."""
    if not given:
        return defaults
    changes: Dict[str, Any] = {}
    flat: Dict[str, Any] = {}
    unknown = []
    for name, value in given.items():
        if name in _RETRY_FIELDS:
            flat[_RETRY_FIELDS[name]] = value
        elif _SYNONYMS.get(name, name) in CallOptions._fields:
            changes[_SYNONYMS.get(name, name)] = value
        else:
            unknown.append(repr(name))
    if unknown:
        raise InvalidArgument("unknown keyword %s: see help(WebPubSubServiceClient%s)" % (", ".join(unknown), where))
    for name in ("headers", "params"):
        if changes.get(name) is None:
            changes.pop(name, None)
    options = defaults._replace(**changes)
    for name in ("timeout", "connect_timeout", "read_timeout"):
        check_timeout(getattr(options, name), name)
    if options.timeout == 0 or options.connect_timeout == 0 or options.read_timeout == 0:
        raise InvalidArgument("timeouts must be above 0 seconds, or None for no limit")
    if not isinstance(options.retry, RetryPolicy):
        raise InvalidArgument("retry must be a RetryPolicy, not %r" % (options.retry,))
    if flat:
        options = options._replace(retry=RetryPolicy(**dict(options.retry._asdict(), **flat)))
    check_headers(options.headers)
    if not isinstance(options.params, Mapping):
        raise InvalidArgument("params must be a mapping, not %s" % type(options.params).__name__)
    # Headers of the client go with every call; those of the call come on top.
    return options._replace(headers=dict(defaults.headers, **options.headers))


def check_headers(headers: Any) -> None:
    """Raise InvalidArgument unless ``headers`` maps header names to values that HTTP can carry."""
    if not isinstance(headers, Mapping):
        raise InvalidArgument("headers must be a mapping of str to str, not %s" % type(headers).__name__)
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.match(name):
            raise InvalidArgument("%.60r is no name of an HTTP header" % (name,))
        # The value is not shown: it may be a secret.
        if not isinstance(value, str) or any(mark in value for mark in "\r\n\0"):
            raise InvalidArgument("the header %s must be a str of one line" % name)
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise InvalidArgument("the header %s has characters outside Latin-1" % name) from None


def user_agent(prefix: Optional[str]) -> str:
    """Return the User-Agent: ours, behind the application's if it has one."""
    ours = "simplepubsub/" + version.__version__
    if prefix is None:
        return ours
    check_headers({"User-Agent": prefix})
    return "%s %s" % (prefix, ours)


def choose_proxies(proxies: Proxies) -> Optional[Dict[str, str]]:
    """Return proxies by URL scheme, {} for none, None for those of the environment. Raises InvalidArgument."""
    if proxies is None or proxies is True:
        return None
    if not proxies:
        return {}
    chosen = {"http": proxies, "https": proxies} if isinstance(proxies, str) else dict(proxies)
    for proxy in chosen.values():
        check_proxy(proxy.replace("https://", "http://", 1) if isinstance(proxy, str) else proxy)
    return {name: proxy for name, proxy in chosen.items() if proxy}


@functools.lru_cache(maxsize=None)
def _usual_context() -> ssl_module.SSLContext:
    # Reading the authorities takes longer than a request, and some applications make a client for each of theirs.
    context = ssl_module.create_default_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return context


def make_context(verify: Union[bool, str], cert: Certificate) -> ssl_module.SSLContext:
    """Return the TLS context for ``verify`` and ``cert``, which mean what they mean to requests.

    True trusts the authorities of the system and of certifi, or those that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE name;
    a path trusts those in that file or directory; False trusts everybody. ``cert`` is a client certificate: a file
    with its key, or (file, key file). Raises InvalidArgument for files that cannot be read.
    """
    bundle = verify
    if verify is True:
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    try:
        if isinstance(bundle, (str, os.PathLike)):
            where = "capath" if os.path.isdir(bundle) else "cafile"
            context = ssl_module.create_default_context(**{where: str(bundle)})  # type: ignore[arg-type]
        elif bundle is True:
            if cert is None:
                return _usual_context()
            context = _usual_context.__wrapped__()  # the shared one must not get a certificate
        elif bundle is False:
            context = ssl_module.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl_module.CERT_NONE
        else:
            raise InvalidArgument("verify must be True, False or a path, not %s" % type(verify).__name__)
        if cert is not None:
            files = (cert,) if isinstance(cert, (str, os.PathLike)) else tuple(cert)
            context.load_cert_chain(*files)
    except (OSError, TypeError) as error:  # ssl.SSLError is an OSError
        raise InvalidArgument("unusable certificates: verify=%r, cert=%r: %s" % (bundle, cert, error)) from None
    return context
