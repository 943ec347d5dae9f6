"""Run every Python block of docs/server.md as it stands, and check what the guide says about names."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from simplepubsub import server as server_package
from simplepubsub.cli import _parser
from simplepubsub.server import Server
from simplepubsub.server.faults import Faults

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "server.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
PRINT = re.compile(r"\bprint\(.*\)+  # (.+)$", re.M)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs_and_prints_what_its_comments_say(number: int) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(BLOCKS[number], "block %d of docs/server.md" % number, "exec"), {"__name__": "guide"})
    assert printed.getvalue().splitlines() == PRINT.findall(BLOCKS[number])


def test_the_command_is_accepted() -> None:
    command = re.search(r"^```console\n(simplepubsub serve .*?)\n```$", TEXT, re.M)
    assert command is not None
    assert _parser().parse_args(shlex.split(command.group(1))[1:]).command == "serve"


def test_every_option_and_fault_exists() -> None:
    table = TEXT.partition("| option of `Server` |")[2].partition("\n\n")[0]
    options = set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[2:] if line)))
    assert options >= {"host", "port", "limits"}
    assert options <= set(Server.__init__.__annotations__)
    section = TEXT.partition("\n## Faults on demand\n")[2].partition("\n## ")[0]
    faults = set(re.findall(r"`(\w+)\(", section))
    assert len(faults) >= 9
    assert all(hasattr(Faults, name) for name in faults)
    on_the_wire = {"InternalServerError", "InvocationFailed", "BadRequest"}
    for name in set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", TEXT)) - on_the_wire:
        assert hasattr(server_package, name) or name == "EventHandler", name
