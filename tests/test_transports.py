"""What every carrier must do: one suite over TCP, over TLS and over the one inside the process."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import ssl
import struct
import threading
import time
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest

from simplepubsub.core.protocol import Frame, Transport
from simplepubsub.exceptions import RemoteProtocolError, TransportClosed, TransportError
from simplepubsub.transports.frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    FrameParser,
    close_payload,
    encode_frame,
    encode_frames,
    parse_close,
)
from simplepubsub.transports.websocket import WebSocketTransport
from tests.helpers import LOOPBACK, current_frames, run_thread, scaled, self_signed, wait_until
from tests.memory import Link, MemoryTransport, Network

#: More than the buffers of a loopback connection take when nobody reads.
TOO_MUCH = 32 * 2**20


class SocketPeer:
    """The other end of a TCP or TLS connection, as bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(scaled(10))
        self._parser = FrameParser(masked=True)
        self._frames: List[Frame] = []

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self, count: int) -> List[Frame]:
        while len(self._frames) < count:
            data = self.sock.recv(2**18)
            assert data, "the transport has ended"
            self._frames += self._parser.feed(data)
            assert self._parser.violation is None
        frames, self._frames = self._frames[:count], self._frames[count:]
        return frames

    def exchange(self, data: bytes, count: int) -> List[Frame]:
        """Write ``data`` and read ``count`` frames at the same time, in one thread: no two may share a TLS socket."""
        self.sock.setblocking(False)
        view = memoryview(data)
        while view or len(self._frames) < count:
            try:
                if view:
                    view = view[self.sock.send(view[:65536]) :]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            try:
                while len(self._frames) < count:
                    received = self.sock.recv(2**18)
                    assert received, "the transport has ended"
                    self._frames += self._parser.feed(received)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                ready = select.select([self.sock], [self.sock] if view else [], [], scaled(10))
                assert any(ready), "nothing moves"
        return self._frames

    def finish(self) -> None:
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def clog(self) -> None:
        pass  # it does not read unless told to

    def unclog(self) -> None:
        pass

    def close(self) -> None:
        self.sock.close()


class MemoryPeer:
    """The same over a `Link`."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._parser = FrameParser(masked=False, max_size=2**26)
        self._taken = 0
        self._all: List[Frame] = []
        link._arrived = self._arrived  # type: ignore[method-assign]

    def _arrived(self, frame: Frame) -> None:
        with self.link.changed:
            self._all.append(frame)
            self.link.changed.notify_all()

    def send(self, data: bytes) -> None:
        frames = self._parser.feed(data)
        error: Optional[BaseException] = self._parser.violation
        for index, (opcode, payload) in enumerate(frames):
            if opcode == CLOSE:
                try:
                    code, reason = parse_close(payload)  # type: ignore[arg-type]
                    error = TransportClosed("closed", code=code, reason=reason)
                except RemoteProtocolError as fault:
                    error = fault
                frames = frames[:index]
                break
        if frames:
            self.link.push(*frames)
        if error is not None:
            self.link.end(error)

    def read(self, count: int) -> List[Frame]:
        self.link.unclog()
        self.link.wait(lambda: len(self._all) >= self._taken + count, "frames", 30)
        self._taken += count
        return self._all[self._taken - count : self._taken]

    def exchange(self, data: bytes, count: int) -> List[Frame]:
        self.send(data)
        return self.read(count)

    def finish(self) -> None:
        self.link.end(TransportError("the peer ended the connection without a close frame"))

    reset = finish

    def clog(self) -> None:
        self.link.clog(1000)

    def unclog(self) -> None:
        self.link.unclog()

    def close(self) -> None:
        pass


def connected_sockets() -> Tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(1)
        ours = socket.create_connection(listener.getsockname(), scaled(5))
        theirs, _ = listener.accept()
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


Pair = Tuple[Transport, Any]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: Any) -> Any:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["tcp", "tls", "memory"])
def carrier(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def make_pair(carrier: str, request: Any) -> Iterator[Callable[..., Pair]]:
    made: List[Pair] = []

    def make(**options: Any) -> Pair:
        transport: Transport
        if carrier == "memory":
            link = Link(Network(), "ws://memory/", 0)
            transport, peer = MemoryTransport(link), MemoryPeer(link)
        else:
            ours, theirs = connected_sockets()
            if carrier == "tls":
                certificate = request.getfixturevalue("certificate")
                with run_thread(certificate.server_context.wrap_socket, theirs, server_side=True) as accepting:
                    ours = certificate.client_context.wrap_socket(ours, server_hostname="localhost")
                    theirs = accepting.result()
            transport, peer = WebSocketTransport(ours, **options), SocketPeer(theirs)
        made.append((transport, peer))
        return transport, peer

    yield make
    for transport, peer in made:
        transport.abort()
        transport.release()
        peer.close()


@pytest.fixture
def pair(make_pair: Callable[..., Pair]) -> Pair:
    return make_pair()


def collect(transport: Transport, count: int) -> List[Frame]:
    frames: List[Frame] = []
    while len(frames) < count:
        frames += transport.receive()
    return frames


def server_frames(frames: List[Frame]) -> bytes:
    return encode_frames(frames, masked=False)


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_batch_goes_out_whole_and_in_order(pair: Pair) -> None:
    transport, peer = pair
    frames: List[Frame] = [(TEXT, "t%d" % n) if n % 2 else (BINARY, b"b%d" % n) for n in range(200)]
    frames.insert(100, (PING, b"in between"))
    transport.send(frames)
    assert [payload.decode() if isinstance(payload, bytes) else payload for _, payload in peer.read(201)] == [
        payload.decode() if isinstance(payload, bytes) else payload for _, payload in frames
    ]


def test_a_batch_comes_in_whole_and_in_order(pair: Pair) -> None:
    transport, peer = pair
    frames: List[Frame] = [(TEXT, "t%d" % n) for n in range(500)]
    frames.insert(250, (PONG, b"in between"))
    peer.send(server_frames(frames))
    assert collect(transport, 501) == frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 3 * 2**20])
def test_sizes(pair: Pair, size: int) -> None:
    transport, peer = pair
    data = os.urandom(size)
    with run_thread(transport.send, [(BINARY, data)]):
        assert peer.read(1) == [(BINARY, data)]
    with run_thread(peer.send, server_frames([(BINARY, data)])):
        assert collect(transport, 1) == [(BINARY, data)]


def test_random_cuts_and_control_frames_between_fragments(make_pair: Callable[..., Pair], seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        transport, peer = make_pair()
        expected: List[Frame] = []
        wire = b""
        for n in range(40):
            if rng.random() < 0.3:
                text = "".join(rng.choice("aé漢\U0001f600") for _ in range(rng.randrange(60)))
                pieces = text.encode()
                cuts = sorted(rng.randrange(len(pieces) + 1) for _ in range(rng.randrange(1, 4)))
                parts = [pieces[a:b] for a, b in zip([0, *cuts], [*cuts, len(pieces)])]
                for index, part in enumerate(parts):
                    wire += encode_frame(TEXT if index == 0 else CONT, part, fin=index == len(parts) - 1)
                    if rng.random() < 0.5 and index < len(parts) - 1:
                        wire += encode_frame(PING, b"%d" % n)
                        expected.append((PING, b"%d" % n))
                expected.append((TEXT, text))
            else:
                expected.append((BINARY, os.urandom(rng.choice([0, 5, 300]))))
                wire += server_frames(expected[-1:])

        def feed(wire: bytes = wire, peer: Any = peer) -> None:
            position = 0
            while position < len(wire):
                size = rng.choice([1, 2, 7, 100])
                peer.send(wire[position : position + size])
                position += size

        with run_thread(feed):
            assert collect(transport, len(expected)) == expected


# --- ends -------------------------------------------------------------------------------------------------------------


def test_the_peers_close_frame_comes_after_what_was_before_it(pair: Pair) -> None:
    transport, peer = pair
    peer.send(server_frames([(TEXT, "last words"), (CLOSE, close_payload(1001, "going away")), (TEXT, "ghost")]))
    assert collect(transport, 1) == [(TEXT, "last words")]
    for _ in range(2):  # and it stays ended
        with pytest.raises(TransportClosed) as caught:
            transport.receive()
        assert (caught.value.code, caught.value.reason) == (1001, "going away")


def test_an_empty_close_frame_has_the_code_1005(pair: Pair) -> None:
    transport, peer = pair
    peer.send(server_frames([(CLOSE, b"")]))
    with pytest.raises(TransportClosed) as caught:
        transport.receive()
    assert (caught.value.code, caught.value.reason) == (1005, "")


@pytest.mark.parametrize("code, reason", [(1000, ""), (1007, "bad text"), (4321, "é" * 100)])
def test_our_close_frame(pair: Pair, code: int, reason: str) -> None:
    transport, peer = pair
    transport.close(code, reason)
    ((opcode, payload),) = peer.read(1)
    assert opcode == CLOSE
    got_code, got_reason = parse_close(payload)
    assert got_code == code
    assert reason.startswith(got_reason)
    assert len(got_reason) >= min(len(reason), 60)


@pytest.mark.parametrize(
    "wire, code",
    [
        (encode_frame(TEXT, b"\xff\xfe"), 1007),
        (b"\xc1\x00", 1002),  # a reserved bit
        (b"\x83\x00", 1002),  # an unknown opcode
        (b"\x81\x80\0\0\0\0", 1002),  # masked by a server
        (encode_frame(CONT, b"x"), 1002),
        (encode_frame(CLOSE, b"x"), 1002),
        (encode_frame(CLOSE, struct.pack("!H", 1005)), 1002),
    ],
)
def test_broken_framing(pair: Pair, wire: bytes, code: int) -> None:
    transport, peer = pair
    peer.send(server_frames([(TEXT, "intact")]) + wire)
    assert collect(transport, 1) == [(TEXT, "intact")]
    for _ in range(2):
        with pytest.raises(RemoteProtocolError) as caught:
            transport.receive()
        assert caught.value.code == code


@pytest.mark.parametrize("carrier", ["tcp", "tls"], indirect=True)
def test_a_message_over_the_limit(make_pair: Callable[..., Pair]) -> None:
    transport, peer = make_pair(max_size=1000)
    peer.send(server_frames([(TEXT, "x" * 1000)]))
    assert len(collect(transport, 1)) == 1
    peer.send(b"\x81\x7e" + struct.pack("!H", 1001))  # refused before its payload comes
    with pytest.raises(RemoteProtocolError) as caught:
        transport.receive()
    assert caught.value.code == 1009


@pytest.mark.parametrize("how", ["finish", "reset"])
def test_an_end_without_a_close_frame(pair: Pair, how: str) -> None:
    transport, peer = pair
    with run_thread(transport.receive) as reading:
        getattr(peer, how)()
        error = reading.exception()
    assert isinstance(error, TransportError)
    assert not isinstance(error, TransportClosed)


def test_writing_to_a_dead_peer_fails(pair: Pair) -> None:
    transport, peer = pair
    peer.reset()
    with pytest.raises(TransportError):
        for _ in range(100):
            transport.send([(BINARY, b"x" * 10000)])


# --- abort ------------------------------------------------------------------------------------------------------------


def writes_without_end(transport: Transport) -> None:
    while True:
        transport.send([(BINARY, bytes(2**20))])


def wait_blocked(thread: run_thread, function: str) -> None:
    """Wait until a thread stands inside ``function``."""

    def inside() -> bool:
        frame = current_frames().get(thread.thread.ident or -1)
        while frame is not None:
            if frame.f_code.co_name == function:
                return True
            frame = frame.f_back
        return False

    wait_until(inside, message="a thread inside " + function)


@pytest.mark.parametrize("times", [1, 2, 20])
def test_abort_wakes_a_blocked_receive(pair: Pair, times: int) -> None:
    transport, _ = pair
    with run_thread(transport.receive) as reading:
        wait_blocked(reading, "receive")
        with pytest.raises(AssertionError):
            reading.result(timeout=0.05)  # it does block
        started = time.monotonic()
        for _ in range(times):
            transport.abort()
        assert isinstance(reading.exception(timeout=5), TransportError)
        assert time.monotonic() - started < scaled(2)


def test_abort_wakes_a_blocked_send_and_a_blocked_receive(pair: Pair) -> None:
    transport, peer = pair
    peer.clog()
    with run_thread(transport.receive) as reading, run_thread(writes_without_end, transport) as writing:
        with pytest.raises(AssertionError):
            writing.result(timeout=0.3)
        started = time.monotonic()
        transport.abort()
        assert isinstance(writing.exception(timeout=5), TransportError)
        assert isinstance(reading.exception(timeout=5), TransportError)
        assert time.monotonic() - started < scaled(2)


def test_abort_ends_a_close_that_the_peer_does_not_read(pair: Pair) -> None:
    transport, peer = pair
    peer.clog()
    with run_thread(writes_without_end, transport) as writing:
        with pytest.raises(AssertionError):
            writing.result(timeout=0.3)
        transport.abort()
        assert isinstance(writing.exception(timeout=5), TransportError)
    with pytest.raises(TransportError):
        transport.close(1000, "")
    with pytest.raises(TransportError):
        transport.send([(TEXT, "x")])


def test_abort_from_many_threads_before_during_and_after_the_release(
    make_pair: Callable[..., Pair], switch_interval: Any
) -> None:
    for _ in range(10):
        transport, peer = make_pair()
        go = threading.Event()

        def hammer(transport: Transport = transport, go: threading.Event = go) -> None:
            go.wait(scaled(5))
            for _ in range(50):
                transport.abort()

        threads = [run_thread(hammer) for _ in range(4)]
        for thread in threads:
            thread.__enter__()
        with run_thread(transport.receive) as reading:
            go.set()
            assert isinstance(reading.exception(timeout=5), TransportError)
        transport.release()
        for thread in threads:
            thread.__exit__(None, None, None)
        transport.abort()
        transport.release()


@pytest.mark.parametrize("carrier", ["tcp", "tls"], indirect=True)
def test_an_abort_after_the_release_leaves_strangers_alone(make_pair: Callable[..., Pair]) -> None:
    transport, _ = make_pair()
    transport.abort()
    descriptor = transport._stream._sock.fileno()  # type: ignore[attr-defined]
    transport.release()
    with contextlib.ExitStack() as stack:
        numbers: List[int] = []
        while descriptor not in numbers:  # until the number is in use again
            assert len(numbers) < 100
            ours, theirs = (stack.enter_context(sock) for sock in connected_sockets())
            numbers += [ours.fileno(), theirs.fileno()]
        transport.abort()
        theirs.settimeout(scaled(5))
        ours.sendall(b"alive")
        assert theirs.recv(5) == b"alive"
        theirs.sendall(b"alive")
        assert ours.recv(5) == b"alive"


# --- writing by tries -------------------------------------------------------------------------------------------------


def test_try_send_never_blocks_and_its_rest_completes_the_stream(pair: Pair) -> None:
    transport, peer = pair
    assert transport.can_try_send
    peer.clog()
    sent = 0
    rest = b""
    while not rest:
        started = time.monotonic()
        rest = transport.try_send([(BINARY, b"%08d" % sent + bytes(300000))])
        assert time.monotonic() - started < scaled(2)
        sent += 1
        assert sent * 300000 < TOO_MUCH
    with run_thread(transport.send_rest, rest) as writing:
        peer.unclog()
        frames = peer.read(sent)
        writing.result()
    assert [payload[:8] for _, payload in frames] == [b"%08d" % n for n in range(sent)]
    assert all(len(payload) == 300008 for _, payload in frames)
    assert transport.try_send([(TEXT, "small")]) == b""
    assert peer.read(1) == [(TEXT, "small")]


def test_abort_wakes_a_blocked_send_rest(pair: Pair) -> None:
    transport, peer = pair
    peer.clog()
    rest = transport.try_send([(BINARY, bytes(TOO_MUCH))])
    with run_thread(transport.send_rest, rest) as writing:
        with pytest.raises(AssertionError):
            writing.result(timeout=0.1)
        transport.abort()
        assert isinstance(writing.exception(timeout=5), TransportError)


# --- both directions at once ------------------------------------------------------------------------------------------


def test_reader_and_writer_at_the_same_time(pair: Pair, switch_interval: Any, seed: int) -> None:
    transport, peer = pair
    rng = random.Random(seed)
    total = 3000
    ours = [(BINARY, b"%06d" % n + bytes(rng.choice([0, 10, 200, 5000]))) for n in range(total)]
    theirs = [(BINARY, b"%06d" % n + bytes(rng.choice([0, 10, 200, 5000]))) for n in range(total)]

    def write() -> None:
        position = 0
        while position < total:
            size = rng.randrange(1, 60)
            batch = ours[position : position + size]
            position += size
            if rng.random() < 0.5:
                rest = transport.try_send(batch)
                if rest:
                    transport.send_rest(rest)
            else:
                transport.send(batch)

    with run_thread(write, join_timeout=60):
        with run_thread(peer.exchange, server_frames(theirs), total, join_timeout=60) as exchanging:
            assert collect(transport, total) == theirs
            assert exchanging.result(60) == ours


def test_receiving_goes_on_while_the_peer_does_not_read(pair: Pair) -> None:
    transport, peer = pair
    peer.clog()
    with run_thread(writes_without_end, transport) as writing:
        with pytest.raises(AssertionError):
            writing.result(timeout=0.3)
        for n in range(50):
            peer.send(server_frames([(TEXT, "%d" % n)]))
            assert collect(transport, 1) == [(TEXT, "%d" % n)]
        transport.abort()
        assert isinstance(writing.exception(timeout=5), TransportError)


@pytest.mark.parametrize("carrier", ["tls"], indirect=True)
def test_a_tls_write_that_wants_to_read_does_not_wait_for_bytes_that_the_reader_took(pair: Pair) -> None:
    transport, peer = pair
    stream: Any = transport._stream  # type: ignore[attr-defined]
    real = stream._tls

    class Renegotiating:
        """Wants to read before it writes, once; nothing comes that this thread could read."""

        asked = False

        def send(self, data: Any) -> int:
            if not self.asked:
                self.asked = True
                raise ssl.SSLWantReadError
            return int(real.send(data))

    stream._tls = Renegotiating()
    with run_thread(transport.send, [(TEXT, "through")]) as writing:
        writing.result(5)
    assert peer.read(1) == [(TEXT, "through")]
