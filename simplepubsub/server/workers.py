"""A few daemon threads that run blocking user code for the server, so that its loop never does."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from typing import Any, Callable, List, Optional, Tuple

from ..exceptions import ServerError

__all__ = ["Workers"]

log = logging.getLogger("simplepubsub.server")

#: What to run, and where its result or its exception goes.
Job = Tuple[Callable[[], Any], Callable[[Any, Optional[BaseException]], None]]


class Workers:
    """At most ``limit`` threads, started when there is work for them; safe from any thread.

    Not a ThreadPoolExecutor: the interpreter waits for its threads when it exits, and user code that never returns
    would keep it waiting.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._lock = threading.Lock()
        self._threads: List[threading.Thread] = []  # guarded by _lock, as are the next two
        self._idle = 0
        self._stopped = False
        self._jobs: "queue.SimpleQueue[Optional[Job]]" = queue.SimpleQueue()

    def submit(self, function: Callable[[], Any], done: Callable[[Any, Optional[BaseException]], None]) -> None:
        """Run ``function`` in a thread, then call ``done(result, error)`` there; nothing happens once stopped."""
        with self._lock:
            if self._stopped:
                return
            if self._idle > 0:
                self._idle -= 1
            elif len(self._threads) < self._limit:
                name = "%s-%d" % (self._name, len(self._threads) + 1)
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
            self._jobs.put((function, done))

    async def run(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` in a thread and return its result to the event loop that asks; raises what it raises."""
        loop = asyncio.get_event_loop()
        future: "asyncio.Future[Any]" = loop.create_future()

        def settle(result: Any, error: Optional[BaseException]) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            elif isinstance(error, Exception) and not isinstance(error, StopIteration):
                future.set_exception(error)
            else:  # a future takes no StopIteration, and SystemExit would end the loop
                future.set_exception(ServerError("a handler raised %s" % type(error).__name__))

        def done(result: Any, error: Optional[BaseException]) -> None:
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                log.debug("the server stopped while a handler ran")

        self.submit(function, done)
        return await future

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            function, done = job
            result: Any = None
            error: Optional[BaseException] = None
            try:
                result = function()
            except BaseException as problem:  # noqa: BLE001 - user code; whatever it raises goes to whoever asked for it
                error = problem
            done(result, error)
            # What a job referred to must not live until the next job comes.
            del job, function, done, result, error
            with self._lock:
                self._idle += 1

    def stop(self, timeout: float) -> int:
        """End the threads and return how many are still busy with user code after ``timeout`` seconds."""
        with self._lock:
            self._stopped = True
            threads, self._threads = self._threads, []
            for _ in threads:
                self._jobs.put(None)
        end = time.monotonic() + timeout
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))
        return sum(thread.is_alive() for thread in threads)
