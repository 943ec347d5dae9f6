"""Which subprotocols the server speaks, by name. The protobuf ones are made when the first client asks for one."""

from __future__ import annotations

from typing import Dict, Iterable, Optional

from ..exceptions import ServerError
from .wire import JSON, JSON_RELIABLE, Wire

__all__ = ["WireUnavailable", "choose", "find_wire"]

_JSON: Dict[str, Wire] = {str(wire.subprotocol): wire for wire in (JSON, JSON_RELIABLE)}
_PROTOBUF = ("protobuf.webpubsub.azure.v1", "protobuf.reliable.webpubsub.azure.v1")


class WireUnavailable(ServerError):
    """The subprotocol is known, but the library that it needs is not installed."""


def find_wire(subprotocol: Optional[str]) -> Optional[Wire]:
    """Return the rules of a subprotocol, compared without case; None for a name that makes a simple client.

    Raises WireUnavailable: a client that speaks protobuf must not be taken for a simple one.
    """
    name = (subprotocol or "").lower()
    if name not in _PROTOBUF:
        return _JSON.get(name)
    try:
        from .wire_protobuf import PROTOBUF, PROTOBUF_RELIABLE
    except ImportError as error:
        raise WireUnavailable(
            "the subprotocol %s needs the protobuf library on the server: pip install 'simplepubsub[protobuf]'" % name
        ) from error
    return PROTOBUF_RELIABLE if name == PROTOBUF_RELIABLE.subprotocol else PROTOBUF


def choose(offered: Iterable[str]) -> Optional[str]:
    """Return the first subprotocol that the server speaks, as the client wrote it; None if there is none.

    Raises WireUnavailable when there would be one if its library were installed.
    """
    missing = None
    for name in offered:
        try:
            if find_wire(name) is not None:
                return name
        except WireUnavailable as error:
            missing = missing or error
    if missing is not None:
        raise missing
    return None
