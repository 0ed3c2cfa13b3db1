"""A turn: what is handed to a worker, and what follows from its answer.

`begin` and `complete` are pure. A new kind of action is one handler, one row of `HANDLERS` and one test.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import calls, events
from sidecar.core import state as states
from sidecar.core.calls import Draft
from sidecar.core.model import (
    FIRST_ARRIVAL,
    ActorId,
    CallKind,
    Changes,
    Child,
    Context,
    Instance,
    Kind,
    OvertakenError,
    Position,
    Row,
    Self,
    State,
    Status,
    Turn,
    UnsupportedActionError,
)
from sidecar.core.names import invalid_app_id, invalid_instance_id
from sidecar.schema import taskhub_pb2 as pb

_ENDS = frozenset({Status.COMPLETED, Status.FAILED, Status.TERMINATED, Status.CANCELED, Status.CONTINUED_AS_NEW})


def begin(state: State, now: int, token: str) -> Turn:
    """Close the inbox into a turn. The caller moves `state.tail` past it with `after`."""
    rows = tuple(state.inbox)
    time = events.clock_after(rows, max(now, state.instance.workflow_time))
    instance = state.instance
    return Turn(
        instance.key,
        instance.execution,
        max(row.turn for row in rows),
        token,
        events.orchestrator_started(time),
        time,
        rows,
    )


def after(state: State, turn: Turn) -> Position:
    """Return where arrivals go while the turn is out."""
    return max(state.tail, Position(turn.number + 1, FIRST_ARRIVAL))


def complete(at: Context, state: State, turn: Turn, response: pb.OrchestratorResponse) -> Changes:
    """Return what a worker's answer to a turn changes.

    `response` is in neutral form. An answer that cannot be carried out ends the instance as failed, saying why.

    Raises:
        OvertakenError: the instance was terminated, suspended, replaced or continued meanwhile.
    """
    _check_current(state.instance, turn)
    draft = Draft(at, state, turn.number)
    ending = next((action for action in response.actions if action.WhichOneof("kind") == "complete"), None)
    try:
        if ending is not None and ending.complete.status not in _ENDS:
            raise UnsupportedActionError(f"an execution cannot end with status {ending.complete.status}")
        draft.ending = ending is not None
        for action in response.actions:
            if action is not ending:
                _carry_out(draft, action)
    except UnsupportedActionError as error:
        draft = Draft(at, state, turn.number, ending=True)
        ending = _failed_by_us(str(error))
    if ending is None:
        return _go_on(draft, turn, response)
    if ending.complete.status == Status.CONTINUED_AS_NEW:
        return _continue_as_new(draft, turn, ending.complete, response)
    return _end(draft, turn, ending.complete, response)


def _check_current(instance: Instance, turn: Turn) -> None:
    same = (instance.key, instance.execution) == (turn.key, turn.execution) and turn.number > instance.covered
    if not same or instance.suspended or instance.status.terminal:
        raise OvertakenError(f"turn {turn.number} was overtaken")


def _failed_by_us(message: str) -> pb.Action:
    details = events.failure("UnsupportedAction", message, retriable=False)
    return pb.Action(id=-1, complete=pb.Complete(status=Status.FAILED, failure=details))


def _carry_out(draft: Draft, action: pb.Action) -> None:
    kind = action.WhichOneof("kind")
    handler = HANDLERS.get(kind or "")
    if handler is None:
        raise UnsupportedActionError(f"this sidecar cannot carry out the action {kind or 'without a kind'!r} yet")
    if not draft.is_open(action.id):
        handler(draft, action)


# ---------------------------------------------------------------- handlers


def _target(draft: Draft, action: pb.Action, kind: str, actor_id: str) -> tuple[ActorId, str | None]:
    """Return the actor that the action addresses, and what is wrong with the address."""
    router = action.router
    app = router.target_app_id or draft.me.app
    namespace = router.target_namespace or draft.me.namespace
    hub = draft.state.instance.hub if app == draft.me.app and namespace == draft.me.namespace else ""
    return ActorId(namespace, app, kind, hub, actor_id), invalid_app_id(app) or invalid_app_id(namespace)


def _route(draft: Draft, event: pb.HistoryEvent, target: ActorId) -> None:
    if not draft.me.owns(target):
        event.router.source_app_id = draft.me.app
        event.router.target_app_id = target.app
        if target.namespace != draft.me.namespace:
            event.router.target_namespace = target.namespace


def _schedule_task(draft: Draft, action: pb.Action) -> None:
    task = action.schedule_task
    call = draft.call_id(action.id)
    target, wrong = _target(draft, action, "activity", f"{draft.state.instance.id}::{action.id}::{draft.turn}")
    event = events.confirmation(draft.now, action.id)
    fields: dict[str, Any] = {
        "name": task.name,
        "version": task.version if task.HasField("version") else None,
        "input": task.input if task.HasField("input") else None,
        "parent_trace_context": task.parent_trace_context if task.HasField("parent_trace_context") else None,
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
    target, wrong = _target(draft, action, "workflow", child_id)
    kind = "InvalidAppId" if wrong else "InvalidInstanceId"
    wrong = wrong or invalid_instance_id(child_id)
    event = events.confirmation(draft.now, action.id)
    fields: dict[str, Any] = {
        "name": child.name,
        "version": child.version if child.HasField("version") else None,
        "input": child.input if child.HasField("input") else None,
        "parent_trace_context": child.parent_trace_context if child.HasField("parent_trace_context") else None,
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
        wrong = invalid_app_id(send.instance.app_id)
        target = target._replace(
            app=send.instance.app_id, hub=target.hub if send.instance.app_id == draft.me.app else ""
        )
    data = send.data if send.HasField("data") else None
    event = events.confirmation(draft.now, action.id)
    event.event_sent.CopyFrom(pb.EventSent(instance_id=send.instance.instance_id, name=send.name, input=data))
    draft.confirmed.append(events.encode(event))
    if wrong:
        raise UnsupportedActionError(wrong)
    call = draft.call_id(action.id)
    draft.remind(Kind.EVENT, target, events.event_raised(draft.now, send.name, data), call=call)
    draft.open(call, CallKind.EVENT, send.name, target, 0)


def _terminate(draft: Draft, action: pb.Action) -> None:
    order = action.terminate
    reason = order.reason.value if order.HasField("reason") else None
    target, wrong = _target(draft, action, "workflow", order.instance_id)
    if wrong or not draft.me.owns(target):
        raise UnsupportedActionError(wrong or "an instance of another app is ended by its own parent or client")
    draft.remind(Kind.TERMINATE, target, events.terminated(draft.now, reason, order.recurse))


HANDLERS: dict[str, Callable[[Draft, pb.Action], None]] = {
    "schedule_task": _schedule_task,
    "create_child": _create_child,
    "create_timer": _create_timer,
    "send_event": _send_event,
    "terminate": _terminate,
}


# ---------------------------------------------------------------- outcomes of a turn


def _covered(draft: Draft, turn: Turn, response: pb.OrchestratorResponse) -> tuple[Row, ...]:
    """Return the rows that close the turn: its start, in front, and the confirmations of its actions, behind."""
    version = response.version if response.HasField("version") else None
    started = turn.started if version is None else events.orchestrator_started(turn.time, version)
    last = max((row.place for row in turn.rows if row.turn == turn.number), default=0)
    place = max(last + 1, FIRST_ARRIVAL)
    rows = [Row(draft.state.instance.covered + 1, 0, started)]
    rows.extend(Row(turn.number, place + offset, event) for offset, event in enumerate(draft.confirmed))
    return tuple(rows)


def _base(draft: Draft, response: pb.OrchestratorResponse, turn: Turn) -> dict[str, Any]:
    instance = draft.state.instance
    fields: dict[str, Any] = {
        "covered": turn.number,
        "workflow_time": turn.time,
        "started_at": instance.started_at if instance.started_at is not None else turn.time,
    }
    if response.custom_status.value:
        fields["custom_status"] = response.custom_status.value
    return fields


def _go_on(draft: Draft, turn: Turn, response: pb.OrchestratorResponse) -> Changes:
    arrivals = states.arrive(draft.state, draft.arrivals)
    fields = _base(draft, response, turn) | {"status": Status.RUNNING}
    return _changes(
        draft,
        states.touched(draft.state, draft.now, len(arrivals), **fields),
        append=_covered(draft, turn, response) + arrivals,
    )


def _changes(draft: Draft, instance: Instance, **fields: Any) -> Changes:
    return Changes(
        key=instance.key,
        expected=draft.state.instance.revision,
        instance=instance,
        opened=tuple(draft.opened.values()),
        children=tuple(draft.children),
        set=tuple(draft.reminders),
        dropped=tuple(draft.dropped),
        released=tuple(draft.released),
        **fields,
    )


def _end(draft: Draft, turn: Turn, complete_: pb.Complete, response: pb.OrchestratorResponse) -> Changes:
    calls.end_all(draft, withdraw=complete_.status == Status.TERMINATED)
    result = complete_.result if complete_.HasField("result") else None
    calls.answer_parent(draft, _answer(draft, complete_))
    details = complete_.failure.SerializeToString(deterministic=True) if complete_.HasField("failure") else None
    fields = _base(draft, response, turn) | {
        "status": Status(complete_.status),
        "completed_at": draft.now,
        "failure": details,
    }
    return _changes(
        draft,
        states.touched(draft.state, draft.now, 0, **fields),
        append=_covered(draft, turn, response),
        output=None if result is None else result.value,
        close_all=True,
    )


def _answer(draft: Draft, complete_: pb.Complete) -> bytes:
    parent = draft.state.instance.parent
    task = parent.call.task if parent else 0
    if complete_.status == Status.COMPLETED:
        return events.child_completed(draft.now, task, complete_.result if complete_.HasField("result") else None)
    if complete_.HasField("failure"):
        return events.child_failed(draft.now, task, complete_.failure)
    name = Status(complete_.status).name.lower()
    message = f"child workflow '{draft.state.instance.id}' was {name}"
    return calls.failed_child(draft.now, task, f"Workflow{name.capitalize()}", message)


def _continue_as_new(draft: Draft, turn: Turn, complete_: pb.Complete, response: pb.OrchestratorResponse) -> Changes:
    calls.end_all(draft, withdraw=True)
    instance = replace(draft.state.instance, execution=draft.at.ids.new_id())
    if complete_.HasField("new_version"):
        instance = replace(instance, version=complete_.new_version.value)
    waiting = [row.event for row in draft.state.inbox if row.turn > turn.number]
    carried = [events.stamped(events.encode(event), draft.now) for event in complete_.carryover_events]
    carried += [event for event in waiting if events.belongs_to_no_call(event)]
    begun = restart_event(draft.me, instance, complete_.result if complete_.HasField("result") else None, draft.now)
    rows = [Row(turn.number + 1, 1, begun)]
    rows += [Row(turn.number + 1, FIRST_ARRIVAL + offset, event) for offset, event in enumerate(carried)]
    fields = _base(draft, response, turn) | {
        "execution": instance.execution,
        "version": instance.version,
        "status": Status.RUNNING,
    }
    return _changes(
        draft,
        states.touched(draft.state, draft.now, len(rows), **fields),
        append=tuple(rows),
        truncate=Position(0, 0),
        close_all=True,
    )


def restart_event(me: Self, instance: Instance, new_input: StringValue | None, now: int) -> bytes:
    """Return the start of an instance's next execution: same name, tags and parent, no trace parent."""
    started = pb.ExecutionStarted(
        name=instance.name,
        version=events.text(instance.version),
        input=new_input,
        instance=pb.WorkflowInstance(
            instance_id=instance.id, execution_id=events.text(instance.execution), app_id=me.app
        ),
    )
    started.MergeFromString(instance.tags)
    if instance.parent is not None:
        actor, call, name = instance.parent
        started.parent.CopyFrom(
            pb.ParentInstance(
                task_scheduled_id=call.task,
                app_id=actor.app,
                app_namespace=actor.namespace,
                turn=call.turn,
                hub=actor.hub,
                name=events.text(name),
                instance=pb.WorkflowInstance(
                    instance_id=actor.id, execution_id=events.text(call.execution), app_id=actor.app
                ),
            )
        )
    return events.execution_started(now, started, me.app)
