"""Instances, reminders and changes for tests: what a test does not name is of no interest to it."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from sidecar.core.identity import AppIdentity
from sidecar.core.model import (
    NO_CALL,
    ActorId,
    CallId,
    CallKind,
    Changes,
    Child,
    Instance,
    Kind,
    OpenCall,
    Position,
    Reminder,
    Row,
    Status,
)
from sidecar.core.schedule_row import ScheduleRow, ScheduleStep
from sidecar.store.protocol import Store

ME = AppIdentity("default", "orders")
ML = ("default", "ml")
MAIL = ("default", "mail")
EVERYTHING = Position(0, -1)  # behind this is the whole log
MANY = 1_000
Reopen = Callable[[], Awaitable[Store]]  # the fixture that closes a store and opens it again
FAR_CALL = CallId("far", 1, 0)


def instance(key: int, instance_id: str = "a", **fields: Any) -> Instance:
    """A running instance at revision 1 that has nothing to do."""
    row = Instance(
        key=key,
        hub="default",
        id=instance_id,
        revision=1,
        name="Order",
        version=None,
        status=Status.RUNNING,
        suspended=False,
        began=True,
        ready=False,
        created_at=100,
        updated_at=100,
        started_at=None,
        completed_at=None,
        scheduled_at=None,
        origin=f"origin-{key}",
        execution=f"execution-{key}",
        last_completed_turn=0,
        workflow_time=0,
        custom_status=None,
        failure=None,
        tags=b"",
        parent=None,
    )
    return replace(row, **fields)


def entity(key: int, entity_id: str = "@a@1", **fields: Any) -> Instance:
    """An entity at revision 1 that has nothing to do."""
    return instance(key, entity_id, name="a", entity=True, **fields)


def created(key: int, instance_id: str = "a", **fields: Any) -> Changes:
    """The creation of an instance with its start event; `fields` are of the changes."""
    changes = Changes(key=key, instance=instance(key, instance_id), append=(Row(1, 1, b"started"),))
    return replace(changes, **fields)


def step(before: Instance, instance_fields: dict[str, Any] | None = None, **fields: Any) -> Changes:
    """A step from an instance as it was before to its next revision; `fields` are of the changes."""
    after = replace(before, revision=before.revision + 1, **(instance_fields or {}))
    return Changes(key=before.key, expected=before.revision, instance=after, **fields)


def workflow(instance_id: str = "a", app: tuple[str, str] = (ME.namespace, ME.app)) -> ActorId:
    return ActorId(*app, "workflow", "default" if app[1] == ME.app else "", instance_id)


def activity(activity_id: str = "a::0::1", app: tuple[str, str] = (ME.namespace, ME.app)) -> ActorId:
    return ActorId(*app, "activity", "default" if app[1] == ME.app else "", activity_id)


def reminder(id_: int, kind: Kind = Kind.EVENT, **fields: Any) -> Reminder:
    """A reminder of instance 1, due at 0; to `workflow()` if nothing else is said."""
    one = Reminder(id_, kind, 1, workflow(), workflow(), NO_CALL, 0, "", b"payload")
    return replace(one, **fields)


def call_of_ml(id_: int, *, kept_until_result: bool = True, **fields: Any) -> Reminder:
    """A call to the app `ml`."""
    fields = {
        "target": activity(app=ML),
        "call": CallId("execution-1", 1, id_),
        "kept_until_result": kept_until_result,
    } | fields
    return reminder(id_, Kind.ACTIVITY, **fields)


def from_ml(id_: int, call: CallId = FAR_CALL, **fields: Any) -> Reminder:
    """An activity that `ml` asks of us, as it is taken in."""
    fields = {"owner": 0, "target": activity(), "source": workflow("far", ML), "call": call} | fields
    return reminder(id_, Kind.ACTIVITY, **fields)


def result_for(asked: Reminder, id_: int, **fields: Any) -> Reminder:
    """The answer to an activity of another app, on its way home."""
    fields = {"owner": 0, "target": asked.source, "source": asked.target, "call": asked.call} | fields
    return reminder(id_, Kind.RESULT, **fields)


def child(task: int, actor: ActorId | None = None) -> Child:
    """A child of instance 1, by the call of this task in turn 1."""
    return Child(actor or workflow(f"c{task}"), CallId("execution-1", 1, task))


def open_call(task: int, kind: CallKind = CallKind.ACTIVITY, **fields: Any) -> OpenCall:
    return OpenCall(CallId("execution-1", 1, task), kind, "Score", activity(), 7)._replace(**fields)


def schedule_step(revision: int, schedule_id: str = "nightly", hub: str = "default", **fields: Any) -> ScheduleStep:
    """A step of a schedule to this revision from the one before."""
    row = ScheduleRow(hub, schedule_id, revision, b"definition", b"progress", 0)
    return ScheduleStep(hub, schedule_id, revision - 1, row._replace(**fields))
