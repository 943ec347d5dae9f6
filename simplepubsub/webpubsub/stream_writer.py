"""The publisher's handle of one stream."""

from __future__ import annotations

import weakref
from typing import Any, Optional

from ..core.deadline import Deadline, check_timeout
from .arguments import name_data_type
from .messages import StreamError
from .outgoing_stream import StreamState
from .streams import Channel, Publisher

__all__ = ["StreamWriter"]


class StreamWriter:
    """A stream that is being published; made by `WebPubSubClient.open_stream`.

    Fragments arrive in the order of the `write` calls, also of those from several threads, and each exactly once for as
    long as the session lasts: after a lost connection the client sends again what was not acknowledged. When the
    session cannot be recovered, everything raises `StreamLost`. Leaving a ``with`` block ends the stream and waits for
    the confirmation; an exception in the block aborts it instead.

    The service closes a stream that is idle for too long; the writer keeps it alive for as long as it is referenced.
    ``timeout`` None means the client's ``ack_timeout``. Safe from any thread.
    """

    def __init__(self, client: Any, publisher: Publisher, channel: Channel, group: str, limit: Optional[float]) -> None:
        self._client = client  # who writes holds the client, which stops when nobody does
        self._publisher = publisher
        self._channel = channel
        self._group = group
        self._limit = limit
        publisher.adopt(channel, weakref.ref(self))

    @property
    def stream_id(self) -> str:
        """The id of the stream."""
        return self._channel.stream.stream_id

    @property
    def group(self) -> str:
        """The group that it is published to."""
        return self._group

    @property
    def state(self) -> StreamState:
        """Equal to "open", "ending", "closed" or "failed"."""
        return self._channel.stream.state

    @property
    def acknowledged(self) -> int:
        """How many fragments the service has accepted."""
        return self._channel.stream.expected - 1

    @property
    def unacknowledged(self) -> int:
        """How many fragments were written and are not accepted yet."""
        return self._channel.stream.unacknowledged

    def write(self, data: Any, data_type: Any = None, *, timeout: Optional[float] = None) -> None:
        """Add a fragment; return when it is queued.

        Waits while 1 MiB or 1,000 fragments are unacknowledged. Data as for `WebPubSubClient.send_to_group`. After
        Ctrl-C the fragment is either part of the stream, whole, or not.

        Raises: StreamTimeout (nothing was written), StreamFailed and its kinds, ClientStopped, ClientStateError after
        the end, MessageTooLarge, InvalidArgument, ForkedError.
        """
        self._publisher.write(self._channel, data, name_data_type(data, data_type), self._deadline(timeout))

    def flush(self, timeout: Optional[float] = None) -> None:
        """Wait until the service has accepted everything written before this call.

        Raises: StreamTimeout, StreamFailed and its kinds, ClientStateError when an `abort` came first, ClientStopped,
        InvalidArgument, ForkedError.
        """
        self._publisher.flush(self._channel, self._deadline(timeout))

    def end(self, timeout: Optional[float] = None) -> None:
        """End the stream and wait until the service has confirmed it.

        After a StreamTimeout, or Ctrl-C, it is ending: calling again goes on waiting. Does nothing on a closed stream.
        Raises as `flush`.
        """
        self._publisher.end(self._channel, self._deadline(timeout))

    def abort(self, message: Optional[str] = None, user_error_code: Optional[str] = None) -> None:
        """End the stream with an error, which its receivers see as "UserError" with these words; does not wait.

        Does nothing on a stream that is over. Raises: InvalidArgument, ForkedError.
        """
        self._publisher.abort(self._channel, StreamError("UserError", message or "", user_error_code))

    def keep_alive(self) -> None:
        """Start the idle time anew, which the client does by itself as well; does not wait.

        Raises: StreamFailed and its kinds, ClientStopped, ClientStateError after the end, ForkedError.
        """
        self._publisher.keep_alive(self._channel)

    def __enter__(self) -> "StreamWriter":
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """End the stream; after an exception abort it with the name of the exception's class, and nothing else."""
        if self._publisher.forked:
            return  # in a forked child there is nothing to leave
        if kind is None:
            self.end()
        else:
            self.abort(kind.__name__)

    def _deadline(self, timeout: Optional[float]) -> Deadline:
        check_timeout(timeout)
        return Deadline(self._limit if timeout is None else timeout)

    def __repr__(self) -> str:
        return "<StreamWriter %s to %r %s acknowledged=%d unacknowledged=%d>" % (
            self.stream_id, self._group, self.state, self.acknowledged, self.unacknowledged,
        )
