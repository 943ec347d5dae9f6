"""The event handler as upstream of the embedded server: mounted into it, and by HTTP with the standard library only."""

from __future__ import annotations

from typing import Any

import pytest

from simplepubsub.exceptions import ConnectError
from simplepubsub.server import Server
from simplepubsub.webpubsub import EventHandler, WebPubSubClient
from tests.handler_play import HUB, SYSTEM, make_handler, play
from tests.helpers import Recorder, scaled
from tests.wsgi import serve_wsgi

KEY = "k" * 40
SECOND = "s" * 40


@pytest.fixture
def notes() -> Recorder:
    return Recorder()


def test_mounted_into_the_server(fresh_server: Any, notes: Recorder) -> None:
    server = fresh_server(access_key=KEY)
    server.add_event_handler(make_handler(KEY, notes), HUB, system=SYSTEM)
    play(server, notes)


def test_over_http_without_a_framework(fresh_server: Any, notes: Recorder) -> None:
    server = fresh_server(access_key=SECOND, secondary_key=KEY)
    with serve_wsgi(make_handler(KEY, notes).wsgi) as url:
        server.add_event_handler(url + "/{hub}/{event}", HUB, system=SYSTEM, retry_delays=())
        play(server, notes)


def test_a_connection_string_of_the_server_is_enough(server: Server) -> None:
    handler = EventHandler(connection_string=server.connection_string)
    handler.on_event("shout", lambda request: request.data.upper())
    server.add_event_handler(handler)
    with WebPubSubClient(server.client_access_url(HUB)) as client:
        client.send_event("shout", "hello")
        assert client.receive(scaled(20)).data == "HELLO"


def test_another_key_lets_nobody_in(server: Server, notes: Recorder) -> None:
    server.add_event_handler(make_handler(KEY, notes), HUB)
    client = WebPubSubClient(server.client_access_url(HUB))
    with pytest.raises(ConnectError) as caught:
        client.start()
    client.stop()
    assert getattr(caught.value, "status", None) == 401 and notes.names == []
