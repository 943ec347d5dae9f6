"""What the Web PubSub face adds to the engine: invocations, published streams, received streams.

This module only distributes: each of the three keeps its own state, and says in its docstring who guards it.
"""

from __future__ import annotations

from typing import Any, List, Optional

from ..core.conversations import Conversations
from ..core.engine import Engine
from .invocations import Invocations
from .messages import InvokeResponse
from .protocol import WebPubSubProtocol
from .stream_inbox import StreamInbox
from .streams import Publisher

__all__ = ["WebPubSubConversations"]


class WebPubSubConversations(Conversations):
    """See `simplepubsub.core.conversations` for when the engine calls what."""

    def __init__(self, engine: Engine, protocol: WebPubSubProtocol) -> None:
        self.engine = engine
        options = engine.options
        self.invocations = Invocations(engine, protocol, options.max_outbox_bytes)
        self.publisher = Publisher(engine, protocol)
        self.inbox = StreamInbox(engine, options.max_inbox)
        engine.conversations = self

    def received_locked(self, replies: List[Any], now: float) -> None:
        for reply in replies:
            if type(reply) is InvokeResponse:
                self.invocations.received_locked(reply)
            else:
                self.publisher.received_locked(reply, now)

    def link_lost_locked(self) -> None:
        self.invocations.link_lost_locked()
        self.publisher.link_lost_locked()

    def session_lost_locked(self) -> None:
        self.publisher.session_lost_locked()
        self.inbox.session_lost_locked()

    def recovered_locked(self) -> None:
        self.publisher.resumed_locked()
        self.invocations.resumed_locked()

    begun_locked = recovered_locked

    def stopped_locked(self) -> None:
        self.invocations.stopped_locked()
        self.publisher.stopped_locked()
        self.inbox.stopped_locked()

    def due_locked(self, now: float) -> None:
        self.publisher.due_locked(now)

    def next_deadline_locked(self) -> Optional[float]:
        return self.publisher.next_deadline_locked()

    def waiting_locked(self) -> bool:
        return self.invocations.waiting_locked() or self.publisher.waiting_locked()

    def settle(self) -> None:
        self.invocations.settle()
