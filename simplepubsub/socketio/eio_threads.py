"""The two threads of an Engine.IO session; see `engineio` for who owns what."""

from __future__ import annotations

import functools
import logging
import threading
from typing import TYPE_CHECKING, Callable, List, Optional, Tuple

from ..core.deadline import Deadline, wait
from ..core.protocol import Frame
from ..exceptions import RemoteProtocolError, SimplePubSubError, TransportClosed, TransportError
from ..transports.frames import BINARY, CLOSE, PING, PONG, TEXT, close_payload
from ..transports.websocket import WebSocketTransport
from . import eio_packet
from .eio_packet import MAX_BATCH, Packet, batch, decode_packet, decode_payload
from .seams import Message

if TYPE_CHECKING:
    from .engineio import EngineIO

__all__ = ["CLIENT_DISCONNECT", "HOLD_LIMIT", "JOIN_LIMIT", "Reader", "Writer"]

log = logging.getLogger("simplepubsub.socketio.engine")

CLIENT_DISCONNECT = "client disconnect"

#: How long the end of a session waits for the other threads (seconds); after the sockets are shut down only an adapter
#: of the user can hold them.
JOIN_LIMIT = 1.0

#: How long packets are held for the switch (seconds); a server answers the pending GET at once, and Node's gives up
#: after 10.
HOLD_LIMIT = 8.0

#: How long the server has to let go of a session that was left (seconds).
LEAVE_LIMIT = 1.0

Job = Callable[[], None]


class Reader:
    """Takes what arrives and reports it, then cleans up and reports the end."""

    def __init__(
        self,
        engine: EngineIO,
        on_messages: Callable[[List[Message]], None],
        on_closed: Callable[[str, Optional[BaseException]], None],
        writer: threading.Thread,
    ) -> None:
        self._engine = engine
        self._on_messages = on_messages
        self._on_closed = on_closed
        self._writer = writer

    def run(self) -> None:
        engine = self._engine
        try:
            self._read()
        except TransportClosed as error:
            self._answer_close(error)
            engine.closed_by_peer(error)
        except RemoteProtocolError as error:
            engine.end("parse error", error)
        except TransportError as error:
            engine.fail(error)
        except BaseException as error:  # whatever it is, nobody must wait for this session for ever
            log.exception("an error of the client's own ended the session")
            engine.end("transport error", error)
        finally:
            self._finish()

    def _finish(self) -> None:
        engine = self._engine
        engine.end("transport error", None)
        probe = engine.probe
        for thread in (self._writer, None if probe is None else probe.thread):
            if thread is not None and thread.ident is not None:
                thread.join(JOIN_LIMIT)
        limit = Deadline(JOIN_LIMIT)
        with engine.changed:
            # A caller of send() may be using the socket; it does not wait for the network.
            while engine.caller and not limit.expired():
                wait(engine.changed, limit.remaining())
        engine.free()
        why = engine.reason if engine.error is None else "%s (%s)" % (engine.reason, engine.error)
        log.info("session with %s ended: %s", engine.legs.shown_url, engine.legs.hide(why))
        try:
            self._on_closed(engine.reason, engine.error)
        finally:
            engine.gone()

    def _read(self) -> None:
        engine = self._engine
        if self._take(engine.early):
            return
        carrier = engine.websocket
        while carrier is None:
            if not self._may_poll():
                return
            carrier = engine.websocket
            if carrier is not None:
                break
            try:
                body = engine.legs.poll(engine.patience)
            except TransportError as error:
                if engine.leaving is None:
                    raise error
                continue
            engine.heartbeat.heard()
            packets, fault = decode_payload(body)
            log.debug("%d packets received in %d bytes", len(packets), len(body))
            if self._take(packets):
                return
            if fault is not None:
                raise fault
        frames, engine.early_frames = engine.early_frames, []
        while not self._take_frames(frames):
            frames = carrier.receive()
            engine.heartbeat.heard()
            engine.last_send = 0.0

    def _may_poll(self) -> bool:
        """Wait for the moment of the next GET, or of the WebSocket; return False when the session is over."""
        engine = self._engine
        with engine.changed:
            while not engine.ended:
                if engine.left:
                    break
                if engine.candidate is not None and not engine.parked:
                    engine.parked = True
                    engine.changed.notify_all()
                if engine.candidate is None and engine.leaving is None:
                    engine.parked = False
                    return True
                wait(engine.changed, None)
        engine.end(CLIENT_DISCONNECT, None)
        return False

    def _take(self, packets: List[Packet]) -> bool:
        """Handle packets; return whether the session is over."""
        engine = self._engine
        messages: List[Message] = []
        over = False
        for kind, data in packets:
            if kind == eio_packet.MESSAGE:
                messages.append(data)
            elif kind == eio_packet.PING:
                self._pong((eio_packet.PONG, data))
            elif kind == eio_packet.CLOSE:
                over = True
                break
            # Noops say nothing; open, pong and upgrade packets have no meaning here and are no reason to leave.
        if messages:
            self._on_messages(messages)
        if over:
            engine.closed_by_peer(TransportError("the server closed the session"))
        return over or engine.ended

    def _take_frames(self, frames: List[Frame]) -> bool:
        """Handle frames of the WebSocket; return whether the session is over."""
        messages: List[Message] = []
        append = messages.append
        for opcode, payload in frames:
            if opcode == TEXT:
                if payload[:1] == "4":
                    append(payload[1:])
                    continue
                try:
                    kind, data = decode_packet(payload)  # type: ignore[arg-type]  # a text frame is a str
                except RemoteProtocolError:
                    if messages:
                        self._on_messages(messages)
                    raise
                if kind == eio_packet.MESSAGE:
                    append(data)
                elif kind == eio_packet.CLOSE:
                    return self._take([(eio_packet.MESSAGE, message) for message in messages] + [(kind, data)])
                elif kind == eio_packet.PING:
                    self._pong((eio_packet.PONG, data))
            elif opcode == BINARY:
                append(payload)
            elif opcode == PING:
                with self._engine.changed:
                    self._engine.controls.append((PONG, payload))
                    self._engine.changed.notify_all()
            elif opcode == PONG and isinstance(payload, bytes) and payload.isdigit():
                with self._engine.changed:
                    self._engine.echoes = int(payload)
                    self._engine.changed.notify_all()
        if messages:
            self._on_messages(messages)
        return self._engine.ended

    def _pong(self, packet: Packet) -> None:
        engine = self._engine
        with engine.changed:
            if not engine.ended:
                engine.pongs.append(packet)
                engine.changed.notify_all()

    def _answer_close(self, error: TransportClosed) -> None:
        """Complete the close handshake, if that needs no waiting."""
        engine = self._engine
        with engine.changed:
            carrier = engine.websocket
            if carrier is None or engine.writing or engine.leaving is not None or not carrier.can_try_send:
                return
            engine.writing = True
        try:
            carrier.try_send([(CLOSE, b"" if error.code == 1005 else close_payload(error.code))])
        except TransportError:
            pass  # the server did not wait for it
        with engine.changed:
            engine.written(0)


class Writer:
    """Writes what is queued, pongs first; makes the switch to the WebSocket; watches every time limit."""

    def __init__(self, engine: EngineIO) -> None:
        self._engine = engine

    def run(self) -> None:
        engine = self._engine
        try:
            while True:
                job = self._next()
                if job is None:
                    return
                job()
        except SimplePubSubError as error:
            engine.fail(error)
        except BaseException as error:  # whatever it is, nobody must wait for this session for ever
            log.exception("an error of the client's own ended the session")
            engine.end("transport error", error)

    def _next(self) -> Optional[Job]:
        """Wait for something to do; None means that the session is over."""
        engine = self._engine
        with engine.changed:
            while not engine.ended:
                job = self._choose()
                if job is not None:
                    return job
                limit = engine.patience()
                if engine.candidate is not None:
                    limit = min(limit, engine.hold.remaining() or 0.0)
                wait(engine.changed, max(limit, 0.001))
        return None

    def _choose(self) -> Optional[Job]:
        """Return what there is to do now; with the lock held."""
        engine = self._engine
        if engine.heartbeat.expired():
            return functools.partial(engine.end, "ping timeout", engine.silence())
        if any(limit is not None and limit.expired() for limit in (engine.closing, engine.leaving)):
            return functools.partial(engine.end, CLIENT_DISCONNECT, None)
        if engine.rest is not None:
            rest, engine.rest = engine.rest, None
            return functools.partial(self._write_rest, rest)
        if engine.writing or engine.leaving is not None:
            return None
        if engine.candidate is not None:
            if engine.closing is not None or engine.hold.expired():
                return self._drop_candidate
            return self._switch if engine.parked else None
        if engine.pongs or engine.controls or engine.queue:
            engine.writing = True
            return self._post if engine.websocket is None else self._write
        if engine.closing is not None:
            engine.leaving = Deadline(LEAVE_LIMIT)
            engine.writing = True
            return self._leave_polling if engine.websocket is None else self._leave_websocket
        return None

    # --- polling ---

    def _post(self) -> None:
        engine = self._engine
        with engine.changed:
            packets = list(engine.pongs)
            pongs = len(packets)
            packets.extend(list(_first(engine, eio_packet.MAX_PACKETS)))
        body, count = batch(packets, engine.max_payload)
        with engine.changed:
            size = _remove(engine, pongs, count)
        log.debug("%d packets to send in %d bytes", count, len(body))
        engine.legs.post(body, engine.patience)
        with engine.changed:
            engine.written(size)

    def _leave_polling(self) -> None:
        engine = self._engine
        try:
            engine.legs.post(eio_packet.CLOSE.encode("ascii"), engine.patience)
        finally:
            with engine.changed:
                engine.left = True
                engine.written(0)
                engine.changed.notify_all()

    # --- the websocket ---

    def _write(self) -> None:
        engine = self._engine
        carrier = engine.websocket
        assert carrier is not None
        with engine.changed:
            frames: List[Frame] = list(engine.controls)
            engine.controls.clear()
            pongs = len(engine.pongs)
            frames.extend((TEXT, kind + str(data)) for kind, data in engine.pongs)
            size = taken = 0
            for (kind, data), length in zip(engine.queue, engine.sizes):
                if taken and size + length > MAX_BATCH:
                    break
                frames.append((TEXT, kind + data) if isinstance(data, str) else (BINARY, bytes(data)))
                size += length
                taken += 1
            size = _remove(engine, pongs, pongs + taken)
        self._send(carrier, memoryview(carrier.encode(frames)))
        with engine.changed:
            engine.written(size)

    def _write_rest(self, rest: memoryview) -> None:
        engine = self._engine
        assert engine.websocket is not None
        self._send(engine.websocket, rest)
        with engine.changed:
            # Of what was one write, the caller's; nothing was written since.
            engine.written(engine.bytes - sum(engine.sizes))

    def _send(self, carrier: WebSocketTransport, data: memoryview) -> None:
        engine = self._engine
        while data and not engine.ended:
            patience = engine.patience()
            if patience <= 0:
                raise TransportError("the server does not read")
            data = data[carrier.send_some(data, patience) :]

    def _leave_websocket(self) -> None:
        engine = self._engine
        carrier = engine.websocket
        assert carrier is not None
        try:
            frames: List[Frame] = [(TEXT, eio_packet.CLOSE), (CLOSE, close_payload(1000))]
            self._send(carrier, memoryview(carrier.encode(frames)))
        finally:
            with engine.changed:
                engine.left = True
                engine.written(0)

    # --- from one to the other ---

    def _switch(self) -> None:
        """Tell the server, then let everybody go on; no request of ours is in flight (protocol reference 1.8)."""
        engine = self._engine
        carrier = engine.candidate
        assert carrier is not None
        try:
            carrier.send([(TEXT, eio_packet.UPGRADE)])
        except TransportError as error:
            log.info("no upgrade, the session stays on polling: %s", error)
            self._drop_candidate()
            return
        engine.legs.release()  # from now on the server refuses requests
        with engine.changed:
            engine.websocket, engine.candidate = carrier, None
            engine.changed.notify_all()
        log.info("session with %s upgraded to websocket", engine.legs.shown_url)

    def _drop_candidate(self) -> None:
        engine = self._engine
        with engine.changed:
            carrier, engine.candidate = engine.candidate, None
            engine.early_frames = []
            engine.changed.notify_all()
        if carrier is not None:
            carrier.abort()
            carrier.release()


def _first(engine: EngineIO, count: int) -> Tuple[Packet, ...]:
    return tuple(engine.queue[index] for index in range(min(count, len(engine.queue))))


def _remove(engine: EngineIO, pongs: int, count: int) -> int:
    """Take the first ``count`` packets, of which ``pongs`` are such, out of the queues; return the size of the rest."""
    size = 0
    for index in range(count):
        if index < pongs:
            engine.pongs.popleft()
        elif engine.queue:
            engine.queue.popleft()
            size += engine.sizes.popleft()
    return size
