"""The seams of the Socket.IO client: what carries it, and what it tells.

Below it is a `Session` (one Engine.IO session, never used twice), made by an `Opener`. Above it is a `Delegate`, which
gets one stream of records in the order in which things happened, and runs the user's handlers from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from ..core.deadline import Deadline

__all__ = [
    "Answer",
    "Connected",
    "Delegate",
    "Disconnected",
    "Event",
    "Finished",
    "Lifecycle",
    "Message",
    "Opener",
    "Refused",
    "Session",
    "Target",
]

#: One Engine.IO message: text without its type digit, or bytes.
Message = Union[str, bytes]

# --- below ------------------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """Where one attempt goes. The callables of the user are evaluated already; nobody changes the headers."""

    url: str
    headers: Mapping[str, str] = {}
    path: str = "socket.io"
    transports: Optional[Tuple[str, ...]] = None


class Session(ABC):
    """One Engine.IO session; it ends once and for all.

    Its callbacks are made without a lock of its own held, and never from inside `send`.
    """

    sid: str
    transport: str  # "polling" or "websocket", the one in use now

    @abstractmethod
    def start(
        self, on_messages: Callable[[List[Message]], None], on_closed: Callable[[str, Optional[BaseException]], None]
    ) -> None:
        """Begin to read and write.

        ``on_messages`` gets each batch in order in the reader's thread. ``on_closed(reason, error)`` comes exactly
        once, after the last batch, also after `close` and `abort`; the reasons are those of the protocol reference,
        section 3.5: "transport close", "transport error", "ping timeout", "parse error", or "client disconnect".
        """

    @abstractmethod
    def send(self, group: Sequence[Message]) -> None:
        """Queue a packet with its attachments, as one piece; never blocks. Any thread; the caller may hold a lock.

        Does nothing after the end. Raises MessageTooLarge, and has queued nothing then.
        """

    @property
    @abstractmethod
    def writable(self) -> bool:
        """Whether something sent now would leave at once: nothing is queued or in flight, and the peer was heard."""

    @property
    @abstractmethod
    def queued_bytes(self) -> int:
        """What is queued and not written yet."""

    @abstractmethod
    def wait_room(self, deadline: Deadline) -> bool:
        """Wait until the queue is short, or the session ended; return False when ``deadline`` came first."""

    @abstractmethod
    def flush(self, deadline: Deadline) -> bool:
        """Wait until everything queued is written (for polling: answered); return whether it is."""

    def drain(self, deadline: Deadline) -> bool:
        """Wait until the server has handled what was sent so far, as far as the transport can tell."""
        return self.flush(deadline)

    @abstractmethod
    def close(self, deadline: Deadline) -> None:
        """Write what is queued, leave politely, and end the threads; all of it until ``deadline``."""

    @abstractmethod
    def abort(self) -> None:
        """End at once. Any thread, any number of times, never blocks."""


class Opener(ABC):
    """One attempt to open a session; made anew for each."""

    @abstractmethod
    def open(self, target: Target, deadline: Deadline) -> Session:
        """Return a session that is open and not started.

        Raises ConnectError (its kinds; ``payload``, if it has one, is the decoded body of an HTTP error), and
        ValueError for a bad URL.
        """

    @abstractmethod
    def abort(self) -> None:
        """Make `open` raise soon. Any thread, any number of times, before or after it too."""


# --- above ------------------------------------------------------------------------------------------------------------


class Event:
    """The server emitted ``args[0]`` with ``args[1:]``. ``id`` is not None if the server wants an answer.

    Pass the whole record to `Manager.answer`; ``link`` says which connection the answer belongs to.
    """

    __slots__ = ("answered", "args", "id", "link", "namespace")

    def __init__(self, namespace: str, args: List[Any], id: Optional[int], link: Any) -> None:
        self.namespace = namespace
        self.args = args
        self.id = id
        self.link = link
        self.answered = False


class Connected(NamedTuple):
    """A namespace is connected; emits go to it from now on."""

    namespace: str
    sid: str
    recovered: bool


class Refused(NamedTuple):
    """A namespace was refused, or the connection for it could not be made; ``data`` is for ``connect_error``."""

    namespace: str
    data: Any


class Disconnected(NamedTuple):
    """A namespace that was connected is not any more.

    ``data`` is what the server sent along, None as a rule; ``final`` says that the client will not try to come back.
    """

    namespace: str
    reason: str
    data: Any
    final: bool


class Answer(NamedTuple):
    """Call ``callback(error, values)``: an ack arrived (error None), or never will."""

    callback: Callable[[Optional[BaseException], List[Any]], Any]
    error: Optional[BaseException]
    values: List[Any]


class Lifecycle(NamedTuple):
    """About reconnection: "reconnect_attempt" (number), "reconnect_error" (error), "reconnect" (number of attempts it
    took), "reconnect_failed" ()."""

    name: str
    args: Tuple[Any, ...]


class Finished(NamedTuple):
    """The last record of a run: nothing comes before the next `Delegate.started`. ``error`` is why, if anything."""

    reason: str
    error: Optional[BaseException]


class Delegate(ABC):
    """What the manager reports to.

    `started` and `deliver` are called with the manager's lock held, from several threads: they queue and return, take
    no lock but a leaf, and call nothing of the user and of the manager.
    """

    @abstractmethod
    def started(self) -> None:
        """A run begins; records follow, the last is a `Finished`. The run before may not be handled yet."""

    @abstractmethod
    def deliver(self, records: Sequence[Any]) -> None:
        """Queue records in this order."""

    @property
    def backlog(self) -> int:
        """How many events wait to be handled; of any thread, roughly."""
        return 0

    @abstractmethod
    def settle(self, deadline: Deadline) -> bool:
        """Wait until what was delivered so far is handled, and after a `Finished` its thread has ended.

        Called without the manager's lock. Returns at once in a thread that runs handlers.
        """
