"""What clients ask for: each command as a decision over the state of one instance."""

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events
from sidecar.core.attempts import NONE
from sidecar.core.identity import AppIdentity, Context
from sidecar.core.model import (
    DONE,
    NO_CALL,
    ActorId,
    CallId,
    Changes,
    Decision,
    Instance,
    Kind,
    Outcome,
    Reminder,
    Reply,
    Rewind,
    Row,
    State,
    Status,
)
from sidecar.core.receipts import Received
from sidecar.core.workflow import calls, creation, pauses, stalls
from sidecar.core.workflow import state as states
from sidecar.core.workflow.calls import Draft
from sidecar.core.workflow.creation import Identity
from sidecar.schema import taskhub_pb2 as pb

MISSING = Reply(Outcome.MISSING, "no such instance exists")


@dataclass(frozen=True, slots=True)
class Start:
    """A client's request to start an instance.

    `replaceable` are the statuses in which an instance that already has the ID is replaced (with `ignore_existing`:
    left as it is). None: the client gave no policy. Without a policy, or with `or_ended`, an instance that has ended is
    replaced, unless configuration says that an ID is used only once. `unique`: the start is refused if the ID is taken.
    """

    identity: Identity
    started: pb.ExecutionStarted
    scheduled_at: int | None
    replaceable: frozenset[int] | None = None
    ignore_existing: bool = False
    or_ended: bool = False
    unique: bool = False


def start(at: Context, state: State | None, request: Start) -> Decision:
    """Decide a start. If the ID is taken, the reuse policy says what happens.

    A start with the execution ID of the instance that is there is the same start, tried again.
    """
    if state is not None and state.instance.origin == request.identity.execution:
        return Decision(None, Reply(Outcome.DUPLICATE))
    if state is not None:
        refusal = _refuse_reuse(at.me, state.instance, request)
        if refusal is not None:
            return Decision(None, refusal)
    event = events.execution_started(at.now, request.started, at.me.app)
    changes = creation.created(at, state, request.identity, request.started, event)
    if request.scheduled_at is None or request.scheduled_at <= at.now or changes.instance is None:
        return Decision(changes, DONE)
    actor = at.me.workflow(request.identity.hub, request.identity.id)
    reminder = Reminder(at.ids.order(), Kind.START, changes.key, actor, actor, NO_CALL, request.scheduled_at, "", event)
    waiting = replace(changes.instance, began=False, ready=False, scheduled_at=request.scheduled_at)
    return Decision(replace(changes, instance=waiting, append=(), set=(*changes.set, reminder)), DONE)


def _is_listed(existing: Instance, request: Start) -> bool:
    # A client that knows no such status sees a stalled instance as a running one.
    status = Status.RUNNING if existing.status is Status.STALLED else existing.status
    return not request.unique and request.replaceable is not None and status in request.replaceable


def takes_ended(me: AppIdentity, existing: Instance, request: Start) -> bool:
    """Whether a start replaces an instance because that has ended, and not because a policy names its status."""
    if request.unique or existing.origin == request.identity.execution or _is_listed(existing, request):
        return False
    return existing.status.terminal and me.reuse_ended and (request.replaceable is None or request.or_ended)


def _refuse_reuse(me: AppIdentity, existing: Instance, request: Start) -> Reply | None:
    if _is_listed(existing, request):
        return Reply(Outcome.DUPLICATE) if request.ignore_existing else None
    if takes_ended(me, existing, request):
        return None
    if existing.status.terminal and request.unique:
        text = f"a workflow with ID '{existing.id}' already exists and the create enforces instance ID uniqueness"
        return Reply(Outcome.EXISTS, text)
    return Reply(Outcome.EXISTS, taken(existing))


def taken(existing: Instance) -> str:
    """Say that an ID is taken, by an instance that runs or one that has ended, in the words that SDKs look for."""
    state = "an ended" if existing.status.terminal else "an active"
    return f"{state} workflow with ID '{existing.id}' already exists"


def not_reusable(instance_id: str, why: str) -> str:
    """Say why an ID cannot be used again, in the words that SDKs' users look for."""
    return f"cannot recreate workflow with ID '{instance_id}': {why}"


def restart(at: Context, state: State | None, key: int, identity: Identity, begun: pb.ExecutionStarted) -> Decision:
    """Decide to start an instance again under its ID, if it is still the one that was read (`key`) and has ended."""
    if state is None or state.instance.key != key or not state.instance.status.terminal:
        return Decision(None, Reply(Outcome.UNAVAILABLE, "the instance was changed meanwhile"))
    return Decision(
        creation.created(at, state, identity, begun, events.execution_started(at.now, begun, at.me.app)), DONE
    )


def consuming(changes: Changes, consumed: tuple[int, ...], received: tuple[Received, ...]) -> Changes:
    """Return the changes with the reminders that they consume and the messages that they acknowledge."""
    return replace(changes, dropped=changes.dropped + consumed, required=consumed, received=received)


def raise_event(at: Context, state: State | None, name: str, data: StringValue | None) -> Decision:
    """Decide an external event. For an instance that has ended it is accepted and dropped."""
    if state is None:
        return Decision(None, MISSING)
    if state.instance.status.terminal:
        return Decision(None, DONE)
    if (stalled := stalls.refusal(state.instance)) is not None:
        return Decision(None, stalled)
    rows = states.arrive(state, [events.event_raised(at.now, name, data)])
    return Decision(_step(state, rows, at.now), DONE)


def _step(state: State, rows: tuple[Row, ...], now: int, **fields: Any) -> Changes:
    return Changes(
        key=state.instance.key,
        expected=state.instance.revision,
        instance=states.touched(state, now, len(rows), **fields),
        append=rows,
    )


def terminate(
    at: Context, state: State | None, output: str | None, recurse: bool, *, by_operator: bool = False
) -> Decision:
    """Decide a terminate. For an instance that has ended it is accepted and changes nothing.

    A client's is refused for one that is stalled, as SDKs expect; an operator's is not, who may see no other way out.
    """
    if state is None:
        return Decision(None, MISSING)
    if state.instance.status.terminal:
        return Decision(None, DONE)
    stalled = stalls.refusal(state.instance)
    if stalled is not None and not state.instance.crashes.quarantined and not by_operator:
        return Decision(None, stalled)
    return terminated(Draft(at, state), output, recurse)


def terminated(
    draft: Draft,
    output: str | None,
    recurse: bool,
    consumed: tuple[int, ...] = (),
    received: tuple[Received, ...] = (),
) -> Decision:
    """Return the decision that ends an execution from outside: its parent and children get messages about it."""
    state = draft.state
    calls.end_all(draft, withdraw=True)
    if recurse:
        order = events.terminated(draft.now, output, recurse=True)
        calls.command_children(draft, Kind.TERMINATE, pauses.living(state), order)
    else:
        pauses.resume_children(draft)
    calls.fail_at_parent(draft, "WorkflowTerminated", "was terminated")
    rows = states.arrive(state, [events.terminated(draft.now, output, recurse)])
    fields: dict[str, Any] = {
        "status": Status.TERMINATED,
        "suspended": False,
        "rewind": Rewind.NO,
        "completed_at": draft.now,
        "stall": None,
        "crashes": NONE,
    }
    changes = replace(
        _step(state, rows, draft.now, **fields),
        output=output,
        close_all=True,
        set=tuple(draft.reminders),
        dropped=tuple(draft.dropped),
        released=tuple(draft.released),
        required=consumed,
        received=received,
    )
    return Decision(changes, DONE)


def is_child_of(instance: Instance, parent: ActorId, call: CallId) -> bool:
    """Whether this call of this workflow has created the instance: only then may it command the instance as a child."""
    recorded = instance.parent
    if recorded is None or recorded.actor[:2] != parent[:2]:
        return False
    return recorded.actor.id == parent.id and recorded.call == call


def refuse_purge(instance: Instance, force: bool) -> Reply | None:
    """Say why an instance is not purged (it has not ended, and `force` is not given), or return None."""
    if force or instance.status.terminal:
        return None
    stalled = stalls.refusal(instance)
    text = f"workflow '{instance.id}' is {instance.status.name}: terminate it first, or purge by force"
    return stalled or Reply(Outcome.WRONG_STATE, text)


def purge(at: Context, state: State | None, force: bool) -> Decision:
    """Decide a purge: only an instance that has ended is removed, unless it is forced."""
    if state is None:
        return Decision(None, MISSING)
    refusal = refuse_purge(state.instance, force)
    return _purged(Draft(at, state)) if refusal is None else Decision(None, refusal)


def expire(at: Context, state: State | None, key: int, revision: int) -> Decision:
    """Decide the end of an instance's retention: it is removed if it has not changed since it was read."""
    if state is None or (state.instance.key, state.instance.revision) != (key, revision):
        return Decision(None, Reply(Outcome.STALE))
    if not state.instance.status.terminal:
        return Decision(None, Reply(Outcome.WRONG_STATE))
    return _purged(Draft(at, state))


def _purged(draft: Draft) -> Decision:
    """Return the decision that removes an instance. Its messages to others stay until they are delivered."""
    state = draft.state
    calls.end_all(draft, withdraw=True)
    pauses.resume_children(draft)
    if not state.instance.status.terminal:
        calls.fail_at_parent(draft, "WorkflowPurged", "was purged")
    changes = Changes(
        key=state.instance.key,
        expected=state.instance.revision,
        purged=True,
        set=tuple(draft.reminders),
        dropped=tuple(draft.dropped),
        released=tuple(draft.released),
    )
    return Decision(changes, DONE)
