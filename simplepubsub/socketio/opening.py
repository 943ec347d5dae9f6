"""Open an Engine.IO session: by polling, or by WebSocket, or by whichever works."""

from __future__ import annotations

import logging
import threading
from typing import Callable, List, Optional, Sequence, Tuple, Union

from ..core.deadline import Deadline, wait
from ..exceptions import ConnectError, ConnectTimeout, InvalidArgument, RemoteProtocolError, TransportError
from ..transports.frames import TEXT
from ..transports.websocket import WebSocketTransport
from .eio_packet import MESSAGE, OPEN, Handshake, Packet, decode_packet, decode_payload, parse_handshake
from .engineio import EngineIO
from .http import Legs, check_url
from .http_options import HttpOptions
from .seams import Opener, Target
from .upgrade import first_message

__all__ = ["EngineOpener", "check_transports"]

log = logging.getLogger("simplepubsub.socketio.engine")

TRANSPORTS = ("polling", "websocket")

#: How long an abandoned attempt is waited for (seconds): shutting its socket down usually ends it at once.
ABANDON_WAIT = 0.5


def check_transports(transports: Union[str, Sequence[str], None]) -> Tuple[str, ...]:
    """Return the known transports among ``transports``, all of them for None. Raises InvalidArgument if none is."""
    if transports is None:
        return TRANSPORTS
    given = [transports] if isinstance(transports, str) else list(transports)
    known = tuple(name for name in given if name in TRANSPORTS)
    if not known:
        raise InvalidArgument("transports must name polling, websocket or both, not %r" % (transports,))
    return known


class EngineOpener(Opener):
    """One attempt. The first transport of the target is tried, with ``try_all`` each of them until one works.

    It runs in a thread of its own, since the resolver of host names cannot be interrupted.
    """

    def __init__(self, options: HttpOptions, try_all: bool = False) -> None:
        self._options = options
        self._try_all = try_all
        self._changed = threading.Condition(threading.Lock())
        # Guarded by it:
        self._aborted = False
        self._abandoned = False
        self._result: Union[EngineIO, BaseException, None] = None
        self._stop: Optional[Callable[[], None]] = None  # ends what is going on now
        self._step: Callable[[], str] = lambda: "beginning"

    def open(self, target: Target, deadline: Deadline) -> EngineIO:
        """As in the seam; ConnectTimeout when ``deadline`` comes first."""
        names = check_transports(target.transports)
        shown = check_url(target)  # complains before any thread is made
        thread = threading.Thread(
            target=self._run, args=(target, names, deadline), name="simplepubsub-sio-opener", daemon=True
        )
        self._check(shown)
        thread.start()
        try:
            with self._changed:
                while self._result is None and not self._aborted and not deadline.expired():
                    wait(self._changed, deadline.remaining())
                result, aborted = self._result, self._aborted
                self._abandoned = result is None
        except BaseException:  # Ctrl-C
            self._discard()
            raise
        if isinstance(result, EngineIO):
            if aborted:
                result.abort()
                raise _given_up(shown)
            return result
        if result is not None:
            raise result
        step = self._step()
        self._interrupt()
        thread.join(ABANDON_WAIT)
        if aborted:
            raise _given_up(shown)
        raise ConnectTimeout(
            "no session with %s in time: %s took too long" % (shown, step),
            url=shown,
            hint="check the host, the port, firewalls and proxies, or allow more time",
        )

    def _check(self, shown: str) -> None:
        with self._changed:
            if self._aborted or self._abandoned:
                raise _given_up(shown)

    def _discard(self) -> None:
        with self._changed:
            self._abandoned = True
            result = self._result
        self._interrupt()
        if isinstance(result, EngineIO):
            result.abort()

    def abort(self) -> None:
        with self._changed:
            self._aborted = True
            self._changed.notify_all()
        self._interrupt()

    def _interrupt(self) -> None:
        with self._changed:
            stop = self._stop
        if stop is not None:
            stop()

    # --- in the attempt's thread ---

    def _run(self, target: Target, names: Sequence[str], deadline: Deadline) -> None:
        result: Union[EngineIO, BaseException]
        try:
            result = self._attempt(target, names, deadline)
        except BaseException as error:  # noqa: BLE001  # the user's http_session may raise anything; it is passed on
            result = error
        with self._changed:
            if not self._abandoned:
                self._result = result
                self._changed.notify_all()
                return
        if isinstance(result, EngineIO):
            result.abort()

    def _attempt(self, target: Target, names: Sequence[str], deadline: Deadline) -> EngineIO:
        for index, name in enumerate(names):
            legs = Legs(target, self._options)
            try:
                if name == "websocket":
                    return self._by_websocket(legs, deadline)
                return self._by_polling(legs, deadline, upgrade="websocket" in names)
            except ConnectError as error:
                legs.release()
                last = index == len(names) - 1
                if last or not self._try_all or self._aborted or self._abandoned or deadline.expired():
                    raise
                log.info("no session by %s, trying %s: %s", name, names[index + 1], error)
            except BaseException:
                legs.release()
                raise
        raise AssertionError("there is at least one transport")

    def _show(self, stop: Callable[[], None], step: Callable[[], str], shown: str) -> None:
        with self._changed:
            self._stop, self._step = stop, step
        self._check(shown)

    def _by_polling(self, legs: Legs, deadline: Deadline, upgrade: bool) -> EngineIO:
        self._show(legs.abort, lambda: legs.wires[0].step, legs.shown_url)
        packets, fault = decode_payload(legs.handshake(deadline))
        try:
            if not packets:
                raise fault or RemoteProtocolError("the answer to the handshake is empty")
            handshake = self._accept(legs, packets[0])
            if fault is not None:
                raise fault
        except RemoteProtocolError as error:
            raise _no_server(legs, error) from error
        return EngineIO(
            legs, handshake, early=packets[1:], upgrade=upgrade and "websocket" in handshake.upgrades
        )

    def _by_websocket(self, legs: Legs, deadline: Deadline) -> EngineIO:
        dialled = legs.websocket()
        dial = dialled.dial
        self._show(dial.abort, lambda: dial.step, legs.shown_url)
        given = [value for value in (dialled.timeout, deadline.remaining()) if value is not None]
        limit = Deadline(min(given) if given else None)
        try:
            transport = WebSocketTransport(dial.open(dialled.url, limit.remaining()).sock)
        except ConnectError as error:
            raise legs.refused(error) from None
        try:
            self._show(transport.abort, lambda: "waiting for the open packet", legs.shown_url)
            packets = _packets(first_message(transport, limit))
            handshake = self._accept(legs, packets[0])
        except (TransportError, RemoteProtocolError) as error:
            transport.release()
            if isinstance(error, TransportError) and limit.expired():
                text = "no session with %s in time: the server sent no open packet" % legs.shown_url
                raise ConnectTimeout(text, url=legs.shown_url) from error
            raise _no_server(legs, error) from error
        except BaseException:
            transport.release()
            raise
        return EngineIO(legs, handshake, websocket=transport, early=packets[1:])

    @staticmethod
    def _accept(legs: Legs, packet: Packet) -> Handshake:
        handshake = parse_handshake(packet)
        legs.own(handshake.sid, handshake.ping_interval + handshake.ping_timeout)
        return handshake


def _packets(frames: Sequence[Tuple[int, Union[str, bytes]]]) -> List[Packet]:
    """Return the packets in the first frames of a WebSocket; control frames among them count for nothing."""
    found: List[Packet] = []
    for opcode, payload in frames:
        if opcode == TEXT and isinstance(payload, str):
            found.append(decode_packet(payload))
        elif isinstance(payload, bytes) and opcode < 8:
            found.append((MESSAGE if found else OPEN, payload))
    return found


def _given_up(shown: str) -> ConnectError:
    return ConnectError("the attempt was given up", url=shown)


def _no_server(legs: Legs, error: BaseException) -> ConnectError:
    return ConnectError(
        "%s did not open an Engine.IO v4 session: %s" % (legs.shown_url, legs.hide(str(error))),
        url=legs.shown_url,
        hint="check that a Socket.IO server (version 3 or newer) listens there, and socketio_path",
    )
