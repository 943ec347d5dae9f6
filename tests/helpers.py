"""Small tools of the tests: bounded waits, recorders, threads, certificates. What its neighbours offer is here too.

Every timeout is in seconds on a fast machine and is multiplied by SIMPLEPUBSUB_TIME_SCALE inside, so tests pass plain
numbers.
"""

from __future__ import annotations

import gc
import socket
import ssl
import sys
import threading
import time
import traceback
import urllib.parse
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from tests import peers
from tests.children import Child, ChildResult, run_python, subprocess_python
from tests.stranger import ECHO, DeafPort, ScriptedPeer, SilentPeer
from tests.timing import LOOPBACK, MS, TIME_SCALE, scaled
from tests.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    PeerConnection,
    PeerFrame,
    PeerGone,
    Request,
    make_frame,
)

__all__ = [
    "BINARY", "CLOSE", "CONTINUATION", "ECHO", "LOOPBACK", "MS", "PING", "PONG", "TEXT", "TIME_SCALE", "Certificate",
    "Child", "ChildResult", "ClosedPort", "DeafPort", "PeerConnection", "PeerFrame", "PeerGone", "Recorder", "Request",
    "ScriptedPeer", "SilentPeer", "current_frames", "make_frame", "repoint", "run_python", "run_thread", "scaled",
    "self_signed", "subprocess_python", "thread_dump", "wait_until",
]


def repoint(url: str, port: int, host: str = LOOPBACK) -> str:
    """Return `url` with another host and port; scheme, path and query (with its token) stay."""
    return urllib.parse.urlsplit(url)._replace(netloc=f"{host}:{port}").geturl()


_frames_lock = threading.Lock()


def current_frames() -> Dict[int, Any]:
    """Return the frame of each thread by its ident, safely.

    The interpreter's own call makes the frames (3.11) while it holds the lock that threads need to start and to end. A
    garbage collection in it that lets another thread run, which then starts or ends one, stops the process for ever.
    """
    with _frames_lock:
        enabled = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames()
        finally:
            if enabled:
                gc.enable()


def thread_dump(threads: Optional[Iterable[threading.Thread]] = None) -> str:
    """Return name and stack of the given threads (default: all), for failure messages."""
    frames = current_frames()
    parts = []
    for thread in threading.enumerate() if threads is None else threads:
        frame = frames.get(thread.ident or -1)
        stack = "".join(traceback.format_stack(frame)) if frame else "  (no Python frame)\n"
        parts.append(f"--- {thread.name} (daemon={thread.daemon})\n{stack}")
    return "".join(parts)


def wait_until(predicate: Callable[[], Any], timeout: float = 10.0, message: str = "") -> Any:
    """Return the first true value of `predicate`, asked every few milliseconds; AssertionError after `timeout`.

    The one home of polling. Where the thing waited for can announce itself, wait for the announcement instead.
    """
    deadline = time.monotonic() + scaled(timeout)
    pause = threading.Event()
    delay = 0.0005
    while True:
        value = predicate()
        if value:
            return value
        left = deadline - time.monotonic()
        if left <= 0:
            name = message or getattr(predicate, "__qualname__", repr(predicate))
            raise AssertionError(f"waited {scaled(timeout):g} s in vain: {name} (last value {value!r})")
        pause.wait(min(delay, left))
        delay = min(delay * 2, 0.02)


class Recorder:
    """A thread-safe list of (name, payload) that listeners fill and tests wait on.

    The payload is None for a call without arguments, the argument for one, a tuple for more.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: List[Tuple[str, Any]] = []

    def __call__(self, *args: Any) -> None:
        """Record under the name "": the recorder itself is a listener."""
        self.record("", *args)

    def record(self, name: str, *args: Any) -> None:
        """Add one event and wake who waits."""
        payload = None if not args else args[0] if len(args) == 1 else args
        with self._changed:
            self._events.append((name, payload))
            self._changed.notify_all()

    def named(self, name: str) -> Callable[..., None]:
        """Return a listener that records under `name`."""

        def listener(*args: Any) -> None:
            self.record(name, *args)

        return listener

    def attach(self, client: Any, *names: str) -> Recorder:
        """Register a listener by `client.on(name, listener)` for each name; return the recorder."""
        for name in names:
            client.on(name, self.named(name))
        return self

    def __len__(self) -> int:
        return len(self._events)

    def __repr__(self) -> str:
        return f"<Recorder {self.names}>"

    @property
    def events(self) -> List[Tuple[str, Any]]:
        """A copy of all (name, payload) so far."""
        with self._changed:
            return list(self._events)

    @property
    def names(self) -> List[str]:
        """The names so far, in order."""
        return [name for name, _ in self.events]

    def payloads(self, name: Optional[str] = None) -> List[Any]:
        """The payloads so far, of one name or of all."""
        return [payload for got, payload in self.events if name is None or got == name]

    def clear(self) -> None:
        """Forget everything."""
        with self._changed:
            self._events.clear()

    def wait_for(self, n: int, timeout: float = 10.0, name: Optional[str] = None) -> List[Any]:
        """Wait until `n` events (of one name, if given) are there and return their payloads, all of them so far."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.payloads(name)) >= n, scaled(timeout)):
                wanted = f"{n} events" if name is None else f"{n} of {name!r}"
                raise AssertionError(f"waited {scaled(timeout):g} s in vain for {wanted}; got {self.names}")
            return self.payloads(name)

    def wait_event(self, name: str, timeout: float = 10.0, count: int = 1) -> Any:
        """Wait for the `count`-th event called `name` and return its payload."""
        return self.wait_for(count, timeout, name)[count - 1]


class run_thread:
    """Run `fn(*args, **kwargs)` in a thread; on leaving the `with`, join it in `join_timeout` or fail with a stack.

    An exception of `fn` comes out of `result()`, or is given by `exception()`; one that nobody looked at is raised on
    leaving.
    """

    def __init__(self, fn: Callable[..., Any], *args: Any, join_timeout: float = 20.0, name: str = "", **kwargs: Any):
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._main, name=name or f"run_thread-{getattr(fn, '__name__', fn)}",
                                       daemon=True)
        self._call = (fn, args, kwargs)
        self._join_timeout = join_timeout
        self._value: Any = None
        self._error: Optional[BaseException] = None
        self._seen = False

    def _main(self) -> None:
        fn, args, kwargs = self._call
        try:
            self._value = fn(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  handed over by result(), exception() or __exit__
            self._error = error
        finally:
            self.done.set()

    def _finish(self, timeout: Optional[float]) -> None:
        limit = scaled(self._join_timeout if timeout is None else timeout)
        if not self.done.wait(limit):
            raise AssertionError(f"{self.thread.name} still runs after {limit:g} s\n{thread_dump([self.thread])}")
        self.thread.join(scaled(5))

    @property
    def running(self) -> bool:
        """Whether `fn` has not returned yet."""
        return not self.done.is_set()

    def result(self, timeout: Optional[float] = None) -> Any:
        """Wait for the end; return what `fn` returned or raise what it raised. AssertionError when it still runs."""
        self._finish(timeout)
        self._seen = True
        if self._error is not None:
            raise self._error
        return self._value

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """Wait for the end and return what `fn` raised, or None."""
        self._finish(timeout)
        self._seen = True
        return self._error

    def __enter__(self) -> run_thread:
        self.thread.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:  # the body's own failure matters more
            self.done.wait(scaled(2))
            return
        self._finish(None)
        if self._error is not None and not self._seen:
            raise self._error


# ---- ports and certificates -----------------------------------------------------------------------------------------


class ClosedPort:
    """A port with nobody listening, kept reserved while the `with` lasts: connecting is refused."""

    def __enter__(self) -> ClosedPort:
        self._sock = socket.socket()
        self._sock.bind((LOOPBACK, 0))
        self.port: int = self._sock.getsockname()[1]
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._sock.close()

    def url(self, path: str = "/") -> str:
        """A ws URL to it."""
        return f"ws://{LOOPBACK}:{self.port}{path}"


class Certificate(NamedTuple):
    """Paths (PEM) and ready contexts of a throw-away authority and a certificate it signed."""

    ca_file: str
    cert_file: str
    key_file: str
    server_context: ssl.SSLContext
    client_context: ssl.SSLContext


def self_signed(tmp_path: Any, *names: str) -> Certificate:
    """Make a certificate for `names` (default: localhost and 127.0.0.1) with trustme; skip, or fail, without it."""
    trustme = peers.require("trustme", "certificates for the TLS tests")
    authority = trustme.CA()
    issued = authority.issue_cert(*(names or ("localhost", LOOPBACK)))
    ca_file, cert_file, key_file = (str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca_file)
    issued.private_key_pem.write_to_path(key_file)
    for i, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(cert_file, append=i > 0)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(cert_file, key_file)
    return Certificate(ca_file, cert_file, key_file, server_context, ssl.create_default_context(cafile=ca_file))
