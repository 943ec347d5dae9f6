"""Events out during one run: sent, kept until there is a connection, repeated until they are answered, or late.

The half of `Traffic` that does not look at what comes in. Everything is done with the manager's lock held.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..exceptions import MessageTooLarge, SimplePubSubError
from .acks import Request, Timers, late
from .exceptions import BufferFull
from .link import Link, Space, Stage
from .outbox import OfflineBuffer, RetryQueue
from .seams import Delegate
from .settings import Options

__all__ = ["Outgoing"]

log = logging.getLogger("simplepubsub.socketio")


class Outgoing:
    """See the module docstring."""

    def __init__(self, delegate: Delegate, options: Options, on_change: Callable[[], None]) -> None:
        self._delegate = delegate
        self._options = options
        self._on_change = on_change
        self.link: Optional[Link] = None
        self.over = False
        self._buffer = OfflineBuffer(options.max_buffer, options.max_buffer_bytes, options.overflow)
        self._queues: Dict[str, RetryQueue] = {}
        self.timers = Timers()

    def _deliver_locked(self, records: Sequence[Any]) -> None:
        if records and not self.over:
            self._delegate.deliver(records)

    def submit_locked(self, link: Link, space: Space, request: Request) -> None:
        """Send ``request``, or queue it behind those that are to be answered first.

        Raises MessageTooLarge and BufferFull; nothing is sent then.
        """
        if request.retries:
            queue = self._queue_locked(request.namespace)
            queue.put(request)
            try:
                self._deliver_locked(self._start_head_locked(link, space, queue, raise_for=request))
            except MessageTooLarge:
                queue.ended(request)
                raise
        else:
            self._write_locked(link, space, request)

    def park_locked(self, request: Request) -> None:
        """Keep ``request`` until its namespace is connected. Raises BufferFull."""
        if request.retries:
            return self._queue_locked(request.namespace).put(request)
        for dropped in self._buffer.put(request):
            self._deliver_locked(dropped.settle(BufferFull("dropped: too many events wait for the connection"), []))
        if request.ack_timeout is not None and not request.settled:
            self._time_locked(request)

    def _queue_locked(self, namespace: str) -> RetryQueue:
        queue = self._queues.get(namespace)
        if queue is None:
            queue = self._queues[namespace] = RetryQueue(self._options.max_buffer)
        return queue

    def _write_locked(self, link: Link, space: Space, request: Request) -> None:
        link.session.send(request.group)  # may raise MessageTooLarge: so before anything is noted
        link.unheard = True
        if not request.retries:
            request.tries += 1
        if request.id is not None:
            space.acks[request.id] = request
            if request.ack_timeout is not None and request.when is None:
                self._time_locked(request)

    def _transmit_locked(self, link: Link, space: Space, request: Request) -> List[Any]:
        """Send what waited; return the records about a failure."""
        try:
            self._write_locked(link, space, request)
        except SimplePubSubError as error:
            log.error("an event that waited for the connection to %s cannot be sent: %s", request.namespace, error)
            return list(request.settle(error, []))
        return []

    def _start_head_locked(
        self, link: Link, space: Space, queue: RetryQueue, raise_for: Optional[Request] = None
    ) -> List[Any]:
        """Send the first of a queue, unless it is on its way; those that cannot be sent are given up."""
        records: List[Any] = []
        while True:
            head = queue.next()
            if head is None:
                return records
            try:
                self._write_locked(link, space, head)
                return records
            except MessageTooLarge as error:
                if head is raise_for:
                    raise
                queue.ended(head)
                records += head.settle(error, [])

    def _advance_locked(self, link: Link, space: Space, namespace: str) -> List[Any]:
        queue = self._queues.get(namespace)
        return [] if queue is None else self._start_head_locked(link, space, queue)

    def _time_locked(self, request: Request) -> None:
        assert request.ack_timeout is not None
        if self.timers.add(request, time.monotonic() + request.ack_timeout):
            self._on_change()

    def run_timers_locked(self, now: float) -> Optional[float]:
        """Handle what is late; return when the next request will be."""
        for request in self.timers.due(now):
            link = self.link
            space = None if link is None else link.joined(request.namespace)
            if space is not None and request.id is not None:
                space.acks.pop(request.id, None)
            queue = self._queues.get(request.namespace) if request.retries else None
            records: List[Any] = []
            if queue is None:
                self._buffer.remove(request)
                records += request.settle(late(request), [])
            else:
                gone = queue.missed()
                if gone is not None:
                    records += gone.settle(late(gone), [])
                if link is not None and space is not None:
                    records += self._start_head_locked(link, space, queue)
            self._deliver_locked(records)
        return self.timers.next()

    def cancel_locked(self, request: Request) -> None:
        """Nobody wants the answer any more; what is not sent yet never is."""
        request.settle(None, [])
        space = None if self.link is None else self.link.spaces.get(request.namespace)
        if space is not None and request.id is not None:
            space.acks.pop(request.id, None)
        if not request.retries:
            return self._buffer.remove(request)
        queue = self._queues.get(request.namespace)
        if queue is not None:
            queue.ended(request)
            link = self.link
            if link is not None and space is not None and space.stage is Stage.JOINED:
                self._deliver_locked(self._start_head_locked(link, space, queue))
