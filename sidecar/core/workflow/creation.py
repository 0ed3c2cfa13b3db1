"""How an instance begins: its IDs, the call that creates it, its row and its first event."""

from dataclasses import replace
from typing import NamedTuple

from sidecar.core import events
from sidecar.core.identity import Context
from sidecar.core.model import DEFAULT_HUB, Changes, Instance, Parent, Reminder, Row, State, Status
from sidecar.core.workflow import calls, pauses
from sidecar.core.workflow.calls import Draft
from sidecar.schema import taskhub_pb2 as pb


class Identity(NamedTuple):
    """Hub, ID and execution ID of an instance to create, and the call that creates it if one does."""

    hub: str
    id: str
    execution: str
    parent: Parent | None = None


def created(
    at: Context, state: State | None, identity: Identity, started: pb.ExecutionStarted, event: bytes
) -> Changes:
    """Return the changes that create an instance, which replaces that of `state` if there is one.

    If that one still ran, its calls are withdrawn and its parent gets a failure. Its children go on.
    """
    instance = fresh(started, identity, at.now, at.ids.key())
    changes = Changes(key=instance.key, instance=instance, append=(Row(1, 1, event),))
    if state is None:
        return changes
    draft = Draft(at, state)
    if not state.instance.status.terminal:
        calls.end_all(draft, withdraw=True)
        pauses.resume_children(draft)
        calls.fail_at_parent(draft, "WorkflowReplaced", "was replaced by another with its ID")
    return replace(
        changes,
        replaces=state.instance.key,
        replaced_at=state.instance.revision,
        set=tuple(draft.reminders),
        dropped=tuple(draft.dropped),
        released=tuple(draft.released),
    )


def fresh(started: pb.ExecutionStarted, identity: Identity, now: int, key: int) -> Instance:
    """Return the row of an instance that begins at once."""
    return Instance(
        key=key,
        hub=identity.hub or DEFAULT_HUB,
        id=identity.id,
        revision=1,
        name=started.name,
        version=started.version.value if started.HasField("version") else None,
        status=Status.PENDING,
        suspended=False,
        began=True,
        ready=True,
        created_at=now,
        updated_at=now,
        started_at=None,
        completed_at=None,
        scheduled_at=None,
        origin=identity.execution,
        execution=identity.execution,
        last_completed_turn=0,
        workflow_time=0,
        custom_status=None,
        failure=None,
        tags=pb.ExecutionStarted(tags=started.tags).SerializeToString(deterministic=True),
        parent=identity.parent,
        trace=started.parent_trace_context.SerializeToString(deterministic=True),
    )


def start_of_child(at: Context, reminder: Reminder) -> bytes:
    """Return the start event of a child. Its parent is the proved sender, whatever the payload says."""
    event = events.decode(events.stamped(reminder.payload, at.now, reminder.source.app, at.me.app))
    started = event.execution_started
    started.ClearField("lineage")
    started.instance.instance_id, started.instance.app_id = reminder.target.id, at.me.app
    parent = started.parent
    parent.app_id, parent.app_namespace, parent.hub = (
        reminder.source.app,
        reminder.source.namespace,
        reminder.source.hub,
    )
    parent.instance.instance_id, parent.instance.app_id = reminder.source.id, reminder.source.app
    parent.instance.execution_id.value = reminder.call.execution
    parent.task_scheduled_id, parent.turn = reminder.call.task, reminder.call.turn
    return events.encode(event)
