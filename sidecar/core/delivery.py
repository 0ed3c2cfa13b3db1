"""What a reminder changes at the instance that it arrives at: nothing if it is a duplicate or comes too late.

A step deletes the reminders of this store that it consumes (`Arrival.consumed`) and remembers the message of another
store that it accepts (`Arrival.received`). One of the two makes each delivery take effect once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sidecar.core import events, operations
from sidecar.core.entity import entity
from sidecar.core.identity import AppIdentity, Context
from sidecar.core.model import (
    DONE,
    NO_CALL,
    UNANSWERED,
    ActorId,
    CallKind,
    Changes,
    Decision,
    Instance,
    Kind,
    OpenCall,
    Outcome,
    Parent,
    Reminder,
    Reply,
    Row,
    State,
)
from sidecar.core.names import invalid_name
from sidecar.core.receipts import Received
from sidecar.core.workflow import called_again, calls, creation, entity_calls, pauses, propagated_history, rewind
from sidecar.core.workflow import state as states
from sidecar.core.workflow.calls import Draft
from sidecar.core.workflow.rewind import Record

# What another app sends because of a call, and again whenever it may be lost. A copy is known by the call, so that what
# was forgotten on either side can be made good.
KNOWN_BY_CALL = frozenset({Kind.CREATE, Kind.REWIND, Kind.RESULT})
_NOT_THE_PARENT = Reply(Outcome.DENIED, "only the execution that created this instance may do that")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A reminder, with what its delivery consumes and what was read for it beforehand."""

    reminder: Reminder
    consumed: tuple[int, ...] = ()
    received: tuple[Received, ...] = ()
    record: Record | None = None  # what is stored of the instance: for a rewind
    looked: int = 0  # the key of an ended instance that has the ID, if its children were looked at
    blocked: str = ""  # one of these children that still runs, with the path to it
    is_answered: Callable[[], bool] = lambda: False  # whether the app that made the call has its answer by now
    may_create: Callable[[], None] = lambda: None  # raises DeniedError if a rewind may not create a missing instance
    may_replace: Callable[[Instance], None] = lambda existing: None  # raises DeniedError if its place may not be taken

    def nothing(self, reply: Reply) -> Decision:
        """Return the decision to consume the reminder and change nothing else."""
        if not self.consumed and not self.received:
            return Decision(None, reply)
        return Decision(Changes(dropped=self.consumed, required=self.consumed, received=self.received), reply)


def arrive(at: Context, state: State | None, arrival: Arrival) -> Decision:
    """Decide what a reminder for a workflow instance or an entity changes."""
    if arrival.reminder.target.kind == "entity":
        return _using_up(arrival, entity.arrive(at, state, arrival.reminder))
    return _arrive_at_workflow(at, state, arrival)


def _arrive_at_workflow(at: Context, state: State | None, arrival: Arrival) -> Decision:
    kind = arrival.reminder.kind
    if (beginning := _BEGINNINGS.get(kind)) is not None:
        decision = beginning(at, state, arrival)
        if state is not None and _replaces(decision):
            arrival.may_replace(state.instance)
        return decision
    if state is None:
        missing = Reply(Outcome.MISSING, "no such instance exists")
        return _unanswered(at, arrival, DONE if kind is Kind.PURGE else missing)
    return _ON_INSTANCES[kind](at, state, arrival)


def _replaces(decision: Decision) -> bool:
    return decision.changes is not None and bool(decision.changes.replaces)


def must_look(decision: Decision, state: State | None, arrival: Arrival) -> bool:
    """Whether a decision about an instance that has ended needs more of it than its state.

    It does if it is to answer again, or if the decision replaces it and its children have not been looked at yet.
    """
    if state is None:
        return False
    if decision.reply is rewind.MOVED:
        return called_again.is_same_call(state, arrival.reminder)
    return _replaces(decision) and state.instance.key != arrival.looked


def _using_up(arrival: Arrival, decision: Decision) -> Decision:
    if decision.changes is None:
        return arrival.nothing(decision.reply)
    return Decision(operations.consuming(decision.changes, arrival.consumed, arrival.received), decision.reply)


def _unanswered(at: Context, arrival: Arrival, reply: Reply) -> Decision:
    """Return the decision for an answer that nobody waits for. Locks that it grants are released again.

    One of another app is not remembered: it counts if it comes again after the call was made, as after a loss of time.
    """
    if arrival.reminder.kind is not Kind.RESULT:
        return arrival.nothing(reply)
    if not at.me.owns(arrival.reminder.source):
        return replace(arrival, received=()).nothing(reply)
    unlocks = entity_calls.hand_back(at, arrival.reminder)
    return _using_up(arrival, Decision(Changes(set=unlocks) if unlocks else None, reply))


def _append(
    at: Context, state: State, arrival: Arrival, rows: tuple[Row, ...], *, began: bool = True, **fields: Any
) -> Changes:
    return Changes(
        key=state.instance.key,
        expected=state.instance.revision,
        instance=states.touched(state, at.now, len(rows), began=began),
        append=rows,
        required=arrival.consumed,
        received=arrival.received,
        **({"dropped": arrival.consumed} | fields),
    )


def _start(at: Context, state: State, arrival: Arrival) -> Decision:
    other = arrival.reminder.owner != state.instance.key
    if other or state.instance.began or state.instance.status.terminal:
        return arrival.nothing(Reply(Outcome.DUPLICATE))
    row = Row(1, 1, events.stamped(arrival.reminder.payload, at.now))
    return Decision(_append(at, state, arrival, (row,)), DONE)


def _waits_for(state: State, reminder: Reminder) -> OpenCall | None:
    """Return the open call that a result answers, if its sender is the one that was asked."""
    call = state.open.get(reminder.call.task)
    if call is None or call.call != reminder.call or call.kind in UNANSWERED:
        return None
    same = (call.target.app, call.target.namespace) == (reminder.source.app, reminder.source.namespace)
    return call if same else None


def _resolve(at: Context, state: State, arrival: Arrival) -> Decision:
    reminder = arrival.reminder
    call = _waits_for(state, reminder)
    if call is None or state.instance.status.terminal:
        return _unanswered(at, arrival, Reply(Outcome.DUPLICATE))
    if not calls.answers(reminder.payload, call):
        return arrival.nothing(Reply(Outcome.INVALID, "the result is none of the call that it names"))
    if call.kind is CallKind.LOCK:
        event = entity_calls.granted(events.stamped(reminder.payload, at.now))
    elif at.me.owns(reminder.source):
        event = events.stamped(reminder.payload, at.now)
    else:
        event = events.stamped(reminder.payload, at.now, *_apps(at.me, call))
    if call.kind is CallKind.ACTIVITY:
        event = events.of_execution(event, call.task_execution)
    changes = _append(
        at,
        state,
        arrival,
        states.arrive(state, [event]),
        closed=(call.call.task,),
        opened=(entity_calls.held(call),) if call.kind is CallKind.LOCK else (),
        ended=calls.child_of(state, call),
        dropped=(*arrival.consumed, call.reminder),
    )
    return Decision(changes, DONE)


def _apps(me: AppIdentity, call: OpenCall) -> tuple[str, str]:
    """Return source and target app as histories show them: of an activity the call's, of a child its answer's."""
    return (me.app, call.target.app) if call.kind is CallKind.ACTIVITY else (call.target.app, me.app)


def _event(at: Context, state: State, arrival: Arrival) -> Decision:
    if state.instance.status.terminal:
        return arrival.nothing(DONE)
    event = events.decode(arrival.reminder.payload)
    if event.WhichOneof("kind") != "event_raised":
        return arrival.nothing(Reply(Outcome.INVALID, "an external event was expected"))
    rows = states.arrive(state, [events.stamped(arrival.reminder.payload, at.now)])
    return Decision(_append(at, state, arrival, rows, began=state.instance.began), DONE)


def _command(at: Context, state: State, arrival: Arrival) -> Decision:
    """Decide a parent's terminate or purge. A child that may be purged was removed before this is asked."""
    reminder = arrival.reminder
    if not _may_command(at.me, state, reminder):
        return arrival.nothing(_NOT_THE_PARENT)
    if reminder.kind is Kind.PURGE:
        return arrival.nothing(Reply(Outcome.WRONG_STATE, "a child that runs is purged only by force"))
    if state.instance.status.terminal:
        return arrival.nothing(DONE)
    draft = Draft(at, state)
    draft.dropped.extend(arrival.consumed)
    order = events.decode(reminder.payload).execution_terminated
    output = order.input.value if order.HasField("input") else None
    return operations.terminated(draft, output, order.recurse, arrival.consumed, arrival.received)


def _pause(at: Context, state: State, arrival: Arrival) -> Decision:
    if not _may_command(at.me, state, arrival.reminder):
        return arrival.nothing(_NOT_THE_PARENT)
    return _using_up(arrival, pauses.by_parent(at, state, arrival.reminder))


def _may_command(me: AppIdentity, state: State, reminder: Reminder) -> bool:
    """Whether the sender names the call that created this instance, or is a workflow of this app that terminates it."""
    if me.owns(reminder.source) and reminder.kind is Kind.TERMINATE and reminder.call == NO_CALL:
        return True
    return operations.is_child_of(state.instance, reminder.source, reminder.call)


def _create(at: Context, state: State | None, arrival: Arrival) -> Decision:
    reminder = arrival.reminder
    started = events.decode(reminder.payload).execution_started
    if not started.name or not started.instance.execution_id.value:
        return arrival.nothing(Reply(Outcome.INVALID, "a child needs a name and an execution ID"))
    if state is not None and called_again.is_same_call(state, reminder):
        return _settled(at, arrival, called_again.answered(at, state, reminder, arrival.record))
    if state is not None and called_again.is_ahead(at.me, state, reminder):
        return called_again.to_be_waited_for(state)
    if state is not None and state.instance.origin == started.instance.execution_id.value:
        return arrival.nothing(Reply(Outcome.DUPLICATE))
    if state is not None and (arrival.blocked or not (state.instance.status.terminal and at.me.reuse_ended)):
        return _occupied(at, state, arrival)
    actor = ActorId(*reminder.source[:2], "workflow", *reminder.source[3:])
    made = reminder.call._replace(execution=started.parent.instance.execution_id.value or reminder.call.execution)
    parent = calls.asking(Parent(actor, made, started.parent.name.value), reminder.call)
    event = creation.start_of_child(at, reminder)
    identity = creation.Identity(reminder.target.hub, reminder.target.id, started.instance.execution_id.value, parent)
    changes = creation.created(at, state, identity, started, event)
    if started.lineage and changes.instance is not None:
        propagated_history.check(started.lineage)
        changes = replace(changes, lineage=started.lineage, instance=replace(changes.instance, lineage=True))
    return _unless_answered(at, arrival, Decision(changes, DONE))


def _settled(at: Context, arrival: Arrival, decision: Decision) -> Decision:
    """Return a decision about a call, which is to be tried again, or uses the reminder up."""
    return decision if decision.reply.outcome is Outcome.UNAVAILABLE else _unless_answered(at, arrival, decision)


def _unless_answered(at: Context, arrival: Arrival, decision: Decision) -> Decision:
    """Return a decision about a call which does not hold if the answer to it is on its way to another app, or there."""
    if decision.changes is None or arrival.is_answered():
        return arrival.nothing(decision.reply if decision.changes is None else Reply(Outcome.DUPLICATE))
    reminder = arrival.reminder
    answered = () if at.me.owns(reminder.source) else ((*reminder.source[:2], reminder.call),)
    changes = operations.consuming(decision.changes, arrival.consumed, arrival.received)
    return Decision(replace(changes, unanswered=answered), decision.reply)


def _start_detached(at: Context, state: State | None, arrival: Arrival) -> Decision:
    """Start a workflow as a client would: it has no parent, and nothing happens if its ID is taken."""
    started = events.decode(arrival.reminder.payload).execution_started
    wrong = invalid_name("workflow", started.name)
    if wrong or not started.instance.execution_id.value:
        return arrival.nothing(Reply(Outcome.INVALID, wrong or "a start needs an execution ID"))
    target = arrival.reminder.target
    identity = creation.Identity(target.hub, target.id, started.instance.execution_id.value)
    started.ClearField("parent")
    started.instance.instance_id, started.instance.app_id = target.id, at.me.app
    scheduled = events.micros(started.scheduled_start) if started.HasField("scheduled_start") else None
    if arrival.blocked:
        text = operations.not_reusable(target.id, f"{arrival.blocked} has not ended")
        return arrival.nothing(Reply(Outcome.EXISTS, text))
    return _using_up(arrival, operations.start(at, state, operations.Start(identity, started, scheduled)))


def _occupied(at: Context, state: State, arrival: Arrival) -> Decision:
    """Answer the parent that the child's ID is taken. The instance that has the ID is not changed."""
    reminder = arrival.reminder
    draft = Draft(at, state)
    message = f"{operations.taken(state.instance)} in app '{at.me.app}'"
    if arrival.blocked:
        message = operations.not_reusable(reminder.target.id, f"{arrival.blocked} has not ended")
    answer = calls.failed_child(at.now, reminder.call.task, "WorkflowInstanceAlreadyExists", message)
    target = ActorId(*reminder.source[:2], "workflow", *reminder.source[3:])
    draft.remind(Kind.RESULT, target, answer, call=reminder.call)
    changes = Changes(
        set=tuple(draft.reminders),
        dropped=arrival.consumed,
        required=arrival.consumed,
        received=arrival.received,
    )
    return Decision(changes, Reply(Outcome.EXISTS, message))


def _rewind(at: Context, state: State | None, arrival: Arrival) -> Decision:
    """Let a child run again with its parent. A child that does not exist is created."""
    order = arrival.reminder
    if events.decode(order.payload).WhichOneof("kind") != "execution_rewound":
        return arrival.nothing(Reply(Outcome.INVALID, "a rewind was expected"))
    if state is None or not operations.is_child_of(state.instance, order.source, rewind.made_by(order)):
        arrival.may_create()
        return _create(at, state, replace(arrival, reminder=rewind.as_creation(at, order)))
    return _settled(at, arrival, rewind.of_child(at, state, order, arrival.record))


_BEGINNINGS: dict[Kind, Callable[[Context, State | None, Arrival], Decision]] = {
    Kind.CREATE: _create,
    Kind.DETACHED: _start_detached,
    Kind.REWIND: _rewind,
}
_ON_INSTANCES: dict[Kind, Callable[[Context, State, Arrival], Decision]] = {
    Kind.START: _start,
    Kind.TIMER: _resolve,
    Kind.RESULT: _resolve,
    Kind.EVENT: _event,
    Kind.TERMINATE: _command,
    Kind.PURGE: _command,
    Kind.PAUSE: _pause,
}
