"""The sending half of the client: check, encode, submit, wait, retry."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Optional, Tuple

from ..core.backoff import RetryPolicy
from ..core.deadline import Deadline, check_timeout
from ..core.sender import Sender
from ..exceptions import AckTimeout, DeliveryUncertain, OutboxFull, SendMessageError
from .arguments import check_ack_id, check_event, check_group, name_data_type
from .protocol import WebPubSubProtocol

__all__ = ["Sending"]

# Failures that sending again cannot cure, or that leave open whether the message was delivered.
_NOT_RETRIED = (AckTimeout, DeliveryUncertain, OutboxFull)
_FINAL_NAMES = ("Forbidden", "BadRequest", "NotFound")

#: (group, True) joins it, (group, False) leaves it.
Join = Optional[Tuple[str, bool]]


class Sending:
    """Base of `WebPubSubClient` with everything that sends; it is told its options there."""

    _sender: Sender
    _protocol: WebPubSubProtocol
    _message_retry: RetryPolicy
    _ack_timeout: Optional[float]

    def join_group(self, group: str, *, ack_id: Optional[int] = None, timeout: Optional[float] = None) -> None:
        """Join ``group`` and wait for the acknowledgement; the client rejoins it on every new connection.

        ``timeout`` None means ``ack_timeout``; it covers waiting for room, the answer, and retries. Safe from any
        thread.

        Raises: SendMessageError (``ack_id`` to try again with; AckTimeout, DeliveryUncertain are kinds of it),
        ClientStopped, ForkedError, InvalidArgument.
        """
        self._send(self._protocol.join_body(check_group(group)), ack_id, True, timeout, (group, True))

    def leave_group(self, group: str, *, ack_id: Optional[int] = None, timeout: Optional[float] = None) -> None:
        """Leave ``group`` and wait for the acknowledgement. Timeout and errors as `join_group`."""
        self._send(self._protocol.leave_body(check_group(group)), ack_id, True, timeout, (group, False))

    def send_to_group(
        self,
        group: str,
        data: Any,
        data_type: Any = None,
        *,
        no_echo: bool = False,
        ack: bool = True,
        ack_id: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> None:
        """Publish ``data`` to ``group`` and wait for the acknowledgement.

        ``data_type`` is "text", "json", "binary", or "protobuf" for a message object of the protobuf library or the
        bytes of a ``google.protobuf.Any``; None infers it from str, bytes-like, message object, anything else.
        ``no_echo`` keeps the message from this connection. ``ack=False`` returns once the message is queued. Sending
        again with the ``ack_id`` of a failed send is deduplicated by the service. Timeout and errors as `join_group`,
        and MessageTooLarge.
        """
        self._send(self._publish(group, data, data_type, no_echo), ack_id, ack, timeout)

    def send_event(
        self,
        event: str,
        data: Any,
        data_type: Any = None,
        *,
        ack: bool = True,
        ack_id: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> None:
        """Send a user event to the service's event handler and wait for the acknowledgement; as `send_to_group`."""
        self._send(self._event(event, data, data_type), ack_id, ack, timeout)

    def join_group_nowait(self, group: str, *, ack_id: Optional[int] = None) -> Future[None]:
        """Queue `join_group` and return a future of its result; raises OutboxFull instead of waiting for room."""
        return self._send_nowait(self._protocol.join_body(check_group(group)), ack_id, True, (group, True))

    def leave_group_nowait(self, group: str, *, ack_id: Optional[int] = None) -> Future[None]:
        """Queue `leave_group`; as `join_group_nowait`."""
        return self._send_nowait(self._protocol.leave_body(check_group(group)), ack_id, True, (group, False))

    def send_to_group_nowait(
        self,
        group: str,
        data: Any,
        data_type: Any = None,
        *,
        no_echo: bool = False,
        ack: bool = True,
        ack_id: Optional[int] = None,
    ) -> Future[None]:
        """Queue `send_to_group`; as `join_group_nowait`. With ``ack=False`` the future is done when the bytes are
        written.

        The future's ``ack_id`` identifies the send. Its callbacks run in the reader thread and must not block.
        """
        return self._send_nowait(self._publish(group, data, data_type, no_echo), ack_id, ack)

    def send_event_nowait(
        self, event: str, data: Any, data_type: Any = None, *, ack: bool = True, ack_id: Optional[int] = None
    ) -> Future[None]:
        """Queue `send_event`; as `send_to_group_nowait`."""
        return self._send_nowait(self._event(event, data, data_type), ack_id, ack)

    def flush(self, timeout: Optional[float] = None) -> None:
        """Wait until everything sent before this call is acknowledged, or written if no acknowledgement was wanted.

        Failed sends count as settled; their futures, which are all done then, tell. Safe from any thread.
        Raises: FlushTimeout (a builtin TimeoutError too), ClientStopped, ForkedError, InvalidArgument.
        """
        self._sender.flush(timeout)

    def _publish(self, group: str, data: Any, data_type: Any, no_echo: bool) -> bytes:
        check_group(group)
        return self._protocol.send_to_group_body(group, data, name_data_type(data, data_type), no_echo)

    def _event(self, event: str, data: Any, data_type: Any) -> bytes:
        check_event(event)
        return self._protocol.event_body(event, data, name_data_type(data, data_type))

    def _send_nowait(self, body: bytes, ack_id: Optional[int], ack: bool, join: Join = None) -> Future[None]:
        return self._sender.submit(body, check_ack_id(ack_id), ack, None, join).future

    def _send(self, body: bytes, ack_id: Optional[int], ack: bool, timeout: Optional[float], join: Join = None) -> None:
        check_timeout(timeout)
        deadline = Deadline(self._ack_timeout if timeout is None else timeout)
        ack_id = check_ack_id(ack_id)
        attempt = 0
        while True:
            entry = self._sender.submit(body, ack_id, ack, deadline, join)
            if not ack:
                return
            try:
                return self._sender.result(entry, deadline)
            except SendMessageError as error:
                attempt += 1
                delay = self._message_retry.delay(attempt)
                left = deadline.remaining()
                if isinstance(error, _NOT_RETRIED) or error.name in _FINAL_NAMES or delay is None:
                    raise
                if left is not None and delay >= left:
                    raise
                # The id and every flag stay the same, so that the service can tell a repeat from a new message.
                ack_id = entry.ack_id
                self._sender.pause_before_retry(delay)
