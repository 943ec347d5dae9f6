"""Run every Python block of docs/websockets.md as it stands, in order, and check what the guide says about names."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from pathlib import Path
from typing import Dict, List

import simplepubsub
from simplepubsub import websockets
from simplepubsub.websockets import channel, intake
from simplepubsub.websockets import connection as connection_module
from simplepubsub.websockets.client import Plan

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "websockets.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
PRINT = re.compile(r"\bprint\(.*\)+  # (.+)$", re.M)


def test_the_blocks_run_and_print_what_they_say() -> None:
    names = {"__name__": "__main__"}
    for number, block in enumerate(BLOCKS):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(block, "block %d of docs/websockets.md" % number, "exec"), names)
        assert output.getvalue().splitlines() == PRINT.findall(block)
    assert len(PRINT.findall("".join(BLOCKS))) >= 20


def rows(head: str) -> List[List[str]]:
    """Return the cells of a table, without its head."""
    table = TEXT.partition("| %s |" % head)[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def options(function: str) -> Dict[str, str]:
    """Return what the table of a function's options says: name -> default."""
    return {name: cells[1] for cells in rows("option of `%s`" % function) for name in re.findall(r"`(\w+)`", cells[0])}


def signature_of(function: object) -> Dict[str, object]:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return {p.name: p.default for p in parameters if p.name not in ("self", "uri", "handler", "options")}


def check(written: Dict[str, str], real: Dict[str, object]) -> None:
    assert set(written) == set(real)
    for name, default in written.items():
        if re.fullmatch(r'[\d.]+|True|False|None|".*"', default):
            assert eval(default) == real[name], name


def test_options_and_their_defaults_are_those_of_the_functions() -> None:
    check(options("connect"), signature_of(Plan.__init__))
    check(options("serve"), signature_of(websockets.serve))
    check({k: v for k, v in options("reconnect").items() if k != "connect"}, signature_of(websockets.reconnect))
    shared = {name: default for name, default in signature_of(Plan.__init__).items() if "_" in name}
    for name, default in signature_of(websockets.serve).items():
        assert name not in shared or shared[name] == default, name  # "as for connect"


def test_members_are_those_of_the_classes() -> None:
    heads = {"member of a connection": websockets.ServerConnection, "member of a server": websockets.Server}
    for head, kind in heads.items():
        for cells in rows(head):
            for name, arguments in re.findall(r"`(\w+)(\([^`]*\))?`", cells[0]):
                if arguments:
                    method = getattr(kind, name)
                    written = "def f(self, %s): pass" % arguments[1:-1]
                    scope: Dict[str, object] = {}
                    exec(written, scope)
                    assert [(p.name, p.default, p.kind) for p in inspect.signature(method).parameters.values()] == [
                        (p.name, p.default, p.kind)
                        for p in inspect.signature(scope["f"]).parameters.values()], name  # type: ignore[arg-type]


def test_no_member_is_missing() -> None:
    written = {name for cells in rows("member of a connection") for name in re.findall(r"`(\w+)[`(]", cells[0])}
    public = {name for name in vars(websockets.ServerConnection.__mro__[1]) if not name.startswith("_")}
    assert public - written == {"offer"}  # what `broadcast` uses
    written = {name for cells in rows("member of a server") for name in re.findall(r"`(\w+)[`(]", "".join(cells))}
    assert {name for name in vars(websockets.Server) if not name.startswith("_")} - written == {"fail"}


def test_names_that_the_guide_uses_exist() -> None:
    with websockets.serve(lambda connection: None) as server:
        with websockets.connect("ws://localhost:%d" % server.port) as connection:
            for cells in rows("member of a connection"):
                for name in re.findall(r"`(\w+)[`(]", cells[0]):
                    assert hasattr(connection, name) or hasattr(websockets.ServerConnection, name), name
        for cells in rows("member of a server"):
            for name in re.findall(r"`(\w+)[`(]", cells[0]):
                assert hasattr(server, name), name


def test_names_of_errors_are_those_of_the_package() -> None:
    named = [name for cells in rows("error") for name in re.findall(r"`(\w+)`", cells[0])]
    assert len(named) == 13
    for name in named:
        error = getattr(websockets, name, None) or getattr(simplepubsub, name)
        assert issubclass(error, simplepubsub.SimplePubSubError), name
    for ours, name in re.findall(r"`(\w+)` is `(\w+)`", TEXT):
        assert getattr(websockets, ours) is getattr(simplepubsub, name)
    for name in websockets.__all__:
        kind = getattr(websockets, name)
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert name in named, name


def test_limits_are_those_of_the_program() -> None:
    assert connection_module.BROADCAST_LIMIT == 2**20
    assert channel.Settings().write_limit == 64 * 1024
    assert intake.QUEUE_BYTES == intake.HELD_BYTES == 16 * 2**20


def test_links_to_files_lead_somewhere() -> None:
    targets = re.findall(r"\]\(((?!https?:)[^)#]+)\)", TEXT)
    assert len(targets) > 5
    for target in targets:
        assert (ROOT / "docs" / target).exists(), target
