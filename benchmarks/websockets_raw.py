"""The raw ends of the WebSocket benchmarks: sockets, frames made beforehand, and nothing that a library would do.

As a program it is the server that the clients are measured against: `ready PORT`, then a thread for each connection,
until stdin closes. What it does is in the path: `/echo` answers each frame with the same one, `/source/COUNT` sends
that many when something arrives, `/sink/COUNT` takes that many and says `done`.

As a module it is the client that the servers are measured with, which asks for the same paths.
"""
from __future__ import annotations

import base64
import os
import socket
import struct
import sys
import threading

from wire import TEXT, accept_key, client_frame, server_frame

#: One message of 100 bytes as the server and as the client sends it, and what makes a batch of one write.
DOWN, UP = server_frame(TEXT.encode()), client_frame(TEXT.encode())
BATCH = 500
DONE = server_frame(b"done")
CLOSE = b"\x88\x02\x03\xe8"
TIMEOUT = 60.0


def read_exactly(sock: socket.socket, size: int, view: memoryview = memoryview(bytearray(1 << 18))) -> None:
    """Receive and discard that many bytes."""
    while size > 0:
        got = sock.recv_into(view, min(size, len(view)))
        if not got:
            raise ConnectionError("the peer left, %d bytes before the end" % size)
        size -= got


def send_many(sock: socket.socket, frame: bytes, count: int) -> None:
    """Send a frame that many times, in large writes."""
    batch = frame * BATCH
    for _ in range(count // BATCH):
        sock.sendall(batch)
    sock.sendall(frame * (count % BATCH))


def dial(url: str, path: str) -> socket.socket:
    """Connect to ``url`` and upgrade at ``path``."""
    host, port = url[len("ws://"):].split(":")
    sock = socket.create_connection((host, int(port)), TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall((
        "GET %s HTTP/1.1\r\nHost: %s:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: %s\r\n\r\n" % (path, host, port, base64.b64encode(os.urandom(16)).decode())).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = sock.recv(1)  # nothing of what follows the head
        if not more:
            raise ConnectionError("closed during the handshake: %r" % head[:80])
        head += more
    if b" 101 " not in head.split(b"\r\n", 1)[0]:
        raise ConnectionError("not upgraded: %r" % head[:120])
    return sock


def leave(sock: socket.socket) -> None:
    """Close as a client does and wait for the server's end."""
    try:
        sock.sendall(b"\x88\x82\0\0\0\0\x03\xe8")
        while sock.recv(1 << 16):
            pass
    except OSError:
        pass  # it was faster
    sock.close()


def serve_one(sock: socket.socket) -> None:
    """Upgrade one client and do what its path says."""
    sock.settimeout(TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = b""
    while b"\r\n\r\n" not in head:
        more = sock.recv(4096)
        if not more:
            return
        head += more
    lines = head.split(b"\r\n")
    key = next(line.split(b":", 1)[1].strip() for line in lines if line.lower().startswith(b"sec-websocket-key:"))
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept_key(key) + b"\r\n\r\n")
    _, kind, *count = lines[0].split()[1].decode().split("/")
    if kind == "source":
        sock.recv(4096)
        send_many(sock, DOWN, int(count[0]))
    elif kind == "sink":
        read_exactly(sock, int(count[0]) * len(UP))
        sock.sendall(DONE)
    while True:  # echo, and for all the end; a client with a request at a time never leaves half a frame
        data = sock.recv(4096)
        if not data or data[0] & 15 == 8:
            break
        if kind == "echo" and data[0] & 15 == 1:
            sock.sendall(DOWN)
    sock.sendall(CLOSE)


def serve_and_close(sock: socket.socket) -> None:
    """Do so and close, whatever happens."""
    with sock:
        try:
            serve_one(sock)
        except (OSError, struct.error):
            pass  # the client left


def main() -> int:
    """Serve until stdin closes."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    print("ready %d" % listener.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=serve_and_close, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
