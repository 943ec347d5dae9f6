"""Check the keywords of a client, and translate the flat ones that code written for the official SDK passes."""

from __future__ import annotations

import ssl as ssl_module
from typing import Any, Dict, NamedTuple, Optional

from ..core.backoff import RetryPolicy
from ..core.deadline import check_timeout
from ..exceptions import InvalidArgument

__all__ = ["Translated", "check", "translate"]


class Translated(NamedTuple):
    message_retry: RetryPolicy
    reconnect_retry: RetryPolicy
    protocol: Any
    auto_reconnect: bool
    logger: bool
    user_agent: str


_RETRY_FIELDS = {"total": "total", "backoff_factor": "base", "backoff_max": "maximum", "mode": "mode"}


def _retry(flat: Dict[str, Any], prefix: str, policy: RetryPolicy) -> RetryPolicy:
    """Return ``policy`` with the keywords ``<prefix>_retry_total`` and so on taken out of ``flat`` and applied."""
    fields = policy._asdict()
    for suffix, field in _RETRY_FIELDS.items():
        name = "%s_retry_%s" % (prefix, suffix)
        if name in flat:
            fields[field] = flat.pop(name)
    try:
        return RetryPolicy(**fields)
    except InvalidArgument as error:
        raise InvalidArgument("%s_retry: %s" % (prefix, error)) from None


def translate(
    flat: Dict[str, Any],
    message_retry: RetryPolicy,
    reconnect_retry: RetryPolicy,
    protocol: Any,
    auto_reconnect: bool,
    logger: bool,
) -> Translated:
    """Return the options with the official SDK's flat keywords applied. Raises InvalidArgument for unknown keywords."""
    for name, policy in (("message_retry", message_retry), ("reconnect_retry", reconnect_retry)):
        if not isinstance(policy, RetryPolicy):
            raise InvalidArgument("%s must be a RetryPolicy, not %r" % (name, policy))
    flat = dict(flat)
    message = _retry(flat, "message", message_retry)
    # There, a total of 0 switches reconnecting off.
    reconnect = _retry(flat, "reconnect", reconnect_retry)
    result = Translated(
        message_retry=message,
        reconnect_retry=reconnect,
        protocol=flat.pop("protocol_type", protocol),
        auto_reconnect=auto_reconnect and reconnect.total != 0,
        logger=bool(flat.pop("logging_enable", logger)),
        user_agent=str(flat.pop("user_agent", None) or ""),
    )
    if flat:
        raise InvalidArgument("unknown keyword %s: see help(WebPubSubClient)" % ", ".join(map(repr, sorted(flat))))
    return result


def check(durations: Dict[str, Optional[float]], max_inbox: int, max_outbox_bytes: int, gaps: str, ssl: Any) -> None:
    """Raise InvalidArgument for a bad duration, bound, ``gaps`` or ``ssl``."""
    for name, value in durations.items():
        check_timeout(value, name)
        if name in ("ping_interval", "idle_timeout") and value == 0:
            raise InvalidArgument("%s must be above 0 seconds, or None to switch it off" % name)
    for name, bound in (("max_inbox", max_inbox), ("max_outbox_bytes", max_outbox_bytes)):
        if isinstance(bound, bool) or not isinstance(bound, int) or bound < 1:
            raise InvalidArgument("%s must be an integer >= 1, not %r" % (name, bound))
    if gaps not in ("flag", "raise"):
        raise InvalidArgument("gaps must be 'flag' or 'raise', not %r" % (gaps,))
    if ssl is not None and not isinstance(ssl, ssl_module.SSLContext):
        raise InvalidArgument("ssl must be None or an ssl.SSLContext, not %s" % type(ssl).__name__)
