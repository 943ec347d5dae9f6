"""Hold the package to its layers: who may import whom, what never appears, how long a module may be.

The rule (docs/architecture.md): exceptions <- core <- transports <- {webpubsub, socketio, websockets} <- command line.
The server stands beside the client: it shares the frames and the codecs, and nothing else of it. Source is parsed, not
run, so an import inside a function counts like any other.
"""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import pytest

import simplepubsub
from tests import peers

PACKAGE = Path(simplepubsub.__file__).resolve().parent

#: A longer module has more than one job.
MAX_LINES = 400

#: What the modules of a layer may import of the other layers. Its own layer is always allowed.
FACES = {"exceptions", "version", "lazy", "core", "transports"}
MAY_IMPORT: Dict[str, Set[str]] = {
    "exceptions": set(),
    "version": set(),
    "lazy": set(),
    "core": {"exceptions", "version"},
    "transports": {"exceptions", "version", "core"},
    "webpubsub": FACES,
    "socketio": FACES,
    "websockets": FACES,
    "server": {"exceptions", "version"},
    "root": {"exceptions", "version", "lazy", "webpubsub", "socketio", "websockets"},
    "cli": {"exceptions", "version", "core", "transports", "webpubsub", "socketio", "websockets", "server", "root"},
}

#: The single modules that the server may import besides.
SERVER_SHARES = {
    "simplepubsub.transports.frames",
    "simplepubsub.transports.handshake",
    "simplepubsub.webpubsub.access_tokens",
    "simplepubsub.webpubsub.cloud_events",
    "simplepubsub.webpubsub.json_codec",
    "simplepubsub.webpubsub.json_fields",
    "simplepubsub.webpubsub.json_streams",
    "simplepubsub.webpubsub.messages",
    "simplepubsub.webpubsub.protobuf_codec",
    "simplepubsub.webpubsub.protobuf_fields",
    "simplepubsub.webpubsub.protobuf_streams",
}

#: Top-level modules of the command line.
COMMAND_LINE = {"cli", "demo", "__main__"}

#: The engine opens no socket; every way to one starts with one of these.
NO_SOCKET = {"aiohttp", "asyncio", "http", "requests", "select", "selectors", "socket", "socketserver", "ssl", "urllib",
             "urllib3", "websocket"}

#: The package is for code without an event loop; only the server has one, in a thread of its own.
EVENT_LOOPS = {"aiohttp", "asyncio", "uvloop"}

#: The exception: it is called inside the event loop of an ASGI web server, and imported by nobody else.
INSIDE_A_LOOP = {"simplepubsub.webpubsub.event_asgi": {"asyncio"}}

#: Distributions behind an extra: a module of the package that needs one is looked at when it is installed.
EXTRAS = ("aiohttp", "google", "redis", "orjson")


class Module(NamedTuple):
    """A module of the package, or an invented one."""

    name: str
    source: str
    is_package: bool = False

    @property
    def layer(self) -> Optional[str]:
        """The layer it belongs to, or None for a top-level module nobody has placed."""
        return layer_of(self.name)


def layer_of(name: str) -> Optional[str]:
    parts = name.split(".")
    if len(parts) == 1:
        return "root"
    if parts[1] in COMMAND_LINE:
        return "cli"
    return parts[1] if parts[1] in MAY_IMPORT and parts[1] not in ("root", "cli") else None


def modules() -> List[Module]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("simplepubsub",) + path.relative_to(PACKAGE).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found.append(Module(name, path.read_text("utf-8"), is_package))
    return found


MODULES = modules()
NAMES = {module.name for module in MODULES}


def imports(module: Module) -> Iterator[Tuple[int, str]]:
    """Yield (line, absolute name) of every import, those inside functions and under TYPE_CHECKING included."""
    for node in ast.walk(ast.parse(module.source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.name.split(".")
                package = package[:len(package) - node.level + module.is_package]
                base = ".".join(package + ([base] if base else []))
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if whole in NAMES else base


def complaints(module: Module) -> List[str]:
    """Return what is wrong with one module, each as "name:line: what"."""
    found = []
    layer = module.layer

    def complain(line: int, what: str) -> None:
        found.append(f"{module.name}:{line}: {what}")

    if layer is None:
        complain(1, "belongs to no layer: place it in tests/test_layers.py")
        return found
    for line, target in imports(module):
        top = target.split(".")[0]
        if top == "simplepubsub":
            other = layer_of(target)
            shared = layer == "server" and target in SERVER_SHARES
            if other != layer and other not in MAY_IMPORT[layer] and not shared:
                complain(line, f"{layer} must not import {target}")
        elif layer == "core" and top in NO_SOCKET and target != "urllib.parse":
            complain(line, f"the engine opens no socket, and so does not import {target}")
        elif layer != "server" and top in EVENT_LOOPS - INSIDE_A_LOOP.get(module.name, set()):
            complain(line, f"no {target} outside the server")
    for line, what in banned_calls(module, layer):
        complain(line, what)
    length = len(module.source.splitlines())
    if length > MAX_LINES and not module.name.endswith("_pb2"):
        complain(length, f"{length} lines, more than {MAX_LINES}")
    return found


def banned_calls(module: Module, layer: str) -> Iterator[Tuple[int, str]]:
    tree = ast.parse(module.source)
    times = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names if alias.name == "time"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time" and not node.level:
            if any(alias.name in ("sleep", "*") for alias in node.names):
                yield node.lineno, "no time.sleep: wait for an event with a bound"
        elif isinstance(node, ast.Attribute) and node.attr == "sleep":
            if isinstance(node.value, ast.Name) and node.value.id in times:
                yield node.lineno, "no time.sleep: wait for an event with a bound"
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print" and layer != "cli":
            yield node.lineno, "no print outside the command line: log"


def test_every_module_keeps_to_its_layer() -> None:
    assert [complaint for module in MODULES for complaint in complaints(module)] == []


@pytest.mark.skipif(sys.version_info < (3, 8), reason="3.7 cannot parse anything newer than itself anyway")
def test_every_module_is_python_37() -> None:
    for module in MODULES:
        ast.parse(module.source, module.name, feature_version=(3, 7))


def exports(module: Module) -> bool:
    return any(isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
               for node in ast.parse(module.source).body)


EXPORTING = [module for module in MODULES if exports(module)]


@pytest.mark.parametrize("module", EXPORTING, ids=lambda module: module.name)
def test_every_exported_name_resolves_and_is_exported_once(module: Module) -> None:
    try:
        loaded = importlib.import_module(module.name)
    except ImportError as error:
        extra = (error.name or "").split(".")[0]
        if extra not in EXTRAS:
            raise
        peers.require(extra, f"importing {module.name}")
        raise
    names = list(loaded.__all__)
    assert [name for name in names if not hasattr(loaded, name)] == []
    assert len(names) == len(set(names))
    assert [name for name in names if name.startswith("_") and name != "__version__"] == []


def test_every_public_package_exports_names() -> None:
    public = {f"simplepubsub.{name}" for name in ("webpubsub", "socketio", "websockets", "server")}
    assert (public & NAMES) - {module.name for module in EXPORTING} == set()


# ---- the rule itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, source, complaint", [
    ("core.x", "from ..transports import frames", "core must not import simplepubsub.transports"),
    ("core.x", "def f():\n    import simplepubsub.webpubsub.client", "core must not import simplepubsub.webpubsub"),
    ("core.x", "from .. import exceptions, __doc__", "core must not import simplepubsub"),
    ("core.x", "import socket", "opens no socket"),
    ("core.x", "from urllib.request import urlopen", "opens no socket"),
    ("exceptions", "from .core import deadline", "exceptions must not import simplepubsub.core"),
    ("transports.x", "from ..webpubsub import messages", "transports must not import simplepubsub.webpubsub.messages"),
    ("socketio.x", "from ..webpubsub import client", "socketio must not import simplepubsub.webpubsub"),
    ("webpubsub.x", "from ..server import Server", "webpubsub must not import simplepubsub.server"),
    ("webpubsub.x", "import asyncio.events", "no asyncio.events outside the server"),
    ("webpubsub.event_asgi", "import aiohttp", "no aiohttp outside the server"),
    ("server.x", "from ..core import deadline", "server must not import simplepubsub.core"),
    ("server.x", "from ..webpubsub import WebPubSubClient", "server must not import simplepubsub.webpubsub"),
    ("server.x", "from ..transports import dial", "server must not import simplepubsub.transports"),
    ("utils", "", "belongs to no layer"),
    ("core.x", "import time as t\nt.sleep(1)", "x:2: no time.sleep"),
    ("server.x", "from time import monotonic, sleep", "no time.sleep"),
    ("server.x", "print(1)", "no print"),
    ("core.x", "pass\n" * 401, "401 lines"),
])
def test_the_check_finds(name: str, source: str, complaint: str) -> None:
    found = complaints(Module(f"simplepubsub.{name}", source))
    assert len(found) == 1 and complaint in found[0]


@pytest.mark.parametrize("name, source", [
    ("core.x", "from ..exceptions import E\nfrom . import deadline\nfrom urllib.parse import quote\nimport threading"),
    ("transports.x", "import socket, ssl, requests\nfrom ..core.protocol import Transport"),
    ("webpubsub.x", "from .. import version\nfrom ..transports.frames import TEXT\nfrom .messages import Message"),
    ("server.x", "import asyncio\nfrom ..webpubsub import messages\nfrom ..transports import frames\nasyncio.sleep"),
    ("cli", "import simplepubsub\nfrom .server import Server\nprint(1)"),
    ("core.x", "pass\n" * 400),
    ("core.x", "self.clock.sleep(1)\nlog.print(1)"),
])
def test_the_check_accepts(name: str, source: str) -> None:
    assert complaints(Module(f"simplepubsub.{name}", source)) == []
