"""An entity: what waits for it, which of that may run now, and what follows from a worker's answer.

Its inbox is its log: operations and requests for its lock, in the order they came. What comes first runs first. A
request for the lock takes effect when it is at the front; from then on only the holder's calls run, and the others
wait in their order, until the holder has unlocked and all that it asked for before that has run. Locks over several
entities are taken one after the other, in the order of their IDs, which is the same for everybody: so nobody waits for
one who waits for him.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sidecar.core import events, operations
from sidecar.core.attempts import NONE
from sidecar.core.errors import OvertakenError
from sidecar.core.model import (
    DONE,
    NO_CALL,
    ActorId,
    CallId,
    Changes,
    Context,
    Decision,
    Instance,
    Kind,
    Lock,
    Outcome,
    Position,
    Reminder,
    Reply,
    Row,
    State,
    Status,
)
from sidecar.core.names import entity_id, entity_name, invalid_instance_id, invalid_name
from sidecar.core.operations import Identity
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
    """Return what may run now: at least one operation, and of more only as many as `most_bytes` have room for."""
    rows: list[Row] = []
    size = 0
    for row in _runnable(state.inbox, state.instance.lock):
        size += len(row.event)
        if rows and (size > most_bytes or len(rows) >= most):
            break
        rows.append(row)
    return Batch(state.instance.key, token, tuple(rows))


def _runnable(queue: list[Row], lock: Lock | None) -> Iterator[Row]:
    for row in queue:
        event = events.decode(row.event)
        if lock is None and event.WhichOneof("kind") == "entity_lock_requested":
            return
        if lock is None or _is_of_holder(event, lock):
            yield row


def _may_run(queue: list[Row], lock: Lock | None) -> bool:
    return any(True for _ in _runnable(queue, lock))


def _is_of_holder(event: pb.HistoryEvent, lock: Lock) -> bool:
    called = event.entity_called
    return (called.parent_instance_id.value, called.parent_execution_id.value) == (lock.owner, lock.execution)


# ---------------------------------------------------------------- steps


@dataclass(slots=True)
class _Step:
    """What a step has decided so far over an entity. `revision` 0: the entity is new."""

    at: Context
    instance: Instance
    inbox: list[Row]
    tail: Position
    revision: int
    lock: Lock | None
    fresh: list[Row] = field(default_factory=list)
    gone: set[Position] = field(default_factory=set)
    reminders: list[Reminder] = field(default_factory=list)

    def queue(self) -> Iterator[Row]:
        """Return what waits after this step."""
        return (row for rows in (self.inbox, self.fresh) for row in rows if row.position not in self.gone)

    def send(
        self,
        kind: Kind,
        target: ActorId,
        payload: bytes,
        *,
        call: CallId = NO_CALL,
        due: int = 0,
        source: ActorId | None = None,
    ) -> None:
        """Set a reminder, of this entity unless `source` says whose; one that is due earlier than now is due now."""
        number, due = self.at.ids.order(), max(due, self.at.now)
        source = source or self.at.me.entity(self.instance.hub, self.instance.id)
        self.reminders.append(Reminder(number, kind, self.instance.key, target, source, call, due, "", payload))

    def ready(self) -> bool:
        """Whether something may run. While nothing leaves and nobody locks, only what comes can change that."""
        same = self.revision and not self.gone and self.lock == self.instance.lock
        rows = self.fresh if same else list(self.queue())
        runnable = bool(same and self.instance.ready) or _may_run(rows, self.lock)
        return runnable and not self.instance.crashes.quarantined

    def changes(self, **fields: Any) -> Changes:
        """Return the changes that do all that."""
        instance = replace(
            self.instance,
            revision=self.revision + 1,
            lock=self.lock,
            ready=self.ready(),
            updated_at=max(self.at.now, self.instance.updated_at),
        )
        return Changes(
            key=instance.key,
            expected=self.revision,
            instance=instance,
            append=tuple(row for row in self.fresh if row.position not in self.gone),
            removed=tuple(row.position for row in self.inbox if row.position in self.gone) if self.gone else (),
            set=tuple(self.reminders),
            **fields,
        )


def _step(at: Context, state: State) -> _Step:
    return _Step(at, state.instance, state.inbox, state.tail, state.instance.revision, state.instance.lock)


def _fresh(at: Context, hub: str, entity: str) -> State:
    begun = pb.ExecutionStarted(name=entity_name(entity))
    instance = operations.fresh(begun, Identity(hub, entity, at.ids.new_id()), at.now, at.ids.key())
    return State(replace(instance, revision=0, status=Status.RUNNING, ready=False, entity=True))


# ---------------------------------------------------------------- what comes in


def signal(at: Context, state: State | None, target: ActorId, event: bytes, due: int) -> Decision:
    """Decide a client's signal; one for later becomes a reminder, and the entity need not be there before."""
    if due > at.now:
        later = Reminder(at.ids.order(), Kind.EVENT, 0, target, target, NO_CALL, due, "", event)
        return Decision(Changes(set=(later,)), DONE)
    return _enqueue(at, state, target, event)


def arrive(at: Context, state: State | None, reminder: Reminder) -> Decision:
    """Decide a message for an entity, which may not be there yet. Only its own app sends it any."""
    target = reminder.target
    if not at.me.owns(reminder.source) or entity_id(target.id) != target.id:
        return Decision(None, Reply(Outcome.DENIED, "an entity takes messages of its own app only"))
    event = events.decode(reminder.payload)
    kind, arrived = event.WhichOneof("kind"), events.stamped(reminder.payload, at.now)
    if kind == "entity_unlock_sent":
        return _unlock(at, state, reminder.source.id, arrived)
    if kind not in _QUEUED:
        return Decision(None, Reply(Outcome.INVALID, "an operation of an entity was expected"))
    return _enqueue(at, state, target, arrived)


def _enqueue(at: Context, state: State | None, target: ActorId, event: bytes) -> Decision:
    step = _step(at, state or _fresh(at, target.hub, target.id))
    step.fresh.append(Row(*step.tail, event))
    _settle(step)
    return Decision(step.changes(), DONE)


def _unlock(at: Context, state: State | None, owner: str, unlock: bytes) -> Decision:
    """End a critical section, or take its request back if that still waits."""
    if state is None:
        return Decision(None, DONE)
    lock, section = state.instance.lock, events.decode(unlock).entity_unlock_sent.critical_section_id
    if lock is not None and (lock.owner, lock.section) == (owner, section):
        return _released(at, state, unlock)
    step = _step(at, state)
    for row in state.inbox:
        wanted = events.decode(row.event).entity_lock_requested
        if (wanted.parent_instance_id.value, wanted.critical_section_id) == (owner, section):
            step.gone.add(row.position)
            _hand_back(step, owner, section, wanted.lock_set[: wanted.position])
            return Decision(step.changes(), DONE)
    return Decision(None, DONE)


def _hand_back(step: _Step, owner: str, section: str, locked: Sequence[str]) -> None:
    """Unlock what a request has locked on its way here: the owner's unlock may have been there before it."""
    hub = step.instance.hub
    for entity in locked:
        unlock = events.entity_unlock_sent(step.at.now, section, owner, entity)
        step.send(Kind.EVENT, step.at.me.entity(hub, entity), unlock, source=step.at.me.workflow(hub, owner))


def _released(at: Context, state: State, unlock: bytes) -> Decision:
    """Return the decision that takes the lock from its holder; who waits for it gets it.

    What the holder has asked for and what has not run is of its critical section: the unlock waits behind it.
    """
    step = _step(at, state)
    if not _may_run(state.inbox, state.instance.lock):  # of what waits, only calls of the holder may run
        step.lock = None
        _settle(step)
    elif any(_is_unlock(events.decode(row.event)) for row in state.inbox):
        return Decision(None, DONE)
    else:
        step.fresh.append(Row(*step.tail, unlock))
    return Decision(step.changes(), DONE)


def _is_unlock(event: pb.HistoryEvent) -> bool:
    return event.HasField("entity_unlock_sent")


def _let_go(step: _Step) -> None:
    """Take the lock from its holder when its unlock waits and nothing of it is in front of that."""
    if step.lock is None:
        return
    for row in step.queue():
        event = events.decode(row.event)
        if _is_of_holder(event, step.lock):
            return
        if _is_unlock(event):
            step.gone.add(row.position)
            step.lock = None
            return


def _settle(step: _Step) -> None:
    """Grant the lock when what waits at the front is a request for it."""
    front = next(step.queue(), None)
    if step.lock is not None or front is None:
        return
    event = events.decode(front.event)
    if event.WhichOneof("kind") != "entity_lock_requested":
        return
    step.gone.add(front.position)
    wanted, hub = event.entity_lock_requested, step.instance.hub
    owner, execution, section = wanted.parent_instance_id.value, wanted.parent_execution_id, wanted.critical_section_id
    step.lock = Lock(owner, execution, section)
    wanted.position += 1
    if wanted.position < len(wanted.lock_set):
        step.send(Kind.EVENT, step.at.me.entity(hub, wanted.lock_set[wanted.position]), events.encode(event))
        return
    granted = events.entity_lock_granted(step.at.now, section, wanted.lock_set)
    call = CallId(execution, wanted.turn, wanted.task)
    step.send(Kind.RESULT, step.at.me.workflow(hub, owner), granted, call=call)


# ---------------------------------------------------------------- what a worker answers


def complete(at: Context, state: State, batch: Batch, result: pb.EntityBatchResult) -> Changes:
    """Return what a worker's answer to a batch changes: state, answers to calls, and what the operations ask for.

    Operations without a result were not run and stay, unless the whole batch failed: then they failed with it.

    Raises:
        OvertakenError: the entity has gone meanwhile, or nothing of the batch was run.
    """
    waiting = {row.position for row in state.inbox}
    if state.instance.key != batch.key or any(row.position not in waiting for row in batch.rows):
        raise OvertakenError("the entity was removed")
    outcomes = list(result.results[: len(batch.rows)])
    if result.HasField("failure"):
        failed = pb.OperationResult(failure=pb.OperationFailure(failure=result.failure))
        outcomes += [failed] * (len(batch.rows) - len(outcomes))
    if not outcomes:
        raise OvertakenError("no operation was run")
    step = _step(at, state)
    step.instance = replace(step.instance, crashes=NONE)
    for row, outcome in zip(batch.rows, outcomes, strict=False):
        step.gone.add(row.position)
        _answer(step, events.decode(row.event), outcome)
    for action in result.actions:
        _act(step, action)
    _let_go(step)
    _settle(step)
    if result.HasField("entity_state"):
        return step.changes(output=result.entity_state.value)
    # A worker that could not even begin says nothing of the state.
    return step.changes(no_output=bool(result.results))


def _answer(step: _Step, event: pb.HistoryEvent, outcome: pb.OperationResult) -> None:
    if event.WhichOneof("kind") != "entity_called":
        return
    called = event.entity_called
    payload = events.entity_result(step.at.now, called.request_id, outcome)
    home = step.at.me.workflow(step.instance.hub, called.parent_instance_id.value)
    call = CallId(called.parent_execution_id.value, called.turn, called.task)
    step.send(Kind.RESULT, home, payload, call=call)


def _act(step: _Step, action: pb.OperationAction) -> None:
    """Carry out what an operation asked for; what can reach nobody is dropped."""
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
    if invalid_name("workflow", request.name) is None and invalid_instance_id(instance_id) is None:
        started = _start_of(request, instance_id, step.at.ids.new_id())
        step.send(Kind.DETACHED, me.workflow(hub, instance_id), events.execution_started(now, started, me.app))


def _signal_of(step: _Step, order: pb.SendSignal, target: str) -> bytes:
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


def forget(at: Context, state: State | None, revision: int) -> Decision:
    """Decide to remove an entity that was seen to be empty: without state, and nothing has happened to it since."""
    if state is None or state.instance.revision != revision or state.inbox or state.instance.lock is not None:
        return Decision(None, Reply(Outcome.STALE))
    return Decision(Changes(key=state.instance.key, expected=revision, purged=True), DONE)


def release(at: Context, state: State | None, orphan: Lock) -> Decision:
    """Decide to take a lock from an execution that has ended."""
    if state is None or state.instance.lock != orphan:
        return Decision(None, Reply(Outcome.STALE))
    return _released(at, state, events.entity_unlock_sent(at.now, orphan.section, orphan.owner, state.instance.id))


def unparked(at: Context, state: State) -> Changes:
    """Return what lets a parked entity be handed out again, as if nothing had happened yet."""
    may_run = _may_run(state.inbox, state.instance.lock)
    back = replace(state.instance, status=Status.RUNNING, stall=None, crashes=NONE, ready=may_run)
    after = replace(back, revision=back.revision + 1, updated_at=max(at.now, back.updated_at))
    return Changes(key=after.key, expected=state.instance.revision, instance=after)
