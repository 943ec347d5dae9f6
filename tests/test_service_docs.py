"""Run every Python block of docs/service-client.md as it stands, in order, and check what the guide says."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
from pathlib import Path
from typing import Any, Iterator

import pytest

import simplepubsub
from simplepubsub import webpubsub
from simplepubsub.webpubsub import WebPubSubServiceClient
from simplepubsub.webpubsub.service_options import CallOptions

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "service-client.md"
TEXT = DOCUMENT.read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
PRINT = re.compile(r"\bprint\(.*\)+  # (.+)$", re.M)


@pytest.fixture
def service_log(caplog: Any) -> Iterator[Any]:
    logger = logging.getLogger("simplepubsub.service")
    level = logger.level
    yield caplog
    logger.setLevel(level)


def test_the_blocks_run_and_print_what_they_say(server: Any, service_log: Any) -> None:
    names = {"__name__": "__main__", "connection_string": server.connection_string, "endpoint": server.endpoint,
             "access_key": re.search("AccessKey=([^;]*)", server.connection_string).group(1)}  # type: ignore[union-attr]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        for block in BLOCKS:
            exec(compile(block, str(DOCUMENT), "exec"), names)
    promised = [line for comment in PRINT.findall("".join(BLOCKS)) for line in comment.split(" | ")]
    assert output.getvalue().splitlines() == promised and len(promised) > 14
    assert any("watched" in record.getMessage() for record in service_log.records)


def test_options_and_their_defaults_are_those_of_the_class() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]*) \|", TEXT.partition("\n## Sending")[0], re.M)
    parameters = inspect.signature(WebPubSubServiceClient).parameters
    for names, default in rows:
        for name in re.findall(r"\w+", names):
            assert name in parameters, name
            if re.fullmatch(r"[\d]+|True|False|None", default):
                assert parameters[name].default == eval(default), name
    assert len(rows) > 10
    options = re.search(r"Every method takes (.*?) for that call", TEXT, re.S).group(1)  # type: ignore[union-attr]
    assert set(re.findall(r"`(\w+)`", options)) == set(CallOptions._fields)


def test_every_method_is_in_the_table() -> None:
    table = TEXT.partition("\n| about | methods |")[2].partition("\n\n")[0]
    public = {name for name, value in vars(WebPubSubServiceClient).items() if not name.startswith("_")}
    public |= {name for name in dir(WebPubSubServiceClient) if not name.startswith("_")}
    assert set(re.findall(r"`(\w+)`", table)) == public - {"endpoint", "hub", "from_connection_string"}


def test_names_of_errors_are_those_of_the_package() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \|(?: `(\w+)`)? \|$", TEXT.partition("| error |")[2], re.M)
    assert len(rows) == 13
    for ours, theirs in rows:
        assert issubclass(getattr(simplepubsub, ours), simplepubsub.SimplePubSubError)
        if theirs and theirs != "ValueError":
            assert getattr(webpubsub, theirs) is getattr(simplepubsub, ours)
    assert {name for name in simplepubsub.exceptions.__all__ if re.match("Service[A-Z]", name)} <= {a for a, _ in rows}


def test_links_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.+)$", TEXT, re.M)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
