"""Fan out JSON publishes to a group with bare picows and uvloop: the yardstick for our embedded server.

It does what a service must do per message and no more: parse the publish, build the group message once, send it to
every member, acknowledge. On `json.reliable` each member's copy carries its own sequence id. Tokens, roles, limits,
replay buffers and the care for slow readers are all missing.
Prints `ready PORT`; ends when stdin closes or after `--life` seconds.
"""
from __future__ import annotations

import argparse
import asyncio
import sys
import threading

from thin_server import watch_stdin
from wire import PLAIN, RELIABLE

try:
    import uvloop
    from picows import WSListener, WSMsgType, WSUpgradeResponse, WSUpgradeResponseWithListener, ws_create_server
except ImportError as missing:
    sys.stdout.write("missing %s\n" % missing.name)
    sys.exit(0)
try:
    from orjson import dumps, loads
except ImportError:
    from json import dumps as _dumps
    from json import loads

    def dumps(value) -> bytes:
        """Serialise compactly, as orjson does."""
        return _dumps(value, separators=(",", ":")).encode()

GROUPS = {}  # name -> list of members


class Member(WSListener):
    """One connection."""

    def __init__(self, reliable: bool) -> None:
        self.reliable = reliable
        self.sequence = 0
        self.joined = []
        self.transport = None

    def on_ws_connected(self, transport) -> None:
        self.transport = transport
        hello = {"type": "system", "event": "connected", "userId": "bench", "connectionId": "picows-%d" % id(self)}
        if self.reliable:
            hello["reconnectionToken"] = "token-%d" % id(self)
        transport.send(WSMsgType.TEXT, dumps(hello))

    def on_ws_disconnected(self, transport) -> None:
        for members in self.joined:
            members.remove(self)

    def on_ws_frame(self, transport, frame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
            return
        if frame.msg_type != WSMsgType.TEXT:
            return
        message = loads(frame.get_payload_as_bytes())
        kind = message["type"]
        if kind == "sendToGroup":
            fan_out(message)
        elif kind == "joinGroup":
            members = GROUPS.setdefault(message["group"], [])
            members.append(self)
            self.joined.append(members)
        if "ackId" in message:
            transport.send(WSMsgType.TEXT, b'{"type":"ack","ackId":%d,"success":true}' % message["ackId"])


def fan_out(message) -> None:
    """Send one publish to every member of its group."""
    text = dumps({
        "type": "message", "from": "group", "group": message["group"], "fromUserId": "bench",
        "dataType": message.get("dataType", "json"), "data": message["data"],
    })
    head = text[:-1] + b',"sequenceId":'
    kind = WSMsgType.TEXT
    for member in GROUPS.get(message["group"], ()):
        if member.reliable:
            member.sequence += 1
            member.transport.send(kind, b"%b%d}" % (head, member.sequence))
        else:
            member.transport.send(kind, text)


def accept(request):
    """Choose the subprotocol and make the listener; any path is welcome."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    chosen = RELIABLE if RELIABLE in offered else PLAIN
    answer = WSUpgradeResponse.create_101_response(extra_headers={"Sec-WebSocket-Protocol": chosen})
    return WSUpgradeResponseWithListener(answer, Member(chosen == RELIABLE))


async def serve(port: int, life: float) -> None:
    """Listen on loopback until stdin ends or `life` seconds have passed."""
    server = await ws_create_server(accept, "127.0.0.1", port, backlog=512)
    done = asyncio.Event()
    threading.Thread(target=watch_stdin, args=(asyncio.get_running_loop(), done), daemon=True).start()
    sys.stdout.write("ready %d\n" % server.sockets[0].getsockname()[1])
    sys.stdout.flush()
    try:
        await asyncio.wait_for(done.wait(), life)
    except asyncio.TimeoutError:
        pass
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--life", type=float, default=900.0)
    options = parser.parse_args()
    uvloop.install()
    asyncio.run(serve(options.port, options.life))
