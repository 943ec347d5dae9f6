"""Every operation of our service client against our embedded server: what it returns and what clients see of it."""

from __future__ import annotations

import io
import socket
import sys
from typing import Any, Callable, Iterator, List, NamedTuple

import pytest

from simplepubsub import RetryPolicy
from simplepubsub import exceptions as errors
from simplepubsub.webpubsub import HttpRequest, WebPubSubClient, WebPubSubServiceClient, odata
from tests.helpers import ClosedPort, Recorder, scaled, wait_until

HUB = "plaza"
ROLES = ["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"]


@pytest.fixture
def service(server: Any) -> Iterator[WebPubSubServiceClient]:
    with WebPubSubServiceClient.from_connection_string(server.connection_string, HUB) as service:
        yield service


class Joined(NamedTuple):
    client: Any
    id: str

    def data(self) -> Any:
        return self.client.receive(timeout=scaled(10)).data

    def quiet(self) -> None:
        """Nothing has come before what is sent now."""
        self.client.send_event("echo", "mark", ack=False)
        assert self.data() == "mark"


@pytest.fixture
def connect(server: Any, service: WebPubSubServiceClient) -> Iterator[Callable[..., Joined]]:
    server.on("echo", HUB, lambda event: event.data)
    clients: List[Any] = []

    def make(user_id: Any = None, groups: Any = (), roles: Any = ROLES, protocol: str = "json.reliable") -> Joined:
        made = service.get_client_access_token(user_id=user_id, groups=groups, roles=roles)
        client = WebPubSubClient(made["url"], protocol=protocol, auto_reconnect=False)
        clients.append(client)
        client.start(timeout=scaled(20))
        return Joined(client, client.connection_id)

    yield make
    for client in clients:
        client.stop()


def test_service_status(service: WebPubSubServiceClient) -> None:
    assert service.get_service_status() is True


@pytest.mark.parametrize("protocol", ["json", "json.reliable"])
def test_messages_of_every_type_reach_their_targets(protocol: str, service: Any, connect: Any) -> None:
    one = connect("mina", ["lobby"], protocol=protocol)
    sends = [lambda *a, **k: service.send_to_all(*a, **k), lambda *a, **k: service.send_to_group("lobby", *a, **k),
             lambda *a, **k: service.send_to_user("mina", *a, **k),
             lambda *a, **k: service.send_to_connection(one.id, *a, **k)]
    for send in sends:
        send({"from": "user1", "data": "Hello world"})
        send("Hello", message_ttl_seconds=60)
        send("Hello", content_type="text/plain")
        send(io.StringIO("Hello World"), content_type="application/octet-stream")
        send(b"\0\xff")
        send(io.BytesIO(b"\1"))
        messages = [one.client.receive(timeout=scaled(10)) for _ in range(6)]
        assert [(m.data_type, m.data) for m in messages] == [
            ("json", {"from": "user1", "data": "Hello world"}), ("json", "Hello"), ("text", "Hello"),
            ("binary", b"Hello World"), ("binary", b"\0\xff"), ("binary", b"\1")]
    assert messages[0].kind == "server"


def test_excluded_and_filters(service: Any, connect: Any) -> None:
    mina, bo, guest = connect("mina", ["a"]), connect("O'Brien", ["a", "b"]), connect(None, ["b"])
    service.send_to_all("1", excluded=[mina.id, guest.id])
    service.send_to_all("2", filter=odata("userId eq {}", "O'Brien"))
    service.send_to_all("3", filter=odata("userId eq {}", None))
    service.send_to_group("a", "4", filter=odata("{} in groups", "b"))
    service.send_to_group("a", "5", excluded=[bo.id])
    service.send_to_user("O'Brien", "6", filter=odata("length(groups) gt {} and userId in {}", 1, ["x", "O'Brien"]))
    assert [bo.data() for _ in range(4)] == ["1", "2", "4", "6"]
    assert guest.data() == "3" and mina.data() == "5"
    for one in (mina, bo, guest):
        one.quiet()
    with pytest.raises(errors.ServiceResponseError, match="filter") as caught:
        service.send_to_all("x", filter="userId equals 'x'")
    assert caught.value.status == 400 and caught.value.code and caught.value.request_id


def test_groups_of_connections_and_users(service: Any, connect: Any) -> None:
    one, two = connect("mina"), connect("mina")
    assert not service.group_exists("lobby")
    service.add_connection_to_group("lobby", one.id)
    assert service.group_exists("lobby")
    assert [member.connection_id for member in service.list_connections("lobby")] == [one.id]
    service.add_user_to_group("lobby", "mina")
    service.add_user_to_group("yard", "mina")
    found = list(service.list_connections("lobby"))
    assert found == sorted(found) and {member.connection_id for member in found} == {one.id, two.id}
    assert {member.user_id for member in found} == {"mina"}
    service.remove_connection_from_group("lobby", one.id)
    service.remove_connection_from_group("lobby", one.id)
    assert [member.connection_id for member in service.list_connections("lobby")] == [two.id]
    service.remove_user_from_group("yard", "mina")
    assert not service.group_exists("yard")
    service.add_user_to_group("yard", "mina")
    service.remove_connection_from_all_groups(two.id)
    assert not service.group_exists("lobby") and [m.connection_id for m in service.list_connections("yard")] == [one.id]
    service.remove_user_from_all_groups("mina")
    assert not service.group_exists("yard") and list(service.list_connections("yard")) == []
    with pytest.raises(errors.ServiceNotFound):
        service.add_connection_to_group("lobby", "nobody")


def test_groups_of_all_that_a_filter_chooses(service: Any, connect: Any) -> None:
    mina, bo = connect("mina"), connect("bo")
    service.add_connections_to_groups(["a", "b"], filter=odata("userId eq {}", "mina"))
    service.add_connections_to_groups(["all"])
    assert [m.user_id for m in service.list_connections("a")] == ["mina"] and service.group_exists("b")
    assert {m.user_id for m in service.list_connections("all")} == {"mina", "bo"}
    service.remove_connections_from_groups(["all", "b"], filter="userId eq 'mina'")
    assert [m.user_id for m in service.list_connections("all")] == ["bo"] and not service.group_exists("b")
    service.send_to_group("all", "x", content_type="text/plain")
    assert bo.data() == "x"
    mina.quiet()


def test_pages(service: Any, connect: Any) -> None:
    ids = sorted(connect(str(index), ["lobby"]).id for index in range(5))
    assert [m.connection_id for m in service.list_connections("lobby", maxpagesize=2)] == ids
    assert [m.connection_id for m in service.list_connections("lobby", maxpagesize=2, top=3)] == ids[:3]
    pages = service.list_connections(group="lobby", maxpagesize=2).by_page()
    assert [m.connection_id for m in next(pages)] == ids[:2]
    rest = service.list_connections(group="lobby").by_page(continuation_token=pages.continuation_token)
    assert [m.connection_id for one in rest for m in one] == ids[2:]
    with pytest.raises(errors.ServiceResponseError):
        list(service.list_connections("lobby", continuation_token="no token"))


def test_existence(service: Any, connect: Any) -> None:
    one = connect("mina", ["lobby"])
    assert service.connection_exists(one.id) and service.user_exists("mina") and service.group_exists("lobby")
    assert not service.connection_exists("x") and not service.user_exists("x") and not service.group_exists("x")


def closed(recorder: Recorder) -> str:
    return str(recorder.wait_event("disconnected").message)


def test_closing(service: Any, connect: Any) -> None:
    clients = [connect("mina", ["lobby"]), connect("bo", ["lobby"]), connect("eve"), connect("dan"), connect("dan")]
    seen = [Recorder().attach(one.client, "disconnected") for one in clients]
    service.close_connection(clients[0].id, reason="caf\u00e9 & more")
    assert "caf\u00e9 & more" in closed(seen[0])
    service.close_group_connections("lobby", reason="group")
    assert "group" in closed(seen[1])
    service.close_user_connections("dan", excluded=[clients[3].id], reason="user")
    assert "user" in closed(seen[4])
    clients[3].quiet()
    service.close_all_connections(excluded=[clients[2].id], reason="all")
    assert "all" in closed(seen[3])
    clients[2].quiet()
    service.close_all_connections()
    closed(seen[2])
    wait_until(lambda: not service.user_exists("eve"))
    service.close_connection("nobody")


def test_permissions(service: Any, connect: Any) -> None:
    one = connect("mina", roles=[])
    with pytest.raises(errors.SendMessageError, match="Forbidden"):
        one.client.join_group("a", timeout=scaled(10))
    assert not service.has_permission("joinLeaveGroup", one.id, target_name="a")
    service.grant_permission("joinLeaveGroup", one.id, target_name="a")
    assert service.has_permission("joinLeaveGroup", one.id, target_name="a")
    assert service.check_permission("joinLeaveGroup", one.id, target_name="a")
    assert not service.has_permission("sendToGroup", one.id, target_name="a")
    one.client.join_group("a", timeout=scaled(10))
    service.revoke_permission("joinLeaveGroup", one.id, target_name="a")
    assert not service.has_permission("joinLeaveGroup", one.id, target_name="a")
    with pytest.raises(errors.ServiceNotFound):
        service.grant_permission("sendToGroup", "nobody", target_name="a")


NAMES = ["a b", "a+b", "a/b", "a%2Fb", "../x", "caf\u00e9 \u2615", "?x=1#y", "x;y:z@w&v='", "~", "\\", "a\r\nB: c"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_arrive_as_they_are(name: str, service: Any, connect: Any) -> None:
    one = connect(name, [name])
    service.send_to_group(name, "group")
    service.send_to_user(name, "user")
    service.send_to_all("filter", filter=odata("userId eq {} and {} in groups", name, name))
    assert [one.data() for _ in range(3)] == ["group", "user", "filter"]
    assert [m.user_id for m in service.list_connections(name)] == [name]
    service.grant_permission("sendToGroup", one.id, target_name=name)
    assert service.has_permission("sendToGroup", one.id, target_name=name)
    service.remove_user_from_group(name, name)
    assert not service.group_exists(name)


def test_anything_else_by_send_request(service: Any, connect: Any) -> None:
    one = connect("mina")
    answer = service.send_request(HttpRequest("POST", "/api/hubs/plaza/users/mina/:send", json={"a": 1}))
    assert answer.status_code == 202 and one.data() == {"a": 1}
    answer = service.send_request(HttpRequest("GET", "/api/hubs/plaza/nothing"))
    assert answer.status_code >= 400
    with pytest.raises(errors.ServiceResponseError):
        answer.raise_for_status()


def test_tokens_made_by_the_server(server: Any, service: Any) -> None:
    path = "/api/hubs/plaza/:generateToken?userId=mina&role=webpubsub.joinLeaveGroup&minutesToExpire=5"
    token = service.send_request(HttpRequest("POST", path)).json()["token"]
    url = "%s/client/hubs/plaza?access_token=%s" % (server.endpoint.replace("http", "ws", 1), token)
    with WebPubSubClient(url) as client:
        client.join_group("a", timeout=scaled(10))
        assert client.user_id == "mina"


def test_a_wrong_key_and_another_hub(server: Any) -> None:
    with WebPubSubServiceClient(server.endpoint, HUB, "wrong" * 10, retry=RetryPolicy(total=0)) as service:
        with pytest.raises(errors.ServiceAuthenticationError, match="access key belongs to this endpoint") as caught:
            service.send_to_all("x")
    assert caught.value.status == 401 and caught.value.request_id
    with ClosedPort() as closed, pytest.raises(errors.ServiceConnectionError):
        endpoint = "http://127.0.0.1:%d" % closed.port
        with WebPubSubServiceClient(endpoint, HUB, "k" * 40, retry=RetryPolicy(total=0)) as service:
            service.get_service_status()


def test_a_restarted_server_is_found_again(fresh_server: Any) -> None:
    with socket.socket() as keeper:
        port = 0
        if sys.platform.startswith("linux"):  # or the port may be somebody else's when the second server wants it
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keeper.bind(("127.0.0.1", 0))
            port = keeper.getsockname()[1]
        first = fresh_server(port=port)
        with WebPubSubServiceClient.from_connection_string(first.connection_string, HUB) as service:
            service.send_to_all("x")
            first.stop()
            fresh_server(port=first.port)
            service.send_to_all("x")
