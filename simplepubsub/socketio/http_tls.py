"""The TLS settings of a session of requests as a context for the WebSocket leg (protocol reference 1.12)."""

from __future__ import annotations

import functools
import os
import ssl
from typing import Any, Dict, Mapping, Optional, Tuple, Union

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from ..exceptions import InvalidArgument

__all__ = ["adapter_context", "make_context"]

#: What ``sslopt`` of websocket-client may contain here.
SSLOPT = (
    "context", "cert_reqs", "check_hostname", "ca_certs", "ca_cert_path", "certfile", "keyfile", "password", "ciphers",
)  # fmt: skip

Cert = Union[str, Tuple[str, str], None]


def _base(verify: Union[bool, str]) -> ssl.SSLContext:
    # urllib3's, so that both legs agree on versions, ciphers and how strictly certificates are looked at.
    context: ssl.SSLContext = create_urllib3_context()
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    _trust(context, verify)
    return context


def _trust(context: ssl.SSLContext, verify: Union[bool, str]) -> None:
    place = DEFAULT_CA_BUNDLE_PATH if verify is True else str(verify)
    if os.path.isdir(place):
        context.load_verify_locations(capath=place)
    else:
        context.load_verify_locations(cafile=place)


@functools.lru_cache(maxsize=1)
def _default() -> ssl.SSLContext:
    # Reading the bundle takes longer than a whole handshake. Nobody changes this one.
    return _base(True)


def adapter_context(session: requests.Session, url: str) -> Optional[ssl.SSLContext]:
    """Return the context that the adapter for ``url`` was made with, if it was."""
    adapter = session.get_adapter(url)
    if isinstance(adapter, HTTPAdapter):
        manager: Any = adapter.poolmanager
        found = getattr(manager, "connection_pool_kw", {}).get("ssl_context")
        return found if isinstance(found, ssl.SSLContext) else None
    return None


def make_context(
    verify: Union[bool, str], cert: Cert, own: Optional[ssl.SSLContext], sslopt: Mapping[str, Any]
) -> ssl.SSLContext:
    """Return the context for the WebSocket leg; ``own`` is that of the user's adapter.

    Raises InvalidArgument for files that cannot be read and options that are not known.
    """
    unknown = sorted(set(sslopt) - set(SSLOPT))
    if unknown:
        raise InvalidArgument("sslopt may contain %s, not %s" % (", ".join(SSLOPT), ", ".join(unknown)))
    if sslopt.get("context") is not None:
        context = sslopt["context"]
        if not isinstance(context, ssl.SSLContext):
            raise InvalidArgument("sslopt['context'] must be an ssl.SSLContext")
        return context
    try:
        if own is not None and verify is not False:
            _trust(own, verify)  # as requests does with it for every connection
            return _changed(own, {}, cert) if cert else own
        if verify is True and not cert and not sslopt:
            return _default()
        return _changed(_base(verify), dict(sslopt), cert)
    except (OSError, ValueError, TypeError) as error:  # ssl.SSLError is an OSError
        told = "the TLS settings (verify=%r, cert=%r, sslopt=%r) cannot be used: %s"
        shown = {name: value for name, value in sslopt.items() if name != "password"}
        raise InvalidArgument(told % (verify, cert, shown, error)) from error


def _changed(context: ssl.SSLContext, sslopt: Dict[str, Any], cert: Cert) -> ssl.SSLContext:
    if sslopt.get("ca_certs"):
        context.load_verify_locations(cafile=sslopt["ca_certs"])
    if sslopt.get("ca_cert_path"):
        context.load_verify_locations(capath=sslopt["ca_cert_path"])
    if sslopt.get("ciphers"):
        context.set_ciphers(sslopt["ciphers"])
    wanted = sslopt.get("cert_reqs", context.verify_mode)
    if sslopt.get("check_hostname") is False or wanted == ssl.CERT_NONE:
        context.check_hostname = False
    context.verify_mode = wanted
    certfile = sslopt.get("certfile")
    if certfile:
        context.load_cert_chain(certfile, sslopt.get("keyfile"), sslopt.get("password"))
    elif isinstance(cert, str):
        context.load_cert_chain(cert)
    elif cert:
        context.load_cert_chain(cert[0], cert[1])
    return context
