"""Upstream calls as CloudEvents: requests out of what happens, outcomes out of the answers.

HTTP binary mode of CloudEvents 1.0; protocol reference 6.3 to 6.9. Pure, apart from the time of day.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from datetime import datetime, timezone
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence

from ..exceptions import InvalidArgument, RefuseConnection
from ..webpubsub import cloud_events
from .handlers import ConnectReply, ConnectRequest, Outcome, check_reply, outgoing
from .session import Call

__all__ = ["Answer", "Correspondence", "MAX_CONNECT_ANSWER", "Request", "connect_request", "event_request"]
__all__ += ["read_connect_answer", "read_event_answer"]

log = logging.getLogger("simplepubsub.server")

#: Largest answer to "connect" in bytes (the emulator's limit).
MAX_CONNECT_ANSWER = 16 * 2**20

_JSON = cloud_events.content_type_of("json")


class Correspondence:
    """What one connection has said upstream: the number of its next event, and the cookies it was given."""

    __slots__ = ("cookies", "next_id")

    def __init__(self) -> None:
        self.next_id = 0
        self.cookies: Any = None

    def number(self) -> int:
        """Return the id of a new event: 0 for the first, which is "connect" wherever somebody handles it."""
        number = self.next_id
        self.next_id = number + 1
        return number


class Request(NamedTuple):
    """One event, ready to be posted; ``name`` is what ``{event}`` stands for."""

    hub: str
    name: str
    headers: Dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """What a handler said. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it is a success."""
        return 200 <= self.status <= 299


# --- requests ---------------------------------------------------------------------------------------------------------


def connect_request(request: ConnectRequest, letters: Correspondence, origin: str, keys: Sequence[str]) -> Request:
    """Return the event that asks whether a client may connect."""
    body = {
        "claims": {str(key): _strings(value) for key, value in request.claims.items()},
        "query": _cleaned(request.query),
        "headers": _cleaned(request.headers),
        "subprotocols": [_clean(item) for item in request.subprotocols],
        "clientCertificates": [dict(item._asdict()) for item in request.client_certificates],
    }
    headers = _headers("connect", "connect", request.hub, request.connection_id, request.user_id, origin, keys)
    headers["ce-id"] = str(letters.number())
    headers["Content-Type"] = _JSON
    return Request(request.hub, "connect", headers, _json(body))


def event_request(call: Call, letters: Correspondence, origin: str, keys: Sequence[str]) -> Request:
    """Return the event of a call. Raises InvalidArgument for data that no body can carry."""
    session, event = call.session, call.event
    name = call.kind if event is None else event.event
    headers = _headers(call.kind, name, session.hub.name, session.connection_id, session.user_id, origin, keys)
    headers["ce-id"] = str(letters.number())
    if session.wire.subprotocol is not None:
        headers["ce-subprotocol"] = cloud_events.encode_header_value(session.wire.subprotocol)
    if session.state:
        try:
            headers[cloud_events.STATE_HEADER] = cloud_events.encode_state(session.state)
        except ValueError as error:
            log.warning("the state of %s cannot be sent to its event handler: %s", session.connection_id, error)
    body = b"{}"
    headers["Content-Type"] = _JSON
    if event is not None:
        data_type = "text" if event.data is None else str(event.data_type)
        headers["Content-Type"] = cloud_events.content_type_of(data_type)
        body = b"" if event.data is None else cloud_events.encode_payload(event.data, data_type)
    elif call.kind == "disconnected":
        body = _json({"reason": call.reason})
    elif call.group is not None:
        body = _json({"group": call.group})
    return Request(session.hub.name, name, headers, body)


def _headers(
    kind: str, name: str, hub: str, connection_id: str, user_id: Optional[str], origin: str, keys: Iterable[str]
) -> Dict[str, str]:
    prefix = cloud_events.SYSTEM_PREFIX
    if kind == "event":
        prefix = cloud_events.USER_PREFIX
    elif kind in ("joined", "left"):
        prefix = cloud_events.GROUP_PREFIX
    safe = cloud_events.encode_header_value
    headers = {
        "WebHook-Request-Origin": origin,
        "ce-specversion": cloud_events.VERSION,
        "ce-awpsversion": cloud_events.VERSION,
        "ce-type": prefix + safe(name),
        "ce-source": "/hubs/%s/client/%s" % (safe(hub), safe(connection_id)),
        "ce-time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "ce-signature": cloud_events.signature(connection_id, keys),
        "ce-hub": safe(hub),
        "ce-connectionId": safe(connection_id),
        "ce-eventName": safe(name),
    }
    if user_id:
        headers["ce-userId"] = safe(user_id)
    return headers


def _strings(value: Any) -> List[str]:
    """Return a claim as the list of strings that "connect" carries."""
    values = value if isinstance(value, list) else [value]
    return [item if isinstance(item, str) else json.dumps(item) for item in values]


def _cleaned(table: Mapping[str, List[str]]) -> Dict[str, List[str]]:
    return {_clean(key): [_clean(value) for value in values] for key, values in table.items()}


def _clean(text: str) -> str:
    """Return a text of a request without the half characters that stand for octets which are not UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


# --- answers ----------------------------------------------------------------------------------------------------------


def read_event_answer(answer: Answer, limit: int) -> Outcome:
    """Return what becomes of a user event; an answer that cannot be used is a failure."""
    if not answer.ok:
        return Outcome(error="the event handler answered %d" % answer.status, refused=400 <= answer.status < 500)
    try:
        state = _state(answer)
        if not answer.body or answer.status == 204:
            return Outcome(state=state)
        content_type = answer.headers.get("content-type")
        # Bytes without a type are bytes (protocol reference 6.8).
        data_type = cloud_events.data_type_of(content_type) if content_type else "binary"
        charset = cloud_events.charset_of(content_type)
        if data_type is None or charset is None:
            raise InvalidArgument("an answer of the type %s cannot be sent to a client" % ascii(content_type)[:80])
        data = cloud_events.decode_payload(answer.body, data_type, charset)
        return Outcome(outgoing(None, None, data, data_type, limit), state=state)
    except InvalidArgument as error:
        log.error("the answer to a user event cannot be used: %s", error)
        return Outcome(error="the event handler's answer cannot be used")


def read_connect_answer(answer: Answer, request: ConnectRequest) -> ConnectReply:
    """Return what "connect" decided. Raises RefuseConnection: the handler's own 4xx, 500 for all that is unusable."""
    if not answer.ok:
        status = answer.status if 400 <= answer.status <= 499 else 500
        raise RefuseConnection(status, "the event handler answered %d" % answer.status)
    try:
        state = _state(answer)
        if not answer.body or answer.status == 204:
            return ConnectReply(state=state)
        return check_reply(_reply(answer)._replace(state=state), request)
    except InvalidArgument as error:
        log.error("the answer to connect cannot be used: %s", error)
        raise RefuseConnection(500, "the event handler's answer to connect cannot be used") from None


def _reply(answer: Answer) -> ConnectReply:
    if len(answer.body) > MAX_CONNECT_ANSWER:
        raise InvalidArgument("it has more than %d bytes" % MAX_CONNECT_ANSWER)
    charset = cloud_events.charset_of(answer.headers.get("content-type"))
    if charset is None:
        raise InvalidArgument("its charset is not supported")
    body = cloud_events.decode_payload(answer.body, "json", charset)
    if body is None:
        return ConnectReply()
    if not isinstance(body, dict):
        raise InvalidArgument("it must be a JSON object, not %s" % type(body).__name__)
    for name in ("groups", "roles"):
        if not isinstance(body.get(name), (list, type(None))):
            raise InvalidArgument("%s must be an array of strings" % name)
    # An empty user id is none, as for the official handlers, which always send the member.
    user_id = body.get("userId")
    user_id = None if user_id == "" else user_id
    return ConnectReply(user_id, body.get("groups"), body.get("roles"), body.get("subprotocol"))


def _state(answer: Answer) -> Optional[Dict[str, Any]]:
    """Return the connection state that an answer sets, None when it sets none or one that cannot be read."""
    value = answer.headers.get(cloud_events.STATE_HEADER.lower())
    if value is None:
        return None
    state = cloud_events.decode_state(value)
    try:
        if state or not value.strip() or json.loads(base64.b64decode(value)) == {}:
            cloud_events.encode_state(state)  # what cannot be sent back later is of no use
            return state
    except (binascii.Error, ValueError, RecursionError):
        pass
    log.warning("ignored a connection state that is not a JSON object in base64")
    return None
