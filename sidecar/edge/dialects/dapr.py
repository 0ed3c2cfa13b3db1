"""Neutral bytes to what Dapr's SDKs read. Pure."""

from sidecar.core import traces
from sidecar.edge.dialects import wire
from sidecar.schema import taskhub_pb2 as pb

# Tags of the fields of our own that have a slot in this family: an event without them is sent as it is stored.
_ROUTER, _TASK_EXECUTION, _REQUEST_EXECUTION = b"\xb2\x40", b"\xf2\x3e", b"\x82\x3f"
_RERUN_PARENT = b"\xfa\x3e"
_REQUEST_LINEAGE = b"\x8a\x3f"
_PROPAGATED = 8  # the number of the history of callers, of a turn and of an activity alike


def lineage(neutral: bytes) -> bytes:
    """Return the field with the history of the callers, or nothing if there is none."""
    if not neutral:
        return b""
    message = pb.PropagatedHistory.FromString(neutral)
    for chunk in message.chunks:
        chunk.raw_events[:] = [event(raw) for raw in chunk.raw_events]
    return wire.frame(_PROPAGATED, message.SerializeToString(deterministic=True))


def event(neutral: bytes) -> bytes:
    """Return a history event with its router, task execution ID and rerun parent where this family looks for them."""
    if not any(tag in neutral for tag in (_ROUTER, _TASK_EXECUTION, _RERUN_PARENT)):
        return neutral
    message = pb.HistoryEvent.FromString(neutral)
    if message.HasField("router"):
        message.slot_30 = message.router.SerializeToString(deterministic=True)
        message.ClearField("router")
    if message.task_scheduled.task_execution_id:
        message.task_scheduled.slot_5[:] = [message.task_scheduled.task_execution_id.encode()]
        message.task_scheduled.task_execution_id = ""
    if message.child_created.HasField("rerun_parent"):
        message.child_created.slot_6[:] = [message.child_created.rerun_parent.SerializeToString()]
        message.child_created.ClearField("rerun_parent")
    return message.SerializeToString(deterministic=True)


def traced(neutral: bytes, span: str) -> bytes:
    """Return a request to run an activity with a span of its own, in its workflow's trace, or else in a new one.

    Dapr's runtime makes a span for each attempt, and .NET opens none of its own without it. It has the ID of the span
    that this sidecar exports of the attempt, if it exports any. Workers of the other family make the span themselves.
    """
    message = pb.ActivityRequest.FromString(neutral)
    context = message.parent_trace_context
    own = traces.of_attempt(context.trace_parent, span).context()
    context.trace_parent, context.span_id = own.trace_parent, own.span_id
    return message.SerializeToString(deterministic=True)


def activity(neutral: bytes) -> bytes:
    """Return a request to run an activity with the ID of the task execution where this family looks for it."""
    if _REQUEST_EXECUTION not in neutral:
        return with_lineage(neutral)
    message = pb.ActivityRequest.FromString(neutral)
    if message.task_execution_id:
        message.slot_7[:] = [message.task_execution_id.encode()]
        message.task_execution_id = ""
    return with_lineage(message.SerializeToString(deterministic=True))


def with_lineage(neutral: bytes) -> bytes:
    """Return a request to run an activity with the history of its callers where this family looks for it."""
    if _REQUEST_LINEAGE not in neutral:
        return neutral
    message = pb.ActivityRequest.FromString(neutral)
    given = lineage(message.lineage)
    message.lineage = b""
    return message.SerializeToString(deterministic=True) + given
