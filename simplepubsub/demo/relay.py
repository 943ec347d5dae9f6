"""A TCP relay in this process whose connections can be reset: the network of the demo, with its scissors.

One thread moves the bytes of all connections. Every line has a port of its own, so that one client can be cut off while
the others stay. A cut is a real one: both sides get a TCP reset, and what was on the way is gone.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import struct
import threading
from collections import deque
from concurrent.futures import Future
from typing import Callable, Deque, Dict, Iterable, List, Set, Tuple

__all__ = ["Relay"]

log = logging.getLogger("simplepubsub.demo")

#: Bytes moved in one step.
_CHUNK = 64 * 1024

#: Closing a socket with this setting resets its connection (two ints, on Windows two shorts: on, 0 seconds).
_RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)

#: Longest that a call waits for the relay's thread, and the thread for the target (seconds).
_LIMIT = 10.0


class _End:
    """One of the two sockets of a connection. ``waiting`` has been read from the other and must be written here."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.waiting = b""
        self.finished = False  # it has said that it sends no more
        self.told = False  # it has been told that nothing more comes
        self.other = self


class Relay:
    """Relays connections to ``host:port``; use as a context manager. Safe from any thread."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._selector = selectors.DefaultSelector()
        self._commands: Deque[Tuple[Callable[[], int], "Future[int]"]] = deque()
        self._bell, self._ring = socket.socketpair()
        self._running = True
        # Owned by the thread:
        self._ends: Dict[int, Set[_End]] = {}  # by port of the line
        self._listeners: List[socket.socket] = []
        self._thread = threading.Thread(target=self._run, name="simplepubsub-demo-relay", daemon=True)

    def __enter__(self) -> Relay:
        self._bell.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, self._obey)
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._ask(self._shut)
        self._thread.join(_LIMIT)
        self._ring.close()

    def add_line(self) -> int:
        """Open a new way to the target and return its port on 127.0.0.1. Raises OSError."""
        return self._ask(self._listen)

    def cut(self, ports: Iterable[int]) -> int:
        """Reset all connections of these lines; return how many there were. New ones work at once."""
        chosen = list(ports)
        return self._ask(lambda: sum(self._cut_line(port) for port in chosen))

    def _ask(self, command: Callable[[], int]) -> int:
        answer: "Future[int]" = Future()
        self._commands.append((command, answer))
        self._ring.send(b"!")
        return answer.result(_LIMIT)

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._running:
            for key, mask in self._selector.select():
                key.data(mask)
        self._selector.close()
        self._bell.close()

    def _obey(self, mask: int) -> None:
        self._bell.recv(_CHUNK)
        while self._commands:
            command, answer = self._commands.popleft()
            try:
                answer.set_result(command())
            except OSError as error:
                answer.set_exception(error)

    def _shut(self) -> int:
        for port in self._ends:
            self._cut_line(port)
        for listener in self._listeners:
            self._selector.unregister(listener)
            listener.close()
        self._running = False
        return 0

    def _listen(self) -> int:
        listener = socket.socket()
        try:
            listener.bind(("127.0.0.1", 0))
            listener.listen(16)
            listener.setblocking(False)
            port = int(listener.getsockname()[1])
        except OSError:
            listener.close()
            raise
        self._listeners.append(listener)
        self._ends[port] = set()
        self._selector.register(listener, selectors.EVENT_READ, lambda mask: self._accept(listener, port))
        return port

    def _accept(self, listener: socket.socket, port: int) -> None:
        try:
            near, _ = listener.accept()
        except OSError:
            return  # it was gone before it was accepted
        try:
            far = socket.create_connection(self._target, _LIMIT)
        except OSError as error:
            log.warning("the relay cannot reach %s:%d: %s", self._target[0], self._target[1], error)
            _reset_on_close(near)
            near.close()
            return
        ends = (_End(near), _End(far))
        ends[0].other, ends[1].other = ends[1], ends[0]
        for end in ends:
            end.sock.setblocking(False)
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[port].add(end)
            self._watch(end, port)

    def _watch(self, end: _End, port: int) -> None:
        """Ask for the events that ``end`` needs now: it is read only while the other side keeps up."""
        mask = selectors.EVENT_WRITE if end.waiting else 0
        if not end.finished and not end.other.waiting:
            mask |= selectors.EVENT_READ
        known = self._selector.get_map().get(end.sock)
        if known is not None and known.events != mask:
            self._selector.unregister(end.sock)
            known = None
        if known is None and mask:
            self._selector.register(end.sock, mask, lambda ready: self._move(end, port, ready))

    def _move(self, end: _End, port: int, ready: int) -> None:
        if end not in self._ends[port]:
            return  # cut by an earlier event of the same round
        other = end.other
        try:
            if ready & selectors.EVENT_READ and not other.waiting:
                data = end.sock.recv(_CHUNK)
                end.finished = not data
                other.waiting = data
            for side in (end, other):
                if side.waiting:
                    side.waiting = side.waiting[_send(side.sock, side.waiting) :]
                if side.other.finished and not (side.waiting or side.told):
                    side.told = True
                    side.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass  # not ready after all
        except OSError:
            self._reset(end, port)
            return
        if end.told and other.told:
            self._drop(end, port)
            return
        self._watch(end, port)
        self._watch(other, port)

    def _cut_line(self, port: int) -> int:
        ends = self._ends[port]
        count = len(ends) // 2
        while ends:
            self._reset(next(iter(ends)), port)
        return count

    def _reset(self, end: _End, port: int) -> None:
        for side in (end, end.other):
            _reset_on_close(side.sock)
        self._drop(end, port)

    def _drop(self, end: _End, port: int) -> None:
        for side in (end, end.other):
            self._ends[port].discard(side)
            if side.sock in self._selector.get_map():
                self._selector.unregister(side.sock)
            side.sock.close()


def _reset_on_close(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass  # reset by its peer already


def _send(sock: socket.socket, data: bytes) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0
