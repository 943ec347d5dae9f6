"""P8: the one hierarchy of errors, as its docstring draws it; errors that travel; what the packages export."""

from __future__ import annotations

import copy
import gc
import importlib
import pickle
import re
import traceback
import weakref
from typing import Any, Dict, List, Tuple, Type

import pytest

from simplepubsub import exceptions
from simplepubsub.core.records import AckError, Gap
from simplepubsub.exceptions import (
    AckTimeout,
    AuthenticationError,
    ClientStopped,
    ConnectError,
    ConnectionClosed,
    ConnectTimeout,
    FlushTimeout,
    HandshakeRejected,
    MessagesLost,
    MessageTooLarge,
    RemoteProtocolError,
    SendMessageError,
    SimplePubSubError,
    SubprotocolRefused,
    TransportClosed,
    fresh,
)

CLASSES = {
    name: value
    for name, value in vars(exceptions).items()
    if isinstance(value, type) and issubclass(value, BaseException) and value.__name__ == name
}


def drawn_tree() -> List[Tuple[str, str, str]]:
    """Return (class, parent, remark) for every line of the drawing in the docstring."""
    rows, path = [], ["SimplePubSubError"]
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"    ([| ]*)\+-- (\w+) *(.*)", line)
        if match:
            depth = len(match.group(1)) // 4 + 1
            del path[depth:]
            rows.append((match.group(2), path[-1], match.group(3)))
            path.append(match.group(2))
    return rows


def test_the_drawing_is_the_hierarchy() -> None:
    drawn = {name: parent for name, parent, _ in drawn_tree()}
    real = {name: cls.__bases__[0].__name__ for name, cls in CLASSES.items() if name != "SimplePubSubError"}
    assert drawn == real and len(drawn) > 20


def test_errors_with_a_builtin_twin_are_caught_as_it() -> None:
    remarks = {name: re.findall(r"also a builtin (\w+)", remark) for name, _, remark in drawn_tree()}
    twins = {name: found for name, found in remarks.items() if found}
    assert twins == {
        "ConnectTimeout": ["TimeoutError"], "AckTimeout": ["TimeoutError"], "ReceiveTimeout": ["TimeoutError"],
        "InvocationTimeout": ["TimeoutError"], "StreamTimeout": ["TimeoutError"],
        "FlushTimeout": ["TimeoutError"], "InvalidArgument": ["ValueError"], "ClientStateError": ["RuntimeError"],
        "ServiceTimeout": ["TimeoutError"],
    }
    for cls in CLASSES.values():
        inherited = [twins[base.__name__] for base in cls.__mro__ if base.__name__ in twins]
        builtins = [base.__name__ for base in cls.__mro__ if base in (TimeoutError, ValueError, RuntimeError)]
        assert [builtins] == (inherited or [[]])


def test_all_lists_every_class_in_order() -> None:
    assert sorted(exceptions.__all__) == sorted(list(CLASSES) + ["OpenClientError"])
    assert exceptions.OpenClientError is ConnectError


# ---- every class, made as the package makes it ----------------------------------------------------------------------

GAP = Gap("c1", "c2", 7)
DETAIL = AckError("Forbidden", "no")

EXAMPLES: List[Tuple[Type[Any], Dict[str, Any], Dict[str, Any]]] = [
    (ConnectError, {}, {"url": "", "hint": "", "will_retry": False, "fatal": False}),
    (ConnectError, {"url": "ws://h", "hint": "wait", "will_retry": True}, {"url": "ws://h", "will_retry": True}),
    (HandshakeRejected, {"status": 503, "body": "busy", "url": "ws://h"}, {"status": 503, "body": "busy"}),
    (AuthenticationError, {"status": 401}, {"status": 401, "body": "", "fatal": True}),
    (SubprotocolRefused, {}, {"fatal": True}),
    (ConnectTimeout, {"url": "ws://h"}, {"url": "ws://h", "fatal": False}),
    (ConnectionClosed, {}, {"code": None, "reason": "", "by": "network", "will_retry": False}),
    (ConnectionClosed, {"code": 1008, "reason": "old", "by": "peer", "will_retry": True}, {"code": 1008, "by": "peer"}),
    (ClientStopped, {"by": "client"}, {"by": "client", "code": None}),
    (SendMessageError, {}, {"ack_id": None, "name": "", "message": "", "error_detail": None}),
    (SendMessageError, {"ack_id": 7, "name": "Forbidden", "message": "no", "error_detail": DETAIL},
     {"ack_id": 7, "name": "Forbidden", "message": "no", "error_detail": DETAIL}),
    (AckTimeout, {"ack_id": 7, "written": False}, {"ack_id": 7, "written": False}),
    (AckTimeout, {}, {"written": True}),
    (exceptions.DeliveryUncertain, {"ack_id": 7}, {"ack_id": 7}),
    (exceptions.OutboxFull, {"ack_id": None}, {"ack_id": None}),
    (exceptions.InvocationError, {}, {"invocation_id": "", "name": "", "message": ""}),
    (exceptions.InvocationError, {"invocation_id": "7", "name": "BadRequest", "message": "no"},
     {"invocation_id": "7", "name": "BadRequest", "message": "no"}),
    (exceptions.InvocationTimeout, {"invocation_id": "7"}, {"invocation_id": "7", "written": True}),
    (exceptions.InvocationLost, {"invocation_id": "7"}, {"invocation_id": "7"}),
    (exceptions.StreamFailed, {}, {"stream_id": "", "name": "", "message": "", "user_error_code": None}),
    (exceptions.StreamFailed, {"stream_id": "s", "name": "UserError", "message": "no", "user_error_code": "E1"},
     {"stream_id": "s", "name": "UserError", "message": "no", "user_error_code": "E1"}),
    (exceptions.StreamRefused, {"name": "Forbidden"}, {"name": "Forbidden"}),
    (exceptions.StreamLost, {"stream_id": "s"}, {"stream_id": "s"}),
    (exceptions.StreamGap, {"expected": 2, "received": 4, "stream_id": "s"}, {"expected": 2, "received": 4}),
    (exceptions.StreamTimeout, {"stream_id": "s"}, {"stream_id": "s"}),
    (exceptions.ReceiveTimeout, {}, {}),
    (FlushTimeout, {"unacked": 3}, {"unacked": 3}),
    (exceptions.InboxOverflow, {}, {}),
    (MessagesLost, {"gap": GAP}, {"gap": GAP}),
    (exceptions.InvalidArgument, {}, {}),
    (MessageTooLarge, {"size": 2, "limit": 1}, {"size": 2, "limit": 1}),
    (exceptions.ClientStateError, {}, {}),
    (exceptions.ForkedError, {}, {}),
    (exceptions.TransportError, {}, {}),
    (TransportClosed, {"code": 1008, "reason": "old"}, {"code": 1008, "reason": "old", "by": "peer"}),
    (RemoteProtocolError, {}, {"code": 1002}),
    (RemoteProtocolError, {"code": 1007}, {"code": 1007}),
    (exceptions.RefuseEvent, {"status": 409, "reason": "what happened"}, {"status": 409, "reason": "what happened"}),
    (exceptions.RefuseConnection, {"status": 403, "reason": "what happened"}, {"status": 403}),
    (exceptions.ServerError, {}, {}),
    (exceptions.ServiceError, {"method": "PUT", "url": "http://h/x", "hint": "wait"},
     {"message": "what happened", "method": "PUT", "url": "http://h/x", "hint": "wait"}),
    (exceptions.ServiceConnectionError, {}, {"written": False, "method": ""}),
    (exceptions.ServiceTimeout, {"written": True, "method": "PUT"}, {"written": True, "method": "PUT"}),
    (exceptions.ServiceResponseError, {"status": 400, "code": "Error.BadRequest", "text": "no", "request_id": "r1"},
     {"status": 400, "status_code": 400, "code": "Error.BadRequest", "text": "no", "request_id": "r1",
      "details": None}),
    (exceptions.ServiceAuthenticationError, {"status": 401}, {"status": 401, "code": "", "retry_after": None}),
    (exceptions.ServiceForbidden, {"status": 403, "target": "hub"}, {"status": 403, "target": "hub"}),
    (exceptions.ServiceNotFound, {"status": 404, "details": [{"code": "x"}]}, {"details": [{"code": "x"}]}),
    (exceptions.ServiceConflict, {"status": 409}, {"status": 409}),
    (exceptions.ServicePayloadTooLarge, {"status": 413}, {"status": 413}),
    (exceptions.ServiceThrottled, {"status": 429, "retry_after": 1.5}, {"status": 429, "retry_after": 1.5}),
    (exceptions.ServiceUnavailable, {"status": 503}, {"status": 503}),
    (SimplePubSubError, {}, {}),
]


def test_every_class_has_an_example() -> None:
    assert {row[0].__name__ for row in EXAMPLES} == set(CLASSES)


@pytest.mark.parametrize("cls, keywords, attributes", EXAMPLES, ids=[row[0].__name__ for row in EXAMPLES])
def test_an_error_keeps_its_text_and_its_attributes_wherever_it_goes(
    cls: Type[Any], keywords: Dict[str, Any], attributes: Dict[str, Any]
) -> None:
    made = cls(**keywords) if issubclass(cls, exceptions.RefuseEvent) else cls("what happened", **keywords)
    text = "what happened; wait" if "hint" in keywords else "what happened"
    # Pickling used to fail for every class with required keywords: such an error from a worker process broke its pool.
    pickled = pickle.loads(pickle.dumps(made))
    for error in (made, fresh(made), fresh(fresh(made)), copy.copy(made), copy.deepcopy(made), pickled):
        assert type(error) is cls and str(error) == text and error.args == made.args
        assert {name: getattr(error, name) for name in attributes} == attributes
        assert vars(error) == vars(made)
        assert repr(error) == repr(made)


def test_a_refusal_is_fatal_when_it_describes_the_request_and_not_the_moment() -> None:
    for status in (400, 401, 403, 404, 410, 426, 499):
        assert HandshakeRejected("no", status=status).fatal is True
    for status in (200, 301, 302, 408, 425, 429, 500, 502, 503, 599):
        assert HandshakeRejected("no", status=status).fatal is False


# ---- fresh ----------------------------------------------------------------------------------------------------------


def test_each_caller_gets_an_instance_of_its_own_chained_to_the_first() -> None:
    first = SendMessageError("no", ack_id=1)
    copies = [fresh(first) for _ in range(3)]
    assert len({id(error) for error in [first] + copies}) == 4
    assert all(error.__cause__ is first for error in copies) and first.__cause__ is None
    copies[0].ack_id = 99
    assert first.ack_id == copies[1].ack_id == 1


def test_raising_copies_neither_grows_nor_holds_the_first_one() -> None:
    first = ClientStopped("stopped")

    class Held:
        pass

    held: List[Any] = []

    def call() -> None:
        local = Held()
        held.append(weakref.ref(local))
        raise fresh(first)

    for _ in range(5):
        with pytest.raises(ClientStopped):
            call()
    assert first.__traceback__ is None
    gc.collect()
    assert [ref() for ref in held] == [None] * 5


def test_the_first_cause_stays_visible_in_a_traceback() -> None:
    cause = OSError(111, "Connection refused")
    error = ConnectError("no connection")
    error.__cause__ = cause
    text = "".join(traceback.format_exception(ConnectError, fresh(error), None))
    assert "Connection refused" in text and text.rstrip().endswith("ConnectError: no connection")


FOREIGN = [OSError(2, "gone", "file"), KeyError("k"), ValueError(), SystemExit(3), AssertionError("bug")]


@pytest.mark.parametrize("error", FOREIGN, ids=repr)
def test_foreign_errors_are_renewed_too(error: BaseException) -> None:
    renewed = fresh(error)
    assert type(renewed) is type(error) and renewed is not error and renewed.args == error.args
    assert renewed.__cause__ is error


# ---- exports --------------------------------------------------------------------------------------------------------

#: Names that code written for the official SDK imports (DESIGN section 4), by module.
SDK_NAMES = {
    "simplepubsub.webpubsub": [
        "CallbackType", "OpenClientError", "SendMessageError", "WebPubSubClient", "WebPubSubClientCredential",
        "WebPubSubDataType", "WebPubSubProtocolType",
    ],
    "simplepubsub.webpubsub.models": [
        "AckMessageError", "CallbackType", "OnConnectedArgs", "OnDisconnectedArgs", "OnGroupDataMessageArgs",
        "OnRejoinGroupFailedArgs", "OnServerDataMessageArgs", "OpenClientError", "SendMessageError",
        "WebPubSubDataType", "WebPubSubProtocolType",
    ],
}


@pytest.mark.parametrize("module", sorted(SDK_NAMES))
def test_the_names_of_the_official_sdk_are_exported(module: str) -> None:
    namespace: Dict[str, Any] = {}
    exec("from %s import *" % module, namespace)
    assert [name for name in SDK_NAMES[module] if name not in namespace] == []
    assert set(namespace) - {"__builtins__"} == set(importlib.import_module(module).__all__)


def test_the_enumerations_of_the_sdk_equal_what_our_methods_take() -> None:
    models = importlib.import_module("simplepubsub.webpubsub.models")
    client = importlib.import_module("simplepubsub.webpubsub.client")
    assert {member.value for member in models.CallbackType} <= set(client.EVENTS)
    assert models.WebPubSubDataType.JSON == "json" and str(models.WebPubSubDataType.TEXT) == "text"
    protocol = importlib.import_module("simplepubsub.webpubsub.protocol")
    for member in models.WebPubSubProtocolType:
        assert protocol.protocol_named(member).name == member.value
