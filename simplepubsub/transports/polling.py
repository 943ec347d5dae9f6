"""HTTP over requests within limits that may change at any moment, and that another thread can end.

The sessions of the user and their adapters keep doing what they do, on twins that share their settings and have guarded
connections (`guarded`).
"""

from __future__ import annotations

import functools
import socket
from typing import Any, Callable, Optional

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.util.retry import Retry

from ..core.deadline import Deadline
from .guarded import Guardian, guard_pool
from .tcp import open_tcp

__all__ = ["Wire", "twin_session"]


class Wire(Guardian):
    """What limits the exchanges of one session of requests, and what ends them. `abort` may come from any thread.

    ``limit`` returns the seconds that are left for the exchange in progress, None without a limit; it is asked again
    whenever they are over, so it may also give less than the whole. ``connect_timeout`` limits opening a connection.
    """

    def __init__(self, connect_timeout: Optional[float] = None) -> None:
        super().__init__()
        self.limit: Callable[[], Optional[float]] = _no_limit
        self.connect_timeout = connect_timeout

    def open(self, host: str, port: int) -> socket.socket:
        return open_tcp(host, port, self._connecting(), self.hold)

    def opening_timeout(self) -> Optional[float]:
        return self._connecting().remaining()

    def patience(self, opening: bool = False) -> Optional[float]:
        self.check()
        left = self.limit()
        if left is not None and left <= 0:
            raise socket.timeout("timed out")
        return None if left is None else max(left, 0.001)

    def _connecting(self) -> Deadline:
        given = [value for value in (self.connect_timeout, self.patience()) if value is not None]
        return Deadline(min(given) if given else None)


def _no_limit() -> Optional[float]:
    return None


def _guarded_pool(pool_class: Callable[..., Any], wire: Wire, *args: Any, **keywords: Any) -> Any:
    pool = pool_class(*args, **keywords)
    guard_pool(pool, wire)
    return pool


def _guard_pools(manager: Any, wire: Wire) -> None:
    """Make the pools of a manager of urllib3 open guarded connections."""
    manager.pool_classes_by_scheme = {
        scheme: functools.partial(_guarded_pool, pool, wire) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _twin_adapter(adapter: BaseAdapter, wire: Wire) -> BaseAdapter:
    """Return an adapter with the settings of ``adapter`` and guarded connections of its own.

    One that does not open connections through urllib3 (a mock, say) is used as it is: a wait in there cannot be ended.
    """
    if not isinstance(adapter, HTTPAdapter):
        return adapter
    # Not copy(): that keeps only what HTTPAdapter itself knows, and subclasses need what they were made with.
    twin: Any = object.__new__(type(adapter))
    twin.__dict__.update(adapter.__dict__)
    twin.proxy_manager = {}
    twin.max_retries = Retry(0, read=False)  # a second GET or POST would end the session; reconnection tries again
    given: Any = adapter
    twin.init_poolmanager(given._pool_connections, given._pool_maxsize, block=given._pool_block)
    _guard_pools(twin.poolmanager, wire)
    make = twin.proxy_manager_for

    def proxy_manager_for(proxy: Any, **keywords: Any) -> Any:
        known = proxy in twin.proxy_manager
        manager = make(proxy, **keywords)
        if not known:
            _guard_pools(manager, wire)
        return manager

    twin.proxy_manager_for = proxy_manager_for
    return twin  # type: ignore[no-any-return]


def twin_session(session: requests.Session, wire: Wire) -> requests.Session:
    """Return a session that behaves like ``session``, has cookies and connections of its own, and obeys ``wire``.

    ``session`` may be of any subclass and is not changed; its hooks and its auth object are shared.
    """
    twin: Any = object.__new__(type(session))
    twin.__dict__.update(session.__dict__)
    twin.headers = type(session.headers)(session.headers)  # type: ignore[call-arg]
    twin.cookies = session.cookies.copy()
    twin.proxies = dict(session.proxies)
    twin.hooks = {name: list(found) for name, found in session.hooks.items()}
    adapters = type(session.adapters)()
    for prefix, adapter in session.adapters.items():  # their order is the order of the search
        adapters[prefix] = _twin_adapter(adapter, wire)
    twin.adapters = adapters
    return twin  # type: ignore[no-any-return]
