"""Activities that run in this app, for its own workflows and for those of other apps: taken in, answered, withdrawn."""

from dataclasses import replace

from google.protobuf.message import DecodeError

from sidecar.core.delivery import Arrival, arrive
from sidecar.core.errors import MalformedError
from sidecar.core.identity import Context
from sidecar.core.model import ActorId, Changes, Decision, Kind, Reminder, State
from sidecar.core.workflow import calls, propagated_history
from sidecar.schema import taskhub_pb2 as pb


def activity_done(at: Context, state: State | None, reminder: Reminder, event: bytes) -> Decision:
    """Decide what a worker's answer to an activity of this app's workflows changes at the workflow."""
    result = calls.answer_of(reminder, event, at.now)
    return arrive(at, state, Arrival(result, consumed=(reminder.id,)))


def foreign_activity_done(at: Context, reminder: Reminder, event: bytes) -> Changes:
    """Return the changes that replace an activity of another app by its result, which is sent to that app."""
    home = ActorId(*reminder.source[:2], "workflow", *reminder.source[3:])
    result = Reminder(at.ids.order(), Kind.RESULT, 0, home, reminder.target, reminder.call, at.now, "", event)
    return Changes(set=(result,), dropped=(reminder.id,), required=(reminder.id,))


def accept_activity(at: Context, message: Reminder) -> Changes:
    """Return the changes that store an activity of another app. The store ignores one that it has already.

    Raises:
        MalformedError: the payload is no request to run an activity.
    """
    requested(message)
    target = at.me.activity(message.target.hub, message.target.id)
    return Changes(set=(replace(message, id=at.ids.order(), owner=0, target=target, due=at.now),))


def requested(message: Reminder) -> pb.ActivityRequest:
    """Return the activity that a message asks for.

    Limits and the filters of workers go by the name on the message, the policy and the worker by that in the payload.

    Raises:
        MalformedError: the payload is no request to run an activity, or one for another than the message names.
    """
    try:
        request = pb.ActivityRequest.FromString(message.payload)
    except DecodeError as error:
        raise MalformedError("the payload is no request to run an activity") from error
    if request.name != message.name:
        text = f"the message is about activity '{message.name[:64]}', and its payload about '{request.name[:64]}'"
        raise MalformedError(text)
    propagated_history.check(request.lineage)
    return request


def withdrawn(reminder: Reminder) -> Changes:
    """Return the changes that delete an activity of another app which took it back, if it is still there."""
    return Changes(dropped=(reminder.id,), required=(reminder.id,))
