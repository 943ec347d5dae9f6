"""What the tests of Engine.IO sessions share: open one, and collect what it reports."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest

from simplepubsub.core.deadline import Deadline
from simplepubsub.socketio import eio_threads
from simplepubsub.socketio.engineio import EngineIO
from simplepubsub.socketio.http_options import HttpOptions
from simplepubsub.socketio.opening import EngineOpener
from simplepubsub.socketio.seams import Target
from tests.helpers import scaled


@pytest.fixture()
def patient_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session has a second for its last words; a busy machine stops a thread for longer."""
    monkeypatch.setattr(eio_threads, "LEAVE_LIMIT", scaled(5))


class Collector:
    """A started session and everything it said."""

    def __init__(self, session: EngineIO, block: Optional[threading.Event] = None) -> None:
        self.session = session
        self.changed = threading.Condition()
        self.messages: List[Any] = []
        self.batches: List[List[Any]] = []
        self.closed: List[Tuple[str, Optional[BaseException]]] = []
        self.reader: Optional[threading.Thread] = None
        self._block = block
        session.start(self._on_messages, self._on_closed)

    def _on_messages(self, messages: List[Any]) -> None:
        with self.changed:
            assert not self.closed, "messages after the end"
            self.reader = threading.current_thread()
            self.messages.extend(messages)
            self.batches.append(messages)
            self.changed.notify_all()
        if self._block is not None:
            assert self._block.wait(scaled(20))

    def _on_closed(self, reason: str, error: Optional[BaseException]) -> None:
        with self.changed:
            self.closed.append((reason, error))
            self.changed.notify_all()

    def wait(self, predicate: Callable[[], Any], timeout: float = 5.0) -> Any:
        with self.changed:
            found = self.changed.wait_for(predicate, scaled(timeout))
            assert found, "not in time: %d messages, closed %r" % (len(self.messages), self.closed)
            return found

    def wait_messages(self, count: int, timeout: float = 5.0) -> List[Any]:
        self.wait(lambda: len(self.messages) >= count, timeout)
        return self.messages

    def wait_closed(self, timeout: float = 5.0) -> Tuple[str, Optional[BaseException]]:
        self.wait(lambda: self.closed, timeout)
        assert len(self.closed) == 1
        return self.closed[0]


def open_session(
    url: str,
    transports: Any = None,
    *,
    headers: Any = None,
    path: str = "socket.io",
    timeout: float = 5.0,
    try_all: bool = False,
    options: Optional[HttpOptions] = None,
    **settings: Any,
) -> EngineIO:
    """Open a session and do not start it."""
    target = Target(url, headers or {}, path, (transports,) if isinstance(transports, str) else transports)
    return EngineOpener(options or HttpOptions(**settings), try_all).open(target, Deadline(scaled(timeout)))


@contextlib.contextmanager
def running(url: str, transports: Any = None, **options: Any) -> Iterator[Collector]:
    """Open and start a session, and abort it at the end if it is not over."""
    collector = Collector(open_session(url, transports, **options))
    try:
        yield collector
    finally:
        collector.session.abort()
        collector.wait_closed()
