"""What a worker may ask for in a turn: one handler an action kind, found in a table.

A new kind is one function, one row of `HANDLERS` and one test.
"""

from collections.abc import Callable, Mapping

from sidecar.core import events, traces
from sidecar.core.errors import UnsupportedActionError
from sidecar.core.model import ActorId, CallKind, Kind
from sidecar.core.names import invalid_app_id, invalid_instance_id, invalid_name, invalid_new_id
from sidecar.core.workflow import call_emission, calls, entity_calls
from sidecar.core.workflow.calls import Draft
from sidecar.schema import taskhub_pb2 as pb

APP_TAG = "app-id"  # names the target app of a call of an SDK that has tags and no app IDs


def carry_out(draft: Draft, action: pb.Action) -> None:
    """Add an action to the draft. One that was carried out before, in this turn or an earlier one, changes nothing.

    Raises:
        UnsupportedActionError: it cannot be carried out; the text names it.
    """
    kind = action.WhichOneof("kind")
    handler = HANDLERS.get(kind or "")
    if handler is None:
        raise UnsupportedActionError(f"this sidecar cannot carry out the action {kind or 'without a kind'!r} yet")
    if action.id not in draft.done and not (draft.is_open(action.id) or _was_sent(draft, action.id, kind)):
        draft.done.add(action.id)
        handler(draft, action)


def _was_sent(draft: Draft, task: int, kind: str | None) -> bool:
    """Whether this is a message that nobody answers and that was sent so long ago that its call is closed."""
    return kind in ("send_event", "create_detached") and task < draft.sent_before


def _app_of(draft: Draft, action: pb.Action, kind: str, name: str, tags: Mapping[str, str]) -> str:
    """Return the app that a call goes to: the app that it names, else that of its tag, else that of a route."""
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
    """Return the trace context of a call: its own, else that of the workflow that makes it, else none."""
    if wanted.HasField("parent_trace_context"):
        return wanted.parent_trace_context
    if draft.me.traces:
        return traces.of_execution(draft.state.instance).context()
    trace = draft.state.instance.trace
    return pb.TraceContext.FromString(trace) if trace else None


def _make(
    draft: Draft, event: pb.HistoryEvent, target: ActorId, kind: CallKind, *, error: str, wrong: str | None
) -> None:
    """Confirm a call and make it. If something is `wrong` with its address, it fails with `error` instead."""
    _route(draft, event, target)
    draft.confirmed.append(events.encode(event))
    if wrong:
        details = events.failure(error, wrong, retriable=False)
        execution = event.task_scheduled.task_execution_id
        calls.unreachable(draft, draft.call_id(event.event_id), kind, details, execution)
    else:
        call_emission.send(draft, event)


def _schedule_task(draft: Draft, action: pb.Action) -> None:
    task = action.schedule_task
    app = _app_of(draft, action, "activity", task.name, task.tags)
    target, wrong = _target(draft, action, "activity", "", app)
    event = events.confirmation(draft.now, action.id)
    event.task_scheduled.CopyFrom(
        pb.TaskScheduled(
            name=task.name,
            **events.given(task, "version", "input"),
            parent_trace_context=_trace(draft, task),
            tags=task.tags,
            task_execution_id=task.task_execution_id,
            history_propagation_scope=task.history_propagation_scope,
            input_form=task.input_form,
        )
    )
    _make(draft, event, target, CallKind.ACTIVITY, error="InvalidAppId", wrong=wrong)


def _create_child(draft: Draft, action: pb.Action) -> None:
    child = action.create_child
    child_id = child.instance_id or f"{draft.state.instance.id}:{action.id & 0xFFFFFFFF:04x}"
    app = _app_of(draft, action, "workflow", child.name, child.tags)
    target, wrong = _target(draft, action, "workflow", child_id, app)
    error = "InvalidAppId" if wrong else "InvalidInstanceId" if invalid_new_id(child_id) else "InvalidName"
    wrong = wrong or invalid_new_id(child_id) or invalid_name("workflow", child.name)
    event = events.confirmation(draft.now, action.id)
    event.child_created.CopyFrom(
        pb.ChildCreated(
            instance_id=child_id,
            name=child.name,
            **events.given(child, "version", "input", "retry_parent"),
            parent_trace_context=_trace(draft, child),
            tags=child.tags,
            history_propagation_scope=child.history_propagation_scope,
        )
    )
    _make(draft, event, target, CallKind.CHILD, error=error, wrong=wrong)


def _create_detached(draft: Draft, action: pb.Action) -> None:
    """Start a workflow that is nobody's child: it has no parent, answers nobody, and takes no commands of its maker."""
    wanted = action.create_detached
    instance_id = wanted.instance_id or _unnamed(draft)
    target, wrong = _target(draft, action, "workflow", instance_id)
    wrong = wrong or invalid_new_id(instance_id) or invalid_name("workflow", wanted.name)
    if wrong:
        raise UnsupportedActionError(wrong)
    event = events.confirmation(draft.now, action.id)
    event.detached_created.instance_id = instance_id
    _route(draft, event, target)
    draft.confirmed.append(events.encode(event))
    started = pb.ExecutionStarted(
        name=wanted.name,
        **events.given(wanted, "version", "input", "scheduled_start"),
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


def _create_timer(draft: Draft, action: pb.Action) -> None:
    timer = action.create_timer
    event = events.confirmation(draft.now, action.id)
    event.timer_created.CopyFrom(pb.TimerCreated(fire_at=timer.fire_at if timer.HasField("fire_at") else None))
    event.timer_created.MergeFromString(_origin(timer))
    draft.confirmed.append(events.encode(event))
    call_emission.send(draft, event)


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
    "send_entity_message": entity_calls.send,
    "terminate": _terminate,
}
