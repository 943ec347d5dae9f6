"""Pages of a list that changes while it is read, and the tokens that lead from one page to the next.

A page goes on behind the last connection id of the one before, so an entry that is there all the time is listed exactly
once, whoever comes and goes meanwhile. Pure functions.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import hmac
import json
from typing import Iterable, List, Tuple

from ..exceptions import InvalidArgument
from .session import Session

__all__ = ["DEFAULT_PAGE", "Cursors", "page_of"]

#: Entries of a page, unless fewer are asked for (protocol reference 7.1).
DEFAULT_PAGE = 200

_DIGEST_SIZE = 16


class Cursors:
    """Makes and reads continuation tokens: where the next page of one list begins, signed against changes."""

    def __init__(self, key: str) -> None:
        self._key = hmac.new(key.encode("utf-8", "surrogatepass"), b"continuation tokens", hashlib.sha256).digest()

    def make(self, hub: str, group: str, last_id: str) -> str:
        """Return the token for what comes behind ``last_id``."""
        content = json.dumps([hub, group, last_id]).encode("ascii")
        return base64.urlsafe_b64encode(self._digest(content) + content).decode("ascii").rstrip("=")

    def read(self, token: str, hub: str, group: str) -> str:
        """Return the last id of the page before. Raises InvalidArgument: not ours, changed, or for another list."""
        try:
            data = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        digest, content = data[:_DIGEST_SIZE], data[_DIGEST_SIZE:]
        if not hmac.compare_digest(digest, self._digest(content)):
            raise InvalidArgument("continuationToken is not one that this server has made")
        found: List[str] = json.loads(content.decode("ascii"))
        if found[:2] != [hub, group]:
            raise InvalidArgument("continuationToken belongs to the list of another group")
        return found[2]

    def _digest(self, content: bytes) -> bytes:
        return hmac.new(self._key, content, hashlib.sha256).digest()[:_DIGEST_SIZE]


def page_of(sessions: Iterable[Session], after: str, size: int) -> Tuple[List[Session], bool]:
    """Return the next ``size`` sessions with an id above ``after``, by id, and whether there are more."""
    rest = [session for session in sessions if session.connection_id > after]
    page = heapq.nsmallest(size, rest, key=lambda session: session.connection_id)
    return page, len(rest) > len(page)
