"""Fixtures for foreign peers."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from tests.node import Node


@pytest.fixture
def node() -> Iterator[Any]:
    """A Node process with the official JavaScript packages; what it writes to standard error fails the test."""
    with Node() as process:
        yield process
        errors = process.output("stderr")
    assert not errors, f"Node complained:\n{errors}"
