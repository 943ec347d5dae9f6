"""The service's side of streams and invocations for `tests.memory`, as strict and as moody as a test wants."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from tests.memory import Link, Network, memory_client
from tests.timing import scaled

__all__ = ["Desk", "Scene", "has_live_link", "started_scene"]


class Desk:
    """Keeps the streams of a client over all its links, and answers its invocations.

    ``accepted`` holds the data of every accepted fragment by stream id, ``ended`` the end frames of finished streams.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.changed = threading.Condition()
        self.streams: Dict[str, int] = {}  # active: the number expected
        self.accepted: Dict[str, List[Any]] = {}
        self.ended: Dict[str, Dict[str, Any]] = {}
        self.invocations: List[Dict[str, Any]] = []
        self.cancelled: List[str] = []
        self.keep_alives: List[str] = []
        self.violations: List[Dict[str, Any]] = []
        #: What a test may set: nothing is acknowledged; a fragment is refused; an invocation is answered by this.
        self.mute = False
        self.refuse: Callable[[Dict[str, Any]], Optional[str]] = lambda command: None
        self.answer: Callable[[Dict[str, Any]], Optional[Dict[str, Any]]] = lambda command: None
        network.on_command = self.on_command

    def on_command(self, link: Link, command: Dict[str, Any]) -> bool:
        kind = command["type"]
        with self.changed:
            try:
                if kind == "sendToGroup" and "stream" in command:
                    self._start(link, command)
                elif kind == "streamData":
                    self._data(link, command)
                elif kind == "streamEnd":
                    self._end(link, command)
                elif kind == "invoke":
                    self.invocations.append(command)
                    answer = self.answer(command)
                    if answer is not None:
                        link.say({"type": "invokeResponse", "invocationId": command["invocationId"], **answer})
                elif kind == "cancelInvocation":
                    self.cancelled.append(command["invocationId"])
                else:
                    return False
                return True
            finally:
                self.changed.notify_all()

    def _start(self, link: Link, command: Dict[str, Any]) -> None:
        stream_id = command["stream"]["streamId"]
        assert "data" not in command and "dataType" not in command and "ackId" not in command
        self.streams.setdefault(stream_id, 1)
        self.accepted.setdefault(stream_id, [])
        self.ack(link, stream_id)

    def _data(self, link: Link, command: Dict[str, Any]) -> None:
        stream_id = command["streamId"]
        expected = self.streams.get(stream_id)
        if expected is None:
            self._closed(link, stream_id, "StreamNotFound")
        elif "streamSequenceId" not in command:
            self.keep_alives.append(stream_id)
        else:
            number = command["streamSequenceId"]
            refusal = self.refuse(command) if number == expected else None
            if refusal is not None or number > expected:
                self.nack(link, stream_id, refusal or "InvalidSequenceId")
                return
            if number == expected:
                self.streams[stream_id] = expected + 1
                self.accepted[stream_id].append(command["data"])
            self.ack(link, stream_id)

    def _end(self, link: Link, command: Dict[str, Any]) -> None:
        stream_id = command["streamId"]
        if self.streams.pop(stream_id, None) is None:
            self._closed(link, stream_id, "StreamNotFound")
            return
        self.ended[stream_id] = command
        if command.get("error", {}).get("userErrorCode") == "ProtocolViolation":
            self.violations.append(command)
        if not self.mute:
            self._closed(link, stream_id)

    def _closed(self, link: Link, stream_id: str, name: Optional[str] = None) -> None:
        answer: Dict[str, Any] = {"type": "streamClosed", "streamId": stream_id}
        if name is not None:
            answer["error"] = {"name": name, "message": "as the test wants"}
        link.say(answer)

    def ack(self, link: Link, stream_id: str, expected: Optional[int] = None) -> None:
        """Acknowledge a stream, unless mute or told a number."""
        with self.changed:  # or an answer with a larger number, given meanwhile to what has just arrived, is first
            if not self.mute or expected is not None:
                number = self.streams[stream_id] if expected is None else expected
                link.say({"type": "streamAck", "streamId": stream_id, "expectedSequenceId": number})

    def nack(self, link: Link, stream_id: str, name: str) -> None:
        """Refuse a fragment."""
        link.say({"type": "streamNack", "streamId": stream_id, "expectedSequenceId": self.streams[stream_id],
                  "name": name, "message": "as the test wants"})

    def close(self, link: Link, stream_id: str, name: Optional[str] = None) -> None:
        """End a stream from this side."""
        with self.changed:
            self.streams.pop(stream_id, None)
            self._closed(link, stream_id, name)

    def wait(self, predicate: Callable[[], Any], timeout: float = 10.0) -> Any:
        """Wait until ``predicate()`` is true and return its value."""
        with self.changed:
            value = self.changed.wait_for(predicate, scaled(timeout))
        assert value, (self.streams, self.ended, self.invocations, self.cancelled)
        return value


def has_live_link(client: Any) -> bool:
    """Return whether the client is connected by a link that the test has not ended, which it may not have noticed."""
    connection = client._engine.connection
    return client.is_connected() and connection is not None and connection.transport.link._end is None


#: A client, its network, and the desk at its other end.
Scene = Tuple[Any, Network, Desk]


@contextlib.contextmanager
def started_scene(**options: Any) -> Iterator[Scene]:
    """Start a client with these options at a desk; it is stopped at the end of the block."""
    network = Network()
    desk = Desk(network)
    client = memory_client(network, **options)
    client.start()
    yield client, network, desk
    client.stop(scaled(5))
