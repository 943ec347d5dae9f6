"""What `logging_enable` shows of a request and its answer, with secrets masked."""

from __future__ import annotations

import logging
import re
from typing import Iterable, Mapping, Optional, Sequence, Tuple

from ..transports.redact import MASK, redact_text
from .service_wire import Answer

__all__ = ["Hider", "log", "log_answer", "log_request"]

log = logging.getLogger("simplepubsub.service")

#: Longest part of a body that is shown, in characters.
SHOWN = 300

#: Headers whose values are shown; any other may hold a secret.
_SHOWN_HEADERS = {
    "accept", "allow", "connection", "content-length", "content-type", "date", "retry-after", "server",
    "transfer-encoding", "user-agent", "x-ms-client-request-id", "x-ms-error-code", "x-ms-request-id",
}

#: Parameters of the query whose values are shown.
_SHOWN_PARAMETERS = {
    "api-version", "clienttype", "excluded", "filter", "group", "maxpagesize", "messagettlseconds", "minutestoexpire",
    "reason", "role", "targetname", "top", "userid",
}

_TOKEN = re.compile(r'("(?:\w*token|\w*key|\w*secret|password)"\s*:\s*)"[^"]*"?', re.IGNORECASE)


class Hider:
    """A function that masks in a text what looks like a secret, and the given secrets whatever they look like."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted((secret for secret in secrets if len(secret) >= 4), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return _TOKEN.sub(lambda match: '%s"%s"' % (match.group(1), MASK), redact_text(text))


def _headers(headers: Mapping[str, str], hide: Hider) -> str:
    return ", ".join(
        "%s: %s" % (name, hide(value) if name.lower() in _SHOWN_HEADERS else MASK) for name, value in headers.items()
    )


def _body(body: bytes, content_type: Optional[str], hide: Hider) -> str:
    kind = (content_type or "").lower()
    if not body:
        return "no body"
    if "json" not in kind and not kind.startswith("text/"):
        return "%d bytes of %s" % (len(body), kind or "unknown type")
    # Masked before it is cut: half a token would not be recognised.
    text = hide(body[: 16 * SHOWN].decode("utf-8", "replace"))
    return "%d bytes: %s%s" % (len(body), ascii(text[:SHOWN]), "..." if len(text) > SHOWN else "")


def log_request(
    method: str, url: str, query: Sequence[Tuple[str, str]], headers: Mapping[str, str], body: bytes, hide: Hider
) -> None:
    """Write what is about to be sent."""
    shown = "&".join(
        "%s=%s" % (ascii(name)[1:-1], ascii(value)[1:-1] if name.lower() in _SHOWN_PARAMETERS else MASK)
        for name, value in query
    )
    log.debug(
        "request %s %s; %s; %s", method, hide("%s?%s" % (url, shown)), _headers(headers, hide),
        _body(body, headers.get("Content-Type"), hide),
    )


def log_answer(method: str, url: str, answer: Answer, seconds: float, hide: Hider) -> None:
    """Write what came back."""
    log.debug(
        "answer %d to %s %s after %.0f ms; %s; %s", answer.status, method, url, seconds * 1000,
        _headers(answer.headers, hide), _body(answer.body, answer.headers.get("content-type"), hide),
    )
