"""Who has the server's answer is one of its connections: `broadcast` reaches it, and `shutdown` says goodbye to it."""

from __future__ import annotations

from typing import Any

import pytest

from simplepubsub import websockets


def echo(connection: Any) -> None:
    for message in connection:
        connection.send(message)


@pytest.mark.usefixtures("switch_interval")
def test_a_client_that_is_connected_is_in_the_set() -> None:
    with websockets.serve(echo) as server:
        for _ in range(100):
            with websockets.connect("ws://localhost:%d" % server.port) as client:
                assert len([c for c in server.connections if c.remote_address == client.local_address]) == 1
                assert websockets.broadcast(server.connections, "hello") == []
                assert client.recv(timeout=10) == "hello"


@pytest.mark.usefixtures("switch_interval")
def test_a_shutdown_right_after_the_handshake_is_polite() -> None:
    for _ in range(100):
        with websockets.serve(echo) as server:
            client = websockets.connect("ws://localhost:%d" % server.port)
            server.shutdown()
            with pytest.raises(websockets.ConnectionClosedOK) as caught:
                client.recv(timeout=10)
            assert caught.value.code == 1001
            client.close()
