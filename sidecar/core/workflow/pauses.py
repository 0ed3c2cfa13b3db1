"""Suspending and resuming an instance: for a client, and for the parent of a child.

Where configuration says so, both reach the children too, in all apps. A child ignores an order that is older than the
last one that it has carried out: a copy that comes late, or a wall clock that went back, could suspend it for good.
"""

from collections.abc import Sequence
from typing import Any

from sidecar.core import events
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Changes, Child, Decision, Kind, Outcome, Reminder, Reply, State, Status
from sidecar.core.workflow import calls, stalls
from sidecar.core.workflow import state as states
from sidecar.core.workflow.calls import Draft

_MISSING = Reply(Outcome.MISSING, "no such instance exists")
_INVALID = Reply(Outcome.INVALID, "a pause or its end was expected")
_PAUSES = {"execution_suspended": True, "execution_resumed": False}


def suspend(at: Context, state: State | None, reason: str | None) -> Decision:
    """Decide a client's suspend. It takes effect with its commit, even if a worker has a turn."""
    if state is None:
        return Decision(None, _MISSING)
    if state.instance.status.terminal or state.instance.suspended:
        return Decision(None, DONE)
    if (stalled := stalls.refusal(state.instance)) is not None:
        return Decision(None, stalled)
    return _by_client(at, state, events.suspended(at.now, reason))


def resume(at: Context, state: State | None, reason: str | None) -> Decision:
    """Decide a client's resume. An instance that is quarantined is handed out again."""
    if state is None:
        return Decision(None, _MISSING)
    if state.instance.crashes.quarantined:
        return Decision(stalls.end_quarantine(at, state), DONE)
    if (stalled := stalls.refusal(state.instance)) is not None:
        return Decision(None, stalled)
    if state.instance.status.terminal or not state.instance.suspended:
        return Decision(None, DONE)
    return _by_client(at, state, events.resumed(at.now, reason))


def _by_client(at: Context, state: State, event: bytes) -> Decision:
    draft = Draft(at, state)
    if at.me.cascade_suspend:
        _pass_on(draft, event)
    return Decision(_changed(draft, event), DONE)


def by_parent(at: Context, state: State, order: Reminder) -> Decision:
    """Decide a suspend or resume that a parent has ordered. It is passed on to the children even if it changes nothing.

    The status of a stalled child does not change: it does not run, and it goes on by itself.
    """
    instance = state.instance
    pauses = _PAUSES.get(events.decode(order.payload).WhichOneof("kind") or "")
    if pauses is None:
        return Decision(None, _INVALID)
    if instance.status.terminal or order.id <= instance.last_order:
        return Decision(None, DONE)
    draft = Draft(at, state)
    _pass_on(draft, order.payload)
    same = instance.suspended == pauses or instance.stall is not None
    event = None if same else events.stamped(order.payload, at.now)
    return Decision(_changed(draft, event, last_order=order.id), DONE)


def _pass_on(draft: Draft, event: bytes) -> None:
    calls.command_children(draft, Kind.PAUSE, living(draft.state), event)


def living(state: State) -> Sequence[Child]:
    """Return the children that are not known to have ended, in the order of their calls."""
    return [state.children[call] for call in sorted(state.children)]


def resume_children(draft: Draft) -> None:
    """Resume the children that were suspended together with an instance which will not resume them any more."""
    instance = draft.state.instance
    if instance.suspended and (draft.me.cascade_suspend or instance.last_order):
        _pass_on(draft, events.resumed(draft.now, None))


def _changed(draft: Draft, event: bytes | None, **fields: Any) -> Changes:
    instance = draft.state.instance
    rows = () if event is None else states.arrive(draft.state, [event])
    if event is not None:
        suspended = _PAUSES[events.decode(event).WhichOneof("kind") or ""]
        fields |= {
            "suspended": suspended,
            "status": Status.SUSPENDED if suspended else states.live_status(instance),
        }
    return Changes(
        key=instance.key,
        expected=instance.revision,
        instance=states.touched(draft.state, draft.now, len(rows), **fields),
        append=rows,
        set=tuple(draft.reminders),
    )
