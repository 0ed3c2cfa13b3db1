"""Neutral bytes to what Microsoft's SDKs read. Pure."""

from collections.abc import Iterable, Mapping, MutableMapping

from sidecar.schema import taskhub_pb2 as pb

# The tags of our own fields: what has none of them is sent as it is stored.
_TAGS, _TASK_TAGS, _CHILD_TAGS, _REWOUND = b"\xfa\x3e", b"\xea\x3e", b"\xf2\x3e", b"\xba\x40"


def event(neutral: bytes) -> bytes:
    """Return a history event with the tags of its call, or a rewind, where this family looks for them."""
    if not any(tag in neutral for tag in (_TASK_TAGS, _CHILD_TAGS, _REWOUND)):
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
    return message.SerializeToString(deterministic=True)


def _entries(tags: Mapping[str, str]) -> list[bytes]:
    return [pb.Tag(key=key, value=tags[key]).SerializeToString() for key in sorted(tags)]


def to_neutral(event_: pb.HistoryEvent) -> None:
    """Move what is in this family's slots of a history event to where the neutral form has it."""
    if event_.HasField("slot_30"):
        event_.execution_rewound.MergeFromString(event_.slot_30)
        event_.ClearField("slot_30")
    if event_.HasField("task_scheduled"):
        _tags(event_.task_scheduled.tags, event_.task_scheduled.slot_5)
        event_.task_scheduled.ClearField("slot_5")
    if event_.HasField("child_created"):
        _tags(event_.child_created.tags, event_.child_created.slot_6)
        event_.child_created.ClearField("slot_6")


def _tags(tags: MutableMapping[str, str], entries: Iterable[bytes]) -> None:
    for entry in entries:
        tag = pb.Tag.FromString(entry)
        tags[tag.key] = tag.value


def activity(neutral: bytes) -> bytes:
    """Return a request to run an activity with its tags where this family looks for them."""
    if _TAGS not in neutral:
        return neutral
    message = pb.ActivityRequest.FromString(neutral)
    message.slot_7[:] = _entries(message.tags)
    message.tags.clear()
    return message.SerializeToString(deterministic=True)
