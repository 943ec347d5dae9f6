"""The way out of a connection: a bounded queue in front of a socket that never waits.

Who queues first writes, as long as the socket takes it: that thread holds the *writer's role* (``_writer``), so the
bytes of two messages never mix and no thread ever waits for another one's system call. What the socket does not take
is written by the poller when it can be. Messages sent in a row are gathered: the system call costs more than all the
rest.

What goes out next is the rest of ``_batch``, whose first ``sum(_done)`` bytes have gone, then ``_out``. These change
together or not at all, so Ctrl-C in the middle of a write loses and doubles nothing: `rescue` gives the role back, and
the poller goes on.
"""

from __future__ import annotations

import threading
from typing import Any, List, Optional, Set, Union

from ..exceptions import TransportError
from ..transports.frames import Frame, encode_frames
from .messages import State
from .poller import Poller
from .sockets import wrap

__all__ = ["Writer"]

#: Batches that one thread writes, its own and what others queued meanwhile, before the poller takes over.
ROUNDS = 4

#: Messages sent in a row gather until there are so many bytes; a pause flushes them at once.
CORK_BYTES = 16 * 1024

_me = threading.get_ident


class Writer:
    """The outgoing half of a `Channel`, which provides `broken`, `end` and `update` for the poller's thread.

    ``first`` goes out before everything else; `flush` sends it.
    """

    def __init__(self, sock: Any, poller: Poller, client: bool, first: bytes = b"") -> None:
        self._client = client
        self._poller = poller
        self._sock = wrap(sock)
        #: The one lock of a connection: a leaf but for the poller's, held across no I/O and no callback.
        self._changed = threading.Condition(threading.Lock())
        # Guarded by ``_changed``:
        self._state = State.OPEN
        self._out: List[bytes] = [first] if first else []
        self._out_bytes = len(first)  # of `_out`, and of the batch while the socket takes nothing
        self._writer: Optional[int] = None  # the thread that holds the writer's role; it alone touches the next two
        self._batch: Union[bytes, memoryview] = b""
        self._done: List[int] = []
        self._blocked = False  # the socket takes nothing: the poller goes on when it does
        self._deferred = False  # the poller has been asked to write what waits
        self._dead = False  # a write has failed: nothing is written any more
        self._close_when_free = False  # the descriptor goes when the writer's role is given back
        self._waiting_sends: Set[int] = set()  # threads that wait for room

    def update(self) -> None:
        """Look again what the socket is to be watched for."""
        raise AssertionError("a channel must implement update()")

    def broken(self, cause: TransportError) -> None:
        """Note that a write has failed."""
        raise AssertionError("a channel must implement broken()")

    def end(self, cause: Optional[BaseException]) -> None:
        """Free everything, whatever the peer does."""
        raise AssertionError("a channel must implement end()")

    def queue_locked(self, data: bytes) -> bool:
        """Queue ``data``; return whether the caller is to `write_out`: somebody else will do it otherwise."""
        self._out.append(data)
        self._out_bytes += len(data)
        return self._take_role_locked()

    def defer_locked(self, data: bytes) -> bool:
        """Queue one of many messages in a row; as `queue_locked`, but a small amount is left to the poller."""
        if self._out_bytes + len(data) >= CORK_BYTES:
            return self.queue_locked(data)
        self._out.append(data)
        self._out_bytes += len(data)
        if not self._deferred:
            self._poller.call(self._flush_deferred)
            self._deferred = True  # not before: an interrupted call would never be made up for
        return False

    def _take_role_locked(self) -> bool:
        if self._writer is not None or self._blocked or self._dead:
            return False
        self._writer = _me()
        self._gather_locked()
        return True

    def _gather_locked(self) -> None:
        """Make the batch what is to be written next: its rest, or all that is queued."""
        sent = sum(self._done)
        if sent < len(self._batch):
            self._batch, self._done = memoryview(self._batch)[sent:], []
            return
        out = self._out
        # One statement, so that Ctrl-C comes before all of it or after.
        self._batch, self._done, self._out, self._out_bytes = out[0] if len(out) == 1 else b"".join(out), [], [], 0
        if self._waiting_sends:
            self._changed.notify_all()

    def write_out(self) -> None:
        """Write as the holder of the writer's role, and give it back; the poller finishes what does not fit."""
        try:
            for _ in range(ROUNDS):
                self._sock.send(self._batch, self._done)  # type: ignore[arg-type]  # any buffer will do
                with self._changed:
                    left = len(self._batch) - sum(self._done)
                    if left:
                        self._blocked = True
                        self._out_bytes = left + sum(map(len, self._out))
                        self._release_role_locked()
                        break
                    if not self._out:
                        if self._out_bytes:
                            self._out_bytes = 0
                            self._changed.notify_all()
                        return self._release_role_locked()
                    self._gather_locked()
            else:
                with self._changed:
                    self._release_role_locked()
        except (OSError, ValueError) as error:  # ValueError: a TLS socket that has been closed
            with self._changed:
                self._release_role_locked()
            broken = TransportError("the connection broke while writing: %s" % (str(error) or type(error).__name__))
            self._poller.call(lambda: self.broken(broken))
            return
        self._poller.call(self.update if left else self.flush)

    def _release_role_locked(self) -> None:
        self._writer = None
        if self._close_when_free:
            self._sock.close()
        elif self._state is not State.OPEN:
            self._poller.call(self.update)

    def rescue(self) -> None:
        """After an exception, Ctrl-C most likely, at any place in here: let the poller go on where this thread was."""
        with self._changed:
            if self._writer == _me():
                self._release_role_locked()
        if self._sock.torn:
            self._poller.call(lambda: self.end(TransportError("a write was interrupted: how much went out is unknown")))
        self._poller.call(self._go_on)

    def _go_on(self) -> None:
        self.flush()
        self.update()

    def push(self, *frames: Frame) -> None:
        """Queue control frames and write what can be written."""
        data = encode_frames(frames, masked=self._client)
        try:
            with self._changed:
                if self._state is not State.OPEN:
                    return  # nothing follows a close frame
                mine = self.queue_locked(data)
            if mine:
                self.write_out()
        except BaseException:
            self.rescue()
            raise

    def flush(self) -> None:
        """Write what is queued, unless somebody else does or the socket takes nothing."""
        try:
            with self._changed:
                if not self._out and len(self._batch) == sum(self._done):
                    return
                mine = self._take_role_locked()
            if mine:
                self.write_out()
        except BaseException:
            self.rescue()
            raise

    def _flush_deferred(self) -> None:
        with self._changed:
            self._deferred = False
        self.flush()

    @property
    def idle_locked(self) -> bool:
        """Whether all that was queued has been written, or will never be; under the lock."""
        return self._writer is None and (self._dead or (not self._out and len(self._batch) == sum(self._done)))
