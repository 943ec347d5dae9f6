"""`serve`: accept WebSockets and run a blocking handler for each, in a thread of its own.

Per server one more thread, the poller's, accepts, reads, and finishes writes for all connections. A handler writes to
its socket directly, so an answer costs no change of threads.
"""

from __future__ import annotations

import itertools
import logging
import socket
import ssl as ssl_module
import threading
from typing import Any, Callable, List, Optional, Sequence, Set, Tuple

from ..core.deadline import Deadline, check_timeout, wait
from ..core.forks import Birthplace
from ..exceptions import InvalidArgument
from ..transports.dial import close_unfinished
from .channel import Settings
from .client import check_settings, check_subprotocols
from .connection import Connection
from .exceptions import ConnectionClosed
from .handshake import BadRequest, accept, offered_subprotocols, read_request, response_bytes, text_response
from .messages import Headers, Request, Response, State, check_close
from .opening import Opening, leave, listen, remove_unix_path, takes_path
from .poller import READ, Poller

__all__ = ["Server", "ServerConnection", "serve"]

log = logging.getLogger("simplepubsub.websockets")

Handler = Callable[..., Any]
ProcessRequest = Optional[Callable[[Opening, Request], Optional[Response]]]
SelectSubprotocol = Optional[Callable[[Opening, Sequence[str]], Optional[str]]]

#: Seconds to look away from the listening socket when the process has no descriptor left.
_RETRY_DELAY = 0.5


class ServerConnection(Connection):
    """The server's end of a WebSocket, as a handler gets it."""

    @property
    def path(self) -> str:
        """The path that the client asked for, with its query."""
        return self.request.path


class Server:
    """A running WebSocket server, made by `serve`. Every method is safe from any thread."""

    def __init__(
        self,
        handler: Handler,
        listener: socket.socket,
        settings: Settings,
        *,
        ssl: Optional[ssl_module.SSLContext],
        subprotocols: List[str],
        origins: Optional[Sequence[Optional[str]]],
        process_request: ProcessRequest,
        select_subprotocol: SelectSubprotocol,
        open_timeout: Optional[float],
    ) -> None:
        self._handler = handler
        self._with_path = takes_path(handler)
        self._listener = listener
        self._settings = settings
        self._ssl = ssl
        self._subprotocols = subprotocols
        self._origins = origins
        self._process_request = process_request
        self._select_subprotocol = select_subprotocol
        self._open_timeout = open_timeout
        self._numbers = itertools.count(1)
        self._poller = Poller("simplepubsub-websockets-server")
        self._birthplace = Birthplace()
        self._changed = threading.Condition()  # re-entrant: a signal handler may call `shutdown` in `serve_forever`
        # Guarded by ``_changed``:
        self._connections: Set[ServerConnection] = set()
        self._opening: Set[socket.socket] = set()
        self._threads: Set[threading.Thread] = set()
        self._closing = False
        self._closed = False
        self._close_with = (1001, "")
        #: What `socket.getsockname` says about the listening socket.
        self.address = listener.getsockname()
        self._poller.call(self._listen)

    @property
    def port(self) -> int:
        """The port that the server listens on; 0 on a Unix socket."""
        return int(self.address[1]) if isinstance(self.address, tuple) else 0

    @property
    def connections(self) -> Set[ServerConnection]:
        """The connections that are open now, as a set of the caller's own."""
        with self._changed:
            return {connection for connection in self._connections if connection.state is State.OPEN}

    def serve_forever(self) -> None:
        """Wait until `shutdown` is called: from another thread, by a signal handler, or after Ctrl-C here."""
        with self._changed:
            while not self._closing:
                wait(self._changed, None)

    def shutdown(self, code: int = 1001, reason: str = "", timeout: Optional[float] = None) -> None:
        """Accept nothing more, close every connection with ``code``, and wait for the handlers to return.

        Bounded by ``timeout`` seconds (None: ``close_timeout`` and one second more); a handler that is still running
        then is left to itself, with a warning in the log. Doing it twice does nothing. Raises InvalidArgument.
        """
        check_timeout(timeout)
        check_close(code, reason)
        if self._birthplace.left:
            return
        deadline = Deadline(self._settings.close_timeout + 1.0 if timeout is None else timeout)
        with self._changed:
            if not self._closing:
                self._close_with = (code, reason)
            self._closing = True
            self._changed.notify_all()
            connections = list(self._connections)
            for sock in self._opening:  # under the lock: none of them becomes a connection in between
                try:
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except (OSError, ValueError):
                    pass  # it is gone, or not connected any more
        self._poller.call(self._stop_listening)
        for connection in connections:
            connection.begin_close(code, reason)
        if self._poller.is_current_thread:
            return  # a callback of a future cannot wait for its own thread
        me = threading.current_thread()
        with self._changed:
            while (self._threads - {me} or not self._closed) and not deadline.expired():
                wait(self._changed, deadline.remaining())
            left = len(self._threads - {me})
        if left:
            log.warning("the server is shut down, but %d handlers still run", left)

    close = shutdown

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return "<Server on %s, %d connections>" % (self.address, len(self._connections))

    # --- the poller's thread ------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Stop accepting because of a bug in here."""
        self._stop_listening()

    def _listen(self) -> None:
        self._poller.add(self)
        self._poller.watch(self._listener, READ, self._accept)

    def _stop_listening(self) -> None:
        if self._closed:
            return
        self._poller.watch(self._listener, 0, self._accept)
        self._poller.remove(self)
        remove_unix_path(self._listener)
        self._listener.close()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _accept(self, events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of descriptors, usually; the listener stays readable, so look away for a while.
            log.error("cannot accept a connection: %s", error)
            self._poller.watch(self._listener, 0, self._accept)
            self._poller.after(_RETRY_DELAY, self._listen_again)
            return
        name = "simplepubsub-ws-%d" % next(self._numbers)
        thread = threading.Thread(target=self._serve_one, args=(sock,), name=name, daemon=True)
        with self._changed:
            if self._closing:
                sock.close()
                return
            self._threads.add(thread)
            self._opening.add(sock)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            log.error("cannot serve a connection: %s", error)
            self._forget(sock, thread)
            sock.close()

    def _listen_again(self) -> None:
        if not self._closing:
            self._listen()

    def _forget(self, sock: socket.socket, thread: threading.Thread) -> None:
        with self._changed:
            self._opening.discard(sock)
            self._threads.discard(thread)
            self._changed.notify_all()

    # --- the handler's thread -----------------------------------------------------------------------------------------

    def _serve_one(self, sock: socket.socket) -> None:
        connection = None
        try:
            connection = self._open(sock)
            if connection is not None:
                self._run(connection)
        finally:
            with self._changed:
                self._connections.discard(connection)
            self._forget(sock, threading.current_thread())

    def _open(self, sock: socket.socket) -> Optional[ServerConnection]:
        """Return the connection after its handshake, None when there is none."""
        deadline = Deadline(self._open_timeout)
        tls: socket.socket = sock
        try:
            sock.settimeout(deadline.remaining())
            if sock.family != getattr(socket, "AF_UNIX", None):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._ssl is not None:
                try:
                    tls = self._ssl.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                except OSError as error:
                    close_unfinished(error)
                    raise
                with self._changed:
                    self._opening.discard(sock)
                    self._opening.add(tls)
                tls.do_handshake()
            return self._upgrade(tls, deadline)
        except (OSError, EOFError) as error:  # ssl.SSLError is an OSError
            log.info("a connection failed before it was open: %s", error)
        except Exception:
            log.exception("the opening of a connection failed")
        finally:
            with self._changed:
                self._opening.discard(tls)
        tls.close()
        return None

    def _upgrade(self, sock: socket.socket, deadline: Deadline) -> Optional[ServerConnection]:
        request = Request("", Headers())
        subprotocol, early = None, b""
        try:
            request, early = read_request(sock, deadline)
            response, subprotocol = self._decide(Opening(sock, request))
        except BadRequest as error:
            log.info("refused a client with %d: %s", error.status, error)
            response = text_response(error.status, str(error), error.headers)
        if response.status != 101:
            sock.sendall(response_bytes(response))
            leave(sock)
            return None
        first = response_bytes(response)
        # Who has the answer is one of `connections`: it goes out from here on, and nobody can look meanwhile.
        with self._changed:
            connection = ServerConnection(
                sock,
                self._poller,
                self._settings,
                client=False,
                request=request,
                response=response,
                subprotocol=subprotocol,
                early=early,
                first=first,
            )
            self._connections.add(connection)
            self._opening.discard(sock)  # from here on it is closed politely
            closing = self._closing
        connection.flush()
        if closing:
            connection.begin_close(*self._close_with)
        return connection

    def _decide(self, opening: Opening) -> Tuple[Response, Optional[str]]:
        """Return the answer and the subprotocol. Raises BadRequest."""
        try:
            response = None
            if self._process_request is not None:
                response = self._process_request(opening, opening.request)
            if response is not None:
                if int(response.status) < 200:
                    raise ValueError("process_request returned an answer with status %d" % response.status)
                response_bytes(response)  # shows what cannot be sent
                return response, None
            headers = accept(opening.request, self._origins)
            subprotocol = self._choose(opening)
        except BadRequest:
            raise
        except Exception:
            log.exception("process_request or select_subprotocol failed")
            raise BadRequest(500, "the server could not decide about this request") from None
        if subprotocol is not None:
            headers["Sec-WebSocket-Protocol"] = subprotocol
        return Response(101, headers), subprotocol

    def _choose(self, opening: Opening) -> Optional[str]:
        offered = offered_subprotocols(opening.request)
        if self._select_subprotocol is not None:
            chosen = self._select_subprotocol(opening, offered)
            if chosen is not None and chosen not in offered:
                raise ValueError("select_subprotocol returned %r, which was not offered" % (chosen,))
            return chosen
        # Our order decides: it is the server that knows which one is best for it.
        return next((name for name in self._subprotocols if name in offered), None)

    def _run(self, connection: ServerConnection) -> None:
        """Run the handler; its end is the connection's end."""
        code = 1011
        try:
            if self._with_path:
                self._handler(connection, connection.path)
            else:
                self._handler(connection)
            code = 1000
        except Exception as error:
            # The ordinary way to learn that the client has gone is no failure.
            if not isinstance(error, ConnectionClosed) or connection.state is State.OPEN:
                log.exception("the handler of %r failed", connection)
        finally:
            connection.close(code)


def serve(
    handler: Handler,
    host: Optional[str] = None,
    port: Optional[int] = None,
    *,
    sock: Optional[socket.socket] = None,
    unix: Optional[str] = None,
    ssl: Optional[ssl_module.SSLContext] = None,
    origins: Optional[Sequence[Optional[str]]] = None,
    subprotocols: Optional[Sequence[str]] = None,
    select_subprotocol: SelectSubprotocol = None,
    process_request: ProcessRequest = None,
    open_timeout: Optional[float] = 10.0,
    ping_interval: Optional[float] = 20.0,
    ping_timeout: Optional[float] = 20.0,
    close_timeout: float = 10.0,
    max_size: Optional[int] = 2**20,
    max_queue: int = 1000,
) -> Server:
    """Listen, and run ``handler(connection)`` in a thread of its own for every client; return the running server.

    When the handler returns its connection is closed with 1000, when it raises it is closed with 1011 and the exception
    is logged. Use the server in a ``with`` block, or call ``shutdown()``.

    Args:
        host, port: where to listen; None and 0 = this machine only, and any free port.
        sock: a listening socket, in place of host and port; unix: the path of a Unix socket.
        ssl: a server-side ``ssl.SSLContext``.
        origins: values of the Origin header to accept, None in the list for clients that send none.
        subprotocols: names in the order of preference; select_subprotocol: ``(connection, offered) -> name or None``.
        process_request: ``(connection, request) -> Response or None``, before the handshake: health checks, pages,
            refusals; ``connection.respond(status, text)`` makes the answer.
        open_timeout ... max_queue: as for `connect`.

    Raises: InvalidArgument, ServerError (the address cannot be used).
    """
    if not callable(handler):
        raise InvalidArgument("handler must be callable, not %r" % (handler,))
    if ssl is not None and not isinstance(ssl, ssl_module.SSLContext):
        raise InvalidArgument("ssl must be None or an ssl.SSLContext, not %s" % type(ssl).__name__)
    if isinstance(origins, str):
        raise InvalidArgument("origins must be a list of origins, not the str %r" % origins)
    check_timeout(open_timeout, "open_timeout")
    settings = check_settings(Settings(ping_interval, ping_timeout, close_timeout, max_size, max_queue))
    names = check_subprotocols(subprotocols)
    listener = listen(host or "127.0.0.1", port or 0, unix, sock)
    return Server(
        handler,
        listener,
        settings,
        ssl=ssl,
        subprotocols=names,
        origins=origins,
        process_request=process_request,
        select_subprotocol=select_subprotocol,
        open_timeout=open_timeout,
    )
