"""Why something waits, as a message: of this sidecar's own knowledge, and as another app's says it. Pure."""

from sidecar.core import events
from sidecar.core.causes import Cause, Reason
from sidecar.schema import cause_pb2 as pb

_LONGEST_TEXT = 1_000


def message(cause: Cause) -> pb.Cause:
    """Return a cause as a message."""
    shown = pb.Cause(reason=cause.reason.value, text=cause.text, app_id=cause.app, advice=cause.advice)
    if cause.since:
        shown.since.CopyFrom(events.timestamp(cause.since))
    return shown


def read(shown: pb.Cause, app: str) -> Cause | None:
    """Return the cause that an app says, who may say anything; None if it says none, or one that is not known here."""
    try:
        reason = Reason(shown.reason)
    except ValueError:
        return None
    text = "".join(mark if mark.isprintable() else " " for mark in shown.text[:_LONGEST_TEXT])
    since = events.micros(shown.since) if shown.HasField("since") else 0
    return Cause(reason, text, max(0, since), app)
