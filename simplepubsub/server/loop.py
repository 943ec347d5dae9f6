"""An event loop in a thread of its own, and the bridge to it from all other threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
from typing import Any, Callable, Coroutine, Optional, TypeVar

from ..exceptions import ForkedError, ServerError

__all__ = ["LoopThread", "breathe"]

log = logging.getLogger("simplepubsub.server")

T = TypeVar("T")

#: Seconds that a call from another thread waits for the server's loop before it says that the loop is stuck.
CALL_TIMEOUT = 30.0

class LoopThread:
    """Runs one coroutine in a new event loop; works beside any other loop or none (notebooks).

    `start` and `stop` are called one at a time; `call` and `wait` are safe from any thread but the loop's own.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: Optional[threading.Thread] = None
        self._pid = 0
        self._lock = threading.Lock()
        self._over = False  # the loop takes no more calls; guarded by _lock
        self.loop: Optional[asyncio.AbstractEventLoop] = None

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped; also True in a forked child, which has no such thread."""
        return self._thread is not None

    def start(self, serve: Callable[[Any, Any], Coroutine[Any, Any, None]]) -> None:
        """Run ``serve(loop, ready)`` until it returns; return when it has set a result on ``ready``.

        Raises ServerError when it fails before that.
        """
        ready: "concurrent.futures.Future[None]" = concurrent.futures.Future()
        known = threading.Event()
        thread = threading.Thread(target=self._run, args=(serve, ready), name=self._name, daemon=True)

        def began(_: "concurrent.futures.Future[None]") -> None:
            # On the loop, before it does anything else: what comes in may at once make others call, handlers above all.
            if ready.exception() is None:
                self._thread, self._pid = thread, os.getpid()
            known.set()

        ready.add_done_callback(began)
        thread.start()
        try:
            known.wait(CALL_TIMEOUT)
            ready.result(0)
        except Exception as error:
            thread.join(CALL_TIMEOUT)
            raise ServerError("the server did not start: %s" % error) from error

    def stop(self, ask: Callable[[], None], timeout: float) -> Optional[bool]:
        """Call ``ask`` on the loop and wait for its end; return whether it came in time.

        None when there is nothing to wait for: it does not run, belongs to the parent process, or is the caller.
        """
        thread, self._thread = self._thread, None
        if thread is None or self._pid != os.getpid():
            return None  # a forked child has the object, but neither the thread nor the right to the sockets
        assert self.loop is not None
        self.loop.call_soon_threadsafe(ask)
        if thread is threading.current_thread():
            return None
        thread.join(timeout)
        return not thread.is_alive()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function on the loop and return its result. Raises ServerError when the loop is not there."""

        async def run() -> T:
            return function(*args)

        return self.wait(run())

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result. Raises ServerError when the loop is not there."""
        thread, loop = self._thread, self.loop
        if thread is not None and self._pid != os.getpid():
            coroutine.close()
            raise ForkedError("the server belongs to the parent process: make a new Server in this one")
        if thread is None or loop is None or thread is threading.current_thread():
            coroutine.close()
            raise ServerError("the server is not running: call start() first")
        with self._lock:
            if self._over or loop is not self.loop:  # it stopped just now
                coroutine.close()
                raise ServerError("the server has stopped")
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result(CALL_TIMEOUT)
        except concurrent.futures.CancelledError as error:
            raise ServerError("the server has stopped") from error
        except concurrent.futures.TimeoutError as error:
            future.cancel()
            raise ServerError("the server's loop did not answer within %d s" % CALL_TIMEOUT) from error

    def _run(self, serve: Callable[[Any, Any], Coroutine[Any, Any, None]], ready: Any) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        with self._lock:
            self.loop, self._over = loop, False
        try:
            loop.run_until_complete(serve(loop, ready))
        except Exception as error:
            if ready.done():
                log.exception("the server's loop failed")
            else:
                ready.set_exception(error)
        finally:
            with self._lock:
                self._over = True
            loop.run_until_complete(breathe())  # what was asked for until now becomes a task, and is told
            pending = asyncio.all_tasks(loop)
            for task in pending:
                task.cancel()
            if pending:
                loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
                loop.run_until_complete(breathe())
            loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.close()


async def breathe() -> None:
    """Let the loop run what is due, and what that makes due."""
    for _ in range(3):
        await asyncio.sleep(0)
