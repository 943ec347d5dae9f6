"""CloudEvents between the service and an event handler: header names, content types, signature, connection state.

Both ends use it: the embedded server that sends them, and `event_handler`, which answers them. HTTP binary mode of
CloudEvents 1.0; protocol reference section 6. Pure functions, safe from any thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from typing import Any, Dict, Iterable, Match, Optional, Tuple
from urllib.parse import unquote_to_bytes

from ..exceptions import InvalidArgument
from .json_fields import check_bytes, check_text, encode_json

__all__ = [
    "GROUP_PREFIX",
    "METADATA_PREFIX",
    "STATE_HEADER",
    "SYSTEM_PREFIX",
    "USER_PREFIX",
    "VERSION",
    "charset_of",
    "content_type_of",
    "data_type_of",
    "decode_header_value",
    "decode_payload",
    "decode_state",
    "encode_header_value",
    "encode_payload",
    "encode_state",
    "signature",
    "signature_matches",
]

#: Value of ``ce-awpsversion`` and ``ce-specversion``.
VERSION = "1.0"
#: What the header ``ce-type`` starts with.
SYSTEM_PREFIX = "azure.webpubsub.sys."
USER_PREFIX = "azure.webpubsub.user."
GROUP_PREFIX = "azure.webpubsub.gp."
STATE_HEADER = "ce-connectionState"
METADATA_PREFIX = "X-WebPubSub-Metadata-"

_CONTENT_TYPES = {
    "text": "text/plain",
    "json": "application/json",
    "binary": "application/octet-stream",
    "protobuf": "application/x-protobuf",
}
_DATA_TYPES = {value: key for key, value in _CONTENT_TYPES.items()}

#: Charsets of text and JSON; what the service sends is UTF-8.
_CHARSETS = {"utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "utf-8", "iso-8859-1": "latin-1", "utf-16": "utf-16"}
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)

#: What a header value cannot carry as it stands: controls, "%", everything beyond ASCII; blanks at either end besides.
_UNSAFE = re.compile(r"[^\x20-\x24\x26-\x7e]+")
#: The same where blanks and quotes are encoded too.
_UNSAFE_STRICT = re.compile(r"[^\x21\x23\x24\x26-\x7e]+")


def encode_header_value(text: str) -> str:
    """Return ``text`` (a user id, say) as a header carries it: octets of its UTF-8 form percent-encoded where needed.

    CloudEvents' HTTP binding 3.1.3.2, except that blanks and quotes inside stay as they are: the official handlers do
    not decode, and most names need nothing else. Injective, and no control character gets through.
    """
    inner = text.strip(" ")
    before = len(text) - len(text.lstrip(" ")) if inner else 0
    after = len(text) - len(inner) - before
    return "%20" * before + _UNSAFE.sub(_percent, inner) + "%20" * after


def decode_header_value(value: str) -> str:
    """Return the text that a header value stands for.

    Only what an encoder writes is decoded ("jos%C3%A9"); any other percent sign stands for itself, so that the user
    "adm%69n" of a sender that does not encode is never taken for "admin". Raw UTF-8 is understood too.
    """
    try:
        text = value.encode("latin-1").decode("utf-8")  # how HTTP libraries hand over raw octets
    except UnicodeError:
        text = value
    if "%" in text:
        try:
            decoded = unquote_to_bytes(text).decode("utf-8")
        except UnicodeError:
            return text
        if text in (encode_header_value(decoded), _UNSAFE_STRICT.sub(_percent, decoded)):
            return decoded
    return text


def _percent(match: Match[str]) -> str:
    return "".join("%%%02X" % octet for octet in match.group().encode("utf-8", "surrogatepass"))


def signature(connection_id: str, keys: Iterable[str]) -> str:
    """Return the value of ``ce-signature``: one entry per access key, the primary one first.

    It covers the connection id only, neither body nor time (protocol reference 6.4).
    """
    message = connection_id.encode("utf-8", "replace")
    digests = (hmac.new(key.encode("utf-8"), message, hashlib.sha256).hexdigest() for key in keys)
    return ",".join("sha256=" + digest for digest in digests)


def signature_matches(value: Optional[str], connection_id: str, keys: Iterable[str]) -> bool:
    """Return whether any entry of ``ce-signature`` was made with any of ``keys``; compares in constant time."""
    found = [item.strip().lower().encode("utf-8", "replace") for item in (value or "").split(",")]
    expected = [signature(connection_id, (key,)).encode("ascii") for key in keys]
    matches = [hmac.compare_digest(mine, theirs) for mine in expected for theirs in found]
    return any(matches)


def encode_state(state: Dict[str, Any]) -> str:
    """Return a connection state as the header carries it. Raises InvalidArgument when it is no JSON object."""
    if not isinstance(state, dict):
        raise InvalidArgument("a connection state must be a dict, not %s" % type(state).__name__)
    return base64.b64encode(encode_json(state).encode("utf-8", "backslashreplace")).decode("ascii")


def decode_state(value: Optional[str]) -> Dict[str, Any]:
    """Return the connection state in a header, empty when it is absent or unreadable, as the official handler does."""
    try:
        state = json.loads(base64.b64decode(value or "", validate=True).decode("utf-8"))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def content_type_of(data_type: str) -> str:
    """Return the content type of a request that carries ``data_type``."""
    return _CONTENT_TYPES[data_type]


def data_type_of(content_type: Optional[str]) -> Optional[str]:
    """Return the data type that a content type stands for; parameters and case are ignored, None when unknown."""
    return _DATA_TYPES.get((content_type or "").partition(";")[0].strip().lower())


def encode_payload(data: Any, data_type: str) -> bytes:
    """Return the body that carries ``data``. Raises InvalidArgument when it does not fit ``data_type``."""
    if data_type == "text":
        return check_text(data).encode("utf-8", "replace")
    if data_type == "json":
        return encode_json(data).encode("utf-8", "backslashreplace")
    return bytes(check_bytes(data, data_type))


def charset_of(content_type: Optional[str]) -> Optional[str]:
    """Return the codec of a content type: UTF-8 without a charset, None when the charset is not supported."""
    match = _CHARSET.search(content_type or "")
    return _CHARSETS.get(match.group(1).lower()) if match else "utf-8"


def decode_payload(body: bytes, data_type: str, charset: str = "utf-8") -> Any:
    """Return the data in a body. Raises InvalidArgument for text that is not in ``charset`` and for what is no JSON."""
    if data_type not in ("text", "json"):
        return bytes(body)
    try:
        text = body.decode(charset)
        return text if data_type == "text" else json.loads(text, parse_constant=_reject)
    except (ValueError, RecursionError) as error:
        form = charset.upper() + " text" if data_type == "text" else "JSON"
        raise InvalidArgument("the body is not %s: %s" % (form, error)) from None


def _reject(name: str) -> Tuple[()]:
    raise ValueError("%s is not JSON" % name)
