"""Serve with one library; the paths are those of websockets_raw.py, and `/subscribe/N` and `/publish/N` for broadcasts.

Usage: `websockets_server.py NAME`. Prints `ready PORT`, or `missing ...`; ends when stdin closes.
"""
from __future__ import annotations

import asyncio
import collections
import os
import sys
import threading

from wire import TEXT


def ours() -> None:
    """Serve with simplepubsub."""
    from simplepubsub import websockets

    subscribers = collections.defaultdict(set)

    def handle(connection) -> None:
        kind, count = parse(connection.request.path)
        if kind == "subscribe":
            subscribers[count].add(connection)
            connection.send("done")
        if kind == "publish":
            for message in connection:
                websockets.broadcast(subscribers[count], message)
            subscribers.pop(count, None)
        else:
            blocking(connection, kind, count)

    with websockets.serve(handle, "127.0.0.1", 0, ping_interval=None) as server:
        say_ready(server.port)
        server.serve_forever()


def websockets_sync() -> None:
    """Serve with websockets.sync, which has no broadcast: one send after the other."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import serve

    subscribers = collections.defaultdict(set)

    def handle(connection) -> None:
        kind, count = parse(connection.request.path)
        try:
            if kind == "subscribe":
                subscribers[count].add(connection)
                connection.send("done")
            if kind == "publish":
                for message in connection:
                    for subscriber in subscribers[count]:
                        subscriber.send(message)
                subscribers.pop(count, None)
            else:
                blocking(connection, kind, count)
        except ConnectionClosed:
            pass  # the client left

    with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        say_ready(server.socket.getsockname()[1])
        server.serve_forever()


def blocking(connection, kind: str, count: int) -> None:
    """Do what a path says, the same code for both blocking libraries."""
    if kind == "source":
        connection.recv()
        for _ in range(count):
            connection.send(TEXT)
    elif kind == "sink":
        for _ in range(count):
            connection.recv()
        connection.send("done")
    for message in connection:
        if kind == "echo":
            connection.send(message)


def websockets_asyncio() -> None:
    """Serve with websockets.asyncio."""
    from websockets.asyncio.server import broadcast, serve
    from websockets.exceptions import ConnectionClosed

    subscribers = collections.defaultdict(set)

    async def handle(connection) -> None:
        kind, count = parse(connection.request.path)
        try:
            if kind == "subscribe":
                subscribers[count].add(connection)
                await connection.send("done")
            elif kind == "source":
                await connection.recv()
                for _ in range(count):
                    await connection.send(TEXT)
            elif kind == "sink":
                for _ in range(count):
                    await connection.recv()
                await connection.send("done")
            async for message in connection:
                if kind == "echo":
                    await connection.send(message)
                elif kind == "publish":
                    broadcast(subscribers[count], message)
        except ConnectionClosed:
            pass  # the client left
        finally:
            if kind == "publish":
                subscribers.pop(count, None)

    async def main() -> None:
        async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
            say_ready(server.sockets[0].getsockname()[1])
            await asyncio.get_running_loop().create_future()

    asyncio.run(main())


def parse(path: str) -> tuple:
    """Return the kind and the count that a path asks for."""
    _, kind, *count = path.split("/")
    return kind, int(count[0]) if count else 0


def say_ready(port: int) -> None:
    """Tell the port."""
    print("ready %d" % port, flush=True)


SERVERS = {"ours": ours, "websockets.sync": websockets_sync, "websockets.asyncio": websockets_asyncio}

if __name__ == "__main__":
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    try:
        SERVERS[sys.argv[1]]()
    except ImportError as error:
        print("missing %s" % str(error).split(" (")[0], flush=True)
