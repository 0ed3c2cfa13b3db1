"""History that a workflow passes on to those it calls: its own, or also that of its callers.

Workers ask for it with each call. It has all up to that call, with what the same turn has called before. It travels in
the reminder and is stored beside the instance that it is for. It is never part of an instance's own history. An
execution that was given one hands it to the next when it continues as new, with its own history behind it.

An access policy may require that something has happened in the caller's history. Only the last chunk counts, and only
if it is of the app that the link has proved and of the instance that makes the call: the sidecar of that app wrote it,
not its workers. Earlier chunks, of ancestors, came to the caller from other apps; nobody here can check them.
"""

from collections.abc import Iterator, Sequence

from google.protobuf.message import DecodeError

from sidecar.core import events
from sidecar.core.errors import MalformedError
from sidecar.core.model import ActorId, Instance, Status
from sidecar.core.policy import Happened
from sidecar.core.work_items import fitting
from sidecar.core.workflow.calls import Draft
from sidecar.schema import taskhub_pb2 as pb

OWN, ALL = 1, 2  # the scopes of the protocol
MOST_OF_GENERATIONS = 1024 * 1024  # bytes: else the history of a workflow without end would outgrow its workers


def passed_on(instance: Instance, response: pb.OrchestratorResponse) -> bool:
    """Whether an answer to a turn of this instance passes history on: to a call, or to the next execution."""
    return any(
        action.schedule_task.history_propagation_scope
        or action.create_child.history_propagation_scope
        or (instance.lineage and action.complete.status == Status.CONTINUED_AS_NEW)
        for action in response.actions
    )


def check(given: bytes) -> None:
    """Check that the history that another app sent can be sent to workers.

    Raises:
        MalformedError: it cannot be decoded.
    """
    try:
        history = pb.PropagatedHistory.FromString(given)
    except DecodeError as error:
        raise MalformedError("the history of the callers cannot be read") from error
    for chunk in history.chunks:
        for event in chunk.raw_events:
            events.decode(event)


def of_call(draft: Draft, scope: int) -> bytes:
    """Return the encoded history that goes with a call; b"" if it asks for none."""
    if scope not in (OWN, ALL) or draft.lineage is None:
        return b""
    history = pb.PropagatedHistory(scope=scope)
    if scope == ALL:
        history.chunks.extend(pb.PropagatedHistory.FromString(draft.lineage.given).chunks)
    history.chunks.append(_own(draft, draft.lineage.log))
    return history.SerializeToString(deterministic=True)


def of_next(draft: Draft) -> bytes:
    """Return the encoded history for the next execution of an instance that continues as new; b"" for none.

    There is one if the instance was given one (E.15): that, and then the execution that ends, with as many of those
    before it as `MOST_OF_GENERATIONS` bytes take, the last ones.
    """
    if draft.lineage is None or not draft.lineage.given:
        return b""
    history = pb.PropagatedHistory.FromString(draft.lineage.given)
    ended = _own(draft, draft.lineage.log)
    own = [chunk for chunk in history.chunks if _origin(chunk) == _origin(ended)] + [ended]
    others = [chunk for chunk in history.chunks if _origin(chunk) != _origin(ended)]
    kept = fitting((chunk.ByteSize() for chunk in reversed(own)), MOST_OF_GENERATIONS)
    del history.chunks[:]
    history.chunks.extend([*others, *own[len(own) - kept :]])
    return history.SerializeToString(deterministic=True)


def _own(draft: Draft, log: Sequence[bytes]) -> pb.PropagatedChunk:
    """Return the history of the execution that makes a step, with what the step has called so far."""
    instance = draft.state.instance
    return pb.PropagatedChunk(
        raw_events=[*log, *draft.confirmed],
        app_id=draft.me.app,
        instance_id=instance.id,
        workflow_name=instance.name,
    )


def _origin(chunk: pb.PropagatedChunk) -> tuple[str, str]:
    return chunk.app_id, chunk.instance_id


_MADE = {"task_scheduled": "activity", "child_created": "workflow"}
_ENDED = {
    "task_completed": ("activity", "completed"),
    "task_failed": ("activity", "failed"),
    "child_completed": ("workflow", "completed"),
    "child_failed": ("workflow", "failed"),
}


def happened(encoded: bytes, caller: ActorId) -> Iterator[Happened]:
    """Return what has happened in the history of a caller, as far as its call brought a history that can be trusted."""
    try:
        chunks = pb.PropagatedHistory.FromString(encoded).chunks
        if not chunks or (chunks[-1].app_id, chunks[-1].instance_id) != (caller.app, caller.id):
            return iter(())
        return _happened([events.decode(event) for event in chunks[-1].raw_events], caller.app)
    except (DecodeError, MalformedError):
        return iter(())


def _happened(log: Sequence[pb.HistoryEvent], own: str) -> Iterator[Happened]:
    made: dict[tuple[str, int], Happened] = {}
    for event in log:
        kind = event.WhichOneof("kind") or ""
        if kind in _MADE:
            call = Happened(_MADE[kind], getattr(event, kind).name, "scheduled", event.router.target_app_id or own)
            made[call.kind, event.event_id] = call
            yield call
        elif kind in _ENDED:
            called, outcome = _ENDED[kind]
            ended = made.get((called, getattr(event, kind).task_scheduled_id))
            if ended is not None:
                yield ended._replace(outcome=outcome)
        elif kind == "event_raised":
            yield Happened("event", event.event_raised.name, "raised", own)
