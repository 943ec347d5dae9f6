"""What a namespace keeps in mind to get back what it misses while it is away (protocol reference, section 2.12)."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional, Union

from .offsets import looks_like_offset

__all__ = ["Memory"]


class Memory:
    """The private id and the last offset of one namespace. Both are secrets: they are in no log and no repr."""

    __slots__ = ("_offset", "_strip", "pid")

    def __init__(self, strip: Union[str, bool]) -> None:
        self._strip = strip
        self.pid: Optional[str] = None
        self._offset: Optional[str] = None

    def connect_data(self, auth: Any) -> Any:
        """Return what the CONNECT packet carries; keys of the user win. Without an offset servers do not even try."""
        if self.pid is None or self._offset is None or not (auth is None or isinstance(auth, dict)):
            return auth
        data: Dict[str, Any] = {"pid": self.pid, "offset": self._offset}
        data.update(auth or {})
        return data

    def connected(self, pid: Any) -> bool:
        """Take the server's answer; return whether the session of before goes on."""
        recovered = isinstance(pid, str) and pid == self.pid
        if not recovered:
            self._offset = None
        self.pid = pid if isinstance(pid, str) else None
        return recovered

    def accept(self, args: List[Any]) -> None:
        """Note the offset of an event without an ack id, and take it off ``args`` (name first) as is configured."""
        if self.pid is None or len(args) < 2:
            return
        last = args[-1]
        if not isinstance(last, str):
            return
        # An ordinary string at the end of a volatile event is no offset: taking it for one would spoil the recovery.
        if self._strip is True or looks_like_offset(last, time.time()):
            self._offset = last
            if self._strip:
                args.pop()
