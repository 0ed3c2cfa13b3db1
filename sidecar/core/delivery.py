"""A reminder arrives at an instance: what it changes there, or nothing when it is a duplicate or comes too late.

`Arrival.consumed` are reminders of this store that the step uses up; `Arrival.received` is the message of another
store that it accepts. One of the two makes each delivery count once.
"""

from dataclasses import dataclass
from typing import Any

from sidecar.core import calls, events, operations, state as states
from sidecar.core.calls import Draft
from sidecar.core.model import (
    DONE,
    NO_CALL,
    ActorId,
    CallId,
    CallKind,
    Changes,
    Child,
    Decision,
    Ids,
    Kind,
    OpenCall,
    Outcome,
    Parent,
    Received,
    Reminder,
    Reply,
    Row,
    Self,
    State,
)
from sidecar.schema import taskhub_pb2 as pb


@dataclass(frozen=True, slots=True)
class Arrival:
    """A reminder with what its delivery uses up."""

    reminder: Reminder
    consumed: tuple[int, ...] = ()
    received: tuple[Received, ...] = ()
    children: tuple[Child, ...] = ()  # of the instance, ended ones too: for a purge

    def nothing(self, reply: Reply) -> Decision:
        """Return the decision to use the reminder up and change nothing else."""
        if not self.consumed and not self.received:
            return Decision(None, reply)
        return Decision(Changes(dropped=self.consumed, required=self.consumed, received=self.received), reply)


def arrive(me: Self, state: State | None, arrival: Arrival, now: int, ids: Ids) -> Decision:
    """Decide what a reminder for a workflow instance changes."""
    kind = arrival.reminder.kind
    if kind is Kind.CREATE:
        return _create(me, state, arrival, now, ids)
    if state is None:
        return arrival.nothing(Reply(Outcome.MISSING, "no such instance exists"))
    if kind is Kind.START:
        return _start(state, arrival, now)
    if kind in (Kind.TIMER, Kind.RESULT):
        return _resolve(me, state, arrival, now)
    if kind is Kind.EVENT:
        return _event(state, arrival, now)
    return _command(me, state, arrival, now, ids)


def _append(
    state: State,
    arrival: Arrival,
    rows: tuple[Row, ...],
    now: int,
    row: dict[str, Any] | None = None,
    **fields: Any,
) -> Changes:
    return Changes(
        key=state.instance.key,
        expected=state.instance.revision,
        instance=states.touched(state, now, len(rows), **(row or {})),
        append=rows,
        required=arrival.consumed,
        received=arrival.received,
        **({"dropped": arrival.consumed} | fields),
    )


def _start(state: State, arrival: Arrival, now: int) -> Decision:
    other = arrival.reminder.owner != state.instance.key
    if other or state.instance.began or state.instance.status.terminal:
        return arrival.nothing(Reply(Outcome.DUPLICATE))
    row = Row(1, 1, events.stamped(arrival.reminder.payload, now))
    return Decision(_append(state, arrival, (row,), now, row={"began": True}), DONE)


def _waits_for(state: State, reminder: Reminder) -> OpenCall | None:
    """Return the open call that a result answers, if its sender is the one that was asked."""
    call = state.open.get(reminder.call.task)
    if call is None or call.call != reminder.call or call.kind is CallKind.EVENT:
        return None
    same = (call.target.app, call.target.namespace) == (reminder.source.app, reminder.source.namespace)
    return call if same else None


def _resolve(me: Self, state: State, arrival: Arrival, now: int) -> Decision:
    reminder = arrival.reminder
    call = _waits_for(state, reminder)
    if call is None or state.instance.status.terminal or not _answers(reminder.payload, call):
        return arrival.nothing(Reply(Outcome.DUPLICATE))
    if me.owns(reminder.source):
        event = events.stamped(reminder.payload, now)
    else:
        event = events.stamped(reminder.payload, now, *_apps(me, call))
    changes = _append(
        state,
        arrival,
        states.arrive(state, [event]),
        now,
        closed=(call.call.task,),
        ended=(call.target,) if call.kind is CallKind.CHILD else (),
        dropped=(*arrival.consumed, call.reminder),
    )
    return Decision(changes, DONE)


def _apps(me: Self, call: OpenCall) -> tuple[str, str]:
    """Return source and target as the history shows them: an activity's as it went, a child's as it came back."""
    return (me.app, call.target.app) if call.kind is CallKind.ACTIVITY else (call.target.app, me.app)


_ANSWERS = {
    CallKind.ACTIVITY: {"task_completed": "task_scheduled_id", "task_failed": "task_scheduled_id"},
    CallKind.CHILD: {"child_completed": "task_scheduled_id", "child_failed": "task_scheduled_id"},
    CallKind.TIMER: {"timer_fired": "timer_id"},
}


def _answers(payload: bytes, call: OpenCall) -> bool:
    """Whether the event is of a kind that ends this call, and names it: a peer's word is not enough."""
    event = events.decode(payload)
    kind = event.WhichOneof("kind") or ""
    number = _ANSWERS[call.kind].get(kind)
    return number is not None and getattr(getattr(event, kind), number) == call.call.task


def _event(state: State, arrival: Arrival, now: int) -> Decision:
    if state.instance.status.terminal:
        return arrival.nothing(DONE)
    event = events.decode(arrival.reminder.payload)
    if event.WhichOneof("kind") != "event_raised":
        return arrival.nothing(Reply(Outcome.INVALID, "an external event was expected"))
    rows = states.arrive(state, [events.stamped(arrival.reminder.payload, now)])
    return Decision(_append(state, arrival, rows, now), DONE)


def _command(me: Self, state: State, arrival: Arrival, now: int, ids: Ids) -> Decision:
    reminder = arrival.reminder
    if not _may_command(me, state, reminder):
        return arrival.nothing(
            Reply(Outcome.DENIED, "only the execution that created this instance may do that")
        )
    draft = Draft(me, state, now, ids)
    draft.dropped.extend(arrival.consumed)
    if reminder.kind is Kind.PURGE:
        return operations.purged(draft, arrival.children, arrival.consumed, arrival.received)
    if state.instance.status.terminal:
        return arrival.nothing(DONE)
    order = events.decode(reminder.payload).execution_terminated
    output = order.input.value if order.HasField("input") else None
    return operations.terminated(draft, output, order.recurse, arrival.consumed, arrival.received)


def _may_command(me: Self, state: State, reminder: Reminder) -> bool:
    """Whether the sender is the execution that created this instance, or an own workflow that named it itself."""
    if me.owns(reminder.source) and reminder.kind is Kind.TERMINATE and reminder.call == NO_CALL:
        return True
    parent = state.instance.parent
    if parent is None or parent.actor[:2] != reminder.source[:2]:
        return False
    return parent.actor.id == reminder.source.id and parent.call.execution == reminder.call.execution


def _create(me: Self, state: State | None, arrival: Arrival, now: int, ids: Ids) -> Decision:
    reminder = arrival.reminder
    started = events.decode(reminder.payload).execution_started
    if not started.name or not started.instance.execution_id.value:
        return arrival.nothing(Reply(Outcome.INVALID, "a child needs a name and an execution ID"))
    if state is not None and state.instance.execution == started.instance.execution_id.value:
        return arrival.nothing(Reply(Outcome.DUPLICATE))
    if state is not None and not (state.instance.status.terminal and me.reuse_ended):
        return _occupied(me, state, arrival, now, ids)
    actor = ActorId(*reminder.source[:2], "workflow", *reminder.source[3:])
    parent = Parent(actor, CallId(reminder.call.execution, reminder.call.turn, reminder.call.task))
    event = events.stamped(reminder.payload, now, reminder.source.app, me.app)
    hub, child_id = reminder.target.hub, reminder.target.id
    changes = operations.created(
        state,
        started,
        event,
        operations.Identity(hub, child_id, started.instance.execution_id.value),
        now,
        ids,
        parent,
    )
    return Decision(operations.consuming(changes, arrival.consumed, arrival.received), DONE)


def _occupied(me: Self, state: State, arrival: Arrival, now: int, ids: Ids) -> Decision:
    """Tell the parent that the child's ID is taken; the occupant is not touched."""
    reminder = arrival.reminder
    draft = Draft(me, state, now, ids)
    message = f"an active workflow with ID '{reminder.target.id}' already exists in app '{me.app}'"
    answer = calls.failed_child(now, reminder.call.task, "WorkflowInstanceAlreadyExists", message)
    target = ActorId(*reminder.source[:2], "workflow", *reminder.source[3:])
    draft.remind(Kind.RESULT, target, answer, call=reminder.call)
    changes = Changes(
        set=tuple(draft.reminders),
        dropped=arrival.consumed,
        required=arrival.consumed,
        received=arrival.received,
    )
    return Decision(changes, Reply(Outcome.EXISTS, message))


def activity_done(
    me: Self, state: State | None, reminder: Reminder, event: bytes, now: int, ids: Ids
) -> Decision:
    """Decide what the worker's answer to an own activity changes at the instance that asked for it."""
    result = calls.answer_of(reminder, event, now)
    return arrive(me, state, Arrival(result, consumed=(reminder.id,)), now, ids)


def foreign_activity_done(me: Self, reminder: Reminder, event: bytes, now: int, ids: Ids) -> Changes:
    """Return the changes that turn an activity of another app into its result, on the way home."""
    home = ActorId(*reminder.source[:2], "workflow", *reminder.source[3:])
    result = Reminder(ids.order(), Kind.RESULT, 0, home, reminder.target, reminder.call, now, "", event)
    return Changes(set=(result,), dropped=(reminder.id,), required=(reminder.id,))


def accept_activity(me: Self, message: Reminder, now: int, ids: Ids) -> Changes:
    """Return the changes that take an activity of another app in; the store ignores one that it has."""
    pb.ActivityRequest.FromString(message.payload)
    target = ActorId(me.namespace, me.app, "activity", message.target.hub, message.target.id)
    reminder = Reminder(
        ids.order(),
        Kind.ACTIVITY,
        0,
        target,
        message.source,
        message.call,
        now,
        message.name,
        message.payload,
    )
    return Changes(set=(reminder,))


def withdrawn(reminder: Reminder) -> Changes:
    """Return the changes that take an activity of another app back, if it is still there."""
    return Changes(dropped=(reminder.id,), required=(reminder.id,))
