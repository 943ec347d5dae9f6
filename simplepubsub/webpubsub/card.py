"""What a notebook shows for a client."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import WebPubSubClient

__all__ = ["html_card"]

_COLOURS = {"connected": "#2e7d32", "recovering": "#ef6c00", "connecting": "#ef6c00", "disconnected": "#c62828"}


def html_card(protocol: str, client: WebPubSubClient) -> str:
    """Return a small table with state, ids, groups and counters; everything that came from outside is escaped."""
    stats = client.stats()
    state = str(client.state)
    rows = [
        ("protocol", protocol),
        ("connection", client.connection_id or "none"),
        ("user", client.user_id or "anonymous"),
        ("groups", ", ".join(client.groups) or "none"),
        ("sent / acknowledged", "%d / %d" % (stats["sent"], stats["acked"])),
        ("received / waiting", "%d / %d" % (stats["received"], stats["inbox"])),
        ("recoveries / gaps", "%d / %d" % (stats["recoveries"], stats["gaps"])),
    ]
    body = "".join("<tr><th style='text-align:left'>%s</th><td>%s</td></tr>" % (escape(a), escape(b)) for a, b in rows)
    return (
        "<table style='border-left:4px solid %s'>"
        "<caption style='text-align:left'><b>WebPubSubClient</b> %s</caption>%s</table>"
        % (_COLOURS.get(state, "#757575"), escape(state), body)
    )
