"""Rerun from an event: a new instance gets the history of another one up to this event, and goes on from there.

Calls that the copied history leaves open are made again: activities, timers with the time they were set for, and
children, which get new IDs. Its first turn comes with the first answer to one of them.
The instance that is copied does not change.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Changes, Decision, Instance, Outcome, Reply, Rewind, Row, State, Status
from sidecar.core.names import invalid_new_id
from sidecar.core.workflow import call_emission, creation, stalls
from sidecar.core.workflow.calls import Draft, Lineage
from sidecar.core.workflow.creation import Identity
from sidecar.schema import taskhub_pb2 as pb

_TURN = 1  # the copied history is the first turn of the new instance
_TARGETS = {"task_scheduled": "activity", "timer_created": "timer", "child_created": "child workflow"}
# What was done to the old instance from outside, and how it ended, is not copied.
_OF_THE_OLD = frozenset(
    {"execution_suspended", "execution_resumed", "execution_terminated", "execution_completed", "execution_stalled"}
)


class RerunRequest(NamedTuple):
    """The event to go on from, and what of it is changed: its input, with the form of that, the ID of its child."""

    event_id: int
    overwrite: bool = False
    input: StringValue | None = None
    child_id: str | None = None
    input_form: int = 0


class Source(NamedTuple):
    """The instance that is copied, and all of its history that workers have seen."""

    instance: Instance
    log: Sequence[bytes]


def rerun(at: Context, state: State | None, of: Source, identity: Identity, request: RerunRequest) -> Decision:
    """Decide to create an instance with the history of another before an event. SDKs know the texts of the refusals."""
    source = of.instance
    if state is not None:
        same = state.instance.origin == identity.execution
        text = f"workflow '{identity.id}' has already been created"
        return Decision(None, Reply(Outcome.DUPLICATE if same else Outcome.EXISTS, text))
    if not source.status.terminal:
        return _refused(f"'{source.id}' is not in a terminal state")
    if source.parent is not None:
        return _refused(f"'{source.id}': cannot rerun from child-workflows")
    past = [events.decode(event) for event in of.log]
    index = next((index for index, event in enumerate(past) if event.event_id == request.event_id), None)
    if index is None or request.event_id < 0:
        return Decision(None, _missing(source, request.event_id))
    refusal = _refuse_target(past[index], request, identity)
    if refusal is not None:
        return Decision(None, refusal)
    history = [event for event in past[:index] if event.WhichOneof("kind") not in _OF_THE_OLD]
    history.append(_changed(past[index], request, source))
    return Decision(_made(at, identity, _with_own_ids(history, request, identity)), DONE)


def _refused(text: str) -> Decision:
    return Decision(None, Reply(Outcome.INVALID, text))


def _missing(source: Instance, number: int) -> Reply:
    if number == source.ended_by and number >= 0:  # the event of the end is made only when a history is shown
        return _no_target("execution_completed", number)
    return Reply(Outcome.MISSING, f"does not have history event with ID '{number}'")


def _no_target(kind: str, number: int) -> Reply:
    name = kind.title().replace("_", "")  # suites of SDKs compare the text
    text = f"target event '*protos.HistoryEvent_{name}' with ID '{number}' is not an event that can be rerun"
    return Reply(Outcome.MISSING, text)


def _refuse_target(event: pb.HistoryEvent, request: RerunRequest, identity: Identity) -> Reply | None:
    kind, number = event.WhichOneof("kind") or "nothing", request.event_id
    if kind == "detached_created":
        return Reply(Outcome.INVALID, f"cannot rerun from the start of a detached workflow, event '{number}'")
    if kind not in _TARGETS:
        return _no_target(kind, number)
    if kind == "timer_created" and request.overwrite:
        return Reply(Outcome.INVALID, f"cannot write input to timer event '{number}'")
    if kind != "child_created" and request.child_id is not None:
        text = f"cannot set new child workflow instance ID on {_TARGETS[kind]} event '{number}'"
        return Reply(Outcome.INVALID, text)
    wrong = invalid_new_id(_child_id(event, request, identity)) if kind == "child_created" else None
    return None if wrong is None else Reply(Outcome.INVALID, wrong)


def _child_id(event: pb.HistoryEvent, request: RerunRequest, identity: Identity) -> str:
    if event.event_id == request.event_id and request.child_id is not None:
        return request.child_id
    return f"{identity.id}:{event.event_id & 0xFFFFFFFF:04x}"


def _changed(event: pb.HistoryEvent, request: RerunRequest, source: Instance) -> pb.HistoryEvent:
    """Return the event to go on from, with its new input and the ID of the instance that is copied."""
    changed = pb.HistoryEvent()
    changed.CopyFrom(event)
    body = getattr(changed, changed.WhichOneof("kind") or "")
    body.rerun_parent.instance_id = source.id
    if request.overwrite:
        body.ClearField("input")
        if request.input is not None:
            body.input.CopyFrom(request.input)
        if changed.HasField("task_scheduled"):
            body.input_form = request.input_form
    return changed


def _with_own_ids(history: list[pb.HistoryEvent], request: RerunRequest, identity: Identity) -> list[pb.HistoryEvent]:
    """Return the history with the IDs of the new instance, and new IDs for the children that it creates again."""
    unfinished = {id(event) for event in call_emission.left_open(history)}
    own = []
    for event in history:
        copied = pb.HistoryEvent()
        copied.CopyFrom(event)
        if event.HasField("execution_started"):
            copied.execution_started.instance.instance_id = identity.id
            copied.execution_started.instance.execution_id.value = identity.execution
            copied.execution_started.ClearField("scheduled_start")
        elif event.HasField("child_created") and id(event) in unfinished:
            copied.child_created.instance_id = _child_id(event, request, identity)
        own.append(copied)
    return own


def _made(at: Context, identity: Identity, history: list[pb.HistoryEvent]) -> Changes:
    started = next(event.execution_started for event in history if event.HasField("execution_started"))
    times = [events.micros(event.timestamp) for event in history if event.HasField("orchestrator_started")]
    instance = creation.fresh(started, identity, at.now, at.ids.key())
    recorded = stalls.of_history(history)
    fields: dict[str, Any] = {"last_completed_turn": _TURN, "workflow_time": max(times), "recorded": recorded}
    instance = replace(instance, status=Status.RUNNING, started_at=at.now, ready=False, **fields)
    draft = Draft(at, State(instance), _TURN, lineage=Lineage(list(map(events.encode, history))))
    for event in call_emission.left_open(history):
        call_emission.send(draft, event)
    if (
        not draft.reminders
    ):  # nothing will come by itself: a replay makes what the copied turn has made behind the event
        instance = replace(instance, rewind=Rewind.REPLAY, ready=True)
    return Changes(
        key=instance.key,
        instance=instance,
        append=tuple(Row(_TURN, index, events.encode(event)) for index, event in enumerate(history)),
        opened=tuple(draft.opened.values()),
        children=tuple(draft.children),
        set=tuple(draft.reminders),
    )
