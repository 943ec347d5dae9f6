"""Keep secrets out of messages, logs and traces."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

__all__ = ["MASK", "redact_text", "redact_url"]

MASK = "***"

_SECRETS = re.compile(
    r"(?i)(access_?token|awps_reconnection_token|reconnectionToken|access_?key)"  # names
    r"(\\?[\"']?\s*(?:[=:]|%3D)\s*\\?[\"']?)"  # "=", ":" and quotes, escaped ones too
    r"[^\s&\"';,}\\<>]+"
)
_USER_INFO = re.compile(r"(://)[^\s/?#@\"'<>]+(?=@)")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',;<>]+")
_JWT = re.compile(r"eyJ[A-Za-z0-9_\-]*\.[A-Za-z0-9_\-]*\.[A-Za-z0-9_\-]*")


def redact_text(text: str) -> str:
    """Return ``text`` with everything that looks like a token, a key or a password masked."""
    text = _SECRETS.sub(lambda match: match.group(1) + match.group(2) + MASK, text)
    text = _USER_INFO.sub(lambda match: match.group(1) + MASK, text)
    return _JWT.sub(MASK, _BEARER.sub(lambda match: match.group(1) + " " + MASK, text))


def redact_url(url: str) -> str:
    """Return ``url`` without user information and query values: what is left names the place and no secret.

    Of a text that names no host only what looks like a scheme is left: it may be a connection string, or a key.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = ":%d" % parts.port if parts.port else ""
    except ValueError:
        return MASK
    if not host:
        return parts.scheme + ":" + MASK if parts.scheme else MASK
    if ":" in host:
        host = "[%s]" % host
    return urlunsplit((parts.scheme, host + port, parts.path, "", ""))
