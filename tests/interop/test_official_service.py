"""The official Python service SDK, unchanged, blocking and asyncio, against the embedded server."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io

import pytest

from simplepubsub.server import ALL_ROLES
from tests import peers
from tests.helpers import wait_until
from tests.rawclient import PLAIN, RELIABLE, RawClient

sdk = peers.require("azure.messaging.webpubsubservice", "the official service SDK must work with our server",
                    python=(3, 8))
aio = peers.require("azure.messaging.webpubsubservice.aio", "its asyncio half", python=(3, 8))
core = peers.require("azure.core.exceptions", "its errors", python=(3, 8))
credentials = peers.require("azure.core.credentials", "its keys", python=(3, 8))
rest = peers.require("azure.core.rest", "its requests", python=(3, 8))

pytestmark = [
    pytest.mark.interop,
    pytest.mark.allows_leaks("an exception of the blocking client keeps its response, and that its socket"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def rubbish():
    """What the clients leave behind is collected here, where its warnings count for nothing."""
    yield
    gc.collect()


class Service:
    """An official client; the asyncio one is driven from here, so that one test serves both."""

    def __init__(self, module, *args, make="from_connection_string", **options):
        self.loop = asyncio.new_event_loop() if module is aio else None
        options.setdefault("retry_total", 0)

        def create():
            cls = module.WebPubSubServiceClient
            return (getattr(cls, make) if make else cls)(*args, **options)

        async def create_in_loop():
            return create()

        self.client = create() if self.loop is None else self.loop.run_until_complete(create_in_loop())

    def __getattr__(self, name):
        method = getattr(self.client, name)
        if self.loop is None:
            return lambda *args, **options: method(*args, **options)

        async def run(*args, **options):
            result = method(*args, **options)
            return await result if inspect.isawaitable(result) else result

        return lambda *args, **options: self.loop.run_until_complete(run(*args, **options))

    def listed(self, by_page=False, **options):
        """Return what list_connections yields: items, or pages as lists."""
        page_options = {"continuation_token": None} if by_page else {}
        if self.loop is None:
            found = self.client.list_connections(**options)
            return [list(page) for page in found.by_page(**page_options)] if by_page else list(found)

        async def run():
            found = self.client.list_connections(**options)
            if by_page:
                return [[item async for item in page] async for page in found.by_page(**page_options)]
            return [item async for item in found]

        return self.loop.run_until_complete(run())

    def close(self):
        if self.loop is None:
            self.client.close()
        else:
            self.loop.run_until_complete(self.client.close())
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()


@pytest.fixture(params=[sdk, aio], ids=["blocking", "asyncio"])
def make(request):
    made = []

    def build(*args, **options):
        made.append(Service(request.param, *args, **options))
        return made[-1]

    yield build
    for service in made:
        service.close()


@pytest.fixture
def service(make, server):
    return make(server.connection_string, "plaza")


MESSAGES = [
    ({"a": [1, None, "\u00fc"]}, {}, "json", {"a": [1, None, "\u00fc"]}),
    ("hello", {"content_type": "text/plain"}, "text", "hello"),
    # As bytes: the asyncio transport of azure-core counts the characters of a str and sends so many bytes of it.
    ("h\u00e9llo".encode(), {"content_type": "text/plain"}, "text", "h\u00e9llo"),
    (io.BytesIO(b"\0\xff"), {"content_type": "application/octet-stream"}, "binary", "AP8="),
    (b"\1", {"content_type": "application/octet-stream"}, "binary", "AQ=="),
]


@pytest.mark.parametrize("message, options, data_type, data", MESSAGES)
@pytest.mark.parametrize("target", ["all", "group", "user", "connection"])
def test_every_message_to_every_target(service, connect, target, message, options, data_type, data):
    client = connect(RELIABLE, user_id="mina", groups=["a/b ?"])
    if hasattr(message, "seek"):
        message.seek(0)
    to = {"all": (), "group": ("a/b ?",), "user": ("mina",), "connection": (client.connection_id,)}[target]
    getattr(service, "send_to_" + target)(*to, message, **options)
    received = client.receive()
    assert (received["dataType"], received["data"]) == (data_type, data)


def test_filters_exclusions_and_times_to_live(service, connect):
    a, b, c = (connect(PLAIN, user_id=name, groups=["g"]) for name in ("ann", "bob", "it's"))
    service.send_to_all("1", content_type="text/plain", excluded=[a.connection_id], filter="userId ne 'bob'")
    service.send_to_group("g", "2", content_type="text/plain", excluded=[a.connection_id, c.connection_id])
    service.send_to_user("it's", "3", content_type="text/plain", filter="userId eq 'it''s'")
    service.send_to_all("4", content_type="text/plain", params={"messageTtlSeconds": 60})
    assert [[message["data"] for message in client.receive_many(count)] for client, count in ((a, 1), (b, 2), (c, 3))] \
        == [["4"], ["2", "4"], ["1", "3", "4"]]


def test_groups(service, connect, server):
    client = connect(PLAIN, user_id="mina")
    hub = server.hub("plaza")

    def groups():
        return server.connections()[0].groups

    service.add_connection_to_group("a/b", client.connection_id)
    service.add_user_to_group("c", "mina")
    assert groups() == ("a/b", "c") and service.group_exists("a/b") and not service.group_exists("nobody")
    service.remove_connection_from_group("a/b", client.connection_id)
    service.remove_user_from_group("c", "mina")
    assert groups() == ()
    hub.add_connection_to_group("x", client.connection_id)
    service.remove_connection_from_all_groups(client.connection_id)
    assert groups() == ()
    hub.add_connection_to_group("x", client.connection_id)
    service.remove_user_from_all_groups("mina")
    assert groups() == ()
    with pytest.raises(core.ResourceNotFoundError):
        service.add_connection_to_group("g", "nobody")


def test_existence(service, connect):
    client = connect(PLAIN, user_id="mina")
    assert service.connection_exists(client.connection_id) and not service.connection_exists("nobody")
    assert service.user_exists("mina") and not service.user_exists("nobody")


def test_permissions(service, connect):
    client = connect(PLAIN, roles=())
    options = {"connection_id": client.connection_id, "target_name": "lobby"}
    for permission in ("sendToGroup", "joinLeaveGroup"):
        assert not service.has_permission(permission, **options)
        service.grant_permission(permission, **options)
        assert service.has_permission(permission, **options)
    client.join("lobby")
    service.revoke_permission("sendToGroup", **options)
    assert not service.has_permission("sendToGroup", **options)
    with pytest.raises(core.ResourceNotFoundError):
        service.grant_permission("sendToGroup", "nobody", target_name="lobby")


@pytest.mark.parametrize("how", ["connection", "group", "user", "all"])
def test_closing(service, connect, how):
    client = connect(PLAIN, user_id="mina", groups=["g"])
    if how == "connection":
        service.close_connection(client.connection_id, reason="bye \u00fc")
    else:
        to = {"group": ("g",), "user": ("mina",), "all": ()}[how]
        getattr(service, "close_%s_connections" % how)(*to, excluded=["other"], reason="bye \u00fc")
    assert client.receive()["message"] == "bye \u00fc"
    assert client.expect_close() == (1000, "bye \u00fc")


def test_lists(service, connect):
    expected = {}
    for number in range(5):
        user = "user %d" % number if number else None
        expected[connect(PLAIN, user_id=user, groups=["a/b c"]).connection_id] = user
    order = sorted(expected)
    items = service.listed(group="a/b c")
    assert [item.connection_id for item in items] == order
    assert {item.connection_id: item.user_id for item in items} == expected
    pages = service.listed(by_page=True, group="a/b c", maxpagesize=2)
    assert [[item.connection_id for item in page] for page in pages] == [order[:2], order[2:4], order[4:]]
    assert [item.connection_id for item in service.listed(group="a/b c", top=3, maxpagesize=2)] == order[:3]
    assert service.listed(group="nobody") == []


def test_tokens_that_it_makes_with_the_key(service, connect, server):
    answer = service.get_client_access_token(user_id="mina", roles=list(ALL_ROLES), groups=["g"], minutes_to_expire=5,
                                             jwt_headers={"kid": "1"})
    client = connect(PLAIN, url=answer["url"])
    assert client.first["userId"] == "mina" and server.connections()[0].groups == ("g",)
    client.join("other")


class Elsewhere:
    """Stands for a credential of an identity provider; requests are signed by the policy that the test passes."""

    def get_token(self, *scopes, **options):
        raise AssertionError("not asked for")


def test_tokens_that_the_server_makes(make, connect, server):
    keys = credentials.AzureKeyCredential(server._access_key)
    policy = sdk._patch.JwtCredentialPolicy(keys)
    service = make(server.endpoint, "plaza", Elsewhere(), make=None, authentication_policy=policy)
    answer = service.get_client_access_token(user_id="mina", roles=list(ALL_ROLES), groups=["g", "h"],
                                             minutes_to_expire=5)
    client = connect(RELIABLE, url=answer["url"])
    assert client.first["userId"] == "mina" and server.connections()[0].groups == ("g", "h")


@pytest.mark.parametrize("version", ["2021-10-01", "2022-11-01", "2024-01-01", "2024-12-01"])
def test_key_credentials_a_user_and_older_versions(make, server, version):
    keys = credentials.AzureKeyCredential(server._access_key)
    service = make(server.endpoint + "/", "plaza", keys, make=None, api_version=version, user="operator")
    service.send_to_all({"a": 1})
    with pytest.raises(core.HttpResponseError, match="unknown api-version"):
        make(server.endpoint, "plaza", keys, make=None, api_version="2000-01-01").send_to_all({"a": 1})


def test_a_reverse_proxy(make, server, make_proxy):
    proxy = make_proxy(server)
    keys = credentials.AzureKeyCredential(server._access_key)
    service = make("http://pubsub.example.test", "plaza", keys, make=None,
                   reverse_proxy_endpoint="http://127.0.0.1:%d" % proxy.port)
    with pytest.raises(core.ClientAuthenticationError, match="another audience"):
        service.send_to_all("x", content_type="text/plain")  # the server cannot know that name
    service = make(server.endpoint, "plaza", keys, make=None,
                   reverse_proxy_endpoint="http://127.0.0.1:%d" % proxy.port)
    service.send_to_all("x", content_type="text/plain")
    wait_until(lambda: proxy.accepted >= 2)


def test_errors(make, service, server):
    stranger = make(server.endpoint, "plaza", credentials.AzureKeyCredential("x" * 40), make=None)
    with pytest.raises(core.ClientAuthenticationError) as caught:
        stranger.send_to_all("x", content_type="text/plain")
    assert caught.value.status_code == 401 and "not signed with an access key" in str(caught.value)
    with pytest.raises(core.HttpResponseError) as caught:
        service.send_to_all("x", content_type="text/plain", filter="userId > 'a'")
    assert caught.value.status_code == 400 and "filter, character 8" in str(caught.value)
    with pytest.raises(core.HttpResponseError) as caught:
        service.send_to_all("x" * (2**20 + 1), content_type="text/plain")
    assert caught.value.status_code == 413
    with pytest.raises(core.ClientAuthenticationError):
        make(server.endpoint, "plaza", credentials.AzureKeyCredential("x" * 40), make=None).user_exists("mina")


def test_requests_of_ones_own(service, server, connect):
    connect(PLAIN, user_id="mina")
    request = rest.HttpRequest("POST", "/api/hubs/plaza/:addToGroups", json={"groups": ["g"]})
    answer = service.send_request(request)
    assert answer.status_code == 200 and answer.headers["x-ms-request-id"]
    assert server.connections()[0].groups == ("g",)
    assert service.send_request(rest.HttpRequest("HEAD", "/api/health")).status_code == 200


def test_the_urls_that_it_makes_are_the_same_as_ours(service, server):
    ours = server.client_access_url("plaza").partition("?")[0]
    assert service.get_client_access_token()["baseUrl"] == ours
    with RawClient(service.get_client_access_token()["url"], PLAIN) as client:
        assert client.first["event"] == "connected"
