"""One stream as a receiver sees it: numbered messages in, fragments, gaps and an end out.

Pure: no thread, no lock, no clock. Numbers start at 1 and rise by 1 (client specification 3.6.5); a lower one is a
repeat, a higher one a gap. The message that ends the stream has a number too, and normally no data.
"""

from __future__ import annotations

from typing import List, Union

from ..exceptions import StreamFailed, StreamGap
from .messages import Message, StreamInfo

__all__ = ["End", "Item", "StreamAssembler"]


class End:
    """The end of a stream; ``error`` None if it ended as its publisher wished."""

    __slots__ = ("error",)

    def __init__(self, error: "BaseException | None" = None) -> None:
        self.error = error


#: What a receiver gets: a fragment, an error that stands for missing ones, or the end.
Item = Union[Message, StreamGap, End]


class StreamAssembler:
    """``expected`` is the number of the next message."""

    def __init__(self, first: int = 1) -> None:
        self.expected = first
        self.duplicates = 0
        self.ended = False

    def accept(self, message: Message) -> List[Item]:
        """Return what ``message``, which belongs to this stream, means."""
        info = message.stream
        assert info is not None
        if self.ended or (info.sequence_id < self.expected and not info.end_of_stream):
            self.duplicates += 1
            return []
        items: List[Item] = []
        if info.sequence_id > self.expected:
            items.append(
                StreamGap(
                    "the stream %s has a gap: fragment %d follows %d"
                    % (info.stream_id, info.sequence_id, self.expected - 1),
                    stream_id=info.stream_id,
                    expected=self.expected,
                    received=info.sequence_id,
                )
            )
        new = info.sequence_id >= self.expected
        self.expected = max(self.expected, info.sequence_id + 1)
        if not info.end_of_stream:
            items.append(message)
            return items
        if new and message.data not in ("", b"", None):
            items.append(message)
        self.ended = True
        items.append(End(failure(info)))
        return items


def failure(info: StreamInfo) -> "StreamFailed | None":
    """Return the exception for the error at the end of a stream."""
    error = info.error
    if error is None:
        return None
    return StreamFailed(
        "the stream %s ended with an error: %s %s" % (info.stream_id, error.name, error.message),
        stream_id=info.stream_id,
        name=error.name,
        message=error.message,
        user_error_code=error.user_error_code,
    )
