"""Abuse protection: ask the server behind a handler's URL whether it wants our events at all, before it gets any.

CloudEvents web hooks, protocol reference 6.2. An answer holds for a minute and is then asked for again in the
background; after a refusal the next question waits, from one second up to a minute.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Awaitable, Callable, Dict, NamedTuple, Optional, Sequence, Tuple

from ..exceptions import SimplePubSubError

__all__ = ["AbuseProtection", "Timing", "Unreachable", "Verdict", "allows"]

log = logging.getLogger("simplepubsub.server")

#: Addresses whose verdicts are remembered; beyond, the oldest are forgotten.
_MAX_RECORDS = 1000


class Timing(NamedTuple):
    """How long verdicts hold, in seconds (the emulator's numbers)."""

    allowed: float = 60.0
    first_refusal: float = 1.0
    longest_refusal: float = 60.0
    timeout: float = 10.0


class Verdict(NamedTuple):
    """What came of the question; ``text`` says why it is no, ``final`` whether it makes no sense to try again soon."""

    allowed: bool
    final: bool = False
    text: str = ""


class Unreachable(SimplePubSubError):
    """Nobody was there to answer; ``final`` as in `Verdict`."""

    def __init__(self, text: str, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


#: Sends a request with a method and returns its status and the values of WebHook-Allowed-Origin. Raises Unreachable.
Ask = Callable[[str], Awaitable[Tuple[int, Sequence[str]]]]


def allows(values: Sequence[str], origin: str) -> bool:
    """Return whether WebHook-Allowed-Origin names this server: ``*``, its host, or its host and port.

    The header may be repeated, and each may be a list with commas.
    """
    accepted = {"*", origin.lower(), _host(origin.lower())}
    return any(item.strip().lower() in accepted for value in values for item in value.split(","))


def _host(origin: str) -> str:
    return origin if origin.endswith("]") else origin.rpartition(":")[0] or origin


class _Record:
    __slots__ = ("due", "interval", "question", "verdict")

    def __init__(self) -> None:
        self.verdict: Optional[Verdict] = None
        self.interval = 0.0
        self.due = 0.0
        self.question: Optional["asyncio.Task[Verdict]"] = None


class AbuseProtection:
    """Remembers, per address, whether events may be sent there. Belongs to the server's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: str, timing: Timing) -> None:
        self._loop = loop
        self._origin = origin
        self._timing = timing
        self._records: Dict[str, _Record] = {}

    async def check(self, url: str, shown: str, ask: Ask) -> Verdict:
        """Return the verdict about ``url``, asking when none is known or the known one is a refusal that is due.

        Callers that come while a question is open wait for its answer, unless it is about a permission they have.
        """
        record = self._records.get(url)
        if record is None:
            if len(self._records) >= _MAX_RECORDS:
                self._forget_oldest()
            record = self._records[url] = _Record()
        if record.question is None and self._loop.time() >= record.due:
            record.question = self._loop.create_task(self._ask(record, shown, ask))
        if record.question is not None and (record.verdict is None or not record.verdict.allowed):
            # Shielded: the caller may give up, the others still want to know.
            return await asyncio.shield(record.question)
        assert record.verdict is not None
        return record.verdict

    async def _ask(self, record: _Record, shown: str, ask: Ask) -> Verdict:
        timing = self._timing
        try:
            verdict = await asyncio.wait_for(self._answer(ask), timing.timeout)
        except asyncio.TimeoutError:
            verdict = Verdict(False, text="no answer to OPTIONS within %g s" % timing.timeout)
        finally:
            record.question = None
        was_allowed = record.verdict is None or record.verdict.allowed
        if verdict.allowed:
            record.interval = timing.allowed
        elif was_allowed:
            record.interval = timing.first_refusal
        else:
            record.interval = min(record.interval * 2, timing.longest_refusal)
        record.verdict = verdict
        record.due = self._loop.time() + record.interval
        if not verdict.allowed:
            log.warning("no events go to %s for %g s: %s", shown, record.interval, verdict.text)
        return verdict

    async def _answer(self, ask: Ask) -> Verdict:
        try:
            status, origins = await ask("OPTIONS")
            if status == 404:
                status, origins = await ask("GET")
        except Unreachable as error:
            return Verdict(False, error.final, str(error))
        if not 200 <= status <= 299:
            text = "it answered %d to the question whether it wants events (OPTIONS)" % status
            return Verdict(False, status < 500, text)
        if not allows(origins, self._origin):
            found = ", ".join(origins) if origins else "none"
            text = "its WebHook-Allowed-Origin must be * or %s, not %s" % (self._origin, ascii(found)[:100])
            return Verdict(False, True, text)
        return Verdict(True)

    def _forget_oldest(self) -> None:
        """Make room: of the verdicts that nobody waits for, the one that was asked for first goes."""
        for url, record in self._records.items():
            if record.question is None:
                del self._records[url]
                return

    async def reset(self) -> None:
        """Forget every verdict and cut off open questions."""
        questions = [record.question for record in self._records.values() if record.question is not None]
        self._records.clear()
        for question in questions:
            question.cancel()
        if questions:
            await asyncio.wait(questions)
