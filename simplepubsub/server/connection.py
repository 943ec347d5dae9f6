"""One client socket, from bytes to commands and back: the asyncio protocol that owns the transport after the upgrade.

Frames are parsed when they arrive and wait in a backlog; the `Pump` lets each connection execute a slice of it per
turn. Frames that must not wait (pings, sequence acks) are executed at once. Everything runs on the server's loop.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Deque, List, Optional, Tuple, Union

from ..exceptions import RemoteProtocolError
from ..transports.frames import BINARY, CLOSE, PING, TEXT, FrameParser, close_payload, encode_frame, parse_close
from ..webpubsub.messages import ClientMessage
from .session import Session

if TYPE_CHECKING:
    from .pump import Pump

__all__ = ["WRITE_HIGH", "WRITE_LOW", "Connection", "Step"]

log = logging.getLogger("simplepubsub.server")

_PONG = 0xA
#: Not an opcode: the end of a backlog; its payload says why the peer can send no more.
_END = -1

#: Bytes that may wait in the backlog before reading pauses. A reliable member of a group may hold up publishers until
#: its sequence ack is seen, and that may be far behind its own publishes: it is read ahead up to the second figure.
_READ_AHEAD = 256 * 1024
_READ_AHEAD_MEMBER = 16 * 2**20

#: Bytes waiting for the socket at which publishers start to wait for this receiver, and at which they stop waiting.
WRITE_HIGH, WRITE_LOW = 1024 * 1024, 256 * 1024

#: So few bytes count as an empty buffer. Not 0: some transports take a buffer with no byte for full then.
_EMPTY = 1

#: A frame costs its sender's turn one unit more for every 4 KiB, so that long ones do not pile up at the receivers.
_LONG_SHIFT = 12

_LINGER_RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class Step(enum.Enum):
    """What became of a connection's turn."""

    IDLE = 0  # nothing left to do
    MORE = 1  # the slice is used up
    WAIT = 2  # the next command must wait for a receiver or a handler


class Connection(asyncio.Protocol):
    """The socket of one session, or of a peer that is only told why it cannot have one."""

    def __init__(self, pump: "Pump") -> None:
        self.pump = pump
        self.session: Optional[Session] = None
        self.transport: Optional[asyncio.Transport] = None
        self.last_received = self.last_ping = pump.loop.time()
        self.queued = False  # in Pump.runnable or Pump.waiting
        self.silent = False  # half-open on purpose: nothing is read, nothing is written
        self._parser = FrameParser(masked=True, max_size=pump.work.limits.max_message_bytes)
        self._backlog: Deque[Tuple[int, Union[str, bytes]]] = deque()
        self._backlog_bytes = 0
        self._command: Optional[ClientMessage] = None  # decoded, but it has to wait
        self._paused = False
        self._broken = False  # the peer's framing: nothing after the fault can be understood
        self._close_sent = False
        self._close_timer: Optional[asyncio.TimerHandle] = None
        self._write_full = False
        self._emptying = False  # the transport tells when its buffer is empty, not when it is half full

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Take over an upgraded transport: plain or TLS, of any loop."""
        self.transport = transport
        self.pump.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; execute what cannot wait, queue the rest."""
        self.last_received = self.pump.loop.time()
        backlog = self._backlog
        size = 0
        for frame in self._parser.feed(data):
            opcode, payload = frame
            if opcode == TEXT or opcode == BINARY:
                if self.session is not None and self._execute_urgent(opcode, payload):
                    continue
            elif opcode == PING:
                self._push_control(_PONG, payload)
                continue
            elif opcode == _PONG:
                continue
            backlog.append(frame)
            size += len(payload)
        if self._parser.violation is not None and not self._broken:
            self._broken = True  # the rest is read and dropped: closing on unread data would reset the connection
            backlog.append((_END, ""))
        self._backlog_bytes += size
        if self._backlog_bytes > _READ_AHEAD and not self._paused:
            session = self.session
            may_hold_up = session is not None and session.wire.reliable and session.groups
            if not may_hold_up or self._backlog_bytes > _READ_AHEAD_MEMBER:
                self._pause()
        if backlog:
            self.pump.run(self)

    def connection_lost(self, exc: Optional[BaseException]) -> None:
        """Note the end of the socket; what arrived before it is still executed."""
        if self.transport is not None:
            self.transport.close()  # asyncio before 3.11 takes a TLS transport for open until it is told so
        self.transport = None
        self._write_full = self._emptying = False
        self.pump.remove(self)
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self._backlog.append((_END, str(exc) if exc else ""))
        self.pump.run(self)
        self.pump.retry_waiting()

    def pause_writing(self) -> None:
        """Note that the peer does not read as fast as it is sent to."""
        if self._emptying and self._waiting_bytes() <= WRITE_HIGH:
            return
        self._write_full = True
        if self.session is not None and self.session.link is self:
            self.session.link_full = True
            self.pump.work.strain(self.session, self.pump.loop.time())

    def resume_writing(self) -> None:
        """Note that the peer has caught up."""
        if self._emptying and self.transport is not None:
            self._emptying = False
            self.transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_LOW)
            if self.session is not None and self.session.held:
                self.pump.work.touch(self.session)
                self.pump.wake()
        self._write_full = False
        if self.session is not None and self.session.link is self:
            self.session.link_full = False
            self.pump.work.relieve(self.session)
        self.pump.retry_waiting()

    # --- turns --------------------------------------------------------------------------------------------------------

    def step(self, budget: int, now: float) -> Step:
        """Execute frames of the backlog until ``budget`` is spent, one per frame and more for long ones."""
        session = self.session
        backlog = self._backlog
        command, self._command = self._command, None
        while budget > 0 and (backlog or command is not None):
            live = session is not None and session.link is self and not session.ended
            if command is None:
                if live and self._write_full:
                    return Step.WAIT  # a peer that does not read its answers gets no more of them
                opcode, payload = backlog.popleft()
                self._backlog_bytes -= len(payload)
                budget -= 1 + (len(payload) >> _LONG_SHIFT)
                if opcode == _END:
                    self._at_end(str(payload), now)
                    break
                if opcode == CLOSE:
                    self._peer_closes(payload if isinstance(payload, bytes) else b"", now)
                    break
            if session is None or not live:
                command = None
                continue  # taken over, closed or refused: what is left does not count
            try:
                if command is None:
                    command = session.wire.decode(opcode, payload)
                if not session.hub.execute(session, command, now):
                    self._command = command
                    return Step.WAIT
            except RemoteProtocolError as error:
                self._violation(error, now)
                break
            command = None
        if self._paused and self._backlog_bytes < _READ_AHEAD // 2:
            self._resume()
        return Step.MORE if backlog else Step.IDLE

    def _execute_urgent(self, opcode: int, payload: Union[str, bytes]) -> bool:
        session = self.session
        assert session is not None
        try:
            command = session.wire.urgent(opcode, payload)
        except RemoteProtocolError:
            return False  # it fails again, and with its consequences, when it is its turn
        if command is None:
            return False
        if session.link is self:
            session.hub.execute(session, command, self.last_received)
            self.pump.wake()
        return True

    def _at_end(self, reason: str, now: float) -> None:
        """Act on the end of what the peer sent: a broken frame, or a dead socket."""
        self._backlog.clear()
        self._backlog_bytes = 0
        if self._parser.violation is not None and self.transport is not None:
            self._violation(self._parser.violation, now)
            return
        self._abandon(now, reason or "connection lost")

    def _abandon(self, now: float, reason: str) -> None:
        session = self.session
        if session is not None and session.link is self:
            session.hub.lost(session, now, reason)

    def _violation(self, error: RemoteProtocolError, now: float) -> None:
        log.warning("closing %r with %d: %s", self, error.code, error)
        self._abandon(now, str(error))
        self.close(error.code, str(error))

    def _peer_closes(self, payload: bytes, now: float) -> None:
        try:
            code, reason = parse_close(payload)
        except RemoteProtocolError as error:
            self._violation(error, now)
            return
        self._backlog.clear()
        self._backlog_bytes = 0
        session = self.session
        if session is not None and session.link is self:
            if code == 1000:
                session.hub.end(session, None, reason or "Client closed")
            else:
                session.hub.lost(session, now, reason or "closed by the client with %d" % code)
        if not self._close_sent:
            self._write_close(code if code != 1005 else 1000, "")
        if self.transport is not None:
            self.transport.close()
            self._arm_close_timer()

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, frames: List[bytes]) -> None:
        """Hand frames to the socket in one piece; nothing after a close frame."""
        if self.transport is None or self._close_sent or self.silent:
            return
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if self.pump.delay_write is not None:
            self.pump.delay_write(self, data)
        else:
            self.transport.write(data)
        if self._emptying and not self._write_full:
            self.pause_writing()

    def holds_back(self) -> bool:
        """Return whether bytes wait for the socket; if so, `resume_writing` is called when there are none."""
        if self.transport is None or self.write_buffer_size() <= _EMPTY:
            return False
        if not self._emptying:
            self._emptying = True
            self.transport.set_write_buffer_limits(high=_EMPTY, low=0)
        return True

    def _waiting_bytes(self) -> int:
        held = 0 if self.session is None or self.session.link is not self else self.session.held_bytes
        return self.write_buffer_size() + held

    def write_buffer_size(self) -> int:
        """Return how many bytes wait for the socket."""
        try:
            return self.transport.get_write_buffer_size() if self.transport is not None else 0
        except AttributeError:
            return 0  # asyncio before 3.11: a TLS transport whose connection is lost, before it says so

    def ping(self, now: float) -> None:
        """Ask the peer for a sign of life."""
        self.last_ping = now
        self._push_control(PING, b"")

    def _push_control(self, opcode: int, payload: Union[str, bytes]) -> None:
        """Write a control frame behind the session's queued frames, or at once when there is no session."""
        frame = encode_frame(opcode, payload)
        if self.session is not None and self.session.link is self:
            self.session.out.append(frame)
            self.pump.work.touch(self.session)
            self.pump.wake()
        else:
            self.write([frame])

    # --- closing ------------------------------------------------------------------------------------------------------

    def close(self, code: int, reason: str = "") -> None:
        """Start the close handshake; the socket is aborted if the peer does not complete it in time."""
        if self.transport is None or self._close_sent:
            return
        self._write_close(code, reason)
        if self._broken and self.transport.can_write_eof():
            self.transport.write_eof()  # its reply cannot be understood; so that it need not wait for ours
        self._arm_close_timer()
        self.pump.retry_waiting()

    def _write_close(self, code: int, reason: str) -> None:
        self.write([encode_frame(CLOSE, close_payload(code, reason))])
        self._close_sent = True

    def _arm_close_timer(self) -> None:
        if self._close_timer is None and self.transport is not None:
            self._close_timer = self.pump.loop.call_later(self.pump.close_timeout, self.abort)

    def abort(self, reset: bool = False) -> None:
        """Drop the socket without a close handshake; with ``reset`` the peer sees a reset, not an end of stream."""
        transport = self.transport
        if transport is None:
            return
        if reset:
            sock = transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        transport.abort()

    def depart(self, code: int, reason: str) -> None:
        """Close with ``code`` as the server's wish: the session ends with 1000 and 1008, otherwise it may come back."""
        session = self.session
        if session is not None and session.link is self:
            if code in (1000, 1008):
                session.hub.end(session, code, reason)
                return
            session.hub.lost(session, self.pump.loop.time(), reason)
        self.close(code, reason)

    def forget(self) -> None:
        """Leave the socket half open (a fault for tests): no byte is read or written any more."""
        self._pause()
        self.silent = True
        self._backlog.clear()
        self._abandon(self.pump.loop.time(), "dropped silently")

    def _pause(self) -> None:
        if not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and self.transport is not None and not self.pump.frozen:
            self._paused = False
            self.transport.resume_reading()

    def freeze(self) -> None:
        """Stop reading (a fault for tests); `thaw` goes on."""
        self._pause()

    def thaw(self) -> None:
        """Read again after `freeze`."""
        self.last_received = self.pump.loop.time()
        if self._backlog_bytes < _READ_AHEAD // 2 and not self.silent:
            self._resume()

    def __repr__(self) -> str:
        peer: Any = self.transport.get_extra_info("peername") if self.transport is not None else None
        return "<Connection %s of %r>" % (peer, self.session)
