"""One open WebSocket, either end of it, for code that blocks: what applications call."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any, Callable, Iterable, Iterator, List, Optional, Tuple

from ..core.deadline import Deadline, check_timeout, wait
from ..exceptions import InvalidArgument, SimplePubSubError, TransportError
from ..transports.frames import PING, PONG, encode_frame, encode_frames, mask_key
from .channel import Channel, Settings
from .exceptions import SendTimeout
from .messages import Data, Request, Response, State, check_close, control_payload, frames_of, until_closed
from .poller import Poller

__all__ = ["Connection", "address_of", "broadcast"]

#: Seconds between two sends that follow one another without waiting for anything.
IN_A_ROW = 20e-6

#: Bytes that a peer may be behind before `broadcast` gives it up.
BROADCAST_LIMIT = 2**20

#: Seconds that `Connection.close` waits for the poller once the peer has had its time.
_CLEANUP = 1.0


class Connection(Channel):
    """An open WebSocket. Every method is safe from any thread.

    Iterating yields messages until the connection ends normally. ``with`` closes it at the end of the block: with 1000,
    or with 1011 after an exception. It closes when the program says so, not when the object is forgotten.
    """

    def __init__(
        self,
        sock: Any,
        poller: Poller,
        settings: Settings,
        *,
        client: bool,
        request: Request,
        response: Response,
        subprotocol: Optional[str] = None,
        settled: Optional[Callable[[], None]] = None,
        early: bytes = b"",
        first: bytes = b"",
    ) -> None:
        #: The handshake: what the client asked, and what the server answered.
        self.request = request
        self.response = response
        #: The subprotocol that both sides agreed on, None without one.
        self.subprotocol = subprotocol
        self.local_address = address_of(sock.getsockname)
        self.remote_address = address_of(sock.getpeername)
        self._fragmenting: Optional[threading.Thread] = None  # guarded by ``_changed``, as are the next two
        self._after_fragments: List[bytes] = []
        self._after_bytes = 0
        self._last_send = 0.0  # no more than a hint, so nobody guards it
        super().__init__(sock, poller, settings, client=client, settled=settled, early=early, first=first)

    # --- receiving ----------------------------------------------------------------------------------------------------

    def recv(self, timeout: Optional[float] = None, decode: Optional[bool] = None) -> Data:
        """Return the next message: str for text, bytes for binary; waits up to ``timeout`` seconds (None: no limit).

        ``decode`` True returns binary messages as str, False text messages as UTF-8 bytes. What arrived before the
        connection ended is still returned.

        Raises: ReceiveTimeout (a builtin TimeoutError too), ConnectionClosedOK, ConnectionClosedError, InvalidArgument,
        ForkedError.
        """
        self.check()
        data: Data = self._inbox.get(timeout)
        if decode is not None:
            if decode and isinstance(data, bytes):
                return data.decode()
            if not decode and isinstance(data, str):
                return data.encode()
        return data

    def __iter__(self) -> Iterator[Data]:
        return until_closed(self.recv)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, message: Any, text: Optional[bool] = None, *, timeout: Optional[float] = None) -> None:
        """Send a message: str as text, bytes-like as binary, any other iterable of these as one fragmented message.

        ``text`` overrides the kind. Returns when the message is on its way: written, or queued with at most 64 KiB
        before it. ``timeout`` in seconds limits the wait for a peer that does not read; None waits as long as the
        connection lives.

        Raises: SendTimeout (a builtin TimeoutError too; nothing was sent), ConnectionClosedOK, ConnectionClosedError,
        InvalidArgument, ForkedError.
        """
        deadline = Deadline(timeout)
        frames = frames_of(message, text)
        if isinstance(frames, list):
            self._write(encode_frames(frames, masked=self._client), deadline)
        else:
            self._send_fragments(frames, deadline)

    def _write(self, data: bytes, deadline: Deadline, fragment: bool = False) -> None:
        """Queue ``data`` whole, waiting for room, and write what can be written."""
        self.check()
        try:
            with self._changed:
                while self._state is State.OPEN and not self._may_queue_locked(fragment):
                    self._wait_for_room_locked(deadline)
                if self._state is not State.OPEN:
                    raise self.error_locked()
                if fragment:
                    self._fragmenting = threading.current_thread()
                # One message after the other: the system call, which costs the most, can serve many of them.
                in_a_row = time.monotonic() - self._last_send < IN_A_ROW
                mine = self.defer_locked(data) if in_a_row else self.queue_locked(data)
            if mine:
                self.write_out()
        except SimplePubSubError:
            raise  # nothing has been queued
        except BaseException:
            self.rescue()
            raise
        self._last_send = time.monotonic()

    def _may_queue_locked(self, fragment: bool) -> bool:
        owner = self._fragmenting
        if owner is not None and (not fragment or owner is not threading.current_thread()):
            if owner is threading.current_thread():
                raise InvalidArgument("an iterable that is being sent must not send on the same connection")
            return False
        return self._out_bytes <= self._settings.write_limit

    def _wait_for_room_locked(self, deadline: Deadline) -> None:
        if self._poller.is_current_thread:
            raise InvalidArgument("a callback of a future must not wait until there is room to send")
        remaining = deadline.remaining()
        full = self._out_bytes > self._settings.write_limit
        if remaining is not None and remaining <= 0:
            why = "the peer does not read, %d bytes wait for it" % self._out_bytes
            raise SendTimeout("nothing was sent: " + (why if full else "another thread sends an iterable"))
        me = threading.get_ident()
        try:
            if full:
                self._waiting_sends.add(me)
                if len(self._waiting_sends) == 1:
                    self._poller.call(self._refill)  # reading goes on while we wait
            wait(self._changed, remaining)
        finally:
            self._waiting_sends.discard(me)

    def _send_fragments(self, frames: Iterator[Tuple[int, Data, bool]], deadline: Deadline) -> None:
        me = threading.current_thread()
        if self._fragmenting is me:
            raise InvalidArgument("an iterable that is being sent must not send on the same connection")
        finished = False
        try:
            for opcode, payload, last in frames:
                self._write(encode_frame(opcode, payload, mask_key() if self._client else None, last), deadline, True)
                finished = last
            if self._fragmenting is me:
                self._end_fragments(finished)
        except BaseException:  # Ctrl-C in the line above among them
            if self._fragmenting is me:
                self._end_fragments(finished)
            raise

    def _end_fragments(self, finished: bool) -> None:
        """Let others send again; a message that was given up cannot be followed by anything but the end."""
        with self._changed:
            if self._state is State.OPEN:
                self._out.extend(self._after_fragments)
                self._out_bytes += self._after_bytes
            self._fragmenting, self._after_fragments, self._after_bytes = None, [], 0
            self._changed.notify_all()
        if finished:
            self.flush()
        else:
            self.begin_close(1011, "", TransportError("a fragmented message was given up before its end"))

    def offer(self, data: bytes, limit: int) -> bool:
        """Queue an encoded message without waiting; return False when the peer is too far behind, or has gone."""
        self.check()
        mine = False
        try:
            with self._changed:
                if self._state is not State.OPEN:
                    return False
                behind = self._out_bytes + self._after_bytes > limit
                if not behind:
                    if self._fragmenting is None:
                        mine = self.queue_locked(data)
                    else:
                        self._after_fragments.append(data)
                        self._after_bytes += len(data)
            if mine:
                self.write_out()
        except BaseException:
            self.rescue()
            raise
        if behind:
            self.begin_close(1008, "too slow", TransportError("the peer did not read what was broadcast"))
        return not behind

    # --- ping, pong ---------------------------------------------------------------------------------------------------

    def ping(self, data: Optional[Data] = None) -> "Future[float]":
        """Send a ping and return a future of its round trip in seconds.

        ``data`` (at most 125 bytes) must differ from that of pings still unanswered; None picks it. The future fails
        with ConnectionClosed when the connection ends first; its callbacks run in the poller's thread and must not
        block. Raises: ConnectionClosedOK, ConnectionClosedError, InvalidArgument, ForkedError.
        """
        payload = None if data is None else control_payload(data)
        future: "Future[float]" = Future()
        future.set_running_or_notify_cancel()
        self.check()
        with self._changed:
            if self._state is not State.OPEN:
                raise self.error_locked()
            while payload is None or (data is None and payload in self._pings):
                self._ping_serial += 1
                payload = b"%d" % self._ping_serial
            if payload in self._pings:
                raise InvalidArgument("a ping with the same data is still unanswered: %r" % payload)
            self._pings[payload] = (future, time.monotonic())
        self.push((PING, payload))
        return future

    def pong(self, data: Data = b"") -> None:
        """Send a pong that nobody asked for. Raises as `ping`."""
        payload = control_payload(data)
        self.check()
        with self._changed:
            if self._state is not State.OPEN:
                raise self.error_locked()
        self.push((PONG, payload))

    @property
    def unread(self) -> int:
        """How many received messages wait for `recv`."""
        return len(self._inbox)

    @property
    def latency(self) -> Optional[float]:
        """The last measured round trip in seconds, of a ping or a keep-alive; None before the first."""
        return self._latency

    # --- closing ------------------------------------------------------------------------------------------------------

    def close(self, code: int = 1000, reason: str = "", *, timeout: Optional[float] = None) -> None:
        """Close the connection and wait for the end, at most ``timeout`` seconds (None: ``close_timeout``).

        A peer that does not answer in time is cut off. Does nothing on a closed connection. ``code`` is 1000 to 1003,
        1007 to 1014 or 3000 to 4999, ``reason`` at most 123 bytes. Raises: InvalidArgument, ForkedError.
        """
        check_close(code, reason)
        check_timeout(timeout)
        self.check()
        deadline = Deadline(self._settings.close_timeout if timeout is None else timeout)
        self.begin_close(code, reason)
        if self._dead and not self._gone:
            self._poller.call(lambda: self.end(None))  # the peer has gone, and nobody wants what it left
        if self._poller.is_current_thread or self._wait_gone(deadline):
            return  # a callback of a future cannot wait for its own thread
        late = TransportError("the peer did not complete the close handshake in time")
        self._poller.call(lambda: self.end(late))
        self._wait_gone(Deadline(_CLEANUP))

    def _wait_gone(self, deadline: Deadline) -> bool:
        with self._changed:
            while not self._gone and not deadline.expired():
                wait(self._changed, deadline.remaining())
            return self._gone

    @property
    def state(self) -> State:
        """`State.OPEN`, `State.CLOSING` or `State.CLOSED`."""
        return self._state

    @property
    def close_code(self) -> Optional[int]:
        """The code of the peer's close frame: 1005 if it had none, 1006 if there was no frame; None before the end."""
        if self._state is not State.CLOSED:
            return None
        return 1006 if self._rcvd is None else self._rcvd[0]

    @property
    def close_reason(self) -> Optional[str]:
        """The reason in the peer's close frame, empty without one; None before the end."""
        if self._state is not State.CLOSED:
            return None
        return "" if self._rcvd is None else self._rcvd[1]

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if not self._birthplace.left:
            self.close(1000 if kind is None else 1011)

    def __repr__(self) -> str:
        return "<%s %s %s>" % (type(self).__name__, self._state.value, self.remote_address)


def address_of(get: Callable[[], Any]) -> Any:
    """Return what ``getsockname`` or ``getpeername`` returns, None for a peer that has gone already."""
    try:
        return get()
    except OSError:
        return None


def broadcast(connections: Iterable[Connection], message: Data) -> List[Connection]:
    """Send one message to many connections without waiting for any; return those that did not take it.

    It is encoded once. A peer that is more than 1 MiB behind is closed with 1008, one that is closing is left out. The
    order of messages is kept on every connection. Raises InvalidArgument.
    """
    frames = frames_of(message, None)
    if not isinstance(frames, list):
        raise InvalidArgument("a broadcast message must be str or bytes-like")
    encoded = encode_frames(frames, masked=False)
    left_out = []
    for connection in list(connections):
        data = encode_frames(frames, masked=True) if connection.is_client else encoded
        if not connection.offer(data, BROADCAST_LIMIT):
            left_out.append(connection)
    return left_out

