"""A history as it is read back: with what stands on more of its events than a replay needs. Pure.

Dapr's runtime has the apps on each event that a workflow makes or is answered with, and the version on each turn
(E.15); here they are stored where a replay looks for them.
"""

from collections.abc import Iterable, Iterator

from sidecar.core import events
from sidecar.schema import taskhub_pb2 as pb

_MADE = frozenset({"task_scheduled", "child_created", "timer_created", "event_sent"})
_ANSWERED = frozenset({"task_completed", "task_failed", "child_completed", "child_failed"})


def shown(log: Iterable[bytes], app: str) -> Iterator[bytes]:
    """Yield the events of a history of an instance of this app as they are read back."""
    version = pb.WorkflowVersion()
    for encoded in log:
        event = events.decode(encoded)
        kind = event.WhichOneof("kind") or ""
        if kind == "orchestrator_started":
            version.MergeFrom(event.orchestrator_started.version)
            if version.ByteSize():
                event.orchestrator_started.version.CopyFrom(version)
        elif kind in _MADE | _ANSWERED and not event.router.source_app_id:
            event.router.source_app_id = app
            if kind in _ANSWERED:
                event.router.target_app_id = app
        else:
            yield encoded
            continue
        yield events.encode(event)
