"""An instance as clients of either family read it. Pure."""

from sidecar.core import events
from sidecar.core.model import Instance, Status
from sidecar.core.workflow import stalls
from sidecar.edge import causes
from sidecar.edge.dialects import DAPR, DAPR_DETACHING, Family
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.clients import InstanceView


def answer(view: InstanceView | None, family: Family, *, bare: bool = False) -> bytes:
    """Return the encoded answer to get and wait; without an instance it says that there is none.

    `bare`: without failure and custom status.
    """
    if view is None:
        return b""
    return pb.GetInstanceResponse(exists=True, state=state_of(view, family, bare=bare)).SerializeToString()


def status_of(instance: Instance, family: Family) -> Status:
    """Return the status that a client of a family is shown: only one of them knows STALLED, others fail on it."""
    if instance.status is Status.STALLED and family not in (DAPR, DAPR_DETACHING):
        return Status.RUNNING
    return instance.status


def state_of(view: InstanceView, family: Family, *, bare: bool = False) -> pb.InstanceState:
    """Return an instance as a client of a family reads it; `bare`: without failure and custom status."""
    instance = view.instance
    state = pb.InstanceState(
        instance_id=instance.id,
        name=instance.name,
        version=events.text(instance.version or pb.WorkflowVersion.FromString(instance.recorded).name or None),
        status=int(status_of(instance, family)),
        created=events.timestamp(instance.created_at),
        last_updated=events.timestamp(instance.updated_at),
        input=events.text(view.input),
        output=events.text(view.output),
        custom_status=None if bare else events.text(instance.custom_status),
        execution_id=events.text(instance.execution),
        causes=[causes.message(cause) for cause in view.causes],
    )
    state.MergeFromString(_tags(instance.tags))
    failure = None if bare else _failure(instance, family)
    if failure is not None:
        state.failure.MergeFromString(failure)
    if instance.scheduled_at is not None:
        state.scheduled_start.CopyFrom(events.timestamp(instance.scheduled_at))
    if instance.completed_at is not None:
        state.completed.CopyFrom(events.timestamp(instance.completed_at))
    if instance.started_at is not None:
        state.started.CopyFrom(events.timestamp(instance.started_at))
    if instance.parent is not None:
        state.parent_instance_id.value = instance.parent.actor.id
        state.parent_app_id.value = instance.parent.actor.app
    return state


def _failure(instance: Instance, family: Family) -> bytes | None:
    """Return the encoded failure of an instance, or None. To those who do not know STALLED it says why it waits."""
    if instance.status is not Status.STALLED or status_of(instance, family) is Status.STALLED:
        return instance.failure
    cause = stalls.cause(instance)
    return events.failure("WorkflowStalled", f"{cause.text}; {cause.advice}", retriable=False).SerializeToString()


def _tags(stored: bytes) -> bytes:
    return pb.InstanceState(tags=pb.ExecutionStarted.FromString(stored).tags).SerializeToString()
