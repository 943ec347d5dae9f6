"""The operations of the REST interface, one method each, under the names of the official SDK.

Protocol reference 5.2. Every method takes further keywords for this call: ``timeout``, ``connect_timeout``,
``read_timeout``, ``retry``, ``repeat_sends``, ``headers``, ``params``, ``logging_enable``.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..exceptions import InvalidArgument
from .arguments import check_group
from .json_fields import encode_data
from .service_http import Operation, Pipeline, segment
from .service_options import CallOptions, call_options
from .service_payload import encode_message
from .service_wire import Answer

__all__ = ["Operations"]

Pairs = List[Tuple[str, str]]

PERMISSIONS = ("sendToGroup", "joinLeaveGroup")

_EXISTS = (200, 404)


class Operations:
    """What `WebPubSubServiceClient` can do at a hub. Every method is safe from any thread."""

    _pipeline: Pipeline
    _options: CallOptions
    _base: str

    def _call(
        self,
        name: str,
        method: str,
        path: str,
        ok: Tuple[int, ...],
        given: Mapping[str, Any],
        query: Sequence[Tuple[str, str]] = (),
        **more: Any,
    ) -> Answer:
        """Carry out an operation at ``path`` below the hub; ``given`` are the keywords of the call."""
        options = call_options(self._options, given, "." + name)
        if method == "HEAD":
            more["accept"] = None
        return self._pipeline.run(Operation(name, method, self._base + path, query, ok=ok, **more), options)

    # --- messages ---

    def send_to_all(
        self,
        message: Any,
        *,
        excluded: Optional[Sequence[str]] = None,
        filter: Optional[str] = None,
        content_type: Optional[str] = None,
        message_ttl_seconds: Optional[int] = None,
        **options: Any,
    ) -> None:
        """Send a message to every connection of the hub.

        Args:
            message: what JSON can carry (sent as application/json), bytes or a file (application/octet-stream); with
                ``content_type`` "text/plain" or "application/octet-stream" str, bytes, or a file in text or binary
                mode.
            excluded: ids of connections that do not get it.
            filter: an expression that chooses the receivers; `odata` puts values into one.
            message_ttl_seconds: 1 to 300: drop it where it could not be delivered in that time; 0 = never.

        A message whose answer is lost on the way is not sent again, unless ``repeat_sends`` is set.
        """
        self._send("send_to_all", "", message, excluded, filter, content_type, message_ttl_seconds, options)

    def send_to_group(
        self,
        group: str,
        message: Any,
        *,
        excluded: Optional[Sequence[str]] = None,
        filter: Optional[str] = None,
        content_type: Optional[str] = None,
        message_ttl_seconds: Optional[int] = None,
        **options: Any,
    ) -> None:
        """Send a message to every connection in a group; arguments as for `send_to_all`."""
        path = "/groups/" + group_segment(group)
        self._send("send_to_group", path, message, excluded, filter, content_type, message_ttl_seconds, options)

    def send_to_user(
        self,
        user_id: str,
        message: Any,
        *,
        filter: Optional[str] = None,
        content_type: Optional[str] = None,
        message_ttl_seconds: Optional[int] = None,
        **options: Any,
    ) -> None:
        """Send a message to every connection of a user; arguments as for `send_to_all`."""
        path = "/users/" + segment(user_id, "user_id")
        self._send("send_to_user", path, message, None, filter, content_type, message_ttl_seconds, options)

    def send_to_connection(
        self,
        connection_id: str,
        message: Any,
        *,
        content_type: Optional[str] = None,
        message_ttl_seconds: Optional[int] = None,
        **options: Any,
    ) -> None:
        """Send a message to one connection; arguments as for `send_to_all`."""
        path = "/connections/" + segment(connection_id, "connection_id")
        self._send("send_to_connection", path, message, None, None, content_type, message_ttl_seconds, options)

    def _send(
        self,
        name: str,
        path: str,
        message: Any,
        excluded: Optional[Sequence[str]],
        condition: Optional[str],
        content_type: Optional[str],
        ttl: Optional[int],
        options: Mapping[str, Any],
    ) -> None:
        if content_type is None:
            headers = call_options(self._options, options, "." + name).headers
            content_type = next((value for key, value in headers.items() if key.lower() == "content-type"), None)
        payload = encode_message(message, content_type)
        query = excluded_pairs(excluded) + filter_pairs(condition)
        if ttl is not None:
            if isinstance(ttl, bool) or not isinstance(ttl, int) or not 0 <= ttl <= 300:
                raise InvalidArgument("message_ttl_seconds must be an integer from 0 to 300, not %r" % (ttl,))
            query.append(("messageTtlSeconds", str(ttl)))
        self._call(
            name, "POST", path + "/:send", (202,), options, query,
            body=payload.body, content_type=payload.content_type, repeatable=False,
        )

    # --- groups ---

    def add_connection_to_group(self, group: str, connection_id: str, **options: Any) -> None:
        """Put a connection into a group. Raises ServiceNotFound when there is no such connection."""
        path = "/groups/%s/connections/%s" % (group_segment(group), segment(connection_id, "connection_id"))
        self._call("add_connection_to_group", "PUT", path, (200,), options)

    def remove_connection_from_group(self, group: str, connection_id: str, **options: Any) -> None:
        """Take a connection out of a group; one that is not in it is no error."""
        path = "/groups/%s/connections/%s" % (group_segment(group), segment(connection_id, "connection_id"))
        self._call("remove_connection_from_group", "DELETE", path, (204,), options)

    def remove_connection_from_all_groups(self, connection_id: str, **options: Any) -> None:
        """Take a connection out of all its groups."""
        path = "/connections/%s/groups" % segment(connection_id, "connection_id")
        self._call("remove_connection_from_all_groups", "DELETE", path, (204,), options)

    def add_user_to_group(self, group: str, user_id: str, **options: Any) -> None:
        """Put every connection that a user has now into a group.

        Membership belongs to connections: later ones of the user are not in it. The service may answer that a user
        without connections does not exist (ServiceNotFound).
        """
        path = "/users/%s/groups/%s" % (segment(user_id, "user_id"), group_segment(group))
        self._call("add_user_to_group", "PUT", path, (200,), options)

    def remove_user_from_group(self, group: str, user_id: str, **options: Any) -> None:
        """Take every connection of a user out of a group."""
        path = "/users/%s/groups/%s" % (segment(user_id, "user_id"), group_segment(group))
        self._call("remove_user_from_group", "DELETE", path, (204,), options)

    def remove_user_from_all_groups(self, user_id: str, **options: Any) -> None:
        """Take every connection of a user out of all its groups."""
        path = "/users/%s/groups" % segment(user_id, "user_id")
        self._call("remove_user_from_all_groups", "DELETE", path, (204,), options)

    def add_connections_to_groups(
        self, groups: Sequence[str], *, filter: Optional[str] = None, **options: Any
    ) -> None:
        """Put the connections that ``filter`` chooses into groups; without one, every connection of the hub."""
        self._call("add_connections_to_groups", "POST", "/:addToGroups", (200,), options, **groups_body(groups, filter))

    def remove_connections_from_groups(
        self, groups: Sequence[str], *, filter: Optional[str] = None, **options: Any
    ) -> None:
        """Take the connections that ``filter`` chooses out of groups; without one, every connection of the hub."""
        body = groups_body(groups, filter)
        self._call("remove_connections_from_groups", "POST", "/:removeFromGroups", (200,), options, **body)

    # --- existence ---

    def connection_exists(self, connection_id: str, **options: Any) -> bool:
        """Return whether there is such a connection."""
        path = "/connections/" + segment(connection_id, "connection_id")
        return self._call("connection_exists", "HEAD", path, _EXISTS, options).status == 200

    def group_exists(self, group: str, **options: Any) -> bool:
        """Return whether a group has any connection."""
        return self._call("group_exists", "HEAD", "/groups/" + group_segment(group), _EXISTS, options).status == 200

    def user_exists(self, user_id: str, **options: Any) -> bool:
        """Return whether a user has any connection."""
        path = "/users/" + segment(user_id, "user_id")
        return self._call("user_exists", "HEAD", path, _EXISTS, options).status == 200

    # --- closing ---

    def close_connection(self, connection_id: str, *, reason: Optional[str] = None, **options: Any) -> None:
        """Close a connection; ``reason`` reaches the client. It may connect again, but not recover its session."""
        path = "/connections/" + segment(connection_id, "connection_id")
        self._call("close_connection", "DELETE", path, (204,), options, reason_pairs(reason))

    def close_all_connections(
        self, *, excluded: Optional[Sequence[str]] = None, reason: Optional[str] = None, **options: Any
    ) -> None:
        """Close every connection of the hub but those whose ids are ``excluded``."""
        self._close("close_all_connections", "", excluded, reason, options)

    def close_group_connections(
        self, group: str, *, excluded: Optional[Sequence[str]] = None, reason: Optional[str] = None, **options: Any
    ) -> None:
        """Close every connection in a group but those whose ids are ``excluded``."""
        self._close("close_group_connections", "/groups/" + group_segment(group), excluded, reason, options)

    def close_user_connections(
        self, user_id: str, *, excluded: Optional[Sequence[str]] = None, reason: Optional[str] = None, **options: Any
    ) -> None:
        """Close every connection of a user but those whose ids are ``excluded``."""
        self._close("close_user_connections", "/users/" + segment(user_id, "user_id"), excluded, reason, options)

    def _close(
        self,
        name: str,
        path: str,
        excluded: Optional[Sequence[str]],
        reason: Optional[str],
        options: Mapping[str, Any],
    ) -> None:
        query = excluded_pairs(excluded) + reason_pairs(reason)
        self._call(name, "POST", path + "/:closeConnections", (204,), options, query)

    # --- permissions ---

    def grant_permission(
        self, permission: str, connection_id: str, *, target_name: Optional[str] = None, **options: Any
    ) -> None:
        """Allow a connection "sendToGroup" or "joinLeaveGroup" at the group ``target_name``, beside its roles.

        Leave ``target_name`` out only if your service takes that for all groups: most refuse it.
        """
        path = permission_path(permission, connection_id)
        self._call("grant_permission", "PUT", path, (200,), options, target_pairs(target_name))

    def revoke_permission(
        self, permission: str, connection_id: str, *, target_name: Optional[str] = None, **options: Any
    ) -> None:
        """Take away what `grant_permission` or a role gave; it holds until it is granted again."""
        path = permission_path(permission, connection_id)
        self._call("revoke_permission", "DELETE", path, (204,), options, target_pairs(target_name))

    def has_permission(
        self, permission: str, connection_id: str, *, target_name: Optional[str] = None, **options: Any
    ) -> bool:
        """Return whether a connection has a permission; False too when there is no such connection."""
        path = permission_path(permission, connection_id)
        answer = self._call("has_permission", "HEAD", path, _EXISTS, options, target_pairs(target_name))
        return answer.status == 200

    check_permission = has_permission


# --- arguments --------------------------------------------------------------------------------------------------------


def group_segment(group: Any) -> str:
    """Return a group name as a segment of a path. Raises InvalidArgument."""
    return segment(check_group(group), "group")


def names(values: Any, name: str) -> List[str]:
    """Return a list of names. Raises InvalidArgument unless all are str that are not empty."""
    if values is None:
        return []
    # One str is a sequence of letters too, and never meant as one.
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise InvalidArgument("%s must be a list of str, not %s" % (name, type(values).__name__))
    found = list(values)
    for value in found:
        if not isinstance(value, str) or not value:
            raise InvalidArgument("%s must be a list of str that are not empty, not %.60r" % (name, value))
    return found


def text(value: Any, name: str) -> str:
    """Return a str. Raises InvalidArgument."""
    if not isinstance(value, str):
        raise InvalidArgument("%s must be a str, not %s" % (name, type(value).__name__))
    return value


def excluded_pairs(excluded: Any) -> Pairs:
    """Return the parameters for ``excluded``."""
    return [("excluded", item) for item in names(excluded, "excluded")]


def filter_pairs(condition: Any) -> Pairs:
    """Return the parameter for ``filter``."""
    return [] if condition is None else [("filter", text(condition, "filter"))]


def reason_pairs(reason: Any) -> Pairs:
    """Return the parameter for ``reason``."""
    return [] if reason is None else [("reason", text(reason, "reason"))]


def target_pairs(target: Any) -> Pairs:
    """Return the parameter for ``target_name``."""
    return [] if target is None else [("targetName", check_group(target))]


def permission_path(permission: Any, connection_id: Any) -> str:
    """Return the path of a permission. Raises InvalidArgument unless it is known; case is ignored."""
    name = str(getattr(permission, "value", permission)).lower()
    known = next((item for item in PERMISSIONS if item.lower() == name), None)
    if known is None:
        raise InvalidArgument("permission must be %r or %r, not %.60r" % (PERMISSIONS + (permission,)))
    return "/permissions/%s/connections/%s" % (known, segment(connection_id, "connection_id"))


def groups_body(groups: Any, condition: Any) -> Dict[str, Any]:
    """Return the body that names groups and a filter. Raises InvalidArgument."""
    found = [check_group(group) for group in names(groups, "groups")]
    if not found:
        raise InvalidArgument("groups must name at least one group")
    content: Dict[str, Any] = {"groups": found}
    if condition is not None:
        content["filter"] = text(condition, "filter")
    return {"body": encode_data(content, "json").encode("utf-8", "replace"), "content_type": "application/json"}
