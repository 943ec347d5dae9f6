"""Run every example of plain WebSocket, and the notebook, as they stand: servers until Ctrl-C, the others to their end.

What the two pages do in a browser is in tests/interop/test_browser.py, the notebook in a kernel in test_notebook.py.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import ssl
import urllib.request
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from simplepubsub import websockets
from tests.helpers import run_python, subprocess_python, wait_until

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

RUN = "import runpy, sys\npath = sys.argv.pop(1)\nsys.argv[0] = path\nrunpy.run_path(path, run_name='__main__')"

#: How to run each: "server" until Ctrl-C, "client" of one of them, "alone" to its end.
KINDS = {
    "websocket_both.py": "server",
    "websocket_broadcast.py": "server",
    "websocket_consumer.py": "server",
    "websocket_counter.py": "server",
    "websocket_echo.py": "alone",
    "websocket_hello_client.py": "client",
    "websocket_hello_server.py": "server",
    "websocket_legacy_threads.py": "alone",
    "websocket_producer.py": "server",
    "websocket_pubsub.py": "alone",
    "websocket_secure_client.py": "client",
    "websocket_secure_server.py": "server",
    "websocket_terminal.py": "client",
    "websocket_time.py": "server",
}


def start(name: str, *arguments: str) -> Any:
    return subprocess_python(RUN, str(EXAMPLES / name), *arguments, timeout=60)


class Running:
    """An example that serves: `uri`, and the child process."""

    def __init__(self, child: Any) -> None:
        self.child = child
        self._interrupted = False
        self.address = re.search(r"(wss?|http)://localhost:\d+", child.wait_line("://localhost:", 30)).group()
        self.uri = self.address.replace("http:", "ws:")

    def connect(self, **options: Any) -> Any:
        return websockets.connect(self.uri, **options)

    def wait_line(self, text: str) -> None:
        self.child.wait_line(text, 20)

    def interrupt(self) -> None:
        """Press Ctrl-C, once."""
        if not self._interrupted:
            self._interrupted = True
            self.child.interrupt()


@contextlib.contextmanager
def serving(name: str, *arguments: str) -> Iterator[Running]:
    """Run a server on a free port; at the end it must stop at Ctrl-C, soon and without a word."""
    with start(name, "0", *arguments) as child:
        running = Running(child)
        yield running
        running.interrupt()
        result = child.wait(20)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def talk(name: str, uri: str, *arguments: str, say: str = "") -> str:
    """Run a client with one line of input and return what it prints."""
    with start(name, uri, *arguments) as child:
        with contextlib.suppress(BrokenPipeError):  # one that asks for nothing may be through already
            child.send_line(say)
        with contextlib.suppress(BrokenPipeError):
            child.process.stdin.close()
        result = child.wait()
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_every_example_is_known_and_short() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("websocket_*.py")) == sorted(KINDS)
    for name in KINDS:
        assert len((EXAMPLES / name).read_text("utf-8").splitlines()) < 40, name


def test_every_example_has_its_line_in_the_gallery() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| \[`(\w+\.\w+)`\]\(examples/(\w+\.\w+)\) \| .+ \|$", readme, re.M)
    assert all(shown == target for shown, target in rows)
    there = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    assert sorted(name for name, _ in rows) == sorted(there)


@pytest.mark.parametrize("name", sorted(name for name, kind in KINDS.items() if kind == "server"))
def test_a_server_without_clients_and_with_one_stops_at_ctrl_c(name: str, tmp_path: Path) -> None:
    pytest.importorskip("trustme")
    files = [str(tmp_path / "ca.pem")] if "secure" in name else []
    with serving(name, *files):
        pass
    with serving(name, *files) as running, contextlib.ExitStack() as stack:
        options = {"ssl": ssl.create_default_context(cafile=files[0])} if files else {}
        client = stack.enter_context(running.connect(**options))
        running.interrupt()
        with pytest.raises(websockets.ConnectionClosedOK) as caught:
            while True:
                client.recv(timeout=30)
        assert caught.value.code == 1001


def test_echo() -> None:
    expected = "sent 'Hello world!', received 'Hello world!'\nsent b'\\x00\\xff', received b'\\x00\\xff'\n"
    assert run_python(RUN, str(EXAMPLES / "websocket_echo.py"), timeout=60).stdout == expected

    def echo(connection: Any) -> None:
        for message in connection:
            connection.send(message)

    with websockets.serve(echo) as server:
        assert talk("websocket_echo.py", "ws://localhost:%d" % server.port) == expected


def test_hello() -> None:
    with serving("websocket_hello_server.py") as running:
        answer = talk("websocket_hello_client.py", running.uri, say="Ann")
        assert answer == "Who is there? > Ann\n< Hello Ann!\n"
        running.wait_line("> Hello Ann!")
        assert running.child.output().endswith("\n< Ann\n> Hello Ann!\n")


def test_secure_hello(tmp_path: Path) -> None:
    pytest.importorskip("trustme")
    ca_file = str(tmp_path / "ca.pem")
    with serving("websocket_secure_server.py", ca_file) as running:
        assert running.uri.startswith("wss:")
        answer = talk("websocket_secure_client.py", running.uri, ca_file, say="Ann")
        assert answer == "Who is there? > Ann\n< Hello Ann!\n"
        running.wait_line("< Ann")
        with pytest.raises(websockets.InvalidHandshake, match="certificate"):
            websockets.connect(running.uri)  # nobody else trusts that certificate


def test_secure_client_without_the_file_says_what_to_do(tmp_path: Path) -> None:
    with start("websocket_secure_client.py", "wss://localhost:1", str(tmp_path / "nothing.pem")) as child:
        result = child.wait()
    assert result.returncode == 1 and "start websocket_secure_server.py" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["websocket_time.py", "websocket_counter.py"])
def test_pages_are_served(name: str) -> None:
    with serving(name) as running:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(running.address + "/", timeout=20) as answer:
            assert answer.headers["Content-Type"].startswith("text/html")
            assert answer.read().decode().strip() == (EXAMPLES / name).with_suffix(".html").read_text("utf-8").strip()


def test_time() -> None:
    with serving("websocket_time.py") as running, running.connect() as browser:
        moments = [browser.recv(timeout=20) for _ in range(3)]
        assert moments == sorted(moments)
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", moment) for moment in moments)


def news(browser: Any) -> Any:
    return json.loads(browser.recv(timeout=20))


def test_counter() -> None:
    with serving("websocket_counter.py") as running, running.connect() as one:
        assert news(one) == {"value": 0, "online": 1}
        with running.connect() as two:
            assert news(two) == news(one) == {"value": 0, "online": 2}
            one.send("minus")
            two.send("minus")
            for browser in (one, two):
                assert [news(browser)["value"], news(browser)["value"]] == [-1, -2]
        assert news(one) == {"value": -2, "online": 1}


def test_consumer() -> None:
    with serving("websocket_consumer.py") as running:
        with running.connect() as client:
            client.send("1.5")
            client.send("2")
        running.wait_line("the client has left")
        assert running.child.output().splitlines()[1:] == [
            "received 1.5, the sum is 1.5", "received 2, the sum is 3.5", "the client has left"]


def test_producer() -> None:
    with serving("websocket_producer.py") as running:
        with running.connect() as client:
            assert [client.recv(timeout=20) for _ in range(2)] == ["message 1", "message 2"]
        running.wait_line("the client has left")


def test_both() -> None:
    with serving("websocket_both.py") as running, running.connect() as client:
        assert client.recv(timeout=20) == "tick 1"
        client.send("0.01")
        assert [client.recv(timeout=20) for _ in range(20)] == ["tick %d" % n for n in range(2, 22)]


def test_broadcast() -> None:
    with serving("websocket_broadcast.py") as running, running.connect() as ann:
        ann.send("ann")
        assert ann.recv(timeout=20) == "ann comes"
        printed = talk("websocket_terminal.py", running.uri, say="bob")
        assert printed.startswith("connected")
        assert [ann.recv(timeout=20), ann.recv(timeout=20)] == ["bob comes", "bob goes"]
        ann.send("alone?")
        assert ann.recv(timeout=20) == "ann: alone?"
        running.wait_line("ann: alone?")


def test_terminal_shows_what_arrives_and_how_it_ends() -> None:
    def peer(connection: Any) -> None:
        connection.send("welcome")
        connection.send(connection.recv())
        connection.close(4000, "enough")

    with websockets.serve(peer) as server, start("websocket_terminal.py", "ws://localhost:%d" % server.port) as child:
        child.wait_line("< welcome", 20)
        child.send_line("hello")
        child.wait_line("< hello", 20)
        child.wait_line("closed with 4000 enough", 20)
        child.interrupt()
        assert child.wait(20).returncode == 0


def test_pubsub() -> None:
    printed = run_python(RUN, str(EXAMPLES / "websocket_pubsub.py"), timeout=60).stdout
    assert printed == 'ann: {"join": "news"}\nann: {"to": "news", "text": "hello from bob"}\n'


def test_legacy_threads() -> None:
    printed = run_python(RUN, str(EXAMPLES / "websocket_legacy_threads.py"), timeout=60).stdout
    assert printed == "1000 jobs done, all results right: True\nclosed with 1000\n"

    def desk(connection: Any) -> None:
        connection.send("12")
        assert connection.recv(timeout=20) == "12 144"

    with websockets.serve(desk) as server:
        printed = talk("websocket_legacy_threads.py", "ws://localhost:%d" % server.port)
        assert printed == "closed with 1000\n"


def test_a_client_can_be_interrupted_while_it_waits() -> None:
    with websockets.serve(lambda connection: list(connection)) as server:
        for name in ("websocket_hello_client.py", "websocket_terminal.py"):
            with start(name, "ws://localhost:%d" % server.port) as child:
                wait_until(lambda: server.connections, 20)
                server.connections.pop().ping().result(60)  # it reads, so it is through with connecting
                child.interrupt()
                result = child.wait(20)
            assert (result.returncode, result.stderr) == (0, ""), name
            wait_until(lambda: not server.connections, 20)


# ---- the notebook ---------------------------------------------------------------------------------------------------


def notebook() -> Any:
    return json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))


def code_cells() -> List[str]:
    return ["".join(cell["source"]) for cell in notebook()["cells"] if cell["cell_type"] == "code"]


def test_notebook_is_committed_without_outputs_and_machine() -> None:
    document = notebook()
    assert sorted(document) == ["cells", "metadata", "nbformat", "nbformat_minor"]
    assert document["metadata"] == {"language_info": {"name": "python"}}
    for cell in document["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_notebook_runs_from_top_to_bottom() -> None:
    names: Any = {"__name__": "__main__"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for number, source in enumerate(code_cells()):
            exec(compile(source, "cell %d" % number, "exec"), names)
    promised = re.findall(r"^ *print\(.*\)  # (.+)$", "\n".join(code_cells()), re.M)
    assert printed.getvalue().splitlines() == promised and len(promised) > 5
