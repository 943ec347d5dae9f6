"""One run of the demo: a server, a relay, a publisher, two subscribers, and the cuts."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Callable, Deque, Dict, List, Optional, Set
from urllib.parse import urlsplit

from ..exceptions import SimplePubSubError
from ..server import Server
from ..webpubsub import WebPubSubClient
from .command import CtrlC, Screen
from .relay import Relay
from .tally import Outcome, Tally, Text, encode_line

__all__ = ["Play"]

HUB, GROUP, END = "demo", "lines", "end"
PUBLISHER = "publisher"
SUBSCRIBERS = ("subscriber 1", "subscriber 2")

#: How far the publisher may be ahead of the slower subscriber. The service keeps the latest 1,000 messages (16 MiB) for
#: a subscriber that is cut off, of which up to 300 may only wait for their sequence acknowledgement.
LEAD_LINES, LEAD_BYTES = 200, 2 * 2**20

#: Seconds between two looks at the clock while waiting.
SLICE = 0.1

#: Seconds that a subscriber's thread may take to end once its client is stopped.
JOIN_LIMIT = 5.0


class _Broken(Exception):
    """The run cannot go on; the text says why."""


class Play:
    """Sends ``text`` while cutting ``cuts`` times. ``timeout`` bounds the seconds without any progress."""

    def __init__(
        self, text: Text, cuts: int, rng: random.Random, timeout: float, screen: Screen, ctrl_c: CtrlC
    ) -> None:
        self._ctrl_c = ctrl_c
        self._text = text
        self._rng = rng
        self._timeout = timeout
        self._screen = screen
        # Lines before which to cut: one in each of as many equal parts of the text.
        self._cut_at = deque(int(len(text) * (part + rng.uniform(0.2, 0.8)) / cuts) for part in range(cuts))
        self._cuts = cuts
        self._targets: List[str] = []
        self._ports: Dict[str, int] = {}
        self._unanswered: Deque["Future[None]"] = deque()
        self._acknowledged = 0
        self._sent = 0
        # Guarded by the condition, which is notified whenever one of them changes:
        self._changed = threading.Condition()
        self._tallies = [Tally(name, text) for name in SUBSCRIBERS]
        self._ended: Set[str] = set()  # subscribers that have seen the end
        self._introduced: Set[str] = set()  # clients whose first connection was reported
        self._away: Dict[str, float] = {}  # clients that were cut and are not back, since when
        self._back: List[float] = []  # how long each took
        self._failed_cuts: Set[int] = set()
        self._interrupted: Set[str] = set()  # clients that lost their session
        self._moved = 0  # counts all progress but acknowledgements
        self._failure: Optional[str] = None

    def run(self) -> Outcome:
        """Run to the end, whatever happens on the way, and leave no thread or socket. Raises what starting raises."""
        failure = None
        replayed = 0
        with ExitStack() as stack:
            server = stack.enter_context(Server())
            relay = stack.enter_context(Relay("127.0.0.1", server.port))
            threads = []
            clients = []
            for name, tally in zip(SUBSCRIBERS, self._tallies):
                client = stack.enter_context(self._client(name, server, relay))
                client.join_group(GROUP)
                threads.append(threading.Thread(target=self._listen, args=(client, tally), name=name, daemon=True))
                clients.append(client)
            publisher = stack.enter_context(self._client(PUBLISHER, server, relay))
            for thread in threads:
                thread.start()
            started = time.monotonic()
            try:
                self._publish(publisher, relay)
            except (_Broken, SimplePubSubError) as error:
                failure = str(error)
            finally:
                seconds = time.monotonic() - started
                replayed = publisher.stats()["replayed"]
                for client in clients + [publisher]:
                    client.stop()
                for thread in threads:
                    thread.join(JOIN_LIMIT)
        return Outcome(
            tallies=self._tallies,
            sent=self._sent,
            acknowledged=self._acknowledged,
            replayed=replayed,
            cuts=self._cuts,
            survived=self._cuts - len(self._cut_at) - len(self._failed_cuts) - bool(self._away),
            recovery_times=self._back,
            seconds=seconds,
            failure=failure or self._failure,
        )

    def _client(self, name: str, server: Server, relay: Relay) -> WebPubSubClient:
        """Return a client whose way to the server leads through a line of its own."""
        self._ports[name] = port = relay.add_line()

        def url() -> str:
            parts = urlsplit(server.client_access_url(HUB, user_id=name))
            return parts._replace(netloc="127.0.0.1:%d" % port).geturl()

        client = WebPubSubClient(url, proxy=False, max_outbox_bytes=64 * 2**20)
        client.on("recovered", lambda: self._is_back(name, True))
        client.on("connected", lambda: self._is_back(name, False))
        client.on("stopped", lambda event: self._gave_up(name, event.error))
        return client

    # --- in the threads of the clients --------------------------------------------------------------------------------

    def _listen(self, client: WebPubSubClient, tally: Tally) -> None:
        """Receive until the client is stopped; what it has received by then is still counted."""
        try:
            for message in client.messages():
                with self._changed:
                    if message.data == END:
                        self._ended.add(tally.name)
                    else:
                        tally.add(message.data)
                    self._moved += 1
                    self._changed.notify_all()
        except SimplePubSubError as error:
            self._gave_up(tally.name, error)

    def _is_back(self, name: str, recovered: bool) -> None:
        now = time.monotonic()
        with self._changed:
            if name not in self._introduced:
                # The first connection, which may be reported after the first cut: listeners have a thread of their own.
                self._introduced.add(name)
                return
            since = self._away.pop(name, None)
            if since is None:
                return  # lost without our doing
            if recovered:
                self._back.append(now - since)
            else:
                self._failed_cuts.add(len(self._cut_at))
                self._interrupted.add(name)
            self._moved += 1
            self._changed.notify_all()

    def _gave_up(self, name: str, error: Optional[BaseException]) -> None:
        if error is not None:
            with self._changed:
                self._failure = self._failure or "the %s has stopped: %s" % (name, error)
                self._changed.notify_all()

    # --- in the calling thread ----------------------------------------------------------------------------------------

    def _publish(self, publisher: WebPubSubClient, relay: Relay) -> None:
        ahead = 0
        lengths: Deque[int] = deque()
        for number, line in enumerate(self._text):
            self._ctrl_c.check()
            while self._cut_at and number >= self._cut_at[0]:
                self._cut(relay)
            lengths.append(len(line))
            ahead += len(line)
            # Lines that both subscribers have are no longer ahead; one line is always let through.
            while len(lengths) > 1 and (len(lengths) > LEAD_LINES or ahead > LEAD_BYTES):
                has_oldest = functools.partial(self._everybody_has, number - len(lengths) + 1)
                self._wait(has_oldest, "the subscribers receive nothing")
                ahead -= lengths.popleft()
            self._unanswered.append(publisher.send_to_group_nowait(GROUP, encode_line(number, line)))
            self._sent += 1
            self._settle()
            self._screen.progress(self._sent, self._cuts - len(self._cut_at))
        self._wait(lambda: not self._away, "a connection does not come back")
        publisher.flush(self._timeout)
        self._settle()
        publisher.send_to_group(GROUP, END, timeout=self._timeout)
        self._wait(lambda: len(self._ended) == len(SUBSCRIBERS), "the end does not arrive")

    def _everybody_has(self, number: int) -> bool:
        # Who lost a session has missed lines that never come: the table will say so, and nobody waits for them.
        return all(tally.highest >= number or tally.name in self._interrupted for tally in self._tallies)

    def _settle(self) -> None:
        """Count the sends that have been answered. Raises what went wrong with one."""
        while self._unanswered and self._unanswered[0].done():
            self._unanswered.popleft().result()
            self._acknowledged += 1

    def _cut(self, relay: Relay) -> None:
        """Cut one client or all of them; every client has come back from the cut before."""
        self._wait(lambda: not self._away, "a connection does not come back")
        if not self._targets:
            # Taken in turn, in random order: nobody is cut much more often than others.
            self._targets = ["everybody", PUBLISHER] + list(SUBSCRIBERS)
            self._rng.shuffle(self._targets)
        target = self._targets.pop()
        names = list(self._ports) if target == "everybody" else [target]
        with self._changed:
            self._cut_at.popleft()
            now = time.monotonic()
            self._away = dict.fromkeys(names, now)
        relay.cut(self._ports[name] for name in names)
        self._screen.cut(self._sent, self._cuts - len(self._cut_at), target)

    def _wait(self, reached: Callable[[], bool], complaint: str) -> None:
        """Wait for ``reached``, called under the condition. Raises _Broken after the timeout without progress."""
        moved, deadline = -1, 0.0
        with self._changed:
            while not reached():
                if self._failure is not None:
                    raise _Broken(self._failure)
                now = time.monotonic()
                if self._moved + self._acknowledged != moved:
                    moved, deadline = self._moved + self._acknowledged, now + self._timeout
                elif now >= deadline:
                    raise _Broken("%s: nothing has moved for %g s" % (complaint, self._timeout))
                self._changed.wait(min(SLICE, deadline - now))
                self._ctrl_c.check()
                self._screen.progress(self._sent, self._cuts - len(self._cut_at))
