"""Check the fault proxy, both ends of which are plain sockets in the test's hands, and the leak check of conftest."""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from tests.children import REPOSITORY
from tests.faultproxy import FaultProxy
from tests.forwarder import BUFFER_LIMIT
from tests.helpers import LOOPBACK, MS, ClosedPort, repoint, run_thread, scaled, wait_until

pytest_plugins = ["pytester"]

Ends = Tuple[socket.socket, socket.socket]


class Rig:
    """A listener, a proxy in front of it, and connections through it whose two ends are both at hand."""

    def __init__(self) -> None:
        self.listener = socket.socket()
        self.listener.bind((LOOPBACK, 0))
        self.listener.listen(64)
        self.listener.settimeout(scaled(5))
        self.proxy = FaultProxy(*self.listener.getsockname()).start()
        self.sockets: List[socket.socket] = [self.listener]

    def dial(self) -> socket.socket:
        client = socket.create_connection((LOOPBACK, self.proxy.port), timeout=scaled(5))
        self.sockets.append(client)
        return client

    def pair(self) -> Ends:
        """Return the client's and the target's end of a new connection."""
        client = self.dial()
        target, _ = self.listener.accept()
        target.settimeout(scaled(5))
        self.sockets.append(target)
        return client, target

    def is_reset(self) -> bool:
        """Dial and return whether a reset is all that comes; it may come so fast that connecting fails by it."""
        try:
            return read_to_end(self.dial()) == (b"", True)
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.proxy.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"the stream ended after {len(data)} of {size} bytes"
        data += piece
    return data


def read_to_end(sock: socket.socket) -> Tuple[bytes, bool]:
    """Return what still comes, and whether it ended by a reset."""
    data = b""
    while True:
        try:
            piece = sock.recv(65536)
        except ConnectionResetError:
            return data, True
        if not piece:
            return data, False
        data += piece


def is_silent(sock: socket.socket, seconds: float = 50 * MS) -> bool:
    before = sock.gettimeout()
    sock.settimeout(seconds)
    try:
        sock.recv(1)
    except socket.timeout:
        return True
    finally:
        sock.settimeout(before)
    return False


# ---- forwarding -----------------------------------------------------------------------------------------------------


def test_forwards_both_ways_and_counts(rig: Rig) -> None:
    client, target = rig.pair()
    client.sendall(b"ping")
    assert read(target, 4) == b"ping"
    target.sendall(b"pong!")
    assert read(client, 5) == b"pong!"
    rig.proxy.wait_bytes(4)
    rig.proxy.wait_bytes(5, "down")
    assert (rig.proxy.bytes_up, rig.proxy.bytes_down) == (4, 5)
    assert (rig.proxy.connections, rig.proxy.accepted, rig.proxy.cuts) == (1, 1, 0)


def test_passes_the_end_of_one_direction_and_keeps_the_other(rig: Rig) -> None:
    client, target = rig.pair()
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(target) == (b"last words", False)
    target.sendall(b"answer")
    target.close()
    assert read_to_end(client) == (b"answer", False)
    rig.proxy.wait_connections(0)


def test_passes_a_reset_on(rig: Rig) -> None:
    client, target = rig.pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    assert read_to_end(target) == (b"", True)
    rig.proxy.wait_connections(0)


def test_megabytes_both_ways_at_once_arrive_unchanged(rig: Rig, seed: int) -> None:
    up, down = (random.Random(seed + i).getrandbits(8 * 3_000_000).to_bytes(3_000_000, "big") for i in range(2))
    client, target = rig.pair()
    with run_thread(client.sendall, up), run_thread(target.sendall, down), run_thread(read, client, len(down)) as got:
        assert read(target, len(up)) == up
        assert got.result() == down


def test_a_sender_feels_a_receiver_that_does_not_read(rig: Rig) -> None:
    client, target = rig.pair()
    client.settimeout(20 * MS)
    sent = 0

    def blocked() -> bool:
        nonlocal sent
        try:
            while True:
                sent += client.send(bytes(65536))
        except socket.timeout:
            return rig.proxy.bytes_held >= BUFFER_LIMIT  # or the proxy was only late

    wait_until(blocked, 20)
    assert rig.proxy.connections == 1
    client.settimeout(scaled(5))
    client.shutdown(socket.SHUT_WR)
    assert len(read_to_end(target)[0]) == sent > BUFFER_LIMIT


def test_an_unreachable_target_resets_the_client(rig: Rig) -> None:
    with ClosedPort() as nobody:
        rig.proxy.retarget(LOOPBACK, nobody.port)
        assert rig.is_reset()
        rig.proxy.wait_connections(0)
    rig.proxy.retarget(*rig.listener.getsockname())
    client, target = rig.pair()
    client.sendall(b"back")
    assert read(target, 4) == b"back"


# ---- cuts -----------------------------------------------------------------------------------------------------------


def test_cut_resets_both_sides_of_every_connection(rig: Rig) -> None:
    pairs = [rig.pair() for _ in range(5)]
    assert rig.proxy.cut() == 5
    assert [read_to_end(end) for pair in pairs for end in pair] == [(b"", True)] * 10
    assert (rig.proxy.connections, rig.proxy.cuts) == (0, 5)
    client, target = rig.pair()
    client.sendall(b"new")
    assert read(target, 3) == b"new"


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("n", [1, 7, 64])
@pytest.mark.parametrize("polite", [False, True])
def test_cut_after_passes_exactly_n_bytes(rig: Rig, direction: str, n: int, polite: bool) -> None:
    client, target = rig.pair()
    source, sink = (client, target) if direction == "up" else (target, client)
    rig.proxy.cut_after(n, direction, polite=polite)
    source.sendall(bytes(range(100)))
    assert read_to_end(sink) == (bytes(range(n)), not polite)
    assert rig.proxy.cuts == 1
    client, target = rig.pair()  # one shot: the next connection lives
    client.sendall(bytes(200))
    assert read(target, 200) == bytes(200)


def test_cut_after_zero_bytes_loses_the_next_ones_whole_and_a_negative_number_disarms(rig: Rig) -> None:
    client, target = rig.pair()
    rig.proxy.cut_after(0, "down")
    rig.proxy.cut_after(-1, "down")
    target.sendall(b"lives")
    assert read(client, 5) == b"lives"
    rig.proxy.cut_after(0, "down")
    client.sendall(b"heard")
    assert read(target, 5) == b"heard"
    target.sendall(b"an answer that is lost")
    assert read_to_end(client) == (b"", True)
    rig.proxy.wait_cuts(1)


def test_cut_after_counts_over_all_connections_and_cuts_them_all(rig: Rig) -> None:
    (one, one_target), (two, two_target) = rig.pair(), rig.pair()
    rig.proxy.cut_after(8)
    one.sendall(b"12345")
    assert read(one_target, 5) == b"12345"
    two.sendall(b"6789")
    assert read_to_end(two_target) == (b"678", True)
    assert read_to_end(one) == (b"", True)


def test_close_politely_ends_both_sides_without_a_reset(rig: Rig) -> None:
    client, target = rig.pair()
    target.sendall(b"before")
    rig.proxy.wait_bytes(6, "down")
    assert rig.proxy.close_politely() == 1
    client.sendall(b"too late")
    assert read_to_end(client) == (b"before", False)
    assert read_to_end(target) == (b"", False)
    assert rig.proxy.connections == 1
    client.close()
    target.close()
    rig.proxy.wait_connections(0)
    assert rig.proxy.bytes_swallowed == len(b"too late")


# ---- silence --------------------------------------------------------------------------------------------------------


def test_half_open_hides_bytes_and_ends_but_new_connections_work(rig: Rig) -> None:
    client, target = rig.pair()
    assert rig.proxy.half_open() == 1
    client.sendall(b"into the void")
    assert is_silent(target)
    client.close()
    assert is_silent(target)
    other, other_target = rig.pair()
    other.sendall(b"alive")
    assert read(other_target, 5) == b"alive"
    assert rig.proxy.connections == 2
    rig.proxy.cut()
    assert read_to_end(target) == (b"", True)


def test_stall_holds_one_direction_and_resume_releases_it_in_order(rig: Rig) -> None:
    client, target = rig.pair()
    rig.proxy.stall("up")
    client.sendall(b"one")
    target.sendall(b"other way")
    assert read(client, 9) == b"other way"
    assert is_silent(target)
    late, _ = rig.dial(), client.sendall(b"two")
    late.sendall(b"stalled as well")
    rig.proxy.resume()
    assert read(target, 6) == b"onetwo"
    late_target, _ = rig.listener.accept()
    rig.sockets.append(late_target)
    assert read(late_target, 15) == b"stalled as well"


def test_drop_swallows_one_direction_only(rig: Rig) -> None:
    client, target = rig.pair()
    rig.proxy.drop_downstream()
    client.sendall(b"question")
    assert read(target, 8) == b"question"
    target.sendall(b"swallowed")
    wait_until(lambda: rig.proxy.bytes_swallowed == 9)
    rig.proxy.resume("down")
    target.sendall(b"seen")
    assert read(client, 4) == b"seen"


# ---- time and pieces ------------------------------------------------------------------------------------------------


def test_delay_holds_bytes_for_a_while_and_keeps_their_order(rig: Rig) -> None:
    client, target = rig.pair()
    rig.proxy.delay(80 * MS, "up")
    begin = time.monotonic()
    client.sendall(b"slow ")
    wait_until(lambda: 5 in (rig.proxy.bytes_held, rig.proxy.bytes_up))
    rig.proxy.delay(0)
    client.sendall(b"fast")
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(target) == (b"slow fast", False)
    assert time.monotonic() - begin >= 80 * MS


class Totals(Dict[str, int]):
    """The bytes that a proxy has passed; ``seen`` are all values of "up", each the work of one send."""

    def __init__(self, totals: Dict[str, int]) -> None:
        super().__init__(totals)
        self.seen = [totals["up"]]

    def __setitem__(self, direction: str, total: int) -> None:
        super().__setitem__(direction, total)
        if direction == "up":
            self.seen.append(total)


def test_throttle_cuts_into_pieces_that_depend_on_the_seed_only(rig: Rig) -> None:
    def sizes(seed: int) -> List[int]:
        with FaultProxy(*rig.listener.getsockname()) as proxy:
            proxy.throttle(5, seed, interval=MS)
            proxy._passed = passed = Totals(proxy._passed)
            client = socket.create_connection((LOOPBACK, proxy.port), timeout=scaled(5))
            target, _ = rig.listener.accept()
            rig.sockets += [client, target]
            client.sendall(bytes(24))
            assert read(target, 24) == bytes(24)
            proxy.wait_bytes(24)
            return [b - a for a, b in zip(passed.seen, passed.seen[1:])]

    first = sizes(1)
    assert len(first) >= 5 and max(first) <= 5
    assert sizes(1) == first != sizes(2)


def test_throttle_without_an_interval_changes_no_byte(rig: Rig, seed: int) -> None:
    client, target = rig.pair()
    rig.proxy.throttle(9, seed)
    data = random.Random(seed).getrandbits(8 * 20_000).to_bytes(20_000, "big")
    with run_thread(client.sendall, data):
        assert read(target, len(data)) == data


# ---- refusing -------------------------------------------------------------------------------------------------------


def test_refuse_closes_the_port_and_opens_the_same_one_again(rig: Rig) -> None:
    client, target = rig.pair()
    port = rig.proxy.port
    for _ in range(20):
        rig.proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            rig.dial()
        rig.proxy.refuse(False)
        rig.pair()
    assert rig.proxy.port == port
    client.sendall(b"untouched")
    assert read(target, 9) == b"untouched"


def test_refuse_by_reset_accepts_first(rig: Rig) -> None:
    rig.proxy.refuse("reset")
    assert rig.is_reset()
    rig.proxy.wait_accepted(1)
    rig.proxy.refuse(True)
    with pytest.raises(ConnectionRefusedError):
        rig.dial()
    rig.proxy.refuse("reset")
    assert rig.is_reset()
    rig.proxy.heal()
    rig.pair()
    assert rig.proxy.connections == 1


# ---- its own life ---------------------------------------------------------------------------------------------------


def test_close_resets_everything_and_may_be_repeated(rig: Rig) -> None:
    client, target = rig.pair()
    rig.proxy.half_open()
    late, late_target = rig.pair()
    rig.proxy.close()
    rig.proxy.close()
    assert [read_to_end(end)[1] for end in (client, target, late, late_target)] == [True] * 4
    with pytest.raises(ConnectionRefusedError):
        rig.dial()
    with pytest.raises(RuntimeError, match="not running"):
        rig.proxy.cut()
    with pytest.raises(RuntimeError, match="started before"):
        rig.proxy.start()


def test_wrong_arguments_are_the_callers_error_and_leave_the_proxy_working(rig: Rig) -> None:
    calls: List[Callable[[], Any]] = [
        lambda: rig.proxy.stall("sideways"), lambda: rig.proxy.delay(1, "left"), lambda: rig.proxy.cut_after(1, "both"),
        lambda: rig.proxy.refuse("politely"), lambda: rig.proxy.wait_bytes(1, "both"), lambda: rig.proxy.drop("")]
    for call in calls:
        with pytest.raises(ValueError, match="must be|takes"):
            call()
    rig.pair()


def test_a_vain_wait_says_what_it_saw(rig: Rig) -> None:
    rig.proxy.stall("down")
    with pytest.raises(AssertionError, match=r"0 open, 0 accepted, 0 cut, stalled down.*3 open connections"):
        rig.proxy.wait_connections(3, timeout=0.01)


def test_url_leads_to_the_proxy_and_keeps_the_rest(rig: Rig) -> None:
    url = "wss://user@example.org:8080/client/hubs/chat?access_token=a.b-c&x=%2F"
    assert rig.proxy.url(url) == f"wss://127.0.0.1:{rig.proxy.port}/client/hubs/chat?access_token=a.b-c&x=%2F"
    assert repoint("http://a", 5, "b") == "http://b:5"


def test_many_threads_and_cuts_lose_no_byte_that_was_let_through(rig: Rig, seed: int, switch_interval: Any) -> None:
    """Clients that redial for ever, an echoing target, a hundred cuts: each echo is right, nothing hangs or is left."""
    stop = threading.Event()
    echoed = [0] * 4
    targets: List[run_thread] = []

    def echo(end: socket.socket) -> None:
        with end:
            end.settimeout(scaled(5))
            try:
                while True:
                    data = end.recv(4096)
                    if not data:
                        return
                    end.sendall(data)
            except ConnectionError:
                return  # cut, as planned

    def serve() -> None:
        rig.listener.settimeout(0.05)
        while not stop.is_set():
            try:
                end, _ = rig.listener.accept()
            except socket.timeout:
                continue
            targets.append(run_thread(echo, end).__enter__())

    def talk(number: int) -> None:
        rng = random.Random(seed + number)
        while not stop.is_set():
            try:
                with socket.create_connection((LOOPBACK, rig.proxy.port), timeout=scaled(5)) as sock:
                    while not stop.is_set():
                        data = rng.getrandbits(8 * 50).to_bytes(50, "big")
                        sock.sendall(data)
                        got = b""
                        while len(got) < 50:
                            piece = sock.recv(50 - len(got))
                            if not piece:
                                raise ConnectionError
                            got += piece
                        assert got == data
                        echoed[number] += 1
            except ConnectionError:
                pass  # cut, as planned: dial again

    rng = random.Random(seed)
    with run_thread(serve), run_thread(talk, 0), run_thread(talk, 1), run_thread(talk, 2), run_thread(talk, 3):
        try:
            for _ in range(100):
                rig.proxy.wait_connections(4)
                if rng.random() < 0.5:
                    rig.proxy.cut()
                else:
                    before = rig.proxy.cuts
                    rig.proxy.cut_after(rng.randrange(200), rng.choice(["up", "down"]))
                    rig.proxy.wait_cuts(before + 1)
            wait_until(lambda: all(echoed), 10)  # the last one may have had no luck until now
        finally:
            stop.set()
            rig.proxy.close()  # a connection that nobody accepts any more must not wait for its echo
    for target in targets:
        target.result()
    assert rig.proxy.cuts >= 100


# ---- the leak check -------------------------------------------------------------------------------------------------

LEAKS = '''
import socket, threading, warnings
import pytest
from tests import conftest

kept = []
forever = threading.Event()

@pytest.fixture(autouse=True)
def grace(request):
    # Who leaves something behind is told soon; everybody else has all the time that a busy machine needs.
    conftest.LEAK_GRACE = 2.0 if "leaves" in request.node.name else 600.0

def start(name, target=forever.wait):
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    kept.append(thread)

def test_clean():
    thread = threading.Thread(target=int)
    thread.start()
    a, b = socket.socketpair()
    a.close(), b.close()

def test_leaves_a_thread():
    start("straggler")

def test_leaves_a_socket():
    kept.append(socket.socketpair())

def test_is_not_blamed_for_what_was_there():
    assert len(kept) == 2

@pytest.mark.allows_leaks("to show that it can be allowed")
def test_allowed():
    start("allowed")
    kept.append(socket.socket())

@pytest.mark.allows_leaks("")
def test_allowed_without_a_reason():
    pass

def test_threads_that_end_in_time_are_fine():
    start("soon gone", threading.Event().wait(0.001) or int)

def test_fails_and_leaves_a_thread(seed):
    start("straggler of a failed test")
    assert not seed

def test_thread_dies():
    def target():
        raise LookupError("lost in a thread")
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()

@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_thread_dies_as_meant():
    test_thread_dies()

class FakeServer:
    _handlers = type("Handlers", (), {"_table": {}, "restore": lambda self, table: None})()
    """Starts a thread and a socket now, and another thread on each reset, as the embedded server may."""
    def __init__(self, **options):
        pass
    def __enter__(self):
        start("server", self.run)
        kept.append(socket.socket())
        return self
    def run(self):
        self.wanted = threading.Semaphore(0)
        ready.set()
        while True:
            self.wanted.acquire()
            start("server worker")
            ready.set()
    def reset(self):
        ready.wait(), ready.clear()
        self.wanted.release()
        ready.wait()
    def __exit__(self, *exc_info):
        pass

ready = threading.Event()

def test_the_server_of_the_session_is_not_blamed(monkeypatch, request):
    import sys, types
    module = types.ModuleType("simplepubsub.server")
    module.Server = FakeServer
    monkeypatch.setitem(sys.modules, "simplepubsub.server", module)
    request.getfixturevalue("server").reset()
    assert "server worker" in [t.name for t in threading.enumerate()]

def test_nor_is_its_next_user(server):
    pass
'''


@pytest.fixture
def leaky_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.RunResult:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([REPOSITORY, *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("SIMPLEPUBSUB_TIME_SCALE", "0.1")  # the grace is 0.2 s then
    monkeypatch.setenv("SIMPLEPUBSUB_SEED", "4711")
    pytester.makepyfile(LEAKS)
    return pytester.runpytest_subprocess("-p", "tests.conftest", "-p", "no:cacheprovider", "-ra", timeout=scaled(60))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="sockets can be counted on Linux only")
def test_leaks_fail_the_test_that_made_them(leaky_run: pytest.RunResult) -> None:
    before_38 = sys.version_info < (3, 8)  # there the dead thread is found by the fixture, after the test
    leaky_run.assert_outcomes(passed=10 + before_38, failed=2 - before_38, errors=3 + before_38)
    report = leaky_run.stdout.str()
    assert "SIMPLEPUBSUB_SEED=4711 repeats" in report
    assert "thread 'straggler', started by 'MainThread' at" in report and "in test_leaves_a_thread" in report
    # Twice in the reports; under CI pytest repeats whole messages in its summary.
    assert report.count("\nsocket <socket.socket fd=") in (2, 4)
    assert "allows_leaks needs a reason" in report
    assert "lost in a thread" in report
    assert "thread 'straggler of a failed test'" not in report and "server worker" not in report
