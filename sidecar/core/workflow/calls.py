"""Calls to activities, children, timers and entities: how one is opened and how all of them end."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sidecar.core import events
from sidecar.core.identity import AppIdentity, Context
from sidecar.core.model import (
    NO_CALL,
    ActorId,
    CallId,
    CallKind,
    Changes,
    Child,
    Decision,
    Instance,
    Kind,
    OpenCall,
    Parent,
    Reminder,
    Row,
    State,
    Status,
)
from sidecar.core.workflow import state as states
from sidecar.schema import taskhub_pb2 as pb

MOST_SENT = 1_000  # messages without an answer whose calls stay open; up to twice as many between two turns


class Lineage(NamedTuple):
    """What a workflow may pass on to those it calls: its own events, and the encoded history of its own callers."""

    log: Sequence[bytes]
    given: bytes = b""


@dataclass(slots=True)
class Draft:
    """What a step has decided so far. It lives only while the step is decided."""

    at: Context
    state: State
    turn: int = 0
    sent_before: int = -1  # tasks of messages without an answer that are below this were sent
    ending: bool = False  # the execution ends with this step: calls are sent, but nobody waits for their results
    done: set[int] = field(default_factory=set)  # IDs of the actions that were carried out
    confirmed: list[bytes] = field(default_factory=list)
    arrivals: list[bytes] = field(default_factory=list)  # events that the step itself adds to the inbox
    waiting: tuple[Row, ...] = ()  # what the turn did not process, and what arrived while it was out
    opened: dict[int, OpenCall] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)
    lineage: Lineage | None = None  # given if a call of this step asks for it
    detached: int = 0  # how many detached workflows this step starts whose ID the sidecar chooses
    reminders: list[Reminder] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    unlocked: set[tuple[str, str]] = field(default_factory=set)  # (critical section, entity that it unlocked)

    @property
    def me(self) -> AppIdentity:
        """The app that decides."""
        return self.at.me

    @property
    def now(self) -> int:
        """The time of the decision."""
        return self.at.now

    @property
    def actor(self) -> ActorId:
        """The instance that takes the step."""
        return self.me.workflow(self.state.instance.hub, self.state.instance.id)

    def is_open(self, task: int) -> bool:
        """Whether an earlier turn has opened a call of this task. A replay may name it again."""
        return task in self.state.open

    def call_id(self, task: int) -> CallId:
        """Return the identity of a call that this turn makes."""
        return CallId(self.state.instance.execution, self.turn, task)

    def remind(
        self,
        kind: Kind,
        target: ActorId,
        payload: bytes = b"",
        *,
        call: CallId = NO_CALL,
        due: int | None = None,
        name: str = "",
        kept_until_result: bool = False,
    ) -> Reminder:
        """Set a reminder and return it."""
        reminder = Reminder(
            id=self.at.ids.order(),
            kind=kind,
            owner=self.state.instance.key,
            target=target,
            source=self.actor,
            call=call,
            due=self.now if due is None else due,
            name=name,
            payload=payload,
            kept_until_result=kept_until_result and not self.ending,
        )
        self.reminders.append(reminder)
        return reminder

    def open(
        self,
        call: CallId,
        kind: CallKind,
        name: str,
        target: ActorId,
        reminder: int,
        *entities: str,
        task_execution: str = "",
    ) -> None:
        """Open a call: an answer to it is expected."""
        if not self.ending:
            self.opened[call.task] = OpenCall(call, kind, name, target, reminder, entities, task_execution)


def _sent(state: State) -> list[int]:
    return [task for task, call in state.open.items() if call.kind is CallKind.EVENT]


def sent_long_ago(state: State) -> list[int]:
    """Return the tasks of messages without an answer whose calls can be closed: very many were sent since."""
    if len(state.open) < 2 * MOST_SENT:
        return []
    sent = sorted(_sent(state))
    return sent[:-MOST_SENT] if len(sent) >= 2 * MOST_SENT else []


def first_sent(state: State) -> int:
    """Return the task below which all messages without an answer were sent: SDKs count tasks upwards."""
    if len(state.open) < MOST_SENT:
        return -1
    sent = _sent(state)
    return min(sent) if len(sent) >= MOST_SENT else -1


def end_all(draft: Draft, *, withdraw: bool) -> None:
    """End every open call of an execution that ends.

    Timers are deleted and locks released. Calls to other apps that are not delivered yet stay until they are.
    Activities that still wait are taken back if `withdraw` says so; else they run, and their results are
    dropped.
    """
    for task in sorted(draft.state.open):
        call = draft.state.open[task]
        if call.kind is CallKind.TIMER:
            draft.dropped.append(call.reminder)
        elif call.kind is CallKind.ACTIVITY and withdraw:
            _withdraw(draft, call)
        elif call.kind in (CallKind.ACTIVITY, CallKind.CHILD):
            draft.released.append(call.reminder)
        elif call.kind in (CallKind.LOCK, CallKind.HELD):
            for entity in call.entities:
                if (call.name, entity) not in draft.unlocked:
                    unlock(draft, call.name, entity)


def unlock(draft: Draft, section: str, entity: str) -> None:
    """Release the lock of an entity that a critical section waits for or has."""
    instance = draft.state.instance
    draft.unlocked.add((section, entity))
    message = events.entity_unlock_sent(draft.now, section, instance.id, entity)
    draft.remind(Kind.EVENT, draft.me.entity(instance.hub, entity), message)


def _withdraw(draft: Draft, call: OpenCall) -> None:
    if draft.me.owns(call.target):
        draft.dropped.append(call.reminder)
        return
    draft.released.append(call.reminder)
    draft.remind(Kind.WITHDRAW, call.target, call=call.call)


def withdrawing(at: Context, state: State | None, reminder: Reminder, decision: Decision) -> Decision:
    """Return a decision that answers a call, which also takes the activity back if it is one of another app."""
    changes = decision.changes
    remote = reminder.kind is Kind.ACTIVITY and not at.me.owns(reminder.target)
    if state is None or changes is None or not changes.key or not remote:
        return decision
    draft = Draft(at, state)
    draft.remind(Kind.WITHDRAW, reminder.target, call=reminder.call)
    return replace(decision, changes=replace(changes, set=(*changes.set, *draft.reminders)))


def answer_parent(draft: Draft, event: bytes, call: CallId | None = None) -> None:
    """Send the result of an instance to its parent, if it has one; to the call that was asked last if none is given."""
    parent = draft.state.instance.parent
    if parent is not None:
        draft.remind(Kind.RESULT, parent.actor, event, call=parent.asked if call is None else call)


def asking(parent: Parent, call: CallId) -> Parent:
    """Return the parent that waits for the answer to another call.

    One of the same execution is the call that created the instance, made anew perhaps in another turn.
    """
    if call.execution == parent.call.execution:
        return parent._replace(call=call, asked_by="")
    return parent._replace(asked_by=call.execution)


def asked_by_another(at: Context, state: State, call: CallId) -> Changes | None:
    """Return what lets a child answer another call than the one before; None if it is the same."""
    parent, instance = state.instance.parent, state.instance
    if parent is None or parent.asked == call:
        return None
    after = states.touched(state, at.now, 0, parent=asking(parent, call))
    return Changes(key=instance.key, expected=instance.revision, instance=after)


def child_of(state: State, call: OpenCall) -> tuple[CallId, ...]:
    """Return the call that created the child whose answer this call waits for, if the child is known to run."""
    wanted = state.children if call.kind is CallKind.CHILD else ()
    return tuple(made for made in wanted if made._replace(execution=call.call.execution) == call.call)


_ANSWERS = {
    CallKind.ACTIVITY: {"task_completed": "task_scheduled_id", "task_failed": "task_scheduled_id"},
    CallKind.CHILD: {"child_completed": "task_scheduled_id", "child_failed": "task_scheduled_id"},
    CallKind.TIMER: {"timer_fired": "timer_id"},
    CallKind.ENTITY: {"entity_completed": "request_id", "entity_failed": "request_id"},
    CallKind.LOCK: {"entity_lock_granted": "critical_section_id"},
}


def answers(payload: bytes, call: OpenCall) -> bool:
    """Whether the event ends a call of this kind and names this very call. A peer may have sent any event."""
    event = events.decode(payload)
    kind = event.WhichOneof("kind") or ""
    field = _ANSWERS[call.kind].get(kind)
    expected = call.name if call.kind in (CallKind.ENTITY, CallKind.LOCK) else call.call.task
    return field is not None and getattr(getattr(event, kind), field) == expected


def command_children(draft: Draft, kind: Kind, children: Sequence[Child], payload: bytes) -> None:
    """Send a command to children.

    The reminder names the call that created the child: a child takes commands of that call alone.
    """
    for child in children:
        draft.remind(kind, child.actor, payload, call=child.call)


def failed_child(now: int, task: int, kind: str, message: str) -> bytes:
    """Return the failure of a child workflow whose cause is not in its own code."""
    return events.child_failed(now, task, events.failure(kind, message))


def answer_again(now: int, instance: Instance, task: int, output: str | None) -> bytes:
    """Return what a child that has ended answers to the call that created it, made of what is stored of its end."""
    if instance.status is Status.COMPLETED:
        return events.child_completed(now, task, None if output is None else events.text(output))
    if instance.failure is not None:
        return events.child_failed(now, task, pb.FailureDetails.FromString(instance.failure))
    name = instance.status.name.lower()
    return failed_child(now, task, f"Workflow{name.capitalize()}", f"child workflow '{instance.id}' was {name}")


def fail_at_parent(draft: Draft, kind: str, what: str) -> None:
    """Let the call that created the instance fail because of `what` happened to the instance, such as "was purged"."""
    parent = draft.state.instance.parent
    if parent is not None:
        message = f"child workflow '{draft.state.instance.id}' {what}"
        answer_parent(draft, failed_child(draft.now, parent.call.task, kind, message))


def unreachable(
    draft: Draft, call: CallId, kind: CallKind, details: pb.FailureDetails, task_execution: str = ""
) -> None:
    """Let a call fail in the next turn without having opened it."""
    build = events.child_failed if kind is CallKind.CHILD else events.task_failed
    draft.arrivals.append(events.of_execution(build(draft.now, call.task, details), task_execution))


def answer_of(reminder: Reminder, event: bytes, now: int) -> Reminder:
    """Return the reminder that brings the result of a call back from where the call went to."""
    return replace(
        reminder,
        kind=Kind.RESULT,
        target=reminder.source,
        source=reminder.target,
        due=now,
        payload=event,
        kept_until_result=False,
    )
