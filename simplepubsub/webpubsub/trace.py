"""One log line per frame, with secrets masked, at no cost while it is off."""

from __future__ import annotations

import logging
from typing import Callable, Optional, Sequence

from ..core import logs
from ..core.protocol import Frame
from ..transports.redact import redact_text

__all__ = ["make_trace"]

#: Longest part of a payload that is shown, in characters.
SHOWN = 500


def make_trace(verbose: bool) -> Optional[Callable[[str, Sequence[Frame]], None]]:
    """Return what the engine calls for each batch of frames, None when nobody would see it."""
    if verbose:
        logs.configure("verbose")
    else:
        logs.configure_from_environment()
    log = logging.getLogger(logs.VERBOSE_LOGGER)
    if not log.isEnabledFor(logging.DEBUG):
        return None

    def trace(direction: str, frames: Sequence[Frame]) -> None:
        for opcode, payload in frames:
            text = payload if isinstance(payload, str) else payload[: 4 * SHOWN].decode("utf-8", "replace")
            # Masked before it is cut: half a token would not be recognised.
            shown = redact_text(text)
            log.debug("%s opcode %d: %s%s", direction, opcode, shown[:SHOWN], "..." if len(shown) > SHOWN else "")

    return trace
