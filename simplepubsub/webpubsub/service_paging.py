"""Lists that come page by page, fetched when they are wanted."""

from __future__ import annotations

from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Tuple
from urllib.parse import parse_qsl, urlsplit

from ..exceptions import RemoteProtocolError

__all__ = ["GroupMember", "GroupMembers", "Pages"]

#: Parameters of a link to the next page that are ours to choose.
_OWN = ("api-version",)


class GroupMember(NamedTuple):
    """A connection in a group; ``user_id`` is None for an anonymous user."""

    connection_id: str
    user_id: Optional[str] = None


class Page(NamedTuple):
    members: List[GroupMember]
    next_link: Optional[str]


#: Fetches the page that a query asks for; None is the first one.
Fetch = Callable[[Optional[List[Tuple[str, str]]]], Any]


def read_page(body: Any) -> Page:
    """Return the page in the body of an answer. Raises RemoteProtocolError."""
    items = body.get("value") if isinstance(body, dict) else None
    if not isinstance(items, list):
        raise RemoteProtocolError("list_connections: the answer has no list of connections")
    members = []
    for item in items:
        identifier = item.get("connectionId") if isinstance(item, dict) else None
        user = item.get("userId") if isinstance(item, dict) else None
        if not isinstance(identifier, str) or not isinstance(user, (str, type(None))):
            raise RemoteProtocolError("list_connections: an entry of the answer is no connection")
        members.append(GroupMember(identifier, user))
    link = body.get("nextLink")
    return Page(members, link if isinstance(link, str) and link else None)


class Pages:
    """An iterator over pages, each a list of connections; for one thread at a time.

    ``continuation_token`` leads to the page after the last one fetched, in this or any other process; None at the end.
    """

    def __init__(self, fetch: Fetch, continuation_token: Optional[str]) -> None:
        self._fetch = fetch
        self._started = False
        self._seen = {continuation_token}
        self.continuation_token = continuation_token

    def __iter__(self) -> Pages:
        return self

    def __next__(self) -> List[GroupMember]:
        if self._started and self.continuation_token is None:
            raise StopIteration
        page = read_page(self._fetch(link_query(self.continuation_token)))
        if page.next_link is not None and page.next_link in self._seen:
            raise RemoteProtocolError("list_connections: the service leads from page to page in a circle")
        self._started = True
        self._seen.add(page.next_link)
        self.continuation_token = page.next_link
        return page.members


def link_query(link: Optional[str]) -> Optional[List[Tuple[str, str]]]:
    """Return what a link to a page asks for, or a bare token. Where it leads is not followed: we know the place."""
    if link is None:
        return None
    parts = urlsplit(link)
    pairs = [pair for pair in parse_qsl(parts.query) if pair[0].lower() not in _OWN]
    return pairs if any(name == "continuationToken" for name, _ in pairs) else [("continuationToken", link)]


class GroupMembers:
    """An iterator over the connections of a group; pages are fetched when they are wanted. For one thread at a time."""

    def __init__(self, fetch: Fetch, continuation_token: Optional[str] = None) -> None:
        self._fetch = fetch
        self._token = continuation_token
        self._members: Optional[Iterator[GroupMember]] = None

    def by_page(self, continuation_token: Optional[str] = None) -> Pages:
        """Return an iterator over the pages from the first one, or from where ``continuation_token`` leads, on."""
        return Pages(self._fetch, self._token if continuation_token is None else continuation_token)

    def __iter__(self) -> GroupMembers:
        return self

    def __next__(self) -> GroupMember:
        if self._members is None:
            self._members = (member for page in self.by_page() for member in page)
        return next(self._members)
