"""Read what the service posts to an event handler: CloudEvents headers and bodies into request records.

Everything that does not fit raises RefuseEvent with the status of the answer; a header or body is never trusted and
never echoed beyond a few quoted characters. Pure functions, safe from any thread. Protocol reference 6.2 to 6.8.
"""

from __future__ import annotations

import json
import re
from types import MappingProxyType
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Union

from ..exceptions import InvalidArgument, RefuseEvent
from .cloud_events import (
    GROUP_PREFIX,
    STATE_HEADER,
    SYSTEM_PREFIX,
    USER_PREFIX,
    VERSION,
    charset_of,
    data_type_of,
    decode_header_value,
    decode_payload,
    decode_state,
)
from .event_requests import (
    ClientCertificate,
    ConnectedRequest,
    ConnectRequest,
    DisconnectedRequest,
    EventRequest,
    GroupEventRequest,
    UserEventRequest,
)
from .json_fields import EVENT_NAME, shown

__all__ = [
    "Attributes",
    "Headers",
    "allowed_origin",
    "clean_origin",
    "lower_headers",
    "read_attributes",
    "read_request",
]

#: What ``handle`` takes: a mapping, or (name, value) pairs.
Headers = Union[Mapping[str, str], Iterable[Tuple[str, str]]]

_PORT = re.compile(r":\d*\Z")
#: What may be repeated in a header of the answer.
_PRINTABLE = re.compile(r"[!-~]+\Z")
_LOOPBACK = ("127.0.0.1", "::1")

#: The kinds of events by the part of ``ce-type`` after its prefix.
_SYSTEM_EVENTS = ("connect", "connected", "disconnected")
_GROUP_EVENTS = ("joined", "left")


class Attributes(NamedTuple):
    """The CloudEvents attributes of one request; ``kind`` is "system", "group" or "user"."""

    kind: str
    event: str
    hub: str
    connection_id: str
    user_id: Optional[str]
    subprotocol: Optional[str]
    state: Mapping[str, Any]


def lower_headers(headers: Headers) -> Dict[str, str]:
    """Return the headers with names in lower case; repeated ones are joined by commas, as HTTP allows."""
    found: Dict[str, str] = {}
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    for name, value in pairs:
        key = str(name).lower()
        found[key] = found[key] + ", " + str(value) if key in found else str(value)
    return found


# --- origin -----------------------------------------------------------------------------------------------------------


def clean_origin(origin: str) -> str:
    """Return the host of an origin (a host, host:port or URL) in lower case, without its port.

    The names of this machine for itself are one host, "localhost".
    """
    host = origin.strip().lower().partition("://")[2] or origin.strip().lower()
    host = _PORT.sub("", host.partition("/")[0]) if host.count(":") < 2 or "]" in host else host
    host = host.strip("[]")
    return "localhost" if host in _LOOPBACK else host


def allowed_origin(value: Optional[str], allowed: Iterable[str]) -> Optional[str]:
    """Return what ``WebHook-Allowed-Origin`` answers to a ``WebHook-Request-Origin``, None when it is not allowed.

    ``allowed`` holds results of `clean_origin`, "*" for any, or "*.example.test" for any host below. Raises RefuseEvent
    when the request names no origin.
    """
    origins = [item.strip() for item in (value or "").split(",") if _PRINTABLE.match(item.strip())]
    if not origins:
        raise RefuseEvent(400, "the header WebHook-Request-Origin is missing")
    for pattern in allowed:
        if pattern == "*":
            return "*"
        for origin in origins:
            host = clean_origin(origin)
            if host == pattern or pattern.startswith("*.") and host.endswith(pattern[1:]):
                return origin
    return None


# --- attributes -------------------------------------------------------------------------------------------------------


def read_attributes(headers: Mapping[str, str]) -> Attributes:
    """Return the CloudEvents attributes in headers with lower-case names. Raises RefuseEvent (400)."""
    if headers.get("ce-specversion") != VERSION:
        raise RefuseEvent(400, "not a CloudEvents %s request in binary mode: ce-specversion is missing" % VERSION)
    connection_id = _required(headers, "ce-connectionid")
    hub = _required(headers, "ce-hub")
    kind, event = _read_type(_required(headers, "ce-type"))
    named = headers.get("ce-eventname")
    if named and named.lower() != event.lower():
        raise RefuseEvent(400, "ce-eventName and ce-type name different events")
    user_id = headers.get("ce-userid")
    return Attributes(
        kind,
        event,
        hub,
        connection_id,
        decode_header_value(user_id) if user_id else None,
        headers.get("ce-subprotocol") or None,
        MappingProxyType(decode_state(headers.get(STATE_HEADER.lower()))),
    )


def _required(headers: Mapping[str, str], name: str) -> str:
    value = decode_header_value(headers.get(name, "").strip())
    if not value:
        raise RefuseEvent(400, "the header %s is missing" % name)
    return value


def _read_type(value: str) -> Tuple[str, str]:
    for kind, prefix, names in (
        ("system", SYSTEM_PREFIX, _SYSTEM_EVENTS),
        ("group", GROUP_PREFIX, _GROUP_EVENTS),
        ("user", USER_PREFIX, ()),
    ):
        if value.lower().startswith(prefix):
            event = value[len(prefix) :]
            if names and event.lower() in names:
                return kind, event.lower()
            if not names and EVENT_NAME.match(event):
                return kind, event
    raise RefuseEvent(400, "unknown ce-type %s" % shown(value))


# --- bodies -----------------------------------------------------------------------------------------------------------


def read_request(attributes: Attributes, headers: Mapping[str, str], body: bytes) -> EventRequest:
    """Return the request record. Raises RefuseEvent: 400 for a body that cannot be read, 415 for its content type."""
    kind, event, hub, connection_id, user_id, subprotocol, state = attributes
    http_headers = MappingProxyType(dict(headers))
    content_type = headers.get("content-type")
    if kind == "user":
        data_type, data = _read_data(content_type, body)
        return UserEventRequest(
            hub, connection_id, event, user_id, state, subprotocol, data, data_type, http_headers
        )
    fields = _read_object(content_type, body)
    if kind == "group":
        group = fields.get("group")
        if not isinstance(group, str) or not group:
            raise RefuseEvent(400, "the body names no group")
        return GroupEventRequest(hub, connection_id, event, user_id, state, subprotocol, group, http_headers)
    if event == "connected":
        return ConnectedRequest(hub, connection_id, event, user_id, state, subprotocol, http_headers)
    if event == "disconnected":
        reason = fields.get("reason") or ""
        if not isinstance(reason, str):
            raise RefuseEvent(400, "reason must be a string")
        return DisconnectedRequest(hub, connection_id, event, user_id, state, subprotocol, reason, http_headers)
    mqtt = fields.get("mqtt")
    return ConnectRequest(
        hub,
        connection_id,
        event,
        user_id,
        state,
        _read_lists(fields, "claims"),
        _read_lists(fields, "query"),
        _read_lists(fields, "headers"),
        tuple(_strings(fields.get("subprotocols"), "subprotocols")),
        _read_certificates(fields.get("clientCertificates")),
        MappingProxyType(mqtt) if isinstance(mqtt, dict) else None,
        http_headers,
    )


def _read_data(content_type: Optional[str], body: bytes) -> Tuple[Optional[str], Any]:
    if not content_type and not body:
        return None, None
    data_type = data_type_of(content_type)
    charset = charset_of(content_type)
    if data_type is None or charset is None:
        raise RefuseEvent(415, "the content type %s of a user event is not supported" % shown(content_type))
    try:
        return data_type, decode_payload(body, data_type, charset)
    except InvalidArgument as error:
        raise RefuseEvent(400, str(error)) from None


def _read_object(content_type: Optional[str], body: bytes) -> Dict[str, Any]:
    charset = charset_of(content_type)
    if charset is None or content_type and data_type_of(content_type) != "json":
        raise RefuseEvent(415, "a system event has the content type application/json, not %s" % shown(content_type))
    try:
        fields = decode_payload(body or b"{}", "json", charset)
    except InvalidArgument as error:
        raise RefuseEvent(400, str(error)) from None
    if not isinstance(fields, dict):
        raise RefuseEvent(400, "the body of a system event must be a JSON object")
    return fields


def _read_lists(fields: Dict[str, Any], name: str) -> Mapping[str, List[str]]:
    value = fields.get(name)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise RefuseEvent(400, "%s must be an object" % name)
    return MappingProxyType({key: _strings(items, name) for key, items in value.items()})


def _strings(value: Any, name: str) -> List[str]:
    items = [] if value is None else value if isinstance(value, list) else [value]
    if any(isinstance(item, (dict, list)) for item in items):
        raise RefuseEvent(400, "%s must hold lists of strings" % name)
    # A claim such as "exp" is a number in the token, and not every sender makes a string of it.
    return [item if isinstance(item, str) else json.dumps(item) for item in items]


def _read_certificates(value: Any) -> Tuple[ClientCertificate, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RefuseEvent(400, "clientCertificates must be a list of objects")
    return tuple(
        ClientCertificate(str(item.get("thumbprint") or ""), str(item.get("content") or "")) for item in value
    )
