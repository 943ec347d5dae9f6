"""Keep secrets out of messages, logs and traces."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

__all__ = ["redact_text", "redact_url"]

MASK = "***"

_SECRETS = re.compile(
    r"(?i)\b(access_token|awps_reconnection_token|reconnectionToken|accesskey)"  # names
    r"(\"?\s*[=:]\s*\"?)"  # "=", ":" and quotes
    r"[^\s&\";,}'<>]+"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=\-]+")
_JWT = re.compile(r"\beyJ[A-Za-z0-9_\-]*\.[A-Za-z0-9_\-]*\.[A-Za-z0-9_\-]*")


def redact_text(text: str) -> str:
    """Return ``text`` with everything that looks like a token, a key or a password masked."""
    text = _SECRETS.sub(lambda match: match.group(1) + match.group(2) + MASK, text)
    return _JWT.sub(MASK, _BEARER.sub(lambda match: match.group(1) + " " + MASK, text))


def redact_url(url: str) -> str:
    """Return ``url`` without user information and query values: what is left names the place and no secret."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = ":%d" % parts.port if parts.port else ""
    except ValueError:
        return MASK
    if ":" in host:
        host = "[%s]" % host
    return urlunsplit((parts.scheme, host + port, parts.path, "", ""))
