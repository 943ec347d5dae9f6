"""The receiver's handles: `IncomingStreams` yields streams, `StreamReader` the fragments of one."""

from __future__ import annotations

import weakref
from typing import Any, Iterator, Optional

from ..core.deadline import check_timeout
from ..exceptions import ClientStateError, ClientStopped, ReceiveTimeout
from .messages import Message
from .stream_inbox import Door, Feed, StreamInbox

__all__ = ["IncomingStreams", "StreamReader"]


class StreamReader:
    """One received stream: iterate over its fragments, which are `Message` objects, in order and each once.

    The iteration ends with the stream. It raises `StreamFailed` when the publisher or the service ended the stream with
    an error or nothing came for ``idle_timeout`` seconds, `StreamLost` when the session was lost, `ClientStopped` when
    the client stopped, and `StreamGap` once where fragments are missing, after which iterating again goes on. What
    arrived before an end is returned before it.

    Read every stream to its end, or close it: what waits unread counts against ``max_inbox``. A reader that nobody
    references any more is closed. Safe from any thread; each fragment goes to one caller.
    """

    def __init__(self, client: Any, inbox: StreamInbox, feed: Feed) -> None:
        self._client = client
        self._inbox = inbox
        self._feed = feed
        feed.owner = weakref.ref(self)

    @property
    def stream_id(self) -> str:
        """The id that the publisher gave it."""
        return self._feed.stream_id

    @property
    def group(self) -> str:
        """The group that it came through."""
        return self._feed.group

    @property
    def from_user_id(self) -> Optional[str]:
        """The publisher's user id, None when anonymous or unknown."""
        return self._feed.from_user_id

    @property
    def ended(self) -> bool:
        """Whether the end has arrived; fragments before it may still wait."""
        return self._feed.end is not None

    def receive(self, timeout: Optional[float] = None) -> Optional[Message]:
        """Return the next fragment, or None when the stream has ended as it should.

        ``timeout`` in seconds, None = no limit but the idle time.
        Raises: ReceiveTimeout, StreamFailed and its kinds, ClientStopped, ClientStateError after `close`, ForkedError,
        InvalidArgument.
        """
        return self._inbox.next_item(self._feed, timeout)

    def __iter__(self) -> "StreamReader":
        return self

    def __next__(self) -> Message:
        message = self._inbox.next_item(self._feed, None)
        if message is None:
            raise StopIteration
        return message

    def close(self) -> None:
        """Drop what is left of the stream; its other receivers are not concerned. Raises: ForkedError."""
        self._inbox.close_feed(self._feed)

    def __enter__(self) -> "StreamReader":
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if not self._inbox.forked:  # in a forked child there is nothing to leave
            self.close()

    def __repr__(self) -> str:
        state = "ended" if self.ended else "open"
        return "<StreamReader %s of %r %s waiting=%d>" % (self.stream_id, self.group, state, len(self._feed.items))


class IncomingStreams:
    """New streams as they come; made by `WebPubSubClient.streams`, and open from that moment until `close`.

    Iterate over it for one `StreamReader` after the other, or call `accept`. It survives reconnects, and ``stop()``
    followed by ``start()``. Safe from any thread; each stream goes to one caller.
    """

    def __init__(
        self,
        client: Any,
        inbox: StreamInbox,
        group: Optional[str],
        from_start: bool,
        idle_timeout: Optional[float],
        timeout: Optional[float],
    ) -> None:
        self._client = client
        self._inbox = inbox
        self._timeout = timeout
        self._door = Door(group, from_start, idle_timeout, inbox, weakref.ref(self))
        inbox.add_door(self._door)

    @property
    def skipped(self) -> int:
        """How many fragments were dropped because the beginning of their stream was missed."""
        return self._door.skipped

    def accept(self, timeout: Optional[float] = None) -> StreamReader:
        """Return the next new stream, waiting up to ``timeout`` seconds (None = no limit, 0 = do not wait).

        Raises: ReceiveTimeout, ClientStopped, ClientStateError after `close`, ForkedError, InvalidArgument.
        """
        check_timeout(timeout)
        reader: StreamReader = self._inbox.next_stream(self._door, timeout, self._reader)
        return reader

    def _reader(self, feed: Feed) -> StreamReader:
        return StreamReader(self._client, self._inbox, feed)

    def __iter__(self) -> Iterator[StreamReader]:
        """Yield streams until none comes for the ``timeout`` given to `WebPubSubClient.streams`, or stop() is called.

        Raises: ClientStopped when the client gave up by itself.
        """
        while True:
            try:
                reader = self.accept(self._timeout)
            except ReceiveTimeout:
                return
            except ClientStopped as stopped:
                if stopped.__cause__ is not None:
                    raise
                return
            except ClientStateError:
                if self._door.closed:
                    return
                raise
            yield reader
            del reader  # what the application has thrown away must not be held by this frame

    def close(self) -> None:
        """Let no more streams in; those that were accepted go on. Raises: ForkedError."""
        self._inbox.close_door(self._door)

    def __enter__(self) -> "IncomingStreams":
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if not self._inbox.forked:  # in a forked child there is nothing to leave
            self.close()

    def __repr__(self) -> str:
        door = self._door
        return "<IncomingStreams group=%r %s waiting=%d skipped=%d>" % (
            door.group, "closed" if door.closed else "open", len(door.waiting), door.skipped,
        )
