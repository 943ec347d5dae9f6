"""One log line per frame, with secrets masked, at no cost while it is off."""

from __future__ import annotations

import logging
from typing import Callable, Optional, Sequence

from ..core import logs
from ..core.protocol import Frame
from ..transports.frames import BINARY
from ..transports.redact import redact_text

__all__ = ["make_trace"]

#: Longest part of a payload that is shown, in characters.
SHOWN = 500

#: How a system message of the protobuf subprotocols begins. One holds the reconnection token, which no pattern finds.
_SYSTEM = b"\x1a"


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
            if opcode == BINARY and payload[:1] == _SYSTEM:
                log.debug("%s opcode %d: system message of %d bytes", direction, opcode, len(payload))
                continue
            text = payload if isinstance(payload, str) else payload[: 4 * SHOWN].decode("utf-8", "replace")
            # Masked before it is cut: half a token would not be recognised.
            shown = redact_text(text)
            log.debug("%s opcode %d: %s%s", direction, opcode, shown[:SHOWN], "..." if len(shown) > SHOWN else "")

    return trace
