"""Where a client gets the URL that admits it."""

from __future__ import annotations

from typing import Any, Callable, Union

from ..exceptions import InvalidArgument
from .arguments import check_url

__all__ = ["WebPubSubClientCredential"]


class WebPubSubClientCredential:
    """A client access URL, or a callable that returns one.

    A callable is asked again for every new connection, so that an expired token is replaced; it runs in a thread of the
    client and may block. Raises InvalidArgument for anything else, or for a URL that names no hub.
    """

    def __init__(self, client_access_url_provider: Union[str, Callable[[], str]]) -> None:
        self._provider: Callable[[], str]
        if isinstance(client_access_url_provider, str):
            url = check_url(client_access_url_provider)
            self._provider = lambda: url
        elif callable(client_access_url_provider):
            self._provider = client_access_url_provider
        else:
            raise InvalidArgument(
                "credential must be a client access URL or a callable that returns one, not %s"
                % type(client_access_url_provider).__name__
            )

    def get_client_access_url(self) -> str:
        """Return the URL for the next connection. Raises InvalidArgument, and what the callable raises."""
        return check_url(self._provider())


def as_credential(credential: Any) -> WebPubSubClientCredential:
    """Return ``credential`` as an object with ``get_client_access_url()``."""
    if isinstance(credential, WebPubSubClientCredential):
        return credential
    provider = getattr(credential, "get_client_access_url", None)
    return WebPubSubClientCredential(provider if callable(provider) else credential)


#: What a client accepts as credential.
Credential = Union[str, Callable[[], str], WebPubSubClientCredential]
