"""The blocks of the README's Socket.IO section, as they stand but for the address, against the real servers."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from tests.test_readme import expected_output

pytestmark = pytest.mark.interop

README = Path(__file__).resolve().parent.parent.parent.parent / "README.md"
BLOCKS = re.findall(r"^```py\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
ADDRESS = "http://localhost:5000"


@pytest.mark.parametrize("number", range(2))
def test_block(number: int, peer: Any) -> None:
    source = BLOCKS[number]
    assert ADDRESS in source
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(source.replace(ADDRESS, peer.url), "README.md", "exec"), {"__name__": "__main__"})
    assert output.getvalue().splitlines() == expected_output(source)


def test_that_is_all() -> None:
    assert len(BLOCKS) == 2
