"""The lock of an entity: who gets it, who lets go of it, and when."""

from collections.abc import Sequence

from sidecar.core import events
from sidecar.core.entity.inbox import is_of_holder, may_run
from sidecar.core.entity.step import Step, step_over
from sidecar.core.identity import Context
from sidecar.core.model import DONE, CallId, Decision, Kind, Lock, Outcome, Reply, Row, State
from sidecar.schema import taskhub_pb2 as pb


def unlock(at: Context, state: State | None, owner: str, message: bytes) -> Decision:
    """End a critical section, or take its request back if that still waits."""
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
    """Unlock what a request has locked on its way here: the owner's unlock may have been there before it."""
    hub = step.instance.hub
    for entity in locked:
        unlock = events.entity_unlock_sent(step.at.now, section, owner, entity)
        step.send(Kind.EVENT, step.at.me.entity(hub, entity), unlock, source=step.at.me.workflow(hub, owner))


def _released(at: Context, state: State, unlock: bytes) -> Decision:
    """Return the decision that takes the lock from its holder; who waits for it gets it.

    What the holder has asked for and what has not run is of its critical section: the unlock waits behind it.
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


def let_go(step: Step) -> None:
    """Take the lock from its holder when its unlock waits and nothing of it is in front of that."""
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
    """Grant the lock when what waits at the front is a request for it."""
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
    """Decide to take a lock from an execution that has ended."""
    if state is None or state.instance.lock != orphan:
        return Decision(None, Reply(Outcome.STALE))
    return _released(at, state, events.entity_unlock_sent(at.now, orphan.section, orphan.owner, state.instance.id))
