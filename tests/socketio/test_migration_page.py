"""The migration page names a test for every known weakness, and the tests and names on it exist."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from simplepubsub import socketio
from simplepubsub.socketio.handlers import HOOKS

HERE = Path(__file__).resolve().parent
PAGE = (HERE.parent.parent / "docs" / "socketio.md").read_text("utf-8")
ROWS = re.findall(r"^\| W(\d+) \|.*\| `(\w+\.py)::(\w+)` \|$", PAGE, re.M)


def test_every_weakness_is_there() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 43))


@pytest.mark.parametrize("number, module, name", ROWS, ids=lambda value: str(value))
def test_the_tests_exist(number: str, module: str, name: str) -> None:
    assert re.search(r"^def %s\(" % name, (HERE / module).read_text("utf-8"), re.M)


def test_the_options_on_the_page_exist() -> None:
    parameters = set(inspect.signature(socketio.Client.__init__).parameters)
    named = set(re.findall(r"\bClient\((\w+)=", PAGE))
    assert named and named <= parameters
    for name in re.findall(r"`sio\.(\w+)\(|@sio\.(\w+)", PAGE):
        name = name[0] or name[1]
        assert hasattr(socketio.Client, name) or hasattr(socketio.SimpleClient, name), name
    assert all("`%s`" % hook in PAGE or '"%s"' % hook in PAGE for hook in HOOKS)
