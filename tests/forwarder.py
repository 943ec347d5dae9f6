"""The engine room of the fault proxy: a TCP forwarder whose every step can be held, cut or dropped.

Theory of operation. One thread runs a selector loop and owns every socket and every piece of state; a public method
posts an action to that thread and waits until it has been carried out: when `cut()` returns, the cut has happened.
Each accepted connection is a link of two pipes: "up" (client to target) and "down" (target to client). A pipe reads
from its source, keeps what may not pass yet (delayed, throttled, or the sink is full) and stops reading at
`BUFFER_LIMIT`, so that a peer which does not read is felt by the sender through the proxy as it would be without it.
Nothing polls: the loop sleeps until a socket, an action or the due time of delayed bytes wakes it.
"""

from __future__ import annotations

import collections
import concurrent.futures
import errno
import random
import selectors
import socket
import struct
import sys
import threading
import time
from typing import Any, Callable, Deque, Dict, Optional, Set, Tuple, TypeVar, Union

from tests.timing import scaled

UP, DOWN = "up", "down"

#: Bytes taken from a socket at a time.
READ_SIZE = 256 * 1024

#: A pipe that holds this many bytes reads no more until some have passed.
BUFFER_LIMIT = 1024 * 1024

#: SO_LINGER on with 0 seconds: close() discards what is unsent and answers the peer with RST.
LINGER_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)

#: Answers of a non-blocking connect() that mean "under way".
IN_PROGRESS = (errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK))

#: What a pipe with bytes in hand is waiting for.
NOTHING, SINK, CLOCK = "nothing", "sink", "clock"


F = TypeVar("F", bound="Forwarder")


class _Pipe:
    """One direction of one link. An item of `queue` is (due time, bytes); None for bytes is the end of the stream."""

    __slots__ = ("direction", "eof", "fin_queued", "finished", "link", "next_piece", "queue", "rng", "sink", "size",
                 "source", "swallow", "waiting")

    def __init__(self, link: _Link, direction: str, source: socket.socket, sink: socket.socket) -> None:
        self.link = link
        self.direction = direction
        self.source = source
        self.sink = sink
        self.queue: Deque[Tuple[float, Optional[memoryview]]] = collections.deque()
        self.size = 0
        self.eof = False  # the source has ended its stream
        self.fin_queued = False  # the end is in the queue, or already passed on
        self.finished = False  # the end has been passed on to the sink
        self.swallow = False  # bytes read from now on are discarded (after close_politely)
        self.waiting = NOTHING
        self.next_piece = 0.0  # under throttle(interval=): no piece before this time
        self.rng: Optional[random.Random] = None


class _Link:
    """One accepted connection and its twin to the target."""

    def __init__(self, number: int, client: socket.socket, target: socket.socket) -> None:
        self.number = number
        self.sockets = (client, target)
        self.target = target
        up, down = _Pipe(self, UP, client, target), _Pipe(self, DOWN, target, client)
        self.pipes = {UP: up, DOWN: down}
        self.reads = {client: up, target: down}
        self.writes = {target: up, client: down}
        self.interest = {client: 0, target: 0}
        self.connecting = True
        self.half_open = False
        self.closed = False


class Forwarder:
    """The loop thread with its sockets. `tests.faultproxy.FaultProxy` puts handles on it, and is what tests use."""

    def __init__(self, target_host: str, target_port: int, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port  # 0 until start(), unless one was asked for
        self._target = self._address(target_host, target_port)
        # Guarded by _changed: the counters that other threads wait for.
        self._changed = threading.Condition()
        self._connections = 0
        self._accepted = 0
        self._cuts = 0
        self._passed = {UP: 0, DOWN: 0}
        self._swallowed = 0
        # Guarded by _lock: the way into the loop thread.
        self._lock = threading.Lock()
        self._actions: Deque[Tuple[Callable[[], Any], concurrent.futures.Future[Any]]] = collections.deque()
        self._running = False
        # Owned by the loop thread after start().
        self._links: Set[_Link] = set()
        self._timed: Set[_Pipe] = set()
        self._stalled: Set[str] = set()
        self._dropped: Set[str] = set()
        self._delays = {UP: 0.0, DOWN: 0.0}
        self._throttles: Dict[str, Optional[Tuple[int, object, float]]] = {UP: None, DOWN: None}
        self._budgets: Dict[str, Optional[int]] = {UP: None, DOWN: None}
        self._budget_polite = {UP: False, DOWN: False}
        self._refusing: Union[bool, str] = False
        self._stopping = False
        self._thread: Optional[threading.Thread] = None

    # ---- life -------------------------------------------------------------------------------------------------------

    def start(self: F) -> F:
        """Bind the port and begin to forward. Raise RuntimeError when already started: a proxy is used once."""
        if self._thread is not None:
            raise RuntimeError("this proxy was started before; make a new one")
        self._selector = selectors.DefaultSelector()
        self._listener = self._bind(self.port)
        self._listener.listen(128)
        self.port = self._listener.getsockname()[1]
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_out, selectors.EVENT_READ, self._drain_wakes)
        self._thread = threading.Thread(target=self._run, name=f"faultproxy-{self.port}", daemon=True)
        self._running = True
        self._thread.start()
        return self

    def close(self) -> None:
        """Reset every connection, close the port and end the thread. May be called any number of times."""
        thread = self._thread
        if thread is None:
            return
        with self._lock:
            self._stopping = True
            if self._running:
                self._wake()
        thread.join(scaled(10))
        if thread.is_alive():
            raise AssertionError(f"{self!r}: the loop thread did not end")

    def __enter__(self: F) -> F:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ---- into the loop thread ---------------------------------------------------------------------------------------

    def _call(self, action: Callable[[], Any]) -> Any:
        reply: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            if not self._running or self._stopping:
                raise RuntimeError(f"{self!r} is not running")
            self._actions.append((action, reply))
            self._wake()
        return reply.result(scaled(10))

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"\0")
        except BlockingIOError:
            pass  # thousands of unread wakes: the loop is about to wake anyway

    # ---- the loop thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                for key, events in self._selector.select(self._next_due()):
                    if isinstance(key.data, _Link):
                        self._serve(key.data, key.fileobj, events)  # type: ignore[arg-type]
                    else:
                        key.data()
                self._pass_due()
                while self._actions:
                    action, reply = self._actions.popleft()
                    try:
                        reply.set_result(action())
                    except Exception as error:  # noqa: BLE001  whatever it is, the caller gets it
                        reply.set_exception(error)
        finally:
            self._tear_down()

    def _tear_down(self) -> None:
        for link in list(self._links):
            self._end(link, reset=True)
        self._selector.close()
        with self._lock:
            self._running = False
            left, self._actions = list(self._actions), collections.deque()
            for sock in (self._listener, self._wake_in, self._wake_out):
                sock.close()
        for _, reply in left:
            reply.set_exception(RuntimeError("the proxy was closed meanwhile"))

    def _drain_wakes(self) -> None:
        try:
            self._wake_out.recv(4096)
        except BlockingIOError:
            pass

    def _next_due(self) -> Optional[float]:
        if not self._timed:
            return None
        due = min(self._due(pipe) for pipe in self._timed)
        return max(0.0, due - time.monotonic())

    @staticmethod
    def _due(pipe: _Pipe) -> float:
        return max(pipe.queue[0][0], pipe.next_piece)

    def _pass_due(self) -> None:
        if not self._timed:
            return
        now = time.monotonic()
        for pipe in [p for p in self._timed if self._due(p) <= now]:
            if not pipe.link.closed:  # an earlier one of this batch may have cut them all
                self._flush(pipe)
                self._refresh(pipe.link)

    # connections

    @staticmethod
    def _address(host: str, port: int) -> Tuple[str, int]:
        """Spell out "localhost", which may mean ::1 first while the target listens on 127.0.0.1."""
        return ("127.0.0.1" if host == "localhost" else host, port)

    def _bind(self, port: int) -> socket.socket:
        family = socket.getaddrinfo(self.host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            if sys.platform != "win32":  # there it would let a stranger share the port
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setblocking(False)
            sock.bind((self.host, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def _set_refusing(self, mode: Union[bool, str]) -> None:
        if (mode is True) == (self._refusing is True):
            self._refusing = mode
        elif mode is True:
            # A socket that is bound and does not listen refuses connections and keeps the port ours.
            self._refusing = True
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = self._bind(self.port)
        else:
            self._listener.listen(128)
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._refusing = mode

    def _accept(self) -> None:
        while self._refusing is not True:
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            with self._changed:
                self._accepted += 1
                number = self._accepted
                if self._refusing:
                    self._changed.notify_all()
            if self._refusing:
                self._reset(client)
                continue
            self._open(number, client)

    def _open(self, number: int, client: socket.socket) -> None:
        target = socket.socket(socket.getaddrinfo(*self._target, type=socket.SOCK_STREAM)[0][0], socket.SOCK_STREAM)
        for sock in (client, target):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(number, client, target)
        self._links.add(link)
        with self._changed:
            self._connections += 1
            self._changed.notify_all()
        error = target.connect_ex(self._target)
        if error and error not in IN_PROGRESS:
            self._end(link, reset=True)
        else:
            self._refresh(link)

    @staticmethod
    def _reset(sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        except OSError:
            pass  # already reset by the peer (EINVAL on some systems): closing is all that is left
        sock.close()

    def _end(self, link: _Link, *, reset: bool) -> None:
        if link.closed:
            return
        link.closed = True
        self._links.discard(link)
        self._timed.difference_update(link.pipes.values())
        for sock in link.sockets:
            if link.interest[sock]:
                self._selector.unregister(sock)
            if reset:
                self._reset(sock)
            else:
                sock.close()
        with self._changed:
            self._connections -= 1
            self._changed.notify_all()

    def _cut_all(self, *, polite: bool) -> int:
        links = [link for link in self._links if not (polite and link.half_open)]  # a dead network carries no FIN
        with self._changed:
            self._cuts += len(links)
            self._changed.notify_all()
        for link in links:
            if not polite or link.connecting:
                self._end(link, reset=True)
                continue
            for pipe in link.pipes.values():
                pipe.swallow = True
                self._queue_end(pipe)
        self._refresh_all()
        return len(links)

    # traffic

    def _serve(self, link: _Link, sock: socket.socket, events: int) -> None:
        if link.closed:
            return  # by an earlier event of the same batch
        if link.connecting:
            if link.target.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._end(link, reset=True)
                return
            link.connecting = False
        else:
            if events & selectors.EVENT_WRITE:
                self._flush(link.writes[sock])
            if events & selectors.EVENT_READ and not link.closed:
                self._fill(link.reads[sock])
        self._refresh(link)

    def _refresh_all(self) -> None:
        for link in list(self._links):
            for pipe in link.pipes.values():
                if not link.closed and not link.connecting:
                    self._flush(pipe)
            self._refresh(link)

    def _refresh(self, link: _Link) -> None:
        """Bring what the selector watches in line with what the pipes can use; end the link when both ways are done."""
        if link.closed:
            return
        if all(pipe.eof and pipe.finished for pipe in link.pipes.values()):
            self._end(link, reset=False)
            return
        for sock in link.sockets:
            wanted = 0
            if link.connecting:
                wanted = selectors.EVENT_WRITE if sock is link.target else 0
            elif not link.half_open:
                pipe = link.reads[sock]
                if not pipe.eof and pipe.size < BUFFER_LIMIT and pipe.direction not in self._stalled:
                    wanted |= selectors.EVENT_READ
                if link.writes[sock].waiting == SINK:
                    wanted |= selectors.EVENT_WRITE
            before, link.interest[sock] = link.interest[sock], wanted
            if before and not wanted:
                self._selector.unregister(sock)
            elif wanted and not before:
                self._selector.register(sock, wanted, link)
            elif wanted != before:
                self._selector.modify(sock, wanted, link)

    def _fill(self, pipe: _Pipe) -> None:
        try:
            data = pipe.source.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end(pipe.link, reset=True)  # a reset on one side is a reset on the other
            return
        if not data:
            pipe.eof = True
            self._queue_end(pipe)
        elif pipe.swallow or pipe.direction in self._dropped:
            with self._changed:
                self._swallowed += len(data)
            return
        else:
            pipe.queue.append((time.monotonic() + self._delays[pipe.direction], memoryview(data)))
            pipe.size += len(data)
        if pipe.waiting == NOTHING:
            self._flush(pipe)

    def _queue_end(self, pipe: _Pipe) -> None:
        if not pipe.fin_queued:
            pipe.fin_queued = True
            pipe.queue.append((time.monotonic() + self._delays[pipe.direction], None))

    def _flush(self, pipe: _Pipe) -> None:
        """Write what may pass now, and note what the rest waits for."""
        self._timed.discard(pipe)
        pipe.waiting = NOTHING
        while pipe.queue and not pipe.link.half_open and pipe.direction not in self._stalled:
            if self._due(pipe) > time.monotonic():
                pipe.waiting = CLOCK
                self._timed.add(pipe)
                return
            data = pipe.queue[0][1]
            try:
                if data is None:
                    pipe.queue.popleft()
                    pipe.finished = True
                    pipe.sink.shutdown(socket.SHUT_WR)
                    return
                budget = self._budgets[pipe.direction]
                sent = pipe.sink.send(data[:self._piece(pipe, len(data), budget)]) if budget != 0 else 0
            except (BlockingIOError, InterruptedError):
                pipe.waiting = SINK
                return
            except OSError:
                self._end(pipe.link, reset=True)
                return
            pipe.size -= sent
            if sent == len(data):
                pipe.queue.popleft()
            else:
                pipe.queue[0] = (pipe.queue[0][0], data[sent:])
            with self._changed:
                self._passed[pipe.direction] += sent
                self._changed.notify_all()
            if budget is not None:
                self._budgets[pipe.direction] = budget - sent
                if budget == sent:
                    self._spend(pipe)
                    return
            setting = self._throttles[pipe.direction]
            if setting is not None:
                # One piece per turn of the loop, so that the receiver has a chance to read it alone.
                pipe.next_piece = time.monotonic() + setting[2] if setting[2] else 0.0
                if pipe.queue and not setting[2]:
                    pipe.waiting = SINK
                    return

    def _spend(self, pipe: _Pipe) -> None:
        """Cut, now that the bytes granted by `cut_after` have passed."""
        self._budgets[pipe.direction] = None
        if self._budget_polite[pipe.direction]:
            for link in self._links:  # what lies behind the cut must not pass
                behind = link.pipes[pipe.direction]
                behind.queue.clear()
                behind.size = 0
                behind.fin_queued = behind.finished
                self._timed.discard(behind)
        self._cut_all(polite=self._budget_polite[pipe.direction])

    def _piece(self, pipe: _Pipe, size: int, budget: Optional[int]) -> int:
        setting = self._throttles[pipe.direction]
        if setting is not None:
            if pipe.rng is None:
                pipe.rng = random.Random(f"{setting[1]}/{pipe.link.number}/{pipe.direction}")
            size = min(size, pipe.rng.randint(1, setting[0]))
        return size if budget is None else min(size, budget)
