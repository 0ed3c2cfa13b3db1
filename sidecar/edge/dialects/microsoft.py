"""Neutral bytes to what Microsoft's SDKs read. Pure."""

from sidecar.schema import taskhub_pb2 as pb

_TAGS = b"\xfa\x3e"  # the tag of our own field: a request without it is sent as it is stored


def activity(neutral: bytes) -> bytes:
    """Return a request to run an activity with its tags where this family looks for them."""
    if _TAGS not in neutral:
        return neutral
    message = pb.ActivityRequest.FromString(neutral)
    entries = [pb.Tag(key=key, value=message.tags[key]) for key in sorted(message.tags)]
    message.slot_7[:] = [entry.SerializeToString() for entry in entries]
    message.tags.clear()
    return message.SerializeToString(deterministic=True)
