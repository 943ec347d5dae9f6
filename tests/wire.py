"""RFC 6455 frames written by hand for the tests, on purpose without a line of the package.

`PeerConnection` is the server's end of an upgraded connection in the hands of a script. It holds the client to what the
RFC asks of clients, and can itself misbehave in every way.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from typing import Any, Dict, List, NamedTuple, NoReturn, Optional, Tuple, Union

from tests.timing import scaled

#: Opcodes (RFC 6455 section 5.2).
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

LINGER_RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class PeerGone(ConnectionError):
    """The client has ended the connection, or the test has closed the peer. Ends a script without being an error.

    `code` and `reason` come from its close frame: None and "" when it sent none, 1005 for an empty one.
    """

    def __init__(self, code: Optional[int] = None, reason: str = "") -> None:
        super().__init__(f"the client has gone (close code {code}, reason {reason!r})")
        self.code = code
        self.reason = reason


class PeerFrame(NamedTuple):
    """A frame as it came, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def text(self) -> str:
        return self.payload.decode("utf-8")


class Request(NamedTuple):
    """The client's opening request. Header names are lower case; repeated ones are joined by ", "."""

    method: str
    target: str
    version: str
    headers: Dict[str, str]

    @property
    def subprotocols(self) -> List[str]:
        """What the client offers, in its order."""
        return [p.strip() for p in self.headers.get("sec-websocket-protocol", "").split(",") if p.strip()]


class PeerConnection:
    """One upgraded connection, as a script sees it. Only the script's own thread may use it.

    Reading methods wait `timeout` seconds (default: the peer's), scaled, and then raise AssertionError; they raise
    PeerGone when the client has gone. What the client must not do by the RFC is an AssertionError too. Both come out
    when the peer is closed.
    """

    def __init__(self, sock: socket.socket, index: int, closing: threading.Event, timeout: float) -> None:
        self.sock = sock
        self.index = index  # 0 for the first connection of the peer, 1 for the next
        self.request = Request("", "", "", {})
        self.subprotocol: Optional[str] = None
        self.close_code: Optional[int] = None  # from the client's close frame
        self.close_reason = ""
        self._closing = closing
        self._timeout = timeout
        self._buffer = bytearray()
        self._fin_sent = False

    # ---- writing

    def send_raw(self, data: bytes) -> None:
        """Write bytes as they are. AssertionError when the client takes none of them for the peer's timeout."""
        try:
            self.sock.settimeout(scaled(self._timeout))
            self.sock.sendall(data)
        except socket.timeout:
            raise AssertionError(f"the client took no bytes for {scaled(self._timeout):g} s") from None
        except OSError as error:
            raise PeerGone(self.close_code, self.close_reason) from error

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0,
                   mask: Optional[bytes] = None, length: Optional[int] = None) -> None:
        """Write one frame; a `mask` (4 bytes), `rsv` (0 to 7) or a false `length` make it malformed."""
        self.send_raw(make_frame(opcode, payload, fin=fin, rsv=rsv, mask=mask, length=length))

    def send_text(self, text: str, *, fin: bool = True) -> None:
        """Write a text frame."""
        self.send_frame(TEXT, text.encode("utf-8"), fin=fin)

    def send_bytes(self, data: bytes, *, fin: bool = True) -> None:
        """Write a binary frame."""
        self.send_frame(BINARY, data, fin=fin)

    def send_json(self, value: Any) -> None:
        """Write `value` as JSON in a text frame."""
        self.send_text(json.dumps(value))

    # ---- reading

    def recv_frame(self, timeout: Optional[float] = None) -> PeerFrame:
        """Read one frame of any kind, control frames included; nothing is answered."""
        return self._recv_frame(self._deadline(timeout))

    def _recv_frame(self, deadline: float) -> PeerFrame:
        first, second = self._read(2, deadline)
        fin, rsv, opcode, masked, size = first >> 7, first >> 4 & 7, first & 15, second >> 7, second & 127
        # RFC 6455 section 5.2: reserved bits and opcodes, shortest form of a length; 5.1: a client masks every frame.
        check(rsv == 0, f"reserved bits {rsv:03b} set without an extension")
        check(opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG), f"reserved opcode {opcode:#x}")
        check(masked == 1, "an unmasked frame from a client")
        if opcode >= CLOSE:
            check(fin == 1 and size <= 125, "a control frame that is fragmented or longer than 125 bytes")
        if size == 126:
            size, = struct.unpack("!H", self._read(2, deadline))
            check(size > 125, f"length {size} in the 16-bit form")
        elif size == 127:
            size, = struct.unpack("!Q", self._read(8, deadline))
            check(0xFFFF < size < 1 << 63, f"length {size} in the 64-bit form")
        mask = self._read(4, deadline)
        frame = PeerFrame(opcode, _xor(self._read(size, deadline), mask), bool(fin), rsv)
        if opcode == CLOSE:
            self._note_close(frame.payload)
        return frame

    def recv_message(self, timeout: Optional[float] = None) -> Union[str, bytes]:
        """Read one whole message: str or bytes. Pings are answered, pongs skipped; a close frame raises PeerGone."""
        deadline = self._deadline(timeout)
        kind, parts = None, []
        while True:
            frame = self._recv_frame(deadline)
            if frame.opcode == PING:
                self.send_frame(PONG, frame.payload)
            elif frame.opcode == CLOSE:
                raise PeerGone(self.close_code, self.close_reason)
            elif frame.opcode != PONG:
                check((frame.opcode == CONTINUATION) == (kind is not None), "a fragment out of order (section 5.4)")
                kind = frame.opcode if kind is None else kind
                parts.append(frame.payload)
                if frame.fin:
                    whole = b"".join(parts)
                    return whole.decode("utf-8") if kind == TEXT else whole

    def recv_text(self, timeout: Optional[float] = None) -> str:
        """Read one message that must be text."""
        message = self.recv_message(timeout)
        check(isinstance(message, str), f"a binary message where text was expected: {message!r}")
        return str(message)

    def recv_json(self, timeout: Optional[float] = None) -> Any:
        """Read one text message and parse it."""
        return json.loads(self.recv_text(timeout))

    def recv_close(self, timeout: Optional[float] = None) -> Tuple[Optional[int], str]:
        """Read past everything to the client's close frame; return (code, reason), or (None, "") if none comes."""
        deadline = self._deadline(timeout)
        try:
            while self._recv_frame(deadline).opcode != CLOSE:
                pass
        except PeerGone:
            pass
        return self.close_code, self.close_reason

    # ---- ending, or not

    def close(self, code: Optional[int] = 1000, reason: str = "", *, wait: bool = True,
              timeout: Optional[float] = None) -> Tuple[Optional[int], str]:
        """Send a close frame (`code` None: an empty one) and, unless told otherwise, read on to the client's.

        Return the client's (code, reason). When the client closed first, this is the answer to it. The TCP connection
        ends when the script returns.
        """
        self.send_frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode("utf-8"))
        if wait and self.close_code is None:
            self.recv_close(timeout)
        return self.close_code, self.close_reason

    def finish(self) -> None:
        """End the stream by FIN without a close frame, and read until the client ends its own. Done on return, too."""
        if self._fin_sent:
            return
        self._fin_sent = True
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
            self.drain(5.0)
        except (OSError, AssertionError):
            pass  # the client has gone, or does not close: it is closed under it now

    def reset(self) -> NoReturn:
        """End the connection by RST and end the script."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        # A descriptor that a TLS wrapper or another thread holds must not outlive this: close() is what sends the RST.
        self.sock.close()
        raise PeerGone(self.close_code, self.close_reason)

    def hang(self) -> None:
        """Do nothing, not even read, until the test closes the peer."""
        self._closing.wait()

    def drain(self, timeout: Optional[float] = None) -> int:
        """Read and discard bytes until the client ends the connection; return how many. `timeout` None: no limit."""
        count = len(self._buffer)
        self._buffer.clear()
        deadline = None if timeout is None else self._deadline(timeout)
        try:
            while True:
                count += len(self._receive(deadline))
        except PeerGone:
            return count

    # ---- below the frames

    def _deadline(self, timeout: Optional[float]) -> float:
        return time.monotonic() + scaled(self._timeout if timeout is None else timeout)

    def _receive(self, deadline: Optional[float]) -> bytes:
        left = None if deadline is None else deadline - time.monotonic()
        try:
            if left is not None and left <= 0:
                raise socket.timeout
            self.sock.settimeout(left)
            data = self.sock.recv(65536)
        except socket.timeout:
            raise AssertionError(f"connection {self.index}: nothing more came from the client in time; "
                                 f"unfinished: {bytes(self._buffer[:80])!r}") from None
        except OSError as error:
            raise PeerGone(self.close_code, self.close_reason) from error
        if not data:
            raise PeerGone(self.close_code, self.close_reason)
        return data

    def _read(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            self._buffer += self._receive(deadline)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _read_head(self) -> str:
        deadline = self._deadline(None)
        while b"\r\n\r\n" not in self._buffer:
            check(len(self._buffer) < 65536, "an endless request head")
            self._buffer += self._receive(deadline)
        return self._read(self._buffer.index(b"\r\n\r\n") + 4, deadline).decode("latin-1")

    def _note_close(self, payload: bytes) -> None:
        # RFC 6455 section 5.5.1: empty, or a code in two bytes and a reason in UTF-8; 7.4.1: codes never sent.
        check(len(payload) != 1, "a close frame with one byte")
        self.close_code = struct.unpack("!H", payload[:2])[0] if payload else 1005
        self.close_reason = payload[2:].decode("utf-8")
        check(not payload or self.close_code in range(1000, 5000) and self.close_code not in (1004, 1005, 1006, 1015),
               f"close code {self.close_code} in a frame")


def make_frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: Optional[bytes] = None,
               length: Optional[int] = None) -> bytes:
    """Return the bytes of one frame (RFC 6455 section 5.2), right or wrong as told."""
    size = len(payload) if length is None else length
    masked = 0x80 if mask else 0
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([masked | size])
    elif size < 1 << 16:
        head += bytes([masked | 126]) + struct.pack("!H", size)
    else:
        head += bytes([masked | 127]) + struct.pack("!Q", size)
    return head + (mask + _xor(payload, mask) if mask else payload)


def _xor(data: bytes, mask: bytes) -> bytes:
    key = (mask * (len(data) // 4 + 1))[:len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


def check(right: bool, complaint: str) -> None:
    if not right:
        raise AssertionError(f"RFC 6455: {complaint}")
