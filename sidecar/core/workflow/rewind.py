"""Rewind: an instance that has failed goes back to before its failures and runs again, with its children.

The new history leaves the failures out. The call of an activity that failed is left out too, so that a replay makes
it again; the call of a child that failed stays, and the child is rewound. A worker that can do so writes the new
history; if none can, or one that was asked answers without, it is written here by the same rules. Either way it
replaces the old history in one commit, under a new execution ID, and the calls that it leaves open are opened again.

Failures that the workflow had caught are left out too, as these workers do: what it did afterwards may not replay then.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events
from sidecar.core.attempts import NONE
from sidecar.core.errors import OvertakenError
from sidecar.core.identity import Context
from sidecar.core.model import (
    DONE,
    FIRST_ARRIVAL,
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
    Turn,
)
from sidecar.core.workflow import call_emission, calls, stalls
from sidecar.core.workflow import state as states
from sidecar.core.workflow.calls import Draft, Lineage
from sidecar.schema import taskhub_pb2 as pb

_LAST_INDEX = 1 << 40  # of the end of an execution, behind all events of its last turn
_FAILURES = ("task_failed", "child_failed")
MISSING = Reply(Outcome.MISSING, "no such instance exists")
MOVED = Reply(Outcome.UNAVAILABLE, "the instance has gone on while its log was read")


class Record(NamedTuple):
    """What was read of an instance beside its state, valid until `last_completed_turn` or `execution` change.

    `log` None: it was not read, because a worker will write the new history. `children` includes those that ended.
    """

    last_completed_turn: int
    execution: str
    log: list[bytes] | None = None
    children: tuple[Child, ...] = ()
    output: str | None = None
    lineage: bytes = b""

    def is_of(self, instance: Instance) -> bool:
        """Whether the record is still valid for the instance."""
        return (self.last_completed_turn, self.execution) == (instance.last_completed_turn, instance.execution)


# ---------------------------------------------------------------- who asks for it


def rewind(at: Context, state: State | None, reason: StringValue | None, record: Record | None) -> Decision:
    """Decide a client's rewind: only an instance that has failed is rewound."""
    if state is None:
        return Decision(None, MISSING)
    if state.instance.status is not Status.FAILED:
        text = f"workflow '{state.instance.id}' is {state.instance.status.name}: only one that has failed is rewound"
        return Decision(None, Reply(Outcome.WRONG_STATE, text))
    if record is None or not record.is_of(state.instance):
        return Decision(None, MOVED)
    return Decision(_begin(Draft(at, state), pb.ExecutionRewound(reason=reason), record), DONE)


def of_child(at: Context, state: State, order: Reminder, record: Record | None) -> Decision:
    """Decide what the rewind of its parent means for a child. The caller consumes the message.

    A child that has failed is rewound. A child that runs will answer. A child that ended otherwise answers again.
    """
    instance = state.instance
    if not instance.status.terminal:
        return Decision(None, DONE)
    if record is None or not record.is_of(instance):
        return Decision(None, MOVED)
    draft = Draft(at, state)
    wanted = events.decode(order.payload).execution_rewound
    if instance.status is Status.FAILED:
        rewound = pb.ExecutionRewound(
            parent_execution_id=wanted.parent_execution_id, **events.given(wanted, "reason", "parent_trace_context")
        )
        return Decision(_begin(draft, rewound, record), DONE)
    calls.answer_parent(draft, _answer_again(at.now, instance, order.call.task, record.output))
    return Decision(Changes(set=tuple(draft.reminders)), DONE)


def _answer_again(now: int, instance: Instance, task: int, output: str | None) -> bytes:
    if instance.status is Status.COMPLETED:
        return events.child_completed(now, task, events.text(output))
    name = instance.status.name.lower()
    return calls.failed_child(now, task, f"Workflow{name.capitalize()}", f"child workflow '{instance.id}' was {name}")


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


# ---------------------------------------------------------------- the two ways to a new history


def _begin(draft: Draft, rewound: pb.ExecutionRewound, record: Record) -> Changes:
    event = pb.HistoryEvent(event_id=-1, timestamp=events.timestamp(draft.now), execution_rewound=rewound)
    if record.log is None:
        return _ask(draft, events.encode(event))
    time = max(draft.now, draft.state.instance.workflow_time)
    started = events.decode(events.orchestrator_started(time))
    log = [*map(events.decode, record.log), started, event]
    history = without_failures(log, draft.at.ids.new_id(), rewound.parent_execution_id.value)
    return _replaced(draft, draft.state.instance.last_completed_turn + 1, time, history, record)


def _ask(draft: Draft, rewound: bytes) -> Changes:
    """Make the next turn the one that asks a worker for the new history: the log with its end, and this event alone."""
    instance, now = draft.state.instance, draft.now
    end = events.execution_completed(instance, None, draft.me.app)
    first = instance.last_completed_turn + 1
    waiting = [Row(first + 1, FIRST_ARRIVAL + at, event) for at, event in enumerate(_waiting(draft.state, first))]
    rows = (Row(instance.last_completed_turn, _LAST_INDEX, end), Row(first, FIRST_ARRIVAL, rewound), *waiting)
    return Changes(
        key=instance.key,
        expected=instance.revision,
        instance=states.touched(draft.state, now, len(rows), **_running(Rewind.ASKED)),
        reopened=True,
        truncate=Position(first, 0),
        append=rows,
    )


def _running(rewind: Rewind, **fields: Any) -> dict[str, Any]:
    began = {"status": Status.RUNNING, "stall": None, "crashes": NONE, "rewind": rewind}
    return fields | began | {"completed_at": None, "failure": None, "ended_by": -1}


def _waiting(state: State, behind: int) -> list[bytes]:
    """Return what has arrived and no worker has seen, without failures: their calls are made again."""
    rows = [row.event for row in state.inbox if row.turn >= behind]
    kinds = [events.decode(event).WhichOneof("kind") for event in rows]
    return [event for event, kind in zip(rows, kinds, strict=True) if kind not in _FAILURES]


def answered(draft: Draft, turn: Turn, response: pb.OrchestratorResponse, record: Record | None) -> Changes:
    """Return what the answer of a worker that was asked for a new history changes.

    An answer without one, or with one that no execution can have, says only that the worker cannot write it: versions
    of SDKs that do not know the question replay what has failed, and end it once more.

    Raises:
        OvertakenError: what was stored of the instance was not read.
    """
    if record is None or record.log is None:
        raise OvertakenError("the rewind is to be asked for again: the log was not read")
    stored = list(map(events.decode, [*record.log, *turn.events]))
    action = next((action for action in response.actions if action.WhichOneof("kind") == "rewind"), None)
    history = [] if action is None else _as_stored(stored, action.rewind.new_history)
    if not _can_begin(history):
        parents = [event.execution_rewound.parent_execution_id.value for event in stored]
        history = without_failures(stored, draft.at.ids.new_id(), parents[-1])
    return _replaced(draft, turn.number, turn.time, history, record)


def _can_begin(history: Sequence[pb.HistoryEvent]) -> bool:
    """Whether a history begins with the start of a turn and that of the execution."""
    return [event.WhichOneof("kind") for event in history[:2]] == ["orchestrator_started", "execution_started"]


def _as_stored(known: Sequence[pb.HistoryEvent], history: Iterable[pb.HistoryEvent]) -> list[pb.HistoryEvent]:
    """Restore the fields of events that SDKs do not know and have left out of the new history."""
    found: list[pb.HistoryEvent] = []
    at = 0
    for event in history:
        index = next((index for index in range(at, len(known)) if _same(known[index], event)), None)
        if index is None:
            found.append(event)
            continue
        at = index + 1
        own = pb.HistoryEvent()
        own.CopyFrom(known[index])
        if event.WhichOneof("kind") in ("execution_started", "child_created"):  # SDKs change IDs and traces in them
            own.MergeFrom(event)
        found.append(own)
    return found


def _same(one: pb.HistoryEvent, other: pb.HistoryEvent) -> bool:
    return (one.WhichOneof("kind"), one.event_id, one.timestamp, call_emission.ended_task(one)) == (
        other.WhichOneof("kind"),
        other.event_id,
        other.timestamp,
        call_emission.ended_task(other),
    )


def without_failures(log: Sequence[pb.HistoryEvent], execution: str, parent_execution: str) -> list[pb.HistoryEvent]:
    """Return the history that a worker would write: without the failures of calls that did not succeed in the end.

    The calls of such activities are left out too. The call of a child stays, since the child is rewound.
    """
    failed: dict[int, bool] = {}
    made: dict[int, int] = {}
    for index, event in enumerate(log):
        kind, task = event.WhichOneof("kind"), call_emission.ended_task(event)
        if task is not None:
            failed[task] = kind in _FAILURES
        if kind == "child_created":
            made[event.event_id] = index
    kept: list[pb.HistoryEvent] = []
    for index, event in enumerate(log):
        kind = event.WhichOneof("kind")
        if kind in _FAILURES and failed[call_emission.ended_task(event) or 0]:
            continue
        if kind == "task_scheduled" and failed.get(event.event_id):
            continue
        if kind == "child_created" and failed.get(event.event_id) and made[event.event_id] != index:
            continue
        if kind == "execution_started":
            event = _of_execution(event, execution, parent_execution)  # noqa: PLW2901 (the event as it is kept)
        if kind != "execution_completed":
            kept.append(event)
    return kept


def _of_execution(started: pb.HistoryEvent, execution: str, parent_execution: str) -> pb.HistoryEvent:
    event = pb.HistoryEvent()
    event.CopyFrom(started)
    event.execution_started.instance.execution_id.value = execution
    if parent_execution and event.execution_started.HasField("parent"):
        event.execution_started.parent.instance.execution_id.value = parent_execution
    return event


# ---------------------------------------------------------------- the new history


def _replaced(draft: Draft, turn: int, time: int, history: list[pb.HistoryEvent], record: Record) -> Changes:
    """Replace the log up to this turn, open the calls that the new log leaves open, and let a worker replay it."""
    execution = history[1].execution_started.instance.execution_id.value
    if execution in ("", draft.state.instance.execution):  # call IDs have it in them: it must be a new one
        execution = draft.at.ids.new_id()
        history = [history[0], _of_execution(history[1], execution, ""), *history[2:]]
    instance = replace(draft.state.instance, execution=execution)
    waiting = _waiting(draft.state, turn + 1 if draft.state.instance.rewind else turn)
    again = Draft(draft.at, State(instance, {}, draft.state.children, draft.state.inbox), turn)
    again.lineage = Lineage(list(map(events.encode, history)), record.lineage)
    for event in call_emission.left_open([*history, *map(events.decode, waiting)]):
        child = _child_of(event, record.children)
        if child is None:
            call_emission.send(again, event)
        else:
            _rewind_child(again, event, child, history)
    rows = [Row(turn, index, events.encode(event)) for index, event in enumerate(history)]
    rows += [Row(turn + 1, FIRST_ARRIVAL + at, event) for at, event in enumerate(waiting)]
    recorded = stalls.of_history(history)
    fields = _running(
        Rewind.REPLAY,
        last_completed_turn=turn,
        workflow_time=time,
        execution=execution,
        recorded=recorded,
        orchestration_trace=b"",  # the span of the execution before has ended
    )
    return Changes(
        key=instance.key,
        expected=instance.revision,
        instance=states.touched(again.state, draft.now, len(waiting), **fields),
        reopened=True,
        truncate=Position(0, 0),
        append=tuple(rows),
        opened=tuple(again.opened.values()),
        close_all=True,
        children=tuple(again.children),
        set=tuple(again.reminders),
    )


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
    rewound = pb.HistoryEvent(event_id=-1, timestamp=events.timestamp(draft.now), execution_rewound=order)
    kept_until_result = not draft.me.owns(child.actor)
    reminder = draft.remind(
        Kind.REWIND,
        child.actor,
        events.encode(rewound),
        call=child.call,
        name=made.name,
        kept_until_result=kept_until_result,
    )
    draft.open(child.call, CallKind.CHILD, made.name, child.actor, reminder.id)
    draft.children.append(child)
