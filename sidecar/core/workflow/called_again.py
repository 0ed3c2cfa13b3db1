"""A child that is called again: by the same message, or by a parent that went back and makes its call anew.

A parent whose store goes back runs again from there. What it has called since it calls again, perhaps in another turn,
as results come in other portions; execution and task of such a call are the same.
"""

from dataclasses import replace

from sidecar.core.identity import AppIdentity, Context
from sidecar.core.model import Changes, Decision, Kind, Outcome, Parent, Reminder, Reply, State, Status
from sidecar.core.workflow import calls, rewind
from sidecar.core.workflow.calls import Draft
from sidecar.core.workflow.rewind import Record


def is_same_call(state: State, reminder: Reminder) -> bool:
    """Whether this is the creation of the instance that is there. The execution ID that it is to have may be another.

    After a failure a call of the same task in a later turn is a new one: so SDKs try again.
    """
    parent = _parent_of_same_name(state, reminder)
    if reminder.kind is not Kind.CREATE or parent is None:
        return False
    if parent.call == reminder.call:
        return True
    status = state.instance.status
    same = parent.call._replace(turn=reminder.call.turn) == reminder.call
    return same and (not status.terminal or status is Status.COMPLETED)


def is_ahead(me: AppIdentity, state: State, reminder: Reminder) -> bool:
    """Whether an instance that runs was called by its parent later than this, so that its parent has gone back."""
    parent = _parent_of_same_name(state, reminder)
    if parent is None or state.instance.status.terminal or me.owns(reminder.source):
        return False
    return parent.call.execution != reminder.call.execution and reminder.call.turn < parent.call.turn


def to_be_waited_for(state: State) -> Decision:
    """Return the decision for a call that comes before the one that made the instance: nobody waits for that one."""
    text = f"workflow '{state.instance.id}' runs for a later call of the same workflow, which has gone back since"
    return Decision(None, Reply(Outcome.UNAVAILABLE, f"{text}: its end is waited for"))


def answered(at: Context, state: State, reminder: Reminder, record: Record | None) -> Decision:
    """Answer a creation that has come before: a child that runs will answer, one that has ended answers again.

    Either way it is the child of this call from now on.
    """
    instance = state.instance
    if instance.status.terminal and (record is None or not record.is_of(instance)):
        return Decision(None, rewind.MOVED)
    changes = calls.asked_by_another(at, state, reminder.call)
    if record is not None and instance.status.terminal:
        draft = Draft(at, state)
        answer = calls.answer_again(at.now, instance, reminder.call.task, record.output)
        calls.answer_parent(draft, answer, reminder.call)
        changes = replace(changes or Changes(), set=tuple(draft.reminders))
    return Decision(changes, Reply(Outcome.DUPLICATE))


def _parent_of_same_name(state: State, reminder: Reminder) -> Parent | None:
    """Return the parent of an instance if it is the workflow that has sent this."""
    parent = state.instance.parent
    if parent is None or parent.actor[:2] != reminder.source[:2] or parent.actor.id != reminder.source.id:
        return None
    return parent
