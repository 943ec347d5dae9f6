"""A network and a service inside the process: the engine over a carrier that does exactly what a test says.

`Network` hands out dials and remembers every connection as a `Link`, whose service end the test holds. The carrier is a
byte stream in both directions, so partial writes are real. The service answers in the thread that writes to it; nothing
here has a thread of its own.
"""

from __future__ import annotations

import json
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence
from urllib.parse import parse_qs, urlsplit

from simplepubsub.core.protocol import Dial, Frame, Transport
from simplepubsub.exceptions import ConnectError, RemoteProtocolError, TransportClosed, TransportError
from simplepubsub.transports.frames import CLOSE, PING, TEXT, FrameParser, close_payload, encode_frames, parse_close
from simplepubsub.webpubsub import WebPubSubClient
from tests.timing import scaled

__all__ = ["URL", "ClogTransport", "Link", "MemoryDial", "MemoryTransport", "Network", "memory_client"]

URL = "ws://memory/client/hubs/hub?access_token=first-token"


class MemoryTransport(Transport):
    """The client's end of a `Link`."""

    can_try_send = True

    def __init__(self, link: Link) -> None:
        self.link = link

    def receive(self) -> List[Frame]:
        return self.link.read()

    def send(self, frames: Sequence[Frame]) -> None:
        self.link.write(encode_frames(frames, masked=True), block=True)

    def try_send(self, frames: Sequence[Frame]) -> bytes:
        data = encode_frames(frames, masked=True)
        return data[self.link.write(data, block=False) :]

    def send_rest(self, rest: bytes) -> None:
        self.link.write(rest, block=True)

    def close(self, code: int, reason: str) -> None:
        self.send([(CLOSE, close_payload(code, reason))])

    def abort(self) -> None:
        self.link.abort()

    def release(self) -> None:
        self.link.released += 1


class ClogTransport(MemoryTransport):
    """The same, but its peer takes ``room`` bytes and then no more until `Link.unclog`."""

    def __init__(self, link: Link, room: int = 0) -> None:
        super().__init__(link)
        link.clog(room)


class Link:
    """One connection, seen from the service.

    ``commands`` holds every JSON command of the client, control frames are in ``control``. Methods are safe from any
    thread.
    """

    def __init__(self, network: Network, url: str, index: int) -> None:
        self.network = network
        self.url = url
        self.index = index
        self.query: Dict[str, str] = {key: values[-1] for key, values in parse_qs(urlsplit(url).query).items()}
        self.recovers = "awps_connection_id" in self.query
        self.connection_id = self.query.get("awps_connection_id", "conn-%d" % index)
        self.changed = threading.Condition()
        self.commands: List[Dict[str, Any]] = []
        self.control: List[Frame] = []
        self.aborted = False
        self.released = 0
        self.close_frame: Optional[Any] = None  # (code, reason) that the client sent
        self.silent = False  # nothing is answered
        self.writers: List[str] = []  # the name of the thread behind each write
        self._inbound: List[Frame] = []
        self._end: Optional[BaseException] = None
        self._room: Optional[int] = None  # bytes that a clogged link still takes
        self._parser = FrameParser(masked=True)

    # --- the client's side --------------------------------------------------------------------------------------------

    def read(self) -> List[Frame]:
        with self.changed:
            while not (self._inbound or self._end is not None):
                self.changed.wait()
            if self._inbound:
                frames, self._inbound = self._inbound, []
                self.changed.notify_all()
                return frames
            assert self._end is not None
            raise self._end

    def write(self, data: bytes, block: bool) -> int:
        taken = 0
        while True:
            with self.changed:
                self.writers.append(threading.current_thread().name)
                if self.aborted or (self._end is not None and not isinstance(self._end, TransportClosed)):
                    raise TransportError("the connection broke while writing: aborted")
                room = len(data) - taken if self._room is None else min(self._room, len(data) - taken)
                if self._room is not None:
                    self._room -= room
                frames = self._parser.feed(data[taken : taken + room]) if room else []
                taken += room
                if taken < len(data) and block and not frames:
                    self.changed.notify_all()
                    self.changed.wait()
                    continue
            for frame in frames:
                self._arrived(frame)
            if taken == len(data) or not block:
                return taken

    def _arrived(self, frame: Frame) -> None:
        opcode, payload = frame
        if opcode == CLOSE:
            code = parse_close(payload)  # type: ignore[arg-type]
            with self.changed:
                self.close_frame = code
                self.changed.notify_all()
            if not self.silent:
                self.end(TransportClosed("the peer closed the connection", code=code[0], reason=code[1]))
            return
        if opcode != TEXT:
            with self.changed:
                self.control.append(frame)
                self.changed.notify_all()
            return
        command = json.loads(payload)
        with self.changed:
            self.commands.append(command)
            self.changed.notify_all()
        if not self.silent:
            self.network.answer(self, command)

    def abort(self) -> None:
        with self.changed:
            self.aborted = True
            if self._end is None:
                self._end = TransportError("the connection broke while reading: aborted")
            self.changed.notify_all()

    # --- the service's side -------------------------------------------------------------------------------------------

    def say(self, *messages: Dict[str, Any]) -> None:
        """Send messages to the client, all in one read."""
        self.push(*[(TEXT, json.dumps(message)) for message in messages])

    def push(self, *frames: Frame) -> None:
        """Send frames to the client, all in one read; nothing comes after the end of the connection."""
        with self.changed:
            if self._end is None:
                self._inbound.extend(frames)
            self.changed.notify_all()

    def message(self, data: Any, sequence_id: Optional[int] = None, group: str = "g") -> Dict[str, Any]:
        """Return a group message."""
        made: Dict[str, Any] = {
            "type": "message", "from": "group", "group": group, "dataType": "json", "data": data, "fromUserId": None,
        }
        if sequence_id is not None:
            made["sequenceId"] = sequence_id
        return made

    def say_connected(self) -> None:
        """Accept the connection."""
        self.say({"type": "system", "event": "connected", "connectionId": self.connection_id, "userId": "mina",
                  "reconnectionToken": "reconnection-token-of-%s" % self.connection_id})

    def ack(self, ack_id: int, error: Optional[str] = None) -> None:
        """Answer one command."""
        answer: Dict[str, Any] = {"type": "ack", "ackId": ack_id, "success": error is None}
        if error is not None:
            answer["error"] = {"name": error, "message": "as the test wants"}
        self.say(answer)

    def end(self, error: BaseException) -> None:
        """End the connection: the client reads what is on its way and then ``error``."""
        with self.changed:
            if self._end is None:
                self._end = error
            self.changed.notify_all()

    def cut(self) -> None:
        """Reset the connection."""
        self.end(TransportError("the connection broke while reading: reset"))

    def close(self, code: int, reason: str = "") -> None:
        """Close politely."""
        self.end(TransportClosed("the peer closed the connection with code %d" % code, code=code, reason=reason))

    def break_framing(self, code: int = 1002) -> None:
        """Break the framing rules."""
        self.end(RemoteProtocolError("reserved bits set", code=code))

    def clog(self, room: int = 0) -> None:
        """Take ``room`` more bytes and then no more."""
        with self.changed:
            self._room = room

    def unclog(self) -> None:
        """Take everything again."""
        with self.changed:
            self._room = None
            self.changed.notify_all()

    def wait(self, predicate: Callable[[], Any], what: str = "", timeout: float = 10.0) -> Any:
        """Wait until ``predicate()`` is true, asked whenever something arrives or ends, and return its value."""
        with self.changed:
            value = self.changed.wait_for(predicate, scaled(timeout))
        if not value:
            raise AssertionError("waited in vain for %s; commands %r" % (what or predicate, self.commands))
        return value

    def wait_quietly(self, predicate: Callable[[], Any], seconds: float) -> bool:
        """Return whether ``predicate()`` became true within ``seconds`` (not scaled)."""
        with self.changed:
            return bool(self.changed.wait_for(predicate, seconds))

    def of(self, kind: str) -> List[Dict[str, Any]]:
        """The commands of one type so far."""
        with self.changed:
            return [command for command in self.commands if command["type"] == kind]

    def wait_for(self, kind: str, count: int = 1, timeout: float = 10.0) -> Dict[str, Any]:
        """Wait for the ``count``-th command of one type and return it."""
        self.wait(lambda: len([c for c in self.commands if c["type"] == kind]) >= count,
                  "%d of %s" % (count, kind), timeout)
        return self.of(kind)[count - 1]


class MemoryDial(Dial):
    """One attempt to reach the network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._aborted = threading.Event()

    def connect(self, url: str, timeout: Optional[float]) -> Transport:
        return self._network.connect(url, timeout, self._aborted)

    def abort(self) -> None:
        self._aborted.set()
        with self._network.changed:
            self._network.changed.notify_all()


class Network:
    """Where every dial of one client ends.

    ``on_command(link, command)`` returns True when it has dealt with a command itself. By default the service accepts
    connections and recoveries, acknowledges what wants it, and answers pings.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.links: List[Link] = []
        self.urls: List[str] = []  # of every dial
        self.failures: List[BaseException] = []  # raised by the next dials, in order
        self.down: Optional[ConnectError] = None  # raised by every dial
        self.hold = False  # dials neither succeed nor fail
        self.greet: Callable[[Link], None] = self.accept
        self.on_command: Callable[[Link, Dict[str, Any]], Any] = lambda link, command: False
        self.transport: Callable[[Link], Transport] = MemoryTransport
        self.accept_recovery = True

    def dialer(self) -> Dial:
        return MemoryDial(self)

    def connect(self, url: str, timeout: Optional[float], aborted: threading.Event) -> Transport:
        with self.changed:
            if aborted.is_set():  # before the dial began
                raise ConnectError("the attempt was given up")
            self.urls.append(url)
            self.changed.notify_all()
            if self.failures:
                raise self.failures.pop(0)
            if self.down is not None:
                raise self.down
            while self.hold:
                if aborted.is_set():
                    raise ConnectError("the attempt was given up")
                self.changed.wait()
            link = Link(self, url, len(self.links))
            transport = self.transport(link)
        self.greet(link)
        with self.changed:  # whoever waits for the link speaks after the greeting
            self.links.append(link)
            self.changed.notify_all()
        return transport

    def link_of(self, client: Any) -> Link:
        """The connection that ``client`` has now; the last one made may be that of an attempt that was given up."""
        link: Link = client._engine.connection.transport.link
        return link

    def accept(self, link: Link) -> None:
        """Accept a connection or a recovery; what a recovered session repeats is the test's business."""
        if not link.recovers:
            link.say_connected()
        elif not self.accept_recovery:
            link.close(1008, "no such session")

    def answer(self, link: Link, command: Dict[str, Any]) -> None:
        if self.on_command(link, command):
            return
        if command["type"] == "ping":
            link.say({"type": "pong"})
        elif "ackId" in command:
            link.ack(command["ackId"])

    def wait_links(self, count: int, timeout: float = 10.0) -> Link:
        """Wait until ``count`` connections were made and return the last of them."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.links) >= count, scaled(timeout)):
                raise AssertionError("waited in vain for %d connections, got %d" % (count, len(self.links)))
            return self.links[count - 1]

    def wait_dials(self, count: int, timeout: float = 10.0) -> str:
        """Wait until ``count`` dials were made and return the URL of the last of them."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.urls) >= count, scaled(timeout)):
                raise AssertionError("waited in vain for %d dials, got %d" % (count, len(self.urls)))
            return self.urls[count - 1]


def memory_client(network: Network, credential: Any = URL, **options: Any) -> WebPubSubClient:
    """Return a client whose every dial ends in ``network``."""
    client = WebPubSubClient(credential, **options)
    client._engine.dialer = network.dialer
    return client


#: What the service sends as a WebSocket ping.
WS_PING: Frame = (PING, b"are you there?")
