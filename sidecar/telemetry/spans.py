"""The spans of workflows and activities, made of what was committed and of the attempts that have ended.

They are named as those of Dapr's runtime (durabletask-go), and have its events. Nothing is remembered of an execution
but when it began if it follows on another one, and those events, as far as there is room and until the sidecar ends. No
payloads, no reasons and no messages of errors are in a span.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sidecar.core import events, traces
from sidecar.core.model import Changes, Instance, Status
from sidecar.schema import taskhub_pb2 as pb
from sidecar.work import lifecycle
from sidecar.work.activities import Attempt

_MOST_REMEMBERED, _MOST_MOMENTS = 10_000, 128  # executions, and events of each
_PAUSES = {"execution_suspended": "Execution suspended", "execution_resumed": "Execution resumed"}
_NO_ANSWER = "it came back without an answer"


class Moment(NamedTuple):
    """Something that happened while a span ran, at a time in microseconds since the epoch."""

    at: int
    name: str
    attributes: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Finished:
    """A span that has ended; times are in microseconds since the epoch. `error` says what failed, "" if nothing did.

    `follows` is a span in another trace that it goes on from.
    """

    at: traces.Span
    name: str
    kind: Literal["client", "server", "internal"]
    began: int
    ended: int
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    error: str = ""
    follows: traces.Span | None = None
    moments: tuple[Moment, ...] = ()


class Spans:
    """Hands each span that has ended to `send`, if its trace is to be collected."""

    def __init__(self, send: Callable[[Finished], None]) -> None:
        self._send = send
        self._continued: OrderedDict[str, tuple[int, traces.Span]] = OrderedDict()  # by execution: when, after which
        self._moments: OrderedDict[str, list[Moment]] = OrderedDict()  # by execution

    def committed(self, changes: Changes) -> None:
        """See `engine.Observer`."""
        self._happened(changes)
        new, old, instance = lifecycle.began(changes), lifecycle.ended(changes), changes.instance
        if new is not None and new.parent is None:
            self._finish(_start(new))
        if old is not None:
            self._finish(self._execution(old, old.completed_at or old.updated_at))
        if changes.continues is not None and instance is not None:
            self._finish(self._execution(changes.continues, instance.updated_at))
            self._continued[instance.execution] = (instance.updated_at, traces.of_execution(changes.continues))
            _bound(self._continued)

    def _happened(self, changes: Changes) -> None:
        """Take note of what has arrived for a workflow. What is written anew after a rewind has happened before."""
        instance = changes.continues or changes.instance
        if instance is None or instance.entity or changes.reopened or not traces.of_execution(instance).sampled:
            return
        for event in (events.decode(row.event) for row in changes.append):
            if event.HasField("timer_fired"):
                self._finish(_timer(instance, event))
            elif (moment := _moment(event)) is not None:
                known = self._moments.setdefault(instance.execution, [])
                known.append(moment)
                del known[:-_MOST_MOMENTS]
                _bound(self._moments)

    def attempted(self, attempt: Attempt) -> None:
        """A delivery of an activity has ended."""
        request = pb.ActivityRequest.FromString(attempt.reminder.payload)
        at = traces.of_attempt(request.parent_trace_context.trace_parent, attempt.span)
        attributes: dict[str, str | int] = {
            **_attributes("activity", request.name, request.version.value, request.instance.instance_id),
            "durabletask.task.task_id": request.task_id,
        }
        error = "" if attempt.answer else _NO_ANSWER
        if attempt.answer:
            answer = events.decode(attempt.answer)
            if answer.HasField("task_failed"):
                error = answer.task_failed.failure.error_type or "failed"
        ended = attempt.began + round(attempt.seconds * 1e6)
        name = _name("activity", request.name, request.version.value)
        self._finish(Finished(at, name, "server", attempt.began, ended, attributes, error))

    def _execution(self, instance: Instance, ended: int) -> Finished:
        began, follows = self._continued.pop(instance.execution, (instance.started_at or instance.created_at, None))
        error = ""
        if instance.status is Status.FAILED:
            error = pb.FailureDetails.FromString(instance.failure or b"").error_type or "failed"
        attributes = {
            **_attributes("orchestration", instance.name, instance.version or "", instance.id),
            "durabletask.runtime_status": instance.status.name,
        }
        name, at = _name("orchestration", instance.name, instance.version or ""), traces.of_execution(instance)
        moments = tuple(self._moments.pop(instance.execution, ()))
        return Finished(at, name, "server", began, max(began, ended), attributes, error, follows, moments)

    def _finish(self, span: Finished) -> None:
        if span.at.sampled:
            self._send(span)


def _start(instance: Instance) -> Finished:
    attributes = _attributes("orchestration", instance.name, instance.version or "", instance.id)
    name = _name("create_orchestration", instance.name, instance.version or "")
    return Finished(traces.of_start(instance), name, "client", instance.created_at, instance.created_at, attributes)


def _timer(instance: Instance, event: pb.HistoryEvent) -> Finished:
    """Return the span of a timer that has fired: from when it was due to when it did."""
    fired, at = event.timer_fired, events.micros(event.timestamp)
    due = min(at, events.micros(fired.fire_at))
    attributes: dict[str, str | int] = {
        "durabletask.type": "timer",
        "durabletask.fire_at": fired.fire_at.ToJsonString(),
        "durabletask.task.task_id": fired.timer_id,
        "durabletask.task.instance_id": instance.id,
    }
    return Finished(traces.of_timer(instance, fired.timer_id), "timer", "internal", due, at, attributes)


def _moment(event: pb.HistoryEvent) -> Moment | None:
    at = events.micros(event.timestamp)
    if event.HasField("event_raised"):
        raised = event.event_raised
        size = len(raised.input.value.encode())
        return Moment(at, "Received external event", {"name": raised.name, "size": size})
    if event.HasField("execution_stalled"):
        return Moment(at, "Execution stalled", {"reason": event.execution_stalled.reason})
    name = _PAUSES.get(event.WhichOneof("kind") or "")
    return None if name is None else Moment(at, name, {})


def _bound(known: "OrderedDict[str, Any]") -> None:
    while len(known) > _MOST_REMEMBERED:
        known.popitem(last=False)


def _name(kind: str, name: str, version: str) -> str:
    return "||".join([kind, name, version] if version else [kind, name])


def _attributes(kind: str, name: str, version: str, instance_id: str) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "durabletask.type": kind,
        "durabletask.task.name": name,
        "durabletask.task.instance_id": instance_id,
    }
    return found | ({"durabletask.task.version": version} if version else {})
