"""Neutral bytes to what Dapr's SDKs read. Pure."""

import re

from sidecar.edge.dialects import wire
from sidecar.schema import taskhub_pb2 as pb

# Tags of the fields of our own that have a slot in this family: an event without them is sent as it is stored.
_ROUTER, _TASK_EXECUTION, _REQUEST_EXECUTION = b"\xb2\x40", b"\xf2\x3e", b"\x82\x3f"
_RERUN_PARENT = b"\xfa\x3e"
_REQUEST_LINEAGE = b"\x8a\x3f"
# Go's clients send the ID of a trace alone where a whole context should be.
_TRACE = re.compile(r"(?:[0-9a-f]{2}-)?([0-9a-f]{32})(?:-[0-9a-f]{16}-([0-9a-f]{2}).*)?\Z")
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

    Dapr's runtime makes a span for each attempt, and .NET opens none of its own without it. What a trace has of it is
    the ID alone: this sidecar exports no spans. Workers of the other family make the span themselves.
    """
    message = pb.ActivityRequest.FromString(neutral)
    context, own = message.parent_trace_context, span[16:]
    found = _TRACE.match(context.trace_parent)
    trace, flags = (found[1], found[2] or "01") if found else (span, "01")
    context.trace_parent, context.span_id = f"00-{trace}-{own}-{flags}", own
    return message.SerializeToString(deterministic=True)


def activity(neutral: bytes) -> bytes:
    """Return a request to run an activity with the ID of the task execution where this family looks for it."""
    if _REQUEST_EXECUTION not in neutral and _REQUEST_LINEAGE not in neutral:
        return neutral
    message = pb.ActivityRequest.FromString(neutral)
    given = lineage(message.lineage)
    message.lineage = b""
    if message.task_execution_id:
        message.slot_7[:] = [message.task_execution_id.encode()]
        message.task_execution_id = ""
    return message.SerializeToString(deterministic=True) + given
