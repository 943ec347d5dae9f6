"""Read connection strings and endpoints, and say what is wrong with them without showing the key.

Protocol reference 4.4. Pure functions, safe from any thread.
"""

from __future__ import annotations

import re
from typing import Any, Dict, NamedTuple, Optional
from urllib.parse import urlsplit

from ..exceptions import InvalidArgument
from ..transports.redact import redact_text

__all__ = ["ConnectionString", "check_endpoint", "parse_connection_string"]

_EXAMPLE = "Endpoint=https://<name>.webpubsub.azure.com;AccessKey=<key>;Version=1.0;"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ ]{0,39}\Z")
#: What is certainly an address or a number, and no piece of a key or of a connection string.
_HARMLESS = re.compile(r"(?:[a-z]{0,9}://)?[A-Za-z0-9_\-]{0,63}(?:\.[A-Za-z0-9_\-]{1,63})*(?::[0-9]{0,5})?/?\Z")
_HOST = re.compile(r"[A-Za-z0-9._\-:%]*\Z")
_BLANK = re.compile(r"[\x00-\x20\x7f\s]")  # all that strip() takes away, or an endpoint might not stay what it is


class ConnectionString(NamedTuple):
    """What a connection string says; ``endpoint`` has no trailing slash. Its repr does not show the key."""

    endpoint: str
    access_key: str
    version: str = ""

    def __repr__(self) -> str:
        return "ConnectionString(endpoint=%r, access_key='***', version=%r)" % (self.endpoint, self.version)


def parse_connection_string(text: Any) -> ConnectionString:
    """Return the parts of ``Endpoint=...;AccessKey=...;Version=1.0;Port=8080;``.

    Names ignore case, their order is free, names unknown to us are ignored. Raises InvalidArgument.
    """
    if not isinstance(text, str):
        raise InvalidArgument("the connection string must be a str, not %s" % type(text).__name__)
    text = text.strip()
    if not text:
        raise InvalidArgument("the connection string is empty: expected %s" % _EXAMPLE)
    if text[0] in "\"'":
        raise InvalidArgument("the connection string begins with a quotation mark: pass it without quotes")
    found: Dict[str, str] = {}
    for number, segment in enumerate(text.split(";"), 1):
        if segment.strip():
            _read_segment(segment, number, found)
    missing = [name for name in ("Endpoint", "AccessKey") if not found.get(name.lower())]
    if missing:
        raise InvalidArgument(
            "the connection string has no %s (it has %s): expected %s"
            % (" and no ".join(missing), ", ".join(sorted(found)) or "nothing", _EXAMPLE)
        )
    endpoint = check_endpoint(found["endpoint"], found.get("port") or None, "the Endpoint of the connection string")
    return ConnectionString(endpoint, found["accesskey"], found.get("version", ""))


def _read_segment(segment: str, number: int, found: Dict[str, str]) -> None:
    name, equals, value = (part.strip() for part in segment.partition("="))
    # Neither a segment nor the name of one is quoted unless it looks like a name: it may be a piece of the key.
    if not equals:
        raise InvalidArgument("part %d of the connection string has no '=': expected %s" % (number, _EXAMPLE))
    if not _NAME.match(name):
        raise InvalidArgument("part %d of the connection string has no usable name: expected %s" % (number, _EXAMPLE))
    if found.setdefault(name.lower(), value) != value:
        raise InvalidArgument("the connection string gives part %d a second time, with another value" % number)


def check_endpoint(endpoint: Any, port: Any = None, what: str = "endpoint") -> str:
    """Return an endpoint without trailing slash, scheme and host in lower case, ``port`` added if there is one.

    Raises InvalidArgument unless it is http:// or https:// with a host and at most a path.
    """
    if not isinstance(endpoint, str):
        raise InvalidArgument("%s must be a str, not %s" % (what, type(endpoint).__name__))
    text = endpoint.strip()
    if "accesskey=" in text.lower():
        raise InvalidArgument("%s is a connection string: use from_connection_string()" % what)
    try:
        parts = urlsplit(text)
        host, own_port = parts.hostname or "", parts.port
        host = host if ":" in host or host.isascii() else host.encode("idna").decode("ascii")
        if not _HOST.match(host):
            raise ValueError
    except (ValueError, UnicodeError):
        # The text is not quoted: it may hold a password.
        raise InvalidArgument("%s has an unusable host or port" % what) from None
    if "@" in parts.netloc:
        raise InvalidArgument("%s must not contain a user name or a password" % what)
    if parts.scheme not in ("http", "https") or not host or _BLANK.search(text):
        raise InvalidArgument(
            "%s must look like https://<name>.webpubsub.azure.com or http://localhost:8080, %s" % (what, _shown(text))
        )
    if parts.query or parts.fragment:
        raise InvalidArgument("%s must not have a query or a fragment" % what)
    chosen = _choose_port(own_port, port, what)
    shown_host = "[%s]" % host if ":" in host else host
    return "%s://%s%s%s" % (parts.scheme, shown_host, chosen, parts.path.rstrip("/"))


def _shown(text: str) -> str:
    """Return what to say of a value that is wrong: it may be a key in the wrong place, and then it is not shown."""
    if len(text) > 100 or not _HARMLESS.match(text) or len(text) > 19 and "." not in text and ":" not in text:
        return "and this does not"
    return "not %s" % redact_text(ascii(text))


def _choose_port(own: Optional[int], given: Any, what: str) -> str:
    if given is None:
        return "" if own is None else ":%d" % own
    text = str(given)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= 65535):
        raise InvalidArgument("Port must be a number from 1 to 65535, %s" % _shown(text))
    if own is not None and own != int(text):
        raise InvalidArgument("%s names port %d and Port says %s" % (what, own, text))
    return ":%d" % int(text)
