"""P6 for the whole of Web PubSub: lives with every failure in them, and not a secret in what they leave behind.

Every logger is at DEBUG, the clients trace, the service client logs requests and answers. Looked at are logs, standard
output and error, all exceptions with their causes and tracebacks, and what repr() shows of everything.
"""

from __future__ import annotations

import logging
import re
import socket
import urllib.parse
from typing import Any, Callable, Dict, List, Set

import pytest

from simplepubsub.exceptions import SimplePubSubError
from simplepubsub.server import Server
from simplepubsub.webpubsub import (
    EventHandler,
    RetryPolicy,
    UserEventResponse,
    WebPubSubClient,
    WebPubSubClientCredential,
    WebPubSubServiceClient,
)
from tests.helpers import ClosedPort, Recorder, wait_until
from tests.rawclient import PLAIN, RELIABLE, Clients, RawClient, refused, upgrade_request
from tests.restclient import TEXT, Rest
from tests.test_event_handler import headers_for
from tests.test_p6_secrets import Everything, listening, shown
from tests.timing import scaled
from tests.upstreams import RESET, Posted, ScriptedUpstream

PRIMARY = "cHJpbWFyeS1hY2Nlc3Mta2V5LXdoaWNoLWlzLXNlY3JldA=="
SECONDARY = "c2Vjb25kYXJ5LWFjY2Vzcy1rZXktYWxzby1zZWNyZXQtMQ=="
STRANGER = "c3RyYW5nZXItYWNjZXNzLWtleS1vZi1ub2JvZHktaGVyZQ=="
CODE = "c0de-0f-the-webh00k-in-its-query"
USER = "us3r-of-the-webh00k:passw0rd-of-the-webh00k"
PROXY = "pr0xy-user:pr0xy-passw0rd"

#: What no line may hold, wherever it came from: a token, a signature.
SHAPES = (re.compile(r"eyJ[\w\-]{8,}\.eyJ[\w\-]{8,}\.[\w\-]{8,}"), re.compile(r"sha256=[0-9a-f]{16,}"))


class Life:
    """What happened, what was raised, and what must not be seen."""

    def __init__(self) -> None:
        self.secrets: Set[str] = {PRIMARY, SECONDARY, STRANGER, CODE, PROXY.partition(":")[2], USER.partition(":")[2]}
        self.errors: List[BaseException] = []
        self.things: List[Any] = []
        self.expected: List[str] = []  # words that show that there was something to look at

    def token(self, url: str) -> str:
        """Note the token in a URL as a secret; return the URL."""
        self.secrets.add(urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["access_token"][0])
        return url

    def fails(self, function: Callable[..., Any], *args: Any, **options: Any) -> BaseException:
        with pytest.raises((SimplePubSubError, OSError)) as caught:
            function(*args, **options)
        self.errors.append(caught.value)
        return caught.value

    def check(self, text: str, what: str) -> None:
        for secret in self.secrets:
            for piece in (
                secret,
                secret[: len(secret) // 2],
                secret[len(secret) // 2 :],
                urllib.parse.quote(secret, safe=""),
            ):
                assert piece not in text, "%r shows in %s: %s" % (piece, what, around(text, piece))
        for shape in SHAPES:
            found = shape.search(text)
            assert found is None, "%s shows in %s: %s" % (
                found and found.group(),
                what,
                around(text, found.group() if found else ""),
            )


def around(text: str, piece: str) -> str:
    place = text.index(piece)
    return text[max(0, place - 300) : place + 300]


@pytest.fixture
def life(capsys: Any) -> Any:
    """A `Life`; at the end everything that was said is looked at."""
    made, handler = Life(), Everything()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s %(pathname)s %(args)s"))
    names = [
        "simplepubsub",
        "simplepubsub.wire",
        "simplepubsub.server",
        "simplepubsub.service",
        "simplepubsub.event_handler",
        "websocket",
        "aiohttp",
        "asyncio",
        "urllib3",
        "requests",
    ]
    with listening(handler, *names):
        yield made
    printed = capsys.readouterr()
    made.check("\n".join(handler.lines), "the log")
    made.check(printed.out + printed.err, "what was printed")
    for error in made.errors:
        # The source lines of this test, which tracebacks quote, have no secret: constants stand for them.
        made.check(shown(error), "an exception")
    for thing in made.things:
        made.check(repr(thing) + str(thing), "the repr of a %s" % type(thing).__name__)
    said = "\n".join(handler.lines) + printed.out + printed.err
    assert len(said) > 1000
    for word in made.expected:
        assert word in said, "what was to be looked at is not there: %s" % word


@pytest.fixture
def server(life: Life, fresh_server: Any) -> Any:
    made = fresh_server(access_key=PRIMARY, secondary_key=SECONDARY, recovery_window=scaled(20))
    life.things += [made, made.hub("plaza"), made.faults, made._tokens]
    return made


def quick(life: Life, url: str, **options: Any) -> WebPubSubClient:
    client = WebPubSubClient(life.token(url), logger=True, message_retry=RetryPolicy(total=0), **options)
    life.things += [client, client._credential]
    return client


def test_clients(life: Life, server: Any) -> None:
    life.expected += ["visible too", "joinGroup", "recovering", "refused a recovery", "Traceback"]
    server.on("fail")(lambda event: 1 // 0)
    server.on("echo")(lambda event: event.data)
    events = Recorder()
    with quick(life, server.client_access_url("plaza", user_id="mina")) as client:
        events.attach(client, "recovered", "disconnected")
        (session,) = server._pump.work.hubs["plaza"].sessions.values()
        life.secrets.add(session.reconnection_token)
        client.join_group("lobby")
        client.send_to_group("lobby", "visible")
        life.fails(client.send_event, "fail", "x")
        life.fails(client.send_event, "nobody-listens", "x")
        assert client.invoke_event("echo", "y").data == "y"
        life.fails(client.invoke_event, "fail", "x")
        with client.open_stream("lobby") as stream:
            stream.write("visible too")
            life.things.append(stream)
        server.faults.drop_connections()
        events.wait_event("recovered")
        server.faults.refuse_recovery(1)
        server.faults.drop_connections()
        gone = events.wait_event("disconnected")
        wait_until(client.is_connected)
        for item in list(server._pump.work.hubs["plaza"].sessions.values()):
            life.secrets.add(item.reconnection_token)
            life.things.append(item)
        life.things += [gone, server.connections()]
    stranger = Server(access_key=STRANGER)
    stranger._address, stranger._bound_port = "127.0.0.1", server.port
    for url in (
        stranger.client_access_url("plaza"),
        server.client_access_url("plaza", minutes_to_expire=-60),
        server.client_access_url("other").replace("/other", "/plaza"),
        server.client_access_url("plaza") + "x",
    ):
        life.fails(quick(life, url).start, timeout=scaled(5))
    with ClosedPort() as closed:
        url = server.client_access_url("plaza").replace(":%d" % server.port, ":%d" % closed.port)
        life.fails(quick(life, url).start, timeout=scaled(5))
        proxy = "http://%s@127.0.0.1:%d" % (PROXY, closed.port)
        life.fails(quick(life, server.client_access_url("plaza"), proxy=proxy).start, timeout=scaled(5))
    credential = WebPubSubClientCredential(lambda: life.token(server.client_access_url("plaza")) + "&" + "x" * 9000)
    life.fails(WebPubSubClient(credential, logger=True).start, timeout=scaled(5))


def test_the_service_client(life: Life, server: Any) -> None:
    life.expected += ["/api/hubs/plaza/:send", "answer 202", "userId eq 'mina'", '"visible"', "401"]
    text = server.connection_string
    with WebPubSubServiceClient.from_connection_string(text, "plaza", logging_enable=True) as service, Clients(
        server
    ) as clients:
        answer = service.get_client_access_token(user_id="mina", roles=["webpubsub.sendToGroup"])
        life.token(answer["url"])
        client = clients.connect(RELIABLE, url=answer["url"])
        life.secrets.add(client.first["reconnectionToken"])
        life.things += [service, service._pipeline, service._pipeline.signer]
        service.send_to_all({"visible": True})
        service.send_to_group("lobby", "text", content_type="text/plain", filter="userId eq 'mina'")
        life.fails(service.send_to_all, "x", content_type="text/plain", filter="nonsense (")
        life.fails(service.grant_permission, "sendToGroup", "nobody", target_name="lobby")
        life.fails(service.add_user_to_group, "lobby", "nobody")
        life.things += list(service.list_connections("lobby"))
        life.things.append(service.send_request(_request("POST", "/api/hubs/plaza/:generateToken")))
        service.close_all_connections(reason="over")
    options: Dict[str, Any] = {"logging_enable": True, "retry": RetryPolicy(total=0), "timeout": scaled(5)}
    with WebPubSubServiceClient(server.endpoint, "plaza", STRANGER, **options) as service:
        life.things.append(service)
        life.fails(service.send_to_all, "x", content_type="text/plain")
        life.fails(service.list_connections("lobby").__next__)
    with ClosedPort() as closed:
        with WebPubSubServiceClient(
            closed.url("").replace("ws:", "http:").rstrip("/"), "plaza", PRIMARY, **options
        ) as service:
            life.fails(service.send_to_all, "x", content_type="text/plain")
        proxies = "http://%s@127.0.0.1:%d" % (PROXY, closed.port)
        with WebPubSubServiceClient(server.endpoint, "plaza", PRIMARY, proxies=proxies, **options) as service:
            life.fails(service.send_to_all, "x", content_type="text/plain")
    for bad in (
        text.replace("AccessKey", "Access Key"),
        text.replace("Endpoint=http", "Endpoint=ftp"),
        text + "x",
        "'%s'" % text,
        text.replace(";", "\n"),
        "Endpoint=%s;AccessKey=http://h" % PRIMARY,
    ):
        life.fails(WebPubSubServiceClient.from_connection_string, bad, "plaza")
    life.fails(WebPubSubServiceClient, text, "plaza", PRIMARY)
    life.fails(WebPubSubServiceClient, PRIMARY, "plaza", "http://h")


def _request(method: str, url: str) -> Any:
    import requests

    return requests.Request(method, url)


def test_doors_and_requests_that_are_none(life: Life, server: Any) -> None:
    life.expected += ["is not HTTP", "another audience", "refused a recovery"]
    rest = Rest(server, key=PRIMARY)
    token = rest.token(rest.url("/:send"))
    life.secrets.add(token)
    for path in ("/:send", "/groups/a/:send"):
        rest("POST", path, b"x", TEXT, token=token)
    rest("POST", "/:send", b"x", TEXT, token=token[:-3] + "abc")
    rest("POST", "/:send", b"x", {"Content-Type": "a/b"}, token=token)
    url = life.token(server.client_access_url("plaza"))
    whole = upgrade_request(server, url)
    for data in (
        whole.replace(b"GET /", b"GET /\xff"),
        whole.replace(b"Host:", b"Ho\0st:"),
        whole.replace(b" HTTP/1.1", b" HTTP/x"),
        whole.replace(b"websocket", b"h2c"),
        whole.replace(b"Version: 13", b"Version: 8"),
        whole.replace(b"plaza", b"pl%00aza"),
        whole.replace(b"GET", b"G T"),
        whole[:-4] + b"\r\nExpect: \xff\r\n\r\n",
        whole[:-4] + b"\r\nContent-Length: x\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=scaled(10)) as sock:
            sock.sendall(data)
            assert sock.recv(4096)[9:10] == b"4", data
    refused(url + "x")
    with RawClient(url, RELIABLE) as client:
        life.secrets.add(client.first["reconnectionToken"])
        with RawClient(client.recovery_url("gu3ss-of-a-th1ef"), RELIABLE, hello=False) as thief:
            assert thief.expect_close()[0] == 1008
        client.send({"type": "nonsense", "access_token": token})
        client.expect_close()


def test_event_handlers(life: Life, server: Any) -> None:
    """URLs with a code in them, which answer errors, cut the connection or say too much; and objects that raise."""
    life.expected += ["answered 500", "far of", "ZeroDivisionError", "refused a request: 401"]
    with ScriptedUpstream() as upstream, ClosedPort() as closed, Clients(server) as clients:
        addresses = (
            "/{hub}/{event}?code=" + CODE,
            "http://%s@127.0.0.1:%d/{event}?code=%s" % (USER, closed.port, CODE),
        )
        for address in (upstream.url(addresses[0]), addresses[1], "http://no-such-host.invalid/?code=" + CODE):
            try:
                route = server.add_event_handler(
                    address,
                    "bad" if "code" not in addresses[0] else None,
                    events="far",
                    system=(),
                    retry_delays=(0.0,),
                    timeout=scaled(5),
                )
            except SimplePubSubError as error:
                life.errors.append(error)
                continue
            life.things += [route, route.template]
            for reply in (
                500,
                RESET,
                (302, {"Location": "/?code=" + CODE}, b""),
                (200, {"Content-Type": "a/b"}, b"x"),
                (401, {}, b"code=" + CODE.encode()),
                (200, {"Content-Type": "application/json", "ce-connectionState": "!"}, b"{"),
            ):
                upstream.script = _always(reply)
                client = clients.connect(PLAIN, timeout=30)  # two attempts of 5 s may have to time out: a name server
                client.send({"type": "event", "event": "far", "dataType": "text", "data": "x", "ackId": 1})
                answer = client.receive()
                if answer["type"] == "ack" and not answer["success"]:
                    life.check(str(answer), "what a client was told")
                client.abort()
            server.remove_event_handler(route)
        for address in (
            "ftp://h/?code=" + CODE,
            "http:///?code=" + CODE,
            "http://h:x/?code=" + CODE,
            "http://h/{nothing}?code=" + CODE,
        ):
            life.fails(server.add_event_handler, address)
        wait_until(lambda: not server.connections())
    handler = EventHandler(access_keys=[SECONDARY, PRIMARY], allowed_origins="127.0.0.1")
    handler.on_connect(lambda request: {"state": {"seen": True}})
    handler.on_event("fail")(lambda request: 1 // 0)
    handler.on_event("echo")(lambda request: UserEventResponse(repr(request.user_id)))
    life.things += [handler, server.add_event_handler(handler)]
    with Clients(server) as clients:
        client = clients.connect(RELIABLE, user_id="mina")
        life.secrets.add(client.first["reconnectionToken"])
        for number, name in enumerate(("echo", "fail", "nobody")):
            client.send({"type": "event", "event": name, "dataType": "text", "data": "x", "ackId": number})
            client.receive_many(2 if name == "echo" else 1)
    wait_until(lambda: not [item for item in server.connections() if item.hub == "none"])
    strange = EventHandler(access_key=STRANGER)
    life.things.append(strange)
    wrong = headers_for("echo", WebHook_Request_Origin="h")
    for headers in (
        {},
        wrong,
        dict(wrong, **{"ce-signature": "sha256=" + "ab" * 32}),
        dict(wrong, **{"ce-signature": PRIMARY}),
    ):
        strange.handle("POST", headers, b"{}")
    for options in (
        {"access_key": ""},
        {"access_keys": PRIMARY},
        {"connection_string": "AccessKey=%s;oops" % PRIMARY},
        {},
    ):
        life.fails(EventHandler, **options)


def _always(reply: Any) -> Callable[[Posted], Any]:
    return lambda request: reply


def test_servers_that_cannot_be(life: Life, server: Any) -> None:
    for options in (
        {"access_key": PRIMARY[:20]},
        {"access_key": PRIMARY, "secondary_key": SECONDARY[:20]},
        {"access_key": PRIMARY, "port": -1},
        {"access_key": PRIMARY, "host": 5},
        {"access_key": PRIMARY, "recovery_window": "x"},
    ):
        life.secrets.update((PRIMARY[:20], SECONDARY[:20]))
        life.fails(Server, **options)
    life.fails(Server(access_key=PRIMARY, port=server.port).start)
    life.fails(Server(access_key=PRIMARY, host="no-such-host.invalid").start)
    logging.getLogger("simplepubsub").debug("there has to be something to look at" * 30)
