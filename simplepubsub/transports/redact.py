"""Keep secrets out of messages, logs and traces."""

from __future__ import annotations

import re
from typing import List, Match
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
#: What a JWT is made of. Looked at piece by piece: one pattern for it all takes time by the square of the length.
_DOTTED = re.compile(r"[A-Za-z0-9_\-.]+")


def redact_text(text: str) -> str:
    """Return ``text`` with everything that looks like a token, a key or a password masked."""
    text = _SECRETS.sub(lambda match: match.group(1) + match.group(2) + MASK, text)
    text = _USER_INFO.sub(lambda match: match.group(1) + MASK, text)
    text = _BEARER.sub(lambda match: match.group(1) + " " + MASK, text)
    return _DOTTED.sub(_without_jwt, text) if "eyJ" in text else text


def _without_jwt(match: Match[str]) -> str:
    """Return a run of characters with every JWT in it masked: "eyJ" and what follows, with two full stops in it."""
    rest = match.group()
    done: List[str] = []
    while True:
        start = rest.find("eyJ")
        parts = rest[start:].split(".", 3) if start >= 0 else []
        if len(parts) < 3:
            return "".join(done) + rest
        done += [rest[:start], MASK]
        rest = "." + parts[3] if len(parts) > 3 else ""


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
