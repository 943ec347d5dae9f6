"""The Web PubSub client: blocking, thread-safe, and still there after the network was not.

A thin face over `simplepubsub.core.engine.Engine`: it checks and encodes arguments, and gives names to what the engine
does.
"""

from __future__ import annotations

import logging
import ssl as ssl_module
from html import escape
from typing import Any, Callable, Dict, Iterator, Optional, Tuple, Union

from .. import version
from ..core.backoff import RetryPolicy
from ..core.deadline import Deadline, check_timeout
from ..core.engine import Engine, Options
from ..core.records import Gap
from ..core.session import Entry
from ..core.states import State
from ..exceptions import (
    AckTimeout,
    ClientStopped,
    DeliveryUncertain,
    FlushTimeout,
    InvalidArgument,
    MessagesLost,
    OutboxFull,
    ReceiveTimeout,
)
from ..transports.dial import Headers, WebSocketDial, check_proxy
from . import options as flat_options
from .card import html_card
from .conversations import WebPubSubConversations
from .conversing import Conversing
from .credentials import Credential, as_credential
from .messages import Message
from .protocol import protocol_named
from .sending import Sending
from .trace import make_trace

__all__ = ["EVENTS", "WebPubSubClient"]

#: What `WebPubSubClient.on` accepts.
EVENTS = (
    "connected",
    "recovered",
    "disconnected",
    "stopped",
    "server-message",
    "group-message",
    "rejoin-group-failed",
    "gap",
    "error",
)

# Failures that sending again cannot cure, or that leave open whether the message was delivered.
_NOT_RETRIED = (AckTimeout, DeliveryUncertain, OutboxFull)
_FINAL_NAMES = ("Forbidden", "BadRequest", "NotFound")

Encoder = Callable[[Optional[int]], Entry]
Listener = Callable[..., Any]


class WebPubSubClient(Sending, Conversing):
    """A client of Azure Web PubSub, or of `simplepubsub.server.Server`.

    Connect with ``with WebPubSubClient(url) as client:`` or ``client.start()``. Every method is safe from any thread,
    listeners included. Every blocking method takes ``timeout`` in seconds and wakes with `ClientStopped` when another
    thread calls ``stop()``. Lost connections come back by themselves; a session that the service still has continues
    without loss, repetition or reordering, and one that it has dropped shows as a gap.

    Args:
        credential: a client access URL, a callable that returns a fresh one (asked for every new connection), or a
            `WebPubSubClientCredential`.
        protocol: "json.reliable" (default), "json", or with the extra ``[protobuf]`` "protobuf.reliable" or "protobuf",
            or the full name of the subprotocol. Protobuf has no invocations and does not name the publisher.
        auto_reconnect: make a new connection when the old session cannot be recovered.
        auto_rejoin_groups: rejoin on a new connection what `join_group` joined.
        replay_unacked: send again on a new connection what the lost one did not acknowledge (at least once); False
            fails those sends with `DeliveryUncertain`.
        message_retry: how often a blocking send that the service refused is tried again, under the same ack id.
        reconnect_retry: when to try a new connection; the first attempt is made at once, by default without end.
        start_timeout: limit for ``start()`` and for each later attempt, in seconds; None = no limit.
        ack_timeout: limit for a blocking send with ``timeout=None``, retries included.
        close_timeout: limit for ``stop()`` with ``timeout=None``, and for the flush at the end of a ``with`` block.
        ping_interval: seconds between pings; None = none.
        idle_timeout: seconds of silence after which a connection is taken for dead; None = never.
        max_inbox: received messages that may wait before reading pauses; at twice that the client stops with
            `InboxOverflow`.
        max_outbox_bytes: bytes that may be unsent or unacknowledged; then a blocking send waits, ``*_nowait`` raises.
        gaps: "flag" marks the first message after a gap (`Message.after_gap`); "raise" makes `receive` raise
            `MessagesLost` once per gap as well.
        ssl: an ``ssl.SSLContext`` for wss; None = the system's certificates.
        proxy: None = from the environment, False = none, or a URL (``http://``, ``socks5://`` with the socks extra).
        headers: extra handshake headers.
        logger: True logs everything, frames included, to standard error with secrets masked.
        compatibility: the flat keywords of the official SDK (``reconnect_retry_total``, ``protocol_type``, ...).

    Raises:
        InvalidArgument: an argument is not acceptable; the message says what is.
    """

    def __init__(
        self,
        credential: Credential,
        *,
        protocol: Any = "json.reliable",
        auto_reconnect: bool = True,
        auto_rejoin_groups: bool = True,
        replay_unacked: bool = True,
        message_retry: RetryPolicy = RetryPolicy(total=3),
        reconnect_retry: RetryPolicy = RetryPolicy(total=None),
        start_timeout: Optional[float] = 30.0,
        ack_timeout: Optional[float] = 30.0,
        close_timeout: Optional[float] = 5.0,
        ping_interval: Optional[float] = 20.0,
        idle_timeout: Optional[float] = 60.0,
        max_inbox: int = 10_000,
        max_outbox_bytes: int = 8 * 2**20,
        gaps: str = "flag",
        ssl: Optional[ssl_module.SSLContext] = None,
        proxy: Union[str, bool, None] = None,
        headers: Headers = None,
        logger: bool = False,
        **compatibility: Any,
    ) -> None:
        flat = flat_options.translate(compatibility, message_retry, reconnect_retry, protocol, auto_reconnect, logger)
        flat_options.check(
            {
                "start_timeout": start_timeout,
                "ack_timeout": ack_timeout,
                "close_timeout": close_timeout,
                "ping_interval": ping_interval,
                "idle_timeout": idle_timeout,
            },
            max_inbox,
            max_outbox_bytes,
            gaps,
            ssl,
        )
        check_proxy(proxy)
        self._credential = as_credential(credential)
        self._message_retry = flat.message_retry
        self._ack_timeout = ack_timeout
        self._close_timeout = close_timeout
        wire = protocol_named(flat.protocol)
        agent = (flat.user_agent + " " if flat.user_agent else "") + "simplepubsub/" + version.__version__

        def dial() -> WebSocketDial:
            return WebSocketDial(
                subprotocols=wire.subprotocols,
                ssl=ssl,
                proxy=proxy,
                headers=headers,
                user_agent=agent,
                max_size=MAX_INBOUND,
            )

        self._protocol = wire
        self._engine = Engine(
            wire,
            dial,
            self._credential.get_client_access_url,
            EVENTS,
            Options(
                auto_reconnect=flat.auto_reconnect,
                auto_restore=auto_rejoin_groups,
                replay_unacked=replay_unacked,
                reconnect_retry=flat.reconnect_retry,
                start_timeout=start_timeout,
                ping_interval=ping_interval,
                idle_timeout=idle_timeout,
                max_inbox=max_inbox,
                max_outbox_bytes=max_outbox_bytes,
                raise_gaps=gaps == "raise",
            ),
            owner=self,
        )
        self._sender = self._engine.sender
        self._conversations = WebPubSubConversations(self._engine, wire)
        self._engine.trace = make_trace(flat.logger)

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self, timeout: Optional[float] = None) -> None:
        """Connect, and return when the service has accepted the connection.

        The first attempt decides: it is not repeated. ``timeout`` None means ``start_timeout``. A stopped client can be
        started again; it rejoins its groups. Safe from any thread.

        Raises: ConnectError (its kinds say which step failed), ClientStopped (another thread called ``stop()``),
        ClientStateError (already started), ForkedError, InvalidArgument.
        """
        check_timeout(timeout)
        self._engine.start(self._engine.options.start_timeout if timeout is None else timeout)

    def stop(self, timeout: Optional[float] = None) -> None:
        """Write what is queued, close the connection, and end every thread of the client.

        Bounded by ``timeout`` (None means ``close_timeout``) whatever the network does. Sends without an answer fail
        with ClientStopped; messages already received stay readable. Does nothing on a stopped client. Safe from any
        thread, listeners included. Raises: ForkedError, InvalidArgument.
        """
        check_timeout(timeout)
        self._engine.stop(self._close_timeout if timeout is None else timeout)

    open = start
    close = stop

    def __enter__(self) -> WebPubSubClient:
        self.start()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """Wait up to ``close_timeout`` for outstanding acknowledgements, then stop; what was left is logged.

        After an exception nothing is waited for. In a forked child there is nothing to leave.
        """
        if self._engine.forked:
            return
        deadline = Deadline(self._close_timeout)
        try:
            if kind is None:
                self._sender.flush(deadline.remaining())
        except FlushTimeout as timeout:
            _log.warning("%r: leaving the with block with %d sends unacknowledged", self, timeout.unacked)
        except ClientStopped:
            pass  # stopped inside the block; who waited for a send has been told
        except BaseException:  # Ctrl-C: whoever presses it has waited long enough
            self._engine.stop(0.0)
            raise
        self._engine.stop(deadline.remaining())

    # --- receiving ----------------------------------------------------------------------------------------------------

    def receive(self, timeout: Optional[float] = None) -> Message:
        """Return the next message, waiting up to ``timeout`` seconds (None = no limit, 0 = do not wait).

        Messages whose event has a listener go there instead. Waits through reconnects. After ``stop()`` what was
        received before is still returned, then ClientStopped is raised. Safe from any thread; each message goes to one
        caller.

        Raises: ReceiveTimeout (a builtin TimeoutError too), ClientStopped, MessagesLost (with ``gaps="raise"``),
        ForkedError, InvalidArgument.
        """
        engine = self._engine
        if engine.forked:
            engine.check()
        item = engine.inbox.get(timeout)
        if type(item) is Gap:
            raise MessagesLost(
                "the session %s could not be recovered: messages after number %d may be lost"
                % (item.old_connection_id, item.last_sequence_id),
                gap=item,
            )
        return item  # type: ignore[no-any-return]

    def messages(self, timeout: Optional[float] = None, max_messages: Optional[int] = None) -> Iterator[Message]:
        """Yield messages until none comes for ``timeout`` seconds, ``max_messages`` were yielded, or ``stop()`` is
        called.

        Raises: what `receive` raises, but a timeout and a plain stop just end the iteration; ClientStopped when the
        client gave up by itself.
        """
        check_timeout(timeout)
        if max_messages is not None and not (type(max_messages) is int and max_messages >= 0):
            raise InvalidArgument("max_messages must be None or an integer >= 0, not %r" % (max_messages,))
        return self._messages(timeout, max_messages)

    def _messages(self, timeout: Optional[float], max_messages: Optional[int]) -> Iterator[Message]:
        left = max_messages
        while left is None or left > 0:
            try:
                message = self.receive(timeout)
            except ReceiveTimeout:
                return
            except ClientStopped as stopped:
                if stopped.__cause__ is not None:
                    raise
                return
            yield message
            if left is not None:
                left -= 1

    def __iter__(self) -> Iterator[Message]:
        return self.messages()

    def on(self, event: str, listener: Optional[Listener] = None) -> Any:
        """Call ``listener`` for every ``event``; without a listener, return a decorator.

        Events: connected, recovered, disconnected, stopped, server-message, group-message, rejoin-group-failed, gap,
        error.
        A listener takes the event or nothing; one thread calls all of them in order. Safe from any thread.
        Raises: InvalidArgument (unknown event, not callable), ForkedError.
        """
        self._engine.check()
        name = str(getattr(event, "value", event))
        if listener is None:
            self._engine.listeners.check_event(name)  # here, not only where the decorator is applied

            def decorate(function: Listener) -> Listener:
                self._engine.listeners.add(name, function)
                return function

            return decorate
        self._engine.listeners.add(name, listener)
        return listener

    def off(self, event: str, listener: Listener) -> None:
        """Stop calling ``listener`` for ``event``. Raises: InvalidArgument when it is not registered, ForkedError."""
        self._engine.check()
        self._engine.listeners.remove(str(getattr(event, "value", event)), listener)

    subscribe = on
    unsubscribe = off

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The connection state; equal to "stopped", "connecting", "connected", "recovering" or "disconnected"."""
        return self._engine.state

    def is_connected(self) -> bool:
        """Return whether the service has accepted the present connection; False in a forked child."""
        return self._engine.state is State.CONNECTED and not self._engine.forked

    @property
    def connection_id(self) -> Optional[str]:
        """The id that the service gave this session, None while there is none."""
        return self._engine.connection_id

    @property
    def user_id(self) -> Optional[str]:
        """The user id in the token, None for an anonymous user or before the first connection."""
        return self._engine.user_id

    @property
    def groups(self) -> Tuple[str, ...]:
        """The groups that this client joined, in order. Raises: ForkedError."""
        self._engine.check()
        with self._engine.mutex:
            return tuple(self._engine.session.restore)

    @property
    def latency(self) -> Optional[float]:
        """Seconds between the last ping and its answer, None before the first."""
        connection = self._engine.connection
        return None if connection is None else connection.timers.latency

    def stats(self) -> Dict[str, int]:
        """Return counters since the client was made, and the present depth of inbox and outbox. Raises: ForkedError."""
        return self._engine.stats()

    def __repr__(self) -> str:
        if self._engine.forked:
            return "<WebPubSubClient of the parent process>"
        stats = self._engine.stats()
        return "<WebPubSubClient %s %s connection_id=%r user_id=%r groups=%d inbox=%d unacked=%d>" % (
            self._engine.state,
            self._protocol.name,
            self._engine.connection_id,
            self._engine.user_id,
            len(self.groups),
            stats["inbox"],
            stats["unacked"],
        )

    def _repr_html_(self) -> str:
        if self._engine.forked:
            return escape(repr(self))
        return html_card(self._protocol.name, self)


_log = logging.getLogger("simplepubsub.client")

#: Largest inbound message in bytes: the service's limit, with room for the envelope and for base64.
MAX_INBOUND = 4 * 2**20
