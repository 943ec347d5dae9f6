"""The official JavaScript packages in a Node process, driven from a test: `tests/interop/js/driver.js` does the work.

Binary data is bytes here and an ArrayBuffer there. A command that fails there raises `NodeError` here.
"""

from __future__ import annotations

import base64
import json
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence

from tests import peers
from tests.children import REPOSITORY, Child
from tests.helpers import Recorder
from tests.timing import scaled

PACKAGES = os.path.join(REPOSITORY, "tests", "interop", "js")


class NodeError(Exception):
    """What a JavaScript call threw: `name`, `message`, and whichever of ackId, errorDetail, statusCode, ... it had."""

    def __init__(self, fields: Dict[str, Any]) -> None:
        super().__init__("%s: %s %s" % (fields.get("name"), fields.get("message"), fields.get("errorDetail") or ""))
        self.name: str = fields.get("name", "")
        self.message: str = fields.get("message", "")
        self.fields = fields

    @property
    def detail(self) -> Dict[str, str]:
        """The error object that the service sent."""
        return self.fields.get("errorDetail") or {}


def signal(name: str) -> Dict[str, str]:
    """An AbortSignal as an argument; `Node.abort(name)` fires it."""
    return {"$signal": name}


def odata(strings: List[str], *values: Any) -> Dict[str, Any]:
    """A filter as an argument, made by the odata tag of the service package from the template's parts."""
    return {"$odata": [strings, list(values)]}


class Node(Child):
    """A Node process. Leaving its `with` ends it; whatever it still does then is cut off."""

    def __init__(self, env: Optional[Mapping[str, str]] = None, timeout: float = 60.0) -> None:
        self._answers: Dict[int, Dict[str, Any]] = {}
        self._recorders: Dict[str, Recorder] = {}
        self._ids = 0
        node = peers.require_node_packages(PACKAGES, "the official JavaScript packages must work with our server")
        super().__init__([node, os.path.join(PACKAGES, "driver.js")], env, timeout)

    def _received(self, name: str, line: str) -> None:
        if name != "stdout":
            return
        message = json.loads(line, object_hook=_decode)
        if "id" in message:
            self._answers[message["id"]] = message
        else:
            self.recorder(message["of"]).record(message["event"], message.get("payload"))

    def recorder(self, name: str) -> Recorder:
        """What the object `name` has reported."""
        return self._recorders.setdefault(name, Recorder())

    def begin(self, op: str, **fields: Any) -> Pending:
        """Send a command and return at once."""
        with self._changed:
            self._ids += 1
            number = self._ids
        self.send_line(json.dumps({"id": number, "op": op, **fields}, default=_encode))
        return Pending(self, number)

    def do(self, op: str, timeout: float = 30.0, **fields: Any) -> Any:
        """Send a command and return its result; NodeError when it threw."""
        return self.begin(op, **fields).result(timeout)

    def wait_answer(self, number: int, timeout: float) -> Dict[str, Any]:
        """Wait for the answer to a command; AssertionError when there is none in time or the process ends."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers or self._open < 2, scaled(timeout))
            if number in self._answers:
                return self._answers.pop(number)
        raise AssertionError(f"no answer from Node within {scaled(timeout):g} s\n{self._report()}")

    def abort(self, name: str) -> None:
        """Fire an AbortSignal that was given as `signal(name)`."""
        self.do("abort", signal=name)

    def client(self, url: str, name: str = "client", *, start: bool = True, protocol: Optional[str] = None,
               streams: Optional[Dict[str, Any]] = None, **options: Any) -> JsClient:
        """Make a WebPubSubClient and by default start it and wait until it is connected.

        `protocol` is "json", "json.reliable" or the package's default; `streams` are the options of onGroupStream;
        the rest are options of the client, as it spells them.
        """
        self.do("make", kind="client", name=name, url=url, protocol=protocol, options=options, streams=streams)
        client = JsClient(self, name)
        if start:
            client.call("start")
            client.recorder.wait_event("connected", timeout=20)
        return client

    def socket(self, url: str, name: str = "socket", protocols: Sequence[str] = ()) -> JsObject:
        """Connect a bare WebSocket of the package ws, which makes a simple client."""
        self.do("make", kind="socket", name=name, url=url, protocols=protocols)
        return JsObject(self, name)

    def service(self, hub: str, name: str = "service", **options: Any) -> JsObject:
        """Make a WebPubSubServiceClient: `connectionString`, or `endpoint` and `token` for a token credential."""
        self.do("make", kind="service", name=name, hub=hub, **options)
        return JsObject(self, name)

    def upstream(self, hub: str, name: str = "upstream", **options: Any) -> Upstream:
        """Start an express application with a WebPubSubEventHandler; the rules are described in driver.js."""
        made = self.do("make", kind="upstream", name=name, hub=hub, **options)
        return Upstream(self, name, made["port"], made["path"])


class Pending:
    """A command on its way."""

    def __init__(self, node: Node, number: int) -> None:
        self._node = node
        self._number = number

    def result(self, timeout: float = 30.0) -> Any:
        """Wait for its result; NodeError when it threw."""
        answer = self._node.wait_answer(self._number, timeout)
        if "error" in answer:
            raise NodeError(answer["error"])
        return answer["result"]


class JsObject:
    """An object in the Node process."""

    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name
        self.recorder = node.recorder(name)

    def begin(self, method: str, *args: Any, **how: Any) -> Pending:
        """Call a method without waiting; `how` is as in `call`."""
        return self.node.begin("call", of=self.name, method=method, args=args, **how)

    def call(self, method: str, *args: Any, **how: Any) -> Any:
        """Call a method and return what it resolves to; None stands for undefined.

        `pages={...}` reads its result by pages with those options.
        """
        return self.begin(method, *args, **how).result()

    def keep(self, name: str, method: str, *args: Any) -> JsObject:
        """Call a method whose result has methods itself, and return that under `name`."""
        self.call(method, *args, keep=name)
        return JsObject(self.node, name)

    def repeat(self, method: str, *before: Any, count: int, first: int = 0, data_type: str = "json",
               ack_ids: bool = False) -> Pending:
        """Call `method(*before, number, data_type)` for `count` numbers, each when the one before is done.

        `ack_ids` gives each an ack id of its own, which its retries keep.
        """
        return self.node.begin("repeat", of=self.name, method=method, before=before, first=first, count=count,
                               type=data_type, ackIds=ack_ids)


class JsClient(JsObject):
    """An official JavaScript client."""

    def messages(self, count: int, event: str = "group-message", timeout: float = 10.0) -> List[Dict[str, Any]]:
        """Wait for `count` messages and return them all, in the order of arrival."""
        return self.recorder.wait_for(count, timeout, name=event)

    def values(self, count: int, event: str = "group-message", timeout: float = 10.0) -> List[Any]:
        """Wait for `count` messages and return their data."""
        return [message["data"] for message in self.messages(count, event, timeout)]

    @property
    def connection_id(self) -> str:
        """The connection id that the last "connected" told."""
        return str(self.recorder.payloads("connected")[-1]["connectionId"])


class Upstream(JsObject):
    """An express application that is an event handler."""

    def __init__(self, node: Node, name: str, port: int, path: str) -> None:
        super().__init__(node, name)
        self.url = f"http://127.0.0.1:{port}{path}"


def _encode(value: Any) -> Dict[str, str]:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    raise TypeError(f"{value!r} cannot go to Node")


def _decode(members: Dict[str, Any]) -> Any:
    return base64.b64decode(members["$bytes"]) if set(members) == {"$bytes"} else members
