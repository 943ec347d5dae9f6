"""The demo: what it counts, what it prints, how it ends, and the relay that it cuts."""

from __future__ import annotations

import argparse
import io
import random
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Callable, List, Tuple

import pytest

from simplepubsub.cli import main
from simplepubsub.demo import add_arguments, command, play, run
from simplepubsub.demo.relay import Relay
from simplepubsub.demo.tally import Outcome, Tally, Text, encode_line, table
from tests.helpers import ClosedPort, run_thread, scaled, subprocess_python

#: Every byte value, all kinds of line ends, lines that are no UTF-8, and no line end at the end.
AWKWARD = bytes(range(256)) + "caf\u00e9\r\n\u2028\U0001f600\n".encode() + b"\r\r\n\n\x00\xff\xfe\n" + b"last"

RUN = "import sys\nfrom simplepubsub.cli import main\nsys.exit(main(['demo'] + sys.argv[1:]))"


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run in this process send a few hundred lines instead of thousands."""
    monkeypatch.setattr(command, "LINES", 300)


# ---- counting -------------------------------------------------------------------------------------------------------

LINES = Text(b"one\ntwo\nthree\nfour\n", 25)


def tally_of(messages: List[Any]) -> Tally:
    tally = Tally("subscriber 1", LINES)
    for message in messages:
        tally.add(message)
    return tally


def outcome_of(*tallies: Tally, **changes: Any) -> Outcome:
    outcome = Outcome(tallies=tallies, sent=len(LINES), acknowledged=len(LINES), replayed=0, cuts=1, survived=1,
                      recovery_times=[0.01], seconds=1.0)
    return outcome._replace(**changes)


def faithful() -> List[Any]:
    return [encode_line(number, line) for number, line in enumerate(LINES)]


def test_text_keeps_every_byte():
    text = Text(AWKWARD, 3)
    assert b"".join(text) == AWKWARD * 3
    assert [text[n] for n in range(len(text))] == list(text)
    assert text.size == len(AWKWARD) * 3
    with pytest.raises(IndexError):
        text[len(text)]


def test_lines_are_text_where_they_can_be():
    assert encode_line(3, "caf\u00e9\n".encode()) == "3 caf\u00e9\n"
    assert encode_line(4, b"\xff\n") == b"4 \xff\n"


def test_faithful_delivery_counts_as_clean():
    tally = tally_of(faithful())
    assert tally.arrived == 100
    assert (tally.lost(len(LINES)), tally.doubled, tally.out_of_order, tally.changed) == (0, 0, 0, 0)
    assert tally.identical and tally.clean
    assert outcome_of(tally, tally).status == 0


def lose(messages: List[Any]) -> None:
    del messages[40]


def lose_the_end(messages: List[Any]) -> None:
    del messages[-1]


def double(messages: List[Any]) -> None:
    messages.insert(41, messages[40])


def double_the_end(messages: List[Any]) -> None:
    messages.append(messages[-1])


def swap(messages: List[Any]) -> None:
    messages[40], messages[41] = messages[41], messages[40]


def swap_equal_lines(messages: List[Any]) -> None:
    messages[40], messages[44] = messages[44], messages[40]


def change(messages: List[Any]) -> None:
    messages[40] += " "


def invent(messages: List[Any]) -> None:
    messages.insert(40, "no number")


def lose_the_number(messages: List[Any]) -> None:
    messages[40] = messages[40].partition(" ")[2]


def renumber(messages: List[Any]) -> None:
    messages[40] = "100 one\n"


@pytest.mark.parametrize("tamper, lost, doubled, out_of_order, changed", [
    (lose, 1, 0, 0, 0),
    (lose_the_end, 1, 0, 0, 0),
    (double, 0, 1, 0, 0),
    (double_the_end, 0, 1, 0, 0),
    (swap, 0, 0, 1, 0),
    (swap_equal_lines, 0, 0, 4, 0),
    (change, 0, 0, 0, 1),
    (invent, 0, 0, 0, 1),
    (lose_the_number, 1, 0, 0, 1),
    (renumber, 1, 0, 0, 1),
])
def test_tampering_is_counted_and_ends_with_status_1(
    tamper: Callable[[List[Any]], None], lost: int, doubled: int, out_of_order: int, changed: int
) -> None:
    messages = faithful()
    tamper(messages)
    tally = tally_of(messages)
    assert (tally.lost(len(LINES)), tally.doubled, tally.out_of_order, tally.changed) == (
        lost, doubled, out_of_order, changed)
    assert not tally.clean
    for tallies in ((tally, tally_of(faithful())), (tally_of(faithful()), tally)):
        outcome = outcome_of(*tallies)
        assert outcome.status == 1
        assert table(outcome)[-1].startswith("FAILED: ")


def test_order_of_equal_lines_is_seen_by_number_and_of_others_by_the_digest_too():
    messages = faithful()
    swap_equal_lines(messages)
    assert tally_of(messages).identical
    messages = faithful()
    swap(messages)
    assert not tally_of(messages).identical


@pytest.mark.parametrize("changes", [{"acknowledged": 99}, {"sent": 99, "acknowledged": 99}, {"failure": "it broke"},
                                     {"tallies": ()}])
def test_status_needs_more_than_clean_tallies(changes: Any) -> None:
    tally = tally_of(faithful())
    assert outcome_of(tally, **changes).status == 1


def test_table_shows_every_number():
    rows = table(outcome_of(tally_of(faithful()), replayed=17, cuts=3, survived=3, recovery_times=[0.004, 0.01, 0.3],
                            seconds=0.5))
    text = "\n".join(rows)
    assert rows[1].split() == ["subscriber", "1", "100", "0", "0", "0", "0", "identical"]
    assert "lines sent      100, acknowledged 100, sent again after a cut 17" in text
    assert "cuts survived   3 of 3" in text
    assert "median 10.0 ms, longest 300.0 ms" in text
    assert "200 sent and 200 received in 0.50 s" in text
    assert max(map(len, rows)) < 80
    assert "none to measure" in "\n".join(table(outcome_of(tally_of([]), recovery_times=[], seconds=0.0)))


# ---- files ----------------------------------------------------------------------------------------------------------


def test_short_file_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_bytes(b"1\n2\n3")
    assert len(command.load(str(path), 5)) == command.LINES
    path.write_bytes(b"x" * 900_000)
    assert len(command.load(str(path), 5)) == 9  # 8 MiB are enough
    assert len(command.load(str(path), 50)) == 51  # but every cut needs a line
    path.write_bytes(b"\n" * (command.LINES + 1))
    assert command.load(str(path), 5).repeats == 1


@pytest.mark.parametrize("content, complaint", [
    (b"", "is empty"),
    (b"fine\n" + b"x" * 2**20, "line 2 of"),
    (b"\x00" * (2**20 // 6), "line 1 of"),
    (b"\xff" * 800_000, "line 1 of"),
])
def test_unusable_file_is_named_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, complaint: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert main(["demo", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("simplepubsub demo: ") and captured.err.count("\n") == 1
    assert complaint in captured.err and str(path) in captured.err


def test_missing_file_directory_and_huge_file_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = tmp_path / "huge"
    with open(str(huge), "wb") as file:
        file.truncate(command.MAX_FILE + 1)
    for path, complaint in ((tmp_path / "nothing", "cannot read"), (tmp_path, "is a directory"), (huge, "is larger")):
        assert main(["demo", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and complaint in error


def test_file_name_that_the_terminal_cannot_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "no\udcff\u20ac\n\0.txt"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "\\udcff" in error


@pytest.mark.parametrize("arguments", [["--cuts", "-1"], ["--cuts", "101"], ["--cuts", "many"], ["--cuts", "\u00b2"],
                                       ["--timeout", "0"], ["--timeout", "nan"], ["--timeout", "soon"],
                                       ["--seed", "x"], ["one", "two"]])
def test_bad_arguments_end_with_status_2(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo"] + arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---- whole runs -----------------------------------------------------------------------------------------------------


def test_demo_runs_as_a_command():
    with subprocess_python(RUN, timeout=60) as child:
        result = child.wait()
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("identical") == 2
    assert "cuts survived   5 of 5\n" in result.stdout
    assert result.stdout.endswith("\nEvery line arrived once, in order, byte for byte.\n")
    assert [line.partition(", cut ")[2][:6] for line in result.stdout.splitlines()[1:6]] == [
        "%d of 5" % number for number in range(1, 6)]


def test_demo_ends_by_ctrl_c():
    with subprocess_python(RUN, "--cuts", "100", timeout=60) as child:
        child.wait_line("cut 2 of 100")
        child.interrupt()
        result = child.wait(10)
    assert result.returncode == 130
    assert result.stderr == "simplepubsub demo: interrupted\n"


LOSE_THE_FIRST = """
import sys
from simplepubsub.cli import main
from simplepubsub.demo import command
press = command.CtrlC._press

class Victim:
    def __init__(self, number, frame):
        self.arguments = (number, frame)
    def __del__(self):
        press(ctrl_c, *self.arguments)  # raises where nobody can catch it

def lose(self, number, frame):
    global ctrl_c
    ctrl_c = self
    Victim(number, frame)

command.CtrlC._press = lose
sys.exit(main(["demo", "--cuts", "100"]))
"""


def test_ctrl_c_that_python_loses_ends_the_demo_all_the_same() -> None:
    with subprocess_python(LOSE_THE_FIRST, timeout=60) as child:
        child.wait_line("cut 2 of 100")
        child.interrupt()
        result = child.wait(10)
    assert result.returncode == 130
    assert "KeyboardInterrupt" in result.stderr
    assert result.stderr.endswith("simplepubsub demo: interrupted\n")


def test_ctrl_c_handler_is_put_back():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with command.CtrlC() as ctrl_c:
            ctrl_c.check()
            assert signal.getsignal(signal.SIGINT) == ctrl_c._press
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with command.CtrlC():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_first_connection_that_is_reported_late_is_no_failed_cut() -> None:
    running = play.Play(Text(b"a\n", 9), 1, random.Random(1), 1.0, command.Screen(io.StringIO()), command.CtrlC())
    running._away = {"publisher": 0.0}
    running._is_back("publisher", False)
    assert (running._away, running._failed_cuts) == ({"publisher": 0.0}, set())
    running._is_back("publisher", True)
    assert (running._away, running._failed_cuts, len(running._back)) == ({}, set(), 1)


def test_awkward_bytes_arrive_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LINES", 2000)
    path = tmp_path / "awkward.bin"
    path.write_bytes(AWKWARD)
    status = main(["demo", str(path), "--seed", "1"])
    output = capsys.readouterr().out
    assert status == 0, output
    assert output.count("identical") == 2 and "cuts survived   5 of 5\n" in output


def test_long_lines_arrive(tmp_path: Path, capsys: pytest.CaptureFixture[str], short: None) -> None:
    path = tmp_path / "long.bin"
    path.write_bytes(b"\xfe" * 700_000 + b"\n" + b"a" * 1_000_000 + b"\n")
    status = main(["demo", str(path), "--cuts", "3"])
    output = capsys.readouterr().out
    assert status == 0, output
    assert "cuts survived   3 of 3\n" in output


def test_demo_without_cuts(capsys: pytest.CaptureFixture[str], short: None) -> None:
    assert run(options("--cuts", "0")) == 0
    output = capsys.readouterr().out
    assert "cuts survived   0 of 0\n" in output and "recovery time   none to measure\n" in output


def test_seed_repeats_the_places_of_the_cuts(capsys: pytest.CaptureFixture[str], short: None) -> None:
    places = []
    for _ in range(2):
        assert run(options("--seed", "7", "--cuts", "3")) == 0
        places.append([line for line in capsys.readouterr().out.splitlines() if ", cut " in line])
    assert places[0] == places[1] and len(places[0]) == 3


def test_wrong_number_on_the_way_ends_with_status_1(
    capsys: pytest.CaptureFixture[str], short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play, "encode_line", lambda number, line: encode_line(6 if number == 7 else number, line))
    assert run(options("--cuts", "0")) == 1
    output = capsys.readouterr().out
    assert output.splitlines()[-1].startswith("FAILED: ")
    assert [line.split()[3:5] for line in output.splitlines() if line.startswith("subscriber ")] == [["1", "1"]] * 2


def test_sessions_that_cannot_be_recovered_do_not_count_as_survived(
    capsys: pytest.CaptureFixture[str], short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(play.Server):  # type: ignore[name-defined,misc]
        def start(self) -> Any:
            super().start()
            self.faults.refuse_recovery()
            return self

    monkeypatch.setattr(play, "Server", Forgetful)
    status = run(options("--cuts", "4", "--timeout", str(scaled(2))))
    output = capsys.readouterr().out
    assert "cuts survived   0 of 4\n" in output
    # What was on the way is lost for subscribers and repeated by the publisher, unless a cut hit a quiet moment.
    assert status == ("DIFFERS" in output)
    assert ("FAILED" in output) == bool(status)


def test_network_that_stays_away_ends_with_status_1(
    capsys: pytest.CaptureFixture[str], short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = Relay.cut

    def cut_for_good(relay: Relay, ports: Any) -> int:
        for listener in relay._listeners:
            listener.shutdown(socket.SHUT_RDWR)
        return cut(relay, ports)

    monkeypatch.setattr(Relay, "cut", cut_for_good)
    with run_thread(run, options("--timeout", "0.2", "--cuts", "1")) as running:
        assert running.result(timeout=15) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("FAILED: ") and "nothing has moved for 0.2 s" in last


# ---- the screen -----------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_live_line_is_written_over_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    stream = Terminal()
    screen = command.Screen(stream)
    screen.expect(1000, 2)
    monkeypatch.setattr(command, "UPDATE", 1e9)
    screen.progress(10, 0)
    screen.progress(11, 0)  # too soon to be shown
    screen.cut(500, 1, "everybody")
    screen.say("done")
    shown = stream.getvalue()
    assert "11 of" not in shown
    assert [part.rstrip() for part in shown.split("\r")] == [
        "", "       10 of 1,000 lines, 0 of 2 cuts [..........",
        "      500 of 1,000 lines, 1 of 2 cuts [##########", "", "done"]
    assert all(len(part) < 50 for part in shown.split("\r"))


def test_without_a_terminal_there_is_a_line_for_each_cut():
    stream = io.StringIO()
    screen = command.Screen(stream)
    screen.expect(1000, 2)
    screen.progress(10, 0)
    screen.cut(500, 1, "everybody")
    assert stream.getvalue() == "      500 of 1,000 lines, cut 1 of 2: everybody\n"


# ---- the relay ------------------------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Any:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(8)
        sock.settimeout(scaled(5))
        yield sock


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=scaled(5))


def through(relay: Relay, port: int, listener: socket.socket) -> Tuple[socket.socket, socket.socket]:
    near = dial(port)
    far, _ = listener.accept()
    far.settimeout(scaled(5))
    return near, far


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while True:
        piece = sock.recv(65536)
        if not piece:
            return data
        data += piece


def test_relay_carries_every_byte_both_ways_at_once(listener: socket.socket, seed: int) -> None:
    up, down = (random.Random("%d %s" % (seed, name)).getrandbits(8 * 3_000_000).to_bytes(3_000_000, "big")
                for name in ("up", "down"))
    with Relay(*listener.getsockname()) as relay:
        near, far = through(relay, relay.add_line(), listener)
        with near, far, run_thread(read_all, near) as got_down, run_thread(read_all, far) as got_up:
            with run_thread(near.sendall, up) as sending:
                far.sendall(down)
                sending.result()
            near.shutdown(socket.SHUT_WR)
            assert got_up.result() == up
            far.shutdown(socket.SHUT_WR)  # a half-closed connection still carries the other direction
            assert got_down.result() == down


def test_relay_cuts_the_lines_that_were_named_and_no_other(listener: socket.socket) -> None:
    with Relay(*listener.getsockname()) as relay:
        cut_port, kept_port = relay.add_line(), relay.add_line()
        cut, kept = through(relay, cut_port, listener), through(relay, kept_port, listener)
        with cut[0], cut[1], kept[0], kept[1]:
            assert relay.cut([cut_port]) == 1
            for sock in cut:
                with pytest.raises(ConnectionResetError):
                    sock.recv(1)
            kept[0].sendall(b"x")
            assert kept[1].recv(1) == b"x"
            assert relay.cut([cut_port]) == 0
            again = through(relay, cut_port, listener)
            with again[0], again[1]:
                again[1].sendall(b"y")
                assert again[0].recv(1) == b"y"
                assert relay.cut([cut_port, kept_port]) == 2


def test_relay_passes_a_reset_on(listener: socket.socket) -> None:
    with Relay(*listener.getsockname()) as relay:
        port = relay.add_line()
        near, far = through(relay, port, listener)
        with near:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
                           if sys.platform != "win32" else b"\x01\x00\x00\x00")
            far.close()
            with pytest.raises(ConnectionResetError):
                near.recv(1)


def test_relay_resets_what_it_cannot_connect() -> None:
    with ClosedPort() as closed, Relay("127.0.0.1", closed.port) as relay:
        port = relay.add_line()
        with pytest.raises(ConnectionResetError):  # while connecting, if the relay is quicker
            with dial(port) as near:
                near.recv(1)
