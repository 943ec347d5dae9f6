"""Speak just enough RFC 6455 and Web PubSub JSON over a raw socket, for load generators and control measurements.

Nothing here is a client library: frames are unfragmented, errors are exceptions, and every socket has a timeout.
"""
from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import struct
from urllib.parse import urlsplit

RELIABLE = "json.reliable.webpubsub.azure.v1"
PLAIN = "json.webpubsub.azure.v1"
GROUP = "bench"
TEXT = "x" * 100
ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ACK = re.compile(rb'"ackId": ?(\d+), ?"success": ?true')


def accept_key(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept value for a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + ACCEPT_GUID).digest())


def server_frame(payload: bytes) -> bytes:
    """Return one unmasked text frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return b"\x81\x7e" + struct.pack("!H", size) + payload
    return b"\x81\x7f" + struct.pack("!Q", size) + payload


def client_frame(payload: bytes, key: bytes = b"\x37\xfa\x21\x3d") -> bytes:
    """Return one masked text frame; the key is fixed because only the cost of unmasking matters here."""
    size = len(payload)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    elif size < 65536:
        head = b"\x81\xfe" + struct.pack("!H", size)
    else:
        head = b"\x81\xff" + struct.pack("!Q", size)
    mask = int.from_bytes((key * (size // 4 + 1))[:size], "little")
    return head + key + (int.from_bytes(payload, "little") ^ mask).to_bytes(size, "little")


def publish(ack_id: int, text: str = TEXT, group: str = GROUP) -> str:
    """Return the JSON of one acknowledged publish, as a client without a library would write it."""
    return '{"type":"sendToGroup","group":"%s","ackId":%d,"dataType":"text","data":"%s"}' % (group, ack_id, text)


def flood_request(count: int, size: int, ack_id: int, data_type: str = "text") -> str:
    """Return the JSON of the event that makes the thin server stream `count` messages of `size` bytes."""
    return '{"type":"event","event":"flood","ackId":%d,"dataType":"json","data":{"count":%d,"size":%d,"type":"%s"}}' % (
        ack_id, count, size, data_type)


def dial(url: str, subprotocol: str, timeout: float = 10.0) -> "tuple[socket.socket, bytes]":
    """Connect, upgrade, and return the socket with the bytes that followed the answer's headers.

    Raises ConnectionError when the server answers anything but 101 with the wanted subprotocol.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    sock = socket.create_connection((host, port), timeout)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        target = parts.path + ("?" + parts.query if parts.query else "")
        request = (
            "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n"
            % (target, host, port, base64.b64encode(os.urandom(16)).decode(), subprotocol)
        )
        sock.sendall(request.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = sock.recv(65536)
            if not more:
                raise ConnectionError("closed during the handshake: %r" % answer[:80])
            answer += more
        head, rest = answer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n", 1)[0] or subprotocol.encode() not in head:
            raise ConnectionError("not upgraded: %r" % head[:120])
    except BaseException:
        sock.close()
        raise
    return sock, rest


def read_until(sock: socket.socket, buffered: bytes, wanted: bytes, limit: int = 1 << 20) -> bytes:
    """Receive until `wanted` has been seen; return everything received. Raises ConnectionError on end or excess."""
    data = buffered
    while wanted not in data:
        more = sock.recv(65536)
        if not more or len(data) > limit:
            raise ConnectionError("waited for %r, got %r" % (wanted, data[-200:]))
        data += more
    return data


def open_client(url: str, subprotocol: str, group: str = "") -> socket.socket:
    """Dial, wait for the connected message, join the group if one is named; return the socket with nothing unread."""
    sock, rest = dial(url, subprotocol)
    try:
        read_until(sock, rest, b'"connected"')
        if group:
            sock.sendall(client_frame(b'{"type":"joinGroup","group":"%s","ackId":1}' % group.encode()))
            seen = read_until(sock, b"", b'"ack"')
            if not _ACK.search(seen):
                seen = read_until(sock, seen, b"}")
            if not _ACK.search(seen):
                raise ConnectionError("join refused: %r" % seen[:200])
    except BaseException:
        sock.close()
        raise
    return sock
