"""Pausing an instance and letting it go on: for a client, and for the parent of a child.

Where configuration says so, a pause reaches the children too, over all apps, as does its end. A child obeys no order
that is older than the last one: when the wall clock has gone back, or a copy comes late, it would be paused for good.
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
    """Decide a client's pause: it holds from its commit, whatever a worker is doing."""
    if state is None:
        return Decision(None, _MISSING)
    if state.instance.status.terminal or state.instance.suspended:
        return Decision(None, DONE)
    if (stalled := stalls.refusal(state.instance)) is not None:
        return Decision(None, stalled)
    return _by_client(at, state, events.suspended(at.now, reason))


def resume(at: Context, state: State | None, reason: str | None) -> Decision:
    """Decide a client's end of a pause, or that what was parked is handed out again."""
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
    """Decide a pause or its end that a parent has ordered; whatever it changes here, the children are told too.

    A child that is stalled stays so: it does not run, and goes on by itself.
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


def let_children_go(draft: Draft) -> None:
    """Let the children of an instance go on that was paused with them and will not end their pause itself."""
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
