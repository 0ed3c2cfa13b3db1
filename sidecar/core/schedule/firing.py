"""A step of a schedule as changes: the run begins and the schedule goes on in one commit. Pure.

A run of this app is created as a client's start is; one of another app is sent there as a detached workflow is. Its
execution ID is made of the schedule and the time, so that a start that comes again is known for what it is.
"""

from dataclasses import replace

from sidecar.core import events, operations
from sidecar.core.identity import AppIdentity, Context
from sidecar.core.model import NO_CALL, ActorId, Changes, Decision, Kind, Reminder, State
from sidecar.core.schedule import definition
from sidecar.core.schedule.progress import Step
from sidecar.core.schedule_row import ScheduleRow, ScheduleStep
from sidecar.core.workflow.creation import Identity
from sidecar.schema import schedule_pb2, taskhub_pb2

_WHY_ENDED = '"terminated: the next run of its schedule begins"'


def actor_of(me: AppIdentity, hub: str, schedule_id: str) -> ActorId:
    """Return the address of a schedule."""
    return ActorId(me.namespace, me.app, "schedule", hub, schedule_id)


def moved(at: Context, hub: str, before: ScheduleRow | None, step: Step) -> Changes:
    """Return the changes of a step that begins no instance of this app; `before` None: the schedule is new."""
    schedule, reminders = step.plan.schedule, []
    actor = actor_of(at.me, hub, schedule.id)
    if step.start is not None and definition.is_elsewhere(at.me, schedule):
        reminders.append(_sent(at, actor, schedule, step.start))
    for instance_id in step.ends:
        order = events.terminated(step.now, _WHY_ENDED, recurse=True)
        target = at.me.workflow(hub, instance_id)
        reminders.append(Reminder(at.ids.order(), Kind.TERMINATE, 0, target, actor, NO_CALL, step.now, "", order))
    number = 0
    if step.wake is not None:
        number = at.ids.order()
        reminders.append(Reminder(number, Kind.SCHEDULE, 0, actor, actor, NO_CALL, step.wake, "", b""))
    revision = before.revision if before else 0
    encoded = [one.SerializeToString(deterministic=True) for one in (schedule, step.progress)]
    row = ScheduleRow(hub, schedule.id, revision + 1, encoded[0], encoded[1], number)
    return Changes(
        schedule=ScheduleStep(hub, schedule.id, revision, row),
        set=tuple(reminders),
        dropped=(before.reminder,) if before and before.reminder else (),
    )


def begun(at: Context, state: State | None, hub: str, before: ScheduleRow | None, step: Step) -> Decision:
    """Decide a step that starts a run of this app; `state` is that of the instance which has the ID of the run.

    Where that may not be replaced there is no run, and the schedule goes on all the same.
    """
    run = step.progress.recent[-1]
    started = _started(at.me, hub, step.plan.schedule, run)
    identity = Identity(hub, run.instance_id, started.instance.execution_id.value)
    decision = operations.start(at, state, operations.Start(identity, started, None, unique=True))
    if decision.changes is None:
        return replace(decision, changes=moved(at, hub, before, step.not_started(decision.reply.text)))
    rest = moved(at, hub, before, step)
    changes = replace(
        decision.changes,
        schedule=rest.schedule,
        set=(*decision.changes.set, *rest.set),
        dropped=(*decision.changes.dropped, *rest.dropped),
    )
    return replace(decision, changes=changes)


def removed(before: ScheduleRow) -> Changes:
    """Return the changes that remove a schedule; its runs go on."""
    step = ScheduleStep(before.hub, before.id, before.revision, None)
    return Changes(schedule=step, dropped=(before.reminder,) if before.reminder else ())


def _sent(at: Context, actor: ActorId, schedule: schedule_pb2.Schedule, run: schedule_pb2.Run) -> Reminder:
    target = ActorId(at.me.namespace, schedule.app_id, "workflow", "", run.instance_id)
    started = _started(at.me, actor.hub, schedule, run)
    payload = events.execution_started(at.now, started, at.me.app, schedule.app_id)
    return Reminder(at.ids.order(), Kind.DETACHED, 0, target, actor, NO_CALL, at.now, schedule.workflow, payload)


def _started(
    me: AppIdentity, hub: str, schedule: schedule_pb2.Schedule, run: schedule_pb2.Run
) -> taskhub_pb2.ExecutionStarted:
    started = taskhub_pb2.ExecutionStarted(
        name=schedule.workflow, **events.given(schedule, "version", "input"), tags=schedule.tags
    )
    started.instance.instance_id = run.instance_id
    started.instance.app_id = schedule.app_id or me.app
    started.instance.execution_id.value = definition.execution_id(me, hub, schedule, run.time)
    return started
