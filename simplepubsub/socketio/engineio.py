"""One Engine.IO v4 session: what its threads share, and its public face.

========  ==================================================  ====================================================
thread    owns                                                never
========  ==================================================  ====================================================
reader    the GETs, or the WebSocket's receiving side; the    writes
          callbacks
writer    the POSTs, or the WebSocket's sending side; the     reads, calls back
          switch from one to the other; all time limits
prober    a WebSocket that is no part of the session yet      anything of the session
========  ==================================================  ====================================================

One lock guards the state; no I/O that can block and no callback happens under it. On the WebSocket a caller of `send`
writes itself what the network takes at once, if nobody else is writing. The first cause of the end is the one that is
reported; the end wakes everybody, and the reader, which is the last to leave, frees the sockets and reports it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Callable, Deque, List, Optional, Sequence

from ..core.deadline import Deadline, wait
from ..core.protocol import Frame
from ..exceptions import ClientStateError, MessageTooLarge, TransportError
from ..transports.frames import BINARY, PING, TEXT
from ..transports.websocket import WebSocketTransport
from .eio_packet import MESSAGE, Handshake, Packet, polling_size, websocket_size
from .eio_threads import CLIENT_DISCONNECT, HOLD_LIMIT, JOIN_LIMIT, Reader, Writer
from .heartbeat import Heartbeat
from .http import Legs
from .seams import Message, Session
from .upgrade import Probe

__all__ = ["EngineIO"]

log = logging.getLogger("simplepubsub.socketio.engine")

#: The queue is short below this (bytes).
ROOM = 1024 * 1024

#: Callers that send again so soon (seconds), with nothing heard in between, leave the writing to the writer, which
#: writes many packets at once.
BURST = 0.0001

#: Longest single wait (seconds): how soon a machine that slept finds out what it missed.
SLICE = 10.0



class EngineIO(Session):
    """An open session, over ``legs``, that begins to live with `start`; made by an opener, and never used twice.

    ``websocket`` is its carrier if it does not poll; ``early`` are packets that came with the handshake.
    """

    def __init__(
        self,
        legs: Legs,
        handshake: Handshake,
        *,
        websocket: Optional[WebSocketTransport] = None,
        early: Sequence[Packet] = (),
        upgrade: bool = False,
    ) -> None:
        self.legs = legs
        self.sid = handshake.sid
        self.ping_interval, self.ping_timeout = handshake.ping_interval, handshake.ping_timeout
        self.max_payload = handshake.max_payload
        self.heartbeat = Heartbeat(handshake.ping_interval, handshake.ping_timeout)
        self.upgrades = upgrade and websocket is None
        self.early: List[Packet] = list(early)
        self.early_frames: List[Frame] = []
        self.changed = threading.Condition(threading.Lock())
        # Guarded by `changed`:
        self.websocket = websocket  # what the session runs on; None while it polls
        self.queue: Deque[Packet] = deque()
        self.sizes: Deque[int] = deque()  # of the queue's packets
        self.bytes = 0  # queued, and being written
        self.pongs: Deque[Packet] = deque()
        self.controls: Deque[Frame] = deque()  # pongs of the WebSocket itself
        self.writing = False  # somebody is: the writer, or a caller of send()
        self.caller = False  # it is a caller
        self.watchers = 0  # wait for the queue to get shorter
        self.rest: Optional[memoryview] = None  # what a caller could not write
        self.probe: Optional[Probe] = None
        self.candidate: Optional[WebSocketTransport] = None  # waits for the switch; nothing is sent meanwhile
        self.hold: Deadline = Deadline(None)  # until when
        self.parked = False  # no GET is in flight and none will be
        self.closing: Optional[Deadline] = None
        self.leaving: Optional[Deadline] = None  # the last words are being said
        self.left = False  # they are said
        self.ended = False
        self.reason, self.error = "", None  # type: str, Optional[BaseException]
        self.echoes_wanted = self.echoes = 0  # pings of the WebSocket that `drain` sent, and the last that came back
        self._reader: Optional[threading.Thread] = None
        self._gone = False  # and reported
        self.last_send = 0.0  # the reader sets it back: whoever waited for an answer is in no burst

    def __repr__(self) -> str:  # without the sid, which opens the session to whoever knows it
        return "<EngineIO session at %s over %s>" % (self.legs.shown_url, self.transport)

    @property
    def transport(self) -> str:  # type: ignore[override]  # an attribute there
        """The transport in use: "polling" or "websocket"."""
        return "polling" if self.websocket is None else "websocket"

    # --- life ---

    def start(
        self, on_messages: Callable[[List[Message]], None], on_closed: Callable[[str, Optional[BaseException]], None]
    ) -> None:
        with self.changed:
            if self._reader is not None:
                raise ClientStateError("an Engine.IO session is started once")
            writer = threading.Thread(target=Writer(self).run, name="simplepubsub-sio-writer", daemon=True)
            reader = Reader(self, on_messages, on_closed, writer)
            self._reader = threading.Thread(target=reader.run, name="simplepubsub-sio-reader", daemon=True)
            if self.upgrades and not self.ended:
                self.probe = Probe(self.legs, self._upgradable, self._not_upgradable)
        log.info("session with %s is open over %s", self.legs.shown_url, self.transport)
        writer.start()
        if self.probe is not None:
            self.probe.start()
        self._reader.start()  # the last: it joins the others, and a thread that is being started cannot be joined

    def close(self, deadline: Deadline) -> None:
        """As in the seam. In the reader's own thread, which a callback is, it only begins to close."""
        with self.changed:
            unused = self._reader is None
            if self.closing is None:
                self.closing = deadline
            probe = self.probe
            self.changed.notify_all()
        if probe is not None:
            probe.abort()
        if unused:
            self.start(lambda messages: None, lambda reason, error: None)
        if threading.current_thread() is self._reader:
            return
        with self.changed:
            while not self._gone and not deadline.expired():
                wait(self.changed, deadline.remaining())
            if self._gone:
                return
        self.abort()
        grace = Deadline(JOIN_LIMIT / 2)
        with self.changed:
            while not self._gone and not grace.expired():
                wait(self.changed, grace.remaining())

    def abort(self) -> None:
        self.end(CLIENT_DISCONNECT, None)
        if self._reader is None:
            self.free()

    def end(self, reason: str, error: Optional[BaseException]) -> None:
        """End the session for this cause, if it is the first. Any thread; never blocks."""
        with self.changed:
            if self.ended:
                return
            self.ended = True
            self.reason, self.error = reason, error
            self.queue.clear()
            self.sizes.clear()
            self.pongs.clear()
            self.bytes = 0
            self.changed.notify_all()
            carriers = [self.websocket, self.candidate]
            probe = self.probe
        self.legs.abort()
        for carrier in carriers:
            if carrier is not None:
                carrier.abort()
        if probe is not None:
            probe.abort()

    def fail(self, error: BaseException) -> None:
        """End the session because something broke, unless that was to be expected."""
        if self.closing is not None:
            self.end(CLIENT_DISCONNECT, None if self.leaving is not None else error)
        elif self.heartbeat.expired():
            self.end("ping timeout", self.silence())
        else:
            self.end("transport error", error)

    def closed_by_peer(self, error: BaseException) -> None:
        """End the session because the server closed it, as it does also when we leave."""
        if self.closing is not None:
            self.end(CLIENT_DISCONNECT, None)
        else:
            self.end("transport close", error)

    def silence(self) -> TransportError:
        return TransportError("nothing was heard from the server for %g s" % self.heartbeat.limit)

    def free(self) -> None:
        """Give the sockets back; nobody uses them any more."""
        self.legs.release()
        for carrier in (self.websocket, self.candidate):
            if carrier is not None:
                carrier.release()

    def gone(self) -> None:
        """Note that everything is over and reported."""
        with self.changed:
            self._gone = True
            self.changed.notify_all()

    def patience(self) -> float:
        """Return how long an operation may wait now; 0 or less ends it."""
        left = self.heartbeat.remaining()
        for limit in (self.closing, self.leaving):
            remaining = None if limit is None else limit.remaining()
            if remaining is not None:
                left = min(left, remaining)
        return min(left, SLICE)

    # --- sending ---

    def send(self, group: Sequence[Message]) -> None:
        if not group:
            return
        with self.changed:
            if self.ended:
                return
            carrier = self.websocket
            measure = polling_size if carrier is None else websocket_size
            sizes = [measure(data) for data in group]
            limit = self.max_payload
            if limit is not None and max(sizes) > limit:
                raise MessageTooLarge(
                    "a packet of %d bytes, and the server takes no more than %d" % (max(sizes), limit),
                    size=max(sizes),
                    limit=limit,
                )
            self.bytes += sum(sizes)
            now = time.monotonic()
            burst, self.last_send = now - self.last_send < BURST, now
            if carrier is None or burst or not self._idle():
                self.queue.extend([(MESSAGE, data) for data in group])
                self.sizes.extend(sizes)
                self.changed.notify_all()
                return
            self.writing = self.caller = True
        self._write(carrier, group, sum(sizes))

    def _idle(self) -> bool:
        """Return whether a caller may write itself; to be called with the lock held."""
        waiting = self.writing or self.queue or self.pongs or self.controls or self.closing is not None
        alive = self.websocket is not None and self.websocket.can_try_send and not self.heartbeat.expired()
        return alive and not waiting

    def _write(self, carrier: WebSocketTransport, group: Sequence[Message], size: int) -> None:
        """Write what the network takes at once; the writer gets the rest."""
        frames: List[Frame] = [
            (TEXT, MESSAGE + data) if isinstance(data, str) else (BINARY, bytes(data)) for data in group
        ]
        failure: Optional[TransportError] = None
        rest = b""
        try:
            rest = carrier.try_send(frames)
        except TransportError as error:
            failure = error
        with self.changed:
            self.caller = False
            if rest and not self.ended:
                self.rest = memoryview(rest)
                self.changed.notify_all()
            else:
                self.written(size)
            if self.ended:
                self.changed.notify_all()
        if failure is not None:
            self.fail(failure)

    def written(self, size: int) -> None:
        """Note that the write in progress is over; with the lock held."""
        self.writing = False
        self.bytes = max(0, self.bytes - size)
        # Not every time: waking the writer for nothing costs more than the write did.
        work = self.queue or self.pongs or self.controls or self.closing is not None
        if work or self.watchers or self.ended:
            self.changed.notify_all()

    def _watch(self, done: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait, with the lock held, until ``done`` or the end; return False when ``deadline`` came first."""
        self.watchers += 1
        try:
            while not self.ended and not done():
                if deadline.expired():
                    return False
                wait(self.changed, deadline.remaining())
            return True
        finally:
            self.watchers -= 1

    @property
    def writable(self) -> bool:
        with self.changed:
            busy = self.ended or self.writing or self.queue or self.candidate is not None or self.closing is not None
            return not busy and not self.heartbeat.expired()

    @property
    def queued_bytes(self) -> int:
        return self.bytes

    def wait_room(self, deadline: Deadline) -> bool:
        with self.changed:
            return self._watch(lambda: self.bytes < ROOM, deadline)

    def flush(self, deadline: Deadline) -> bool:
        with self.changed:
            return self._watch(lambda: not self.queue and not self.writing, deadline) and not self.ended

    def drain(self, deadline: Deadline) -> bool:
        """As in the seam. A WebSocket says nothing by itself, so its own ping asks; the answer to a POST says it."""
        if not self.flush(deadline):
            return False
        with self.changed:
            if self.websocket is None:
                return not self.ended
            self.echoes_wanted += 1
            number = self.echoes_wanted
            self.controls.append((PING, b"%d" % number))
            self.changed.notify_all()
            return self._watch(lambda: self.echoes >= number, deadline) and not self.ended

    # --- the upgrade ---

    def _upgradable(self, transport: WebSocketTransport, early: List[Frame]) -> None:
        with self.changed:
            self.probe = None
            if not self.ended and self.closing is None:
                self.candidate, self.early_frames = transport, early
                self.hold = Deadline(HOLD_LIMIT)
                self.changed.notify_all()
                return
        transport.abort()
        transport.release()

    def _not_upgradable(self) -> None:
        with self.changed:
            self.probe = None
            self.changed.notify_all()
