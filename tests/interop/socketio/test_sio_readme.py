"""The blocks of the README's Socket.IO section, as they stand but for address and patience, with the real servers."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from pathlib import Path
from typing import Any

import pytest

from simplepubsub import socketio
from tests.helpers import scaled
from tests.test_readme import expected_output

pytestmark = pytest.mark.interop

README = Path(__file__).resolve().parent.parent.parent.parent / "README.md"
BLOCKS = re.findall(r"^```py\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
ADDRESS = "http://localhost:5000"


@pytest.mark.parametrize("number", range(2))
def test_block(number: int, peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for made in (socketio.Client, socketio.SimpleClient):
        patient = functools.partialmethod(made.connect, wait_timeout=scaled(20))
        monkeypatch.setattr(made, "connect", patient)
    source = BLOCKS[number].replace("timeout=5", "timeout=%g" % scaled(20))
    assert ADDRESS in source
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(source.replace(ADDRESS, peer.url), "README.md", "exec"), {"__name__": "__main__"})
    assert output.getvalue().splitlines() == expected_output(source)


def test_that_is_all() -> None:
    assert len(BLOCKS) == 2
