"""Load a server through raw sockets, cheaply: fan-out to many subscribers, or many idle connections.

One process and one thread. Subscribers only count a marker in the bytes they get; on `json.reliable` each acknowledges
its sequence ids now and then. The publisher keeps a window of publishes that are not yet delivered to everybody, so no
subscriber falls behind by more than the window. Bounded in time and count; prints one JSON object.
"""
from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import time

from processes import cpu_seconds, rss
from wire import GROUP, PLAIN, RELIABLE, client_frame, open_client, publish

MARK = b"~bench~mark~"
ACK_EVERY = 200


class Subscriber:
    """Counts the deliveries on one socket."""

    def __init__(self, sock: socket.socket, reliable: bool) -> None:
        self.sock, self.reliable = sock, reliable
        self.seen = self.acked = self.bytes = 0
        self.tail = b""

    def read(self) -> int:
        """Take what is there and return how many messages it completed."""
        try:
            data = self.sock.recv(262144)
        except BlockingIOError:
            return 0
        if not data:
            raise ConnectionError("the server closed a subscriber after %d messages" % self.seen)
        self.bytes += len(data)
        text = self.tail + data
        count = text.count(MARK)
        # Keep enough for a marker cut in two, but never a whole one, which would count twice.
        cut = text.rfind(MARK)
        self.tail = text[max(len(text) - len(MARK) + 1, cut + len(MARK) if cut >= 0 else 0):]
        self.seen += count
        if self.reliable and self.seen - self.acked >= ACK_EVERY:
            self.acked = self.seen
            self.sock.send(client_frame(b'{"type":"sequenceAck","sequenceId":%d}' % self.seen))
        return count


def fan_out(options) -> dict:
    """Publish through one connection for `seconds` after a warm-up and return the rates."""
    reliable = options.protocol == RELIABLE
    members = [
        Subscriber(open_client(options.url, options.protocol, GROUP), reliable) for _ in range(options.subscribers)]
    sender = open_client(options.url, options.protocol)
    selector = selectors.DefaultSelector()
    for member in members:
        member.sock.setblocking(False)
        selector.register(member.sock, selectors.EVENT_READ, member)
    sender.setblocking(False)
    selector.register(sender, selectors.EVENT_READ, None)
    text = MARK.decode() + "x" * (100 - len(MARK))
    many = len(members)
    sent = delivered = answered = 0
    waiting, answers = b"", b""
    begin = time.perf_counter()
    phases = {}
    start = begin + options.warm
    stop = start + options.seconds

    def mark(name: str) -> None:
        phases[name] = (time.perf_counter(), delivered, time.process_time(), cpu_seconds(options.server_pid) or 0.0)

    while True:
        now = time.perf_counter()
        if "start" not in phases and now >= start:
            mark("start")
        if now >= stop:
            if "stop" not in phases:
                mark("stop")
            if delivered >= sent * many and answered >= sent:
                break
            if now > stop + 10:
                raise ConnectionError(
                    "of %d deliveries %d arrived, of %d acks %d" % (sent * many, delivered, sent, answered))
        elif not waiting:
            room = options.window - (sent - delivered // many)
            if room >= min(8, options.window):
                waiting = b"".join(client_frame(publish(sent + number + 1, text).encode()) for number in range(room))
                sent += room
        if waiting:
            try:
                waiting = waiting[sender.send(waiting):]
            except BlockingIOError:
                pass
        if options.window > 8:
            # Let messages gather in the sockets: woken for each one, this process would be as busy as the server.
            time.sleep(0.001)
        for key, _ in selector.select(0.05):
            if key.data is not None:
                delivered += key.data.read()
                continue
            data = sender.recv(262144)
            if not data:
                raise ConnectionError("the server closed the publisher after %d publishes" % sent)
            answers += data
            answered += answers.count(b'"success"')
            answers = answers[answers.rfind(b'"success"') + 9:] if b'"success"' in answers else answers
    (began, first, cpu, theirs), (ended, last, cpu_end, theirs_end) = phases["start"], phases["stop"]
    took, count = ended - began, last - first
    for member in members:
        member.sock.close()
    sender.close()
    if min(member.seen for member in members) != sent or max(member.seen for member in members) != sent:
        raise ConnectionError("not every subscriber got each of %d messages once" % sent)
    return {
        "rate": count / took, "published": sent, "generator_busy": (cpu_end - cpu) / took,
        "server_busy": (theirs_end - theirs) / took, "cpu_us": (theirs_end - theirs) / max(count, 1) * 1e6,
    }


def idle(options) -> dict:
    """Open connections that say nothing and return the server's memory for each."""
    raise_limit(options.connections + 200)
    sockets = [open_client(options.url, options.protocol) for _ in range(50)]  # pools and caches fill before the count
    time.sleep(0.3)
    before = rss(options.server_pid)
    try:
        sockets += [open_client(options.url, options.protocol) for _ in range(options.connections)]
        time.sleep(0.5)
        after = rss(options.server_pid)
    finally:
        for sock in sockets:
            sock.close()
    if before is None or after is None:
        raise ConnectionError("this system does not tell a process's memory")
    return {"bytes": (after - before) / options.connections, "connections": options.connections, "base": before}


def raise_limit(wanted: int) -> None:
    """Raise the soft limit of open files where that is possible."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("fanout", "idle"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--server-pid", type=int, default=os.getpid())
    parser.add_argument("--protocol", choices=(PLAIN, RELIABLE), default=PLAIN)
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--warm", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=2.0)
    chosen = parser.parse_args()
    try:
        print(json.dumps({"fanout": fan_out, "idle": idle}[chosen.mode](chosen)))
    except (OSError, ConnectionError) as error:
        print(json.dumps({"failed": str(error)}))
