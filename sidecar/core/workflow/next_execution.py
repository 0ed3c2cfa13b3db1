"""How the execution after a continue-as-new begins."""

from hashlib import sha256

from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events, traces
from sidecar.core.identity import AppIdentity
from sidecar.core.ids import Ids
from sidecar.core.model import Instance
from sidecar.schema import taskhub_pb2 as pb

_ID_DIGITS = 32


def id_after(execution: str) -> str:
    """Return the ID of the execution that follows one by continue-as-new.

    It is made of the one before, so that a workflow whose store went back makes the calls of later executions under the
    same IDs again, by which they are known where they were received.
    """
    return sha256(execution.encode()).hexdigest()[:_ID_DIGITS]


def new_root(instance: Instance, ids: Ids) -> bytes:
    """Return the trace context of an execution whose instance has that of the one before; none if that had none.

    It is the root of a trace of its own, sampled or not as before: an eternal workflow would make a trace without end.
    """
    if not instance.trace:
        return b""
    flags = traces.flags_of(pb.TraceContext.FromString(instance.trace).trace_parent)
    root = traces.new_root(ids.new_id(), instance.id, instance.execution, flags)
    return root.context().SerializeToString(deterministic=True)


def start_event(
    me: AppIdentity, instance: Instance, new_input: StringValue | None, now: int, trace: bytes = b""
) -> bytes:
    """Return the start of an instance's next execution: same name, tags and parent, in this trace context."""
    started = pb.ExecutionStarted(
        name=instance.name,
        version=events.text(instance.version),
        input=new_input,
        instance=pb.WorkflowInstance(
            instance_id=instance.id, execution_id=events.text(instance.execution), app_id=me.app
        ),
    )
    started.MergeFromString(instance.tags)
    if trace:
        started.parent_trace_context.MergeFromString(trace)
    if instance.parent is not None:
        actor, call, name = instance.parent.actor, instance.parent.asked, instance.parent.name
        started.parent.CopyFrom(
            pb.ParentInstance(
                task_scheduled_id=call.task,
                app_id=actor.app,
                app_namespace=actor.namespace,
                turn=call.turn,
                hub=actor.hub,
                name=events.text(name or None),
                instance=pb.WorkflowInstance(
                    instance_id=actor.id, execution_id=events.text(call.execution), app_id=actor.app
                ),
            )
        )
    return events.execution_started(now, started, me.app)
