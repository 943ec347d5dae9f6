"""Foreign peers, such as the official SDKs: skip with a reason where one is missing, or fail where they are required.

With SIMPLEPUBSUB_REQUIRE_PEERS=1 a missing peer is a failure, so that a run that claims to have met them has met them.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import warnings
from typing import Any, NoReturn, Optional, Tuple

import pytest

#: Whether a missing peer fails the test that wants it.
REQUIRED = os.environ.get("SIMPLEPUBSUB_REQUIRE_PEERS", "") not in ("", "0")


def _missing(what: str, why: str) -> NoReturn:
    reason = f"{what} is not installed; wanted for: {why}"
    if REQUIRED:
        pytest.fail(f"{reason} (SIMPLEPUBSUB_REQUIRE_PEERS is set)", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def require(module_name: str, why: str, *, python: Optional[Tuple[int, int]] = None) -> Any:
    """Import and return a foreign module, at the top of a test module or inside a test.

    A missing one skips the test, or fails it when peers are required. `python` is the oldest version the peer supports:
    an older interpreter always skips. A module that is there but fails to import raises as it does.
    """
    if python is not None and sys.version_info[:2] < python:
        pytest.skip(f"{module_name} needs Python {python[0]}.{python[1]}; wanted for: {why}", allow_module_level=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a peer deprecates is no failure of ours
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the peer is there; something it needs is not
        _missing(module_name, why)


def require_command(name: str, why: str) -> str:
    """Return the path of an executable on PATH, with the same rule as `require`."""
    path = shutil.which(name)
    if path is None:
        _missing(f"the command {name}", why)
    return path


def require_node_packages(directory: str, why: str) -> str:
    """Return the path of node when the packages of the package.json in `directory` are installed there, exactly.

    Same rule as `require`; `install.py` in that directory installs them.
    """
    node = require_command("node", why)
    with open(os.path.join(directory, "package.json"), encoding="utf-8") as file:
        wanted = json.load(file)["dependencies"]
    for name, version in wanted.items():
        try:
            with open(os.path.join(directory, "node_modules", name, "package.json"), encoding="utf-8") as file:
                found = json.load(file)["version"]
        except FileNotFoundError:
            found = None
        if found != version:
            _missing(f"the Node package {name} {version}, which install.py in {os.path.basename(directory)} gets,", why)
    return node
