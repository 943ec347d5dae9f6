"""``handle_sigint=True``: leave politely on Ctrl-C. Nothing here happens to a process that does not ask for it."""

from __future__ import annotations

import atexit
import queue
import signal
import threading
import weakref
from typing import Any, Callable, Optional

__all__ = ["disconnect_on_sigint"]

#: Seconds that the end of the process waits for clients that are leaving.
_GRACE = 5.0

_clients: "weakref.WeakSet[Any]" = weakref.WeakSet()
# The handler of a signal may run in the middle of anything, itself included: this queue allows that, a lock does not.
_signals: "queue.SimpleQueue[None]" = queue.SimpleQueue()
_left = threading.Event()  # set when the clients have left
_signalled = False
_previous: Any = None
_thread: Optional[threading.Thread] = None


def disconnect_on_sigint(client: Any) -> None:
    """Disconnect ``client`` on SIGINT, then do what SIGINT did before; the first call must be made in the main thread.

    From another thread it does nothing, as in python-socketio: Python forbids to install the handler there.
    """
    global _previous, _thread
    if _thread is None:
        if threading.current_thread() is not threading.main_thread():
            return
        _thread = threading.Thread(target=_leave, name="simplepubsub-socketio-sigint", daemon=True)
        _thread.start()
        atexit.register(_wait)
        _previous = signal.signal(signal.SIGINT, _on_signal)
    _clients.add(client)


def _on_signal(number: int, frame: Any) -> Any:
    global _signalled
    _signalled = True
    _signals.put(None)
    before: Callable[[int, Any], Any] = _previous if callable(_previous) else signal.default_int_handler
    return before(number, frame)


def _leave() -> None:
    while True:
        _signals.get()
        for client in list(_clients):
            client.shutdown()
        _left.set()


def _wait() -> None:
    if _signalled:
        _left.wait(_GRACE)
