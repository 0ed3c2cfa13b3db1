"""Why workflows wait, for a person to see, and the way out: to try again now, or to let a call fail."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sidecar.actors.residents import Address
from sidecar.core import causes, events, operations, undeliverable
from sidecar.core.causes import Cause, Reason
from sidecar.core.delivery import arrive
from sidecar.core.entity import entity
from sidecar.core.identity import Context
from sidecar.core.model import (
    DONE,
    CallKind,
    Child,
    Decision,
    Kind,
    OpenCall,
    Outcome,
    Reminder,
    Reply,
    State,
)
from sidecar.core.workflow import calls, stalls
from sidecar.peers.outbox import Outbox
from sidecar.services.clients import OWN, Caller, ClientService, InstanceView
from sidecar.store.protocol import Waiting
from sidecar.work.dispatch import Dispatch
from sidecar.work.leases import is_running

FAILED_BY_PERSON = "CallFailedByOperator"
MISSING = Reply(Outcome.MISSING, "no such call waits")
_AT_ENTITIES = (CallKind.ENTITY, CallKind.LOCK)
_SHOWN = {
    CallKind.ACTIVITY: "activity",
    CallKind.CHILD: "child",
    CallKind.TIMER: "timer",
    CallKind.WAIT: "event",
    CallKind.ENTITY: "entity",
    CallKind.LOCK: "lock",
}
_HELD = (Reason.PARKED, Reason.STALLED, Reason.SUSPENDED)


class Wait(NamedTuple):
    """One thing that an instance waits for; `since` is 0 when it is not known, and of a timer when it fires."""

    kind: str
    name: str
    app: str
    task: int
    since: int
    state: str
    error: str = ""
    crashes: int = 0
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class TreeNode:
    """An instance with what it waits for and its children, own ones and those of other apps."""

    view: InstanceView
    waits: list[Wait]
    children: Sequence[Child]


class Inspection:
    """The looks and the ways out, over one sidecar."""

    def __init__(self, service: ClientService, dispatch: Dispatch, outbox: Outbox) -> None:
        self._service = service
        self._engine = service.engine
        self._dispatch = dispatch
        self._outbox = outbox
        self._waiting = service.waiting

    async def waiting(self, app: str, after: int, limit: int) -> list[tuple[Waiting, int, Cause | None]]:
        """Return calls that wait for another app, each with the attempts that failed and why it waits."""
        found = await self._engine.store.waiting(app, after, limit)
        return [(one, self._attempts(one), self._cause(one)) for one in found]

    def _attempts(self, call: Waiting) -> int:
        queue = self._outbox.queues.get((call.target.namespace, call.target.app))
        return 0 if queue is None or call.delivered else queue.failures

    def _cause(self, call: Waiting) -> Cause | None:
        kind = CallKind.CHILD if call.kind is Kind.CREATE else CallKind.ACTIVITY
        return self._waiting.of_call(OpenCall(call.call, kind, call.name, call.target, call.id))

    def retry(self, app: str) -> list[str]:
        """Try to reach an app now ("": every app); return the apps for which something waits."""
        return self._outbox.retry(app)

    async def fail(self, reminder_id: int, reason: str) -> Reply:
        """Let the call of this reminder fail, as a workflow sees it; work that is out for it is taken back."""
        reminder = await self._engine.store.reminder(reminder_id)
        if reminder is not None and reminder.kind is Kind.ACTIVITY and self._engine.me.owns(reminder.target):
            return await self._fail_activity(reminder, reason)
        if reminder is None or not reminder.owner or reminder.kind not in (Kind.ACTIVITY, Kind.CREATE):
            return MISSING
        details = events.failure(FAILED_BY_PERSON, reason, retriable=False)
        arrival = undeliverable.failed_call(reminder, details, self._engine.clock.now())

        def decide(at: Context, state: State | None) -> Decision:
            decision = arrive(at, state, arrival)
            return calls.withdrawing(at, state, reminder, decision)

        reply = await self._engine.submit((reminder.source.hub, reminder.source.id), decide)
        return MISSING if reply.outcome in (Outcome.DUPLICATE, Outcome.STALE) else reply

    async def _fail_activity(self, reminder: Reminder, reason: str) -> Reply:
        details = events.failure(FAILED_BY_PERSON, reason, retriable=False)
        event = events.task_failed(self._engine.clock.now(), reminder.call.task, details)
        reply = await self._dispatch.activities.settle(reminder, event)
        return MISSING if reply.outcome in (Outcome.DUPLICATE, Outcome.STALE) else reply

    async def unpark(self, address: Address) -> Reply:
        """Hand out again what was parked because each worker that got it was lost."""

        def decide(at: Context, state: State | None) -> Decision:
            if state is None:
                return Decision(None, Reply(Outcome.MISSING, "no such instance exists"))
            if not state.instance.crashes.quarantined:
                return Decision(None, Reply(Outcome.WRONG_STATE, f"'{address[1]}' is not parked"))
            end = entity.end_quarantine if state.instance.entity else stalls.end_quarantine
            return Decision(end(at, state), DONE)

        return await self._engine.submit(address, decide)

    async def terminate(self, address: Address, reason: str, *, recursive: bool) -> Reply:
        """End a workflow, though it may be stalled; the reason becomes its output, as JSON."""

        def decide(at: Context, state: State | None) -> Decision:
            if state is not None and state.instance.entity:
                return Decision(None, Reply(Outcome.WRONG_STATE, f"'{address[1]}' is an entity: it can be purged"))
            return operations.terminate(at, state, json.dumps(reason), recursive, by_operator=True)

        return await self._engine.submit(address, decide)

    async def branch(self, address: Address, caller: Caller = OWN) -> TreeNode | None:
        """Return an instance with what it waits for, or None. Raises DeniedError."""
        view = await self._service.view(address, False, caller)
        if view is None:
            return None
        state = await self._service.state(address)
        if state is None:
            return None
        waits = [await self._wait(call) for _, call in sorted(state.open.items()) if call.kind in _SHOWN]
        waits += self._for_worker(address, state)
        return TreeNode(view, waits, await self._engine.store.children(state.instance.key))

    def _for_worker(self, address: Address, state: State) -> list[Wait]:
        """Return what an instance waits for of its workers: to be handed out, or to be answered."""
        instance = state.instance
        count, error, _ = instance.crashes
        running = is_running(self._engine.actor(address))
        cause = None if running else self._waiting.of_instance(instance)
        if cause is None and instance.lock is not None and state.inbox and not running:
            cause = causes.locked(instance.id, instance.lock.owner)
        if not (instance.ready or cause):
            return []
        shown = "running" if running else cause.reason.value if cause and cause.reason in _HELD else "queued"
        since = events.micros(events.decode(state.inbox[0].event).timestamp) if state.inbox else 0
        text = error if cause is None else cause.text
        return [Wait("worker", instance.name, self._engine.me.app, 0, since, shown, text, count, cause)]

    async def _wait(self, call: OpenCall) -> Wait:
        reminder = await self._engine.store.reminder(call.reminder) if call.reminder else None
        for entity_id in call.entities or ((call.target.id,) if call.kind in _AT_ENTITIES else ()):
            await self._service.instance((call.target.hub, entity_id))  # so that it is in memory
        cause = self._waiting.of_call(call)
        wait = Wait(
            kind="event" if _awaits_event(call) else _SHOWN[call.kind],
            name=call.target.id if call.kind in _AT_ENTITIES else call.name,
            app=call.target.app,
            task=call.call.task,
            since=0 if reminder is None else reminder.due,
            state=self._state(call, reminder),
            error="" if cause is None else cause.text,
            cause=cause,
        )
        if reminder is None or call.kind not in (CallKind.ACTIVITY, CallKind.CHILD):
            return wait
        return wait._replace(crashes=reminder.crashes.times, error=wait.error or reminder.crashes.error)

    def _state(self, call: OpenCall, reminder: Reminder | None) -> str:
        """Return how far a call is, in a word."""
        if call.kind in _AT_ENTITIES:
            return "queued"
        if _awaits_event(call):
            return "awaited"
        if call.kind is CallKind.TIMER:
            return "set"
        if self._engine.me.owns(call.target):
            if reminder is None:
                return "started"
            return "running" if call.reminder in self._dispatch.activities.leases else "queued"
        queue = self._outbox.queues.get((call.target.namespace, call.target.app))
        return "not delivered" if queue is not None and call.reminder in queue.pending else "delivered"


def _awaits_event(call: OpenCall) -> bool:
    """Whether a call waits for an external event: a wait, or the timer that limits one."""
    return call.kind is CallKind.WAIT or (call.kind is CallKind.TIMER and bool(call.name))
