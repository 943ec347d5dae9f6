"""Our client against the `websockets` library as a server, and `websocket-client` against our server's simple endpoint.

The server is a small script that speaks the JSON subprotocols; its frames, its checks of ours and its close handshake
are the library's, which shares nothing with our frame code.
"""

from __future__ import annotations

import base64
import json
import threading
from urllib.parse import parse_qs, urlsplit

import pytest
import websocket  # websocket-client, which dials for our client too; here it stands for itself

from simplepubsub.webpubsub import WebPubSubClient
from tests import peers
from tests.helpers import MS, Recorder, scaled, wait_until

sync_server = peers.require("websockets.sync.server", "a server that shares nothing with ours", python=(3, 8))
exceptions = peers.require("websockets.exceptions", "its errors", python=(3, 8))

pytestmark = pytest.mark.interop

SUBPROTOCOLS = {"json": "json.webpubsub.azure.v1", "json.reliable": "json.reliable.webpubsub.azure.v1"}


class Service:
    """One group that everybody is in; a session is what was sent to a connection id and not acknowledged."""

    def __init__(self):
        self.commands = Recorder()  # everything that clients send, decoded
        self.requests = Recorder()  # the query of each handshake
        self.endings = Recorder()  # (code, reason) of each close as the library saw it
        self.connections = []
        self.unacked = {}
        self.sequence = 0
        self._lock = threading.Lock()
        self._server = sync_server.serve(
            self._handle, "127.0.0.1", 0, subprotocols=list(SUBPROTOCOLS.values()), max_size=4 * 2**20
        )
        self.url = "ws://127.0.0.1:%d/client/hubs/hub?access_token=secret" % self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="websockets-server", daemon=True)
        self._thread.start()

    def stop(self):
        self.endings.wait_for(len(self.connections), 20)  # the clients are gone, so every handler ends by itself
        self._server.shutdown()
        self._thread.join(scaled(10))

    def _handle(self, connection):
        query = {name: values[0] for name, values in parse_qs(urlsplit(connection.request.path).query).items()}
        self.requests(query)
        self.connections.append(connection)
        name = query.get("awps_connection_id", "websockets-%d" % len(self.connections))
        greeting = {"type": "system", "event": "connected", "userId": None, "connectionId": name}
        if connection.subprotocol == SUBPROTOCOLS["json.reliable"]:
            greeting["reconnectionToken"] = "token of " + name
        try:
            self.say(connection, greeting)
            for message in self.unacked.setdefault(name, []):
                self.say(connection, message)
            for text in connection:
                assert isinstance(text, str)
                command = json.loads(text)
                self.commands(command)
                self._execute(connection, name, command)
        except exceptions.ConnectionClosed:
            pass  # told below
        self.endings((connection.protocol.close_rcvd, connection.protocol.close_sent))

    def _execute(self, connection, name, command):
        kind = command["type"]
        if kind == "ping":
            self.say(connection, {"type": "pong"})
        elif kind == "sequenceAck":
            left = [item for item in self.unacked[name] if item["sequenceId"] > command["sequenceId"]]
            self.unacked[name] = left
        elif kind == "sendToGroup" and not command.get("noEcho"):
            self.deliver(connection, name, command)
        if "ackId" in command:
            self.say(connection, {"type": "ack", "ackId": command["ackId"], "success": True})

    def deliver(self, connection, name, command):
        message = {"type": "message", "from": "group", "group": command["group"], "fromUserId": None}
        message.update(dataType=command["dataType"], data=command["data"])
        if connection.subprotocol == SUBPROTOCOLS["json.reliable"]:
            self.sequence += 1
            message["sequenceId"] = self.sequence
            self.unacked[name].append(message)
        self.say(connection, message)

    @staticmethod
    def say(connection, value, pieces=1):
        text = json.dumps(value, ensure_ascii=False)
        size = -(-len(text) // pieces)
        # With several pieces the library sends a fragmented message.
        connection.send(text if pieces == 1 else [text[i : i + size] for i in range(0, len(text), size)])


@pytest.fixture
def service():
    made = Service()
    yield made
    made.stop()


@pytest.fixture(params=sorted(SUBPROTOCOLS))
def client(request, service):
    made = WebPubSubClient(service.url, protocol=request.param)
    made.start()
    yield made
    made.stop()


def test_all_kinds_of_data(client, service):
    client.join_group("room")
    values = ["text", "\u2603 \U0001f600 \x00", {"a": [1, None, True]}, b"\x00\xff", "", b"", "x" * 1_000_000]
    for value in values:
        client.send_to_group("room", value)
        assert client.receive(30).data == value
    # Acknowledgements of what has been received come when their time has come.
    commands = [command for command in service.commands.payloads() if "ackId" in command]
    joined, first = commands[:2]
    assert joined == {"type": "joinGroup", "group": "room", "ackId": joined["ackId"]}
    ack_id = first.pop("ackId")
    assert ack_id != joined["ackId"]
    assert first == {"type": "sendToGroup", "group": "room", "dataType": "text", "data": "text"}
    binary = commands[4]
    assert base64.b64decode(binary["data"]) == b"\x00\xff" and binary["dataType"] == "binary"


def test_flags_and_events(client, service):
    client.send_to_group("room", "x", no_echo=True, ack=False)
    client.send_event("shout", {"a": 1}, ack_id=2**64 - 1)
    client.leave_group("room")
    first, second, third = service.commands.wait_for(3, 15)
    assert first == {"type": "sendToGroup", "group": "room", "noEcho": True, "dataType": "text", "data": "x"}
    assert second == {"type": "event", "event": "shout", "dataType": "json", "data": {"a": 1}, "ackId": 2**64 - 1}
    assert third == {"type": "leaveGroup", "group": "room", "ackId": third["ackId"]}


def test_batches_arrive_in_order(client, service):
    for number in range(3000):
        client.send_to_group_nowait("room", number)
    client.flush(scaled(20))
    assert [client.receive(30).data for _ in range(3000)] == list(range(3000))


def test_fragments_with_control_frames_between_them(client, service):
    (connection,) = service.connections
    message = {"type": "message", "from": "server", "dataType": "text", "data": "\u2603" * 50_000}
    service.say(connection, message, pieces=7)
    pongs = [connection.ping() for _ in range(3)]
    service.say(connection, dict(message, data="after"))
    assert client.receive(30).data == message["data"]
    assert client.receive(30).data == "after"
    assert pongs[-1].wait(scaled(10))


def test_pings_of_the_client(service):
    with WebPubSubClient(service.url, ping_interval=20 * MS) as client:
        wait_until(lambda: client.latency is not None, 15)
    assert {"type": "ping"} in service.commands.payloads()


def test_goodbye_of_the_client(client, service):
    client.stop()
    ((received, sent),) = service.endings.wait_for(1, 15)
    assert (received.code, sent.code) == (1000, 1000)


def test_goodbye_of_the_server_and_recovery(service):
    events = Recorder()
    client = WebPubSubClient(service.url)
    events.attach(client, "recovered", "connected", "gap")
    client.start()
    try:
        (first,) = service.connections
        for number in range(3):
            service.deliver(first, "websockets-1", {"group": "room", "dataType": "json", "data": number})
        assert [client.receive(30).data for _ in range(3)] == [0, 1, 2]
        first.close(1012, "restarting")
        events.wait_event("recovered", 20)
        # The server repeats what it has no acknowledgement for, and goes on.
        service.deliver(service.connections[1], "websockets-1", {"group": "room", "dataType": "json", "data": 3})
        assert client.receive(30).data == 3
        ((received, sent), *_) = service.endings.wait_for(1, 15)
        assert (received.code, sent.code) == (1012, 1012), "the close frame is answered with its code"
        query = service.requests.payloads()[1]
        assert query == {"awps_connection_id": "websockets-1", "awps_reconnection_token": "token of websockets-1"}
        wait_until(lambda: not service.unacked["websockets-1"], timeout=15, message="the sequence acknowledgement")
        assert client.connection_id == "websockets-1" and events.names == ["connected", "recovered"]
    finally:
        client.stop()


@pytest.mark.parametrize("frame, code", [(b"binary", 1003), ("not JSON", 1007), ('{"type":"ack"}', 1007)])
def test_what_the_client_does_not_accept(service, frame, code):
    client = WebPubSubClient(service.url, protocol="json")
    events = Recorder().attach(client, "gap")
    client.start()
    try:
        service.connections[0].send(frame)
        ((received, _), *_) = service.endings.wait_for(1, 15)
        assert received.code == code
        events.wait_event("gap", 20)
        client.join_group("room")  # on a connection that is as good as the first
    finally:
        client.stop()


# ---- websocket-client against our server -----------------------------------------------------------------------------


def dial(url):
    return websocket.create_connection(url, timeout=scaled(10))


def test_websocket_client_in_event_mode(server):
    seen = Recorder()

    @server.on("message")
    def answer(event):
        seen((event.data, event.data_type, event.user_id))
        return event.data

    peer = dial(server.client_access_url("hub", user_id="mina"))
    try:
        for payload in ("text", b"\x00bytes", "\u2603" * 30_000, ""):
            (peer.send_binary if isinstance(payload, bytes) else peer.send)(payload)
            assert peer.recv() == payload
            kind = "binary" if isinstance(payload, bytes) else "text"
            assert seen.payloads()[-1] == (payload, kind, "mina")
        server.hub("hub").send_to_user("mina", {"a": 1})
        assert json.loads(peer.recv()) == {"a": 1}
    finally:
        peer.close()


def test_websocket_client_in_group_mode_among_our_clients(server):
    url = server.client_access_url("hub", groups=["room"])
    with WebPubSubClient(url) as client:
        peer = dial(url + "&webpubsub_mode=sendToGroup&group=room&noEcho=true")
        try:
            peer.send("text")
            peer.send_binary(b"\x00bytes")
            assert [client.receive(30).data for _ in range(2)] == ["text", b"\x00bytes"]
            for value in ("text", b"\x00bytes", {"a": 1}):
                client.send_to_group("room", value)
            got = [peer.recv() for _ in range(3)]
            assert got[:2] == ["text", b"\x00bytes"] and json.loads(got[2]) == {"a": 1}
        finally:
            peer.close()
