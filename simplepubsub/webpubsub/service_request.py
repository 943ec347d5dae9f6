"""Requests and answers as `send_request` takes and returns them."""

from __future__ import annotations

import json as json_module
from typing import Any, Iterator, Mapping, Optional

from requests.structures import CaseInsensitiveDict

from ..exceptions import InvalidArgument, ServiceResponseError
from .json_fields import encode_data

__all__ = ["HttpRequest", "HttpResponse"]


class HttpRequest:
    """A request that the client has no method for; ``url`` is a path below the endpoint, or a URL of it.

    ``json`` is sent as application/json, ``content`` (str or bytes) as it is. The official SDK's class of that name is
    accepted in its place. Raises InvalidArgument for both, and for what JSON cannot carry.
    """

    def __init__(
        self,
        method: str,
        url: str,
        *,
        params: Optional[Mapping[str, Any]] = None,
        headers: Optional[Mapping[str, str]] = None,
        json: Any = None,
        content: Any = None,
    ) -> None:
        if json is not None and content is not None:
            raise InvalidArgument("a request has json or content, not both")
        self.method = method
        self.url = url
        self.params = dict(params or {})
        self.headers: Mapping[str, str] = CaseInsensitiveDict(headers or {})
        if json is not None:
            content = encode_data(json, "json").encode("utf-8", "backslashreplace")
            self.headers = CaseInsensitiveDict({"Content-Type": "application/json", **self.headers})
        self.content = content

    def __repr__(self) -> str:
        return "HttpRequest(%r, %r)" % (self.method, self.url.partition("?")[0])


class HttpResponse:
    """An answer, read whole; ``headers`` ignores case."""

    def __init__(
        self,
        status_code: int,
        reason: str,
        headers: Mapping[str, str],
        content: bytes,
        error: Optional[ServiceResponseError] = None,
    ) -> None:
        self.status_code = status_code
        self.reason = reason
        self.headers = headers
        self.content = content
        self._error = error

    @property
    def content_type(self) -> Optional[str]:
        """The header Content-Type."""
        return self.headers.get("Content-Type")

    def read(self) -> bytes:
        """Return the body."""
        return self.content

    def iter_bytes(self) -> Iterator[bytes]:
        """Yield the body in pieces of 64 KiB."""
        for start in range(0, len(self.content), 65536):
            yield self.content[start : start + 65536]

    def text(self, encoding: Optional[str] = None) -> str:
        """Return the body as text, UTF-8 unless told otherwise; what cannot be read becomes U+FFFD."""
        return self.content.decode(encoding or "utf-8", "replace")

    def json(self) -> Any:
        """Return the JSON value of the body. Raises ValueError when it is none."""
        return json_module.loads(self.content.decode("utf-8"))

    def raise_for_status(self) -> None:
        """Raise the ServiceResponseError of a status of 400 or more, with all that the service said."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Do nothing: the connection is back in its pool already."""

    def __enter__(self) -> HttpResponse:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return "<HttpResponse: %d %s, %d bytes>" % (self.status_code, self.reason, len(self.content))
