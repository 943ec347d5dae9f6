"""Run every Python block of docs/event-handler.md as it stands, in order; those of a framework need it installed."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest

from simplepubsub.webpubsub import EventHandler
from tests import peers
from tests.helpers import wait_until
from tests.test_event_handler_mounts import call_asgi, call_wsgi

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "event-handler.md"
TEXT = DOCUMENT.read_text("utf-8")
BLOCKS: List[str] = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
FRAMEWORKS = ("flask", "django", "fastapi")
ORIGIN = {"WebHook-Request-Origin": "127.0.0.1"}


def needs(block: str) -> str:
    """Return the framework that a block is about, or ""."""
    found = re.search(r"^(?:import|from) (%s)\b" % "|".join(FRAMEWORKS), block, re.M)
    return "flask" if "app.wsgi_app" in block else found.group(1) if found else ""


def run(names: Dict[str, Any], framework: str) -> None:
    """Run the blocks of a framework, "" for those without one."""
    for block in BLOCKS:
        if needs(block) == framework:
            exec(compile(block, str(DOCUMENT), "exec"), names)


def test_the_blocks_run_and_print_what_they_say(server: Any) -> None:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        run({"__name__": "__main__", "server": server, "connection_string": server.connection_string}, "")
        wait_until(lambda: "ann is gone: " in output.getvalue())
    promised = re.findall(r"print\(.*\)+  # (.+)$", "".join(BLOCKS), re.M)
    assert promised == ["403", "{'turns': 1}"]
    lines = output.getvalue().splitlines()
    assert [line for line in lines if line in promised] == promised and "ann is here" in lines


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_blocks_of_a_framework_answer(framework: str, server: Any) -> None:
    peers.require(framework, "the event handler guide")
    handler = EventHandler("chat", connection_string=server.connection_string)
    names = {"__name__": "__main__", "handler": handler}
    run(names, framework)
    if framework == "flask":
        for path in ("/events/validate", "/api/webpubsub/hubs/chat/validate"):
            assert call_wsgi(names["app"], "OPTIONS", ORIGIN, check=False, PATH_INFO=path)[0] == 200
    elif framework == "fastapi":
        assert call_asgi(names["app"], "OPTIONS", ORIGIN, path="/events/validate")[0] == 200
    else:
        [pattern] = names["urlpatterns"]
        assert pattern.resolve("events/validate").func.csrf_exempt is True


def test_every_option_and_every_name_in_the_document_exists() -> None:
    import simplepubsub
    from simplepubsub import server, webpubsub

    for name in set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)\b", TEXT)):
        if name not in ("WebHook", "InternalServerError"):  # they belong to the wire
            assert any(hasattr(module, name) for module in (simplepubsub, webpubsub, server)), name
    for name in set(re.findall(r"\b(?:handler\.|`)(on_\w+|wsgi\w*|asgi\w*|flask_view|django_view|handle)\b", TEXT)):
        assert hasattr(EventHandler, name), name
