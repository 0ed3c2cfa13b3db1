"""Building history events and reading what is in them."""

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core.errors import MalformedError
from sidecar.core.model import Instance, Row
from sidecar.schema import taskhub_pb2 as pb

# SDKs of one family set a timer for this second for a wait without a time-out; it never fires.
NEVER_SECONDS = 253402300799
_MICROS = 1_000_000
_CALL_FREE = frozenset({"event_raised", "execution_suspended", "execution_resumed", "execution_terminated"})


def timestamp(micros: int) -> Timestamp:
    """Return the time as the protocol writes it."""
    return Timestamp(seconds=micros // _MICROS, nanos=micros % _MICROS * 1000)


def micros(time: Timestamp) -> int:
    """Return the first whole microsecond that is not before `time`, within what a store can hold."""
    seconds = max(-NEVER_SECONDS, min(time.seconds, NEVER_SECONDS))
    return seconds * _MICROS - (-time.nanos // 1000)


def never(time: Timestamp) -> bool:
    """Whether a timer for this time is one that never fires."""
    return time.seconds >= NEVER_SECONDS


def text(value: str | None) -> StringValue | None:
    """Wrap an optional text."""
    return None if value is None else StringValue(value=value)


def given(message: Message, *names: str) -> dict[str, Any]:
    """Return those of the named fields that are set, for another message that has fields of the same names."""
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def tag(key: str, value: str) -> bytes:
    """Return the bytes that stand for a tag in the stored tags of an instance."""
    return pb.ExecutionStarted(tags={key: value}).SerializeToString()


def tags_in(stored: bytes) -> set[bytes]:
    """Return what stands for each of the tags of an instance."""
    return {tag(key, value) for key, value in pb.ExecutionStarted.FromString(stored).tags.items()}


def encode(event: pb.HistoryEvent) -> bytes:
    """Return the bytes that are stored and sent; equal events give equal bytes."""
    return event.SerializeToString(deterministic=True)


def decode(event: bytes) -> pb.HistoryEvent:
    """Read an event.

    Raises:
        MalformedError: the bytes are no event.
    """
    try:
        return pb.HistoryEvent.FromString(event)
    except DecodeError as error:
        raise MalformedError("not a history event") from error


def _event(now: int, event_id: int = -1) -> pb.HistoryEvent:
    return pb.HistoryEvent(event_id=event_id, timestamp=timestamp(now))


def confirmation(now: int, action_id: int) -> pb.HistoryEvent:
    """Return an empty event that will confirm an action of a worker."""
    return _event(now, action_id)


def orchestrator_started(time: int, version: pb.WorkflowVersion | None = None) -> bytes:
    """Return the event that opens a turn; its timestamp is the workflow's clock in that turn."""
    event = _event(time)
    event.orchestrator_started.SetInParent()
    if version is not None:
        event.orchestrator_started.version.CopyFrom(version)
    return encode(event)


def execution_started(now: int, started: pb.ExecutionStarted, source_app: str, target_app: str = "") -> bytes:
    """Return the event that begins an execution."""
    event = _event(now)
    event.execution_started.CopyFrom(started)
    event.router.source_app_id = source_app
    if target_app:
        event.router.target_app_id = target_app
    return encode(event)


def event_raised(now: int, name: str, data: StringValue | None) -> bytes:
    """Return an external event."""
    event = _event(now)
    event.event_raised.name = name
    if data is not None:
        event.event_raised.input.CopyFrom(data)
    return encode(event)


def terminated(now: int, output: str | None, recurse: bool) -> bytes:
    """Return the event that ends an execution from outside."""
    event = _event(now)
    event.execution_terminated.recurse = recurse
    if output is not None:
        event.execution_terminated.input.value = output
    return encode(event)


def suspended(now: int, reason: str | None) -> bytes:
    """Return the event that pauses an execution."""
    event = _event(now)
    event.execution_suspended.CopyFrom(pb.Reason(input=text(reason)))
    return encode(event)


def resumed(now: int, reason: str | None) -> bytes:
    """Return the event that ends a pause."""
    event = _event(now)
    event.execution_resumed.CopyFrom(pb.Reason(input=text(reason)))
    return encode(event)


def stalled(now: int, why: pb.ExecutionStalled) -> bytes:
    """Return the event that says that an execution cannot go on for now."""
    event = _event(now)
    event.execution_stalled.CopyFrom(why)
    return encode(event)


def timer_fired(fire_at: Timestamp | None, timer_id: int, now: int, awaited: str = "") -> bytes:
    """Return the end of a timer that is set now, with exactly the time it was set for: some SDKs compare it.

    `awaited` is the name of the event whose wait it limits.
    """
    event = _event(now)
    event.timer_fired.timer_id = timer_id
    event.timer_fired.awaited = awaited
    if fire_at is not None:
        event.timer_fired.fire_at.CopyFrom(fire_at)
    return encode(event)


def failure(kind: str, message: str, *, retriable: bool = True) -> pb.FailureDetails:
    """Return failure details that a workflow can catch."""
    return pb.FailureDetails(error_type=kind, error_message=message, is_non_retriable=not retriable)


def task_result(now: int, response: pb.ActivityResponse) -> bytes:
    """Return the completion or failure of an activity from its worker's answer."""
    event = _event(now)
    if response.HasField("failure"):
        event.task_failed.task_scheduled_id = response.task_id
        event.task_failed.failure.CopyFrom(response.failure)
        return encode(event)
    event.task_completed.task_scheduled_id = response.task_id
    if response.HasField("result"):
        event.task_completed.result.CopyFrom(response.result)
    return encode(event)


def task_failed(now: int, task: int, details: pb.FailureDetails) -> bytes:
    """Return the failure of an activity."""
    event = _event(now)
    event.task_failed.CopyFrom(pb.TaskFailed(task_scheduled_id=task, failure=details))
    return encode(event)


def of_execution(event: bytes, task_execution: str) -> bytes:
    """Return the end of an activity with what its call says of the execution, whatever whoever made the event says.

    SDKs of one family take the ID for the next attempt from there, and programs for their idempotency key (E.13).
    """
    message = decode(event)
    kind = message.WhichOneof("kind")
    if kind not in ("task_completed", "task_failed"):
        return event
    getattr(message, kind).task_execution_id = task_execution
    return encode(message)


def child_completed(now: int, task: int, result: StringValue | None) -> bytes:
    """Return the result of a child workflow."""
    event = _event(now)
    event.child_completed.CopyFrom(pb.ChildCompleted(task_scheduled_id=task, result=result))
    return encode(event)


def child_failed(now: int, task: int, details: pb.FailureDetails) -> bytes:
    """Return the failure of a child workflow."""
    event = _event(now)
    event.child_failed.CopyFrom(pb.ChildFailed(task_scheduled_id=task, failure=details))
    return encode(event)


def entity_signaled(now: int, signaled: pb.EntitySignaled) -> bytes:
    """Return an operation of an entity that nobody waits for."""
    event = _event(now)
    event.entity_signaled.CopyFrom(signaled)
    return encode(event)


def entity_result(now: int, request_id: str, outcome: pb.OperationResult) -> bytes:
    """Return the result or failure of an operation that was called."""
    event = _event(now)
    if outcome.HasField("failure"):
        event.entity_failed.CopyFrom(pb.EntityFailed(request_id=request_id, failure=outcome.failure.failure))
        return encode(event)
    event.entity_completed.request_id = request_id
    if outcome.success.HasField("result"):
        event.entity_completed.output.CopyFrom(outcome.success.result)
    return encode(event)


def entity_lock_granted(now: int, section: str, lock_set: Iterable[str]) -> bytes:
    """Return the grant of all locks of a critical section."""
    event = _event(now)
    event.entity_lock_granted.CopyFrom(pb.EntityLockGranted(critical_section_id=section, lock_set=lock_set))
    return encode(event)


def entity_unlock_sent(now: int, section: str, owner: str, entity: str) -> bytes:
    """Return the message that ends a critical section at one entity."""
    event = _event(now)
    event.entity_unlock_sent.CopyFrom(
        pb.EntityUnlockSent(
            critical_section_id=section, parent_instance_id=text(owner), target_instance_id=text(entity)
        )
    )
    return encode(event)


def execution_completed(instance: Instance, output: str | None, app: str) -> bytes:
    """Return the event that ends the history of an instance of this app when it is shown, with the action that did."""
    event = _event(instance.completed_at or 0, instance.ended_by)
    event.router.source_app_id = app
    event.execution_completed.status = instance.status
    if output is not None:
        event.execution_completed.result.value = output
    if instance.failure is not None:
        event.execution_completed.failure.MergeFromString(instance.failure)
    return encode(event)


def stamped(event: bytes, now: int, source_app: str = "", target_app: str = "") -> bytes:
    """Return the event with the time of its arrival and, when it crossed apps, the apps it came from and went to.

    The end of a timer keeps the time at which it was made, when the timer was set, beside that of its arrival.
    """
    message = decode(event)
    if message.HasField("timer_fired"):
        message.timer_fired.created.CopyFrom(message.timestamp)
    message.timestamp.CopyFrom(timestamp(now))
    if source_app:
        message.router.CopyFrom(pb.Router(source_app_id=source_app, target_app_id=target_app))
    return encode(message)


def carried_over(found: Iterable[pb.HistoryEvent], now: int) -> Iterator[bytes]:
    """Yield the events that an execution leaves to the next one, with the time of their arrival there.

    There may be thousands, again in each execution of a workflow that takes one at a time.
    """
    time = timestamp(now)
    for event in found:
        message = pb.HistoryEvent()
        message.CopyFrom(event)
        message.timestamp.CopyFrom(time)
        yield encode(message)


def belongs_to_no_call(event: bytes) -> bool:
    """Whether the event goes on to the next execution when one continues as new before it was handed out."""
    return decode(event).WhichOneof("kind") in _CALL_FREE


def clock_after(rows: Iterable[Row], floor: int) -> int:
    """Return the earliest workflow time of a turn with these events: not before `floor`, and after each timer in it."""
    time = floor
    for row in rows:
        event = decode(row.event)
        if event.HasField("timer_fired") and event.timer_fired.HasField("fire_at"):
            time = max(time, micros(event.timer_fired.fire_at) + 1)
    return time
