"""Errors of invocations and of streams."""

from __future__ import annotations

from typing import Any, Optional

from .base import SimplePubSubError

__all__ = [
    "InvocationError", "InvocationLost", "InvocationTimeout", "StreamFailed", "StreamGap", "StreamLost",
    "StreamRefused", "StreamTimeout",
]


class InvocationError(SimplePubSubError):
    """The service answered an invocation with an error; ``name`` and ``message`` are its own, empty if it has none."""

    def __init__(self, text: str, *, invocation_id: str = "", name: str = "", message: str = "") -> None:
        super().__init__(text)
        self.invocation_id = invocation_id
        self.name = name
        self.message = message


class InvocationTimeout(InvocationError, TimeoutError):
    """No answer in time, and the invocation is cancelled; ``written`` tells whether it had left this process."""

    def __init__(self, text: str, *, written: bool = True, **details: Any) -> None:
        super().__init__(text, **details)
        self.written = written


class InvocationLost(InvocationError):
    """The connection was lost before the answer came: it is uncertain whether the event was handled. Never retried."""


class StreamFailed(SimplePubSubError):
    """A stream ended in an error; everything about it raises this from then on.

    ``name`` and ``message`` are the service's ("UserError", "IdleTimeout", "Forbidden", ...) or say what happened here;
    ``user_error_code`` is what the publisher gave.
    """

    def __init__(
        self,
        text: str,
        *,
        stream_id: str = "",
        name: str = "",
        message: str = "",
        user_error_code: Optional[str] = None,
    ) -> None:
        super().__init__(text)
        self.stream_id = stream_id
        self.name = name
        self.message = message
        self.user_error_code = user_error_code


class StreamRefused(StreamFailed):
    """The service did not open the stream (Forbidden, BadRequest, ...)."""


class StreamLost(StreamFailed):
    """The session could not be recovered, and its streams went with it: what was not acknowledged is uncertain."""


class StreamGap(StreamFailed):
    """Fragments from ``expected`` up to the one before ``received`` are missing; reading can go on with the latter."""

    def __init__(self, text: str, *, expected: int, received: int, **details: Any) -> None:
        super().__init__(text, **details)
        self.expected = expected
        self.received = received


class StreamTimeout(SimplePubSubError, TimeoutError):
    """A stream was not opened, took no more, or was not confirmed in time; it is not broken by that."""

    def __init__(self, text: str, *, stream_id: str = "") -> None:
        super().__init__(text)
        self.stream_id = stream_id
