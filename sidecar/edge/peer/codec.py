"""The messages of a peer link and the values of the core, from one to the other. Pure."""

from sidecar.core.errors import MalformedError
from sidecar.core.identity import AppIdentity
from sidecar.core.ids import LARGEST_NUMBER, PeerId
from sidecar.core.model import DEFAULT_HUB, ActorId, CallId, Kind, Outcome, Reminder, Reply
from sidecar.core.names import invalid_instance_id
from sidecar.schema import peer_pb2 as pb

# The numbers cross the link: never renumber.
_VERDICTS = {
    Outcome.DONE: 0,
    Outcome.DUPLICATE: 1,
    Outcome.STALE: 2,
    Outcome.MISSING: 3,
    Outcome.EXISTS: 4,
    Outcome.WRONG_STATE: 5,
    Outcome.DENIED: 6,
    Outcome.INVALID: 7,
    Outcome.UNAVAILABLE: 8,
}
_OUTCOMES = {number: outcome for outcome, number in _VERDICTS.items()}


_LONGEST_TEXT = 500  # bytes of the reason in an answer
_ANSWER_BYTES = 32  # of an answer without its reason, at most


def longest_text(most_bytes: int, answers: int) -> int:
    """Return how many bytes the reason of each of so many answers may have, for all to fit into `most_bytes`."""
    return max(0, min(_LONGEST_TEXT, most_bytes // max(1, answers) - _ANSWER_BYTES))


def answer_of(message: int, reply: Reply, longest: int = _LONGEST_TEXT) -> pb.Answer:
    """Return what is said of a message that was taken in or refused, with a reason of at most `longest` bytes."""
    text = reply.text.encode("utf-8", "replace")[:longest].decode("utf-8", "ignore")
    return pb.Answer(id=message, verdict=_VERDICTS[reply.outcome], text=text)


def _actor(actor: ActorId) -> pb.Actor:
    return pb.Actor(namespace=actor.namespace, app_id=actor.app, kind=actor.kind, hub=actor.hub, id=actor.id)


def call_of(message: pb.Message) -> CallId:
    """Return the call that a message is about; all empty if it is about none."""
    return CallId(message.call.execution_id, message.call.turn, message.call.task_id)


def message_of(reminder: Reminder) -> pb.Message:
    execution, turn, task = reminder.call
    return pb.Message(
        id=reminder.id,
        kind=int(reminder.kind),
        target=_actor(reminder.target),
        source=_actor(reminder.source),
        call=pb.Call(execution_id=execution, turn=turn, task_id=task),
        name=reminder.name,
        payload=reminder.payload,
    )


_FOR_OTHERS = {
    *(Kind.ACTIVITY, Kind.CREATE, Kind.RESULT, Kind.EVENT, Kind.TERMINATE, Kind.PURGE, Kind.WITHDRAW, Kind.DETACHED),
    *(Kind.REWIND, Kind.PAUSE),
}


def reminder_of(me: AppIdentity, peer: PeerId, message: pb.Message) -> Reminder:
    """Return what a peer sent, with the app it comes from stamped on it, whatever it claims to be.

    Raises:
        MalformedError: it is not for this app, or no message that another app may send.
    """
    target = message.target
    if (target.namespace, target.app_id) != (me.namespace, me.app):
        raise MalformedError(f"the message is for app '{target.app_id[:64]}', this is '{me.app}'")
    if message.kind not in _FOR_OTHERS:
        raise MalformedError(f"a peer may not send a message of kind {message.kind}")
    if message.id > LARGEST_NUMBER:
        raise MalformedError(f"no message has the number {message.id}")
    kind = Kind(message.kind)
    wrong = None if kind in (Kind.ACTIVITY, Kind.WITHDRAW) else invalid_instance_id(target.id)
    if wrong:
        raise MalformedError(wrong)
    # Only the answer to a call finds its way to another hub: the one that made the call.
    hub = target.hub if kind is Kind.RESULT else DEFAULT_HUB
    return Reminder(
        id=message.id,
        kind=kind,
        owner=0,
        target=ActorId(me.namespace, me.app, target.kind, hub, target.id),
        source=ActorId(*peer, message.source.kind, message.source.hub, message.source.id),
        call=call_of(message),
        due=0,
        name=message.name,
        payload=message.payload,
    )


def reply_of(answer: pb.Answer) -> Reply:
    return Reply(_OUTCOMES.get(answer.verdict, Outcome.UNAVAILABLE), answer.text)
