"""Turn what the functions of an event handler return into HTTP answers.

Everything here raises InvalidArgument for a result that cannot be sent: the mistake is the application's, and becomes a
500 with a line in its log. Pure functions, safe from any thread. Protocol reference 6.6, 6.8 and 6.9.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ..exceptions import InvalidArgument, MessageTooLarge
from .arguments import check_group, name_data_type
from .cloud_events import STATE_HEADER, content_type_of, encode_payload, encode_state
from .event_requests import ConnectRequest, ConnectResponse, UserEventRequest, UserEventResponse
from .messages import MAX_MESSAGE_BYTES

__all__ = ["Answer", "answer_connect", "answer_text", "answer_user_event"]

#: Status, headers, body.
Answer = Tuple[int, Dict[str, str], bytes]

_TEXT = "text/plain; charset=utf-8"

#: What a response may carry: the service knows no other content type.
_REPLY_TYPES = ("text", "json", "binary")


def answer_text(status: int, text: str, **headers: str) -> Answer:
    """Return an answer with a line of text for people."""
    return status, dict(headers, **{"Content-Type": _TEXT}), text.encode("utf-8", "backslashreplace")


def answer_connect(result: Any, request: ConnectRequest) -> Answer:
    """Return the answer to a connect event: 204 when the token decides, 200 with what the function changes."""
    if result is None:
        return 204, {}, b""
    if isinstance(result, dict):
        unknown = sorted(set(map(str, result)) - set(ConnectResponse._fields))
        if unknown:
            raise InvalidArgument(
                "a connect function may return a dict with the keys %s, not %s"
                % (", ".join(ConnectResponse._fields), ", ".join(unknown))
            )
        result = ConnectResponse(**result)
    if not isinstance(result, ConnectResponse):
        raise InvalidArgument(
            "a connect function returns None, a ConnectResponse or a dict, not %s" % type(result).__name__
        )
    body: Dict[str, Any] = {}
    if result.user_id is not None:
        if not isinstance(result.user_id, str) or not result.user_id:
            raise InvalidArgument("user_id must be a str that is not empty, not %r" % (result.user_id,))
        body["userId"] = result.user_id
    if result.groups is not None:
        body["groups"] = [check_group(group) for group in _strings("groups", result.groups)]
    if result.roles is not None:
        body["roles"] = _strings("roles", result.roles)
    if result.subprotocol is not None:
        if result.subprotocol not in request.subprotocols:
            raise InvalidArgument("the client does not offer the subprotocol %r" % (result.subprotocol,))
        body["subprotocol"] = result.subprotocol
    headers = _state_header(result.state)
    if not body:
        return 204, headers, b""
    return 200, dict(headers, **{"Content-Type": content_type_of("json")}), json.dumps(body).encode("ascii")


def answer_user_event(result: Any, request: UserEventRequest) -> Answer:
    """Return the answer to a user event: 204 sends the client nothing, 200 one message."""
    if result is None:
        return 204, {}, b""
    if not isinstance(result, UserEventResponse):
        if isinstance(result, (ConnectResponse, UserEventRequest)):
            raise InvalidArgument(
                "the function of a user event returns None, data or a UserEventResponse, not %s" % type(result).__name__
            )
        result = UserEventResponse(result)
    headers = _state_header(result.state)
    if result.data is None:
        return 204, headers, b""
    data_type = name_data_type(result.data, result.data_type)
    if data_type not in _REPLY_TYPES:
        raise InvalidArgument("a response cannot have the data type %r: use text, json or binary" % data_type)
    body = encode_payload(result.data, data_type)
    if len(body) > MAX_MESSAGE_BYTES:
        text = "the response has %d bytes, the service accepts %d" % (len(body), MAX_MESSAGE_BYTES)
        raise MessageTooLarge(text, size=len(body), limit=MAX_MESSAGE_BYTES)
    return 200, dict(headers, **{"Content-Type": _TEXT if data_type == "text" else content_type_of(data_type)}), body


def _state_header(state: Optional[Mapping[str, Any]]) -> Dict[str, str]:
    if state is None:
        return {}
    if not isinstance(state, Mapping):
        raise InvalidArgument("state must be a dict, not %s" % type(state).__name__)
    return {STATE_HEADER: encode_state(dict(state))}


def _strings(name: str, values: Iterable[str]) -> List[str]:
    items = None if isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable) else list(values)
    if items is None or not all(isinstance(item, str) for item in items):
        raise InvalidArgument("%s must be a sequence of str, not %r" % (name, values))
    return items
