"""Pairs of one end of ours and one end of another WebSocket library, either of which may be the server.

`open_pair("websockets.sync server")` names the other end. Whatever the library, it is an `End`: the tests are written
once. Everything is on loopback and bounded; leaving the `with` ends both.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import struct
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from simplepubsub import websockets as ours
from tests import peers
from tests.helpers import LOOPBACK, run_thread, scaled
from tests.node import Node

Data = Union[str, bytes]
#: A close code and a reason, as a library reports them.
Close = Tuple[Optional[int], Optional[str]]

#: Largest message in bytes that either end takes.
MAX_SIZE = 2**20
BOUND = 15.0
#: For the closing handshake, at both ends: seconds that only a machine which stands still needs.
CLOSE_TIMEOUT = scaled(10)
WHY = "both ends of plain WebSocket must work with it"
TEXT, BINARY, CLOSE = 1, 2, 8


class End:
    """The other library's end of a connection."""

    subprotocol: Optional[str] = None

    def send(self, data: Data) -> None:
        """Send one message."""
        raise NotImplementedError

    def send_fragments(self, parts: Sequence[Data]) -> None:
        """Send one message, a frame for each part."""
        raise NotImplementedError

    def send_frame(self, opcode: int, payload: bytes) -> None:
        """Send a frame unchecked."""
        raise NotImplementedError

    def recv(self) -> Data:
        """Return the next message."""
        raise NotImplementedError

    def ping(self, payload: bytes) -> Callable[[], None]:
        """Send a ping and return a function that waits for its pong."""
        raise NotImplementedError

    def close(self, code: Optional[int], reason: str) -> Close:
        """Close and return what this library reports then; None sends a close frame without a code."""
        raise NotImplementedError

    def ended(self) -> Close:
        """Wait for the end and return what this library reports."""
        raise NotImplementedError

    def abort(self) -> None:
        """End the TCP connection without a close frame."""
        raise NotImplementedError


# --- websockets.sync --------------------------------------------------------------------------------------------------


class SyncEnd(End):
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.subprotocol = connection.subprotocol

    def send(self, data: Data) -> None:
        self._connection.send(data)

    def send_fragments(self, parts: Sequence[Data]) -> None:
        self._connection.send(iter(parts))

    def send_frame(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            with self._connection.send_context():
                self._connection.protocol.send_close()
        else:
            self._connection.send(payload, text=opcode == TEXT)

    def recv(self) -> Data:
        message: Data = self._connection.recv(scaled(BOUND))
        return message

    def ping(self, payload: bytes) -> Callable[[], None]:
        pong = self._connection.ping(payload)
        return lambda: _true(pong.wait(scaled(BOUND)))

    def close(self, code: Optional[int], reason: str) -> Close:
        if code is None:
            self.send_frame(CLOSE, b"")
        else:
            self._connection.close(code, reason)
        return self.ended()

    def ended(self) -> Close:
        closed = peers.require("websockets.exceptions", WHY).ConnectionClosed
        try:
            while True:
                self._connection.recv(scaled(BOUND))
        except closed:
            return self._connection.close_code, self._connection.close_reason

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.socket.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def sync_server(accepted: "queue.Queue[End]", subprotocols: Sequence[str]) -> Iterator[str]:
    module = peers.require("websockets.sync.server", WHY)
    released = threading.Event()

    def handle(connection: Any) -> None:
        accepted.put(SyncEnd(connection))
        released.wait(scaled(60))

    options = {"subprotocols": list(subprotocols)} if subprotocols else {}
    with module.serve(handle, LOOPBACK, 0, max_size=MAX_SIZE, close_timeout=CLOSE_TIMEOUT, **options) as server:
        with run_thread(server.serve_forever):
            try:
                yield "ws://%s:%d" % (LOOPBACK, server.socket.getsockname()[1])
            finally:
                released.set()
                server.shutdown()


@contextlib.contextmanager
def sync_client(url: str, subprotocols: Sequence[str]) -> Iterator[End]:
    module = peers.require("websockets.sync.client", WHY)
    options: Dict[str, Any] = {"subprotocols": list(subprotocols)} if subprotocols else {}
    options.update(open_timeout=scaled(BOUND), close_timeout=CLOSE_TIMEOUT)
    with module.connect(url, proxy=None, max_size=MAX_SIZE, **options) as connection:
        yield SyncEnd(connection)


# --- asyncio ----------------------------------------------------------------------------------------------------------


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="foreign-loop", daemon=True)
        self._thread.start()

    def run(self, work: Any) -> Any:
        """Wait for a coroutine and return its result."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, scaled(BOUND)), self._loop).result()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the loop's thread and return its result."""

        async def work() -> Any:
            return function(*args)

        return self.run(work())

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(scaled(BOUND))

        async def finish() -> None:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await self._loop.shutdown_asyncgens()

        self._loop.run_until_complete(finish())
        self._loop.close()


class AsyncioEnd(End):
    def __init__(self, loop: Loop, connection: Any) -> None:
        self._loop, self._connection = loop, connection
        self.subprotocol = connection.subprotocol

    def send(self, data: Data) -> None:
        self._loop.run(self._connection.send(data))

    def send_fragments(self, parts: Sequence[Data]) -> None:
        self._loop.run(self._connection.send(iter(parts)))

    def send_frame(self, opcode: int, payload: bytes) -> None:
        async def close() -> None:
            async with self._connection.send_context():
                self._connection.protocol.send_close()

        self._loop.run(close() if opcode == CLOSE else self._connection.send(payload, text=opcode == TEXT))

    def recv(self) -> Data:
        message: Data = self._loop.run(self._connection.recv())
        return message

    def ping(self, payload: bytes) -> Callable[[], None]:
        pong = self._loop.run(self._connection.ping(payload))
        return lambda: self._loop.run(asyncio.wait_for(pong, None))

    def close(self, code: Optional[int], reason: str) -> Close:
        if code is None:
            self.send_frame(CLOSE, b"")
        else:
            self._loop.run(self._connection.close(code, reason))
        return self.ended()

    def ended(self) -> Close:
        closed = peers.require("websockets.exceptions", WHY).ConnectionClosed

        async def read() -> None:  # text is checked when it is received
            with contextlib.suppress(closed):
                while True:
                    await self._connection.recv()

        self._loop.run(read())
        return self._connection.close_code, self._connection.close_reason

    def abort(self) -> None:
        self._loop.call(self._connection.transport.abort)


@contextlib.contextmanager
def asyncio_server(accepted: "queue.Queue[End]", subprotocols: Sequence[str]) -> Iterator[str]:
    module = peers.require("websockets.asyncio.server", WHY)
    with Loop() as loop:

        async def handle(connection: Any) -> None:
            accepted.put(AsyncioEnd(loop, connection))
            await connection.wait_closed()

        async def start() -> Any:
            options = {"subprotocols": list(subprotocols)} if subprotocols else {}
            return await module.serve(handle, LOOPBACK, 0, max_size=MAX_SIZE, close_timeout=CLOSE_TIMEOUT, **options)

        async def stop() -> None:
            server.close()
            await server.wait_closed()

        server = loop.run(start())
        try:
            yield "ws://%s:%d" % (LOOPBACK, server.sockets[0].getsockname()[1])
        finally:
            loop.run(stop())


@contextlib.contextmanager
def asyncio_client(url: str, subprotocols: Sequence[str]) -> Iterator[End]:
    module = peers.require("websockets.asyncio.client", WHY)
    with Loop() as loop:

        async def start() -> Any:
            options: Dict[str, Any] = {"subprotocols": list(subprotocols)} if subprotocols else {}
            options.update(open_timeout=scaled(BOUND), close_timeout=CLOSE_TIMEOUT)
            return await module.connect(url, proxy=None, max_size=MAX_SIZE, **options)

        connection = loop.run(start())
        try:
            yield AsyncioEnd(loop, connection)
        finally:
            loop.run(connection.close())


# --- aiohttp ----------------------------------------------------------------------------------------------------------


class AiohttpEnd(End):
    def __init__(self, loop: Loop, socket_: Any, transport: Any) -> None:
        self._loop, self._socket, self._transport = loop, socket_, transport
        self._kinds = peers.require("aiohttp", WHY).WSMsgType
        self.subprotocol = getattr(socket_, "ws_protocol", None) or getattr(socket_, "protocol", None)

    def send(self, data: Data) -> None:
        self._loop.run(self._socket.send_str(data) if isinstance(data, str) else self._socket.send_bytes(data))

    def send_frame(self, opcode: int, payload: bytes) -> None:
        self._loop.run(self._socket.send_frame(payload, self._kinds(opcode)))

    def _receive(self) -> Any:
        """Return the next message that is no ping; autoping is off, because it hides pongs too."""

        async def receive() -> Any:
            while True:
                message = await self._socket.receive()
                if message.type != self._kinds.PING:
                    return message
                await self._socket.pong(message.data)

        return self._loop.run(receive())

    def recv(self) -> Data:
        message = self._receive()
        assert message.type in (self._kinds.TEXT, self._kinds.BINARY), message
        data: Data = message.data
        return data

    def ping(self, payload: bytes) -> Callable[[], None]:
        self._loop.run(self._socket.ping(payload))

        def wait() -> None:
            message = self._receive()
            assert (message.type, bytes(message.data)) == (self._kinds.PONG, payload), message

        return wait

    def close(self, code: Optional[int], reason: str) -> Close:
        if code is None:
            self.send_frame(CLOSE, b"")
            return self.ended()
        self._loop.run(self._socket.close(code=code, message=reason.encode()))
        return self._socket.close_code, None

    def ended(self) -> Close:
        while True:
            message = self._receive()
            if message.type == self._kinds.CLOSE:
                return message.data, message.extra
            if message.type in (self._kinds.CLOSING, self._kinds.CLOSED, self._kinds.ERROR):
                return self._socket.close_code, None

    def abort(self) -> None:
        self._loop.call(self._transport.abort)


@contextlib.contextmanager
def aiohttp_server(accepted: "queue.Queue[End]", subprotocols: Sequence[str]) -> Iterator[str]:
    web = peers.require("aiohttp.web", WHY)
    with Loop() as loop:
        ends: List[Any] = []

        async def handle(request: Any) -> Any:
            made = web.WebSocketResponse(
                protocols=subprotocols, max_msg_size=MAX_SIZE + 1, timeout=CLOSE_TIMEOUT, autoping=False)
            await made.prepare(request)
            finished = asyncio.Event()
            ends.append(finished)
            accepted.put(AiohttpEnd(loop, made, request.transport))
            await finished.wait()
            return made

        async def start() -> Any:
            application = web.Application()
            application.router.add_get("/", handle)
            runner = web.AppRunner(application, shutdown_timeout=2)
            await runner.setup()
            await web.TCPSite(runner, LOOPBACK, 0).start()
            return runner

        async def stop() -> None:
            for finished in ends:
                finished.set()
            await runner.cleanup()

        runner = loop.run(start())
        try:
            yield "ws://%s:%d/" % (LOOPBACK, runner.addresses[0][1])
        finally:
            loop.run(stop())


@contextlib.contextmanager
def aiohttp_client(url: str, subprotocols: Sequence[str]) -> Iterator[End]:
    aiohttp = peers.require("aiohttp", WHY)
    with Loop() as loop:

        async def start() -> Any:
            session = aiohttp.ClientSession()
            made = await session.ws_connect(url, protocols=subprotocols, max_msg_size=MAX_SIZE + 1, autoping=False)
            return session, made

        async def stop() -> None:
            await made.close()
            await session.close()

        session, made = loop.run(start())
        try:
            yield AiohttpEnd(loop, made, made._response.connection.transport)
        finally:
            loop.run(stop())


# --- websocket-client -------------------------------------------------------------------------------------------------


class WebSocketClientEnd(End):
    def __init__(self, made: Any) -> None:
        self._socket = made
        self._abnf = peers.require("websocket", WHY).ABNF
        self.subprotocol = made.getsubprotocol()

    def send(self, data: Data) -> None:
        self._socket.send(data, TEXT if isinstance(data, str) else BINARY)

    def send_fragments(self, parts: Sequence[Data]) -> None:
        for number, part in enumerate(parts):
            opcode = 0 if number else TEXT if isinstance(part, str) else BINARY
            payload = part.encode() if isinstance(part, str) else part
            frame = self._abnf.create_frame(payload, opcode, int(number == len(parts) - 1))
            self._socket.send_frame(frame)

    def send_frame(self, opcode: int, payload: bytes) -> None:
        self._socket.send(payload, opcode)

    def recv(self) -> Data:
        message: Data = self._socket.recv()
        return message

    def ping(self, payload: bytes) -> Callable[[], None]:
        self._socket.ping(payload)

        def wait() -> None:
            opcode, data = self._socket.recv_data(control_frame=True)
            assert (opcode, data) == (self._abnf.OPCODE_PONG, payload)

        return wait

    def close(self, code: Optional[int], reason: str) -> Close:
        if code is None:
            self.send_frame(CLOSE, b"")
            return self.ended()
        self._socket.close(code, reason, timeout=CLOSE_TIMEOUT)
        frame = self._socket.close_frame
        return _close_of(frame.data) if frame is not None else (None, None)

    def ended(self) -> Close:
        module = peers.require("websocket", WHY)
        try:
            while True:
                opcode, data = self._socket.recv_data(control_frame=True)
                if opcode == CLOSE:
                    return _close_of(data)
        except module.WebSocketConnectionClosedException:
            return None, None
        except ConnectionError:
            return None, None

    def abort(self) -> None:
        self._socket.abort()


@contextlib.contextmanager
def websocket_client(url: str, subprotocols: Sequence[str]) -> Iterator[End]:
    module = peers.require("websocket", WHY)
    made = module.create_connection(
        url, timeout=scaled(BOUND), subprotocols=list(subprotocols) or None, http_no_proxy=["*"])
    try:
        yield WebSocketClientEnd(made)
    finally:
        made.shutdown()


# --- ws of Node -------------------------------------------------------------------------------------------------------


class NodeEnd(End):
    def __init__(self, node: Node, name: str) -> None:
        self._node, self._name = node, name
        self._recorder = node.recorder(name)
        self._received = 0
        self.subprotocol = node.do("get", of=name, property="protocol") or None

    def _call(self, method: str, *args: Any) -> None:
        self._node.do("call", of=self._name, method=method, args=args)

    def send(self, data: Data) -> None:
        self._call("send", data)

    def send_fragments(self, parts: Sequence[Data]) -> None:
        for number, part in enumerate(parts):
            self._call("send", part, {"fin": number == len(parts) - 1})

    def send_frame(self, opcode: int, payload: bytes) -> None:
        self._call("send", payload, {"binary": opcode == BINARY})

    def recv(self) -> Data:
        self._received += 1
        message: Data = self._recorder.wait_event("message", BOUND, self._received)
        return message

    def ping(self, payload: bytes) -> Callable[[], None]:
        count = len(self._recorder.payloads("pong"))
        self._call("ping", payload)

        def wait() -> None:
            assert self._recorder.wait_event("pong", BOUND, count + 1) == payload

        return wait

    def close(self, code: Optional[int], reason: str) -> Close:
        self._call("close", *(() if code is None else (code, reason)))
        return self.ended()

    def ended(self) -> Close:
        told = self._recorder.wait_event("close", BOUND)
        return told["code"], told["reason"]

    def abort(self) -> None:
        self._call("terminate")


@contextlib.contextmanager
def node_server(accepted: "queue.Queue[End]", subprotocols: Sequence[str]) -> Iterator[str]:
    with Node() as node:
        made = node.do("make", kind="sockets", name="server", protocols=subprotocols, options={"maxPayload": MAX_SIZE})
        taken = threading.Event()

        def take() -> None:
            connection = node.recorder("server").wait_event("connection", BOUND)
            accepted.put(NodeEnd(node, connection["name"]))
            taken.set()

        with run_thread(take):
            yield "ws://%s:%d" % (LOOPBACK, made["port"])


@contextlib.contextmanager
def node_client(url: str, subprotocols: Sequence[str]) -> Iterator[End]:
    with Node() as node:
        node.do("make", kind="socket", name="client", url=url, protocols=subprotocols, options={"maxPayload": MAX_SIZE})
        yield NodeEnd(node, "client")


# --- pairs ------------------------------------------------------------------------------------------------------------

SERVERS: Dict[str, Callable[..., Any]] = {
    "websockets.sync server": sync_server,
    "websockets.asyncio server": asyncio_server,
    "aiohttp server": aiohttp_server,
    "ws server": node_server,
}
CLIENTS: Dict[str, Callable[..., Any]] = {
    "websockets.sync client": sync_client,
    "websockets.asyncio client": asyncio_client,
    "aiohttp client": aiohttp_client,
    "websocket-client": websocket_client,
    "ws client": node_client,
}
NAMES = [*SERVERS, *CLIENTS]


class Pair:
    """`ours` is a connection of simplepubsub.websockets, `theirs` an `End`."""

    def __init__(self, connection: ours.ClientConnection, end: End) -> None:
        self.ours, self.theirs = connection, end


@contextlib.contextmanager
def open_pair(name: str, *, offered: Sequence[str] = (), spoken: Sequence[str] = ()) -> Iterator[Pair]:
    """Connect an end of ours with that of a library; the client offers some subprotocols, the server speaks some."""
    with contextlib.ExitStack() as stack:
        if name in SERVERS:
            accepted: "queue.Queue[End]" = queue.Queue()
            url = stack.enter_context(SERVERS[name](accepted, spoken))
            connection: Any = ours.connect(
                url, proxy=None, subprotocols=list(offered) or None, open_timeout=scaled(BOUND), max_size=MAX_SIZE,
                close_timeout=CLOSE_TIMEOUT)
            stack.callback(connection.close)
            end = accepted.get(timeout=scaled(2 * BOUND))
        else:
            arrived: "queue.Queue[Any]" = queue.Queue()
            released = threading.Event()

            def handle(connection: Any) -> None:
                arrived.put(connection)
                released.wait(scaled(60))

            server = ours.serve(handle, subprotocols=list(spoken), max_size=MAX_SIZE, close_timeout=CLOSE_TIMEOUT)
            stack.enter_context(server)
            stack.callback(released.set)
            end = stack.enter_context(CLIENTS[name]("ws://%s:%d/" % (LOOPBACK, server.port), offered))
            connection = arrived.get(timeout=scaled(2 * BOUND))
        yield Pair(connection, end)
        with contextlib.suppress(Exception):  # usually it has ended already
            end.abort()
        connection.close(timeout=scaled(2))


def _close_of(payload: bytes) -> Close:
    """Return what a close frame says, (None, "") when it says nothing."""
    return (struct.unpack("!H", payload[:2])[0], payload[2:].decode()) if payload else (None, "")


def _true(value: Any) -> None:
    assert value
