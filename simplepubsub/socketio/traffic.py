"""What comes in and goes out during one run: namespaces, events, acks, and what waits for a connection.

Everything here is done with the manager's lock held (methods whose names end in ``_locked``), or takes it (the rest,
called by sessions). Nothing blocks: sessions and the delegate only queue. So the records of the delegate, what goes out
and the state all have the same order.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..core.deadline import Deadline
from ..exceptions import InboxOverflow, RemoteProtocolError
from .acks import Request
from .exceptions import AckLost, DisconnectedError
from .link import Link, Space, Stage
from .outgoing import Outgoing
from .packet import Packet, PacketType
from .recovery import Memory
from .seams import Connected, Delegate, Disconnected, Event, Refused
from .settings import Options

__all__ = ["CLIENT", "SERVER", "Traffic"]

log = logging.getLogger("simplepubsub.socketio")

#: The reasons after which the client does not come back.
CLIENT, SERVER, OVERFLOW = "client disconnect", "server disconnect", "inbox overflow"

#: Looked up once for each event otherwise.
_EVENT, _JOINED = PacketType.EVENT, Stage.JOINED

#: Events that a server may send to a namespace before it says that it is connected.
MAX_EARLY = 100000


class Traffic(Outgoing):
    """The part of a run that handles packets.

    ``on_change`` tells the run of changes, ``on_complete(link)`` that the last namespace of an attempt is connected,
    and ``on_final(reason, error)`` that a connection ended that was in use and that no other follows; they are called
    with the lock held. ``returns`` says whether the client comes back after the loss of a connection; the run keeps it
    up to date.
    """

    def __init__(
        self,
        lock: threading.Lock,
        delegate: Delegate,
        serializer: Any,
        options: Options,
        auth: Dict[str, Any],
        on_change: Callable[[], None],
        on_complete: Callable[[Link], None],
        on_final: Callable[[str, Optional[BaseException]], None],
    ) -> None:
        super().__init__(delegate, options, on_change)
        self._lock = lock
        self._on_complete = on_complete
        self._on_final = on_final
        self._serializer = serializer
        self.wanted: Dict[str, Any] = dict(auth)  # namespaces in their order, with their auth
        self.returns = True
        self._memories: Dict[str, Memory] = {}

    # --- connections --------------------------------------------------------------------------------------------------

    def begin_locked(self, link: Link, auth: Dict[str, Any]) -> None:
        """Take a new connection into use, and ask for the namespaces of ``auth`` on it."""
        self.link = link
        for namespace, value in auth.items():
            if namespace in self.wanted:
                link.phase.add(namespace)
                self.ask_locked(namespace, value)

    def ask_locked(self, namespace: str, auth: Any) -> None:
        """Send CONNECT. Raises InvalidArgument if ``auth`` cannot be sent."""
        link = self.link
        assert link is not None
        data = self._memory_locked(namespace).connect_data(auth)
        group = self._serializer.encode(Packet(PacketType.CONNECT, namespace, {} if data is None else data))
        link.session.send(group)
        link.spaces[namespace] = Space()
        link.refused.pop(namespace, None)

    def _memory_locked(self, namespace: str) -> Memory:
        memory = self._memories.get(namespace)
        if memory is None:
            memory = self._memories[namespace] = Memory(self._options.strip_offset)
        return memory

    def join_locked(self, namespace: str, auth: Any, value: Any) -> None:
        """Want ``namespace`` from now on; ``value`` is what its ``auth`` is at the moment."""
        if namespace in self.wanted:
            return
        link = self.link
        space = None if link is None else link.spaces.get(namespace)
        if space is not None:  # it was asked for and given up: the answer to that counts
            space.stage = Stage.ASKED
        elif link is not None:
            self.ask_locked(namespace, value)
        self.wanted[namespace] = auth

    def link_ended(self, link: Link, reason: str, error: Optional[BaseException]) -> None:
        """The session of ``link`` is over (called by it)."""
        with self._lock:
            self.drop_locked(link, reason, error)

    def drop_locked(self, link: Link, reason: str, error: Optional[BaseException]) -> None:
        """Stop using ``link``, for the first reason that is given."""
        if link.ended is not None:
            return
        link.end(reason, error)
        if self.link is link:
            self.link = None
        final = not self.returns
        records: List[Any] = []
        for namespace, space in link.spaces.items():
            joined = space.stage is Stage.JOINED
            records += self._void_locked(namespace, space, reason, final)
            if joined:
                records.append(Disconnected(namespace, reason, None, final))
        self._deliver_locked(records)
        self._on_change()
        if final and link.complete:
            self._on_final(reason, error)

    def _void_locked(self, namespace: str, space: Space, reason: str, final: bool) -> List[Any]:
        """Nothing more comes from a namespace: its acks will never arrive."""
        records: List[Any] = []
        acks, space.acks = space.acks, {}
        queue = self._queues.get(namespace)
        gone = queue.missed() if queue is not None else None
        for request in acks.values():
            if request.retries and request is not gone:
                request.when = None  # to be tried again on the next connection
                continue
            records += request.settle(AckLost(_LOST % (namespace, reason), final=final, reason=reason), [])
        return records

    def finish_locked(self, reason: str) -> List[Any]:
        """Give up everything that waits; return the records about it. Nothing is delivered after this."""
        self.over = True
        waiting = self._buffer.take()
        for queue in self._queues.values():
            waiting += queue.take()
        return self._give_up_locked(waiting, reason)

    def _give_up_locked(self, requests: Sequence[Request], reason: str) -> List[Any]:
        records: List[Any] = []
        for request in requests:
            what = "the answer" if request.tries else "it was sent"
            text = "the connection has ended for good (%s), before %s" % (reason, what)
            records += request.settle(DisconnectedError(text, reason=reason), [])
        return records

    # --- packets in ---------------------------------------------------------------------------------------------------

    def received(self, link: Link, packets: Sequence[Packet], error: Optional[RemoteProtocolError]) -> None:
        """Handle a batch, in the reader's thread; ``error`` is what is wrong with what follows it."""
        with self._lock:
            if link is not self.link:
                return
            records: List[Any] = []
            fewer = False  # namespaces
            memories = self._memories
            for packet in packets:
                space = link.spaces.get(packet.namespace)
                if space is None:
                    log.debug("a packet for %s, which is not connected, is ignored", packet.namespace)
                    continue
                kind = packet.type
                if kind == _EVENT:
                    event = Event(packet.namespace, packet.data, packet.id, link)
                    if space.stage is _JOINED:
                        if memories[packet.namespace].pid is not None:
                            self._accept_locked(event)
                        records.append(event)
                    elif space.stage is Stage.ASKED:
                        space.early.append(event)
                        if len(space.early) > MAX_EARLY:
                            error = RemoteProtocolError("too many events before the namespace is connected")
                            break
                elif kind == PacketType.ACK:
                    records += self._acked_locked(link, space, packet)
                elif kind == PacketType.CONNECT:
                    records += self._connected_locked(link, space, packet)
                elif kind == PacketType.CONNECT_ERROR:
                    records += self._refused_locked(link, space, packet.namespace, packet.data)
                    fewer = True
                elif kind == PacketType.DISCONNECT:
                    records += self._kicked_locked(link, space, packet)
                    fewer = True
            waiting = self._delegate.backlog if records else 0
            self._deliver_locked(records)
            if error is not None:
                log.warning("the server broke the protocol: %s", error)
                self.drop_locked(link, "parse error", error)
            elif fewer and link.complete and link.deserted:
                self.returns = False
                self.drop_locked(link, SERVER, None)
            elif waiting >= 2 * self._options.max_inbox:  # before this batch, which may be large by itself
                self._overflow_locked(link, waiting)

    @property
    def full(self) -> bool:
        """Whether so many events wait that the reader should take its time."""
        return self._delegate.backlog >= self._options.max_inbox

    def _overflow_locked(self, link: Link, waiting: int) -> None:
        """End the run: a server must not fill the memory."""
        error = InboxOverflow(
            "%d events wait and nobody takes them: receive or handle them faster, or raise max_inbox (now %d)"
            % (waiting, self._options.max_inbox)
        )
        log.error("the connection ends: %s", error)
        self.returns = False
        link.farewell = link.joined_names()
        self.drop_locked(link, OVERFLOW, error)
        self._on_final(OVERFLOW, error)

    def _accept_locked(self, event: Event) -> None:
        if event.id is None:
            self._memory_locked(event.namespace).accept(event.args)

    def _acked_locked(self, link: Link, space: Space, packet: Packet) -> List[Any]:
        request = space.acks.pop(packet.id, None)  # type: ignore[arg-type]  # the decoder lets no ACK without id through
        if request is None:
            log.debug("an ack that nobody waits for any more, on %s", packet.namespace)
            return []
        records: List[Any] = list(request.settle(None, packet.data))
        if request.retries:
            queue = self._queues[packet.namespace]
            queue.ended(request)
            records += self._advance_locked(link, space, packet.namespace)
        return records

    def _connected_locked(self, link: Link, space: Space, packet: Packet) -> List[Any]:
        namespace, data = packet.namespace, packet.data
        if space.stage is Stage.ABANDONED:
            del link.spaces[namespace]
            self._say_locked(link, namespace)
            return []
        if space.stage is Stage.JOINED:
            return []
        sid = data.get("sid") if isinstance(data, dict) else None
        if not isinstance(sid, str):
            text = "the server speaks an old protocol (Socket.IO 2): it connects without a session id"
            return self._refused_locked(link, space, namespace, text)
        space.stage, space.sid = Stage.JOINED, sid
        space.recovered = self._memory_locked(namespace).connected(data.get("pid"))
        early, space.early = space.early, []
        records: List[Any] = []
        for event in early:
            self._accept_locked(event)
            records.append(event)
        for request in self._buffer.take(namespace):
            records += self._transmit_locked(link, space, request)
        records += self._advance_locked(link, space, namespace)
        records.append(Connected(namespace, sid, space.recovered))
        if not (link.complete or link.refused or link.asked()):
            self._on_complete(link)
        self._on_change()
        return records

    def _refused_locked(self, link: Link, space: Space, namespace: str, data: Any) -> List[Any]:
        if space.stage is Stage.JOINED:
            log.debug("%s is refused, and connected: ignored", namespace)
            return []
        abandoned = space.stage is Stage.ABANDONED
        del link.spaces[namespace]
        self._on_change()
        if abandoned:
            return []
        link.refused[namespace] = data
        return [Refused(namespace, data)]

    def _kicked_locked(self, link: Link, space: Space, packet: Packet) -> List[Any]:
        namespace = packet.namespace
        if space.stage is not Stage.JOINED:
            return self._refused_locked(link, space, namespace, packet.data)
        del link.spaces[namespace]
        link.refused[namespace] = packet.data  # counts while the connection is being made
        records = self._forget_locked(namespace, space, SERVER)
        records.append(Disconnected(namespace, SERVER, packet.data, True))
        self._on_change()
        return records

    def _forget_locked(self, namespace: str, space: Optional[Space], reason: str) -> List[Any]:
        """``namespace`` is not wanted any more; return the records about what waited for it."""
        self.wanted.pop(namespace, None)
        self._memories.pop(namespace, None)
        records = [] if space is None else self._void_locked(namespace, space, reason, True)
        waiting = self._buffer.take(namespace)
        queue = self._queues.pop(namespace, None)
        if queue is not None:
            waiting += queue.take()
        return records + self._give_up_locked(waiting, reason)

    # --- packets out --------------------------------------------------------------------------------------------------

    def _say_locked(self, link: Link, namespace: str) -> None:
        """Send DISCONNECT."""
        link.session.send(self._serializer.encode(Packet(PacketType.DISCONNECT, namespace)))

    def answer_locked(self, event: Event, group: Sequence[Any]) -> bool:
        """Send an encoded ACK, if the connection that ``event`` came by still stands, once."""
        link = self.link
        if link is None or event.link is not link or link.joined(event.namespace) is None:
            return False
        if event.answered:
            return False
        link.session.send(group)
        link.unheard = True
        event.answered = True
        return True

    def leave_locked(self, namespace: str, reason: str = CLIENT) -> None:
        """Leave one namespace."""
        link = self.link
        space = None if link is None else link.spaces.get(namespace)
        records: List[Any] = []
        if link is not None and space is not None:
            joined = space.stage is Stage.JOINED
            if joined:
                self._say_locked(link, namespace)
                del link.spaces[namespace]
            else:
                space.stage = Stage.ABANDONED  # DISCONNECT would be an error now: it follows the answer
                space.early = []
            records = self._forget_locked(namespace, space, reason)
            if joined:
                records.append(Disconnected(namespace, reason, None, True))
        else:
            records = self._forget_locked(namespace, None, reason)
        self._deliver_locked(records)
        self._on_change()

    def farewell(self, link: Link, deadline: Deadline) -> None:
        """Tell the server which namespaces are left on a connection that is out of use, after what was emitted."""
        if link.farewell:
            link.settle(deadline)
            with self._lock:
                for namespace in link.farewell:
                    self._say_locked(link, namespace)
                link.farewell = []

    def goodbye_locked(self) -> Optional[Link]:
        """Stop using the connection, if there is one, and return it; `farewell` is to follow."""
        link = self.link
        if link is None:
            return None
        link.farewell = link.joined_names()
        self.drop_locked(link, CLIENT, None)
        return link


_LOST = "no answer will come from %s: the connection was lost (%s) after the event was sent"
