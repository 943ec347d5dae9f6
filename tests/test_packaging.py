"""Check that the package ships what its users and its metadata promise."""

from __future__ import annotations

import configparser
import importlib
import re
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import simplepubsub
from simplepubsub.version import __version__

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(simplepubsub.__file__).resolve().parent

if sys.version_info >= (3, 8):
    from importlib import metadata
else:
    import importlib_metadata as metadata


@pytest.fixture
def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run setup.py against a stand-in for setuptools, which environments of Python 3.12 and later do not have."""
    arguments: dict[str, Any] = {}
    setuptools = types.ModuleType("setuptools")
    setuptools.setup = arguments.update  # type: ignore[attr-defined]
    setuptools.find_packages = lambda include: include  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "setuptools", setuptools)
    runpy.run_path(str(ROOT / "setup.py"))
    return arguments


def interpreters_in_tox() -> list[str]:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(str(ROOT / "tox.ini"), encoding="utf-8")
    factors = re.search(r"^py\{([\d,]+)\}$", tox["tox"]["env_list"], re.M)
    assert factors
    return [f"{factor[0]}.{factor[1:]}" for factor in factors.group(1).split(",")]


def test_licence_text_in_the_package_is_the_licence():
    assert (PACKAGE / "LICENSE.txt").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_type_marker_ships():
    assert (PACKAGE / "py.typed").is_file()


def test_package_data_names_the_shipped_files(setup_arguments):
    assert sorted(setup_arguments["package_data"]["simplepubsub"]) == ["LICENSE.txt", "py.typed"]


def test_version_is_written_once(setup_arguments):
    assert re.match(r"\d+\.\d+\.\d+\Z", __version__)
    assert setup_arguments["version"] == __version__
    assert simplepubsub.__version__ == __version__


def test_supported_interpreters_agree(setup_arguments):
    classifier = "Programming Language :: Python :: 3."
    declared = ["3." + c[len(classifier) :] for c in setup_arguments["classifiers"] if c.startswith(classifier)]
    assert declared == interpreters_in_tox()
    assert setup_arguments["python_requires"] == ">=" + declared[0]


def test_every_requirement_has_both_bounds(setup_arguments):
    requirements = sum(setup_arguments["extras_require"].values(), setup_arguments["install_requires"])
    unbounded = [r for r in requirements if not re.match(r"[\w-]+>=[\d.]+,<\d+\Z", r)]
    assert not unbounded


def test_console_script_target_exists(setup_arguments):
    (script,) = setup_arguments["entry_points"]["console_scripts"]
    name, module, function = re.match(r"(\w+) = ([\w.]+):(\w+)\Z", script).groups()
    assert name == "simplepubsub"
    assert callable(getattr(importlib.import_module(module), function))


def test_installed_wheel_is_whole(setup_arguments):
    # Only a wheel has a RECORD; the egg-info directory that a build leaves in the source tree has none.
    wheels = [d for d in metadata.distributions() if d.metadata["Name"] == "simplepubsub" and d.read_text("RECORD")]
    if not wheels:
        pytest.skip("run from a checkout that is not installed")
    (wheel,) = wheels
    assert wheel.version == __version__
    assert wheel.metadata["Requires-Python"] == setup_arguments["python_requires"]
    source = ROOT / "simplepubsub"
    wanted = {f.relative_to(ROOT).as_posix() for f in source.rglob("*") if f.suffix in (".py", ".typed", ".txt")}
    shipped = {f.as_posix() for f in wheel.files if f.parts[0] == "simplepubsub" and f.suffix != ".pyc"}
    assert sorted(wanted - shipped) == [], "not shipped: is there a directory without __init__.py?"
    assert sorted(shipped - wanted) == [], "no longer in the source: delete build/, setuptools ships what it left there"
