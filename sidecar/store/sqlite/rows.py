"""The rows of the schema, column by column, and how values of the core are written as them and read back. Pure.

A row class lists the columns of its table once: statements are made from its `_fields`, rows are read by its names.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar, get_type_hints

from sidecar.core.attempts import DeliveryAttempts
from sidecar.core.identity import AppIdentity
from sidecar.core.model import (
    ActorId,
    CallId,
    CallKind,
    Child,
    Instance,
    Kind,
    Lock,
    OpenCall,
    Parent,
    Reminder,
    Rewind,
    Status,
)
from sidecar.core.schedule_row import ScheduleRow
from sidecar.store.protocol import EntityRow, Waiting

OWN_WORKFLOW, OWN_WORKER, OTHER_APP = 0, 1, 2
_BETWEEN = "\n"  # no ID contains control characters
_NULL: Any = None
_NO_PARENT = Parent(ActorId(_NULL, _NULL, _NULL, _NULL, _NULL), CallId(_NULL, _NULL, _NULL), _NULL)
_NO_LOCK = Lock(_NULL, _NULL, _NULL)
Values = tuple[Any, ...]
R = TypeVar("R", bound=tuple[Any, ...])
UNREADABLE = (ValueError, TypeError, IndexError)  # what reading a damaged row raises


def text(data: bytes) -> str | bytes:
    """Read a text; one that is not UTF-8 stays as it is, so that `checked` refuses its row alone."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def checked(kind: type[R], values: Sequence[Any]) -> R:
    """Return a row whose columns hold what they are for. Raises ValueError: one of them does not."""
    types = _types(kind)
    if not all(map(isinstance, values, types.values())):
        columns = zip(types.items(), values, strict=True)
        wrong = next(name for (name, type_), value in columns if not isinstance(value, type_))
        raise ValueError(f"column {wrong} holds a value of another type")
    return kind(*values)


@cache
def _types(kind: type[Any]) -> dict[str, Any]:
    return {name: object if type_ is Any else type_ for name, type_ in get_type_hints(kind).items()}


class InstanceRow(NamedTuple):
    """A row of `instances`. All of its parent is NULL, or nothing of it; so with its lock."""

    key: int
    hub: str
    id: str
    revision: int
    name: str
    version: str | None
    status: int
    suspended: int
    began: int
    ready: int
    created_at: int
    updated_at: int
    started_at: int | None
    completed_at: int | None
    scheduled_at: int | None
    origin: str
    execution: str
    covered: int
    workflow_time: int
    custom_status: str | None
    failure: bytes | None
    tags: bytes
    parent_namespace: Any
    parent_app: Any
    parent_hub: Any
    parent_id: Any
    parent_execution: Any
    parent_turn: Any
    parent_task: Any
    parent_name: Any
    detached: int
    trace: bytes
    rewind: int
    stall: bytes | None
    recorded: bytes
    entity: int
    lock_owner: Any
    lock_execution: Any
    lock_section: Any
    lineage: int
    obeyed: int
    deliveries: int
    last_error: str
    parked: int
    orchestration_trace: bytes
    ended_by: int
    parent_asked_by: str


class EntityStateRow(NamedTuple):
    """What a query for entities gives: their row of `instances`, how many messages wait, and their state."""

    id: str
    revision: int
    updated_at: int
    lock_owner: Any
    lock_execution: Any
    lock_section: Any
    backlog: int
    has_state: int
    state: str | None


class CallRow(NamedTuple):
    """A row of `open_calls`."""

    key: int
    task: int
    turn: int
    execution: str
    kind: int
    name: str
    target_namespace: str
    target_app: str
    target_kind: str
    target_hub: str
    target_id: str
    reminder: int
    entities: str
    task_execution: str


class ChildRow(NamedTuple):
    """A row of `children`, without its key and whether the child has ended."""

    namespace: str
    app: str
    hub: str
    id: str
    execution: str
    turn: int
    task: int


class ReminderRow(NamedTuple):
    """A row of `reminders`, without who accepted it. What only crashes change has a default: it is never inserted."""

    id: int
    kind: int
    owner: int
    target_namespace: str
    target_app: str
    target_kind: str
    target_hub: str
    target_id: str
    source_namespace: str
    source_app: str
    source_kind: str
    source_hub: str
    source_id: str
    execution: str
    turn: int
    task: int
    due: int
    name: str
    payload: bytes
    held: int
    place: int
    deliveries: int = 0
    last_error: str | None = None


class WaitingRow(NamedTuple):
    """A row of `reminders` without its payload, which may be large."""

    id: int
    kind: int
    target_namespace: str
    target_app: str
    target_kind: str
    target_hub: str
    target_id: str
    source_namespace: str
    source_app: str
    source_kind: str
    source_hub: str
    source_id: str
    execution: str
    turn: int
    task: int
    due: int
    name: str
    accepted_by: str
    deliveries: int
    last_error: str | None


INSTANCE, CALL, CHILD = InstanceRow._fields, CallRow._fields, ChildRow._fields
REMINDER, WAITING = ReminderRow._fields, WaitingRow._fields
SCHEDULE = ScheduleRow._fields


def destination(me: AppIdentity, reminder: Reminder) -> int:
    """Return who takes a reminder: an own workflow, the own workers, or another app's sidecar."""
    if not me.owns(reminder.target):
        return OTHER_APP
    return OWN_WORKER if reminder.kind is Kind.ACTIVITY else OWN_WORKFLOW


def from_instance(instance: Instance) -> InstanceRow:
    """Return the row of an instance."""
    parent, call, parent_name, asked_by = instance.parent or _NO_PARENT
    lock = instance.lock or _NO_LOCK
    crashes = instance.crashes
    return InstanceRow(
        key=instance.key, hub=instance.hub, id=instance.id, revision=instance.revision, name=instance.name,
        version=instance.version, status=int(instance.status), suspended=instance.suspended, began=instance.began,
        ready=instance.ready, created_at=instance.created_at, updated_at=instance.updated_at,
        started_at=instance.started_at, completed_at=instance.completed_at, scheduled_at=instance.scheduled_at,
        origin=instance.origin, execution=instance.execution, covered=instance.last_completed_turn,
        workflow_time=instance.workflow_time, custom_status=instance.custom_status, failure=instance.failure,
        tags=instance.tags, parent_namespace=parent.namespace, parent_app=parent.app, parent_hub=parent.hub,
        parent_id=parent.id, parent_execution=call.execution, parent_turn=call.turn, parent_task=call.task,
        parent_name=parent_name, detached=instance.detached, trace=instance.trace, rewind=int(instance.rewind),
        stall=instance.stall, recorded=instance.recorded, entity=instance.entity, lock_owner=lock.owner,
        lock_execution=lock.execution, lock_section=lock.section, lineage=instance.lineage,
        obeyed=instance.last_order, deliveries=crashes.times, last_error=crashes.error, parked=crashes.quarantined,
        orchestration_trace=instance.orchestration_trace, ended_by=instance.ended_by,
        parent_asked_by=asked_by,
    )  # fmt: skip


def to_instance(row: InstanceRow) -> Instance:
    """Read the row of an instance. Raises ValueError: it holds a value that no instance has."""
    return Instance(
        key=row.key, hub=row.hub, id=row.id, revision=row.revision, name=row.name, version=row.version,
        status=Status(row.status), suspended=bool(row.suspended), began=bool(row.began), ready=bool(row.ready),
        created_at=row.created_at, updated_at=row.updated_at, started_at=row.started_at,
        completed_at=row.completed_at, scheduled_at=row.scheduled_at, origin=row.origin, execution=row.execution,
        last_completed_turn=row.covered, workflow_time=row.workflow_time, custom_status=row.custom_status,
        failure=row.failure, tags=row.tags, parent=_parent(row), detached=row.detached, trace=row.trace,
        rewind=Rewind(row.rewind), stall=row.stall, recorded=row.recorded, entity=bool(row.entity),
        lock=_lock(row), lineage=bool(row.lineage),
        last_order=row.obeyed, crashes=DeliveryAttempts(row.deliveries, row.last_error, bool(row.parked)),
        orchestration_trace=row.orchestration_trace, ended_by=row.ended_by,
    )  # fmt: skip


def _parent(row: InstanceRow) -> Parent | None:
    if row.parent_app is None:
        return None
    actor = ActorId(row.parent_namespace, row.parent_app, "workflow", row.parent_hub, row.parent_id)
    call = CallId(row.parent_execution, row.parent_turn, row.parent_task)
    return Parent(actor, call, row.parent_name, row.parent_asked_by)


def _lock(row: InstanceRow | EntityStateRow) -> Lock | None:
    return None if row.lock_owner is None else Lock(row.lock_owner, row.lock_execution, row.lock_section)


def to_entity(row: EntityStateRow) -> EntityRow:
    """Read an entity as a query shows it."""
    return EntityRow(row.id, row.revision, row.updated_at, row.backlog, _lock(row), bool(row.has_state), row.state)


def from_call(key: int, call: OpenCall) -> CallRow:
    """Return the row of an open call."""
    execution, turn, task = call.call
    entities = _BETWEEN.join(call.entities)
    made = (key, task, turn, execution, int(call.kind), call.name)
    return CallRow(*made, *call.target, call.reminder, entities, call.task_execution)


def to_call(row: CallRow) -> OpenCall:
    """Read the row of an open call."""
    entities = tuple(row.entities.split(_BETWEEN)) if row.entities else ()
    call = CallId(row.execution, row.turn, row.task)
    return OpenCall(call, CallKind(row.kind), row.name, _target(row), row.reminder, entities, row.task_execution)


def from_child(child: Child) -> ChildRow:
    """Return the row of a child."""
    actor = child.actor
    return ChildRow(actor.namespace, actor.app, actor.hub, actor.id, *child.call)


def to_child(row: ChildRow) -> Child:
    """Read the row of a child."""
    actor = ActorId(row.namespace, row.app, "workflow", row.hub, row.id)
    return Child(actor, CallId(row.execution, row.turn, row.task))


def from_reminder(me: AppIdentity, reminder: Reminder) -> ReminderRow:
    """Return the row of a reminder."""
    return ReminderRow(
        reminder.id, int(reminder.kind), reminder.owner, *reminder.target, *reminder.source, *reminder.call,
        due=reminder.due, name=reminder.name, payload=reminder.payload, held=reminder.kept_until_result,
        place=destination(me, reminder),
    )  # fmt: skip


def to_reminder(row: ReminderRow) -> Reminder:
    """Read the row of a reminder."""
    return Reminder(
        id=row.id, kind=Kind(row.kind), owner=row.owner, target=_target(row), source=_source(row),
        call=CallId(row.execution, row.turn, row.task), due=row.due, name=row.name, payload=row.payload,
        kept_until_result=bool(row.held), crashes=DeliveryAttempts(row.deliveries, row.last_error or ""),
    )  # fmt: skip


def to_waiting(row: WaitingRow) -> Waiting:
    """Read the row of a call that waits."""
    return Waiting(
        id=row.id, kind=Kind(row.kind), instance=_source(row), target=_target(row),
        call=CallId(row.execution, row.turn, row.task), name=row.name, since=row.due,
        delivered=bool(row.accepted_by), crashes=DeliveryAttempts(row.deliveries, row.last_error or ""),
    )  # fmt: skip


def _target(row: CallRow | ReminderRow | WaitingRow) -> ActorId:
    return ActorId(row.target_namespace, row.target_app, row.target_kind, row.target_hub, row.target_id)


def _source(row: ReminderRow | WaitingRow) -> ActorId:
    return ActorId(row.source_namespace, row.source_app, row.source_kind, row.source_hub, row.source_id)
