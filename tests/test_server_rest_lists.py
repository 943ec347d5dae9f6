"""The list of a group's connections, page by page (protocol reference 5.2 number 14, 5.3)."""

from __future__ import annotations

import base64
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simplepubsub.exceptions import InvalidArgument
from simplepubsub.server.paging import Cursors, page_of
from tests.helpers import wait_until
from tests.rawclient import PLAIN, RELIABLE
from tests.restclient import Rest


def follow(rest, path):
    """Yield the pages from `path` on, as a client does that knows nothing but nextLink."""
    while path:
        page = rest.ok("GET", path).json
        yield page
        link = page.get("nextLink")
        assert link is None or link.startswith("http://%s/api/" % rest.host)
        path = link and link[len("http://" + rest.host):]


def ids(pages):
    return [entry["connectionId"] for page in pages for entry in page["value"]]


def test_an_unknown_group_is_an_empty_list(rest):
    assert rest.ok("GET", "/groups/nobody/connections").json == {"value": []}


def test_entries_are_ordered_by_id_and_name_the_user(rest, connect):
    clients = [connect(PLAIN, user_id=name, groups=["a/b"]) for name in ("mina", None, "bob", "")]
    page = rest.ok("GET", "/groups/a%2Fb/connections").json
    expected = [{"connectionId": client.connection_id, "userId": client.first["userId"]} for client in clients]
    for entry in expected:
        if entry["userId"] is None:
            del entry["userId"]
    assert page == {"value": sorted(expected, key=lambda entry: entry["connectionId"])}


def test_a_connection_that_waits_to_recover_is_listed(rest, connect, server):
    client = connect(RELIABLE, groups=["g"])
    client.abort()
    wait_until(lambda: server.stats()["retained"] == 1)
    assert ids(follow(rest, "/groups/g/connections")) == [client.connection_id]


@pytest.mark.parametrize("host", [None, "pubsub.example.test"])
def test_pages_lead_from_one_to_the_next(connect, server, host):
    rest = Rest(server, host=host)
    everyone = sorted(connect(PLAIN, groups=["a+b c"]).connection_id for _ in range(5))
    path = "/groups/a+b%20c/connections?api-version=2022-11-01&"
    for query, sizes in [
        ("maxpagesize=2", [2, 2, 1]), ("maxpagesize=5", [5]), ("top=3", [3]), ("maxpagesize=2&top=3", [2, 1]),
        ("maxpagesize=2&top=4", [2, 2]), ("top=2147483647&maxpagesize=200", [5]), ("maxpagesize=1&top=1", [1]),
    ]:
        pages = list(follow(rest, path + query))
        assert [len(page["value"]) for page in pages] == sizes
        assert ids(pages) == everyone[:sum(sizes)]
        assert all("api-version=2022-11-01" in page["nextLink"] for page in pages[:-1])


def test_a_page_has_200_entries_at_most(server):
    """Entries without sockets: 250 members are put into the hub itself."""
    from simplepubsub.server.hub import hub_of
    from simplepubsub.server.wire import JSON

    def fill():
        hub = hub_of(server._pump.work, "plaza")
        for number in range(250):
            hub.connect(JSON, None, groups=["g"], connection_id="cn-%03d" % number)

    server._call(fill)
    pages = list(follow(Rest(server), "/groups/g/connections"))
    assert [len(page["value"]) for page in pages] == [200, 50]
    assert ids(pages) == ["cn-%03d" % number for number in range(250)]


def test_the_list_may_change_while_it_is_read(rest, connect, server):
    clients = {client.connection_id: client for client in (connect(PLAIN, groups=["g"]) for _ in range(6))}
    order = sorted(clients)
    pages = follow(rest, "/groups/g/connections?maxpagesize=2")
    seen = ids([next(pages)])
    assert seen == order[:2]
    for gone in (order[1], order[3]):  # the last one listed, and one to come
        rest.ok("DELETE", "/connections/" + gone)
    late = connect(PLAIN, groups=["g"]).connection_id
    rest_of = ids(pages)
    expected = order[2:3] + order[4:] + ([late] if late > order[1] else [])
    assert rest_of == sorted(expected)


def token_of(page):
    return dict(urllib.parse.parse_qsl(page["nextLink"].partition("?")[2]))["continuationToken"]


def test_a_token_is_opaque_and_good_for_its_list_only(rest, connect):
    for _ in range(3):
        connect(PLAIN, groups=["g", "h"])
    token = token_of(rest.ok("GET", "/groups/g/connections?maxpagesize=1").json)
    assert len(ids([rest.ok("GET", "/groups/g/connections?continuationToken=" + token).json])) == 2
    changed = token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]
    for path in ("/groups/h/connections", "/api/hubs/other/groups/g/connections"):
        assert rest("GET", path + "?continuationToken=" + token).status == 400
    for bad in (changed, token[:-5], token + "AAAA", "", "x", "%00", "%C3%BC", "..", base64.b64encode(b"[1]").decode()):
        answer = rest("GET", "/groups/g/connections?continuationToken=" + bad)
        assert answer.status == 400 and "continuationToken" in answer.message
    assert Rest(rest.server, "PLAZA")("GET", "/groups/g/connections?continuationToken=" + token).status == 200


# --- pure -------------------------------------------------------------------------------------------------------------

CURSORS = Cursors("k" * 40)


@given(st.text(), st.text(), st.text())
def test_tokens_come_back_as_they_were_made(hub, group, last):
    token = CURSORS.make(hub, group, last)
    assert CURSORS.read(token, hub, group) == last
    assert token.replace("-", "").replace("_", "").isalnum() and token.isascii()
    with pytest.raises(InvalidArgument):
        Cursors("other" * 8).read(token, hub, group)


@given(st.one_of(st.text(), st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode())))
def test_any_other_text_is_no_token(text):
    with pytest.raises(InvalidArgument):
        CURSORS.read(text, "plaza", "g")


class Entry:
    def __init__(self, connection_id):
        self.connection_id = connection_id


@given(st.lists(st.text(min_size=1, max_size=3), unique=True), st.integers(1, 5))
def test_every_entry_is_on_exactly_one_page(names, size):
    found, more = [], True
    while more:
        page, more = page_of(map(Entry, names), found[-1] if found else "", size)
        assert len(page) == size or not more
        found.extend(entry.connection_id for entry in page)
    assert found == sorted(names)
