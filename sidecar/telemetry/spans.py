"""The spans of workflows and activities, made of what was committed and of the attempts that have ended.

They are named as those of Dapr's runtime (durabletask-go). Nothing is remembered of an execution but when it began if
it follows on another one, as far as there is room. No payloads and no messages of errors are in a span.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sidecar.core import events, traces
from sidecar.core.model import Changes, Instance, Status
from sidecar.schema import taskhub_pb2 as pb
from sidecar.work import lifecycle
from sidecar.work.activities import Attempt

_MOST_REMEMBERED = 10_000
_NO_ANSWER = "it came back without an answer"


@dataclass(frozen=True, slots=True)
class Finished:
    """A span that has ended; times are in microseconds since the epoch. `error` says what failed, "" if nothing did.

    `follows` is a span in another trace that it goes on from.
    """

    at: traces.Span
    name: str
    kind: Literal["client", "server"]
    began: int
    ended: int
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    error: str = ""
    follows: traces.Span | None = None


class Spans:
    """Hands each span that has ended to `send`, if its trace is to be collected."""

    def __init__(self, send: Callable[[Finished], None]) -> None:
        self._send = send
        self._continued: OrderedDict[str, tuple[int, traces.Span]] = OrderedDict()  # by execution: when, after which

    def committed(self, changes: Changes) -> None:
        """See `engine.Observer`."""
        new, old, instance = lifecycle.began(changes), lifecycle.ended(changes), changes.instance
        if new is not None and new.parent is None:
            self._finish(_start(new))
        if old is not None:
            self._finish(self._execution(old, old.completed_at or old.updated_at))
        if changes.continues is not None and instance is not None:
            self._finish(self._execution(changes.continues, instance.updated_at))
            self._continued[instance.execution] = (instance.updated_at, traces.of_execution(changes.continues))
            while len(self._continued) > _MOST_REMEMBERED:
                self._continued.popitem(last=False)

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
        return Finished(at, name, "server", began, max(began, ended), attributes, error, follows)

    def _finish(self, span: Finished) -> None:
        if span.at.sampled:
            self._send(span)


def _start(instance: Instance) -> Finished:
    attributes = _attributes("orchestration", instance.name, instance.version or "", instance.id)
    name = _name("create_orchestration", instance.name, instance.version or "")
    return Finished(traces.of_start(instance), name, "client", instance.created_at, instance.created_at, attributes)


def _name(kind: str, name: str, version: str) -> str:
    return "||".join([kind, name, version] if version else [kind, name])


def _attributes(kind: str, name: str, version: str, instance_id: str) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "durabletask.type": kind,
        "durabletask.task.name": name,
        "durabletask.task.instance_id": instance_id,
    }
    return found | ({"durabletask.task.version": version} if version else {})
