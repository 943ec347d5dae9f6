"""What clients ask for, one function per kind of command, and the answers to their events and invocations.

`Hub.execute` looks a command's function up in `EXECUTE`. Each returns True when the command is done, False when it has
to be tried again later. Rules, protocol reference 2.4 and 2.6: for a command with an ack id the order is duplicate,
permission, execute, remember, acknowledge; only successes are remembered. Pure, as `Hub` is.

An invocation has its own answer in place of an ack. It is not remembered: the same id may be used again once it is
answered or cancelled. The answer goes to the connection's present socket; without one it is lost (reference 9, point
16).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from ..webpubsub.messages import (
    CancelInvocation,
    Event,
    Invoke,
    InvokeResponse,
    JoinGroup,
    LeaveGroup,
    Ping,
    SendToGroup,
    SequenceAck,
    StreamData,
    StreamEnd,
    StreamStart,
)
from .session import Call, Session, UserEvent
from .wire import Outgoing

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["EXECUTE", "INTERNAL", "POLICY", "finish_event"]

#: Close codes of the service (protocol reference 1.6).
POLICY, INTERNAL = 1008, 1011


# --- acks -------------------------------------------------------------------------------------------------------------


def _is_duplicate(hub: Hub, session: Session, ack_id: Optional[int]) -> bool:
    """Return whether the command with this id has been executed; if so the client is told."""
    if ack_id is None or ack_id not in session.ack_ids:
        return False
    hub.push(session, session.wire.ack(ack_id, "Duplicate", "ack id %d has been processed" % ack_id))
    return True


def _forbid(hub: Hub, session: Session, ack_id: Optional[int], action: str, group: str) -> bool:
    text = "no permission to %s the group %s" % (action, ascii(group)[:60])
    if ack_id is not None:
        hub.push(session, session.wire.ack(ack_id, "Forbidden", text))
    elif session.wire.form == "raw":
        hub.end(session, POLICY, text)
    # A command without ack id fails without a word (protocol reference 9, point 4).
    return True


def _succeed(hub: Hub, session: Session, ack_id: int) -> None:
    session.remember(ack_id, hub.work.limits.max_ack_ids)
    if hub.work.lose_acks > 0:
        hub.work.lose_acks -= 1
        return
    hub.push(session, session.wire.ack(ack_id))


# --- groups -----------------------------------------------------------------------------------------------------------


def _send_to_group(hub: Hub, session: Session, command: SendToGroup, now: float) -> bool:
    ack_id = command.ack_id
    if ack_id is not None and ack_id in session.ack_ids and _is_duplicate(hub, session, ack_id):
        return True
    group = command.group
    if not session.permissions.can_send(group):
        return _forbid(hub, session, ack_id, "publish to", group)
    work = hub.work
    members = hub.groups.get(group)
    if members is not None:
        if work.congested and work.is_congested(members):
            return False
        message = Outgoing(group, session.user_id, command.data, command.data_type, command.ttl_seconds)
        hub.deliver(members, message, now, session if command.no_echo else None)
    work.counters["published"] += 1
    if ack_id is not None:
        _succeed(hub, session, ack_id)
    return True


def _join_group(hub: Hub, session: Session, command: JoinGroup, now: float) -> bool:
    return _change_membership(hub, session, command.group, command.ack_id, hub.join)


def _leave_group(hub: Hub, session: Session, command: LeaveGroup, now: float) -> bool:
    return _change_membership(hub, session, command.group, command.ack_id, hub.leave)


def _change_membership(
    hub: Hub, session: Session, group: str, ack_id: Optional[int], change: Callable[[Session, str], None]
) -> bool:
    if _is_duplicate(hub, session, ack_id):
        return True
    if not session.permissions.can_join(group):
        return _forbid(hub, session, ack_id, "join or leave", group)
    if hub.work.presence and len(session.calls) >= hub.work.limits.max_waiting_events:
        return False  # each change is an event for a handler, and too many wait for theirs
    if not session.ended:
        change(session, group)
    if ack_id is not None:
        _succeed(hub, session, ack_id)
    return True


# --- the connection ---------------------------------------------------------------------------------------------------


def _sequence_ack(hub: Hub, session: Session, command: SequenceAck, now: float) -> bool:
    work = hub.work
    session.acknowledge(command.sequence_id)
    session.progress = work.waited
    if session.hopeless or session in work.congested:
        work.relieve(session)
    return True


def _ping(hub: Hub, session: Session, command: Ping, now: float) -> bool:
    hub.push(session, session.wire.pong())
    return True


# --- streams ----------------------------------------------------------------------------------------------------------


def _stream_start(hub: Hub, session: Session, command: StreamStart, now: float) -> bool:
    streams, ack_id = hub.work.streams, command.ack_id
    if _is_duplicate(hub, session, ack_id):
        streams.remind(session, command.stream_id)
        return True
    error = streams.start(session, command, now)
    if ack_id is not None:
        if error is None:
            _succeed(hub, session, ack_id)
        else:
            hub.push(session, session.wire.ack(ack_id, error.name, error.message))
    return True


def _stream_data(hub: Hub, session: Session, command: StreamData, now: float) -> bool:
    return hub.work.streams.data(session, command, now)


def _stream_end(hub: Hub, session: Session, command: StreamEnd, now: float) -> bool:
    return hub.work.streams.end(session, command, now)


# --- events and invocations -------------------------------------------------------------------------------------------


def _event(hub: Hub, session: Session, command: Event, now: float) -> bool:
    work, ack_id = hub.work, command.ack_id
    if _is_duplicate(hub, session, ack_id):
        return True
    if len(session.calls) >= work.limits.max_waiting_events:
        return False
    if ack_id is not None:
        if ack_id in session.running:
            return True  # sent again while its handler runs: that run's answer serves both
        session.running.add(ack_id)
    work.calls.append(Call("event", session, command))
    return True


def _invoke(hub: Hub, session: Session, command: Invoke, now: float) -> bool:
    work, number = hub.work, command.invocation_id
    if number in session.invocations:
        text = "an invocation with this id has not been answered yet"
        hub.push(session, session.wire.invoke_response(InvokeResponse(number, False, name="BadRequest", message=text)))
        return True
    if len(session.calls) >= work.limits.max_waiting_events:
        return False
    session.invocations[number] = command
    work.calls.append(Call("event", session, command))
    return True


def _cancel_invocation(hub: Hub, session: Session, command: CancelInvocation, now: float) -> bool:
    """Drop the answer of an invocation; a handler that runs is not stopped, one that has not begun is not called."""
    invoke = session.invocations.pop(command.invocation_id, None)
    if invoke is not None:
        hub.work.counters["invocations_cancelled"] += 1
        hub.work.calls = [call for call in hub.work.calls if call.event is not invoke]
        calls = list(session.calls)
        session.calls.clear()
        # The first is being made; its answer will be dropped.
        session.calls.extend(call for call in calls if call is calls[0] or call.event is not invoke)
    return True


def finish_event(
    hub: Hub,
    session: Session,
    event: UserEvent,
    reply: Optional[Outgoing],
    error: Optional[str],
    now: float,
    refused: bool,
) -> None:
    """See `Hub.finish_event`."""
    if isinstance(event, Invoke):
        _finish_invocation(hub, session, event, reply, error, refused)
        return
    if event.ack_id is not None:
        session.running.discard(event.ack_id)
    hub.work.counters["events"] += 1
    if session.ended:
        return
    if error is not None:
        if session.wire.form == "raw":
            hub.end(session, INTERNAL, error)
        elif event.ack_id is not None:
            hub.push(session, session.wire.ack(event.ack_id, "InternalServerError", error))
        return
    if reply is not None:
        hub.deliver((session,), reply, now)
    if event.ack_id is not None:
        _succeed(hub, session, event.ack_id)


def _finish_invocation(
    hub: Hub, session: Session, invoke: Invoke, reply: Optional[Outgoing], error: Optional[str], refused: bool
) -> None:
    number = invoke.invocation_id
    if session.ended or session.invocations.get(number) is not invoke:
        return  # when cancelled, the id may even be in use again
    if error is not None:
        name = "BadRequest" if refused else "InvocationFailed"
        response = InvokeResponse(number, False, name=name, message=error)
    elif reply is None:
        response = InvokeResponse(number, True)
    else:
        response = InvokeResponse(number, True, reply.data, reply.data_type)
    frame = session.wire.invoke_response(response)
    del session.invocations[number]
    hub.work.counters["invocations"] += 1
    hub.push(session, frame)


#: The function for every kind of command.
EXECUTE: Dict[type, Callable[[Any, Session, Any, float], bool]] = {
    SendToGroup: _send_to_group,
    SequenceAck: _sequence_ack,
    JoinGroup: _join_group,
    LeaveGroup: _leave_group,
    Event: _event,
    Ping: _ping,
    StreamStart: _stream_start,
    StreamData: _stream_data,
    StreamEnd: _stream_end,
    Invoke: _invoke,
    CancelInvocation: _cancel_invocation,
}
