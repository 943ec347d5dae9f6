"""The rules of the Web PubSub JSON subprotocols, as the engine's `Protocol`."""

from __future__ import annotations

from typing import Optional, Tuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..core.protocol import Decoded, Frame, Protocol, Resume
from ..exceptions import InvalidArgument, RemoteProtocolError
from ..transports.frames import BINARY, TEXT
from ..transports.redact import redact_text, redact_url
from .json_codec import PING, decode_service_message, encode_sequence_ack, finish, join_body

__all__ = ["JsonProtocol", "protocol_named"]

_PING: Frame = (TEXT, PING)

#: The service remembers the ack ids of the last 1,000 successful commands of a connection (protocol reference 2.4).
#: With more of them unanswered at a cut it would execute the oldest a second time.
REMEMBERED_ACK_IDS = 1000


class JsonProtocol(Protocol):
    """``json.webpubsub.azure.v1``, or with ``reliable`` ``json.reliable.webpubsub.azure.v1``."""

    def __init__(self, reliable: bool) -> None:
        self.reliable = reliable
        self.max_in_flight = REMEMBERED_ACK_IDS if reliable else None
        self.name = "json.reliable.webpubsub.azure.v1" if reliable else "json.webpubsub.azure.v1"
        self.subprotocols = (self.name,)

    def url(self, base: str, resume: Resume) -> str:
        """Return ``base``, or for a recovery the URL with both ids and no token (client specification 1.4)."""
        if resume is None:
            return base
        connection_id, token = resume
        parts = urlsplit(base)
        query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "access_token"]
        query += [("awps_connection_id", connection_id), ("awps_reconnection_token", token)]
        return urlunsplit(parts._replace(query=urlencode(query)))

    def shown_url(self, url: str) -> str:
        return redact_url(url)

    def shown_text(self, text: str) -> str:
        return redact_text(text)

    def decode(self, frame: Frame) -> Decoded:
        if frame[0] == BINARY:
            raise RemoteProtocolError("binary frame on a JSON subprotocol", code=1003)
        return decode_service_message(frame[1])  # type: ignore[arg-type]  # text frames carry str

    def ping(self) -> Frame:
        return _PING

    def sequence_ack(self, sequence_id: int) -> Frame:
        return TEXT, encode_sequence_ack(sequence_id)

    def restore(self, key: str, ack_id: int) -> Frame:
        return self.finish(join_body(key).encode(), ack_id)

    def finish(self, body: bytes, ack_id: Optional[int]) -> Frame:
        return TEXT, finish(body, ack_id)


_NAMES = {
    "json": False,
    "json.webpubsub.azure.v1": False,
    "json.reliable": True,
    "json.reliable.webpubsub.azure.v1": True,
}


def protocol_named(name: object) -> JsonProtocol:
    """Return the protocol for a short or full name, ignoring case. Raises InvalidArgument for an unknown one."""
    text = str(getattr(name, "value", name)).lower()
    if text not in _NAMES:
        known: Tuple[str, ...] = tuple(_NAMES)
        raise InvalidArgument("unknown protocol %r: use one of %s" % (name, ", ".join(known)))
    return JsonProtocol(_NAMES[text])
