"""How the values of the core are written as rows of the schema, and read back. Pure."""

from typing import Any

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
from sidecar.store.protocol import EntityRow, Waiting


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


INSTANCE = _names(
    "key hub id revision name version status suspended began ready created_at updated_at started_at "
    "completed_at scheduled_at origin execution covered workflow_time custom_status failure tags parent_namespace "
    "parent_app parent_hub parent_id parent_execution parent_turn parent_task parent_name detached trace rewind "
    "stall recorded entity lock_owner lock_execution lock_section lineage obeyed deliveries last_error parked"
)
CALL = _names(
    "key task turn execution kind name target_namespace target_app target_kind target_hub target_id reminder entities"
)
REMINDER = _names(
    "id kind owner target_namespace target_app target_kind target_hub target_id source_namespace source_app "
    "source_kind source_hub source_id execution turn task due name payload held place"
)

STORED_REMINDER = (*REMINDER, "deliveries", "last_error")  # what only crashes change is never inserted

# The payload of a call may be large, and is not looked at.
WAITING = (
    *(name for name in REMINDER if name not in ("payload", "held", "place")),
    "accepted_by",
    "deliveries",
    "last_error",
)

OWN_WORKFLOW, OWN_WORKER, OTHER_APP = 0, 1, 2
_BETWEEN = "\n"  # no ID contains control characters
Values = tuple[Any, ...]


def destination(me: AppIdentity, reminder: Reminder) -> int:
    """Return who takes a reminder: an own workflow, the own workers, or another app's sidecar."""
    if not me.owns(reminder.target):
        return OTHER_APP
    return OWN_WORKER if reminder.kind is Kind.ACTIVITY else OWN_WORKFLOW


def from_instance(instance: Instance) -> Values:
    """Return the row of an instance."""
    parent: Values = (None,) * 8
    lock: Values = (None,) * 3 if instance.lock is None else instance.lock
    if instance.parent is not None:
        actor, call, name = instance.parent
        parent = (actor.namespace, actor.app, actor.hub, actor.id, *call, name)
    return (
        instance.key, instance.hub, instance.id, instance.revision, instance.name, instance.version,
        int(instance.status), instance.suspended, instance.began, instance.ready, instance.created_at,
        instance.updated_at, instance.started_at, instance.completed_at, instance.scheduled_at, instance.origin,
        instance.execution, instance.last_completed_turn, instance.workflow_time, instance.custom_status,
        instance.failure, instance.tags, *parent, instance.detached, instance.trace,
        int(instance.rewind),
        instance.stall, instance.recorded, instance.entity, *lock, instance.lineage, instance.last_order,
        *instance.crashes,
    )  # fmt: skip


def to_instance(row: Values) -> Instance:
    """Read the row of an instance."""
    parent = None
    if row[23] is not None:
        namespace, app, hub, id_, execution, turn, task, name = row[22:30]
        parent = Parent(ActorId(namespace, app, "workflow", hub, id_), CallId(execution, turn, task), name)
    flags = (Status(row[6]), bool(row[7]), bool(row[8]), bool(row[9]))
    lock = None if row[36] is None else Lock(*row[36:39])
    recent: Values = (*row[30:32], Rewind(row[32]), *row[33:35], bool(row[35]), lock, bool(row[39]), row[40])
    crashes = DeliveryAttempts(row[41], row[42], bool(row[43]))
    fields: Values = (*row[:6], *flags, *row[10:22], parent, *recent, crashes)
    return Instance(*fields)


def to_entity(row: Values) -> EntityRow:
    """Read an entity as a query shows it."""
    lock = None if row[4] is None else Lock(*row[4:7])
    entity_id, revision, updated_at, backlog = row[:4]
    return EntityRow(entity_id, revision, updated_at, backlog, lock, bool(row[7]), row[8])


def from_call(key: int, call: OpenCall) -> Values:
    """Return the row of an open call."""
    execution, turn, task = call.call
    entities = _BETWEEN.join(call.entities)
    return (key, task, turn, execution, int(call.kind), call.name, *call.target, call.reminder, entities)


def to_call(row: Values) -> OpenCall:
    """Read the row of an open call."""
    entities = tuple(row[12].split(_BETWEEN)) if row[12] else ()
    return OpenCall(CallId(row[3], row[2], row[1]), CallKind(row[4]), row[5], ActorId(*row[6:11]), row[11], entities)


def from_child(key: int, child: Child) -> Values:
    """Return the row of a child."""
    actor = child.actor
    return (key, actor.namespace, actor.app, actor.hub, actor.id, *child.call)


def to_child(row: Values) -> Child:
    """Read the row of a child, without its key."""
    namespace, app, hub, id_, *call = row
    return Child(ActorId(namespace, app, "workflow", hub, id_), CallId(*call))


def from_reminder(me: AppIdentity, reminder: Reminder) -> Values:
    """Return the row of a reminder."""
    return (
        reminder.id, int(reminder.kind), reminder.owner, *reminder.target, *reminder.source, *reminder.call,
        reminder.due, reminder.name, reminder.payload, reminder.kept_until_result, destination(me, reminder),
    )  # fmt: skip


def to_reminder(row: Values) -> Reminder:
    """Read the row of a reminder."""
    return Reminder(
        row[0], Kind(row[1]), row[2], ActorId(*row[3:8]), ActorId(*row[8:13]), CallId(*row[13:16]), row[16], row[17],
        row[18], bool(row[19]), DeliveryAttempts(row[21], row[22] or ""),
    )  # fmt: skip


def to_waiting(row: Values) -> Waiting:
    """Read the row of a call that waits."""
    call, crashes = CallId(*row[13:16]), DeliveryAttempts(row[19], row[20] or "")
    source, target = ActorId(*row[8:13]), ActorId(*row[3:8])
    return Waiting(row[0], Kind(row[1]), source, target, call, row[17], row[16], bool(row[18]), crashes)
