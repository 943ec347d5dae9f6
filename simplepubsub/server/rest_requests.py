"""Requests of the data plane, read strictly: path, query and body as they came over the wire, and errors about them.

Nothing here knows what the operations do. Protocol reference 5.1 and 5.3.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

import aiohttp
from aiohttp import web
from aiohttp.http import HttpProcessingError

from ..exceptions import InvalidArgument
from ..webpubsub.cloud_events import data_type_of, decode_payload
from ..webpubsub.json_fields import encode_data
from .wire import Outgoing

__all__ = ["API_VERSIONS", "Query", "RestError", "bad_request", "read_json", "read_message", "segments_of", "target_of"]

#: Values of ``api-version``; without one the last counts.
API_VERSIONS = ("2021-10-01", "2022-11-01", "2023-07-01", "2024-01-01", "2024-12-01")

#: Seconds in which a body must have come in.
_BODY_TIMEOUT = 60.0

_INTEGER = re.compile(r"[0-9]{1,18}\Z")

#: Names of character sets that UTF-8 covers.
_UTF8 = ("utf-8", "utf8", "us-ascii", "ascii")


class RestError(Exception):
    """The request is answered with this HTTP ``status`` and a body {"code": ..., "message": ...}."""

    def __init__(self, status: int, code: str, message: str, headers: Optional[Dict[str, str]] = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


def bad_request(message: str) -> RestError:
    """Return the error for a request that makes no sense."""
    return RestError(400, "Error.BadRequest", message)


# --- the request line -------------------------------------------------------------------------------------------------


def target_of(request: web.Request) -> Tuple[str, str]:
    """Return (path, query) of the request as they were sent, percent-encoding included."""
    target = request.raw_path
    if not target.startswith("/"):
        parts = urlsplit(target)  # absolute form, RFC 9112 section 3.2.2
        return parts.path, parts.query
    path, _, query = target.partition("#")[0].partition("?")
    return path, query


def segments_of(path: str) -> Tuple[str, ...]:
    """Return what stands between the slashes of a path, each percent-decoded exactly once; "+" is a plus sign.

    So a group name may contain anything: %2F is a slash that separates nothing, %252F is "%2F", ".." is a name. Raises
    RestError for what is not UTF-8.
    """
    try:
        return tuple(unquote_to_bytes(segment).decode("utf-8") for segment in path.split("/")[1:])
    except UnicodeError:
        raise bad_request("the path is not percent-encoded UTF-8") from None


class Query:
    """The query of a request; names count in any case. Raises RestError for what is not UTF-8, or a bad version."""

    def __init__(self, text: str) -> None:
        self._values: Dict[str, List[str]] = {}
        try:
            pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
        except ValueError as error:  # UnicodeError is one
            raise bad_request("the query cannot be read: %s" % ascii(str(error))[:200]) from None
        for name, value in pairs:
            self._values.setdefault(name.lower(), []).append(value)
        version = self.one("api-version")
        if version is not None and version not in API_VERSIONS:
            text = "unknown api-version %s; there are %s" % (ascii(version)[:40], ", ".join(API_VERSIONS))
            raise bad_request(text)

    def many(self, name: str) -> List[str]:
        """Return the values of a parameter that may be repeated."""
        return self._values.get(name.lower(), [])

    def one(self, name: str) -> Optional[str]:
        """Return the value of a parameter, None without one. Raises RestError when it is repeated."""
        values = self.many(name)
        if len(values) > 1:
            raise bad_request("%s is given %d times" % (name, len(values)))
        return values[0] if values else None

    def integer(self, name: str, low: int, high: int) -> Optional[int]:
        """Return the value of a parameter that is an integer within bounds, None without one. Raises RestError."""
        text = self.one(name)
        if text is None:
            return None
        if not _INTEGER.match(text) or not low <= int(text) <= high:
            raise bad_request("%s must be an integer from %d to %d, not %s" % (name, low, high, ascii(text)[:40]))
        return int(text)


# --- bodies -----------------------------------------------------------------------------------------------------------


async def read_message(request: web.Request, limit: int, group: Optional[str], ttl: int) -> Outgoing:
    """Return the message in the body; without a content type it is binary. Raises RestError."""
    content_type = request.headers.get("Content-Type")
    data_type = "binary" if content_type is None else data_type_of(content_type)
    if data_type is None or data_type == "protobuf":
        raise _unsupported("application/json, text/plain or application/octet-stream", content_type)
    if data_type != "binary":
        _check_charset(request)
    body = await _read(request, limit)
    data = decode_payload(body, data_type)
    if data_type == "json":
        encode_data(data, data_type)  # what JSON can say and receivers cannot be told: a bare null, 1e999
    return Outgoing(group, None, data, data_type, ttl)


async def read_json(request: web.Request, limit: int) -> Dict[str, Any]:
    """Return the JSON object in the body. Raises RestError."""
    content_type = request.headers.get("Content-Type")
    if content_type is not None and data_type_of(content_type) != "json":
        raise _unsupported("application/json", content_type)
    _check_charset(request)
    body = await _read(request, limit)
    try:
        value = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise bad_request("the body is not JSON: %s" % error) from None
    if not isinstance(value, dict):
        raise bad_request("the body must be a JSON object")
    return value


def _unsupported(expected: str, found: Optional[str]) -> RestError:
    text = "the content type must be %s, not %s" % (expected, ascii(found)[:100])
    return RestError(415, "Error.UnsupportedMediaType", text)


def _check_charset(request: web.Request) -> None:
    charset = request.charset
    if charset is not None and charset.lower() not in _UTF8:
        raise RestError(415, "Error.UnsupportedMediaType", "the body must be UTF-8, not %s" % ascii(charset)[:40])


async def _read(request: web.Request, limit: int) -> bytes:
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() != "identity":
        text = "the body must not have a content encoding, not even %s" % ascii(encoding)[:40]
        raise RestError(415, "Error.UnsupportedMediaType", text)
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    try:
        return await asyncio.wait_for(_collect(request, limit), _BODY_TIMEOUT)
    except asyncio.TimeoutError:
        text = "the body did not come in within %d s" % _BODY_TIMEOUT
        raise RestError(408, "Error.RequestTimeout", text, {"Connection": "close"}) from None
    except (OSError, aiohttp.ClientPayloadError, HttpProcessingError, web.RequestPayloadError) as error:
        raise bad_request("the body cannot be read: %s" % type(error).__name__) from error


async def _collect(request: web.Request, limit: int) -> bytes:
    pieces: List[bytes] = []
    size = 0
    async for piece in request.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
    return b"".join(pieces)


def _too_large(limit: int) -> RestError:
    # What is left of the body would have to be read before the connection can serve another request.
    text = "the body has more than %d bytes" % limit
    return RestError(413, "Error.RequestTooLarge", text, {"Connection": "close"})


def check_names(values: Any, name: str) -> List[str]:
    """Return a list of strings from a JSON body. Raises InvalidArgument."""
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise InvalidArgument("%s must be a list of at least one string" % name)
    return values
