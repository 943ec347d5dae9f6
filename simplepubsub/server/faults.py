"""Faults on demand: make the embedded server misbehave, to test how a client copes.

Every method may be called from any thread, and has taken effect when it returns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque, List, Optional, Tuple

from ..exceptions import InvalidArgument
from ..transports.frames import close_payload, parse_close
from ..webpubsub.messages import StreamError
from .connection import Connection

if TYPE_CHECKING:
    from .app import Server

__all__ = ["Faults"]


class Faults:
    """``server.faults``: see each method; `clear` ends them all."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        # Everything below belongs to the server's loop.
        self._refuse_recovery: Optional[int] = 0  # None: every one
        self._refuse_status = 503
        self._refuse_connections: Optional[int] = 0
        self._thawed: Optional["asyncio.Event"] = None
        self._thaw_timer: Optional[asyncio.TimerHandle] = None
        self._delay = 0.0
        self._delayed: Deque[Tuple[float, Connection, bytes]] = deque()
        self._delay_timer: Optional[asyncio.TimerHandle] = None

    # --- public -------------------------------------------------------------------------------------------------------

    def drop_connections(self, hub: Optional[str] = None, *, silent: bool = False) -> int:
        """Cut all connections (of one hub) without goodbye; return how many there were.

        Peers see a TCP reset. With ``silent`` they see nothing at all: the server forgets the socket and leaves it half
        open, so only their own idle detection can tell. Reliable sessions stay recoverable either way.
        """
        return int(self._run(self._drop_connections, None if hub is None else hub.lower(), silent))

    def close_connections(self, code: int = 1001, reason: str = "", hub: Optional[str] = None) -> int:
        """Close all connections (of one hub) with a WebSocket close code and no further word; return how many.

        After 1000 and 1008 a session is gone, after any other code a reliable one stays recoverable. Raises
        InvalidArgument for a code that must not be sent.
        """
        try:
            parse_close(close_payload(code, reason))
        except Exception as error:
            raise InvalidArgument("code must be a WebSocket close code that may be sent, not %r" % (code,)) from error
        return int(self._run(self._close_connections, code, reason, None if hub is None else hub.lower()))

    def refuse_recovery(self, times: Optional[int] = None) -> None:
        """Answer the next ``times`` recoveries (None: all, 0: no more) with 1008; the sessions are not harmed."""
        self._run(setattr, self, "_refuse_recovery", _count(times))

    def refuse_connections(self, status: int = 503, times: Optional[int] = None) -> None:
        """Answer the next ``times`` handshakes (None: all, 0: no more), recoveries included, with an HTTP status."""
        if not isinstance(status, int) or not 400 <= status <= 599:
            raise InvalidArgument("status must be an HTTP status from 400 to 599, not %r" % (status,))
        times = _count(times)

        def apply() -> None:
            self._refuse_status = status
            self._refuse_connections = times

        self._run(apply)

    def lose_next_ack(self, count: int = 1) -> None:
        """Execute the next ``count`` successful commands with an ack id, but do not send their acknowledgements.

        Stream acks have `lose_next_stream_ack`.
        """
        self._run(self._set_lose_acks, _unlimited(count))

    def lose_next_stream_ack(self, count: int = 1) -> None:
        """Do not send the next ``count`` stream acks; one acknowledges a start, or any number of fragments."""
        self._run(self._set_stream_fault, "lose_acks", _unlimited(count))

    def refuse_fragments(self, count: int = 1) -> None:
        """Refuse the next ``count`` stream fragments with TransientError; the streams go on, at these fragments."""
        self._run(self._set_stream_fault, "refuse_fragments", _unlimited(count))

    def end_streams(self, hub: Optional[str] = None) -> int:
        """End all streams (of one hub) with InternalServerError; return how many there were."""
        return int(self._run(self._end_streams, None if hub is None else hub.lower()))

    def freeze(self, seconds: float) -> None:
        """Stop reading, answering and accepting for a while; return at once. A second call replaces the first."""
        self._run(self._freeze, _seconds(seconds))

    def delay(self, seconds: float) -> None:
        """Send everything that much later, in order, until told otherwise; 0 ends it."""
        self._run(self._set_delay, _seconds(seconds))

    def clear(self) -> None:
        """End every fault: thaw, send what is delayed, close sockets that were left half open."""
        self._run(self.clear_now)

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._server._call(function, *args)

    # --- on the loop --------------------------------------------------------------------------------------------------

    async def admit(self) -> None:
        """Let a handshake pass, late while frozen. Raises Refused while connections are refused."""
        from .endpoint import Refused

        await self.thawed()
        if self._refuse_connections is None or self._refuse_connections > 0:
            if self._refuse_connections is not None:
                self._refuse_connections -= 1
            raise Refused(self._refuse_status, "connections are refused by server.faults")

    async def thawed(self) -> None:
        """Wait while frozen: what a REST request does before it is looked at."""
        if self._thawed is not None:
            await self._thawed.wait()

    def take_refused_recovery(self) -> bool:
        """Return whether this recovery is to be refused, and count it."""
        if self._refuse_recovery is None:
            return True
        if self._refuse_recovery > 0:
            self._refuse_recovery -= 1
            return True
        return False

    def clear_now(self) -> None:
        """End every fault."""
        self._refuse_recovery = self._refuse_connections = 0
        self._set_lose_acks(0)
        self._set_stream_fault("lose_acks", 0)
        self._set_stream_fault("refuse_fragments", 0)
        self._set_delay(0.0)
        self._thaw()
        for connection in list(self._server._pump.connections):
            if connection.silent:
                connection.abort()

    def _of_hub(self, hub: Optional[str]) -> List[Connection]:
        found = [connection for connection in self._server._pump.connections if not connection.silent]
        if hub is not None:
            found = [item for item in found if item.session is not None and item.session.hub.name == hub]
        return found

    def _drop_connections(self, hub: Optional[str], silent: bool) -> int:
        connections = self._of_hub(hub)
        for connection in connections:
            if silent:
                connection.forget()
            else:
                connection.abort(reset=True)
        self._server._pump.wake()
        return len(connections)

    def _close_connections(self, code: int, reason: str, hub: Optional[str]) -> int:
        connections = self._of_hub(hub)
        for connection in connections:
            connection.depart(code, reason)
        self._server._pump.wake()
        return len(connections)

    def _set_lose_acks(self, count: int) -> None:
        self._server._pump.work.lose_acks = count

    def _set_stream_fault(self, name: str, count: int) -> None:
        setattr(self._server._pump.work.streams, name, count)

    def _end_streams(self, hub: Optional[str]) -> int:
        pump = self._server._pump
        error = StreamError("InternalServerError", "ended by server.faults")
        count = 0
        for item in pump.work.hubs.values():
            if hub is None or item.name == hub:
                for session in list(item.sessions.values()):
                    count += pump.work.streams.fail(session, error, pump.loop.time())
        pump.wake()
        return count

    def _freeze(self, seconds: float) -> None:
        pump = self._server._pump
        if self._thaw_timer is not None:
            self._thaw_timer.cancel()
        if self._thawed is None:
            self._thawed = asyncio.Event()
        pump.frozen = True
        for connection in pump.connections:
            connection.freeze()
        self._thaw_timer = pump.loop.call_later(seconds, self._thaw)

    def _thaw(self) -> None:
        if self._thawed is None:
            return
        if self._thaw_timer is not None:
            self._thaw_timer.cancel()
        self._thawed.set()
        self._thaw_timer = self._thawed = None
        pump = self._server._pump
        pump.frozen = False
        pump.work.streams.restart(pump.loop.time())
        for connection in pump.connections:
            connection.thaw()
        pump.wake()

    def _set_delay(self, seconds: float) -> None:
        self._delay = seconds
        if seconds > 0:
            self._server._pump.delay_write = self._hold
        elif not self._delayed:
            self._server._pump.delay_write = None
        else:
            self._release(everything=True)

    def _hold(self, connection: Connection, data: bytes) -> None:
        loop = self._server._pump.loop
        self._delayed.append((loop.time() + self._delay, connection, data))
        if self._delay_timer is None:
            self._delay_timer = loop.call_later(self._delay, self._release)

    def _release(self, everything: bool = False) -> None:
        """Write what has waited long enough; order is kept because all of it waits in one queue."""
        loop = self._server._pump.loop
        if self._delay_timer is not None:
            self._delay_timer.cancel()
            self._delay_timer = None
        delayed = self._delayed
        while delayed and (everything or delayed[0][0] <= loop.time()):
            _, connection, data = delayed.popleft()
            if connection.transport is not None:
                connection.transport.write(data)
        if delayed:
            self._delay_timer = loop.call_at(delayed[0][0], self._release)
        elif self._delay <= 0:
            self._server._pump.delay_write = None


def _count(value: Optional[int]) -> Optional[int]:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise InvalidArgument("a count must be an integer from 0, or None for no limit, not %r" % (value,))
    return value


def _unlimited(count: Optional[int]) -> int:
    count = _count(count)
    return 2**63 if count is None else count


def _seconds(value: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise InvalidArgument("seconds must be a finite number from 0, not %r" % (value,))
    return float(value)
