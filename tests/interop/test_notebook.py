"""The notebook of the examples in a real kernel, as Jupyter runs it. Its output is what its comments say."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests import peers
from tests.helpers import run_python
from tests.test_websocket_examples import EXAMPLES

pytestmark = pytest.mark.interop

#: In a process of its own: the kernel's client has threads and an event loop that are not ours to judge.
EXECUTE = """
import asyncio, json, os, sys, tempfile
if sys.platform == "win32":
    asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())
import nbclient, nbformat, zmq
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

class Manager(AsyncKernelManager):
    # Ports are chosen here and bound by the kernel a second later: somebody else may have them by then. Files are ours.
    def __init__(self, **options):
        super().__init__(**options)
        if zmq.has("ipc"):
            self.transport, self.ip = "ipc", os.path.join(directory, "kernel")

    # This interpreter's kernel, whatever is or is not registered on the machine.
    @property
    def kernel_spec(self):
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="python", language="python")

document = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(document)
with tempfile.TemporaryDirectory() as directory:  # the path of a socket must be short
    nbclient.NotebookClient(document, timeout=90, startup_timeout=90, kernel_manager_class=Manager).execute()
print(json.dumps([cell.outputs for cell in document.cells if cell.cell_type == "code"]))
"""


def execute(tmp_path: Any) -> Any:
    peers.require("nbclient", "running the notebook")
    peers.require("ipykernel", "running the notebook")
    environment = {name: str(tmp_path / name.lower()) for name in
                   ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    environment["JUPYTER_PLATFORM_DIRS"] = "1"
    result = run_python(EXECUTE, str(EXAMPLES / "notebook.ipynb"), env=environment, timeout=60)
    return json.loads(result.stdout)


def test_every_cell_shows_what_its_comments_say(tmp_path: Any) -> None:
    outputs = execute(tmp_path)
    document = json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == "code"]
    assert len(outputs) == len(cells)
    for source, shown in zip(cells, outputs):
        assert all(item.get("name") != "stderr" for item in shown), shown
        printed = "".join(item["text"] for item in shown if item["output_type"] == "stream")
        assert printed.splitlines() == re.findall(r"^ *print\(.*\)  # (.+)$", source, re.M), source


def test_a_client_shows_a_card(tmp_path: Any) -> None:
    cards = [item["data"] for shown in execute(tmp_path) for item in shown if item["output_type"] == "execute_result"]
    assert len(cards) == 1 and "ann" in cards[0]["text/html"]
