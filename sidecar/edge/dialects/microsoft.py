"""Neutral bytes to what Microsoft's SDKs read. Pure."""

import hashlib
import re
from collections.abc import Mapping

from sidecar.core import events
from sidecar.core.work_items import EntityItem
from sidecar.edge.dialects import wire
from sidecar.schema import taskhub_pb2 as pb

# Parameters of entities, with a reorder window of zero: without them the SDK for .NET has no entities (B.2).
TURN = wire.frame(5, wire.frame(1, b""))

# The tags of our own fields: what has none of them is sent as it is stored.
_TAGS, _TASK_TAGS, _CHILD_TAGS, _REWOUND = b"\xfa\x3e", b"\xea\x3e", b"\xf2\x3e", b"\xba\x40"
_TIMER_SET = b"\xda\x3e"
_GENERIC = 18  # number of the event in HistoryEvent
_GUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def event(neutral: bytes) -> bytes:
    """Return a history event with the tags of its call, or a rewind, where this family looks for them.

    The end of a timer has the time at which the timer was set: there the span begins that the worker makes of it.
    """
    if not any(tag in neutral for tag in (_TASK_TAGS, _CHILD_TAGS, _REWOUND, _TIMER_SET)):
        return neutral
    message = pb.HistoryEvent.FromString(neutral)
    if message.task_scheduled.tags:
        message.task_scheduled.slot_5[:] = _entries(message.task_scheduled.tags)
        message.task_scheduled.tags.clear()
    if message.child_created.tags:
        message.child_created.slot_6[:] = _entries(message.child_created.tags)
        message.child_created.tags.clear()
    if message.HasField("execution_rewound"):
        message.slot_30 = message.execution_rewound.SerializeToString(deterministic=True)
        message.ClearField("execution_rewound")
    if message.timer_fired.HasField("created"):
        message.timestamp.CopyFrom(message.timer_fired.created)
        message.timer_fired.ClearField("created")
    return message.SerializeToString(deterministic=True)


def told(neutral: bytes) -> bytes:
    """Return the event that an instance is stalled as one that only says something (`genericEvent`), else nothing."""
    message = pb.HistoryEvent.FromString(neutral) if neutral else pb.HistoryEvent()
    if not message.HasField("execution_stalled"):
        return b""
    text = f"stalled: {message.execution_stalled.description}"
    message.ClearField("execution_stalled")
    value = wire.frame(1, wire.frame(1, text.encode()))
    return message.SerializeToString(deterministic=True) + wire.frame(_GENERIC, value)


def _entries(tags: Mapping[str, str]) -> list[bytes]:
    return [pb.Tag(key=key, value=tags[key]).SerializeToString() for key in sorted(tags)]


def activity(neutral: bytes) -> bytes:
    """Return a request to run an activity with its tags where this family looks for them."""
    if _TAGS not in neutral:
        return neutral
    message = pb.ActivityRequest.FromString(neutral)
    message.slot_7[:] = _entries(message.tags)
    message.tags.clear()
    return message.SerializeToString(deterministic=True)


def entity_request(item: EntityItem) -> bytes:
    """Return the request to run operations of an entity, in the form that all these SDKs answer with its token (E.10).

    The results come back in the order of the operations, so that nothing else is needed to tell them apart.
    """
    request = pb.EntityRequest(instance_id=item.entity_id, entity_state=events.text(item.state))
    for operation in item.operations:
        event_ = request.operation_requests.add()
        event_.CopyFrom(events.decode(operation))
        asked = event_.entity_called if event_.HasField("entity_called") else event_.entity_signaled
        asked.request_id = _guid(asked.request_id)
        if event_.HasField("entity_called"):
            event_.entity_called.ClearField("turn")
            event_.entity_called.ClearField("task")
    return request.SerializeToString(deterministic=True)


def _guid(request_id: str) -> str:
    """Return the ID of a request as a GUID: any other text ends the stream of a worker in .NET, again and again."""
    if _GUID.fullmatch(request_id):
        return request_id
    digits = hashlib.sha256(request_id.encode()).hexdigest()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))
