"""The probe: a WebSocket beside a polling session, until it has proved to work (protocol reference 1.8).

It runs in a short-lived thread of its own while the session polls on; what it finds is handed over, and the session's
own threads make the switch.
"""

from __future__ import annotations

import logging
import threading
from typing import Callable, List, Optional

from ..core.deadline import Deadline
from ..core.protocol import Frame
from ..exceptions import RemoteProtocolError, SimplePubSubError, TransportError
from ..transports.dial import WebSocketDial
from ..transports.frames import CLOSE, PING, PONG, TEXT
from ..transports.websocket import WebSocketTransport
from .http import Legs

__all__ = ["Probe", "first_message"]

log = logging.getLogger("simplepubsub.socketio.engine")

#: Longest wait for the answer to the probe (seconds); Node's server gives up after 10.
ANSWER_LIMIT = 8.0


def first_message(transport: WebSocketTransport, deadline: Deadline) -> List[Frame]:
    """Return the first message and the frames that came with it; pings before it are answered.

    Raises TransportError, also when nothing comes in time, and RemoteProtocolError.
    """
    while True:
        if not transport.readable(deadline.remaining()):
            raise TransportError("the server said nothing on the WebSocket in time")
        frames = transport.receive()
        for index, (opcode, payload) in enumerate(frames):
            if opcode == PING:
                transport.send([(PONG, payload)])
            elif opcode < CLOSE:
                return frames[index:]


class Probe:
    """One try to upgrade. ``ready(transport, early)`` gets what works, ``failed()`` is called if nothing does.

    Both are called in the probe's thread; ``early`` are frames that follow the answer, none as a rule. `abort` may come
    from any thread, any number of times.
    """

    def __init__(
        self,
        legs: Legs,
        ready: Callable[[WebSocketTransport, List[Frame]], None],
        failed: Callable[[], None],
    ) -> None:
        self._legs = legs
        self._ready = ready
        self._failed = failed
        self._lock = threading.Lock()  # guards the rest; leaf
        self._aborted = False
        self._dial: Optional[WebSocketDial] = None
        self._transport: Optional[WebSocketTransport] = None
        self.thread = threading.Thread(target=self._run, name="simplepubsub-sio-probe", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def abort(self) -> None:
        """Give up at once, unless the result is handed over already."""
        with self._lock:
            self._aborted = True
            dial, transport = self._dial, self._transport
        if dial is not None:
            dial.abort()
        if transport is not None:
            transport.abort()

    def _run(self) -> None:
        transport: Optional[WebSocketTransport] = None
        handed = False
        try:
            dialled = self._legs.websocket()
            self._show(dialled.dial, None)
            transport = WebSocketTransport(dialled.dial.open(dialled.url, dialled.timeout).sock)
            self._show(None, transport)
            early = self._ask(transport)
            self._show(None, None)  # it belongs to the session now
            handed = True
            self._ready(transport, early)
        except (SimplePubSubError, OSError, ValueError) as error:
            if not self._aborted:
                log.info("no upgrade, the session stays on polling: %s", self._legs.hide(str(error)))
        finally:
            if not handed:
                if transport is not None:
                    transport.abort()
                    transport.release()
                self._failed()

    def _show(self, dial: Optional[WebSocketDial], transport: Optional[WebSocketTransport]) -> None:
        """Let `abort` reach what is in use now. Raises TransportError if it came already."""
        with self._lock:
            self._dial, self._transport = dial, transport
            if self._aborted:
                raise TransportError("the upgrade was given up")

    @staticmethod
    def _ask(transport: WebSocketTransport) -> List[Frame]:
        transport.send([(TEXT, "2probe")])
        frames = first_message(transport, Deadline(ANSWER_LIMIT))
        if frames[0] != (TEXT, "3probe"):
            raise RemoteProtocolError("the server's answer to the probe is not 3probe")
        return frames[1:]
