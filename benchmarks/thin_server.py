"""Serve a minimal `json.reliable.webpubsub.azure.v1`, cheaply, so that clients are what a benchmark measures.

It upgrades, says `connected`, acknowledges whatever carries an ackId (one write for all frames of one read), answers
pings, and on the event `flood` streams prebuilt group messages as fast as the socket takes them. It routes nothing and
checks nothing. Prints `ready PORT`; ends when stdin closes or after `--life` seconds.
"""
from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import threading

from wire import GROUP, PLAIN, RELIABLE, accept_key, server_frame

CHUNK = 512  # messages in one write of a flood
_ACK_ID = re.compile(rb'"ackId": ?(\d+)')
_FLOOD = re.compile(rb'"count": ?(\d+), ?"size": ?(\d+), ?"type": ?"(\w+)"')
_HEADER = re.compile(rb"\r\nsec-websocket-(key|protocol): *([^\r]+)", re.I)
_TAIL = b',"success":true}'
_ACK_HEAD = [server_frame(b'{"type":"ack","ackId":' + b"0" * n + _TAIL)[: -n - len(_TAIL)] for n in range(1, 22)]
_ACK_HEAD.insert(0, b"")
_ONES = {}  # words -> the integer 0x...0000000100000001, so that key * ones is the mask
_CHUNKS = {}  # (type, size, first sequence id) -> frames joined


def ones(words: int) -> int:
    """Return the integer whose little-endian 32-bit words are all 1."""
    if words not in _ONES:
        _ONES[words] = int.from_bytes(b"\1\0\0\0" * words, "little")
    return _ONES[words]


def flood_chunk(kind: str, size: int, first: int, count: int) -> bytes:
    """Return `count` framed group messages with rising sequence ids; whole chunks are built once and kept."""
    cached = _CHUNKS.get((kind, size, first)) if count == CHUNK else None
    if cached is not None:
        return cached
    data = '"%s"' % ("x" * size) if kind == "text" else '{"v":"%s"}' % ("x" * max(size - 8, 0))
    head = '{"type":"message","from":"group","group":"%s","fromUserId":"peer","dataType":"%s"' % (GROUP, kind)
    raw = (head + ',"data":%s,"sequenceId":' % data).encode()
    frames = b"".join(server_frame(b"%b%d}" % (raw, number)) for number in range(first, first + count))
    if count == CHUNK and first < 1000000:
        _CHUNKS[(kind, size, first)] = frames
    return frames


class Peer(asyncio.Protocol):
    """One connection."""

    serial = 0

    def __init__(self) -> None:
        self.transport = None
        self.buffer = b""
        self.open = False
        self.sequence = 0
        self.flood = None
        self.left = 0
        self.writable = True

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=1 << 20)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.stream()

    def data_received(self, data: bytes) -> None:
        if self.buffer:
            data = self.buffer + data
            self.buffer = b""
        if self.open:
            self.frames(data)
        elif b"\r\n\r\n" in data:
            self.upgrade(data)
        else:
            self.buffer = data

    def upgrade(self, data: bytes) -> None:
        """Answer the handshake and send the connected message."""
        head, rest = data.split(b"\r\n\r\n", 1)
        found = {name.lower(): value.strip() for name, value in _HEADER.findall(head)}
        offered = [item.strip() for item in found.get(b"protocol", b"").decode().split(",")]
        chosen = next((item for item in offered if item in (RELIABLE, PLAIN)), None)
        if b"key" not in found or chosen is None:
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.transport.close()
            return
        self.open = True
        Peer.serial += 1
        extra = ',"reconnectionToken":"token-%d"' % Peer.serial if chosen == RELIABLE else ""
        message = '{"type":"system","event":"connected","userId":"bench","connectionId":"thin-%d"%s}' % (
            Peer.serial, extra)
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            + accept_key(found[b"key"]) + b"\r\nSec-WebSocket-Protocol: " + chosen.encode() + b"\r\n\r\n"
            + server_frame(message.encode())
        )
        if rest:
            self.frames(rest)

    def frames(self, data: bytes) -> None:
        """Handle every complete masked frame in `data` and keep the rest; this loop is the server's whole cost."""
        at, end = 0, len(data)
        out = []
        search, heads, from_bytes = _ACK_ID.search, _ACK_HEAD, int.from_bytes
        while end - at >= 6:
            size = data[at + 1] & 0x7F
            start = at + 6
            if size == 126:
                size = from_bytes(data[at + 2:at + 4], "big")
                start = at + 8
            elif size == 127:
                size = from_bytes(data[at + 2:at + 10], "big")
                start = at + 14
            stop = start + size
            if stop > end:
                break
            words = (size + 3) >> 2
            key = from_bytes(data[start - 4:start], "little")
            # Up to three bytes of rubbish follow the payload; nothing below looks that far.
            text = (from_bytes(data[start:stop], "little") ^ key * ones(words)).to_bytes(words * 4, "little")
            opcode = data[at] & 0x0F
            at = stop
            if opcode == 1:
                match = search(text)
                if match:
                    digits = match.group(1)
                    out.append(heads[len(digits)] + digits + _TAIL)
                if b'"flood"' in text:
                    self.flood = _FLOOD.search(text)
                elif not match and b'"ping"' in text:
                    out.append(server_frame(b'{"type":"pong"}'))
            elif opcode == 9:
                out.append(bytes((0x8A, size)) + text[:size])
            elif opcode == 8:
                self.transport.write(b"".join(out) + bytes((0x88, size)) + text[:size])
                self.transport.close()
                return
        if at < end:
            self.buffer = data[at:]
        if out:
            self.transport.write(b"".join(out))
        if self.flood and not self.left:
            self.left = int(self.flood.group(1))
            self.stream()

    def stream(self) -> None:
        """Write the flood until the socket is full or the count is done."""
        while self.left and self.writable and not self.transport.is_closing():
            size, kind = int(self.flood.group(2)), self.flood.group(3).decode()
            count = min(self.left, CHUNK)
            self.left -= count
            first, self.sequence = self.sequence + 1, self.sequence + count
            self.transport.write(flood_chunk(kind, size, first, count))
        if not self.left:
            self.flood = None


async def serve(port: int, life: float) -> None:
    """Listen on loopback until stdin ends or `life` seconds have passed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Peer, "127.0.0.1", port, backlog=512)
    done = asyncio.Event()
    threading.Thread(target=watch_stdin, args=(loop, done), daemon=True).start()
    sys.stdout.write("ready %d\n" % server.sockets[0].getsockname()[1])
    sys.stdout.flush()
    try:
        await asyncio.wait_for(done.wait(), life)
    except asyncio.TimeoutError:
        pass
    server.close()


def watch_stdin(loop, done: asyncio.Event) -> None:
    """End the server when whoever started it is gone: its end of the pipe closes with it."""
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(done.set)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--life", type=float, default=900.0)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.life))
