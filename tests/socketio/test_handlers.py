"""Who is called for an event: the lookup order of section 3.3, several handlers, once, off, listeners."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import pytest

from simplepubsub.exceptions import InvalidArgument
from simplepubsub.socketio.handlers import RESERVED, Handlers, call_fitting


def one(name: str) -> Any:
    def function(*args: Any) -> Any:
        return name, args

    function.__name__ = name
    return function


def found(handlers: Handlers, event: Any, namespace: str = "/") -> Optional[Tuple[str, Tuple[Any, ...]]]:
    entries, first, _ = handlers.find(event, namespace)
    return (entries[0].function()[0], first) if entries else None


def test_lookup_order() -> None:
    handlers = Handlers()
    assert found(handlers, "e") is None
    handlers.on("*", one("any-any"), "*")
    assert found(handlers, "e") == ("any-any", ("e", "/"))
    handlers.on("e", one("e-any"), "*")
    assert found(handlers, "e") == ("e-any", ("/",))
    assert found(handlers, "other", "/chat") == ("any-any", ("other", "/chat"))
    handlers.on("*", one("any"), "/")
    assert found(handlers, "e") == ("any", ("e",))
    assert found(handlers, "e", "/chat") == ("e-any", ("/chat",))
    handlers.on("e", one("e"), "/")
    assert found(handlers, "e") == ("e", ())


def test_a_namespace_with_any_function_hides_the_namespace_star() -> None:
    handlers = Handlers()
    handlers.on("e", one("star"), "*")
    handlers.on("other", one("other"), "/chat")
    assert found(handlers, "e", "/chat") is None
    handlers.off("other", namespace="/chat")
    assert found(handlers, "e", "/chat") == ("star", ("/chat",))


@pytest.mark.parametrize("event", sorted(RESERVED))
def test_reserved_events_go_to_no_catch_all_event(event: str) -> None:
    handlers = Handlers()
    handlers.on("*", one("any"))
    handlers.on("*", one("any-any"), "*")
    assert found(handlers, event) is None
    assert found(handlers, event, "/x") is None
    handlers.on(event, one("star"), "*")
    assert found(handlers, event, "/x") == ("star", ("/x",))


def test_an_event_that_is_called_star_is_an_event_like_others() -> None:
    handlers = Handlers()
    handlers.on("*", one("any"))
    assert found(handlers, "*") == ("any", ("*",))
    assert found(handlers, 5) == ("any", (5,))


def test_the_last_registration_wins_unless_it_is_an_addition() -> None:
    handlers = Handlers()
    first, second, third = one("first"), one("second"), one("third")
    handlers.on("e", first)
    handlers.on("e", second)
    assert [entry.function for entry in handlers.find("e", "/")[0]] == [second]
    handlers.on("e", third, add=True)
    assert [entry.function for entry in handlers.find("e", "/")[0]] == [second, third]


def test_w38_once_and_off() -> None:
    handlers = Handlers()
    first, second = one("first"), one("second")
    handlers.on("e", first)
    handlers.on("e", second, once=True)
    entries, _, (namespace, event) = handlers.find("e", "/")
    assert handlers.claim(entries[1], event, namespace)
    assert not handlers.claim(entries[1], event, namespace)
    assert [entry.function for entry in handlers.find("e", "/")[0]] == [first]
    assert handlers.off("e", second) == 0
    assert handlers.off("e", first) == 1
    assert handlers.empty
    handlers.on("e", first, "/chat")
    handlers.on("e", second, "/chat", add=True)
    handlers.on("f", second, "/chat")
    assert handlers.off("e", namespace="/chat") == 2
    assert handlers.off(namespace="/chat") == 1
    assert handlers.off("nothing") == 0
    assert handlers.empty


def test_listeners_of_everything() -> None:
    handlers = Handlers()
    a, b = one("a"), one("b")
    listeners = handlers.incoming
    assert not listeners
    listeners.add("/", a)
    listeners.add("/", a)
    listeners.add("/", b)
    assert listeners.get("/") == (a, a, b)
    assert listeners.remove("/", a) == 1
    assert listeners.get("/") == (a, b)
    assert listeners.remove("/", one("c")) == 0
    assert listeners.remove("/", None) == 2
    assert not listeners


def test_namespaces_to_connect_are_those_with_handlers() -> None:
    handlers = Handlers()
    assert handlers.namespaces() == ["/"]
    handlers.on("e", one("e"), "*")
    assert handlers.namespaces() == ["/"]
    handlers.on("e", one("e"), "/b")
    handlers.register("/a", object())
    handlers.incoming.add("/c", one("c"))
    assert handlers.namespaces() == ["/b", "/a", "/c"]
    handlers.off("e", namespace="/b")
    assert handlers.namespaces() == ["/a", "/c"]


def test_what_is_no_handler() -> None:
    handlers = Handlers()

    async def coroutine() -> None:
        pass

    for bad in (None, 5, coroutine):
        with pytest.raises(InvalidArgument, match="handler"):
            handlers.on("e", bad)
    with pytest.raises(InvalidArgument, match="event name"):
        handlers.on(None, one("x"))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="namespace"):
        handlers.on("e", one("x"), "chat")
    with pytest.raises(InvalidArgument, match="unknown hook 'reconnected': use one of reconnect_attempt"):
        handlers.hook("reconnected", one("x"))


def test_w32_the_signature_decides_and_a_type_error_inside_calls_nothing_again() -> None:
    calls: List[Any] = []

    def old() -> None:
        calls.append("old")

    def new(reason: str) -> None:
        calls.append(reason)
        raise TypeError("inside")

    def both(reason: str, details: Any) -> None:
        calls.append((reason, details))

    def flexible(*args: Any) -> None:
        calls.append(args)

    choices = [("why",), ("why", "details"), ()]
    call_fitting(old, choices)
    with pytest.raises(TypeError, match="inside"):
        call_fitting(new, choices)
    call_fitting(both, choices)
    call_fitting(flexible, choices)
    assert calls == ["old", "why", ("why", "details"), ("why",)]
    with pytest.raises(TypeError):
        call_fitting(lambda a, b, c: None, choices)
    assert call_fitting(int, [("5",), ()]) == 5
