"""One stream as its publisher keeps it (client specification 3.6): numbers, what is unacknowledged, what to send next.

Pure: no thread, no lock, no clock, no I/O; the caller passes ``now`` (monotonic seconds) and encoded frames. Events of
the service and of the link change the state; `peek` and `advance` then yield, one by one, the frames that have to be
queued for the present link, in order. So "send again" is nothing but a pointer that goes back.

::

    STARTING --ack 1--> OPEN --end() or abort()--> ENDING --closed--> CLOSED
        |                |                            |
        +--closed--------+--error, violation----------+--> FAILED    (``failure`` says why, for ever)

What the specification leaves open: the end of a stream carries no number, so it is held back until every fragment is
accepted, or for `END_PATIENCE` after the last sign from the service; a fragment refused after that fails the stream
instead of leaving a hole that nobody sees. A start that was not answered is repeated on whatever connection follows, as
no fragment depends on it yet.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Deque, Optional

from ..core.protocol import Frame
from ..exceptions import ClientStateError, StreamFailed, StreamLost, StreamRefused, fresh
from .messages import StreamError

__all__ = ["Action", "OutgoingStream", "StreamState"]

#: How much may be unacknowledged before `has_room` says no: bytes of encoded fragments, and fragments.
WINDOW_BYTES = 2**20
WINDOW_FRAGMENTS = 1000

#: The service drops everything behind a fragment that it refused and says so each time: after one rewind the same
#: number asks for another one only when this much time (seconds) has passed.
REWIND_PAUSE = 0.5

#: How long the end waits for outstanding acknowledgements after the last sign of progress (seconds).
END_PATIENCE = 5.0


class StreamState(str, enum.Enum):
    """Where a stream stands; each member equals its name in lower case."""

    STARTING = "starting"
    OPEN = "open"
    ENDING = "ending"
    CLOSED = "closed"
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value


class Action(enum.Enum):
    """What an event asks of the caller, apart from queueing what `peek` yields."""

    NOTHING = 0
    REWIND = 1  # forget what is queued and not written: it will be yielded again
    VIOLATION = 2  # the service broke the rules: the stream has failed, tell it so
    KEEP_ALIVE = 3  # send the keep-alive frame


class OutgoingStream:
    """See the module docstring. ``idle_timeout`` (seconds) is what the service was told."""

    def __init__(self, stream_id: str, start: Frame, idle_timeout: float) -> None:
        self.stream_id = stream_id
        self.idle_timeout = idle_timeout
        self.state = StreamState.STARTING
        self.failure: Optional[BaseException] = None
        self.cut_short = False  # the abort was confirmed, and not every fragment accepted
        self.expected = 1  # every fragment below is accepted
        self._start = start
        self._unacked: Deque[Frame] = deque()  # from ``expected`` on
        self._bytes = 0
        self._end: Optional[Frame] = None
        self._aborted = False
        # About the present link:
        self._queued = 0  # how many of the unacknowledged
        self._start_queued = self._end_queued = False
        self._quiet_since = 0.0  # the last frame queued
        self._heard_at = 0.0  # the last progress, or the last fragment queued
        self._patient = True
        self._rewound_to = 0
        self._rewound_at = 0.0
        self._again_at: Optional[float] = None
        # About links before it:
        self._end_repeated = False
        self._refused: Optional[StreamError] = None  # a fragment was refused after the end had gone out

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state is StreamState.CLOSED or self.state is StreamState.FAILED

    @property
    def next(self) -> int:
        """The number of the next fragment."""
        return self.expected + len(self._unacked)

    @property
    def unacknowledged(self) -> int:
        """How many fragments are not accepted yet."""
        return len(self._unacked)

    @property
    def has_room(self) -> bool:
        """Whether another fragment may be appended."""
        return self._bytes < WINDOW_BYTES and len(self._unacked) < WINDOW_FRAGMENTS

    @property
    def waiting(self) -> bool:
        """Whether the service owes an answer."""
        return not self.over and (self.state is not StreamState.OPEN or bool(self._unacked))

    def check_open(self) -> None:
        """Raise the failure of the stream, or ClientStateError, unless fragments may be appended."""
        if self.failure is not None:
            raise fresh(self.failure)
        if self.state is not StreamState.OPEN:
            raise ClientStateError("the stream %s takes no more: it was ended" % self.stream_id)

    # --- what the publisher does --------------------------------------------------------------------------------------

    def append(self, frame: Frame) -> None:
        """Add the fragment with the number `next`."""
        self._unacked.append(frame)
        self._bytes += len(frame[1])

    def end(self, frame: Frame, now: float) -> None:
        """End the stream by ``frame`` once everything is accepted."""
        if self.state is StreamState.OPEN:
            self._end, self._heard_at = frame, now
            self.state = StreamState.ENDING

    def abort(self, frame: Frame) -> None:
        """End the stream by ``frame``, which tells an error, without waiting for anything."""
        if self.state is StreamState.OPEN or (self.state is StreamState.ENDING and not self._aborted):
            self._end, self._aborted, self._end_queued = frame, True, False
            self.state = StreamState.ENDING

    def fail(self, error: BaseException) -> None:
        """End it all; ``error`` is what everybody is told from now on."""
        if not self.over:
            self.failure = error
            self.state = StreamState.FAILED
            self._unacked.clear()

    # --- what to send -------------------------------------------------------------------------------------------------

    def peek(self) -> Optional[Frame]:
        """Return the next frame to queue for the present link, None if there is none."""
        if self.state is StreamState.STARTING:
            return None if self._start_queued else self._start
        if self.over:
            return None
        if self._queued < len(self._unacked):
            return self._unacked[self._queued]
        if self._end is None or self._end_queued or (self._unacked and self._patient and not self._aborted):
            return None
        return self._end

    def advance(self, now: float) -> None:
        """Record that the frame of `peek` is queued. Doing both twice repeats it, which the service ignores."""
        self._quiet_since = now
        if self.state is StreamState.STARTING:
            self._start_queued = True
        elif self._queued < len(self._unacked):
            self._queued += 1
            self._heard_at = now
        else:
            self._end_queued = True

    # --- what the service says ----------------------------------------------------------------------------------------

    def ack(self, expected: int, now: float) -> Action:
        """Everything below ``expected`` is accepted."""
        if self.over or (self.state is StreamState.STARTING and not self._start_queued):
            return Action.NOTHING
        if not self.expected <= expected <= self.next:
            return self._violation(expected)
        if self.state is StreamState.STARTING:
            self.state = StreamState.OPEN
        if expected > self.expected:
            self._heard_at = now
        while self.expected < expected:
            self._bytes -= len(self._unacked.popleft()[1])
            self.expected += 1
            self._queued = max(0, self._queued - 1)
        if not self._unacked:
            self._bytes = 0
        return Action.NOTHING

    def nack(self, expected: int, error: StreamError, now: float) -> Action:
        """Everything below ``expected`` is accepted, and what comes next must be sent again."""
        if self.state is StreamState.STARTING:
            return Action.NOTHING
        if self.ack(expected, now) is Action.VIOLATION:
            return Action.VIOLATION
        if not self._unacked or self._aborted:
            return Action.NOTHING
        if self._end_queued:
            self._refused = error
        if expected == self._rewound_to and now < self._rewound_at + REWIND_PAUSE:
            self._again_at = self._rewound_at + REWIND_PAUSE
            return Action.NOTHING
        return self._rewind(now)

    def _rewind(self, now: float) -> Action:
        self._queued = 0
        self._rewound_to, self._rewound_at, self._again_at = self.expected, now, None
        return Action.REWIND

    def _violation(self, expected: int) -> Action:
        text = "fragment %d is expected according to the service, which is not from %d to %d" % (
            expected,
            self.expected,
            self.next,
        )
        self.fail(self._failed(StreamError("ProtocolViolation", text)))
        return Action.VIOLATION

    def closed(self, error: Optional[StreamError]) -> None:
        """The service has ended the stream."""
        if self.over or (self.state is StreamState.STARTING and not self._start_queued):
            return
        if self.state is StreamState.STARTING:
            name, message = ("", "no reason given") if error is None else (error.name, error.message)
            text = "the service did not open the stream %s: %s %s" % (self.stream_id, name, message)
            self.fail(StreamRefused(text, stream_id=self.stream_id, name=name, message=message))
        elif self._end is None:
            self.fail(self._failed(error or StreamError("", "the service closed it")))
        elif self._aborted:
            self.state = StreamState.CLOSED
            self.cut_short = bool(self._unacked)
            self._unacked.clear()
        elif error is not None and not (error.name == "StreamNotFound" and self._end_repeated and not self._unacked):
            self.fail(self._failed(error))
        elif self._refused is not None and self._unacked:
            self.fail(self._failed(self._refused))
        else:  # as it should be; or the end that was sent again after a recovery had arrived the first time
            self.expected = self.next
            self.state = StreamState.CLOSED
            self._unacked.clear()

    def _failed(self, error: StreamError) -> StreamFailed:
        return StreamFailed(
            "the stream %s failed after %d accepted fragments: %s %s"
            % (self.stream_id, self.expected - 1, error.name, error.message),
            stream_id=self.stream_id,
            name=error.name,
            message=error.message,
            user_error_code=error.user_error_code,
        )

    # --- the link -----------------------------------------------------------------------------------------------------

    def link_lost(self) -> None:
        """Nothing is on its way any more; everything unacknowledged has to be queued again, should it come to that."""
        self._end_repeated = self._end_repeated or self._end_queued
        self._queued = 0
        self._start_queued = self._end_queued = False
        self._patient = True
        self._again_at, self._rewound_to = None, 0

    def session_lost(self) -> None:
        """There will be no recovery: the stream is lost, unless it had not begun."""
        if self.state is not StreamState.STARTING:
            text = "the session of the stream %s could not be recovered: %d fragments are accepted, %d uncertain"
            self.fail(
                StreamLost(text % (self.stream_id, self.expected - 1, len(self._unacked)), stream_id=self.stream_id)
            )

    # --- timers -------------------------------------------------------------------------------------------------------

    def due(self, now: float, alive: bool) -> Action:
        """Return what is due; without ``alive`` nobody holds the stream any more, and it is left to its idle time."""
        if self._again_at is not None and now >= self._again_at:
            self._again_at = None
            if self._unacked and self.expected == self._rewound_to:
                return self._rewind(now)
        if self._impatient_at is not None and now >= self._impatient_at:
            self._patient = False
        keep_alive_at = self._keep_alive_at
        if alive and keep_alive_at is not None and now >= keep_alive_at:
            self._quiet_since = now
            return Action.KEEP_ALIVE
        return Action.NOTHING

    @property
    def _impatient_at(self) -> Optional[float]:
        ending = self.state is StreamState.ENDING and self._patient and not self._end_queued and not self._aborted
        return self._heard_at + END_PATIENCE if ending and self._unacked else None

    @property
    def _keep_alive_at(self) -> Optional[float]:
        return self._quiet_since + self.idle_timeout / 2 if self.state is StreamState.OPEN else None

    def next_deadline(self, alive: bool) -> Optional[float]:
        """Return when `due` should be asked again, None for never."""
        times = (self._again_at, self._impatient_at, self._keep_alive_at if alive else None)
        return min((time for time in times if time is not None), default=None)
