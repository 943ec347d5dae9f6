"""One attempt to connect, in a thread of its own, and the values that the user's callables give for it.

DNS and a callable of the user's cannot be interrupted. The supervisor therefore waits for the attempt and, when a stop
or the deadline comes first, abandons it: the attempt finds that out when it returns, and throws its session away.
"""

from __future__ import annotations

import inspect
import threading
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional

from ..core.deadline import Deadline
from ..exceptions import ConnectError, InvalidArgument
from ..transports.redact import redact_text
from .exceptions import ConnectionError
from .seams import Opener, Session, Target
from .settings import Plan

__all__ = ["Attempt", "evaluate_auth", "split_auth", "takes_argument"]


def takes_argument(function: Callable[..., Any]) -> bool:
    """Return whether ``function`` needs one positional argument."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False  # some builtins do not tell
    try:
        signature.bind()
    except TypeError:
        return True
    return False


def split_auth(auth: Any, namespaces: Iterable[str]) -> Dict[str, Any]:
    """Return the auth of each namespace: the same for all, or its own from a dict whose keys all are namespaces."""
    names = list(namespaces)
    if isinstance(auth, dict) and auth and all(isinstance(key, str) and key.startswith("/") for key in auth):
        return {name: auth.get(name) for name in names}
    return dict.fromkeys(names, auth)


def evaluate_auth(auth: Dict[str, Any]) -> Dict[str, Any]:
    """Return the values now: a callable that several namespaces share is called once, unless it takes the namespace."""
    values: Dict[str, Any] = {}
    shared: Dict[int, Any] = {}
    for namespace, value in auth.items():
        if callable(value):
            if takes_argument(value):
                value = value(namespace)
            else:
                if id(value) not in shared:
                    shared[id(value)] = value()
                value = shared[id(value)]
        if value is not None and not isinstance(value, Mapping):
            raise InvalidArgument("auth must be a dict or None, not %s" % type(value).__name__)
        values[namespace] = None if value is None else dict(value)
    return values


class Attempt:
    """Evaluate what ``plan`` asks for and open a session. ``done`` is called with the lock not held, once."""

    def __init__(self, plan: Plan, auth: Dict[str, Any], opener: Opener, lock: threading.Lock) -> None:
        self._plan = plan
        self._auth = auth
        self._opener = opener
        self._lock = lock
        # Guarded by the lock:
        self.session: Optional[Session] = None
        self.error: Optional[BaseException] = None
        self.values: Dict[str, Any] = {}
        self.done = False
        self.abandoned = False
        self._step = "the url"
        self._tell: List[Callable[[], None]] = []
        self._deadline = Deadline(None)
        self.thread = threading.Thread(target=self._run, name="simplepubsub-socketio-dialer", daemon=True)

    def start(self, timeout: float, tell_locked: Callable[[], None]) -> None:
        """Begin; ``tell_locked`` is called with the lock held when the attempt is done."""
        self._deadline = Deadline(timeout)
        self._tell.append(tell_locked)
        self.thread.start()

    def abandon(self) -> ConnectionError:
        """Make the attempt end soon; ``abandoned`` is set already. Returns the error that says what took so long."""
        self._opener.abort()
        return ConnectionError(
            "no connection in time: %s took too long" % self._step,
            hint="check the host, the port, firewalls and proxies, or raise request_timeout",
        )

    def _run(self) -> None:
        session, error = None, None
        values: Dict[str, Any] = {}
        try:
            target = self._target()
            values = self._ask("auth", lambda: evaluate_auth(self._auth))
            self._step = "opening the connection"
            if not self.abandoned:
                session = self._opener.open(target, self._deadline)
        except (ConnectError, ValueError) as failure:
            error = failure
        except BaseException as failure:  # noqa: BLE001  # must reach the supervisor, whatever it is
            error = ConnectionError("cannot connect: %s: %s" % (type(failure).__name__, redact_text(str(failure))))
            error.__cause__ = failure
        with self._lock:
            if not self.abandoned:
                self.session, self.error, self.values, self.done = session, error, values, True
                for tell in self._tell:
                    tell()
                return
        if session is not None:
            session.abort()

    def _target(self) -> Target:
        plan = self._plan
        url: Any = self._ask("url", plan.url) if callable(plan.url) else plan.url
        if not isinstance(url, str):
            raise InvalidArgument("the url must be a string, not %s" % type(url).__name__)
        headers: Any = self._ask("headers", plan.headers) if callable(plan.headers) else plan.headers
        if headers is not None and not isinstance(headers, Mapping):
            raise InvalidArgument("headers must be a dict, not %s" % type(headers).__name__)
        return Target(url, dict(headers or {}), plan.path, plan.transports)

    def _ask(self, what: str, function: Callable[[], Any]) -> Any:
        """Call a callable of the user's."""
        self._step = "the callable for the " + what
        try:
            return function()
        except InvalidArgument:
            raise
        except Exception as failure:
            text = "the callable for the %s raised %s: %s" % (what, type(failure).__name__, redact_text(str(failure)))
            raise ConnectionError(text) from failure
