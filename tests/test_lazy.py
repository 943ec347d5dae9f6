"""What an import loads, and what it leaves until somebody asks."""

from __future__ import annotations

import pytest

import simplepubsub
from simplepubsub import webpubsub
from tests.helpers import run_python


@pytest.mark.parametrize(
    "statement, unwanted",
    [
        ("import simplepubsub", {"requests", "websocket", "urllib.request", "simplepubsub.webpubsub"}),
        ("from simplepubsub import websockets", {"requests", "simplepubsub.webpubsub", "simplepubsub.socketio"}),
        ("from simplepubsub import WebPubSubClient", {"requests", "simplepubsub.socketio", "simplepubsub.websockets"}),
        ("from simplepubsub import socketio", {"simplepubsub.webpubsub", "simplepubsub.websockets"}),
    ],
)
def test_a_script_loads_what_it_uses(statement, unwanted):
    result = run_python("import sys; %s; print(*sys.modules)" % statement)
    assert unwanted.isdisjoint(result.stdout.split())


@pytest.mark.parametrize("package", [simplepubsub, webpubsub])
def test_every_name_is_there(package):
    assert set(package.__all__) <= set(dir(package))
    namespace = {}
    exec("from %s import *" % package.__name__, namespace)
    assert all(namespace[name] is getattr(package, name) for name in package.__all__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="'simplepubsub' has no attribute 'WebPubSubServer'"):
        getattr(simplepubsub, "WebPubSubServer")  # noqa: B009
    with pytest.raises(ImportError, match="WebPubSubServer"):
        from simplepubsub import WebPubSubServer  # noqa: F401
