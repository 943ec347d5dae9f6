"""What every test gets: a leak check, thread exceptions that fail, seeds, and the server with a proxy in front of it.

`leak_check` is autouse, so it is set up before and torn down after all other fixtures of a test.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
import time
import urllib.parse
import warnings
from typing import Any, Callable, Dict, Generator, Iterator, List, Set, Tuple

import hypothesis
import pytest

from tests.faultproxy import FaultProxy
from tests.helpers import current_frames, scaled, thread_dump, wait_until
from tests.shake import shake

# ---- settings -------------------------------------------------------------------------------------------------------

#: A busy machine is slow, and that is no fault of a strategy.
PATIENT: Any = {"deadline": None, "print_blob": True, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("default", max_examples=60, **PATIENT)
hypothesis.settings.register_profile("ci", max_examples=100, database=None, **PATIENT)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

#: One seed for a run; SIMPLEPUBSUB_SEED repeats a run.
SEED = int(os.environ.get("SIMPLEPUBSUB_SEED") or random.SystemRandom().randrange(1, 10**9))

#: How long threads and sockets of a test may take to go.
LEAK_GRACE = 5.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "allows_leaks(reason): do not fail for threads and sockets left behind")
    config.addinivalue_line("filterwarnings", "error::pytest.PytestUnhandledThreadExceptionWarning")
    # Of cryptography on an old Python. It comes with the tool that makes certificates, and PyJWT picks it up.
    config.addinivalue_line("filterwarnings", r"ignore:Python 3\.\d+ is no longer supported by the Python core")


#: Modules that take longer than a few seconds; see the marker `thorough`.
THOROUGH = {
    "test_cli", "test_client_api", "test_closing", "test_demo", "test_eio_errors", "test_eio_hang", "test_eio_http",
    "test_eio_packet", "test_eio_session", "test_eio_upgrade", "test_event_handler", "test_event_handler_docs",
    "test_examples", "test_faultproxy", "test_frames", "test_fuzz", "test_interrupt", "test_invoke",
    "test_manager_hangs", "test_p1_hang_matrix", "test_p2_stress", "test_p3_bounds", "test_p5_interrupt",
    "test_p7_legacy", "test_packet_fuzz", "test_poller", "test_protobuf_protocol", "test_receiving", "test_reconnect",
    "test_security_injection", "test_sending", "test_serve", "test_server_docs", "test_server_filters",
    "test_server_reliability", "test_server_rest_errors", "test_server_rest_ttl", "test_server_streams_model",
    "test_server_upstream", "test_server_upstream_failures", "test_service_credentials", "test_service_docs",
    "test_service_retries", "test_streams_cuts", "test_streams_interrupt", "test_testkit", "test_transports",
    "test_websocket_examples", "test_websockets_docs",
}


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in THOROUGH:
            item.add_marker("thorough")


def pytest_report_header() -> str:
    return f"seed of random tests: SIMPLEPUBSUB_SEED={SEED}"


_failed: pytest.StashKey[bool] = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        item.stash[_failed] = True
        if "seed" in getattr(item, "fixturenames", ()):
            report.sections.append(("seed", f"SIMPLEPUBSUB_SEED={SEED} repeats the random choices of this test"))


# ---- where threads come from ----------------------------------------------------------------------------------------
#
# Each thread remembers who started it and where. It makes a leak's message useful, and tells the threads of the
# session's server, which may come up at any time, from those that the test is responsible for.

Origin = Tuple[threading.Thread, str]
_real_start = threading.Thread.start
_unhandled: List[str] = []  # Python 3.7 only, where pytest cannot see an exception that ends a thread


def _start(thread: threading.Thread) -> None:
    places: List[str] = []
    frame: Any = sys._getframe(1)
    while frame is not None and len(places) < 6:
        if "threading" not in frame.f_globals.get("__name__", ""):
            places.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        frame = frame.f_back
    thread._testkit_origin = (threading.current_thread(), "\n    ".join(places))  # type: ignore[attr-defined]
    if sys.version_info < (3, 8):
        _watch_run(thread)
    _real_start(thread)


def _watch_run(thread: threading.Thread) -> None:
    run = thread.run

    def watched() -> None:
        try:
            run()
        except SystemExit:
            raise
        except BaseException as error:
            _unhandled.append(f"Exception in thread {thread.name}: {error!r}")
            raise

    thread.run = watched  # type: ignore[method-assign]


threading.Thread.start = _start  # type: ignore[assignment,method-assign]
if os.environ.get("SIMPLEPUBSUB_SHAKE"):
    shake(os.environ["SIMPLEPUBSUB_SHAKE"])


def _descends_from(thread: threading.Thread, ancestors: Set[threading.Thread]) -> bool:
    seen: Set[threading.Thread] = set()
    while thread not in seen:
        if thread in ancestors:
            return True
        seen.add(thread)
        thread = getattr(thread, "_testkit_origin", (thread, ""))[0]
    return False


# ---- the leak check -------------------------------------------------------------------------------------------------

_server_threads: Set[threading.Thread] = set()
_server_sockets: Set[str] = set()


def _live_threads() -> Set[threading.Thread]:
    # A foreign thread stays in the enumeration after its end on most versions: it has no frame then.
    frames = current_frames()
    return {t for t in threading.enumerate() if not isinstance(t, threading._DummyThread) or t.ident in frames}


def _open_sockets() -> Dict[str, int]:
    """Map the inode of each socket of this process to a descriptor; empty where there is no /proc."""
    sockets = {}
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return {}
    for name in names:
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # closed meanwhile, as the descriptor of this very listing
        if link.startswith("socket:"):
            sockets[link] = int(name)
    return sockets


def _describe_socket(descriptor: int) -> str:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as twin:
            return repr(twin)
    except OSError as error:
        return f"fd {descriptor} ({error})"


class _Census:
    """Threads and sockets at one moment, and what has been added since."""

    def __init__(self) -> None:
        self.threads = _live_threads()
        self.sockets = set(_open_sockets())

    def new_threads(self) -> List[threading.Thread]:
        new = _live_threads() - self.threads
        return sorted((t for t in new if not _descends_from(t, _server_threads)), key=lambda t: t.name)

    def new_sockets(self) -> Dict[str, int]:
        return {inode: fd for inode, fd in _open_sockets().items()
                if inode not in self.sockets and inode not in _server_sockets}

    def complaint(self) -> str:
        """Wait up to the grace for everything new to go; return what is left, or ""."""
        deadline = time.monotonic() + scaled(LEAK_GRACE)
        for thread in self.new_threads():
            if thread is not threading.current_thread() and not isinstance(thread, threading._DummyThread):
                # A thread is listed before it has started, and cannot be joined until it has.
                if thread._started.wait(max(0.0, deadline - time.monotonic())):  # type: ignore[attr-defined]
                    thread.join(max(0.0, deadline - time.monotonic()))
        lines = []
        for thread in self.new_threads():
            starter, place = getattr(thread, "_testkit_origin", (None, "unknown"))
            by = starter.name if starter else "unknown"
            lines.append(f"thread {thread.name!r}, started by {by!r} at\n    {place}\n{thread_dump([thread])}")
        if self.new_sockets():
            try:
                wait_until(lambda: not self.new_sockets(), max(0.0, deadline - time.monotonic()) / scaled(1))
            except AssertionError:
                lines += [f"socket {_describe_socket(fd)}" for fd in self.new_sockets().values()]
        return "\n".join(lines)


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves more threads or sockets than it found, after a grace of 5 s.

    Off with `@pytest.mark.allows_leaks("reason")`. A test that has failed already is only waited for.
    """
    census = _Census()
    del _unhandled[:]
    yield
    marker = request.node.get_closest_marker("allows_leaks")
    if marker is not None:
        if not marker.args or not str(marker.args[0]).strip():
            pytest.fail("allows_leaks needs a reason", pytrace=False)
    else:
        complaint = census.complaint()
        if complaint and not request.node.stash.get(_failed, False):
            pytest.fail(f"the test leaves behind:\n{complaint}", pytrace=False)
    if _unhandled:
        warnings.warn(pytest.PytestUnhandledThreadExceptionWarning("\n".join(_unhandled)), stacklevel=1)


# ---- randomness and scheduling --------------------------------------------------------------------------------------


@pytest.fixture
def seed() -> int:
    """The seed of this run, for `random.Random(seed)`; named in the report when the test fails."""
    return SEED


@pytest.fixture
def switch_interval() -> Iterator[Callable[[float], None]]:
    """Let threads change places every 10 microseconds; call it with other seconds. Restored afterwards."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield sys.setswitchinterval
    sys.setswitchinterval(before)


# ---- the server and the proxy ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def session_server() -> Iterator[Any]:
    """The one embedded server of the run. Tests want `server`, which is the same after a reset."""
    from simplepubsub.server import Server  # here, so that tests without a server do not pay for its import

    census = _Census()
    with Server(keep_alive_interval=scaled(20.0)) as server:
        _server_threads.update(census.new_threads())
        _server_sockets.update(census.new_sockets())
        yield server


@pytest.fixture
def server(session_server: Any) -> Iterator[Any]:
    """The embedded server, reset: no connection, no fault, no handler. Shared by the whole run; do not stop it."""
    session_server.reset()
    handlers = session_server._handlers
    table = handlers._table
    yield session_server
    handlers.restore(table)  # reset() keeps handlers, and the next test must not meet those of this one
    session_server.reset()  # nor what it has begun: calls of event handlers that are tried again, lines in the log


@pytest.fixture
def fresh_server() -> Iterator[Callable[..., Any]]:
    """`fresh_server(**options)` starts a Server of the test's own, stopped afterwards; as many as wanted."""
    from simplepubsub.server import Server

    servers: List[Any] = []

    def make(**options: Any) -> Any:
        server = Server(**options)
        server.start()
        servers.append(server)
        return server

    yield make
    for made in reversed(servers):
        made.stop()


@pytest.fixture
def connect(server: Any) -> Iterator[Callable[..., Any]]:
    """`connect(*subprotocols, hub=, url=, query=, headers=, **options of client_access_url)`: raw clients of `server`.

    They are closed afterwards.
    """
    from tests.rawclient import Clients  # here, as above

    with Clients(server) as clients:
        yield clients.connect


@pytest.fixture
def rest(server: Any) -> Any:
    """The REST interface of `server`, by hand."""
    from tests.restclient import Rest

    return Rest(server)


@pytest.fixture
def upstream() -> Iterator[Any]:
    """A `ScriptedUpstream` that a server can send its events to."""
    from tests.upstreams import ScriptedUpstream

    with ScriptedUpstream() as found:
        yield found


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., FaultProxy]]:
    """`make_proxy(target)` starts a FaultProxy before a server, an URL or a (host, port); closed afterwards."""
    proxies: List[FaultProxy] = []

    def make(target: Any) -> FaultProxy:
        if isinstance(target, tuple):
            host, port = target
        else:
            parts = urllib.parse.urlsplit(target if isinstance(target, str) else target.endpoint)
            host, port = parts.hostname, parts.port
        proxies.append(FaultProxy(host, port).start())
        return proxies[-1]

    yield make
    for proxy in reversed(proxies):
        proxy.close()


@pytest.fixture
def proxy(server: Any, make_proxy: Callable[..., FaultProxy]) -> FaultProxy:
    """A FaultProxy in front of `server`."""
    return make_proxy(server)


@pytest.fixture
def url_for(server: Any, proxy: FaultProxy) -> Callable[..., str]:
    """`url_for(hub="hub", **options)`: `server.client_access_url(hub, **options)` that leads through the proxy.

    `server=` and `proxy=` take others than the fixtures; `proxy=None` goes straight to the server.
    """
    default_server, default_proxy = server, proxy

    def build(hub: str = "hub", *, server: Any = default_server, proxy: Any = default_proxy, **options: Any) -> str:
        url = str(server.client_access_url(hub, **options))
        return url if proxy is None else str(proxy.url(url))

    return build
