"""An entity: what waits for it, which of that may run now, and what follows from a worker's answer.

Its inbox is its log: operations and requests for its lock, in the order of their arrival. What came first runs first.
A request for the lock is granted when it is at the front. From then on only the holder's calls run, and the others
wait in their order, until the holder has unlocked and all that it called before that has run. Locks of several
entities are taken one after the other, in the order of their IDs, which is the same for everybody: so two workflows
never wait for each other.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sidecar.core import events
from sidecar.core.attempts import NONE
from sidecar.core.entity import locks
from sidecar.core.entity.inbox import may_run, runnable
from sidecar.core.entity.step import Step, step_over
from sidecar.core.errors import OvertakenError
from sidecar.core.identity import Context
from sidecar.core.model import (
    DONE,
    NO_CALL,
    ActorId,
    CallId,
    Changes,
    Decision,
    Kind,
    Outcome,
    Reminder,
    Reply,
    Row,
    State,
    Status,
)
from sidecar.core.names import entity_id, entity_name, invalid_name, invalid_new_id
from sidecar.core.workflow import creation
from sidecar.core.workflow.creation import Identity
from sidecar.schema import taskhub_pb2 as pb

BATCH_OPERATIONS = 100
MISSING = Reply(Outcome.MISSING, "no such entity exists")
_QUEUED = ("entity_signaled", "entity_called", "entity_lock_requested")


@dataclass(frozen=True, slots=True)
class Batch:
    """Operations that a worker runs on an entity, in order."""

    key: int
    token: str
    rows: tuple[Row, ...]


def next_batch(state: State, token: str, most_bytes: int, most: int = BATCH_OPERATIONS) -> Batch:
    """Return the operations that may run now: at least one, and not more than `most` or than fit into `most_bytes`."""
    rows: list[Row] = []
    size = 0
    for row in runnable(state.inbox, state.instance.lock):
        size += len(row.event)
        if rows and (size > most_bytes or len(rows) >= most):
            break
        rows.append(row)
    return Batch(state.instance.key, token, tuple(rows))


def _fresh(at: Context, hub: str, entity: str) -> State:
    begun = pb.ExecutionStarted(name=entity_name(entity))
    instance = creation.fresh(begun, Identity(hub, entity, at.ids.new_id()), at.now, at.ids.key())
    return State(replace(instance, revision=0, status=Status.RUNNING, ready=False, entity=True))


# ---------------------------------------------------------------- what comes in


def signal(at: Context, state: State | None, target: ActorId, event: bytes, due: int) -> Decision:
    """Decide a client's signal. One for later becomes a reminder. An entity that does not exist is created."""
    if due > at.now:
        later = Reminder(at.ids.order(), Kind.EVENT, 0, target, target, NO_CALL, due, "", event)
        return Decision(Changes(set=(later,)), DONE)
    return _enqueue(at, state, target, event)


def arrive(at: Context, state: State | None, reminder: Reminder) -> Decision:
    """Decide a message for an entity, which is created if it does not exist. Only its own app may send one."""
    target = reminder.target
    if not at.me.owns(reminder.source) or entity_id(target.id) != target.id:
        return Decision(None, Reply(Outcome.DENIED, "an entity takes messages of its own app only"))
    event = events.decode(reminder.payload)
    kind, arrived = event.WhichOneof("kind"), events.stamped(reminder.payload, at.now)
    if kind == "entity_unlock_sent":
        return locks.unlock(at, state, reminder.source.id, arrived)
    if kind not in _QUEUED:
        return Decision(None, Reply(Outcome.INVALID, "an operation of an entity was expected"))
    return _enqueue(at, state, target, arrived)


def _enqueue(at: Context, state: State | None, target: ActorId, event: bytes) -> Decision:
    step = step_over(at, state or _fresh(at, target.hub, target.id))
    step.fresh.append(Row(*step.tail, event))
    locks.grant(step)
    return Decision(step.changes(), DONE)


# ---------------------------------------------------------------- what a worker answers


def complete(at: Context, state: State, batch: Batch, result: pb.EntityBatchResult) -> Changes:
    """Return what a worker's answer to a batch changes: state, answers to calls, and what the operations ask for.

    Operations without a result were not run and stay in the inbox. If the whole batch failed, they fail with it.

    Raises:
        OvertakenError: the entity was removed meanwhile, or no operation of the batch was run.
    """
    waiting = {row.position for row in state.inbox}
    if state.instance.key != batch.key or any(row.position not in waiting for row in batch.rows):
        raise OvertakenError("the entity was removed")
    outcomes = list(result.results[: len(batch.rows)])
    if result.HasField("failure"):
        outcomes += [_failed(result.failure)] * (len(batch.rows) - len(outcomes))
    if not outcomes:
        raise OvertakenError("no operation was run")
    step = step_over(at, state)
    step.instance = replace(step.instance, crashes=NONE)
    for row, outcome in zip(batch.rows, outcomes, strict=False):
        step.gone.add(row.position)
        _answer(step, events.decode(row.event), outcome)
    for action in result.actions:
        _act(step, action)
    locks.release_when_due(step)
    locks.grant(step)
    if result.HasField("entity_state"):
        return step.changes(output=result.entity_state.value)
    # An answer without any result comes from a worker that could not begin: it says nothing about the state.
    return step.changes(no_output=bool(result.results))


def too_large(
    at: Context, state: State, batch: Batch, why: pb.FailureDetails, *, by_itself: bool = False
) -> Changes | None:
    """Return what lets calls fail that no worker can receive, None if there is nothing to change.

    A call in the batch that is too large `by_itself` fails alone, else all calls do that may run. Signals have nobody
    to tell: they wait for a worker that can receive them.
    """
    step = step_over(at, state)
    if state.instance.key != batch.key or any(row not in state.inbox for row in batch.rows):
        return None
    rows = _calls(batch.rows) if by_itself else []
    rows = rows or _calls(runnable(state.inbox, step.lock))
    if not rows:
        return None
    for row in rows:
        step.gone.add(row.position)
        _answer(step, events.decode(row.event), _failed(why))
    locks.release_when_due(step)
    locks.grant(step)
    return step.changes()


def _calls(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if events.decode(row.event).HasField("entity_called")]


def _failed(why: pb.FailureDetails) -> pb.OperationResult:
    return pb.OperationResult(failure=pb.OperationFailure(failure=why))


def _answer(step: Step, event: pb.HistoryEvent, outcome: pb.OperationResult) -> None:
    if event.WhichOneof("kind") != "entity_called":
        return
    called = event.entity_called
    payload = events.entity_result(step.at.now, called.request_id, outcome)
    home = step.at.me.workflow(step.instance.hub, called.parent_instance_id.value)
    call = CallId(called.parent_execution_id.value, called.turn, called.task)
    step.send(Kind.RESULT, home, payload, call=call)


def _act(step: Step, action: pb.OperationAction) -> None:
    """Carry out what an operation asked for. A signal or a start with an address that cannot exist is dropped."""
    me, hub, now = step.at.me, step.instance.hub, step.at.now
    if action.HasField("send_signal"):
        order = action.send_signal
        target = entity_id(order.instance_id)
        if target is not None:
            due = events.micros(order.scheduled_time) if order.HasField("scheduled_time") else 0
            step.send(Kind.EVENT, me.entity(hub, target), _signal_of(step, order, target), due=due)
        return
    request = action.start_workflow
    instance_id = request.instance_id or step.at.ids.new_id()
    if invalid_name("workflow", request.name) is None and invalid_new_id(instance_id) is None:
        started = _start_of(request, instance_id, step.at.ids.new_id())
        step.send(Kind.DETACHED, me.workflow(hub, instance_id), events.execution_started(now, started, me.app))


def _signal_of(step: Step, order: pb.SendSignal, target: str) -> bytes:
    signaled = pb.EntitySignaled(
        request_id=step.at.ids.new_id(),
        operation=order.name,
        **events.given(order, "scheduled_time", "input"),
        target_instance_id=events.text(target),
    )
    return events.entity_signaled(step.at.now, signaled)


def _start_of(request: pb.StartWorkflow, instance_id: str, execution: str) -> pb.ExecutionStarted:
    started = pb.ExecutionStarted(
        name=request.name,
        version=request.version if request.version.value else None,
        scheduled_start=request.scheduled_time if request.HasField("scheduled_time") else None,
        **events.given(request, "input", "parent_trace_context"),
    )
    started.instance.CopyFrom(pb.WorkflowInstance(instance_id=instance_id, execution_id=events.text(execution)))
    return started


# ---------------------------------------------------------------- cleaning


def purge(at: Context, state: State | None) -> Decision:
    """Decide to remove an entity with its state, its queue and its lock, whatever it does.

    Calls that wait fail. Who waits for the lock would wait for ever: the first one gets it, of an entity without a
    state; who had it has lost it.
    """
    if state is None:
        return Decision(None, MISSING)
    before = state.instance
    step = step_over(at, state)
    why = events.failure("EntityPurged", f"entity '{before.id}' was purged", retriable=False)
    for row in _calls(state.inbox):
        _answer(step, events.decode(row.event), _failed(why))
    waiting = [row for row in state.inbox if events.decode(row.event).HasField("entity_lock_requested")]
    if not waiting:
        gone = Changes(key=before.key, expected=before.revision, purged=True, set=tuple(step.reminders))
        return Decision(gone, DONE)
    again = step_over(at, _fresh(at, before.hub, before.id))
    again.fresh += [
        Row(again.tail.turn, again.tail.event_index + index, row.event) for index, row in enumerate(waiting)
    ]
    again.reminders += step.reminders
    locks.grant(again)
    return Decision(replace(again.changes(), replaces=before.key, replaced_at=before.revision), DONE)


def forget(at: Context, state: State | None, revision: int) -> Decision:
    """Decide to remove an entity that was read as empty at this revision, if it has not changed since."""
    if state is None or state.instance.revision != revision or state.inbox or state.instance.lock is not None:
        return Decision(None, Reply(Outcome.STALE))
    return Decision(Changes(key=state.instance.key, expected=revision, purged=True), DONE)


def end_quarantine(at: Context, state: State) -> Changes:
    """Return what lets a quarantined entity be handed out again, as if no delivery had failed yet."""
    ready = may_run(state.inbox, state.instance.lock)
    back = replace(state.instance, status=Status.RUNNING, stall=None, crashes=NONE, ready=ready)
    after = replace(back, revision=back.revision + 1, updated_at=max(at.now, back.updated_at))
    return Changes(key=after.key, expected=state.instance.revision, instance=after)
