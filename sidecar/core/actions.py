"""What a worker may ask for in a turn: one handler an action kind, found in a table.

A new kind is one function, one row of `HANDLERS` and one test.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.core import calls, events
from sidecar.core.calls import Draft
from sidecar.core.model import ActorId, CallKind, Child, Kind, UnsupportedActionError
from sidecar.core.names import invalid_app_id, invalid_instance_id, invalid_name
from sidecar.schema import taskhub_pb2 as pb

APP_TAG = "app-id"  # names the target app of a call of an SDK that has tags and no app IDs


def carry_out(draft: Draft, action: pb.Action) -> None:
    """Take an action into the draft; one that was carried out before, in this turn or an earlier one, changes nothing.

    Raises:
        UnsupportedActionError: it cannot be carried out; the text names it.
    """
    kind = action.WhichOneof("kind")
    handler = HANDLERS.get(kind or "")
    if handler is None:
        raise UnsupportedActionError(f"this sidecar cannot carry out the action {kind or 'without a kind'!r} yet")
    if action.id not in draft.done and not draft.is_open(action.id):
        draft.done.add(action.id)
        handler(draft, action)


def _app_of(draft: Draft, action: pb.Action, kind: str, name: str, tags: Mapping[str, str]) -> str:
    """Return the app that a call goes to: the one that it names, else that of its tag, else that of a route."""
    return action.router.target_app_id or tags.get(APP_TAG, "") or draft.me.routed(kind, name)


def _target(draft: Draft, action: pb.Action, kind: str, actor_id: str, app: str = "") -> tuple[ActorId, str | None]:
    """Return the actor that the action addresses, and what is wrong with the address."""
    router = action.router
    app = app or router.target_app_id or draft.me.app
    namespace = router.target_namespace or draft.me.namespace
    hub = draft.state.instance.hub if app == draft.me.app and namespace == draft.me.namespace else ""
    return ActorId(namespace, app, kind, hub, actor_id), invalid_app_id(app) or invalid_app_id(namespace)


def _route(draft: Draft, event: pb.HistoryEvent, target: ActorId) -> None:
    if not draft.me.owns(target):
        event.router.source_app_id = draft.me.app
        event.router.target_app_id = target.app
        if target.namespace != draft.me.namespace:
            event.router.target_namespace = target.namespace


def _trace(draft: Draft, wanted: pb.ScheduleTask | pb.CreateChild | pb.CreateDetached) -> pb.TraceContext | None:
    """Return the trace context that a call belongs to: its own, else that of its maker, as far as there is one."""
    if wanted.HasField("parent_trace_context"):
        return wanted.parent_trace_context
    trace = draft.state.instance.trace
    return pb.TraceContext.FromString(trace) if trace else None


def _schedule_task(draft: Draft, action: pb.Action) -> None:
    task = action.schedule_task
    call = draft.call_id(action.id)
    app = _app_of(draft, action, "activity", task.name, task.tags)
    target, wrong = _target(draft, action, "activity", f"{draft.state.instance.id}::{action.id}::{draft.turn}", app)
    event = events.confirmation(draft.now, action.id)
    fields: dict[str, Any] = {
        "name": task.name,
        "version": task.version if task.HasField("version") else None,
        "input": task.input if task.HasField("input") else None,
        "parent_trace_context": _trace(draft, task),
        "tags": task.tags,
        "task_execution_id": task.task_execution_id,
    }
    event.task_scheduled.CopyFrom(pb.TaskScheduled(**fields))
    _route(draft, event, target)
    draft.confirmed.append(events.encode(event))
    if wrong:
        calls.unreachable(draft, call, CallKind.ACTIVITY, events.failure("InvalidAppId", wrong, retriable=False))
        return
    instance = pb.WorkflowInstance(instance_id=draft.state.instance.id, app_id=draft.me.app)
    instance.execution_id.value = draft.state.instance.execution
    request = pb.ActivityRequest(task_id=action.id, instance=instance, **fields)
    payload = request.SerializeToString(deterministic=True)
    reminder = draft.remind(Kind.ACTIVITY, target, payload, call=call, name=task.name, held=not draft.me.owns(target))
    draft.open(call, CallKind.ACTIVITY, task.name, target, reminder.id)


def _create_child(draft: Draft, action: pb.Action) -> None:
    child = action.create_child
    call = draft.call_id(action.id)
    child_id = child.instance_id or f"{draft.state.instance.id}:{action.id & 0xFFFFFFFF:04x}"
    app = _app_of(draft, action, "workflow", child.name, child.tags)
    target, wrong = _target(draft, action, "workflow", child_id, app)
    kind = "InvalidAppId" if wrong else "InvalidInstanceId"
    wrong = wrong or invalid_instance_id(child_id)
    event = events.confirmation(draft.now, action.id)
    fields: dict[str, Any] = {
        "name": child.name,
        "version": child.version if child.HasField("version") else None,
        "input": child.input if child.HasField("input") else None,
        "parent_trace_context": _trace(draft, child),
        "tags": child.tags,
    }
    event.child_created.CopyFrom(pb.ChildCreated(instance_id=child_id, **fields))
    _route(draft, event, target)
    draft.confirmed.append(events.encode(event))
    if wrong:
        calls.unreachable(draft, call, CallKind.CHILD, events.failure(kind, wrong, retriable=False))
        return
    execution = draft.at.ids.new_id()
    started = pb.ExecutionStarted(parent=_as_parent(draft, action.id), **fields)
    started.instance.CopyFrom(pb.WorkflowInstance(instance_id=child_id, app_id=target.app))
    started.instance.execution_id.value = execution
    payload = events.execution_started(draft.now, started, draft.me.app, target.app)
    held = not draft.me.owns(target)
    reminder = draft.remind(Kind.CREATE, target, payload, call=call, name=child.name, held=held)
    draft.open(call, CallKind.CHILD, child.name, target, reminder.id)
    draft.children.append(Child(target, call))


def _create_detached(draft: Draft, action: pb.Action) -> None:
    """Start a workflow that is nobody's child: no parent, no answer, and no command of its maker reaches it."""
    wanted = action.create_detached
    instance_id = wanted.instance_id or _unnamed(draft)
    target, wrong = _target(draft, action, "workflow", instance_id)
    wrong = wrong or invalid_instance_id(instance_id) or invalid_name("workflow", wanted.name)
    if wrong:
        raise UnsupportedActionError(wrong)
    event = events.confirmation(draft.now, action.id)
    event.detached_created.instance_id = instance_id
    _route(draft, event, target)
    draft.confirmed.append(events.encode(event))
    started = pb.ExecutionStarted(
        name=wanted.name,
        version=wanted.version if wanted.HasField("version") else None,
        input=wanted.input if wanted.HasField("input") else None,
        scheduled_start=wanted.scheduled_start if wanted.HasField("scheduled_start") else None,
        parent_trace_context=_trace(draft, wanted),
        tags=wanted.tags,
    )
    started.instance.CopyFrom(pb.WorkflowInstance(instance_id=instance_id, app_id=target.app))
    started.instance.execution_id.value = wanted.execution_id.value or draft.at.ids.new_id()
    call = draft.call_id(action.id)
    draft.remind(Kind.DETACHED, target, events.execution_started(draft.now, started, target.app), call=call)
    draft.open(call, CallKind.EVENT, wanted.name, target, 0)


def _unnamed(draft: Draft) -> str:
    instance = draft.state.instance
    draft.detached += 1
    return f"{instance.id}-{instance.detached + draft.detached - 1}"


def _as_parent(draft: Draft, task: int) -> pb.ParentInstance:
    instance = draft.state.instance
    parent = pb.ParentInstance(
        task_scheduled_id=task,
        app_id=draft.me.app,
        app_namespace=draft.me.namespace,
        turn=draft.turn,
        hub=instance.hub,
        instance=pb.WorkflowInstance(instance_id=instance.id, app_id=draft.me.app),
    )
    parent.name.value = instance.name
    if instance.version is not None:
        parent.version.value = instance.version
    parent.instance.execution_id.value = instance.execution
    return parent


def _create_timer(draft: Draft, action: pb.Action) -> None:
    timer = action.create_timer
    fire_at = timer.fire_at if timer.HasField("fire_at") else None
    event = events.confirmation(draft.now, action.id)
    event.timer_created.CopyFrom(pb.TimerCreated(fire_at=fire_at))
    event.timer_created.MergeFromString(_origin(timer))
    draft.confirmed.append(events.encode(event))
    if fire_at is not None and events.never(fire_at):
        return
    call = draft.call_id(action.id)
    due = draft.now if fire_at is None else max(0, events.micros(fire_at))
    payload = events.timer_fired(fire_at, action.id, draft.now)
    if not draft.ending:
        reminder = draft.remind(Kind.TIMER, draft.actor, payload, call=call, due=due)
        draft.open(call, CallKind.TIMER, "", draft.actor, reminder.id)


def _origin(timer: pb.CreateTimer) -> bytes:
    """Return the timer's name and origin as TimerCreated numbers them: some SDKs look for it there."""
    origin = pb.TimerOrigin(
        name=timer.name,
        create_timer=timer.origin_create_timer if timer.HasField("origin_create_timer") else None,
        external_event=timer.origin_external_event if timer.HasField("origin_external_event") else None,
        activity_retry=timer.origin_activity_retry if timer.HasField("origin_activity_retry") else None,
        child_retry=timer.origin_child_retry if timer.HasField("origin_child_retry") else None,
    )
    return origin.SerializeToString()


def _send_event(draft: Draft, action: pb.Action) -> None:
    send = action.send_event
    target, wrong = _target(draft, action, "workflow", send.instance.instance_id)
    if send.instance.app_id and not action.router.target_app_id:
        wrong = wrong or invalid_app_id(send.instance.app_id)
        target = target._replace(
            app=send.instance.app_id, hub=target.hub if send.instance.app_id == draft.me.app else ""
        )
    data = send.data if send.HasField("data") else None
    event = events.confirmation(draft.now, action.id)
    event.event_sent.CopyFrom(pb.EventSent(instance_id=send.instance.instance_id, name=send.name, input=data))
    draft.confirmed.append(events.encode(event))
    wrong = wrong or invalid_instance_id(target.id)
    if wrong:
        raise UnsupportedActionError(wrong)
    call = draft.call_id(action.id)
    draft.remind(Kind.EVENT, target, events.event_raised(draft.now, send.name, data), call=call)
    draft.open(call, CallKind.EVENT, send.name, target, 0)


def _terminate(draft: Draft, action: pb.Action) -> None:
    order = action.terminate
    reason = order.reason.value if order.HasField("reason") else None
    target, wrong = _target(draft, action, "workflow", order.instance_id)
    wrong = wrong or invalid_instance_id(target.id)
    if wrong or not draft.me.owns(target):
        raise UnsupportedActionError(wrong or "an instance of another app is ended by its own parent or client")
    draft.remind(Kind.TERMINATE, target, events.terminated(draft.now, reason, order.recurse))


HANDLERS: dict[str, Callable[[Draft, pb.Action], None]] = {
    "schedule_task": _schedule_task,
    "create_child": _create_child,
    "create_detached": _create_detached,
    "create_timer": _create_timer,
    "send_event": _send_event,
    "terminate": _terminate,
}
