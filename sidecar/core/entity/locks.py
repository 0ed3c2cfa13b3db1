"""The lock of an entity: when it is granted, and when it is released."""

from collections.abc import Sequence

from sidecar.core import events
from sidecar.core.entity.inbox import is_of_holder, may_run
from sidecar.core.entity.step import Step, step_over
from sidecar.core.identity import Context
from sidecar.core.model import DONE, CallId, Decision, Kind, Lock, Outcome, Reply, Row, State
from sidecar.schema import taskhub_pb2 as pb


def unlock(at: Context, state: State | None, owner: str, message: bytes) -> Decision:
    """Decide an unlock by the workflow `owner`: it releases the lock, or removes a request that still waits."""
    if state is None:
        return Decision(None, DONE)
    lock, section = state.instance.lock, events.decode(message).entity_unlock_sent.critical_section_id
    if lock is not None and (lock.owner, lock.section) == (owner, section):
        return _released(at, state, message)
    step = step_over(at, state)
    for row in state.inbox:
        wanted = events.decode(row.event).entity_lock_requested
        if (wanted.parent_instance_id.value, wanted.critical_section_id) == (owner, section):
            step.gone.add(row.position)
            _hand_back(step, owner, section, wanted.lock_set[: wanted.position])
            return Decision(step.changes(), DONE)
    return Decision(None, DONE)


def _hand_back(step: Step, owner: str, section: str, locked: Sequence[str]) -> None:
    """Unlock the entities that a request locked on its way here: the owner's unlock may have reached them before it."""
    hub = step.instance.hub
    for entity in locked:
        unlock = events.entity_unlock_sent(step.at.now, section, owner, entity)
        step.send(Kind.EVENT, step.at.me.entity(hub, entity), unlock, source=step.at.me.workflow(hub, owner))


def _released(at: Context, state: State, unlock: bytes) -> Decision:
    """Return the decision that releases the lock and grants it to the next request, if one is at the front.

    Calls of the holder that have not run yet belong to its critical section: the unlock waits behind them.
    """
    step = step_over(at, state)
    if not may_run(state.inbox, state.instance.lock):  # of what waits, only calls of the holder may run
        step.lock = None
        grant(step)
    elif any(_is_unlock(events.decode(row.event)) for row in state.inbox):
        return Decision(None, DONE)
    else:
        step.fresh.append(Row(*step.tail, unlock))
    return Decision(step.changes(), DONE)


def _is_unlock(event: pb.HistoryEvent) -> bool:
    return event.HasField("entity_unlock_sent")


def release_when_due(step: Step) -> None:
    """Release the lock if the holder's unlock waits and none of the holder's calls is in front of it."""
    if step.lock is None:
        return
    for row in step.queue():
        event = events.decode(row.event)
        if is_of_holder(event, step.lock):
            return
        if _is_unlock(event):
            step.gone.add(row.position)
            step.lock = None
            return


def grant(step: Step) -> None:
    """Grant the lock if a request for it is at the front, and pass the request on to the next entity that it names."""
    front = next(step.queue(), None)
    if step.lock is not None or front is None:
        return
    event = events.decode(front.event)
    if event.WhichOneof("kind") != "entity_lock_requested":
        return
    step.gone.add(front.position)
    wanted, hub = event.entity_lock_requested, step.instance.hub
    owner, execution, section = wanted.parent_instance_id.value, wanted.parent_execution_id, wanted.critical_section_id
    step.lock = Lock(owner, execution, section)
    wanted.position += 1
    if wanted.position < len(wanted.lock_set):
        step.send(Kind.EVENT, step.at.me.entity(hub, wanted.lock_set[wanted.position]), events.encode(event))
        return
    granted = events.entity_lock_granted(step.at.now, section, wanted.lock_set)
    call = CallId(execution, wanted.turn, wanted.task)
    step.send(Kind.RESULT, step.at.me.workflow(hub, owner), granted, call=call)


def release(at: Context, state: State | None, orphan: Lock) -> Decision:
    """Decide to release a lock whose execution has ended, if it still has the lock."""
    if state is None or state.instance.lock != orphan:
        return Decision(None, Reply(Outcome.STALE))
    return _released(at, state, events.entity_unlock_sent(at.now, orphan.section, orphan.owner, state.instance.id))
