"""Who is in a forked child knows it, and the parent is not told."""

from __future__ import annotations

import os

import pytest

from simplepubsub.core.forks import Birthplace
from tests.helpers import run_python

SCRIPT = """
import os
from simplepubsub.core.forks import Birthplace

here = Birthplace()

def in_child(task):
    pid = os.fork()
    if not pid:
        os._exit(task())
    return os.waitpid(pid, 0)[1] >> 8

def child():
    own = Birthplace()
    return 10 * here.left + own.left + 2 * in_child(lambda: 10 * here.left + own.left)

print(here.left, in_child(child), here.left)
"""


def test_where_it_was_made():
    assert not Birthplace().left


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_in_a_child_and_in_its_child():
    assert run_python(SCRIPT).stdout.split() == ["False", "32", "False"]
