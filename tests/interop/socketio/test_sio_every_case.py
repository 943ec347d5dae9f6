"""Each of the 72 cases of the protocol reference, section 6.2, has a test of its number, or a line in a table."""

from __future__ import annotations

import os
import re
from typing import Dict, List

import pytest

from tests.children import REPOSITORY
from tests.interop.socketio.servers import HERE

pytestmark = pytest.mark.interop

TABLE = re.compile(r"^(\d+) +(test_\w+\.py)::(test_\w+)", re.MULTILINE)


def sources() -> Dict[str, str]:
    found = {}
    for directory in (HERE, os.path.join(REPOSITORY, "tests", "socketio")):
        for name in os.listdir(directory):
            if name.startswith("test_") and name.endswith(".py"):
                with open(os.path.join(directory, name), encoding="utf-8") as file:
                    found[name] = file.read()
    return found


def test_every_case_is_proved_somewhere() -> None:
    tests: Dict[str, List[str]] = {name: re.findall(r"def (test_\w+)", text) for name, text in sources().items()}
    here = {name: text for name, text in sources().items() if name.startswith("test_sio_")}
    cases = {int(number) for name in here for test in tests[name] for number in re.findall(r"case_(\d+)", test)}
    for text in here.values():
        for number, name, test in TABLE.findall(text):
            assert test in tests[name], (number, name, test)
            cases.add(int(number))
    assert cases == set(range(1, 73)), sorted(set(range(1, 73)) ^ cases)
