"""Rewind: an instance that has failed goes back to before the failure that ended it and runs again, with its children.

The log is cut there (`cut.py`): what is left replays, whatever the workflow did about the failure. The activity that
failed is made again, a child that failed is rewound, and results that had come meanwhile are kept. The new log
replaces the old one in one commit, under a new execution ID, and the calls that it leaves open are opened again.

Some SDKs can be asked to write the new history. They leave out every failure and keep what the workflow did
about it, such as the timers between attempts, which does not replay; so no worker is asked.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events
from sidecar.core.attempts import NONE
from sidecar.core.identity import Context
from sidecar.core.model import (
    DONE,
    FIRST_ARRIVAL,
    CallId,
    CallKind,
    Changes,
    Child,
    Decision,
    Instance,
    Kind,
    Outcome,
    Position,
    Reminder,
    Reply,
    Rewind,
    Row,
    State,
    Status,
)
from sidecar.core.workflow import call_emission, calls, cut, stalls
from sidecar.core.workflow import state as states
from sidecar.core.workflow.calls import Draft, Lineage
from sidecar.schema import taskhub_pb2 as pb

MISSING = Reply(Outcome.MISSING, "no such instance exists")
MOVED = Reply(Outcome.UNAVAILABLE, "the instance has gone on while its log was read")


class Record(NamedTuple):
    """What was read of an instance beside its state, valid until `last_completed_turn` or `execution` change.

    `log` is empty if nobody asked for it. `children` includes those that ended.
    """

    last_completed_turn: int
    execution: str
    log: Sequence[bytes] = ()
    children: tuple[Child, ...] = ()
    output: str | None = None
    lineage: bytes = b""

    def is_of(self, instance: Instance) -> bool:
        """Whether the record is still valid for the instance."""
        return (self.last_completed_turn, self.execution) == (instance.last_completed_turn, instance.execution)


# ---------------------------------------------------------------- who asks for it


def rewind(
    at: Context, state: State | None, reason: StringValue | None, record: Record | None, execution: str
) -> Decision:
    """Decide a client's rewind: only an instance that has failed is rewound, into an execution with this ID.

    One that has this execution already was rewound by the same call, which was sent twice.
    """
    if state is None:
        return Decision(None, MISSING)
    if state.instance.execution == execution:
        return Decision(None, Reply(Outcome.DUPLICATE))
    if state.instance.status is not Status.FAILED:
        text = f"workflow '{state.instance.id}' is {state.instance.status.name}: only one that has failed is rewound"
        return Decision(None, Reply(Outcome.WRONG_STATE, text))
    if record is None or not record.is_of(state.instance):
        return Decision(None, MOVED)
    return Decision(_begin(Draft(at, state), pb.ExecutionRewound(reason=reason), record, execution), DONE)


def of_child(at: Context, state: State, order: Reminder, record: Record | None) -> Decision:
    """Decide what the rewind of its parent means for a child. The caller consumes the message.

    A child that has failed is rewound. A child that runs will answer. A child that ended otherwise answers again, and
    so does one that has followed this order before.
    """
    instance = state.instance
    if not instance.status.terminal:
        return Decision(calls.asked_by_another(at, state, order.call), DONE)
    if record is None or not record.is_of(instance):
        return Decision(None, MOVED)
    draft = Draft(at, state)
    wanted = events.decode(order.payload).execution_rewound
    followed = instance.parent is not None and instance.parent.asked == order.call != made_by(order)
    if instance.status is Status.FAILED and not followed:
        rewound = pb.ExecutionRewound(
            parent_execution_id=wanted.parent_execution_id, **events.given(wanted, "reason", "parent_trace_context")
        )
        changes = _begin(draft, rewound, record, at.ids.new_id())
        parent = instance.parent and calls.asking(instance.parent, order.call)
        again = None if changes.instance is None else replace(changes.instance, parent=parent)
        return Decision(replace(changes, instance=again), DONE)
    answer = calls.answer_again(at.now, instance, order.call.task, record.output)
    calls.answer_parent(draft, answer, order.call)
    return Decision(Changes(set=tuple(draft.reminders)), DONE)


def made_by(order: Reminder) -> CallId:
    """Return the call that has created the child which is to be rewound; the order is a call of its own."""
    made = events.decode(order.payload).execution_rewound.parent.instance.execution_id.value
    return order.call._replace(execution=made or order.call.execution)


def as_creation(at: Context, order: Reminder) -> Reminder:
    """Return the order to rewind a child that does not exist as an order to create it."""
    wanted = events.decode(order.payload).execution_rewound
    started = pb.ExecutionStarted(
        name=wanted.name.value,
        **events.given(wanted, "version", "input", "parent_trace_context"),
        parent=wanted.parent,
        tags=wanted.tags,
    )
    started.instance.execution_id.value = at.ids.new_id()
    payload = events.execution_started(at.now, started, order.source.app, at.me.app)
    return replace(order, kind=Kind.CREATE, payload=payload)


# ---------------------------------------------------------------- what is kept of the old history


_RUNS_AGAIN: dict[str, Any] = {
    "status": Status.RUNNING,
    "stall": None,
    "crashes": NONE,
    "completed_at": None,
    "failure": None,
    "ended_by": -1,
    "rewind": Rewind.REPLAY,
    "orchestration_trace": b"",  # the span of the execution before has ended
}


def _begin(draft: Draft, rewound: pb.ExecutionRewound, record: Record, execution: str) -> Changes:
    """Replace the log up to this turn, open the calls that the new log leaves open, and let a worker replay it.

    `execution` is a new ID: those of calls have it in them.
    """
    instance = draft.state.instance
    turn, time = instance.last_completed_turn + 1, max(draft.now, instance.workflow_time)
    failure = None if instance.failure is None else pb.FailureDetails.FromString(instance.failure)
    waiting = [events.decode(row.event) for row in draft.state.inbox if row.turn >= turn]
    kept = cut.before_failure([events.decode(event) for event in record.log], waiting, failure)
    event = pb.HistoryEvent(event_id=-1, timestamp=events.timestamp(draft.now), execution_rewound=rewound)
    history = [*kept.history, events.decode(events.orchestrator_started(time)), event]
    history[1] = _of_execution(history[1], execution, rewound.parent_execution_id.value)
    again = Draft(draft.at, State(replace(instance, execution=execution), {}, draft.state.children), turn)
    again.lineage = Lineage(list(map(events.encode, history)), record.lineage)
    _call_again(again, [*history, *kept.arrivals], record.children)
    fields = _RUNS_AGAIN | {
        "last_completed_turn": turn,
        "workflow_time": time,
        "recorded": stalls.of_history(history),
    }
    rows = [Row(turn, index, events.encode(event)) for index, event in enumerate(history)]
    rows += [Row(turn + 1, FIRST_ARRIVAL + at, events.encode(event)) for at, event in enumerate(kept.arrivals)]
    return Changes(
        key=instance.key,
        expected=instance.revision,
        instance=states.touched(again.state, draft.now, len(kept.arrivals), **fields),
        reopened=True,
        truncate=Position(0, 0),
        append=tuple(rows),
        opened=tuple(again.opened.values()),
        close_all=True,
        children=tuple(again.children),
        set=tuple(again.reminders),
    )


def _call_again(draft: Draft, history: Sequence[pb.HistoryEvent], children: Iterable[Child]) -> None:
    """Make the calls again that a history leaves open; children that are known are rewound."""
    for event in call_emission.left_open(history):
        child = _child_of(event, children)
        if child is None:
            call_emission.send(draft, event)
        else:
            _rewind_child(draft, event, child, history)


def _of_execution(started: pb.HistoryEvent, execution: str, parent_execution: str) -> pb.HistoryEvent:
    event = pb.HistoryEvent()
    event.CopyFrom(started)
    event.execution_started.instance.execution_id.value = execution
    if parent_execution and event.execution_started.HasField("parent"):
        event.execution_started.parent.instance.execution_id.value = parent_execution
    return event


def _child_of(event: pb.HistoryEvent, children: Iterable[Child]) -> Child | None:
    """Return the last child that was created by this event, if it is among the known ones."""
    if event.WhichOneof("kind") != "child_created":
        return None
    wanted = (event.event_id, event.child_created.instance_id)
    found = [child for child in children if (child.call.task, child.actor.id) == wanted]
    return max(found, key=lambda child: child.call.turn, default=None)


def _rewind_child(draft: Draft, event: pb.HistoryEvent, child: Child, history: Sequence[pb.HistoryEvent]) -> None:
    """Open the call that created a child again and order the child to rewind; if it is gone, it is created again."""
    made, instance = event.child_created, draft.state.instance
    reasons = [one.execution_rewound.reason for one in history if one.execution_rewound.HasField("reason")]
    order = pb.ExecutionRewound(
        reason=reasons[-1] if reasons else None,
        parent_execution_id=events.text(instance.execution),
        instance_id=events.text(child.actor.id),
        name=events.text(made.name),
        **events.given(made, "version", "input", "parent_trace_context"),
        parent=pb.ParentInstance(name=events.text(instance.name), version=events.text(instance.version)),
        tags=made.tags,
    )
    order.parent.instance.execution_id.value = child.call.execution
    call = child.call._replace(execution=instance.execution)  # the answers to the calls before count no more
    rewound = pb.HistoryEvent(event_id=-1, timestamp=events.timestamp(draft.now), execution_rewound=order)
    kept_until_result = not draft.me.owns(child.actor)
    reminder = draft.remind(
        Kind.REWIND,
        child.actor,
        events.encode(rewound),
        call=call,
        name=made.name,
        kept_until_result=kept_until_result,
    )
    draft.open(call, CallKind.CHILD, made.name, child.actor, reminder.id)
    draft.children.append(child)
