"""Messages of workflows to entities as workers in .NET write them that were set up with `UseGrpc` alone. Pure.

Such a worker knows external events only. What its workflow asks of an entity is an event sent to the entity's ID: the
JSON in it says whether that is an operation or a request for locks; the event `release` gives a lock back. An answer is
an event raised at the workflow, named by the request. Those that were set up for the scheduler read this form too, and
write the other one: so every worker in .NET is sent this form.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.core import events
from sidecar.core.names import entity_id
from sidecar.edge.dialects import wire
from sidecar.schema import taskhub_pb2 as pb

_OPERATION, _RELEASE = "op", "release"
_GRANTED = "Lock Acquisition Completed"
_SENT = ("entity_signaled", "entity_called", "entity_lock_requested", "entity_unlock_sent")
_ANSWERED = ("entity_completed", "entity_failed", "entity_lock_granted")
_TAGS = tuple(wire.tag(pb.HistoryEvent.DESCRIPTOR.fields_by_name[name].number) for name in (*_SENT, *_ANSWERED))
_ZONE = re.compile(r"(Z|[+-]\d\d:\d\d)\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = -62135596800, 253402300799  # seconds of the first and the last date that can be written

# ---------------------------------------------------------------- to such a worker


def event(neutral: bytes) -> bytes:
    """Return a history event as such a worker reads it: what is about an entity is an event sent or raised."""
    if not any(tag in neutral for tag in _TAGS):
        return neutral
    message = pb.HistoryEvent.FromString(neutral)
    kind = message.WhichOneof("kind") or ""
    if kind in _SENT:
        message.event_sent.CopyFrom(_sent(kind, getattr(message, kind)))
    elif kind in _ANSWERED:
        message.event_raised.CopyFrom(_raised(kind, getattr(message, kind)))
    else:
        return neutral
    return message.SerializeToString(deterministic=True)


def _sent(kind: str, asked: Any) -> pb.EventSent:
    name = _OPERATION
    if kind == "entity_unlock_sent":
        name, target = _RELEASE, asked.target_instance_id.value
        data = _filled({"parent": asked.parent_instance_id.value, "id": asked.critical_section_id})
    elif kind == "entity_lock_requested":
        target, data = asked.lock_set[asked.position] if asked.position < len(asked.lock_set) else "", _lock(asked)
    else:
        target, data = asked.target_instance_id.value, _operation(kind, asked)
        if "due" in data:
            name = f"{_OPERATION}@{data['due']}"
    return pb.EventSent(instance_id=target, name=name, input=events.text(_json(data)))


def _operation(kind: str, asked: pb.EntityCalled | pb.EntitySignaled) -> dict[str, Any]:
    data: dict[str, Any] = {"id": asked.request_id}
    if isinstance(asked, pb.EntityCalled):
        data |= {"parent": asked.parent_instance_id.value, "parentExecution": asked.parent_execution_id.value}
    data = {"op": asked.operation} | _filled(data)
    if kind == "entity_signaled":
        data["signal"] = True
    if asked.HasField("input"):
        data["input"] = asked.input.value
    if asked.HasField("scheduled_time"):
        data["due"] = _written(asked.scheduled_time)
    return data


def _lock(asked: pb.EntityLockRequested) -> dict[str, Any]:
    names = [found.split("@", 2) for found in map(entity_id, asked.lock_set) if found is not None]
    data = {"id": asked.critical_section_id, "parent": asked.parent_instance_id.value, "IsLockRequest": True}
    return _filled(data) | {"lockset": [{"name": name, "key": key} for _, name, key in names], "pos": asked.position}


def _raised(kind: str, answer: Any) -> pb.EventRaised:
    if kind == "entity_lock_granted":
        return _answer(answer.critical_section_id, {"result": _GRANTED})
    if kind == "entity_completed":
        return _answer(answer.request_id, {"result": answer.output.value if answer.HasField("output") else None})
    failure = answer.failure
    data = {"exceptionType": failure.error_type, "result": failure.error_message, "failureDetails": _details(failure)}
    return _answer(answer.request_id, data)


def _answer(name: str, data: Mapping[str, Any]) -> pb.EventRaised:
    return pb.EventRaised(name=name, input=events.text(_json(data)))


def _details(failure: pb.FailureDetails) -> dict[str, Any]:
    return {
        "ErrorType": failure.error_type,
        "ErrorMessage": failure.error_message,
        "StackTrace": failure.stack_trace.value if failure.HasField("stack_trace") else None,
        "InnerFailure": _details(failure.inner_failure) if failure.HasField("inner_failure") else None,
        "IsNonRetriable": failure.is_non_retriable,
        "Properties": _properties(failure) or None,
    }


def _properties(failure: pb.FailureDetails) -> dict[str, Any]:
    """Return what an SDK tells of a failure beside its text; what no JSON can hold is left out."""
    found = {}
    for key, value in failure.properties.items():
        with contextlib.suppress(DecodeError, ValueError, json_format.Error):
            found[key] = json_format.MessageToDict(Value.FromString(value))
    return found


def _filled(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value}


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _written(time: Timestamp) -> str:
    """Return a time in the round-trip format of .NET, which counts tenths of a microsecond."""
    seconds, ticks = min(max(time.seconds, _EARLIEST), _LATEST), min(max(time.nanos, 0), 999_999_999) // 100
    whole = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None)
    return f"{whole.isoformat()}.{ticks:07d}Z"


# ---------------------------------------------------------------- from such a worker


def message_in(sent: pb.SendEvent | pb.EventSent) -> pb.SendEntityMessage | None:
    """Return what an event that a workflow sends asks of an entity; None if it is no message to one."""
    if isinstance(sent, pb.SendEvent):
        sent = pb.EventSent(instance_id=sent.instance.instance_id, name=sent.name, input=sent.data)
    target, data = entity_id(sent.instance_id), _parsed(sent.input.value)
    name, _, due = sent.name.partition("@")
    if target is None or not isinstance(data.get("id"), str):
        return None
    try:
        if sent.name == _RELEASE:
            return pb.SendEntityMessage(unlock_sent=_read_unlock(data, target))
        if name == _OPERATION and data.get("op") is None:
            return pb.SendEntityMessage(lock_requested=_read_lock(data))
        return _read_operation(data, target, data.get("due") or due) if name == _OPERATION else None
    except (TypeError, ValueError, KeyError):
        return None


def _read_unlock(data: Mapping[str, Any], target: str) -> pb.EntityUnlockSent:
    return pb.EntityUnlockSent(
        critical_section_id=data["id"],
        parent_instance_id=events.text(data.get("parent")),
        target_instance_id=events.text(target),
    )


def _read_lock(data: Mapping[str, Any]) -> pb.EntityLockRequested:
    return pb.EntityLockRequested(
        critical_section_id=data["id"],
        lock_set=[f"@{one['name']}@{one['key']}" for one in data["lockset"]],
        position=data.get("pos") or 0,
        parent_instance_id=events.text(data.get("parent")),
    )


def _read_operation(data: Mapping[str, Any], target: str, due: str) -> pb.SendEntityMessage:
    fields: dict[str, Any] = {
        "request_id": data["id"],
        "operation": data["op"],
        "scheduled_time": _read_time(due) if due else None,
        "input": events.text(data.get("input")),
        "target_instance_id": events.text(target),
    }
    if data.get("signal"):
        return pb.SendEntityMessage(signaled=pb.EntitySignaled(**fields))
    parent, execution = events.text(data.get("parent")), events.text(data.get("parentExecution"))
    called = pb.EntityCalled(**fields, parent_instance_id=parent, parent_execution_id=execution)
    return pb.SendEntityMessage(called=called)


def _read_time(text: str) -> Timestamp:
    time = Timestamp()
    time.FromJsonString(text if _ZONE.search(text) else f"{text}Z")
    return time


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
