"""What the conformance tests do again and again."""

from __future__ import annotations

from typing import Any, Iterable, Optional

from simplepubsub import socketio
from tests.helpers import Recorder, scaled, wait_until

#: All pairs of a kind of server and a transport.
EVERY_LEG = [(kind, leg) for kind in ("node", "threading", "asgi") for leg in ("polling", "websocket")]

#: What each leg is for `Client.connect`.
LEGS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": None}


def join(sio: socketio.Client, peer: Any, leg: str = "websocket", **options: Any) -> socketio.Client:
    """Connect to a Peer, a proxy's URL or any URL, on a leg."""
    options.setdefault("wait_timeout", scaled(20))
    sio.connect(getattr(peer, "url", peer), transports=LEGS[leg], **options)
    return sio


def listen(sio: socketio.Client, namespaces: Iterable[str] = ("/",), events: Iterable[str] = ()) -> Recorder:
    """Record every event of some namespaces as lists of arguments, the three reserved ones included.

    Names are "event", or "/chat event" for another namespace than "/".
    """
    recorder = Recorder()
    for namespace in namespaces:
        prefix = "" if namespace == "/" else namespace + " "
        for name in ("connect", "connect_error", "disconnect", *events):
            sio.on(name, _listener(recorder, prefix + name), namespace=namespace)
        sio.on("*", _star(recorder, prefix), namespace=namespace)
    return recorder


def _listener(recorder: Recorder, name: str) -> Any:
    def listener(*args: Any) -> None:
        recorder.record(name, list(args))

    return listener


def _star(recorder: Recorder, prefix: str) -> Any:
    def listener(event: Any, *args: Any) -> None:
        recorder.record("%s%s" % (prefix, event), list(args))

    return listener


def reason(recorder: Recorder, count: int = 1, timeout: float = 10.0, namespace: str = "") -> Optional[str]:
    """Wait for the ``count``-th disconnection and return its reason."""
    got: Any = recorder.wait_event(namespace + "disconnect", timeout, count)
    return str(got[0])


def lose(proxy: Any, recorder: Recorder, count: int = 1) -> None:
    """Cut until the client notices; between two polls it has nothing to lose. Its next connection is not cut."""

    def noticed() -> bool:
        return len(recorder.payloads("disconnect")) >= count

    wait_until(lambda: noticed() or (proxy.cut(unless=noticed), noticed())[1], 10, "a loss")
