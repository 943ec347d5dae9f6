"""Which events go to which event handler: URL templates, patterns, and the text form that the command line takes.

Pure: nothing here opens a connection. Protocol reference 6.1.
"""

from __future__ import annotations

import re
import ssl as ssl_module
from typing import Any, Dict, FrozenSet, Iterable, Match, Optional, Sequence, Tuple, Union
from urllib.parse import quote, urlsplit

from ..exceptions import InvalidArgument
from ..webpubsub.json_fields import EVENT_NAME

__all__ = ["DEFAULT_SYSTEM", "EventRoute", "PRESENCE_EVENTS", "SYSTEM_EVENTS", "UrlTemplate", "parse_event_handler"]

#: Events that the service itself makes; user events may have the same names and are not the same events.
SYSTEM_EVENTS = ("connect", "connected", "disconnected", "joined", "left")
#: Those about groups: there are none until somebody asks for them.
PRESENCE_EVENTS = ("joined", "left")
DEFAULT_SYSTEM = ("connect", "connected", "disconnected")

#: Seconds before each further attempt to reach a handler (the emulator's).
RETRY_DELAYS = (1.0, 3.0, 5.0)
TIMEOUT = 100.0

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_FIELDS = ("hub", "url", "events", "system", "timeout")
_FIELD = re.compile(r",(?=(?:%s)=)" % "|".join(_FIELDS))


class UrlTemplate:
    """The address of a handler, with ``{hub}`` and ``{event}`` for what is put in. Immutable.

    Raises InvalidArgument that says what is wrong with the text.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        if not re.match(r"[!-~]+\Z", text):
            raise InvalidArgument(
                "the URL of an event handler must be printable ASCII without blanks (percent-encode the rest), not %s"
                % ascii(_shown(text))
            )
        if "{@" in text:
            raise InvalidArgument("Key Vault references in the URL of an event handler need the cloud")
        scheme, separator, rest = text.partition("://")
        if scheme.lower() == "tunnel":
            raise InvalidArgument("tunnel: URLs need the cloud; give the http: or https: URL of the event handler")
        if not separator or scheme.lower() not in ("http", "https"):
            raise InvalidArgument("the URL of an event handler starts with http:// or https://, not %s" % _shown(text))
        if "#" in rest:
            raise InvalidArgument("the URL of an event handler has no fragment (write '#' as %%23): %s" % _shown(text))
        host = re.split(r"[/?]", rest, maxsplit=1)[0]
        if "{" in host or "}" in host:
            raise InvalidArgument("{hub} and {event} may be in the path and the query of a URL, not in its host")
        unknown = [name for name in _PLACEHOLDER.findall(rest) if name.lower() not in ("hub", "event")]
        if unknown:
            raise InvalidArgument("the URL of an event handler knows {hub} and {event}, not {%s}" % unknown[0])
        if re.search(r"[{}]", _PLACEHOLDER.sub("", rest)):
            raise InvalidArgument("a brace without its counterpart in the URL of an event handler: %s" % _shown(text))
        try:
            parts = urlsplit(text)
            name, port = parts.hostname, parts.port
        except ValueError as error:
            raise InvalidArgument("the URL of an event handler has a bad host or port: %s" % error) from None
        if not name or port == 0:
            raise InvalidArgument("the URL of an event handler needs a host and a port it can have: %s" % _shown(text))
        #: The template without what may be secret, for logs.
        self.shown = _shown(text)

    def url(self, hub: str, event: str) -> str:
        """Return the address for an event of a hub; both are percent-encoded."""

        def value(match: Match[str]) -> str:
            return quote(hub if match.group(1).lower() == "hub" else event, safe="")

        return _PLACEHOLDER.sub(value, self._text)

    def __repr__(self) -> str:
        return "<UrlTemplate %s>" % self.shown


def _shown(url: str) -> str:
    """Return a URL for logs and errors: user information and the query may hold codes, so they are left out."""
    scheme, separator, rest = url.partition("://")
    path, query, _ = rest.partition("?")
    host, slash, path = path.partition("/")
    shown = scheme[:20] + separator + host.rpartition("@")[2] + slash + path
    return shown[:200] + ("?***" if query else "")


class EventRoute:
    """One entry of `Server.add_event_handler`: which events go to which target. Immutable.

    ``hub`` None means every hub, ``events`` None every user event. Raises InvalidArgument.
    """

    __slots__ = ("__weakref__", "events", "handler", "hub", "retry_delays", "ssl", "system", "template", "timeout")

    def __init__(
        self,
        target: Any,
        hub: Optional[str] = None,
        *,
        events: Union[str, Iterable[str], None] = "*",
        system: Union[str, Iterable[str], None] = DEFAULT_SYSTEM,
        timeout: float = TIMEOUT,
        retry_delays: Sequence[float] = RETRY_DELAYS,
        ssl: Optional[ssl_module.SSLContext] = None,
    ) -> None:
        self.template: Optional[UrlTemplate] = None
        self.handler: Any = None
        if isinstance(target, str):
            self.template = UrlTemplate(target)
        elif callable(getattr(target, "handle", None)):
            self.handler = target
        else:
            raise InvalidArgument(
                "an event handler is a URL, or an object with handle(method, headers, body), not %s; "
                "functions are registered with server.on" % ascii(target)[:100]
            )
        self.hub = hub
        self.events = _event_names(events)
        self.system = _system_names(system)
        if not self.system and self.events is not None and not self.events:
            raise InvalidArgument("an event handler without events and system events would never be called")
        if not _is_duration(timeout) or timeout <= 0:
            raise InvalidArgument("timeout must be a positive number of seconds, not %r" % (timeout,))
        self.timeout = float(timeout)
        delays = tuple(retry_delays)
        if not all(_is_duration(delay) and delay >= 0 for delay in delays):
            raise InvalidArgument("retry_delays must be a sequence of seconds, not %r" % (retry_delays,))
        self.retry_delays = delays
        if ssl is not None and not isinstance(ssl, ssl_module.SSLContext):
            raise InvalidArgument("ssl must be an ssl.SSLContext, not %r" % (ssl,))
        self.ssl = ssl

    def takes(self, kind: str, event: str, hub: str) -> bool:
        """Return whether this entry handles an event: ``kind`` "event" is a user event, any other a system event.

        ``event`` and ``hub`` are in lower case.
        """
        if self.hub is not None and self.hub != hub:
            return False
        if kind == "event":
            return self.events is None or event in self.events
        return kind in self.system

    @property
    def name(self) -> str:
        """What this is called in logs."""
        return self.template.shown if self.template is not None else type(self.handler).__name__

    def __repr__(self) -> str:
        return "<EventRoute %s hub=%s>" % (self.name, self.hub or "*")


def _is_duration(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def _names(value: Union[str, Iterable[str], None], what: str) -> Tuple[str, ...]:
    """Return the names in a list, or in a text with commas (or "+", which no name contains) between them."""
    if value is None:
        return ()
    items = re.split(r"[,+]", value) if isinstance(value, str) else list(value)
    if not all(isinstance(item, str) for item in items):
        raise InvalidArgument("%s must be a str or a sequence of str, not %s" % (what, ascii(value)[:100]))
    return tuple(item.strip().lower() for item in items if item.strip())


def _event_names(value: Union[str, Iterable[str], None]) -> Optional[FrozenSet[str]]:
    names = _names(value, "events")
    for name in names:
        if name != "*" and not EVENT_NAME.match(name):
            raise InvalidArgument(
                "events must be '*' or names of user events (a letter, then letters, digits, '_', '.' or '-'; at most "
                "128), not %s" % ascii(name)[:150]
            )
    return None if "*" in names else frozenset(names)


def _system_names(value: Union[str, Iterable[str], None]) -> FrozenSet[str]:
    names = _names(value, "system")
    for name in names:
        if name not in SYSTEM_EVENTS:
            raise InvalidArgument("system must be any of %s, not %s" % (", ".join(SYSTEM_EVENTS), ascii(name)[:100]))
    return frozenset(names)


def parse_event_handler(text: str) -> Dict[str, Any]:
    """Return the arguments of `Server.add_event_handler` in ``hub=H,url=U,events=E,system=S,timeout=T``.

    Only ``url`` is needed. A comma begins a new field when a field's name and "=" follow; any other belongs to the
    value before it, so a URL's query may contain commas and "=" (",url=" and the like in it must be percent-encoded).
    A comma in a URL's path must be percent-encoded: there it is rather a misspelt field. Names in ``events`` and
    ``system`` are separated by "," or "+"; an empty ``hub``, or "*", means every hub. Raises InvalidArgument.
    """
    fields: Dict[str, str] = {}
    for part in _FIELD.split(text):
        name, separator, value = part.partition("=")
        if not separator or name not in _FIELDS:
            known = ", ".join(item + "=" for item in _FIELDS)
            raise InvalidArgument("expected one of %s, not %s" % (known, ascii(_shown(part))[:80]))
        if name in fields:
            raise InvalidArgument("%s= is given twice; a comma that belongs to a URL is written %%2C" % name)
        fields[name] = value.strip()
    url = fields.get("url", "")
    if not url:
        raise InvalidArgument("url= is missing: the address of the event handler")
    if "," in url.partition("?")[0]:
        found = ascii(url.partition("?")[0].partition(",")[2])[:60]
        raise InvalidArgument("no field begins with %s; a comma in a URL's path is written %%2C" % found)
    result: Dict[str, Any] = {"target": url}
    if fields.get("hub", "*") not in ("", "*"):
        result["hub"] = fields["hub"]
    for name in ("events", "system"):
        if name in fields:
            result[name] = fields[name]
    if "timeout" in fields:
        try:
            result["timeout"] = float(fields["timeout"])
        except ValueError:
            found = ascii(fields["timeout"])[:40]
            raise InvalidArgument("timeout= must be a number of seconds, not %s" % found) from None
    return result
