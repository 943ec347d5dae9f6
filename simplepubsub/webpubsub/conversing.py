"""The third part of the client: invocations and streams."""

from __future__ import annotations

import uuid
from typing import Any, Optional

from ..core.deadline import Deadline, check_timeout
from ..exceptions import InvalidArgument
from .arguments import check_event, check_group, name_data_type
from .conversations import WebPubSubConversations
from .invocations import InvokeFuture, InvokeResult
from .protocol import WebPubSubProtocol
from .stream_reader import IncomingStreams
from .stream_writer import StreamWriter

__all__ = ["Conversing"]

#: The idle time of a stream travels as unsigned 32-bit milliseconds.
_LONGEST_IDLE = (2**32 - 1) / 1000.0


class Conversing:
    """Base of `WebPubSubClient` with everything that is more than a message; it is told its options there."""

    _conversations: WebPubSubConversations
    _protocol: WebPubSubProtocol
    _ack_timeout: Optional[float]

    def invoke_event(
        self, event: str, data: Any = None, data_type: Any = None, *, timeout: Optional[float] = None
    ) -> InvokeResult:
        """Send a user event to the service's event handler and return its answer.

        Without ``data`` and ``data_type`` the event has no payload; ``data_type`` as for `send_event`. ``timeout`` None
        means ``ack_timeout``; it covers waiting for a connection. At its end, and at Ctrl-C, the service is told that
        nobody waits any more. An invocation is never sent twice. Safe from any thread.

        Raises: InvocationError with the service's ``name`` and ``message``, InvocationTimeout (a builtin TimeoutError
        too), InvocationLost (the connection broke: it is uncertain whether the event was handled), ClientStopped,
        InvalidArgument (also where the subprotocol has no invocations), MessageTooLarge, ForkedError.
        """
        check_timeout(timeout)
        deadline = Deadline(self._ack_timeout if timeout is None else timeout)
        invocations = self._conversations.invocations
        check_event(event)
        invocation_id = invocations.next_id()
        try:
            future = invocations.submit(invocation_id, event, data, _payload(data, data_type), deadline)
            return invocations.result(future, deadline)
        except BaseException:
            invocations.cancel(invocation_id)  # Ctrl-C; nothing is left to cancel otherwise
            raise

    def invoke_event_nowait(self, event: str, data: Any = None, data_type: Any = None) -> InvokeFuture:
        """Queue `invoke_event` and return the future of its result.

        The future has ``invocation_id``; its ``cancel()`` gives the invocation up. Its callbacks run in the reader
        thread and must not block. Raises: OutboxFull instead of waiting for room, and as `invoke_event`.
        """
        invocations = self._conversations.invocations
        check_event(event)
        return invocations.submit(invocations.next_id(), event, data, _payload(data, data_type), None)

    def cancel_invocation(self, invocation_id: str) -> bool:
        """Give up a pending invocation: its future is cancelled, a blocking call raises InvocationError.

        Returns False when there is no such invocation, or its answer has come. Safe from any thread.
        Raises: ForkedError.
        """
        return self._conversations.invocations.cancel(invocation_id)

    def open_stream(
        self,
        group: str,
        *,
        stream_id: Optional[str] = None,
        no_echo: bool = False,
        idle_timeout: float = 300.0,
        timeout: Optional[float] = None,
    ) -> StreamWriter:
        """Start publishing a stream to ``group`` and return its writer, once the service has accepted it.

        ``stream_id`` must be unique among the streams that this client publishes; None makes one up. ``no_echo`` keeps
        the stream from this connection. The service ends a stream after ``idle_timeout`` seconds without a sign of
        life, which the writer gives by itself. ``timeout`` None means ``ack_timeout``. Safe from any thread.

        Raises: StreamRefused with the service's ``name`` ("Forbidden", "BadRequest", ...), StreamTimeout,
        ClientStopped, InvalidArgument, ForkedError.
        """
        check_timeout(timeout)
        check_group(group)
        if stream_id is None:
            stream_id = str(uuid.uuid4())
        elif not isinstance(stream_id, str) or not stream_id.strip():
            raise InvalidArgument("stream_id must be None or a str that is not blank, not %.60r" % (stream_id,))
        check_timeout(idle_timeout, "idle_timeout")
        if idle_timeout is None or not 0.001 <= idle_timeout <= _LONGEST_IDLE:
            raise InvalidArgument(
                "idle_timeout must be from 0.001 to %d seconds, not %r" % (_LONGEST_IDLE, idle_timeout)
            )
        body = self._protocol.stream_start_body(group, stream_id, no_echo, int(idle_timeout * 1000))
        limit = self._ack_timeout
        publisher = self._conversations.publisher
        channel = publisher.open(
            stream_id, self._protocol.finish(body, None), idle_timeout, Deadline(limit if timeout is None else timeout)
        )
        return StreamWriter(self, publisher, channel, group, limit)

    def streams(
        self,
        group: Optional[str] = None,
        *,
        from_start: bool = True,
        idle_timeout: Optional[float] = 300.0,
        timeout: Optional[float] = None,
    ) -> IncomingStreams:
        """Return an iterable of the streams that come through ``group`` (None = any group), from now on.

        Their fragments go to their readers, and neither to `receive` nor to listeners. A stream whose beginning was
        missed is left out, unless ``from_start`` is False. A reader gives up after ``idle_timeout`` seconds without a
        fragment (None = never). Iterating ends when no new stream comes for ``timeout`` seconds (None = no limit).
        Joining the group is up to you. Safe from any thread.

        Raises: InvalidArgument, ForkedError.
        """
        check_timeout(timeout)
        check_timeout(idle_timeout, "idle_timeout")
        if group is not None:
            check_group(group)
        self._conversations.engine.check()
        return IncomingStreams(self, self._conversations.inbox, group, from_start, idle_timeout, timeout)


def _payload(data: Any, data_type: Any) -> Optional[str]:
    """Return the data type, None for an event without payload."""
    return None if data is None and data_type is None else name_data_type(data, data_type)
