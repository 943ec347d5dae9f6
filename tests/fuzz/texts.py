"""Targets that read text: filters, connection strings, tokens, header values."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import time
from typing import Any, List, NamedTuple, Optional, Tuple

from simplepubsub.exceptions import InvalidArgument
from simplepubsub.server.filters import FilterError, compile_filter
from simplepubsub.server.tokens import TokenRejected, Tokens
from simplepubsub.webpubsub import cloud_events
from simplepubsub.webpubsub.connection_string import check_endpoint, parse_connection_string
from simplepubsub.webpubsub.filters import odata
from tests.fuzz import nasty
from tests.fuzz.runner import Target


class _Wire(NamedTuple):
    subprotocol: Optional[str]


class _Connection(NamedTuple):
    user_id: Optional[str]
    connection_id: str
    groups: Any
    wire: _Wire


CONNECTIONS = (
    _Connection("mina", "c1", {"lobby", "a'b"}, _Wire("json.webpubsub.azure.v1")),
    _Connection(None, "c2", set(), _Wire(None)),
    _Connection("\ud800 \u0130\u00df" * 20, "", {"\0", ""}, _Wire("")),
)

_PIECES = (
    "userId connectionId groups protocol null true false and or not eq ne gt ge lt le in ( ) ( ) , 'a' '' 'it''s' 0 1 "
    "-1 9223372036854775807 9223372036854775808 -9223372036854775808 00000000000000000000001 length( tolower( toupper( "
    "trim( substring( startswith( endswith( contains( indexof( concat( USERID Groups nothing ' '' ) \t \u00e9 \0 "
    "\ud800 1.5 + = <"
).split(" ")


class Filters(Target):
    """OData filters: compiled, then evaluated for connections of all kinds; and the builder that quotes values."""

    name = "filters"
    share = 15.0

    def make(self, rng: random.Random) -> Any:
        kind = rng.random()
        if kind < 0.45:
            return self.condition(rng, rng.randrange(5))
        if kind < 0.65:
            return nasty.break_text(rng, self.condition(rng, rng.randrange(4)))
        if kind < 0.8:
            return rng.choice((" ", "")).join(nasty.some(rng, _PIECES, 20))
        if kind < 0.9:
            return (self.template(rng), [nasty.value(rng, 1) for _ in range(rng.randrange(4))])
        if kind < 0.97:
            return nasty.text(rng)
        if kind < 0.98:
            return nasty.pump(rng, rng.choice((1000, 20000, 70000)))
        deep = rng.choice((50, 99, 100, 101, 102, 3000))
        unit = rng.choice(
            (
                "(",
                "not ",
                "not (",
                "length(concat(",
                "tolower(",
                "userId eq (",
                "concat('a',",
                "true and (",
                "1 eq 1 eq ",
                "true or ",
                "userId in (",
            )
        )
        return unit * deep + "true" + ")" * rng.choice((0, deep, deep, 2 * deep))

    @staticmethod
    def template(rng: random.Random) -> str:
        pieces = (
            "userId eq ",
            "{}",
            "{0}",
            "{1}",
            "{name}",
            " in ",
            "'",
            "{{",
            "}}",
            "{",
            "}",
            "{\u00b2}",
            "{0[1]}",
            "{a.b}",
            "{!r}",
            "{:>9}",
            "{" + "9" * 5000 + "}",
            "{ }",
            "{-1}",
            "{\u0663}",
        )
        return "".join(nasty.some(rng, pieces, 6))

    def condition(self, rng: random.Random, depth: int) -> str:
        """Return a filter that is right, as far as types go."""
        if depth <= 0:
            return rng.choice(
                (
                    "true",
                    "false",
                    "userId eq null",
                    "'lobby' in groups",
                    "%s eq %s" % (self.string(rng, 1), self.string(rng, 1)),
                    "length(groups) gt %d" % rng.randrange(3),
                    "userId in (%s, null)" % self.literal(rng),
                    "%s(%s, %s)"
                    % (rng.choice(("startswith", "ENDSWITH", "contains")), self.string(rng, 1), self.string(rng, 1)),
                    "%s %s %s"
                    % (self.integer(rng, 1), rng.choice(("eq", "ne", "gt", "ge", "LT", "le")), self.integer(rng, 1)),
                )
            )
        kind = rng.randrange(4)
        if kind == 0:
            return "not (%s)" % self.condition(rng, depth - 1)
        if kind == 1:
            return "(%s)" % self.condition(rng, depth - 1)
        word = rng.choice((" and ", " or ", " AND ", " eq ", "\n or\t"))
        return word.join(self.condition(rng, depth - 1) for _ in range(rng.choice((2, 2, 3, 9))))

    def literal(self, rng: random.Random) -> str:
        return "'%s'" % nasty.text(rng)[:60].replace("'", "''")

    def string(self, rng: random.Random, depth: int) -> str:
        kind = rng.randrange(6 if depth > 0 else 3)
        if kind == 0:
            return self.literal(rng)
        if kind < 3:
            return rng.choice(("userId", "connectionId", "protocol", "null"))
        if kind == 3:
            return "%s(%s)" % (rng.choice(("tolower", "toupper", "trim")), self.string(rng, depth - 1))
        if kind == 4:
            return "concat(%s,%s)" % (self.string(rng, depth - 1), self.string(rng, depth - 1))
        more = ", %s" % self.integer(rng, 0) if rng.random() < 0.5 else ""
        return "substring(%s, %s%s)" % (self.string(rng, depth - 1), self.integer(rng, 0), more)

    def integer(self, rng: random.Random, depth: int) -> str:
        if depth > 0 and rng.random() < 0.5:
            return rng.choice(("length(%s)", "indexof(%s, 'a')")) % self.string(rng, depth - 1)
        return rng.choice(("0", "1", "-1", "5", "null", "9223372036854775807", "-9223372036854775807"))

    def check(self, item: Any) -> str:
        if isinstance(item, tuple):
            template, values = item
            try:
                item = odata(template, *values, name="it's")
            except InvalidArgument:
                return "no template"
        try:
            matches = compile_filter(item)
        except FilterError as error:
            assert 0 <= error.position <= len(item), error.position
            str(error).encode("ascii")
            assert len(str(error)) < 400, len(str(error))
            return "refused"
        for connection in CONNECTIONS:
            assert matches(connection) in (True, False)
        return "compiled"


KEY = "primary-key-0123456789abcdef0123456789+/="
OTHER = "another-key-0123456789abcdef0123456789+/="


class ConnectionStrings(Target):
    """Connection strings and endpoints. Whatever is wrong with one, no error shows its key."""

    name = "connection-strings"
    share = 8.0

    def make(self, rng: random.Random) -> Any:
        host = rng.choice(
            ("demo.example.test",) * 30
            + (
                "localhost",
                "127.0.0.1",
                "[::1]",
                "[::1",
                "::1",
                "",
                "a b",
                "\u00fc.test",
                "a" * 70,
                "%41",
                "u:p@h",
                "h:80",
                "h:0",
                "h:99999",
                "h:x",
                "\u2100",
                "a\u0000b",
                nasty.text(rng),
            )
        )
        scheme = rng.choice(("https://", "http://") * 6 + ("HTTPS://", "ws://", "//", "", "https:", nasty.text(rng)))
        path = rng.choice(("", "/", "/a/b/") * 5 + ("?q", "#f", "/%2e%2e", nasty.text(rng)))
        endpoint = "%s%s%s" % (scheme, host, path)
        if rng.random() < 0.1:
            return nasty.pump(rng, rng.choice((100, 5000))) if rng.random() < 0.1 else endpoint
        parts = [
            rng.choice(("Endpoint", "endpoint", "ENDPOINT", " Endpoint ") * 5 + ("Endpoin",)) + "=" + endpoint,
            rng.choice(("AccessKey", "accesskey", "Accesskey ") * 5 + ("AccessKey=", "Access Key")) + "=" + KEY,
        ]
        parts += nasty.some(
            rng,
            (
                "Version=1.0",
                "Version=",
                "Port=8080",
                "Port=0",
                "Port=\u0663",
                "Port=\u00b2",
                "Port=" + "9" * 5000,
                "port=443",
                "",
                " ",
                "=",
                "Other=x",
                "AccessKey=" + OTHER,
                nasty.text(rng),
                nasty.text(rng) + "=" + nasty.text(rng),
            ),
            rng.choice((0, 1, 3)),
        )
        rng.shuffle(parts)
        text = rng.choice((";", "; ", ";;") * 5 + ("\n",)).join(parts)
        return nasty.break_text(rng, text) if rng.random() < 0.4 else text

    def check(self, item: Any) -> str:
        for read in (parse_connection_string, check_endpoint):
            try:
                found = read(item)
            except InvalidArgument as error:
                for secret in (KEY, OTHER):
                    if secret in item:
                        assert secret not in str(error), str(error)
                assert "u:p" not in str(error), str(error)
                assert len(str(error)) < 600
                continue
            if isinstance(found, str):
                assert check_endpoint(found) == found, found
                return "an endpoint"
            assert found.access_key and (len(found.access_key) < 20 or found.access_key not in repr(found))
            assert check_endpoint(found.endpoint) == found.endpoint, found
            assert "\r" not in found.endpoint and "\n" not in found.endpoint
            return "read"
        return "refused"


AUDIENCE = "http://localhost:8080/client/hubs/plaza"


def encoded(data: bytes) -> str:
    """Return base64 as tokens have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token_of(head: bytes, payload: bytes, key: Optional[str]) -> str:
    """Return a token of any bytes, signed by HMAC or not at all."""
    signed = encoded(head) + "." + encoded(payload)
    digest = (
        b"" if key is None else hmac.new(key.encode("utf-8", "surrogatepass"), signed.encode(), hashlib.sha256).digest()
    )
    return signed + "." + encoded(digest)


class AccessTokens(Target):
    """Client and REST tokens: whatever gets in was signed with the key, is for this audience, and has not expired."""

    name = "tokens"
    share = 6.0

    def open(self) -> None:
        self.tokens = Tokens(KEY)

    def make(self, rng: random.Random) -> Any:
        now = int(time.time())
        head = {"alg": "HS256", "typ": "JWT"}
        payload = {"aud": AUDIENCE, "exp": now + 600}
        for _ in range(rng.randrange(3)):
            head[rng.choice(("alg", "kid", "jku", "x5u", "crit", "b64", "typ", "cty", "jwk", "x5c", "zip", "enc"))] = (
                rng.choice(
                    ("none", "None", "RS256", "HS512", "hs256", "HS256", ["HS256"], True, False, nasty.value(rng, 2))
                )
            )
        for _ in range(rng.randrange(4)):
            payload[rng.choice(("aud", "exp", "nbf", "iat", "sub", "role", "webpubsub.group", "iss", "jti"))] = (
                rng.choice(
                    (
                        AUDIENCE,
                        [AUDIENCE],
                        now,
                        now - 10**4,
                        now + 10**4,
                        float(now),
                        str(now),
                        "1e999",
                        nasty.value(rng, 2),
                    )
                )
            )
        heads, bodies = nasty.dump(rng, head), nasty.dump(rng, payload)
        if rng.random() < 0.15:
            bodies = nasty.break_text(rng, bodies)
        if rng.random() < 0.1:
            heads = nasty.break_text(rng, heads)
        if rng.random() < 0.02:
            bodies = bodies[:-1] + ',"x":%s}' % nasty.nested(rng)
        if rng.random() < 0.01:
            heads = heads[:-1] + ',"x":%s}' % nasty.nested(rng)
        key = rng.choice((KEY, KEY, KEY, KEY, OTHER, "", None))
        token = token_of(heads.encode("utf-8", "surrogatepass"), bodies.encode("utf-8", "surrogatepass"), key)
        if rng.random() < 0.2:
            return nasty.break_text(rng, token), False
        return token, key == KEY

    def check(self, item: Any) -> str:
        token, signed = item
        word = "refused"
        for audiences in ([AUDIENCE], None):
            try:
                if audiences is None:
                    self.tokens.made_out_to(token)
                    continue
                claims = self.tokens.check(token, audiences)
            except TokenRejected as error:
                text = str(error)
                assert KEY not in text and (len(token) < 60 or token not in text)
                assert not any(char in text for char in "\r\n\0\x1b"), text
                continue
            assert signed or self._really_signed(token), "a token that nobody signed"
            found = claims.raw["aud"]
            assert AUDIENCE.lower() in [item.lower() for item in (found if isinstance(found, list) else [found])]
            assert claims.user_id is None or isinstance(claims.user_id, str)
            word = "accepted"
        return word

    @staticmethod
    def _really_signed(token: str) -> bool:
        head, payload, signature = token.split(".")
        mine = hmac.new(KEY.encode(), (head + "." + payload).encode(), hashlib.sha256).digest()
        alg = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["alg"]
        return alg == "HS256" and base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)) == mine


_UNSAFE = set(map(chr, range(32))) | {"\x7f"}


class Headers(Target):
    """Values of ce-* headers and connection states: nothing breaks a line, and what is written is read back."""

    name = "headers"
    share = 8.0

    def make(self, rng: random.Random) -> Any:
        kind = rng.choice(("value", "value", "raw", "state", "state text", "signature", "type"))
        if kind == "value":
            return kind, nasty.pump(rng, rng.choice((500, 8000, 60000))) if rng.random() < 0.01 else nasty.text(rng)
        if kind == "raw":
            if rng.random() < 0.01:
                return kind, nasty.pump(rng, rng.choice((500, 8000, 60000)))
            return kind, nasty.break_text(rng, cloud_events.encode_header_value(nasty.text(rng)))
        if kind == "state":
            return kind, {nasty.text(rng): nasty.value(rng) for _ in range(rng.randrange(4))}
        if kind == "state text":
            inner = nasty.nested(rng) if rng.random() < 0.05 else nasty.dump(rng, nasty.value(rng))
            data = inner.encode("utf-8", "surrogatepass")
            if rng.random() < 0.3:
                data = nasty.break_bytes(rng, data)
            text = base64.b64encode(data).decode()
            return kind, nasty.break_text(rng, text) if rng.random() < 0.4 else text
        if kind == "signature":
            good = cloud_events.signature("c1", [KEY, OTHER])
            return kind, nasty.break_text(rng, good) if rng.random() < 0.7 else nasty.text(rng)
        good = rng.choice(
            (
                "text/plain",
                "application/json; charset=utf-8",
                'application/json;charset="utf-16"',
                "a/b",
                "application/octet-stream",
                "text/plain; charset=iso-8859-1",
            )
        )
        return kind, nasty.break_text(rng, good), nasty.break_bytes(rng, b'{"a":1}')

    def check(self, item: Tuple[Any, ...]) -> str:
        kind, what = item[0], item[1]
        if kind == "value":
            header = cloud_events.encode_header_value(what)
            header.encode("ascii")
            assert not _UNSAFE.intersection(header) and header == header.strip(" "), header
            if not any(0xD800 <= ord(char) <= 0xDFFF for char in what):
                assert cloud_events.decode_header_value(header) == what
        elif kind == "raw":
            assert isinstance(cloud_events.decode_header_value(what), str)
        elif kind == "state":
            try:
                header = cloud_events.encode_state(what)
            except InvalidArgument:
                return "no state"
            header.encode("ascii")
            assert json.dumps(cloud_events.decode_state(header)) == json.dumps(what)
        elif kind == "state text":
            state = cloud_events.decode_state(what)
            assert isinstance(state, dict)
            try:
                cloud_events.encode_state(state)
            except InvalidArgument:
                return "a state that cannot be sent back"
        elif kind == "signature":
            matches = cloud_events.signature_matches(what, "c1", [KEY])
            digest = cloud_events.signature("c1", [KEY])
            assert matches == any(part.strip().lower() == digest for part in what.split(",")), what
            return "signature %s" % matches
        else:
            data_type, charset = cloud_events.data_type_of(what), cloud_events.charset_of(what)
            if data_type is None or charset is None:
                return "no type"
            try:
                cloud_events.decode_payload(item[2], data_type, charset)
            except InvalidArgument:
                return "no payload"
        return kind


TARGETS: List[type] = [Filters, ConnectionStrings, AccessTokens, Headers]
