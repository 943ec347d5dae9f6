"""One connection: an Engine.IO session, its decoder, and the namespaces on it."""

from __future__ import annotations

import enum
import threading
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set, Tuple

from ..core.deadline import Deadline
from ..exceptions import RemoteProtocolError
from .acks import Request
from .seams import Event, Message, Session

if TYPE_CHECKING:
    from .traffic import Traffic

__all__ = ["Link", "Space", "Stage"]


#: How long a server may take to say that it has read everything (seconds), once all of it is written.
DRAIN_LIMIT = 1.0

#: While too many events wait, the reader rests after each batch, so that the network holds a burst back: for so long at
#: most for each packet (seconds), because behind them there may be a ping, and in steps of so long.
REST, REST_STEP = 0.00005, 0.005


class Stage(enum.Enum):
    """How far a namespace is on its connection."""

    ASKED = "asked"  # CONNECT is sent
    JOINED = "joined"
    ABANDONED = "abandoned"  # nobody waits for the answer to CONNECT any more


class Space:
    """A namespace on one connection; guarded by the manager's lock."""

    __slots__ = ("acks", "early", "recovered", "sid", "stage")

    def __init__(self) -> None:
        self.stage = Stage.ASKED
        self.sid = ""
        self.recovered = False
        self.early: List[Event] = []  # events that came before the answer to CONNECT
        self.acks: Dict[int, Request] = {}


class Link:
    """A session and what is on it. Nothing of it outlives it: a new connection is a new link."""

    def __init__(self, session: Session, decoder: Any, traffic: Traffic) -> None:
        self.session = session
        self._decoder = decoder  # the reader's
        self._traffic = traffic
        self._over = threading.Event()
        # Guarded by the manager's lock:
        self.spaces: Dict[str, Space] = {}
        self.phase: Set[str] = set()  # the namespaces of the attempt that made this link
        self.refused: Dict[str, Any] = {}
        self.unheard = False  # events were sent that the server may not have handled yet
        self.farewell: List[str] = []  # namespaces that the server is still to be told about
        self.complete = False  # every namespace of the phase is answered, and enough of them are connected
        self.ended: Optional[Tuple[str, Optional[BaseException]]] = None  # the first cause counts

    def end(self, reason: str, error: Optional[BaseException]) -> None:
        """Note why the link is not used any more."""
        self.ended = (reason, error)
        self._over.set()

    def joined(self, namespace: str) -> Optional[Space]:
        """Return the namespace if it is connected here."""
        space = self.spaces.get(namespace)
        return space if space is not None and space.stage is Stage.JOINED else None

    def joined_names(self) -> List[str]:
        """Return the namespaces that are connected."""
        return [name for name, space in self.spaces.items() if space.stage is Stage.JOINED]

    def asked(self) -> List[str]:
        """Return the namespaces of the first attempt that are not answered yet."""
        return [n for n, space in self.spaces.items() if space.stage is Stage.ASKED and n in self.phase]

    @property
    def deserted(self) -> bool:
        """Whether no namespace is left that is connected or about to be."""
        return all(space.stage is Stage.ABANDONED for space in self.spaces.values())

    def settle(self, deadline: Deadline) -> None:
        """Wait until the server has handled the events that were sent, for a moment at most; without the lock.

        A Node server handles an event one turn later than it reads it, and DISCONNECT at once: it would drop the events
        that it reads together with it.
        """
        if self.unheard:
            self.unheard = False
            self.session.flush(deadline)
            left = deadline.remaining()
            self.session.drain(Deadline(DRAIN_LIMIT if left is None else min(left, DRAIN_LIMIT)))

    # --- the session's callbacks --------------------------------------------------------------------------------------

    def on_messages(self, messages: List[Message]) -> None:
        """Decode a batch and hand it on."""
        packets, error = [], None
        feed = self._decoder.feed
        try:
            for message in messages:
                packet = feed(message)
                if packet is not None:
                    packets.append(packet)
        except RemoteProtocolError as broken:
            error = broken
        except Exception as broken:  # noqa: BLE001  # a serializer of the user's own may raise anything
            error = RemoteProtocolError("the serializer failed on a packet: %s" % type(broken).__name__)
            error.__cause__ = broken
        self._traffic.received(self, packets, error)
        if self._traffic.full:
            rest = Deadline(REST * len(packets))
            while not self._over.wait(REST_STEP) and self._traffic.full and not rest.expired():
                pass

    def on_closed(self, reason: str, error: Optional[BaseException]) -> None:
        """Note the end of the session."""
        self._traffic.link_ended(self, reason, error)
