"""Sending calls: from the event that confirms a call to its reminder and its open call.

A turn sends the calls that it has just confirmed. Rewind and rerun send again the calls that a history leaves open.
"""

from collections.abc import Callable, Iterable

from sidecar.core import events
from sidecar.core.model import ActorId, CallKind, Child, Kind
from sidecar.core.workflow import entity_calls, propagated_history, waits
from sidecar.core.workflow.calls import Draft
from sidecar.schema import taskhub_pb2 as pb

_ENDS = {
    "task_completed": "task_scheduled_id",
    "task_failed": "task_scheduled_id",
    "child_completed": "task_scheduled_id",
    "child_failed": "task_scheduled_id",
    "timer_fired": "timer_id",
}
# Calls of entities are known by an ID that the worker chose, not by their task ID.
_NAMED = {"entity_called": "request_id", "entity_lock_requested": "critical_section_id"}
_NAMED_ENDS = {
    "entity_completed": "request_id",
    "entity_failed": "request_id",
    "entity_lock_granted": "critical_section_id",
}


def ended_task(event: pb.HistoryEvent) -> int | None:
    """Return the task whose call this event ends, or None if it ends none."""
    kind = event.WhichOneof("kind") or ""
    number = _ENDS.get(kind)
    return None if number is None else int(getattr(getattr(event, kind), number))


def left_open(history: Iterable[pb.HistoryEvent]) -> list[pb.HistoryEvent]:
    """Return the events whose calls have no end in this history, in the order in which they were made."""
    found: dict[int, pb.HistoryEvent] = {}
    named: dict[str, int] = {}
    waiting = waits.Waits()
    for event in history:
        kind, task = event.WhichOneof("kind") or "", ended_task(event)
        met = waiting.follow(event)
        if met is not None:
            task = met
        elif kind in _NAMED_ENDS:
            task = named.pop(getattr(getattr(event, kind), _NAMED_ENDS[kind]), None)
        if task is not None:
            found.pop(task, None)
        elif kind in SENDERS:
            found.pop(event.event_id, None)
            found[event.event_id] = event
        if kind == "timer_created":
            waiting.add(waits.Wait(event.event_id, waits.awaited(event.timer_created)))
        elif kind in _NAMED:
            named[getattr(getattr(event, kind), _NAMED[kind])] = event.event_id
    return list(found.values())


def target(draft: Draft, event: pb.HistoryEvent, kind: str, actor_id: str) -> ActorId:
    """Return the actor that an event addresses. If the event names no app, the actor is one of this app."""
    app = event.router.target_app_id or draft.me.app
    namespace = event.router.target_namespace or draft.me.namespace
    own = app == draft.me.app and namespace == draft.me.namespace
    return ActorId(namespace, app, kind, draft.state.instance.hub if own else "", actor_id)


def send(draft: Draft, event: pb.HistoryEvent) -> None:
    """Send the call that an event confirms, as a call of this turn."""
    SENDERS[event.WhichOneof("kind") or ""](draft, event)


def _task(draft: Draft, event: pb.HistoryEvent) -> None:
    task, call = event.task_scheduled, draft.call_id(event.event_id)
    actor = target(draft, event, "activity", f"{draft.state.instance.id}::{event.event_id}::{draft.turn}")
    request = pb.ActivityRequest(
        name=task.name,
        **events.given(task, "version", "input", "parent_trace_context"),
        tags=task.tags,
        task_execution_id=task.task_execution_id,
        input_form=task.input_form,
        workflow_version="" if task.version.value else draft.state.instance.version or "",
        lineage=propagated_history.of_call(draft, task.history_propagation_scope),
        task_id=event.event_id,
        instance=pb.WorkflowInstance(instance_id=draft.state.instance.id, app_id=draft.me.app),
    )
    request.instance.execution_id.value = draft.state.instance.execution
    payload = request.SerializeToString(deterministic=True)
    reminder = draft.remind(
        Kind.ACTIVITY, actor, payload, call=call, name=task.name, kept_until_result=not draft.me.owns(actor)
    )
    execution = task.task_execution_id
    draft.open(call, CallKind.ACTIVITY, task.name, actor, reminder.id, task_execution=execution)


def _child(draft: Draft, event: pb.HistoryEvent) -> None:
    child, call = event.child_created, draft.call_id(event.event_id)
    actor = target(draft, event, "workflow", child.instance_id)
    started = pb.ExecutionStarted(
        name=child.name,
        **events.given(child, "version", "input", "parent_trace_context"),
        tags=child.tags,
        parent=_as_parent(draft, event.event_id),
        lineage=propagated_history.of_call(draft, child.history_propagation_scope),
        instance=pb.WorkflowInstance(instance_id=child.instance_id, app_id=actor.app),
    )
    started.instance.execution_id.value = draft.at.ids.new_id()
    payload = events.execution_started(draft.now, started, draft.me.app, actor.app)
    reminder = draft.remind(
        Kind.CREATE, actor, payload, call=call, name=child.name, kept_until_result=not draft.me.owns(actor)
    )
    draft.open(call, CallKind.CHILD, child.name, actor, reminder.id)
    draft.children.append(Child(actor, call))


def _as_parent(draft: Draft, task: int) -> pb.ParentInstance:
    instance = draft.state.instance
    parent = pb.ParentInstance(
        task_scheduled_id=task,
        name=events.text(instance.name),
        version=events.text(instance.version),
        app_id=draft.me.app,
        app_namespace=draft.me.namespace,
        turn=draft.turn,
        hub=instance.hub,
        instance=pb.WorkflowInstance(instance_id=instance.id, app_id=draft.me.app),
    )
    parent.instance.execution_id.value = instance.execution
    return parent


def _timer(draft: Draft, event: pb.HistoryEvent) -> None:
    timer, call = event.timer_created, draft.call_id(event.event_id)
    fire_at = timer.fire_at if timer.HasField("fire_at") else None
    awaited = waits.awaited(timer)
    if fire_at is not None and events.never(fire_at):
        if awaited:
            draft.open(call, CallKind.WAIT, awaited, draft.actor, 0)
        return
    if draft.ending:
        return
    due = draft.now if fire_at is None else max(0, events.micros(fire_at))
    payload = events.timer_fired(fire_at, event.event_id, draft.now, awaited)
    reminder = draft.remind(Kind.TIMER, draft.actor, payload, call=call, due=due)
    draft.open(call, CallKind.TIMER, awaited, draft.actor, reminder.id)


def _sent(draft: Draft, event: pb.HistoryEvent) -> None:
    """Remember a message that nobody answers, so that a replay does not send it again."""
    kind = event.WhichOneof("kind") or ""
    actor = target(draft, event, "workflow", getattr(event, kind).instance_id)
    draft.open(draft.call_id(event.event_id), CallKind.EVENT, getattr(getattr(event, kind), "name", ""), actor, 0)


SENDERS: dict[str, Callable[[Draft, pb.HistoryEvent], None]] = {
    "task_scheduled": _task,
    "child_created": _child,
    "timer_created": _timer,
    "event_sent": _sent,
    "detached_created": _sent,
    "entity_called": entity_calls.call,
    "entity_lock_requested": entity_calls.lock,
}
