"""Run every Python block of the README as it stands, and check what it and the other documents say.

A block runs in a namespace of its own with `server` and `url` in it. Comments after `print` are what it prints; a line
that prints several times lists the outputs with " | " between them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import urllib.parse
from pathlib import Path
from typing import Any, List, NamedTuple

import pytest

import simplepubsub
from simplepubsub.core.states import TRANSITIONS
from simplepubsub.version import __version__
from simplepubsub.webpubsub.client import EVENTS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(simplepubsub.__file__).resolve().parent
README = (ROOT / "README.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
PRINT = re.compile(r"\bprint\(.*\)+  # (.+)$", re.M)


class Block(NamedTuple):
    """A fenced block; `line` is where its text begins."""

    language: str
    text: str
    line: int


BLOCKS = [Block(match.group(1), match.group(2), README.count("\n", 0, match.start(2)) + 1)
          for match in BLOCK.finditer(README)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
CONSOLE = "".join(block.text for block in BLOCKS if block.language == "console")


def expected_output(source: str) -> List[str]:
    return [line for comment in PRINT.findall(source) for line in comment.split(" | ")]


@pytest.fixture
def clean_logging() -> Any:
    """Undo what a block does to the configuration of logging."""
    root, engine = logging.getLogger(), logging.getLogger("simplepubsub.engine")
    handlers, levels = root.handlers[:], (root.level, engine.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    engine.setLevel(levels[1])


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: "line%d" % block.line)
def test_python_block_runs_as_it_stands(block: Block, server: Any, clean_logging: None) -> None:
    code = compile("\n" * (block.line - 1) + block.text, str(ROOT / "README.md"), "exec")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code, {"__name__": "__main__", "server": server, "url": server.client_access_url("chat")})
    assert output.getvalue().splitlines() == expected_output(block.text)


def test_blocks_cover_what_the_readme_must_show():
    source = "".join(block.text for block in PYTHON)
    for needed in ("join_group(", "receive(timeout=", "for message in client.messages(", '@client.on("group-message")',
                   'client.on("stopped", goodbye)', 'data_type="json"', "ack=False", "send_to_group_nowait(",
                   "flush(", "def restart(", "rejoin-group-failed", "ack_id=error.ack_id", "def negotiate(",
                   "server.faults.", "logging", "no_echo=True"):
        assert needed in source, needed
    assert sum(len(expected_output(block.text)) for block in PYTHON) > 20


def test_the_two_lines_are_there():
    assert "pip install '.[server]' && simplepubsub demo\n" in CONSOLE
    assert "pip install tox && tox\n" in CONSOLE


def test_console_commands_exist():
    for command in re.findall(r"simplepubsub (\w+)", CONSOLE):
        assert command in ("demo", "serve")


def test_every_event_is_in_the_table():
    assert re.findall(r"^\| `([a-z-]+)` \| [^|]* \| [^|]* \|$", README, re.M) == sorted(
        EVENTS, key=["connected", "recovered", "disconnected", "stopped", "group-message", "server-message",
                     "rejoin-group-failed", "gap", "error"].index)


def test_names_of_errors_exist():
    section = README.partition("\n## Errors\n")[2].partition("\n## ")[0]
    names = set(re.findall(r"`([A-Z]\w+)`", section)) - {"ValueError", "TimeoutError"}
    assert len(names) > 12
    for name in names:
        assert issubclass(getattr(simplepubsub, name), simplepubsub.SimplePubSubError), name


@pytest.mark.parametrize("document", sorted(str(path.relative_to(ROOT)) for path in
                                            [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]))
def test_links_to_files_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
        if not urllib.parse.urlsplit(target).scheme:
            assert (path.parent / target).exists(), target


def test_changelog_has_this_version():
    assert re.search(r"^## %s - \d{4}-\d\d-\d\d$" % re.escape(__version__),
                     (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)


# ---- docs/architecture.md -------------------------------------------------------------------------------------------


def section(title: str) -> List[List[str]]:
    """Return the cells of the table below a heading, without its head."""
    text = ARCHITECTURE.partition("\n## %s\n" % title)[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return rows[2:]


def test_states_are_those_of_the_program():
    table = {(state, reason): target for state, reason, target in section("States")}
    assert table == {(str(state), str(reason)): str(target) for (state, reason), target in TRANSITIONS.items()}


def test_every_module_with_a_lock_is_in_the_table():
    listed = {name for row in section("Locks") for name in re.findall(r"`([\w/]+\.py)`", row[1])}
    made = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")
            if re.search(r"threading\.(R?Lock|Condition)\(", path.read_text("utf-8"))}
    assert listed == made


def test_modules_that_the_documents_name_exist():
    for name in set(re.findall(r"`((?:core|transports|webpubsub|server|demo)/\w+\.py)`", ARCHITECTURE)):
        assert (PACKAGE / name).is_file(), name
