"""Who is whose parent in a trace: contexts as W3C writes them, the spans of executions and of attempts of activities.

The IDs of spans follow from what is stored, so that an app knows those of its executions before they end and after a
restart, without storing more.
"""

import hashlib
import re
from typing import NamedTuple

from sidecar.core.model import Instance
from sidecar.schema import taskhub_pb2 as pb

# Go's clients send the ID of a trace alone where a whole context should be.
_CONTEXT = re.compile(r"(?:[0-9a-f]{2}-)?((?!0{32})[0-9a-f]{32})(?:-([0-9a-f]{16})-([0-9a-f]{2}).*)?\Z")
_TRACE_DIGITS, _SPAN_DIGITS = 32, 16
_SAMPLED = 1


class Span(NamedTuple):
    """Where a span is: its trace, its ID, the ID of its parent ("" for a root), and the flags of W3C of the trace."""

    trace: str
    id: str
    parent: str
    flags: str

    @property
    def sampled(self) -> bool:
        """Whether the trace is to be collected."""
        return bool(int(self.flags, 16) & _SAMPLED)

    def context(self) -> pb.TraceContext:
        """Return the context for what is done below this span."""
        return pb.TraceContext(trace_parent=f"00-{self.trace}-{self.id}-{self.flags}", span_id=self.id)


def of_attempt(parent: str, fresh: str) -> Span:
    """Return the span of an attempt of an activity; `fresh` are 32 hexadecimal digits of that attempt alone.

    It is in the trace of its `parent` context, or else in a new one.
    """
    found = _CONTEXT.match(parent)
    own = fresh[_TRACE_DIGITS - _SPAN_DIGITS :]
    return Span(found[1], own, found[2] or "", found[3] or "01") if found else Span(fresh, own, "", "01")


def of_execution(instance: Instance) -> Span:
    """Return the span of the present execution of an instance.

    Its parent is the start by a client, or the parent workflow; after a continue-as-new it is a root.
    """
    started = of_start(instance)
    own = _span("execution", instance.id, instance.execution)
    if instance.parent is None and instance.execution == instance.origin:
        return started._replace(id=own, parent=started.id)
    return started._replace(id=own, parent="" if started.parent == own else started.parent)


def of_start(instance: Instance) -> Span:
    """Return the span of the start of an instance by a client, in the trace of the context that it gave, if it did."""
    own = _span("start", instance.id, instance.origin)
    context = pb.TraceContext.FromString(instance.trace)
    found = _CONTEXT.match(context.trace_parent)
    if found is None:
        return Span(_digest("trace", instance.id, instance.execution)[:_TRACE_DIGITS], own, "", "01")
    return Span(found[1], own, found[2] or context.span_id, found[3] or "01")


def of_timer(instance: Instance, timer_id: int) -> Span:
    """Return the span of a timer of the present execution of an instance."""
    execution = of_execution(instance)
    own = _span("timer", instance.id, f"{instance.execution}/{timer_id}")
    return execution._replace(id=own, parent=execution.id)


def new_root(trace: str, instance_id: str, execution: str, flags: str) -> Span:
    """Return the span of an execution that is the root of a trace of its own."""
    return Span(trace, _span("execution", instance_id, execution), "", flags)


def flags_of(trace_parent: str) -> str:
    """Return the flags of a context; those of a trace that is collected, if it has none."""
    found = _CONTEXT.match(trace_parent)
    return (found[3] if found else None) or "01"


def _span(kind: str, instance_id: str, execution: str) -> str:
    return _digest(kind, instance_id, execution)[:_SPAN_DIGITS]


def _digest(*parts: str) -> str:
    """Return digits of these parts: clients choose the IDs of instances and executions, which may be the same."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
