"""A TCP forwarder on loopback that breaks connections on request. How it works is told in `tests.forwarder`."""

from __future__ import annotations

from typing import Any, Callable, Tuple, Union

from tests.forwarder import DOWN, UP, Forwarder
from tests.helpers import repoint
from tests.timing import scaled

BOTH = "both"


def _directions(direction: str) -> Tuple[str, ...]:
    if direction not in (UP, DOWN, BOTH):
        raise ValueError(f"direction must be 'up', 'down' or 'both', not {direction!r}")
    return (UP, DOWN) if direction == BOTH else (direction,)


class FaultProxy(Forwarder):
    """Forward TCP from a loopback port of its own to a target, and break the traffic as told.

    Use it as a context manager, or `start()` and `close()`. All methods are safe from any thread. Faults set by
    `stall`, `delay`, `drop`, `throttle` and `refuse` hold for present and future connections until they are lifted
    (`resume`, or all at once by `heal`); `cut`, `half_open` and `close_politely` hit the connections that exist at that
    moment. Timeouts are seconds and scaled by SIMPLEPUBSUB_TIME_SCALE.
    """

    def __repr__(self) -> str:
        faults = [f"stalled {d}" for d in sorted(self._stalled)] + [f"dropping {d}" for d in sorted(self._dropped)]
        faults += [f"delay {d} {s:g} s" for d, s in self._delays.items() if s]
        faults += [f"throttle {d}" for d, t in self._throttles.items() if t]
        faults += [f"cut after {b} {d}" for d, b in self._budgets.items() if b is not None]
        faults += [f"refusing ({self._refusing})"] if self._refusing else []
        ports = f"{self.host}:{self.port} -> {self._target[0]}:{self._target[1]}"
        counts = f"{self._connections} open, {self._accepted} accepted, {self._cuts} cut"
        return f"<FaultProxy {', '.join([ports, counts, *faults])}>"

    # ---- what tests look at -----------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Connections open now: accepted and not yet gone on both sides. Half-open ones count."""
        return self._connections

    @property
    def accepted(self) -> int:
        """Connections accepted since the start."""
        return self._accepted

    @property
    def cuts(self) -> int:
        """Connections ended by `cut`, `cut_after` or `close_politely` since the start."""
        return self._cuts

    @property
    def bytes_up(self) -> int:
        """Bytes handed to the target since the start."""
        return self._passed[UP]

    @property
    def bytes_down(self) -> int:
        """Bytes handed to clients since the start."""
        return self._passed[DOWN]

    @property
    def bytes_swallowed(self) -> int:
        """Bytes read and discarded by `drop` and after `close_politely`."""
        return self._swallowed

    @property
    def bytes_held(self) -> int:
        """Bytes read and waiting in the proxy now: delayed, throttled, stalled, or for a sink that is full."""
        return int(self._call(lambda: sum(pipe.size for link in self._links for pipe in link.pipes.values())))

    def url(self, url: str) -> str:
        """Return `url` with its host and port replaced by the proxy's."""
        return repoint(url, self.port, self.host)

    def wait_connections(self, n: int, timeout: float = 5.0) -> None:
        """Wait until exactly `n` connections are open; AssertionError after `timeout`."""
        self._wait(lambda: self._connections == n, timeout, f"{n} open connections")

    def wait_accepted(self, n: int, timeout: float = 5.0) -> None:
        """Wait until at least `n` connections have been accepted in all; unlike a momentary count never missed."""
        self._wait(lambda: self._accepted >= n, timeout, f"{n} accepted connections")

    def wait_cuts(self, n: int, timeout: float = 5.0) -> None:
        """Wait until at least `n` connections have been cut in all."""
        self._wait(lambda: self._cuts >= n, timeout, f"{n} cut connections")

    def wait_bytes(self, n: int, direction: str = UP, timeout: float = 5.0) -> None:
        """Wait until at least `n` bytes have passed in one direction in all."""
        if direction not in (UP, DOWN):
            raise ValueError(f"direction must be 'up' or 'down', not {direction!r}")
        self._wait(lambda: self._passed[direction] >= n, timeout, f"{n} bytes {direction}")

    # ---- faults that hit the connections of this moment -------------------------------------------------------------

    def cut(self, unless: Callable[[], Any] = bool) -> int:
        """Reset (RST) both sides of every open connection, losing what is in flight. Return how many there were.

        ``unless`` is asked first, in the thread that accepts connections: where it says yes, nothing is cut, and where
        it says no, no connection that is made later.
        """
        return int(self._call(lambda: 0 if unless() else self._cut_all(polite=False)))

    def close_politely(self) -> int:
        """End (FIN) both sides of every open connection after what is in hand has passed. Return how many there were.

        What the peers still send is discarded; a connection counts as open until both peers have closed theirs.
        """
        return int(self._call(lambda: self._cut_all(polite=True)))

    def half_open(self) -> int:
        """Forward nothing more on the open connections, neither bytes nor FIN nor RST, and keep the sockets open.

        Nothing is read either, so a peer that goes on sending blocks once the kernel's buffers are full, as on a dead
        network. New connections work. Only `cut` and `close` end a half-open connection. Return how many there are.
        """

        def action() -> int:
            for link in self._links:
                link.half_open = True
            self._refresh_all()
            return len(self._links)

        return int(self._call(action))

    def cut_after(self, n_bytes: int, direction: str = UP, *, polite: bool = False) -> None:
        """Cut every open connection as soon as `n_bytes` more have passed in `direction`, counted over all connections.

        Exactly `n_bytes` are handed over, so a frame can be cut in half; 0 loses the next bytes whole. One shot,
        rearmed by the next call; a negative number disarms. `polite` ends with FIN instead of RST, for peers that throw
        away unread bytes when they see RST.
        """
        if direction not in (UP, DOWN):
            raise ValueError(f"direction must be 'up' or 'down', not {direction!r}")

        def action() -> None:
            self._budgets[direction] = n_bytes if n_bytes >= 0 else None
            self._budget_polite[direction] = polite

        self._call(action)

    # ---- faults that last -------------------------------------------------------------------------------------------

    def stall(self, direction: str = BOTH) -> None:
        """Stop reading and writing in one direction or both, new connections included, until `resume`."""
        self._change(lambda: self._stalled.update(_directions(direction)), direction)

    def drop(self, direction: str = DOWN) -> None:
        """Read and discard the bytes of one direction or both until `resume`; the end of a stream still passes.

        What was swallowed is gone, so a framed stream is broken after `resume`: cut it.
        """
        self._change(lambda: self._dropped.update(_directions(direction)), direction)

    def drop_downstream(self) -> None:
        """Swallow what the target answers: `drop("down")`."""
        self.drop(DOWN)

    def resume(self, direction: str = BOTH) -> None:
        """Lift `stall` and `drop`. What a stall held back passes now, in order."""

        def action() -> None:
            self._stalled.difference_update(_directions(direction))
            self._dropped.difference_update(_directions(direction))

        self._change(action, direction)

    def delay(self, seconds: float, direction: str = BOTH) -> None:
        """Let bytes pass `seconds` after they came in. 0 lifts it; bytes already held keep their time and place."""
        self._change(lambda: self._delays.update(dict.fromkeys(_directions(direction), seconds)), direction)

    def throttle(self, chunk: int, seed: object = 0, *, interval: float = 0.0, direction: str = BOTH) -> None:
        """Write in pieces of 1 to `chunk` random bytes, each by a send of its own. 0 lifts it.

        The sizes depend on `seed`, the number of the connection and the direction only. With `interval` (seconds)
        pieces are also spaced in time, which keeps the receiver's kernel from joining them.
        """
        setting = (chunk, seed, interval) if chunk > 0 else None

        def action() -> None:
            self._throttles.update(dict.fromkeys(_directions(direction), setting))
            for link in self._links:
                for name in _directions(direction):
                    link.pipes[name].rng = None

        self._change(action, direction)

    def refuse(self, mode: Union[bool, str] = True) -> None:
        """Refuse new connections: True closes the port (connection refused), "reset" accepts and resets, False accepts.

        With "reset" the client may see the reset in connect() already. Open connections live on. The port stays
        reserved meanwhile, so nobody else can be given it.
        """
        if mode not in (True, False, "reset"):
            raise ValueError(f"refuse() takes True, False or 'reset', not {mode!r}")
        self._call(lambda: self._set_refusing(mode))

    def retarget(self, target_host: str, target_port: int) -> None:
        """Send connections accepted from now on to another target, as after a server restart on a new port."""

        def action() -> None:
            self._target = self._address(target_host, target_port)

        self._call(action)

    def heal(self) -> None:
        """Lift every lasting fault and disarm `cut_after`. Half-open connections stay dead."""

        def action() -> None:
            self._stalled.clear()
            self._dropped.clear()
            for name in (UP, DOWN):
                self._delays[name] = 0.0
                self._throttles[name] = None
                self._budgets[name] = None
            self._set_refusing(False)
            self._refresh_all()

        self._call(action)

    # ---- for the methods above --------------------------------------------------------------------------------------

    def _change(self, action: Callable[[], Any], direction: str) -> None:
        _directions(direction)  # a wrong direction is the caller's mistake: raise it in the caller's thread

        def change_and_refresh() -> None:
            action()
            self._refresh_all()

        self._call(change_and_refresh)

    def _wait(self, predicate: Callable[[], bool], timeout: float, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(predicate, scaled(timeout)):
                raise AssertionError(f"{self!r}: waited {scaled(timeout):g} s in vain for {what}"
                                     f" ({self._passed[UP]} bytes up, {self._passed[DOWN]} down so far)")
