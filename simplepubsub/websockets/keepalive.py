"""When to ping a peer, and when to give it up: pure, ``now`` (monotonic seconds) is passed in."""

from __future__ import annotations

from typing import Optional

__all__ = ["KeepAlive"]


class KeepAlive:
    """Pings every ``interval`` seconds; a ping without any sign of life for ``timeout`` seconds is a failure.

    Everything that arrives is a sign of life: an answer may be behind a long message.
    """

    def __init__(self, interval: Optional[float], timeout: Optional[float], now: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._next_ping = None if interval is None else now + interval
        self._sent: Optional[float] = None
        self._heard = now
        self._serial = 0
        #: Whether the peer is to be given up.
        self.failed = False

    def received(self, now: float) -> None:
        """Note that something arrived."""
        self._heard = now

    def resumed(self, now: float) -> None:
        """Note that reading goes on after a pause of our own: the silence was ours."""
        self._heard = now

    def answered(self, payload: bytes, now: float) -> Optional[float]:
        """Return the round trip in seconds if ``payload`` answers the last ping of this object."""
        if self._sent is None or payload != b"keep-alive %d" % self._serial:
            return None
        latency, self._sent = now - self._sent, None
        return latency

    def due(self, now: float, paused: bool) -> Optional[bytes]:
        """Return the payload of a ping to send, None for none; may set ``failed``. ``paused``: we do not read."""
        if self._interval is None:
            return None
        if self._sent is not None and self._timeout is not None:
            if paused or self._heard > self._sent:
                self._sent = None
            elif now >= self._sent + self._timeout:
                self.failed = True
                return None
        assert self._next_ping is not None
        if now < self._next_ping:
            return None
        self._next_ping = now + self._interval
        if self._sent is None:
            self._sent = now
            self._serial += 1
            return b"keep-alive %d" % self._serial
        return None

    def next_deadline(self) -> Optional[float]:
        """Return when `due` should be asked again, None for never."""
        if self._interval is None or self._next_ping is None:
            return None
        if self._sent is not None and self._timeout is not None:
            return min(self._next_ping, self._sent + self._timeout)
        return self._next_ping
