"""Requests to the data plane with no line of the package in them: http.client, which sends paths as they are."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

import jwt

from tests.timing import scaled

JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/plain"}
BINARY = {"Content-Type": "application/octet-stream"}

#: Stands for "sign a good token".
GOOD = object()


class Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body.decode())

    @property
    def message(self) -> str:
        return str(self.json["message"])


class Rest:
    """One hub of a server, by REST. Paths start below the hub, or at "/api"."""

    def __init__(self, server: Any, hub: str = "plaza", key: Optional[str] = None, host: Optional[str] = None) -> None:
        self.server = server
        self.base = "/api/hubs/" + hub
        self.key = key or dict(item.split("=", 1) for item in server.connection_string.split(";") if item)["AccessKey"]
        self.host = host or "127.0.0.1:%d" % server.port

    def url(self, path: str) -> str:
        return "http://%s%s" % (self.host, self.path(path))

    def path(self, path: str) -> str:
        return path if path.startswith("/api") else self.base + path

    def token(self, audience: str, key: Optional[str] = None, algorithm: str = "HS256", **claims: Any) -> str:
        payload = dict({"aud": audience, "exp": int(time.time()) + 60}, **claims)
        payload = {name: value for name, value in payload.items() if value is not None}
        return str(jwt.encode(payload, key or self.key, algorithm=algorithm))

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Optional[Dict[str, str]] = None,
        *,
        token: Any = GOOD,
        query: Sequence[Tuple[str, Any]] = (),
    ) -> Answer:
        """Send a request and return its answer; a dict or list as body is sent as JSON."""
        sent = {"Host": self.host}
        if token is GOOD:
            token = self.token(self.url(path).partition("?")[0])
        if token is not None:
            sent["Authorization"] = "Bearer " + token
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            sent.update(JSON)
        elif isinstance(body, str):
            body = body.encode()
        sent.update(headers or {})
        target = self.path(path)
        if query:
            target += "?" + urllib.parse.urlencode(list(query), quote_via=urllib.parse.quote)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=scaled(10))
        try:
            connection.request(method, target, body, sent, encode_chunked="Transfer-Encoding" in sent)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        finally:
            connection.close()
        if answer.status >= 400 and method != "HEAD":
            assert answer.json["code"] == answer.headers["x-ms-error-code"] and answer.message
        assert answer.headers["x-ms-request-id"]
        return answer

    def ok(self, method: str, path: str, *args: Any, **options: Any) -> Answer:
        """Send a request that must succeed with the status of the reference."""
        answer = self(method, path, *args, **options)
        expected = {"POST": 202 if path.endswith("/:send") else 204, "DELETE": 204}.get(method, 200)
        if path.endswith(("Groups", "/:generateToken")):
            expected = 200
        assert answer.status == expected, answer
        return answer
