"""An instance as clients of either family read it. Pure."""

from sidecar.core import events
from sidecar.schema import taskhub_pb2 as pb
from sidecar.service import View


def state_of(view: View | None) -> bytes:
    """Return the encoded answer to get and wait; without an instance it says that there is none."""
    if view is None:
        return b""
    instance = view.instance
    state = pb.InstanceState(
        instance_id=instance.id,
        name=instance.name,
        version=events.text(instance.version),
        status=int(instance.status),
        created=events.timestamp(instance.created_at),
        last_updated=events.timestamp(instance.updated_at),
        input=events.text(view.input),
        output=events.text(view.output),
        custom_status=events.text(instance.custom_status),
        execution_id=events.text(instance.execution),
    )
    state.MergeFromString(_tags(instance.tags))
    if instance.failure is not None:
        state.failure.MergeFromString(instance.failure)
    if instance.scheduled_at is not None:
        state.scheduled_start.CopyFrom(events.timestamp(instance.scheduled_at))
    if instance.completed_at is not None:
        state.completed.CopyFrom(events.timestamp(instance.completed_at))
    if instance.started_at is not None:
        state.started.CopyFrom(events.timestamp(instance.started_at))
    if instance.parent is not None:
        state.parent_instance_id.value = instance.parent.actor.id
        state.parent_app_id.value = instance.parent.actor.app
    return pb.GetInstanceResponse(exists=True, state=state).SerializeToString()


def _tags(stored: bytes) -> bytes:
    return pb.InstanceState(tags=pb.ExecutionStarted.FromString(stored).tags).SerializeToString()
