"""Neutral bytes to what Microsoft's SDKs read. Pure."""

from collections.abc import Mapping

from sidecar.schema import taskhub_pb2 as pb

# The tags of our own fields: what has none of them is sent as it is stored.
_TAGS, _TASK_TAGS, _CHILD_TAGS = b"\xfa\x3e", b"\xea\x3e", b"\xf2\x3e"


def event(neutral: bytes) -> bytes:
    """Return a history event with the tags of its call where this family looks for them."""
    if _TASK_TAGS not in neutral and _CHILD_TAGS not in neutral:
        return neutral
    message = pb.HistoryEvent.FromString(neutral)
    if message.task_scheduled.tags:
        message.task_scheduled.slot_5[:] = _entries(message.task_scheduled.tags)
        message.task_scheduled.tags.clear()
    if message.child_created.tags:
        message.child_created.slot_6[:] = _entries(message.child_created.tags)
        message.child_created.tags.clear()
    return message.SerializeToString(deterministic=True)


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
