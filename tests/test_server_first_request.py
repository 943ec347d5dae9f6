"""Who connects to the server and never finishes a request is cut off; everybody else is not."""

from __future__ import annotations

import contextlib
import socket
import ssl

import pytest

from simplepubsub import WebPubSubClient
from simplepubsub.exceptions import SimplePubSubError
from tests.helpers import LOOPBACK, MS, scaled, self_signed, wait_until


def ended(sock: socket.socket) -> bool:
    """Wait for the end of the connection, which may come as a reset."""
    sock.settimeout(scaled(20))
    try:
        while sock.recv(4096):
            pass
    except (ConnectionResetError, ssl.SSLError):  # before Python 3.8 OpenSSL's name for an end without goodbye
        pass
    return True


@pytest.mark.parametrize("begin", [b"", b"GET /client/hubs/h HTTP/1.1\r\nHost: x\r\n", b"P"])
def test_an_unfinished_first_request_ends_the_connection(fresh_server, begin):
    server = fresh_server()
    server.stop()
    server._request_timeout = 100 * MS
    server.start()
    with socket.create_connection((LOOPBACK, server.port), timeout=scaled(10)) as sock:
        sock.sendall(begin)
        assert ended(sock)


def test_a_tls_connection_without_a_request_ends(fresh_server, tmp_path):
    certificate = self_signed(tmp_path, LOOPBACK)
    server = fresh_server(ssl=certificate.server_context)
    server.stop()
    server._request_timeout = 100 * MS
    server.start()
    with socket.create_connection((LOOPBACK, server.port), timeout=scaled(10)) as plain:
        with certificate.client_context.wrap_socket(plain, server_hostname=LOOPBACK) as sock:
            assert ended(sock)


def test_connections_that_made_a_request_stay(fresh_server):
    server = fresh_server()
    for limit in (100 * MS, scaled(1), scaled(10)):
        server.stop()
        server._request_timeout = limit
        server.start()
        with contextlib.ExitStack() as stack:
            try:
                client = stack.enter_context(WebPubSubClient(server.client_access_url("h")))
            except SimplePubSubError:  # on a busy machine its request may take longer than that
                assert limit < scaled(10)
                continue
            with socket.create_connection((LOOPBACK, server.port), timeout=scaled(10)) as late:
                assert ended(late)  # it came after the client, so the client's time is over, too
            client.send_to_group("g", "still here", timeout=scaled(10))
            wait_until(lambda: server.stats()["published"] == 1)
            assert client.stats()["recoveries"] == client.stats()["reconnects"] == 0
        break
