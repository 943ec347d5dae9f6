"""The two pages of the examples in a real browser: several windows, real clicks, and what the others then show."""

from __future__ import annotations

import re
from typing import Any, Iterator

import pytest

from tests.chromium import Chromium, find
from tests.helpers import wait_until
from tests.test_websocket_examples import EXAMPLES, serving

pytestmark = pytest.mark.interop


@pytest.fixture
def browser() -> Iterator[Any]:
    """One browser for each test, with a profile of its own."""
    with Chromium(find("the pages of the examples in a real browser")) as chromium:
        yield chromium


def test_a_click_in_one_window_changes_the_others(browser: Any) -> None:
    with serving("websocket_counter.py") as running:
        one = browser.open(running.address + "/")
        one.wait_text("#value", "0")
        one.wait_text("#online", "1")
        two = browser.open(running.address + "/")
        for window in (one, two):
            window.wait_text("#online", "2")
            window.wait_text("#value", "0")

        one.click("#plus")
        two.wait_text("#value", "1")
        one.wait_text("#value", "1")
        for _ in range(3):
            two.click("#minus")
        one.wait_text("#value", "-2")
        two.wait_text("#value", "-2")

        three = browser.open(running.address + "/")  # who comes late sees the state
        three.wait_text("#value", "-2")
        three.wait_text("#online", "3")
        two.close()
        for window in (one, three):
            window.wait_text("#online", "2")
        one.click("#plus")
        three.wait_text("#value", "-1")
        assert one.complaints() == three.complaints() == []

        running.interrupt()  # the server goes: the pages notice
        for window in (one, three):
            window.wait_text("#value", "?")
            window.wait_text("#online", "?")


def test_the_time_arrives_in_two_windows(browser: Any) -> None:
    with serving("websocket_time.py") as running:
        windows = [browser.open(running.address + "/") for _ in range(2)]
        for window in windows:
            window.wait_text("#state", "connected")
            wait_until(lambda window=window: window.evaluate("times.children.length") >= 2, 30, "no time arrived")
            shown = window.text("#times").splitlines()
            assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", line) for line in shown)
            assert shown == sorted(shown, reverse=True)  # the newest first
            assert window.complaints() == []
        running.interrupt()
        for window in windows:
            window.wait_text("#state", "closed (1001)")


@pytest.mark.parametrize("name", ["websocket_counter.py", "websocket_time.py"])
def test_a_page_opened_as_a_file_finds_the_server_on_its_default_port(name: str, browser: Any) -> None:
    page = (EXAMPLES / name).with_suffix(".html")
    window = browser.open(page.as_uri())
    address = window.evaluate("socket.url")
    source = (EXAMPLES / name).read_text("utf-8")
    assert address == "ws://localhost:%s/" % re.search(r"else (\d+)", source).group(1)  # type: ignore[union-attr]
