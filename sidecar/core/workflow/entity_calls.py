"""What a workflow sends to entities, and how it keeps track of the locks that it waits for and has."""

from collections.abc import Callable
from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.core import events
from sidecar.core.errors import UnsupportedActionError
from sidecar.core.identity import Context
from sidecar.core.model import ActorId, CallKind, Kind, OpenCall, Reminder
from sidecar.core.names import entity_id
from sidecar.core.workflow import calls
from sidecar.core.workflow.calls import Draft
from sidecar.schema import taskhub_pb2 as pb

_SECTIONS = (CallKind.LOCK, CallKind.HELD)


def send(draft: Draft, action: pb.Action) -> None:
    """Carry out a message to an entity. Its confirmation in the history is the message as the worker wrote it (E.10).

    Raises:
        UnsupportedActionError: it cannot be carried out; the text says why.
    """
    message = action.send_entity_message
    kind = message.WhichOneof("kind")
    if kind is None:
        raise UnsupportedActionError("this sidecar cannot carry out a message to an entity without a kind")
    confirmed = events.confirmation(draft.now, action.id)
    getattr(confirmed, f"entity_{kind}").CopyFrom(getattr(message, kind))
    draft.confirmed.append(events.encode(confirmed))
    _HANDLERS[kind](draft, confirmed)


def _target(draft: Draft, text: str) -> ActorId:
    found = entity_id(text)
    if found is None:
        raise UnsupportedActionError(f"{text[:80]!r} is not the ID of an entity: it has the form @name@key")
    return draft.me.entity(draft.state.instance.hub, found)


def _message(confirmed: pb.HistoryEvent) -> pb.HistoryEvent:
    message = pb.HistoryEvent()
    message.CopyFrom(confirmed)
    message.event_id = -1
    return message


def _due(draft: Draft, scheduled: Timestamp) -> int:
    return max(draft.now, events.micros(scheduled))


def _signal(draft: Draft, confirmed: pb.HistoryEvent) -> None:
    signaled = confirmed.entity_signaled
    target = _target(draft, signaled.target_instance_id.value)
    draft.remind(Kind.EVENT, target, events.encode(_message(confirmed)), due=_due(draft, signaled.scheduled_time))


def call(draft: Draft, confirmed: pb.HistoryEvent) -> None:
    """Send an operation and wait for its result."""
    message, call_id = _message(confirmed), draft.call_id(confirmed.event_id)
    called = message.entity_called
    target = _target(draft, called.target_instance_id.value)
    called.parent_instance_id.value, called.parent_execution_id.value = draft.state.instance.id, call_id.execution
    called.turn, called.task = call_id.turn, call_id.task
    due = _due(draft, called.scheduled_time)
    reminder = draft.remind(Kind.EVENT, target, events.encode(message), call=call_id, due=due)
    draft.open(call_id, CallKind.ENTITY, called.request_id, target, reminder.id)


def lock(draft: Draft, confirmed: pb.HistoryEvent) -> None:
    """Ask for locks in the order of the entities' IDs: the first entity passes the request on to the next.

    Nothing is asked for in the step that ends the execution: nobody could use the locks.
    """
    message, call_id = _message(confirmed), draft.call_id(confirmed.event_id)
    wanted = message.entity_lock_requested
    entities = sorted({_target(draft, text).id for text in wanted.lock_set})
    if not entities:
        raise UnsupportedActionError("a critical section needs at least one entity")
    if draft.ending:
        return
    wanted.lock_set[:], wanted.position = entities, 0
    wanted.parent_instance_id.value, wanted.parent_execution_id = draft.state.instance.id, call_id.execution
    wanted.turn, wanted.task = call_id.turn, call_id.task
    target = _target(draft, entities[0])
    reminder = draft.remind(Kind.EVENT, target, events.encode(message), call=call_id)
    draft.open(call_id, CallKind.LOCK, wanted.critical_section_id, target, reminder.id, *entities)


def _unlock(draft: Draft, confirmed: pb.HistoryEvent) -> None:
    sent = confirmed.entity_unlock_sent
    entity = _target(draft, sent.target_instance_id.value).id
    calls.unlock(draft, sent.critical_section_id, entity)
    section = _section(draft, sent.critical_section_id)
    if section is None or draft.ending:
        return
    of, left = section.call.task, tuple(one for one in section.entities if (section.name, one) not in draft.unlocked)
    if left:
        draft.opened[of] = section._replace(entities=left)
        return
    draft.opened.pop(of, None)
    if draft.is_open(of):
        draft.closed.append(of)


def _section(draft: Draft, name: str) -> OpenCall | None:
    known = draft.state.open | draft.opened
    return next((one for one in known.values() if one.kind in _SECTIONS and one.name == name), None)


_HANDLERS: dict[str, Callable[[Draft, pb.HistoryEvent], None]] = {
    "signaled": _signal,
    "called": call,
    "lock_requested": lock,
    "unlock_sent": _unlock,
}


def held(asked: OpenCall) -> OpenCall:
    """Return the open call of a request for locks once it is granted: the execution has them until it unlocks."""
    return asked._replace(kind=CallKind.HELD, reminder=0)


def granted(event: bytes) -> bytes:
    """Return the grant of locks as it stands in a workflow's history."""
    grant = events.decode(event)
    grant.entity_lock_granted.ClearField("lock_set")
    return events.encode(grant)


def hand_back(at: Context, reminder: Reminder) -> tuple[Reminder, ...]:
    """Return the reminders that release locks which were granted to an execution that does not wait for them."""
    grant = events.decode(reminder.payload).entity_lock_granted
    owner = reminder.target

    def unlock(entity: str) -> Reminder:
        message = events.entity_unlock_sent(at.now, grant.critical_section_id, owner.id, entity)
        target = at.me.entity(owner.hub, entity)
        return replace(
            reminder, id=at.ids.order(), kind=Kind.EVENT, owner=0, target=target, source=owner, payload=message
        )

    return tuple(unlock(entity) for entity in grant.lock_set)
