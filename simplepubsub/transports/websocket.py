"""WebSocket as a `Transport`: websocket-client dials, then our framed I/O owns the socket.

The dial (TCP, TLS, proxies, cookies, redirects, handshake) is websocket-client's. After the handshake its objects are
dropped: one ``recv`` of up to 256 KiB yields a list of frames and one ``sendall`` carries a batch, which costs a
quarter of the processor time per message, and no lock is held across I/O, so a peer that does not read cannot stop us
from receiving or from closing.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from typing import Any, List, Optional, Sequence, Union

from ..core.deadline import LONGEST, Deadline
from ..core.protocol import Frame, Transport
from ..exceptions import RemoteProtocolError, TransportClosed, TransportError
from .frames import CLOSE, FrameParser, close_payload, encode_frames, parse_close
from .redact import redact_text

__all__ = ["WebSocketTransport"]

#: Bytes taken from the socket at once, at first and at most: an idle connection should not hold a quarter megabyte.
FIRST_RECEIVE_BYTES = 16 * 1024
RECEIVE_BYTES = 256 * 1024

#: Longest wait of the writer for something that the reader may have read (seconds).
CROSSED_WAIT = 0.05


class WebSocketTransport(Transport):
    """A connected WebSocket over ``sock``, on the client's side.

    ``receive`` belongs to one thread and ``send`` / ``close`` to one other; ``abort`` may come from anywhere.
    ``max_size`` limits one inbound message in bytes.
    """

    def __init__(
        self, sock: socket.socket, *, subprotocol: Optional[str] = None, max_size: Optional[int] = None
    ) -> None:
        self.subprotocol = subprotocol
        self._stream: _Stream = _TlsStream(sock) if isinstance(sock, ssl.SSLSocket) else _Stream(sock)
        self._parser = FrameParser(masked=False, max_size=max_size)
        self._end: Optional[Exception] = None  # what receive() raises next

    def receive(self) -> List[Frame]:
        while True:
            if self._end is not None:
                raise self._end
            try:
                data = self._stream.receive()
            except (OSError, ValueError) as error:
                raise TransportError("the connection broke while reading: %s" % _describe(error)) from error
            if not data:
                raise TransportError("the peer ended the connection without a close frame")
            frames = self._parser.feed(data)
            if self._parser.violation is not None:
                self._end = self._parser.violation
            for index, frame in enumerate(frames):
                if frame[0] == CLOSE:
                    self._end = self._closed(frame[1])  # type: ignore[arg-type]  # control payloads are bytes
                    frames = frames[:index]  # nothing after a close frame counts (RFC 6455 section 5.5.1)
                    break
            if frames:
                return frames

    @staticmethod
    def _closed(payload: bytes) -> Exception:
        try:
            code, reason = parse_close(payload)
        except RemoteProtocolError as error:
            return error
        text = "the peer closed the connection with code %d" % code
        return TransportClosed(text + (": %s" % redact_text(reason) if reason else ""), code=code, reason=reason)

    def readable(self, timeout: Optional[float]) -> bool:
        """Wait at most ``timeout`` seconds for something to receive, or the end; reader thread only."""
        return self._stream.pending() or self._stream.wait(False, timeout)

    def send(self, frames: Sequence[Frame]) -> None:
        try:
            self._stream.send(encode_frames(frames, masked=True))
        except (OSError, ValueError) as error:
            raise TransportError("the connection broke while writing: %s" % _describe(error)) from error

    @property
    def can_try_send(self) -> bool:  # type: ignore[override]  # a property here, a constant elsewhere
        return self._stream.can_try

    def try_send(self, frames: Sequence[Frame]) -> bytes:
        data = encode_frames(frames, masked=True)
        try:
            return data[self._stream.try_send(data) :]
        except (OSError, ValueError) as error:
            raise TransportError("the connection broke while writing: %s" % _describe(error)) from error

    def send_rest(self, rest: bytes) -> None:
        try:
            self._stream.send(rest)
        except (OSError, ValueError) as error:
            raise TransportError("the connection broke while writing: %s" % _describe(error)) from error

    @staticmethod
    def encode(frames: Sequence[Frame]) -> bytes:
        """Return frames in the form that `send_some` takes."""
        return encode_frames(frames, masked=True)

    def send_some(self, data: memoryview, timeout: Optional[float]) -> int:
        """Write what the carrier takes, waiting for room for at most ``timeout`` seconds; return how much that was.

        For a writer that has to look up now and then; nothing else may be written before all of ``data`` is.
        """
        try:
            return self._stream.send_some(data, timeout)
        except (OSError, ValueError) as error:
            raise TransportError("the connection broke while writing: %s" % _describe(error)) from error

    def close(self, code: int, reason: str) -> None:
        self.send([(CLOSE, close_payload(code, reason))])

    def abort(self) -> None:
        self._stream.abort()

    def release(self) -> None:
        self._stream.release()


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__


class _Stream:
    """Blocking bytes over TCP."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._end_lock = threading.Lock()  # guards _released: a freed descriptor may belong to somebody else already
        self._released = False
        sock.settimeout(None)
        self._view = memoryview(bytearray(FIRST_RECEIVE_BYTES))

    def receive(self) -> bytes:
        """Return what has arrived, waiting for at least one byte; empty at the end of the stream."""
        return self._received(self._sock.recv_into(self._view))

    def _received(self, size: int) -> bytes:
        """Return the first ``size`` bytes of the buffer, which is kept: recv() would allocate all of it every time."""
        data = bytes(self._view[:size])
        if size == len(self._view) and size < RECEIVE_BYTES:
            self._view = memoryview(bytearray(2 * size))
        return data

    def send(self, data: bytes) -> None:
        """Write everything."""
        self._sock.sendall(data)

    #: Whether a write can be tried without blocking; Windows has no such flag for a blocking socket.
    can_try = hasattr(socket, "MSG_DONTWAIT")

    def try_send(self, data: Union[bytes, memoryview]) -> int:
        """Write what fits without blocking and return how many bytes that was."""
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def send_some(self, data: memoryview, timeout: Optional[float]) -> int:
        """Write what fits, after waiting for room if there is none."""
        if not self.can_try:  # Windows: a socket that is writable takes a piece of this size
            return self._sock.send(data[:16384]) if self.wait(True, timeout) else 0
        return self.try_send(data) or (self.try_send(data) if self.wait(True, timeout) else 0)

    def pending(self) -> bool:
        """Return whether bytes are here already that the socket does not show."""
        return False

    def wait(self, writing: bool, limit: Optional[float] = None) -> bool:
        """Wait until the socket is ready, at most ``limit`` seconds; a shutdown by abort() makes it ready too."""
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self._sock, select.POLLOUT if writing else select.POLLIN)
            return bool(poll.poll(None if limit is None else limit * 1000))
        sockets = [self._sock]  # Windows
        return any(select.select([] if writing else sockets, sockets if writing else [], sockets, limit))

    def abort(self) -> None:
        """Wake both directions: closing the descriptor would not wake a blocked ``recv``."""
        with self._end_lock:
            if self._released:
                return
            try:
                # On TLS the method of the base class, since SSLSocket.shutdown() first drops the TLS state that
                # another thread is using.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
            except OSError:
                pass  # the peer has disconnected already

    def release(self) -> None:
        """Free the descriptor."""
        with self._end_lock:
            self._released = True
            try:
                self._sock.close()
            except OSError:
                pass  # a reset that surfaces at close; the descriptor is free all the same


class _TlsStream(_Stream):
    """Bytes over TLS.

    OpenSSL allows one thread at a time in one connection object, and CPython does not promise more on every version
    (3.13.6 deadlocks when one thread reads while another writes). So the socket is non-blocking, each TLS call runs
    under a leaf lock and returns at once, and waiting for the network happens outside the lock.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        sock.setblocking(False)
        self._tls: Any = sock
        self._lock = threading.Lock()  # guards the TLS state; never held while waiting

    def receive(self) -> bytes:
        while True:
            with self._lock:
                try:
                    return self._received(self._tls.recv_into(self._view))
                except ssl.SSLWantReadError:
                    writing = False
                except ssl.SSLWantWriteError:
                    writing = True
                except ssl.SSLEOFError:
                    return b""
            self.wait(writing)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            with self._lock:
                try:
                    view = view[self._tls.send(view) :]
                    continue
                except ssl.SSLWantWriteError:
                    writing = True
                except ssl.SSLWantReadError:
                    writing = False
            # A TLS 1.2 peer may want to hear from the reader first, which may have taken those bytes already.
            self.wait(writing, None if writing else CROSSED_WAIT)

    can_try = True

    def try_send(self, data: Union[bytes, memoryview]) -> int:
        with self._lock:
            try:
                return int(self._tls.send(data))
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return 0

    def send_some(self, data: memoryview, timeout: Optional[float]) -> int:
        deadline = Deadline(timeout)
        while True:
            with self._lock:
                try:
                    return int(self._tls.send(data))
                except ssl.SSLWantWriteError:
                    writing = True
                except ssl.SSLWantReadError:
                    writing = False
            if deadline.expired():
                return 0
            remaining = deadline.remaining()
            # As in send(): the reader may have taken what is waited for.
            self.wait(writing, remaining if writing else min(CROSSED_WAIT, LONGEST if remaining is None else remaining))

    def pending(self) -> bool:
        with self._lock:
            return bool(self._tls.pending())
