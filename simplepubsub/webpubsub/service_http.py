"""The way of every request: address, sign, send, try again, log, and turn errors into types."""

from __future__ import annotations

import ssl as ssl_module
import time
import uuid
from typing import Any, Dict, List, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple
from urllib.parse import quote, urlencode

import requests
import urllib3.exceptions
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies

from ..core.deadline import Deadline
from ..exceptions import (
    ClientStopped,
    InvalidArgument,
    RemoteProtocolError,
    ServiceConnectionError,
    ServiceError,
    ServiceResponseError,
)
from .service_credentials import KeySigner, Signer
from .service_errors import Place, connection_error, response_error
from .service_lines import Lines, PerProcess
from .service_log import Hider, log, log_answer, log_request
from .service_options import CallOptions
from .service_wire import Answer, Line

__all__ = ["Operation", "Pipeline", "segment"]

#: Statuses that describe the moment and not the request.
RETRIED = (429, 502, 503, 504)

Query = Sequence[Tuple[str, str]]


class Operation(NamedTuple):
    """One call of the REST interface.

    ``path`` is percent-encoded and begins with "/"; ``ok`` are the statuses that are no error, empty for all below 400.
    ``repeatable`` says that carrying it out twice is the same as once.
    """

    name: str
    method: str
    path: str
    query: Query = ()
    body: bytes = b""
    content_type: Optional[str] = None
    accept: Optional[str] = "application/json"
    ok: Tuple[int, ...] = ()
    repeatable: bool = True


def segment(value: Any, name: str) -> str:
    """Return a value as one segment of a path, whatever it contains. Raises InvalidArgument.

    Every character but letters, digits and ``_-~.`` is percent-encoded, so no value leaves its place; "." and ".."
    have no form that stays in it (RFC 3986 6.2.2.2 and 6.2.2.3), so they are refused.
    """
    if not isinstance(value, str):
        raise InvalidArgument("%s must be a str, not %s" % (name, type(value).__name__))
    if not value.strip():
        raise InvalidArgument("%s must not be %s" % (name, "blank" if value else "empty"))
    if value in (".", ".."):
        raise InvalidArgument("%s %r cannot be addressed by a URL" % (name, value))
    return quote_text(value, name)


def quote_text(value: str, name: str) -> str:
    """Return a text percent-encoded. Raises InvalidArgument for lone surrogates."""
    try:
        return quote(value, safe="")
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            "%s contains the lone surrogate %r: it has no UTF-8 form" % (name, error.object[error.start])
        ) from None


class Pipeline:
    """Carries out operations at one endpoint; safe from any thread and in a forked child."""

    def __init__(
        self,
        endpoint: str,
        target: str,
        signer: Signer,
        context: Optional[ssl_module.SSLContext],
        proxies: Optional[Dict[str, str]],
        user_agent: str,
        api_version: str,
    ) -> None:
        self.endpoint = endpoint
        self.signer = signer
        self._target = target
        self._proxies = proxies
        self._user_agent = user_agent
        self._api_version = api_version
        self._lines = PerProcess(lambda: Lines(lambda: Line(context)), Lines.forget)

    def close(self) -> None:
        """Close all connections; calls in progress fail with ClientStopped."""
        self._lines.get().close()

    def run(self, operation: Operation, options: CallOptions) -> Answer:
        """Return the answer to an operation, if its status is one of ``operation.ok``; raises as `ask` does.

        Raises ServiceResponseError for any other status.
        """
        answer, error = self.ask(operation, options)
        if error is not None:
            raise error
        return answer

    def ask(self, operation: Operation, options: CallOptions) -> Tuple[Answer, Optional[ServiceResponseError]]:
        """Return the last answer to an operation, and the error that it stands for if it is one.

        Raises ServiceConnectionError kinds, ClientStopped when the client is closed meanwhile, RemoteProtocolError for
        an answer of over 16 MiB, and what a token credential raises.
        """
        deadline = Deadline(options.timeout)
        query = self._complete_query(operation, options.params)
        tail = operation.path + ("?" + urlencode(query, quote_via=quote, safe="") if query else "")
        headers = self._headers(operation, options)
        lines = self._lines.get()
        attempt = 0
        while True:
            attempt += 1
            answer: Optional[Answer] = None
            error: ServiceError
            delay: Optional[float]
            headers["Authorization"] = "Bearer " + self.signer.authorize(self.endpoint + tail, deadline)
            place = self._place(operation, headers)
            try:
                answer = self._attempt(lines, operation, tail, query, headers, place, deadline, options)
            except ServiceConnectionError as problem:
                if lines.closed:
                    self._stopped(operation)
                again = operation.repeatable or options.repeat_sends or not problem.written
                error, delay = problem, options.retry.delay(attempt) if again and not deadline.expired() else None
            else:
                if answer.status in operation.ok or not operation.ok and answer.status < 400:
                    return answer, None
                refusal = response_error(answer, place, headers["x-ms-client-request-id"])
                if answer.status == 401:
                    self.signer.refused()
                error, delay = refusal, options.retry.delay(attempt) if answer.status in RETRIED else None
                if delay is not None and refusal.retry_after is not None:
                    delay = refusal.retry_after
            left = deadline.remaining()
            if delay is None or (left is not None and delay >= left):
                if answer is not None and isinstance(error, ServiceResponseError):
                    return answer, error
                raise error
            log.info("%s; trying again in %.1f s (attempt %d)", error.message, delay, attempt + 1)
            if lines.pause(delay):
                self._stopped(operation)

    def _stopped(self, operation: Operation) -> NoReturn:
        raise ClientStopped("the service client was closed during %s" % operation.name, by="client") from None

    def _complete_query(self, operation: Operation, params: Mapping[str, Any]) -> List[Tuple[str, str]]:
        """Return the query with the caller's parameters in it, which replace ours, and the version of the interface."""
        given: List[Tuple[str, str]] = []
        for name, value in params.items():
            for item in value if isinstance(value, (list, tuple)) else [value]:
                if item is not None:
                    given.append((str(name), str(item).lower() if isinstance(item, bool) else str(item)))
        replaced = {name.lower() for name, _ in given}
        query = [pair for pair in operation.query if pair[0].lower() not in replaced] + given
        if not any(name.lower() == "api-version" for name, _ in query):
            query.append(("api-version", self._api_version))
        for name, value in query:
            quote_text(name, "a parameter")
            quote_text(value, name)
        return query

    def _headers(self, operation: Operation, options: CallOptions) -> Dict[str, str]:
        headers: Any = CaseInsensitiveDict({"User-Agent": self._user_agent})
        if operation.accept:
            headers["Accept"] = operation.accept
        headers["x-ms-client-request-id"] = str(uuid.uuid4())
        headers.update(options.headers)
        if operation.content_type:
            headers["Content-Type"] = operation.content_type
        headers["Content-Length"] = str(len(operation.body))
        if operation.method in ("GET", "HEAD", "DELETE") and not operation.body:
            del headers["Content-Length"]
        headers.pop("Host", None)
        return headers  # type: ignore[no-any-return]

    def _place(self, operation: Operation, headers: Mapping[str, str]) -> Place:
        secrets = [headers["Authorization"][len("Bearer ") :]]
        if isinstance(self.signer, KeySigner):
            secrets.append(self.signer.key)
        return Place(
            operation.name, operation.method, self._target + operation.path, Hider(secrets), self.signer.hint
        )

    def _attempt(
        self,
        lines: Lines,
        operation: Operation,
        tail: str,
        query: Query,
        headers: Mapping[str, str],
        place: Place,
        deadline: Deadline,
        options: CallOptions,
    ) -> Answer:
        request = requests.PreparedRequest()
        # Not by prepare(): it would look for a password in .netrc, and resolve "%2E%2E" in the path.
        request.method, request.url = operation.method, self._target + tail
        request.headers = CaseInsensitiveDict(headers)
        request.body = operation.body or None
        proxies = get_environ_proxies(request.url) if self._proxies is None else self._proxies
        hide: Any = place.hide
        if options.logging_enable:
            log_request(operation.method, place.url, query, request.headers, operation.body, hide)
        start = time.monotonic()
        with lines.borrow() as line:
            try:
                answer = line.exchange(request, deadline, options.connect_timeout, options.read_timeout, proxies)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, UnicodeError) as error:
                failure = connection_error(error, place, line.step, line.has_begun)
                if options.logging_enable:
                    log.debug("no answer to %s %s: %s", operation.method, place.url, failure)
                # Chained, unless its text holds a secret, which a traceback would show.
                raise failure from (error if hide(str(error)) == str(error) else None)
            except ValueError as error:
                raise RemoteProtocolError("%s: %s" % (operation.name, error)) from None
        if options.logging_enable:
            log_answer(operation.method, place.url, answer, time.monotonic() - start, hide)
        return answer
