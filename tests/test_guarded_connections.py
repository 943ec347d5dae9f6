"""Connections of requests that another thread can end: what becomes of one that breaks while it is made."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
import requests

from simplepubsub.transports.polling import Wire, twin_session


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("name", ["EPIPE", "ECONNRESET", "ESHUTDOWN", "EPROTOTYPE", "ECONNREFUSED"])
def test_a_connection_that_breaks_while_it_is_made_is_an_error_of_the_network(name: str, scheme: str) -> None:
    """urllib3 takes some of them for a server that has answered and closed before it had the whole request."""
    code = getattr(errno, name)

    class Broken(Wire):
        def open(self, host: str, port: int) -> socket.socket:
            raise OSError(code, os.strerror(code))

    given = requests.Session()
    given.trust_env = False
    session: Any = twin_session(given, Broken())
    with given, session, pytest.raises(requests.ConnectionError) as caught:
        session.get(scheme + "://127.0.0.1:1/")
    assert os.strerror(code) in str(caught.value)
