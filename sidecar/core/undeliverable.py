"""What becomes of a message that another app does not take: whoever waits for what it brings is told."""

from dataclasses import replace

from sidecar.core import events
from sidecar.core.delivery import Arrival
from sidecar.core.identity import Context
from sidecar.core.model import Changes, Kind, Reminder
from sidecar.core.workflow import calls
from sidecar.schema import taskhub_pb2 as pb

TOO_LARGE = "PayloadSizeExceeded"
REFUSED = "ResultRefused"
_CALLS = frozenset({Kind.ACTIVITY, Kind.CREATE, Kind.REWIND})
_FAILURES = {
    "task_completed": events.task_failed,
    "task_failed": events.task_failed,
    "child_completed": events.child_failed,
    "child_failed": events.child_failed,
}
_REASONS = ("execution_terminated", "execution_suspended", "execution_resumed")


def is_call(reminder: Reminder) -> bool:
    """Whether a workflow of this app waits for the answer to a reminder."""
    return reminder.kind in _CALLS and reminder.owner != 0


def failed_call(reminder: Reminder, details: pb.FailureDetails, now: int) -> Arrival:
    """Return the arrival by which a call of a workflow of this app fails; it uses the call's reminder up."""
    build = events.task_failed if reminder.kind is Kind.ACTIVITY else events.child_failed
    result = calls.answer_of(reminder, build(now, reminder.call.task, details), now)
    return Arrival(result, consumed=(reminder.id,))


def smaller(reminder: Reminder, why: str, now: int) -> Reminder | None:
    """Return what is sent in the place of a message that is too large, or None: nothing can be.

    A result is sent as a failure that says why, and a parent's command without its reason: it is to be obeyed.
    """
    if reminder.kind is Kind.RESULT:
        return _as_failure(reminder, events.failure(TOO_LARGE, why, retriable=False), now)
    if reminder.kind in (Kind.TERMINATE, Kind.PAUSE):
        return _without_reason(reminder)
    return None


def given_up(at: Context, reminder: Reminder, why: str) -> Changes:
    """Return the changes that drop a message which its app has refused for good, and is no call.

    In the place of a result a failure is sent, once: the workflow that waits for it would wait for ever.
    """
    failed = None
    if reminder.kind is Kind.RESULT and not _says_refused(reminder.payload):
        failed = _as_failure(reminder, events.failure(REFUSED, why, retriable=False), at.now)
    instead = () if failed is None else (replace(failed, id=at.ids.order()),)
    return Changes(set=instead, dropped=(reminder.id,), required=(reminder.id,))


def _as_failure(result: Reminder, details: pb.FailureDetails, now: int) -> Reminder | None:
    before = events.decode(result.payload)
    kind = before.WhichOneof("kind") or ""
    if kind not in _FAILURES:
        return None
    return replace(result, payload=_FAILURES[kind](now, getattr(before, kind).task_scheduled_id, details))


def _says_refused(payload: bytes) -> bool:
    event = events.decode(payload)
    return REFUSED in (event.task_failed.failure.error_type, event.child_failed.failure.error_type)


def _without_reason(command: Reminder) -> Reminder:
    event = events.decode(command.payload)
    kind = event.WhichOneof("kind") or ""
    if kind in _REASONS:
        getattr(event, kind).ClearField("input")
    return replace(command, payload=events.encode(event))
