"""Small HTTP CONNECT and SOCKS5 proxies, written from RFC 9110 section 9.3.6 and RFC 1928, well-behaved or not."""

from __future__ import annotations

import base64
import select
import socket
import struct
import threading
from typing import Any, List, Optional, Tuple

from tests.timing import LOOPBACK, scaled

__all__ = ["HttpProxy", "SocksProxy"]


class _Proxy:
    """Accept, agree on a target in `_negotiate`, then pass bytes both ways. A context manager.

    ``credentials`` is (user, password) or None; ``refuse`` answers every request with a refusal, ``silent`` with
    nothing.
    ``targets`` lists what clients asked for.
    """

    scheme = ""

    def __init__(
        self, *, credentials: Optional[Tuple[str, str]] = None, refuse: bool = False, silent: bool = False
    ) -> None:
        self.credentials = credentials
        self.refuse = refuse
        self.silent = silent
        self.targets: List[Tuple[str, int]] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._sockets: List[socket.socket] = []
        self._threads: List[threading.Thread] = []

    def url(self, credentials: str = "") -> str:
        """The proxy's URL."""
        return "%s://%s%s:%d" % (self.scheme, credentials + "@" if credentials else "", LOOPBACK, self.port)

    def __enter__(self) -> Any:
        self._listener = socket.socket()
        self._listener.bind((LOOPBACK, 0))
        self._listener.listen(16)
        self.port = self._listener.getsockname()[1]
        self._run(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.set()
        socket.create_connection((LOOPBACK, self.port)).close()  # wakes accept()
        self._threads[0].join(scaled(5))
        self._listener.close()
        with self._lock:
            for sock in self._sockets:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # gone already
        for thread in self._threads:
            thread.join(scaled(5))
        for sock in self._sockets:
            sock.close()

    def _run(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, name=type(self).__name__, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._closing.is_set():
                sock.close()
                return
            with self._lock:
                self._sockets.append(sock)
            self._run(self._serve, sock)

    def _serve(self, client: socket.socket) -> None:
        try:
            if self.silent:
                while client.recv(4096):
                    pass
                return
            target = self._negotiate(client)
            if target is not None:
                self._pass(client, target)
        except OSError:
            pass  # one side has gone
        finally:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _negotiate(self, client: socket.socket) -> Optional[socket.socket]:
        raise NotImplementedError

    def _dial(self, host: str, port: int) -> socket.socket:
        self.targets.append((host, port))
        target = socket.create_connection((host, port), scaled(5))
        target.settimeout(None)
        with self._lock:
            self._sockets.append(target)
        return target

    @staticmethod
    def _pass(client: socket.socket, target: socket.socket) -> None:
        other = {client: target, target: client}
        while True:
            for sock in select.select(list(other), [], [])[0]:
                data = sock.recv(65536)
                if not data:
                    return
                other[sock].sendall(data)


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise OSError("the client has gone")
        data += piece
    return data


class HttpProxy(_Proxy):
    """Tunnels by CONNECT."""

    scheme = "http"

    def _negotiate(self, client: socket.socket) -> Optional[socket.socket]:
        head = b""
        while b"\r\n\r\n" not in head:
            head += _read(client, 1)
        lines = head.decode("latin-1").split("\r\n")
        method, authority, _ = lines[0].split(" ")
        headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines[1:] if ":" in line}
        if self.credentials is not None:
            wanted = base64.b64encode(":".join(self.credentials).encode()).decode()
            if headers.get("proxy-authorization", "") != "Basic " + wanted:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return None
        if self.refuse or method != "CONNECT":
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return None
        host, port = authority.rsplit(":", 1)
        target = self._dial(host, int(port))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return target


class SocksProxy(_Proxy):
    """SOCKS5 with domain names or IPv4 addresses."""

    scheme = "socks5"

    def _negotiate(self, client: socket.socket) -> Optional[socket.socket]:
        _, count = _read(client, 2)
        methods = _read(client, count)
        wanted = 0 if self.credentials is None else 2
        if wanted not in methods:
            client.sendall(b"\x05\xff")
            return None
        client.sendall(bytes([5, wanted]))
        if self.credentials is not None:  # RFC 1929
            _, size = _read(client, 2)
            user = _read(client, size).decode()
            password = _read(client, _read(client, 1)[0]).decode()
            good = (user, password) == self.credentials
            client.sendall(b"\x01\x00" if good else b"\x01\x01")
            if not good:
                return None
        _, _, _, kind = _read(client, 4)
        host = _read(client, _read(client, 1)[0]).decode() if kind == 3 else socket.inet_ntoa(_read(client, 4))
        port = struct.unpack("!H", _read(client, 2))[0]
        if self.refuse:
            client.sendall(b"\x05\x02\x00\x01\0\0\0\0\0\0")  # not allowed by the rules
            return None
        target = self._dial(host, port)
        client.sendall(b"\x05\x00\x00\x01\0\0\0\0\0\0")
        return target
