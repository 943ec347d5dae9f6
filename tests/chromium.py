"""A headless Chromium for tests, driven over the DevTools protocol: by our own WebSocket client.

Loopback only, bounded, with a profile of its own that is deleted at the end.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from typing import Any, Dict, List, Optional

from simplepubsub import websockets
from tests import peers
from tests.helpers import wait_until
from tests.timing import scaled

#: What it is called: Debian, others.
NAMES = ("chromium", "chromium-browser", "google-chrome")

#: Without these it looks for updates, and for hosts that a test machine cannot reach.
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--metrics-recording-only",
    # Windows lie on top of each other here: none of them is to be slower for that.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--password-store=basic",
    # Whatever a page asks for, only this machine answers.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
)


def find(why: str) -> str:
    """Return the path of a Chromium; without one skip the test, or fail it when peers are required."""
    for name in NAMES[1:]:
        if shutil.which(NAMES[0]) is None and shutil.which(name) is not None:
            return peers.require_command(name, why)
    return peers.require_command(NAMES[0], why)


class Chromium:
    """A browser: `with Chromium(path) as browser: window = browser.open(url)`."""

    def __init__(self, path: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="simplepubsub-chromium-")
        flags = list(FLAGS) + ["--user-data-dir=" + self._profile]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            flags.append("--no-sandbox")  # as root it starts no other way
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self._log = open(os.path.join(self._profile, "log.txt"), "w+b")
        self._process = subprocess.Popen(
            [path, *flags, "about:blank"], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            env=environment, start_new_session=True)
        self._numbers = itertools.count(1)
        self._events: List[Dict[str, Any]] = []
        self._socket: Optional[Any] = None
        try:
            self._socket = websockets.connect(
                self._address(), proxy=None, open_timeout=scaled(30), max_size=2**24, ping_interval=None)
        except BaseException:
            self.close()
            raise

    def _address(self) -> str:
        """Return where it listens: two lines in a file that it writes when it does."""
        path = os.path.join(self._profile, "DevToolsActivePort")

        def lines() -> List[str]:
            assert self._process.poll() is None, "Chromium has ended:\n" + self.log()
            if not os.path.exists(path):
                return []
            with open(path, encoding="ascii") as file:
                return file.read().split()

        wait_until(lambda: len(lines()) == 2, 30, "Chromium did not start")
        port, target = lines()
        return "ws://127.0.0.1:%s%s" % (port, target)

    def log(self) -> str:
        """What it has written."""
        with open(self._log.name, encoding="utf-8", errors="replace") as file:
            return file.read()[-4000:]

    def command(self, method: str, session: Optional[str] = None, **parameters: Any) -> Dict[str, Any]:
        """Run a command of the DevTools protocol and return its result."""
        assert self._socket is not None
        message: Dict[str, Any] = {"id": next(self._numbers), "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        end = time.monotonic() + scaled(30)
        while True:
            answer = json.loads(self._socket.recv(timeout=max(0.0, end - time.monotonic())))
            if answer.get("id") == message["id"]:
                assert "error" not in answer, (method, answer)
                return answer["result"]  # type: ignore[no-any-return]
            self._events.append(answer)

    def open(self, url: str) -> Window:
        """Open a window of its own."""
        target = self.command("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Window(self, target, session, url)

    def events(self, session: str, method: str) -> List[Dict[str, Any]]:
        """The events of that kind that have come so far: they come with the answers to commands."""
        return [event["params"] for event in self._events
                if event.get("sessionId") == session and event.get("method") == method]

    def close(self) -> None:
        """End it, all of its processes, and delete its profile."""
        try:
            if self._socket is not None:
                self.command("Browser.close")
                self._process.wait(scaled(10))
        except (websockets.ConnectionClosed, TimeoutError, subprocess.TimeoutExpired):
            pass  # what follows ends it in any case
        finally:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()
            if self._socket is not None:
                self._socket.close()
            self._log.close()
            shutil.rmtree(self._profile, ignore_errors=True)

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Window:
    """A window with a page in it."""

    def __init__(self, browser: Chromium, target: str, session: str, url: str) -> None:
        self._browser, self._target, self._session = browser, target, session
        self._command("Page.enable")
        self._command("Runtime.enable")
        self._command("Page.navigate", url=url)
        wait_until(lambda: self.evaluate("document.readyState") == "complete" and self.evaluate("location.href") == url,
                   20, "the page did not load: " + url)

    def _command(self, method: str, **parameters: Any) -> Dict[str, Any]:
        return self._browser.command(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """Return what a JavaScript expression is; a promise is waited for."""
        answer = self._command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (expression, answer)
        return answer["result"].get("value")

    def text(self, selector: str) -> Any:
        """Return the text that an element shows."""
        return self.evaluate("document.querySelector(%s).innerText" % json.dumps(selector))

    def wait_text(self, selector: str, expected: str) -> None:
        """Wait until an element shows this text."""
        wait_until(lambda: self.text(selector) == expected, 20, "%s should show %r" % (selector, expected))

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element, as a user does: once the page is to be seen."""
        painted = "performance.getEntriesByName('first-contentful-paint').length"
        wait_until(lambda: self.evaluate(painted), 20, "nothing is painted")  # before that clicks go nowhere
        middle = "(box => [box.x + box.width / 2, box.y + box.height / 2])"
        x, y = self.evaluate("%s(document.querySelector(%s).getBoundingClientRect())" % (middle, json.dumps(selector)))
        for kind in ("mousePressed", "mouseReleased"):
            self._command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def complaints(self) -> List[Any]:
        """Exceptions and errors on the console so far."""
        self.evaluate("0")  # events come before the answer
        console = self._browser.events(self._session, "Runtime.consoleAPICalled")
        return self._browser.events(self._session, "Runtime.exceptionThrown") + [
            event for event in console if event["type"] in ("error", "assert")]

    def close(self) -> None:
        """Close the window."""
        self._browser.command("Target.closeTarget", targetId=self._target)
