"""Autobahn's fuzzing suite against both ends, where its Python 2.7 environment has been made.

Not a peer that tox installs: `python tests/interop/autobahn/suite.py` makes the environment.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.children import REPOSITORY, Child

DIRECTORY = os.path.join(REPOSITORY, "tests", "interop", "autobahn")
INSTALLED = os.path.exists(os.path.join(REPOSITORY, ".tox", "autobahn", "stamp"))

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not INSTALLED, reason="no environment: python tests/interop/autobahn/suite.py makes it"),
]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("end", ["connect", "serve"])
def test_no_case_fails(end):
    with Child([sys.executable, os.path.join(DIRECTORY, "run.py"), "--only", end], timeout=300) as child:
        result = child.wait()
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{end}: 301 cases" in result.stdout
