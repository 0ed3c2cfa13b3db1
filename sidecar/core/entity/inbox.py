"""The inbox of an entity: which of the operations that wait may run now."""

from collections.abc import Iterator

from sidecar.core import events
from sidecar.core.model import Lock, Row
from sidecar.schema import taskhub_pb2 as pb


def runnable(queue: list[Row], lock: Lock | None) -> Iterator[Row]:
    """Return what may run: the calls of the lock's holder, or without a lock all before the first request for it."""
    for row in queue:
        event = events.decode(row.event)
        if lock is None and event.WhichOneof("kind") == "entity_lock_requested":
            return
        if lock is None or is_of_holder(event, lock):
            yield row


def may_run(queue: list[Row], lock: Lock | None) -> bool:
    """Whether any operation may run."""
    return any(True for _ in runnable(queue, lock))


def is_of_holder(event: pb.HistoryEvent, lock: Lock) -> bool:
    """Whether the event is a call of the execution that has the lock."""
    called = event.entity_called
    return (called.parent_instance_id.value, called.parent_execution_id.value) == (lock.owner, lock.execution)
