"""A Web PubSub client with no line of the package in it: websocket-client, JSON, and nothing done by itself.

It acknowledges, joins and answers only what a test tells it to, so a test sees exactly what the server does.
"""

from __future__ import annotations

import json
import struct
import urllib.parse
from typing import Any, Dict, List, Optional, Tuple

import pytest
import websocket

from tests.timing import scaled

PLAIN = "json.webpubsub.azure.v1"
RELIABLE = "json.reliable.webpubsub.azure.v1"


class Closed(Exception):
    """The server closed with a close frame."""

    def __init__(self, code: Optional[int], reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class RawClient:
    """One connection; `first` is the connected message (None for simple clients). A context manager."""

    def __init__(self, url: str, *subprotocols: str, timeout: float = 10.0, hello: bool = True, **options: Any) -> None:
        self.url = url
        self.subprotocols = subprotocols
        # Its UTF-8 check is slow, and `frame` decodes every text anyway.
        self.ws = websocket.create_connection(
            url, subprotocols=list(subprotocols) or None, timeout=scaled(timeout), skip_utf8_validation=True, **options
        )
        self.first: Optional[Dict[str, Any]] = None
        try:
            if hello and self.ws.subprotocol in (PLAIN, RELIABLE):
                self.first = self.receive()
        except BaseException:
            self.abort()
            raise

    @property
    def subprotocol(self) -> Optional[str]:
        """What the server chose."""
        return self.ws.subprotocol

    @property
    def connection_id(self) -> str:
        return str(self.first and self.first["connectionId"])

    # --- sending

    def send(self, *messages: Any) -> None:
        """Send messages: a dict as JSON, a str as it is, bytes as a binary frame."""
        for message in messages:
            if isinstance(message, bytes):
                self.ws.send_binary(message)
            else:
                self.ws.send(message if isinstance(message, str) else json.dumps(message))

    def join(self, group: str, ack_id: int = 1_000_000) -> None:
        """Join a group and wait for the ack."""
        self.send({"type": "joinGroup", "group": group, "ackId": ack_id})
        answer = self.receive()
        assert answer == {"type": "ack", "ackId": ack_id, "success": True}, answer

    def publish(self, group: str, data: Any, data_type: str = "text", **more: Any) -> None:
        self.send(dict({"type": "sendToGroup", "group": group, "dataType": data_type, "data": data}, **more))

    def acknowledge(self, sequence_id: int) -> None:
        self.send({"type": "sequenceAck", "sequenceId": sequence_id})

    # --- receiving

    def frame(self) -> Tuple[int, Any]:
        """Return the next data, ping or pong frame: text as str. Raises Closed."""
        opcode, frame = self.ws.recv_data_frame(True)
        payload = frame.data
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            code = struct.unpack("!H", payload[:2])[0] if payload else None
            raise Closed(code, payload[2:].decode() if payload else "")
        return opcode, payload.decode() if opcode == websocket.ABNF.OPCODE_TEXT else payload

    def receive(self) -> Any:
        """Return the next JSON message. Raises Closed."""
        while True:
            opcode, payload = self.frame()
            if opcode == websocket.ABNF.OPCODE_TEXT:
                return json.loads(payload)
            assert opcode in (websocket.ABNF.OPCODE_PING, websocket.ABNF.OPCODE_PONG), (opcode, payload)

    def receive_many(self, count: int) -> List[Any]:
        return [self.receive() for _ in range(count)]

    def expect_close(self) -> Tuple[Optional[int], str]:
        """Read until the server closes; return (code, reason)."""
        while True:
            try:
                self.frame()
            except Closed as closed:
                return closed.code, closed.reason

    def expect_loss(self) -> None:
        """Read until the socket dies without a close frame."""
        try:
            while True:
                self.frame()
        except (ConnectionError, websocket.WebSocketConnectionClosedException):
            return

    def assert_quiet(self) -> None:
        """Check that nothing is on its way: the answer to a ping is the next thing to arrive."""
        self.send({"type": "ping"})
        assert self.receive() == {"type": "pong"}

    # --- ending

    def recovery_url(self, token: Optional[str] = None, connection_id: Optional[str] = None) -> str:
        assert self.first is not None
        values = {
            "awps_connection_id": connection_id or self.connection_id,
            "awps_reconnection_token": token or self.first["reconnectionToken"],
        }
        return self.url.partition("?")[0] + "?" + urllib.parse.urlencode(values)

    def recover(self, **options: Any) -> "RawClient":
        """Return a new client that continues this one's session; `first` is the connected message after recovery."""
        return RawClient(self.recovery_url(), *self.subprotocols, **options)

    def abort(self) -> None:
        """Close the socket without a close handshake."""
        self.ws.shutdown()

    def close(self, code: int = 1000) -> None:
        """Close politely, waiting a moment for the answer."""
        self.ws.close(code, timeout=scaled(3))

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: Any) -> None:
        self.abort()


class Clients:
    """Makes clients of a server and closes them together. A context manager; `connect` is what tests call."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._made: List[RawClient] = []

    def connect(
        self,
        *subprotocols: str,
        hub: str = "plaza",
        url: Optional[str] = None,
        query: str = "",
        timeout: float = 10.0,
        headers: Optional[List[str]] = None,
        **options: Any,
    ) -> RawClient:
        """Connect to a URL, or to a hub with a token; `options` are those of `client_access_url`."""
        if url is None:
            url = self._server.client_access_url(hub, **options) + query
        self._made.append(RawClient(url, *subprotocols, timeout=timeout, header=headers))
        return self._made[-1]

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_: Any) -> None:
        for client in self._made:
            client.abort()


def ok(ack_id: int) -> Dict[str, Any]:
    """Return the acknowledgement of a success."""
    return {"type": "ack", "ackId": ack_id, "success": True}


def upgrade_request(server: Any, url: str, *headers: str) -> bytes:
    """Return a handshake for `url` with the key of the example in RFC 6455."""
    lines = [
        "GET %s HTTP/1.1" % url.partition(str(server.port))[2],
        "Host: 127.0.0.1:%d" % server.port,
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    return ("\r\n".join(lines + list(headers)) + "\r\n\r\n").encode()


def refused(url: str, *subprotocols: str, headers: Optional[List[str]] = None) -> Tuple[int, str]:
    """Return (status, body) of a handshake that must fail."""
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        RawClient(url, *subprotocols, header=headers)
    return caught.value.status_code, (caught.value.resp_body or b"").decode()
