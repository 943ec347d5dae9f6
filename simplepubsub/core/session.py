"""The bookkeeping of one client's traffic: what is queued, what waits for an answer, what a new session must restore.

Pure: no thread, no lock, no clock, no I/O. Every method expects its caller to hold the engine's mutex and, where time
matters, to pass ``now`` (monotonic seconds), so that timers are data and tests need no sleep. Nothing here completes a
future: methods return what to complete, and the caller does it after releasing the mutex.

The life of an `Entry`::

    submit -> queued -> (take) -> written -> acknowledged            an answer was wanted
                                  written -> done                    fire and forget
    link lost, session recovered:  written, unanswered -> queued again, in front, in order, under the same ack id
    link lost, new session:        the same, or failed as DeliveryUncertain, as the user chose
    bound to a conversation:       forgotten when it is written, or when the link is lost
"""

from __future__ import annotations

from collections import deque
from typing import Deque, Dict, Iterable, List, Optional, Set, Tuple

from .future import SendFuture
from .protocol import Ack, Frame

__all__ = ["Entry", "Session"]

#: Most bytes handed to one system call.
BATCH_BYTES = 256 * 1024


def _oldest(entries: Iterable[Entry]) -> float:
    """Return the serial of the first entry that the user submitted; they are in order but for rejoins in front."""
    for entry in entries:
        if entry.restores is None:
            return entry.serial
    return float("inf")


class Entry:
    """One command on its way. ``restores`` marks the automatic rejoin of that group.

    A *bound* entry is a frame of a conversation (`core.conversations`), which does the rest of the bookkeeping: the
    session only writes it in its turn. It wants no ack, its bytes are not counted here, nobody waits for its future,
    and it is forgotten once written, or when the link is lost before that.
    """

    __slots__ = ("ack_id", "bound", "frame", "future", "join", "queued", "restores", "serial", "size", "written")

    def __init__(
        self,
        frame: Frame,
        ack_id: Optional[int],
        *,
        join: Optional[Tuple[str, bool]] = None,
        restores: Optional[str] = None,
        bound: object = None,
    ) -> None:
        self.frame = frame
        self.ack_id = ack_id
        self.size = len(frame[1])
        self.future = SendFuture(ack_id)
        self.join = join  # (group, True) joins it, (group, False) leaves it, once acknowledged
        self.restores = restores
        self.bound = bound  # the conversation that it is part of, if any: it does not outlive the link
        self.written = False  # at least once, on any connection: from then on its fate is uncertain
        self.queued = False  # it stands in the queue
        self.serial = 0


class Session:
    """See the module docstring. ``max_bytes`` bounds what is queued or unanswered, in bytes of encoded messages.

    ``max_in_flight`` bounds how many commands are written and unanswered (None = no limit): after a cut all of them are
    written again, and the service recognises only so many repeats.
    """

    def __init__(self, max_bytes: int, max_in_flight: Optional[int] = None) -> None:
        self.max_bytes = max_bytes
        self.max_in_flight = max_in_flight
        self.open = False  # data may be written; control frames always may
        self.size = 0  # bytes of all entries that are neither answered nor, if no answer is wanted, written
        self.pending: Dict[int, Entry] = {}  # wants an answer; in the order of submission
        self.restore: Dict[str, None] = {}  # groups to rejoin on a new session, in order of joining
        self._queue: Deque[Entry] = deque()  # not written yet
        self._control: Dict[object, Frame] = {}  # ahead of the queue, the newest of each kind
        self._writing: List[Entry] = []  # fire-and-forget entries in the batch being written
        self._in_flight: Set[int] = set()  # ack ids written on this link and unanswered, withdrawn ones included
        self._next_ack_id = 1
        self._serial = 0

    # --- submitting ---------------------------------------------------------------------------------------------------

    def next_ack_id(self) -> int:
        """Return an unused ack id; ids rise for the life of the client, so frames can be replayed as they are."""
        ack_id = self._next_ack_id
        self._next_ack_id = ack_id + 1
        return ack_id

    def reserve_ack_id(self, ack_id: int) -> None:
        """Keep automatic ids clear of one that the user chose: the service would take the second use for a repeat."""
        if self._next_ack_id <= ack_id < 2**53:
            self._next_ack_id = ack_id + 1

    def has_room(self, size: int) -> bool:
        """Return whether an entry of ``size`` bytes fits; a larger one than the limit fits an empty outbox."""
        return self.size + size <= self.max_bytes or not self.size

    def submit(self, entry: Entry) -> None:
        """Queue an entry; the caller has checked `has_room`, and that its ack id is not pending."""
        self._serial += 1
        entry.serial = self._serial
        self.size, entry.queued = self.size + entry.size, True
        if entry.ack_id is not None:
            self.pending[entry.ack_id] = entry
        self._queue.append(entry)

    def submit_bound(self, entry: Entry) -> None:
        """Queue a frame of a conversation, behind everything else."""
        self._serial += 1
        entry.serial = self._serial
        entry.queued = True
        self._queue.append(entry)

    def forget_bound(self, bound: object) -> None:
        """Drop the frames of one conversation that are not written."""
        # One assignment: Ctrl-C in between must not lose the others.
        self._queue = deque(entry for entry in self._queue if entry.bound is not bound)

    def retract(self, entry: Entry) -> None:
        """Undo a `submit` that Ctrl-C cut short; nothing for one that was completed."""
        if entry.queued and entry not in self._queue:
            self.size, entry.queued = self.size - entry.size, False
            if entry.ack_id is not None:
                self.pending.pop(entry.ack_id, None)

    def withdraw(self, entry: Entry) -> bool:
        """Forget an entry whose caller gave up; return False if it is settled already."""
        if self.pending.get(entry.ack_id if entry.ack_id is not None else -1) is not entry:
            return False
        self._forget(entry)
        return True

    def _forget(self, entry: Entry) -> None:
        # Not the other way round: Ctrl-C in between must not leave a pending entry that nobody writes.
        self.size -= self.pending.pop(entry.ack_id).size  # type: ignore[arg-type]  # what is pending has an id
        self._unqueue(entry)

    def _unqueue(self, entry: Entry) -> None:
        if entry.queued:
            entry.queued = False
            self._queue.remove(entry)

    def control(self, frame: Frame, kind: object = None) -> None:
        """Queue a control frame (ping, pong, sequence acknowledgement) ahead of all data.

        It replaces one of the same ``kind`` (None = an equal one) that is not written yet, so a peer that does not
        read cannot make us collect them.
        """
        self._control[frame if kind is None else kind] = frame

    # --- writing ------------------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether `take` would return something."""
        return bool(self._control) or (self.open and bool(self._queue) and not self._held_back(self._queue[0]))

    def _held_back(self, entry: Entry) -> bool:
        limit = self.max_in_flight
        return limit is not None and entry.ack_id is not None and len(self._in_flight) >= limit

    def take(self) -> List[Frame]:
        """Return the next batch for the writer and mark it written: from here on its fate is uncertain."""
        frames = list(self._control.values())
        self._control.clear()
        if not self.open:
            return frames
        room = BATCH_BYTES
        queue = self._queue
        while queue and room > 0 and not self._held_back(queue[0]):
            entry = queue[0]  # taken out last: Ctrl-C in between must not lose it
            entry.queued = False
            entry.written = True
            if entry.ack_id is None:
                if entry.bound is None:
                    self._writing.append(entry)
            else:
                self._in_flight.add(entry.ack_id)
            frames.append(entry.frame)
            room -= entry.size
            queue.popleft()
        return frames

    def wrote(self) -> List[Entry]:
        """Record that the batch is written; return the entries that are done with that."""
        done = self._writing
        if done:
            self._writing = []
            for entry in done:
                self.size -= entry.size
        return done

    # --- answers ------------------------------------------------------------------------------------------------------

    def acknowledge(self, acks: Iterable[Ack]) -> List[Tuple[Entry, Ack]]:
        """Settle the entries that ``acks`` answer and return them; an answer to nothing known is ignored."""
        settled = []
        pop = self.pending.pop
        answered = self._in_flight.discard
        for ack in acks:
            answered(ack.ack_id)
            entry = pop(ack.ack_id, None)
            if entry is None:
                continue
            self.size -= entry.size
            self._unqueue(entry)  # a late answer to what waits for its replay
            if ack.ok and entry.join is not None:
                group, joined = entry.join
                if joined:
                    self.restore[group] = None
                else:
                    self.restore.pop(group, None)
            settled.append((entry, ack))
        return settled

    @property
    def unanswered(self) -> int:
        """How many entries are queued or wait for an answer."""
        return len(self.pending) + sum(1 for entry in self._queue if entry.ack_id is None) + len(self._writing)

    @property
    def idle(self) -> bool:
        """Whether nothing is queued, being written, or waiting for an answer."""
        return not (self.pending or self._queue or self._writing)

    @property
    def queued(self) -> int:
        """How many entries are not written yet."""
        return len(self._queue)

    def mark(self) -> int:
        """Return a mark for `settled_up_to`: everything submitted so far."""
        return self._serial

    def settled_up_to(self, mark: int) -> bool:
        """Return whether every entry submitted before ``mark`` was taken is done."""
        return not any(_oldest(entries) <= mark for entries in (self.pending.values(), self._queue, self._writing))

    # --- the link -----------------------------------------------------------------------------------------------------

    def link_lost(self) -> List[Entry]:
        """Stop writing; return the fire-and-forget entries whose writing was cut short (dropped: at most once).

        Frames of conversations are forgotten: none of them goes to another connection.
        """
        self.open = False
        self._queue = deque(entry for entry in self._queue if entry.bound is None)
        self._control.clear()
        self._in_flight.clear()
        return self.wrote()

    def resume(self) -> int:
        """Continue the recovered session: requeue what was written but not answered, in order; return how many.

        The service recognises the ack ids, so this is exactly once (client specification 3.1.2).
        """
        self.open = True
        return self._requeue()

    def begin(self, restore: List[Entry], replay: bool) -> Tuple[int, List[Entry]]:
        """Start a new session: ``restore`` first, then the replay; return (replayed, entries that became uncertain).

        With ``replay`` what was written but not answered is sent again (at least once). Without, it is uncertain,
        except joins and leaves: repeating those does no harm. Answers to rejoins of an older session are not waited
        for.
        """
        self.open = True
        uncertain: List[Entry] = []
        for entry in list(self.pending.values()):
            if entry.restores is not None:
                self._forget(entry)
            elif entry.written and entry.join is None and not replay:
                self._forget(entry)  # perhaps queued: recovered, and lost again before it was written
                uncertain.append(entry)
        replayed = self._requeue()
        for entry in restore:
            self._serial += 1
            entry.serial = self._serial
            entry.queued = True
            self.size += entry.size
        self._queue.extendleft(reversed(restore))
        # In the order of writing, so that a later recovery replays a rejoin before the leave that followed it.
        first = {entry.ack_id: entry for entry in restore if entry.ack_id is not None}
        first.update(self.pending)
        self.pending = first
        return replayed, uncertain

    def _requeue(self) -> int:
        """Put what was written and not answered back in front, in order; return how many."""
        again = [entry for entry in self.pending.values() if not entry.queued]
        for entry in again:
            entry.queued = True
        self._queue.extendleft(reversed(again))
        return len(again)

    def abandon(self) -> List[Entry]:
        """Give up everything (the client stops) and return it; the restore list stays for the next start."""
        left = list(self.pending.values())
        left += [entry for entry in self._queue if entry.ack_id is None and entry.bound is None]
        left += self._writing
        self.open = False
        self.pending.clear()
        self._queue.clear()
        self._control.clear()
        self._writing = []
        self._in_flight.clear()
        self.size = 0
        return left
